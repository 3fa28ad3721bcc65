//! Watches of a store whose writers are other processes, some of which are killed.
//!
//! `RINGWAY_KILLS` says how many writers are killed, `RINGWAY_SEED` replays when.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::thread;
use std::time::Duration;

use common::random::{self, Random};
use common::victim::Victim;
use ringway::store::{Store, StoreDescriptors, StoreOptions, WatchError};

/// Longer than any test takes: a change that is told then has been missed.
const LONG: Duration = Duration::from_secs(60);

fn store() -> Store {
    let options = StoreOptions { capacity_bytes: 1 << 20, max_readers: 8, ..Default::default() };
    Store::anonymous(&options).unwrap()
}

/// For another process.
fn descriptor(store: &Store) -> StoreDescriptors {
    // SAFETY: it goes to a fork of this process, which runs this library.
    unsafe { store.descriptor_writable() }.unwrap()
}

fn version(store: &Store, key: &str) -> Option<u64> {
    store.get(key).unwrap().map(|value| value.version())
}

/// Nobody takes the lock after the death, so nobody recovers, and nobody rings.
#[test]
fn f02_what_a_writer_did_that_was_killed_right_after_it_is_told() {
    let kills: u32 = std::env::var("RINGWAY_KILLS").map_or(20, |kills| kills.parse().unwrap());
    let mut random = Random::new(random::seed());
    for _ in 0..kills.min(2000) {
        let store = store();
        let mut key = store.watch("k").unwrap();
        let mut prefix = store.watch_prefix("").unwrap();
        let descriptor = descriptor(&store);
        let mut writer = Victim::start(move || {
            let store = Store::attach(descriptor).unwrap();
            for round in 0_u64.. {
                store.set("k", &round.to_le_bytes()).unwrap();
                if round % 3 == 0 {
                    store.delete("k").unwrap();
                }
            }
        });
        let first = key.wait(LONG).unwrap().expect("it has begun").version;
        for _ in 0..random.below(20_000) {
            std::hint::spin_loop();
        }
        writer.kill();
        writer.wait();
        let last = version(&store, "k");
        // The second one was told nothing yet.
        for (watch, mut told) in [(&mut key, first), (&mut prefix, Some(0))] {
            while told != last {
                told = watch.wait(LONG).unwrap().expect("a change was missed").version;
            }
        }
        // And a watch made now begins with what is there.
        assert_eq!(store.watch("k").unwrap().try_wait(), Ok(None));
        assert_eq!(version(&store, "k"), last);
    }
}

/// Each change is made when the other process has told that it was told the one before.
#[test]
fn two_processes_tell_each_other() {
    const ROUNDS: u64 = 2000;
    let store = store();
    let mut answers = store.watch("answer").unwrap();
    let descriptor = descriptor(&store);
    let mut other = Victim::start(move || {
        let store = Store::attach(descriptor).unwrap();
        let mut watch = store.watch_since("question", None).unwrap();
        for round in 0..ROUNDS {
            watch.wait(LONG).unwrap().expect("a question was missed");
            assert_eq!(store.get("question").unwrap().unwrap(), round.to_le_bytes());
            store.set("answer", &round.to_le_bytes()).unwrap();
        }
    });
    for round in 0..ROUNDS {
        store.set("question", &round.to_le_bytes()).unwrap();
        let told = answers.wait(LONG).unwrap().expect("an answer was missed");
        assert_eq!((told.version, told.possibly), (version(&store, "answer"), false));
    }
    assert_eq!(other.wait(), 0);
    assert_eq!(answers.try_wait(), Ok(None));
}

/// A thread that waits without an end is told to stop; the watch goes on.
#[test]
fn a_wait_is_interrupted() {
    let store = store();
    let writer = store.try_clone().unwrap();
    thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let waiting = scope.spawn(move || {
            let mut watch = store.watch("k").unwrap();
            tell.send(watch.interrupter()).unwrap();
            let interrupted = watch.wait_forever();
            tell.send(watch.interrupter()).unwrap();
            (interrupted, watch.wait_forever())
        });
        told.recv().unwrap().interrupt();
        told.recv().unwrap();
        let version = writer.set("k", b"1").unwrap();
        let (interrupted, told) = waiting.join().unwrap();
        assert_eq!(interrupted, Err(WatchError::Interrupted));
        assert_eq!(told.unwrap().version, Some(version));
    });
}

#[test]
fn many_watches_in_one() {
    let store = store();
    let mut watches = store.watches();
    let [first, second] = ["a/1", "b/1"].map(|key| watches.add(key).unwrap());
    let prefix = watches.add_prefix("a/").unwrap();
    let since = watches.add_since("c", Some(7)).unwrap();
    let told = |watches: &mut ringway::store::Watches<'_>| {
        let mut told = Vec::new();
        while let Some((id, change)) = watches.try_wait().unwrap() {
            told.push((id, String::from_utf8(change.key).unwrap(), change.version));
        }
        told
    };
    assert_eq!(told(&mut watches), [(since, "c".to_string(), None)]);
    let version = store.set("a/1", b"1").unwrap();
    let key = || "a/1".to_string();
    assert_eq!(told(&mut watches), [(first, key(), Some(version)), (prefix, key(), Some(version))]);
    assert!(watches.remove(prefix) && !watches.remove(prefix));
    store.clear().unwrap();
    let lost = store.set("b/1", b"1").unwrap();
    let told = told(&mut watches);
    assert!(
        told.contains(&(first, key(), None)) && told.contains(&(second, "b/1".into(), Some(lost)))
    );
    assert!(told.iter().all(|(id, ..)| *id != prefix) && watches.len() == 3);
}

#[test]
fn a_wait_ends_at_its_timeout_and_bad_keys_are_refused() {
    let store = store();
    let mut watch = store.watch("k").unwrap();
    assert_eq!(watch.wait(Duration::from_millis(1)), Ok(None));
    assert_eq!(store.watch("").unwrap_err(), WatchError::KeyLength { found: 0 });
    let found = 64 * 1024 + 1;
    let refused = store.watch(vec![1; found]).unwrap_err();
    assert_eq!(refused, WatchError::KeyLength { found: found as u64 });
}
