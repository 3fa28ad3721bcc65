//! The blocking end that writes values into slots.
//!
//! Wraps the slot ring's producer with waiting, waking and what is known of the peer. `Send`, not
//! `Sync`. What always holds: a call that returns an error has sent nothing.

use std::borrow::Borrow;
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytemuck::NoUninit;

use crate::channel::connection::{Connection, End, peer};
use crate::channel::cpu::CpuHint;
use crate::channel::sender::{Seen, deadline_after};
use crate::error::{Corruption, SendError, SendTimeoutError, TrySendError};
use crate::layout::ring;
use crate::memory::{Deadline, Memory, Ordering, SharedMemory};
use crate::ring::slots::{SlotDraft, SlotGeometry, SlotProducer};
use crate::ring::{ProducerStats, PushError};
use crate::wakeup::{self, Waiter};

/// What an end has seen where nothing needed attention.
const NOTHING: Seen = Seen { peer: peer::ALIVE, closed: 0 };

/// The sending end of a channel of slots.
#[derive(Debug)]
pub struct SlotSender<T, M: Memory = SharedMemory> {
    producer: SlotProducer<M>,
    connection: Arc<Connection<M>>,
    waiter: Waiter,
    cpu: CpuHint,
    not_sync: PhantomData<Cell<T>>,
}

impl<T, M: Memory> SlotSender<T, M> {
    pub(in crate::channel) fn new(
        connection: Arc<Connection<M>>,
        geometry: SlotGeometry,
        waiter: Waiter,
    ) -> Result<Self, Corruption> {
        let producer = SlotProducer::attach(connection.memory().clone(), geometry)?;
        let word = |word| geometry.control(word);
        let cpu =
            CpuHint::new(producer.memory(), word(ring::PRODUCER_CPU), word(ring::CONSUMER_CPU));
        Ok(Self { producer, connection, waiter, cpu, not_sync: PhantomData })
    }

    /// What this process knows of the peer.
    #[cfg(not(loom))]
    pub(super) fn connection(&self) -> &Arc<Connection<M>> {
        &self.connection
    }

    /// What this end has counted.
    pub fn stats(&self) -> ProducerStats {
        self.producer.stats()
    }

    /// Values that the ring holds.
    pub fn capacity(&self) -> u64 {
        self.producer.geometry().capacity_messages()
    }

    /// Closes this end: the receiver reads what is there and then gets `Disconnected`. The same as
    /// dropping it.
    pub fn close(self) {}

    /// Whether anything but the ring must be looked at.
    #[inline(always)]
    fn needs_attention(&self) -> bool {
        let memory = self.producer.memory();
        !memory.is_ours()
            || !self.connection.is_alive(peer::ALIVE)
            || memory.load_u32(self.closed_word(), Ordering::Relaxed) != 0
    }

    #[inline]
    fn closed_word(&self) -> u64 {
        self.producer.geometry().control(ring::CONSUMER_CLOSED)
    }

    /// Looks at everything but the ring. Returns what it has seen and found no reason to stop in.
    #[cold]
    fn attend(&mut self) -> Result<Seen, SendError> {
        if !self.producer.memory().is_ours() {
            return Err(SendError::Forked);
        }
        if let Some(corruption) = self.producer.poisoned() {
            return Err(SendError::Corrupt(corruption));
        }
        let state = self.connection.peer();
        // Pairs with the Release in Connection::close_end.
        let closed = self.producer.memory().load_u32(self.closed_word(), Ordering::Acquire);
        if closed != 0 {
            self.believe_poison()?;
        }
        // A channel of slots has no successor.
        if state != peer::ALIVE || closed != 0 {
            return Err(SendError::Disconnected);
        }
        Ok(Seen { peer: state, closed })
    }

    /// Latches the peer's word that the channel is corrupt: it could take it back.
    fn believe_poison(&mut self) -> Result<(), SendError> {
        if self.connection.poisoned_by_peer() {
            self.producer.poison(Corruption::ByPeer);
            return Err(SendError::Corrupt(Corruption::ByPeer));
        }
        Ok(())
    }

