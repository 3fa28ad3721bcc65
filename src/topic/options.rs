//! What can be chosen about publishing and subscribing.
//!
//! Callers fill these in.
//!
//! Invariants: a subscriber's choice costs its publishers no more than they allow. No default makes a
//! publisher wait for a subscriber.

use std::time::Duration;

use crate::segment::DEFAULT_MAX_MESSAGE_BYTES;
use crate::wakeup::WaitStrategy;

/// Bytes of a queue where nobody says otherwise.
const DEFAULT_QUEUE_BYTES: u64 = 1 << 20;

/// What a publisher does with a publication for which a subscriber's ring has no room. The subscriber
/// chooses, its publishers set limits. Other subscribers get the publication in any case.
///
/// The default never makes a publisher wait: it is `DropOldest` with a queue of 1 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackpressurePolicy {
    /// Waits up to this long, and no longer than [`PublishOptions::max_block`]. Then drops the
    /// publication for this subscriber and counts it. Several slow subscribers share the time. After a
    /// timeout the publisher does not wait for this subscriber again until its ring has had room once, or
    /// is empty.
    Block(Duration),
    /// Does not wait: drops the publication for this subscriber and counts it.
    DropNewest,
    /// Does not wait: keeps the publication in the publisher's memory until the ring has room. Where
    /// `queue_bytes` are used up, drops the oldest publication of the queue and counts it. What is in the
    /// ring already stays: a subscriber that wants the newest chooses a small ring. The queue is lost
    /// when the publisher's process dies.
    DropOldest {
        /// Bytes that the queue may use, at most [`PublishOptions::max_queue_bytes`]. Each publication
        /// in it counts with its length and 128 bytes. The queue keeps the newest publication in any
        /// case.
        queue_bytes: u64,
    },
    /// Does not wait: drops the subscriber, which gets what is in its ring, and then
    /// [`Departure::CutOff`](super::Departure::CutOff).
    Disconnect,
}

impl Default for BackpressurePolicy {
    fn default() -> Self {
        Self::DropOldest { queue_bytes: DEFAULT_QUEUE_BYTES }
    }
}

/// Choices about a publisher. All have defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishOptions {
    /// How long one publication waits for slow subscribers, all of them together, and for other writers
    /// of the store, which have half of it at most. 1 s.
    pub max_block: Duration,
    /// How many bytes the queue of one slow subscriber may use in this process. 1 MiB. Each publication
    /// in it counts with its length and 128 bytes.
    pub max_queue_bytes: u64,
    /// Publications of this many bytes and more are written once for all subscribers, into the host's
    /// [store for them](crate::host::HostBuilder::payload_store), where there is one that this process
    /// may write. Default `None`: all travel in the rings.
    pub store_from_bytes: Option<u64>,
    /// How many bytes of this publisher's publications may lie in that store, each counted with its
    /// length and 256 bytes. A new one that would exceed them removes the oldest: a subscriber that has
    /// not read it gets [`Expired`](super::TopicRecvError::Expired). 16 MiB.
    pub store_budget_bytes: u64,
    /// How long the call that makes the publisher waits for subscribers that do not answer. 1 s.
    pub join_timeout: Duration,
}

impl Default for PublishOptions {
    fn default() -> Self {
        Self {
            max_block: Duration::from_secs(1),
            max_queue_bytes: DEFAULT_QUEUE_BYTES,
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
    /// ([`BackpressurePolicy::Block`], [`BackpressurePolicy::DropOldest`]); others count them as too long.
    pub capacity_bytes: u64,
    /// Longest publication in bytes that is taken. 16 MiB.
    pub max_message_bytes: u64,
    /// Whether large publications may lie in the host's
    /// [store for them](crate::host::HostBuilder::payload_store) for this subscriber, where there is one
    /// that this process may read. The subscriber then has a handle of that store. Default true.
    pub use_store: bool,
    /// What publishers do when this subscriber is slow.
    pub backpressure: BackpressurePolicy,
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
            backpressure: BackpressurePolicy::default(),
            wait: WaitStrategy::default(),
            join_timeout: Duration::from_secs(1),
        }
    }
}
