//! The end that sends values.
//!
//! [`TypedChannel::split`](super::TypedChannel::split) makes it. What always holds: a value is
//! encoded before anything is sent, and a call that returns an error has sent nothing.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use rkyv::util::AlignedVec;

use crate::channel::{Batch, Offered, SendPolicy, Sender};
use crate::error::{OfferError, SendError, SendTimeoutError, TrySendError};
use crate::typed::{Encode, EncodeError};

impl From<EncodeError> for SendError {
    fn from(_: EncodeError) -> Self {
        Self::Serialise
    }
}

impl From<EncodeError> for TrySendError {
    fn from(_: EncodeError) -> Self {
        Self::Serialise
    }
}

impl From<EncodeError> for SendTimeoutError {
    fn from(_: EncodeError) -> Self {
        Self::Serialise
    }
}

impl From<EncodeError> for OfferError {
    fn from(_: EncodeError) -> Self {
        Self::Serialise
    }
}

/// The sending end of a channel of values.
pub struct TypedSender<C> {
    sender: Sender,
    scratch: AlignedVec,
    codec: PhantomData<fn() -> C>,
}

impl<C> fmt::Debug for TypedSender<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedSender").field(&self.sender).finish()
    }
}

impl<C> TypedSender<C> {
    pub(super) fn over(sender: Sender) -> Self {
        Self { sender, scratch: AlignedVec::new(), codec: PhantomData }
    }

    /// As [`Sender::set_policy`], for [`offer`](Self::offer).
    pub fn set_policy(&mut self, policy: SendPolicy) {
        self.sender.set_policy(policy);
    }

    /// The end without its type, for looking.
    pub fn sender(&self) -> &Sender {
        &self.sender
    }

    /// The end without its type.
    pub fn into_inner(self) -> Sender {
        self.sender
    }
}

impl<C: Encode> TypedSender<C> {
    /// Sends a value, waiting for room as long as it takes.
    ///
    /// # Errors
    /// [`SendError::Serialise`] where it cannot be encoded; the others as [`Sender::send`].
    #[inline]
    pub fn send(&mut self, value: &C::Value) -> Result<(), SendError> {
        self.sender.send(C::encode(value, &mut self.scratch)?)
    }

    /// Sends a value if there is room now.
    ///
    /// # Errors
    /// [`TrySendError::Serialise`] where it cannot be encoded; the others as [`Sender::try_send`].
    #[inline]
    pub fn try_send(&mut self, value: &C::Value) -> Result<(), TrySendError> {
        self.sender.try_send(C::encode(value, &mut self.scratch)?)
    }

    /// Sends a value, waiting for room for at most `timeout`.
    ///
    /// # Errors
    /// [`SendTimeoutError::Serialise`] where it cannot be encoded; the others as
    /// [`Sender::send_timeout`].
    pub fn send_timeout(
        &mut self,
        value: &C::Value,
        timeout: Duration,
    ) -> Result<(), SendTimeoutError> {
        self.sender.send_timeout(C::encode(value, &mut self.scratch)?, timeout)
    }

    /// Sends a value, or does what the policy says where there is no room; see [`Sender::offer`].
    ///
    /// # Errors
    /// [`OfferError::Serialise`] where it cannot be encoded; the others as [`Sender::offer`].
    #[inline]
    pub fn offer(&mut self, value: &C::Value) -> Result<Offered, OfferError> {
        self.sender.offer(C::encode(value, &mut self.scratch)?)
    }

    /// Starts a batch: values that become visible together, when it is committed.
    ///
    /// # Errors
    /// As [`Sender::batch`].
    pub fn batch(&mut self) -> Result<TypedBatch<'_, C>, SendError> {
        let batch = self.sender.batch()?;
        Ok(TypedBatch { batch, scratch: &mut self.scratch, codec: PhantomData })
    }

    /// Sends many values with as few publications as fit, waiting for room as long as it takes.
    /// Returns how many were sent.
    ///
    /// # Errors
    /// As [`send`](Self::send); values before the failing one have been sent.
    pub fn send_batch<I>(&mut self, values: I) -> Result<usize, SendError>
    where
        I: IntoIterator,
        I::Item: Borrow<C::Value>,
    {
        let mut values = values.into_iter();
        let mut sent = 0;
        loop {
            let mut batch = self.batch()?;
            let left = values.by_ref().find(|value| batch.push(value.borrow()).is_err());
            sent += batch.commit();
            let Some(value) = left else { return Ok(sent) };
            // Waits for room, or finds out what is wrong with this one.
            self.send(value.borrow())?;
            sent += 1;
        }
    }
}

/// Values that become visible together. At most the ring's capacity less 8 bytes, headers and
/// rounding included.
#[must_use = "a batch that is dropped sends nothing"]
pub struct TypedBatch<'a, C> {
    batch: Batch<'a>,
    scratch: &'a mut AlignedVec,
    codec: PhantomData<fn() -> C>,
}

impl<C> fmt::Debug for TypedBatch<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedBatch").field(&self.batch).finish()
    }
}

impl<C: Encode> TypedBatch<'_, C> {
    /// Appends a value.
    ///
    /// # Errors
    /// [`TrySendError::Full`] where it does not fit any more; what the batch holds can still be
    /// committed. The other errors as [`TypedSender::try_send`].
    #[inline]
    pub fn push(&mut self, value: &C::Value) -> Result<(), TrySendError> {
        self.batch.push(C::encode(value, self.scratch)?)
    }

    /// Values so far.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Sends all values at once. Returns how many: none in a forked child.
    pub fn commit(self) -> usize {
        self.batch.commit()
    }

    /// Forgets the values; the same as dropping.
    pub fn abort(self) {}
}
