//! Channels that carry values of one type each way, and refuse a peer that expects others.
//!
//! What callers use who define their messages in Rust on both sides; [`Channel::typed`] makes one of
//! any channel that was created for its types. What always holds: both sides have the same fingerprint
//! of both types in a header that was checked before anything was sent, and every value is checked
//! by itself all the same.

mod receiver;
mod sender;
mod trusted;
mod types;

use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rkyv::util::AlignedVec;

use super::{Channel, ChannelOptions};
use crate::error::{
    RecvError, RecvTimeoutError, SegmentError, SendError, SendTimeoutError, TryRecvError,
    TrySendError,
};
use crate::segment::Address;
use crate::typed::{Codec, Decode, Encode};

pub use receiver::{TypedIter, TypedReceiver};
pub use sender::{TypedBatch, TypedSender};
pub use trusted::TrustedTyped;
pub use types::ChannelTypes;

/// One side of a channel that sends values of codec `S` and receives values of codec `R`.
///
/// The other side is a `TypedChannel<R, S>`. A channel of other types, or of none, is refused when it
/// is attached:
///
/// ```
/// use ringway::Schema;
/// use ringway::channel::{ChannelOptions, TypedChannel};
/// use ringway::error::SegmentError;
/// use ringway::typed::{Archived, Pod};
///
/// #[derive(Clone, Copy, Schema, bytemuck::NoUninit, bytemuck::AnyBitPattern)]
/// #[repr(C)]
/// struct Tick {
///     price: u64,
///     size: u64,
/// }
///
/// #[derive(Schema, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
/// struct Report {
///     lines: Vec<String>,
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// type Host = TypedChannel<Pod<Tick>, Archived<Report>>;
/// type Plugin = TypedChannel<Archived<Report>, Pod<Tick>>;
///
/// let options = ChannelOptions::default();
/// let mut host = Host::anonymous(&options)?;
/// let mut plugin = Plugin::attach(host.descriptor()?, &options)?;
/// host.send(&Tick { price: 100, size: 3 })?;
/// let tick = plugin.recv()?;
/// plugin.send(&Report { lines: vec![format!("{} at {}", tick.size, tick.price)] })?;
/// assert_eq!(host.recv()?.lines[0].as_str(), "3 at 100");
///
/// let wrong = TypedChannel::<Pod<u64>, Pod<Tick>>::attach(host.descriptor()?, &options);
/// assert!(matches!(wrong, Err(SegmentError::Types { .. })));
/// # Ok(())
/// # }
/// ```
///
/// What is sent is of the type named, at compile time:
///
/// ```compile_fail,E0308
/// # use ringway::channel::TypedChannel;
/// # use ringway::typed::Pod;
/// fn send(channel: &mut TypedChannel<Pod<u64>, Pod<u64>>) {
///     let _ = channel.send(&1_u32);
/// }
/// ```
#[derive(Debug)]
pub struct TypedChannel<S, R> {
    channel: Channel,
    scratch: AlignedVec,
    codecs: PhantomData<fn() -> (S, R)>,
}

impl Channel {
    /// This channel as one of values. For channels that somebody else has created or attached: a
    /// host's, whose [`ChannelOptions::types`] say what they are for, or a plugin's.
    ///
    /// # Errors
    /// [`SegmentError::Types`] where the channel was not created for
    /// these types; it is closed.
    pub fn typed<S: Codec, R: Codec>(self) -> Result<TypedChannel<S, R>, SegmentError> {
        let side = self.connection().side();
        ChannelTypes::of::<S, R>().check(self.segment.geometry(), side)?;
        Ok(TypedChannel { channel: self, scratch: AlignedVec::new(), codecs: PhantomData })
    }
}

impl<S: Codec, R: Codec> TypedChannel<S, R> {
    /// These options for channels of these types, as seen from the side that uses them.
    pub fn options(options: &ChannelOptions) -> ChannelOptions {
        ChannelOptions { types: ChannelTypes::of::<S, R>(), ..options.clone() }
    }

    /// As [`Channel::anonymous`], for these types.
    ///
    /// # Errors
    /// As there.
    pub fn anonymous(options: &ChannelOptions) -> Result<Self, SegmentError> {
        Channel::anonymous(&Self::options(options))?.typed()
    }

