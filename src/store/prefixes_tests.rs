//! Watched prefixes over heap memory: what is told, what it costs, and what a killed writer leaves.

use std::collections::BTreeMap;

use super::between::Between;
use super::copying::CopyingReader;
use super::interest::{Interest, OneKey};
use super::interest_prefix::Prefix;
use super::interests::{Interests, One};
use super::prefixes::{self, Entry};
use super::reader::Reader;
use super::watch::{Change, Plain, Watcher};
use super::{BatchChange, Core, Owner, StoreGeometry, doorbells, owner};
use crate::layout::store::change_log::{ENTRIES_OF_ALL, ENTRIES_OF_PREFIX};
use crate::layout::store::private::bell::{GENERATION, TRUSTED, WAITING};
use crate::layout::store::private::prefix::{ENTRIES, PREFIX_BYTES};
use crate::memory::{CrashMemory, Deadline, HeapMemory, Memory, Ordering};

const WATCHER: Owner = Owner::new(1, 1);

fn store(arena_bytes: u64) -> (Core<HeapMemory>, Reader<HeapMemory>) {
    let geometry = StoreGeometry::new(arena_bytes, 4, 0x5eed).unwrap();
    let memory = HeapMemory::new(geometry.len_bytes());
    let core = Core::new(memory.clone(), geometry);
    core.format().unwrap();
    (core, Reader::claim(memory, geometry, WATCHER).unwrap())
}

fn register<M: Memory + Send + 'static>(core: &Core<M>, prefix: &[u8]) -> Option<Entry> {
    prefixes::register(&core.memory, &core.geometry, WATCHER, prefix)
}

/// A watch with an entry.
fn watch(
    core: &Core<HeapMemory>,
    reader: &Reader<HeapMemory>,
    prefix: &[u8],
) -> Watcher<HeapMemory, Prefix> {
    let entry = register(core, prefix);
    assert!(entry.is_some(), "one is free");
    let prefix = Prefix::new(reader, &core.geometry, prefix, entry).unwrap();
    Watcher::new(core.memory.clone(), &core.geometry, prefix, 1_000_000)
}

fn told(watch: &mut Watcher<HeapMemory, Prefix>, reader: &Reader<HeapMemory>) -> Vec<Change> {
    std::iter::from_fn(|| watch.look(reader).unwrap()).collect()
}

fn change(key: &[u8], version: Option<u64>) -> Change {
    Change { key: key.to_vec(), version, possibly: false }
}

fn fill(core: &mut Core<HeapMemory>, keys: u32) {
    for number in 0..keys {
        core.set(format!("other/{number}").as_bytes(), b"1").unwrap();
    }
}

#[test]
fn f87_watched_prefix_tells_what_changed_under_it() {
    let (mut core, reader) = store(1 << 20);
    core.set(b"a/1", b"1").unwrap();
    core.set(b"a/2", b"1").unwrap();
    let mut watch = watch(&core, &reader, b"a/");
    assert_eq!(told(&mut watch, &reader), []);
    let replaced = core.set(b"a/1", b"2").unwrap();
    core.delete(b"a/2").unwrap();
    for _ in 0..2 {
        core.set(b"a/3", b"came and went").unwrap();
        core.delete(b"a/3").unwrap();
    }
    core.set(b"b/1", b"elsewhere").unwrap();
    let expected = [change(b"a/1", Some(replaced)), change(b"a/2", None), change(b"a/3", None)];
    assert_eq!(told(&mut watch, &reader), expected);
    assert_eq!(told(&mut watch, &reader), []);
    // More deletions elsewhere than the store keeps notes of.
    for _ in 0..70 {
        core.set(b"c/3", b"1").unwrap();
        core.delete(b"c/3").unwrap();
    }
    assert_eq!(told(&mut watch, &reader), []);
    let batch = [BatchChange::set(b"a/4", b"1"), BatchChange::delete(b"a/1")];
    let version = core.commit(&batch).unwrap()[0];
    assert_eq!(told(&mut watch, &reader), [change(b"a/4", version), change(b"a/1", None)]);
    core.clear().unwrap();
    let possibly = Change { possibly: true, ..change(b"a/", None) };
    assert_eq!(told(&mut watch, &reader), [change(b"a/4", None), possibly]);
    assert_eq!(told(&mut watch, &reader), []);
}

