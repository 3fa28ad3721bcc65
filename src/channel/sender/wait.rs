//! How a sender attempts, notices and waits.
//!
//! What stands behind every call of [`Sender`]: attempts on the ring, a look at everything beside it
//! (fork, death, hand-over, a closed receiver), and sleeping for room. What always holds: a wait ends
//! when what the attempt before it acted upon has changed.

use super::Sender;
use crate::channel::connection::peer;
use crate::error::{Corruption, SendError};
use crate::layout::ring;
use crate::memory::{Deadline, Memory, Ordering};
use crate::ring::{Producer, PushError};
use crate::wakeup;

/// How long an end waits for news of a plugin that has closed its end: most plugins that close are
/// about to exit, and their exit decides whether a successor comes.
pub(in crate::channel) const CLOSING_GRACE_NS: u64 = 500_000_000;

impl<M: Memory> Sender<M> {
    /// One attempt at something that needs room.
    #[inline]
    pub(super) fn attempt<T>(
        &mut self,
        push: impl FnOnce(&mut Producer<M>) -> Result<T, PushError>,
    ) -> Result<Attempt<T>, SendError> {
        let seen = if self.needs_attention() {
            self.attend()?
        } else {
            Seen { peer: self.known, closed: 0 }
        };
        if self.owes_abort {
            if let Err(error) = self.producer.try_push_abort() {
                let head_needed = self.classify(error)?;
                return Ok(Attempt::Full { head_needed, seen });
            }
            (self.owes_abort, self.attention) = (false, false);
        }
        match push(&mut self.producer) {
            Ok(done) => Ok(Attempt::Done(done)),
            Err(error) => {
                self.classify(error).map(|head_needed| Attempt::Full { head_needed, seen })
            }
        }
    }

    /// Attempts until there is room, or the deadline has passed (`None`).
    #[inline]
    pub(in crate::channel) fn by<T>(
        &mut self,
        deadline: Deadline,
        mut push: impl FnMut(&mut Producer<M>) -> Result<T, PushError>,
    ) -> Result<Option<T>, SendError> {
        let mut last = false;
        loop {
            match self.attempt(&mut push)? {
                Attempt::Done(done) => return Ok(Some(done)),
                Attempt::Full { head_needed, seen } => {
                    if last || !self.wait_for_room(head_needed, seen, deadline)? {
                        return Ok(None);
                    }
                }
            }
            // A peer can end every wait at once by changing what is waited for, for ever.
            last = deadline.has_passed(self.producer.memory());
        }
    }

    /// What a failed push means: a head to wait for, or the end.
    #[cold]
    pub(super) fn classify(&mut self, error: PushError) -> Result<u64, SendError> {
        match error {
            PushError::Full { head_needed } => {
                // Who is to make room may have gone, or have come.
                self.connection.look_out();
                Ok(head_needed)
            }
            PushError::TooLong { len, max } => Err(SendError::TooLong { len, max }),
            PushError::Corrupt(corruption) => {
                self.connection.declare_poisoned();
                Err(SendError::Corrupt(corruption))
            }
        }
    }

    /// Whether anything but the ring must be looked at.
    #[inline(always)]
    pub(in crate::channel) fn needs_attention(&self) -> bool {
        let memory = self.producer.memory();
        !memory.is_ours()
            || !self.connection.is_alive(self.known)
            || self.attention
            || memory.load_u32(self.closed_word(), Ordering::Relaxed) != 0
    }

    #[inline]
    fn closed_word(&self) -> u64 {
        self.producer.geometry().control(ring::CONSUMER_CLOSED)
    }

    /// Looks at everything but the ring. Returns what it has seen and found no reason to stop in: a
    /// wait ends when that changes.
    #[cold]
    pub(super) fn attend(&mut self) -> Result<Seen, SendError> {
        if !self.producer.memory().is_ours() {
            return Err(SendError::Forked);
        }
        self.connection.look_out();
        while self.connection.peer() == peer::SUCCEEDED && self.untold.is_none() {
            self.follow();
        }
        let word = self.connection.word();
        if word & !peer::STATE != self.known {
            self.known = word & !peer::STATE;
            self.closed_since = None;
            self.untold = Some(self.connection.reason());
        }
        if let Some(reason) = self.untold.take() {
            self.attention = self.owes_abort;
            return Err(SendError::Restarted { reason });
        }
        if let Some(corruption) = self.producer.poisoned() {
            return Err(SendError::Corrupt(corruption));
        }
        // Pairs with the Release in Connection::close_end.
        let closed = self.producer.memory().load_u32(self.closed_word(), Ordering::Acquire);
        match word & peer::STATE {
            peer::GONE => return Err(SendError::Disconnected),
            peer::SUPERSEDED => return Err(SendError::Superseded),
            peer::ALIVE if closed != 0 => self.attend_closed()?,
            _ => {}
        }
        Ok(Seen { peer: word, closed })
    }

