//! The reading end of a slot ring.
//!
//! One per ring at any time; its successor after a crash is another [`SlotConsumer::attach`], which
//! starts at the published `head`. It owns its read position privately. What always holds: a count is
//! read once and checked before anything follows from it, and messages are copied out before anybody
//! looks at them.

use super::SlotGeometry;
use crate::error::Corruption;
use crate::layout::ring;
use crate::memory::{Memory, Ordering};
use crate::ring::ConsumerStats;
use crate::ring::producer::MESSAGES_BETWEEN_COUNTS;

/// The reading end.
#[derive(Debug)]
pub struct SlotConsumer<M> {
    memory: M,
    geometry: SlotGeometry,
    /// The next message: its block and its index there. Never read from shared memory after
    /// `attach`.
    block: u64,
    index: u64,
    /// Slots of the block that are known to be committed; 0 once poisoned.
    committed: u64,
    /// Slots of a block; 0 once poisoned, so that the checks on the hot path see that too.
    per_block: u64,
    /// What `head` says.
    released: u64,
    poison: Option<Corruption>,
    stats: ConsumerStats,
    /// Messages as last published.
    counted: u64,
}

impl<M: Memory> SlotConsumer<M> {
    /// Attaches the reading end at the published `head`. Messages that a former consumer had read but
    /// not released are delivered again.
    ///
    /// The caller sees to it that no other consumer is alive.
    ///
    /// # Errors
    /// [`Corruption`] where `head` is impossible.
    pub fn attach(memory: M, geometry: SlotGeometry) -> Result<Self, Corruption> {
        // Pairs with the Release in a former consumer's `release`.
        let head = memory.load_u64(geometry.control(ring::HEAD), Ordering::Acquire);
        let Some((block, index)) = geometry.split(head) else {
            return Err(Corruption::Head { found: head, known: head, tail: head });
        };
        let count = |word| memory.load_u64(geometry.control(word), Ordering::Relaxed);
        let stats = ConsumerStats {
            messages: count(ring::CONSUMER_MESSAGES),
            bytes: count(ring::CONSUMER_BYTES),
            sleeps: count(ring::CONSUMER_SLEEPS),
            wakeups_sent: count(ring::CONSUMER_WAKEUPS),
            missed: count(ring::CONSUMER_MISSED),
            ..ConsumerStats::default()
        };
        let (per_block, counted) = (geometry.per_block, stats.messages);
        // As many as were taken are committed; whether more are is to be seen.
        let (committed, released) = (index, head);
        Ok(Self {
            memory,
            geometry,
            block,
            index,
            committed,
            per_block,
            released,
            poison: None,
            stats,
            counted,
        })
    }

    /// Whether there is a message. Does not take it: call [`copy_out`](Self::copy_out) and
    /// [`advance`](Self::advance) for that.
    ///
    /// # Errors
    /// [`Corruption`] where the producer wrote something impossible; it latches.
    #[inline]
    pub fn peek(&mut self) -> Result<bool, Corruption> {
        if self.peek_simple() {
            return Ok(true);
        }
        self.peek_other()
    }

    /// Whether there is a message for certain. Where not, [`peek`](Self::peek) must be asked.
    #[inline(always)]
    pub(crate) fn peek_simple(&mut self) -> bool {
        if self.index < self.committed {
            return true;
        }
        let committed = self.count(Ordering::Acquire).wrapping_sub(self.block);
        let more = committed > self.index && committed <= self.per_block;
        if more {
            self.committed = committed;
        }
        more
    }

    /// [`peek_simple`](Self::peek_simple), again and again.
    #[inline]
    pub(crate) fn poll_simple(&mut self, polls: u32) -> bool {
        for _ in 0..polls {
            if self.peek_simple() {
                return true;
            }
            self.memory.stop_speculation();
        }
        false
    }

    /// Acquire pairs with the Release of the producer's commit: the messages are visible.
    #[inline(always)]
    fn count(&self, order: Ordering) -> u64 {
        self.memory.load_u64(self.geometry.block(self.block), order)
    }

    /// The rest of `peek`: nothing there, and all that can be wrong. Reads the count once more, since
    /// it may have been written in between, and believes only that.
    #[inline(never)]
    fn peek_other(&mut self) -> Result<bool, Corruption> {
        if let Some(corruption) = self.poison {
            return Err(corruption);
        }
        let count = self.count(Ordering::Acquire);
        match self.geometry.committed(self.block, count) {
            Some(committed) if committed >= self.index => {
                self.committed = committed;
                Ok(committed > self.index)
            }
            // What was committed is so for good.
            _ => Err(self.poison(self.geometry.impossible(self.position(), count))),
        }
    }

