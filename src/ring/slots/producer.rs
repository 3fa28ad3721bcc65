//! The writing end of a slot ring.
//!
//! One per ring at any time; its successor after a crash is another [`SlotProducer::attach`]. It owns
//! the write position privately, and publishes only counts (and `tail`, as a hint that nothing reads
//! back). What always holds: a count is stored only behind the messages that it commits, and only in
//! a block that the consumer has released.

use super::{SlotBatch, SlotGeometry};
use crate::error::Corruption;
use crate::layout::ring;
use crate::memory::{Memory, Ordering};
use crate::ring::producer::MESSAGES_BETWEEN_COUNTS;
use crate::ring::{ProducerStats, PushError};

/// The writing end.
#[derive(Debug)]
pub struct SlotProducer<M> {
    memory: M,
    geometry: SlotGeometry,
    /// The block that the next message goes into, and how many of its slots are committed; less than
    /// all. Never read from shared memory after `attach`.
    block: u64,
    filled: u64,
    /// The consumer's `head` when we last looked.
    head: u64,
    /// Slots that it leaves; 0 once poisoned, so that the one check on the hot path sees that too.
    left: u64,
    poison: Option<Corruption>,
    stats: ProducerStats,
    /// Messages as last published.
    counted: u64,
}

impl<M: Memory> SlotProducer<M> {
    /// Attaches the writing end: walks the committed slots from the published `head` to the first one
    /// that is not, continues there, and takes back what a former producer had prepared behind it.
    ///
    /// The caller sees to it that no other producer is alive.
    ///
    /// # Errors
    /// [`Corruption`] where `head` or the counts on the way are impossible.
    pub fn attach(memory: M, geometry: SlotGeometry) -> Result<Self, Corruption> {
        // Pairs with the Release in SlotConsumer::release: the slots before it are free.
        let head = memory.load_u64(geometry.control(ring::HEAD), Ordering::Acquire);
        let capacity_bytes = geometry.capacity_bytes;
        let too_far = Corruption::Walk { head, capacity_bytes };
        let Some((first, taken)) = geometry.split(head) else { return Err(too_far) };
        let end = first.wrapping_add(capacity_bytes);
        let (mut block, mut filled) = (first, 0);
        while block != end {
            // Pairs with the Release of a former producer's commit.
            let count = memory.load_u64(geometry.block(block), Ordering::Acquire);
            let committed = geometry.committed(block, count);
            filled = committed.ok_or_else(|| geometry.impossible(block, count))?;
            if block == first && filled < taken {
                return Err(too_far);
            }
            if filled < geometry.per_block {
                break;
            }
            filled = 0;
            block = block.wrapping_add(geometry.block_bytes);
        }
        let mut behind = block;
        while behind != end {
            behind = behind.wrapping_add(geometry.block_bytes);
            if behind == end {
                break;
            }
            // Relaxed: only a producer writes counts, and the former one is gone.
            let count = memory.load_u64(geometry.block(behind), Ordering::Relaxed);
            if geometry.committed(behind, count) != Some(0) {
                // Ordered before our first commit, by which the consumer can come here, by its
                // Release.
                memory.store_u64(geometry.block(behind), 0, Ordering::Relaxed);
            }
        }
        let stats = ProducerStats::load(&memory, |word| geometry.control(word));
        let counted = stats.messages;
        let mut producer =
            Self { memory, geometry, block, filled, head, left: 0, poison: None, stats, counted };
        producer.left = producer.left_from(block, filled);
        producer.store_count(ring::TAIL, producer.tail());
        Ok(producer)
    }

    /// Slots that the cached `head` leaves from here on.
    pub(super) fn left_from(&self, block: u64, filled: u64) -> u64 {
        let geometry = &self.geometry;
        // The index in `head` makes less than a block, and is rounded away below. Where `filled` is
        // not 0, the block at hand is among the free ones.
        let free = geometry.capacity_bytes.wrapping_sub(block.wrapping_sub(self.head));
        (free / geometry.block_bytes * geometry.per_block).wrapping_sub(filled)
    }

    /// Writes and commits one message if the cached `head` leaves room.
    ///
    /// # Panics
    /// Where it is not as long as a slot, as `[T]::copy_from_slice` does.
    #[inline(always)]
    pub(crate) fn push_simple(&mut self, message: &[u8]) -> bool {
        if self.left == 0 {
            return false;
        }
        self.write(self.block, self.filled, message);
        self.left -= 1;
        self.filled += 1;
        let count = self.block.wrapping_add(self.filled);
        // Pairs with the Acquire in SlotConsumer::peek and in SlotProducer::attach.
        self.memory.store_u64(self.geometry.block(self.block), count, Ordering::Release);
        self.stats.messages = self.stats.messages.wrapping_add(1);
        if self.filled == self.geometry.per_block {
            self.next_block();
        }
        true
    }

    #[inline(always)]
    pub(super) fn write(&self, block: u64, index: u64, message: &[u8]) {
        assert_eq!(message.len() as u64, self.geometry.slot_bytes, "message and slot differ");
        self.memory.copy_in(self.geometry.slot(block, index), message);
    }

    #[inline(always)]
    fn next_block(&mut self) {
        self.block = self.block.wrapping_add(self.geometry.block_bytes);
        self.filled = 0;
        if self.stats.messages.wrapping_sub(self.counted) >= MESSAGES_BETWEEN_COUNTS {
            self.publish_counts();
        }
    }

