//! The two ends of one side, and how to get them.
//!
//! Callers create one side, hand its descriptor over, and attach the other. What always holds: the
//! slots of each ring are as long as the type that both sides named, and the kind of ring, the types
//! and the lengths were compared before anything was written.

use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytemuck::{CheckedBitPattern, NoUninit};

use super::{SlotReceiver, SlotSender};
use crate::channel::connect::connect;
use crate::channel::{ChannelOptions, ChannelTypes};
use crate::error::{
    ExitReason, RecvError, RecvTimeoutError, SegmentError, SendError, SendTimeoutError,
    TryRecvError, TrySendError,
};
use crate::layout::ring;
use crate::os::pidfd::PidFd;
use crate::ring::slots::SlotGeometry;
use crate::segment::{AnonymousSegment, ChannelGeometry, RingKind};
use crate::supervisor;
use crate::typed::{Pod, Schema};
use crate::wakeup::Waiter;

/// One side of a channel that sends values `S` and receives values `R`, both plain data, over rings
/// of slots: up to seven messages of 8 bytes share a cache line, with one word that tells how many
/// are there.
///
/// Prefer it to a [`TypedChannel`](crate::channel::TypedChannel) of [`Pod`] where values are small
/// and come in streams. What it does not do: it carries nothing over to the successor of a plugin
/// that a host restarts, so [`Host`](crate::host::Host) makes none; it cannot be read by a
/// [`Selector`](crate::channel::Selector); nothing is lent in place. And a receiver gives room back
/// in larger portions: when it dies, up to
/// [`max_unreleased`](SlotReceiver::max_unreleased) values that it had done with come again.
///
/// ```
/// use ringway::Schema;
/// use ringway::channel::{ChannelOptions, SlotChannel};
///
/// #[derive(Debug, PartialEq, Clone, Copy, Schema, bytemuck::NoUninit, bytemuck::AnyBitPattern)]
/// #[repr(C)]
/// struct Tick {
///     price: u64,
///     size: u64,
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let options = ChannelOptions::default();
/// let mut host = SlotChannel::<Tick, u64>::anonymous(&options)?;
/// let mut plugin = SlotChannel::<u64, Tick>::attach(host.descriptor()?, &options)?;
/// host.send(&Tick { price: 100, size: 3 })?;
/// assert_eq!(plugin.recv()?, Tick { price: 100, size: 3 });
/// plugin.send(&300)?;
/// assert_eq!(host.recv()?, 300);
/// # Ok(())
/// # }
/// ```
///
/// Only plain data can be sent:
///
/// ```compile_fail,E0277
/// # use ringway::channel::SlotChannel;
/// fn send(channel: &mut SlotChannel<String, u64>) {
///     let _ = channel.send(&String::new());
/// }
/// ```
#[derive(Debug)]
pub struct SlotChannel<S, R> {
    sender: SlotSender<S>,
    receiver: SlotReceiver<R>,
    segment: Arc<AnonymousSegment>,
    types: PhantomData<fn() -> (S, R)>,
}

/// Bytes of a slot for values of this type.
fn slot_bytes<T>() -> Result<u32, SegmentError> {
    let found = size_of::<T>().max(1);
    u32::try_from(found)
        .map_err(|_| SegmentError::SlotBytes { found: u32::MAX, max: u32::MAX.into() })
}

impl<S: Schema + 'static, R: Schema + 'static> SlotChannel<S, R> {
    /// Creates a channel in a sealed anonymous segment and takes its first side.
    ///
    /// Of the options, [`payload_align`](ChannelOptions::payload_align) and
    /// [`max_message_bytes`](ChannelOptions::max_message_bytes) do not matter here.
    ///
    /// # Errors
    /// [`SegmentError::SlotBytes`] where a value is longer than half a ring; the others as
    /// [`Channel::anonymous`](crate::channel::Channel::anonymous).
    pub fn anonymous(options: &ChannelOptions) -> Result<Self, SegmentError> {
        let geometry = ChannelGeometry {
            payload_align: 8,
            ring_kind: [RingKind::Slots; 2],
            slot_bytes: slot_bytes::<S>()?.max(slot_bytes::<R>()?),
            type_fingerprint: Self::types().fingerprint(0),
            ..options.geometry()
        };
        Self::over(AnonymousSegment::create(&geometry)?, 0, options)
    }

    /// Attaches the second side of a channel. Of the options, only how this side waits is used.
    ///
    /// # Errors
    /// [`SegmentError::Incompatible`] where it is not a channel of slots, or one of other types; the
    /// others as [`Channel::attach`](crate::channel::Channel::attach).
    pub fn attach(fd: OwnedFd, options: &ChannelOptions) -> Result<Self, SegmentError> {
        Self::over(AnonymousSegment::attach(fd)?, 1, options)
    }

