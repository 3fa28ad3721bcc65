//! Models of the store: its shipping writer against its shipping reader, under every interleaving and
//! every value that the orderings allow. Run with
//! `RUSTFLAGS="--cfg loom" cargo test --release --test loom_store`; `LOOM_MAX_PREEMPTIONS=2` bounds the
//! work. What each model says that it fails with was tried on the source, within that bound.
#![cfg(loom)]

#[path = "model/store.rs"]
mod model;

use loom::thread;
use model::check;
use ringway::memory::ModelMemory;
use ringway::store::{Reader, model as store};

/// The `n`th value: different in every word from the others.
fn value(n: u8) -> Vec<u8> {
    vec![n; 16]
}

fn get(reader: &Reader<ModelMemory>, key: &[u8]) -> Option<(u64, Vec<u8>)> {
    let found = reader.get(key).expect("no damage")?;
    Some((found.version(), found.to_vec()))
}

/// Fails when the slot is stored `Relaxed`.
#[test]
fn what_is_published_is_whole_and_never_goes_back() {
    check(|| {
        let (mut core, memory, geometry) = store::store(1);
        core.set(b"k", &value(1)).expect("room");
        let writing = thread::spawn(move || core.set(b"k", &value(2)).expect("room"));
        let reader = store::reader(memory, geometry, 1);
        let (first, found) = get(&reader, b"k").expect("present");
        assert!([value(1), value(2)].contains(&found));
        let (second, again) = get(&reader, b"k").expect("present");
        assert!(second > first || (second, &again) == (first, &found));
        writing.join().expect("joined");
        assert_eq!(get(&reader, b"k").expect("present").1, value(2));
    });
}

/// The block that a reader has found is replaced, given back, and used again for another key. Fails when reader or
/// writer leaves out its fence, the reader its second look, or the writer its look at the pins or at whose
/// record they are; and when pins are taken back or looked at `Relaxed`.
#[test]
fn what_is_pinned_is_not_used_again() {
    check(|| a_block_is_used_again(|memory| memory));
}

/// The same model, with an acquire-release exchange in place of the reader's fence: it must fail.
#[test]
fn f46_an_exchange_without_a_fence_loses_a_pin() {
    let run = || check(|| a_block_is_used_again(|memory| memory.unfenced()));
    let found = std::panic::catch_unwind(run).is_err();
    assert!(found, "the model does not show what the fence is for");
}

/// The block that a reader looks at is replaced, given back, and used again for another key.
fn a_block_is_used_again(readers: impl Fn(ModelMemory) -> ModelMemory) {
    let (mut core, memory, geometry) = store::store(1);
    core.set(b"k", &value(1)).expect("room");
    let reader = store::reader(readers(memory), geometry, 1);
    let writing = thread::spawn(move || {
        core.set(b"k", &value(2)).expect("room");
        core.give_back().expect("no damage");
        core.set(b"other", &value(3)).expect("room");
    });
    let (_, found) = get(&reader, b"k").expect("present");
    assert!([value(1), value(2)].contains(&found));
    writing.join().expect("joined");
}

/// A key that is there all the time is found while the table is replaced, the old one given back and used
/// again. Fails when "absent" is said without a second look at the root, the root is stored or a slot read
/// `Relaxed`, two tables in a row have the same number, or an old table's length is read `Relaxed`: then
/// its reader may see that it is gone, and not that there is another.
#[test]
fn a_key_is_found_while_the_table_grows() {
    check(|| {
        let (mut core, memory, geometry) = store::store(1);
        core.set(b"k", &value(1)).expect("room");
        let reader = store::reader(memory, geometry, 1);
        let writing = thread::spawn(move || {
            for _ in 0..2 {
                store::replace_table(&mut core);
                core.give_back().expect("no damage");
            }
        });
        assert_eq!(get(&reader, b"k").expect("present").1, value(1));
        writing.join().expect("joined");
    });
}

/// The table is replaced, then the key's block is in the new one, given back and used again. The old table
/// still names it. Fails when the second look is at the slot alone and not at the root.
#[test]
fn a_block_that_only_the_old_table_names_is_not_found() {
    check(|| {
        let (mut core, memory, geometry) = store::store(1);
        core.set(b"k", &value(1)).expect("room");
        let reader = store::reader(memory, geometry, 1);
        let writing = thread::spawn(move || {
            store::replace_table(&mut core);
            core.set(b"k", &value(2)).expect("room");
            core.give_back().expect("no damage");
            core.set(b"other", &value(3)).expect("room");
        });
        let (_, found) = get(&reader, b"k").expect("present");
        assert!([value(1), value(2)].contains(&found));
        writing.join().expect("joined");
    });
}
