//! Handles of one store in many threads, against what they must have done together.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::collections::HashMap;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::random::{self, Random};
use ringway::store::{CompareError, Store, StoreOptions, WriteError};

fn store_of(capacity_bytes: u64, max_readers: u32) -> Store {
    let options = StoreOptions { capacity_bytes, max_readers, ..StoreOptions::default() };
    Store::anonymous(&options).unwrap()
}

const THREADS: u64 = 4;
const KEYS: u64 = 30;

fn rounds() -> u64 {
    if cfg!(debug_assertions) { 4000 } else { 100_000 }
}

fn own_key(thread: u64, key: u64) -> String {
    format!("thread {thread} key {key}")
}

/// Changes keys of its own, of which it knows what they are, and keys of everybody.
fn work(store: &Store, thread: u64, seed: u64) -> HashMap<String, Vec<u8>> {
    let mut random = Random::new(seed ^ thread);
    let mut model = HashMap::<String, Vec<u8>>::new();
    for round in 0..rounds() {
        let key = own_key(thread, random.below(KEYS));
        let bytes = round.to_le_bytes().repeat(random.below(40) as usize);
        match random.below(10) {
            0..4 => {
                store.set(&key, &bytes).unwrap();
                model.insert(key, bytes);
            }
            4 => {
                assert_eq!(store.delete(&key), Ok(model.remove(&key).is_some()));
            }
            5 => {
                assert_eq!(store.swap(&key, &bytes), Ok(model.insert(key, bytes)));
            }
            6 => {
                let found = store.get(&key).unwrap();
                assert_eq!(found.as_deref(), model.get(&key).map(Vec::as_slice));
            }
            7 => {
                store.fetch_add("sum", 1).unwrap();
                store.fetch_add(format!("sum {thread}"), 1).unwrap();
            }
            8 => {
                // What others have counted must not get lost between the look and the change.
                let counted = store.update("counted", |old| {
                    let old = old.map_or(0, |old| u64::from_le_bytes(old.try_into().unwrap()));
                    Some((old + 1).to_le_bytes().to_vec())
                });
                counted.unwrap();
                store.fetch_add(format!("counted {thread}"), 1).unwrap();
            }
            _ => exchange(store, thread),
        }
        // Everybody's: whole, whoever wrote it.
        if let Some(everybodys) = store.get("everybody's").unwrap() {
            assert!(everybodys.windows(2).all(|pair| pair[0] == pair[1]));
        }
        if round % 16 == 0 {
            store.set("everybody's", &vec![round as u8; random.below(2000) as usize]).unwrap();
        }
    }
    model
}

/// Adds one by looking, and exchanging what has not changed since.
fn exchange(store: &Store, thread: u64) {
    loop {
        let found = store.get("exchanged").unwrap();
        let value = found.as_ref().map_or(0, |v| u64::from_le_bytes((**v).try_into().unwrap()));
        let expected = found.as_ref().map(|value| value.version());
        let new = (value + 1).to_le_bytes();
        match store.compare_exchange("exchanged", expected, Some(&new)) {
            Ok(_) => break,
            Err(CompareError::Changed { found }) => assert_ne!(found, expected),
            Err(error) => panic!("{error}"),
        }
    }
    store.fetch_add(format!("exchanged {thread}"), 1).unwrap();
}

#[test]
fn what_many_threads_do_adds_up() {
    let seed = random::seed();
    let store = store_of(1 << 20, THREADS as u32 + 1);
    let models: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let handle = store.try_clone().unwrap();
                scope.spawn(move || work(&handle, thread, seed))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (thread, model) in (0_u64..).zip(&models) {
        for key in (0..KEYS).map(|key| own_key(thread, key)) {
            let found = store.get(&key).unwrap();
            assert_eq!(found.as_deref(), model.get(&key).map(Vec::as_slice), "{key}");
        }
    }
    let number = |key: &str| {
        store.get(key).unwrap().map_or(0, |value| u64::from_le_bytes((*value).try_into().unwrap()))
    };
    for what in ["sum", "counted", "exchanged"] {
        let each: u64 = (0..THREADS).map(|thread| number(&format!("{what} {thread}"))).sum();
        assert!(each > 0);
        assert_eq!(number(what), each, "{what}");
    }
    store.check().unwrap();
    store.reclaim().unwrap();
    let stats = store.stats().unwrap();
    assert_eq!(
        (stats.pinned, stats.retired, stats.recoveries, stats.readers),
        (Some(0), 0, 0, Some(1))
    );
}

#[test]
fn a_writer_waits_as_long_as_it_was_told_to() {
    let store = store_of(1 << 20, 4);
    let holder = store.try_clone().unwrap();
    let (entered, inside) = mpsc::channel();
    let (leave, left) = mpsc::channel::<()>();
    let holding = thread::spawn(move || {
        holder.update("k", |_| {
            entered.send(()).unwrap();
            let _ = left.recv();
            Some(b"held".to_vec())
        })
    });
    inside.recv().unwrap();
    assert_eq!(store.try_set("k", b"no"), Err(WriteError::Deadline));
    let (timeout, started) = (Duration::from_millis(30), Instant::now());
    assert_eq!(store.set_timeout("k", b"no", timeout), Err(WriteError::Deadline));
    assert!(started.elapsed() >= timeout, "gave up early");
    assert!(store.get("k").unwrap().is_none(), "readers wait for nobody");
    store.set_lock_timeout(Some(timeout));
    let started = Instant::now();
    assert_eq!(store.delete("k"), Err(WriteError::Deadline));
    assert_eq!(store.fetch_add("n", 1), Err(WriteError::Deadline.into()));
    assert_eq!(store.batch().set("k", b"no").commit(), Err(WriteError::Deadline));
    assert!(started.elapsed() >= 3 * timeout, "gave up early");
    store.set_lock_timeout(None);
    drop(leave);
    store.set_timeout("other", b"yes", Duration::from_secs(20)).unwrap();
    assert!(holding.join().unwrap().unwrap().is_some());
    assert_eq!(store.try_set("other", b"again").map(drop), Ok(()));
    assert_eq!(store.get("k").unwrap().unwrap(), b"held");
}

#[test]
fn a_thread_may_hold_many_values_of_many_keys_while_they_are_replaced() {
    let store = store_of(4 << 20, 4);
    let other = store.try_clone().unwrap();
    for number in 0..100_u64 {
        store.set(number.to_le_bytes(), &number.to_le_bytes().repeat(100)).unwrap();
    }
    let held: Vec<_> =
        (0..100_u64).map(|number| store.get(number.to_le_bytes()).unwrap().unwrap()).collect();
    for round in 0..50_u64 {
        for number in 0..100_u64 {
            other.set(number.to_le_bytes(), &round.to_le_bytes().repeat(100)).unwrap();
        }
        if round % 10 == 0 {
            assert_eq!(other.clear(), Ok(100));
        }
    }
    for (number, value) in (0_u64..).zip(&held) {
        assert_eq!(*value, number.to_le_bytes().repeat(100));
    }
    drop(held);
    store.check().unwrap();
}
