//! Operations that look before they write, and values of types.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error::{AddError, CompareError, TypedError, WriteError};
use super::handle::{Side, Store};
use super::{StoreOptions, StoreStats};
use crate::memory::{Deadline, Memory, Ordering};
use crate::typed::DecodeError;

fn store() -> Store {
    let options = StoreOptions { capacity_bytes: 1 << 20, max_readers: 4, ..Default::default() };
    Store::anonymous(&options).unwrap()
}

fn text(store: &Store, key: &str) -> Option<Vec<u8>> {
    store.get(key).unwrap().map(|value| value.to_vec())
}

#[test]
fn what_depends_on_the_old_value_is_done_or_not() {
    let store = store();
    assert!(store.set_if_absent("k", b"1").unwrap().is_some());
    assert_eq!(store.set_if_absent("k", b"2"), Ok(None));
    assert_eq!(store.swap("k", b"3"), Ok(Some(b"1".to_vec())));
    assert_eq!(store.swap("new", b"4"), Ok(None));
    let version = store.get("k").unwrap().unwrap().version();
    assert_eq!(
        store.compare_exchange("k", Some(version - 1), Some(b"no")),
        Err(CompareError::Changed { found: Some(version) })
    );
    assert_eq!(
        store.compare_exchange("k", None, None),
        Err(CompareError::Changed { found: Some(version) })
    );
    let next = store.compare_exchange("k", Some(version), Some(b"5")).unwrap();
    assert!(next > Some(version));
    assert_eq!(store.compare_exchange("k", next, None), Ok(None));
    let absent = store.compare_exchange("k", next, Some(b"no"));
    assert_eq!(absent, Err(CompareError::Changed { found: None }));
    assert!(store.compare_exchange("k", None, Some(b"6")).unwrap() > next);
    assert_eq!((text(&store, "k"), text(&store, "new")), (Some(b"6".into()), Some(b"4".into())));
    assert_eq!(store.update("k", |old| Some([old.unwrap(), b"7"].concat())).map(drop), Ok(()));
    assert_eq!(text(&store, "k"), Some(b"67".into()));
    assert_eq!(store.update("k", |_| None), Ok(None));
    assert_eq!(store.update("k", |old| old.map(<[u8]>::to_vec)), Ok(None));
    assert_eq!((text(&store, "k"), store.len(), store.check()), (None, Ok(1), Ok(())));
}

#[test]
fn an_update_refuses_writers_of_its_thread_and_none_of_its_readers() {
    let store = store();
    let other = store.try_clone().unwrap();
    // SAFETY: it is attached just below.
    #[allow(unsafe_code)]
    let descriptor = unsafe { store.descriptor_writable() }.unwrap();
    let attached = Store::attach(descriptor).unwrap();
    store.set("other", b"8").unwrap();
    let version = store.update("k", |old| {
        assert_eq!(old, None);
        for handle in [&store, &other, &attached] {
            assert_eq!(handle.set("k", b"inner"), Err(WriteError::Nested));
            assert_eq!(handle.try_set("k", b"inner"), Err(WriteError::Nested));
            let timeout = std::time::Duration::from_secs(20);
            assert_eq!(handle.set_timeout("k", b"inner", timeout), Err(WriteError::Nested));
            assert_eq!(handle.update("k", |_| None), Err(WriteError::Nested));
            assert_eq!(handle.fetch_add("n", 1), Err(AddError::Write(WriteError::Nested)));
        }
        text(&attached, "other")
    });
    assert!(version.unwrap().is_some());
    assert_eq!((text(&store, "k"), store.check()), (Some(b"8".into()), Ok(())));
}

