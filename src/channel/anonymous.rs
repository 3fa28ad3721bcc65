//! Channels in segments without a name: create, hand the descriptor over, attach.
//!
//! The host makes its plugins' channels here. What always holds: a channel exists as a whole or not
//! at all, and its memory is gone with its last user.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::connect::connect;
use super::duplex::{Backing, Channel};
use super::{ChannelOptions, ChannelTypes, Receiver, Sender};
use crate::error::{ExitReason, SegmentError};
use crate::os::pidfd::PidFd;
use crate::segment::{AnonymousSegment, RingKind};
use crate::supervisor;
use crate::wakeup::{WaitStrategy, Waiter};

impl Channel {
    /// Creates a channel in a sealed anonymous segment and takes its first side.
    /// [`descriptor`](Self::descriptor) is what the other process needs to attach the second.
    ///
    /// # Errors
    /// [`SegmentError`]; nothing is kept then.
    pub fn anonymous(options: &ChannelOptions) -> Result<Self, SegmentError> {
        Self::over(AnonymousSegment::create(&options.geometry())?, 0, options)
    }

    /// Attaches the second side of a channel. Of the options, only how this side waits and what
    /// types it expects are used; the rest was settled when the channel was created.
    ///
    /// # Errors
    /// [`SegmentError::AlreadyAttached`] where somebody has done so before;
    /// [`SegmentError::Types`] where the channel was created for
    /// messages of other types, or for any while the options name one, or the reverse; the others
    /// as [`AnonymousSegment::attach`]. The descriptor is closed.
    pub fn attach(fd: OwnedFd, options: &ChannelOptions) -> Result<Self, SegmentError> {
        let segment = AnonymousSegment::attach(fd)?;
        options.types.check(segment.geometry(), 1)?;
        Self::over(segment, 1, options)
    }

    /// [`attach`](Self::attach) whatever types the channel was created for, for a plugin, which gets
    /// its channels before it says what it expects of them.
    pub(crate) fn attach_unchecked_types(
        fd: OwnedFd,
        options: &ChannelOptions,
    ) -> Result<Self, SegmentError> {
        Self::over(AnonymousSegment::attach(fd)?, 1, options)
    }

    /// Takes side `side` of a channel that somebody else has created, for which nobody has taken the
    /// first side as its creator. Types that are `None` are whatever the channel was created for.
    pub(crate) fn attach_side(
        fd: OwnedFd,
        side: usize,
        types: Option<ChannelTypes>,
        wait: WaitStrategy,
    ) -> Result<Self, SegmentError> {
        let segment = AnonymousSegment::attach(fd)?;
        if let Some(types) = types {
            types.check(segment.geometry(), side)?;
        }
        Self::over(segment, side, &ChannelOptions { wait, ..ChannelOptions::default() })
    }

    /// Both sides of a new channel, for two threads of one process.
    ///
    /// # Errors
    /// As [`anonymous`](Self::anonymous).
    pub fn pair(options: &ChannelOptions) -> Result<(Self, Self), SegmentError> {
        let first = Self::anonymous(options)?;
        let second = Self::attach(first.descriptor()?, options)?;
        Ok((first, second))
    }

    pub(super) fn over(
        segment: AnonymousSegment,
        side: usize,
        options: &ChannelOptions,
    ) -> Result<Self, SegmentError> {
        let connection = connect(&segment, side, [RingKind::Records; 2])?;
        let waiter = || Waiter::new(options.wait, true);
        let sender = Sender::new(Arc::clone(&connection), waiter())?;
        let receiver = Receiver::new(Arc::clone(&connection), waiter())?;
        Ok(Self { sender, receiver, segment: Backing::Anonymous(Arc::new(segment)) })
    }

    /// What the other process needs to attach: a descriptor of the segment, closed on exec.
    ///
    /// # Errors
    /// [`SegmentError::Os`], where descriptors have run out or `/proc` is missing;
    /// [`SegmentError::NotMemory`] where the channel has a name, by which it is opened instead.
    pub fn descriptor(&self) -> Result<OwnedFd, SegmentError> {
        self.segment()?.descriptor()
    }

    /// Seals the segment against holes and further mappings, once both sides have mapped it; see
    /// [`AnonymousSegment::seal_writes`].
    ///
    /// # Errors
    /// As there, and [`SegmentError::NotMemory`] where the channel has a name: such segments cannot
    /// be sealed. A peer that keeps the segment from being sealed is not to be trusted any further.
    pub fn seal_writes(&self) -> Result<(), SegmentError> {
        self.segment()?.seal_writes()
    }

    /// Watches the process that has the other side: when it dies, this side's calls return
    /// `Disconnected` after the last committed message, and whoever sleeps on them is woken.
    /// `pidfd` must be a pidfd of that process; the peer's own word for its identity would not do.
    ///
    /// # Errors
    /// [`SegmentError::Os`], where descriptors or threads have run out.
    pub fn watch_peer(&mut self, pidfd: &impl AsFd) -> Result<(), SegmentError> {
        let os = |call| move |source| SegmentError::Os { call, source };
        let own = pidfd.as_fd().try_clone_to_owned().map_err(os("dup"))?;
        // Weak: the connection keeps the watch, so that it lasts as long as an end of this side does.
        let connection = Arc::downgrade(self.connection());
        let died = Box::new(move || {
            if let Some(connection) = connection.upgrade() {
                connection.peer_died(ExitReason::Unknown, false);
            }
        });
        let watch = supervisor::watch(own, died).map_err(os("watching the peer"))?;
        self.connection().keep(Box::new(watch));
        Ok(())
    }

    /// Watches the process with this id; for a child of this process that has not been waited for,
    /// whose id cannot have been given to another. See [`watch_peer`](Self::watch_peer).
    ///
    /// # Errors
    /// As [`watch_peer`](Self::watch_peer), and where there is no such process.
    pub fn watch_peer_id(&mut self, pid: u32) -> Result<(), SegmentError> {
        let pidfd =
            PidFd::open(pid).map_err(|source| SegmentError::Os { call: "pidfd_open", source })?;
        self.watch_peer(&pidfd)
    }
}
