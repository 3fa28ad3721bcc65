//! The core against a `HashMap`, with a crash at every store.

use std::collections::HashMap;

use proptest::prelude::*;

use super::StoreGeometry;
use super::core::{Core, Refusal};
use super::owner::Owner;
use super::reader::Reader;
use super::table::Place;
use crate::layout::WORD_BYTES;
use crate::layout::store::{LIVE_BYTES, LIVE_KEYS, NEXT_VERSION, TOMBSTONES, reader, slot};
use crate::memory::{CrashMemory, HeapMemory, Memory, Ordering};

pub(super) type Model = HashMap<Vec<u8>, Vec<u8>>;

pub(super) fn geometry(arena_bytes: u64) -> StoreGeometry {
    StoreGeometry::new(arena_bytes, 2, 0x5eed).unwrap()
}

pub(super) fn core_of(arena_bytes: u64) -> Core<HeapMemory> {
    let geometry = geometry(arena_bytes);
    let core = Core::new(HeapMemory::new(geometry.len_bytes()), geometry);
    core.format().unwrap();
    core
}

pub(super) fn get<M: Memory>(core: &Core<M>, key: &[u8]) -> Option<Vec<u8>> {
    match core.find(key).unwrap().1 {
        Place::Absent { .. } => None,
        Place::Present { block, .. } => {
            let mut value = vec![0; block.value_len as usize];
            core.memory.copy_out(block.value(), &mut value);
            Some(value)
        }
    }
}

pub(super) fn assert_equals<M: Memory>(core: &mut Core<M>, model: &Model) {
    assert_eq!(core.check(), Ok(()));
    for (key, value) in model {
        assert_eq!(get(core, key).as_ref(), Some(value), "{key:?}");
    }
    let live = core.memory.load_u64(LIVE_KEYS, Ordering::Relaxed);
    assert_eq!(live, model.len() as u64);
}

#[derive(Debug, Clone)]
enum Op {
    Set(u8, usize),
    Delete(u8),
    GiveBack,
    Rebuild,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let len = prop_oneof![4 => 0..200_usize, 1 => 200..5000_usize, 1 => 5000..50_000_usize];
    let op = prop_oneof![
        8 => (any::<u8>(), len).prop_map(|(key, len)| Op::Set(key, len)),
        4 => any::<u8>().prop_map(Op::Delete),
        1 => Just(Op::GiveBack),
        1 => Just(Op::Rebuild),
    ];
    proptest::collection::vec(op, 1..200)
}

pub(super) fn key(number: u8) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

pub(super) fn value(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(31) ^ seed) as u8).collect()
}

proptest! {
    #[test]
    fn does_what_a_hash_map_does(ops in ops()) {
        let mut core = core_of(1 << 20);
        let mut model = Model::new();
        for (step, op) in ops.into_iter().enumerate() {
            match op {
                Op::Set(number, len) => {
                    let (key, value) = (key(number), value(step, len));
                    match core.set(&key, &value) {
                        Ok(_) => drop(model.insert(key, value)),
                        Err(refusal) => {
                            prop_assert_eq!(refusal, Refusal::OutOfSpace);
                            prop_assert_eq!(get(&core, &key), model.get(&key).cloned());
                        }
                    }
                }
                Op::Delete(number) => {
                    let key = key(number);
                    prop_assert_eq!(core.delete(&key).unwrap(), model.remove(&key).is_some());
                }
                Op::GiveBack => core.give_back().unwrap(),
                Op::Rebuild => assert!(core.rebuild().is_ok()),
            }
        }
        assert_equals(&mut core, &model);
    }
}

