//! The writing end of a ring.
//!
//! One per ring at any time; its successor after a crash is another [`Producer::attach`]. It owns
//! the write position privately, and publishes only record headers (and `tail`, as a hint that
//! nothing reads back). What always holds: the word at its position is zero until it commits.

use std::io::IoSlice;

use super::reservation::{Draft, InPlaceDraft};
use super::words::WordWriter;
use super::{Batch, ProducerStats, PushError, Record, Reservation, RingGeometry};
use crate::error::Corruption;
use crate::layout::{CACHE_LINE_BYTES, WORD_BYTES, record, ring};
use crate::memory::{Memory, Ordering};

/// Longer payloads are written front to back; see [`Producer::fill`].
const MAX_SPLIT_BYTES: usize = 512;

/// Ends publish their counts, and the producer its tail hint, once in so many messages, and whenever
/// they have to do something else anyway: more stores for each message cost throughput where the
/// processors are far apart.
pub(super) const MESSAGES_BETWEEN_COUNTS: u64 = 16;

/// The writing end.
#[derive(Debug)]
pub struct Producer<M> {
    memory: M,
    geometry: RingGeometry,
    /// Where the next record goes. Never read from shared memory.
    tail: u64,
    /// The consumer's `head` when we last looked.
    head: u64,
    /// The capacity; 0 once poisoned, so that the one check on the hot path sees that too.
    room_bytes: u64,
    /// Records that end here or before fit before the end of the buffer, and the cached `head` leaves
    /// room for them; see [`renew_limit`](Self::renew_limit). Behind `tail` where nothing is known.
    limit: u64,
    poison: Option<Corruption>,
    stats: ProducerStats,
    /// Messages as last published.
    counted: u64,
}

/// Where a record will be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Position of the first header to appear: the padding's, where there is any.
    pub(super) start: u64,
    /// Position of the record.
    pub(super) record: u64,
    /// Position behind it.
    pub(super) end: u64,
}

impl<M: Memory> Producer<M> {
    /// Attaches the writing end: walks the committed records from the published `head` to the first
    /// position without one, and continues there.
    ///
    /// The caller sees to it that no other producer is alive.
    ///
    /// # Errors
    /// [`Corruption`] where the headers on the way are impossible.
    pub fn attach(memory: M, geometry: RingGeometry) -> Result<Self, Corruption> {
        // Pairs with the Release in Consumer::release: the space before it is free.
        let head = memory.load_u64(geometry.control(ring::HEAD), Ordering::Acquire);
        let capacity_bytes = geometry.capacity_bytes();
        let too_far = Corruption::Walk { head, capacity_bytes };
        if !geometry.is_aligned(head) {
            return Err(too_far);
        }
        let mut tail = head;
        loop {
            // Pairs with the Release of a former producer's commit: what it wrote before its
            // header, the zero behind the record above all, is visible.
            let header = memory.load_u64(geometry.offset(tail), Ordering::Acquire);
            if header == 0 {
                break;
            }
            tail = Record::decode(&geometry, tail, header)?.end;
            // Each step moves on by a word or more, so this also bounds the walk.
            if tail.wrapping_sub(head) > capacity_bytes - WORD_BYTES {
                return Err(too_far);
            }
        }
        let stats = ProducerStats::load(&memory, |word| geometry.control(word));
        memory.store_u64(geometry.control(ring::TAIL), tail, Ordering::Relaxed);
        let (room_bytes, counted) = (capacity_bytes, stats.messages);
        let limit = tail;
        Ok(Self { memory, geometry, tail, head, room_bytes, limit, poison: None, stats, counted })
    }

    /// Where a record with `len` bytes of payload would end, if that is simple: it fits before the
    /// end of the buffer, and the cached `head` leaves room. Otherwise [`place`](Self::place) must be
    /// asked.
    #[inline(always)]
    pub(super) fn simple_end(&self, len: u64) -> Option<u64> {
        // First: no record is as long as what a caller may ask for, and messages may have to be shorter
        // than records. So the sum does not overflow, and the record is no longer than any can be.
        if len > self.geometry.max_payload_bytes() {
            return None;
        }
        let size = self.geometry.record_bytes(len);
        // Less than nothing where the tail has moved past the limit. A poisoned ring has no room.
        let room = self.limit.wrapping_sub(self.tail) as i64;
        (size as i64 <= room).then_some(self.tail.wrapping_add(size))
    }

