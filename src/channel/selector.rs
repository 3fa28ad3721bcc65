//! Many receivers, one thread: fair, with a budget for each.
//!
//! A host reads all its plugins with it. What always holds: in one round no receiver hands out more
//! than its budget, so a plugin that floods its ring costs the others one budget's time; and a
//! selector with nothing to do sleeps.

use std::mem;
use std::time::Duration;

use super::sender::deadline_after;
use super::{Message, Receiver};
use crate::error::{RecvError, TryRecvError};
use crate::layout::ring;
use crate::memory::{Deadline, MappedMemory, Memory, Ordering};
use crate::os::clock;
use crate::wakeup::{MAX_SLEEP_NS, WaitStrategy};

/// Receivers to wait on together. They keep the tokens that [`add`](Self::add) gave them.
#[derive(Debug, Default)]
pub struct Selector {
    slots: Vec<Option<Slot>>,
    /// Where the next round starts, so that nobody is always first.
    next: usize,
    /// Waiting words while it sleeps; kept for its memory.
    words: Vec<(MappedMemory, u64)>,
}

#[derive(Debug)]
struct Slot {
    receiver: Receiver,
    /// An error that ends the channel has been told; it is not asked again.
    ended: bool,
}

/// What a receiver had to say.
#[derive(Debug)]
pub enum Event<'a> {
    /// A message.
    Message(Message<'a>),
    /// An error. After [`RecvError::Restarted`] and after messages of the wrong shape the receiver
    /// goes on; after any other it has ended and is not asked again.
    Error(RecvError),
}

/// How long a selector polls before it sleeps, in rounds without an event.
const IDLE_ROUNDS: u32 = 200;

impl Selector {
    /// A selector without receivers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a receiver. Returns its token: the smallest number not in use.
    pub fn add(&mut self, receiver: Receiver) -> usize {
        let slot = Some(Slot { receiver, ended: false });
        // Now, so that no sleep has to.
        self.words.reserve(self.slots.len() + 1);
        match self.slots.iter().position(Option::is_none) {
            Some(token) => {
                self.slots[token] = slot;
                token
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        }
    }

    /// Gives a receiver back.
    pub fn remove(&mut self, token: usize) -> Option<Receiver> {
        Some(self.slots.get_mut(token)?.take()?.receiver)
    }

    /// Number of receivers.
    pub fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Whether there is no receiver.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every receiver has ended: nothing will ever come again.
    pub fn is_finished(&self) -> bool {
        self.slots.iter().flatten().all(|slot| slot.ended)
    }

    /// Hands out what is there: up to `budget` messages of each receiver, in turn. Waits for at most
    /// `timeout` where there is nothing. Returns how many events it handed out: 0 after the timeout,
    /// or at once where every receiver has ended.
    pub fn poll(
        &mut self,
        budget: usize,
        timeout: Duration,
        mut each: impl FnMut(usize, Event<'_>),
    ) -> usize {
        let Some(slot) = self.slots.iter().flatten().next() else { return 0 };
        let deadline = deadline_after(slot.receiver.consumer.memory(), timeout);
        let spins = self.slots.iter().flatten().any(|slot| slot.receiver.may_spin());
        let mut idle_rounds = 0;
        loop {
            let events = self.round(budget, &mut each);
            if events > 0 || self.is_finished() {
                return events;
            }
            idle_rounds += 1;
            if clock::monotonic_ns() >= deadline.as_ns() {
                return 0;
            }
            if spins && idle_rounds < IDLE_ROUNDS {
                std::hint::spin_loop();
            } else {
                self.sleep(deadline);
            }
        }
    }

    /// One turn over all receivers.
    fn round(&mut self, budget: usize, each: &mut impl FnMut(usize, Event<'_>)) -> usize {
        let len = self.slots.len();
        let start = self.next % len.max(1);
        self.next = start + 1;
        let mut events = 0;
        for token in (start..len).chain(0..start) {
            if let Some(slot) = self.slots[token].as_mut().filter(|slot| !slot.ended) {
                events += slot.hand_out(budget, &mut |event| each(token, event));
            }
        }
        events
    }

    /// Announces itself on all waiting words, looks once more, and sleeps on all of them.
    fn sleep(&mut self, deadline: Deadline) {
        let mut words = mem::take(&mut self.words);
        let mut fenced = [false; 2];
        for slot in self.slots.iter().flatten().filter(|slot| !slot.ended) {
            let consumer = &slot.receiver.consumer;
            let waiting = consumer.geometry().control(ring::CONSUMER_WAITING);
            // As in wakeup::park: announce, fence, look, sleep.
            consumer.memory().store_u32(waiting, 1, Ordering::Relaxed);
            words.push((consumer.memory().clone(), waiting));
        }
        for (memory, _) in &words {
            let seen = &mut fenced[(memory.fence_mode() as usize) % 2];
            if !mem::replace(seen, true) {
                memory.heavy_fence();
            }
        }
        if !self.slots.iter_mut().flatten().any(Slot::has_news) {
            for slot in self.slots.iter_mut().flatten().filter(|slot| !slot.ended) {
                slot.receiver.consumer.count_sleep();
            }
            let slice = Deadline::at_ns(clock::monotonic_ns().saturating_add(MAX_SLEEP_NS));
            MappedMemory::wait_any_u32(&words, 1, deadline.min(slice));
        }
        for (memory, waiting) in &words {
            memory.store_u32(*waiting, 0, Ordering::Relaxed);
        }
        words.clear();
        self.words = words;
    }
}

impl Slot {
    /// Up to `budget` messages, or one error.
    fn hand_out(&mut self, budget: usize, each: &mut impl FnMut(Event<'_>)) -> usize {
        for handed_out in 0..budget {
            let error = match self.receiver.try_recv() {
                Ok(message) => {
                    each(Event::Message(message));
                    continue;
                }
                Err(error) => error,
            };
            let error = match error {
                TryRecvError::Empty => return handed_out,
                TryRecvError::Mismatch { found, expected } => {
                    RecvError::Mismatch { found, expected }
                }
                TryRecvError::Invalid => RecvError::Invalid,
                TryRecvError::Disconnected => RecvError::Disconnected,
                TryRecvError::Corrupt(corruption) => RecvError::Corrupt(corruption),
                TryRecvError::Forked => RecvError::Forked,
                TryRecvError::Restarted { reason } => RecvError::Restarted { reason },
            };
            self.ended = !matches!(error, RecvError::Restarted { .. });
            each(Event::Error(error));
            return handed_out + 1;
        }
        budget
    }

    /// Whether a look at this receiver would not come back empty.
    fn has_news(&mut self) -> bool {
        !self.ended && self.receiver.has_news()
    }
}

impl Receiver {
    /// Whether this end may spin before it sleeps.
    pub(super) fn may_spin(&self) -> bool {
        !self.cpu.is_shared(self.consumer.memory()) && self.waiter.strategy() != WaitStrategy::Park
    }

    /// Whether the next attempt would return something; gives back what was taken before.
    pub(super) fn has_news(&mut self) -> bool {
        match self.try_next() {
            Ok(_) => true,
            Err(TryRecvError::Empty) => false,
            // Told once more by the next attempt, but for a restart, which must not get lost.
            Err(TryRecvError::Restarted { .. }) => {
                self.told = false;
                true
            }
            Err(_) => true,
        }
    }
}
