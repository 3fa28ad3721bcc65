//! The blocking end that writes.
//!
//! Wraps the ring's producer with waiting, waking and what is known of the peer. `Send`, not
//! `Sync`: one thread at a time; many senders take a channel each. What always holds: a call that
//! returns an error has sent nothing.

use std::cell::Cell;
use std::io::IoSlice;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use rkyv::util::AlignedVec;

use super::connection::{Connection, End, peer};
use super::cpu::CpuHint;
use super::drafts::{Batch, Reservation};
use crate::error::{Corruption, ExitReason, SendError, SendTimeoutError, TrySendError};
use crate::layout::ring;
use crate::memory::{Deadline, Memory, Ordering, SharedMemory};
use crate::ring::{BatchDraft, Producer, ProducerStats, PushError};
use crate::wakeup::{self, Waiter};

/// The sending end of a channel.
#[derive(Debug)]
pub struct Sender<M: Memory = SharedMemory> {
    pub(super) producer: Producer<M>,
    pub(super) connection: Arc<Connection<M>>,
    waiter: Waiter,
    cpu: CpuHint,
    /// A restart that a caller has not been told of yet.
    untold: Option<ExitReason>,
    /// When the receiver of a plugin that may be restarted was first seen closed.
    closed_since: Option<u64>,
    pub(super) scratch: AlignedVec,
    /// False where this end was never really taken.
    open: bool,
    not_sync: PhantomData<Cell<()>>,
}

/// How long an end waits for news of a plugin that has closed its end: most plugins that close are
/// about to exit, and their exit decides whether a successor comes.
pub(super) const CLOSING_GRACE_NS: u64 = 500_000_000;

impl<M: Memory> Sender<M> {
    pub(crate) fn new(connection: Arc<Connection<M>>, waiter: Waiter) -> Result<Self, Corruption> {
        let producer = Producer::attach(connection.memory().clone(), *connection.outgoing())?;
        Ok(Self::over(connection, producer, waiter))
    }

    pub(super) fn over(
        connection: Arc<Connection<M>>,
        producer: Producer<M>,
        waiter: Waiter,
    ) -> Self {
        let cpu = cpu_hint(&producer);
        Self {
            producer,
            connection,
            waiter,
            cpu,
            untold: None,
            closed_since: None,
            scratch: AlignedVec::new(),
            open: true,
            not_sync: PhantomData,
        }
    }

    /// Sends a message, waiting for room as long as it takes.
    ///
    /// # Errors
    /// [`SendError`]; the message has not been sent then.
    #[inline]
    pub fn send(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.send_tagged(0, payload)
    }

    /// Sends a message if there is room now.
    ///
    /// # Errors
    /// [`TrySendError::Full`] where there is none, or as [`send`](Self::send).
    #[inline]
    pub fn try_send(&mut self, payload: &[u8]) -> Result<(), TrySendError> {
        self.try_send_tagged(0, payload)
    }

    /// Sends a message, waiting for room for at most `timeout`.
    ///
    /// # Errors
    /// [`SendTimeoutError::Timeout`] where there was none, or as [`send`](Self::send).
    pub fn send_timeout(
        &mut self,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<(), SendTimeoutError> {
        let deadline = self.deadline(timeout);
        self.send_deadline(0, payload, deadline)
    }

    /// [`send`](Self::send) with a tag, which the receiver sees beside the message.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn send_tagged(&mut self, tag: u16, payload: &[u8]) -> Result<(), SendError> {
        if self.send_simple(tag, payload) {
            return Ok(());
        }
        self.send_waiting(tag, payload)
    }

    /// Sends a message if nothing needs attention and there is room for certain.
    #[inline(always)]
    fn send_simple(&mut self, tag: u16, payload: &[u8]) -> bool {
        let sent = !self.needs_attention() && self.producer.push_simple(tag, payload);
        if sent {
            self.notify();
        }
        sent
    }

    #[inline(never)]
    fn send_waiting(&mut self, tag: u16, payload: &[u8]) -> Result<(), SendError> {
        while self.by(Deadline::NEVER, |producer| producer.try_push(tag, payload))?.is_none() {}
        self.notify();
        Ok(())
    }

    /// [`try_send`](Self::try_send) with a tag.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    #[inline]
    pub fn try_send_tagged(&mut self, tag: u16, payload: &[u8]) -> Result<(), TrySendError> {
        if self.send_simple(tag, payload) {
            return Ok(());
        }
        self.try_send_other(tag, payload)
    }

    #[inline(never)]
    fn try_send_other(&mut self, tag: u16, payload: &[u8]) -> Result<(), TrySendError> {
        match self.attempt(|producer| producer.try_push(tag, payload))? {
            Attempt::Done(()) => {
                self.notify();
                Ok(())
            }
            Attempt::Full { .. } => Err(TrySendError::Full),
        }
    }

