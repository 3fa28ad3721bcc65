//! Attacks on sleepers: what can be done with a word by whoever has it mapped, even read-only.
//!
//! Row 48. The words are those of every memory file that the library has mapped in this process: the plugin's own
//! channels, its link with a neighbour, the public part of the store. Invariants: nothing is written.

use std::fs;
use std::ptr::null;
use std::thread;
use std::time::Duration;

use ringway::channel::Channel;
use ringway::host::Plugin;
use ringway::layout::store::generation;
use ringway::layout::{ring, side};
use ringway::topic::SubscribeOptions;

use super::Attack;
use super::counters::{Count, Counters};

/// How long one sleep lasts.
const NAP_NS: i64 = 5_000_000;

/// A part of a memory file, as it is mapped.
struct Mapped {
    start: usize,
    end: usize,
    /// Whether the file begins here.
    is_start: bool,
}

/// What this process has mapped of the library's memory files.
fn mapped() -> Vec<Mapped> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let ours = maps.lines().filter(|line| line.contains("memfd:ringway"));
    ours.map(|line| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next().unwrap().split_once('-').unwrap();
        let address = |text| usize::from_str_radix(text, 16).unwrap();
        let is_start = address(fields.nth(1).unwrap()) == 0;
        Mapped { start: address(start), end: address(end), is_start }
    })
    .collect()
}

/// The words on which somebody may sleep, if the file is what it is taken for.
fn words_of_sleepers(mapped: &Mapped) -> impl Iterator<Item = usize> + use<> {
    let rings = ring::CONTROL
        .map(|control| [ring::CONSUMER_WAITING, ring::PRODUCER_WAITING].map(|word| control + word));
    let sides = side::LINE.map(|line| [side::STATE, side::ATTACHES].map(|word| line + word));
    let bells = [0, 1].map(generation::of_bell);
    let offsets = rings.into_iter().chain(sides).flatten().chain(bells);
    let (start, end, is_start) = (mapped.start, mapped.end, mapped.is_start);
    offsets.map(move |offset| start + offset as usize).filter(move |word| is_start && *word < end)
}

/// Attacks words on which others sleep, and more slowly every word.
pub fn attack(attack: Attack) {
    let counters = Counters::inherited();
    let plugin = Plugin::connect().unwrap();
    let _store = plugin.store().unwrap();
    let mut channels: [_; 2] = plugin.take_channels().unwrap().into();
    let options = SubscribeOptions { join_timeout: Duration::from_secs(1), ..Default::default() };
    let _news = plugin.subscriber("news", &options);
    let mapped = mapped();
    let act: fn(usize) -> u64 = match attack {
        Attack::Wait => wait,
        Attack::Requeue => requeue,
        _ => wait_requeue_pi,
    };
    let attack_all = |words: &mut dyn Iterator<Item = usize>| {
        for word in words {
            counters.add(Count::Attempts, 1);
            counters.add(Count::Hits, act(word));
        }
    };
    let everything = || mapped.iter().flat_map(|mapped| (mapped.start..mapped.end).step_by(4));
    let chosen: Vec<_> = mapped.iter().flat_map(words_of_sleepers).collect();
    thread::scope(|scope| {
        // So that there are wakes, in both directions. The channels stay mapped when they are closed.
        for channel in &mut channels {
            scope.spawn(|| answer(channel));
        }
        // Whoever sleeps there all the time is there when somebody is woken. Moving sleepers takes no time.
        let groups = if attack == Attack::Requeue { chosen.len() } else { 1 };
        for words in chosen.chunks(groups) {
            scope.spawn(move || {
                loop {
                    attack_all(&mut words.iter().copied());
                }
            });
        }
        loop {
            attack_all(&mut everything());
        }
    });
}

/// Answers every message, as a plugin does that is no attacker.
fn answer(channel: &mut Channel) {
    while let Ok(message) = channel.recv_owned() {
        if channel.send(&message).is_err() {
            return;
        }
    }
}

fn value(word: usize) -> u32 {
    // SAFETY: inside a mapping that the library keeps.
    unsafe { (word as *const u32).read_volatile() }
}

/// Sleeps for a moment; 1 if somebody has woken it.
fn wait(word: usize) -> u64 {
    let nap = libc::timespec { tv_sec: 0, tv_nsec: NAP_NS };
    let (call, value) = (libc::FUTEX_WAIT, value(word));
    // SAFETY: the kernel reads the word, which is mapped, and the time, which outlives the call.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word, call, value, &raw const nap) };
    u64::from(woken == 0)
}

/// How many sleepers were moved to a word of this process.
fn requeue(word: usize) -> u64 {
    let own = 0_u32;
    let (call, all) = (libc::FUTEX_CMP_REQUEUE, i32::MAX as usize);
    let value = value(word);
    // SAFETY: the kernel reads the word, which is mapped; the other one is a name for sleepers.
    let moved =
        unsafe { libc::syscall(libc::SYS_futex, word, call, 0, all, &raw const own, value) };
    moved.max(0) as u64
}

/// Sleeps for a moment, and makes every wake of the word fail meanwhile; 1 if it has slept.
fn wait_requeue_pi(word: usize) -> u64 {
    let own = 0_u32;
    let mut until = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut until) };
    until.tv_nsec += NAP_NS;
    if until.tv_nsec >= 1_000_000_000 {
        until.tv_nsec -= 1_000_000_000;
        until.tv_sec += 1;
    }
    let (call, value) = (libc::FUTEX_WAIT_REQUEUE_PI, value(word));
    // SAFETY: the kernel reads the word and the time, and may write the other word, which outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word,
            call,
            value,
            &raw const until,
            &raw const own,
            null::<u32>(),
        )
    };
    let errno = std::io::Error::last_os_error().raw_os_error();
    u64::from(result == -1 && errno == Some(libc::ETIMEDOUT))
}
