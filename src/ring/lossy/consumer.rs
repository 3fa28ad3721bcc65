//! The reading end of a lossy ring.
//!
//! One per ring at any time; its successor after a crash is another [`LossyConsumer::attach`], which
//! goes on behind what was settled. It owns its position privately. What always holds: nothing that
//! was copied is believed before the intent has been looked at again, and every call is bounded,
//! whatever a producer writes meanwhile.

use thiserror::Error;

use super::geometry::{PREFIX_BYTES, is_before};
use super::producer::MESSAGES_BETWEEN_COUNTS;
use super::record::{Header, impossible};
use super::settled::Settled;
use super::{LossyGeometry, LossyRecord};
use crate::error::Corruption;
use crate::layout::{WORD_BYTES, record, ring};
use crate::memory::{Memory, Ordering};

/// How often one call looks for a message that is not overwritten while it is copied.
pub const MAX_ATTEMPTS: u32 = 5;

/// Why no message was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PullError {
    /// Every message that was copied had been overwritten meanwhile.
    #[error(
        "messages are overwritten faster than they are read; receive faster, or create the channel with a larger capacity"
    )]
    Overrun,
    /// The producer wrote something impossible.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
}

/// What a lossy consumer has counted: `received + lost` is the number of the next message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LossyConsumerStats {
    /// Messages handed out, by this consumer and those before it.
    pub received: u64,
    /// Messages that were overwritten before they could be handed out. Counted when the first
    /// message behind them is.
    pub lost: u64,
    /// Payload bytes handed out. May lag after a consumer has died.
    pub bytes: u64,
    /// Times that this end found itself overrun.
    pub overruns: u64,
    /// Times this end went to sleep.
    pub sleeps: u64,
    /// Sleeps that ran out while there was news: the other side had not seen that this one sleeps.
    pub missed: u64,
}

/// What the next message's number may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// Exactly the next one.
    Next,
    /// Not before the next one: this many bytes were jumped over.
    Behind { skipped_bytes: u64 },
    /// Anything: what is settled already is passed over.
    Any,
}

/// How one attempt ended.
enum Look {
    Message(LossyRecord),
    Nothing,
    Overrun,
}

/// The reading end.
#[derive(Debug)]
pub struct LossyConsumer<M> {
    memory: M,
    geometry: LossyGeometry,
    /// The next record to look at. Never read from shared memory but to jump there.
    position: u64,
    expected: Expected,
    /// The first number that was neither handed out nor counted as lost.
    next: u64,
    lost: u64,
    /// The largest intent seen.
    intent: u64,
    settled: Settled,
    /// Where the last jump led.
    landed: u64,
    /// How far from the oldest record the last jump kept.
    distance_bytes: u64,
    /// Records from here on are not believed: the producer is dead.
    end: Option<u64>,
    poison: Option<Corruption>,
    bytes: u64,
    overruns: u64,
    sleeps: u64,
    missed: u64,
    /// `next` when counts were last published.
    counted: u64,
}

impl<M: Memory> LossyConsumer<M> {
    /// Attaches the reading end at the oldest record, and behind what a former consumer has settled.
    ///
    /// The caller sees to it that no other consumer is alive.
    ///
    /// # Errors
    /// [`Corruption`] where the producer's words are impossible.
    pub fn attach(memory: M, geometry: LossyGeometry) -> Result<Self, Corruption> {
        let mut settled = Settled::load(&memory, &geometry);
        settled.mend(&memory, &geometry);
        let count = |word| memory.load_u64(geometry.control(word), Ordering::Relaxed);
        let (bytes, sleeps) = (count(ring::CONSUMER_BYTES), count(ring::CONSUMER_SLEEPS));
        let missed = count(ring::CONSUMER_MISSED);
        // Acquire: pairs with the Release stores in LossyProducer::announce.
        let word = |word| memory.load_u64(geometry.control(word), Ordering::Acquire);
        // In this order, because the producer stores it the other way round: the position is no
        // older than the intent.
        let intent = word(ring::INTENT);
        let position = word(ring::OLDEST);
        if !geometry.is_aligned(position | intent) {
            return Err(Corruption::Intent { found: intent, known: position });
        }
        Ok(Self {
            position,
            expected: Expected::Any,
            next: settled.next,
            lost: settled.lost,
            intent,
            settled,
            landed: position.wrapping_sub(geometry.capacity_bytes()),
            distance_bytes: 0,
            end: None,
            poison: None,
            bytes,
            overruns: 0,
            sleeps,
            missed,
            counted: settled.next,
            memory,
            geometry,
        })
    }

