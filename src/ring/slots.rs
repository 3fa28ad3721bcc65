//! The slot ring: messages of one length, as many to a cache line as fit.
//!
//! [`SlotChannel`](crate::channel::SlotChannel) runs over two of them, and so do the fuzzers and the
//! models; like the ring of records it never blocks, allocates nothing, and knows nothing of
//! processes. What always holds: whatever the peer writes, an end stays inside its memory, comes back
//! in bounded time, and hands out only bytes that it has copied (or says
//! [`Corruption`] and never touches the ring again).
//!
//! # Protocol
//!
//! The buffer is divided into *blocks*: a cache line, or where a message is longer than 56 bytes a
//! power of two of lines. A block is one word, the *count*, and behind it as many slots as fit: seven
//! of 8 bytes, three of 16, one of 56.
//!
//! ```text
//!   0        8         16                            64
//!   +--------+---------+---------+-- ... --+---------+
//!   | count  | slot 0  | slot 1  |         | slot 6  |     slots of 8 bytes
//!   +--------+---------+---------+-- ... --+---------+
//! ```
//!
//! A *position* is that of a block, which counts bytes, only grows and wraps at 2^64, plus the index
//! of a slot in it: so positions compare like numbers. The count of the block at position `p` is
//! `p + n` once its first `n` slots are committed. Until the first is, it is what the lap before left
//! there, `p - capacity` plus as many as fit, or zero: so nothing has to be cleared ahead.
//!
//! **To send**, the producer writes the message into the next slot and then stores the count with
//! Release. Message and news travel in one line, and a consumer that comes late learns of a whole line
//! at once. A producer killed between the two leaves nothing visible.
//!
//! **To begin a block**, the whole block of the lap before must have been released: storing the new
//! count takes the old one away, by which a consumer's successor knows what is committed.
//!
//! **Batches** write their messages first, then the counts of all blocks but the first, and the first
//! one last. A producer that dies on the way leaves counts in blocks that nobody can reach yet; its
//! successor clears them before it commits anything.
//!
//! **Release of space** is lazy: the consumer stores `head` when [`RELEASE_BYTES`] of blocks are done
//! with, or an eighth of the ring, or when it finds no further message. So at most
//! [`SlotGeometry::max_unreleased`] messages, and the one that it was working on, come again to the
//! successor of a consumer that dies: at-least-once.
//!
//! # Ordering pairs
//!
//! | store (Release) | load (Acquire) | what it carries |
//! |---|---|---|
//! | count, in [`SlotProducer`] and [`SlotBatch`] | count, in [`SlotConsumer::peek`] and [`SlotProducer::attach`] | messages; later counts of a batch; that stale counts were cleared |
//! | `head`, in [`SlotConsumer::release`] | `head`, in the producer's refresh, and in both `attach` | the consumer's reads of the slots are over |

//! # What it gains
//!
//! `cargo bench --bench slots` measures it beside the ring of records and the peers. One run, median of
//! 7, on a machine that others were using, so that only ratios within a column mean anything:
//!
//! | | one way, 4 MiB, 8 B | 24 B | round trip, 8 B | 24 B |
//! |---|---|---|---|---|
//! | rigtorp's algorithm | 212 M/s | 78 | | |
//! | rtrb over bytes (threads) | 100 | 62 | 209 ns | 214 |
//! | records | 80 | 68 | 126 (1.04 × line) | 146 (1.20) |
//! | slots | 118 | 88 | 111 (0.91) | 120 (1.00) |
//!
//! So it is worth its own kind of ring, and does not reach 1.5 times rigtorp's algorithm one way: there the
//! consumer learns of many lines from one word, and here it must fetch each line to learn of it. Asking
//! for lines further on with a prefetch, and longer or shorter pauses of a receiver that has caught up,
//! made no difference that could be told from noise.

mod batch;
mod consumer;
mod producer;

pub use batch::SlotBatch;
pub(crate) use batch::SlotDraft;
pub use consumer::SlotConsumer;
pub use producer::SlotProducer;

use crate::error::{Corruption, SegmentError};
use crate::layout::{
    CACHE_LINE_BYTES, MAX_CAPACITY_BYTES, MIN_CAPACITY_BYTES, WORD_BYTES, ring::CONTROL_BYTES,
};
use crate::memory::Memory;

/// A consumer gives room back when it has done with so many bytes of blocks.
pub const RELEASE_BYTES: u64 = 512;