#[test]
fn a_key_whose_block_lies_in_no_object_is_not_deleted() {
    let mut core = core_of(64 << 10);
    core.set(b"k", b"1").unwrap();
    core.set(b"around", &[0; 1000]).unwrap();
    let Place::Present { slot, block, .. } = core.find(b"k").unwrap().1 else { panic!("absent") };
    let Place::Present { block: around, .. } = core.find(b"around").unwrap().1 else {
        panic!("absent")
    };
    block.copy_to(&core.memory, around.value());
    core.memory.store_u64(slot, slot::pack(around.value(), block.hash), Ordering::Relaxed);
    assert_eq!(core.delete(b"k"), Err(Refusal::Damage));
    assert_eq!(core.rebuild(), Err(Refusal::Damage));
    assert_eq!(get(&core, b"k").unwrap(), b"1");
}

#[test]
fn a_table_grows_and_forgets_its_tombstones() {
    let mut core = core_of(8 << 20);
    let mut model = Model::new();
    for round in 0..3 {
        for number in 0..10_000_u32 {
            let key = number.to_le_bytes().to_vec();
            core.set(&key, &value(round, 20)).unwrap();
            model.insert(key, value(round, 20));
        }
        for number in (0..10_000_u32).step_by(2) {
            assert!(core.delete(&number.to_le_bytes()).unwrap());
            model.remove(&number.to_le_bytes()[..]);
        }
        assert_equals(&mut core, &model);
    }
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let mut core = core_of(1 << 20);
    core.set(b"k", b"old").unwrap();
    for len in
        [2 << 20, 1 << 20, (1 << 20) - 4096, usize::MAX >> 8].map(|len: usize| len.min(4 << 20))
    {
        assert_eq!(core.set(b"k", &vec![7; len]), Err(Refusal::OutOfSpace));
        assert_eq!(core.set(b"other", &vec![7; len]), Err(Refusal::OutOfSpace));
        assert_eq!(get(&core, b"k").unwrap(), b"old");
        assert_eq!(core.check(), Ok(()));
    }
    let mut keys = 0_u32;
    while core.set(&keys.to_le_bytes(), &[1; 1000]).is_ok() {
        keys += 1;
    }
    assert!(keys > 700, "{keys} keys of 1000 bytes in 1 MiB");
    assert_eq!(core.check(), Ok(()));
}

#[test]
fn what_is_pinned_is_kept_and_given_back_later() {
    let mut core = core_of(1 << 20);
    core.set(b"k", b"old").unwrap();
    let Place::Present { block, .. } = core.find(b"k").unwrap().1 else { panic!("absent") };
    let record = core.geometry.reader(1);
    core.memory.store_u64(record + reader::OWNER, 1, Ordering::Relaxed);
    let pin = record + reader::PINS + 3 * WORD_BYTES;
    core.memory.store_u64(pin, block.offset, Ordering::Relaxed);
    core.set(b"k", b"new").unwrap();
    for _ in 0..3 {
        core.give_back().unwrap();
        core.rebuild().unwrap();
        assert!(block.is_whole(&core.memory, core.geometry.seed()), "pinned");
        assert_eq!(core.check(), Ok(()));
    }
    core.memory.store_u64(pin, 0, Ordering::Relaxed);
    core.give_back().unwrap();
    assert_eq!(core.memory.load_u64(block.offset, Ordering::Relaxed), 0, "given back");
    assert_eq!((get(&core, b"k").unwrap(), core.check()), (b"new".to_vec(), Ok(())));
}