    /// Settles what was taken before, and takes the next message: copies it to the start of `buffer`,
    /// which grows where it must. `None` where there is none yet.
    ///
    /// The producer may overwrite the message meanwhile; what is returned was whole.
    ///
    /// # Errors
    /// [`PullError::Overrun`] after [`MAX_ATTEMPTS`] attempts; nothing has been taken, and nothing
    /// counted. [`PullError::Corrupt`] where the producer wrote something impossible; it latches.
    #[inline]
    pub fn try_take(&mut self, buffer: &mut Vec<u8>) -> Result<Option<LossyRecord>, PullError> {
        self.settle();
        for attempt in 1..=MAX_ATTEMPTS {
            match self.attempt(buffer)? {
                Look::Message(record) => return Ok(Some(record)),
                Look::Nothing => return Ok(None),
                Look::Overrun => self.jump(attempt + 1 >= MAX_ATTEMPTS)?,
            }
        }
        Err(PullError::Overrun)
    }

    /// Looks at the record at our position, over padding and what is settled already.
    #[inline]
    fn attempt(&mut self, buffer: &mut Vec<u8>) -> Result<Look, Corruption> {
        if let Some(corruption) = self.poison {
            return Err(corruption);
        }
        let start = self.position;
        loop {
            let at = self.position;
            if at.wrapping_sub(start) > self.geometry.capacity_bytes() {
                // More than a ring full of what is settled: numbers that were used before.
                let (found, expected) = (self.settled.next, self.next);
                return Err(self.poison(Corruption::Sequence { found, expected, position: at }));
            }
            if self.end.is_some_and(|end| !is_before(at, end)) {
                return Ok(Look::Nothing);
            }
            let offset = self.geometry.offset(at);
            // Pairs with the Release of the commit: number and payload are visible.
            let header = self.memory.load_u64(offset, Ordering::Acquire);
            if header == 0 {
                return Ok(if self.is_overrun()? { Look::Overrun } else { Look::Nothing });
            }
            let (len, tag, end) = match Header::decode(&self.geometry, at, header) {
                Some(Header::Message { len, tag, end }) => (len, tag, end),
                other => {
                    if self.is_overrun()? {
                        return Ok(Look::Overrun);
                    }
                    let Some(Header::Padding { end }) = other else {
                        return Err(self.poison(impossible(&self.geometry, at, header)));
                    };
                    // Padding ends where the buffer does, and there is none at its start.
                    self.position = end;
                    continue;
                }
            };
            let number = self.memory.load_u64(offset + record::HEADER_BYTES, Ordering::Relaxed);
            // Most often so; that it was so is known once we have not been overrun.
            let is_new = self.expected != Expected::Any || !is_before(number, self.next);
            if is_new {
                self.copy_out(offset + PREFIX_BYTES, len as usize, buffer);
            }
            if self.is_overrun()? {
                return Ok(Look::Overrun);
            }
            if !is_new {
                self.position = end;
                continue;
            }
            let lost_before = self.check_number(number, at)?;
            self.position = end;
            self.expected = Expected::Next;
            self.next = number.wrapping_add(1);
            self.lost = self.lost.wrapping_add(lost_before);
            self.bytes = self.bytes.wrapping_add(u64::from(len));
            return Ok(Look::Message(LossyRecord { number, lost_before, len, tag }));
        }
    }

    #[inline]
    fn copy_out(&self, offset: u64, len: usize, buffer: &mut Vec<u8>) {
        if buffer.len() < len {
            grow(buffer, len);
        }
        self.memory.copy_out(offset, &mut buffer[..len]);
    }