    /// After a commit: wakes the receiver if it sleeps.
    #[inline]
    fn notify(&mut self) {
        let waiting = self.producer.geometry().control(ring::CONSUMER_WAITING);
        if wakeup::wake_if_waiting(self.producer.memory(), waiting) {
            self.producer.count_wakeup();
        }
    }

    /// What a failed push means: a head to wait for, or the end.
    #[cold]
    fn classify(&mut self, error: PushError) -> Result<u64, SendError> {
        match error {
            PushError::Full { head_needed } => Ok(head_needed),
            PushError::Corrupt(corruption) => {
                self.connection.declare_poisoned();
                Err(SendError::Corrupt(corruption))
            }
            PushError::TooLong { len, max } => Err(SendError::TooLong { len, max }),
        }
    }

    /// One attempt: `None` where it succeeded, else the head that it needs.
    fn attempt(&mut self, message: &[u8]) -> Result<Option<(u64, Seen)>, SendError> {
        let seen = if self.needs_attention() { self.attend()? } else { NOTHING };
        match self.producer.try_push(message) {
            Ok(()) => {
                self.notify();
                Ok(None)
            }
            Err(error) => Ok(Some((self.classify(error)?, seen))),
        }
    }

    /// Attempts until there is room; false at the deadline.
    #[inline(never)]
    fn send_waiting(&mut self, message: &[u8], deadline: Deadline) -> Result<bool, SendError> {
        let mut last = false;
        loop {
            let Some((head_needed, seen)) = self.attempt(message)? else { return Ok(true) };
            if last || !self.wait_for_room(head_needed, seen, deadline)? {
                return Ok(false);
            }
            // A peer can end every wait at once by changing what is waited for, for ever.
            last = deadline.has_passed(self.producer.memory());
        }
    }

    /// Sleeps until the consumer has released up to `head_needed`, or something else has happened
    /// that another attempt will notice. False at the deadline.
    #[cold]
    fn wait_for_room(
        &mut self,
        head_needed: u64,
        seen: Seen,
        deadline: Deadline,
    ) -> Result<bool, SendError> {
        if deadline.has_passed(self.connection.memory()) {
            return Ok(false);
        }
        self.believe_poison()?;
        let Self { producer, connection, waiter, cpu, .. } = self;
        let (memory, geometry) = (connection.memory(), *producer.geometry());
        let closed = geometry.control(ring::CONSUMER_CLOSED);
        // Relaxed: the fence that follows our announcement orders it; its partner is the load in
        // SlotReceiver::wake_waiting_producer.
        memory.store_u64(geometry.control(ring::SPACE_WANTED), head_needed, Ordering::Relaxed);
        waiter.set_shares_cpu(cpu.refresh(memory));
        let mut parked = [0_u32; 2];
        let news = waiter.wait(
            memory,
            geometry.control(ring::PRODUCER_WAITING),
            deadline,
            || match producer.has_room(head_needed) {
                Ok(true) => Some(Ok(())),
                Err(corruption) => Some(Err(corruption)),
                Ok(false) => (connection.peer() != seen.peer
                    || connection.poisoned_by_peer()
                    || memory.load_u32(closed, Ordering::Relaxed) != seen.closed)
                    .then_some(Ok(())),
            },
            |what| parked[what as usize] += 1,
        );
        producer.count_parked(parked);
        match news {
            Some(Ok(())) => Ok(true),
            Some(Err(corruption)) => {
                self.connection.declare_poisoned();
                Err(SendError::Corrupt(corruption))
            }
            None => Ok(false),
        }
    }
}

impl<T: NoUninit, M: Memory> SlotSender<T, M> {
    /// Sends a value if nothing needs attention and there is room for certain.
    #[inline(always)]
    fn send_simple(&mut self, value: &T) -> bool {
        let sent = !self.needs_attention() && self.producer.push_simple(bytes_of(value));
        if sent {
            self.notify();
        }
        sent
    }

    /// Sends a value, waiting for room as long as it takes.
    ///
    /// # Errors
    /// [`SendError`]; the value has not been sent then.
    #[inline]
    pub fn send(&mut self, value: &T) -> Result<(), SendError> {
        if self.send_simple(value) {
            return Ok(());
        }
        while !self.send_waiting(bytes_of(value), Deadline::NEVER)? {}
        Ok(())
    }

