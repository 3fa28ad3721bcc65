//! What can be chosen about publishing and subscribing.
//!
//! Callers fill these in. What always holds: what a subscriber chooses costs its publishers no more
//! than they allow.

use std::time::Duration;

use crate::segment::DEFAULT_MAX_MESSAGE_BYTES;
use crate::wakeup::WaitStrategy;

/// What a publisher does with a publication for which a subscriber's ring has no room. The subscriber
/// chooses, its publishers set limits; other subscribers get the publication in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenSlow {
    /// Waits for so long at most, and no longer than [`PublishOptions::max_block`]; then drops the
    /// publication for this subscriber and counts it. Several that are waited for share the time: what
    /// one does not need, the others have. Having waited in vain, it does not wait for this subscriber
    /// again before there was room once, or the subscriber has read all that is in its ring.
    Block(Duration),
    /// Does not wait: drops the publication for this subscriber and counts it.
    DropNewest,
    /// Does not wait: keeps the publication in its own memory until there is room, at most so many
    /// bytes of them, and no more than [`PublishOptions::max_queue_bytes`]; where that is not enough,
    /// drops the oldest of those and counts it. What is in the ring already stays: a subscriber that
    /// wants the newest chooses a small ring. What a publisher keeps is gone when it dies.
    DropOldest {
        /// Bytes that may be kept. One publication is kept in any case.
        queue_bytes: u64,
    },
    /// Does not wait: drops the subscriber, which gets what is in its ring, and then
    /// [`Departure::CutOff`](super::Departure::CutOff).
    Disconnect,
}

impl Default for WhenSlow {
    fn default() -> Self {
        Self::Block(Duration::from_secs(1))
    }
}

/// Choices about a publisher. All have defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishOptions {
    /// How long one publication waits for slow subscribers, all of them together, and for other writers
    /// of the store, which have half of it at most. 1 s.
    pub max_block: Duration,
    /// How many bytes are kept in this process for one subscriber that is slow. 1 MiB.
    pub max_queue_bytes: u64,
    /// Publications of so many bytes and more are written into the host's store, once for all
    /// subscribers, where there is one that this process may write in place. `None`, as it is at
    /// first: all travel in the rings.
    pub store_from_bytes: Option<u64>,
    /// How many bytes of publications may lie in the store. Where that is not enough, the oldest is
    /// removed: a subscriber that has not read it gets
    /// [`Expired`](super::TopicRecvError::Expired). 16 MiB.
    pub store_budget_bytes: u64,
    /// How long the call that makes the publisher waits for subscribers that do not answer. 1 s.
    pub join_timeout: Duration,
}

impl Default for PublishOptions {
    fn default() -> Self {
        Self {
            max_block: Duration::from_secs(1),
            max_queue_bytes: 1 << 20,
            store_from_bytes: None,
            store_budget_bytes: 16 << 20,
            join_timeout: Duration::from_secs(1),
        }
    }
}

/// Choices about a subscriber. All have defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// Capacity of the ring from each publisher in bytes: a power of two. 256 KiB. Publications longer
    /// than half of it travel in fragments, which a publisher does that may wait for this subscriber
    /// ([`WhenSlow::Block`], [`WhenSlow::DropOldest`]); others count them as too long.
    pub capacity_bytes: u64,
    /// Longest publication in bytes that is taken. 16 MiB.
    pub max_message_bytes: u64,
    /// Whether large publications may be left in the host's store for this subscriber, where the host has
    /// one and this process may read it. It has a handle of the store then. True.
    pub use_store: bool,
    /// What publishers do when this subscriber is slow.
    pub when_slow: WhenSlow,
    /// How this subscriber, and its publishers, wait.
    pub wait: WaitStrategy,
    /// How long the call that makes the subscriber waits for publishers that do not answer: 1 s. A
    /// publisher that is stopped is there when it goes on.
    pub join_timeout: Duration,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self {
            capacity_bytes: 256 << 10,
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            use_store: true,
            when_slow: WhenSlow::default(),
            wait: WaitStrategy::default(),
            join_timeout: Duration::from_secs(1),
        }
    }
}
