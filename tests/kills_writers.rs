//! Writers of a store that are killed: at random instants, and in recovery itself.
//!
//! `RINGWAY_KILLS` says how many kills there are, `RINGWAY_SEED` replays the choices; when a kill comes, the machine
//! decides.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::collections::HashMap;

use common::forked::{BEGUN, Beside, DONE, READY, get, process, store_of};
use common::random::{self, Random, mix};
use common::victim::Victim;
use ringway::store::Store;

/// The operations of a run of writers: what the n-th one does follows from the seed, so that who replays
/// them knows what must be there.
mod run {
    use super::*;

    const KEYS: u64 = 40;
    const COUNTER: &str = "counter";

    type Model = HashMap<String, Vec<u8>>;

    enum Operation {
        Set(String, Vec<u8>),
        Append(String, Vec<u8>),
        Delete(String),
        Add(i64),
        Clear,
    }

    fn operation(seed: u64, number: u64) -> Operation {
        let mut random = Random::new(mix(seed ^ mix(number)));
        let key = format!("key {}", random.below(KEYS));
        let len = [8, 50, 400, 3000][random.below(4) as usize];
        let bytes = number.to_le_bytes().repeat(random.below(len) as usize / 8 + 1);
        match random.below(1000) {
            0 => Operation::Clear,
            1..100 => Operation::Delete(key),
            100..200 => Operation::Add(number as i64),
            200..300 => Operation::Append(key, bytes),
            _ => Operation::Set(key, bytes),
        }
    }

    fn appended(old: Option<&[u8]>, bytes: &[u8]) -> Vec<u8> {
        match old {
            Some(old) if old.len() < 5000 => [old, bytes].concat(),
            _ => bytes.to_vec(),
        }
    }

    fn do_it(store: &Store, operation: Operation) {
        match operation {
            Operation::Set(key, bytes) => {
                store.set(key, &bytes).expect("set");
            }
            Operation::Append(key, bytes) => {
                store.update(key, |old| Some(appended(old, &bytes))).expect("appended");
            }
            Operation::Delete(key) => {
                store.delete(key).expect("deleted");
            }
            Operation::Add(added) => {
                store.fetch_add(COUNTER, added).expect("added");
            }
            Operation::Clear => {
                store.clear().expect("cleared");
            }
        }
    }

    fn apply(model: &mut Model, operation: Operation) {
        match operation {
            Operation::Set(key, bytes) => drop(model.insert(key, bytes)),
            Operation::Append(key, bytes) => {
                let new = appended(model.get(&key).map(Vec::as_slice), &bytes);
                model.insert(key, new);
            }
            Operation::Delete(key) => drop(model.remove(&key)),
            Operation::Add(added) => {
                let old = model
                    .get(COUNTER)
                    .map_or(0, |bytes| i64::from_ne_bytes(bytes.as_slice().try_into().unwrap()));
                model.insert(COUNTER.into(), (old + added).to_ne_bytes().to_vec());
            }
            Operation::Clear => model.clear(),
        }
    }

    /// Does one operation after the other, and says how far it is. To be killed.
    pub fn write(store: &Store, beside: &Beside, seed: u64) {
        for number in beside.load(DONE) + 1.. {
            let operation = operation(seed, number);
            beside.store(BEGUN, number);
            do_it(store, operation);
            beside.store(DONE, number);
        }
    }

    /// What must be there.
    pub struct Oracle {
        model: Model,
        seed: u64,
        applied: u64,
    }

    impl Oracle {
        pub fn new(seed: u64) -> Self {
            Self { model: Model::new(), seed, applied: 0 }
        }

        fn is_so(&self, store: &Store) -> bool {
            store.len() == Ok(self.model.len() as u64)
                && self.model.iter().all(|(key, bytes)| get(store, key).as_ref() == Some(bytes))
        }

        /// Looks at all keys after a death: what was done is there, and what was begun is, or is not.
        pub fn check(&mut self, store: &Store, beside: &Beside) {
            let (begun, done) = (beside.load(BEGUN), beside.load(DONE));
            while self.applied < done {
                self.applied += 1;
                apply(&mut self.model, operation(self.seed, self.applied));
            }
            if !self.is_so(store) {
                assert_eq!(begun, done + 1, "nothing was begun, and something has changed");
                apply(&mut self.model, operation(self.seed, begun));
                self.applied = begun;
                assert!(self.is_so(store), "neither the old values nor the new ones, at {begun}");
                beside.store(DONE, begun);
            }
            store.check().unwrap();
        }
    }
}

