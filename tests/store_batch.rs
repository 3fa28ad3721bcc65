//! Batches, cuts and iteration over processes: writers that are killed inside of batches, and readers that
//! must never see a part of one.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::meeting::Signal;
use common::name::Name;
use common::random::{Random, number, seed};
use common::victim::Victim;
use ringway::store::{ReadError, Store, StoreOptions, WriteError};

const ACCOUNTS: u64 = 10;
const TOTAL: u64 = 1_000_000;

fn options() -> StoreOptions {
    StoreOptions { capacity_bytes: 1 << 20, max_readers: 16, ..StoreOptions::default() }
}

fn account(number: u64) -> String {
    format!("account {number}")
}

fn accounts() -> Vec<String> {
    (0..ACCOUNTS).map(account).collect()
}

fn amount(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"))
}

/// A value of this amount, of a length that its amount decides.
fn value(amount: u64) -> Vec<u8> {
    amount.to_le_bytes().repeat(1 + (amount % 50) as usize)
}

fn total(store: &Store) -> u64 {
    let found = store.read_many(&accounts()).unwrap();
    found.iter().flatten().map(|found| amount(found)).sum()
}

/// Moves random amounts between accounts, and notes which; accounts with nothing are not there.
fn move_amounts(store: &Store, random: &mut Random) {
    let (from, to) = (random.below(ACCOUNTS), random.below(ACCOUNTS));
    let held = |number| store.get(account(number)).unwrap().map_or(0, |found| amount(&found));
    if from == to || held(from) == 0 {
        return;
    }
    let moved = if random.below(3) == 0 { held(from) } else { 1 + random.below(held(from)) };
    let (left, sum) = (held(from) - moved, held(to) + moved);
    let mut batch = store.batch().set(account(to), value(sum)).set("last", value(sum));
    // Others, so that some batches are long, and the table is replaced now and then.
    for _ in 0..random.below(20) {
        let other = format!("other {}", random.below(500));
        batch = if random.below(2) == 0 { batch.set(other, [7; 60]) } else { batch.delete(other) };
    }
    batch =
        if left == 0 { batch.delete(account(from)) } else { batch.set(account(from), value(left)) };
    match batch.commit() {
        Ok(_) | Err(WriteError::OutOfSpace { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn f04_writers_killed_inside_of_batches_leave_all_of_them_or_nothing() {
    let name = Name::new("store-batch");
    let store = Store::create(&name, &options()).unwrap();
    store.set(account(0), &value(TOTAL)).unwrap();
    let mut random = Random::new(seed());
    let kills = number("RINGWAY_KILLS").unwrap_or(if cfg!(debug_assertions) { 60 } else { 1000 });
    // A process that only looks, all the time.
    let watching = Victim::start(|| {
        let store = Store::open(&name, &options()).unwrap();
        loop {
            let sum = total(&store);
            let all = store.get_all().unwrap();
            let of_all: u64 = accounts()
                .iter()
                .filter_map(|key| all.get(key.as_bytes()))
                .map(|found| amount(found))
                .sum();
            if sum != TOTAL || of_all != TOTAL {
                eprintln!("a part of a batch: {sum}, {of_all}");
                return;
            }
        }
    });
    let mut inside = 0;
    for kill in 0..50 * kills {
        // How many come inside of an operation depends on the machine: until there are enough.
        if kill >= kills && inside > kills / 20 {
            break;
        }
        let begun = Signal::new();
        let seed = random.next();
        let mut writer = Victim::start(|| {
            let store = Store::open(&name, &options()).unwrap();
            begun.give();
            let mut random = Random::new(seed);
            loop {
                move_amounts(&store, &mut random);
            }
        });
        begun.wait();
        // Not to wait for anything, but to be somewhere else each time.
        for _ in 0..random.below(20) {
            assert_eq!(total(&store), TOTAL, "kill {kill}");
        }
        writer.kill();
        drop(writer);
        // Before anybody has recovered, and afterwards.
        let sums = accounts()
            .iter()
            .map(|key| store.get(key).unwrap().map_or(0, |found| amount(&found)))
            .sum::<u64>();
        assert_eq!(sums, TOTAL, "kill {kill}: each by itself, with no writer there");
        store.set("after", b"x").unwrap();
        inside += u64::from(store.take_recovery().is_some());
        assert_eq!(total(&store), TOTAL, "kill {kill}");
        store.check().unwrap();
    }
    println!("{inside} of at least {kills} kills inside of an operation");
    assert!(inside > kills / 20, "{inside} kills came inside of an operation");
    let mut watching = watching;
    watching.kill();
    assert!(libc::WIFSIGNALED(watching.wait()), "the reader has seen a part of a batch");
}

#[test]
fn iterating_meets_what_stays_once_beside_writers_in_other_processes() {
    let name = Name::new("store-iter");
    let store = Store::create(&name, &options()).unwrap();
    for number in 0..300_u32 {
        store.set(format!("kept/{number}"), &number.to_le_bytes()).unwrap();
    }
    let writer = Victim::start(|| {
        let store = Store::open(&name, &options()).unwrap();
        for round in 0_u32.. {
            store.set(format!("other/{}", round % 3000), b"x").unwrap();
            store.delete(format!("other/{}", (round + 1500) % 3000)).unwrap();
        }
    });
    for _ in 0..50 {
        let mut met = BTreeMap::new();
        for entry in store.prefix("kept/") {
            let (key, value) = entry.unwrap().into_parts();
            assert_eq!(
                key,
                format!("kept/{}", u32::from_le_bytes((*value).try_into().unwrap())).as_bytes()
            );
            *met.entry(key).or_insert(0) += 1;
        }
        assert!(met.len() == 300 && met.values().all(|times| *times == 1), "{met:?}");
        let others = store
            .iter()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.key().starts_with(b"other/"));
        assert!(others.count() <= 3000);
    }
    drop(writer);
    store.check().unwrap();
}

#[test]
fn a_batch_is_what_its_calls_say() {
    let store = Store::anonymous(&options()).unwrap();
    store.set("deleted", b"x").unwrap();
    let batch = store
        .batch()
        .set("a", b"1")
        .delete("deleted")
        .set("b", b"2")
        .set("a", b"3")
        .delete("absent");
    assert_eq!((batch.len(), batch.is_empty()), (5, false));
    let versions = batch.clone().commit().unwrap();
    assert_eq!(
        versions.iter().map(Option::is_some).collect::<Vec<_>>(),
        [false, false, true, true, false]
    );
    let found = store.read_many(&["a", "deleted", "b"]).unwrap();
    assert_eq!(found[0].as_deref(), Some(&b"3"[..]));
    assert_eq!(found[0].as_ref().map(|found| found.version()), versions[3]);
    assert!(found[1].is_none() && found[2].as_ref().is_some_and(|found| found.is_in_place()));
    assert_eq!(store.len().unwrap(), 2);
    assert!(store.compare_exchange("b", versions[2], Some(b"4")).is_ok());
    assert_eq!(store.batch().commit().unwrap(), []);
    // A key that no store can have, and values that do not fit, change nothing.
    let refused = store.batch().set("a", b"5").set("", b"6").commit();
    assert_eq!(refused, Err(WriteError::KeyLength { found: 0 }));
    let refused = store.batch().set("a", b"5").set("large", vec![0; 2 << 20]).commit();
    assert!(matches!(refused, Err(WriteError::OutOfSpace { .. })), "{refused:?}");
    let all: Vec<_> = store.get_all().unwrap().into_iter().collect();
    assert_eq!(all, [(b"a".to_vec(), b"3".to_vec()), (b"b".to_vec(), b"4".to_vec())]);
    store.check().unwrap();
    batch.commit_timeout(Duration::from_secs(5)).unwrap();
}

#[test]
fn a_stopped_writer_does_not_keep_readers_for_ever() {
    let name = Name::new("store-stopped");
    let store = Store::create(&name, &options()).unwrap();
    store.batch().set("a", b"1").set("b", b"2").commit().unwrap();
    let locked = Signal::new();
    let mut writer = Victim::start(|| {
        let store = Store::open(&name, &options()).unwrap();
        let _ = store.update("a", |_| {
            locked.give();
            loop {
                std::thread::park();
            }
        });
    });
    locked.wait();
    writer.stop();
    // It has the lock, and has not begun to change anything.
    assert_eq!(store.read_many(&["a", "b", "absent"]).unwrap().iter().flatten().count(), 2);
    assert_eq!(store.get_all().unwrap().len(), 2);
    let late = store.batch().set("a", b"3").commit_timeout(Duration::from_millis(1));
    assert_eq!(late, Err(WriteError::Deadline));
    drop(writer);
    store.batch().set("a", b"3").commit().unwrap();
}

#[test]
fn f20_a_forked_child_is_refused() {
    let store = Store::anonymous(&options()).unwrap();
    store.set("k", b"v").unwrap();
    let mut child = Victim::start(|| {
        assert!(matches!(store.read_many(&["k"]), Err(ReadError::Forked)));
        assert!(matches!(store.get_all(), Err(ReadError::Forked)));
        assert!(matches!(store.iter().next(), Some(Err(ReadError::Forked))));
        assert_eq!(store.batch().set("k", b"w").commit(), Err(WriteError::Forked));
    });
    assert_eq!(child.wait(), 0);
    assert!(store.get("k").unwrap().is_some_and(|found| found == b"v"));
}
