//! Both ends of one side of a channel in one object.
//!
//! What most callers hold; [`Channel::split`] takes it apart for two threads. What always holds:
//! messages sent here are received by the peer only, never by this side itself.

use std::sync::Arc;
use std::time::Duration;

use bytemuck::{AnyBitPattern, NoUninit};

use super::connection::{Connection, peer};
use super::sender::deadline_after;
use super::{Message, Offered, OwnedMessage, Receiver, SendPolicy, Sender};
use crate::error::{
    Error, ExitReason, OfferError, RecvError, RecvTimeoutError, SegmentError, SendError,
    SendTimeoutError, TryRecvError, TrySendError,
};
use crate::layout::side;
use crate::memory::{Deadline, FenceMode, Memory, Ordering};
use crate::segment::{AnonymousSegment, ChannelGeometry, NamedSegment};
use crate::wakeup::MAX_SLEEP_NS;

/// One side of a duplex channel.
#[derive(Debug)]
pub struct Channel {
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    pub(super) segment: Backing,
}

/// What a channel's rings lie in.
#[derive(Debug)]
pub(super) enum Backing {
    Anonymous(Arc<AnonymousSegment>),
    Named(Arc<NamedSegment>),
}

impl Backing {
    pub(super) fn geometry(&self) -> &ChannelGeometry {
        match self {
            Self::Anonymous(segment) => segment.geometry(),
            Self::Named(segment) => segment.geometry(),
        }
    }

    pub(super) fn is_current(&self) -> bool {
        match self {
            Self::Anonymous(_) => true,
            Self::Named(segment) => segment.is_current(),
        }
    }

    pub(super) fn anonymous(&self) -> Result<&Arc<AnonymousSegment>, SegmentError> {
        match self {
            Self::Anonymous(segment) => Ok(segment),
            Self::Named(_) => {
                Err(SegmentError::NotMemory { found: "a segment with a name".into() })
            }
        }
    }
}

/// What is known of the process at the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerState {
    /// Nobody has attached yet.
    Absent,
    /// Somebody has attached, and is not known to be dead.
    Attached,
    /// It has closed both its ends.
    Closed,
    /// It is dead, by the word of the kernel.
    Died(ExitReason),
    /// Nobody is there, and nobody will come: the channel's name means another segment, or none.
    Superseded,
}

