//! One event at a time, for who lends messages on instead of handling them on the spot.
//!
//! Subscribers use it; nobody mixes it with [`Selector::poll`]. What always holds: a message that was
//! found is taken by the [`lend`](Selector::lend) that follows; a receiver that always has something
//! keeps the others waiting for one budget's time.

use std::time::Duration;

use super::slot::State;
use super::{IDLE_NS, IDLE_ROUNDS, Selector};
use crate::channel::Message;
use crate::error::RecvError;
use crate::memory::Deadline;
use crate::os::clock::monotonic_ns;
use crate::ring::Record;

/// Messages of one receiver in a row while others may have some.
const BUDGET: u32 = 32;

/// What was found, and of which receiver.
#[derive(Debug)]
pub(crate) enum Found {
    /// A message, which has not been taken yet.
    Message(usize, Record),
    /// As [`Event::Error`](super::Event::Error).
    Error(usize, RecvError),
}

/// Whose turn it is, and for how long it has been.
#[derive(Debug, Default)]
pub(super) struct Turn {
    token: usize,
    taken: u32,
}

impl Selector {
    /// The next thing that a receiver has to say. Waits for it for at most `timeout`; `None` then, or
    /// where every receiver has ended. Not for receivers that follow their peers to successors.
    #[inline]
    pub(crate) fn find(&mut self, timeout: Duration) -> Option<Found> {
        // Whose turn it is has something more, mostly.
        if self.turn.taken < BUDGET
            && let Some(Some(slot)) = self.slots.get_mut(self.turn.token)
            && matches!(slot.state, State::Awake)
            && let Some(record) = slot.receiver.next_simple()
        {
            self.turn.taken += 1;
            return Some(Found::Message(self.turn.token, record));
        }
        self.find_other(timeout)
    }

    #[inline(never)]
    fn find_other(&mut self, timeout: Duration) -> Option<Found> {
        self.enter();
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let started_ns = monotonic_ns();
        let deadline = Deadline::at_ns(started_ns.saturating_add(timeout_ns));
        let (mut idle_rounds, mut idle_since_ns, mut now_ns) = (0, started_ns, started_ns);
        loop {
            self.rouse(now_ns);
            let found = self.ask();
            if found.is_some() {
                self.leave();
                return found;
            }
            now_ns = monotonic_ns();
            if self.is_finished() || now_ns >= deadline.as_ns() {
                self.leave();
                return None;
            }
            idle_rounds += 1;
            let spins = idle_rounds < IDLE_ROUNDS && now_ns - idle_since_ns < IDLE_NS;
            if spins && self.may_spin() {
                std::hint::spin_loop();
            } else {
                self.sleep(deadline, now_ns);
                now_ns = monotonic_ns();
                (idle_rounds, idle_since_ns) = (0, now_ns);
            }
        }
    }

    /// Asks all that are awake until one has something; it is asked last the next time.
    fn ask(&mut self) -> Option<Found> {
        for _ in 0..self.awake.len() {
            let token = self.awake.pop_front()?;
            let Some(slot) = &mut self.slots[token] else { continue };
            let Some(peeked) = slot.peek() else {
                slot.idle_rounds = slot.idle_rounds.saturating_add(1);
                self.awake.push_back(token);
                continue;
            };
            slot.idle_rounds = 0;
            let has_ended = slot.is_ended();
            match has_ended {
                true => self.live -= 1,
                false => self.awake.push_back(token),
            }
            return Some(match peeked {
                Ok(record) => {
                    self.turn = Turn { token, taken: 1 };
                    Found::Message(token, record)
                }
                Err(error) => Found::Error(token, error),
            });
        }
        None
    }

    /// A copy of the message that was found, which is not taken.
    ///
    /// # Panics
    /// Where there is no such receiver.
    pub(crate) fn look(&mut self, token: usize, record: &Record) -> &[u8] {
        let slot = self.slots[token].as_mut().expect("the receiver that has the message");
        slot.receiver.fetch(record)
    }

    /// The message that was found, and is taken with that.
    ///
    /// # Panics
    /// Where there is no such receiver.
    #[inline]
    pub(crate) fn lend(&mut self, token: usize, record: &Record) -> Message<'_> {
        let slot = self.slots[token].as_mut().expect("the receiver that had the message");
        slot.receiver.lend(record)
    }
}
