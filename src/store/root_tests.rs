//! The root: what readers make of tables that come and go while they look.

use super::between::Between;
use super::block::hash;
use super::copying::CopyingReader;
use super::core::{Core, Refusal};
use super::owner::Owner;
use super::reader::{ReadRefusal, Reader};
use super::root;
use super::table::Table;
use super::tests::geometry;
use crate::layout::store::page::PAGE_BYTES;
use crate::layout::store::table::LOG2_SLOTS;
use crate::layout::store::{GENERATION, ROOT};
use crate::memory::{CrashMemory, HeapMemory, Memory, Ordering};

fn core_of(arena_bytes: u64) -> Core<HeapMemory> {
    let geometry = geometry(arena_bytes);
    let core = Core::new(HeapMemory::new(geometry.len_bytes()), geometry);
    core.format().unwrap();
    core
}

fn log2_slots(core: &Core<HeapMemory>) -> u64 {
    Table::current(&core.memory, &core.geometry).unwrap().log2_slots()
}

/// Two keys whose searches begin at the same slot.
fn two_of_one_slot(core: &Core<HeapMemory>) -> [[u8; 4]; 2] {
    let seed = core.geometry.seed();
    let home = |key: &[u8; 4]| hash(key, seed) >> (64 - log2_slots(core));
    let keys = || (0..1000_u32).map(u32::to_le_bytes);
    let pair = |first: [u8; 4]| {
        Some((first, keys().find(|key| *key > first && home(key) == home(&first))?))
    };
    let (first, second) = keys().find_map(pair).expect("there are two");
    [first, second]
}

/// A store with a key behind a tombstone, and what moves it to the tombstone's place while a reader looks: the
/// table is replaced twice, and the second one lies where the first one lay.
fn and_back(generation: u64) -> (Core<HeapMemory>, [u8; 4], impl Fn() + Clone) {
    let mut core = core_of(256 << 10);
    core.memory.store_u64(GENERATION, generation, Ordering::Relaxed);
    let [gone, stays] = two_of_one_slot(&core);
    core.set(&gone, b"gone").unwrap();
    core.set(&stays, b"stays").unwrap();
    core.delete(&gone).unwrap();
    let (memory, geometry) = (core.memory.clone(), core.geometry);
    let act = move || {
        let mut core = Core::new(memory.clone(), geometry);
        let before = memory.load_u64(ROOT, Ordering::Relaxed);
        for _ in 0..2 {
            assert!(core.replace_table(log2_slots(&core)).unwrap());
            core.give_back().unwrap();
        }
        assert_eq!(memory.load_u64(ROOT, Ordering::Relaxed), before, "at the same place");
    };
    (core, stays, act)
}

/// Fails where the generation takes no part in a comparison of roots. The generations are those before which
/// 24 bits of it wrap, and all of it.
#[test]
fn f47_a_table_that_came_back_is_not_the_same() {
    for generation in [7, (1 << 24) - 2, u64::MAX - 1] {
        for at in 0.. {
            let (core, key, act) = and_back(generation);
            let between = Between::writable(core.memory.clone());
            let reader = Reader::claim(between.clone(), core.geometry, Owner::new(1, 1)).unwrap();
            assert!(reader.get(b"nothing").unwrap().is_none());
            between.act_at(at, act);
            assert_eq!(reader.get(&key).unwrap().expect("it stays").to_vec(), b"stays", "at {at}");
            let entries: Vec<_> = reader.entries(b"").map(|entry| entry.unwrap().0).collect();
            assert_eq!(entries, [key]);
            if between.is_waiting() {
                break;
            }
        }
    }
}

#[test]
fn f47_a_copying_reader_tells_a_table_that_came_back() {
    for at in 0.. {
        let (core, key, act) = and_back((1 << 24) - 2);
        let between = Between::read_only(core.memory.clone());
        let reader = CopyingReader::new(between.clone(), core.geometry);
        assert!(reader.get(b"nothing").unwrap().is_none());
        between.act_at(at, act);
        assert_eq!(&*reader.get(&key).unwrap().expect("it stays"), b"stays", "at {at}");
        assert_eq!(reader.iter().filter_map(Result::ok).count(), 1);
        if between.is_waiting() {
            return;
        }
    }
}

/// A cached table is believed for one generation only, also where another length lies at its place.
#[test]
fn f47_a_cached_table_is_read_anew_for_another_generation() {
    let mut core = core_of(1 << 20);
    for number in 0..40_u32 {
        core.set(&number.to_le_bytes(), b"v").unwrap();
    }
    let reader = Reader::claim(core.memory.clone(), core.geometry, Owner::new(1, 1)).unwrap();
    let copying = CopyingReader::new(core.memory.clone(), core.geometry);
    core.memory.store_u64(GENERATION, u64::MAX - 20, Ordering::Relaxed);
    for round in 0..40_u64 {
        assert!(core.replace_table(7 + round % 3).unwrap());
        core.give_back().unwrap();
        for number in 0..40_u32 {
            assert!(reader.get(&number.to_le_bytes()).unwrap().is_some(), "round {round}");
            assert!(copying.get(&number.to_le_bytes()).unwrap().is_some(), "round {round}");
        }
        assert!(reader.get(b"absent").unwrap().is_none());
    }
    assert_eq!(
        core.memory.load_u64(GENERATION, Ordering::Relaxed),
        19,
        "it goes on behind the last one"
    );
}

