//! Writers and readers of one store, killed with SIGKILL at random instants and started again.
//!
//! Several writers set, update, exchange and delete keys of their own, one by one and in batches, so that the table grows,
//! shrinks and runs out of room; readers hold on to values in place. This process kills some of them and looks at everything.
//! What must hold: of every key the value that its writer has noted as done, or, where it was killed before it
//! could, the one that it was about to set, and of a batch all of these or none; each of them whole; and nothing that nobody
//! names is kept.
//!
//! `RINGWAY_STORE_KILLS` says how many kills there are, `RINGWAY_SEED` replays the choices.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use common::ledger::{KEYS, Ledger, State, WRITERS, key_of};
use common::meeting::open_file;
use common::name::Name;
use common::random::{self, Random};
use common::victim::Victim;
use ringway::layout::store::journal::HEAD;
use ringway::store::{
    self, AddError, CompareError, Recovered, Store, StoreOptions, Value, WriteError,
};

/// Processes that only read.
const READERS: usize = 2;
/// So many of the keys of each writer, the first ones, are changed in batches only, all of them in each.
const TOGETHER: usize = 12;
/// Key to which all writers add.
const TOTAL: &str = "total";

fn options() -> StoreOptions {
    StoreOptions { capacity_bytes: 2 << 20, max_readers: 8, ..StoreOptions::default() }
}

fn open(name: &Name, ledger: &Ledger) -> Store {
    match Store::open(name, &StoreOptions::least()) {
        Ok(store) => store,
        Err(error) => ledger.violation(&format!("open: {error}")),
    }
}

/// Writes for ever, as the successor of whoever was this writer.
fn write(name: &Name, ledger: &Ledger, writer: usize, seed: u64) {
    let (store, mut random) = (open(name, ledger), Random::new(seed));
    // For a while mostly more keys, then mostly fewer.
    let mut deletes = 0;
    for round in 0_u64.. {
        if round.is_multiple_of(100) {
            deletes = [5, 50, 85][random.below(3) as usize];
        }
        ledger.pause_here();
        let key = random.below(KEYS as u64) as usize;
        let keys = if key < TOGETHER { some_keys(&mut random) } else { vec![key] };
        // Those that change together are not deleted twice in a row: of a writer that was killed then, nobody could
        // tell whether it has done so.
        let is_there = ledger.done(writer, key).value(writer, key).is_some();
        let deleted = (key >= TOGETHER || is_there)
            && random.below(100) < if key < TOGETHER { 10 } else { deletes };
        let changes: Vec<_> = keys
            .into_iter()
            .map(|key| (key, ledger.done(writer, key)))
            .map(|(key, done)| (key, done, done.next(deleted)))
            .collect();
        for (key, _, next) in &changes {
            ledger.intend(writer, *key, *next);
        }
        let changed = match changes[..] {
            [(key, done, next)] => change(&store, ledger, (writer, key), (done, next), &mut random),
            _ => change_together(&store, writer, &changes),
        };
        match changed {
            Ok(true) => {
                changes.iter().for_each(|(key, _, next)| ledger.finish(writer, *key, *next));
            }
            // The old values stay.
            Ok(false) | Err(WriteError::OutOfSpace { .. }) => {
                changes.iter().for_each(|(key, done, _)| ledger.intend(writer, *key, *done));
            }
            Err(error) => ledger.violation(&format!("write: {error}")),
        }
        if round.is_multiple_of(4) {
            ledger.intend_to_add(writer);
            match store.fetch_add(TOTAL, 1) {
                Ok(_) => ledger.added(writer),
                Err(AddError::Write(WriteError::OutOfSpace { .. })) => {}
                Err(error) => ledger.violation(&format!("add: {error}")),
            }
        }
        note_recovery(&store, ledger);
    }
}

/// Those that are changed together, and none, some or most of the others.
fn some_keys(random: &mut Random) -> Vec<usize> {
    let share = [0, 10, 80][random.below(3) as usize];
    (0..KEYS).filter(|key| *key < TOGETHER || random.below(100) < share).collect()
}

/// Brings several keys from one state to the next, in a batch.
fn change_together(
    store: &Store,
    writer: usize,
    changes: &[(usize, State, State)],
) -> Result<bool, WriteError> {
    let batch = changes.iter().fold(store.batch(), |batch, (key, _, next)| {
        match next.value(writer, *key) {
            Some(value) => batch.set(key_of(writer, *key), value),
            None => batch.delete(key_of(writer, *key)),
        }
    });
    batch.commit().map(|_| true)
}

/// Whether this handle had something to recover.
fn note_recovery(store: &Store, ledger: &Ledger) -> bool {
    let Some(recovery) = store.take_recovery() else { return false };
    ledger.recovered(match recovery.how {
        Recovered::Clean => 0,
        Recovered::TakenBack => 1,
        Recovered::Finished => 2,
        _ => 3,
    });
    true
}

