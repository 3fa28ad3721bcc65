//! Batches against a `HashMap`, with a crash at every store, and beside readers.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use proptest::prelude::*;

use super::batch::Change;
use super::between::Between;
use super::core::{Core, Refusal};
use super::owner::Owner;
use super::pending::Pending;
use super::reader::{Reader, pin_current};
use super::recovery::Recovered;
use super::root::Root;
use super::survey::Survey;
use super::table::{Place, Table};
use super::tests::{
    Model, assert_equals, core_of, fill, geometry, get, key, others_are_untouched, value,
};
use crate::layout::store::journal::HEAD;
use crate::layout::store::{BATCH, FREE_PAGES, LIMBO_LEN, LIVE_BYTES, reader, slot};
use crate::memory::{Crash, CrashImage, CrashMemory, HeapMemory, Memory, Ordering};

fn set<'a>(key: &'a [u8], value: &'a [u8]) -> Change<'a> {
    Change::set(key, value)
}

fn delete(key: &[u8]) -> Change<'_> {
    Change::delete(key)
}

fn change<'a>(key: &'a [u8], value: Option<&'a [u8]>) -> Change<'a> {
    value.map_or(Change::delete(key), |value| Change::set(key, value))
}

fn changes_of(owned: &[(Vec<u8>, Option<Vec<u8>>)]) -> Vec<Change<'_>> {
    owned.iter().map(|(key, value)| change(key, value.as_deref())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 32 } else { 512 }))]
    #[test]
    fn does_what_a_hash_map_does(
        batches in proptest::collection::vec(
            proptest::collection::vec((any::<u8>(), proptest::option::of(
                prop_oneof![8 => 0..200_usize, 1 => 200..20_000_usize])), 0..60),
            1..40,
        )
    ) {
        let mut core = core_of(1 << 20);
        let mut model = Model::new();
        let mut last_version = 0;
        for (step, batch) in batches.into_iter().enumerate() {
            let owned: Vec<_> = batch
                .into_iter()
                .enumerate()
                .map(|(at, (number, len))| (key(number), len.map(|len| value(step + at, len))))
                .collect();
            match core.commit(&changes_of(&owned)) {
                Ok(versions) => {
                    for (at, (version, (key, value))) in versions.iter().zip(&owned).enumerate() {
                        let replaced = owned[at + 1..].iter().any(|(later, _)| later == key);
                        prop_assert_eq!(version.is_some(), value.is_some() && !replaced);
                        let Some(version) = *version else { continue };
                        prop_assert!(version > last_version);
                        last_version = version;
                        let Place::Present { block, .. } = core.find(key).unwrap().1 else {
                            panic!("absent");
                        };
                        prop_assert_eq!(block.version, version);
                    }
                    for (key, value) in owned {
                        match value {
                            Some(value) => model.insert(key, value),
                            None => model.remove(&key),
                        };
                    }
                }
                Err(refusal) => prop_assert_eq!(refusal, Refusal::OutOfSpace),
            }
        }
        assert_equals(&mut core, &model);
    }
}

#[test]
fn a_batch_that_is_larger_than_limbo_and_the_table_goes_through() {
    let mut core = core_of(16 << 20);
    for round in 0..3_u32 {
        let keys: Vec<[u8; 4]> = (0..10_000_u32).map(u32::to_le_bytes).collect();
        let round_bytes = round.to_le_bytes();
        let changes: Vec<_> = keys.iter().map(|key| set(key, &round_bytes)).collect();
        core.commit(&changes).unwrap();
        assert_eq!(core.check(), Ok(()));
        assert!(keys.iter().all(|key| get(&core, key).as_deref() == Some(&round_bytes)));
        let changes: Vec<_> = keys.iter().skip(1).map(|key| delete(key)).collect();
        core.commit(&changes).unwrap();
        assert_eq!(core.check(), Ok(()));
        assert_eq!(get(&core, &keys[0]).as_deref(), Some(&round_bytes[..]));
        assert!(keys.iter().skip(1).all(|key| get(&core, key).is_none()));
    }
}