/// Somebody looks at more than a sixteenth of the store: no reason to look at all pins before every change.
#[test]
fn what_stays_pinned_is_not_looked_for_again_and_again() {
    use super::limbo::is_due;
    let mut core = core_of(1 << 20);
    core.set(b"k", &[1; 100_001]).unwrap();
    let Place::Present { block, .. } = core.find(b"k").unwrap().1 else { panic!("absent") };
    let record = core.geometry.reader(1);
    core.memory.store_u64(record + reader::OWNER, 1, Ordering::Relaxed);
    core.memory.store_u64(record + reader::PINS, block.offset, Ordering::Relaxed);
    core.set(b"k", b"short").unwrap();
    let is_now = |core: &Core<HeapMemory>| is_due(&core.memory, &core.geometry, core.held);
    assert!(is_now(&core), "nobody has looked yet");
    core.give_back().unwrap();
    let bytes = super::arena::room_bytes(&core.memory, &core.geometry, block.offset).unwrap();
    assert_eq!((core.held.entries, core.held.bytes), (1, bytes));
    // Odd lengths, so that what is put in and what is taken out differ unless both are rounded.
    for round in 0..120 {
        assert!(!is_now(&core), "{round} short values");
        core.set(b"k", &value(round, 33)).unwrap();
    }
    core.give_back().unwrap();
    assert_eq!((core.held.entries, core.held.bytes), (1, bytes));
    core.set(b"other", &[2; 70_000]).unwrap();
    core.set(b"other", b"").unwrap();
    assert!(is_now(&core), "a sixteenth more");
    core.memory.store_u64(record + reader::PINS, 0, Ordering::Relaxed);
    core.give_back().unwrap();
    assert_eq!((core.held.entries, core.held.bytes), (0, 0));
    assert_eq!(core.check(), Ok(()));
}

/// How many images of a crash are looked at, and of a crash in the recovery.
const IMAGES: usize = if cfg!(debug_assertions) { 400 } else { 4000 };
const NESTED: usize = 16;
const SMALL_ARENA_BYTES: u64 = 64 << 10;

/// Runs `operation` on a store that `prepare` has filled; takes images that a crash in it can
/// leave, recovers, and again with a crash in the recovery. `allowed` says which values of which
/// key there may be.
pub(super) fn crash_everywhere(
    prepare: impl Fn(&mut Core<CrashMemory>),
    operation: impl Fn(&mut Core<CrashMemory>),
    allowed: impl Fn(&Core<HeapMemory>) -> bool,
) -> [u32; 4] {
    crash_everywhere_in(SMALL_ARENA_BYTES, prepare, operation, allowed)
}

/// As [`crash_everywhere`], in an arena of so many bytes.
pub(super) fn crash_everywhere_in(
    arena_bytes: u64,
    prepare: impl Fn(&mut Core<CrashMemory>),
    operation: impl Fn(&mut Core<CrashMemory>),
    allowed: impl Fn(&Core<HeapMemory>) -> bool,
) -> [u32; 4] {
    let geometry = geometry(arena_bytes);
    let memory = CrashMemory::new(geometry.len_bytes());
    let mut core = Core::new(memory.clone(), geometry);
    core.format().unwrap();
    prepare(&mut core);
    memory.record();
    operation(&mut core);
    let mut outcomes = [0; 4];
    // An image of a larger arena costs more, so there are fewer.
    let step = (arena_bytes / SMALL_ARENA_BYTES) as usize;
    for (number, image) in memory.crash().sample(IMAGES).step_by(step).enumerate() {
        let mut survivor = Core::new(image.to_heap(), geometry);
        let recovered = survivor.recover().unwrap();
        outcomes[recovered as usize] += 1;
        assert_eq!(survivor.check(), Ok(()), "image {number}, {recovered:?}");
        assert!(allowed(&survivor), "image {number}");
        // Not at every image, because there are many: deaths in the recovery itself.
        if number % 16 == 0 {
            let again = image.to_memory();
            again.record();
            Core::new(again.clone(), geometry).recover().unwrap();
            for nested in again.crash().sample(NESTED) {
                let mut survivor = Core::new(nested.to_heap(), geometry);
                survivor.recover().unwrap();
                assert_eq!(survivor.check(), Ok(()), "image {number}, nested");
                assert!(allowed(&survivor), "image {number}, nested");
            }
        }
    }
    outcomes
}

/// Values of keys that an operation does not touch.
pub(super) fn fill(core: &mut Core<CrashMemory>) {
    for number in 0..20 {
        core.set(&key(number), &value(number.into(), 100)).unwrap();
    }
    for number in 10..15 {
        core.delete(&key(number)).unwrap();
    }
}

