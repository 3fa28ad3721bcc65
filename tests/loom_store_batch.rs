//! Models of batches in a store: all keys change at once for every reader, whichever step of the batch it
//! meets. Run with `RUSTFLAGS="--cfg loom" cargo test --release --test loom_store_batch`;
//! `LOOM_MAX_PREEMPTIONS=2` bounds the work. What each model says that it fails with was tried on the source,
//! within that bound.
#![cfg(loom)]

#[path = "model/store.rs"]
mod model;

use loom::thread;
use model::check;
use ringway::memory::ModelMemory;
use ringway::store::model::{BATCH, PENDING, VALUE};
use ringway::store::{Core, Reader, model as store};

const KEYS: [&[u8]; 2] = [b"a", b"b"];

/// A store with two keys; and two others, so that the pages of a batch are not given back, and the places
/// of its blocks are the first to be used again.
fn two_keys() -> (Core<ModelMemory>, Reader<ModelMemory>) {
    let (mut core, memory, geometry) = store::store_with(1, &[VALUE, PENDING, BATCH]);
    for key in KEYS {
        core.set(key, &value(1)).expect("room");
    }
    core.set(b"y", &[]).expect("room");
    core.set(b"z", &[0; 48]).expect("room");
    (core, store::reader(memory, geometry, 1))
}

fn value(n: u8) -> [u8; 16] {
    [n; 16]
}

/// Which of the values it is.
fn get(reader: &Reader<ModelMemory>, key: &[u8]) -> u8 {
    let found = reader.get(key).expect("no damage").expect("present").to_vec();
    assert!(found.iter().all(|byte| *byte == found[0]), "torn");
    found[0]
}

/// A reader that has seen one key's new value sees the other's. Fails when the batch is committed before its
/// slots name it.
#[test]
fn both_keys_change_at_once() {
    check(|| {
        let (mut core, reader) = two_keys();
        let reading = thread::spawn(move || {
            let [first, second] = KEYS.map(|key| get(&reader, key));
            assert!((1..=2).contains(&first) && (first..=2).contains(&second), "{first}, {second}");
            reader
        });
        store::commit(&mut core, &KEYS, &value(2));
        let reader = reading.join().expect("joined");
        assert_eq!(KEYS.map(|key| get(&reader, key)), [2, 2]);
    });
}

/// What the first batch has used is given back, and the second one uses it again. What the second pin of
/// `Reader::resolve` is for takes four preemptions and is beyond the bound: `src/store/reader_tests.rs` shows it.
#[test]
fn a_pending_block_is_used_again() {
    check(|| {
        let (mut core, reader) = two_keys();
        let reading = thread::spawn(move || {
            assert!((1..=3).contains(&get(&reader, KEYS[0])));
        });
        for n in 2..4 {
            store::commit(&mut core, &KEYS, &value(n));
            core.give_back().expect("no damage");
        }
        reading.join().expect("joined");
    });
}
