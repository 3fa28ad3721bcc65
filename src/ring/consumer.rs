//! The reading end of a ring.
//!
//! One per ring at any time; its successor after a crash is another [`Consumer::attach`], which
//! starts at the published `head`. It owns its read position privately. What always holds: a header
//! is read once and checked before anything follows from it, and payloads are copied out before
//! anybody looks at them.

use super::producer::MESSAGES_BETWEEN_COUNTS;
use super::record::impossible;
use super::{Record, RingGeometry};
use crate::error::Corruption;
use crate::layout::{CACHE_LINE_BYTES, record, ring};
use crate::memory::{Memory, Ordering};

/// What a consumer has counted. Published in the ring for tools to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConsumerStats {
    /// Messages released.
    pub messages: u64,
    /// Payload bytes released.
    pub bytes: u64,
    /// Times this end went to sleep.
    pub sleeps: u64,
    /// Wakeups sent to the producer.
    pub wakeups_sent: u64,
    /// Messages of which only a part came: their sender died or gave up.
    pub dropped_partial: u64,
    /// Replies that nobody waited for any more.
    pub dropped_replies: u64,
    /// Sleeps that ran out while there was news: the other side had not seen that this one sleeps.
    pub missed: u64,
}

/// The reading end.
#[derive(Debug)]
pub struct Consumer<M> {
    memory: M,
    geometry: RingGeometry,
    /// The next record to look at. Never read from shared memory after `attach`.
    position: u64,
    /// What `head` says.
    released: u64,
    /// The longest record possible; 0 once poisoned, so that the one check on the hot path sees
    /// that too.
    max_record_bytes: u64,
    /// Whether every record must be looked at closely, plain ones too.
    careful: bool,
    poison: Option<Corruption>,
    /// The record seen last: the next one is likely to be like it.
    last: Like,
    stats: ConsumerStats,
    /// Messages as last published.
    counted: u64,
}

/// What a header that was checked said. A header that equals it needs no decoding, and the position
/// behind its record does not have to wait for the header to arrive: the processor guesses that it
/// is the same, and asks for the next one meanwhile.
#[derive(Debug, Clone, Copy)]
struct Like {
    header: u64,
    size_bytes: u64,
    len: u32,
    tag: u16,
}

impl Like {
    /// Like no record: none is that long.
    const NOTHING: Self = Self { header: 0, size_bytes: u64::MAX / 2, len: 0, tag: 0 };
}

/// A record up to this long is expected to be read whole; of a longer one, the first and last bytes.
const MAX_EXPECTED_BYTES: u64 = 512;

impl<M: Memory> Consumer<M> {
    /// Attaches the reading end at the published `head`. Records that a former consumer had read but
    /// not released are delivered again.
    ///
    /// The caller sees to it that no other consumer is alive.
    ///
    /// # Errors
    /// [`Corruption`] where `head` is impossible.
    pub fn attach(memory: M, geometry: RingGeometry) -> Result<Self, Corruption> {
        // Pairs with the Release in a former consumer's `release`.
        let head = memory.load_u64(geometry.control(ring::HEAD), Ordering::Acquire);
        if !geometry.is_aligned(head) {
            return Err(Corruption::Head { found: head, known: head, tail: head });
        }
        let count = |word| memory.load_u64(geometry.control(word), Ordering::Relaxed);
        let stats = ConsumerStats {
            messages: count(ring::CONSUMER_MESSAGES),
            bytes: count(ring::CONSUMER_BYTES),
            sleeps: count(ring::CONSUMER_SLEEPS),
            wakeups_sent: count(ring::CONSUMER_WAKEUPS),
            dropped_partial: count(ring::CONSUMER_PARTIALS),
            dropped_replies: count(ring::CONSUMER_STRAY_REPLIES),
            missed: count(ring::CONSUMER_MISSED),
        };
        let max_record_bytes = geometry.max_record_bytes();
        Ok(Self {
            memory,
            geometry,
            position: head,
            released: head,
            max_record_bytes,
            careful: false,
            poison: None,
            last: Like::NOTHING,
            counted: stats.messages,
            stats,
        })
    }

