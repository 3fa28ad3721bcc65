//! Several messages of a slot ring that become visible at once.
//!
//! [`SlotProducer::batch`] makes one; the channel's own are built on the same [`SlotDraft`]. Messages
//! are written as they come; `commit` stores the counts, that of the first block, which is the only
//! one that the consumer can reach, last. What always holds: until then nothing is visible and no
//! count has changed, so a batch that is dropped, or forgotten, leaves nothing.

use super::SlotProducer;
use crate::memory::{Memory, Ordering};
use crate::ring::PushError;

/// Messages that [`commit`](Self::commit) makes visible together. At most as many as the ring holds.
#[derive(Debug)]
#[must_use = "a batch that is dropped commits nothing"]
pub struct SlotBatch<'a, M: Memory> {
    producer: &'a mut SlotProducer<M>,
    draft: SlotDraft,
}

impl<'a, M: Memory> SlotBatch<'a, M> {
    pub(super) fn new(producer: &'a mut SlotProducer<M>) -> Self {
        let draft = SlotDraft::new(producer);
        Self { producer, draft }
    }

    /// Appends one message.
    ///
    /// # Errors
    /// As [`SlotProducer::try_push`]; the messages before this one are kept and can be committed.
    ///
    /// # Panics
    /// As there.
    #[inline]
    pub fn push(&mut self, message: &[u8]) -> Result<(), PushError> {
        self.draft.push(self.producer, message)
    }

    /// Messages so far.
    pub fn len(&self) -> usize {
        self.draft.messages as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.draft.messages == 0
    }

    /// Makes all messages visible. Returns how many.
    pub fn commit(self) -> usize {
        self.draft.commit(self.producer)
    }

    /// Forgets the messages; the same as dropping.
    pub fn abort(self) {}
}

/// A batch without its producer, which must be the one that it was made for, with nothing pushed in
/// between.
#[derive(Debug)]
pub(crate) struct SlotDraft {
    /// The block of the first message.
    first: u64,
    /// Where the next one goes, and how many more fit for certain.
    block: u64,
    filled: u64,
    left: u64,
    pub(crate) messages: u64,
}

impl SlotDraft {
    pub(crate) fn new<M: Memory>(producer: &SlotProducer<M>) -> Self {
        let (block, filled, left) = producer.cursor();
        Self { first: block, block, filled, left, messages: 0 }
    }

    #[inline]
    pub(crate) fn push<M: Memory>(
        &mut self,
        producer: &mut SlotProducer<M>,
        message: &[u8],
    ) -> Result<(), PushError> {
        if self.left == 0 {
            self.left = producer.refresh(self.block, self.filled)?;
        }
        producer.write(self.block, self.filled, message);
        self.left -= 1;
        self.filled += 1;
        self.messages += 1;
        let geometry = producer.geometry();
        if self.filled == geometry.per_block {
            self.block = self.block.wrapping_add(geometry.block_bytes);
            self.filled = 0;
        }
        Ok(())
    }

    pub(crate) fn commit<M: Memory>(self, producer: &mut SlotProducer<M>) -> usize {
        if self.messages == 0 || producer.poisoned().is_some() {
            return 0;
        }
        let (memory, geometry) = (producer.memory(), *producer.geometry());
        let store = |block: u64, filled: u64, order| {
            memory.store_u64(geometry.block(block), block.wrapping_add(filled), order);
        };
        let (mut block, mut filled) = (self.block, self.filled);
        while block != self.first {
            if filled > 0 {
                // Ordered before the first block's by its Release.
                store(block, filled, Ordering::Relaxed);
            }
            block = block.wrapping_sub(geometry.block_bytes);
            filled = geometry.per_block;
        }
        // Pairs with the Acquire in SlotConsumer::peek and in SlotProducer::attach: everything above,
        // later counts included, is visible with it.
        store(block, filled, Ordering::Release);
        producer.committed(self.block, self.filled, self.left, self.messages);
        self.messages as usize
    }
}