#[test]
fn f42_a_panic_in_an_update_leaves_everything_as_it_was() {
    let store = store();
    let other = store.try_clone().unwrap();
    store.set("k", b"old").unwrap();
    for _ in 0..3 {
        let panicked = catch_unwind(AssertUnwindSafe(|| store.update("k", |_| panic!("here"))));
        assert!(panicked.is_err());
        assert_eq!(text(&other, "k"), Some(b"old".into()));
        other.set("n", b"others go on").unwrap();
        store.set("n", b"and so does this one").unwrap();
    }
    assert_eq!((store.take_recovery(), store.check()), (None, Ok(())), "nothing was unfinished");
}

#[test]
fn integers_are_added_to_and_nothing_else_is() {
    let store = store();
    assert_eq!((store.fetch_add("n", 5), store.fetch_add("n", -7)), (Ok(0), Ok(5)));
    assert_eq!(*store.get_pod::<i64>("n").unwrap().unwrap(), -2);
    store.set_pod("n", &i64::MAX).unwrap();
    let overflow = AddError::Overflow { value: i64::MAX, added: 1 };
    assert_eq!(store.fetch_add("n", 1), Err(overflow));
    store.set("bytes", &7_i64.to_ne_bytes()).unwrap();
    assert_eq!(store.fetch_add("bytes", 1), Ok(7), "bytes may be an integer");
    store.set("short", &[0; 7]).unwrap();
    store.set_pod("float", &1.0_f64).unwrap();
    for (key, found) in [("short", 7), ("float", 8)] {
        assert_eq!(store.fetch_add(key, 1), Err(AddError::NotAnInteger { found }));
    }
    assert_eq!(*store.get_pod::<f64>("float").unwrap().unwrap(), 1.0);
}

#[test]
fn plain_data_lies_in_place_and_is_checked() {
    let store = store();
    store.set_pod("k", &[1_u64, 2]).unwrap();
    let value = store.get_pod::<[u64; 2]>("k").unwrap().unwrap();
    assert!(*value == [1, 2] && value.is_in_place());
    assert!(matches!(store.get_pod::<[u32; 4]>("k"), Err(TypedError::Type { .. })));
    assert!(matches!(store.get_pod::<u64>("k"), Err(TypedError::Type { .. })));
    store.set("k", &[2]).unwrap();
    assert_eq!(*value, [1, 2], "pinned");
    let length = DecodeError::Length { found: 1, expected: 16 };
    assert_eq!(store.get_pod::<[u64; 2]>("k").map(drop), Err(TypedError::Decode(length)));
    assert_eq!(store.get_pod::<bool>("k").map(drop), Err(TypedError::Decode(DecodeError::Invalid)));
    assert_eq!(*store.get_pod::<u8>("k").unwrap().unwrap(), 2);
    assert!(store.get_pod::<u8>("absent").unwrap().is_none());
    // Whatever the key's length, the value is aligned.
    for len in 1..70 {
        let key = "k".repeat(len);
        store.set_pod(&key, &(len as u128)).unwrap();
        assert_eq!(*store.get_pod::<u128>(&key).unwrap().unwrap(), len as u128);
    }
}

#[test]
fn f24_archives_are_validated_before_they_are_looked_at() {
    let store = store();
    let words: Vec<String> = (0..50).map(|number| format!("word {number}")).collect();
    store.set_archived("k", &words).unwrap();
    for _ in 0..3 {
        let found = store.get_archived::<Vec<String>>("k").unwrap().unwrap();
        assert!(found.is_in_place() && found.iter().map(|word| word.as_str()).eq(&words));
    }
    let held: Vec<_> =
        (0..30).map(|_| store.get_archived::<Vec<String>>("k").unwrap().unwrap()).collect();
    assert!(held.iter().any(|value| !value.is_in_place()), "some are copies");
    assert!(held.iter().all(|value| value[49].as_str() == "word 49"));
    drop(held);
    assert!(matches!(store.get_archived::<Vec<u64>>("k"), Err(TypedError::Type { .. })));
    // Bytes that are no archive, and the bytes of one under another type.
    let bytes = store.get("k").unwrap().unwrap().to_vec();
    store.set("k", &bytes).unwrap();
    assert_eq!(store.get_archived::<Vec<String>>("k").unwrap().unwrap()[7].as_str(), "word 7");
    let mut broken = bytes.clone();
    let last = broken.len() - 8;
    broken[last..].fill(0x7f);
    for _ in 0..2 {
        store.set("k", &broken).unwrap();
        let invalid = TypedError::Decode(DecodeError::Invalid);
        assert_eq!(store.get_archived::<Vec<String>>("k").map(drop), Err(invalid));
        assert_eq!(store.get_archived::<Vec<String>>("k").map(drop), Err(invalid));
    }
    assert!(store.get_archived::<String>("absent").unwrap().is_none());
}

