//! One incarnation of a channel, as one of its two processes sees it.
//!
//! Both ends of a side share it: the memory, the geometry of both rings, and what this process
//! knows of the peer. The supervisor and the host write that knowledge; the ends look at one
//! process-local word on every call. What always holds: nothing in that word comes from shared
//! memory, so a peer cannot forge its own death, or its successor.

use std::fmt;
use std::sync::{Arc, PoisonError, Weak};

use super::attachment::Lookout;
use super::calls::Calls;
use super::carry::{CarryReport, carry, drop_record};
use crate::error::{Corruption, ExitReason};
use crate::layout::{ring, side};
use crate::memory::{Memory, Ordering, SharedMemory};
use crate::ring::{Consumer, Producer, RingGeometry};
use crate::sync::{AtomicU32, Condvar, Mutex, MutexGuard};
use crate::wakeup;

/// What this process knows of the peer: the low byte of a process-local word, whose upper bytes count
/// the processes that were seen to take the peer's place in the same segment (its *era*).
///
/// | value | meaning | who sets it |
/// |---|---|---|
/// | `ALIVE` | not known to be dead | initially |
/// | `GONE` | dead, or given up; no successor known | supervisor or host, from `ALIVE`, `AWAITED` |
/// | `AWAITED` | dead; a successor is being started | supervisor or host, from `ALIVE` |
/// | `SUCCEEDED` | dead; the ends must move to the successor | host, once |
/// | `SUPERSEDED` | absent or gone; the name means another segment or none, so nobody will come | supervisor, from `ALIVE`, `GONE` |
pub(crate) mod peer {
    pub(crate) const ALIVE: u32 = 0;
    pub(crate) const GONE: u32 = 1;
    pub(crate) const AWAITED: u32 = 2;
    pub(crate) const SUCCEEDED: u32 = 3;
    pub(crate) const SUPERSEDED: u32 = 4;

    /// The state in a word.
    pub(crate) const STATE: u32 = 0xff;
    /// One era later.
    pub(crate) const ERA: u32 = 0x100;
}

/// See the module.
pub(crate) struct Connection<M: Memory = SharedMemory> {
    memory: M,
    rings: [RingGeometry; 2],
    /// 0 = creator, 1 = attacher.
    side: usize,
    pub(super) peer: AtomicU32,
    /// 1 where the host starts successors.
    follows: AtomicU32,
    /// Ends of this side that are still open.
    open_ends: AtomicU32,
    /// Where the peer is a stranger: who watches it, and as which attachment of its side.
    pub(super) lookout: Option<Box<dyn Lookout>>,
    pub(super) watched: AtomicU32,
    fate: Mutex<Fate<M>>,
    settled: Condvar,
    /// For the two ends that are made on this incarnation; they keep it when they move on.
    calls: Arc<Calls>,
}

pub(super) struct Fate<M: Memory> {
    reason: ExitReason,
    /// The incarnation whose successor this is, while its ends may still be on their way.
    former: Weak<Connection<M>>,
    successor: Option<Succession<M>>,
    /// Ends of this side that are gone, and will not move to the successor.
    dropped: [bool; 2],
    /// What lasts as long as an end of this side is there.
    #[cfg(not(loom))]
    kept: Vec<Box<dyn fmt::Debug + Send>>,
}

/// An end of a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Sender,
    Receiver,
}

/// What the ends find when they move to the next incarnation.
struct Succession<M: Memory> {
    connection: Arc<Connection<M>>,
    producer: Option<Producer<M>>,
    consumer: Option<Consumer<M>>,
    /// Reads the old outgoing ring from where the hand-over stopped.
    rest: Option<Consumer<M>>,
}

impl<M: Memory> fmt::Debug for Connection<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("side", &self.side)
            .field("peer", &self.peer())
            .field("rings", &self.rings)
            .finish_non_exhaustive()
    }
}

impl<M: Memory> Connection<M> {
    pub(crate) fn new(memory: M, rings: [RingGeometry; 2], side: usize) -> Self {
        Self {
            memory,
            rings,
            side,
            peer: AtomicU32::new(peer::ALIVE),
            follows: AtomicU32::new(0),
            open_ends: AtomicU32::new(2),
            lookout: None,
            watched: AtomicU32::new(0),
            fate: Mutex::new(Fate {
                reason: ExitReason::Unknown,
                former: Weak::new(),
                successor: None,
                dropped: [false; 2],
                #[cfg(not(loom))]
                kept: Vec::new(),
            }),
            settled: Condvar::new(),
            calls: Arc::default(),
        }
    }

