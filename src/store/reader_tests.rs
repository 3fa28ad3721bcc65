//! Readers beside a writer that acts between any two of their accesses.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::batch::Change;
use super::between::{Between, apply};
use super::core::Core;
use super::cut::Cut;
use super::owner::Owner;
use super::reader::Reader;
use super::recovery::Recovered;
use super::table::Table;
use super::tests::geometry;
use crate::layout::store::BATCH;
use crate::layout::store::batch::{COMMITTED, STATE};
use crate::memory::{CrashMemory, HeapMemory, Memory, Ordering};

type Writer = Rc<RefCell<Core<HeapMemory>>>;

fn store(arena_bytes: u64) -> (Between, Writer, Reader<Between>) {
    let geometry = geometry(arena_bytes);
    let heap = HeapMemory::new(geometry.len_bytes());
    let core = Core::new(heap.clone(), geometry);
    core.format().unwrap();
    let between = Between::writable(heap);
    let reader = Reader::claim(between.clone(), geometry, Owner::new(1, 1)).unwrap();
    // So that the table's measures are known, as they are to a reader that has read before.
    assert!(reader.get(b"nothing").unwrap().is_none());
    (between, Rc::new(RefCell::new(core)), reader)
}

/// Lets something happen before the access with this number, from now on.
fn act_at(between: &Between, writer: &Writer, at: u64, act: fn(&mut Core<HeapMemory>)) {
    let writer = writer.clone();
    between.act_at(at, move || act(&mut writer.borrow_mut()));
}

/// Lets a writer commit, and die right before the commit.
fn die_before_commit(core: &mut Core<HeapMemory>, changes: &[Change<'_>]) {
    let memory = CrashMemory::from_words(&core.memory.to_words());
    memory.record();
    let mut dying = Core::new(memory.clone(), core.geometry);
    dying.commit(changes).unwrap();
    let mut batch = 0;
    for store in memory.crash().stores() {
        if store.offset == BATCH && store.new != 0 {
            batch = store.new;
        }
        if batch != 0 && (store.offset, store.new) == (batch + STATE, COMMITTED) {
            return;
        }
        apply(&core.memory, store);
    }
    panic!("it was never committed");
}

const LEN: usize = 100;

/// A reader that has chosen the old value of a batch is overtaken: that value is replaced and given back, and
/// the next batch takes its place, and the place of the pending block, for the same slot. Fails without the
/// pin that the pending block has of its own meanwhile.
#[test]
fn a_pending_block_that_is_asked_is_not_used_for_another_batch() {
    let prepare = |core: &mut Core<HeapMemory>| {
        // Others of the same lengths, so that the pages stay what they are.
        core.set(b"y", b"").unwrap();
        core.set(b"z", &[0; LEN]).unwrap();
        core.set(b"k", &[1; LEN]).unwrap();
        die_before_commit(core, &[Change::set(b"k", &[2; LEN])]);
    };
    let replace = |core: &mut Core<HeapMemory>| {
        assert_eq!(core.recover(), Ok(Recovered::TakenBack));
        core.set(b"k", &[3; LEN]).unwrap();
        core.give_back().unwrap();
    };
    let take_its_place = |core: &mut Core<HeapMemory>| {
        core.give_back().unwrap();
        let others = [b"l", b"m", b"n"].map(|key| Change::set(key, &[4; LEN]));
        let changes = [Change::set(b"k", &[4; LEN])].into_iter().chain(others);
        die_before_commit(core, &changes.collect::<Vec<_>>());
    };
    let accesses = {
        let (between, writer, reader) = store(64 << 10);
        prepare(&mut writer.borrow_mut());
        between.accesses_of(|| {
            assert_eq!(reader.get(b"k").unwrap().unwrap().to_vec(), [1; LEN]);
        })
    };
    let mut seen = [0; 2];
    for first in 0..accesses {
        for second in first..accesses + 10 {
            let (between, writer, reader) = store(64 << 10);
            prepare(&mut writer.borrow_mut());
            act_at(&between, &writer, first, replace);
            act_at(&between, &writer, second, take_its_place);
            let found = reader.get(b"k").unwrap();
            let found = found.unwrap_or_else(|| panic!("at {first}, {second}: absent")).to_vec();
            let which = [[1; LEN], [3; LEN]].iter().position(|value| found == value);
            seen[which.unwrap_or_else(|| panic!("at {first}, {second}: {found:?}"))] += 1;
        }
    }
    assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
}

/// Both keys are always there, and both change at once. Fails without the second looks at them.
#[test]
fn keys_that_are_all_there_are_read_as_they_were_at_once() {
    const KEYS: [&[u8]; 2] = [b"a", b"b"];
    fn both(core: &mut Core<HeapMemory>) {
        let version = core.memory.load_u64(crate::layout::store::NEXT_VERSION, Ordering::Relaxed);
        let changes = KEYS.map(|key| (key, version.to_le_bytes()));
        core.commit(&changes.each_ref().map(|(key, value)| Change::set(key, value))).unwrap();
    }
    let values = |found: &Cut<'_, Between>| -> Vec<Vec<u8>> {
        found.iter().map(|found| found.as_ref().expect("it is always there").to_vec()).collect()
    };
    let (between, writer, reader) = store(64 << 10);
    both(&mut writer.borrow_mut());
    // Twice as many, because what has changed is read again.
    let accesses = 2 * between.accesses_of(|| reader.read_many(&KEYS).unwrap());
    for first in 0..accesses {
        for second in first..accesses {
            act_at(&between, &writer, first, both);
            act_at(&between, &writer, second, both);
            let found = values(&reader.read_many(&KEYS).unwrap().expect("two changes are few"));
            assert_eq!(found[0], found[1], "at {first} and {second}");
            between.forget_acts();
        }
    }
}

