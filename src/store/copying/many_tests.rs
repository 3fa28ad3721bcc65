//! Iterators, and several keys at once, beside a writer that acts between any two accesses.

use std::collections::HashMap;

use super::tests::{store, value_of};
use super::{CopyRefusal, CopyingReader};
use crate::layout::store::page::{PAGE_BYTES, SPAN, pack_span};
use crate::layout::store::table::{HEADER_BYTES, LOG2_SLOTS};
use crate::layout::store::{ROOT, slot};
use crate::memory::{CrashMemory, HeapMemory, Memory, Ordering};
use crate::store::between::{Between, apply, put};
use crate::store::block::hash;
use crate::store::classes;
use crate::store::table::{Place, Table};
use crate::store::{BatchChange as Change, Core, StoreGeometry};

#[test]
fn an_iterator_goes_on_in_another_table() {
    let (between, writer, reader) = store(1 << 20);
    for number in 0..40_u32 {
        writer.borrow_mut().set(&number.to_le_bytes(), b"stays").unwrap();
    }
    let reads = between.accesses_of(|| assert_eq!(reader.iter().count(), 40));
    // Others of these lengths are there, so that a value can take the place of a table.
    const TABLES: [usize; 4] = [576, 1088, 2112, 4160];
    for table_bytes in TABLES {
        let key = (table_bytes as u64).to_le_bytes();
        writer.borrow_mut().set(&key, &vec![1; table_bytes - 48]).unwrap();
    }
    let mut next_key = 1000_u32;
    for at in 0..reads {
        for (number, offset) in [at, at + 17, at + 40, at + 200].into_iter().enumerate() {
            let writer = writer.clone();
            let many = next_key..next_key + 50 * (number as u32 + 1);
            next_key = many.end;
            between.act_at(offset, move || {
                let mut core = writer.borrow_mut();
                for key in many.clone() {
                    core.set(&key.to_le_bytes(), b"comes and goes").unwrap();
                }
                for key in many {
                    core.delete(&key.to_le_bytes()).unwrap();
                }
                // Empty slots, for who takes one of these for the table that was there.
                core.give_back().unwrap();
                for table_bytes in TABLES {
                    core.set(b"zeros", &vec![0; table_bytes - 48]).unwrap();
                    core.set(b"other", &vec![0; table_bytes - 48]).unwrap();
                }
                for key in (0..40_u32).step_by(5) {
                    core.set(&key.to_le_bytes(), b"stays").unwrap();
                }
            });
        }
        let mut found = HashMap::new();
        for entry in reader.iter() {
            let (key, copied) = entry.unwrap();
            if *copied == *b"stays" {
                *found.entry(key).or_insert(0) += 1;
            }
        }
        assert_eq!(found.len(), 40, "at {at}");
        assert!(found.values().all(|times| *times == 1), "at {at}: {found:?}");
        between.forget_acts();
    }
}

/// Three keys of which each state has the same number, or none of some: what is read is one state.
#[test]
fn many_are_read_as_they_were_at_one_moment() {
    const KEYS: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
    // Each act changes one key; the states between them are all that there ever are.
    let acts: [(usize, Option<u8>); 10] = [
        (0, Some(1)),
        (1, None),
        (2, Some(1)),
        (0, None),
        (3, Some(1)),
        (1, Some(2)),
        (3, None),
        (2, None),
        (1, None),
        (0, Some(3)),
    ];
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |end: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % end
    };
    for _ in 0..3000 {
        let (between, writer, reader) = store(64 << 10);
        writer.borrow_mut().set(b"b", &[0]).unwrap();
        let mut state = [None, Some(0), None, None];
        let mut states = vec![state];
        let mut at = 0;
        for (key, value) in acts {
            let most = 2 << below(5);
            at += below(most);
            state[key] = value;
            states.push(state);
            let writer = writer.clone();
            let churn = below(3) == 0;
            between.act_at(at, move || {
                let mut core = writer.borrow_mut();
                match value {
                    Some(value) => assert!(core.set(KEYS[key], &[value]).is_ok()),
                    None => assert!(core.delete(KEYS[key]).unwrap()),
                }
                // So many that the table is replaced.
                for number in 0..if churn { 48 } else { 0 } {
                    core.set(&[number, at as u8, 0], b"").unwrap();
                    core.delete(&[number, at as u8, 0]).unwrap();
                }
                core.give_back().unwrap();
            });
        }
        let found = reader.read_many(&KEYS).unwrap();
        let found: Vec<_> = found.into_iter().map(|one| one.map(|copied| copied[0])).collect();
        assert!(states.iter().any(|state| found == state), "{found:?} of {states:?}");
    }
}

