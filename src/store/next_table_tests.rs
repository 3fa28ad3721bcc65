//! The table in the making: how much of it an operation does, what it follows, and a crash at every store.

use std::collections::HashMap;

use super::batch::Change;
use super::between::Between;
use super::core::Core;
use super::next_table::{EMPTIED_AT_ONCE, HURRY, MOVED_AT_ONCE};
use super::owner::Owner;
use super::reader::Reader;
use super::spans::usable_pages;
use super::table::Table;
use super::tests::geometry;
use crate::layout::store::page::PAGE_BYTES;
use crate::layout::store::{
    GENERATION, LIVE_KEYS, NEXT_TABLE, NEXT_TABLE_EMPTIED, NEXT_TABLE_MOVED,
};
use crate::memory::{CrashMemory, HeapMemory, Memory, Ordering};

fn core_of<M: Memory>(memory: M, arena_bytes: u64) -> Core<M> {
    let core = Core::new(memory, geometry(arena_bytes));
    core.format().unwrap();
    core
}

fn heap(arena_bytes: u64) -> HeapMemory {
    HeapMemory::new(geometry(arena_bytes).len_bytes())
}

fn word(memory: &impl Memory, offset: u64) -> u64 {
    memory.load_u64(offset, Ordering::Relaxed)
}

