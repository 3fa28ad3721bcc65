//! The end that receives values.
//!
//! [`TypedChannel::split`](super::TypedChannel::split) makes it. What always holds: a value is
//! checked in the receiver's private copy, and a message that is no value stays in the ring until it
//! is skipped.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use crate::channel::Receiver;
use crate::channel::sender::deadline_after;
use crate::error::{RecvError, RecvTimeoutError, TryRecvError};
use crate::typed::{Decode, DecodeOwned};

/// The receiving end of a channel of values.
///
/// A codec decides what a value looks like on arrival: [`Pod`](crate::typed::Pod) hands values out,
/// [`Archived`](crate::typed::Archived) lends them from the receiver's own buffer until the next call.
pub struct TypedReceiver<C> {
    pub(super) receiver: Receiver,
    codec: PhantomData<fn() -> C>,
}

impl<C> fmt::Debug for TypedReceiver<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedReceiver").field(&self.receiver).finish()
    }
}

#[inline]
pub(super) fn recv<C: Decode>(receiver: &mut Receiver) -> Result<C::View<'_>, RecvError> {
    let record = receiver.next()?;
    receiver.take_decoded(&record, |bytes| Ok(C::decode(bytes)?))
}

#[inline]
pub(super) fn try_recv<C: Decode>(receiver: &mut Receiver) -> Result<C::View<'_>, TryRecvError> {
    let record = receiver.try_next()?;
    Ok(receiver.take_decoded(&record, |bytes| Ok(C::decode(bytes)?))?)
}

pub(super) fn recv_timeout<C: Decode>(
    receiver: &mut Receiver,
    timeout: Duration,
) -> Result<C::View<'_>, RecvTimeoutError> {
    let deadline = deadline_after(receiver.consumer.memory(), timeout);
    let record = receiver.next_by(deadline)?.ok_or(RecvTimeoutError::Timeout)?;
    Ok(receiver.take_decoded(&record, |bytes| Ok(C::decode(bytes)?))?)
}

impl<C> TypedReceiver<C> {
    pub(in crate::channel) fn over(receiver: Receiver) -> Self {
        Self { receiver, codec: PhantomData }
    }

    /// The end without its type, for looking.
    pub fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// The end without its type.
    pub fn into_inner(self) -> Receiver {
        self.receiver
    }

    /// As [`Receiver::release`].
    pub fn release(&mut self) {
        self.receiver.release();
    }

    /// Drops the next message without looking at it, if there is one: what to do with one that is no
    /// value.
    ///
    /// # Errors
    /// As [`Receiver::skip`].
    pub fn skip(&mut self) -> Result<(), TryRecvError> {
        self.receiver.skip()
    }
}

impl<C: Decode> TypedReceiver<C> {
    /// Receives a value, waiting for it as long as it takes.
    ///
    /// # Errors
    /// [`RecvError::Mismatch`] and [`RecvError::Invalid`] where the message is no value: it stays,
    /// and [`skip`](Self::skip) drops it. The others as [`Receiver::recv`].
    #[inline]
    pub fn recv(&mut self) -> Result<C::View<'_>, RecvError> {
        recv::<C>(&mut self.receiver)
    }

    /// Receives a value if there is one now.
    ///
    /// # Errors
    /// [`TryRecvError::Empty`] where there is none; the others as [`recv`](Self::recv).
    #[inline]
    pub fn try_recv(&mut self) -> Result<C::View<'_>, TryRecvError> {
        try_recv::<C>(&mut self.receiver)
    }

    /// Receives a value, waiting for at most `timeout`.
    ///
    /// # Errors
    /// [`RecvTimeoutError::Timeout`] where none came; the others as [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<C::View<'_>, RecvTimeoutError> {
        recv_timeout::<C>(&mut self.receiver, timeout)
    }

    /// Waits for a value, then hands up to `budget` values that are there to `each`. Returns how
    /// many.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), only where there was no value at all; an error behind the first one
    /// is told by the next call.
    pub fn recv_batch(
        &mut self,
        budget: usize,
        mut each: impl FnMut(C::View<'_>),
    ) -> Result<usize, RecvError> {
        if budget == 0 {
            return Ok(0);
        }
        each(self.recv()?);
        let mut taken = 1;
        while taken < budget {
            let Some(record) = self.receiver.next_of_batch() else { break };
            match self.receiver.take_decoded(&record, |bytes| Ok(C::decode(bytes)?)) {
                Ok(value) => each(value),
                // It has not been taken: the next call says so.
                Err(_) => break,
            }
            taken += 1;
        }
        Ok(taken)
    }
}

impl<C: DecodeOwned> TypedReceiver<C> {
    /// [`recv`](Self::recv) of a value to keep.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_owned(&mut self) -> Result<C::Value, RecvError> {
        Ok(C::to_value(self.recv()?)?)
    }

    /// Values as they come, until the peer is gone.
    pub fn iter(&mut self) -> TypedIter<'_, C> {
        TypedIter { receiver: self, over: false }
    }
}

/// Values as they come; see [`TypedReceiver::iter`].
///
/// Waits for each. Ends once the peer has closed or died and everything it sent has been read. Any
/// other error is an item: after [`RecvError::Restarted`] more follow, after others none.
#[derive(Debug)]
pub struct TypedIter<'a, C> {
    receiver: &'a mut TypedReceiver<C>,
    over: bool,
}

impl<C: DecodeOwned> Iterator for TypedIter<'_, C> {
    type Item = Result<C::Value, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let item = self.receiver.recv_owned();
        self.over = matches!(&item, Err(error) if !matches!(error, RecvError::Restarted { .. }));
        let gone = matches!(&item, Err(RecvError::Disconnected));
        (!gone).then_some(item)
    }
}

impl<C: DecodeOwned> std::iter::FusedIterator for TypedIter<'_, C> {}
