//! Both sides, in one process; and bytes that are no request.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;

use super::answer::{self, Failure};
use super::request::{MAX_BATCH, Malformed, Operation};
use super::serve::{MAX_PATIENCE, MAX_RUN};
use super::{Ledger, Remote, Request, StoreQuota, serve};
use crate::store::batch::Change;
use crate::store::block::hash;
use crate::store::{
    AddError, CompareError, QuotaError, RemoteError, Store, StoreAccess, StoreOptions, WriteError,
};

/// Serves what is asked at once.
#[derive(Debug)]
struct Local {
    side: Mutex<(Store, Ledger)>,
    quota: StoreQuota,
}

impl Remote for Local {
    fn request(&self, request: &[u8], _: Duration) -> Result<Vec<u8>, WriteError> {
        let mut side = self.side.lock().unwrap();
        let (store, ledger) = &mut *side;
        let request = Request::of(request).expect("a request");
        Ok(serve(store, &self.quota, ledger, &request))
    }

    fn watch(&self, _: &[u8], _: Duration) -> Result<Vec<u8>, WriteError> {
        unreachable!("nobody watches")
    }
}

/// A store, and a handle through which it is written for.
fn both(quota: StoreQuota) -> (Store, Store) {
    let options = StoreOptions { capacity_bytes: 4 << 20, ..StoreOptions::default() };
    let store = Store::anonymous(&options).unwrap();
    let side = Mutex::new((store.try_clone().unwrap(), Ledger::default()));
    let descriptor = store.descriptor_read_only().unwrap();
    let asking = Store::attach_through(descriptor, Arc::new(Local { side, quota })).unwrap();
    assert_eq!(asking.access(), StoreAccess::ThroughHost);
    (store, asking)
}

#[test]
fn the_same_calls_do_the_same() {
    let (store, asking) = both(StoreQuota::default());
    for handle in [&store, &asking] {
        handle.clear().unwrap();
        let first = handle.set("a", b"one").unwrap();
        assert_eq!(handle.get("a").unwrap().unwrap().version(), first);
        assert_eq!(handle.set_if_absent("a", b"two"), Ok(None));
        assert!(handle.set_if_absent("b", b"two").unwrap().unwrap() > first);
        assert_eq!(handle.swap("a", b"three").unwrap().unwrap(), b"one");
        assert_eq!(handle.swap("new", b"").unwrap(), None);
        assert_eq!((handle.delete("new"), handle.delete("new")), (Ok(true), Ok(false)));
        assert_eq!(handle.delete_existing("new"), Err(WriteError::Missing));
        assert_eq!(handle.delete(""), Err(WriteError::KeyLength { found: 0 }));
        assert_eq!(handle.set("", b""), Err(WriteError::KeyLength { found: 0 }));
        let found = handle.get("a").unwrap().map(|value| value.version());
        let changed = CompareError::Changed { found };
        assert_eq!(handle.compare_exchange("a", None, None), Err(changed));
        assert_eq!(handle.compare_exchange("a", Some(first), None), Err(changed));
        assert_eq!(handle.compare_exchange("a", Some(0), None), Err(changed));
        assert_eq!(handle.compare_exchange("a", found, None), Ok(None));
        assert_eq!(handle.compare_exchange("a", None, None), Ok(None));
        assert!(handle.compare_exchange("a", None, Some(b"x")).unwrap().is_some());
        assert_eq!((handle.fetch_add("n", -2), handle.fetch_add("n", 3)), (Ok(0), Ok(-2)));
        assert_eq!(*handle.get_pod::<i64>("n").unwrap().unwrap(), 1);
        let overflow = AddError::Overflow { value: 1, added: i64::MAX };
        assert_eq!(handle.fetch_add("n", i64::MAX), Err(overflow));
        assert_eq!(handle.fetch_add("a", 1), Err(AddError::NotAnInteger { found: 1 }));
        let updated = handle.update("a", |old| Some([old.unwrap(), b"yz"].concat())).unwrap();
        assert_eq!(handle.get("a").unwrap().unwrap().version(), updated.unwrap());
        assert_eq!(&*handle.get("a").unwrap().unwrap(), b"xyz");
        handle.try_set("t", b"1").unwrap();
        handle.set_timeout("t", b"2", Duration::from_secs(60)).unwrap();
        handle.set_pod("pod", &[1_u16, 2]).unwrap();
        assert!(handle.get_pod::<u32>("pod").is_err(), "its type came with it");
        handle.set_archived("peers", &vec![String::from("alpha")]).unwrap();
        let peers = handle.get_archived::<Vec<String>>("peers").unwrap().unwrap();
        assert_eq!(peers[0].as_str(), "alpha");
        drop(peers);
        let batch = handle.batch().delete("a").set("c", b"1").set("c", b"2").set("d", b"3");
        let versions = batch.delete("d").set("e", b"4").commit().unwrap();
        let is_some: Vec<_> = versions.iter().map(Option::is_some).collect();
        assert_eq!(is_some, [false, false, true, false, false, true]);
        for (key, version) in [("c", versions[2]), ("e", versions[5])] {
            assert_eq!(handle.get(key).unwrap().map(|value| value.version()), version);
        }
        assert_eq!(handle.clear(), Ok(7));
        assert_eq!(handle.len(), Ok(0));
    }
    store.check().unwrap();
    let unserved = asking.try_clone().unwrap();
    assert_eq!(unserved.access(), StoreAccess::ThroughHost);
    assert_eq!(unserved.reclaim(), Err(WriteError::ReadOnly));
}