#[test]
fn what_does_not_fit_leaves_all_as_it_was() {
    let mut core = core_of(1 << 20);
    core.set(b"kept", b"old").unwrap();
    core.set(b"deleted", &[1; 100]).unwrap();
    core.give_back().unwrap();
    let count = |core: &Core<HeapMemory>, offset| core.memory.load_u64(offset, Ordering::Relaxed);
    let large = vec![7; 300 << 10];
    let keys: Vec<Vec<u8>> = (0..100).map(key).collect();
    let small = keys.iter().map(|key| set(key, &[1; 50]));
    let mut before = None;
    for values in [100, 1, 2, 5, 100] {
        let mut changes = vec![set(b"kept", b"new"), delete(b"deleted")];
        changes.extend(small.clone().take(values));
        changes.extend([b"1", b"2", b"3", b"4"].map(|key| set(key, &large)));
        assert_eq!(core.commit(&changes), Err(Refusal::OutOfSpace));
        assert_eq!(core.check(), Ok(()));
        assert_eq!(get(&core, b"kept").unwrap(), b"old");
        assert_eq!(get(&core, b"deleted").unwrap(), [1; 100]);
        assert!(get(&core, b"1").is_none() && get(&core, &keys[0]).is_none());
        // The first time the table may have grown for keys that then did not come.
        let left = [FREE_PAGES, LIVE_BYTES, LIMBO_LEN].map(|offset| count(&core, offset));
        assert_eq!(*before.get_or_insert(left), left);
        assert_eq!(left[2], 0, "nothing waits");
    }
    let huge = vec![0; 2 << 20];
    assert_eq!(core.commit(&[set(b"1", b"x"), set(b"2", &huge)]), Err(Refusal::OutOfSpace));
    assert_eq!(core.commit(&[set(b"1", &large), set(b"2", &large)]).map(drop), Ok(()));
    assert_eq!(core.check(), Ok(()));
}

#[test]
fn a_batch_needs_what_was_deleted_before_and_gets_it() {
    let mut core = core_of(1 << 20);
    let large = vec![7; 600 << 10];
    for _ in 0..5 {
        core.commit(&[set(b"1", &large), set(b"2", b"x")]).unwrap();
        core.commit(&[delete(b"1"), delete(b"absent"), set(b"2", b"y")]).unwrap();
        assert_eq!((get(&core, b"1"), get(&core, b"2").unwrap()), (None, b"y".to_vec()));
    }
    assert_eq!(core.check(), Ok(()));
}

/// The keys that the crash tests' batch changes; what they were, and what they are afterwards.
const KEYS: [&[u8]; 6] = [b"added", b"changed", b"deleted", b"twice", b"back", b"gone"];
const OLD: [Option<&[u8]>; 6] = [None, Some(&[1; 100]), Some(&[2; 10]), Some(b"t"), None, None];
const NEW: [Option<&[u8]>; 6] =
    [Some(&[4; 200]), Some(&[5; 90]), None, Some(b"u"), Some(b"b"), None];

fn prepare(core: &mut Core<CrashMemory>) {
    fill(core);
    core.set(b"back", b"then deleted").unwrap();
    // As long as a pending block: the span of these stays, and the rebuild writes into them.
    core.set(b"short", b"").unwrap();
    for (key, old) in KEYS.iter().zip(OLD) {
        match old {
            Some(old) => drop(core.set(key, old).unwrap()),
            None => drop(core.delete(key).unwrap()),
        }
    }
}

fn commit<M: Memory>(core: &mut Core<M>) {
    let mut changes = vec![set(b"twice", b"not this"), set(b"gone", b"nor this")];
    let wanted = KEYS.iter().zip(NEW).map(|(key, value)| change(key, value));
    changes.extend(wanted);
    core.commit(&changes).unwrap();
}

