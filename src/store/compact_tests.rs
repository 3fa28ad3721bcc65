//! Compaction: how full a store can be, what readers see of it, and a crash at every store of it.

use std::collections::HashMap;

use super::StoreGeometry;
use super::core::Core;
use super::owner::Owner;
use super::pinned::Pinned;
use super::reader::Reader;
use super::spans;
use super::table::Place;
use super::table::Table;
use super::tests::{crash_everywhere_in, get, key, value};
use crate::layout::store::{FREE_PAGES, LIVE_BYTES, LIVE_KEYS, ROOT};
use crate::memory::{CrashMemory, HeapMemory, Memory, Ordering};

/// SplitMix64.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % end
    }
}

fn word(core: &Core<HeapMemory>, offset: u64) -> u64 {
    core.memory.load_u64(offset, Ordering::Relaxed)
}

/// Bytes of the blocks that slots name, and of the current table.
fn live_bytes(core: &Core<HeapMemory>) -> u64 {
    let table = Table::current(&core.memory, &core.geometry).unwrap();
    word(core, LIVE_BYTES) + Table::bytes(table.log2_slots())
}

/// Lengths of values, one mix after another.
fn len(random: &mut Random, mix: u64, longest: u64) -> u64 {
    let up_to = |random: &mut Random, end: u64| random.below(end.min(longest));
    match mix % 8 {
        0 => 20 + random.below(200),
        1 => up_to(random, 5_000),
        2 => 4_000 + up_to(random, 40_000),
        3 => 1_000,
        4 => up_to(random, longest),
        5 => 90,
        6 => 1 << random.below(u64::from(longest.ilog2())),
        _ => {
            let end = [100, 1_000, 10_000, longest][random.below(4) as usize];
            up_to(random, end)
        }
    }
}