/// Lets a process run for a while that the machine decides about, and kills it.
fn kill_after(mut victim: Victim, pauses: u64) {
    for _ in 0..pauses {
        std::hint::spin_loop();
    }
    victim.kill();
    victim.wait();
}

fn kills() -> u64 {
    random::number("RINGWAY_KILLS").unwrap_or(if cfg!(debug_assertions) { 300 } else { 2000 })
}

#[test]
fn f04_writers_killed_anywhere_leave_the_old_or_the_new_and_nothing_else_changes() {
    let seed = random::seed();
    let mut random = Random::new(seed);
    let (store, beside) = (store_of(2 << 20, 4), Beside::new());
    let mut oracle = run::Oracle::new(seed);
    let (mut inside, mut unfinished, mut told) = (0, HashMap::<_, u64>::new(), 0);
    for _ in 0..kills() {
        beside.store(READY, 0);
        let victim = process(&store, |store| {
            beside.store(READY, 1);
            run::write(store, &beside, seed);
        });
        beside.wait_for(READY, 1);
        kill_after(victim, random.below(100_000));
        // Whoever writes next recovers, before anything else.
        store.delete("nothing").unwrap();
        if let Some(recovery) = store.take_recovery() {
            assert!(recovery.owner_died);
            inside += 1;
            told += u64::from(recovery.key.is_some());
            *unfinished.entry(format!("{:?}", recovery.how)).or_default() += 1;
        }
        oracle.check(&store, &beside);
    }
    println!(
        "{} kills, {} operations, {inside} kills inside the critical section, {told} with the key \
         known: {unfinished:?}",
        kills(),
        beside.load(DONE)
    );
    assert!(inside * 10 > kills(), "{inside} kills inside");
    store.reclaim().unwrap();
    assert_eq!(store.stats().unwrap().readers, Some(1), "the dead have no records any more");
    // Nothing has leaked: without keys, all room is free again but for the table's.
    store.clear().unwrap();
    let stats = store.stats().unwrap();
    assert_eq!((stats.retired, stats.live_bytes), (0, 0));
    assert!(stats.capacity_bytes - stats.free_bytes <= 64 << 10, "{stats:?}");
}

#[test]
fn f06_processes_killed_in_recovery_leave_it_to_the_next() {
    let mut random = Random::new(random::seed());
    let (store, beside) = (store_of(1 << 20, 4), Beside::new());
    let fill = |store: &Store| {
        for number in 0..500_u64 {
            store.set(number.to_le_bytes(), &number.to_le_bytes().repeat(80)).expect("room");
        }
    };
    // Has a process do something, and kills it at most so many pauses after it has begun. Says whether it
    // was not done by then.
    let mut killed = |most: u64, operation: &dyn Fn(&Store)| {
        for word in [READY, BEGUN, DONE] {
            beside.store(word, 0);
        }
        let victim = process(&store, |store| {
            beside.store(READY, 1);
            // Both begin at once: the operation takes microseconds.
            while beside.load(BEGUN) == 0 {
                std::hint::spin_loop();
            }
            operation(store);
            beside.store(DONE, 1);
        });
        beside.wait_for(READY, 1);
        beside.store(BEGUN, 1);
        kill_after(victim, random.below(most));
        beside.load(DONE) == 0
    };
    let rounds = kills() / 3;
    let mut in_recovery = 0;
    for _ in 0..rounds {
        let unfinished = killed(20_000, &|store| {
            loop {
                store.clear().expect("no damage");
                fill(store);
            }
        });
        assert!(unfinished, "it goes on until it is killed");
        // Each of them finds what the one before has left, of the operation or of its recovery.
        for _ in 0..3 {
            in_recovery += u64::from(killed(2_000, &|store| {
                store.delete("nothing").expect("recovered");
            }));
        }
        store.set("k", b"v").unwrap();
        let keys = store.len().unwrap();
        assert!((1..=501).contains(&keys), "{keys} keys");
        assert_eq!(store.check(), Ok(()));
        store.delete("k").unwrap();
    }
    println!("{rounds} killed while they changed a store, {in_recovery} before recovery was over");
    assert!(in_recovery > 0, "none was killed in recovery");
}