/// Whether a reader sees all of the batch; it must not see a part of it.
fn is_new(memory: &HeapMemory, what: &str) -> bool {
    let reader =
        Reader::claim(memory.clone(), geometry(64 << 10), Owner::new(1, 1)).expect("a free record");
    let found = KEYS.map(|key| reader.get(key).unwrap().map(|found| found.to_vec()));
    let is = |values: [Option<&[u8]>; 6]| {
        found.iter().zip(values).all(|(found, value)| found.as_deref() == value)
    };
    assert!(is(OLD) || is(NEW), "{what}: a part of the batch: {found:?}");
    is(NEW)
}

/// About `count` of the images, evenly.
fn some_of(crash: &Crash, count: usize) -> Vec<CrashImage> {
    let images: Vec<_> = crash.sample(count).collect();
    let step = images.len().div_ceil(count);
    images.into_iter().rev().step_by(step).collect()
}

fn recover_to(depth: u32, image: &CrashImage, count: usize, what: &str) -> Recovered {
    let geometry = geometry(64 << 10);
    let before = is_new(&image.to_heap(), what);
    let mut survivor = Core::new(image.to_heap(), geometry);
    if survivor.memory.load_u64(HEAD, Ordering::Relaxed) == 0 {
        assert_eq!(
            survivor.check(),
            Ok(()),
            "{what}: nobody would know that there is something to do"
        );
    }
    let recovered = survivor.recover().unwrap();
    assert_eq!(survivor.check(), Ok(()), "{what}, {recovered:?}");
    assert!(others_are_untouched(&survivor), "{what}");
    assert_eq!(is_new(&survivor.memory, what), before, "{what}: a reader saw it otherwise");
    survivor.give_back().unwrap();
    let left = |offset| survivor.memory.load_u64(offset, Ordering::Relaxed);
    assert_eq!((left(LIMBO_LEN), left(BATCH)), (0, 0), "{what}: something is left");
    assert_eq!(survivor.check(), Ok(()), "{what}, given back");
    if depth > 0 {
        let again = image.to_memory();
        again.record();
        Core::new(again.clone(), geometry).recover().unwrap();
        for (number, nested) in some_of(&again.crash(), count).into_iter().enumerate() {
            recover_to(depth - 1, &nested, count / 2, &format!("{what}, then {number}"));
        }
    }
    recovered
}

#[test]
fn f04_a_writer_killed_anywhere_in_a_batch_leaves_all_of_it_or_nothing() {
    let geometry = geometry(64 << 10);
    let memory = CrashMemory::new(geometry.len_bytes());
    let mut core = Core::new(memory.clone(), geometry);
    core.format().unwrap();
    prepare(&mut core);
    memory.record();
    commit(&mut core);
    let (images, nested) = if cfg!(debug_assertions) { (300, 8) } else { (6000, 24) };
    let mut outcomes = [0; 4];
    for (number, image) in memory.crash().sample(images).enumerate() {
        // Not at every image, because there are many: deaths in the recovery itself, and in the
        // recovery from that.
        let depth = if number % 64 == 0 { 2 } else { 0 };
        let recovered = recover_to(depth, &image, nested, &format!("image {number}"));
        outcomes[recovered as usize] += 1;
    }
    let [clean, taken_back, finished, rebuilt] = outcomes;
    assert!(clean > 0 && taken_back > 50 && finished > 50, "{outcomes:?}");
    assert_eq!(rebuilt, 0, "the batch's block is enough");
}

