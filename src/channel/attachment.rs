//! Peers that nobody has started: who they are, and that one takes another's place.
//!
//! A side of a named channel can be attached again after its process has gone, in the same segment.
//! The ends of the other side call this whenever there is nothing else to do: it notices that the
//! side was attached, and has the process watched.
//! What always holds: one look costs a bounded amount of work, whatever the peer writes; and an end is
//! told once of each process that was seen to take another's place.
//!
//! # Who finds out what
//!
//! ```text
//! successor                                    survivor
//! writes who it is, counts the attachment      an end looks: the count is not the one that is
//! state, closed words                          watched: watch the new one, next era (`ALIVE`)
//! wakes both ends of the survivor              the lookout learns of a death: `GONE`, if that one is
//!                                              still the one that is watched
//! ```
//!
//! The order in which a death and a successor are noticed does not matter: a death counts for the
//! attachment that it was watched as, and for no other.

use super::connection::{Connection, peer};
use crate::layout::{ring, side};
use crate::memory::{Memory, Ordering};
use crate::wakeup;

/// Watches strangers, on behalf of a connection.
pub(crate) trait Lookout: Send + Sync {
    /// Watches the process that has attached the peer's side as number `attaches`, instead of any
    /// before; calls [`Connection::stranger_died`] once it has died. False where it is dead already.
    fn watch(&self, attaches: u32) -> bool;
    /// Whether the name of the segment still means it.
    fn is_current(&self) -> bool;
    /// The last end closes; the side does not say so yet.
    fn leaving(&self);
    /// The last end has closed: gives the side back.
    fn left(&self);
}

impl<M: Memory> Connection<M> {
    /// With somebody who watches strangers, before anybody uses the connection.
    pub(crate) fn watched_by(mut self, lookout: Box<dyn Lookout>) -> Self {
        self.lookout = Some(lookout);
        self
    }

    /// Looks who has the peer's side already, before the ends are made: nobody need be told of what
    /// was before.
    pub(crate) fn look_first(&self) {
        let attaches = self.peer_attaches();
        self.watched.store(attaches, Ordering::Relaxed);
        if let Some(lookout) = self.lookout.as_ref().filter(|_| attaches != 0)
            && !lookout.watch(attaches)
        {
            self.stranger_died(attaches);
        }
    }

    /// Whether the peer is a stranger, who may be followed by another.
    pub(crate) fn is_open_to_strangers(&self) -> bool {
        self.lookout.is_some()
    }

    /// Whether a stranger was ever seen at the other side.
    pub(crate) fn has_seen_somebody(&self) -> bool {
        self.watched.load(Ordering::Relaxed) != 0
    }

    /// Whether somebody has attached the peer's side whom `look_out` has not seen yet.
    #[inline]
    pub(crate) fn peer_moved(&self) -> bool {
        self.lookout.is_some() && self.peer_attaches() != self.watched.load(Ordering::Relaxed)
    }

    /// How often the peer's side was attached.
    pub(crate) fn peer_attaches(&self) -> u32 {
        // Pairs with the Release of whoever attaches: who it is is visible.
        self.memory().load_u32(self.attaches_word(), Ordering::Acquire)
    }

    /// Offset of the word that changes when somebody attaches the peer's side.
    pub(crate) fn attaches_word(&self) -> u64 {
        side::LINE[1 - self.side()] + side::ATTACHES
    }

    /// Looks whether somebody has attached the peer's side, and has him watched.
    #[cold]
    pub(crate) fn look_out(&self) {
        let Some(lookout) = self.lookout.as_ref().filter(|_| self.peer_moved()) else { return };
        let attaches = self.peer_attaches();
        if !self.note_attached(attaches) {
            return;
        }
        if !lookout.watch(attaches) {
            self.stranger_died(attaches);
        }
        // The other end may sleep, and what it has seen of the peer is no longer so.
        self.wake_ends();
    }

    /// Tells the ends that the stranger who attached as number `attaches` has died, unless another
    /// one has been seen since: its death may be noticed late.
    pub(crate) fn stranger_died(&self, attaches: u32) {
        let fate = self.fate();
        // Relaxed: changes under this lock only.
        let current = self.watched.load(Ordering::Relaxed) == attaches;
        let word = self.word();
        if current && word & peer::STATE == peer::ALIVE {
            // As in `peer_died`.
            self.peer.store(word | peer::GONE, Ordering::Release);
        }
        drop(fate);
        self.wake_ends();
    }

    /// Whether the name of the channel still means it; true where it has none.
    pub(crate) fn is_current(&self) -> bool {
        self.lookout.as_ref().is_none_or(|lookout| lookout.is_current())
    }

    /// Whether somebody is at the other side, as far as is known.
    pub(crate) fn has_peer(&self) -> bool {
        self.peer() == peer::ALIVE && self.peer_shows() == side::ATTACHED
    }

    /// Tells the ends that nobody is at the other side, and that nobody will come: the name means
    /// another segment, or none.
    pub(crate) fn supersede(&self) {
        let fate = self.fate();
        let word = self.word();
        if matches!(word & peer::STATE, peer::ALIVE | peer::GONE) {
            // As in `peer_died`.
            self.peer.store(word & !peer::STATE | peer::SUPERSEDED, Ordering::Release);
        }
        drop(fate);
        self.wake_ends();
    }

    /// Notes that the stranger who attached as number `attaches` has the peer's place now. False
    /// where that is known already. A new era begins, unless nobody ever had the place before.
    fn note_attached(&self, attaches: u32) -> bool {
        let _fate = self.fate();
        // Relaxed: changes under this lock only; `peer_moved` looks without it, and only hints.
        let known = self.watched.load(Ordering::Relaxed);
        if known == attaches {
            return false;
        }
        self.watched.store(attaches, Ordering::Relaxed);
        if attaches != 1 {
            let word = self.word() & !peer::STATE;
            // As in `peer_died`.
            self.peer.store(word.wrapping_add(peer::ERA) | peer::ALIVE, Ordering::Release);
        }
        true
    }

    /// After this side has been attached: wakes whoever sleeps at the other.
    pub(crate) fn announce(&self) {
        wakeup::wake_always(self.memory(), self.outgoing().control(ring::CONSUMER_WAITING));
        wakeup::wake_always(self.memory(), self.incoming().control(ring::PRODUCER_WAITING));
    }
}
