//! Computing the indexes anew: what comes out of it is compared with what writers had counted, object by object.
//!
//! What always holds: the table and the blocks are the same before and afterwards.

use super::arena::{self, LINK, State};
use super::block::block_bytes;
use super::classes;
use super::core::{Core, Refusal};
use super::recovery::Recovered;
use super::spans::{self, Span};
use super::table::Place;
use super::tests::{
    Model, assert_equals, core_of, crash_everywhere, fill, key, others_are_untouched, value,
};
use crate::layout::store::{LIVE_BYTES, LIVE_KEYS, NEXT_VERSION, TOMBSTONES, block};
use crate::memory::{HeapMemory, Memory, Ordering};

const LEN: usize = 100;

fn counts(core: &Core<impl Memory>) -> [u64; 4] {
    let count = |offset| core.memory.load_u64(offset, Ordering::Relaxed);
    [LIVE_KEYS, LIVE_BYTES, TOMBSTONES, NEXT_VERSION].map(count)
}

/// The span of a key's block, and its number there.
fn place(core: &Core<HeapMemory>, key: &[u8]) -> (Span, u32) {
    let Place::Present { block, .. } = core.find(key).unwrap().1 else { panic!("absent") };
    let span = spans::around(&core.memory, &core.geometry, block.offset).unwrap();
    let class = classes::get(span.class).unwrap();
    (span, arena::index_of(&core.geometry, span, class, block.offset).unwrap())
}

/// Free objects in the order of their list.
fn listed(core: &Core<HeapMemory>, span: Span) -> Vec<u32> {
    let class = classes::get(span.class).unwrap();
    let mut free = arena::state_of(&core.memory, &core.geometry, span).free;
    let mut listed = Vec::new();
    while let Some(index) = free.checked_sub(1) {
        listed.push(index);
        let object = arena::object(&core.geometry, span, class, index);
        free = core.memory.load_u64(object + LINK, Ordering::Relaxed) as u32;
    }
    listed
}

#[test]
fn objects_behind_the_last_one_in_use_are_as_if_they_had_never_been() {
    let mut core = core_of(1 << 20);
    for number in 0..20 {
        core.set(&key(number), &value(number.into(), LEN)).unwrap();
    }
    // All have keys of one length, but for the first ones.
    let (span, first) = place(&core, &key(10));
    let class = classes::get(span.class).unwrap();
    assert_eq!(class.object_bytes, {
        let len = block_bytes(key(10).len() as u64, LEN as u64).unwrap();
        classes::get(classes::of_len(len)).unwrap().object_bytes
    });
    let all = (10..20).map(|number| place(&core, &key(number)).1);
    assert!(all.eq(first..first + 10), "they lie in a row");
    let version = |core: &Core<HeapMemory>, index| {
        let object = arena::object(&core.geometry, span, class, index);
        core.memory.load_u64(object + block::VERSION, Ordering::Relaxed)
    };
    // Deleted, and not given back: nothing but the rebuild makes them free.
    for number in [12, 14, 17, 18, 19] {
        assert!(core.delete(&key(number)).unwrap());
    }
    assert_ne!(version(&core, first + 9), 0);
    assert_eq!(core.rebuild(), Ok(Recovered::Rebuilt));
    let state = arena::state_of(&core.memory, &core.geometry, span);
    let expected = State { used: first + 5, free: first + 3, fresh: first + 7 };
    assert_eq!(state, expected, "one behind the last that is in use");
    assert_eq!(listed(&core, span), [first + 2, first + 4]);
    for index in [2, 4, 7, 8, 9] {
        assert_eq!(version(&core, first + index), 0, "{index} is no block");
    }
    // They are taken in their order, first what is on the list.
    for (number, index) in [(30, 2), (31, 4), (32, 7), (33, 8), (34, 9), (35, 10)] {
        core.set(&key(number), &value(number.into(), LEN)).unwrap();
        assert_eq!(place(&core, &key(number)), (span, first + index));
    }
    let left = (0..12).chain([13, 15, 16]).chain(30..36).filter(|number| *number != 12);
    let model: Model = left.map(|number| (key(number), value(number.into(), LEN))).collect();
    assert_equals(&mut core, &model);
}