/// Fails without a fence between the stores of slots and those into what they named: that of `strip_all`, and the heavy
/// one of the second survey.
#[test]
fn f04_a_batch_is_found_whole_without_its_indexes() {
    let geometry = geometry(64 << 10);
    let memory = CrashMemory::new(geometry.len_bytes());
    let mut core = Core::new(memory.clone(), geometry);
    core.format().unwrap();
    prepare(&mut core);
    memory.record();
    commit(&mut core);
    // In the short time in which slots name pending blocks, and the survey finds that they do.
    let unfinished: Vec<_> = memory
        .crash()
        .sample(2000)
        .filter(|image| Survey::of(&image.to_heap(), &geometry, &[]).is_err())
        .collect();
    assert!(unfinished.len() > 10, "{}", unfinished.len());
    let step = unfinished.len().div_ceil(if cfg!(debug_assertions) { 8 } else { 40 });
    for (number, image) in unfinished.into_iter().step_by(step).enumerate() {
        let what = format!("image {number}");
        let before = is_new(&image.to_heap(), &what);
        let again = image.to_memory();
        // The batch cannot be found by its word.
        again.store_u64(BATCH, 4096, Ordering::Relaxed);
        again.record();
        assert_eq!(Core::new(again.clone(), geometry).rebuild(), Ok(Recovered::Rebuilt), "{what}");
        for image in again.crash().sample(200) {
            assert_eq!(is_new(&image.to_heap(), &what), before, "{what}");
            let mut survivor = Core::new(image.to_heap(), geometry);
            survivor.rebuild().unwrap();
            assert_eq!(survivor.check(), Ok(()), "{what}");
            assert_eq!(is_new(&survivor.memory, &what), before, "{what}");
        }
    }
}

/// A reader that pins a pending block, and still finds it in its slot, must keep it: also where that falls between a
/// rebuild's first look at the pins and its store of the slot.
#[test]
fn f05_what_a_reader_pins_while_a_batch_is_taken_out_of_slots_stays() {
    let geometry = geometry(64 << 10);
    let memory = CrashMemory::new(geometry.len_bytes());
    let mut core = Core::new(memory.clone(), geometry);
    core.format().unwrap();
    prepare(&mut core);
    memory.record();
    commit(&mut core);
    let crash = memory.crash();
    let pending_of = |heap: &HeapMemory| {
        let table = Table::current(heap, &geometry).unwrap();
        let mut words = table.words(heap);
        words.find(|(_, word)| Pending::read(heap, &geometry, slot::block(*word)).is_some())
    };
    let unfinished = || crash.sample(2000).filter(|image| pending_of(&image.to_heap()).is_some());
    let count = unfinished().count();
    let mut held = 0;
    for image in unfinished().step_by(count.div_ceil(4)) {
        let mut last = u64::MAX;
        for access in (0..).map(|turn| turn * 40).take_while(|access| *access < 40_000) {
            let heap = image.to_heap();
            let (slot, word) = pending_of(&heap).unwrap();
            let memory = Between::writable(heap.clone());
            let pin = geometry.reader(0) + reader::PINS;
            heap.store_u64(geometry.reader(0) + reader::OWNER, 1, Ordering::Relaxed);
            let (pinned, reading) = (Rc::new(Cell::new(false)), heap.clone());
            let is_pinned = Rc::clone(&pinned);
            memory.act_at(access, move || {
                is_pinned.set(pin_current(
                    &reading,
                    pin,
                    slot::block(word),
                    (slot, word),
                    Root::load(&reading),
                ));
            });
            Core::new(memory.clone(), geometry).rebuild().unwrap();
            if memory.is_waiting() {
                last = access;
                break;
            }
            let limbo = heap.load_u64(LIMBO_LEN, Ordering::Relaxed);
            let mut retired = (0..limbo)
                .map(|index| heap.load_u64(geometry.limbo_entry(index), Ordering::Relaxed));
            let stays = retired.any(|offset| offset == slot::block(word));
            assert!(stays || !pinned.get(), "access {access}");
            held += u32::from(pinned.get());
        }
        assert!(last < u64::MAX, "it took longer than that");
    }
    assert!(held > 10, "{held}");
}