    /// Writes and commits one message.
    ///
    /// # Errors
    /// [`PushError::Full`] or [`PushError::Corrupt`]; nothing has been committed then.
    ///
    /// # Panics
    /// Where it is not as long as a slot, as `[T]::copy_from_slice` does.
    #[inline]
    pub fn try_push(&mut self, message: &[u8]) -> Result<(), PushError> {
        if self.push_simple(message) {
            return Ok(());
        }
        self.left = self.refresh(self.block, self.filled)?;
        self.push_simple(message);
        Ok(())
    }

    /// Starts a batch: messages that become visible together.
    pub fn batch(&mut self) -> SlotBatch<'_, M> {
        SlotBatch::new(self)
    }

    /// Looks at the consumer's `head`, because the cached one leaves no slot from here on. How many it
    /// leaves: at least one.
    #[cold]
    pub(super) fn refresh(&mut self, block: u64, filled: u64) -> Result<u64, PushError> {
        self.look_at_head()?;
        let left = self.left_from(block, filled);
        if left == 0 {
            self.stats.times_full = self.stats.times_full.wrapping_add(1);
            self.store_count(ring::PRODUCER_FULL, self.stats.times_full);
            // The block that is in the way must have been released to its end.
            let geometry = &self.geometry;
            let in_the_way = block.wrapping_sub(geometry.capacity_bytes);
            return Err(PushError::Full {
                head_needed: in_the_way.wrapping_add(geometry.block_bytes),
            });
        }
        Ok(left)
    }

    /// Reads `head` once, believes it only if it is a slot's, moved forward and not past our own
    /// position.
    fn look_at_head(&mut self) -> Result<(), Corruption> {
        if let Some(corruption) = self.poison {
            return Err(corruption);
        }
        // Pairs with the Release in SlotConsumer::release: its reads of the slots before are over.
        let found = self.memory.load_u64(self.geometry.control(ring::HEAD), Ordering::Acquire);
        let tail = self.tail();
        let moved = found.wrapping_sub(self.head);
        if moved > tail.wrapping_sub(self.head) || self.geometry.split(found).is_none() {
            let corruption = Corruption::Head { found, known: self.head, tail };
            self.poison(corruption);
            return Err(corruption);
        }
        let used = tail.wrapping_sub(found);
        if used > self.stats.high_water_bytes {
            self.stats.high_water_bytes = used;
            self.store_count(ring::PRODUCER_HIGH_WATER, used);
        }
        self.head = found;
        Ok(())
    }

    /// Whether the consumer has released everything before `head_needed`
    /// (see [`PushError::Full`]).
    ///
    /// # Errors
    /// [`Corruption`] where `head` is impossible.
    #[inline]
    pub fn has_room(&mut self, head_needed: u64) -> Result<bool, Corruption> {
        self.look_at_head()?;
        Ok(self.head.wrapping_sub(head_needed) <= self.geometry.capacity_bytes)
    }

    /// Moves the private position over messages that a batch has made visible.
    pub(super) fn committed(&mut self, block: u64, filled: u64, left: u64, messages: u64) {
        (self.block, self.filled, self.left) = (block, filled, left);
        self.stats.messages = self.stats.messages.wrapping_add(messages);
        self.publish_counts();
    }

    /// Shows tools how far this end is.
    pub(crate) fn publish_counts(&mut self) {
        let new = self.stats.messages.wrapping_sub(self.counted);
        let bytes = new.wrapping_mul(self.geometry.slot_bytes);
        self.stats.bytes = self.stats.bytes.wrapping_add(bytes);
        self.counted = self.stats.messages;
        self.store_count(ring::TAIL, self.tail());
        self.store_count(ring::PRODUCER_MESSAGES, self.stats.messages);
        self.store_count(ring::PRODUCER_BYTES, self.stats.bytes);
    }

    #[inline]
    fn store_count(&self, word: u64, value: u64) {
        self.memory.store_u64(self.geometry.control(word), value, Ordering::Relaxed);
    }

    /// Latches a finding: every later call returns it.
    pub fn poison(&mut self, corruption: Corruption) {
        self.poison.get_or_insert(corruption);
        self.left = 0;
    }

    /// The finding that poisoned this end, if any.
    pub fn poisoned(&self) -> Option<Corruption> {
        self.poison
    }

    /// What this end has counted, on from what stood in the ring when it was attached: a peer can
    /// have written anything there. Bytes lag by some messages.
    pub fn stats(&self) -> ProducerStats {
        self.stats
    }

    /// Counts the sleeps of a wait, and the announcements that the other side did not see.
    pub(crate) fn count_parked(&mut self, [sleeps, missed]: [u32; 2]) {
        if sleeps == 0 {
            return;
        }
        self.publish_counts();
        self.stats.sleeps = self.stats.sleeps.wrapping_add(sleeps.into());
        self.store_count(ring::PRODUCER_SLEEPS, self.stats.sleeps);
        self.stats.missed = self.stats.missed.wrapping_add(missed.into());
        self.store_count(ring::PRODUCER_MISSED, self.stats.missed);
    }

    pub(crate) fn count_wakeup(&mut self) {
        self.publish_counts();
        self.stats.wakeups_sent = self.stats.wakeups_sent.wrapping_add(1);
        self.store_count(ring::PRODUCER_WAKEUPS, self.stats.wakeups_sent);
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

    /// This end's position: behind the last message that it committed.
    #[inline]
    pub fn tail(&self) -> u64 {
        self.block.wrapping_add(self.filled)
    }

    /// Where the next message goes, and how many fit for certain.
    pub(super) fn cursor(&self) -> (u64, u64, u64) {
        (self.block, self.filled, self.left)
    }
}