#[test]
fn f87_prefix_longer_than_its_entry_tells_only_its_own_keys() {
    let (mut core, reader) = store(1 << 20);
    let compared = [b'x'; PREFIX_BYTES as usize];
    let prefix = [&compared[..], b"/tail"].concat();
    let mut watch = watch(&core, &reader, &prefix);
    core.set(&compared, b"1").unwrap();
    assert_eq!(told(&mut watch, &reader), []);
    let version = core.set(&prefix, b"1").unwrap();
    assert_eq!(told(&mut watch, &reader), [change(&prefix, Some(version))]);
}

/// What a write costs in a store of so many keys, in accesses of memory, and then a look: where `b"watched/"` is
/// watched by somebody who sleeps, if the key lies elsewhere.
fn costs(keys: u32, key: &[u8], is_watched: bool) -> [u64; 2] {
    let (mut core, reader) = store(64 << 20);
    fill(&mut core, keys);
    let (memory, geometry) = (core.memory.clone(), core.geometry);
    let entry = is_watched.then(|| register(&core, b"watched/").unwrap());
    let prefix = Prefix::new(&reader, &geometry, b"watched/", entry).unwrap();
    let counted = Between::writable(memory.clone());
    let counting = Reader::claim(counted.clone(), geometry, WATCHER).unwrap();
    let mut watch = Watcher::new(counted.clone(), &geometry, prefix, 1_000_000);
    assert_eq!(watch.look(&counting), Ok(None));
    let (bell, sleeps) = (doorbells::of_prefix(0), !key.starts_with(b"watched/"));
    if sleeps {
        doorbells::announce(&memory, &geometry, bell, TRUSTED);
    }
    let mut writer = Core::new(counted.clone(), geometry);
    let write = counted.accesses_of(|| {
        writer.set(key, b"1").unwrap();
        writer.wake_watchers();
    });
    let waiting = memory.load_u32(geometry.bell(bell) + WAITING, Ordering::Relaxed);
    assert_eq!((waiting, memory.wakes()), (u32::from(sleeps), 0), "nobody is woken");
    let look = counted.accesses_of(|| while watch.look(&counting).unwrap().is_some() {});
    [write, look]
}

#[test]
fn f87_a_write_elsewhere_costs_a_prefix_watcher_nothing() {
    for keys in [100, 100_000] {
        let [unwatched, _] = costs(keys, b"elsewhere", false);
        let [watched, look] = costs(keys, b"elsewhere", true);
        // The length, and the first word of the prefix.
        assert_eq!(watched, unwatched + 2, "{keys} keys");
        // What is in progress, and the bell.
        assert_eq!(look, 3, "{keys} keys");
    }
}

#[test]
fn f87_a_write_under_the_prefix_costs_the_same_at_any_number_of_keys() {
    for keys in [100, 100_000] {
        let [unwatched, _] = costs(keys, b"watched/key", false);
        let [watched, look] = costs(keys, b"watched/key", true);
        // The prefix, its owner, its log, and the bell with its copy.
        assert_eq!(watched, unwatched + 12, "{keys} keys");
        assert!(look <= 60, "{keys} keys: {look}");
    }
}

