//! The receiving end of a lossy channel.
//!
//! Wraps the lossy ring's consumer with waiting, a private buffer, and what is known of the peer.
//! `Send`, not `Sync`. What always holds: what it lends is a private copy that was checked to be whole,
//! and every call is bounded by its deadline, whatever the sender writes.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::channel::connection::{Connection, End, peer};
use crate::channel::cpu::CpuHint;
use crate::channel::sender::{Seen, deadline_after};
use crate::error::{Corruption, LossyTryRecvError, RecvError, RecvTimeoutError};
use crate::layout::ring;
use crate::memory::{Deadline, Memory, Ordering, SharedMemory};
use crate::ring::lossy::{
    LossyConsumer, LossyConsumerStats, LossyGeometry, LossyRecord, PullError,
};
use crate::wakeup::Waiter;

/// The receiving end of a lossy channel.
#[derive(Debug)]
pub struct LossyReceiver<M: Memory = SharedMemory> {
    consumer: LossyConsumer<M>,
    connection: Arc<Connection<M>>,
    /// What is known of the peer while it is the one that this end knows, and lives.
    known: u32,
    waiter: Waiter,
    cpu: CpuHint,
    buffer: Vec<u8>,
    /// Keeps the supervisor's eye on the peer.
    #[cfg(not(loom))]
    watch: Option<crate::supervisor::WatchToken>,
    not_sync: PhantomData<Cell<()>>,
}

/// A message in its receiver's buffer. Derefs to its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LossyMessage<'a> {
    bytes: &'a [u8],
    record: LossyRecord,
}

impl<'a> LossyMessage<'a> {
    /// The payload.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The tag that the sender gave it; 0 unless it gave one.
    pub fn tag(&self) -> u16 {
        self.record.tag()
    }

    /// How many messages were lost between the last one received and this one.
    pub fn lost_before(&self) -> u64 {
        self.record.lost_before()
    }

    /// The message's number: how many were sent before it, received or lost.
    pub fn number(&self) -> u64 {
        self.record.number()
    }
}

impl Deref for LossyMessage<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

/// How an attempt ended that found nothing wrong.
enum Attempt {
    Done(LossyRecord),
    Overrun,
    Nothing(Seen),
}

impl<M: Memory> LossyReceiver<M> {
    /// For a side whose incoming ring is a lossy one, of this geometry, and whose outgoing one nobody
    /// uses. Whatever the segment lies in: named channels come in here too.
    pub(crate) fn new(
        connection: Arc<Connection<M>>,
        geometry: LossyGeometry,
        waiter: Waiter,
    ) -> Result<Self, Corruption> {
        let memory = connection.memory();
        let consumer = LossyConsumer::attach(memory.clone(), geometry)?;
        let word = |word| geometry.control(word);
        let cpu = CpuHint::new(memory, word(ring::CONSUMER_CPU), word(ring::PRODUCER_CPU));
        Ok(Self {
            consumer,
            connection,
            known: peer::ALIVE,
            waiter,
            cpu,
            buffer: Vec::new(),
            #[cfg(not(loom))]
            watch: None,
            not_sync: PhantomData,
        })
    }

