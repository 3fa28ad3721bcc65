//! Copies beside a writer that acts between any two accesses, and beside one that runs at full speed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::{CopyRefusal, CopyingReader};
use crate::layout::store::{NEXT_VERSION, block};
use crate::memory::{CrashMemory, HeapMemory, Memory, Ordering};
use crate::store::between::{Between, apply, put};
use crate::store::block::{Block, hash};
use crate::store::spans;
use crate::store::table::Place;
use crate::store::{Core, StoreGeometry};

pub(super) type Reader = CopyingReader<Between>;
pub(super) type Writer = Rc<RefCell<Core<HeapMemory>>>;

pub(super) fn store(arena_bytes: u64) -> (Between, Writer, Reader) {
    let geometry = StoreGeometry::new(arena_bytes, 1, 0x5eed).unwrap();
    let heap = HeapMemory::new(geometry.len_bytes());
    let core = Core::new(heap.clone(), geometry);
    core.format().unwrap();
    let between = Between::read_only(heap);
    (between.clone(), Rc::new(RefCell::new(core)), CopyingReader::new(between, geometry))
}

pub(super) fn value_of(reader: &Reader, key: &[u8]) -> Option<Vec<u8>> {
    reader.get(key).unwrap().map(|copied| copied.to_vec())
}

/// How many accesses `read` makes when nobody acts.
fn accesses_of(prepare: impl Fn(&mut Core<HeapMemory>), read: impl Fn(&Reader)) -> u64 {
    let (between, writer, reader) = store(64 << 10);
    prepare(&mut writer.borrow_mut());
    between.accesses_of(|| read(&reader))
}

/// Lets a writer act twice while `read` runs, between any two accesses. What `read` returns is checked by
/// `allowed`.
fn act_everywhere<T: std::fmt::Debug>(
    prepare: impl Fn(&mut Core<HeapMemory>),
    acts: [fn(&mut Core<HeapMemory>); 2],
    read: impl Fn(&Reader) -> T,
    allowed: impl Fn(&T) -> bool,
) {
    // Twice as many, because what is changed is looked at again.
    let accesses = 2 * accesses_of(&prepare, |reader| drop(read(reader)));
    for first in 0..accesses {
        for second in first..accesses {
            let (between, writer, reader) = store(64 << 10);
            prepare(&mut writer.borrow_mut());
            // So that the table's measures are known, as they are to a reader that has read before.
            reader.get(b"nothing").unwrap();
            for (at, act) in [first, second].into_iter().zip(acts) {
                let writer = writer.clone();
                between.act_at(at, move || act(&mut writer.borrow_mut()));
            }
            let found = read(&reader);
            assert!(allowed(&found), "at {first} and {second}: {found:?}");
        }
    }
}

/// A value that shows whether it is whole: every word is the same.
fn plain(number: u8, len: usize) -> Vec<u8> {
    vec![number; len]
}

#[test]
fn reads_what_was_set() {
    let (_, writer, reader) = store(4 << 20);
    let mut model = HashMap::new();
    for number in 0..3000_u32 {
        let (key, value) = (number.to_le_bytes(), plain(number as u8, number as usize % 700));
        let version = writer.borrow_mut().set(&key, &value).unwrap();
        model.insert(key.to_vec(), (version, value));
        if number % 3 == 0 {
            writer.borrow_mut().delete(&key).unwrap();
            model.remove(&key[..]);
        }
    }
    assert_eq!(reader.len(), model.len() as u64);
    let found: HashMap<_, _> = reader.iter().map(Result::unwrap).collect();
    assert_eq!(found.len(), model.len());
    for (key, (version, value)) in &model {
        let copied = reader.get(key).unwrap().unwrap();
        assert_eq!((copied.version(), &*copied), (*version, &value[..]));
        assert_eq!((found[key].version(), &*found[key]), (*version, &value[..]));
        assert!(reader.contains(key).unwrap());
    }
    for number in (0..3000_u32).step_by(3) {
        assert!(!reader.contains(&number.to_le_bytes()).unwrap());
    }
    let with_prefix: Vec<_> = reader.prefix(&[7]).map(|entry| entry.unwrap().0).collect();
    assert_eq!(with_prefix.len(), model.keys().filter(|key| key[0] == 7).count());
    assert!(with_prefix.iter().all(|key| key[0] == 7));
    let keys: Vec<_> = (0..20_u32).map(u32::to_le_bytes).collect();
    for (key, found) in keys.iter().zip(reader.read_many(&keys).unwrap()) {
        assert_eq!(found.map(|copied| copied.to_vec()), model.get(&key[..]).map(|it| it.1.clone()));
    }
}

/// Fails without the second look at the version: the slot names the same room again.
#[test]
fn a_block_whose_room_is_used_again_for_its_own_key_is_not_returned_in_part() {
    fn again(core: &mut Core<HeapMemory>) {
        for number in [2, 3] {
            core.set(b"k", &plain(number, 64)).unwrap();
            core.give_back().unwrap();
        }
    }
    act_everywhere(
        |core| assert!(core.set(b"k", &plain(1, 64)).is_ok()),
        [again, again],
        |reader| value_of(reader, b"k").expect("never deleted"),
        |value| [1, 3].iter().any(|number| *value == plain(*number, 64)),
    );
}

