//! Waiting for a message in a way that another thread of this process can end.
//!
//! The dispatchers of [`passive`](crate::channel::Running) wait so. What always holds: who raises a
//! [`Signal`] is noticed by the wait that goes on, or by the one that would begin next, whichever
//! incarnation of the channel that is on.

use std::sync::{Arc, PoisonError};

use super::Receiver;
use super::wait::Look;
use crate::channel::connection::{Connection, peer};
use crate::error::RecvError;
use crate::layout::ring;
use crate::memory::{Deadline, Memory, SharedMemory};
use crate::ring::Record;
use crate::sync::{AtomicU32, Mutex, Ordering};
use crate::wakeup;

/// What is asked of a waiting thread, as bits, and where it waits.
#[derive(Debug)]
pub(in crate::channel) struct Signal {
    /// | who changes it | how |
    /// |---|---|
    /// | any thread | sets bits, then wakes |
    /// | the waiting thread | takes bits that it has done what they ask for |
    bits: AtomicU32,
    /// What the receiver waits on: changes when it follows its peer to a next incarnation.
    connection: Mutex<Arc<Connection<SharedMemory>>>,
}

impl Signal {
    pub(in crate::channel) fn new(receiver: &Receiver) -> Self {
        let connection = Mutex::new(Arc::clone(&receiver.connection));
        Self { bits: AtomicU32::new(0), connection }
    }

    /// The bits that are set.
    #[inline]
    pub(in crate::channel) fn bits(&self) -> u32 {
        // Acquire pairs with the Release in `set`: what came with a bit is visible.
        self.bits.load(Ordering::Acquire)
    }

    /// Takes bits back.
    pub(in crate::channel) fn take(&self, bits: u32) {
        self.bits.fetch_and(!bits, Ordering::AcqRel);
    }

    /// Sets bits; for who is woken in another way.
    pub(in crate::channel) fn set(&self, bits: u32) {
        self.bits.fetch_or(bits, Ordering::AcqRel);
    }

    /// Sets bits, and ends the wait that is going on.
    pub(in crate::channel) fn raise(&self, bits: u32) {
        self.set(bits);
        // Behind the bits: a receiver that has moved on since has locked this after us, so it sees
        // them before it waits there.
        let connection = Arc::clone(&self.lock());
        if connection.memory().is_ours() {
            let waiting = connection.incoming().control(ring::CONSUMER_WAITING);
            // Its fence is the other half of the one between a waiter's announcement and its look.
            wakeup::wake_always(connection.memory(), waiting);
        }
    }

    /// Before a wait: where it will be.
    fn attend(&self, connection: &Arc<Connection<SharedMemory>>) {
        let mut current = self.lock();
        if !Arc::ptr_eq(&current, connection) {
            *current = Arc::clone(connection);
        }
    }

    fn lock(&self) -> crate::sync::MutexGuard<'_, Arc<Connection<SharedMemory>>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receiver {
    /// The next record, waiting for it until a signal is raised; not taken.
    #[inline]
    pub(in crate::channel) fn next_unless(
        &mut self,
        signal: &Signal,
    ) -> Result<Option<Record>, RecvError> {
        match self.next_simple() {
            Some(record) => Ok(Some(record)),
            None => self.next_unless_other(signal),
        }
    }

    #[inline(never)]
    fn next_unless_other(&mut self, signal: &Signal) -> Result<Option<Record>, RecvError> {
        if let Some(record) = self.poll() {
            return Ok(Some(record));
        }
        loop {
            if let Some(record) = self.attempt()? {
                return Ok(Some(record));
            }
            if let Look::Wait(seen) = self.look_behind(self.consumer.position())? {
                signal.attend(&self.connection);
                if signal.bits() != 0 {
                    return Ok(None);
                }
                let at = self.consumer.position();
                self.wait_unless(seen, Deadline::NEVER, at, || signal.bits() != 0)?;
            }
        }
    }

    /// After corruption on a channel whose peer may be restarted: waits until that is decided, or a
    /// signal is raised. Whether there will be a next incarnation; `None` at a signal.
    #[cold]
    pub(in crate::channel) fn outlast_corruption(&mut self, signal: &Signal) -> Option<bool> {
        if !self.connection.follows() {
            return Some(false);
        }
        signal.attend(&self.connection);
        let Self { consumer, connection, waiter, .. } = self;
        let decided = || match connection.peer() {
            peer::SUCCEEDED => Some(Some(true)),
            peer::GONE | peer::SUPERSEDED => Some(Some(false)),
            _ if signal.bits() != 0 => Some(None),
            _ => None,
        };
        let waiting = consumer.geometry().control(ring::CONSUMER_WAITING);
        let memory = connection.memory();
        waiter.wait(memory, waiting, Deadline::NEVER, decided, |_| ()).flatten()
    }
}
