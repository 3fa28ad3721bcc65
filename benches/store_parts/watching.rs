//! How soon a sleeping watcher is told of a change, beside a bare futex.
//!
//! [`store_parts`](super) runs it. What always holds: the watcher is a process of its own on the other CPU,
//! and is given time to fall asleep before each change; both read the same monotonic clock.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use comfy_table::Table;
use ringway::store::Store;

use super::{Victim, row};
use crate::common::cli::Options;
use crate::common::cpu;
use crate::common::goals::Goals;
use crate::common::ringway_store::{descriptors, store};
use crate::common::shared::{Shared, futex_wait, futex_wake};
use crate::common::stats::Latencies;

const CHANGES: u64 = 2000;
const QUICK_CHANGES: u64 = 20;
const KEY: &[u8] = b"watched";
/// Long enough to fall asleep.
const PAUSE: Duration = Duration::from_micros(300);

/// Words of the shared memory: when the change was made, how many were told, the latency of the last.
const MADE_NS: usize = 0;
const TOLD: usize = 128;
const LATENCY_NS: usize = 136;
const FUTEX: usize = 256;

fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes to a timespec that outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Measures a watch and a bare futex, in turn.
pub fn run(options: &Options, goals: &mut Goals, table: &mut Table, far_cpu: usize) {
    let changes = if options.quick { QUICK_CHANGES } else { CHANGES };
    let (mut bare, mut watched) = (Latencies::new(), Latencies::new());
    for _ in 0..options.runs {
        let shared = Shared::create(4096);
        measure(&shared, changes, far_cpu, &mut bare, || ring(&shared), || sleep_on(&shared));
        let shared = Shared::create(4096);
        let store = store(1 << 20);
        store.set(KEY, b"").expect("setting");
        let theirs = descriptors(&store);
        let change = || {
            store.set(KEY, &now_ns().to_ne_bytes()).expect("setting");
        };
        let watch = || {
            let store =
                Store::attach(theirs.try_clone().expect("a copy")).expect("the parent's store");
            let mut watch = store.watch(KEY).expect("a watch");
            tell(&shared, || drop(watch.wait_forever().expect("a change")));
        };
        measure(&shared, changes, far_cpu, &mut watched, change, watch);
    }
    let times = changes * options.runs as u64;
    row(table, "bare futex, woken to told".into(), times, &bare);
    row(table, "watch, set to told".into(), times, &watched);
    let ratio = watched.percentile(50.0) as f64 / bare.percentile(50.0) as f64;
    goals.at_most_of("watch, set to told, by a bare futex".into(), ratio, 1.25);
}

fn measure(
    shared: &Shared,
    changes: u64,
    far_cpu: usize,
    latencies: &mut Latencies,
    change: impl Fn(),
    watcher: impl FnOnce(),
) {
    let told = shared.word(TOLD);
    let child = Victim::start(|| {
        cpu::pin(far_cpu);
        watcher();
    });
    // The first shows that it watches, and is not counted.
    for number in 1..=changes + 1 {
        let mut patience = Duration::ZERO;
        while told.load(Ordering::Acquire) < number {
            if patience.is_zero() {
                thread::sleep(PAUSE);
                shared.word(MADE_NS).store(now_ns(), Ordering::Release);
                change();
            }
            thread::sleep(PAUSE / 3);
            // What was changed before it watched is not told: once more, for the first.
            patience += PAUSE / 3;
            if number == 1 && patience > 100 * PAUSE {
                patience = Duration::ZERO;
            }
        }
        if number > 1 {
            let latency = shared.word(LATENCY_NS).load(Ordering::Acquire);
            latencies.record(Duration::from_nanos(latency));
        }
    }
    drop(child);
}

/// In the watcher: each time `wait` returns, how long ago that change was made.
fn tell(shared: &Shared, mut wait: impl FnMut()) {
    loop {
        wait();
        let made_ns = shared.word(MADE_NS).load(Ordering::Acquire);
        shared.word(LATENCY_NS).store(now_ns() - made_ns, Ordering::Relaxed);
        shared.word(TOLD).fetch_add(1, Ordering::Release);
    }
}

fn ring(shared: &Shared) {
    shared.half(FUTEX).fetch_add(1, Ordering::Release);
    futex_wake(shared.half(FUTEX));
}

fn sleep_on(shared: &Shared) {
    let mut seen = 0;
    tell(shared, || {
        while shared.half(FUTEX).load(Ordering::Acquire) == seen {
            futex_wait(shared.half(FUTEX), seen, None);
        }
        seen = shared.half(FUTEX).load(Ordering::Acquire);
    });
}
