//! The writing end of a lossy ring.
//!
//! One per ring at any time; its successor after a crash is another [`LossyProducer::attach`]. What
//! always holds: no push waits or takes longer than a stride takes to walk; what it overwrites was
//! announced before; the word at its position is zero until it commits.

use super::LossyGeometry;
use super::geometry::{PREFIX_BYTES, is_before};
use super::record::{Header, impossible};
use super::settled::Settled;
use crate::error::Corruption;
use crate::layout::{WORD_BYTES, record, ring};
use crate::memory::{Memory, Ordering};
use crate::ring::PushError;

/// Counts are published once in so many messages.
pub(super) const MESSAGES_BETWEEN_COUNTS: u64 = 16;

/// What a lossy producer knows of its messages: *sent = taken + lost + unread*.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LossyProducerStats {
    /// Messages committed, by this producer and those before it.
    pub sent: u64,
    /// Payload bytes committed. May lag after a producer has died.
    pub bytes: u64,
    /// Messages that the consumer has taken, by its own word.
    pub taken: u64,
    /// Messages that were overwritten, or given up to be, before the consumer had taken them.
    pub lost: u64,
    /// Messages in the ring that the consumer has not taken.
    pub unread: u64,
    /// Messages no longer in the ring, taken or lost.
    pub overwritten: u64,
    /// Wakeups sent to the consumer.
    pub wakeups_sent: u64,
}

/// The writing end.
#[derive(Debug)]
pub struct LossyProducer<M> {
    memory: M,
    geometry: LossyGeometry,
    /// Where the next record goes. Never read from shared memory after `attach`.
    tail: u64,
    /// Everything before it may be written; `tail` once poisoned, so that the one check on the hot
    /// path sees that too.
    intent: u64,
    /// The oldest record that the intent leaves whole; `tail` where there is none.
    oldest: u64,
    oldest_number: u64,
    /// The newest record; meaningless where there is none.
    newest: u64,
    /// The next message's number.
    next: u64,
    /// The eighth of the ring in which the last landmark was set, counted over all laps.
    landmarked: Option<u64>,
    poison: Option<Corruption>,
    bytes: u64,
    wakeups_sent: u64,
    /// `next` when counts were last published.
    counted: u64,
}

impl<M: Memory> LossyProducer<M> {
    /// Attaches the writing end: walks the committed records from the oldest one to the first
    /// position without one, and continues there, with the number that follows.
    ///
    /// The caller sees to it that no other producer is alive.
    ///
    /// # Errors
    /// [`Corruption`] where what is there is impossible.
    pub fn attach(memory: M, geometry: LossyGeometry) -> Result<Self, Corruption> {
        let count = |word| memory.load_u64(geometry.control(word), Ordering::Relaxed);
        // Acquire: pairs with the Release stores of a former producer.
        let word = |word| memory.load_u64(geometry.control(word), Ordering::Acquire);
        let (oldest, intent) = (word(ring::OLDEST), word(ring::INTENT));
        let covered = intent.wrapping_sub(oldest);
        if covered > geometry.capacity_bytes() || !geometry.is_aligned(oldest | intent) {
            return Err(Corruption::Intent { found: intent, known: oldest });
        }
        // Where nothing was ever sent: where to begin counting.
        let first = count(ring::RETIRED);
        let mut end = Self {
            tail: oldest,
            intent,
            oldest,
            oldest_number: first,
            newest: oldest,
            next: first,
            landmarked: None,
            poison: None,
            bytes: count(ring::PRODUCER_BYTES),
            wakeups_sent: count(ring::PRODUCER_WAKEUPS),
            counted: 0,
            memory,
            geometry,
        };
        end.walk()?;
        // What a former producer announced, before what we write there: as in `announce`.
        end.memory.release_fence();
        end.publish_counts();
        Ok(end)
    }