fn key(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

/// Sets keys until a table is in the making whose slots are being moved.
fn begin_to_move<M: Memory>(core: &mut Core<M>) -> u64 {
    for number in 0.. {
        core.set(&key(number), b"v").unwrap();
        let (next, moved) = (word(&core.memory, NEXT_TABLE), word(&core.memory, NEXT_TABLE_MOVED));
        if next != 0 && moved > 20 && number > 100 {
            return number + 1;
        }
    }
    unreachable!()
}

/// Fails where a `set` replaces the whole table, or empties it.
#[test]
fn f88_a_set_moves_a_bounded_number_of_slots() {
    let mut core = core_of(heap(32 << 20), 32 << 20);
    let (mut before, mut most, mut tables) = ([0; 3], [0; 2], 0);
    for number in 0..60_000 {
        core.set(&key(number), b"v").unwrap();
        let now =
            [NEXT_TABLE, NEXT_TABLE_EMPTIED, NEXT_TABLE_MOVED].map(|at| word(&core.memory, at));
        if now[0] == before[0] && now[0] != 0 {
            most = [1, 2].map(|at| most[at - 1].max(now[at] - before[at]));
        }
        tables += u32::from(now[0] != 0 && now[0] != before[0]);
        before = now;
    }
    assert_eq!(most, [EMPTIED_AT_ONCE, MOVED_AT_ONCE]);
    assert!(tables >= 10, "{tables} tables");
    assert_eq!((core.check(), word(&core.memory, LIVE_KEYS)), (Ok(()), 60_000));
    // And back: tables get shorter in the same way.
    for number in 0..60_000 {
        let before = word(&core.memory, NEXT_TABLE_MOVED);
        assert!(core.delete(&key(number)).unwrap());
        assert!(word(&core.memory, NEXT_TABLE_MOVED) <= before + MOVED_AT_ONCE);
    }
    let table = Table::current(&core.memory, &core.geometry).unwrap();
    assert!(table.log2_slots() <= 12, "{table:?}");
    assert_eq!(core.check(), Ok(()));
}

/// All accesses to memory of one operation, of whatever part of it.
#[test]
fn f88_a_set_that_grows_makes_a_bounded_number_of_accesses() {
    let between = Between::writable(heap(8 << 20));
    let mut core = core_of(between.clone(), 8 << 20);
    let longest =
        (0..20_000).map(|number| between.accesses_of(|| core.set(&key(number), b"v").unwrap()));
    let longest = longest.max().unwrap();
    // A table of 32768 slots was replaced; a hundred accesses are a set's, the rest a step's.
    assert!(longest < 2500, "{longest} accesses");
}

/// Fails where a change of a slot that was moved is not made in both tables.
#[test]
fn f88_the_table_in_the_making_follows_every_change() {
    let mut core = core_of(heap(4 << 20), 4 << 20);
    let mut model = HashMap::new();
    let mut random = 1_u64;
    for step in 0..30_000_u64 {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // More keys for a while, then fewer.
        let growing = step % 12_000 < 7_000;
        let number = (random >> 33) % 4_000;
        let value = step.to_le_bytes();
        match (random >> 60, growing) {
            (0, _) => {
                let keys = [key(number), key(number + 1), key(number + 2)];
                let changes = [
                    Change::set(&keys[0], &value),
                    Change::delete(&keys[1]),
                    Change::set(&keys[2], &value),
                ];
                core.commit(&changes).unwrap();
                model.insert(number, value);
                model.remove(&(number + 1));
                model.insert(number + 2, value);
            }
            (1..4, true) | (1..12, false) => {
                assert_eq!(core.delete(&key(number)).unwrap(), model.remove(&number).is_some());
            }
            _ => {
                core.set(&key(number), &value).unwrap();
                model.insert(number, value);
            }
        }
        if step % 251 == 0 {
            assert_eq!(core.check(), Ok(()), "step {step}");
        }
    }
    let reader = Reader::claim(core.memory.clone(), core.geometry, Owner::new(1, 1)).unwrap();
    for number in 0..4_002 {
        let found = reader.get(&key(number)).unwrap().map(|found| found.to_vec());
        assert_eq!(found.as_deref(), model.get(&number).map(|value| &value[..]), "key {number}");
    }
}

/// Fails where recovery keeps a table that may lack a slot, or does not give it back.
#[test]
fn f88_a_death_drops_the_table_in_the_making() {
    let arena_bytes = 256 << 10;
    let memory = CrashMemory::new(geometry(arena_bytes).len_bytes());
    let mut core = core_of(memory.clone(), arena_bytes);
    let keys = begin_to_move(&mut core);
    memory.record();
    // New keys, another value, a deletion: some behind the mark, some before it.
    for number in keys..keys + 8 {
        core.set(&key(number), b"v").unwrap();
    }
    core.set(&key(1), b"w").unwrap();
    core.delete(&key(2)).unwrap();
    core.commit(&[Change::set(&key(3), b"w"), Change::delete(&key(4))]).unwrap();
    let mut dropped = 0;
    for image in memory.crash().sample(700) {
        let heap = image.to_heap();
        dropped += u32::from(word(&heap, NEXT_TABLE) != 0);
        let mut survivor = Core::new(heap.clone(), core.geometry);
        survivor.recover().unwrap();
        assert_eq!(word(&heap, NEXT_TABLE), 0, "{image}");
        assert_eq!(survivor.check(), Ok(()), "{image}");
        for number in keys..keys + 200 {
            survivor.set(&key(number), b"x").unwrap();
        }
        assert_eq!(survivor.check(), Ok(()), "{image}");
        let reader = Reader::claim(heap, core.geometry, Owner::new(1, 1)).unwrap();
        for number in (0..keys + 200).filter(|number| ![2, 4].contains(number)) {
            assert!(reader.get(&key(number)).unwrap().is_some(), "{image}: key {number}");
        }
    }
    assert!(dropped > 100, "{dropped} images with one in the making");
}

/// A store that nobody died with goes on where it was.
#[test]
fn f88_a_table_in_the_making_outlives_its_writers_handle() {
    let mut core = core_of(heap(1 << 20), 1 << 20);
    let keys = begin_to_move(&mut core);
    let mut next = Core::new(core.memory.clone(), core.geometry);
    let slots = Table::current(&next.memory, &next.geometry).unwrap().len();
    for number in keys..keys + slots {
        next.set(&key(number), b"v").unwrap();
    }
    assert!(Table::current(&next.memory, &next.geometry).unwrap().len() > slots);
    assert_eq!(next.check(), Ok(()));
}

/// What the tables of so many new keys cost a batch of any length, slot for slot. Fails where a batch moves all of a
/// table that it could have moved step by step.
#[test]
fn f88_a_batch_moves_slots_in_proportion_to_its_changes() {
    for len in [2, 7, 64, 500, 3_000] {
        let between = Between::writable(heap(8 << 20));
        let mut core = core_of(between.clone(), 8 << 20);
        let mut longest = 0;
        for first in (0..20_000).step_by(len) {
            let keys: Vec<_> = (first..first + len as u64).map(key).collect();
            let changes: Vec<_> = keys.iter().map(|key| Change::set(key, b"v")).collect();
            longest = longest.max(between.accesses_of(|| core.commit(&changes).unwrap()));
        }
        // Less for each change than the step that it may make, and one look at what was retired.
        assert!(longest < 1_500 * len as u64 + 10_000, "{len} changes: {longest} accesses");
    }
}

/// The table is nearly full before there is room for a larger one. Fails where that is then built in one operation.
#[test]
fn f88_a_table_that_had_no_room_before_is_built_by_steps() {
    let arena_bytes = 4 << 20;
    let between = Between::writable(heap(arena_bytes));
    let mut core = core_of(between.clone(), arena_bytes);
    let slots = 16_384;
    for number in 0..slots / 4 * 3 {
        core.set(&key(number), b"v").unwrap();
    }
    let table = |core: &Core<Between>| Table::current(&core.memory, &core.geometry).unwrap();
    assert_eq!(table(&core).len(), slots);
    // Leaves 56 pages: room for the values, and none for a table of 65 pages.
    core.give_back().unwrap();
    let pages = usable_pages(&core.memory, &core.geometry) - 56;
    core.set(b"filler", &vec![0; (pages * PAGE_BYTES - 64) as usize]).unwrap();
    let full = table(&core).full();
    let mut keys = slots / 4 * 3;
    while word(&core.memory, LIVE_KEYS) < full {
        core.set(&key(keys), b"v").unwrap();
        keys += 1;
    }
    assert_eq!((table(&core).len(), word(&core.memory, NEXT_TABLE)), (slots, 0));
    assert!(core.delete(b"filler").unwrap());
    core.give_back().unwrap();
    let (mut longest, mut steps) = (0, 0);
    while table(&core).len() == slots {
        let before = [NEXT_TABLE_EMPTIED, NEXT_TABLE_MOVED].map(|at| word(&core.memory, at));
        longest = longest.max(between.accesses_of(|| core.set(&key(keys), b"v").unwrap()));
        let after = [NEXT_TABLE_EMPTIED, NEXT_TABLE_MOVED].map(|at| word(&core.memory, at));
        if steps > 0 {
            assert!(after[0] <= before[0] + HURRY * EMPTIED_AT_ONCE);
            assert!(after[1] <= before[1] + HURRY * MOVED_AT_ONCE);
        }
        (keys, steps) = (keys + 1, steps + 1);
    }
    assert!(steps > 100 && longest < 5_000, "{steps} steps, {longest} accesses");
    assert_eq!(core.check(), Ok(()));
}

/// Fails where the table begins shorter than was asked for, or gets shorter.
#[test]
fn f88_a_table_for_expected_keys_stays() {
    let core = Core::new(heap(8 << 20), geometry(8 << 20));
    core.format_for(12_000).unwrap();
    let mut core = core;
    let generation = word(&core.memory, GENERATION);
    for number in 0..12_000 {
        core.set(&key(number), b"v").unwrap();
    }
    for number in 0..11_990 {
        core.delete(&key(number)).unwrap();
    }
    assert_eq!(word(&core.memory, GENERATION), generation, "the same table");
    core.clear().unwrap();
    assert_eq!(Table::current(&core.memory, &core.geometry).unwrap().len(), 16_384);
    assert_eq!(core.check(), Ok(()));
    // It grows beyond what was expected.
    for number in 0..15_000 {
        core.set(&key(number), b"v").unwrap();
    }
    assert!(Table::current(&core.memory, &core.geometry).unwrap().len() > 16_384);
}

/// Fails where one operation gives back all that others have retired.
#[test]
fn f88_a_set_gives_back_a_bounded_number_of_blocks() {
    let between = Between::writable(heap(4 << 20));
    let mut core = core_of(between.clone(), 4 << 20);
    for number in 0..1_000 {
        core.set(&key(number), b"v").unwrap();
    }
    let longest = (0..10_000)
        .map(|number| between.accesses_of(|| core.set(&key(number % 1_000), b"w").unwrap()));
    let longest = longest.max().unwrap();
    // 128 blocks, fewer than a hundred accesses each.
    assert!(longest < 10_000, "{longest} accesses");
}