/// Fails without the second look at the slot, where the room is another key's by then.
#[test]
fn a_block_whose_room_is_used_again_for_another_key_is_not_taken_for_what_its_slot_names() {
    fn to_another(core: &mut Core<HeapMemory>) {
        core.set(b"k", &plain(2, 64)).unwrap();
        core.give_back().unwrap();
        core.set(b"other", &plain(9, 60)).unwrap();
    }
    fn and_back(core: &mut Core<HeapMemory>) {
        core.delete(b"other").unwrap();
        core.give_back().unwrap();
        core.set(b"k", &plain(3, 64)).unwrap();
    }
    act_everywhere(
        |core| assert!(core.set(b"k", &plain(1, 64)).is_ok()),
        [to_another, and_back],
        |reader| value_of(reader, b"k").expect("never deleted"),
        |value| [1, 2, 3].iter().any(|number| *value == plain(*number, 64)),
    );
}

/// Fails without the second look at the root.
#[test]
fn absent_is_said_of_current_tables_only() {
    /// Replaces the table, and puts a value of zeros where the old one was.
    fn replace(core: &mut Core<HeapMemory>) {
        let table = |core: &Core<HeapMemory>| {
            core.memory.load_u64(crate::layout::store::ROOT, Ordering::Relaxed)
        };
        let before = table(core);
        for number in 0..200_u8 {
            core.set(&[number, 0], b"").unwrap();
            core.delete(&[number, 0]).unwrap();
            if table(core) != before {
                break;
            }
        }
        core.give_back().unwrap();
        core.set(b"zeros", &[0; 520]).unwrap();
    }
    act_everywhere(
        |core| {
            // Pages are taken by classes; others in this one are there.
            core.set(b"zeros", &[0; 520]).unwrap();
            core.set(b"k", &plain(1, 64)).unwrap();
        },
        [replace, |core| assert!(core.set(b"zeros", &[0; 500]).is_ok())],
        |reader| value_of(reader, b"k"),
        |value| *value == Some(plain(1, 64)),
    );
}

const FAKE: u8 = 66;

/// Gives the page of "k" to a value that has a block where that of "k" was: one that nobody has written,
/// with a value of another length, and the version that is `ahead` of the last one.
fn take_away<M: Memory>(core: &mut Core<M>, len: usize, ahead: u64) {
    let Place::Present { block, .. } = core.find(b"k").unwrap().1 else { return };
    let version = core.memory.load_u64(NEXT_VERSION, Ordering::Relaxed) - 1 + ahead;
    core.delete(b"k").unwrap();
    core.delete(b"before").unwrap();
    core.give_back().unwrap();
    let free = spans::usable_pages(&core.memory, &core.geometry);
    let page = core.geometry.page(core.geometry.page_of(block.offset).unwrap());
    let fake = HeapMemory::new(256);
    let hash = hash(b"k", core.geometry.seed());
    Block::write(&fake, 0, (b"k", hash), (&plain(FAKE, len), 0), version);
    let mut bytes = vec![0; (free * 4096) as usize - 64];
    let fakes: Vec<u8> = fake.to_words()[..14].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let at = (block.offset - page - block::value(3)) as usize;
    bytes[at..][..fakes.len()].copy_from_slice(&fakes);
    core.set(b"big", &bytes).unwrap();
    assert_eq!(core.memory.load_u64(block.offset, Ordering::Relaxed), version, "in its place");
}

fn give_back_for_good<M: Memory>(core: &mut Core<M>) {
    core.delete(b"big").unwrap();
    core.give_back().unwrap();
    core.set(b"before", &plain(0, 64)).unwrap();
    core.set(b"k", &plain(2, 64)).unwrap();
}

fn in_the_second_place<M: Memory>(core: &mut Core<M>) {
    core.set(b"before", &plain(0, 64)).unwrap();
    core.set(b"k", &plain(1, 64)).unwrap();
}

fn absent_or_whole(value: &Option<Vec<u8>>) -> bool {
    value.as_ref().is_none_or(|value| [1, 2].iter().any(|number| *value == plain(*number, 64)))
}

/// Fails without the looks at the epoch: what the reader has taken for a version were bytes of a value.
#[test]
fn bytes_of_a_value_are_not_taken_for_a_block() {
    // As the block that was there: in the copy of its value.
    let read = |reader: &Reader| value_of(reader, b"k");
    act_everywhere(
        in_the_second_place,
        [|core| take_away(core, 64, 0), |_| ()],
        read,
        absent_or_whole,
    );
    // As the block that will be there: in the look at its header.
    let later = [|core: &mut Core<HeapMemory>| take_away(core, 32, 3), give_back_for_good];
    act_everywhere(in_the_second_place, later, read, absent_or_whole);
}