    /// The calls of the ends that are made on this incarnation.
    pub(crate) fn calls(&self) -> &Arc<Calls> {
        &self.calls
    }

    #[inline]
    pub(crate) fn memory(&self) -> &M {
        &self.memory
    }

    /// The ring that this side writes.
    pub(crate) fn outgoing(&self) -> &RingGeometry {
        &self.rings[self.side]
    }

    /// The ring that this side reads.
    pub(crate) fn incoming(&self) -> &RingGeometry {
        &self.rings[1 - self.side]
    }

    /// 0 for the creator, 1 for the attacher.
    pub(crate) fn side(&self) -> usize {
        self.side
    }

    /// What is known of the peer; see [`peer`].
    #[inline]
    pub(crate) fn peer(&self) -> u32 {
        self.word() & peer::STATE
    }

    /// The same, with the era.
    #[inline]
    pub(crate) fn word(&self) -> u32 {
        // Pairs with the Release in `peer_died`, `peer_returned` and `succeed`: what the dead peer had
        // committed is visible to whoever has seen its death.
        self.peer.load(Ordering::Acquire)
    }

    /// Whether the peer is the one that an end knows, and not known to be dead: `known` is a word
    /// whose state is `ALIVE`. The ends ask on every call.
    #[inline]
    pub(crate) fn is_alive(&self, known: u32) -> bool {
        // Relaxed: nothing follows from it but a closer look.
        self.peer.load(Ordering::Relaxed) == known
    }

    pub(crate) fn reason(&self) -> ExitReason {
        self.fate().reason
    }

    pub(crate) fn follows(&self) -> bool {
        self.follows.load(Ordering::Relaxed) != 0
    }

    /// Declares that somebody starts successors when the peer dies.
    pub(crate) fn follow(&self) {
        self.follows.store(1, Ordering::Relaxed);
    }

    pub(super) fn fate(&self) -> MutexGuard<'_, Fate<M>> {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps something until both ends of this side are gone: a watch over the peer.
    #[cfg(not(loom))]
    pub(crate) fn keep(&self, kept: Box<dyn fmt::Debug + Send>) {
        self.fate().kept.push(kept);
    }

    /// Tells the ends that the peer has died, and wakes them. Call it only on proof.
    pub(crate) fn peer_died(&self, reason: ExitReason, successor_expected: bool) {
        let mut fate = self.fate();
        let next = if successor_expected { peer::AWAITED } else { peer::GONE };
        let word = self.word();
        if matches!(word & peer::STATE, peer::ALIVE | peer::AWAITED) {
            fate.reason = reason;
            // Pairs with the Acquire in `word`; and, through the fence in `wake_ends`, with the look
            // that a sleeper takes after announcing itself.
            self.peer.store(word & !peer::STATE | next, Ordering::Release);
        }
        drop(fate);
        self.wake_ends();
    }

    /// Says that no successor will come after all.
    pub(crate) fn abandon(&self) {
        let reason = self.reason();
        self.peer_died(reason, false);
    }

    /// Wakes both ends of this side.
    pub(super) fn wake_ends(&self) {
        wakeup::wake_always(&self.memory, self.outgoing().control(ring::PRODUCER_WAITING));
        wakeup::wake_always(&self.memory, self.incoming().control(ring::CONSUMER_WAITING));
    }

