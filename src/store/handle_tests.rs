//! Handles in one process.

use std::thread;

use super::*;
use crate::layout::store::reader;
use crate::store::StoreOptions;

/// A store in a memory file of its own.
fn store(capacity_bytes: u64, max_readers: u32) -> Store {
    let options = StoreOptions { capacity_bytes, max_readers, ..StoreOptions::default() };
    Store::anonymous(&options).unwrap()
}

#[test]
fn what_is_set_is_there_in_every_handle_until_it_is_deleted() {
    let store = store(1 << 20, 4);
    let other = store.try_clone().unwrap();
    assert_eq!((store.len(), store.get("motd").unwrap().is_none()), (Ok(0), true));
    let first = store.set("motd", b"hello").unwrap();
    let held = other.get("motd").unwrap().unwrap();
    assert!(held == *b"hello" && held.is_in_place() && held.version() == first);
    let second = other.set("motd", b"good-bye").unwrap();
    assert!(second > first && held == *b"hello");
    assert_eq!(store.get_or("motd", b"").unwrap(), b"good-bye");
    let default = store.get_or("absent", b"nothing").unwrap();
    assert!(default == *b"nothing" && default.version() == 0);
    assert_eq!((store.contains("motd"), other.len()), (Ok(true), Ok(1)));
    assert_eq!((store.delete("motd"), store.delete("motd")), (Ok(true), Ok(false)));
    assert_eq!(store.delete_existing("motd"), Err(WriteError::Missing));
    assert_eq!((other.is_empty(), held == *b"hello"), (Ok(true), true));
    assert_eq!(store.check(), Ok(()));
    assert_eq!(store.access(), StoreAccess::Writable);
}

#[test]
fn what_no_store_can_hold_is_refused_and_changes_nothing() {
    let store = store(1 << 20, 4);
    store.set("k", b"old").unwrap();
    let long = vec![b'k'; (64 << 10) + 1];
    assert_eq!(store.set("", b"v"), Err(WriteError::KeyLength { found: 0 }));
    assert_eq!(store.set(&long, b"v"), Err(WriteError::KeyLength { found: 65537 }));
    for (key, found) in [(&b""[..], 0), (&long, 65537)] {
        let refused = ReadError::KeyLength { found };
        assert_eq!(store.get(key).unwrap_err(), refused);
        assert_eq!(store.get_or(key, b"").unwrap_err(), refused);
        assert_eq!(store.contains(key), Err(refused));
        assert_eq!(store.read_many(&[b"k", key]).unwrap_err(), refused);
    }
    let refused = |found| WriteError::KeyLength { found };
    assert_eq!((store.delete(""), store.delete(&long)), (Err(refused(0)), Err(refused(65537))));
    assert_eq!(store.update("", |_| unreachable!()), Err(refused(0)));
    assert_eq!(store.compare_exchange("", None, None), Err(refused(0).into()));
    let refused = store.set("k", &vec![1; 2 << 20]);
    let Err(WriteError::OutOfSpace { needed_bytes, largest_bytes, free_bytes, .. }) = refused
    else {
        panic!()
    };
    assert!(needed_bytes > 2 << 20 && largest_bytes <= free_bytes && free_bytes < 1 << 20);
    assert_eq!(store.get("k").unwrap().unwrap(), b"old");
    assert_eq!(store.set(&long[1..], b"v").map(drop), Ok(()));
    assert_eq!(store.check(), Ok(()));
}

#[test]
fn guards_beyond_the_pins_are_copies() {
    let store = store(1 << 20, 4);
    store.set("k", &[7; 1000]).unwrap();
    let guards: Vec<_> =
        (0..reader::MAX_PINS + 5).map(|_| store.get("k").unwrap().unwrap()).collect();
    let in_place = guards.iter().filter(|value| value.is_in_place()).count() as u64;
    assert_eq!(in_place, reader::HELD_PINS);
    store.set("k", b"new").unwrap();
    store.reclaim().unwrap();
    assert!(
        guards.iter().all(|value| *value == [7; 1000] && value.version() == guards[0].version())
    );
    drop(guards);
    assert!(store.get("k").unwrap().unwrap().is_in_place());
}

#[test]
fn a_handle_more_than_there_are_reader_records_is_refused() {
    let store = store(1 << 20, 3);
    let others = [store.try_clone().unwrap(), store.try_clone().unwrap()];
    let refused = store.try_clone().map(drop);
    assert_eq!(refused, Err(HandleError::TooManyReaders { max: 3 }));
    drop(others);
    assert!(store.try_clone().is_ok());
}

#[test]
fn a_handle_works_in_the_thread_that_it_is_sent_to() {
    let store = store(1 << 20, 4);
    let other = store.try_clone().unwrap();
    thread::spawn(move || other.set("k", b"from there").unwrap()).join().unwrap();
    assert_eq!(store.get("k").unwrap().unwrap(), b"from there");
}
