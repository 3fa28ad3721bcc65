//! Watches over heap memory: what is told, what is not, and what it costs writers.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::block::hash;
use super::change_log;
use super::interest::{Interest, OneKey};
use super::interest_prefix::Prefix;
use super::journal::{Journal, Operation};
use super::reader::Reader;
use super::watch::{Change, Plain, Watcher};
use super::{CopyingReader, Core, Owner, StoreGeometry, doorbells};
use crate::layout::store::change_log::DONE;
use crate::layout::store::private::bell::{PUBLIC, TRUSTED};
use crate::memory::{Deadline, HeapMemory, Memory, Ordering};

struct Rig {
    core: Core<HeapMemory>,
    reader: Reader<HeapMemory>,
    geometry: StoreGeometry,
}

fn rig() -> Rig {
    let geometry = StoreGeometry::new(1 << 20, 4, 0x5eed).unwrap();
    let memory = HeapMemory::new(geometry.len_bytes());
    let core = Core::new(memory.clone(), geometry);
    core.format().unwrap();
    Rig { core, reader: Reader::claim(memory, geometry, Owner::new(1, 1)).unwrap(), geometry }
}

impl Rig {
    fn watch(&self, key: &[u8]) -> Watcher<HeapMemory, OneKey> {
        let interest = OneKey::new(&self.reader, &self.geometry, key).unwrap();
        Watcher::new(self.core.memory.clone(), &self.geometry, interest, 1_000_000)
    }

    fn watch_prefix(&self, prefix: &[u8]) -> Watcher<HeapMemory, Prefix> {
        let interest = Prefix::new(&self.reader, &self.geometry, prefix, None).unwrap();
        Watcher::new(self.core.memory.clone(), &self.geometry, interest, 1_000_000)
    }

    fn told<I: Interest<News = Change>>(
        &self,
        watcher: &mut Watcher<HeapMemory, I>,
    ) -> Vec<(String, Option<u64>, bool)> {
        let mut told = Vec::new();
        while let Some(change) = watcher.look(&self.reader).unwrap() {
            let key = String::from_utf8(change.key).unwrap();
            told.push((key, change.version, change.possibly));
        }
        told
    }
}

fn news(key: &str, version: Option<u64>) -> (String, Option<u64>, bool) {
    (key.to_string(), version, false)
}

#[test]
fn a_key_is_told_once_for_all_that_came_since_the_last_look() {
    let mut rig = rig();
    let mut watch = rig.watch(b"k");
    assert_eq!(rig.told(&mut watch), []);
    let first = rig.core.set(b"k", b"1").unwrap();
    assert_eq!(rig.told(&mut watch), [news("k", Some(first))]);
    rig.core.set(b"k", b"2").unwrap();
    let third = rig.core.set(b"k", b"2").unwrap();
    rig.core.set(b"other", b"2").unwrap();
    assert_eq!(rig.told(&mut watch), [news("k", Some(third))]);
    assert!(rig.core.delete(b"k").unwrap());
    assert_eq!(rig.told(&mut watch), [news("k", None)]);
    assert_eq!(rig.told(&mut watch), []);
}

#[test]
fn a_key_that_came_and_went_is_told_and_its_neighbours_are_not() {
    let mut rig = rig();
    let long = [b'x'; 100];
    let mut watches = [rig.watch(b"k"), rig.watch(&long), rig.watch(b"never")];
    for key in [&b"k"[..], &long, b"other"] {
        rig.core.set(key, b"1").unwrap();
        rig.core.delete(key).unwrap();
    }
    let long = String::from_utf8(long.to_vec()).unwrap();
    let told = watches.each_mut().map(|watch| rig.told(watch));
    assert_eq!(told, [vec![news("k", None)], vec![news(&long, None)], vec![]]);
    // More than the store keeps notes of, with the bell that k has.
    for _ in 0..70 {
        rig.core.set(b"k", b"1").unwrap();
        rig.core.delete(b"k").unwrap();
    }
    assert_eq!(rig.told(&mut watches[0]), [("k".to_string(), None, true)]);
    assert_eq!(rig.told(&mut watches[0]), []);
}

#[test]
fn a_watch_from_a_version_tells_what_differs_from_it() {
    let mut rig = rig();
    let version = rig.core.set(b"k", b"1").unwrap();
    for (known, expected) in [(None, 1), (Some(version), 0), (Some(version - 1), 1)] {
        let interest = OneKey::since(&rig.reader, &rig.geometry, b"k", known);
        let mut watch = Watcher::new(rig.core.memory.clone(), &rig.geometry, interest, 1_000_000);
        let told = rig.told(&mut watch);
        assert_eq!(told, vec![news("k", Some(version)); expected]);
    }
}