    /// Hands this channel over to its next incarnation: copies what the dead peer had not released
    /// into the new outgoing ring, and sends the ends there.
    ///
    /// Runs while the ends of this side may be in use in other threads. `SUCCEEDED` is stored and
    /// fenced before the copy; an end that committed a record without seeing it has it in the copy,
    /// and one that sees it afterwards carries the rest itself (`take_producer`).
    ///
    /// `drop_first` drops the first unread message, over which too many incarnations have died.
    ///
    /// # Errors
    /// [`Corruption`] where the new segment is not fresh; nothing has happened then. What was wrong
    /// with the old one stands in the report.
    pub(crate) fn succeed(
        self: &Arc<Self>,
        new: Arc<Self>,
        drop_first: bool,
    ) -> Result<CarryReport, Corruption> {
        // Both rings of the new incarnation are fresh, and nobody else has them yet.
        let mut producer = Producer::attach(new.memory.clone(), *new.outgoing())?;
        let consumer = Consumer::attach(new.memory.clone(), *new.incoming())?;
        self.peer.store(peer::SUCCEEDED, Ordering::Release);
        // Messages would be lost without it, so it is the one that reaches every thread of ours.
        self.memory.process_fence();
        let mut report = CarryReport::default();
        let mut rest = Consumer::attach(self.memory.clone(), *self.outgoing());
        let carried = rest.as_mut().map_err(|corruption| *corruption).and_then(|rest| {
            if drop_first {
                report.dropped = drop_record(rest);
            }
            carry(rest, &mut producer)
        });
        match carried {
            Ok(carried) => report.carried = carried,
            Err(corruption) => report.corruption = Some(corruption),
        }
        let dropped = {
            let mut fate = self.fate();
            fate.successor = Some(Succession {
                connection: Arc::clone(&new),
                producer: Some(producer),
                consumer: Some(consumer),
                rest: rest.ok(),
            });
            fate.dropped
        };
        new.fate().former = Arc::downgrade(self);
        self.shorten();
        // Nobody will come for these.
        for end in [End::Sender, End::Receiver] {
            if dropped[end as usize] {
                new.close(end);
            }
        }
        self.settled.notify_all();
        self.wake_ends();
        Ok(report)
    }

    /// Sends ends that have never come to this incarnation straight to its successor, unless they
    /// have something to read here: else idle ends would keep the memory of every incarnation.
    fn shorten(&self) {
        let former = std::mem::take(&mut self.fate().former);
        let Some(former) = former.upgrade() else { return };
        // Locks are taken from the older incarnation to the newer one.
        let mut earlier = former.fate();
        let unread = !earlier.dropped[End::Receiver as usize];
        let Some(path) = earlier.successor.as_mut() else { return };
        let untouched = path.producer.is_some()
            && path
                .consumer
                .as_mut()
                .is_some_and(|ring| !(unread && matches!(ring.peek(), Ok(Some(_)))));
        let mut fate = self.fate();
        let Some(next) = fate.successor.as_mut().filter(|_| untouched) else { return };
        next.connection.fate().former = Arc::downgrade(&former);
        path.connection = Arc::clone(&next.connection);
        path.producer = next.producer.take();
        path.consumer = next.consumer.take();
    }

    /// The successor's connection and outgoing ring, for the sender. What it committed after the
    /// hand-over's copy has been carried over. Returns `None` where it was taken already.
    pub(crate) fn take_producer(&self) -> Option<(Arc<Self>, Producer<M>)> {
        let mut fate = self.successor();
        let succession = fate.successor.as_mut()?;
        let mut producer = succession.producer.take()?;
        if let Some(rest) = succession.rest.as_mut() {
            // What a hostile peer has made unreadable stays behind.
            let _ = carry(rest, &mut producer);
        }
        Some((Arc::clone(&succession.connection), producer))
    }

    /// The successor's connection and incoming ring, for the receiver.
    pub(crate) fn take_consumer(&self) -> Option<(Arc<Self>, Consumer<M>)> {
        let mut fate = self.successor();
        let succession = fate.successor.as_mut()?;
        Some((Arc::clone(&succession.connection), succession.consumer.take()?))
    }