/// Sets, replaces and deletes, so that the store is just below `percent` of its arena full all the
/// time, with values whose lengths change. `pins`: so many of them are held for a while by a reader.
fn churn(arena_bytes: u64, steps: u64, percent: u64, pins: u64) -> Core<HeapMemory> {
    let seed = std::env::var("RINGWAY_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("RINGWAY_SEED={seed}");
    let mut random = Random(seed);
    let geometry = StoreGeometry::new(arena_bytes, 2, seed).unwrap();
    let memory = HeapMemory::new(geometry.len_bytes());
    let mut core = Core::new(memory.clone(), geometry);
    core.format().unwrap();
    let reader = Reader::claim(memory, geometry, Owner::new(1, 1)).unwrap();
    let mut held: Vec<(Pinned<'_, _>, u64)> = Vec::new();
    let longest = arena_bytes / 100;
    let full = arena_bytes / 100 * percent;
    let bytes: Vec<u8> = value(7, longest as usize + 50_000);
    // Keys, with what their values are: a part of `bytes`.
    let mut keys: Vec<[u8; 8]> = Vec::new();
    let mut model: HashMap<[u8; 8], (usize, usize)> = HashMap::new();
    let (mut last_version, mut most) = (0, 0);
    for step in 0..steps {
        let mix = step * 24 / steps;
        // Every tenth key is one that is there.
        let known = keys.len() as u64;
        let key = match random.below(10) {
            0 if known > 0 => keys[random.below(known) as usize],
            _ => step.to_le_bytes(),
        };
        let len = len(&mut random, mix, longest);
        while live_bytes(&core) + len + 64 > full {
            let key = keys.swap_remove(random.below(keys.len() as u64) as usize);
            assert!(core.delete(&key).unwrap());
            model.remove(&key);
        }
        let start = random.below(1000) as usize * 8;
        let start = start.min(bytes.len() - len as usize);
        most = most.max(live_bytes(&core));
        let version = match core.set(&key, &bytes[start..start + len as usize]) {
            Ok(version) => version,
            Err(refusal) => panic!(
                "step {step}, mix {mix}, {len} bytes: {refusal}; {} of {full} bytes live, {} keys, {} pages free",
                live_bytes(&core),
                word(&core, LIVE_KEYS),
                word(&core, FREE_PAGES),
            ),
        };
        assert!(version > last_version);
        last_version = version;
        if model.insert(key, (start, len as usize)).is_none() {
            keys.push(key);
        }
        if pins > 0 && step % 64 == 0 {
            if held.len() as u64 >= pins {
                let (found, sum) = held.remove(0);
                assert_eq!(crc(&found.to_vec()), sum);
            }
            let key = keys[random.below(keys.len() as u64) as usize];
            let found = reader.get(&key).unwrap().unwrap();
            let sum = crc(&found.to_vec());
            held.push((found, sum));
        }
        if step % (steps / 16) == 0 {
            assert_eq!(core.check(), Ok(()));
            for (key, (start, len)) in &model {
                assert!(get(&core, key).unwrap() == bytes[*start..start + len]);
            }
        }
    }
    drop(held);
    assert!(most > full - full / 20, "it was hardly full");
    core
}

fn crc(bytes: &[u8]) -> u64 {
    super::block::hash(bytes, 0)
}

/// What the documentation says: at most so much of the arena is live, in percent.
const FULL: u64 = 80;

#[test]
fn a_store_that_is_nearly_full_does_not_run_dry() {
    let steps = if cfg!(debug_assertions) { 40_000 } else { 2_000_000 };
    let mut core = churn(16 << 20, steps, FULL, 0);
    assert_eq!(core.check(), Ok(()));
}

#[test]
fn a_store_that_is_nearly_full_does_not_run_dry_beside_a_reader_that_holds_what_it_reads() {
    let steps = if cfg!(debug_assertions) { 40_000 } else { 500_000 };
    churn(16 << 20, steps, FULL, 16);
}

/// What readers find under each key: its value, and the value's version.
fn found<M: Memory>(core: &Core<M>) -> Vec<Option<(Vec<u8>, u64)>> {
    let version = |number| match core.find(&key(number)).unwrap().1 {
        Place::Present { block, .. } => block.version,
        Place::Absent { .. } => 0,
    };
    (0..100).map(|number| Some((get(core, &key(number))?, version(number)))).collect()
}

/// Dies at every store of `operation` on a store that `prepare` has filled: afterwards every key has the
/// value and the version that it had.
fn dies_everywhere_and_nothing_is_lost(
    arena_bytes: u64,
    prepare: fn(&mut Core<CrashMemory>),
    operation: fn(&mut Core<CrashMemory>),
) -> [u32; 4] {
    let geometry = StoreGeometry::new(arena_bytes, 2, 0x5eed).unwrap();
    let mut before = Core::new(CrashMemory::new(geometry.len_bytes()), geometry);
    before.format().unwrap();
    prepare(&mut before);
    let expected = found(&before);
    assert!(expected.iter().flatten().count() > 3);
    crash_everywhere_in(arena_bytes, prepare, operation, |core| found(core) == expected)
}

/// Four values a page, and of most pages one is left.
fn fill_sparsely(core: &mut Core<CrashMemory>) {
    for number in 0..24 {
        core.set(&key(number), &value(number.into(), 900)).unwrap();
    }
    for number in (0..24).filter(|number| number % 4 != 0) {
        core.delete(&key(number)).unwrap();
    }
    core.give_back().unwrap();
}

#[test]
fn f04_a_writer_killed_while_it_empties_spans_loses_nothing() {
    let outcomes = dies_everywhere_and_nothing_is_lost(64 << 10, fill_sparsely, |core| {
        let free = core.memory.load_u64(FREE_PAGES, Ordering::Relaxed);
        core.tighten(u64::MAX).unwrap();
        assert!(core.memory.load_u64(FREE_PAGES, Ordering::Relaxed) > free);
    });
    let [clean, taken_back, finished, rebuilt] = outcomes;
    assert!(clean > 0 && taken_back > 50 && finished > 20, "{outcomes:?}");
    assert_eq!(rebuilt, 0, "the journal is enough");
}

/// Eight pairs of spans, the first of one page, the second of `pages`, and a value that takes the rest;
/// then what lies in the first ones goes, and leaves holes.
fn fill_with_holes(core: &mut Core<CrashMemory>, len: usize) {
    // One that need not grow.
    assert!(core.replace_table(8).unwrap());
    for pair in 0..8 {
        for index in 0..8 {
            core.set(&[pair, index], &[1; 440]).unwrap();
        }
        for index in 0..8 {
            core.set(&key(pair * 8 + index), &value(index.into(), len)).unwrap();
        }
    }
    let has_run = |pages| spans::has_run(&core.memory, &core.geometry, pages).unwrap();
    let rest = (0..128).rev().find(|pages| has_run(*pages)).unwrap();
    core.set(b"rest", &vec![7; rest as usize * 4096 - 100]).unwrap();
    for pair in 0..8 {
        for index in 0..8 {
            assert!(core.delete(&[pair, index]).unwrap());
        }
    }
    core.give_back().unwrap();
}

fn make_run(core: &mut Core<CrashMemory>, pages: u64) {
    let has_run = |core: &Core<_>| spans::has_run(&core.memory, &core.geometry, pages).unwrap();
    assert!(!has_run(core));
    core.make_run(pages).unwrap();
    assert!(has_run(core));
}

#[test]
fn f04_a_writer_killed_while_it_empties_a_window_loses_nothing() {
    // What lies in the window fits into other holes.
    let fill = |core: &mut Core<CrashMemory>| fill_with_holes(core, 440);
    let outcomes = dies_everywhere_and_nothing_is_lost(512 << 10, fill, |core| make_run(core, 3));
    assert!(outcomes[1] > 50 && outcomes[2] > 5 && outcomes[3] == 0, "{outcomes:?}");
}

#[test]
fn f04_a_writer_killed_while_it_closes_holes_loses_nothing() {
    // Spans of two pages fit into no hole, and what is moved down by one page goes to the spare pages first.
    let fill = |core: &mut Core<CrashMemory>| fill_with_holes(core, 900);
    let outcomes = dies_everywhere_and_nothing_is_lost(512 << 10, fill, |core| make_run(core, 3));
    assert!(outcomes[1] > 50 && outcomes[2] > 5 && outcomes[3] == 0, "{outcomes:?}");
}

#[test]
fn f04_a_writer_killed_while_it_moves_the_table_loses_nothing() {
    let fill = |core: &mut Core<CrashMemory>| {
        fill_sparsely(core);
        assert!(core.replace_table(12).unwrap());
    };
    let outcomes = dies_everywhere_and_nothing_is_lost(512 << 10, fill, |core| {
        let root = core.memory.load_u64(ROOT, Ordering::Relaxed);
        core.move_table(100).unwrap();
        assert_ne!(core.memory.load_u64(ROOT, Ordering::Relaxed), root);
    });
    assert!(outcomes[3] > 50, "{outcomes:?}");
}

#[test]
fn f04_no_version_is_given_out_twice_whenever_a_writer_dies() {
    let geometry = StoreGeometry::new(64 << 10, 2, 0x5eed).unwrap();
    let memory = CrashMemory::new(geometry.len_bytes());
    let mut core = Core::new(memory.clone(), geometry);
    core.format().unwrap();
    core.set(b"k", b"old").unwrap();
    memory.record();
    let version = core.set(b"k", b"new").unwrap();
    let Place::Present { block, .. } = core.find(b"k").unwrap().1 else { panic!("just set") };
    let (mut used, mut unused) = (0, 0);
    for image in memory.crash().sample(2000) {
        let heap = image.to_heap();
        // Readers that copy may have seen it, whether or not it was ever current.
        let was_used = heap.load_u64(block.offset, Ordering::Relaxed) == version;
        let mut survivor = Core::new(heap, geometry);
        survivor.recover().unwrap();
        survivor.rebuild().unwrap();
        let next = survivor.set(b"other", b"later").unwrap();
        assert!(next > version || !was_used, "{next}, {version}");
        if was_used { used += 1 } else { unused += 1 }
    }
    assert!(used > 10 && unused > 10, "{used}, {unused}");
}

#[test]
fn a_table_grows_where_room_is_scattered_and_shrinks_behind_its_keys() {
    let geometry = StoreGeometry::new(4 << 20, 2, 0x5eed).unwrap();
    let mut core = Core::new(HeapMemory::new(geometry.len_bytes()), geometry);
    core.format().unwrap();
    let slots =
        |core: &Core<HeapMemory>| Table::current(&core.memory, &core.geometry).unwrap().len();
    // Until nothing fits any more: the table has grown, although what was free had holes.
    let mut keys = 0_u32;
    while core.set(&keys.to_le_bytes(), &vec![1; keys as usize % 300]).is_ok() {
        keys += 1;
    }
    assert!(live_bytes(&core) > geometry.arena_bytes() * FULL / 100);
    assert_eq!((core.check(), word(&core, LIVE_KEYS)), (Ok(()), keys.into()));
    assert!(slots(&core) >= u64::from(keys));
    // What was there stays, and can be replaced and deleted.
    for number in 0..keys {
        let found = get(&core, &number.to_le_bytes()).unwrap();
        assert_eq!(found, vec![1; number as usize % 300]);
    }
    for number in 10..keys {
        assert!(core.delete(&number.to_le_bytes()).unwrap());
    }
    // It shrinks step by step, with the deletions.
    assert!(slots(&core) <= 1024, "{} slots", slots(&core));
    assert_eq!(core.check(), Ok(()));
    core.give_back().unwrap();
    let free = geometry.pages() - word(&core, FREE_PAGES);
    assert!(free < 24, "{free} pages are in use");
}