#[test]
fn growth_and_giving_back_and_rebuilding_are_no_changes() {
    let mut rig = rig();
    rig.core.set(b"key", b"1").unwrap();
    let (mut key, mut prefix) = (rig.watch(b"key"), rig.watch_prefix(b"key"));
    for number in 0..1000_u32 {
        rig.core.set(&number.to_le_bytes(), b"x").unwrap();
    }
    rig.core.give_back().unwrap();
    rig.core.rebuild().unwrap();
    assert_eq!((rig.told(&mut key), rig.told(&mut prefix)), (vec![], vec![]));
}

#[test]
fn clearing_is_told() {
    let mut rig = rig();
    rig.core.set(b"k", b"1").unwrap();
    let (mut key, mut prefix, mut absent) =
        (rig.watch(b"k"), rig.watch_prefix(b"k"), rig.watch(b"never"));
    assert_eq!(rig.core.clear(), Ok(1));
    let possibly = |key: &str| (key.to_string(), None, true);
    assert_eq!(rig.told(&mut key), [news("k", None)]);
    assert_eq!(rig.told(&mut prefix), [news("k", None), possibly("k")]);
    assert_eq!(rig.told(&mut absent), [possibly("never")]);
    assert_eq!(rig.told(&mut absent), []);
}

#[test]
fn a_prefix_tells_which_keys() {
    let mut rig = rig();
    rig.core.set(b"a/1", b"1").unwrap();
    rig.core.set(b"b/1", b"1").unwrap();
    let mut watch = rig.watch_prefix(b"a/");
    let second = rig.core.set(b"a/2", b"1").unwrap();
    rig.core.set(b"b/2", b"1").unwrap();
    assert_eq!(rig.told(&mut watch), [news("a/2", Some(second))]);
    let again = rig.core.set(b"a/1", b"1").unwrap();
    rig.core.delete(b"a/2").unwrap();
    rig.core.set(b"a/3", b"1").unwrap();
    rig.core.delete(b"a/3").unwrap();
    rig.core.set(b"c/3", b"1").unwrap();
    rig.core.delete(b"c/3").unwrap();
    let expected = [news("a/1", Some(again)), news("a/2", None), news("a/3", None)];
    assert_eq!(rig.told(&mut watch), expected);
    assert_eq!(rig.told(&mut watch), []);
    // A key that is longer than what is noted of it.
    let long = format!("a/{}", "x".repeat(100));
    rig.core.set(long.as_bytes(), b"1").unwrap();
    rig.core.delete(long.as_bytes()).unwrap();
    assert_eq!(rig.told(&mut watch), [(long[..40].to_string(), None, true)]);
    for _ in 0..70 {
        rig.core.set(b"c/3", b"1").unwrap();
        rig.core.delete(b"c/3").unwrap();
    }
    assert_eq!(rig.told(&mut watch), [("a/".to_string(), None, true)]);
}

#[test]
fn what_a_writer_left_undone_is_told_without_a_bell() {
    let mut rig = rig();
    let (mut key, mut prefix) = (rig.watch(b"k"), rig.watch_prefix(b""));
    assert_eq!((rig.told(&mut key), rig.told(&mut prefix)), (vec![], vec![]));
    // What a writer leaves that dies between its slot's store and the bell.
    let memory = rig.core.memory.clone();
    let before: Vec<u64> = bells(rig.geometry).map(|bell| load(&memory, bell)).collect();
    let version = rig.core.set(b"k", b"1").unwrap();
    for (bell, word) in bells(rig.geometry).zip(&before) {
        memory.store_u32(bell, *word as u32, Ordering::Relaxed);
    }
    let done = rig.geometry.change_log(change_log::ALL, DONE);
    memory.store_u64(done, memory.load_u64(done, Ordering::Relaxed) - 1, Ordering::Relaxed);
    let _unfinished = Journal::begin(&memory, Operation::Slot, 0, 0);
    assert_eq!(rig.told(&mut key), [news("k", Some(version))]);
    assert_eq!(rig.told(&mut prefix), [news("k", Some(version))]);
    // And who recovers rings.
    rig.core.recover().unwrap();
    let rung = bells(rig.geometry).zip(before).filter(|(bell, old)| load(&memory, *bell) > *old);
    assert_eq!(rung.count(), 129);
}

fn bells(geometry: StoreGeometry) -> impl Iterator<Item = u64> {
    (0..=doorbells::EVERYTHING).map(move |bell| geometry.bell(bell))
}

fn load(memory: &HeapMemory, bell: u64) -> u64 {
    memory.load_u32(bell, Ordering::Relaxed).into()
}

fn bed(memory: &HeapMemory, geometry: StoreGeometry) -> Plain<HeapMemory> {
    Plain { memory: memory.clone(), geometry, announces: true }
}

/// Sets or deletes the key, as the number says; which version it has then.
fn change(core: &mut Core<HeapMemory>, number: u64) -> Option<u64> {
    let version = if number % 3 == 2 {
        assert!(core.delete(b"k").unwrap());
        None
    } else {
        Some(core.set(b"k", &number.to_le_bytes()).unwrap())
    };
    core.wake_watchers();
    version
}