    /// The next committed record, or `None` where there is none yet. Does not take it: call
    /// [`advance`](Self::advance) for that.
    ///
    /// # Errors
    /// [`Corruption`] where the producer wrote something impossible; it latches.
    #[inline]
    pub fn peek(&mut self) -> Result<Option<Record>, Corruption> {
        match self.peek_simple() {
            Some(record) => Ok(Some(record)),
            None => self.peek_other(),
        }
    }

    /// The next record, if there is one and it is a plain one. Where not,
    /// [`peek`](Self::peek) must be asked.
    #[inline(always)]
    pub(crate) fn peek_simple(&mut self) -> Option<Record> {
        let header = self.header();
        self.simple(header)
    }

    /// The next record if it comes soon and is a plain one.
    ///
    /// Between two looks it asks for the further lines in which the record is expected: the sender
    /// writes them first, and they come while it writes the one with the header. And it keeps the
    /// processor from looking ahead: looks that were begun before the last one is over delay each
    /// other, and the sender.
    #[inline(always)]
    pub(crate) fn poll_simple(&mut self, polls: u32) -> Option<Record> {
        for _ in 0..polls {
            let header = self.header();
            if header != 0 {
                return self.simple(header);
            }
            self.prefetch_expected();
            self.memory.stop_speculation();
        }
        None
    }

    /// Whether anything comes soon where the next record would be.
    pub(crate) fn poll_something(&mut self, polls: u32) -> bool {
        for _ in 0..polls {
            if self.header() != 0 {
                return true;
            }
            self.prefetch_expected();
            self.memory.stop_speculation();
        }
        false
    }

    #[inline(always)]
    fn header(&self) -> u64 {
        // Pairs with the Release of the producer's commit: the payload, and whatever stands behind
        // the record, is visible.
        self.memory.load_u64(self.geometry.offset(self.position), Ordering::Acquire)
    }

    #[inline(always)]
    fn simple(&mut self, header: u64) -> Option<Record> {
        let Like { header: like, size_bytes, len, tag } = self.last;
        if header == like
            && self.geometry.index(self.position) + size_bytes <= self.geometry.capacity_bytes()
        {
            return Some(Record::alike(self.position, size_bytes, len, tag));
        }
        self.simple_unlike(header)
    }

    fn simple_unlike(&mut self, header: u64) -> Option<Record> {
        let max = self.max_record_bytes;
        let record = Record::decode_simple(&self.geometry, self.position, header, max)?;
        let size_bytes = record.end.wrapping_sub(self.position);
        let (len, tag) = (record.len_bytes() as u32, record.tag());
        self.last = Like { header, size_bytes, len, tag };
        Some(record)
    }

    #[inline(always)]
    fn prefetch_expected(&self) {
        let size_bytes = self.last.size_bytes;
        let start = self.geometry.offset(self.position);
        let next_line = (start | (CACHE_LINE_BYTES - 1)) + 1;
        let end = start.wrapping_add(size_bytes);
        if size_bytes <= MAX_EXPECTED_BYTES {
            let mut line = next_line;
            while line < end {
                self.memory.prefetch(line);
                line += CACHE_LINE_BYTES;
            }
        } else {
            self.memory.prefetch(start + record::HEADER_BYTES + u64::from(self.last.len));
        }
    }

    /// Whether [`peek`](Self::peek) would say anything but "nothing yet".
    #[inline(always)]
    pub(crate) fn has_something(&self) -> bool {
        self.has_something_at(self.position)
    }

    /// The same of [`peek_at`](Self::peek_at).
    #[inline(always)]
    pub(crate) fn has_something_at(&self, position: u64) -> bool {
        // Relaxed: only `peek` acts upon what is there.
        let header = self.memory.load_u64(self.geometry.offset(position), Ordering::Relaxed);
        header != 0 || self.poison.is_some()
    }

    /// The rest of `peek`: nothing there, padding, and all that can be wrong. Reads the header once
    /// more, since it may have been written in between, and believes only that.
    #[inline(never)]
    fn peek_other(&mut self) -> Result<Option<Record>, Corruption> {
        let record = self.peek_at(self.position)?;
        if let Some(record) = &record {
            // Behind the padding, where there was any.
            self.position = record.position;
        }
        Ok(record)
    }