/// A writer and two readers at once: what batches keep together is seen together.
#[test]
fn readers_never_see_a_part_of_a_batch() {
    let mut core = core_of(4 << 20);
    let (memory, geometry) = (core.memory.clone(), core.geometry);
    let rounds: u32 = if cfg!(debug_assertions) { 5000 } else { 200_000 };
    let done = AtomicBool::new(false);
    let keys: Vec<Vec<u8>> = (0..6).map(key).collect();
    let all: Vec<Change<'_>> = keys.iter().map(|key| set(key, &[0; 4])).collect();
    core.commit(&all).unwrap();
    std::thread::scope(|scope| {
        for seed in 0..2_usize {
            let (memory, done, keys) = (memory.clone(), &done, &keys);
            scope.spawn(move || {
                let reader = Reader::claim(memory, geometry, Owner::new(1, 1)).unwrap();
                let mut last = 0;
                let mut turn = seed;
                while !done.load(Relaxed) {
                    // In any order, a key read later has the round of one read before, or a later one.
                    turn += 1;
                    let mut lowest = last;
                    for at in 0..keys.len() {
                        let found = reader.get(&keys[(turn * 5 + at) % keys.len()]).unwrap();
                        let found = found.expect("never deleted").to_vec();
                        let round = u32::from_le_bytes(found[..4].try_into().unwrap());
                        assert!(found.chunks(4).all(|part| part == &found[..4]), "torn");
                        assert!(round >= lowest, "a part of a batch: {round} after {lowest}");
                        lowest = round;
                    }
                    last = lowest;
                    assert!(reader.get(b"absent").unwrap().is_none());
                }
            });
        }
        for round in 1..=rounds {
            let bytes = round.to_le_bytes().repeat(1 + round as usize % 40);
            let other = (round % 300).to_le_bytes();
            let mut changes: Vec<_> = keys.iter().map(|key| set(key, &bytes)).collect();
            changes.rotate_left(round as usize % 6);
            changes.push(if round % 2 == 0 { set(&other, &bytes) } else { delete(&other) });
            core.commit(&changes).unwrap();
        }
        done.store(true, Relaxed);
    });
    assert_eq!(core.check(), Ok(()));
}

/// A key that a batch deletes and the next one brings back, with another that goes the other way.
#[test]
fn one_of_two_keys_is_always_there() {
    let mut core = core_of(1 << 20);
    let (memory, geometry) = (core.memory.clone(), core.geometry);
    let rounds: u32 = if cfg!(debug_assertions) { 5000 } else { 300_000 };
    core.set(b"even", &0_u32.to_le_bytes()).unwrap();
    let (done, seen) = (AtomicBool::new(false), [const { AtomicBool::new(false) }; 2]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let reader = Reader::claim(memory, geometry, Owner::new(1, 1)).unwrap();
            let mut last = 0;
            while !done.load(Relaxed) {
                for (name, parity) in [(&b"even"[..], 0), (b"odd", 1)] {
                    let Some(found) = reader.get(name).unwrap() else { continue };
                    let round = u32::from_le_bytes(found.to_vec().try_into().unwrap());
                    assert!(round % 2 == parity && round >= last, "{round} after {last}");
                    last = round;
                    seen[parity as usize].store(true, Relaxed);
                }
            }
        });
        // Until the reader has had its turn, too.
        let both_seen = || seen.iter().all(|seen| seen.load(Relaxed));
        for round in (1..=100 * rounds).take_while(|round| *round <= rounds || !both_seen()) {
            let [mut come, mut go] = [&b"even"[..], b"odd"];
            if round % 2 == 1 {
                (come, go) = (go, come);
            }
            core.commit(&[delete(go), set(come, &round.to_le_bytes())]).unwrap();
        }
        done.store(true, Relaxed);
        assert!(both_seen());
    });
    assert_eq!(core.check(), Ok(()));
}