    /// Both sides of a new channel, for two threads of one process.
    ///
    /// # Errors
    /// As [`anonymous`](Self::anonymous).
    pub fn pair(options: &ChannelOptions) -> Result<(Self, SlotChannel<R, S>), SegmentError> {
        let first = Self::anonymous(options)?;
        let second = SlotChannel::attach(first.descriptor()?, options)?;
        Ok((first, second))
    }

    fn types() -> ChannelTypes {
        ChannelTypes::of::<Pod<S>, Pod<R>>()
    }

    /// Takes a side of a segment, wherever that lies.
    fn over(
        segment: AnonymousSegment,
        side: usize,
        options: &ChannelOptions,
    ) -> Result<Self, SegmentError> {
        let segment = Arc::new(segment);
        let (memory, geometry) = (segment.memory(), segment.geometry());
        Self::types().check(geometry, side)?;
        let layout = geometry.layout()?;
        // Each ring's slots are as long as its own messages; both sides know the types.
        let slots = |index: usize, slot_bytes: u32| {
            let (control, data) = (ring::CONTROL[index], layout.data[index]);
            SlotGeometry::new(memory, control, data, geometry.capacity_bytes[index], slot_bytes)
        };
        let outgoing = slots(side, slot_bytes::<S>()?)?;
        let incoming = slots(1 - side, slot_bytes::<R>()?)?;
        let connection = connect(&segment, side, [RingKind::Slots; 2])?;
        let waiter = || Waiter::new(options.wait, true);
        let sender = SlotSender::new(Arc::clone(&connection), outgoing, waiter())?;
        let receiver = SlotReceiver::new(connection, incoming, waiter())?;
        Ok(Self { sender, receiver, segment, types: PhantomData })
    }
}

impl<S, R> SlotChannel<S, R> {
    /// What the other process needs to attach: a descriptor of the segment, closed on exec.
    ///
    /// # Errors
    /// [`SegmentError::Os`], where descriptors have run out or `/proc` is missing.
    pub fn descriptor(&self) -> Result<OwnedFd, SegmentError> {
        self.segment.descriptor()
    }

    /// As [`Channel::seal_writes`](crate::channel::Channel::seal_writes).
    ///
    /// # Errors
    /// As there.
    pub fn seal_writes(&self) -> Result<(), SegmentError> {
        self.segment.seal_writes()
    }

    /// As [`Channel::watch_peer`](crate::channel::Channel::watch_peer).
    ///
    /// # Errors
    /// As there.
    pub fn watch_peer(&mut self, pidfd: &impl AsFd) -> Result<(), SegmentError> {
        let os = |call| move |source| SegmentError::Os { call, source };
        let own = pidfd.as_fd().try_clone_to_owned().map_err(os("dup"))?;
        let connection = Arc::clone(self.sender.connection());
        let died = Box::new(move || connection.peer_died(ExitReason::Unknown, false));
        let watch = supervisor::watch(own, died).map_err(os("watching the peer"))?;
        self.receiver.watch = Some(watch);
        Ok(())
    }

    /// As [`Channel::watch_peer_id`](crate::channel::Channel::watch_peer_id).
    ///
    /// # Errors
    /// As there.
    pub fn watch_peer_id(&mut self, pid: u32) -> Result<(), SegmentError> {
        let pidfd =
            PidFd::open(pid).map_err(|source| SegmentError::Os { call: "pidfd_open", source })?;
        self.watch_peer(&pidfd)
    }

    /// Takes the two ends apart. The sender may go to one thread and the receiver to another.
    pub fn split(self) -> (SlotSender<S>, SlotReceiver<R>) {
        (self.sender, self.receiver)
    }

    /// The sending end.
    pub fn sender(&mut self) -> &mut SlotSender<S> {
        &mut self.sender
    }

    /// The receiving end.
    pub fn receiver(&mut self) -> &mut SlotReceiver<R> {
        &mut self.receiver
    }
}

impl<S: NoUninit, R> SlotChannel<S, R> {
    /// As [`SlotSender::send`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn send(&mut self, value: &S) -> Result<(), SendError> {
        self.sender.send(value)
    }

    /// As [`SlotSender::try_send`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn try_send(&mut self, value: &S) -> Result<(), TrySendError> {
        self.sender.try_send(value)
    }

    /// As [`SlotSender::send_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn send_timeout(&mut self, value: &S, timeout: Duration) -> Result<(), SendTimeoutError> {
        self.sender.send_timeout(value, timeout)
    }
}

impl<S, R: CheckedBitPattern> SlotChannel<S, R> {
    /// As [`SlotReceiver::recv`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn recv(&mut self) -> Result<R, RecvError> {
        self.receiver.recv()
    }

    /// As [`SlotReceiver::try_recv`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn try_recv(&mut self) -> Result<R, TryRecvError> {
        self.receiver.try_recv()
    }

    /// As [`SlotReceiver::recv_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<R, RecvTimeoutError> {
        self.receiver.recv_timeout(timeout)
    }
}
