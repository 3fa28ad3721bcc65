//! Several records that become visible at once.
//!
//! [`Producer::batch`] makes one; the channel's own are built on the same [`Draft`]. All headers but
//! the first are stored as the records are written; the first, which is the only one that the
//! consumer can reach, is stored by `commit`. What always holds: until then nothing is visible, and
//! a batch that is dropped, or whose process dies, leaves nothing.

use super::producer::padding_header;
use super::{Producer, PushError};
use crate::layout::record;
use crate::memory::{Memory, Ordering};

/// Records that [`commit`](Self::commit) makes visible together. At most the capacity less 8 bytes.
#[derive(Debug)]
#[must_use = "a batch that is dropped commits nothing"]
pub struct Batch<'a, M: Memory> {
    producer: &'a mut Producer<M>,
    draft: BatchDraft,
}

impl<'a, M: Memory> Batch<'a, M> {
    pub(super) fn new(producer: &'a mut Producer<M>) -> Self {
        let draft = BatchDraft::new(producer);
        Self { producer, draft }
    }

    /// Appends one record.
    ///
    /// # Errors
    /// [`PushError`]; the records before this one are kept and can be committed.
    #[inline]
    pub fn push(&mut self, tag: u16, payload: &[u8]) -> Result<(), PushError> {
        self.draft.push(self.producer, tag, payload)
    }

    /// Records so far.
    pub fn len(&self) -> usize {
        self.draft.messages as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.draft.messages == 0
    }

    /// Makes all records visible. Returns how many.
    pub fn commit(self) -> usize {
        self.draft.commit(self.producer)
    }

    /// Forgets the records; the same as dropping.
    pub fn abort(self) {}
}

/// A batch without its producer, which must be the one that it was made for, with nothing pushed in
/// between.
#[derive(Debug)]
pub(crate) struct BatchDraft {
    /// Where the first record starts.
    start: u64,
    /// Where the next record goes.
    next: u64,
    /// The header that is stored last.
    first: Option<u64>,
    pub(crate) messages: u64,
    bytes: u64,
}

impl BatchDraft {
    pub(crate) fn new<M: Memory>(producer: &Producer<M>) -> Self {
        let start = producer.tail();
        Self { start, next: start, first: None, messages: 0, bytes: 0 }
    }

    #[inline]
    pub(crate) fn push<M: Memory>(
        &mut self,
        producer: &mut Producer<M>,
        tag: u16,
        payload: &[u8],
    ) -> Result<(), PushError> {
        let place = producer.place(self.next, payload.len() as u64)?;
        let (memory, geometry) = (producer.memory(), producer.geometry());
        producer.fill(geometry.offset(place.record), payload);
        // Relaxed: ordered before the first header by its Release.
        let store = |position, header| {
            memory.store_u64(geometry.offset(position), header, Ordering::Relaxed);
        };
        let mut header = record::pack(payload.len() as u32, record::DATA, tag);
        if place.start != place.record {
            store(place.record, header);
            header = padding_header(place);
        }
        match self.first {
            None => self.first = Some(header),
            Some(_) => store(place.start, header),
        }
        self.next = place.end;
        self.messages += 1;
        self.bytes += payload.len() as u64;
        Ok(())
    }

    pub(crate) fn commit<M: Memory>(self, producer: &mut Producer<M>) -> usize {
        if let Some(first) = self.first {
            producer.zero_ahead(self.next);
            let start = producer.geometry().offset(self.start);
            // Pairs with the Acquire in Consumer::peek and in Producer::attach: everything above,
            // later headers included, is visible with it.
            producer.memory().store_u64(start, first, Ordering::Release);
            producer.committed(self.next, self.messages, self.bytes);
        }
        self.messages as usize
    }
}