pub(super) fn others_are_untouched(core: &Core<HeapMemory>) -> bool {
    (0..20).all(|number| {
        let expected = (!(10..15).contains(&number)).then(|| value(number.into(), 100));
        get(core, &key(number)) == expected
    })
}

fn either(core: &Core<HeapMemory>, old: Option<&[u8]>, new: Option<&[u8]>) -> bool {
    let found = get(core, b"k");
    others_are_untouched(core) && (found.as_deref() == old || found.as_deref() == new)
}

#[test]
fn f04_a_writer_killed_anywhere_in_a_set_leaves_the_old_or_the_new() {
    // A first value of a length that no span is there for; and a value in the place of another.
    let first = crash_everywhere(
        fill,
        |core| assert!(core.set(b"k", &[3; 700]).is_ok()),
        |core| either(core, None, Some(&[3; 700])),
    );
    let again = crash_everywhere(
        |core| {
            fill(core);
            core.set(b"k", &[1; 100]).unwrap();
        },
        |core| assert!(core.set(b"k", &[2; 100]).is_ok()),
        |core| either(core, Some(&[1; 100]), Some(&[2; 100])),
    );
    // And where the last free object of its class is taken: it has a link that says 0.
    let last = crash_everywhere(
        |core| {
            fill(core);
            core.give_back().unwrap();
            core.set(b"a", &[1; 700]).unwrap();
            core.set(b"b", &[1; 700]).unwrap();
            core.delete(b"a").unwrap();
            core.give_back().unwrap();
        },
        |core| assert!(core.set(b"k", &[3; 700]).is_ok()),
        |core| either(core, None, Some(&[3; 700])),
    );
    for outcomes in [first, again, last] {
        let [clean, taken_back, finished, rebuilt] = outcomes;
        assert!(clean > 0 && taken_back > 10 && finished > 3, "{outcomes:?}");
        assert_eq!(rebuilt, 0, "the journal is enough");
    }
}

#[test]
fn f04_a_writer_killed_anywhere_in_a_delete_leaves_the_old_or_nothing() {
    let outcomes = crash_everywhere(
        |core| {
            fill(core);
            core.set(b"k", &[1; 100]).unwrap();
        },
        |core| assert!(core.delete(b"k").unwrap()),
        |core| either(core, Some(&[1; 100]), None),
    );
    assert!(outcomes[2] > 3 && outcomes[3] == 0, "{outcomes:?}");
}

#[test]
fn f04_a_writer_killed_with_the_last_free_object_in_hand_puts_it_back() {
    let prepare = |core: &mut Core<CrashMemory>| {
        fill(core);
        core.set(b"gone", &value(1, 1000)).unwrap();
        core.set(b"stays", &value(2, 1000)).unwrap();
        core.delete(b"gone").unwrap();
        core.give_back().unwrap();
    };
    let [_, taken_back, ..] = crash_everywhere(
        prepare,
        |core| assert!(core.set(b"k", &value(3, 1000)).is_ok()),
        |core| either(core, None, Some(&value(3, 1000))),
    );
    assert!(taken_back > 10);
}

#[test]
fn f04_a_writer_killed_while_it_gives_back_or_grows_loses_nothing() {
    let given_back = crash_everywhere(fill, |core| core.give_back().unwrap(), others_are_untouched);
    assert!(given_back[1] > 10 && given_back[3] == 0, "{given_back:?}");
    // The table has 64 slots, 48 of which may be taken.
    let grown = crash_everywhere(
        |core| {
            fill(core);
            let taken = |core: &Core<CrashMemory>| {
                let word = |offset| core.memory.load_u64(offset, Ordering::Relaxed);
                word(LIVE_KEYS) + word(TOMBSTONES)
            };
            for number in 20.. {
                if taken(core) == 48 {
                    break;
                }
                core.set(&key(number), b"x").unwrap();
            }
        },
        // One begins with another table, one empties it, and four move the slots.
        |core| (0..6).for_each(|_| assert!(core.set(b"k", b"y").is_ok())),
        |core| either(core, None, Some(b"y")),
    );
    assert!(grown[3] > 5, "{grown:?}");
}

