//! One receiver of a selector, and where it stands.
//!
//! The selector asks it for messages, and announces it when it has none.
//! What always holds: a slot that has ended is never asked again; one whose channel is corrupt and
//! may get a successor stays until that has come, or will not come any more.

use std::ops::ControlFlow;

use super::Event;
use super::watch::ANNOUNCED;
use crate::channel::connection::peer;
use crate::channel::sender::Seen;
use crate::channel::{Behind, Receiver};
use crate::error::{RecvError, TryRecvError};
use crate::layout::ring;
use crate::memory::{Deadline, MappedMemory, Memory, Ordering};
use crate::ring::Record;
use crate::wakeup::WaitStrategy;

/// Behind an error.
const NOTHING: Behind = Behind { end: 0, is_new: false };

/// See the module.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) receiver: Receiver,
    pub(super) state: State,
    /// Corruption has been told, and a successor may still come.
    spoilt: bool,
    /// Whether it stands in the selector's list of those to look at again soon.
    pub(super) is_unsure: bool,
    /// Rounds since it last had something.
    pub(super) idle_rounds: u32,
}

/// | state | meaning | next |
/// |---|---|---|
/// | `Awake` | asked in every round | `Asleep` when idle, `Ended` |
/// | `Asleep` | its word is announced and being waited for | `Awake` when it was woken, has changed, or is removed |
/// | `Ended` | never asked again | |
#[derive(Debug)]
pub(super) enum State {
    Awake,
    Asleep(Sleep),
    Ended,
}

/// What is known of a slot that sleeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sleep {
    /// Number of the wait.
    pub(super) id: u64,
    pub(super) seen: Seen,
    /// When to look even if nothing changes.
    pub(super) due: Deadline,
}

impl Slot {
    pub(super) fn new(receiver: Receiver) -> Self {
        Self { receiver, state: State::Awake, spoilt: false, is_unsure: false, idle_rounds: 0 }
    }

    pub(super) fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    pub(super) fn sleep(&self) -> Option<Sleep> {
        match self.state {
            State::Asleep(sleep) => Some(sleep),
            _ => None,
        }
    }

    /// Up to `budget` messages, or one error. Returns how many events that were. `each` is told
    /// where the message ends, and tells whether it wants more of this receiver now.
    /// Who `lingers` looks, behind a message, as long for the next one as one comes at once.
    pub(super) fn hand_out(
        &mut self,
        budget: usize,
        lingers: bool,
        each: &mut impl FnMut(Event<'_>, Behind) -> ControlFlow<()>,
    ) -> usize {
        if self.spoilt {
            match self.receiver.connection.peer() {
                peer::SUCCEEDED => self.spoilt = false,
                peer::GONE | peer::SUPERSEDED => {
                    let _ = each(Event::Error(RecvError::Disconnected), NOTHING);
                    self.state = State::Ended;
                    return 1;
                }
                _ => return 0,
            }
        }
        for handed_out in 0..budget {
            if lingers && handed_out > 0 {
                match self.receiver.recv_at_once() {
                    Some((message, behind)) => {
                        if each(Event::Message(message), behind).is_break() {
                            return handed_out + 1;
                        }
                        continue;
                    }
                    None => return handed_out,
                }
            }
            let error = match self.receiver.try_recv_at() {
                Ok((message, behind)) => {
                    if each(Event::Message(message), behind).is_break() {
                        return handed_out + 1;
                    }
                    continue;
                }
                Err(error) => error,
            };
            let Some(error) = told(error) else { return handed_out };
            let ends = self.note(error);
            let _ = each(Event::Error(error), NOTHING);
            // Behind it: where `each` panics, the error is told again.
            if ends {
                self.state = State::Ended;
            }
            return handed_out + 1;
        }
        budget
    }

    /// Notes an error that the receiver has told. Whether it ends it.
    fn note(&mut self, error: RecvError) -> bool {
        let spoilt = matches!(error, RecvError::Corrupt(_)) && self.receiver.connection.follows();
        self.spoilt |= spoilt;
        !spoilt && !matches!(error, RecvError::Restarted { .. })
    }

    /// What is there, without taking it if it is a message. For receivers whose peers have no
    /// successors.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<Result<Record, RecvError>> {
        match self.receiver.try_next() {
            Ok(record) => Some(Ok(record)),
            Err(error) => {
                let error = told(error)?;
                if self.note(error) {
                    self.state = State::Ended;
                }
                Some(Err(error))
            }
        }
    }

    /// Its waiting word.
    pub(super) fn word(&self) -> (&MappedMemory, u64) {
        let consumer = &self.receiver.consumer;
        (consumer.memory(), consumer.geometry().control(ring::CONSUMER_WAITING))
    }

    /// Says in the ring whether the sender is to wake us.
    pub(super) fn announce(&self, waiting: bool) {
        let (memory, word) = self.word();
        if memory.is_ours() {
            // As in wakeup::park; the caller fences.
            memory.store_u32(word, u32::from(waiting), Ordering::Relaxed);
        }
    }

    /// Looks closely. What was seen and until when that holds; `None` where there is something.
    pub(super) fn look(&mut self) -> Option<(Seen, Deadline)> {
        if self.spoilt {
            let peer = self.receiver.connection.peer();
            let waits = !matches!(peer, peer::GONE | peer::SUCCEEDED | peer::SUPERSEDED);
            return waits.then_some((Seen { peer, closed: 0 }, Deadline::NEVER));
        }
        let seen = self.receiver.look()?;
        Some((seen, self.receiver.look_again_at(seen)))
    }

    /// A glance at a slot that sleeps: whether nothing has changed, and it is still announced.
    pub(super) fn is_quiet(&self, seen: Seen) -> bool {
        if self.spoilt {
            let (memory, word) = self.word();
            return memory.load_u32(word, Ordering::Relaxed) == ANNOUNCED;
        }
        self.receiver.is_unchanged(seen)
    }

    /// Before it sleeps.
    pub(super) fn count_sleep(&mut self) {
        let receiver = &mut self.receiver;
        receiver.consumer.count_parked([1, 0]);
        receiver.cpu.refresh(receiver.consumer.memory());
        receiver.shrink();
    }

    /// After a look at a slot that sleeps has found something of which nobody woke it.
    pub(super) fn count_missed(&mut self) {
        let (memory, word) = self.word();
        // Relaxed: a count.
        let missed = memory.load_u32(word, Ordering::Relaxed) == ANNOUNCED;
        self.receiver.consumer.count_parked([0, missed.into()]);
    }

    /// Whether polling for it can pay off.
    pub(super) fn may_spin(&self) -> bool {
        let receiver = &self.receiver;
        !receiver.cpu.is_shared(receiver.consumer.memory())
            && receiver.waiter.strategy() != WaitStrategy::Park
    }
}

/// What there is to tell, if anything.
fn told(error: TryRecvError) -> Option<RecvError> {
    Some(match error {
        TryRecvError::Empty => return None,
        TryRecvError::Mismatch { found, expected } => RecvError::Mismatch { found, expected },
        TryRecvError::Invalid => RecvError::Invalid,
        TryRecvError::Disconnected => RecvError::Disconnected,
        TryRecvError::Superseded => RecvError::Superseded,
        TryRecvError::Corrupt(corruption) => RecvError::Corrupt(corruption),
        TryRecvError::Forked => RecvError::Forked,
        TryRecvError::Restarted { reason } => RecvError::Restarted { reason },
    })
}
