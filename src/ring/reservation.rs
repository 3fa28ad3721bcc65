//! A record that is being filled.
//!
//! [`Producer::try_reserve`] makes reservations; the channel's own are built on the same [`Draft`].
//! What always holds: nothing of a reservation is visible before `commit`, dropping it commits
//! nothing, and it is written through methods only: nobody gets a reference to memory that a peer
//! can touch.

use super::Producer;
use super::producer::Place;
use super::words::WordWriter;
use crate::layout::{WORD_BYTES, record};
use crate::memory::Memory;

/// Space for one record. Fill it with [`write`](Self::write), then [`commit`](Self::commit).
#[derive(Debug)]
#[must_use = "a reservation that is dropped commits nothing"]
pub struct Reservation<'a, M: Memory> {
    producer: &'a mut Producer<M>,
    draft: Draft,
}

impl<'a, M: Memory> Reservation<'a, M> {
    pub(super) fn new(producer: &'a mut Producer<M>, draft: Draft) -> Self {
        Self { producer, draft }
    }

    /// Bytes reserved.
    pub fn len(&self) -> usize {
        self.draft.len
    }

    /// Whether nothing was reserved but the record itself.
    pub fn is_empty(&self) -> bool {
        self.draft.len == 0
    }

    /// Bytes not yet filled.
    pub fn remaining(&self) -> usize {
        self.draft.remaining()
    }

    /// Appends as many of `bytes` as there is room for; returns how many.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        self.draft.write(self.producer, bytes)
    }

    /// Commits all reserved bytes; those not filled are zero.
    pub fn commit(mut self) {
        self.draft.fill(self.producer);
        self.draft.commit(self.producer);
    }

    /// Commits only what was filled; the record is as long as that.
    pub fn commit_filled(self) {
        self.draft.commit(self.producer);
    }

    /// Gives the space back; the same as dropping.
    pub fn abort(self) {}
}

/// A reservation without its producer, which must be the one that made it, with nothing pushed in
/// between.
#[derive(Debug)]
pub(crate) struct Draft {
    place: Place,
    writer: WordWriter,
    pub(crate) len: usize,
    filled: usize,
    pub(crate) tag: u16,
}

impl Draft {
    pub(super) fn new(place: Place, payload_offset: u64, len: usize, tag: u16) -> Self {
        Self { place, writer: WordWriter::new(payload_offset), len, filled: 0, tag }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.len - self.filled
    }

    pub(crate) fn write<M: Memory>(&mut self, producer: &Producer<M>, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.remaining());
        self.writer.write(producer.memory(), &bytes[..taken]);
        self.filled += taken;
        taken
    }

    /// Fills the rest with zeros.
    pub(crate) fn fill<M: Memory>(&mut self, producer: &Producer<M>) {
        const ZEROS: [u8; 256] = [0; 256];
        while self.remaining() > 0 {
            self.write(producer, &ZEROS);
        }
    }

    /// Commits what was filled.
    pub(crate) fn commit<M: Memory>(mut self, producer: &mut Producer<M>) {
        self.writer.finish(producer.memory());
        self.publish(producer);
    }

    fn publish<M: Memory>(mut self, producer: &mut Producer<M>) {
        let geometry = *producer.geometry();
        // A shorter record ends earlier, inside the reserved space.
        let size = geometry.record_bytes(self.filled as u64);
        self.place.end = self.place.record.wrapping_add(size);
        producer.zero_ahead(self.place.end);
        producer.publish(self.place, self.filled as u64, self.tag);
    }
}

/// A reservation that is written in place, by a trusted end. Small, so that handing it on costs
/// nothing; otherwise as [`Draft`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct InPlaceDraft {
    place: Place,
    pub(crate) len: usize,
}

impl InPlaceDraft {
    #[inline(always)]
    pub(super) fn new(place: Place, len: usize) -> Self {
        Self { place, len }
    }

    /// Offset of the payload.
    #[inline(always)]
    pub(crate) fn payload<M: Memory>(&self, producer: &Producer<M>) -> u64 {
        producer.geometry().offset(self.place.record) + record::HEADER_BYTES
    }

    /// Commits all reserved bytes. Clears what is left in the last word from earlier records; the
    /// word is read back, which a trusted peer allows.
    #[inline(always)]
    pub(crate) fn commit<M: Memory>(self, producer: &mut Producer<M>, tag: u16) {
        let rest = self.len % WORD_BYTES as usize;
        if rest != 0 {
            let last = self.payload(producer) + (self.len - rest) as u64;
            let mut bytes = [0; WORD_BYTES as usize];
            producer.memory().copy_out(last, &mut bytes[..rest]);
            producer.memory().copy_in(last, &bytes);
        }
        producer.publish(self.place, self.len as u64, tag);
    }
}
