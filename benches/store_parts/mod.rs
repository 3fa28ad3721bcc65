//! What happens to a store once: a writer dies, somebody attaches, a watcher is told.
//!
//! `store.rs` runs it after the operations.
//! What always holds: writers are processes that are killed with SIGKILL, and what recovery says it had to
//! do is what its time is counted under.

mod watching;

use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use ringway::memory::HeapMemory;
use ringway::store::{Core, Recovered, Store, StoreGeometry};

use crate::common::cli::Options;
use crate::common::goals::Goals;
use crate::common::keyed::key_bytes;
use crate::common::ringway_store::{descriptors, store};
use crate::common::stats::Latencies;
use crate::common::table::bytes;

/// Killed writers.
const DEATHS: u32 = 400;
const QUICK_DEATHS: u32 = 20;
const KEYS: u64 = 10_000;
const ENTRIES: u64 = 64 << 10;
const CAPACITY: usize = 64 << 20;
/// Set by each writer before anything else.
const ALIVE: &[u8] = b"alive";
/// Stores to attach.
const ATTACHED: [(u64, usize); 2] = [(1_000, 256 << 20), (1_000_000, 256 << 20)];

/// Measures and prints everything.
pub fn run(options: &Options, goals: &mut Goals, far_cpu: usize) {
    println!("## once\n");
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["us", "times", "median", "99 %", "longest"]);
    deaths(options, goals, &mut table);
    rebuilds(options, goals, &mut table);
    attachments(options, goals, &mut table);
    watching::run(options, goals, &mut table, far_cpu);
    println!("{table}\n");
}

fn row(table: &mut Table, what: String, times: u64, latencies: &Latencies) {
    let us = |percent| format!("{:.1}", latencies.percentile(percent) as f64 / 1e3);
    table.add_row([what, times.to_string(), us(50.0), us(99.0), us(100.0)]);
}

/// A writer is killed at some moment; the next `set` has the store brought in order first.
fn deaths(options: &Options, goals: &mut Goals, table: &mut Table) {
    let store = store(CAPACITY);
    for key in 0..KEYS {
        store.set(key_bytes(key), &[1; 64]).expect("setting");
    }
    let kinds = [Recovered::Clean, Recovered::TakenBack, Recovered::Finished, Recovered::Rebuilt];
    let mut found = kinds.map(|kind| (kind, 0_u64, Latencies::new()));
    let deaths = if options.quick { QUICK_DEATHS } else { DEATHS };
    for death in 0..deaths {
        let theirs = descriptors(&store);
        let victim = Victim::start(|| {
            let store = Store::attach(theirs.try_clone().expect("a copy")).expect("a store");
            store.set(ALIVE, &death.to_ne_bytes()).expect("setting");
            for turn in 0_u64.. {
                store
                    .set(key_bytes(turn % (2 * KEYS)), &turn.to_ne_bytes().repeat(8))
                    .expect("setting");
                if turn % 3 == 0 {
                    store.delete(key_bytes((turn + KEYS) % (2 * KEYS))).expect("deleting");
                }
            }
        });
        // It writes; some time later it does not.
        while store.get(ALIVE).expect("getting").is_none_or(|value| *value != death.to_ne_bytes()) {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_micros(200 + u64::from(death) * 7 % 300));
        drop(victim);
        let started = Instant::now();
        store.set(b"the next", &[2; 64]).expect("setting");
        let took = started.elapsed();
        let Some(recovery) = store.take_recovery() else { continue };
        let (_, times, latencies) =
            found.iter_mut().find(|(kind, ..)| *kind == recovery.how).expect("a kind");
        *times += 1;
        latencies.record(took);
    }
    store.check().expect("a store in order");
    for (kind, times, latencies) in &found {
        if *times > 0 {
            let what = format!("set behind a killed writer: {kind:?}");
            if *kind != Recovered::Rebuilt {
                let us = latencies.percentile(50.0) as f64 / 1e3;
                goals.at_most_of(format!("{what}, us"), us, 50.0);
            }
            row(table, what, *times, latencies);
        }
    }
}

/// Everything is computed anew, over private memory.
fn rebuilds(options: &Options, goals: &mut Goals, table: &mut Table) {
    let geometry = StoreGeometry::new(CAPACITY as u64, 64, 0x5eed).expect("measures");
    let mut core = Core::new(HeapMemory::new(geometry.len_bytes()), geometry);
    core.format().expect("room");
    for key in 0..ENTRIES {
        core.set(&key_bytes(key), &[1; 64]).expect("room");
    }
    let mut latencies = Latencies::new();
    let times = if options.quick { 3 } else { 50 };
    for _ in 0..times {
        let started = Instant::now();
        assert_eq!(core.rebuild(), Ok(Recovered::Rebuilt));
        latencies.record(started.elapsed());
    }
    let what = format!("rebuild of {ENTRIES} entries of 64 B");
    goals.at_most_of(format!("{what}, ms"), latencies.percentile(50.0) as f64 / 1e6, 10.0);
    row(table, what, times, &latencies);
}

/// Attaching a store that is there, up to the first value read. Pages are mapped in advance, which is
/// what it costs: the capacity, not the keys.
fn attachments(options: &Options, goals: &mut Goals, table: &mut Table) {
    let mut medians = Vec::new();
    for (keys, capacity) in ATTACHED {
        let store = store(capacity);
        for key in 0..keys {
            store.set(key_bytes(key), &[1; 64]).expect("setting");
        }
        let mut latencies = Latencies::new();
        let times = if options.quick { 2 } else { 10 };
        for _ in 0..times {
            let theirs = descriptors(&store);
            let started = Instant::now();
            let another = Store::attach(theirs).expect("attaching");
            assert!(another.contains(key_bytes(keys / 2)).expect("looking"));
            latencies.record(started.elapsed());
        }
        medians.push(latencies.percentile(50.0) as f64);
        row(table, format!("attach, {keys} keys, capacity {}", bytes(capacity)), times, &latencies);
    }
    goals.at_most_of(
        "attach with 10^6 keys, by one with 10^3".into(),
        medians[1] / medians[0],
        1.5,
    );
}

/// A forked process, killed and reaped when it is dropped.
struct Victim(libc::pid_t);

impl Victim {
    fn start(run: impl FnOnce()) -> Self {
        // SAFETY: this program has one thread, so the child may do anything.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "{}", std::io::Error::last_os_error());
        if pid == 0 {
            // SAFETY: the call takes numbers. Should the bench itself be killed, so is its child.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            run();
            // SAFETY: the call takes a number and does not return.
            unsafe { libc::_exit(0) };
        }
        Self(pid)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // SAFETY: the call takes numbers; the child has not been reaped, so the number is its own.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        let mut status = 0;
        // SAFETY: a child of ours, and a status that outlives the call.
        unsafe { libc::waitpid(self.0, &mut status, 0) };
        assert!(libc::WIFSIGNALED(status), "the writer failed");
    }
}