/// Takes all the time that there is to say that it was not enough; counts.
#[derive(Debug, Default)]
struct Slow(AtomicU32);

impl Remote for Slow {
    fn request(&self, _: &[u8], timeout: Duration) -> Result<Vec<u8>, WriteError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(timeout);
        Ok(answer::to_bytes(Err(Failure::Write(WriteError::Deadline))))
    }

    fn watch(&self, _: &[u8], _: Duration) -> Result<Vec<u8>, WriteError> {
        unreachable!("nobody watches")
    }
}

#[test]
fn who_gets_his_answer_at_the_deadline_does_not_ask_again() {
    let (store, _) = both(StoreQuota::default());
    let slow = Arc::new(Slow::default());
    let asking =
        Store::attach_through(store.descriptor_read_only().unwrap(), slow.clone()).unwrap();
    let set = asking.set_timeout("k", b"", 2 * MAX_PATIENCE);
    assert_eq!((set, slow.0.load(Ordering::Relaxed)), (Err(WriteError::Deadline), 1));
}

#[test]
fn who_waits_for_the_lock_asks_again() {
    let (store, asking) = both(StoreQuota::default());
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            store.update("held", |_| {
                begun.send(()).unwrap();
                ended.recv().unwrap();
                None
            })
        });
        has_begun.recv().unwrap();
        assert_eq!(asking.try_set("k", b""), Err(WriteError::Deadline));
        let late = asking.set_timeout("k", b"", Duration::from_millis(30));
        assert_eq!(late, Err(WriteError::Deadline));
        end.send(()).unwrap();
        asking.set("k", b"").unwrap();
    });
}

#[test]
fn what_the_quota_forbids_changes_nothing() {
    let quota = StoreQuota {
        max_value_bytes: 100,
        max_keys: 3,
        max_bytes: 600,
        max_batch: 2,
        ..StoreQuota::default()
    };
    let (store, asking) = both(quota);
    let long = QuotaError::ValueLength { found: 101, max: 100 };
    assert_eq!(asking.set("a", &[0; 101]), Err(long.into()));
    let batch = asking.batch().set("a", b"").set("b", b"").set("c", b"").commit();
    assert_eq!(batch, Err(QuotaError::Batch { found: 3, max: 2 }.into()));
    assert_eq!(store.len(), Ok(0));
    for key in ["a", "b", "c"] {
        asking.set(key, &[0; 100]).unwrap();
    }
    let keys = QuotaError::Keys { max: 3 };
    assert_eq!(asking.set("d", b""), Err(keys.into()));
    assert_eq!(asking.fetch_add("d", 1), Err(WriteError::from(keys).into()));
    assert_eq!(asking.compare_exchange("d", None, Some(b"")), Err(WriteError::from(keys).into()));
    assert_eq!(asking.batch().set("d", b"").commit(), Err(keys.into()));
    asking.delete("a").unwrap();
    asking.set("d", b"").unwrap();
    assert_eq!(store.len(), Ok(3));

    let (_store, asking) = both(StoreQuota { max_bytes: 250, ..quota });
    asking.set("a", &[0; 100]).unwrap();
    let bytes = asking.set("b", &[0; 100]);
    assert!(
        matches!(bytes, Err(WriteError::Quota(QuotaError::Bytes { max: 250, .. }))),
        "{bytes:?}"
    );
}

#[test]
fn keys_that_are_chosen_for_one_place_are_refused() {
    let (store, asking) = both(StoreQuota { max_keys: u64::MAX, ..StoreQuota::default() });
    let seed = store.watched().1.seed();
    // The others lie all over a table that has room for many more.
    for number in 0..6000_u32 {
        store.set(number.to_ne_bytes(), b"").unwrap();
    }
    let mut added = 0_u64;
    let refused = (6000..4_000_000_u32).find_map(|number| {
        let key = number.to_ne_bytes();
        if hash(&key, seed) >> 56 != 0x55 {
            return None;
        }
        let error = asking.set(key, b"").err();
        added += 1;
        error
    });
    let Some(WriteError::Quota(QuotaError::Crowded { found, max: MAX_RUN })) = refused else {
        panic!("{refused:?}")
    };
    assert!(found > MAX_RUN && added > 50, "{found}, {added}");
    // One that belongs far from there.
    let far = (0..).map(u32::to_be_bytes).find(|key| hash(key, seed) >> 56 == 0xd5).unwrap();
    asking.set(far, b"").unwrap();
    store.check().unwrap();
}