/// What an operation makes of the keys `a/1` to `a/3`, of which two are there, at every instruction at which its writer
/// can be killed: whoever knows what was there before is told exactly what is there, once, and again
/// nothing when the store was recovered.
fn killed_anywhere(operation: impl Fn(&mut Core<CrashMemory>)) -> [u32; 2] {
    let geometry = StoreGeometry::new(64 << 10, 2, 0x5eed).unwrap();
    let memory = CrashMemory::new(geometry.len_bytes());
    let mut core = Core::new(memory.clone(), geometry);
    core.format().unwrap();
    core.set(b"a/1", b"1").unwrap();
    core.set(b"a/2", b"1").unwrap();
    core.set(b"b/1", b"1").unwrap();
    // Kept, so that the images have it.
    let _entry = register(&core, b"a/").unwrap();
    let words_before = memory.to_words();
    let before = HeapMemory::from_words(&words_before);
    let reader = Reader::claim(before.clone(), geometry, WATCHER).unwrap();
    memory.record();
    operation(&mut core);
    let bell = geometry.bell(doorbells::of_prefix(0)) + GENERATION;
    let (mut told_before_recovery, mut unfinished) = (0, 0);
    for (number, image) in memory.crash().sample(400).enumerate() {
        let heap = image.to_heap();
        let at_image = Reader::claim(heap.clone(), geometry, WATCHER).unwrap();
        watched_keys_are_told(geometry, &words_before, image.words(), number);
        // An entry with the same number.
        let (other, _) = store(64 << 10);
        let mut prefix = Prefix::new(&reader, &geometry, b"a/", register(&other, b"a/")).unwrap();
        let mut known = BTreeMap::from_iter(keys(&reader));
        let mut look = |prefix: &mut Prefix| {
            let mut told = 0;
            while let Some(change) = prefix.look(&at_image, &[]).unwrap() {
                told += 1;
                match change.version {
                    Some(version) => assert_ne!(known.insert(change.key, version), Some(version)),
                    None => drop(known.remove(&change.key)),
                }
            }
            assert_eq!(known, BTreeMap::from_iter(keys(&at_image)), "image {number}");
            told
        };
        let told = look(&mut prefix);
        assert_eq!(look(&mut prefix), 0, "image {number}: twice");
        told_before_recovery += u32::from(told > 0);
        let was_open = super::journal::is_open(&heap);
        let generation = heap.load_u32(bell, Ordering::Relaxed);
        let mut survivor = Core::new(heap.clone(), geometry);
        survivor.recover().unwrap();
        if was_open {
            unfinished += 1;
            assert!(heap.load_u32(bell, Ordering::Relaxed) > generation, "image {number}");
        }
        assert_eq!(look(&mut prefix), 0, "image {number}: again when recovered");
        survivor.set(b"a/9", b"1").unwrap();
        assert_eq!(look(&mut prefix), 1, "image {number}");
        assert_eq!(look(&mut prefix), 0, "image {number}");
    }
    [told_before_recovery, unfinished]
}

/// Whoever watches the keys, and looked before, is told what is there now: a killed writer may have rung nothing.
fn watched_keys_are_told(geometry: StoreGeometry, before: &[u64], now: &[u64], image: usize) {
    let heap = HeapMemory::from_words(before);
    let reader = Reader::claim(heap.clone(), geometry, WATCHER).unwrap();
    let mut known = BTreeMap::from_iter(keys(&reader));
    let mut interests = Interests::default();
    for key in [b"a/1", b"a/2", b"a/3"] {
        interests.add(One::Key(OneKey::new(&reader, &geometry, key).unwrap()));
    }
    let mut watch = Watcher::new(heap.clone(), &geometry, interests, 1_000_000);
    assert_eq!(watch.look(&reader), Ok(None));
    for (at, word) in (0..).step_by(8).zip(now) {
        heap.store_u64(at, *word, Ordering::Relaxed);
    }
    while let Some((_, change)) = watch.look(&reader).unwrap() {
        match change.version {
            Some(version) => drop(known.insert(change.key, version)),
            None => drop(known.remove(&change.key)),
        }
    }
    assert_eq!(known, BTreeMap::from_iter(keys(&reader)), "image {image}");
}