impl Channel {
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.sender.connection
    }

    /// The segment that both rings lie in.
    ///
    /// # Errors
    /// [`SegmentError::NotMemory`] where it has a name.
    pub(crate) fn segment(&self) -> Result<&Arc<AnonymousSegment>, SegmentError> {
        self.segment.anonymous()
    }

    /// For the host, which makes this channel the next incarnation of another one: the ends of that
    /// one will take the rings over.
    pub(crate) fn into_successor(self) -> Arc<Connection> {
        let Self { sender, receiver, .. } = self;
        let connection = Arc::clone(&sender.connection);
        sender.forget();
        receiver.forget();
        connection
    }

    /// What is known of the peer. `Attached` and `Closed` are the peer's own word.
    pub fn peer_state(&self) -> PeerState {
        let connection = self.connection();
        connection.look_out();
        match connection.peer() {
            peer::ALIVE => {}
            peer::SUPERSEDED => return PeerState::Superseded,
            _ => return PeerState::Died(connection.reason()),
        }
        match connection.peer_shows() {
            // It has come, and is about to say so.
            side::ABSENT if connection.has_seen_somebody() => PeerState::Attached,
            side::ABSENT => PeerState::Absent,
            side::ATTACHED => PeerState::Attached,
            _ => PeerState::Closed,
        }
    }

    /// Whether the channel's name still means this channel: false where the name was removed, or given
    /// to another one. True where it has no name. Costs a system call.
    ///
    /// Two processes that are both there need no name. While one is alone, its calls end with
    /// [`Superseded`](RecvError::Superseded) a few seconds after the name was lost.
    pub fn is_current(&self) -> bool {
        self.connection().is_current()
    }

    /// Whether the wakes of both sides do without a fence at this moment; see [`FenceMode`]. It begins
    /// with [`FenceMode::Real`] and changes soon after both sides have attached, where it does.
    pub fn fence_mode(&self) -> FenceMode {
        self.connection().memory().current_fence_mode()
    }

    /// Waits until somebody has attached the other side; on a named channel also after a peer has
    /// closed or died, until the next one comes.
    ///
    /// # Errors
    /// [`Error::Timeout`] where nobody does in time; [`Error::Superseded`] where nobody will, because the
    /// channel's name means another one by now, or none.
    pub fn wait_for_peer(&self, timeout: Duration) -> Result<(), Error> {
        let connection = self.connection();
        let memory = connection.memory();
        let deadline = deadline_after(memory, timeout);
        let (state_word, attaches_word) =
            (connection.state_word(self.peer_side()), connection.attaches_word());
        loop {
            let attaches = connection.peer_attaches();
            let shown = memory.load_u32(state_word, Ordering::Acquire);
            let state = self.peer_state();
            let may_come = state == PeerState::Absent || connection.is_open_to_strangers();
            if state == PeerState::Superseded {
                return Err(Error::Superseded);
            }
            if state == PeerState::Attached || !may_come {
                memory.see_to_fences();
                return Ok(());
            }
            if deadline.has_passed(memory) {
                return Err(Error::Timeout(timeout));
            }
            let now = memory.now_ns();
            // Slices, because a peer that dies between its store and its wake wakes nobody.
            let slice = deadline.min(Deadline::at_ns(now.saturating_add(MAX_SLEEP_NS)));
            // What its successor will change: a dead one shows that it is attached already.
            if shown == side::ATTACHED {
                memory.wait_u32(attaches_word, attaches, slice);
            } else {
                memory.wait_u32(state_word, shown, slice);
            }
        }
    }

    fn peer_side(&self) -> usize {
        1 - self.connection().side()
    }

    /// Takes the two ends apart. The sender may go to one thread and the receiver to another.
    pub fn split(self) -> (Sender, Receiver) {
        let Self { sender, receiver, .. } = self;
        (sender, receiver)
    }

    /// The sending end.
    pub fn sender(&mut self) -> &mut Sender {
        &mut self.sender
    }

    /// The receiving end.
    pub fn receiver(&mut self) -> &mut Receiver {
        &mut self.receiver
    }

    /// As [`Sender::send`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn send(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.sender.send(payload)
    }

    /// As [`Sender::try_send`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn try_send(&mut self, payload: &[u8]) -> Result<(), TrySendError> {
        self.sender.try_send(payload)
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
        self.sender.send_timeout(payload, timeout)
    }

    /// As [`Sender::with_policy`].
    pub fn with_policy(mut self, policy: SendPolicy) -> Self {
        self.sender.set_policy(policy);
        self
    }

    /// As [`Sender::offer`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn offer(&mut self, payload: &[u8]) -> Result<Offered, OfferError> {
        self.sender.offer(payload)
    }

    /// As [`Receiver::recv`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn recv(&mut self) -> Result<Message<'_>, RecvError> {
        self.receiver.recv()
    }

    /// As [`Receiver::try_recv`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Message<'_>, TryRecvError> {
        self.receiver.try_recv()
    }

    /// As [`Receiver::recv_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Message<'_>, RecvTimeoutError> {
        self.receiver.recv_timeout(timeout)
    }

    /// As [`Receiver::recv_owned`].
    ///
    /// # Errors
    /// As there.
    pub fn recv_owned(&mut self) -> Result<OwnedMessage, RecvError> {
        self.receiver.recv_owned()
    }

    /// As [`Sender::send_pod`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn send_pod<T: NoUninit>(&mut self, value: &T) -> Result<(), SendError> {
        self.sender.send_pod(value)
    }

    /// As [`Receiver::recv_pod`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn recv_pod<T: AnyBitPattern>(&mut self) -> Result<T, RecvError> {
        self.receiver.recv_pod()
    }
}