    /// From the oldest record to the first position without one.
    fn walk(&mut self) -> Result<(), Corruption> {
        let mut found_any = false;
        loop {
            let at = self.tail;
            // Pairs with the Release of a former producer's commit.
            let header = self.memory.load_u64(self.geometry.offset(at), Ordering::Acquire);
            if header == 0 {
                return Ok(());
            }
            let end = match Header::decode(&self.geometry, at, header) {
                Some(Header::Padding { end }) => end,
                Some(Header::Message { end, .. }) => {
                    let number = self.number_at(at);
                    if !found_any {
                        self.oldest_number = number;
                    } else if number != self.next {
                        return Err(self.wrong_number(number, self.next, at));
                    }
                    found_any = true;
                    self.newest = at;
                    self.next = number.wrapping_add(1);
                    end
                }
                None => return Err(impossible(&self.geometry, at, header)),
            };
            // The walk moves on by a word or more, and ends where nothing has been written.
            if is_before(self.intent, end.wrapping_add(WORD_BYTES)) {
                let (head, capacity_bytes) = (self.oldest, self.geometry.capacity_bytes());
                return Err(Corruption::Walk { head, capacity_bytes });
            }
            self.tail = end;
        }
    }

    /// Writes and commits one message, over the oldest ones where there is no room.
    ///
    /// # Errors
    /// [`PushError::TooLong`], or [`PushError::Corrupt`] where records that were to be given up had
    /// been tampered with; nothing has been committed then. Never [`PushError::Full`].
    #[inline]
    pub fn try_push(&mut self, tag: u16, payload: &[u8]) -> Result<(), PushError> {
        let geometry = self.geometry;
        let len = payload.len() as u64;
        if len > geometry.max_payload_bytes() {
            return Err(self.too_long(len));
        }
        let size = geometry.record_bytes(len);
        let room = geometry.room(self.tail);
        let padding = if size <= room { 0 } else { room };
        let at = self.tail.wrapping_add(padding);
        let end = at.wrapping_add(size);
        // The word behind the record is written too.
        if padding + size + WORD_BYTES > self.intent.wrapping_sub(self.tail) {
            self.announce(end)?;
        }
        let offset = geometry.offset(at);
        self.memory.store_u64(geometry.offset(end), 0, Ordering::Relaxed);
        self.memory.store_u64(offset + record::HEADER_BYTES, self.next, Ordering::Relaxed);
        self.memory.copy_in(offset + PREFIX_BYTES, payload);
        let header = record::pack(len as u32, record::DATA, tag);
        if padding == 0 {
            // Pairs with the Acquire in LossyConsumer::attempt and in `walk`.
            self.memory.store_u64(offset, header, Ordering::Release);
        } else {
            self.commit_padded(padding, offset, header);
        }
        self.newest = at;
        self.tail = end;
        self.next = self.next.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(len);
        if self.next.wrapping_sub(self.counted) >= MESSAGES_BETWEEN_COUNTS {
            self.publish_counts();
        }
        Ok(())
    }

    #[cold]
    fn too_long(&self, len: u64) -> PushError {
        match self.poison {
            Some(corruption) => PushError::Corrupt(corruption),
            None => PushError::TooLong { len, max: self.geometry.max_payload_bytes() },
        }
    }

    #[cold]
    fn commit_padded(&self, padding: u64, offset: u64, header: u64) {
        // Ordered before the padding's header by its Release.
        self.memory.store_u64(offset, header, Ordering::Relaxed);
        let len = (padding - record::HEADER_BYTES) as u32;
        let padding = record::pack(len, record::PADDING, 0);
        // Pairs with the Acquire in LossyConsumer::attempt and in `walk`.
        self.memory.store_u64(self.geometry.offset(self.tail), padding, Ordering::Release);
    }

    /// Gives up what stands in the way of a record up to `end`, and says so before anything is
    /// overwritten.
    #[cold]
    fn announce(&mut self, end: u64) -> Result<(), Corruption> {
        if let Some(corruption) = self.poison {
            return Err(corruption);
        }
        let (memory, geometry) = (&self.memory, self.geometry);
        let intent = geometry.intent_for(end);
        if self.next != self.oldest_number {
            let floor = intent.wrapping_sub(geometry.capacity_bytes());
            let (oldest, number) = self.retire(floor).inspect_err(|corruption| {
                self.poison = Some(*corruption);
                self.intent = self.tail;
            })?;
            (self.oldest, self.oldest_number) = (oldest, number);
            // Pairs with the Acquire in the consumer's jump: the record there is committed.
            memory.store_u64(geometry.control(ring::OLDEST), oldest, Ordering::Release);
            memory.store_u64(geometry.control(ring::RETIRED), number, Ordering::Relaxed);
            let eighth = self.newest / geometry.landmark_bytes();
            if self.landmarked != Some(eighth) {
                self.landmarked = Some(eighth);
                // As the store of `oldest`.
                memory.store_u64(geometry.landmark(self.newest), self.newest, Ordering::Release);
            }
        }
        // Release pairs with the Acquire in the consumer's jump, which needs what stands above.
        memory.store_u64(geometry.control(ring::INTENT), intent, Ordering::Release);
        // Before anything is overwritten. Pairs with the acquire fence in LossyConsumer::is_overrun.
        memory.release_fence();
        self.intent = intent;
        Ok(())
    }

