//! Channels with a name: either process first, and again after one has died.
//!
//! Processes that nobody has started from another meet here. What always holds: of two that want the
//! same side one gets an error that says who has it, and messages that were committed are there for
//! whoever takes the side that they are for.

use std::sync::Arc;
use std::time::Duration;

use super::connect::connect_named;
use super::duplex::{Backing, Channel};
use super::open::{open_segment, until};
use super::{ChannelOptions, Receiver, Sender};
#[cfg(doc)]
use crate::error::NameError;
use crate::error::SegmentError;
use crate::segment::{Address, How, NamedSegment};
use crate::wakeup::Waiter;

/// # Channels with a name
///
/// The segment lies in `/dev/shm` or in a file, and stays there until it is
/// [removed](super::remove): a process that died, or has left, can take its side again, with what it
/// had not read. The other side's calls return [`Disconnected`](crate::error::RecvError::Disconnected)
/// after the last committed message, and, when somebody has taken the side again,
/// [`Restarted`](crate::error::RecvError::Restarted) once for each end; then they work.
///
/// A peer that may write the file can cut it, which kills whoever touches what was cut off; and it
/// can lie about being alive. Give names only to processes that could harm each other anyway.
impl Channel {
    /// Creates the channel and takes its first side. One whose both sides are free, because their
    /// processes have died or left, is replaced, with what is unread in it.
    ///
    /// ```
    /// use ringway::channel::{self, Channel, ChannelOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let name = format!("doc-create-{}", std::process::id());
    /// let options = ChannelOptions::default();
    /// let mut server = Channel::create(&*name, &options)?;
    /// let mut client = Channel::open(&*name, &options)?; // in another process
    /// client.send(b"hello")?;
    /// assert_eq!(&*server.recv()?, b"hello");
    /// drop((server, client));
    /// channel::remove(&*name)?; // names stay until they are removed
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NameError::AlreadyExists`] while somebody alive has one of its sides; the other
    /// [`NameError`]s and [`SegmentError`]s as they say. Nothing is kept.
    pub fn create(
        address: impl Into<Address>,
        options: &ChannelOptions,
    ) -> Result<Self, SegmentError> {
        Self::named(&address.into(), How::Create, options)
    }

    /// Takes the free side of a channel that exists; the second one where both are free. The channel may
    /// be larger than asked for, and not smaller; [`ChannelOptions::least`] opens any.
    ///
    /// # Errors
    /// [`NameError::NotFound`] where there is none, [`NameError::Differs`] where it is smaller than asked
    /// for, [`NameError::AlreadyClaimed`] where no side, or
    /// not the one asked for, is free; [`SegmentError::Corrupt`] where it is poisoned. The others as
    /// they say. Nothing is kept.
    pub fn open(
        address: impl Into<Address>,
        options: &ChannelOptions,
    ) -> Result<Self, SegmentError> {
        Self::named(&address.into(), How::Open, options)
    }

    /// Creates the channel or takes the free side of the one that exists: for two equal processes, of
    /// which either may come first.
    ///
    /// Where both sides are free, because both processes have died or left, a new channel replaces
    /// the old one.
    ///
    /// # Errors
    /// [`NameError::Unread`] where both sides are free and there are messages: name the side then, so
    /// that no process receives its own. The others as [`create`](Self::create) and
    /// [`open`](Self::open).
    pub fn open_or_create(
        address: impl Into<Address>,
        options: &ChannelOptions,
    ) -> Result<Self, SegmentError> {
        Self::named(&address.into(), How::OpenOrCreate, options)
    }

    /// As [`open`](Self::open), but waits until the channel exists and a side is free.
    ///
    /// # Errors
    /// What [`open`](Self::open) said last, where that has not come about after `timeout`.
    pub fn open_timeout(
        address: impl Into<Address>,
        options: &ChannelOptions,
        timeout: Duration,
    ) -> Result<Self, SegmentError> {
        let address = address.into();
        until(timeout, || Self::named(&address, How::Open, options))
    }

    fn named(address: &Address, how: How, options: &ChannelOptions) -> Result<Self, SegmentError> {
        let segment = open_segment(address, how, options, &options.geometry())?;
        // The side is shown as attached already.
        Self::over_named(&segment, options).inspect_err(|_| segment.leave())
    }

    fn over_named(
        segment: &Arc<NamedSegment>,
        options: &ChannelOptions,
    ) -> Result<Self, SegmentError> {
        let connection = connect_named(segment)?;
        let waiter = || Waiter::new(options.wait, true);
        let sender = Sender::new(Arc::clone(&connection), waiter())?;
        let receiver = Receiver::new(connection, waiter())?;
        let segment = Backing::Named(Arc::clone(segment));
        Ok(Self { sender, receiver, segment })
    }
}
