//! How a receiver attempts, notices and waits.
//!
//! What stands behind every call of [`Receiver`]: attempts on the ring, a look at what lies behind an
//! empty one (death, hand-over, a closed sender), and sleeping until something comes. What always
//! holds: a wait ends when what the look before it acted upon has changed, and no more than a ring
//! full is believed of a dead peer.

use super::Receiver;
use super::call::is_stuck;
use crate::channel::connection::peer;
use crate::channel::sender::{CLOSING_GRACE_NS, Seen};
#[cfg(not(loom))]
use crate::error::TryRecvError;
use crate::error::{Corruption, RecvError};
use crate::layout::ring;
use crate::memory::{Deadline, Memory, Ordering};
use crate::ring::{Record, RecordKind};
use crate::wakeup::{LONGEST_SLEEP_NS, MAX_SLEEP_NS, Parked};

/// Looks at the ring before a wait begins: as long as an answer takes from another processor.
const POLLS: u32 = 128;
/// So many messages without a wait are a stream. A receiver that has caught up with one stays out
/// of the sender's way for a moment (about a microsecond), so that there is more than one message
/// in a line when it reads on: else the two fight for one line, message by message.
const BURST_MESSAGES: u64 = 16;
/// How long that moment is, in spin hints.
const BURST_PAUSES: u32 = 64;

impl<M: Memory> Receiver<M> {
    /// Gives back what was taken before, then looks for the next record.
    #[inline]
    pub(super) fn attempt(&mut self) -> Result<Option<Record>, RecvError> {
        if (!self.consumer.memory().is_ours() || !self.connection.is_alive(self.known))
            && !self.attend()?
        {
            return Ok(None);
        }
        if self.consumer.release() {
            self.wake_producer();
        }
        if let Some(record) = self.consumer.peek_simple() {
            return Ok(Some(record));
        }
        match self.find() {
            Ok(record) => Ok(record),
            // What a dead peer has left may be spoilt; its successor's ring is another.
            Err(_) if self.connection.peer() == peer::SUCCEEDED && self.told => {
                self.follow();
                self.attempt()
            }
            Err(corruption) => Err(self.corrupt(corruption)),
        }
    }

    /// Whether to poll before a closer look: nothing needs attention, and nothing lies aside.
    #[inline]
    fn may_poll(&self) -> bool {
        self.consumer.memory().is_ours()
            && self.connection.is_alive(self.known)
            && self.waiter.polls_first()
            && !self.consumer.is_careful()
    }

    /// Whether something comes at once where the next record would be; as `poll`, for who waits for
    /// a reply while no message does.
    pub(super) fn poll_something(&mut self) -> bool {
        if !self.may_poll() {
            return false;
        }
        if self.consumer.release() {
            self.wake_producer();
        }
        self.consumer.poll_something(POLLS)
    }

    /// The next record if it comes at once; looks at nothing but the ring.
    #[inline]
    pub(super) fn poll(&mut self) -> Option<Record> {
        if !self.may_poll() {
            return None;
        }
        let received = self.consumer.stats().messages;
        let burst = received.wrapping_sub(self.polled_at);
        self.polled_at = received;
        if burst >= BURST_MESSAGES {
            for _ in 0..BURST_PAUSES {
                self.consumer.memory().pause();
            }
        }
        if let Some(record) = self.consumer.poll_simple(POLLS) {
            return Some(record);
        }
        // A call, or a message behind padding, needs no closer look either.
        match self.consumer.peek() {
            Ok(Some(record)) if matches!(record.kind(), RecordKind::Data | RecordKind::Call) => {
                Some(record)
            }
            _ => None,
        }
    }

    #[cold]
    pub(super) fn corrupt(&mut self, corruption: Corruption) -> RecvError {
        self.connection.declare_poisoned();
        RecvError::Corrupt(corruption)
    }

