//! Values read where they lie in the ring, for ends whose peer the caller vouches for.
//!
//! [`TypedReceiver::trust_peer`], which is `unsafe`, makes it, on the same promise as
//! [`Receiver::trust_peer`](crate::channel::Receiver::trust_peer). What always holds: without a second
//! `unsafe` call a value is validated before it is lent, once, in place.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;

use rkyv::Archive;

use super::TypedReceiver;
use crate::channel::{Receiver, Trusted};
use crate::error::{RecvError, TryRecvError};
use crate::typed::{Archived, Codec, Decode};

/// The receiving end of a channel of values whose peer is trusted to follow the protocol.
///
/// Archives are aligned as their payload is: where one holds something that is aligned to 16 bytes,
/// create the channel with a [`payload_align`](crate::channel::ChannelOptions::payload_align) of 16.
pub struct TrustedTyped<C> {
    receiver: Trusted<Receiver>,
    codec: PhantomData<fn() -> C>,
}

impl<C> fmt::Debug for TrustedTyped<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TrustedTyped").field(&self.receiver).finish()
    }
}

impl<C> TypedReceiver<C> {
    /// Declares the peer trusted, so that values can be read where they lie.
    ///
    /// # Safety
    /// As [`Receiver::trust_peer`].
    pub unsafe fn trust_peer(self) -> TrustedTyped<C> {
        // SAFETY: the caller promises what that function asks for.
        let receiver = unsafe { self.receiver.trust_peer() };
        TrustedTyped { receiver, codec: PhantomData }
    }
}

impl<C> TrustedTyped<C> {
    /// The end, no more trusted than any other.
    pub fn into_inner(self) -> TypedReceiver<C> {
        TypedReceiver::over(self.receiver.into_inner())
    }

    /// As [`Receiver::release`].
    pub fn release(&mut self) {
        self.receiver.release();
    }
}

impl<C: Decode> TrustedTyped<C> {
    /// Receives a value without copying it: what is lent lies in the ring, until the next call.
    ///
    /// # Errors
    /// As [`TypedReceiver::recv`]; a message that is no value has been taken.
    #[inline]
    pub fn recv_in_place(&mut self) -> Result<C::View<'_>, RecvError> {
        Ok(C::decode(self.receiver.recv_in_place()?.bytes())?)
    }

    /// As [`recv_in_place`](Self::recv_in_place), if there is a message now.
    ///
    /// # Errors
    /// As there and as [`TypedReceiver::try_recv`].
    #[inline]
    pub fn try_recv_in_place(&mut self) -> Result<C::View<'_>, TryRecvError> {
        let bytes = self.receiver.try_recv_in_place()?.bytes();
        Ok(C::decode(bytes).map_err(RecvError::from)?)
    }
}

impl<T: Archive> TrustedTyped<Archived<T>>
where
    Archived<T>: Codec,
    T::Archived: rkyv::Portable,
{
    /// [`recv_in_place`](Self::recv_in_place) without looking whether it is a value.
    ///
    /// # Safety
    /// The message is an archive of a `T`, as [`TypedSender`](super::TypedSender) of the same build
    /// makes them, and lies aligned for it. That the peer keeps to the protocol of the ring, which was
    /// promised before, does not say so: the peer must also be known to send nothing else.
    ///
    /// # Errors
    /// As [`TypedReceiver::recv`], but for those about the value.
    #[inline]
    pub unsafe fn recv_in_place_unchecked(&mut self) -> Result<&T::Archived, RecvError> {
        let bytes = self.receiver.recv_in_place()?.bytes();
        // SAFETY: the caller promises that the bytes are such an archive, aligned; they stay what they
        // are while they are borrowed, as the caller of `trust_peer` promised.
        Ok(unsafe { rkyv::access_unchecked(bytes) })
    }
}
