//! What is announced for others, and what they do where it is not.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::watch::{MAX_PREFIXES, MAX_STANDING, WatchRequest};
use super::{Remote, Watched};
use crate::layout::store::private::bell::{BUCKETS, GENERATION};
use crate::layout::store::private::prefix::ENTRIES;
use crate::memory::{Memory, Ordering};
use crate::store::doorbells;
use crate::store::{RemoteError, Store, StoreOptions, WriteError};

const LONG: Duration = Duration::from_secs(60);

fn store() -> Store {
    let options = StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() };
    Store::anonymous(&options).unwrap()
}

fn bells() -> std::ops::RangeInclusive<u32> {
    0..=doorbells::EVERYTHING
}

fn awaited(store: &Store) -> Vec<u32> {
    let (memory, geometry, _) = store.watched();
    bells().filter(|bell| doorbells::is_announced(memory, geometry, *bell)).collect()
}

fn announce(watched: &mut Watched, store: &Store, number: u32) -> bool {
    watched.serve(store, &WatchRequest::Announce(number).to_bytes()).unwrap() == [1]
}

#[test]
fn f40_one_process_is_announced_at_so_many_bells_and_what_is_no_bell_is_refused() {
    let store = store();
    let mut announced = Watched::default();
    let no_bell = [&[1][..], &(doorbells::of_prefix(ENTRIES as u32)).to_ne_bytes()].concat();
    for request in
        [&[][..], &[1; 4], &[1, 0, 0, 0, 0, 0], &no_bell, &[0; 5], &[2, 1, 0, 0, 0], &[2; 9]]
    {
        assert!(announced.serve(&store, request).is_err(), "{request:?}");
    }
    assert_eq!(awaited(&store), [0; 0]);
    let most = MAX_STANDING as u32;
    for number in 0..=BUCKETS as u32 {
        assert_eq!(announce(&mut announced, &store, number), number < most);
        assert!(announce(&mut announced, &store, 0), "as often as it likes where it is already");
    }
    assert!(awaited(&store).into_iter().eq(0..most));
    // One that was rung gives its place back.
    let key = (0_u32..).map(u32::to_le_bytes).find(|key| {
        let hash = crate::store::block::hash(key, store.watched().1.seed());
        doorbells::of(hash) == 5
    });
    store.set(key.unwrap(), b"").unwrap();
    assert!(announce(&mut announced, &store, most));
    assert!(!announce(&mut announced, &store, most + 1));
}

#[test]
fn what_was_announced_is_taken_back_as_if_it_had_been_rung() {
    let store = store();
    let (memory, geometry, _) = store.watched();
    let generation = |bell| memory.load_u32(geometry.bell(bell) + GENERATION, Ordering::Relaxed);
    let (mut first, mut second) = (Watched::default(), Watched::default());
    for number in [3, 7] {
        assert!(announce(&mut first, &store, number));
    }
    for number in [7, 9] {
        assert!(announce(&mut second, &store, number));
    }
    let before: Vec<_> = bells().map(generation).collect();
    // Somebody has the lock: later.
    let mut late = Watched::default();
    late.add(first);
    store
        .update("k", |_| {
            let other = store.try_clone().unwrap();
            std::thread::scope(|scope| {
                let taking = scope.spawn(|| late.take_back(&{ other }, Duration::ZERO));
                assert_eq!(taking.join().unwrap(), Err(WriteError::Deadline));
            });
            None
        })
        .unwrap();
    assert_eq!(awaited(&store), [3, 7, 9]);
    late.take_back(&store, LONG).unwrap();
    assert_eq!(awaited(&store), [9]);
    let moved: Vec<_> = bells()
        .zip(before)
        .filter(|(bell, before)| generation(*bell) != *before)
        .map(|(bell, _)| bell)
        .collect();
    assert_eq!(moved, [3, 7], "who sleeps there looks");
    second.take_back(&store, LONG).unwrap();
    assert_eq!(awaited(&store), [0; 0]);
    // Nothing stands: not even the lock is asked for.
    late.take_back(&store, Duration::ZERO).unwrap();
}

/// Announces, or answers what it is to answer; counts how often it is asked.
#[derive(Debug)]
struct Announcing {
    side: Mutex<(Store, Watched)>,
    answer: Result<bool, WriteError>,
    asked: AtomicU32,
}

impl Remote for Announcing {
    fn request(&self, _: &[u8], _: Duration) -> Result<Vec<u8>, WriteError> {
        unreachable!("nobody writes")
    }

    fn watch(&self, request: &[u8], _: Duration) -> Result<Vec<u8>, WriteError> {
        self.asked.fetch_add(1, SeqCst);
        if self.answer == Ok(true) {
            let mut side = self.side.lock().unwrap();
            let (store, watched) = &mut *side;
            return Ok(watched.serve(store, request).unwrap());
        }
        self.answer.map(|said| vec![u8::from(said)])
    }
}

/// A store, a handle that only reads, and who announces for it.
fn both(answer: Result<bool, WriteError>) -> (Store, Store, Arc<Announcing>) {
    let store = store();
    let side = Mutex::new((store.try_clone().unwrap(), Watched::default()));
    let host = Arc::new(Announcing { side, answer, asked: AtomicU32::new(0) });
    let descriptor = store.descriptor_read_only().unwrap();
    let reading = Store::attach_through(descriptor, Arc::clone(&host) as _).unwrap();
    (store, reading, host)
}