/// Fails where the slot is not looked at between epoch and version: a reader that has the slot's word from before comes
/// while the page is new, and still holds the bytes of the value that it was taken from.
#[test]
fn bytes_that_are_left_over_are_not_taken_for_a_block() {
    let geometry = StoreGeometry::new(64 << 10, 1, 0x5eed).unwrap();
    let memory = CrashMemory::new(geometry.len_bytes());
    let mut core = Core::new(memory.clone(), geometry);
    core.format().unwrap();
    in_the_second_place(&mut core);
    let at_first = memory.to_words();
    take_away(&mut core, 32, 3);
    let taken = HeapMemory::from_words(&memory.to_words());
    memory.record();
    give_back_for_good(&mut core);
    let (stores, at_last) = (memory.crash(), memory.to_words());
    let last: Vec<_> = stores.stores().collect();
    // What the writer has stored when the reader looks for the second time: all but the last stores.
    let but_last = 60;
    for (number, store) in last.iter().enumerate() {
        apply(&taken, *store);
        if number + but_last < last.len() {
            continue;
        }
        for (first, second) in (0..8).flat_map(|at| (at..at + 16).map(move |then| (at, then))) {
            let between = Between::read_only(HeapMemory::from_words(&at_first));
            let reader = CopyingReader::new(between.clone(), geometry);
            reader.get(b"nothing").unwrap();
            for (at, words) in [(first, taken.to_words()), (second, at_last.clone())] {
                let heap = between.heap.clone();
                between.act_at(at, move || put(&heap, &words));
            }
            let found = value_of(&reader, b"k");
            assert!(absent_or_whole(&found), "{number}, {first} and {second}: {found:?}");
        }
    }
}

#[test]
fn a_store_that_never_rests_is_busy() {
    let (between, writer, reader) = store(64 << 10);
    writer.borrow_mut().set(b"k", b"0").unwrap();
    for at in 0..100_000 {
        let writer = writer.clone();
        between.act_at(at, move || assert!(writer.borrow_mut().set(b"k", b"1").is_ok()));
    }
    assert!(matches!(reader.get(b"k"), Err(CopyRefusal::Busy)));
}

/// One writer and two readers at full speed.
#[test]
fn copies_are_whole_and_never_go_back() {
    let geometry = StoreGeometry::new(1 << 20, 1, 0x5eed).unwrap();
    let memory = HeapMemory::new(geometry.len_bytes());
    let mut core = Core::new(memory.clone(), geometry);
    core.format().unwrap();
    let rounds: u64 = if cfg!(debug_assertions) { 3000 } else { 200_000 };
    let value = |round: u64, key: u8| {
        let len = 5 + (round * 7 + u64::from(key)) as usize % 40;
        [round, key.into()].repeat(len).iter().flat_map(|word| word.to_le_bytes()).collect()
    };
    let fill = |core: &mut Core<HeapMemory>, round| {
        for key in 0..8 {
            let value: Vec<u8> = value(round, key);
            core.set(&[key], &value).unwrap();
        }
    };
    fill(&mut core, 0);
    let done = std::sync::atomic::AtomicBool::new(false);
    let copied = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (memory, done, copied) = (memory.clone(), &done, &copied);
            scope.spawn(move || {
                let reader = CopyingReader::new(memory, geometry);
                let mut last = [0_u64; 8];
                let check = |key: u8, found: super::Copied, last: &mut u64| {
                    let round = u64::from_le_bytes(found[..8].try_into().unwrap());
                    assert_eq!(found.to_vec(), value(round, key));
                    assert!(round >= *last);
                    *last = round;
                    copied.fetch_add(1, Ordering::Relaxed);
                };
                while !done.load(Ordering::Relaxed) {
                    for key in 0..8_u8 {
                        match reader.get(&[key]) {
                            Ok(found) => check(key, found.expect("there"), &mut last[key as usize]),
                            Err(refusal) => assert_eq!(refusal, CopyRefusal::Busy),
                        }
                    }
                    for entry in reader.iter() {
                        match entry {
                            Ok((key, found)) if key.len() == 1 => {
                                check(key[0], found, &mut last[key[0] as usize]);
                            }
                            Ok(_) => {}
                            Err(refusal) => assert_eq!(refusal, CopyRefusal::Busy),
                        }
                    }
                }
            });
        }
        // Until readers have had their turn, too.
        let enough = || copied.load(Ordering::Relaxed) > rounds / 10;
        for round in (1..=100 * rounds).take_while(|round| *round <= rounds || !enough()) {
            fill(&mut core, round);
            core.set(&(round % 300).to_le_bytes(), &vec![7; round as usize % 500]).unwrap();
            core.delete(&((round + 150) % 300).to_le_bytes()).unwrap();
            if round % 64 == 0 {
                core.set(b"long", &vec![1; 40_000 + round as usize % 9000]).unwrap();
                core.give_back().unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(core.check(), Ok(()));
    let copied = copied.into_inner();
    assert!(copied > rounds / 10, "{copied} copies beside {rounds} rounds");
}