/// One writer and two readers at once: what a reader gets is a value that its key had, whole, and
/// never older than one that it got before.
#[test]
fn readers_see_whole_values_and_never_go_back() {
    let mut core = core_of(1 << 20);
    let (memory, geometry) = (core.memory.clone(), core.geometry);
    let rounds: u32 = if cfg!(debug_assertions) { 3000 } else { 300_000 };
    for number in 0..8 {
        core.set(&key(number), &0_u64.to_le_bytes().repeat(10)).unwrap();
    }
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (memory, done) = (memory.clone(), &done);
            scope.spawn(move || {
                let reader = Reader::claim(memory, geometry, Owner::new(1, 1)).unwrap();
                let mut last = [0_u64; 8];
                let mut kept = Vec::new();
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    for number in 0..8_u8 {
                        let found = reader.get(&key(number)).unwrap().expect("never deleted");
                        let value = found.to_vec();
                        let first = u64::from_le_bytes(value[..8].try_into().unwrap());
                        assert_eq!(value, first.to_le_bytes().repeat(10));
                        assert!(first >= last[number as usize]);
                        last[number as usize] = first;
                        // Some are kept for a while, and are then what they were.
                        if first % 7 == 0 {
                            kept.push((found, value));
                        }
                    }
                    if kept.len() > 12 {
                        assert!(kept.drain(..).all(|(found, value)| found.to_vec() == value));
                    }
                }
            });
        }
        for round in 1..=rounds {
            for number in 0..8_u8 {
                core.set(&key(number), &u64::from(round).to_le_bytes().repeat(10)).unwrap();
            }
            // Keys that come and go, so that tables are replaced.
            core.set(&(round % 300).to_le_bytes(), &vec![7; round as usize % 500]).unwrap();
            core.delete(&((round + 150) % 300).to_le_bytes()).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(core.check(), Ok(()));
    core.give_back().unwrap();
    let left = core.memory.load_u64(crate::layout::store::LIMBO_LEN, Ordering::Relaxed);
    assert_eq!(left, 0, "nobody reads any more");
}

#[test]
fn counts_that_no_writer_has_counted_to_are_computed_anew() {
    for offset in [NEXT_VERSION, LIVE_KEYS, LIVE_BYTES, TOMBSTONES] {
        let mut core = core_of(64 << 10);
        core.set(b"k", b"1").unwrap();
        core.memory.store_u64(offset, u64::MAX, Ordering::Relaxed);
        // Whatever they say to that, they do not panic.
        let _ = (core.set(b"k", b"2"), core.set(b"other", b"2"), core.delete(b"other"));
        let mut core = core_of(64 << 10);
        core.set(b"k", b"1").unwrap();
        core.memory.store_u64(offset, u64::MAX, Ordering::Relaxed);
        assert!(core.check().is_err() || offset == NEXT_VERSION);
        core.rebuild().unwrap();
        core.set(b"k", b"2").unwrap();
        assert_equals(&mut core, &Model::from([(b"k".to_vec(), b"2".to_vec())]));
    }
}

#[test]
fn a_slot_that_leads_out_of_the_arena_is_damage_also_where_a_table_is_replaced() {
    let mut core = core_of(64 << 10);
    let Place::Absent { slot, .. } = core.find(b"k").unwrap().1 else { panic!("present") };
    core.memory.store_u64(slot, slot::pack(1 << 40, 7), Ordering::Relaxed);
    assert_eq!(core.replace_table(7), Err(Refusal::Damage));
    assert_eq!(core.rebuild(), Err(Refusal::Damage));
}
