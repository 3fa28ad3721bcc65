//! What a selector costs as its channels become many: a wake, idleness, memory.
//!
//! Run by `cargo bench --bench selector`; see `--help` behind `--`. The senders are a second process,
//! pinned to another CPU; both sides are asleep before each message. It prints how long a message
//! takes from before it is sent until it is dispatched, with 1, 128 and 1000 channels, and what 1000
//! idle channels cost in processor time and memory.
//! What always holds: every message is stamped by its sender and arrives with the token of its
//! channel; the child is killed and reaped at the end.
#![allow(unsafe_code)]

mod common;

use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use comfy_table::{Table, presets};
use common::cli::Options;
use common::cpu;
use common::goals::Goals;
use common::plan::two_cpus;
use common::process::arm_watchdog;
use common::stats::median;
use common::table::figure;
use ringway::channel::{Channel, ChannelOptions, Event, Selector, Sender, WaitBackend};
use ringway::wakeup::WaitStrategy;

const MANY: usize = 1000;
/// What the sending process sleeps before each message, so that both sides do.
const PAUSE: Duration = Duration::from_micros(200);

/// A way of waiting, and for how many channels.
#[derive(Debug, Clone, Copy)]
struct Row {
    name: &'static str,
    channels: usize,
    backend: Option<WaitBackend>,
}

const ROWS: [Row; 6] = [
    Row { name: "1 channel", channels: 1, backend: None },
    Row { name: "128 channels", channels: 128, backend: None },
    Row { name: "1000 channels", channels: MANY, backend: None },
    Row { name: "1 channel, by io_uring", channels: 1, backend: Some(WaitBackend::Uring) },
    Row { name: "1000 channels, by threads", channels: MANY, backend: Some(WaitBackend::Threads) },
    Row { name: "1000 channels, polled", channels: MANY, backend: Some(WaitBackend::Futexes) },
];

fn options() -> ChannelOptions {
    ChannelOptions { capacity_bytes: 4096, wait: WaitStrategy::Park, ..ChannelOptions::default() }
}

fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A selector over channels whose other sides a forked process has.
struct Setup {
    row: Row,
    selector: Selector,
    /// Kept open.
    _back: Vec<Sender>,
    /// Tells the senders which channel to send on.
    ask: Channel,
    child: Child,
}

struct Child(libc::pid_t);

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: takes numbers; the child has not been reaped, so the number is its own.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        let mut status = 0;
        // SAFETY: our child; `status` outlives the call.
        unsafe { libc::waitpid(self.0, &mut status, 0) };
    }
}

impl Setup {
    /// `None` where this system does not offer the way of waiting.
    fn new(row: Row, far_cpu: Option<usize>) -> Option<Self> {
        let mut selector = match row.backend {
            Some(backend) => Selector::with_backend(backend)
                .inspect_err(|error| eprintln!("skipped: {}: {error}", row.name))
                .ok()?,
            None => Selector::new(),
        };
        let create = || {
            let channel = Channel::anonymous(&options()).expect("a channel");
            let descriptor = channel.descriptor().expect("a descriptor");
            (channel, descriptor)
        };
        let (ask, asked) = create();
        let mut back = Vec::new();
        let mut receivers = Vec::new();
        let mut descriptors = Vec::new();
        for _ in 0..row.channels {
            let (channel, descriptor) = create();
            let (sender, receiver) = channel.split();
            back.push(sender);
            receivers.push(receiver);
            descriptors.push(descriptor);
        }
        // SAFETY: this process has one thread, or none that holds anything the child uses.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork");
        if pid == 0 {
            // SAFETY: takes numbers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            drop((receivers, back));
            far_cpu.into_iter().for_each(cpu::pin);
            send(asked, descriptors);
        }
        drop((descriptors, asked));
        for (token, receiver) in receivers.into_iter().enumerate() {
            assert_eq!(selector.add(receiver), token);
        }
        ask.wait_for_peer(Duration::from_secs(30)).expect("the senders");
        let mut setup = Self { row, selector, _back: back, ask, child: Child(pid) };
        setup.ask.recv().expect("all attached");
        Some(setup)
    }

    /// How long a message takes on a channel, in nanoseconds.
    fn wake(&mut self, token: usize) -> f64 {
        self.ask.send_pod(&(token as u64)).expect("the senders live");
        let mut took = None;
        while took.is_none() {
            self.selector.poll(1, Duration::from_secs(30), |from, event| {
                let Event::Message(message) = event else { panic!("{event:?}") };
                let sent = u64::from_ne_bytes(message[..8].try_into().expect("a stamp"));
                assert_eq!(from, token);
                took = Some((now_ns() - sent) as f64);
            });
        }
        took.expect("a message")
    }
}