    /// The first record at `floor` or behind it, and its number. The newest record is one: see
    /// [`LossyGeometry`].
    fn retire(&self, floor: u64) -> Result<(u64, u64), Corruption> {
        let (mut oldest, mut number) = (self.oldest, self.oldest_number);
        loop {
            // Our own stores, or a former producer's that `attach` has seen; whatever the consumer
            // has put in their place is checked.
            let header = self.memory.load_u64(self.geometry.offset(oldest), Ordering::Relaxed);
            match Header::decode(&self.geometry, oldest, header) {
                Some(Header::Padding { end }) => oldest = end,
                Some(Header::Message { end, .. }) => {
                    let found = self.number_at(oldest);
                    if found != number {
                        return Err(self.wrong_number(found, number, oldest));
                    }
                    if !is_before(oldest, floor) {
                        return Ok((oldest, number));
                    }
                    (oldest, number) = (end, number.wrapping_add(1));
                }
                None => return Err(impossible(&self.geometry, oldest, header)),
            }
        }
    }

    fn number_at(&self, position: u64) -> u64 {
        let offset = self.geometry.offset(position) + record::HEADER_BYTES;
        self.memory.load_u64(offset, Ordering::Relaxed)
    }

    #[cold]
    fn wrong_number(&self, found: u64, expected: u64, position: u64) -> Corruption {
        Corruption::Sequence { found, expected, position }
    }

    /// Shows tools how far this end is.
    pub(crate) fn publish_counts(&mut self) {
        self.counted = self.next;
        let store = |word, value| {
            self.memory.store_u64(self.geometry.control(word), value, Ordering::Relaxed);
        };
        store(ring::TAIL, self.tail);
        store(ring::PRODUCER_MESSAGES, self.next);
        store(ring::PRODUCER_BYTES, self.bytes);
    }

    pub(crate) fn count_wakeup(&mut self) {
        self.publish_counts();
        self.wakeups_sent = self.wakeups_sent.wrapping_add(1);
        let word = self.geometry.control(ring::PRODUCER_WAKEUPS);
        self.memory.store_u64(word, self.wakeups_sent, Ordering::Relaxed);
    }

    /// What has become of the messages. The consumer's part is its own word: a hostile one can lie
    /// about what it has taken and lost, and about nothing else.
    pub fn stats(&self) -> LossyProducerStats {
        let Settled { next: settled, lost, .. } = Settled::load(&self.memory, &self.geometry);
        // No consumer has settled what was not sent.
        let settled = if is_before(self.next, settled) { self.next } else { settled };
        let given_up = self.oldest_number.wrapping_sub(settled);
        let behind = is_before(settled, self.oldest_number);
        let lost = lost.wrapping_add(if behind { given_up } else { 0 });
        let unread = self.next.wrapping_sub(if behind { self.oldest_number } else { settled });
        LossyProducerStats {
            sent: self.next,
            bytes: self.bytes,
            taken: self.next.wrapping_sub(unread).wrapping_sub(lost),
            lost,
            unread,
            overwritten: self.oldest_number,
            wakeups_sent: self.wakeups_sent,
        }
    }

    /// Latches a finding: every later call returns it.
    pub fn poison(&mut self, corruption: Corruption) {
        self.poison.get_or_insert(corruption);
        self.intent = self.tail;
    }

    /// The finding that poisoned this end, if any.
    pub fn poisoned(&self) -> Option<Corruption> {
        self.poison
    }

    /// The ring's measures.
    #[inline]
    pub fn geometry(&self) -> &LossyGeometry {
        &self.geometry
    }

    /// The memory that the ring lies in.
    #[inline]
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// This end's position: behind the last record that it committed.
    pub fn tail(&self) -> u64 {
        self.tail
    }
}
