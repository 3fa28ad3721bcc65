//! The sending end of a lossy channel.
//!
//! Wraps the lossy ring's producer with waking and what is known of the peer. `Send`, not `Sync`.
//! What always holds: no call waits, and while the receiver is awake none makes a system call.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::channel::connection::{Connection, End, peer};
use crate::error::{Corruption, SendError};
use crate::layout::ring;
use crate::memory::{Memory, Ordering, SharedMemory};
use crate::ring::PushError;
use crate::ring::lossy::{LossyGeometry, LossyProducer, LossyProducerStats};
use crate::wakeup;

/// The sending end of a lossy channel.
#[derive(Debug)]
pub struct LossySender<M: Memory = SharedMemory> {
    producer: LossyProducer<M>,
    connection: Arc<Connection<M>>,
    /// What is known of the peer while it is the one that this end knows, and lives.
    known: u32,
    /// Keeps the supervisor's eye on the peer.
    #[cfg(not(loom))]
    watch: Option<crate::supervisor::WatchToken>,
    /// False where this end was never really taken.
    open: bool,
    not_sync: PhantomData<Cell<()>>,
}

impl<M: Memory> LossySender<M> {
    /// For a side whose outgoing ring is a lossy one, of this geometry, and whose incoming one
    /// nobody uses. Whatever the segment lies in: named channels come in here too.
    pub(crate) fn new(
        connection: Arc<Connection<M>>,
        geometry: LossyGeometry,
    ) -> Result<Self, Corruption> {
        let producer = LossyProducer::attach(connection.memory().clone(), geometry)?;
        Ok(Self {
            producer,
            connection,
            known: peer::ALIVE,
            #[cfg(not(loom))]
            watch: None,
            open: true,
            not_sync: PhantomData,
        })
    }

    /// Sends a message, over the oldest ones where there is no room. Never waits. Works before
    /// anybody has attached the other side.
    ///
    /// # Errors
    /// [`SendError::TooLong`]; [`SendError::Disconnected`] once the receiver has closed or is known to
    /// be dead; [`SendError::Restarted`] once where somebody has come in its place;
    /// [`SendError::Corrupt`], [`SendError::Forked`]. The message has not been sent then.
    #[inline]
    pub fn send(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.send_tagged(0, payload)
    }

    /// [`send`](Self::send) with a tag, which the receiver sees beside the message.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn send_tagged(&mut self, tag: u16, payload: &[u8]) -> Result<(), SendError> {
        if self.needs_attention() {
            self.attend()?;
        }
        if let Err(error) = self.producer.try_push(tag, payload) {
            return Err(self.classify(error));
        }
        let memory = self.producer.memory();
        let waiting = self.producer.geometry().control(ring::CONSUMER_WAITING);
        if wakeup::wake_if_waiting(memory, waiting) {
            self.producer.count_wakeup();
        }
        Ok(())
    }

    /// Whether anything but the ring must be looked at.
    #[inline(always)]
    fn needs_attention(&self) -> bool {
        let memory = self.producer.memory();
        !memory.is_ours()
            || !self.connection.is_alive(self.known)
            // No call sleeps or finds no room, so there is no other occasion to look.
            || self.connection.peer_moved()
            || memory.load_u32(self.closed_word(), Ordering::Relaxed) != 0
    }

    #[inline]
    fn closed_word(&self) -> u64 {
        self.producer.geometry().control(ring::CONSUMER_CLOSED)
    }

    #[cold]
    fn attend(&mut self) -> Result<(), SendError> {
        if !self.producer.memory().is_ours() {
            return Err(SendError::Forked);
        }
        self.connection.look_out();
        let word = self.connection.word();
        if word & !peer::STATE != self.known {
            self.known = word & !peer::STATE;
            return Err(SendError::Restarted { reason: self.connection.reason() });
        }
        if let Some(corruption) = self.producer.poisoned() {
            return Err(SendError::Corrupt(corruption));
        }
        if self.connection.poisoned_by_peer() {
            // Latched: the peer could take its word back.
            self.producer.poison(Corruption::ByPeer);
            return Err(SendError::Corrupt(Corruption::ByPeer));
        }
        // Pairs with the Release in Connection::close_end.
        let closed = self.producer.memory().load_u32(self.closed_word(), Ordering::Acquire);
        if word & peer::STATE == peer::SUPERSEDED {
            return Err(SendError::Superseded);
        }
        if closed != 0 || word & peer::STATE != peer::ALIVE {
            return Err(SendError::Disconnected);
        }
        Ok(())
    }

    #[cold]
    fn classify(&mut self, error: PushError) -> SendError {
        match error {
            PushError::TooLong { len, max } => SendError::TooLong { len, max },
            PushError::Corrupt(corruption) => {
                self.connection.declare_poisoned();
                SendError::Corrupt(corruption)
            }
            // A lossy ring always has room.
            PushError::Full { .. } => SendError::TooLong { len: 0, max: 0 },
        }
    }

    /// The longest message that this channel takes, in bytes.
    pub fn max_message_bytes(&self) -> usize {
        self.producer.geometry().max_payload_bytes() as usize
    }

    /// What has become of the messages; see [`ring::lossy`](crate::ring::lossy) for what is exact.
    pub fn stats(&self) -> LossyProducerStats {
        self.producer.stats()
    }

    /// As [`Channel::is_current`](crate::channel::Channel::is_current).
    pub fn is_current(&self) -> bool {
        self.connection.is_current()
    }

    /// Closes this end: the receiver reads what is there and then gets `Disconnected`. The same as
    /// dropping it.
    pub fn close(self) {}

    /// Drops this end without closing it, as a process that is killed does.
    #[cfg(loom)]
    pub(in crate::channel) fn forget(mut self) {
        self.open = false;
    }
}

#[cfg(not(loom))]
impl LossySender {
    /// As [`Channel::watch_peer`](crate::channel::Channel::watch_peer): sends fail once the receiver's
    /// process is dead.
    ///
    /// # Errors
    /// [`SegmentError::Os`](crate::error::SegmentError::Os), where descriptors or threads have run out.
    pub fn watch_peer(
        &mut self,
        pidfd: &impl std::os::fd::AsFd,
    ) -> Result<(), crate::error::SegmentError> {
        self.watch = Some(super::open::watch(&self.connection, pidfd)?);
        Ok(())
    }

    /// As [`Channel::watch_peer_id`](crate::channel::Channel::watch_peer_id).
    ///
    /// # Errors
    /// As [`watch_peer`](Self::watch_peer), and where there is no such process.
    pub fn watch_peer_id(&mut self, pid: u32) -> Result<(), crate::error::SegmentError> {
        self.watch_peer(&super::open::pidfd_of(pid)?)
    }
}

impl<M: Memory> Drop for LossySender<M> {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        if self.producer.memory().is_ours() {
            self.producer.publish_counts();
        }
        self.connection.close(End::Sender);
        // This side never had another end.
        self.connection.close(End::Receiver);
    }
}