/// Brings a key from one state to the next, in one of the ways there are; false where that way was not
/// open.
fn change(
    store: &Store,
    ledger: &Ledger,
    (writer, key): (usize, usize),
    (old, new): (State, State),
    random: &mut Random,
) -> Result<bool, WriteError> {
    let (name, was, is) = (key_of(writer, key), old.value(writer, key), new.value(writer, key));
    let expect = |same: bool, what: &str| {
        if !same {
            ledger.violation(&format!("{what} of key {name} found another value than {old:?}"));
        }
        Ok(true)
    };
    let Some(value) = &is else {
        return expect(store.delete(&name)? == was.is_some(), "delete");
    };
    match random.below(5) {
        0 => expect(store.swap(&name, value)? == was, "swap"),
        1 => {
            let mut same = false;
            store.update(&name, |found| {
                same = found == was.as_deref();
                is.clone()
            })?;
            expect(same, "update")
        }
        2 => {
            let version = store.get(&name).ok().flatten().map(|value| value.version());
            match store.compare_exchange(&name, version, Some(value)) {
                Ok(_) => expect(version.is_some() == was.is_some(), "compare_exchange"),
                Err(CompareError::Write(error)) => Err(error),
                Err(error) => ledger.violation(&error.to_string()),
            }
        }
        3 => {
            let set = store.set_if_absent(&name, value)?.is_some();
            expect(set == was.is_none(), "set_if_absent").map(|_| set)
        }
        _ => store.set(&name, value).map(|_| true),
    }
}