#[test]
fn a_span_without_room_is_on_no_list() {
    let mut core = core_of(1 << 20);
    core.set(&key(10), &value(10, 1000)).unwrap();
    let span = place(&core, &key(10)).0;
    let class = classes::get(span.class).unwrap();
    for number in 11..10 + class.objects as u8 {
        core.set(&key(number), &value(number.into(), 1000)).unwrap();
        assert_eq!(place(&core, &key(number)).0, span);
    }
    core.rebuild().unwrap();
    let state = arena::state_of(&core.memory, &core.geometry, span);
    assert_eq!(state, State { used: class.objects, free: 0, fresh: class.objects });
    assert_eq!(spans::listed(&core.memory, &core.geometry, span.class), Some(vec![]));
    assert_eq!(core.check(), Ok(()));
    core.set(b"one more", &value(1, 1000)).unwrap();
    assert_ne!(place(&core, b"one more").0, span);
}

#[test]
fn what_writers_have_counted_is_counted_again() {
    // Fewer than are looked at together, as many, and more; with tombstones between them.
    for keys in [0, 1, 63, 64, 65, 128, 1000_u32] {
        let mut core = core_of(1 << 20);
        let mut model = Model::new();
        for number in 0..keys {
            let value = value(number as usize, number as usize % 300);
            core.set(&number.to_le_bytes(), &value).unwrap();
            core.set(&[7; 9], &value).unwrap();
            assert!(core.delete(&[7; 9]).unwrap());
            model.insert(number.to_le_bytes().to_vec(), value);
        }
        let before = counts(&core);
        assert_eq!(before[0], u64::from(keys));
        core.rebuild().unwrap();
        assert_eq!(counts(&core), before, "{keys} keys");
        assert_equals(&mut core, &model);
        // The counter of versions is behind the last one that is found, whatever it says.
        core.memory.store_u64(NEXT_VERSION, 0, Ordering::Relaxed);
        core.rebuild().unwrap();
        let newest = model.keys().map(|key| match core.find(key).unwrap().1 {
            Place::Present { block, .. } => block.version,
            Place::Absent { .. } => panic!("absent"),
        });
        assert_eq!(counts(&core)[3], newest.max().unwrap_or(0) + 1, "{keys} keys");
    }
}

#[test]
fn a_block_that_two_slots_name_is_damage() {
    let mut core = core_of(64 << 10);
    core.set(b"k", b"1").unwrap();
    core.set(b"other", b"2").unwrap();
    let Place::Present { word, .. } = core.find(b"k").unwrap().1 else { panic!("absent") };
    let Place::Present { slot, .. } = core.find(b"other").unwrap().1 else { panic!("absent") };
    core.memory.store_u64(slot, word, Ordering::Relaxed);
    assert_eq!(core.rebuild(), Err(Refusal::Damage));
    assert_eq!(core.check(), Err("the truth is damaged"));
}

#[test]
fn f04_a_writer_killed_while_it_rebuilds_leaves_that_to_the_next() {
    let outcomes = crash_everywhere(
        |core| {
            fill(core);
            // Room behind what is in use, room between, and a span of which nothing is left.
            for number in [16, 18, 19] {
                assert!(core.delete(&key(number)).unwrap());
                core.set(&key(number), &value(number.into(), 100)).unwrap();
            }
            core.set(b"gone", &value(1, 3000)).unwrap();
            assert!(core.delete(b"gone").unwrap());
        },
        |core| assert_eq!(core.rebuild(), Ok(Recovered::Rebuilt)),
        others_are_untouched,
    );
    let [clean, taken_back, finished, rebuilt] = outcomes;
    assert!(clean > 0 && rebuilt > 100 && taken_back + finished == 0, "{outcomes:?}");
}
