//! The blocking end that reads.
//!
//! Wraps the ring's consumer with waiting, waking, a private buffer, and what is known of the peer.
//! `Send`, not `Sync`. What always holds: what it lends is a private copy that no peer can change,
//! and a message stays in the ring until the next call asks for another one (at-least-once: a
//! receiver that is killed while it works on a message leaves it to its successor).

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use rkyv::util::AlignedVec;

use super::calls::Calls;
use super::connection::{Connection, End, peer};
use super::cpu::CpuHint;
use super::message::{Message, OwnedMessage};
use super::sender::deadline_after;
use crate::error::{Corruption, RecvError, RecvTimeoutError, TryRecvError};
use crate::layout::ring;
use crate::memory::{Deadline, Memory, Ordering, SharedMemory};
use crate::ring::{Consumer, ConsumerStats, Record};
use crate::wakeup::{self, Waiter};

#[cfg(not(loom))]
mod ahead;
mod buffers;
mod call;
mod decode;
mod digest;
#[cfg(not(loom))]
mod interrupt;
mod wait;

#[cfg(not(loom))]
pub(crate) use ahead::{Ahead, Behind};
pub use buffers::KEPT_BYTES;
use buffers::Keeps;
#[cfg(not(loom))]
pub(super) use call::Reply;
use digest::Aside;
#[cfg(not(loom))]
pub(super) use interrupt::Signal;
use wait::Look;

/// The receiving end of a channel.
#[derive(Debug)]
pub struct Receiver<M: Memory = SharedMemory> {
    pub(super) consumer: Consumer<M>,
    pub(super) connection: Arc<Connection<M>>,
    pub(super) waiter: Waiter,
    pub(super) cpu: CpuHint,
    /// What is known of the peer while it is the one that this end knows, and lives.
    known: u32,
    /// Whether the restart of the current incarnation's peer has been told.
    pub(super) told: bool,
    /// Position up to which a dead peer's ring is believed.
    last_position: Option<u64>,
    /// When the sender of a plugin that may be restarted was first seen closed.
    closed_since: Option<u64>,
    buffer: AlignedVec<64>,
    /// What its buffers keep.
    keeps: Keeps,
    /// Messages received when this end last found none.
    polled_at: u64,
    /// Messages that lie in memory of their own.
    aside: Aside,
    calls: Arc<Calls>,
    /// False where this end was never really taken.
    open: bool,
    not_sync: PhantomData<Cell<()>>,
}

impl<M: Memory> Receiver<M> {
    pub(crate) fn new(connection: Arc<Connection<M>>, waiter: Waiter) -> Result<Self, Corruption> {
        let consumer = Consumer::attach(connection.memory().clone(), *connection.incoming())?;
        Ok(Self::over(connection, consumer, waiter))
    }

    pub(super) fn over(
        connection: Arc<Connection<M>>,
        consumer: Consumer<M>,
        waiter: Waiter,
    ) -> Self {
        let cpu = cpu_hint(&consumer);
        let calls = Arc::clone(connection.calls());
        let aside = Aside { looked_at: consumer.position(), ..Aside::default() };
        Self {
            consumer,
            connection,
            waiter,
            cpu,
            known: peer::ALIVE,
            told: false,
            last_position: None,
            closed_since: None,
            buffer: AlignedVec::new(),
            keeps: Keeps::default(),
            polled_at: 0,
            aside,
            calls,
            open: true,
            not_sync: PhantomData,
        }
    }

