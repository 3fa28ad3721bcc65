//! What a neighbour notices of a plugin that attacks, against one that only uses up processor time.
//!
//! Run by `cargo bench --bench hostile`, as root; see `--help` behind `--`. For each attack of
//! `tests/hostile_attacks` it prints the round trip between the host and another plugin, which is parked between
//! messages as by default, under attack and beside a process of two busy threads. Invariants: both take turns, in
//! slices of the same length; every answer is the message that was sent.
#![allow(unsafe_code)]
#![allow(missing_docs, dead_code, reason = "the attacks are shared with a test")]

#[path = "../tests/hostile_attacks/attack/mod.rs"]
mod attack;
mod common;

use std::env;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use attack::{Attack, Opportunity, user};
use clap::Parser;
use common::stats::Latencies;
use ringway::channel::Channel;
use ringway::host::{Host, Plugin, PluginSpec};
use ringway::store::StoreOptions;

/// Set for the neighbour's process.
const NEIGHBOUR: &str = "RINGWAY_BENCH_NEIGHBOUR";
/// Longer than anything takes.
const NEVER: Duration = Duration::from_secs(60);
const SLICES: u32 = 5;
/// The 99.9th percentile under attack, by that beside the busy process.
const GOAL: f64 = 1.1;

/// Options of this bench.
#[derive(Debug, Parser)]
#[command(about = "What a neighbour notices of an attacker, by what it notices of a busy process")]
struct Options {
    /// A smoke test, of one second for each attack. Also what runs without cargo's `--bench`.
    #[arg(long)]
    quick: bool,
    /// How long each attack lasts.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    attack::play();
    if env::var_os(NEIGHBOUR).is_some() {
        return answer();
    }
    let options = Options::parse();
    let seconds = if options.quick || !options.bench { 1 } else { options.seconds.max(1) };
    println!("# A hostile plugin\n");
    // SAFETY: the call takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        return println!("skipped: no process can be started under another user id here");
    }
    // What an attacker leaves behind becomes a child of this process.
    // SAFETY: the call takes numbers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    println!(
        "Round trip of 64 bytes between the host and a neighbour, µs; {seconds} s for each attack and as long beside a \
         busy process, in {SLICES} slices each.\n"
    );
    println!(
        "| attack | p50 | p99 | p99.9 | busy: p50 | p99 | p99.9 | p99.9, ratio | at most {GOAL} |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for attack in Attack::ALL {
        let slice = Duration::from_secs(seconds) / SLICES;
        let mut found = [Latencies::new(), Latencies::new()];
        for _ in 0..SLICES {
            for (latencies, attack) in found.iter_mut().zip([attack, Attack::Burn]) {
                latencies.merge(&measure(attack, slice));
            }
        }
        row(attack, &found);
    }
}

/// The neighbour: answers until the host hangs up.
fn answer() {
    let (mut active, _passive) = Plugin::connect().expect("a host").take_channels().expect("ready");
    while let Ok(message) = active.recv_owned() {
        if active.send(&message).is_err() {
            break;
        }
    }
    process::exit(0);
}

/// Round trips beside an attacker that has begun.
fn measure(attack: Attack, time: Duration) -> Latencies {
    let store = StoreOptions { capacity_bytes: 4 << 20, ..StoreOptions::default() };
    let host = Host::builder().store(store).links().answer_pings().build().expect("a host");
    let spec = PluginSpec::new("neighbour", "/proc/self/exe").env(NEIGHBOUR, "1");
    let neighbour = host.spawn(spec.run_as(user(1), user(1)).notice(NEVER)).expect("a neighbour");
    let (mut channel, _passive) = neighbour.take_channels().expect("its channels");
    let mut opportunity = Opportunity::new(attack, &host, &[]);
    let over = AtomicBool::new(false);
    let latencies = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                opportunity.turn(&mut |_, _, _| ());
            }
        });
        let latencies = round_trips(&mut channel, time);
        over.store(true, Ordering::Relaxed);
        latencies
    });
    opportunity.close();
    drop(channel);
    host.shutdown(NEVER).expect("all plugins end");
    opportunity.end_orphan();
    latencies
}

fn round_trips(channel: &mut Channel, time: Duration) -> Latencies {
    let mut latencies = Latencies::new();
    let mut message = [7; 64];
    let (begun, mut number) = (Instant::now(), 0_u64);
    while begun.elapsed() < time {
        number += 1;
        message[..8].copy_from_slice(&number.to_ne_bytes());
        let sent = Instant::now();
        channel.send_timeout(&message, NEVER).expect("the neighbour reads");
        assert_eq!(channel.recv_timeout(NEVER).expect("an answer").bytes(), message);
        latencies.record(sent.elapsed());
    }
    latencies
}

fn row(attack: Attack, [attacked, busy]: &[Latencies; 2]) {
    let us = |latencies: &Latencies| {
        [50.0, 99.0, 99.9].map(|percent| latencies.percentile(percent) as f64 / 1e3)
    };
    let ([p50, p99, p999], [busy50, busy99, busy999]) = (us(attacked), us(busy));
    let ratio = p999 / busy999;
    let reached = if ratio <= GOAL { "yes" } else { "no" };
    println!(
        "| {attack:?} | {p50:.1} | {p99:.1} | {p999:.1} | {busy50:.1} | {busy99:.1} | {busy999:.1} | {ratio:.2} | {reached} |"
    );
}