#[test]
fn who_is_announced_is_woken_and_asks_once_for_each_sleep() {
    let (store, reading, host) = both(Ok(true));
    let mut watch = reading.watch("k").unwrap();
    // Waits that end before anything happens, or do not last: one announcement is enough.
    for timeout_ms in [0, 300, 0, 300, 1] {
        assert_eq!(watch.wait(Duration::from_millis(timeout_ms)), Ok(None));
    }
    assert_eq!((host.asked.load(SeqCst), awaited(&store).len()), (1, 1));
    for round in 0..100_u32 {
        let version = std::thread::scope(|scope| {
            let setting = scope.spawn(|| {
                let store = host.side.lock().unwrap().0.try_clone().unwrap();
                store.set("k", &round.to_le_bytes()).unwrap()
            });
            let told = watch.wait(LONG).unwrap().expect("a change was missed");
            assert_eq!(told.version, Some(setting.join().unwrap()));
            told.version
        });
        assert_eq!(store.get("k").unwrap().map(|value| value.version()), version);
    }
    assert!(host.asked.load(SeqCst) <= 1 + 100, "once for each sleep");
}

#[test]
fn f01_who_is_not_announced_looks_at_intervals_and_asks_less_and_less_often() {
    for (answer, most) in [
        (Ok(false), 5),
        (Err(RemoteError::Timeout.into()), 5),
        (Err(RemoteError::Full.into()), 5),
        (Err(RemoteError::NotServed.into()), 1),
        (Err(RemoteError::Gone.into()), 1),
    ] {
        let (store, reading, host) = both(answer);
        let mut watch = reading.watch("k").unwrap();
        assert_eq!(watch.wait(Duration::from_millis(500)), Ok(None));
        let asked = host.asked.load(SeqCst);
        assert!((1..=most).contains(&asked), "{asked} times");
        let told = std::thread::scope(|scope| {
            let writer = store.try_clone().unwrap();
            let setting = scope.spawn(move || writer.set("k", b"1").unwrap());
            (watch.wait(LONG).unwrap().expect("a change was missed").version, setting.join())
        });
        assert_eq!(told.0, Some(told.1.unwrap()));
        assert_eq!(awaited(&store), [0; 0], "nothing is written to the segment");
    }
}

fn registered(store: &Store) -> u32 {
    let (memory, geometry, _) = store.watched();
    memory.load_u64(geometry.used_prefixes(), Ordering::Relaxed).count_ones()
}

#[test]
fn f87_prefix_of_a_read_only_process_is_registered_by_its_host() {
    let (store, reading, host) = both(Ok(true));
    for number in 0..1000_u32 {
        store.set(number.to_le_bytes(), b"1").unwrap();
    }
    let mut watch = reading.watch_prefix("a/").unwrap();
    assert_eq!(watch.wait(Duration::ZERO), Ok(None));
    let of_prefix = |bell| (bells().end() + 1..).nth(bell).unwrap();
    let (memory, geometry, _) = store.watched();
    for round in 0..100_u32 {
        let version = std::thread::scope(|scope| {
            let setting = scope.spawn(|| {
                let writer = host.side.lock().unwrap().0.try_clone().unwrap();
                writer.set("elsewhere", b"1").unwrap();
                writer.set("a/1", &round.to_le_bytes()).unwrap()
            });
            let told = watch.wait(LONG).unwrap().expect("a change was missed");
            assert_eq!((&told.key[..], told.version), (&b"a/1"[..], Some(setting.join().unwrap())));
            told.version
        });
        assert_eq!(store.get("a/1").unwrap().map(|value| value.version()), version);
    }
    // It sleeps at the bell of its prefix, and no write elsewhere wakes it.
    let before = host.asked.load(SeqCst);
    assert_eq!(watch.wait(Duration::from_millis(1)), Ok(None));
    store.set("elsewhere", b"2").unwrap();
    assert_eq!(watch.wait(Duration::from_millis(1)), Ok(None));
    assert!(host.asked.load(SeqCst) <= before + 1, "it was not rung");
    assert!(doorbells::is_announced(memory, geometry, of_prefix(0)));
    assert_eq!(awaited(&store), [0; 0]);
}

#[test]
fn f87_host_registers_few_prefixes_for_one_process_and_takes_them_back() {
    let (store, reading, host) = both(Ok(true));
    let watches: Vec<_> = (0..=MAX_PREFIXES)
        .map(|number| (number, reading.watch_prefix(format!("{number}/")).unwrap()))
        .collect();
    assert_eq!(registered(&store), MAX_PREFIXES as u32);
    // One that has none is told all the same.
    for (number, mut watch) in watches {
        let version = store.set(format!("{number}/key"), b"1").unwrap();
        assert_eq!(watch.try_wait().unwrap().unwrap().version, Some(version));
    }
    // They are given back with the next request.
    let watch = reading.watch_prefix("next/").unwrap();
    assert_eq!(host.side.lock().unwrap().1.prefixes(), 1);
    host.side.lock().unwrap().1.take_back(&store, LONG).unwrap();
    // Its process does not know; it is told what has changed.
    let mut watch = watch;
    let version = store.set("next/key", b"1").unwrap();
    assert_eq!(watch.wait(LONG).unwrap().unwrap().version, Some(version));
    let version = store.set("next/other", b"1").unwrap();
    assert_eq!(watch.wait(LONG).unwrap().unwrap().version, Some(version));
    store.set("1/key", b"2").unwrap();
    assert_eq!(watch.wait(Duration::from_millis(1)), Ok(None));
}