    /// Waits for `succeed` to finish; call it only after seeing `SUCCEEDED`.
    fn successor(&self) -> MutexGuard<'_, Fate<M>> {
        let mut fate = self.fate();
        while fate.successor.is_none() {
            fate = self.settled.wait(fate).unwrap_or_else(PoisonError::into_inner);
        }
        fate
    }

    /// Declares the channel corrupt, for the peer and for tools to see.
    #[cold]
    pub(crate) fn declare_poisoned(&self) {
        let word = side::LINE[self.side] + side::POISONED;
        self.memory.store_u32(word, 1, Ordering::Release);
        wakeup::wake_always(&self.memory, self.outgoing().control(ring::CONSUMER_WAITING));
        wakeup::wake_always(&self.memory, self.incoming().control(ring::PRODUCER_WAITING));
    }

    /// Whether the peer has declared the channel corrupt.
    pub(crate) fn poisoned_by_peer(&self) -> bool {
        let word = side::LINE[1 - self.side] + side::POISONED;
        self.memory.load_u32(word, Ordering::Acquire) != 0
    }

    /// The state that the peer shows: `side::ABSENT`, `ATTACHED` or `CLOSED`; anything else counts
    /// as closed.
    pub(crate) fn peer_shows(&self) -> u32 {
        self.memory.load_u32(self.state_word(1 - self.side), Ordering::Acquire).min(side::CLOSED)
    }

    /// Offset of the word in which the peer shows its state, on which one can sleep.
    pub(crate) fn state_word(&self, of_side: usize) -> u64 {
        side::LINE[of_side] + side::STATE
    }

    /// Takes this side; false where somebody has it.
    pub(crate) fn claim_side(&self, pid: u32) -> bool {
        let line = side::LINE[self.side];
        let claimed = self.memory.compare_exchange_u32(
            line + side::STATE,
            side::ABSENT,
            side::ATTACHED,
            Ordering::AcqRel,
        );
        if claimed.is_err() {
            return false;
        }
        self.memory.store_u32(line + side::PID, pid, Ordering::Relaxed);
        self.memory.wake_u32(line + side::STATE, u32::MAX);
        // Whoever announced itself before we could see it looks again.
        self.announce();
        true
    }

    /// An end of this side closes, here and in the successor, if there is or will be one.
    pub(crate) fn close(&self, end: End) {
        if !self.memory.is_ours() {
            return;
        }
        let (outgoing, incoming) = (self.outgoing(), self.incoming());
        match end {
            End::Sender => self.close_end(
                outgoing.control(ring::PRODUCER_CLOSED),
                outgoing.control(ring::CONSUMER_WAITING),
            ),
            End::Receiver => self.close_end(
                incoming.control(ring::CONSUMER_CLOSED),
                incoming.control(ring::PRODUCER_WAITING),
            ),
        }
        let successor = {
            let mut fate = self.fate();
            fate.dropped[end as usize] = true;
            fate.successor.as_ref().map(|succession| Arc::clone(&succession.connection))
        };
        if let Some(successor) = successor {
            successor.close(end);
        }
    }

    /// Shows whoever still has this incarnation's memory that this side has left it: the peer's process
    /// has died, and others may hold what it had. This side's own ends are not affected: they read what
    /// was committed, and move to a successor.
    pub(crate) fn leave(&self) {
        if !self.memory.is_ours() {
            return;
        }
        let (outgoing, incoming) = (self.outgoing(), self.incoming());
        let state = self.state_word(self.side);
        let words = [
            (outgoing.control(ring::PRODUCER_CLOSED), outgoing.control(ring::CONSUMER_WAITING)),
            (incoming.control(ring::CONSUMER_CLOSED), incoming.control(ring::PRODUCER_WAITING)),
        ];
        for (closed, waiting) in words {
            // Pairs with the Acquire of the peer's look at it, as in `close_end`.
            self.memory.store_u32(closed, 1, Ordering::Release);
            wakeup::wake_always(&self.memory, waiting);
        }
        self.memory.store_u32(state, side::CLOSED, Ordering::Release);
        self.memory.wake_u32(state, u32::MAX);
    }

    /// `word` is the end's closed word, `waiting` the peer's waiting word.
    fn close_end(&self, word: u64, waiting: u64) {
        // Pairs with the Acquire of the peer's look at it: what we committed before is visible.
        self.memory.store_u32(word, 1, Ordering::Release);
        if self.open_ends.fetch_sub(1, Ordering::AcqRel) == 1 {
            if let Some(lookout) = &self.lookout {
                lookout.leaving();
            }
            let state = self.state_word(self.side);
            self.memory.store_u32(state, side::CLOSED, Ordering::Release);
            self.memory.wake_u32(state, u32::MAX);
            if let Some(lookout) = &self.lookout {
                lookout.left();
            }
        }
        wakeup::wake_always(&self.memory, waiting);
    }
}
