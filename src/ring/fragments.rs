//! Messages longer than a record, on their way into the ring.
//!
//! The channel's senders make a [`Fragments`] for each such message and push its pieces as room
//! comes. What always holds: each piece is a record of its own, committed like any other, and the
//! first says how long the whole is; whoever stops midway says so with
//! [`Producer::try_push_abort`], or its successor's first record does.

use std::io::IoSlice;

use super::producer::Place;
use super::words::WordWriter;
use super::{Producer, PushError, RecordKind};
use crate::layout::{WORD_BYTES, fragment, record};
use crate::memory::Memory;

/// One long message and how much of it has been pushed.
#[derive(Debug, Clone)]
pub struct Fragments<'a> {
    parts: &'a [IoSlice<'a>],
    /// The part that comes next, and how much of it has been pushed.
    part: usize,
    taken: usize,
    tag: u16,
    kind: RecordKind,
    total: u64,
    pushed: u64,
}

impl<'a> Fragments<'a> {
    /// The message is the concatenation of `parts`. They make what the payload of one record of
    /// this kind would be, with its word at the beginning where it has one.
    pub fn new(kind: RecordKind, tag: u16, parts: &'a [IoSlice<'a>]) -> Self {
        let total = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.len() as u64));
        Self { parts, part: 0, taken: 0, tag, kind, total, pushed: 0 }
    }

    /// A message of plain data in one part, of which so many bytes have been pushed before.
    pub(crate) fn resumed(tag: u16, parts: &'a [IoSlice<'a>; 1], pushed: u64) -> Self {
        Self { pushed, taken: pushed as usize, ..Self::new(RecordKind::Data, tag, parts) }
    }

    /// Bytes that have been pushed.
    pub(crate) fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Whether a part of the message is in the ring, and not all of it.
    pub fn is_midway(&self) -> bool {
        self.pushed > 0 && self.pushed < self.total
    }

    /// Pushes the next piece. Returns whether it was the last one.
    ///
    /// # Errors
    /// As [`Producer::try_push`]; nothing has been pushed then. [`PushError::TooLong`] where the
    /// whole is longer than a message may be.
    pub fn try_push_next<M: Memory>(
        &mut self,
        producer: &mut Producer<M>,
    ) -> Result<bool, PushError> {
        let geometry = *producer.geometry();
        let overhead = self.kind.word_bytes();
        let (len, max) = (self.total.saturating_sub(overhead), geometry.max_message_bytes());
        if len > max {
            return Err(PushError::TooLong { len, max });
        }
        let piece = geometry.piece_bytes().min(self.total - self.pushed);
        let place = producer.place_record(producer.tail(), WORD_BYTES + piece)?;
        producer.zero_ahead(place.end);
        let word = match self.pushed {
            0 => fragment::pack(self.total, self.kind.code(), fragment::FIRST),
            offset => fragment::pack(offset, 0, 0),
        };
        self.write(producer, place, word, piece as usize);
        self.pushed += piece;
        let last = self.pushed == self.total;
        // Counted when it is whole, as one message.
        let (messages, bytes) = if last { (1, len) } else { (0, 0) };
        let header = record::pack((WORD_BYTES + piece) as u32, record::FRAGMENT, self.tag);
        producer.publish_header(place, header, messages, bytes);
        Ok(last)
    }

    /// Writes a record's payload: the word, then the next `len` bytes.
    fn write<M: Memory>(
        &mut self,
        producer: &Producer<M>,
        place: Place,
        word: u64,
        mut len: usize,
    ) {
        let payload = producer.geometry().offset(place.record) + record::HEADER_BYTES;
        let mut writer = WordWriter::new(payload);
        writer.write(producer.memory(), &word.to_ne_bytes());
        while len > 0 {
            let rest = &self.parts[self.part][self.taken..];
            let taken = rest.len().min(len);
            writer.write(producer.memory(), &rest[..taken]);
            len -= taken;
            self.taken += taken;
            if taken == rest.len() {
                (self.part, self.taken) = (self.part + 1, 0);
            }
        }
        writer.finish(producer.memory());
    }
}