    /// The record at a position at which the one before it ends. Does not move there.
    pub(crate) fn peek_at(&mut self, position: u64) -> Result<Option<Record>, Corruption> {
        // Pairs with the Release of the producer's commit: the payload, and whatever stands behind
        // the record, is visible.
        let header = self.memory.load_u64(self.geometry.offset(position), Ordering::Acquire);
        if header == 0 {
            return self.nothing();
        }
        match Record::decode(&self.geometry, position, header) {
            Ok(record) if !record.is_padding() && self.poison.is_none() => Ok(Some(record)),
            Ok(padding) => self.behind(padding),
            Err(corruption) => Err(self.poison(corruption)),
        }
    }

    #[inline]
    fn nothing(&self) -> Result<Option<Record>, Corruption> {
        match self.poison {
            None => Ok(None),
            Some(corruption) => Err(corruption),
        }
    }

    /// Looks behind the padding at the end of the ring for the record that must follow it.
    #[cold]
    fn behind(&mut self, padding: Record) -> Result<Option<Record>, Corruption> {
        if let Some(corruption) = self.poison {
            return Err(corruption);
        }
        // Pairs as in `peek_at`; the padding's header was stored after this one's.
        let header = self.memory.load_u64(self.geometry.offset(padding.end), Ordering::Acquire);
        match Record::decode(&self.geometry, padding.end, header) {
            Ok(record) if !record.is_padding() => Ok(Some(record)),
            _ => {
                let corruption = impossible(&self.geometry, padding.end, header);
                Err(self.poison(corruption))
            }
        }
    }

    /// Copies the payload of a record that [`peek`](Self::peek) returned and that has not been
    /// released; as many bytes as fit into `bytes`.
    ///
    /// The producer may change the bytes meanwhile if it breaks the protocol; what was copied does
    /// not change any more.
    #[inline(always)]
    pub fn copy_out(&self, record: &Record, bytes: &mut [u8]) {
        let len = bytes.len().min(record.len_bytes());
        self.memory.copy_out(self.geometry.offset(record.payload()), &mut bytes[..len]);
    }

    /// The same for a record of plain data.
    #[inline(always)]
    pub(crate) fn copy_data(&self, record: &Record, bytes: &mut [u8]) {
        let position = record.position.wrapping_add(record::HEADER_BYTES);
        let len = bytes.len().min(record.len_bytes());
        self.memory.copy_out(self.geometry.offset(position), &mut bytes[..len]);
    }

    /// The word that the payload of a record begins with; not for plain data. Read once: the
    /// producer may change it meanwhile, if it breaks the protocol.
    pub fn word(&self, record: &Record) -> u64 {
        let position = record.position.wrapping_add(record::HEADER_BYTES);
        self.memory.load_u64(self.geometry.offset(position), Ordering::Relaxed)
    }

    /// The word behind that, which is the first of a fragment's piece.
    pub(super) fn second_word(&self, record: &Record) -> u64 {
        self.memory.load_u64(self.geometry.offset(record.payload()), Ordering::Relaxed)
    }

    /// Copies from the payload behind its first `skip` bytes, a multiple of 8, as many bytes as
    /// `bytes` takes, which must be there.
    pub(super) fn copy_piece(&self, record: &Record, skip: u64, bytes: &mut [u8]) {
        debug_assert!(skip + bytes.len() as u64 <= record.len_bytes() as u64);
        self.memory.copy_out(self.geometry.offset(record.payload().wrapping_add(skip)), bytes);
    }

    /// Offset of a record's payload, for the in-place view of trusted ends.
    pub(crate) fn payload_offset(&self, record: &Record) -> u64 {
        self.geometry.offset(record.payload())
    }

    /// Takes the record that [`peek`](Self::peek) returned: the next `peek` looks behind it. Its
    /// space stays ours until [`release`](Self::release).
    #[inline]
    pub fn advance(&mut self, record: &Record) {
        self.position = record.end;
        self.stats.messages = self.stats.messages.wrapping_add(1);
        self.stats.bytes = self.stats.bytes.wrapping_add(u64::from(record.len_bytes() as u32));
    }

    /// Takes a record that is no message of its own.
    pub(crate) fn pass(&mut self, record: &Record) {
        self.position = record.end;
    }

    /// Counts a message that did not come in one record.
    pub(crate) fn count_message(&mut self, len: usize) {
        self.stats.messages = self.stats.messages.wrapping_add(1);
        self.stats.bytes = self.stats.bytes.wrapping_add(len as u64);
    }

