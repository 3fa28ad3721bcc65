//! A full store: what can still be changed in it, and what its error says.

use super::error::WriteError;
use super::handle::Store;
use super::{StoreOptions, StoreStats};

fn store(capacity_bytes: u64) -> Store {
    let options = StoreOptions { capacity_bytes, max_readers: 4, ..Default::default() };
    Store::anonymous(&options).unwrap()
}

/// Sets keys of these lengths, one after the other, until not even an empty value fits.
fn fill(store: &Store, lens: &[usize]) -> Vec<(String, usize)> {
    let mut keys = Vec::new();
    store.fetch_add("counter", 1).unwrap();
    for number in 0.. {
        let key = format!("key {number}");
        // What is left over takes shorter ones.
        let shorter = |len: &usize| store.set(&key, &vec![7; *len]).is_ok();
        let lens = [lens[number % lens.len()], 3000, 1000, 300, 100, 30, 0];
        match lens.into_iter().find(shorter) {
            Some(len) => keys.push((key, len)),
            None => return keys,
        }
    }
    unreachable!()
}

/// Fails where updates and deletions have no room of their own.
#[test]
fn f86_in_a_full_store_keys_are_replaced_and_deleted() {
    let patterns: [(u64, &[usize]); 6] = [
        (64 << 10, &[100]),
        (1 << 20, &[64]),
        (1 << 20, &[9000]),
        (1 << 20, &[10, 500, 3000, 9000]),
        (4 << 20, &[40_000]),
        (4 << 20, &[60_000, 33_000, 100]),
    ];
    for (capacity_bytes, lens) in patterns {
        let store = store(capacity_bytes);
        let keys = fill(&store, lens);
        assert!(store.set("one more", b"").is_err());
        for round in 0..2_u8 {
            for (key, len) in &keys {
                let set = store.set(key, &vec![round; *len]);
                assert!(set.is_ok(), "{lens:?}, {key} of {len}: {set:?}");
            }
            assert_eq!(store.fetch_add("counter", 1).unwrap(), i64::from(round) + 1);
            assert!(store.set("one more", b"").is_err(), "{lens:?}: the reserve was given away");
        }
        assert_eq!(store.check(), Ok(()));
        // Some at once, where a batch needs room for itself.
        let some = 20.min(keys.len() / 2);
        let batch = keys[..some].iter().fold(store.batch(), |batch, (key, _)| batch.delete(key));
        batch.commit().unwrap();
        for (key, _) in &keys[some..] {
            assert_eq!(store.delete(key), Ok(true), "{lens:?}, {key}");
        }
        assert_eq!((store.len(), store.check()), (Ok(1), Ok(())));
        let StoreStats { free_bytes, .. } = store.stats().unwrap();
        assert!(free_bytes > capacity_bytes / 2, "{free_bytes} bytes are free again");
    }
}

/// What was read stays where it is, and its room is not to be had meanwhile.
#[test]
fn f86_the_error_of_a_full_store_adds_up() {
    let store = store(1 << 20);
    let keys = fill(&store, &[9000]);
    let held = store.get(&keys[0].0).unwrap().unwrap();
    assert_eq!(store.delete(&keys[0].0), Ok(true));
    let refused = store.set("one more", &[1; 20_000]).unwrap_err();
    let WriteError::OutOfSpace { needed_bytes, largest_bytes, free_bytes, pinned_bytes } = refused
    else {
        panic!("{refused}")
    };
    assert!(needed_bytes >= 20_000 && needed_bytes > largest_bytes, "{refused}");
    assert!(free_bytes < needed_bytes && pinned_bytes >= 9000, "{refused}");
    assert!(refused.to_string().contains("delete keys"), "{refused}");
    drop(held);
    // What is shorter than what is missing fits, or there is no room for another key.
    let room = largest_bytes.saturating_sub(64) as usize;
    match store.set("one more", &vec![1; room]) {
        Ok(_) => {}
        Err(WriteError::OutOfSpace { needed_bytes, largest_bytes, .. }) => {
            assert!(needed_bytes > largest_bytes && needed_bytes > room as u64, "{refused}");
        }
        Err(refused) => panic!("{refused}"),
    }
}

/// Fails where an empty table takes no part of the reserve.
#[test]
fn f86_a_full_store_is_cleared_at_once() {
    let store = store(64 << 10);
    let keys = fill(&store, &[100]).len() as u64;
    assert_eq!(store.clear(), Ok(keys + 1));
    assert_eq!((store.len(), store.check()), (Ok(0), Ok(())));
    assert!(fill(&store, &[100]).len() as u64 + 16 > keys);
}
