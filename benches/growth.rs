//! What the growth of the table costs: the longest `set` among many of distinct keys.
//!
//! Run by `cargo bench --bench growth`; see `--help` behind `--`. Each run sets distinct keys in a new store, and measures
//! each `set` in CPU time of the thread. It does so in a store that grows, and in one that expects as many keys.
//!
//! Invariants: both stores have the same capacity and get the same keys; their runs alternate; no process but this one
//! uses them.
#![allow(unsafe_code)]

use std::time::Duration;

use clap::Parser;
use ringway::store::{Store, StoreOptions};

/// How much longer the longest `set` may take where the table grows.
const GOAL: Duration = Duration::from_millis(1);

/// Options of this bench.
#[derive(Debug, Parser)]
#[command(about = "The longest set of many, with growth and without, in CPU time of the thread")]
struct Options {
    /// A smoke test. Also what runs without cargo's `--bench`.
    #[arg(long)]
    quick: bool,
    /// How many keys are set in each run.
    #[arg(long, default_value_t = 10_000_000)]
    keys: u64,
    /// How many runs of each store.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one run found.
struct Run {
    mean: Duration,
    /// The longest ones, the longest first.
    longest: [Duration; 3],
}

fn main() {
    let mut options = Options::parse();
    if options.quick || !options.bench {
        (options.keys, options.runs) = (200_000, 1);
    }
    println!("# Growth\n");
    println!(
        "{} sets of distinct keys of 8 bytes, with values of 8 bytes; CPU time of the thread.\n",
        options.keys
    );
    println!("| the table | mean, ns | longest, µs | second | third |");
    println!("|---|---|---|---|---|");
    let (mut growing, mut made_for_all) = (Vec::new(), Vec::new());
    for _ in 0..options.runs.max(1) {
        for (name, expected_keys, longest) in
            [("grows", 0, &mut growing), ("is made for all keys", options.keys, &mut made_for_all)]
        {
            let run = run(options.keys, expected_keys);
            let [first, second, third] = run.longest.map(micros);
            println!(
                "| {name} | {:.0} | {first:.1} | {second:.1} | {third:.1} |",
                run.mean.as_secs_f64() * 1e9
            );
            longest.push(run.longest[0]);
        }
    }
    let median = |mut longest: Vec<Duration>| {
        longest.sort_unstable();
        longest[longest.len() / 2]
    };
    let (growing, made_for_all) = (median(growing), median(made_for_all));
    let reached = if growing <= made_for_all + GOAL { "yes" } else { "no" };
    println!("\n## Goals\n\n| goal | bound | measured, µs | reached |\n|---|---|---|---|");
    println!(
        "| longest set of a table that grows, above the other (medians) | at most {GOAL:?} | {:.1} | {reached} |",
        micros(growing) - micros(made_for_all)
    );
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn run(keys: u64, expected_keys: u64) -> Run {
    // An object of 64 bytes for each key, the last table and the one before it, and as much again as the reserve.
    let capacity_bytes = keys * 64 + (keys * 8 * 4).next_power_of_two() + (8 << 20);
    let options = StoreOptions { capacity_bytes, expected_keys, ..StoreOptions::default() };
    let store = Store::anonymous(&options).expect("a store");
    let mut longest = [Duration::ZERO; 3];
    let begun = cpu_time();
    for key in 0..keys {
        let bytes = key.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_ne_bytes();
        let before = cpu_time();
        store.set(bytes, &bytes).expect("setting");
        let took = cpu_time() - before;
        if took > longest[2] {
            longest[2] = took;
            longest.sort_unstable_by(|one, other| other.cmp(one));
        }
    }
    let mean = Duration::from_secs_f64((cpu_time() - begun).as_secs_f64() / keys as f64);
    assert_eq!(store.len(), Ok(keys));
    Run { mean, longest }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes to a timespec that outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
