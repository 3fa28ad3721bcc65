//! The blocking end that reads values from slots.
//!
//! Wraps the slot ring's consumer with waiting, waking and what is known of the peer. `Send`, not
//! `Sync`. What always holds: a value is checked in a private copy; one that was received is
//! released by a later call, at the latest when that finds no further one, so a receiver that is
//! killed leaves it, and perhaps some before it, to be read again (at-least-once).

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytemuck::CheckedBitPattern;
use rkyv::util::AlignedVec;

use crate::channel::connection::{Connection, End, peer};
use crate::channel::cpu::CpuHint;
use crate::channel::sender::{Seen, deadline_after};
use crate::error::{Corruption, RecvError, RecvTimeoutError, TryRecvError};
use crate::layout::ring;
use crate::memory::{Deadline, Memory, Ordering, SharedMemory};
use crate::ring::ConsumerStats;
use crate::ring::slots::{SlotConsumer, SlotGeometry};
use crate::wakeup::{self, Waiter};

/// Values up to this size are copied without touching the receiver's buffer.
const SMALL_BYTES: usize = 64;
/// Looks at the ring before a wait begins: as long as an answer takes from another processor.
const POLLS: u32 = 128;
/// So many values without a wait are a stream. A receiver that has caught up with one stays out of
/// the sender's way for a moment, so that there is more than one line to read when it reads on.
const BURST_MESSAGES: u64 = 16;
/// How long that moment is, in spin hints.
const BURST_PAUSES: u32 = 64;

/// The receiving end of a channel of slots.
#[derive(Debug)]
pub struct SlotReceiver<T, M: Memory = SharedMemory> {
    consumer: SlotConsumer<M>,
    connection: Arc<Connection<M>>,
    waiter: Waiter,
    cpu: CpuHint,
    /// Messages received when this end last found none.
    polled_at: u64,
    /// Position up to which a dead peer's ring is believed.
    last_position: Option<u64>,
    buffer: AlignedVec<64>,
    /// Keeps the supervisor's eye on the peer.
    #[cfg(not(loom))]
    pub(super) watch: Option<crate::supervisor::WatchToken>,
    not_sync: PhantomData<Cell<T>>,
}

impl<T, M: Memory> SlotReceiver<T, M> {
    pub(in crate::channel) fn new(
        connection: Arc<Connection<M>>,
        geometry: SlotGeometry,
        waiter: Waiter,
    ) -> Result<Self, Corruption> {
        let consumer = SlotConsumer::attach(connection.memory().clone(), geometry)?;
        let word = |word| geometry.control(word);
        let cpu =
            CpuHint::new(consumer.memory(), word(ring::CONSUMER_CPU), word(ring::PRODUCER_CPU));
        let mut buffer = AlignedVec::new();
        buffer.resize(geometry.slot_bytes(), 0);
        Ok(Self {
            consumer,
            connection,
            waiter,
            cpu,
            polled_at: 0,
            last_position: None,
            buffer,
            #[cfg(not(loom))]
            watch: None,
            not_sync: PhantomData,
        })
    }

    /// What this end has counted.
    pub fn stats(&self) -> ConsumerStats {
        self.consumer.stats()
    }

    /// Values that a receiver that is killed leaves to be read again, at most, beside the one that it
    /// was working on.
    pub fn max_unreleased(&self) -> u64 {
        self.consumer.geometry().max_unreleased()
    }

    /// Gives the room of all values received back to the sender now: declares the work on them done.
    pub fn release(&mut self) {
        if self.consumer.memory().is_ours() && self.consumer.release() {
            self.wake_producer();
        }
    }

