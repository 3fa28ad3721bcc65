//! Lossy channels with a name: either process first, and again after one has died.
//!
//! Processes that nobody has started from another meet here. What always holds: the sender has the
//! first side and the receiver the second, whichever of them came first; of two that want the same one
//! gets an error that says who has it.
#![expect(private_interfaces, reason = "nobody outside calls what the sealed trait has")]

use std::sync::Arc;
use std::time::Duration;

use super::open::{receiver, sender};
use super::{LossyChannel, LossyOptions, LossyReceiver, LossySender};
use crate::channel::connect::connect_named;
use crate::channel::connection::Connection;
use crate::channel::duplex::Backing;
use crate::channel::open::{open_segment, until};
use crate::channel::{ChannelOptions, Side};
use crate::error::SegmentError;
use crate::segment::{Address, How, NamedSegment};

/// An end of a lossy channel: [`LossySender`] or [`LossyReceiver`].
pub trait LossyEnd: Sized + sealed::Made {}

impl LossyEnd for LossySender {}
impl LossyEnd for LossyReceiver {}

mod sealed {
    use super::*;

    pub trait Made: Sized {
        const SIDE: Side;

        fn make(connection: Arc<Connection>, options: &LossyOptions) -> Result<Self, SegmentError>;
    }
}

impl sealed::Made for LossySender {
    const SIDE: Side = Side::First;

    fn make(connection: Arc<Connection>, _: &LossyOptions) -> Result<Self, SegmentError> {
        sender(connection)
    }
}

impl sealed::Made for LossyReceiver {
    const SIDE: Side = Side::Second;

    fn make(connection: Arc<Connection>, options: &LossyOptions) -> Result<Self, SegmentError> {
        receiver(connection, options)
    }
}

/// # Lossy channels with a name
///
/// As [`Channel`](crate::channel::Channel)'s: the segment stays until it is
/// [removed](crate::channel::remove), and a process that died, or has left, can take its side again. The
/// other side is told [`Restarted`](crate::error::RecvError::Restarted) once. Numbers and losses go on
/// where the former process was.
///
/// ```
/// use ringway::channel::{self, LossyChannel, LossyOptions, LossyReceiver, LossySender};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let name = format!("doc-lossy-{}", std::process::id());
/// let options = LossyOptions::default();
/// let mut sender = LossyChannel::<LossySender>::open_or_create(&*name, &options)?.into_end();
/// // In another process:
/// let mut receiver = LossyChannel::<LossyReceiver>::open_or_create(&*name, &options)?.into_end();
/// sender.send(b"42.17")?;
/// assert_eq!(&*receiver.recv()?, b"42.17");
/// channel::remove(&*name).unwrap_err(); // in use
/// drop((sender, receiver));
/// channel::remove(&*name)?;
/// # Ok(())
/// # }
/// ```
impl<E: LossyEnd> LossyChannel<E> {
    /// Creates the channel and takes this end's side. One whose both sides are free is replaced, with
    /// what is unread in it.
    ///
    /// # Errors
    /// As [`Channel::create`](crate::channel::Channel::create).
    pub fn create(
        address: impl Into<Address>,
        options: &LossyOptions,
    ) -> Result<Self, SegmentError> {
        Self::named(&address.into(), How::Create, options)
    }

    /// Takes this end's side of a channel that exists. It may be larger than asked for, and not smaller;
    /// [`LossyOptions::least`] opens any.
    ///
    /// # Errors
    /// As [`Channel::open`](crate::channel::Channel::open), and
    /// [`SegmentError::Incompatible`] where it is not a lossy one.
    pub fn open(address: impl Into<Address>, options: &LossyOptions) -> Result<Self, SegmentError> {
        Self::named(&address.into(), How::Open, options)
    }

    /// Takes this end's side of the channel that exists, or creates one.
    ///
    /// # Errors
    /// As [`create`](Self::create) and [`open`](Self::open).
    pub fn open_or_create(
        address: impl Into<Address>,
        options: &LossyOptions,
    ) -> Result<Self, SegmentError> {
        Self::named(&address.into(), How::OpenOrCreate, options)
    }

    /// As [`open`](Self::open), but waits until the channel exists and this end's side is free.
    ///
    /// # Errors
    /// What [`open`](Self::open) said last, where that has not come about after `timeout`.
    pub fn open_timeout(
        address: impl Into<Address>,
        options: &LossyOptions,
        timeout: Duration,
    ) -> Result<Self, SegmentError> {
        let address = address.into();
        until(timeout, || Self::named(&address, How::Open, options))
    }

    fn named(address: &Address, how: How, options: &LossyOptions) -> Result<Self, SegmentError> {
        let wish = ChannelOptions {
            side: Some(E::SIDE),
            access: options.access,
            wait: options.wait,
            ..ChannelOptions::default()
        };
        let segment = open_segment(address, how, &wish, &options.geometry(0))?;
        // The side is shown as attached already.
        Self::over_named(&segment, options).inspect_err(|_| segment.leave())
    }

    fn over_named(
        segment: &Arc<NamedSegment>,
        options: &LossyOptions,
    ) -> Result<Self, SegmentError> {
        let end = E::make(connect_named(segment)?, options)?;
        Ok(Self { end, segment: Backing::Named(Arc::clone(segment)) })
    }
}