    /// The process has forked, or the peer is dead. Returns whether its ring may still be read.
    #[cold]
    pub(super) fn attend(&mut self) -> Result<bool, RecvError> {
        if !self.consumer.memory().is_ours() {
            return Err(RecvError::Forked);
        }
        self.connection.look_out();
        let era = self.connection.word() & !peer::STATE;
        if era != self.known {
            self.known = era;
            self.last_position = None;
            self.closed_since = None;
            return Err(RecvError::Restarted { reason: self.connection.reason() });
        }
        if self.connection.peer() == peer::SUCCEEDED && !self.told {
            self.told = true;
            return Err(RecvError::Restarted { reason: self.connection.reason() });
        }
        // A forked child of the dead peer may go on writing: no more than a ring full is believed.
        let capacity_bytes = self.consumer.geometry().capacity_bytes();
        let position = self.consumer.position();
        let last = *self.last_position.get_or_insert(position.wrapping_add(capacity_bytes));
        Ok((1..=capacity_bytes).contains(&last.wrapping_sub(position)))
    }

    /// The ring is empty from position `at` on: is that all?
    #[cold]
    pub(super) fn look_behind(&mut self, at: u64) -> Result<Look, RecvError> {
        self.connection.look_out();
        if self.connection.poisoned_by_peer() {
            // Latched: the peer could take its word back.
            return Err(RecvError::Corrupt(self.consumer.poison(Corruption::ByPeer)));
        }
        let (memory, geometry) = (self.consumer.memory(), self.consumer.geometry());
        let word = self.connection.word();
        if word & !peer::STATE != self.known {
            // The next attempt tells.
            return Ok(Look::Again);
        }
        let state = word & peer::STATE;
        // Pairs with the Release in Connection::close_end.
        let closed = memory.load_u32(geometry.control(ring::PRODUCER_CLOSED), Ordering::Acquire);
        let seen = Seen { peer: word, closed };
        if state == peer::ALIVE {
            return if closed == 0 { Ok(Look::Wait(seen)) } else { self.look_closed(seen, at) };
        }
        // The state was set after the death: all that the dead committed is visible now.
        if self.attend()? && matches!(self.consumer.peek_at(at), Ok(Some(_))) {
            return Ok(Look::Again);
        }
        match state {
            peer::GONE => Err(self.disconnected()),
            peer::SUPERSEDED => {
                self.end_partial();
                Err(RecvError::Superseded)
            }
            peer::SUCCEEDED => {
                // Messages that wait while somebody waits for a reply move too.
                self.spill();
                self.follow();
                Ok(Look::Again)
            }
            _ => Ok(Look::Wait(seen)),
        }
    }