    /// Computes the limit anew, from the tail and the cached `head`.
    pub(super) fn renew_limit(&mut self) {
        let capacity_bytes = self.geometry.capacity_bytes();
        let to_end = capacity_bytes - self.geometry.index(self.tail);
        // The word behind the record must be free too.
        let used = self.tail.wrapping_sub(self.head) + WORD_BYTES;
        let room = self.room_bytes.saturating_sub(used).min(to_end);
        self.limit = self.tail.wrapping_add(room);
    }

    /// Writes and commits one record if that is simple. Otherwise does nothing, and
    /// [`try_push`](Self::try_push) must be asked.
    #[inline(always)]
    pub(crate) fn push_simple(&mut self, tag: u16, payload: &[u8]) -> bool {
        let len = payload.len() as u64;
        let Some(end) = self.simple_end(len) else { return false };
        self.zero_ahead(end);
        let offset = self.geometry.offset(self.tail);
        self.fill(offset, payload);
        let header = record::pack(len as u32, record::DATA, tag);
        // Pairs with the Acquire in Consumer::peek and in Producer::attach.
        self.memory.store_u64(offset, header, Ordering::Release);
        self.committed(end, 1, len);
        true
    }

    /// Writes and commits one record.
    ///
    /// # Errors
    /// [`PushError`]; nothing has been committed then.
    #[inline]
    pub fn try_push(&mut self, tag: u16, payload: &[u8]) -> Result<(), PushError> {
        if self.push_simple(tag, payload) {
            return Ok(());
        }
        self.push_other(tag, payload)
    }

    /// The rest of `try_push`: padding, a stale `head`, and all that can be wrong.
    #[inline(never)]
    fn push_other(&mut self, tag: u16, payload: &[u8]) -> Result<(), PushError> {
        let place = self.place(self.tail, payload.len() as u64)?;
        self.zero_ahead(place.end);
        self.fill(self.geometry.offset(place.record), payload);
        self.publish(place, payload.len() as u64, tag);
        self.renew_limit();
        Ok(())
    }