    pub(super) fn count_partial(&mut self) {
        self.stats.dropped_partial = self.stats.dropped_partial.wrapping_add(1);
        self.store_count(ring::CONSUMER_PARTIALS, self.stats.dropped_partial);
    }

    pub(crate) fn count_stray_reply(&mut self) {
        self.stats.dropped_replies = self.stats.dropped_replies.wrapping_add(1);
        self.store_count(ring::CONSUMER_STRAY_REPLIES, self.stats.dropped_replies);
    }

    /// Says whether every record must go through [`peek`](Self::peek), plain ones too: something
    /// else comes before the next, or is ended by it. Free for whoever is not careful.
    pub(crate) fn set_careful(&mut self, careful: bool) {
        if careful == self.careful {
            return;
        }
        self.careful = careful;
        let simple = !careful && self.poison.is_none();
        self.max_record_bytes = if simple { self.geometry.max_record_bytes() } else { 0 };
        self.last = Like::NOTHING;
    }

    /// Whether [`set_careful`](Self::set_careful) holds.
    pub(crate) fn is_careful(&self) -> bool {
        self.careful
    }

    /// Gives the space of all taken records back to the producer. Returns whether there was any.
    #[inline]
    pub fn release(&mut self) -> bool {
        if self.released == self.position {
            return false;
        }
        self.released = self.position;
        // Pairs with the Acquire in the producer's refresh: our copies are complete.
        let head = self.geometry.control(ring::HEAD);
        self.memory.store_u64(head, self.position, Ordering::Release);
        if self.stats.messages.wrapping_sub(self.counted) >= MESSAGES_BETWEEN_COUNTS {
            self.publish_counts();
        }
        true
    }

    /// Shows tools how far this end is.
    pub(crate) fn publish_counts(&mut self) {
        self.counted = self.stats.messages;
        self.store_count(ring::CONSUMER_MESSAGES, self.stats.messages);
        self.store_count(ring::CONSUMER_BYTES, self.stats.bytes);
    }

    #[inline]
    fn store_count(&self, word: u64, value: u64) {
        self.memory.store_u64(self.geometry.control(word), value, Ordering::Relaxed);
    }

    /// Position of the next record.
    #[inline]
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of the ring that were taken and not yet released.
    #[inline]
    pub(crate) fn held_bytes(&self) -> u64 {
        self.position.wrapping_sub(self.released)
    }

    /// Whether the producer, if it waits, has what it waits for.
    #[inline]
    pub(crate) fn has_released(&self, head_needed: u64) -> bool {
        self.released.wrapping_sub(head_needed) <= self.geometry.capacity_bytes()
    }

    /// Latches a finding: every later call returns it. Returns the first one.
    #[cold]
    pub fn poison(&mut self, corruption: Corruption) -> Corruption {
        self.max_record_bytes = 0;
        self.last = Like::NOTHING;
        *self.poison.get_or_insert(corruption)
    }

    /// The finding that poisoned this end, if any.
    pub fn poisoned(&self) -> Option<Corruption> {
        self.poison
    }

    /// What this end has counted, on from what stood in the ring when it was attached: a peer can
    /// have written anything there.
    pub fn stats(&self) -> ConsumerStats {
        self.stats
    }

    /// Counts the sleeps of a wait, and the announcements that the other side did not see.
    pub(crate) fn count_parked(&mut self, [sleeps, missed]: [u32; 2]) {
        if sleeps | missed == 0 {
            return;
        }
        self.stats.sleeps = self.stats.sleeps.wrapping_add(sleeps.into());
        self.store_count(ring::CONSUMER_SLEEPS, self.stats.sleeps);
        self.stats.missed = self.stats.missed.wrapping_add(missed.into());
        self.store_count(ring::CONSUMER_MISSED, self.stats.missed);
    }

    pub(crate) fn count_wakeup(&mut self) {
        self.stats.wakeups_sent = self.stats.wakeups_sent.wrapping_add(1);
        self.store_count(ring::CONSUMER_WAKEUPS, self.stats.wakeups_sent);
    }

    /// The ring's measures.
    #[inline]
    pub fn geometry(&self) -> &RingGeometry {
        &self.geometry
    }

    /// The memory that the ring lies in.
    #[inline]
    pub fn memory(&self) -> &M {
        &self.memory
    }
}
