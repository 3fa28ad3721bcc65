//! Attacks by what a plugin may ask of its host: keys that come and go, subscriptions that nobody reads.

use std::time::Duration;

use ringway::error::RecvError;
use ringway::host::Plugin;
use ringway::topic::{BackpressurePolicy, SubscribeOptions};

use super::counters::{Count, Counters};
use super::hang;

/// Fills the store with words that look like its own, and removes all of it.
pub fn clear() {
    let counters = Counters::inherited();
    let plugin = Plugin::connect().unwrap();
    let store = plugin.store().unwrap();
    let _channels = plugin.take_channels().unwrap();
    for round in 0_u64.. {
        // Small numbers are offsets, versions and lengths.
        let value: Vec<u8> =
            (0..64).flat_map(|word| (round * 64 + word * 16).to_ne_bytes()).collect();
        for key in 0..4 {
            let _ = store.set(format!("attack/{key}"), &value);
        }
        counters.add(Count::Attempts, 1);
        // A request beyond the rate is refused, and asked for again.
        counters.add(Count::Hits, u64::from(store.clear().is_ok()));
    }
}

/// As many subscriptions to each topic as one process may have, with the longest queues that can be asked for.
pub fn subscribe() {
    let counters = Counters::inherited();
    let plugin = Plugin::connect().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    let options = SubscribeOptions {
        backpressure: BackpressurePolicy::DropOldest { queue_bytes: u64::MAX },
        capacity_bytes: 4096,
        join_timeout: Duration::from_secs(1),
        ..SubscribeOptions::default()
    };
    let mut subscribers = Vec::new();
    for topic in ["ticks", "news"] {
        for _ in 0..8 {
            counters.add(Count::Attempts, 1);
            subscribers.extend(plugin.subscriber(topic, &options));
            counters.set(Count::Hits, subscribers.len() as u64);
        }
    }
    // It waits for its host, and for nothing else.
    while !matches!(active.recv_owned(), Err(RecvError::Disconnected)) {}
    hang();
}
