//! Messages longer than a record, put together from what comes out of the ring.
//!
//! The channel's receivers feed it every fragment they meet, and tell it of every other record.
//! What always holds: its memory grows with what has arrived and never with what was announced, it
//! never holds more than the longest message agreed on, and a stream of pieces that no correct
//! sender writes is [`Corruption::Fragment`].
//!
//! What a crash can leave is legal, and what it cannot is a lie. A sender's successor never goes on
//! with its predecessor's message: so any record but the matching next piece ends what was begun,
//! and the pieces before it are dropped. A receiver's successor starts behind what its predecessor
//! released: so pieces without a beginning are skipped. Between two records of one stream nothing
//! can get lost: so an offset that leaves a gap, goes back or passes the announced end was written
//! by nobody who follows the protocol.

use rkyv::util::AlignedVec;

use super::{Consumer, Record, RecordKind};
use crate::error::Corruption;
use crate::layout::{fragment, record};
use crate::memory::Memory;

/// The message that is being put together, and the memory for it, which is kept for the next one.
#[derive(Debug, Default)]
pub struct Assembly {
    /// Initialised memory; the message begins at its beginning.
    buffer: AlignedVec<64>,
    partial: Option<Whole>,
    /// Payload bytes arrived, the word included.
    arrived: u64,
}

/// What the first piece says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// Data, call or reply.
    pub kind: RecordKind,
    /// The id of the call, where the kind has one; else 0.
    pub word: u64,
    /// The user's tag.
    pub tag: u16,
    /// Payload bytes, the word included.
    total: u64,
}

impl Whole {
    /// A message that came in one record, told the same way.
    pub(crate) fn new(kind: RecordKind, word: u64, tag: u16, len: usize) -> Self {
        Self { kind, word, tag, total: len as u64 + kind.word_bytes() }
    }

    /// Length of the message in bytes.
    pub fn len_bytes(&self) -> usize {
        (self.total - self.kind.word_bytes()) as usize
    }
}

impl Assembly {
    /// Whether a message was begun and not ended.
    pub fn is_partial(&self) -> bool {
        self.partial.is_some()
    }

    /// Bytes of memory kept: less than twice the longest message, or part of one, that has arrived,
    /// or 256.
    pub fn memory_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Makes room for messages of this length, so that none of them takes memory.
    pub fn reserve(&mut self, len: usize) {
        if self.buffer.len() < len {
            self.buffer.resize(room_for(len), 0);
        }
    }

    /// Gives the memory back if it is more than this, and no message is being put together. What was
    /// returned last is gone then.
    pub fn shrink(&mut self, bound_bytes: usize) {
        if self.buffer.len() > bound_bytes && !self.is_partial() {
            self.buffer = AlignedVec::new();
        }
    }

    /// The message of this length that [`absorb`](Self::absorb) returned last, until the next call
    /// of it.
    pub fn message(&self, len: usize) -> &[u8] {
        &self.buffer[..len]
    }

    /// Takes the buffer away, with the message in it, and goes on with another one.
    pub(crate) fn swap_buffer(&mut self, other: AlignedVec<64>) -> AlignedVec<64> {
        std::mem::replace(&mut self.buffer, other)
    }

    /// Drops what was begun, because a record that is no piece of it has come. Returns whether there
    /// was anything.
    pub fn drop_partial<M: Memory>(&mut self, consumer: &mut Consumer<M>) -> bool {
        let dropped = self.partial.take().is_some();
        if dropped {
            consumer.count_partial();
        }
        dropped
    }

    /// Copies the piece that [`Consumer::peek`] returned, and takes it: its space may be released.
    /// Returns the message when this was its last piece.
    ///
    /// # Errors
    /// [`Corruption::Fragment`] where no correct sender writes this piece; it latches in the
    /// consumer.
    pub fn absorb<M: Memory>(
        &mut self,
        consumer: &mut Consumer<M>,
        record: &Record,
    ) -> Result<Option<Whole>, Corruption> {
        let word = consumer.word(record);
        let (flags, len) = (fragment::flags(word), record.len_bytes() as u64);
        let found = match flags {
            fragment::FIRST => self.begin(consumer, record, word, len),
            0 => self.go_on(record, word, len).then_some(()),
            fragment::ABORT if word == fragment::pack(0, 0, fragment::ABORT) && len == 0 => {
                self.drop_partial(consumer);
                Some(())
            }
            _ => None,
        };
        if found.is_none() {
            let position = record.position();
            let expected = self.partial.map_or(0, |_| self.arrived);
            let lie = Corruption::Fragment { word, len, position, expected };
            self.drop_partial(consumer);
            return Err(consumer.poison(lie));
        }
        let Some(partial) = self.partial else {
            consumer.pass(record);
            return Ok(None);
        };
        self.copy(consumer, record, &partial, len);
        consumer.pass(record);
        if self.arrived < partial.total {
            return Ok(None);
        }
        self.partial = None;
        consumer.count_message(partial.len_bytes());
        Ok(Some(partial))
    }

    /// A first piece: what it says of the whole, if that is possible.
    fn begin<M: Memory>(
        &mut self,
        consumer: &mut Consumer<M>,
        record: &Record,
        word: u64,
        len: u64,
    ) -> Option<()> {
        self.drop_partial(consumer);
        let kind = match fragment::kind(word) {
            record::DATA => RecordKind::Data,
            record::CALL => RecordKind::Call,
            record::REPLY => RecordKind::Reply,
            _ => return None,
        };
        let total = fragment::number(word);
        let max = consumer.geometry().max_message_bytes() + kind.word_bytes();
        // A word is not divided, and what fits one piece is not divided at all.
        if total > max || total <= len || len < kind.word_bytes().max(1) {
            return None;
        }
        let word = if kind == RecordKind::Data { 0 } else { consumer.second_word(record) };
        self.partial = Some(Whole { kind, word, tag: record.tag(), total });
        self.arrived = 0;
        Some(())
    }

    /// Whether another piece is possible here: the next one, or one whose beginning is not ours.
    fn go_on(&self, record: &Record, word: u64, len: u64) -> bool {
        let offset = fragment::number(word);
        let shaped = fragment::kind(word) == 0 && offset > 0 && len > 0;
        shaped
            && self.partial.is_none_or(|partial| {
                offset == self.arrived
                    && len <= partial.total - self.arrived
                    && record.tag() == partial.tag
            })
    }

    fn copy<M: Memory>(
        &mut self,
        consumer: &Consumer<M>,
        record: &Record,
        whole: &Whole,
        len: u64,
    ) {
        let word_bytes = whole.kind.word_bytes();
        // The first piece of a call or a reply begins with a word that is not the message's.
        let skip = if self.arrived == 0 { word_bytes } else { 0 };
        let start = self.arrived.saturating_sub(word_bytes) as usize;
        let end = (self.arrived + len - word_bytes) as usize;
        self.reserve(end);
        consumer.copy_piece(record, skip, &mut self.buffer[start..end]);
        self.arrived += len;
    }
}

/// How large a buffer becomes for a message of this length.
pub(crate) fn room_for(len: usize) -> usize {
    len.next_power_of_two().max(256)
}