    /// The receiver has closed, or seems to have.
    fn attend_closed(&mut self) -> Result<(), SendError> {
        if self.connection.poisoned_by_peer() {
            // Latched: the peer could take its word back.
            self.producer.poison(Corruption::ByPeer);
            return Err(SendError::Corrupt(Corruption::ByPeer));
        }
        if !self.connection.follows() {
            return Err(SendError::Disconnected);
        }
        let now = self.producer.memory().now_ns();
        let since = *self.closed_since.get_or_insert(now);
        if now.saturating_sub(since) < CLOSING_GRACE_NS {
            return Ok(());
        }
        Err(SendError::Disconnected)
    }

    /// Moves to the newest incarnation, with all that the former ones left unread.
    #[cold]
    fn follow(&mut self) {
        while self.connection.peer() == peer::SUCCEEDED {
            let reason = self.connection.reason();
            let Some((connection, producer)) = self.connection.take_producer() else { return };
            self.connection.memory().retire();
            self.connection = connection;
            self.producer = producer;
            self.known = peer::ALIVE;
            self.cpu.publish(self.producer.memory());
            self.closed_since = None;
            self.untold = Some(reason);
            self.attention = true;
            self.wake_consumer();
        }
    }

    /// After a commit: wakes the receiver if it sleeps, and notices a hand-over that ran meanwhile.
    #[inline]
    pub(in crate::channel) fn notify(&mut self) {
        self.wake_consumer();
        // Ordered behind the commit by the fence in there; see Connection::succeed.
        if self.connection.peer() == peer::SUCCEEDED {
            self.follow();
        }
    }

    #[inline]
    fn wake_consumer(&mut self) {
        let waiting = self.producer.geometry().control(ring::CONSUMER_WAITING);
        if wakeup::wake_if_waiting(self.producer.memory(), waiting) {
            self.producer.count_wakeup();
        }
    }

    /// Sleeps until the consumer has released up to `head_needed`, or something else has happened
    /// that another attempt will notice. False at the deadline.
    #[cold]
    fn wait_for_room(
        &mut self,
        head_needed: u64,
        seen: Seen,
        deadline: Deadline,
    ) -> Result<bool, SendError> {
        if deadline.has_passed(self.connection.memory()) {
            return Ok(false);
        }
        let Self { producer, connection, waiter, cpu, closed_since, .. } = self;
        if connection.poisoned_by_peer() {
            producer.poison(Corruption::ByPeer);
            return Err(SendError::Corrupt(Corruption::ByPeer));
        }
        let (memory, geometry) = (connection.memory(), *producer.geometry());
        let closed = geometry.control(ring::CONSUMER_CLOSED);
        // A receiver that has closed decides by its exit; do not wait longer than that.
        let until = match closed_since {
            Some(since) if seen.closed != 0 => {
                deadline.min(Deadline::at_ns(since.saturating_add(CLOSING_GRACE_NS)))
            }
            _ => deadline,
        };
        // Relaxed: the fence that follows our announcement orders it; its partner is the load in
        // Receiver::wake_waiting_producer.
        memory.store_u64(geometry.control(ring::SPACE_WANTED), head_needed, Ordering::Relaxed);
        let waiting = geometry.control(ring::PRODUCER_WAITING);
        waiter.set_shares_cpu(cpu.refresh(memory));
        let mut parked = [0_u32; 2];
        let news = waiter.wait(
            memory,
            waiting,
            until,
            || match producer.has_room(head_needed) {
                Ok(true) => Some(Ok(())),
                Err(corruption) => Some(Err(corruption)),
                Ok(false) => (connection.word() != seen.peer
                    || connection.peer_moved()
                    || connection.poisoned_by_peer()
                    || memory.load_u32(closed, Ordering::Relaxed) != seen.closed)
                    .then_some(Ok(())),
            },
            |what| parked[what as usize] += 1,
        );
        producer.count_parked(parked);
        match news {
            Some(Ok(())) => Ok(true),
            Some(Err(corruption)) => {
                self.connection.declare_poisoned();
                Err(SendError::Corrupt(corruption))
            }
            // The grace of a closed receiver may be over before the deadline: attempt once more.
            None => Ok(until != deadline),
        }
    }
}

/// How one attempt ended.
pub(super) enum Attempt<T> {
    Done(T),
    /// No room until the consumer has released up to `head_needed`.
    Full {
        head_needed: u64,
        seen: Seen,
    },
}

/// What an attempt has seen of the peer and found no reason to stop in: the word that is known of it,
/// and the word in which it says that its end is closed. A wait must end when it
/// changes, and "changes" is measured against what was acted upon, not against a second look: what
/// happened between the two would be slept through.
#[derive(Debug, Clone, Copy)]
pub(in crate::channel) struct Seen {
    pub(in crate::channel) peer: u32,
    pub(in crate::channel) closed: u32,
}