fn log2_slots(core: &Core<HeapMemory>) -> u64 {
    Table::current(&core.memory, &core.geometry).unwrap().log2_slots()
}

const KEPT: u32 = 40;

/// How often an iterator meets each of the keys that stay.
fn meet(found: &mut HashMap<Vec<u8>, u32>, key: Vec<u8>) {
    if key.starts_with(b"kept") {
        *found.entry(key).or_insert(0) += 1;
    }
}

fn set_kept(core: &mut Core<HeapMemory>) {
    for number in 0..KEPT {
        core.set(format!("kept {number}").as_bytes(), b"").unwrap();
    }
}

fn assert_each_once(found: &HashMap<Vec<u8>, u32>, what: impl std::fmt::Debug) {
    assert_eq!(found.len(), KEPT as usize, "{what:?}");
    assert!(found.values().all(|times| *times == 1), "{what:?}: {found:?}");
}

/// The table is replaced, and what lies where it was looks like a table without keys. Fails without the look
/// at the root when all slots have been looked at.
#[test]
fn a_table_that_is_gone_is_not_taken_for_one_without_keys() {
    // Nobody is told when the loop ends: the last acts come behind the last access.
    for at in 0.. {
        let (between, writer, reader) = store(256 << 10);
        set_kept(&mut writer.borrow_mut());
        act_at(&between, &writer, at, |core| {
            let old = Table::current(&core.memory, &core.geometry).unwrap();
            assert!(core.replace_table(old.log2_slots() + 1).unwrap());
            core.give_back().unwrap();
            // Where the old one was, as where a later one is being built.
            for number in 0..old.len() {
                core.memory.store_u64(old.numbered(number), 0, Ordering::Relaxed);
            }
        });
        let mut found = HashMap::new();
        reader.entries(b"").for_each(|entry| meet(&mut found, entry.unwrap().0));
        assert_each_once(&found, at);
        if between.is_waiting() {
            return;
        }
    }
}

/// A shorter table has longer parts: the one where an iteration goes on begins with keys that it has met.
/// Fails where keys with lower hashes are not left out.
#[test]
fn keys_are_met_once_when_the_table_shrinks() {
    for met_before in 0..=KEPT as usize {
        let (_, writer, reader) = store(1 << 20);
        let mut core = writer.borrow_mut();
        set_kept(&mut core);
        core.replace_table(10).unwrap();
        let mut found = HashMap::new();
        let mut entries = reader.entries(b"");
        for _ in 0..met_before {
            meet(&mut found, entries.next().expect("there are more").unwrap().0);
        }
        core.replace_table(6).unwrap();
        assert_eq!(log2_slots(&core), 6);
        entries.for_each(|entry| meet(&mut found, entry.unwrap().0));
        assert_each_once(&found, met_before);
    }
}