    /// Drops the next message without looking at it, if there is one: what to do with one that is no
    /// value.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn skip(&mut self) -> Result<(), TryRecvError> {
        self.try_next()?;
        self.consumer.advance();
        Ok(())
    }

    /// Closes this end: the sender's next call gets `Disconnected`. The same as dropping it.
    pub fn close(self) {}

    /// Whether nothing needs attention and a message is there for certain; gives back what is due.
    #[inline(always)]
    fn next_simple(&mut self) -> bool {
        if !self.consumer.memory().is_ours() || !self.connection.is_alive(peer::ALIVE) {
            return false;
        }
        if self.consumer.is_due() {
            self.consumer.release();
            self.wake_producer();
        }
        self.consumer.peek_simple()
    }

    /// Waits for a message; it is not taken.
    #[inline]
    fn next(&mut self) -> Result<(), RecvError> {
        if self.next_simple() {
            return Ok(());
        }
        self.next_waiting()
    }

    #[inline(never)]
    fn next_waiting(&mut self) -> Result<(), RecvError> {
        if self.poll() {
            return Ok(());
        }
        while !self.next_by(Deadline::NEVER)? {}
        Ok(())
    }

    /// Whether a message comes at once; looks at nothing but the ring. What was taken goes back
    /// first.
    fn poll(&mut self) -> bool {
        let polls = self.consumer.memory().is_ours()
            && self.connection.is_alive(peer::ALIVE)
            && self.waiter.polls_first();
        if !polls {
            return false;
        }
        self.release();
        let received = self.consumer.stats().messages;
        let burst = received.wrapping_sub(self.polled_at);
        self.polled_at = received;
        if burst >= BURST_MESSAGES {
            for _ in 0..BURST_PAUSES {
                self.consumer.memory().pause();
            }
        }
        self.consumer.poll_simple(POLLS)
    }

    #[inline]
    fn try_next(&mut self) -> Result<(), TryRecvError> {
        if self.next_simple() {
            return Ok(());
        }
        self.try_next_other()
    }

    #[inline(never)]
    fn try_next_other(&mut self) -> Result<(), TryRecvError> {
        if self.attempt()? {
            return Ok(());
        }
        match self.look_behind()? {
            Some(_) => Err(TryRecvError::Empty),
            None if self.attempt()? => Ok(()),
            None => Err(TryRecvError::Empty),
        }
    }

    /// Waits for a message until `deadline`; false where none came.
    fn next_by(&mut self, deadline: Deadline) -> Result<bool, RecvError> {
        let mut last = false;
        loop {
            if self.attempt()? {
                return Ok(true);
            }
            if last {
                return Ok(false);
            }
            if let Some(seen) = self.look_behind()?
                && !self.wait(seen, deadline)
            {
                return Ok(false);
            }
            // A peer can end every wait at once by changing what is waited for, for ever.
            last = deadline.has_passed(self.consumer.memory());
        }
    }

    /// Looks for a message. Gives everything back where there is none, so that nobody waits for what
    /// this end holds.
    fn attempt(&mut self) -> Result<bool, RecvError> {
        if !self.consumer.memory().is_ours() {
            return Err(RecvError::Forked);
        }
        if !self.connection.is_alive(peer::ALIVE) && self.is_over() {
            return Ok(false);
        }
        match self.consumer.peek() {
            Ok(true) => Ok(true),
            Ok(false) => {
                self.release();
                Ok(false)
            }
            Err(corruption) => {
                self.connection.declare_poisoned();
                Err(RecvError::Corrupt(corruption))
            }
        }
    }

    /// Whether the dead peer's ring has been read once round. A child that it has forked may go on
    /// writing: no more than a ring full is believed.
    fn is_over(&mut self) -> bool {
        let capacity_bytes = self.consumer.geometry().capacity_bytes();
        let position = self.consumer.position();
        let last = *self.last_position.get_or_insert(position.wrapping_add(capacity_bytes));
        !(1..=capacity_bytes).contains(&last.wrapping_sub(position))
    }

    /// The ring is empty: is that all? `None` where another attempt must tell.
    #[cold]
    fn look_behind(&mut self) -> Result<Option<Seen>, RecvError> {
        if self.connection.poisoned_by_peer() {
            // Latched: the peer could take its word back.
            return Err(RecvError::Corrupt(self.consumer.poison(Corruption::ByPeer)));
        }
        let state = self.connection.peer();
        // Pairs with the Release in Connection::close_end.
        let word = self.consumer.geometry().control(ring::PRODUCER_CLOSED);
        let closed = self.consumer.memory().load_u32(word, Ordering::Acquire);
        if state == peer::ALIVE && closed == 0 {
            return Ok(Some(Seen { peer: state, closed }));
        }
        // Once more, now that the end has been seen: all that was committed before is visible.
        let over = state != peer::ALIVE && self.is_over();
        match over || self.consumer.peek() == Ok(false) {
            true => Err(RecvError::Disconnected),
            false => Ok(None),
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
                    || connection.peer() != seen.peer
                    || connection.poisoned_by_peer()
                    || memory.load_u32(closed, Ordering::Relaxed) != seen.closed)
                    .then_some(())
            },
            |what| parked[what as usize] += 1,
        );
        consumer.count_parked(parked);
        news.is_some()
    }

    /// After a release: wakes the sender if it waits for no more than was released.
    #[inline]
    fn wake_producer(&mut self) {
        let (memory, geometry) = (self.consumer.memory(), self.consumer.geometry());
        memory.light_fence();
        let waiting = geometry.control(ring::PRODUCER_WAITING);
        // Relaxed: the fence orders it after the release. Its partner is the store in `park`.
        if memory.load_u32(waiting, Ordering::Relaxed) != 0 {
            self.wake_waiting_producer();
        }
    }

    #[cold]
    fn wake_waiting_producer(&mut self) {
        let (memory, geometry) = (self.consumer.memory(), self.consumer.geometry());
        // Relaxed: as in Receiver::wake_waiting_producer; a producer that goes to sleep has not seen
        // our release after its fence, so what it stored before is visible here.
        let wanted = memory.load_u64(geometry.control(ring::SPACE_WANTED), Ordering::Relaxed);
        if self.consumer.has_released(wanted)
            && wakeup::wake_if_waiting(memory, geometry.control(ring::PRODUCER_WAITING))
        {
            self.consumer.count_wakeup();
        }
    }
}

