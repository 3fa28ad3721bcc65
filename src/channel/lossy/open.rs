//! Lossy channels in segments without a name: create, hand the descriptor over, attach.
//! [`named`](super::named) makes those with one.
//!
//! What always holds: one side sends and the other receives, and the segment's header says which;
//! the ring that leads back is the smallest there is, and carries nothing.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::{LossyReceiver, LossySender};
use crate::channel::connect::connect;
use crate::channel::connection::Connection;
use crate::channel::duplex::Backing;
use crate::error::{ExitReason, SegmentError};
use crate::layout::{MIN_CAPACITY_BYTES, MIN_LOSSY_CAPACITY_BYTES};
use crate::memory::FenceMode;
use crate::os::pidfd::PidFd;
use crate::ring::lossy::LossyGeometry;
use crate::segment::{Access, AnonymousSegment, ChannelGeometry, RingKind};
use crate::supervisor::{self, WatchToken};
use crate::wakeup::{WaitStrategy, Waiter};

/// Choices about a lossy channel. All have defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LossyOptions {
    /// Capacity in bytes: a power of two, at least 128. Default 256 KiB. The longest message is a
    /// quarter of it, less 16 bytes; about seven eighths hold messages at any time (all but 4 KiB
    /// where it is large).
    pub capacity_bytes: u64,
    /// How the receiver waits. Each side says so for itself; the sender never waits.
    pub wait: WaitStrategy,
    /// Who fences when the receiver sleeps; found out where `None`. The creator decides for both.
    pub fence: Option<FenceMode>,
    /// Who may open it, for channels with a name.
    pub access: Access,
}

impl Default for LossyOptions {
    fn default() -> Self {
        Self {
            capacity_bytes: 256 << 10,
            wait: WaitStrategy::default(),
            fence: None,
            access: Access::default(),
        }
    }
}

impl LossyOptions {
    /// The least that can be asked for: opens a channel of any size.
    pub fn least() -> Self {
        Self { capacity_bytes: MIN_LOSSY_CAPACITY_BYTES, ..Self::default() }
    }

    /// A segment whose ring from this side on is lossy.
    pub(super) fn geometry(&self, from: usize) -> ChannelGeometry {
        let fence = self.fence.unwrap_or_else(|| match self.wait {
            WaitStrategy::Park => FenceMode::Real,
            _ => FenceMode::detect(),
        });
        let mut capacities = [MIN_CAPACITY_BYTES; 2];
        capacities[from] = self.capacity_bytes;
        ChannelGeometry {
            max_message_bytes: (self.capacity_bytes / 4).saturating_sub(16).max(1),
            ring_kind: kinds(from),
            ..ChannelGeometry::records(capacities, 8, fence)
        }
    }
}

fn kinds(from: usize) -> [RingKind; 2] {
    let mut kinds = [RingKind::Records; 2];
    kinds[from] = RingKind::Lossy;
    kinds
}

/// One side of a lossy channel: its end, [`LossySender`] or [`LossyReceiver`], and its segment.
///
/// ```
/// use ringway::channel::{LossyChannel, LossyOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let options = LossyOptions { capacity_bytes: 4096, ..LossyOptions::default() };
/// let (mut sender, mut receiver) = LossyChannel::pair(&options)?;
/// for n in 0..1_000_u64 {
///     sender.send(&n.to_ne_bytes())?; // never waits
/// }
/// let message = receiver.recv()?; // the oldest one that is left
/// assert_eq!(message.number(), message.lost_before());
/// assert_eq!(*message, message.number().to_ne_bytes());
/// let stats = receiver.stats();
/// assert_eq!((stats.received, stats.lost), (1, sender.stats().lost));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct LossyChannel<E> {
    pub(super) end: E,
    pub(super) segment: Backing,
}

impl LossyChannel<LossySender> {
    /// Creates a channel in a sealed anonymous segment and takes the sending side.
    /// [`descriptor`](Self::descriptor) is what the other process needs to
    /// [`attach`](LossyChannel::attach).
    ///
    /// # Errors
    /// [`SegmentError`]; nothing is kept then.
    pub fn anonymous(options: &LossyOptions) -> Result<Self, SegmentError> {
        let segment = AnonymousSegment::create(&options.geometry(0))?;
        Self::over(segment, 0, 0, sender)
    }

    /// Attaches the sending side of a channel that its receiver has created.
    ///
    /// # Errors
    /// As [`attach`](LossyChannel::attach).
    pub fn attach_sender(fd: OwnedFd) -> Result<Self, SegmentError> {
        Self::over(AnonymousSegment::attach(fd)?, 1, 1, sender)
    }
}

