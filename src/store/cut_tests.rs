//! Cuts and iteration, beside a writer.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use proptest::prelude::*;

use super::batch::Change;
use super::between::Between;
use super::block::hash;
use super::core::Core;
use super::cut::{Quiet, Read};
use super::owner::Owner;
use super::reader::Reader;
use super::tests::{core_of, key, value};
use crate::layout::store::journal::HEAD;
use crate::layout::store::reader::HELD_PINS;
use crate::memory::{HeapMemory, Memory, Ordering};

fn reader_of(core: &Core<HeapMemory>) -> Reader<HeapMemory> {
    Reader::claim(core.memory.clone(), core.geometry, Owner::new(1, 1)).unwrap()
}

const ACCOUNTS: usize = 8;
const TOTAL: u64 = 1000;

fn name(number: usize) -> String {
    format!("account {number}")
}

fn amount(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
}

/// A writer moves amounts from one key to another, and deletes keys that have nothing left. Readers
/// that see anything but the total see no cut. Values that are absent are worth as much as any other.
fn with_a_writer_that_keeps_the_total(
    deletes: bool,
    read: impl Fn(&Reader<HeapMemory>) -> Option<u64> + Sync,
) {
    let mut core = core_of(4 << 20);
    for number in (0..ACCOUNTS).take(if deletes { 1 } else { ACCOUNTS }) {
        let amount = if number == 0 { TOTAL } else { 0 };
        core.set(name(number).as_bytes(), &amount.to_le_bytes()).unwrap();
    }
    let readers = [reader_of(&core), reader_of(&core)];
    let wanted = if cfg!(debug_assertions) { 500 } else { 20_000 };
    let (cuts, done) = (AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for reader in readers {
            let (read, cuts, done) = (&read, &cuts, &done);
            scope.spawn(move || {
                while !done.load(Relaxed) {
                    if let Some(total) = read(&reader) {
                        // The writer must not wait for a reader that has failed.
                        done.fetch_or(total != TOTAL, Relaxed);
                        assert_eq!(total, TOTAL);
                        cuts.fetch_add(1, Relaxed);
                    }
                }
            });
        }
        let mut balance = [0; ACCOUNTS];
        balance[0] = TOTAL;
        let mut round = 0_usize;
        while cuts.load(Relaxed) < wanted && !done.load(Relaxed) {
            round += 1;
            let (from, to) = (round * 7 % ACCOUNTS, (round * 3 + round / 8) % ACCOUNTS);
            // Mostly all of it, so that keys come and go.
            let moved = if round.is_multiple_of(4) { balance[from] / 2 } else { balance[from] };
            balance[from] -= moved;
            balance[to] += moved;
            let (from_name, to_name) = (name(from), name(to));
            let (left, sum) = (balance[from].to_le_bytes(), balance[to].to_le_bytes());
            core.commit(&[
                match balance[from] {
                    0 if deletes => Change::delete(from_name.as_bytes()),
                    _ => Change::set(from_name.as_bytes(), &left),
                },
                match balance[to] {
                    0 if deletes => Change::delete(to_name.as_bytes()),
                    _ => Change::set(to_name.as_bytes(), &sum),
                },
            ])
            .unwrap();
            // Moments in which nothing happens.
            if deletes && round.is_multiple_of(8) {
                std::thread::yield_now();
            }
        }
        done.store(true, Relaxed);
    });
    assert_eq!(core.check(), Ok(()));
}

#[test]
fn what_is_read_at_once_was_there_at_once() {
    let names: Vec<String> = (0..ACCOUNTS).map(name).collect();
    for deletes in [true, false] {
        with_a_writer_that_keeps_the_total(deletes, |reader| {
            let found = reader.read_many(&names).unwrap()?;
            assert_eq!(found.len(), ACCOUNTS);
            Some(found.iter().flatten().map(|found| amount(&found.to_vec())).sum())
        });
    }
}

#[test]
fn all_that_is_read_was_there_at_once() {
    with_a_writer_that_keeps_the_total(true, |reader| {
        let found = reader.read_all().unwrap()?;
        Some(found.iter().map(|(_, copied)| amount(&copied.bytes)).sum())
    });
}

