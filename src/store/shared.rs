//! What the handles of one process have in common: the mapping, its measures, the lock.
//!
//! Whoever creates or opens a store makes one, and handles share it.
//! What always holds: the mapping is writable and holds a store of these measures, with a lock that was
//! made there; every process that can write it runs this library, which its [`StoreSegment`] has seen
//! to; it stays as long as there is a handle.

#![allow(unsafe_code)]

use std::io;

use super::error::{HandleError, WriteError};
use super::lock::{Acquired, Lock, LockRefusal, Writer};
use super::open::OpenError;
use super::owner::{self, Owner};
use super::writable::{PATIENCE_OF_CLAIM, after};
use super::{Core, StoreGeometry, StoreSegment};
use crate::identity::participant::{self, LockFile};
use crate::memory::{Deadline, MappedMemory, Memory};
use crate::os::robust_mutex::{Locked, NotLocked, RobustMutex};

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) memory: MappedMemory,
    pub(super) geometry: StoreGeometry,
    pub(super) lock: RobustMutex,
    /// The participant that this process is, for reader records.
    pub(super) owner: Owner,
    pub(super) segment: StoreSegment,
}

impl Shared {
    /// Puts a store together whose segment is mapped for writing, and makes this process a participant.
    pub(super) fn new(segment: StoreSegment) -> Result<Self, OpenError> {
        let (memory, geometry) = (segment.memory().clone(), *segment.geometry());
        assert!(memory.len_bytes() >= geometry.len_bytes(), "the segment is too short");
        // SAFETY: every segment that is mapped for writing has a lock: its creator called `make_lock` before
        // anybody else got it. That all who can write it run this library, `StoreSegment` has checked.
        let lock = unsafe { RobustMutex::open(memory.mapping(), geometry.lock()) };
        let mut shared = Self { memory, geometry, lock, owner: Owner(0), segment };
        let claimed = match shared.claim()? {
            None => {
                shared.make_room()?;
                shared.claim()?
            }
            claimed => claimed,
        };
        let table = geometry.participants();
        let full = HandleError::TooManyParticipants { max: table.count };
        shared.owner = Owner(claimed.ok_or(full)?);
        Ok(shared)
    }

    fn claim(&self) -> Result<Option<u64>, OpenError> {
        Ok(participant::claim(&self.memory, &self.geometry.participants(), self.lock_file())?)
    }

    /// Takes back what dead participants have.
    fn make_room(&self) -> Result<(), HandleError> {
        let mut core = Core::new(self.memory.clone(), self.geometry);
        // A writer that is stopped must not stop whoever opens the store.
        let deadline = after(&self.memory, PATIENCE_OF_CLAIM);
        let writer = Writer::acquire(&mut core, &self.lock, deadline).map_err(WriteError::from)?;
        self.reclaim();
        drop(writer);
        Ok(())
    }

    fn lock_file(&self) -> LockFile<'_> {
        self.segment.lock_file().expect("a store that is mapped for writing has a file")
    }

    /// Takes back what dead participants have: readers' records first, then their own. Returns how many readers
    /// that were. For a holder of the lock.
    pub(super) fn reclaim(&self) -> u64 {
        let Self { memory, geometry, owner, .. } = self;
        let (table, file) = (geometry.participants(), self.lock_file());
        let reclaimed = owner::reclaim(memory, geometry, |other| {
            participant::has_died(memory, &table, file, owner.0, other.0)
        });
        participant::reclaim(memory, &table, file, owner.0);
        reclaimed
    }

    /// Borrows bytes of a block.
    ///
    /// # Safety
    /// - The memory is that of a [`StoreSegment`] that is mapped for writing.
    /// - The bytes are those of a value that a slot of its table has named, and as long as the borrow
    ///   lives a reader of this process has the block pinned, or this thread has the lock and does not
    ///   write.
    #[inline]
    pub(super) unsafe fn lend(memory: &MappedMemory, offset: u64, len_bytes: usize) -> &[u8] {
        // SAFETY: no process writes to the block of a value that was published and is not given back:
        // every process that can write it runs this library, as `StoreSegment` has checked, and no writer
        // gives back what is pinned, or what only the holder of the lock could. The rest `slice` checks.
        unsafe { memory.slice(offset, len_bytes) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A forked child is no participant.
        if self.owner.0 != 0 && self.memory.is_ours() {
            let table = self.geometry.participants();
            participant::release(&self.memory, &table, self.lock_file(), self.owner.0);
        }
    }
}

/// Makes the lock of a store that nobody else has.
pub(super) fn make_lock(memory: &MappedMemory, geometry: &StoreGeometry) -> io::Result<()> {
    // SAFETY: the callers create a segment, or hold all claims on it: nobody uses the lock. Who can write
    // it later, `StoreSegment` checks.
    unsafe { RobustMutex::create(memory.mapping(), geometry.lock()) }.map(drop)
}

impl Lock for RobustMutex {
    #[inline]
    fn acquire(&self, deadline: Deadline) -> Result<Acquired, LockRefusal> {
        match self.lock(deadline) {
            Ok(Locked::Clean) => Ok(Acquired::Clean),
            Ok(Locked::OwnerDied) => Ok(Acquired::OwnerDied),
            Err(NotLocked::Deadline) => Err(LockRefusal::Deadline),
            Err(NotLocked::Nested) => Err(LockRefusal::Nested),
            Err(NotLocked::Unusable(error)) => Err(LockRefusal::Unusable(error)),
        }
    }

    #[inline]
    fn release(&self) {
        self.unlock();
    }
}
