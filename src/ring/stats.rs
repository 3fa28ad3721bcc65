//! What producers count.
//!
//! The producers of rings of records and of slots keep one each and publish it in the ring's control
//! block. What always holds: the counts decide nothing, since a peer can write over those in the ring.

use crate::layout::ring;
use crate::memory::{Memory, Ordering};

/// What a producer has counted. Published in the ring for tools to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProducerStats {
    /// Messages committed.
    pub messages: u64,
    /// Payload bytes committed.
    pub bytes: u64,
    /// Times the ring had no room.
    pub times_full: u64,
    /// Most bytes seen in the ring, sampled whenever the producer looked at `head`.
    pub high_water_bytes: u64,
    /// Times this end went to sleep.
    pub sleeps: u64,
    /// Wakeups sent to the consumer.
    pub wakeups_sent: u64,
    /// Messages that were not sent because the ring had no room and the sender's policy was to drop
    /// them: [`SendPolicy::DropNewest`](crate::channel::SendPolicy::DropNewest).
    pub dropped: u64,
    /// Sleeps that ran out while there was news: the other side had not seen that this one sleeps.
    pub missed: u64,
}

impl ProducerStats {
    /// What a former producer has published; `control` gives the offsets of control words.
    pub(super) fn load<M: Memory>(memory: &M, control: impl Fn(u64) -> u64) -> Self {
        // Relaxed: nothing is read that belongs to them.
        let count = |word| memory.load_u64(control(word), Ordering::Relaxed);
        Self {
            messages: count(ring::PRODUCER_MESSAGES),
            bytes: count(ring::PRODUCER_BYTES),
            times_full: count(ring::PRODUCER_FULL),
            high_water_bytes: count(ring::PRODUCER_HIGH_WATER),
            sleeps: count(ring::PRODUCER_SLEEPS),
            wakeups_sent: count(ring::PRODUCER_WAKEUPS),
            dropped: count(ring::PRODUCER_DROPPED),
            missed: count(ring::PRODUCER_MISSED),
        }
    }
}
