//! What the handles of one process have in common: the mapping, its measures, the lock.
//!
//! Whoever creates or opens a store makes one, and handles share it.
//! What always holds: the mapping is writable and holds a store of these measures, with a lock that was
//! made there; every process that can write it runs this library, which its [`StoreSegment`] has seen
//! to; it stays as long as there is a handle.

#![allow(unsafe_code)]

use std::io;
use std::process;

use super::lock::{Acquired, Lock, LockRefusal};
use super::owner::Owner;
use super::{StoreGeometry, StoreSegment};
use crate::memory::{Deadline, MappedMemory, Memory};
use crate::os::pidfd;
use crate::os::robust_mutex::{Locked, NotLocked, RobustMutex};

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) memory: MappedMemory,
    pub(super) geometry: StoreGeometry,
    pub(super) lock: RobustMutex,
    /// This process, for reader records.
    pub(super) owner: Owner,
    pub(super) segment: StoreSegment,
}

impl Shared {
    /// Puts a store together whose segment is mapped for writing.
    pub(super) fn new(segment: StoreSegment) -> Self {
        let (memory, geometry) = (segment.memory().clone(), *segment.geometry());
        assert!(memory.len_bytes() >= geometry.len_bytes(), "the segment is too short");
        // SAFETY: every segment that is mapped for writing has a lock: its creator called `make_lock` before
        // anybody else got it. That all who can write it run this library, `StoreSegment` has checked.
        let lock = unsafe { RobustMutex::open(memory.mapping(), geometry.lock()) };
        let pid = process::id();
        let owner = Owner::new(pid, pidfd::start_time(pid).unwrap_or(0));
        Self { memory, geometry, lock, owner, segment }
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

/// Makes the lock of a store that nobody else has: it is new, or its lock is left from another boot.
pub(super) fn make_lock(memory: &MappedMemory, geometry: &StoreGeometry) -> io::Result<()> {
    // SAFETY: the callers create a segment, or hold all claims on it: nobody uses the lock. Who can write
    // it later, `StoreSegment` checks.
    unsafe { RobustMutex::create(memory.mapping(), geometry.lock()) }.map(drop)
}

/// Whether the process is proven dead. One that cannot be asked about counts as alive.
pub(super) fn has_died(owner: Owner) -> bool {
    pidfd::has_died(owner.pid(), owner.start_time())
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