/// The other process.
fn send(asked: OwnedFd, descriptors: Vec<OwnedFd>) -> ! {
    let attach = |fd| Channel::attach(fd, &options()).expect("a channel");
    let mut asked = attach(asked);
    let mut channels: Vec<_> = descriptors.into_iter().map(attach).map(Channel::split).collect();
    asked.send(b"ready").expect("the selector lives");
    while let Ok(token) = asked.recv_pod::<u64>() {
        std::thread::sleep(PAUSE);
        channels[token as usize].0.send_pod(&now_ns()).expect("the selector lives");
    }
    // SAFETY: ends the process without running anything of the parent's.
    unsafe { libc::_exit(0) };
}

/// Scatters the tokens, always in the same order.
fn tokens(channels: usize) -> impl Iterator<Item = usize> {
    (1..).map(move |index: usize| index.wrapping_mul(0x9e37_79b9) >> 7).map(move |t| t % channels)
}

/// Nanoseconds that all threads of a process have run.
fn cpu_ns(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Bytes that a process has beside what it shares: private memory, program, page tables.
fn memory_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    ["RssAnon:", "RssFile:", "VmPTE:"].iter().filter_map(|name| field(name)).sum::<u64>() << 10
}

fn main() {
    let options = Options::from_command_line();
    let (near_cpu, far_cpu) = two_cpus();
    let (wakes, idle) = if options.quick {
        (20, Duration::from_millis(300))
    } else {
        (300, Duration::from_secs(5))
    };
    let own_pid = std::process::id();
    let mut goals = Goals::default();
    // First, while this process has nothing else.
    let before = memory_bytes(own_pid);
    let mut many = Setup::new(ROWS[2], far_cpu).expect("it chooses by itself");
    cpu::pin(near_cpu);
    arm_watchdog(60);
    // Until all sleep.
    assert_eq!(many.selector.poll(1, Duration::from_millis(100), |_, _| ()), 0);
    let child = many.child.0.unsigned_abs();
    let own_bytes = memory_bytes(own_pid).saturating_sub(before);
    let started_ns = [cpu_ns(own_pid), cpu_ns(child)];
    assert_eq!(many.selector.poll(1, idle, |_, _| ()), 0);
    let spent_ns = [cpu_ns(own_pid) - started_ns[0], cpu_ns(child) - started_ns[1]];
    let percent = |ns: u64| ns as f64 * 100.0 / idle.as_nanos() as f64;
    let total_percent = percent(spent_ns[0]) + percent(spent_ns[1]);
    println!("# A selector over {MANY} idle channels, by {:?}\n", many.selector.backend());
    println!("- processor time, selector: {} %", figure(percent(spent_ns[0])));
    println!("- processor time, the process with the senders: {} %", figure(percent(spent_ns[1])));
    println!("- memory beyond the segments: {} KiB\n", own_bytes >> 10);
    goals.at_most_of(format!("{MANY} idle channels, processor time in %"), total_percent, 0.1);
    let mib = own_bytes as f64 / f64::from(1 << 20);
    goals.at_most_of(format!("{MANY} channels, MiB beyond the segments"), mib, 16.0);

    let mut setups: Vec<_> = std::iter::once(many)
        .chain(ROWS.into_iter().enumerate().filter(|(index, _)| *index != 2).filter_map(
            |(_, row)| {
                arm_watchdog(60);
                Setup::new(row, far_cpu)
            },
        ))
        .collect();
    let mut medians = vec![Vec::new(); setups.len()];
    for run in 0..options.runs {
        for (setup, medians) in setups.iter_mut().zip(&mut medians) {
            arm_watchdog(60);
            let tokens = tokens(setup.row.channels).skip(run * wakes).take(wakes);
            let mut each: Vec<f64> = tokens.map(|token| setup.wake(token)).collect();
            medians.push(median(&mut each));
        }
    }
    arm_watchdog(0);
    let results: Vec<(Row, WaitBackend, f64)> = setups
        .iter()
        .zip(&mut medians)
        .map(|(setup, runs)| (setup.row, setup.selector.backend(), median(runs)))
        .collect();
    let of = |name| results.iter().find(|(row, ..)| row.name == name).map(|(.., ns)| *ns);
    let one = of(ROWS[0].name).expect("measured");
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["wake and dispatch, both sides asleep", "waits by", "ns", "by 1 channel"]);
    for row in ROWS {
        let Some((_, backend, ns)) = results.iter().find(|(found, ..)| found.name == row.name)
        else {
            continue;
        };
        let cells = [row.name.into(), format!("{backend:?}"), figure(*ns), figure(ns / one)];
        table.add_row(cells);
    }
    println!(
        "# Wakes\n\nMedians of {} runs of {wakes} messages each, CPU {near_cpu} and CPU {far_cpu:?}, \
         another channel each time.\n\n{table}\n",
        options.runs
    );
    for row in &ROWS[1..3] {
        if let Some(ns) = of(row.name) {
            let what = format!("wake and dispatch, {}, by {}", row.name, ROWS[0].name);
            goals.at_most_of(what, ns / one, 2.0);
        }
    }
    goals.print();
}
