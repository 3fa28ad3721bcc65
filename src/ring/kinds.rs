//! Records whose payload begins with a word: pieces, calls and replies.
//!
//! The channel's senders push them, and whoever carries records from one ring into another. What
//! always holds: they are committed as plain ones are, so the walk of an attaching producer and the
//! look of a consumer see no difference until they ask for the kind.

use super::producer::Place;
use super::{Producer, PushError, RecordKind};
use crate::layout::{WORD_BYTES, fragment, record};
use crate::memory::{Memory, Ordering};

impl<M: Memory> Producer<M> {
    /// Writes and commits one record of any kind. `word` goes before the payload, but for plain data,
    /// which has none. Does not check the word of a fragment: for those there is
    /// [`Fragments`](super::Fragments).
    ///
    /// # Errors
    /// As [`try_push`](Self::try_push). For a call or a reply the longest payload is a word shorter
    /// than for data; messages that are longer go in fragments.
    pub fn try_push_kind(
        &mut self,
        kind: RecordKind,
        word: u64,
        tag: u16,
        payload: &[u8],
    ) -> Result<(), PushError> {
        match kind {
            RecordKind::Data => self.try_push(tag, payload),
            RecordKind::Fragment => self.push_worded(kind, word, tag, payload, 0),
            RecordKind::Call | RecordKind::Reply => {
                let (len, max) = (payload.len() as u64, self.geometry().max_message_bytes());
                if len > max {
                    return Err(PushError::TooLong { len, max });
                }
                self.push_worded(kind, word, tag, payload, 1)
            }
        }
    }

    /// Writes and commits a call or a reply if that is simple. Otherwise does nothing, and
    /// [`try_push_kind`](Self::try_push_kind) must be asked.
    #[inline]
    pub(crate) fn push_worded_simple(
        &mut self,
        kind: RecordKind,
        word: u64,
        tag: u16,
        payload: &[u8],
    ) -> bool {
        // No slice is so long that the sum wraps.
        let len = WORD_BYTES + payload.len() as u64;
        let Some(end) = self.simple_end(len) else { return false };
        self.zero_ahead(end);
        let place = Place { start: self.tail(), record: self.tail(), end };
        self.write_worded(place, kind, word, tag, payload, 1);
        true
    }

    /// Writes and commits a record whose payload begins with a word.
    fn push_worded(
        &mut self,
        kind: RecordKind,
        word: u64,
        tag: u16,
        payload: &[u8],
        messages: u64,
    ) -> Result<(), PushError> {
        let len = WORD_BYTES.saturating_add(payload.len() as u64);
        let place = self.place_record(self.tail(), len)?;
        self.zero_ahead(place.end);
        self.write_worded(place, kind, word, tag, payload, messages);
        self.renew_limit();
        Ok(())
    }

    #[inline(always)]
    fn write_worded(
        &mut self,
        place: Place,
        kind: RecordKind,
        word: u64,
        tag: u16,
        payload: &[u8],
        messages: u64,
    ) {
        let start = self.geometry().offset(place.record) + record::HEADER_BYTES;
        self.fill(start, payload);
        // Beside the header, so last; see `fill`.
        self.memory().store_u64(start, word, Ordering::Relaxed);
        let len = payload.len() as u64;
        let header = record::pack((WORD_BYTES + len) as u32, kind.code(), tag);
        self.publish_header(place, header, messages, messages * len);
    }

    /// Says that no more pieces come of a message that was begun. Legal at any time.
    ///
    /// # Errors
    /// As [`try_push`](Self::try_push).
    pub fn try_push_abort(&mut self) -> Result<(), PushError> {
        let word = fragment::pack(0, 0, fragment::ABORT);
        self.push_worded(RecordKind::Fragment, word, 0, &[], 0)
    }
}