    /// Sends a message with a tag, waiting for room until `deadline`.
    ///
    /// # Errors
    /// As [`send_timeout`](Self::send_timeout).
    pub fn send_deadline(
        &mut self,
        tag: u16,
        payload: &[u8],
        deadline: Deadline,
    ) -> Result<(), SendTimeoutError> {
        match self.by(deadline, |producer| producer.try_push(tag, payload))? {
            Some(()) => {
                self.notify();
                Ok(())
            }
            None => Err(SendTimeoutError::Timeout),
        }
    }

    /// Sends one message that is the concatenation of `parts`, without joining them first.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_vectored(&mut self, tag: u16, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        let push = |producer: &mut Producer<M>| producer.try_push_vectored(tag, parts);
        while self.by(Deadline::NEVER, push)?.is_none() {}
        self.notify();
        Ok(())
    }

    /// As [`send_vectored`](Self::send_vectored), if there is room now.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    pub fn try_send_vectored(
        &mut self,
        tag: u16,
        parts: &[IoSlice<'_>],
    ) -> Result<(), TrySendError> {
        match self.attempt(|producer| producer.try_push_vectored(tag, parts))? {
            Attempt::Done(()) => {
                self.notify();
                Ok(())
            }
            Attempt::Full { .. } => Err(TrySendError::Full),
        }
    }

    /// Reserves room for a message of `len` bytes, waiting for it as long as it takes.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn reserve(&mut self, len: usize) -> Result<Reservation<'_, M>, SendError> {
        loop {
            if let Some(draft) = self.by(Deadline::NEVER, |producer| producer.draft(0, len))? {
                return Ok(Reservation::new(self, draft));
            }
        }
    }

    /// Reserves room for a message of `len` bytes if there is some now.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    pub fn try_reserve(&mut self, len: usize) -> Result<Reservation<'_, M>, TrySendError> {
        match self.attempt(|producer| producer.draft(0, len))? {
            Attempt::Done(draft) => Ok(Reservation::new(self, draft)),
            Attempt::Full { .. } => Err(TrySendError::Full),
        }
    }

    /// Starts a batch: messages that become visible together, when it is committed.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn batch(&mut self) -> Result<Batch<'_, M>, SendError> {
        self.attend()?;
        Ok(Batch::new(self))
    }

    /// Sends many messages with as few publications as fit, waiting for room as long as it takes.
    /// Returns how many were sent.
    ///
    /// # Errors
    /// As [`send`](Self::send); messages before the failing one have been sent.
    pub fn send_batch<I>(&mut self, messages: I) -> Result<usize, SendError>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        let mut sent = 0;
        let mut messages = messages.into_iter();
        let mut next = messages.next();
        while let Some(first) = &next {
            // Wait until at least this one fits.
            let len = first.as_ref().len();
            while self.by(Deadline::NEVER, |producer| producer.draft(0, len))?.is_none() {}
            let mut draft = BatchDraft::new(&self.producer);
            let mut failed = None;
            while let Some(message) = &next {
                match draft.push(&mut self.producer, 0, message.as_ref()) {
                    Ok(()) => next = messages.next(),
                    Err(PushError::Full { .. }) => break,
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            sent += draft.commit(&mut self.producer);
            self.notify();
            if let Some(error) = failed {
                self.classify(error)?;
            }
        }
        Ok(sent)
    }

    /// One attempt at something that needs room.
    #[inline]
    pub(super) fn attempt<T>(
        &mut self,
        push: impl FnOnce(&mut Producer<M>) -> Result<T, PushError>,
    ) -> Result<Attempt<T>, SendError> {
        let seen = if self.needs_attention() { self.attend()? } else { Seen::NOTHING };
        match push(&mut self.producer) {
            Ok(done) => Ok(Attempt::Done(done)),
            Err(error) => {
                self.classify(error).map(|head_needed| Attempt::Full { head_needed, seen })
            }
        }
    }

    /// Attempts until there is room, or the deadline has passed (`None`).
    #[inline]
    pub(super) fn by<T>(
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
    fn classify(&mut self, error: PushError) -> Result<u64, SendError> {
        match error {
            PushError::Full { head_needed } => Ok(head_needed),
            PushError::TooLong { len, max } => Err(SendError::TooLong { len, max }),
            PushError::Corrupt(corruption) => {
                self.connection.declare_poisoned();
                Err(SendError::Corrupt(corruption))
            }
        }
    }

    /// Whether anything but the ring must be looked at.
    #[inline(always)]
    pub(super) fn needs_attention(&self) -> bool {
        let memory = self.producer.memory();
        !memory.is_ours()
            || !self.connection.is_alive()
            || self.untold.is_some()
            || memory.load_u32(self.closed_word(), Ordering::Relaxed) != 0
    }

    #[inline]
    fn closed_word(&self) -> u64 {
        self.producer.geometry().control(ring::CONSUMER_CLOSED)
    }

    /// Looks at everything but the ring. Returns what it has seen and found no reason to stop in: a
    /// wait ends when that changes.
    #[cold]
    fn attend(&mut self) -> Result<Seen, SendError> {
        if !self.producer.memory().is_ours() {
            return Err(SendError::Forked);
        }
        let mut state = self.connection.peer();
        while state == peer::SUCCEEDED && self.untold.is_none() {
            self.follow();
            state = self.connection.peer();
        }
        if let Some(reason) = self.untold.take() {
            return Err(SendError::Restarted { reason });
        }
        if let Some(corruption) = self.producer.poisoned() {
            return Err(SendError::Corrupt(corruption));
        }
        // Pairs with the Release in Connection::close_end.
        let closed = self.producer.memory().load_u32(self.closed_word(), Ordering::Acquire);
        match state {
            peer::GONE => return Err(SendError::Disconnected),
            peer::ALIVE if closed != 0 => self.attend_closed()?,
            _ => {}
        }
        Ok(Seen { peer: state, closed })
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
            self.connection = connection;
            self.producer = producer;
            self.cpu = cpu_hint(&self.producer);
            self.closed_since = None;
            self.untold = Some(reason);
            self.wake_consumer();
        }
    }

    /// After a commit: wakes the receiver if it sleeps, and notices a hand-over that ran meanwhile.
    #[inline]
    pub(super) fn notify(&mut self) {
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
        let Self { producer, connection, waiter, cpu, closed_since, .. } = self;
        if connection.poisoned_by_peer() {
            producer.poison(Corruption::ByPeer);
            return Err(SendError::Corrupt(Corruption::ByPeer));
        }
        let (memory, geometry) = (producer.memory().clone(), *producer.geometry());
        let closed = geometry.control(ring::CONSUMER_CLOSED);
        // A receiver that has closed decides by its exit; do not wait longer than that.
        let until = match closed_since {
            Some(since) if seen.closed != 0 => {
                deadline.min(Deadline::at_ns(since.saturating_add(CLOSING_GRACE_NS)))
            }
            _ => deadline,
        };
        // Read by the consumer when it finds us waiting; stale values cost a spurious wakeup.
        memory.store_u64(geometry.control(ring::SPACE_WANTED), head_needed, Ordering::Relaxed);
        let waiting = geometry.control(ring::PRODUCER_WAITING);
        waiter.set_may_spin(!cpu.is_shared(&memory));
        let sleeps = Cell::new(0_u32);
        let news = waiter.wait(
            &memory,
            waiting,
            until,
            || match producer.has_room(head_needed) {
                Ok(true) => Some(Ok(())),
                Err(corruption) => Some(Err(corruption)),
                Ok(false) => (connection.peer() != seen.peer
                    || connection.poisoned_by_peer()
                    || memory.load_u32(closed, Ordering::Relaxed) != seen.closed)
                    .then_some(Ok(())),
            },
            || sleeps.set(sleeps.get() + 1),
        );
        for _ in 0..sleeps.get() {
            producer.count_sleep();
        }
        if sleeps.get() > 0 {
            cpu.slept(&memory);
        }
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

    pub(super) fn deadline(&self, timeout: Duration) -> Deadline {
        deadline_after(self.producer.memory(), timeout)
    }

    /// The longest message that this channel takes, in bytes.
    pub fn max_message_bytes(&self) -> usize {
        self.producer.geometry().max_payload_bytes() as usize
    }

    /// What this end has counted.
    pub fn stats(&self) -> ProducerStats {
        self.producer.stats()
    }

    /// Closes this end: the receiver reads what is there and then gets `Disconnected`. The same as
    /// dropping it.
    pub fn close(self) {}

    /// Drops this end without closing it: its side belongs to somebody else.
    pub(super) fn forget(mut self) {
        self.open = false;
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

/// What an attempt has seen of the peer and found no reason to stop in. A wait must end when it
/// changes, and "changes" is measured against what was acted upon, not against a second look: what
/// happened between the two would be slept through.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) peer: u32,
    pub(super) closed: u32,
}

impl Seen {
    const NOTHING: Self = Self { peer: peer::ALIVE, closed: 0 };
}

fn cpu_hint<M: Memory>(producer: &Producer<M>) -> CpuHint {
    let word = |word| producer.geometry().control(word);
    CpuHint::new(producer.memory(), word(ring::PRODUCER_CPU), word(ring::CONSUMER_CPU))
}

impl<M: Memory> Drop for Sender<M> {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        self.connection.close(End::Sender);
    }
}

/// The deadline that lies `timeout` from now; never, where that is beyond the clock.
pub(super) fn deadline_after<M: Memory>(memory: &M, timeout: Duration) -> Deadline {
    let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    Deadline::at_ns(memory.now_ns().saturating_add(timeout_ns))
}