#[test]
fn statistics_say_what_is_there() {
    let store = store();
    let StoreStats { keys: 0, readers: Some(1), max_readers: 4, recoveries: 0, .. } =
        store.stats().unwrap()
    else {
        panic!("a new store: {:?}", store.stats());
    };
    store.set("k", &[1; 10_000]).unwrap();
    store.set("gone", b"1").unwrap();
    store.delete("gone").unwrap();
    let other = store.try_clone().unwrap();
    let held = [other.get("k").unwrap(), other.get("k").unwrap()];
    store.set("k", b"new").unwrap();
    store.reclaim().unwrap();
    let stats = store.stats().unwrap();
    assert_eq!((stats.keys, stats.tombstones, stats.readers), (1, 1, Some(2)));
    assert_eq!((stats.retired, stats.pinned), (1, Some(1)), "the value that is held");
    assert!(stats.pinned_bytes > Some(10_000) && stats.retired_bytes >= 10_000);
    assert!(stats.live_bytes < 100 && stats.free_bytes < stats.capacity_bytes);
    drop(held);
    assert_eq!((store.stats().unwrap().pinned, store.reclaim()), (Some(0), Ok(0)));
    assert_eq!(store.stats().unwrap().retired, 0);
}

#[test]
fn clearing_removes_all_keys_also_from_a_full_store() {
    let store = store();
    for round in 0..3 {
        let mut keys = 0_u64;
        // Until not even a table has room.
        for len in [5000, 500, 0] {
            while store.set(keys.to_ne_bytes(), &vec![7; len]).is_ok() {
                keys += 1;
            }
        }
        let held = store.get(0_u64.to_ne_bytes()).unwrap().unwrap();
        assert_eq!((store.len(), store.clear()), (Ok(keys), Ok(keys)), "round {round}");
        assert_eq!((store.is_empty(), store.check()), (Ok(true), Ok(())));
        assert!(held.len() == 5000 && held.iter().all(|byte| *byte == 7), "still pinned");
        assert_eq!(store.clear(), Ok(0));
    }
}

/// What a version named when it was validated may be something else: only the bytes count.
#[test]
fn f47_an_archive_is_validated_at_every_read() {
    let store = store();
    let words: Vec<String> = (0..50).map(|number| format!("word {number}")).collect();
    store.set_archived("k", &words).unwrap();
    let found = store.get_archived::<Vec<String>>("k").unwrap().unwrap();
    assert!(found.is_in_place());
    let version = found.version();
    drop(found);
    let value = store.get("k").unwrap().unwrap();
    let len = value.len() as u64;
    drop(value);
    let Store { side: Side::Writable(writable) } = &store else { panic!("writable") };
    let block = writable.locked(Deadline::NEVER, |store| store.find(b"k")).unwrap().unwrap();
    let last = block.value() + len - 8;
    writable.shared.memory.store_u64(last, 0x7f7f_7f7f_7f7f_7f7f, Ordering::Relaxed);
    assert_eq!(store.get("k").unwrap().unwrap().version(), version);
    let invalid = TypedError::Decode(DecodeError::Invalid);
    assert_eq!(store.get_archived::<Vec<String>>("k").map(drop), Err(invalid));
}