    /// Whether [`peek`](Self::peek) would say anything but "nothing yet".
    #[inline(always)]
    pub(crate) fn has_something(&self) -> bool {
        // Relaxed: only `peek` acts upon what is there.
        self.index < self.committed
            || self.poison.is_some()
            || self.geometry.committed(self.block, self.count(Ordering::Relaxed))
                != Some(self.index)
    }

    /// Copies the message that `peek` has found.
    ///
    /// # Panics
    /// Where `bytes` is not as long as a slot, as `[T]::copy_from_slice` does.
    #[inline(always)]
    pub fn copy_out(&self, bytes: &mut [u8]) {
        assert_eq!(bytes.len() as u64, self.geometry.slot_bytes, "buffer and slot differ");
        self.memory.copy_out(self.geometry.slot(self.block, self.index), bytes);
    }

    /// Takes the message that `peek` has found. Its room goes back at the next
    /// [`release`](Self::release).
    #[inline(always)]
    pub fn advance(&mut self) {
        debug_assert!(self.index < self.committed, "a message was found");
        self.index += 1;
        self.stats.messages = self.stats.messages.wrapping_add(1);
        if self.index == self.geometry.per_block {
            self.block = self.block.wrapping_add(self.geometry.block_bytes);
            self.index = 0;
            self.committed = 0;
        }
    }

    /// Whether so much has been taken that it is time to release it.
    #[inline(always)]
    pub(crate) fn is_due(&self) -> bool {
        self.index == 0 && self.held_bytes() >= self.geometry.release_bytes()
    }

    /// Gives the room of all taken messages back to the producer. Returns whether there was any.
    #[inline]
    pub fn release(&mut self) -> bool {
        let position = self.position();
        if self.released == position {
            return false;
        }
        self.released = position;
        // Pairs with the Acquire in the producer's refresh: our copies are complete.
        self.memory.store_u64(self.geometry.control(ring::HEAD), position, Ordering::Release);
        if self.stats.messages.wrapping_sub(self.counted) >= MESSAGES_BETWEEN_COUNTS {
            self.publish_counts();
        }
        true
    }

    /// Shows tools how far this end is.
    pub(crate) fn publish_counts(&mut self) {
        let new = self.stats.messages.wrapping_sub(self.counted);
        let bytes = new.wrapping_mul(self.geometry.slot_bytes);
        self.stats.bytes = self.stats.bytes.wrapping_add(bytes);
        self.counted = self.stats.messages;
        self.store_count(ring::CONSUMER_MESSAGES, self.stats.messages);
        self.store_count(ring::CONSUMER_BYTES, self.stats.bytes);
    }

    #[inline]
    fn store_count(&self, word: u64, value: u64) {
        self.memory.store_u64(self.geometry.control(word), value, Ordering::Relaxed);
    }

    /// Position of the next message.
    #[inline(always)]
    pub fn position(&self) -> u64 {
        self.block.wrapping_add(self.index)
    }

    /// Bytes of the ring that were taken and not yet released.
    #[inline(always)]
    fn held_bytes(&self) -> u64 {
        self.position().wrapping_sub(self.released)
    }

    /// Whether the producer, if it waits, has what it waits for.
    #[inline]
    pub(crate) fn has_released(&self, head_needed: u64) -> bool {
        self.released.wrapping_sub(head_needed) <= self.geometry.capacity_bytes
    }

    /// Latches a finding: every later call returns it. Returns the first one.
    #[cold]
    pub fn poison(&mut self, corruption: Corruption) -> Corruption {
        self.committed = 0;
        self.per_block = 0;
        *self.poison.get_or_insert(corruption)
    }

    /// The finding that poisoned this end, if any.
    pub fn poisoned(&self) -> Option<Corruption> {
        self.poison
    }

    /// What this end has counted, on from what stood in the ring when it was attached: a peer can
    /// have written anything there. Bytes lag by some messages.
    pub fn stats(&self) -> ConsumerStats {
        self.stats
    }

    /// Counts the sleeps of a wait, and the announcements that the other side did not see.
    pub(crate) fn count_parked(&mut self, [sleeps, missed]: [u32; 2]) {
        if sleeps | missed == 0 {
            return;
        }
        self.stats.sleeps = self.stats.sleeps.wrapping_add(sleeps.into());
        self.store_count(ring::CONSUMER_SLEEPS, self.stats.sleeps);
        self.stats.missed = self.stats.missed.wrapping_add(missed.into());
        self.store_count(ring::CONSUMER_MISSED, self.stats.missed);
    }

    pub(crate) fn count_wakeup(&mut self) {
        self.stats.wakeups_sent = self.stats.wakeups_sent.wrapping_add(1);
        self.store_count(ring::CONSUMER_WAKEUPS, self.stats.wakeups_sent);
    }

    /// The ring's measures.
    #[inline]
    pub fn geometry(&self) -> &SlotGeometry {
        &self.geometry
    }

    /// The memory that the ring lies in.
    #[inline]
    pub fn memory(&self) -> &M {
        &self.memory
    }
}