impl LossyChannel<LossyReceiver> {
    /// Attaches the receiving side of a channel that its sender has created. Of the options, only
    /// how this side waits is used.
    ///
    /// # Errors
    /// [`SegmentError::AlreadyAttached`] where somebody has done so before;
    /// [`SegmentError::Incompatible`] where the channel is not a lossy one, or leads the other way;
    /// the others as [`AnonymousSegment::attach`]. The descriptor is closed.
    pub fn attach(fd: OwnedFd, options: &LossyOptions) -> Result<Self, SegmentError> {
        let segment = AnonymousSegment::attach(fd)?;
        Self::over(segment, 1, 0, |connection| receiver(connection, options))
    }

    /// Creates a channel as [`anonymous`](LossyChannel::anonymous) does, and takes the receiving
    /// side; for [`attach_sender`](LossyChannel::attach_sender).
    ///
    /// # Errors
    /// As there.
    pub fn anonymous_receiver(options: &LossyOptions) -> Result<Self, SegmentError> {
        let segment = AnonymousSegment::create(&options.geometry(1))?;
        Self::over(segment, 0, 1, |connection| receiver(connection, options))
    }

    /// Both ends of a new channel, for two threads of one process.
    ///
    /// # Errors
    /// As [`anonymous`](LossyChannel::anonymous).
    pub fn pair(options: &LossyOptions) -> Result<(LossySender, LossyReceiver), SegmentError> {
        let sender = LossyChannel::anonymous(options)?;
        let receiver = LossyChannel::attach(sender.descriptor()?, options)?;
        Ok((sender.into_end(), receiver.into_end()))
    }
}

pub(super) fn sender(connection: Arc<Connection>) -> Result<LossySender, SegmentError> {
    let geometry = LossyGeometry::new(*connection.outgoing())?;
    Ok(LossySender::new(connection, geometry)?)
}

pub(super) fn receiver(
    connection: Arc<Connection>,
    options: &LossyOptions,
) -> Result<LossyReceiver, SegmentError> {
    let geometry = LossyGeometry::new(*connection.incoming())?;
    Ok(LossyReceiver::new(connection, geometry, Waiter::new(options.wait, true))?)
}

impl<E> LossyChannel<E> {
    /// The end of `side` in a channel that leads away from side `from`.
    fn over(
        segment: AnonymousSegment,
        side: usize,
        from: usize,
        end: impl FnOnce(Arc<Connection>) -> Result<E, SegmentError>,
    ) -> Result<Self, SegmentError> {
        let segment = Arc::new(segment);
        let end = end(connect(&segment, side, kinds(from))?)?;
        Ok(Self { end, segment: Backing::Anonymous(segment) })
    }

    /// The end by itself, to be used. What it lies in stays mapped as long as the end lives.
    pub fn into_end(self) -> E {
        self.end
    }

    /// As [`Channel::is_current`](crate::channel::Channel::is_current).
    pub fn is_current(&self) -> bool {
        self.segment.is_current()
    }

    /// The end.
    pub fn end(&mut self) -> &mut E {
        &mut self.end
    }

    /// What the other process needs to attach: a descriptor of the segment, closed on exec.
    ///
    /// # Errors
    /// [`SegmentError::Os`], where descriptors have run out or `/proc` is missing;
    /// [`SegmentError::NotMemory`] where the channel has a name.
    pub fn descriptor(&self) -> Result<OwnedFd, SegmentError> {
        self.segment.anonymous()?.descriptor()
    }

    /// Seals the segment against holes and further mappings, once both sides have mapped it; see
    /// [`AnonymousSegment::seal_writes`].
    ///
    /// # Errors
    /// As there.
    pub fn seal_writes(&self) -> Result<(), SegmentError> {
        self.segment.anonymous()?.seal_writes()
    }
}

/// What both ends have.
pub(super) fn watch(
    connection: &Arc<Connection>,
    pidfd: &impl AsFd,
) -> Result<WatchToken, SegmentError> {
    let os = |call| move |source| SegmentError::Os { call, source };
    let own = pidfd.as_fd().try_clone_to_owned().map_err(os("dup"))?;
    let connection = Arc::clone(connection);
    let died = Box::new(move || connection.peer_died(ExitReason::Unknown, false));
    supervisor::watch(own, died).map_err(os("watching the peer"))
}

/// A pidfd of the process with this id.
pub(super) fn pidfd_of(pid: u32) -> Result<PidFd, SegmentError> {
    PidFd::open(pid).map_err(|source| SegmentError::Os { call: "pidfd_open", source })
}