    /// Sends a value if there is room now.
    ///
    /// # Errors
    /// [`TrySendError::Full`] where there is none, or as [`send`](Self::send).
    #[inline]
    pub fn try_send(&mut self, value: &T) -> Result<(), TrySendError> {
        if self.send_simple(value) {
            return Ok(());
        }
        match self.attempt(bytes_of(value))? {
            None => Ok(()),
            Some(_) => Err(TrySendError::Full),
        }
    }

    /// Sends a value, waiting for room for at most `timeout`.
    ///
    /// # Errors
    /// [`SendTimeoutError::Timeout`] where there was none, or as [`send`](Self::send).
    pub fn send_timeout(&mut self, value: &T, timeout: Duration) -> Result<(), SendTimeoutError> {
        let deadline = deadline_after(self.producer.memory(), timeout);
        match self.send_waiting(bytes_of(value), deadline)? {
            true => Ok(()),
            false => Err(SendTimeoutError::Timeout),
        }
    }

    /// Starts a batch: values that become visible together, when it is committed.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn batch(&mut self) -> Result<SlotSenderBatch<'_, T, M>, SendError> {
        if self.needs_attention() {
            self.attend()?;
        }
        let draft = SlotDraft::new(&self.producer);
        Ok(SlotSenderBatch { sender: self, draft })
    }

    /// Sends many values with as few publications as fit, waiting for room as long as it takes.
    /// Returns how many were sent.
    ///
    /// # Errors
    /// As [`send`](Self::send); values before the failing one have been sent.
    pub fn send_batch<I>(&mut self, values: I) -> Result<usize, SendError>
    where
        I: IntoIterator,
        I::Item: Borrow<T>,
    {
        let mut values = values.into_iter();
        let mut sent = 0;
        loop {
            let mut batch = self.batch()?;
            let left = values.by_ref().find(|value| batch.push(value.borrow()).is_err());
            sent += batch.commit();
            let Some(value) = left else { return Ok(sent) };
            // Waits for room, or finds out what is wrong.
            self.send(value.borrow())?;
            sent += 1;
        }
    }
}

impl<T, M: Memory> Drop for SlotSender<T, M> {
    fn drop(&mut self) {
        if self.producer.memory().is_ours() {
            self.producer.publish_counts();
        }
        self.connection.close(End::Sender);
    }
}

/// The bytes of a value; a value without any fills a slot of one.
#[inline(always)]
fn bytes_of<T: NoUninit>(value: &T) -> &[u8] {
    if size_of::<T>() == 0 { &[0] } else { bytemuck::bytes_of(value) }
}

/// Values that become visible together. At most as many as the ring holds.
#[derive(Debug)]
#[must_use = "a batch that is dropped sends nothing"]
pub struct SlotSenderBatch<'a, T, M: Memory = SharedMemory> {
    sender: &'a mut SlotSender<T, M>,
    draft: SlotDraft,
}

impl<T: NoUninit, M: Memory> SlotSenderBatch<'_, T, M> {
    /// Appends a value.
    ///
    /// # Errors
    /// [`TrySendError::Full`] where it does not fit any more; what the batch holds can still be
    /// committed. The other errors as [`SlotSender::try_send`].
    #[inline]
    pub fn push(&mut self, value: &T) -> Result<(), TrySendError> {
        if !self.sender.producer.memory().is_ours() {
            return Err(TrySendError::Forked);
        }
        match self.draft.push(&mut self.sender.producer, bytes_of(value)) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.sender.classify(error)?;
                Err(TrySendError::Full)
            }
        }
    }

    /// Values so far.
    pub fn len(&self) -> usize {
        self.draft.messages as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.draft.messages == 0
    }

    /// Sends all values at once. Returns how many: none in a forked child, or where the channel is
    /// corrupt.
    pub fn commit(self) -> usize {
        if !self.sender.producer.memory().is_ours() {
            return 0;
        }
        let sent = self.draft.commit(&mut self.sender.producer);
        self.sender.notify();
        sent
    }

    /// Forgets the values; the same as dropping.
    pub fn abort(self) {}
}