    /// Whether what was read at our position before this call may have been overwritten meanwhile.
    #[inline]
    fn is_overrun(&mut self) -> Result<bool, Corruption> {
        // Pairs with the release fence in LossyProducer::announce: if we have seen anything that was
        // written behind it, we see the intent that was stored before it.
        self.memory.acquire_fence();
        let intent = self.memory.load_u64(self.geometry.control(ring::INTENT), Ordering::Relaxed);
        self.note_intent(intent)?;
        Ok(intent.wrapping_sub(self.position) > self.geometry.capacity_bytes())
    }

    /// An intent only grows, and covers every record that is visible.
    #[inline]
    fn note_intent(&mut self, intent: u64) -> Result<(), Corruption> {
        if intent != self.intent {
            let aligned = self.geometry.is_aligned(intent);
            if is_before(intent, self.intent) || !aligned {
                let known = self.intent;
                return Err(self.poison(Corruption::Intent { found: intent, known }));
            }
            self.intent = intent;
        }
        if is_before(intent, self.position) {
            let known = self.position;
            return Err(self.poison(Corruption::Intent { found: intent, known }));
        }
        Ok(())
    }

    /// How many messages were lost before the one with this number, if it can be there.
    #[inline]
    fn check_number(&mut self, number: u64, position: u64) -> Result<u64, Corruption> {
        let ahead = number.wrapping_sub(self.next);
        let possible = match self.expected {
            Expected::Next => ahead == 0,
            // A message takes its prefix at least.
            Expected::Behind { skipped_bytes } => ahead <= skipped_bytes / PREFIX_BYTES,
            Expected::Any => true,
        };
        if possible {
            return Ok(ahead);
        }
        let expected = self.next;
        Err(self.poison(Corruption::Sequence { found: number, expected, position }))
    }

    /// Overrun: goes to a record that is whole. To the oldest one, unless this consumer does not
    /// keep pace; `newest` says that nothing else has helped.
    #[cold]
    fn jump(&mut self, newest: bool) -> Result<(), Corruption> {
        self.overruns = self.overruns.wrapping_add(1);
        let capacity_bytes = self.geometry.capacity_bytes();
        let (eighth, half) = (capacity_bytes / 8, capacity_bytes / 2);
        // Again within a lap of the last time?
        self.distance_bytes = if self.position.wrapping_sub(self.landed) < capacity_bytes {
            (self.distance_bytes * 2).clamp(eighth, half)
        } else {
            0
        };
        let word = |end: &Self, word| {
            // Pairs with the Release stores in LossyProducer::announce.
            end.memory.load_u64(end.geometry.control(word), Ordering::Acquire)
        };
        // The intent first: the producer stores it last, so what is read behind it is no older.
        let intent = word(self, ring::INTENT);
        self.note_intent(intent)?;
        let floor = intent.wrapping_sub(capacity_bytes);
        let oldest = word(self, ring::OLDEST);
        let landmarks: [u64; ring::LANDMARK_COUNT as usize] =
            std::array::from_fn(|n| word(self, ring::LANDMARKS + n as u64 * WORD_BYTES));
        // Whatever is visible at those positions was announced before.
        let intent = word(self, ring::INTENT);
        self.note_intent(intent)?;
        let is_whole = |at: &u64| {
            at.wrapping_sub(floor) <= intent.wrapping_sub(floor) && self.geometry.is_aligned(*at)
        };
        if !is_whole(&oldest) {
            return Err(self.poison(Corruption::Intent { found: oldest, known: floor }));
        }
        let ahead = |at: &u64| at.wrapping_sub(floor);
        let whole = || landmarks.iter().copied().filter(is_whole);
        let target = if newest {
            whole().max_by_key(ahead)
        } else if self.distance_bytes > 0 {
            let far = |at: &u64| ahead(at) >= self.distance_bytes;
            whole().filter(far).min_by_key(ahead).or_else(|| whole().max_by_key(ahead))
        } else {
            None
        };
        let target = target.filter(|at| ahead(at) >= ahead(&oldest)).unwrap_or(oldest);
        let skipped_bytes = target.wrapping_sub(self.position);
        self.expected = match self.expected {
            Expected::Any => Expected::Any,
            Expected::Next => Expected::Behind { skipped_bytes },
            Expected::Behind { skipped_bytes: before } => {
                Expected::Behind { skipped_bytes: before.saturating_add(skipped_bytes) }
            }
        };
        self.position = target;
        self.landed = target;
        Ok(())
    }