/// Where a slot ring lies in its memory, how large it is, how it is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotGeometry {
    control: u64,
    data: u64,
    capacity_bytes: u64,
    slot_bytes: u64,
    /// From one slot to the next.
    stride_bytes: u64,
    block_bytes: u64,
    per_block: u64,
}

impl SlotGeometry {
    /// A ring whose control block starts at `control` and whose data, `capacity_bytes` long, at
    /// `data` (both multiples of 64), for messages of `slot_bytes`.
    ///
    /// # Errors
    /// [`SegmentError::Capacity`] unless the capacity is a power of two in range;
    /// [`SegmentError::SlotBytes`] unless there is a slot of at least a byte and at most half the
    /// capacity; [`SegmentError::TooSmall`] where the memory ends before the ring does.
    pub fn new(
        memory: &impl Memory,
        control: u64,
        data: u64,
        capacity_bytes: u64,
        slot_bytes: u32,
    ) -> Result<Self, SegmentError> {
        let (min, max) = (MIN_CAPACITY_BYTES, MAX_CAPACITY_BYTES);
        if !capacity_bytes.is_power_of_two() || !(min..=max).contains(&capacity_bytes) {
            return Err(SegmentError::Capacity { found: capacity_bytes, min, max });
        }
        if slot_bytes == 0 || u64::from(slot_bytes) > capacity_bytes / 2 {
            return Err(SegmentError::SlotBytes { found: slot_bytes, max: capacity_bytes / 2 });
        }
        let needed = control.saturating_add(CONTROL_BYTES).max(data.saturating_add(capacity_bytes));
        if needed > memory.len_bytes() {
            return Err(SegmentError::TooSmall { found: memory.len_bytes(), needed });
        }
        assert!(control.is_multiple_of(64) && data.is_multiple_of(64), "regions start on a line");
        let slot_bytes = u64::from(slot_bytes);
        let stride_bytes = slot_bytes.next_multiple_of(WORD_BYTES);
        // At most twice half the capacity, since that is a power of two too.
        let block_bytes = (stride_bytes + WORD_BYTES).next_power_of_two().max(CACHE_LINE_BYTES);
        let per_block = (block_bytes - WORD_BYTES) / stride_bytes;
        Ok(Self { control, data, capacity_bytes, slot_bytes, stride_bytes, block_bytes, per_block })
    }

    /// Capacity in bytes.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// Bytes of a message.
    pub fn slot_bytes(&self) -> usize {
        self.slot_bytes as usize
    }

    /// Messages that the ring holds.
    pub fn capacity_messages(&self) -> u64 {
        self.capacity_bytes / self.block_bytes * self.per_block
    }

    /// Messages that a consumer may have done with and not released, at most.
    pub fn max_unreleased(&self) -> u64 {
        (self.release_bytes() / self.block_bytes + 1) * self.per_block - 1
    }

    /// See [`RELEASE_BYTES`].
    fn release_bytes(&self) -> u64 {
        RELEASE_BYTES.min(self.capacity_bytes / 8)
    }

    /// Offset of a control word.
    #[inline]
    pub(crate) fn control(&self, word: u64) -> u64 {
        self.control + word
    }

    /// Offset of the block at this position.
    #[inline(always)]
    fn block(&self, block: u64) -> u64 {
        self.data + (block & (self.capacity_bytes - 1))
    }

    /// Offset of a slot.
    #[inline(always)]
    fn slot(&self, block: u64, index: u64) -> u64 {
        self.block(block) + WORD_BYTES + index * self.stride_bytes
    }

    /// Block and index of a position, where it is that of a slot.
    fn split(&self, position: u64) -> Option<(u64, u64)> {
        let index = position & (self.block_bytes - 1);
        (index < self.per_block).then_some((position - index, index))
    }

    /// How many slots of a block are committed by its count; `None` where no producer writes such a
    /// count there.
    fn committed(&self, block: u64, count: u64) -> Option<u64> {
        let committed = count.wrapping_sub(block);
        let before = block.wrapping_sub(self.capacity_bytes).wrapping_add(self.per_block);
        match count {
            _ if (1..=self.per_block).contains(&committed) => Some(committed),
            0 => Some(0),
            _ if count == before => Some(0),
            _ => None,
        }
    }

    #[cold]
    fn impossible(&self, position: u64, count: u64) -> Corruption {
        Corruption::Record { header: count, position, capacity_bytes: self.capacity_bytes }
    }
}