    /// Writes and commits one record whose payload is the concatenation of `parts`.
    ///
    /// # Errors
    /// As [`try_push`](Self::try_push).
    pub fn try_push_vectored(&mut self, tag: u16, parts: &[IoSlice<'_>]) -> Result<(), PushError> {
        let len = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.len() as u64));
        let place = self.place(self.tail, len)?;
        self.zero_ahead(place.end);
        let mut writer = WordWriter::new(self.geometry.offset(place.record) + record::HEADER_BYTES);
        for part in parts {
            writer.write(&self.memory, part);
        }
        writer.finish(&self.memory);
        self.publish(place, len, tag);
        Ok(())
    }

    /// Reserves a record with `len` bytes of payload, to be filled and then committed. Dropping the
    /// reservation gives the space back.
    ///
    /// # Errors
    /// As [`try_push`](Self::try_push).
    pub fn try_reserve(&mut self, tag: u16, len: usize) -> Result<Reservation<'_, M>, PushError> {
        let draft = self.draft(tag, len)?;
        Ok(Reservation::new(self, draft))
    }

    pub(crate) fn draft(&mut self, tag: u16, len: usize) -> Result<Draft, PushError> {
        let place = self.place(self.tail, len as u64)?;
        let payload = self.geometry.offset(place.record) + record::HEADER_BYTES;
        Ok(Draft::new(place, payload, len, tag))
    }

    /// Room for `len` bytes to be written in place, if that is simple.
    #[inline(always)]
    pub(crate) fn draft_in_place_simple(&self, len: usize) -> Option<InPlaceDraft> {
        let end = self.simple_end(len as u64)?;
        self.zero_ahead(end);
        Some(InPlaceDraft::new(Place { start: self.tail, record: self.tail, end }, len))
    }

    pub(crate) fn draft_in_place(&mut self, len: usize) -> Result<InPlaceDraft, PushError> {
        let place = self.place(self.tail, len as u64)?;
        self.renew_limit();
        // Now and not at the commit: nothing in another line should come between what the caller
        // writes beside the header and the header (see `fill`).
        self.zero_ahead(place.end);
        Ok(InPlaceDraft::new(place, len))
    }

    /// Starts a batch: records that become visible together.
    pub fn batch(&mut self) -> Batch<'_, M> {
        Batch::new(self)
    }

    /// Finds room for `len` bytes of payload from position `next` on.
    #[inline]
    pub(super) fn place(&mut self, next: u64, len: u64) -> Result<Place, PushError> {
        // A payload near u64::MAX cannot wrap the sum into range: it is longer than the limit.
        if len > self.geometry.max_payload_bytes() {
            return Err(self.too_long(len, self.geometry.max_payload_bytes()));
        }
        self.place_checked(next, len)
    }

    /// Finds room for a record of any kind with `len` bytes of payload, its word included.
    pub(super) fn place_record(&mut self, next: u64, len: u64) -> Result<Place, PushError> {
        let max = self.geometry.max_record_payload_bytes();
        if len > max {
            return Err(self.too_long(len - WORD_BYTES, max - WORD_BYTES));
        }
        self.place_checked(next, len)
    }

    #[inline(always)]
    fn place_checked(&mut self, next: u64, len: u64) -> Result<Place, PushError> {
        let geometry = self.geometry;
        let size = geometry.record_bytes(len);
        let to_end = geometry.capacity_bytes() - geometry.index(next);
        let padding = if size <= to_end { 0 } else { to_end };
        let record = next.wrapping_add(padding);
        let end = record.wrapping_add(size);
        // The word behind the record must be free too: it is zeroed before the commit.
        let used = end.wrapping_sub(self.head) + WORD_BYTES;
        if used > self.room_bytes {
            self.refresh(next, end)?;
        }
        Ok(Place { start: next, record, end })
    }

    /// Clears the word behind a record, where the next header will be, before the record's own
    /// header is stored. Ordered before that by its Release.
    #[inline]
    pub(super) fn zero_ahead(&self, end: u64) {
        self.memory.store_u64(self.geometry.offset(end), 0, Ordering::Relaxed);
    }

    /// Writes the payload of the record at this offset.
    ///
    /// What shares the header's cache line goes last, where the payload is short. A waiting consumer
    /// polls that line: were it written first, the consumer would take it back while the rest is
    /// being written, and the header would have to fetch it a second time. A long payload gains more
    /// from being written front to back.
    #[inline(always)]
    pub(super) fn fill(&self, record_offset: u64, payload: &[u8]) {
        let start = record_offset + record::HEADER_BYTES;
        if payload.len() <= WORD_BYTES as usize {
            // One word has no front and back.
            self.memory.copy_in(start, payload);
            return;
        }
        let beside_header = (start.wrapping_neg() & (CACHE_LINE_BYTES - 1)) as usize;
        if payload.len() <= beside_header || payload.len() > MAX_SPLIT_BYTES {
            self.memory.copy_in(start, payload);
        } else {
            let (first, rest) = payload.split_at(beside_header);
            self.memory.copy_in(start + beside_header as u64, rest);
            self.memory.copy_in(start, first);
        }
    }

    #[cold]
    fn too_long(&self, len: u64, max: u64) -> PushError {
        match self.poison {
            Some(corruption) => PushError::Corrupt(corruption),
            None => PushError::TooLong { len, max },
        }
    }

    /// Looks at the consumer's `head`, because the cached one leaves no room up to `end`.
    #[cold]
    fn refresh(&mut self, next: u64, end: u64) -> Result<(), PushError> {
        self.look_at_head(next)?;
        let capacity_bytes = self.geometry.capacity_bytes();
        if end.wrapping_sub(self.head) + WORD_BYTES > capacity_bytes {
            self.stats.times_full = self.stats.times_full.wrapping_add(1);
            self.store_count(ring::PRODUCER_FULL, self.stats.times_full);
            let head_needed = end.wrapping_add(WORD_BYTES).wrapping_sub(capacity_bytes);
            return Err(PushError::Full { head_needed });
        }
        Ok(())
    }

    /// Reads `head` once, believes it only if it moved forward and not past `next`.
    fn look_at_head(&mut self, next: u64) -> Result<(), Corruption> {
        if let Some(corruption) = self.poison {
            return Err(corruption);
        }
        // Pairs with the Release in Consumer::release: its reads of the space before are over.
        let found = self.memory.load_u64(self.geometry.control(ring::HEAD), Ordering::Acquire);
        let moved = found.wrapping_sub(self.head);
        if moved > self.tail.wrapping_sub(self.head) || !self.geometry.is_aligned(found) {
            let corruption = Corruption::Head { found, known: self.head, tail: self.tail };
            self.poison(corruption);
            return Err(corruption);
        }
        let used = next.wrapping_sub(found);
        if used > self.stats.high_water_bytes {
            self.stats.high_water_bytes = used;
            self.store_count(ring::PRODUCER_HIGH_WATER, used);
        }
        self.head = found;
        Ok(())
    }

    /// Whether the consumer has released everything before `head_needed`
    /// (see [`PushError::Full`]).
    ///
    /// # Errors
    /// [`Corruption`] where `head` is impossible.
    #[inline]
    pub fn has_room(&mut self, head_needed: u64) -> Result<bool, Corruption> {
        self.look_at_head(self.tail)?;
        let capacity_bytes = self.geometry.capacity_bytes();
        Ok(self.head.wrapping_sub(head_needed) <= capacity_bytes)
    }

    /// Stores the header, with the padding's, where there is any, last.
    #[inline]
    pub(super) fn publish(&mut self, place: Place, len: u64, tag: u16) {
        self.publish_header(place, record::pack(len as u32, record::DATA, tag), 1, len);
    }

    /// As `publish`, for a record of any kind.
    #[inline]
    pub(super) fn publish_header(&mut self, place: Place, header: u64, messages: u64, bytes: u64) {
        if place.start != place.record {
            self.publish_padded(place, header);
        } else {
            // Pairs with the Acquire in Consumer::peek and in Producer::attach.
            self.memory.store_u64(self.geometry.offset(place.record), header, Ordering::Release);
        }
        self.committed(place.end, messages, bytes);
    }

    #[cold]
    fn publish_padded(&mut self, place: Place, header: u64) {
        // Ordered before the padding's header by its Release.
        self.memory.store_u64(self.geometry.offset(place.record), header, Ordering::Relaxed);
        let padding = padding_header(place);
        // Pairs with the Acquire in Consumer::peek and in Producer::attach.
        self.memory.store_u64(self.geometry.offset(place.start), padding, Ordering::Release);
    }

    /// Moves the private position and publishes the counters.
    #[inline]
    pub(super) fn committed(&mut self, tail: u64, messages: u64, bytes: u64) {
        self.tail = tail;
        self.stats.messages = self.stats.messages.wrapping_add(messages);
        self.stats.bytes = self.stats.bytes.wrapping_add(bytes);
        if self.stats.messages.wrapping_sub(self.counted) >= MESSAGES_BETWEEN_COUNTS {
            self.publish_counts();
        }
    }

    /// Shows tools how far this end is.
    pub(crate) fn publish_counts(&mut self) {
        self.counted = self.stats.messages;
        self.store_count(ring::TAIL, self.tail);
        self.store_count(ring::PRODUCER_MESSAGES, self.stats.messages);
        self.store_count(ring::PRODUCER_BYTES, self.stats.bytes);
    }

    #[inline]
    fn store_count(&self, word: u64, value: u64) {
        self.memory.store_u64(self.geometry.control(word), value, Ordering::Relaxed);
    }

    /// Latches a finding: every later call returns it.
    pub fn poison(&mut self, corruption: Corruption) {
        self.poison.get_or_insert(corruption);
        self.room_bytes = 0;
        self.limit = self.tail;
    }

    /// The finding that poisoned this end, if any.
    pub fn poisoned(&self) -> Option<Corruption> {
        self.poison
    }

    /// What this end has counted, on from what stood in the ring when it was attached: a peer can
    /// have written anything there.
    pub fn stats(&self) -> ProducerStats {
        self.stats
    }

    /// Counts the sleeps of a wait, and the announcements that the other side did not see.
    pub(crate) fn count_parked(&mut self, [sleeps, missed]: [u32; 2]) {
        if sleeps == 0 {
            return;
        }
        self.publish_counts();
        self.stats.sleeps = self.stats.sleeps.wrapping_add(sleeps.into());
        self.store_count(ring::PRODUCER_SLEEPS, self.stats.sleeps);
        self.stats.missed = self.stats.missed.wrapping_add(missed.into());
        self.store_count(ring::PRODUCER_MISSED, self.stats.missed);
    }

    pub(crate) fn count_wakeup(&mut self) {
        self.publish_counts();
        self.stats.wakeups_sent = self.stats.wakeups_sent.wrapping_add(1);
        self.store_count(ring::PRODUCER_WAKEUPS, self.stats.wakeups_sent);
    }

    /// Counts a message that was not sent for want of room, and shows it to tools at once.
    pub(crate) fn count_dropped(&mut self) {
        self.stats.dropped = self.stats.dropped.wrapping_add(1);
        self.store_count(ring::PRODUCER_DROPPED, self.stats.dropped);
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

    /// This end's position: behind the last record that it committed.
    #[inline]
    pub fn tail(&self) -> u64 {
        self.tail
    }
}

/// The header that fills the ring from `place.start` to its end.
pub(super) fn padding_header(place: Place) -> u64 {
    let size = place.record.wrapping_sub(place.start);
    record::pack((size - record::HEADER_BYTES) as u32, record::PADDING, 0)
}