    /// Whether [`try_take`](Self::try_take) would say anything but "nothing yet".
    #[inline]
    pub(crate) fn has_something(&self) -> bool {
        // Relaxed: only an attempt acts upon what is there.
        let word = |offset| self.memory.load_u64(offset, Ordering::Relaxed);
        let intent = || word(self.geometry.control(ring::INTENT));
        word(self.geometry.offset(self.position)) != 0
            || intent().wrapping_sub(self.position) > self.geometry.capacity_bytes()
            || self.poison.is_some()
    }

    /// Publishes that the message handed out last is done with, and what was lost before it.
    #[inline]
    pub fn settle(&mut self) {
        if self.next == self.settled.next {
            return;
        }
        self.settled.store(&self.memory, &self.geometry, self.next, self.lost);
        if self.next.wrapping_sub(self.counted) >= MESSAGES_BETWEEN_COUNTS {
            self.publish_counts();
        }
    }

    /// Shows tools how far this end is.
    pub(crate) fn publish_counts(&mut self) {
        self.counted = self.next;
        let store = |word, value| {
            self.memory.store_u64(self.geometry.control(word), value, Ordering::Relaxed);
        };
        store(ring::CONSUMER_MESSAGES, self.next.wrapping_sub(self.lost));
        store(ring::CONSUMER_BYTES, self.bytes);
    }

    /// Counts the sleeps of a wait, and the announcements that the producer did not see.
    pub(crate) fn count_parked(&mut self, [sleeps, missed]: [u32; 2]) {
        if sleeps | missed == 0 {
            return;
        }
        self.sleeps = self.sleeps.wrapping_add(sleeps.into());
        self.missed = self.missed.wrapping_add(missed.into());
        let word = |word| self.geometry.control(word);
        self.memory.store_u64(word(ring::CONSUMER_SLEEPS), self.sleeps, Ordering::Relaxed);
        self.memory.store_u64(word(ring::CONSUMER_MISSED), self.missed, Ordering::Relaxed);
    }

    /// The producer is known to be dead: whatever it had committed lies before what it has announced
    /// until now, and what comes behind is not its own.
    ///
    /// # Errors
    /// [`Corruption`] where the intent is impossible.
    pub(crate) fn producer_died(&mut self) -> Result<(), Corruption> {
        if self.end.is_none() {
            let word = self.geometry.control(ring::INTENT);
            let intent = self.memory.load_u64(word, Ordering::Acquire);
            self.note_intent(intent)?;
            self.end = Some(intent);
        }
        Ok(())
    }

    /// Another producer has come: what it commits is believed.
    pub(crate) fn producer_succeeded(&mut self) {
        self.end = None;
    }

    /// Latches a finding: every later call returns it. Returns the first one.
    #[cold]
    pub fn poison(&mut self, corruption: Corruption) -> Corruption {
        *self.poison.get_or_insert(corruption)
    }

    /// The finding that poisoned this end, if any.
    pub fn poisoned(&self) -> Option<Corruption> {
        self.poison
    }

    /// What this end has counted, on from what a former consumer had settled.
    pub fn stats(&self) -> LossyConsumerStats {
        LossyConsumerStats {
            received: self.next.wrapping_sub(self.lost),
            lost: self.lost,
            bytes: self.bytes,
            overruns: self.overruns,
            sleeps: self.sleeps,
            missed: self.missed,
        }
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
}

/// The buffer grows with the longest message seen, which is at most a quarter of the ring.
#[cold]
fn grow(buffer: &mut Vec<u8>, len: usize) {
    buffer.resize(len.next_power_of_two().max(256), 0);
}