    /// As [`Channel::attach`].
    ///
    /// # Errors
    /// [`SegmentError::Types`] where the channel was not created for
    /// these types, seen from the other side; the others as there.
    pub fn attach(fd: OwnedFd, options: &ChannelOptions) -> Result<Self, SegmentError> {
        Channel::attach(fd, &Self::options(options))?.typed()
    }

    /// Both sides of a new channel, for two threads of one process.
    ///
    /// # Errors
    /// As [`anonymous`](Self::anonymous).
    pub fn pair(options: &ChannelOptions) -> Result<(Self, TypedChannel<R, S>), SegmentError> {
        let first = Self::anonymous(options)?;
        let second = TypedChannel::attach(first.descriptor()?, options)?;
        Ok((first, second))
    }

    /// As [`Channel::create`], for these types.
    ///
    /// # Errors
    /// As there.
    pub fn create(
        address: impl Into<Address>,
        options: &ChannelOptions,
    ) -> Result<Self, SegmentError> {
        Channel::create(address, &Self::options(options))?.typed()
    }

    /// As [`Channel::open`].
    ///
    /// # Errors
    /// [`SegmentError::Types`] where the channel was not created for
    /// these types, seen from the side that was free; the others as there.
    pub fn open(
        address: impl Into<Address>,
        options: &ChannelOptions,
    ) -> Result<Self, SegmentError> {
        Channel::open(address, &Self::options(options))?.typed()
    }

    /// As [`Channel::open_or_create`], for these types.
    ///
    /// # Errors
    /// As [`open`](Self::open) and as there.
    pub fn open_or_create(
        address: impl Into<Address>,
        options: &ChannelOptions,
    ) -> Result<Self, SegmentError> {
        Channel::open_or_create(address, &Self::options(options))?.typed()
    }

    /// As [`Channel::open_timeout`].
    ///
    /// # Errors
    /// As [`open`](Self::open) and as there.
    pub fn open_timeout(
        address: impl Into<Address>,
        options: &ChannelOptions,
        timeout: Duration,
    ) -> Result<Self, SegmentError> {
        Channel::open_timeout(address, &Self::options(options), timeout)?.typed()
    }

    /// As [`Channel::descriptor`].
    ///
    /// # Errors
    /// As there.
    pub fn descriptor(&self) -> Result<OwnedFd, SegmentError> {
        self.channel.descriptor()
    }

    /// The channel, for looking: the state of the peer, for example.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// As [`Channel::is_current`](crate::channel::Channel::is_current).
    pub fn is_current(&self) -> bool {
        self.channel.is_current()
    }

    /// The channel without its types. To have it watched before it is typed, call
    /// [`Channel::watch_peer`] and then [`Channel::typed`].
    pub fn into_inner(self) -> Channel {
        self.channel
    }

    /// Takes the two ends apart. The sender may go to one thread and the receiver to another.
    pub fn split(self) -> (TypedSender<S>, TypedReceiver<R>) {
        let (sender, receiver) = self.channel.split();
        (TypedSender::over(sender), TypedReceiver::over(receiver))
    }
}

impl<S: Encode, R: Codec> TypedChannel<S, R> {
    /// As [`TypedSender::send`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn send(&mut self, value: &S::Value) -> Result<(), SendError> {
        self.channel.sender.send(S::encode(value, &mut self.scratch)?)
    }

    /// As [`TypedSender::try_send`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn try_send(&mut self, value: &S::Value) -> Result<(), TrySendError> {
        self.channel.sender.try_send(S::encode(value, &mut self.scratch)?)
    }

    /// As [`TypedSender::send_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn send_timeout(
        &mut self,
        value: &S::Value,
        timeout: Duration,
    ) -> Result<(), SendTimeoutError> {
        self.channel.sender.send_timeout(S::encode(value, &mut self.scratch)?, timeout)
    }
}

impl<S: Codec, R: Decode> TypedChannel<S, R> {
    /// As [`TypedReceiver::recv`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn recv(&mut self) -> Result<R::View<'_>, RecvError> {
        receiver::recv::<R>(&mut self.channel.receiver)
    }

    /// As [`TypedReceiver::try_recv`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn try_recv(&mut self) -> Result<R::View<'_>, TryRecvError> {
        receiver::try_recv::<R>(&mut self.channel.receiver)
    }

    /// As [`TypedReceiver::recv_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<R::View<'_>, RecvTimeoutError> {
        receiver::recv_timeout::<R>(&mut self.channel.receiver, timeout)
    }
}
