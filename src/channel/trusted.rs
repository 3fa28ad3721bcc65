//! Borrowing ring memory itself, for ends whose peer the caller vouches for.
//!
//! [`Sender::trust_peer`] and [`Receiver::trust_peer`], both `unsafe`, wrap an end in [`Trusted`],
//! which adds the calls that lend memory of the ring. What always holds: no safe path leads to a
//! `Trusted`; whoever holds one has promised that the peer follows the protocol.
#![allow(unsafe_code)]

use std::ops::Deref;
use std::time::Duration;

use super::{CallId, Message, Receiver, Sender};
use crate::error::{
    RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};
use crate::memory::{Deadline, Memory};
use crate::ring::{InPlaceDraft, Record};

/// An end whose peer is trusted to follow the protocol. Derefs to the end, for looking only: whoever
/// got it mutably could swap another end in, about whose peer nobody has promised anything.
///
/// ```compile_fail,E0596
/// # use ringway::channel::{Channel, ChannelOptions, Receiver, Trusted};
/// fn launder(trusted: &mut Trusted<Receiver>, hostile: &mut Receiver) {
///     std::mem::swap(&mut **trusted, hostile);
/// }
/// ```
#[derive(Debug)]
pub struct Trusted<E> {
    end: E,
}

impl<E> Deref for Trusted<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.end
    }
}

impl<E> Trusted<E> {
    /// The end, no more trusted than any other.
    pub fn into_inner(self) -> E {
        self.end
    }
}

impl Receiver {
    /// Declares the peer trusted, so that messages can be read where they lie.
    ///
    /// # Safety
    /// Every process that can write the channel's segment, now and in later incarnations, follows
    /// the protocol: it never writes to a committed record that this end has not released. A
    /// process that was handed the descriptor and runs other code is not such a process.
    pub unsafe fn trust_peer(self) -> Trusted<Self> {
        Trusted { end: self }
    }
}

impl Sender {
    /// Declares the peer trusted, so that messages can be written where they will lie.
    ///
    /// # Safety
    /// Every process that can map the channel's segment, now and in later incarnations, follows the
    /// protocol: it touches nothing between `tail` and `head`.
    pub unsafe fn trust_peer(self) -> Trusted<Self> {
        Trusted { end: self }
    }
}

impl Trusted<Receiver> {
    /// As [`Receiver::recv`].
    ///
    /// # Errors
    /// As there.
    pub fn recv(&mut self) -> Result<Message<'_>, RecvError> {
        self.end.recv()
    }

    /// As [`Receiver::recv_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Message<'_>, RecvTimeoutError> {
        self.end.recv_timeout(timeout)
    }

    /// As [`Receiver::release`].
    pub fn release(&mut self) {
        self.end.release();
    }

    /// Receives a message without copying it: the slice lies in the ring, until the next call. Only
    /// a call, or a message that came in fragments, lies in this receiver's own buffer.
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    #[inline]
    pub fn recv_in_place(&mut self) -> Result<InPlace<'_>, RecvError> {
        let record = self.end.next()?;
        Ok(self.borrow(&record))
    }

    /// As [`recv_in_place`](Self::recv_in_place), if there is a message now.
    ///
    /// # Errors
    /// As [`Receiver::try_recv`].
    #[inline]
    pub fn try_recv_in_place(&mut self) -> Result<InPlace<'_>, TryRecvError> {
        let record = self.end.try_next()?;
        Ok(self.borrow(&record))
    }

    #[inline]
    fn borrow(&mut self, record: &Record) -> InPlace<'_> {
        if !record.is_data() {
            return self.borrow_other(record);
        }
        let consumer = &mut self.end.consumer;
        let offset = consumer.payload_offset(record);
        consumer.advance(record);
        // SAFETY:
        // - the record lies inside the ring: `Record::decode` checked it against the geometry, and
        //   `slice` checks the range against the mapping;
        // - nobody writes to it while it is borrowed: it is committed and not released, the caller
        //   of `trust_peer` established that the peer then leaves it alone, and this end releases
        //   it only in a call on `&mut self`, which ends the borrow;
        // - the mapping outlives the borrow: the consumer, which `self` owns, holds it.
        let bytes = unsafe { consumer.memory().slice(offset, record.len_bytes()) };
        InPlace { bytes, tag: record.tag(), call: None }
    }
}