#[test]
fn keys_that_are_all_there_make_a_cut_beside_a_busy_writer() {
    let mut core = core_of(1 << 20);
    let reader = reader_of(&core);
    let names: Vec<Vec<u8>> = (0..40).map(key).collect();
    let changes: Vec<_> = names.iter().map(|name| Change::set(name, name)).collect();
    let versions = core.commit(&changes).unwrap();
    // As if a writer were at something else all the time.
    core.memory.store_u64(HEAD, 1 << 32, Ordering::Relaxed);
    assert_eq!(Quiet::begin(&core.memory), None);
    let found = reader.read_many(&names).unwrap().expect("they are all there");
    let pinned = |found: &&Option<Read<'_, _>>| matches!(found, Some(Read::Pinned(_)));
    assert_eq!(found.iter().filter(pinned).count() as u64, HELD_PINS, "the rest is copied");
    for ((name, found), version) in names.iter().zip(&found).zip(versions) {
        let found = found.as_ref().unwrap();
        assert_eq!((&found.to_vec(), Some(found.version())), (name, version));
    }
    drop(found);
    assert!(reader.read_many(&[&b"absent"[..], &names[0]]).unwrap().is_none(), "nobody can tell");
    assert!(reader.read_all().unwrap().is_none());
    core.memory.store_u64(HEAD, 0, Ordering::Relaxed);
    let found = reader.read_many(&[&b"absent"[..], &names[0]]).unwrap().unwrap();
    assert!(found[0].is_none() && found[1].is_some());
    assert_eq!(reader.read_all().unwrap().unwrap().len(), 40);
}

#[test]
fn every_change_ends_a_quiet_time() {
    let mut core = core_of(1 << 20);
    type Changing = fn(&mut Core<HeapMemory>);
    let changes: [Changing; 5] = [
        |core| assert!(core.set(b"k", b"v").unwrap() > 0),
        |core| assert!(core.delete(b"k").unwrap()),
        |core| {
            assert!(
                !core
                    .commit(&[Change::set(b"k", b"v"), Change::set(b"l", b"v")])
                    .unwrap()
                    .is_empty()
            )
        },
        |core| assert!(!core.commit(&[Change::delete(b"k")]).unwrap().is_empty()),
        |core| assert!(core.clear().unwrap() > 0),
    ];
    for change in changes {
        let quiet = Quiet::begin(&core.memory).expect("nothing is in progress");
        core.give_back().unwrap();
        assert!(quiet.holds(&core.memory));
        change(&mut core);
        assert!(!quiet.holds(&core.memory));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 48 } else { 1024 }))]
    /// Between two entries anything may happen, the table be replaced by a larger or a smaller one.
    #[test]
    fn what_stays_is_met_once_and_what_does_not_at_most_once(
        permanent in 0..300_usize,
        transient in 0..600_usize,
        work in proptest::collection::vec((0..40_usize, 0..600_u32, any::<bool>()), 1..60),
    ) {
        let mut core = core_of(1 << 20);
        let names: Vec<Vec<u8>> =
            (0..permanent).map(|number| format!("kept {number}").into_bytes()).collect();
        for name in &names {
            core.set(name, name).unwrap();
        }
        let other = |number: u32| format!("other {number}").into_bytes();
        for number in 0..transient as u32 {
            core.set(&other(number), b"x").unwrap();
        }
        let reader = reader_of(&core);
        let mut seen = HashMap::new();
        let mut entries = reader.entries(b"");
        let mut work = work.into_iter();
        let mut kept = Vec::new();
        loop {
            for (entries_before, number, add) in work.by_ref().take(1) {
                for _ in 0..entries_before {
                    if let Some(entry) = entries.next() {
                        let (key, value) = entry.unwrap();
                        prop_assert!(value.to_vec() == key || value.to_vec() == b"x");
                        *seen.entry(key).or_insert(0) += 1;
                        if kept.len() < 30 {
                            kept.push(value);
                        }
                    }
                }
                let changed = (0..200).map(|more| other(number + more));
                for key in changed {
                    if add {
                        core.set(&key, b"x").unwrap();
                    } else {
                        core.delete(&key).unwrap();
                    }
                }
            }
            if work.len() == 0 {
                break;
            }
        }
        for entry in entries {
            *seen.entry(entry.unwrap().0).or_insert(0) += 1;
        }
        prop_assert!(seen.values().all(|times| *times == 1));
        prop_assert!(names.iter().all(|name| seen.contains_key(name)));
    }
}

