//! Calls over both ends at once.
//!
//! More calls on [`Channel`]; who has split it uses those of the two ends. What always holds: one
//! deadline covers the way there and back.

use std::time::Duration;

use bytemuck::{AnyBitPattern, NoUninit};
use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Portable, Serialize};

use super::receiver::Reply;
use super::sender::deadline_after;
use super::{CallId, Channel, Message, PendingCall};
use crate::error::{CallError, SendError};
use crate::ring::RecordKind;
use crate::typed::access;

impl Channel {
    /// Sends a message and waits for the reply to it, for at most `timeout` in all. The reply is
    /// lent until the next call. Messages that come before it wait for later receives.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ringway::channel::{Channel, ChannelOptions};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut host, mut plugin) = Channel::pair(&ChannelOptions::default())?;
    /// let answering = std::thread::spawn(move || -> Result<(), ringway::error::Error> {
    ///     let question = plugin.recv_owned()?;
    ///     if let Some(call) = question.call() {
    ///         plugin.reply(call, &question.to_ascii_uppercase())?;
    ///     }
    ///     Ok(())
    /// });
    /// assert_eq!(&*host.call(b"question", Duration::from_secs(5))?, b"QUESTION");
    /// # answering.join().expect("no panic")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`CallError`]. The call is over then: a reply that comes later is dropped. After
    /// [`CallError::Backlog`] and others the peer may have received it, and may answer it.
    pub fn call(&mut self, payload: &[u8], timeout: Duration) -> Result<Message<'_>, CallError> {
        let reply = self.await_call(payload, timeout)?;
        Ok(self.receiver.lend_reply(reply))
    }

    fn await_call(&mut self, payload: &[u8], timeout: Duration) -> Result<Reply, CallError> {
        // Nobody else asks for this reply, so the table need not know of it.
        let id = self.sender.calls.draw();
        let sent = self.sender.send_worded_simple(RecordKind::Call, id, 0, payload);
        if sent
            && !timeout.is_zero()
            && let Some(reply) = self.receiver.poll_reply(id)?
        {
            return Ok(reply);
        }
        // Only who must wait reads the clock.
        let deadline = deadline_after(self.connection().memory(), timeout);
        if !sent {
            let sent = self.sender.send_worded(RecordKind::Call, id, 0, payload, deadline)?;
            sent.ok_or(CallError::Timeout)?;
        }
        self.receiver.await_reply(id, deadline)
    }

    /// As [`Sender::begin_call`](super::Sender::begin_call).
    ///
    /// # Errors
    /// As there.
    pub fn begin_call(&mut self, payload: &[u8]) -> Result<PendingCall, SendError> {
        self.sender.begin_call(payload)
    }

    /// As [`Receiver::finish_call`](super::Receiver::finish_call).
    ///
    /// # Errors
    /// As there.
    pub fn finish_call(
        &mut self,
        call: &PendingCall,
        timeout: Duration,
    ) -> Result<Message<'_>, CallError> {
        self.receiver.finish_call(call, timeout)
    }

    /// As [`Sender::reply`](super::Sender::reply).
    ///
    /// # Errors
    /// As there.
    pub fn reply(&mut self, call: CallId, payload: &[u8]) -> Result<(), SendError> {
        self.sender.reply(call, payload)
    }

    /// [`call`](Self::call) with a plain value, answered by one.
    ///
    /// # Errors
    /// As there; [`CallError::Mismatch`] where the reply has another length than `A`.
    pub fn call_pod<Q: NoUninit, A: AnyBitPattern>(
        &mut self,
        question: &Q,
        timeout: Duration,
    ) -> Result<A, CallError> {
        let answer = self.call(bytemuck::bytes_of(question), timeout)?;
        if answer.len() != size_of::<A>() {
            let (found, expected) = (answer.len() as u64, size_of::<A>() as u64);
            return Err(CallError::Mismatch { found, expected });
        }
        Ok(bytemuck::pod_read_unaligned(&answer))
    }

    /// [`call`](Self::call) with a structure, answered by one, which is validated in the private
    /// copy and read there. The other side receives it with
    /// [`recv_archived`](super::Receiver::recv_archived), has the call from
    /// [`last_call`](super::Receiver::last_call), and answers with
    /// [`reply_archived`](super::Sender::reply_archived).
    ///
    /// # Errors
    /// As there; [`CallError::Serialise`] where the question cannot be serialised, and
    /// [`CallError::Invalid`] where the reply is no valid archive of an `A`.
    pub fn call_archived<Q, A>(
        &mut self,
        question: &Q,
        timeout: Duration,
    ) -> Result<&A::Archived, CallError>
    where
        Q: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Failure>>,
        A: Archive,
        A::Archived: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Failure>>,
    {
        let bytes = self.sender.serialise(question)?;
        let reply = self.await_call(&bytes, timeout);
        self.sender.scratch = bytes;
        let answer = self.receiver.lend_reply(reply?);
        access::<A::Archived>(answer.bytes()).map_err(|_| CallError::Invalid)
    }
}