/// Fails without the looks at the journal and at the next version.
#[test]
fn what_is_absent_by_turns_is_not_read_as_absent_at_once() {
    let geometry = StoreGeometry::new(64 << 10, 1, 0x5eed).unwrap();
    let memory = CrashMemory::new(geometry.len_bytes());
    let mut core = Core::new(memory.clone(), geometry);
    core.format().unwrap();
    core.set(b"b", b"1").unwrap();
    let only_b = memory.to_words();
    core.set(b"a", b"1").unwrap();
    core.delete(b"b").unwrap();
    let only_a = memory.to_words();
    core.set(b"b", b"1").unwrap();
    core.delete(b"a").unwrap();
    let setting_a = HeapMemory::from_words(&memory.to_words());
    memory.record();
    core.set(b"a", b"1").unwrap();
    let stores = memory.crash();
    core.delete(b"b").unwrap();
    let only_a_again = memory.to_words();
    for store in stores.stores() {
        let words = setting_a.to_words();
        // Between the first searches; before the next ones begin; between those.
        let places = (0..6)
            .flat_map(|at| (5..9).flat_map(move |then| (8..13).map(move |last| [at, then, last])));
        for at in places {
            let then = [&only_a, &words, &only_a_again];
            let between = Between::read_only(HeapMemory::from_words(&only_b));
            let reader = CopyingReader::new(between.clone(), geometry);
            reader.get(b"nothing").unwrap();
            for (at, words) in at.into_iter().zip(then) {
                let (heap, words) = (between.heap.clone(), words.clone());
                between.act_at(at, move || put(&heap, &words));
            }
            let found = reader.read_many(&[b"a", b"b"]).unwrap();
            assert!(found.iter().any(Option::is_some), "at {at:?} of {store:?}");
        }
        apply(&setting_a, store);
    }
}

/// A writer stops at up to three places of a batch, chosen at random, while the keys are read.
#[test]
fn f04_a_batch_is_read_as_a_whole_or_not_at_all() {
    const KEYS: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
    let geometry = StoreGeometry::new(64 << 10, 1, 0x5eed).unwrap();
    let memory = CrashMemory::new(geometry.len_bytes());
    let mut core = Core::new(memory.clone(), geometry);
    core.format().unwrap();
    for key in &KEYS[..3] {
        core.set(key, b"1").unwrap();
    }
    let before = memory.to_words();
    memory.record();
    let [a, b, c, d] = KEYS;
    core.commit(&[
        Change::set(a, b"2"),
        Change::set(b, b"2"),
        Change::delete(c),
        Change::set(d, b"2"),
    ])
    .unwrap();
    let stores: Vec<_> = memory.crash().stores().collect();
    let one = |byte: u8| Some(vec![byte]);
    let states = [[one(b'1'), one(b'1'), one(b'1'), None], [one(b'2'), one(b'2'), None, one(b'2')]];
    let mut seen = [0, 0];
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |end: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize % end
    };
    for _ in 0..2000 {
        let between = Between::read_only(HeapMemory::from_words(&before));
        let reader = CopyingReader::new(between.clone(), geometry);
        let (mut at, mut done) = (0, 0);
        for _ in 0..3 {
            at += below(40) as u64;
            let next = done + below(stores.len() - done + 1);
            let (heap, some) = (between.heap.clone(), stores[done..next].to_vec());
            between.act_at(at, move || some.into_iter().for_each(|store| apply(&heap, store)));
            done = next;
        }
        let found = reader.read_many(&KEYS);
        // A batch that is not over: what is absent, and how many are, cannot be told at once.
        let Ok(found) = found else {
            assert!(matches!(found, Err(CopyRefusal::Busy)));
            continue;
        };
        let found: Vec<_> =
            found.into_iter().map(|one| one.map(|copied| copied.to_vec())).collect();
        let state = states.iter().position(|state| found == state);
        seen[state.unwrap_or_else(|| panic!("{found:?}"))] += 1;
        let keys: HashMap<_, _> = reader
            .iter()
            .map(|entry| entry.map(|(key, copied)| (key, copied.to_vec())).unwrap())
            .collect();
        for (key, found) in KEYS.iter().zip(KEYS.map(|key| value_of(&reader, key))) {
            assert_eq!(keys.get(*key), found.as_ref(), "nobody acts any more");
        }
    }
    assert!(seen[0] > 100 && seen[1] > 100, "{seen:?}");
}