/// Reads for ever, holding on to values.
fn read(name: &Name, ledger: &Ledger, seed: u64) {
    let (store, mut random) = (open(name, ledger), Random::new(seed));
    let mut last = [[State::NONE; KEYS]; WRITERS];
    let mut held: Vec<(usize, usize, Value<'_>)> = Vec::new();
    loop {
        ledger.pause_here();
        let (writer, key) =
            (random.below(WRITERS as u64) as usize, random.below(KEYS as u64) as usize);
        let keys = if key < TOGETHER { 0..TOGETHER } else { key..key + 1 };
        // Those that change together, at one moment or, in any order, at several.
        let at_once = keys.len() > 1 && random.below(4) == 0;
        let found: Vec<_> = if at_once {
            let names: Vec<_> = keys.clone().map(|key| key_of(writer, key)).collect();
            match store.read_many(&names) {
                Ok(found) => keys.zip(found).collect(),
                Err(error) => ledger.violation(&format!("read_many: {error}")),
            }
        } else {
            let first = random.below(keys.len() as u64) as usize;
            let keys = keys.clone().cycle().skip(first).take(keys.len());
            keys.map(|key| match store.get(key_of(writer, key)) {
                Ok(found) => (key, found),
                Err(error) => ledger.violation(&format!("get: {error}")),
            })
            .collect()
        };
        let mut states = Vec::new();
        for (key, value) in found {
            let state = value.as_ref().map(|value| {
                State::of(writer, key, value).unwrap_or_else(|| {
                    ledger.violation(&format!("torn value of key {key} of writer {writer}"))
                })
            });
            states.push(state);
            let (Some(state), Some(value)) = (state, value) else { continue };
            // What one of those had become, all of them had.
            let last = &mut last[writer][if key < TOGETHER { 0 } else { key }];
            if state < *last {
                ledger.violation(&format!("key {key} of writer {writer} went back"));
            }
            *last = state;
            held.push((writer, key, value));
        }
        if at_once && states.iter().any(|state| *state != states[0]) {
            ledger.violation(&format!("a part of a batch of writer {writer}: {states:?}"));
        }
        // More than there are pins for, now and then: those are copies.
        while held.len() as u64 > random.below(40) {
            let index = random.below(held.len() as u64) as usize;
            let (writer, key, value) = held.swap_remove(index);
            if State::of(writer, key, &value).is_none() {
                ledger.violation(&format!("key {key} of writer {writer} changed under its reader"));
            }
        }
    }
}

/// Looks at all keys of a writer that is not running; brings the ledger up to date. What it was changing when it
/// was killed, one key or several, has become what it intended, or is as it was.
fn settle(store: &Store, ledger: &Ledger, writer: usize) {
    let (mut all_done, mut none_done, mut begun) = (true, true, Vec::new());
    for key in 0..KEYS {
        let (done, intended) = (ledger.done(writer, key), ledger.intended(writer, key));
        let found = store.get(key_of(writer, key)).unwrap();
        let is = |state: State| state.value(writer, key).as_deref() == found.as_deref();
        assert!(
            is(done) || is(intended),
            "key {key} of writer {writer}: neither {done:?} nor {intended:?}"
        );
        if intended != done {
            (all_done, none_done) = (all_done && is(intended), none_done && is(done));
            begun.push((key, done, intended));
        }
    }
    assert!(all_done || none_done, "a part of a batch of writer {writer} is there: {begun:?}");
    for (key, done, intended) in begun {
        if all_done {
            ledger.finish(writer, key, intended);
        } else {
            ledger.intend(writer, key, done);
        }
    }
}

fn check_total(store: &Store, ledger: &Ledger) {
    // One before and one behind the look: others go on.
    let (at_least, _) = ledger.total();
    let total = store
        .get(TOTAL)
        .unwrap()
        .map_or(0, |value| u64::from_ne_bytes((*value).try_into().expect("eight bytes")));
    let (_, at_most) = ledger.total();
    assert!((at_least..=at_most).contains(&total), "{at_least} <= {total} <= {at_most}");
}

/// Whether a writer has died in the middle of an operation. For a store that nobody has.
fn is_unfinished(name: &Name) -> bool {
    let mut head = [0; 8];
    open_file(name).read_exact_at(&mut head, HEAD).unwrap();
    head != [0; 8]
}

#[test]
fn f04_f05_f06_killed_writers_and_readers_leave_every_committed_value() {
    let kills = random::number("RINGWAY_STORE_KILLS").unwrap_or(300_u64);
    let mut random = Random::new(random::seed());
    let (mut killed, mut inside, mut at_once, mut added, mut changes) = (0, 0, 0, 0, 0);
    let (mut recoveries, mut took) = ([0; 4], Vec::new());
    while killed < kills {
        let (name, ledger) = (Name::new("store-kills"), Ledger::new());
        let mut store = Store::create(&name, &options()).unwrap();
        let start = |index: usize, seed| {
            Victim::start(|| match index {
                writer if writer < WRITERS => write(&name, &ledger, writer, seed),
                _ => read(&name, &ledger, seed),
            })
        };
        let mut processes: Vec<_> =
            (0..WRITERS + READERS).map(|index| Some(start(index, random.next()))).collect();
        let mut counted = 0;
        let mut left = (kills - killed).min(150);
        while left > 0 {
            // Not to wait for anything, but to kill at another instant each time.
            thread::sleep(Duration::from_nanos(random.below(3_000_000)));
            // One, or, sometimes, all, and this process's handle with them.
            let all = random.below(12) == 0;
            let whom = random.below((WRITERS + READERS) as u64) as usize;
            let mut dead: Vec<usize> = (0..processes.len()).collect();
            dead.retain(|index| all || *index == whom);
            for index in &dead {
                processes[*index] = None;
                left = left.saturating_sub(1);
                killed += 1;
            }
            assert_eq!(ledger.violations(), 0);
            // Mostly this process brings in order what they left, now and then another writer.
            ledger.pause(random.below(8) > 0);
            if all {
                inside += store.stats().unwrap().recoveries - counted;
                drop(store);
                at_once += u64::from(is_unfinished(&name));
                store = Store::open(&name, &StoreOptions::least()).unwrap();
                counted = store.stats().unwrap().recoveries;
            }
            let writers = || dead.iter().filter(|index| **index < WRITERS);
            // Before and after anybody has brought it in order.
            writers().for_each(|writer| settle(&store, &ledger, *writer));
            let began = Instant::now();
            store.delete("nothing").unwrap();
            if note_recovery(&store, &ledger) {
                took.push(began.elapsed());
            }
            store.check().unwrap();
            writers().for_each(|writer| settle(&store, &ledger, *writer));
            check_total(&store, &ledger);
            for index in dead {
                processes[index] = Some(start(index, random.next()));
            }
            ledger.pause(false);
        }
        drop(processes);
        assert_eq!(ledger.violations(), 0);
        // Nothing of the dead is left, and everything can be deleted and given back.
        store.reclaim().unwrap();
        for writer in 0..WRITERS {
            settle(&store, &ledger, writer);
            changes += (0..KEYS).map(|key| ledger.done(writer, key).number()).sum::<u64>();
        }
        store.check().unwrap();
        note_recovery(&store, &ledger);
        let stats = store.stats().unwrap();
        assert_eq!((stats.readers, stats.pinned), (Some(1), Some(0)));
        inside += stats.recoveries - counted;
        added += ledger.total().0;
        for (sum, count) in recoveries.iter_mut().zip(ledger.recoveries()) {
            *sum += count;
        }
        store.clear().unwrap();
        drop(store);
        drop(Store::create(&name, &options()).unwrap());
        store::remove(&name).unwrap();
    }
    println!(
        "{killed} kills, {inside} of writers with the lock, and {at_once} times of all at once with an \
         operation unfinished; {changes} values, {added} additions; \
         recoveries told: {} with nothing begun, {} taken back, {} finished, {} rebuilt",
        recoveries[0], recoveries[1], recoveries[2], recoveries[3]
    );
    took.sort_unstable();
    if let (Some(median), Some(longest)) = (took.get(took.len() / 2), took.last()) {
        println!(
            "getting the lock and recovering, {} times: {median:?}, longest {longest:?}",
            took.len()
        );
    }
    assert!(inside * 50 > kills && changes > kills, "{inside}, {changes}");
}