    /// Receives a message, waiting for it as long as it takes. The message is lent: it lies in this
    /// receiver's own buffer until the next call.
    ///
    /// # Errors
    /// [`RecvError::Disconnected`] once the peer has closed or died and everything it committed has
    /// been read; the others as they say.
    #[inline]
    pub fn recv(&mut self) -> Result<Message<'_>, RecvError> {
        match self.next_simple() {
            Some(record) => Ok(self.lend_data(&record)),
            None => self.recv_other(),
        }
    }

    #[inline(never)]
    fn recv_other(&mut self) -> Result<Message<'_>, RecvError> {
        if let Some(record) = self.poll() {
            return Ok(self.lend(&record));
        }
        let record = self.next_waiting()?;
        Ok(self.lend(&record))
    }

    /// Receives a message if there is one now.
    ///
    /// # Errors
    /// [`TryRecvError::Empty`] where there is none; the others as [`recv`](Self::recv).
    #[inline]
    pub fn try_recv(&mut self) -> Result<Message<'_>, TryRecvError> {
        match self.next_simple() {
            Some(record) => Ok(self.lend_data(&record)),
            None => self.try_recv_other(),
        }
    }

    #[inline(never)]
    fn try_recv_other(&mut self) -> Result<Message<'_>, TryRecvError> {
        let record = self.try_next_other()?;
        Ok(self.lend(&record))
    }

    /// Receives a message, waiting for at most `timeout`.
    ///
    /// # Errors
    /// [`RecvTimeoutError::Timeout`] where none came; the others as [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Message<'_>, RecvTimeoutError> {
        let deadline = deadline_after(self.consumer.memory(), timeout);
        self.recv_deadline(deadline)
    }

    /// Receives a message, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn recv_deadline(&mut self, deadline: Deadline) -> Result<Message<'_>, RecvTimeoutError> {
        let record = self.next_by(deadline)?.ok_or(RecvTimeoutError::Timeout)?;
        Ok(self.lend(&record))
    }

    /// [`recv`](Self::recv) into a vector of the caller's own.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_owned(&mut self) -> Result<OwnedMessage, RecvError> {
        Ok(self.recv()?.to_owned())
    }

    /// [`recv`](Self::recv) straight into `bytes`, with one copy. Returns the message's length and
    /// tag.
    ///
    /// # Errors
    /// [`RecvError::Mismatch`] where the message is longer than `bytes`: it stays, and `expected`
    /// is the length of `bytes`. The others as [`recv`](Self::recv).
    pub fn recv_into(&mut self, bytes: &mut [u8]) -> Result<(usize, u16), RecvError> {
        let record = self.next()?;
        let len = record.len_bytes();
        if len > bytes.len() {
            let (found, expected) = (len as u64, bytes.len() as u64);
            return Err(RecvError::Mismatch { found, expected });
        }
        match self.elsewhere(&record) {
            Some(message) => bytes[..len].copy_from_slice(message),
            None => self.consumer.copy_out(&record, bytes),
        }
        self.take(&record);
        Ok((len, record.tag()))
    }

    /// Waits for a message, then hands up to `budget` messages that are there to `each`. Returns
    /// how many. Space is given back as they are handed out, whenever they have taken a quarter of the ring;
    /// the rest by the next call.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), only where there was no message at all; an error behind the first
    /// one is told by the next call.
    pub fn recv_batch(
        &mut self,
        budget: usize,
        mut each: impl FnMut(Message<'_>),
    ) -> Result<usize, RecvError> {
        if budget == 0 {
            return Ok(0);
        }
        let mut record = self.next()?;
        let mut taken = 0;
        loop {
            each(self.lend(&record));
            taken += 1;
            if taken == budget {
                break;
            }
            match self.consumer.peek_simple() {
                Some(next) => record = next,
                None => match self.find() {
                    Ok(Some(next)) => record = next,
                    Ok(None) | Err(_) => break,
                },
            }
            if self.consumer.held_bytes() >= self.consumer.geometry().capacity_bytes() / 4 {
                self.release();
            }
        }
        Ok(taken)
    }

    /// Drops the next message without looking at it, if there is one.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn skip(&mut self) -> Result<(), TryRecvError> {
        let record = self.try_next()?;
        self.take(&record);
        Ok(())
    }

    /// Gives the room of the message received last back to the sender now, not at the next call:
    /// declares the work on it done.
    pub fn release(&mut self) {
        if self.consumer.memory().is_ours() && self.consumer.release() {
            self.wake_producer();
        }
    }

    /// Takes a record that was read.
    #[inline]
    pub(super) fn take(&mut self, record: &Record) {
        match record.is_data() {
            true => self.consumer.advance(record),
            false => self.take_other(record),
        }
    }

    /// Copies a record into the buffer and takes it.
    #[inline]
    pub(super) fn lend(&mut self, record: &Record) -> Message<'_> {
        match record.is_data() {
            true => self.lend_data(record),
            false => self.lend_other(record),
        }
    }

    /// `lend` for a record of plain data.
    #[inline(always)]
    fn lend_data(&mut self, record: &Record) -> Message<'_> {
        self.fetch_data(record);
        self.consumer.advance(record);
        Message::new(&self.buffer[..record.len_bytes()], record.tag())
    }

    /// Copies a record into the buffer, where it does not lie in private memory already, without
    /// taking it.
    #[inline]
    pub(super) fn fetch(&mut self, record: &Record) -> &[u8] {
        match record.is_data() {
            true => self.fetch_data(record),
            false => self.fetch_other(record),
        }
    }

    #[inline(always)]
    fn fetch_data(&mut self, record: &Record) -> &[u8] {
        let len = record.len_bytes();
        if self.buffer.len() < len {
            self.grow(len);
        }
        self.consumer.copy_data(record, &mut self.buffer[..len]);
        &self.buffer[..len]
    }

    /// Bytes of the message fetched last.
    pub(super) fn fetched(&self, record: &Record) -> &[u8] {
        match self.elsewhere(record) {
            Some(message) => message,
            None => &self.buffer[..record.len_bytes()],
        }
    }

    /// The next record, waiting for it; not taken.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Record, RecvError> {
        match self.next_simple() {
            Some(record) => Ok(record),
            None => self.next_polled(),
        }
    }

    #[inline(never)]
    fn next_polled(&mut self) -> Result<Record, RecvError> {
        match self.poll() {
            Some(record) => Ok(record),
            None => self.next_waiting(),
        }
    }

    /// The next record if nothing needs attention and it is there for certain; gives back what was
    /// taken before. Not taken.
    #[inline(always)]
    pub(super) fn next_simple(&mut self) -> Option<Record> {
        if !self.consumer.memory().is_ours() || !self.connection.is_alive(self.known) {
            return None;
        }
        if self.consumer.release() {
            self.wake_producer();
        }
        self.consumer.peek_simple()
    }

    #[inline(never)]
    fn next_waiting(&mut self) -> Result<Record, RecvError> {
        loop {
            if let Some(record) = self.next_by(Deadline::NEVER)? {
                return Ok(record);
            }
        }
    }

    /// The next record if there is one; not taken.
    #[inline]
    pub(super) fn try_next(&mut self) -> Result<Record, TryRecvError> {
        match self.next_simple() {
            Some(record) => Ok(record),
            None => self.try_next_other(),
        }
    }

    #[inline(never)]
    fn try_next_other(&mut self) -> Result<Record, TryRecvError> {
        match self.attempt()? {
            Some(record) => Ok(record),
            None => match self.look_behind(self.consumer.position())? {
                Look::Again => self.attempt()?.ok_or(TryRecvError::Empty),
                Look::Wait(_) => {
                    self.keeps.found_nothing(&mut self.buffer, &mut self.aside);
                    Err(TryRecvError::Empty)
                }
            },
        }
    }

    /// The next record, waiting until `deadline`; not taken.
    #[inline]
    pub(super) fn next_by(&mut self, deadline: Deadline) -> Result<Option<Record>, RecvError> {
        let mut last = false;
        loop {
            if let Some(record) = self.attempt()? {
                return Ok(Some(record));
            }
            if last {
                return Ok(None);
            }
            if let Look::Wait(seen) = self.look_behind(self.consumer.position())?
                && !self.wait(seen, deadline, self.consumer.position())?
            {
                return Ok(None);
            }
            // A peer can end every wait at once by changing what is waited for, for ever.
            last = deadline.has_passed(self.consumer.memory());
        }
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
        // Relaxed: a producer that goes to sleep has not seen our release after its fence, so our
        // fence came later, and what it stored before its own is visible here. One that does not go
        // to sleep may show an old value, and needs no wakeup.
        let wanted = memory.load_u64(geometry.control(ring::SPACE_WANTED), Ordering::Relaxed);
        if self.consumer.has_released(wanted)
            && wakeup::wake_if_waiting(memory, geometry.control(ring::PRODUCER_WAITING))
        {
            self.consumer.count_wakeup();
        }
    }

    /// As [`Channel::is_current`](crate::channel::Channel::is_current).
    pub fn is_current(&self) -> bool {
        self.connection.is_current()
    }

    /// What this end has counted.
    pub fn stats(&self) -> ConsumerStats {
        self.consumer.stats()
    }

    /// Closes this end: the sender's next call gets `Disconnected`. The same as dropping it.
    pub fn close(self) {}

    /// Drops this end without closing it: its side belongs to somebody else.
    pub(super) fn forget(mut self) {
        self.open = false;
    }
}

fn cpu_hint<M: Memory>(consumer: &Consumer<M>) -> CpuHint {
    let word = |word| consumer.geometry().control(word);
    CpuHint::new(consumer.memory(), word(ring::CONSUMER_CPU), word(ring::PRODUCER_CPU))
}

impl<M: Memory> Drop for Receiver<M> {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        if self.consumer.memory().is_ours() {
            self.consumer.release();
            self.consumer.publish_counts();
        }
        self.connection.close(End::Receiver);
    }
}