/// A table that only a liar makes: slots from `first` on, every `step`th, say what `word` says of their number, the
/// others `filling`.
fn false_table(
    (heap, geometry): (&HeapMemory, &StoreGeometry),
    table: u64,
    log2_slots: u64,
    (first, step, filling): (u64, u64, u64),
    word: impl Fn(u64) -> u64,
) {
    heap.store_u64(table + LOG2_SLOTS, log2_slots, Ordering::Relaxed);
    for number in 0..1 << log2_slots {
        let named = number >= first && (number - first).is_multiple_of(step);
        let word = if named { word(number) } else { filling };
        let word = if number == 0 { slot::EMPTY } else { word };
        heap.store_u64(table + HEADER_BYTES + number * 8, word, Ordering::Relaxed);
    }
    // It would not be adopted but from the start of a span of its length.
    let (page, pages) =
        (geometry.page_of(table).unwrap(), Table::bytes(log2_slots).div_ceil(PAGE_BYTES));
    let span = pack_span(pages as u32, classes::LARGE);
    heap.store_u64(geometry.descriptor(page, SPAN), span, Ordering::Relaxed);
    heap.store_u64(ROOT, table, Ordering::Relaxed);
}

/// Fails where keys are not counted: 128 MiB of them come out of a store of 512 KiB.
#[test]
fn a_key_that_is_named_again_and_again_is_not_copied_without_end() {
    let (between, writer, reader) = store(512 << 10);
    let geometry = writer.borrow().geometry;
    let key = (0_u64..).map(|number| number.to_le_bytes().repeat(8 << 10)).find(|key| {
        // Its search begins in the last slots, so that whoever comes to it has not passed it.
        hash(key, geometry.seed()) >> 60 == 15
    });
    let key = key.unwrap();
    writer.borrow_mut().set(&key, b"").unwrap();
    let Ok((hash, Place::Present { block, .. })) = writer.borrow().find(&key) else { panic!() };
    let table = geometry.page(0) + (256 << 10);
    false_table((&between.heap, &geometry), table, 12, (1, 2, slot::EMPTY), |_| {
        slot::pack(block.offset, hash)
    });
    let copied = |bytes: usize, key: &[u8]| bytes + key.len();
    let all = reader.iter().filter_map(Result::ok).fold(0, |sum, (key, _)| copied(sum, &key));
    assert!(all as u64 <= 4 * geometry.arena_bytes(), "{all} bytes");
    assert!(matches!(reader.get_all(), Err(CopyRefusal::Busy)));
}

/// Fails where each search may be as long as the table: the accesses are some hundred million.
#[test]
fn a_table_whose_searches_are_all_long_ends_get_all() {
    let (between, writer, reader) = store(1 << 20);
    let geometry = writer.borrow().geometry;
    let log2_slots = 16;
    // Those whose searches begin early, to be put at the end.
    let keys: Vec<_> = (0_u64..)
        .map(u64::to_le_bytes)
        .filter(|key| hash(key, geometry.seed()) >> 62 == 0)
        .take(2000)
        .collect();
    let words: Vec<_> = keys
        .iter()
        .map(|key| {
            writer.borrow_mut().set(key, b"1").unwrap();
            let found = writer.borrow().find(key).unwrap();
            let (hash, Place::Present { block, .. }) = found else { panic!() };
            slot::pack(block.offset, hash)
        })
        .collect();
    let table = geometry.page(0) + (448 << 10);
    let first = (1 << log2_slots) - words.len() as u64;
    let word = |number| words[(number - first) as usize];
    false_table((&between.heap, &geometry), table, log2_slots, (first, 1, slot::TOMBSTONE), word);
    assert_eq!(reader.iter().filter(Result::is_ok).count(), keys.len());
    let accesses = between.accesses_of(|| {
        assert!(matches!(reader.get_all(), Err(CopyRefusal::Busy)));
    });
    assert!(accesses < 10_000_000, "{accesses} accesses");
}