#[test]
fn a_writer_wakes_nobody_where_nobody_watches() {
    let mut rig = rig();
    let memory = rig.core.memory.clone();
    (0..300).for_each(|number| _ = change(&mut rig.core, number));
    assert_eq!(memory.wakes(), 0);
    // Somebody who looks without sleeping, and somebody who has slept and gone: one for what he left.
    let mut watch = rig.watch(b"k");
    rig.told(&mut watch);
    (300..600).for_each(|number| _ = change(&mut rig.core, number));
    assert_eq!(memory.wakes(), 0);
    rig.told(&mut watch);
    let deadline = Deadline::at_ns(memory.now_ns());
    assert_eq!(
        watch.wait(&rig.reader, deadline, &mut bed(&memory, rig.geometry), || false),
        Ok(None)
    );
    (600..900).for_each(|number| _ = change(&mut rig.core, number));
    assert_eq!(memory.wakes(), 1, "nobody was announced who maps the public part only");
}

#[test]
fn f48_public_copy_is_woken_only_for_an_announced_process() {
    let mut rig = rig();
    let memory = rig.core.memory.clone();
    let bell = doorbells::of(hash(b"k", rig.geometry.seed()));
    for (sleepers, wakes) in [(TRUSTED, 1), (PUBLIC, 1), (TRUSTED | PUBLIC, 2)] {
        let before = memory.wakes();
        doorbells::announce(&memory, &rig.geometry, bell, sleepers);
        (0..300).for_each(|number| _ = change(&mut rig.core, number));
        assert_eq!(memory.wakes() - before, wakes, "{sleepers}");
    }
}

#[test]
fn who_cannot_announce_himself_is_told_at_his_interval() {
    let Rig { mut core, geometry, .. } = rig();
    let memory = core.memory.clone();
    let reader = CopyingReader::new(memory.clone(), geometry);
    let interest = OneKey::new(&reader, &geometry, b"k").unwrap();
    let mut watch = Watcher::new(memory.clone(), &geometry, interest, 1_000_000);
    let mut polling = Plain { memory: memory.clone(), geometry, announces: false };
    let told = std::thread::scope(|scope| {
        let waiting =
            scope.spawn(move || watch.wait(&reader, Deadline::NEVER, &mut polling, || false));
        change(&mut core, 0);
        waiting.join().unwrap().unwrap().unwrap()
    });
    assert_eq!((told.key, memory.wakes()), (b"k".to_vec(), 0));
}

/// A hundred thousand changes, each of which a watcher waits for that would never wake up by itself.
#[test]
fn no_change_is_missed() {
    let rounds = if cfg!(debug_assertions) { 20_000 } else { 100_000 };
    let Rig { mut core, reader, geometry } = rig();
    let (seen, mut bed) = (AtomicU64::new(0), bed(&core.memory, geometry));
    let interest = OneKey::new(&reader, &geometry, b"k").unwrap();
    let mut watch = Watcher::new(core.memory.clone(), &geometry, interest, 1_000_000);
    watch.slice_ns = u64::MAX;
    let versions = std::thread::scope(|scope| {
        let seen = &seen;
        let watching = scope.spawn(move || {
            let mut versions = Vec::new();
            for round in 1..=rounds {
                let told =
                    watch.wait(&reader, Deadline::NEVER, &mut bed, || false).unwrap().unwrap();
                versions.push(told.version);
                seen.store(round, SeqCst);
            }
            versions
        });
        let mut expected = Vec::new();
        for number in 0..rounds {
            expected.push(change(&mut core, number));
            while seen.load(SeqCst) <= number {
                std::thread::yield_now();
            }
        }
        assert_eq!(watching.join().unwrap(), expected);
        expected
    });
    assert!(core.memory.wakes() > 0 && versions.len() as u64 == rounds);
}

/// Changes as fast as they come: what is told is never older than what was told before, and ends with the
/// last.
#[test]
fn what_is_told_never_goes_back_and_ends_with_the_last() {
    let rounds = if cfg!(debug_assertions) { 10_000 } else { 200_000 };
    let Rig { mut core, reader, geometry } = rig();
    let mut watch = Watcher::new(
        core.memory.clone(),
        &geometry,
        Prefix::new(&reader, &geometry, b"k", None).unwrap(),
        1_000_000,
    );
    watch.slice_ns = u64::MAX;
    let mut bed = bed(&core.memory, geometry);
    std::thread::scope(|scope| {
        let watching = scope.spawn(move || {
            let mut last = 0;
            loop {
                let told =
                    watch.wait(&reader, Deadline::NEVER, &mut bed, || false).unwrap().unwrap();
                assert!(told.version.is_none_or(|version| version > last), "{told:?} after {last}");
                last = told.version.unwrap_or(last);
                if told.key == b"k, the end" {
                    return;
                }
            }
        });
        for number in 0..rounds {
            change(&mut core, number);
        }
        core.set(b"k, the end", b"").unwrap();
        core.wake_watchers();
        watching.join().unwrap();
    });
}
