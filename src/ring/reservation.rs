//! A record that is being filled, and the writer that fills payloads in whole words.
//!
//! [`Producer::try_reserve`] makes reservations. What always holds: nothing of a reservation is
//! visible before `commit`, dropping it commits nothing, and it is written through methods only:
//! nobody gets a reference to memory that a peer can touch.

use super::Producer;
use super::producer::Place;
use crate::layout::{WORD_BYTES, record};
use crate::memory::{Memory, Ordering};

/// Space for one record. Fill it with [`write`](Self::write), then [`commit`](Self::commit).
#[derive(Debug)]
#[must_use = "a reservation that is dropped commits nothing"]
pub struct Reservation<'a, M: Memory> {
    producer: &'a mut Producer<M>,
    place: Place,
    writer: WordWriter,
    len: usize,
    filled: usize,
    tag: u16,
}

impl<'a, M: Memory> Reservation<'a, M> {
    pub(super) fn new(producer: &'a mut Producer<M>, place: Place, len: usize, tag: u16) -> Self {
        let payload = producer.geometry().offset(place.record) + record::HEADER_BYTES;
        Self { producer, place, writer: WordWriter::new(payload), len, filled: 0, tag }
    }

    /// Bytes reserved.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was reserved but the record itself.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes not yet filled.
    pub fn remaining(&self) -> usize {
        self.len - self.filled
    }

    /// Changes the tag.
    pub fn set_tag(&mut self, tag: u16) {
        self.tag = tag;
    }

    /// Appends as many of `bytes` as there is room for; returns how many.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.remaining());
        self.writer.write(self.producer.memory(), &bytes[..taken]);
        self.filled += taken;
        taken
    }

    /// Commits all reserved bytes; those not filled are zero.
    pub fn commit(mut self) {
        const ZEROS: [u8; 256] = [0; 256];
        while self.remaining() > 0 {
            self.write(&ZEROS);
        }
        self.commit_filled();
    }

    /// Commits only what was filled; the record is as long as that.
    pub fn commit_filled(mut self) {
        self.writer.finish(self.producer.memory());
        let geometry = *self.producer.geometry();
        // A shorter record ends earlier, inside the reserved space.
        let size = geometry.record_bytes(self.filled as u64);
        self.place.end = self.place.record.wrapping_add(size);
        let memory = self.producer.memory();
        memory.store_u64(geometry.offset(self.place.end), 0, Ordering::Relaxed);
        self.producer.publish(self.place, self.filled as u64, self.tag);
    }

    /// Gives the space back; the same as dropping.
    pub fn abort(self) {}

    /// Offset and length of the payload, for the in-place view of trusted ends.
    pub(crate) fn payload(&self) -> (u64, usize) {
        (self.producer.geometry().offset(self.place.record) + record::HEADER_BYTES, self.len)
    }

    /// Declares all bytes filled, after they were written in place. The rest of the last word must
    /// have been zeroed before.
    pub(crate) fn commit_in_place(mut self) {
        self.filled = self.len;
        self.commit_filled();
    }
}

impl<M: Memory> std::io::Write for Reservation<'_, M> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(Self::write(self, bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes pieces of any length as whole words: what does not fill a word waits in private memory,
/// so that shared memory is never read back.
#[derive(Debug)]
pub(super) struct WordWriter {
    offset: u64,
    pending: [u8; WORD_BYTES as usize],
    pending_len: usize,
}

impl WordWriter {
    /// Starts at an 8-byte aligned offset.
    pub(super) fn new(offset: u64) -> Self {
        Self { offset, pending: [0; WORD_BYTES as usize], pending_len: 0 }
    }

    pub(super) fn write<M: Memory>(&mut self, memory: &M, mut bytes: &[u8]) {
        if self.pending_len > 0 {
            let taken = bytes.len().min(self.pending.len() - self.pending_len);
            self.pending[self.pending_len..][..taken].copy_from_slice(&bytes[..taken]);
            self.pending_len += taken;
            bytes = &bytes[taken..];
            if self.pending_len < self.pending.len() {
                return;
            }
            memory.copy_in(self.offset, &self.pending);
            self.offset += WORD_BYTES;
        }
        let whole = bytes.len() & !(self.pending.len() - 1);
        memory.copy_in(self.offset, &bytes[..whole]);
        self.offset += whole as u64;
        self.pending_len = bytes.len() - whole;
        self.pending[..self.pending_len].copy_from_slice(&bytes[whole..]);
    }

    /// Writes the last, partly filled word, zero-padded.
    pub(super) fn finish<M: Memory>(&mut self, memory: &M) {
        if self.pending_len > 0 {
            memory.copy_in(self.offset, &self.pending[..self.pending_len]);
            self.offset += WORD_BYTES;
            self.pending_len = 0;
        }
    }
}