impl Trusted<Receiver> {
    /// A call, or a message that came in pieces, lies in the receiver's own buffer.
    #[cold]
    fn borrow_other(&mut self, record: &Record) -> InPlace<'_> {
        let message = self.end.lend(record);
        InPlace { bytes: message.bytes(), tag: message.tag(), call: message.call() }
    }
}

/// A message in the ring itself. Derefs to its bytes.
#[derive(Debug, Clone, Copy)]
pub struct InPlace<'a> {
    bytes: &'a [u8],
    tag: u16,
    call: Option<CallId>,
}

impl<'a> InPlace<'a> {
    /// The payload.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The tag that the sender gave it.
    pub fn tag(&self) -> u16 {
        self.tag
    }

    /// The call that this message makes, where the sender wants a reply.
    pub fn call(&self) -> Option<CallId> {
        self.call
    }
}

impl Deref for InPlace<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl Trusted<Sender> {
    /// As [`Sender::send`].
    ///
    /// # Errors
    /// As there.
    pub fn send(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.end.send(payload)
    }

    /// As [`Sender::try_send`].
    ///
    /// # Errors
    /// As there.
    pub fn try_send(&mut self, payload: &[u8]) -> Result<(), TrySendError> {
        self.end.try_send(payload)
    }

    /// As [`Sender::send_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn send_timeout(
        &mut self,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<(), SendTimeoutError> {
        self.end.send_timeout(payload, timeout)
    }

    /// Reserves room for a message of `len` bytes, to be written in the ring itself. What it holds
    /// at first is left over from earlier messages.
    ///
    /// # Errors
    /// As [`Sender::reserve`].
    #[inline]
    pub fn reserve_in_place(&mut self, len: usize) -> Result<ReservationInPlace<'_>, SendError> {
        let simple = match self.end.needs_attention() {
            false => self.end.producer.draft_in_place_simple(len),
            true => None,
        };
        let draft = match simple {
            Some(draft) => draft,
            None => self.reserve_waiting(len)?,
        };
        let offset = draft.payload(&self.end.producer);
        Ok(ReservationInPlace { sender: &mut self.end, draft, offset, tag: 0 })
    }

    #[inline(never)]
    fn reserve_waiting(&mut self, len: usize) -> Result<InPlaceDraft, SendError> {
        loop {
            let draft = self.end.by(Deadline::NEVER, |producer| producer.draft_in_place(len))?;
            if let Some(draft) = draft {
                return Ok(draft);
            }
        }
    }
}

/// Room for one message, in the ring itself.
#[derive(Debug)]
#[must_use = "a reservation that is dropped sends nothing"]
pub struct ReservationInPlace<'a> {
    sender: &'a mut Sender,
    draft: InPlaceDraft,
    offset: u64,
    tag: u16,
}

impl ReservationInPlace<'_> {
    /// The message's bytes.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let mut bytes = self.sender.producer.memory().slice_mut(self.offset, self.draft.len);
        // SAFETY:
        // - the range lies inside the ring: the draft's place was computed from the geometry, and
        //   `slice_mut` has checked it against the mapping;
        // - nobody else touches it: it lies between `tail` and `head`, the caller of `trust_peer`
        //   established that the peer leaves that alone, and this end writes there only through
        //   this reservation, which is borrowed mutably;
        // - the mapping outlives the borrow: the producer, which the sender owns, holds it.
        unsafe { bytes.as_mut() }
    }

    /// Sets the tag.
    pub fn set_tag(&mut self, tag: u16) {
        self.tag = tag;
    }

    /// Sends the message. Does nothing in a child that the process has forked meanwhile.
    #[inline]
    pub fn commit(self) {
        if !self.sender.producer.memory().is_ours() {
            return;
        }
        self.draft.commit(&mut self.sender.producer, self.tag);
        self.sender.notify();
    }
}