fn keys(reader: &Reader<HeapMemory>) -> Vec<(Vec<u8>, u64)> {
    use super::interest::Truth;
    let mut keys = Vec::new();
    reader.scan(b"a/", &mut |key, version| keys.push((key.to_vec(), version))).unwrap();
    keys
}

#[test]
fn f87_writer_killed_anywhere_in_a_set_loses_no_change() {
    let [told, unfinished] = killed_anywhere(|core| _ = core.set(b"a/3", b"1").unwrap());
    assert!(told > 3 && unfinished > 10, "{told}, {unfinished}");
}

#[test]
fn f87_writer_killed_anywhere_in_a_delete_loses_no_change() {
    let [told, unfinished] = killed_anywhere(|core| {
        core.delete(b"a/2").unwrap();
        core.set(b"a/3", b"comes").unwrap();
        core.delete(b"a/3").unwrap();
    });
    assert!(told > 10 && unfinished > 20, "{told}, {unfinished}");
}

#[test]
fn f87_writer_killed_anywhere_in_a_batch_loses_no_change() {
    let [told, unfinished] = killed_anywhere(|core| {
        let changes = [
            BatchChange::set(b"a/1", b"2"),
            BatchChange::delete(b"a/2"),
            BatchChange::set(b"a/3", b"1"),
        ];
        core.commit(&changes).unwrap();
    });
    assert!(told > 10 && unfinished > 20, "{told}, {unfinished}");
}

#[test]
fn f87_writer_killed_anywhere_in_a_clear_loses_no_change() {
    let [told, unfinished] = killed_anywhere(|core| _ = core.clear().unwrap());
    assert!(told > 10 && unfinished > 20, "{told}, {unfinished}");
}

/// As [`watch`], without an entry.
fn watch_all(
    core: &Core<HeapMemory>,
    reader: &Reader<HeapMemory>,
    prefix: &[u8],
) -> Watcher<HeapMemory, Prefix> {
    let prefix = Prefix::new(reader, &core.geometry, prefix, None).unwrap();
    Watcher::new(core.memory.clone(), &core.geometry, prefix, 1_000_000)
}

#[test]
fn f87_more_changes_than_the_log_holds_are_found_by_a_walk() {
    for (entries, with_entry) in [(ENTRIES_OF_PREFIX, true), (ENTRIES_OF_ALL, false)] {
        for rounds in [entries - 2, entries - 1, entries, entries + 1, 3 * entries] {
            let (mut core, reader) = store(1 << 20);
            let watching = if with_entry { watch } else { watch_all };
            let mut watch = watching(&core, &reader, b"a/");
            core.set(b"a/first", b"1").unwrap();
            for number in 0..rounds {
                core.set(format!("a/{:03}", number % 100).as_bytes(), b"1").unwrap();
            }
            let changes = told(&mut watch, &reader);
            assert_eq!(changes.len() as u64, rounds.min(100) + 1, "{rounds}");
            let last = core.set(b"a/first", b"2").unwrap();
            assert_eq!(told(&mut watch, &reader), [change(b"a/first", Some(last))], "{rounds}");
        }
    }
}

