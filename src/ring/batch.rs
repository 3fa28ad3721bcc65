//! Several records that become visible at once.
//!
//! [`Producer::batch`] makes one. All headers but the first are stored as the records are written;
//! the first, which is the only one that the consumer can reach, is stored by `commit`.
//! What always holds: until then nothing is visible, and a batch that is dropped, or whose process
//! dies, leaves nothing.

use super::producer::{Place, padding_header};
use super::{Producer, PushError};
use crate::layout::record;
use crate::memory::{Memory, Ordering};

/// Records that [`commit`](Self::commit) makes visible together. At most the capacity less 8 bytes.
#[derive(Debug)]
#[must_use = "a batch that is dropped commits nothing"]
pub struct Batch<'a, M: Memory> {
    producer: &'a mut Producer<M>,
    /// Where the next record goes.
    next: u64,
    /// The header that is stored last.
    first: Option<u64>,
    messages: u64,
    bytes: u64,
}

impl<'a, M: Memory> Batch<'a, M> {
    pub(super) fn new(producer: &'a mut Producer<M>) -> Self {
        let next = producer.tail();
        Self { producer, next, first: None, messages: 0, bytes: 0 }
    }

    /// Appends one record.
    ///
    /// # Errors
    /// [`PushError`]; the records before this one are kept and can be committed.
    #[inline]
    pub fn push(&mut self, tag: u16, payload: &[u8]) -> Result<(), PushError> {
        let place = self.producer.place(self.next, payload.len() as u64)?;
        let (memory, geometry) = (self.producer.memory(), self.producer.geometry());
        memory.copy_in(geometry.offset(place.record) + record::HEADER_BYTES, payload);
        let header = record::pack(payload.len() as u32, record::DATA, tag);
        let start = if place.start == place.record {
            header
        } else {
            self.store(place.record, header);
            padding_header(place)
        };
        match self.first {
            None => self.first = Some(start),
            Some(_) => self.store(place.start, start),
        }
        self.accept(place, payload.len() as u64);
        Ok(())
    }

    /// Records so far.
    pub fn len(&self) -> usize {
        self.messages as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Makes all records visible. Returns how many.
    pub fn commit(self) -> usize {
        if let Some(first) = self.first {
            // The zero behind the last record, where the next header will be.
            self.store(self.next, 0);
            let start = self.producer.geometry().offset(self.producer.tail());
            // Pairs with the Acquire in Consumer::peek and in Producer::attach: everything above,
            // later headers included, is visible with it.
            self.producer.memory().store_u64(start, first, Ordering::Release);
            self.producer.committed(self.next, self.messages, self.bytes);
        }
        self.messages as usize
    }

    /// Forgets the records; the same as dropping.
    pub fn abort(self) {}

    #[inline]
    fn accept(&mut self, place: Place, len: u64) {
        self.next = place.end;
        self.messages += 1;
        self.bytes += len;
    }

    /// Ordered before the first header by its Release.
    #[inline]
    fn store(&self, position: u64, header: u64) {
        let offset = self.producer.geometry().offset(position);
        self.producer.memory().store_u64(offset, header, Ordering::Relaxed);
    }
}
