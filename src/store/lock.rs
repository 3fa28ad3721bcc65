//! The lock of writers, and what its holder does before anything else.
//!
//! Everybody who changes a store gets a [`Writer`] first. What always holds: who has one finds no operation
//! unfinished, whether its forerunner let go of the lock or died with it; the lock is let go of when the
//! `Writer` is dropped, also by a panic, and never by a forked child.
//!
//! # When is there something to recover?
//! Every operation runs between two stores of the journal's first word
//! ([`HEAD`](crate::layout::store::journal::HEAD)), a batch between two of a word of its own
//! ([`BATCH`](crate::layout::store::BATCH)): while one is not 0, something is unfinished, and who gets the lock recovers.
//! It does so however it got the lock: after a death, after a panic, and after a recovery that failed itself.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use thiserror::Error;

use super::core::Core;
use super::journal;
use super::recovery::Recovered;
use crate::memory::{Deadline, Memory};

/// How a lock was got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acquired {
    /// Its former holder let go of it.
    Clean,
    /// Its former holder died with it.
    OwnerDied,
}

/// Why a lock was not got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LockRefusal {
    /// Somebody else has it, and the deadline has come.
    #[error("another writer had the store's lock until the deadline; it may be stopped: try again")]
    Deadline,
    /// This thread has it.
    #[error("this thread has the store's lock already; do not write inside an update")]
    Nested,
    /// It is no lock any more.
    #[error("the store's lock cannot be used: system error {0}")]
    Unusable(i32),
}

/// A lock that one thread of one process has at a time, and that says when its holder has died.
pub trait Lock {
    /// Gets it by the deadline; at once or not at all where that is 0. Usable again from then on, also
    /// where its holder died.
    ///
    /// # Errors
    /// [`LockRefusal`].
    fn acquire(&self, deadline: Deadline) -> Result<Acquired, LockRefusal>;

    /// Lets go of it. Does nothing in a thread that does not have it.
    fn release(&self);
}

/// Why nobody can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AcquireError {
    /// The lock was not to be had.
    #[error(transparent)]
    Lock(#[from] LockRefusal),
    /// What a dead writer left could not be brought in order. Nothing was changed; the next one tries
    /// again.
    #[error(
        "the store is damaged, and could not be recovered; restore it from a copy, or create it anew"
    )]
    Damaged,
    /// The process has forked since it opened the store.
    #[error(
        "this handle of the store belongs to the process that this one was forked from; open the store in this process"
    )]
    Forked,
}

/// What a writer found unfinished, and what it made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// What became of the operation.
    pub how: Recovered,
    /// The key that was being changed, where that is known: an operation on many keys has none, and a
    /// new key that was not there yet when its writer died is not known.
    pub key: Option<Vec<u8>>,
    /// Whether the writer died; otherwise it panicked, or could not recover the store itself.
    pub owner_died: bool,
}

/// The lock, and the core of a store that it guards. Not `Send`: the thread that got the lock must let
/// go of it.
///
/// ```compile_fail,E0277
/// # use ringway::memory::HeapMemory;
/// # use ringway::store::{LocalLock, Writer};
/// fn send<T: Send>() {}
/// send::<Writer<'static, HeapMemory, LocalLock>>();
/// ```
#[must_use = "the lock is let go of when this is dropped"]
pub struct Writer<'a, M: Memory, L: Lock> {
    core: &'a mut Core<M>,
    lock: &'a L,
    recovery: Option<Box<Recovery>>,
    _thread: PhantomData<*const ()>,
}

impl<'a, M: Memory, L: Lock> Writer<'a, M, L> {
    /// Gets the lock, and recovers the store where its last writer has left something unfinished.
    ///
    /// # Errors
    /// [`AcquireError`]. Who gets an error does not have the lock.
    #[inline]
    pub fn acquire(
        core: &'a mut Core<M>,
        lock: &'a L,
        deadline: Deadline,
    ) -> Result<Self, AcquireError> {
        if !core.memory.is_ours() {
            return Err(AcquireError::Forked);
        }
        let acquired = lock.acquire(deadline)?;
        let mut writer = Self { core, lock, recovery: None, _thread: PhantomData };
        if journal::is_open(&writer.core.memory) || acquired == Acquired::OwnerDied {
            writer.recover_first(acquired)?;
        }
        Ok(writer)
    }

    #[cold]
    fn recover_first(&mut self, acquired: Acquired) -> Result<(), AcquireError> {
        let key = journal::key_in_progress(&self.core.memory, &self.core.geometry);
        let how = self.core.recover().map_err(|_| AcquireError::Damaged)?;
        let owner_died = acquired == Acquired::OwnerDied;
        self.recovery = Some(Box::new(Recovery { how, key, owner_died }));
        Ok(())
    }

    /// What had to be recovered when the lock was got; told once.
    #[inline]
    pub fn take_recovery(&mut self) -> Option<Recovery> {
        self.recovery.take().map(|recovery| *recovery)
    }
}

impl<M: Memory, L: Lock> Deref for Writer<'_, M, L> {
    type Target = Core<M>;

    #[inline]
    fn deref(&self) -> &Core<M> {
        self.core
    }
}

impl<M: Memory, L: Lock> DerefMut for Writer<'_, M, L> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Core<M> {
        self.core
    }
}

impl<M: Memory, L: Lock> Drop for Writer<'_, M, L> {
    #[inline]
    fn drop(&mut self) {
        // A child that was forked meanwhile does not have the lock.
        if self.core.memory.is_ours() {
            self.lock.release();
            // Without the lock, so that nobody waits for these system calls.
            self.core.wake_watchers();
        }
    }
}

impl<M: Memory, L: Lock> fmt::Debug for Writer<'_, M, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("recovery", &self.recovery).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "lock_tests.rs"]
mod tests;
