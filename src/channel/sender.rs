//! The blocking end that writes.
//!
//! Wraps the ring's producer with waiting, waking and what is known of the peer. `Send`, not
//! `Sync`: one thread at a time; many senders take a channel each. What always holds: a call that
//! returns an error has sent nothing that the receiver hands out.

use std::cell::Cell;
use std::io::IoSlice;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use rkyv::util::AlignedVec;

use super::calls::Calls;
use super::connection::{Connection, End, peer};
use super::cpu::CpuHint;
use super::drafts::{Batch, Reservation};
use super::policy::SendPolicy;
use crate::error::{Corruption, ExitReason, SendError, SendTimeoutError, TrySendError};
use crate::layout::ring;
use crate::memory::{Deadline, Memory, SharedMemory};
use crate::ring::{BatchDraft, Producer, ProducerStats, PushError, RecordKind};
use crate::wakeup::Waiter;

mod call;
mod long;
#[cfg(not(loom))]
mod position;
mod wait;

use wait::Attempt;
pub(super) use wait::{CLOSING_GRACE_NS, Seen};

/// The sending end of a channel.
#[derive(Debug)]
pub struct Sender<M: Memory = SharedMemory> {
    pub(super) producer: Producer<M>,
    pub(super) connection: Arc<Connection<M>>,
    waiter: Waiter,
    cpu: CpuHint,
    /// What is known of the peer while it is the one that this end knows, and lives.
    known: u32,
    /// Whether the next call must see to one of the two that follow.
    attention: bool,
    /// A restart that a caller has not been told of yet.
    untold: Option<ExitReason>,
    /// Whether a message was begun in the ring and given up; the receiver must be told.
    owes_abort: bool,
    pub(super) calls: Arc<Calls>,
    /// When the receiver of a plugin that may be restarted was first seen closed.
    closed_since: Option<u64>,
    pub(super) scratch: AlignedVec,
    /// What `offer` does where there is no room.
    pub(super) policy: SendPolicy,
    /// False where this end was never really taken.
    open: bool,
    not_sync: PhantomData<Cell<()>>,
}

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
        let calls = Arc::clone(connection.calls());
        Self {
            producer,
            connection,
            waiter,
            cpu,
            known: peer::ALIVE,
            attention: false,
            untold: None,
            owes_abort: false,
            calls,
            closed_since: None,
            scratch: AlignedVec::new(),
            policy: SendPolicy::default(),
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
    pub(crate) fn send_simple(&mut self, tag: u16, payload: &[u8]) -> bool {
        let sent = !self.needs_attention() && self.producer.push_simple(tag, payload);
        if sent {
            self.notify();
        }
        sent
    }

    #[inline(never)]
    pub(super) fn send_waiting(&mut self, tag: u16, payload: &[u8]) -> Result<(), SendError> {
        if self.is_long(payload.len()) {
            let parts = [IoSlice::new(payload)];
            return self.send_pieces(RecordKind::Data, tag, &parts, Deadline::NEVER).map(|_| ());
        }
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
    pub(super) fn try_send_other(&mut self, tag: u16, payload: &[u8]) -> Result<(), TrySendError> {
        self.check_fits(RecordKind::Data, payload.len())?;
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
        if self.is_long(payload.len()) {
            let parts = [IoSlice::new(payload)];
            let sent = self.send_pieces(RecordKind::Data, tag, &parts, deadline)?;
            return sent.ok_or(SendTimeoutError::Timeout);
        }
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
        if self.is_long(joined_bytes(parts)) {
            return self.send_pieces(RecordKind::Data, tag, parts, Deadline::NEVER).map(|_| ());
        }
        let push = |producer: &mut Producer<M>| producer.try_push_vectored(tag, parts);
        while self.by(Deadline::NEVER, push)?.is_none() {}
        self.notify();
        Ok(())
    }

    /// As [`send_vectored`](Self::send_vectored), waiting for room until `deadline`.
    ///
    /// # Errors
    /// As [`send_timeout`](Self::send_timeout).
    pub fn send_vectored_deadline(
        &mut self,
        tag: u16,
        parts: &[IoSlice<'_>],
        deadline: Deadline,
    ) -> Result<(), SendTimeoutError> {
        if self.is_long(joined_bytes(parts)) {
            let sent = self.send_pieces(RecordKind::Data, tag, parts, deadline)?;
            return sent.ok_or(SendTimeoutError::Timeout);
        }
        match self.by(deadline, |producer| producer.try_push_vectored(tag, parts))? {
            Some(()) => {
                self.notify();
                Ok(())
            }
            None => Err(SendTimeoutError::Timeout),
        }
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
        self.check_fits(RecordKind::Data, joined_bytes(parts))?;
        match self.attempt(|producer| producer.try_push_vectored(tag, parts))? {
            Attempt::Done(()) => {
                self.notify();
                Ok(())
            }
            Attempt::Full { .. } => Err(TrySendError::Full),
        }
    }

    /// Reserves room for a message of `len` bytes, waiting for it as long as it takes. The room is
    /// one record, so at most [`max_record_bytes`](Self::max_record_bytes).
    ///
    /// # Errors
    /// As [`send`](Self::send); [`SendError::TooLong`] with that limit where it is longer.
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
        // Whatever needs attention first, and a message that was given up needs room.
        while self.by(Deadline::NEVER, |_| Ok(()))?.is_none() {}
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
            let len = first.as_ref().len();
            if self.is_long(len) {
                self.send_waiting(0, first.as_ref())?;
                (sent, next) = (sent + 1, messages.next());
                continue;
            }
            // Wait until at least this one fits.
            while self.by(Deadline::NEVER, |producer| producer.draft(0, len))?.is_none() {}
            let mut draft = BatchDraft::new(&self.producer);
            let mut failed = None;
            while let Some(message) = &next
                && !self.is_long(message.as_ref().len())
            {
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

    pub(super) fn deadline(&self, timeout: Duration) -> Deadline {
        deadline_after(self.producer.memory(), timeout)
    }

    /// The longest message that this channel takes, in bytes: in one record, or in fragments.
    pub fn max_message_bytes(&self) -> usize {
        self.producer.geometry().max_message_bytes() as usize
    }

    /// The longest message that goes in one record, in bytes: longer ones cannot be reserved, put
    /// into a batch, or sent without waiting.
    pub fn max_record_bytes(&self) -> usize {
        self.producer.geometry().max_payload_bytes() as usize
    }

    /// What this end has counted.
    pub fn stats(&self) -> ProducerStats {
        self.producer.stats()
    }

    /// As [`Channel::is_current`](crate::channel::Channel::is_current).
    pub fn is_current(&self) -> bool {
        self.connection.is_current()
    }

    /// Closes this end: the receiver reads what is there and then gets `Disconnected`. The same as
    /// dropping it.
    pub fn close(self) {}

    /// Drops this end without closing it: its side belongs to somebody else.
    pub(super) fn forget(mut self) {
        self.open = false;
    }
}

/// Length of what these parts make.
fn joined_bytes(parts: &[IoSlice<'_>]) -> usize {
    parts.iter().fold(0, |sum, part| sum.saturating_add(part.len()))
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
        if self.producer.memory().is_ours() {
            self.producer.publish_counts();
        }
        self.connection.close(End::Sender);
    }
}

/// The deadline that lies `timeout` from now; never, where that is beyond the clock. A timeout of zero
/// has passed, and needs no clock.
pub(super) fn deadline_after<M: Memory>(memory: &M, timeout: Duration) -> Deadline {
    if timeout.is_zero() {
        return Deadline::PASSED;
    }
    let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    Deadline::at_ns(memory.now_ns().saturating_add(timeout_ns))
}