#[test]
fn keys_with_a_prefix_are_those_that_start_with_it() {
    let mut core = core_of(4 << 20);
    let mut model = BTreeMap::new();
    for number in 0..3000_usize {
        let key = format!("{}/{number}", ["a", "ab", "b", ""][number % 4]).into_bytes();
        let value = value(number, number % 100);
        core.set(&key, &value).unwrap();
        model.insert(key, value);
    }
    let reader = reader_of(&core);
    for prefix in ["", "a", "a/", "ab", "/", "b/1", "c", "a/longer than any key that there is"] {
        let found: BTreeMap<_, _> = reader
            .entries(prefix.as_bytes())
            .map(|entry| entry.map(|(key, value)| (key, value.to_vec())).unwrap())
            .collect();
        let mut expected = model.clone();
        expected.retain(|key, _| key.starts_with(prefix.as_bytes()));
        assert_eq!(found, expected, "{prefix}");
    }
    // Also where no pin is left.
    let kept: Vec<_> = reader.entries(b"").take(3000).collect();
    assert_eq!(kept.len(), 3000);
    assert_eq!(reader.entries(b"b/").count(), 750);
    drop(kept);
    assert_eq!(reader.entries(b"b/").count(), 750);
}

/// One thread adds and deletes keys, so that the table is replaced again and again; another one goes
/// through all keys.
#[test]
fn what_stays_is_met_once_beside_a_writer() {
    let mut core = core_of(8 << 20);
    for number in 0..200 {
        core.set(&key(number), &0_u32.to_le_bytes()).unwrap();
    }
    let reader = reader_of(&core);
    let turns = if cfg!(debug_assertions) { 100 } else { 3000 };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let done = &done;
        scope.spawn(move || {
            let mut last = 0;
            let mut turn = 0;
            // Until the writer has had its turn, too.
            while turn < turns || last == 0 {
                turn += 1;
                let mut met = HashMap::new();
                for entry in reader.entries(b"key ") {
                    let (key, value) = entry.unwrap();
                    *met.entry(key).or_insert(0) += 1;
                    last = last.max(u32::from_le_bytes(value.to_vec().try_into().unwrap()));
                }
                // The writer must not go on for ever when this fails.
                let right = met.len() == 200 && met.values().all(|times| *times == 1);
                done.fetch_or(!right, Relaxed);
                assert!(right, "{met:?}");
            }
            done.store(true, Relaxed);
        });
        for round in 1_u32.. {
            if done.load(Relaxed) {
                break;
            }
            core.set(&key((round % 200) as u8), &round.to_le_bytes()).unwrap();
            core.set(&(round % 5000).to_le_bytes(), b"other").unwrap();
            core.delete(&((round + 2500) % 5000).to_le_bytes()).unwrap();
        }
    });
    assert_eq!(core.check(), Ok(()));
}

/// A key that is deleted and set again while the iterator looks at the place where searches for it begin, and finds its
/// slot taken by another, comes a second time further on.
#[test]
fn what_comes_again_is_met_once() {
    // Searches for both begin at the same one of 64 slots.
    let home = |number: u8| hash(&key(number), core_of(64 << 10).geometry.seed()) >> 58;
    let pair = |one: u8| (one + 1..250).find(|other| home(*other) == home(one));
    let (one, other) = (0..250).find_map(|one| Some((one, pair(one)?))).unwrap();
    let (mut twice, mut both) = (0, 0);
    for access in 0.. {
        let mut core = core_of(64 << 10);
        core.set(&key(one), b"first").unwrap();
        let memory = Between::writable(core.memory.clone());
        let reader = Reader::claim(memory.clone(), core.geometry, Owner::new(1, 1)).unwrap();
        memory.act_at(access, move || {
            core.delete(&key(one)).unwrap();
            core.set(&key(other), b"other").unwrap();
            core.set(&key(one), b"second").unwrap();
        });
        let met: Vec<_> = reader.entries(b"").map(|entry| entry.unwrap().0).collect();
        twice += met.iter().filter(|met| **met == key(one)).count().saturating_sub(1);
        both += usize::from(met.contains(&key(other)));
        if memory.is_waiting() {
            assert!(access > 100, "{access}");
            break;
        }
    }
    assert!(twice == 0 && both > 10, "{twice}, {both}");
}