/// A reader that maps the store read-only, and has no host.
#[test]
fn f87_watcher_without_an_entry_looks_up_what_has_changed_at_any_number_of_keys() {
    let looks = [100, 100_000].map(|keys| {
        let (mut core, _) = store(64 << 20);
        fill(&mut core, keys);
        let geometry = core.geometry;
        let read_only = Between::writable(core.memory.clone());
        let reading = CopyingReader::new(read_only.clone(), geometry);
        let prefix = Prefix::new(&reading, &geometry, b"watched/", None).unwrap();
        let mut watch = Watcher::new(read_only.clone(), &geometry, prefix, 1_000_000);
        assert_eq!(watch.look(&reading), Ok(None));
        core.set(b"elsewhere", b"1").unwrap();
        let elsewhere =
            read_only.accesses_of(|| assert_eq!(watch.look(&reading), Ok(None), "{keys} keys"));
        let version = core.set(b"watched/key", b"1").unwrap();
        let under = read_only.accesses_of(|| {
            let expected = change(b"watched/key", Some(version));
            assert_eq!(watch.look(&reading), Ok(Some(expected)), "{keys} keys");
        });
        let nothing = read_only.accesses_of(|| assert_eq!(watch.look(&reading), Ok(None)));
        [elsewhere, under, nothing]
    });
    for [elsewhere, under, nothing] in looks {
        // What is undone, and the bell.
        assert_eq!(nothing, 3);
        assert!(elsewhere <= 60 && under <= 60, "{looks:?}");
    }
}

#[test]
fn f87_more_watchers_than_entries_walk_and_entries_of_the_dead_come_back() {
    let (mut core, reader) = store(1 << 20);
    let (memory, geometry) = (core.memory.clone(), core.geometry);
    let dead = Owner::new(2, 2);
    let mut entries: Vec<_> = (1..ENTRIES).map(|_| register(&core, b"a/").unwrap()).collect();
    // Its watcher is killed: nothing is dropped.
    let killed = prefixes::register(&memory, &geometry, dead, b"a/").unwrap();
    let number = killed.log().number;
    std::mem::forget(killed);
    assert!(register(&core, b"a/").is_none());
    // One that has none is told all the same, by the bell that is rung for every change.
    let prefix = Prefix::new(&reader, &geometry, b"a/", None).unwrap();
    let mut watch = Watcher::new(memory.clone(), &geometry, prefix, 1_000_000);
    assert_eq!(told(&mut watch, &reader), []);
    let version = core.set(b"a/1", b"1").unwrap();
    assert_eq!(told(&mut watch, &reader), [change(b"a/1", Some(version))]);
    owner::reclaim(&memory, &geometry, |owner| owner == dead);
    let again = register(&core, b"b/").unwrap();
    assert_eq!(again.log().number, number, "that of the dead one");
    assert!(register(&core, b"a/").is_none(), "the living keep theirs");
    // One that is given back is free, and the next matching write stops looking at it.
    drop(entries.pop());
    let used = || memory.load_u64(geometry.used_prefixes(), Ordering::Relaxed).count_ones();
    let before = used();
    core.set(b"a/1", b"2").unwrap();
    assert_eq!(used(), before - 1);
    assert!(register(&core, b"c/").is_some());
}

/// A watcher that would never wake up by itself, and writers under its prefix and elsewhere.
#[test]
fn f87_sleeping_watcher_misses_no_change_under_its_prefix() {
    let rounds = if cfg!(debug_assertions) { 5_000 } else { 50_000_u64 };
    let (mut core, reader) = store(1 << 20);
    let mut watch = watch(&core, &reader, b"a/");
    watch.slice_ns = u64::MAX;
    let mut bed = Plain { memory: core.memory.clone(), geometry: core.geometry, announces: true };
    std::thread::scope(|scope| {
        let watching = scope.spawn(move || {
            let mut last = 0;
            loop {
                let news = watch.wait(&reader, Deadline::NEVER, &mut bed, || false);
                let news = news.unwrap().unwrap();
                assert!(news.key.starts_with(b"a/") && !news.possibly, "{news:?}");
                assert!(news.version.is_none_or(|version| version > last), "{news:?}, {last}");
                last = news.version.unwrap_or(last);
                if news.key == b"a/end" {
                    return;
                }
            }
        });
        for number in 0..rounds {
            core.set(b"elsewhere", &number.to_le_bytes()).unwrap();
            core.set(b"a/1", &number.to_le_bytes()).unwrap();
            core.wake_watchers();
        }
        core.set(b"a/end", b"").unwrap();
        core.wake_watchers();
        watching.join().unwrap();
    });
}