    /// Whether the sender has gone, and everything that it had sent has been taken. Takes nothing.
    #[cfg(not(loom))]
    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.try_next(), Err(TryRecvError::Disconnected | TryRecvError::Superseded))
    }

    /// Moves to the next incarnation.
    #[cold]
    pub(super) fn follow(&mut self) {
        let Some((connection, consumer)) = self.connection.take_consumer() else { return };
        self.connection.memory().retire();
        self.connection = connection;
        self.consumer = consumer;
        self.known = peer::ALIVE;
        // Its end would have come in the ring that is left behind.
        self.end_partial();
        self.aside.looked_at = self.consumer.position();
        self.be_careful();
        self.cpu.publish(self.consumer.memory());
        self.told = false;
        self.last_position = None;
        self.closed_since = None;
    }

    /// The ring is empty, the peer lives, and has closed.
    fn look_closed(&mut self, seen: Seen, at: u64) -> Result<Look, RecvError> {
        let now = self.consumer.memory().now_ns();
        // Once more, now that the flag has been seen.
        if matches!(self.consumer.peek_at(at), Ok(Some(_))) {
            return Ok(Look::Again);
        }
        if self.connection.follows() {
            let since = *self.closed_since.get_or_insert(now);
            if now.saturating_sub(since) < CLOSING_GRACE_NS {
                return Ok(Look::Wait(seen));
            }
        }
        Err(self.disconnected())
    }

    /// Nothing will come any more, the rest of a message that was begun neither.
    fn disconnected(&mut self) -> RecvError {
        self.end_partial();
        RecvError::Disconnected
    }

    /// Sleeps until there is a record at position `at` or something else to look at. False at the
    /// deadline.
    #[cold]
    pub(super) fn wait(
        &mut self,
        seen: Seen,
        deadline: Deadline,
        at: u64,
    ) -> Result<bool, RecvError> {
        self.wait_unless(seen, deadline, at, || false)
    }

    /// The same, until somebody in this process has something to say as well, who then wakes.
    #[cold]
    pub(super) fn wait_unless(
        &mut self,
        seen: Seen,
        deadline: Deadline,
        at: u64,
        interrupted: impl Fn() -> bool,
    ) -> Result<bool, RecvError> {
        if deadline.has_passed(self.connection.memory()) {
            return Ok(false);
        }
        let Self { consumer, connection, waiter, cpu, closed_since, keeps, buffer, aside, .. } =
            self;
        consumer.publish_counts();
        let (memory, geometry) = (connection.memory(), *consumer.geometry());
        let closed = geometry.control(ring::PRODUCER_CLOSED);
        // A sender that has closed decides by its exit; do not wait longer than that. One that has
        // taken the close back, which no correct one does, is waited for like any other.
        let until = match closed_since {
            Some(since) if seen.closed != 0 => {
                deadline.min(Deadline::at_ns(since.saturating_add(CLOSING_GRACE_NS)))
            }
            _ => deadline,
        };
        waiter.set_shares_cpu(cpu.refresh(memory));
        // Nobody wakes for what `is_stuck` looks for.
        let is_ahead = at != consumer.position();
        waiter.set_longest_sleep(if is_ahead { MAX_SLEEP_NS } else { LONGEST_SLEEP_NS });
        let mut parked = [0_u32; 2];
        let news = waiter.wait(
            memory,
            geometry.control(ring::CONSUMER_WAITING),
            until,
            || {
                // The next attempt finds out what it is.
                (consumer.has_something_at(at)
                    || is_stuck(consumer, at)
                    || connection.word() != seen.peer
                    || connection.peer_moved()
                    || connection.poisoned_by_peer()
                    || memory.load_u32(closed, Ordering::Relaxed) != seen.closed
                    || interrupted())
                .then_some(())
            },
            |what| {
                parked[what as usize] += 1;
                if what == Parked::Sleeps {
                    keeps.sleeps(buffer, aside);
                }
            },
        );
        consumer.count_parked(parked);
        // The grace of a closed sender may be over before the deadline: look once more.
        Ok(news.is_some() || until != deadline)
    }

    /// For a selector that puts this end to sleep: gives back what long messages have taken.
    pub(in crate::channel) fn shrink(&mut self) {
        self.keeps.shrink(&mut self.buffer, &mut self.aside);
    }

    /// For a selector: looks closely, as an attempt does. What it acted upon where it found nothing,
    /// so that a change can be noticed; `None` where the next attempt returns something.
    pub(in crate::channel) fn look(&mut self) -> Option<Seen> {
        let told = self.told;
        let seen = match self.attempt() {
            Ok(Some(_)) => None,
            Ok(None) => match self.look_behind(self.consumer.position()) {
                Ok(Look::Wait(seen)) => Some(seen),
                Ok(Look::Again) => None,
                Err(error) => self.take_back(error, told),
            },
            Err(error) => self.take_back(error, told),
        };
        self.consumer.publish_counts();
        seen
    }

    /// Errors are told once more by the next attempt, but for a restart, which must not get lost.
    fn take_back(&mut self, error: RecvError, told: bool) -> Option<Seen> {
        if matches!(error, RecvError::Restarted { .. }) {
            self.told = told;
        }
        None
    }

    /// For a selector: a glance, without acting on anything, and at as few lines as possible. Whether
    /// this end is still announced, its ring empty and its sender as `seen` says. What this process
    /// itself knows of the peer is not looked at: whoever changes that wakes, and cannot fail to.
    pub(in crate::channel) fn is_unchanged(&self, seen: Seen) -> bool {
        let (memory, geometry) = (self.consumer.memory(), self.consumer.geometry());
        let load = |word| memory.load_u32(geometry.control(word), Ordering::Relaxed);
        !self.consumer.has_something()
            && load(ring::CONSUMER_WAITING) == 1
            && load(ring::PRODUCER_CLOSED) == seen.closed
    }

    /// For a selector: when this end must be looked at even if nothing changes. A sender that has
    /// closed and may be restarted decides by its exit, for some time.
    pub(in crate::channel) fn look_again_at(&self, seen: Seen) -> Deadline {
        match self.closed_since {
            Some(since) if seen.closed != 0 && seen.peer == peer::ALIVE => {
                Deadline::at_ns(since.saturating_add(CLOSING_GRACE_NS))
            }
            _ => Deadline::NEVER,
        }
    }
}

/// What lies behind an empty ring.
pub(super) enum Look {
    /// Perhaps more: attempt once more.
    Again,
    /// Nothing yet.
    Wait(Seen),
}
