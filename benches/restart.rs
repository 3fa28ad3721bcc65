//! From a plugin's death to the first message of its successor.
//!
//! Run by `cargo bench --bench restart`; see `--help` behind `--`. It kills a plugin, whose program takes 1 ms from its start
//! until it takes its channels, with SIGKILL again and again, and prints how long it took until the host had a message of the
//! next one; and beside it how long the same program takes to be started and to end, without a host.
//! What always holds: each message comes from a process that was started after the kill.
#![allow(unsafe_code)]

use std::env;
use std::process::{self, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use ringway::channel::{Channel, ChannelOptions};
use ringway::error::RecvTimeoutError;
use ringway::host::control::VARIABLE;
use ringway::host::{Host, HostEventKind, Plugin, PluginSpec, Restart};

/// What the plugin's program does before it takes its channels.
const START: Duration = Duration::from_millis(1);

/// From the death to the first message, at most.
const GOAL: Duration = Duration::from_millis(20);

/// Longer than anything takes.
const NEVER: Duration = Duration::from_secs(60);

/// Set for the program that only starts and ends.
const ALONE: &str = "RINGWAY_BENCH_ALONE";

/// Options of this bench.
#[derive(Debug, Parser)]
#[command(about = "From a plugin's death to the first message of its successor; medians")]
struct Options {
    /// A smoke test. Also what runs without cargo's `--bench`.
    #[arg(long)]
    quick: bool,
    /// How many deaths to measure for each row.
    #[arg(long, default_value_t = 200)]
    deaths: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    if env::var_os(VARIABLE).is_some() || env::var_os(ALONE).is_some() {
        return play();
    }
    let options = Options::parse();
    let deaths = if options.quick || !options.bench { 5 } else { options.deaths.max(1) };
    println!("# Restart\n");
    println!(
        "Median of {deaths} deaths and the longest, in ms. The plugin's program works for {START:?} before it takes its \
         channels and sends a message; it is killed with SIGKILL and started again without a pause.\n"
    );
    println!("| | median | longest |");
    println!("|---|---|---|");
    let alone =
        row("the program by itself, started and ended", (0..deaths).map(|_| by_itself()).collect());
    let mut goals = Vec::new();
    for (name, capacity_bytes) in [("rings of 256 KiB", 256 << 10), ("rings of 16 MiB", 16 << 20)] {
        let measured = measure(capacity_bytes, deaths);
        row(
            &format!("{name}: until the host has found it dead"),
            measured.iter().map(|it| it.found).collect(),
        );
        row(
            &format!("{name}: from there until the next one is ready"),
            measured.iter().map(|it| it.downtime).collect(),
        );
        let all = row(
            &format!("{name}: from the kill to the first message"),
            measured.iter().map(|it| it.message).collect(),
        );
        println!(
            "| … by the program by itself | {:.2} | |",
            all.as_secs_f64() / alone.as_secs_f64()
        );
        goals.push((name, all));
    }
    println!(
        "\n## Goals\n\n| from the kill to the first message | bound | ms | reached |\n|---|---|---|---|"
    );
    for (name, all) in goals {
        let (ms, reached) = (all.as_secs_f64() * 1e3, if all <= GOAL { "yes" } else { "no" });
        println!("| {name} | at most {GOAL:?} | {ms:.2} | {reached} |");
    }
}

/// The plugin, or the program without a host.
fn play() {
    let begun = Instant::now();
    while begun.elapsed() < START {
        std::hint::spin_loop();
    }
    if env::var_os(ALONE).is_some() {
        return;
    }
    let plugin = Plugin::connect().expect("a host");
    let (mut active, _passive) = plugin.take_channels().expect("its channels");
    active.send_pod(&process::id()).expect("the host listens");
    // Until it is killed, or its host is gone.
    let _ = active.recv();
}

fn program() -> Command {
    let mut command = Command::new(env::current_exe().expect("the path of this program"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn by_itself() -> Duration {
    let begun = Instant::now();
    let status = program().env(ALONE, "1").status().expect("starting the program");
    assert!(status.success());
    begun.elapsed()
}

/// One death.
struct Measured {
    found: Duration,
    downtime: Duration,
    message: Duration,
}

fn measure(capacity_bytes: u64, deaths: usize) -> Vec<Measured> {
    let host = Host::builder().build().expect("a host");
    let restart = Restart::OnFailure {
        max_restarts: u32::MAX,
        backoff_initial: Duration::ZERO,
        backoff_max: Duration::ZERO,
    };
    let options = ChannelOptions { capacity_bytes, ..ChannelOptions::default() };
    let spec = PluginSpec::new("mortal", env::current_exe().expect("the path of this program"))
        .stdout(ringway::host::Stdio::null())
        .restart(restart)
        .channel_options(options);
    let plugin = host.spawn(spec).expect("a plugin");
    let (mut active, _passive) = plugin.take_channels().expect("its channels");
    let mut former = first_message(&mut active);
    let mut measured = Vec::new();
    while measured.len() < deaths {
        let killed = Instant::now();
        plugin.kill().expect("it runs");
        let pid = first_message(&mut active);
        let message = killed.elapsed();
        assert_ne!(pid, former, "another process");
        former = pid;
        let (mut found, mut ready) = (None, None);
        while ready.is_none() {
            let event = host.next_event(NEVER).expect("an event");
            match event.kind {
                HostEventKind::Died { .. } => found = Some(event.at.duration_since(killed)),
                HostEventKind::Restarted { downtime, .. } => ready = Some(downtime),
                _ => {}
            }
        }
        let (found, downtime) = (found.expect("it has died"), ready.expect("it runs"));
        measured.push(Measured { found, downtime, message });
    }
    measured
}

fn first_message(active: &mut Channel) -> u32 {
    loop {
        match active.receiver().recv_timeout(NEVER) {
            Ok(message) => return u32::from_ne_bytes(message[..4].try_into().expect("a number")),
            Err(RecvTimeoutError::Restarted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Prints a row; returns the median.
fn row(name: &str, mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!("| {name} | {:.2} | {:.2} |", ms(median), ms(longest));
    median
}
