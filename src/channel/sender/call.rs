//! Sending calls and replies.
//!
//! More calls on [`Sender`]; their other side is in `receiver/call`. What always holds: a call that
//! could not be sent is not pending, and a reply goes to whom it names or to nobody.

use std::io::IoSlice;
use std::time::Duration;

use super::Sender;
use super::wait::Attempt;
use crate::channel::calls::{CallId, PendingCall};
use crate::error::{SendError, SendTimeoutError, TrySendError};
use crate::memory::{Deadline, Memory};
use crate::ring::RecordKind;

impl<M: Memory> Sender<M> {
    /// Sends a message to which a reply is wanted, waiting for room as long as it takes.
    /// [`Receiver::finish_call`](crate::channel::Receiver::finish_call) receives the reply; many
    /// calls may be pending.
    ///
    /// # Errors
    /// As [`send`](Self::send); nothing is pending then.
    pub fn begin_call(&mut self, payload: &[u8]) -> Result<PendingCall, SendError> {
        loop {
            if let Some(pending) = self.begin_call_by(0, payload, Deadline::NEVER)? {
                return Ok(pending);
            }
        }
    }

    /// As [`begin_call`](Self::begin_call), with a tag, waiting for room for at most `timeout`.
    ///
    /// # Errors
    /// As [`send_timeout`](Self::send_timeout); nothing is pending then.
    pub fn begin_call_timeout(
        &mut self,
        tag: u16,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<PendingCall, SendTimeoutError> {
        let deadline = self.deadline(timeout);
        self.begin_call_by(tag, payload, deadline)?.ok_or(SendTimeoutError::Timeout)
    }

    fn begin_call_by(
        &mut self,
        tag: u16,
        payload: &[u8],
        deadline: Deadline,
    ) -> Result<Option<PendingCall>, SendError> {
        // Before it is sent: the reply may come at once, to another thread.
        let pending = self.calls.begin();
        let sent = self.send_worded(RecordKind::Call, pending.id(), tag, payload, deadline)?;
        Ok(sent.map(|()| pending))
    }

    /// Answers a call, waiting for room as long as it takes.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn reply(&mut self, call: CallId, payload: &[u8]) -> Result<(), SendError> {
        let kind = RecordKind::Reply;
        while self.send_worded(kind, call, 0, payload, Deadline::NEVER)?.is_none() {}
        Ok(())
    }

    /// Answers a call with a tag, waiting for room for at most `timeout`.
    ///
    /// # Errors
    /// As [`send_timeout`](Self::send_timeout).
    pub fn reply_timeout(
        &mut self,
        call: CallId,
        tag: u16,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<(), SendTimeoutError> {
        let deadline = self.deadline(timeout);
        let sent = self.send_worded(RecordKind::Reply, call, tag, payload, deadline)?;
        sent.ok_or(SendTimeoutError::Timeout)
    }

    /// Answers a call if there is room now.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    pub fn try_reply(&mut self, call: CallId, payload: &[u8]) -> Result<(), TrySendError> {
        let kind = RecordKind::Reply;
        self.check_fits(kind, payload.len())?;
        match self.attempt(|producer| producer.try_push_kind(kind, call.0, 0, payload))? {
            Attempt::Done(()) => {
                self.notify();
                Ok(())
            }
            Attempt::Full { .. } => Err(TrySendError::Full),
        }
    }

    /// Sends a call or a reply if nothing needs attention and there is room for certain.
    #[inline]
    pub(in crate::channel) fn send_worded_simple(
        &mut self,
        kind: RecordKind,
        call: CallId,
        tag: u16,
        payload: &[u8],
    ) -> bool {
        let sent =
            !self.needs_attention() && self.producer.push_worded_simple(kind, call.0, tag, payload);
        if sent {
            self.notify();
        }
        sent
    }

    /// Sends a call or a reply, in one record or in pieces. `None` at the deadline.
    pub(in crate::channel) fn send_worded(
        &mut self,
        kind: RecordKind,
        call: CallId,
        tag: u16,
        payload: &[u8],
        deadline: Deadline,
    ) -> Result<Option<()>, SendError> {
        if self.send_worded_simple(kind, call, tag, payload) {
            return Ok(Some(()));
        }
        if !self.producer.geometry().fits_record(kind, payload.len()) {
            let word = call.0.to_ne_bytes();
            let parts = [IoSlice::new(&word), IoSlice::new(payload)];
            return self.send_pieces(kind, tag, &parts, deadline);
        }
        let sent =
            self.by(deadline, |producer| producer.try_push_kind(kind, call.0, tag, payload))?;
        if sent.is_some() {
            self.notify();
        }
        Ok(sent)
    }
}