#[test]
fn errors_are_the_same_on_both_sides() {
    for error in [
        WriteError::OutOfSpace {
            needed_bytes: 4,
            largest_bytes: 3,
            free_bytes: 2,
            pinned_bytes: 1,
        },
        WriteError::KeyLength { found: 3 },
        WriteError::Deadline,
        WriteError::Missing,
        WriteError::Damaged,
        WriteError::Lock(-5),
        QuotaError::ValueLength { found: 1, max: 2 }.into(),
        QuotaError::Keys { max: 2 }.into(),
        QuotaError::Bytes { needed: 1, max: 2 }.into(),
        QuotaError::Batch { found: 1, max: 2 }.into(),
        QuotaError::Crowded { found: 1, max: 2 }.into(),
        QuotaError::Rate { max: 1, wait_ns: 2 }.into(),
    ] {
        let answer = Err(Failure::Write(error));
        assert_eq!(answer::of(&answer::to_bytes(answer)), answer);
    }
    let unknown = Err(Failure::Write(RemoteError::UnknownAnswer.into()));
    assert_eq!(answer::of(&answer::to_bytes(Err(WriteError::ReadOnly.into()))), unknown);
    assert_eq!(answer::of(b""), unknown);
}

/// A change: key, value, tag.
type Owned = (Vec<u8>, Option<(Vec<u8>, u32)>);

fn change() -> impl Strategy<Value = Owned> {
    let value = (any::<Vec<u8>>(), 0..=0x00ff_ffff_u32);
    (proptest::collection::vec(any::<u8>(), 1..40), proptest::option::of(value))
}

/// Requests, of kinds by number.
fn bytes_of(kind: u8, number: u64, changes: &[Owned]) -> Vec<u8> {
    let changes: Vec<_> = changes
        .iter()
        .map(|(key, value)| Change {
            key,
            value: value.as_ref().map(|(value, tag)| (&value[..], *tag)),
        })
        .collect();
    let first = changes[0];
    let operation = match kind {
        0 => Operation::Put(first),
        1 => Operation::SetIfAbsent(Change { value: first.value.or(Some((b"", 0))), ..first }),
        2 => Operation::CompareExchange(number, first),
        3 => Operation::FetchAdd(first.key, number.cast_signed()),
        4 => Operation::Clear,
        _ => Operation::Batch(changes),
    };
    let request = Request { patience_us: number as u32, operation };
    let bytes = request.to_bytes();
    assert_eq!(Request::of(&bytes), Ok(request));
    bytes
}

proptest! {
    #[test]
    fn a_request_reads_as_it_was_written_and_no_part_of_it_does(
        kind in 0..6_u8,
        number: u64,
        changes in proptest::collection::vec(change(), 1..5),
    ) {
        let bytes = bytes_of(kind, number, &changes);
        for len in 0..bytes.len() {
            prop_assert_eq!(Request::of(&bytes[..len]), Err(Malformed));
        }
        let longer = [&bytes[..], &[0]].concat();
        prop_assert_eq!(Request::of(&longer), Err(Malformed));
    }

    #[test]
    fn any_bytes_are_a_request_or_none(
        bytes: Vec<u8>,
        kind in 0..8_u8,
        flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4),
        changes in proptest::collection::vec(change(), 1..5),
    ) {
        let _ = Request::of(&bytes);
        let mut near = bytes_of(kind, 1, &changes);
        for (index, byte) in flips {
            let len = near.len();
            near[index % len] = byte;
        }
        if let Ok(request) = Request::of(&near) {
            prop_assert_eq!(request.to_bytes(), near);
        }
    }
}

#[test]
fn what_a_request_cannot_say_is_none() {
    let key = vec![7; 65537];
    let many = vec![Change::delete(b"k"); MAX_BATCH + 1];
    for operation in [
        Operation::Put(Change::set(b"", b"")),
        Operation::Put(Change::set(&key, b"")),
        Operation::Put(Change { key: b"k", value: Some((b"", 1 << 24)) }),
        Operation::SetIfAbsent(Change::delete(b"k")),
        Operation::Batch(many),
    ] {
        let bytes = Request { patience_us: 0, operation }.to_bytes();
        assert_eq!(Request::of(&bytes), Err(Malformed));
    }
    assert!(Request::of(&[9, 0, 0, 0, 0, 0, 0, 0]).is_err());
    assert!(Request::of(&[5, 0, 0, 1, 0, 0, 0, 0]).is_err());
    assert!(Request::of(&[5, 0, 0, 0, 0, 0, 0, 0]).is_ok());
}
