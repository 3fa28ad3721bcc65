//! Plugins beside an attacker. They do their work, check what they read, and say how far they have come.
//!
//! Invariants: each call has a deadline; each value that is read is one that was written; a neighbour that finds
//! anything else exits with another code than 0.

use std::fs;
use std::process;
use std::thread;
use std::time::Duration;

use ringway::channel::Channel;
use ringway::host::Plugin;
use ringway::store::Store;
use ringway::topic::{PublishOptions, SubscribeOptions};

use crate::attack::counters::{Count, Counters};
use crate::pace::Pace;

/// Where a neighbour finds its role.
pub const ROLE: &str = "RINGWAY_NEIGHBOUR";
/// The deadline of a call that an attacker has no part in: none of them reaches it.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How far the memory of a process may grow under attack.
const GROWTH_KIB: u64 = 48 << 10;

/// A value that says what it is.
pub fn value(number: u64) -> Vec<u8> {
    let len = 16 + (number % 60 * 8) as usize;
    let mut value = [number.to_ne_bytes(), (!number).to_ne_bytes()].concat();
    value.resize(len, number as u8);
    value
}

/// The number of a value.
pub fn number(value: &[u8]) -> u64 {
    let number = u64::from_ne_bytes(value[..8].try_into().unwrap());
    assert_eq!(value, self::value(number), "not what was written");
    number
}

/// Sets a key and reads it, and the one of somebody else. Others may remove keys, and change none.
pub fn use_store(pace: &mut Pace, store: &Store, own: &str, other: &str, round: u64) {
    pace.call("Store::set_timeout", PATIENCE, || {
        store.set_timeout(own, &value(round), PATIENCE).unwrap()
    });
    let read =
        pace.call("Store::get", PATIENCE, || store.get(own).unwrap().map(|value| number(&value)));
    assert!(read.is_none_or(|read| read == round), "{read:?} of {round}");
    pace.call("Store::get", PATIENCE, || store.get(other).unwrap().map(|value| number(&value)));
}

/// The memory that this process has for itself.
pub fn memory_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What a process may not exceed.
pub struct Memory(u64);

impl Memory {
    pub fn now() -> Self {
        Self(memory_kib())
    }

    pub fn check(&self) {
        let now = memory_kib();
        assert!(now < self.0 + GROWTH_KIB, "memory has grown from {} to {now} KiB", self.0);
    }
}

/// Answers until the host hangs up.
fn answer(mut channel: Channel) {
    while let Ok(message) = channel.recv_owned() {
        if channel.send(&message).is_err() {
            return;
        }
    }
}

/// Plays the role that this process was started for; returns where there is none.
pub fn play() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let counters = Counters::inherited();
    let plugin = Plugin::connect().unwrap();
    let (active, _passive) = plugin.take_channels().unwrap();
    thread::spawn(move || answer(active));
    match role.as_str() {
        "talker" => talk(&plugin, &counters),
        "listener" => listen(&plugin, &counters),
        "visitor" => while plugin.wait_for_stop(PATIENCE).is_none() {},
        other => panic!("unknown role {other}"),
    }
    process::exit(0);
}

fn count(counters: &Counters, pace: &Pace) {
    counters.add(Count::Attempts, 1);
    counters.at_least(Count::WorstNs, pace.worst.0.as_nanos() as u64);
}

/// Publishes, writes the store through the host, and asks the host whether it is there.
fn talk(plugin: &Plugin, counters: &Counters) {
    let options = PublishOptions {
        max_queue_bytes: crate::attack::opportunity::QUEUE_BYTES,
        join_timeout: PATIENCE,
        ..PublishOptions::default()
    };
    let mut news = plugin.publisher_with("news", &options).unwrap();
    let store = plugin.store().unwrap();
    let (mut pace, memory) = (Pace::new(), Memory::now());
    for round in 0.. {
        pace.call("Publisher::publish", options.max_block, || {
            news.publish(&value(round)).unwrap();
            news.publish(b"").unwrap();
        });
        use_store(&mut pace, &store, "talker", "host", round);
        pace.call("Plugin::ping", PATIENCE, || plugin.ping(PATIENCE).unwrap());
        count(counters, &pace);
        if plugin.stop_requested().is_some() {
            break;
        }
    }
    memory.check();
}

/// Reads what the other one publishes, and writes the store itself.
fn listen(plugin: &Plugin, counters: &Counters) {
    let options = SubscribeOptions { join_timeout: PATIENCE, ..SubscribeOptions::default() };
    let mut news = plugin.subscriber("news", &options).unwrap();
    let store = plugin.store().unwrap();
    let (mut pace, memory) = (Pace::new(), Memory::now());
    for round in 0.. {
        pace.call("Subscriber::recv_timeout", PATIENCE, || {
            let publication = news.recv_timeout(PATIENCE).unwrap();
            let expected = publication.number();
            assert_eq!(publication.is_empty(), expected % 2 == 1);
            if !publication.is_empty() {
                assert_eq!(number(&publication), expected / 2);
            }
        });
        use_store(&mut pace, &store, "listener", "talker", round);
        count(counters, &pace);
        if plugin.stop_requested().is_some() {
            break;
        }
    }
    memory.check();
}