    /// Receives a message, waiting for it as long as it takes. It is lent: it lies in this receiver's
    /// own buffer until the next call, which also counts it as taken for good.
    ///
    /// # Errors
    /// [`RecvError::Disconnected`] once the sender has closed or died and what it left has been read;
    /// [`RecvError::Restarted`] once where another one has come; [`RecvError::Corrupt`],
    /// [`RecvError::Forked`].
    #[inline]
    pub fn recv(&mut self) -> Result<LossyMessage<'_>, RecvError> {
        loop {
            if let Some(record) = self.next_by(Deadline::NEVER)? {
                return Ok(self.lend(record));
            }
        }
    }

    /// Receives a message if there is one now.
    ///
    /// # Errors
    /// [`LossyTryRecvError::Empty`] where there is none; [`LossyTryRecvError::Overrun`] where none
    /// could be read before it was overwritten, in a few attempts; [`LossyTryRecvError::Ended`] as
    /// [`recv`](Self::recv).
    #[inline]
    pub fn try_recv(&mut self) -> Result<LossyMessage<'_>, LossyTryRecvError> {
        match self.attempt()? {
            Attempt::Done(record) => Ok(self.lend(record)),
            Attempt::Overrun => Err(LossyTryRecvError::Overrun),
            Attempt::Nothing(_) => Err(LossyTryRecvError::Empty),
        }
    }

    /// Receives a message, waiting for at most `timeout`.
    ///
    /// # Errors
    /// [`RecvTimeoutError::Timeout`] where none came, or none could be read before it was
    /// overwritten; the others as [`recv`](Self::recv).
    pub fn recv_timeout(
        &mut self,
        timeout: Duration,
    ) -> Result<LossyMessage<'_>, RecvTimeoutError> {
        let deadline = deadline_after(self.consumer.memory(), timeout);
        self.recv_deadline(deadline)
    }

    /// Receives a message, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn recv_deadline(
        &mut self,
        deadline: Deadline,
    ) -> Result<LossyMessage<'_>, RecvTimeoutError> {
        let record = self.next_by(deadline)?.ok_or(RecvTimeoutError::Timeout)?;
        Ok(self.lend(record))
    }

    #[inline]
    fn lend(&self, record: LossyRecord) -> LossyMessage<'_> {
        LossyMessage { bytes: &self.buffer[..record.len_bytes()], record }
    }

    /// The next message, in the buffer, waiting until `deadline`.
    #[inline]
    fn next_by(&mut self, deadline: Deadline) -> Result<Option<LossyRecord>, RecvError> {
        let mut last = false;
        loop {
            let attempt = self.attempt()?;
            if let Attempt::Done(record) = attempt {
                return Ok(Some(record));
            }
            if last {
                return Ok(None);
            }
            if let Attempt::Nothing(seen) = attempt
                && !self.wait(seen, deadline)
            {
                return Ok(None);
            }
            // A sender can overwrite whatever is read, and end every wait at once, for ever.
            last = deadline.has_passed(self.consumer.memory());
        }
    }

    /// Settles what was taken before, then looks for the next message.
    #[inline]
    fn attempt(&mut self) -> Result<Attempt, RecvError> {
        if !self.consumer.memory().is_ours() {
            return Err(RecvError::Forked);
        }
        if !self.connection.is_alive(self.known) {
            self.attend()?;
        }
        match self.take()? {
            Attempt::Nothing(_) => self.look_behind(),
            other => Ok(other),
        }
    }

    #[inline]
    fn take(&mut self) -> Result<Attempt, RecvError> {
        match self.consumer.try_take(&mut self.buffer) {
            Ok(Some(record)) => Ok(Attempt::Done(record)),
            Ok(None) => Ok(Attempt::Nothing(Seen { peer: peer::ALIVE, closed: 0 })),
            Err(PullError::Overrun) => Ok(Attempt::Overrun),
            Err(PullError::Corrupt(corruption)) => Err(self.corrupt(corruption)),
        }
    }

    #[cold]
    fn corrupt(&mut self, corruption: Corruption) -> RecvError {
        self.connection.declare_poisoned();
        RecvError::Corrupt(corruption)
    }

    /// The sender is dead: what comes from now on is not its own, unless another one has come.
    #[cold]
    fn attend(&mut self) -> Result<(), RecvError> {
        self.connection.look_out();
        // Seen with Acquire first, so that what the dead had announced is visible.
        let word = self.connection.word();
        if word & !peer::STATE != self.known {
            self.known = word & !peer::STATE;
            self.consumer.producer_succeeded();
            return Err(RecvError::Restarted { reason: self.connection.reason() });
        }
        if word & peer::STATE == peer::ALIVE {
            return Ok(());
        }
        self.consumer.producer_died().map_err(|corruption| self.corrupt(corruption))
    }

    /// Nothing to read: is that all?
    #[cold]
    fn look_behind(&mut self) -> Result<Attempt, RecvError> {
        self.connection.look_out();
        if self.connection.poisoned_by_peer() {
            // Latched: the peer could take its word back.
            return Err(RecvError::Corrupt(self.consumer.poison(Corruption::ByPeer)));
        }
        let state = self.connection.word();
        let word = self.consumer.geometry().control(ring::PRODUCER_CLOSED);
        // Pairs with the Release in Connection::close_end.
        let closed = self.consumer.memory().load_u32(word, Ordering::Acquire);
        if state == self.known && closed == 0 {
            return Ok(Attempt::Nothing(Seen { peer: state, closed }));
        }
        if state != self.known {
            self.attend()?;
        }
        // Once more, now that the end has been seen: all that was committed before is visible.
        match self.take()? {
            Attempt::Nothing(_) if state & peer::STATE == peer::SUPERSEDED => {
                Err(RecvError::Superseded)
            }
            Attempt::Nothing(_) => Err(RecvError::Disconnected),
            other => Ok(other),
        }
    }

    /// Sleeps until there is a message or something else to look at. False at the deadline.
    #[cold]
    fn wait(&mut self, seen: Seen, deadline: Deadline) -> bool {
        if deadline.has_passed(self.connection.memory()) {
            return false;
        }
        let Self { consumer, connection, waiter, cpu, .. } = self;
        consumer.publish_counts();
        let (memory, geometry) = (connection.memory(), *consumer.geometry());
        let closed = geometry.control(ring::PRODUCER_CLOSED);
        waiter.set_shares_cpu(cpu.refresh(memory));
        let mut parked = [0_u32; 2];
        let news = waiter.wait(
            memory,
            geometry.control(ring::CONSUMER_WAITING),
            deadline,
            || {
                // The next attempt finds out what it is.
                (consumer.has_something()
                    || connection.word() != seen.peer
                    || connection.peer_moved()
                    || connection.poisoned_by_peer()
                    || memory.load_u32(closed, Ordering::Relaxed) != seen.closed)
                    .then_some(())
            },
            |what| parked[what as usize] += 1,
        );
        consumer.count_parked(parked);
        news.is_some()
    }

    /// Counts the message received last as taken now, not at the next call. If this process dies, its
    /// successor does not get it again.
    pub fn settle(&mut self) {
        if self.consumer.memory().is_ours() {
            self.consumer.settle();
        }
    }

    /// What this end has counted: received and lost messages add up to the number of the next one.
    pub fn stats(&self) -> LossyConsumerStats {
        self.consumer.stats()
    }

    /// As [`Channel::is_current`](crate::channel::Channel::is_current).
    pub fn is_current(&self) -> bool {
        self.connection.is_current()
    }

    /// Closes this end: the sender's next call gets `Disconnected`. The same as dropping it.
    pub fn close(self) {}
}

#[cfg(not(loom))]
impl LossyReceiver {
    /// As [`Channel::watch_peer`](crate::channel::Channel::watch_peer): a wait ends when the sender's
    /// process dies.
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

impl<M: Memory> Drop for LossyReceiver<M> {
    fn drop(&mut self) {
        if self.consumer.memory().is_ours() {
            self.consumer.settle();
            self.consumer.publish_counts();
        }
        self.connection.close(End::Receiver);
        // This side never had another end.
        self.connection.close(End::Sender);
    }
}