/// A reader that has seen a table once searches it without looking at the root first. Fails where "absent", or a
/// pinned block, counts without the look behind it.
#[test]
fn f47_a_cached_table_that_is_gone_proves_nothing() {
    let mut core = core_of(256 << 10);
    let reader = Reader::claim(core.memory.clone(), core.geometry, Owner::new(1, 1)).unwrap();
    core.set(b"k", b"old").unwrap();
    assert!(reader.get(b"k").unwrap().is_some());
    let old = Table::current(&core.memory, &core.geometry).unwrap();
    let super::table::Place::Present { slot, word, .. } = core.find(b"k").unwrap().1 else {
        panic!("it was set");
    };
    assert!(core.replace_table(old.log2_slots() + 1).unwrap());
    core.set(b"k", b"new").unwrap();
    // What lies at the old place still names the old value, which has not been given back.
    assert_eq!(core.memory.load_u64(slot, Ordering::Relaxed), word);
    assert_eq!(reader.get(b"k").unwrap().expect("set").to_vec(), b"new");
    // And without any value.
    assert!(core.replace_table(old.log2_slots()).unwrap());
    let now = Table::current(&core.memory, &core.geometry).unwrap();
    assert!(reader.get(b"k").unwrap().is_some());
    assert!(core.replace_table(old.log2_slots() + 1).unwrap());
    for number in 0..now.len() {
        core.memory.store_u64(now.numbered(number), 0, Ordering::Relaxed);
    }
    assert_eq!(reader.get(b"k").unwrap().expect("set").to_vec(), b"new");
}

/// Whatever is visible after a crash: no root word without its generation, and no generation twice.
#[test]
fn f47_a_crash_between_generation_and_root_is_harmless() {
    let geometry = geometry(64 << 10);
    let memory = CrashMemory::new(geometry.len_bytes());
    let mut core = Core::new(memory.clone(), geometry);
    core.format().unwrap();
    core.set(b"k", b"v").unwrap();
    let before = [ROOT, GENERATION].map(|word| memory.load_u64(word, Ordering::Relaxed));
    memory.record();
    assert!(core.replace_table(7).unwrap());
    let after = [ROOT, GENERATION].map(|word| memory.load_u64(word, Ordering::Relaxed));
    let mut between = 0;
    for image in memory.crash().images() {
        let heap = image.to_heap();
        let found = [ROOT, GENERATION].map(|word| heap.load_u64(word, Ordering::Relaxed));
        assert!([before, [before[0], after[1]], after].contains(&found), "{image}");
        let halfway = found == [before[0], after[1]];
        between += u32::from(halfway);
        let reader = Reader::claim(heap.clone(), geometry, Owner::new(1, 1)).unwrap();
        assert_eq!(reader.get(b"k").unwrap().expect("it stays").to_vec(), b"v", "{image}");
        let mut survivor = Core::new(heap.clone(), geometry);
        survivor.recover().unwrap();
        assert_eq!(survivor.check(), Ok(()), "{image}");
        assert!(survivor.replace_table(6).unwrap());
        let next = heap.load_u64(GENERATION, Ordering::Relaxed);
        assert!(next > found[1] && (!halfway || next > after[1]), "{image}");
        assert_eq!(reader.get(b"k").unwrap().expect("it stays").to_vec(), b"v", "{image}");
    }
    assert!(between > 0, "no image lies between the two stores");
}

/// Fails where `Table::at` believes any offset inside the arena.
#[test]
fn f47_a_table_is_adopted_only_where_an_object_of_its_length_starts() {
    let table = |core: &Core<HeapMemory>| core.memory.load_u64(ROOT, Ordering::Relaxed);
    let lies: [fn(&mut Core<HeapMemory>, u64); 7] = [
        // Inside an object, in no span, out of the arena, at a block.
        |core, table| root::switch_to(&core.memory, table + 64),
        |core, table| root::switch_to(&core.memory, table + 8 * PAGE_BYTES),
        |core, _| root::switch_to(&core.memory, 3),
        |core, _| root::switch_to(&core.memory, u64::MAX),
        |core, _| {
            let block = core.find(b"k").unwrap();
            let super::table::Place::Present { block, .. } = block.1 else { panic!("present") };
            root::switch_to(&core.memory, block.offset);
        },
        // Longer than its object, and shorter than what its class is for.
        |core, table| core.memory.store_u64(table + LOG2_SLOTS, 9, Ordering::Relaxed),
        |core, table| {
            core.memory.store_u64(table + LOG2_SLOTS, 7, Ordering::Relaxed);
            root::switch_to(&core.memory, table);
        },
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let mut core = core_of(256 << 10);
        core.set(b"k", b"v").unwrap();
        assert!(core.replace_table(8).unwrap());
        let (reader, copying) = (
            Reader::claim(core.memory.clone(), core.geometry, Owner::new(1, 1)).unwrap(),
            CopyingReader::new(core.memory.clone(), core.geometry),
        );
        let at = table(&core);
        lie(&mut core, at);
        assert_eq!(reader.get(b"k").map(drop), Err(ReadRefusal::Damage), "lie {number}");
        assert!(copying.get(b"k").is_err(), "lie {number}");
        assert_eq!(core.set(b"k", b"w"), Err(Refusal::Damage), "lie {number}");
        assert!(core.check().is_err() && core.recover().is_ok(), "lie {number}");
        assert_eq!(core.rebuild(), Err(Refusal::Damage), "lie {number}");
    }
}