impl<T: CheckedBitPattern, M: Memory> SlotReceiver<T, M> {
    /// Copies the message that was found, checks it, and takes it where it is a value.
    #[inline(always)]
    fn take(&mut self) -> Result<T, RecvError> {
        let size = size_of::<T>();
        let mut small = [0; SMALL_BYTES];
        let bytes = if size <= SMALL_BYTES {
            &mut small[..if size == 0 { 1 } else { size }]
        } else {
            &mut self.buffer[..size]
        };
        self.consumer.copy_out(bytes);
        let value = bytemuck::checked::try_pod_read_unaligned(&bytes[..size]);
        let value = value.map_err(|_| RecvError::Invalid)?;
        self.consumer.advance();
        Ok(value)
    }

    /// Receives a value, waiting for it as long as it takes.
    ///
    /// # Errors
    /// [`RecvError::Disconnected`] once the peer has closed or died and everything it committed has
    /// been read; [`RecvError::Invalid`] where the message is no value of `T`: it stays, and
    /// [`skip`](Self::skip) drops it; the others as they say.
    #[inline]
    pub fn recv(&mut self) -> Result<T, RecvError> {
        self.next()?;
        self.take()
    }

    /// Receives a value if there is one now.
    ///
    /// # Errors
    /// [`TryRecvError::Empty`] where there is none; the others as [`recv`](Self::recv).
    #[inline]
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.try_next()?;
        Ok(self.take()?)
    }

    /// Receives a value, waiting for at most `timeout`.
    ///
    /// # Errors
    /// [`RecvTimeoutError::Timeout`] where none came; the others as [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        let deadline = deadline_after(self.consumer.memory(), timeout);
        if !self.next_by(deadline)? {
            return Err(RecvTimeoutError::Timeout);
        }
        Ok(self.take()?)
    }

    /// Waits for a value, then hands up to `budget` values that are there to `each`. Returns how
    /// many.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), only where there was no value at all; an error behind the first one
    /// is told by the next call.
    pub fn recv_batch(
        &mut self,
        budget: usize,
        mut each: impl FnMut(T),
    ) -> Result<usize, RecvError> {
        if budget == 0 {
            return Ok(0);
        }
        each(self.recv()?);
        let mut taken = 1;
        while taken < budget && self.next_simple() {
            // One that is no value has not been taken: the next call says so.
            let Ok(value) = self.take() else { break };
            each(value);
            taken += 1;
        }
        Ok(taken)
    }

    /// Values as they come, until the peer is gone.
    pub fn iter(&mut self) -> SlotIter<'_, T, M> {
        SlotIter { receiver: self, over: false }
    }
}

impl<T, M: Memory> Drop for SlotReceiver<T, M> {
    fn drop(&mut self) {
        if self.consumer.memory().is_ours() {
            self.consumer.release();
            self.consumer.publish_counts();
        }
        self.connection.close(End::Receiver);
    }
}

/// Values as they come; see [`SlotReceiver::iter`].
///
/// Waits for each. Ends once the peer has closed or died and everything it sent has been read. Any
/// other error is the last item.
#[derive(Debug)]
pub struct SlotIter<'a, T, M: Memory = SharedMemory> {
    receiver: &'a mut SlotReceiver<T, M>,
    over: bool,
}

impl<T: CheckedBitPattern, M: Memory> Iterator for SlotIter<'_, T, M> {
    type Item = Result<T, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let item = self.receiver.recv();
        self.over = item.is_err();
        let gone = matches!(item, Err(RecvError::Disconnected));
        (!gone).then_some(item)
    }
}

impl<T: CheckedBitPattern, M: Memory> std::iter::FusedIterator for SlotIter<'_, T, M> {}
