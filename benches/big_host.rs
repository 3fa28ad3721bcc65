//! What starts of plugins cost a thread of a large host that must not wait.
//!
//! Run by `cargo bench --bench big_host`; see `--help` behind `--`. A process fills and locks its memory. One
//! of its threads reads the clock in bursts and keeps the longest gap between two readings. Runs
//! without starts and runs of the same length with starts take turns. It prints both, for a host that
//! starts plugins itself, for one with a keeper, and for plain forks, which show that the bench can see a
//! disturbance.
//! Invariants: each row is measured in a process of its own; the keeper is made before the memory is filled.
#![allow(unsafe_code)]

use std::env;
use std::hint::black_box;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use ringway::host::control::VARIABLE;
use ringway::host::{Host, HostEventKind, Plugin, PluginHandle, PluginSpec};

/// The worst gap with starts is at most this much above the worst gap without.
const GOAL: Duration = Duration::from_millis(1);
/// Longer than anything takes.
const NEVER: Duration = Duration::from_secs(60);
/// Says which row a process measures.
const ROW: &str = "RINGWAY_BENCH_ROW";
const ROWS: [&str; 3] = ["started by the host", "started by its keeper", "a fork for each start"];

/// Options of this bench.
#[derive(Debug, Parser)]
#[command(
    about = "The worst gap of a thread that reads the clock, with and without starts of plugins"
)]
struct Options {
    /// A smoke test. Also what runs without cargo's `--bench`.
    #[arg(long)]
    quick: bool,
    /// Resident memory of the host, in MiB.
    #[arg(long, default_value_t = 8192)]
    mib: usize,
    /// Length of each run, in seconds.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// How many runs with starts, and as many without.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    if env::var_os(VARIABLE).is_some() {
        return play();
    }
    let mut options = Options::parse();
    if options.quick || !options.bench {
        (options.mib, options.seconds, options.runs) = (256, 0.2, 1);
    }
    if let Ok(row) = env::var(ROW) {
        return measure(row.parse().expect("the number of a row"), &options);
    }
    println!("# A large host\n");
    println!(
        "Worst gaps of a locked thread that reads the clock, in ms, in {} runs of {} s each without starts and with \
         starts, in a host with {} MiB. A start is a spawn and a restart of one plugin.\n",
        options.runs, options.seconds, options.mib
    );
    println!("| | worst without | worst with | starts | above | at most {GOAL:?} |");
    println!("|---|---|---|---|---|---|");
    for row in 0..ROWS.len() {
        let status = Command::new(env::current_exe().expect("the path of this program"))
            .args(env::args_os().skip(1))
            .env(ROW, row.to_string())
            .status()
            .expect("starting a process for a row");
        assert!(status.success(), "{status}");
    }
}

/// The plugin.
fn play() {
    let plugin = Plugin::connect().expect("a host");
    let (mut active, _passive) = plugin.take_channels().expect("its channels");
    // Until it is ended, or its host is gone.
    let _ = active.recv();
}

fn measure(row: usize, options: &Options) {
    let builder = Host::builder();
    let builder = if row == 1 { builder.keeper() } else { builder };
    let host = builder.build().expect("a host");
    // Not zeros: those might be one page.
    let memory = black_box(vec![1_u8; options.mib << 20]);
    // SAFETY: the call takes a number.
    let locked = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } == 0;
    let stop = AtomicBool::new(false);
    let start = |stop: &AtomicBool| {
        let mut starts = 0;
        while !stop.load(Ordering::Relaxed) {
            if row == 2 {
                fork()
            } else {
                start_and_restart(&host)
            }
            starts += 1;
        }
        starts
    };
    let length = Duration::from_secs_f64(options.seconds);
    let (mut without, mut with, mut starts) = (Duration::ZERO, Duration::ZERO, 0);
    for _ in 0..options.runs {
        without = without.max(worst_gap(length));
        thread::scope(|scope| {
            let starter = scope.spawn(|| start(&stop));
            with = with.max(worst_gap(length));
            stop.store(true, Ordering::Relaxed);
            starts += starter.join().expect("starts");
        });
        stop.store(false, Ordering::Relaxed);
    }
    drop(memory);
    let above = with.saturating_sub(without);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "| {}{} | {:.3} | {:.3} | {starts} | {:.3} | {} |",
        ROWS[row],
        if locked { "" } else { " (not locked: no right to)" },
        ms(without),
        ms(with),
        ms(above),
        if above <= GOAL { "yes" } else { "no" }
    );
}

/// How long the thread reads the clock at a time, and how long it rests, which is no gap. Without a rest the
/// kernel suspends a real-time thread by itself, 50 ms a second.
const BURST: Duration = Duration::from_millis(8);
const REST: Duration = Duration::from_millis(2);

/// Reads the clock for so long, on a thread of its own with a real-time priority where that is allowed.
fn worst_gap(length: Duration) -> Duration {
    let watch = move || {
        let priority = libc::sched_param { sched_priority: 1 };
        // SAFETY: of this thread; the parameter outlives the call.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) };
        let (begun, mut worst) = (Instant::now(), Duration::ZERO);
        while begun.elapsed() < length {
            let burst = Instant::now();
            let mut last = burst;
            while last.duration_since(burst) < BURST {
                let now = Instant::now();
                worst = worst.max(now.duration_since(last));
                last = now;
            }
            thread::sleep(REST);
        }
        worst
    };
    thread::spawn(watch).join().expect("the thread that reads the clock")
}

fn start_and_restart(host: &Host) {
    let spec = PluginSpec::new("started", env::current_exe().expect("the path of this program"))
        .stdout(ringway::host::Stdio::null())
        .env_remove(ROW);
    let handle: PluginHandle = host.spawn(spec).expect("a plugin");
    handle.restart().expect("it runs");
    loop {
        let event = host.next_event(NEVER).expect("an event");
        if matches!(event.kind, HostEventKind::Restarted { .. }) {
            break;
        }
    }
    handle.terminate().expect("it has an end");
}

fn fork() {
    // SAFETY: the child ends at once.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: ends the child without running anything of its parent's.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: a null status is allowed.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
}
