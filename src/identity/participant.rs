//! Participants: the processes that use a store for writing, one record each.
//!
//! A store's opener claims a record, and its owner words name it; a holder of the store's lock takes back those of
//! the dead. Invariants: a record with an identity belongs to that participant alone; no identity is given out
//! twice; a participant that lives keeps its record.
//!
//! # Claiming, as cases
//! 1. The claimer locks the record's byte, on an open file description of its own, before it looks at the
//!    identity. While it has the lock, nobody else writes a record whose identity is 0.
//! 2. It dies before it stores the identity: the kernel frees the byte, and the record is free as before.
//! 3. It dies later: the byte is free and the identity is there. That proves the death, because whoever gives a
//!    record back clears the identity before it unlocks.
//!
//! # Without a description of its own
//! Where `/proc` is missing, a memory file has one description only, which the mapping keeps alive in a forked child. Then the
//! lock is given back after the claim, and the inode of the pidfd is the only proof (see [`process`]). A
//! process that has neither is refused.

use std::os::fd::BorrowedFd;

use super::process::{self, Found, ProcessId};
use crate::error::SegmentError;
use crate::layout::claim;
use crate::layout::store::participant::{
    BYTES, IDENTITY, INDEX_BITS, PID, PIDFD_INODE, PROOF, PROOF_LOCK,
};
use crate::memory::{Memory, Ordering};
use crate::os::{locks, os};

/// The file with the participants' bytes, as one participant has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LockFile<'a> {
    pub(crate) fd: BorrowedFd<'a>,
    /// Whether the description belongs to this participant alone, and no mapping was made through it.
    pub(crate) is_own: bool,
}

/// Where the records lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    /// Offset of the first record.
    pub(crate) first: u64,
    /// How many there are.
    pub(crate) count: u64,
    /// Offset of the number of the next participant.
    pub(crate) next_number: u64,
}

impl Table {
    fn record(&self, index: u64) -> u64 {
        self.first + index * BYTES
    }
}

/// Index of the record that an identity names.
fn index_of(identity: u64) -> u64 {
    identity & ((1 << INDEX_BITS) - 1)
}

/// Claims a record for this process; returns its identity, or `None` where no record is free.
///
/// # Errors
/// [`SegmentError::NoProofOfDeath`] where nobody could ever tell that this process has died.
pub(crate) fn claim(
    memory: &impl Memory,
    table: &Table,
    file: LockFile<'_>,
) -> Result<Option<u64>, SegmentError> {
    let own = ProcessId::own();
    if !file.is_own && own.pidfd_inode == 0 {
        return Err(SegmentError::NoProofOfDeath);
    }
    for index in 0..table.count {
        let record = table.record(index);
        if memory.load_u64(record + IDENTITY, Ordering::Relaxed) != 0 {
            continue;
        }
        let byte = claim::PARTICIPANT + index;
        if !locks::try_write(file.fd, byte, 1).map_err(os("fcntl(F_OFD_SETLK)"))? {
            continue;
        }
        let identity = claim_locked(memory, table, index, &own, file.is_own);
        if identity.is_none() || !file.is_own {
            // Fails for no description that is open.
            let _ = locks::unlock(file.fd, byte, 1);
        }
        if identity.is_some() {
            return Ok(identity);
        }
    }
    Ok(None)
}

/// Claims the record whose byte is locked; `None` where somebody has it.
fn claim_locked(
    memory: &impl Memory,
    table: &Table,
    index: u64,
    own: &ProcessId,
    is_locked: bool,
) -> Option<u64> {
    let record = table.record(index);
    // Acquire pairs with the Release in `release`: the former participant's stores lie before.
    if memory.load_u64(record + IDENTITY, Ordering::Acquire) != 0 {
        return None;
    }
    memory.store_u32(record + PID, own.pid, Ordering::Relaxed);
    memory.store_u32(record + PROOF, if is_locked { PROOF_LOCK } else { 0 }, Ordering::Relaxed);
    memory.store_u64(record + PIDFD_INODE, own.pidfd_inode, Ordering::Relaxed);
    // 48 bits: a claim costs system calls, and 2^48 of a microsecond each take nine years.
    let number = memory.fetch_add_u64(table.next_number, 1, Ordering::Relaxed).wrapping_add(1);
    let identity = index | number << INDEX_BITS;
    // Exchanged, because two claims through one description do not exclude each other; what both have written is
    // the same. Release pairs with the Acquire in `has_died`.
    let claimed = memory.compare_exchange_u64(record + IDENTITY, 0, identity, Ordering::AcqRel);
    claimed.is_ok().then_some(identity)
}

/// Gives this process's record back, after everything that names it.
pub(crate) fn release(memory: &impl Memory, table: &Table, file: LockFile<'_>, identity: u64) {
    let index = index_of(identity);
    // Before the byte is unlocked: a free byte beside an identity proves a death. Pairs with the Acquire in
    // `claim_locked`.
    memory.store_u64(table.record(index) + IDENTITY, 0, Ordering::Release);
    if file.is_own {
        // Fails for no description that is open.
        let _ = locks::unlock(file.fd, claim::PARTICIPANT + index, 1);
    }
}

/// Whether a participant other than this process is proven dead, or has given its record back. `own` is this
/// process's identity.
pub(crate) fn has_died(
    memory: &impl Memory,
    table: &Table,
    file: LockFile<'_>,
    own: u64,
    identity: u64,
) -> bool {
    // No lock of one's own is ever seen.
    if identity == own {
        return false;
    }
    let index = index_of(identity);
    if index >= table.count {
        return true;
    }
    let record = table.record(index);
    // Pairs with the Release in `claim_locked`: proof, pid and inode are this identity's.
    let is_there = || memory.load_u64(record + IDENTITY, Ordering::Acquire) == identity;
    if !is_there() {
        return true;
    }
    if memory.load_u32(record + PROOF, Ordering::Relaxed) == PROOF_LOCK
        && let Ok(false) = locks::is_held(file.fd, claim::PARTICIPANT + index, 1)
    {
        return true;
    }
    // A lock can be kept alive by a child that was made without the library's handlers.
    let pid = memory.load_u32(record + PID, Ordering::Relaxed);
    let inode = memory.load_u64(record + PIDFD_INODE, Ordering::Relaxed);
    matches!(process::find(pid, inode), Found::Dead)
}

/// Frees the records of all dead participants; returns how many. For a holder of the store's lock, after whatever
/// names them was taken back.
pub(crate) fn reclaim(memory: &impl Memory, table: &Table, file: LockFile<'_>, own: u64) -> u64 {
    let mut reclaimed = 0;
    for index in 0..table.count {
        let word = table.record(index) + IDENTITY;
        let identity = memory.load_u64(word, Ordering::Acquire);
        if identity != 0
            && has_died(memory, table, file, own, identity)
            && memory.compare_exchange_u64(word, identity, 0, Ordering::AcqRel).is_ok()
        {
            reclaimed += 1;
        }
    }
    reclaimed
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;
    use crate::memory::HeapMemory;
    use crate::os::memfd;

    const TABLE: Table = Table { first: 64, count: 2, next_number: 0 };

    fn two() -> [File; 2] {
        let file = memfd::create(4096).unwrap();
        [File::from(memfd::reopen(file.as_fd(), true).unwrap()), file]
    }

    fn own(file: &File) -> LockFile<'_> {
        LockFile { fd: file.as_fd(), is_own: true }
    }

    fn claim_of(memory: &HeapMemory, file: &File) -> Option<u64> {
        claim(memory, &TABLE, own(file)).unwrap()
    }

    #[test]
    fn f50_a_free_byte_proves_a_death_and_nothing_else_does() {
        let (memory, [ours, theirs]) = (HeapMemory::new(4096), two());
        let (first, second) = (claim_of(&memory, &ours), claim_of(&memory, &theirs));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert!(first != second && claim_of(&memory, &ours).is_none(), "all records are in use");
        let has_died = |of| super::has_died(&memory, &TABLE, own(&ours), first, of);
        assert!(!has_died(first) && !has_died(second));
        // Whatever stands there about a process: it has its byte, and no inode proves anything.
        let record = TABLE.record(index_of(second));
        memory.store_u64(record + PIDFD_INODE, 0, Ordering::Relaxed);
        for pid in [0, 1, u32::MAX, std::process::id()] {
            memory.store_u32(record + PID, pid, Ordering::Relaxed);
            assert!(!has_died(second), "{pid}");
        }
        assert_eq!(reclaim(&memory, &TABLE, own(&ours), first), 0);
        drop(theirs);
        assert!(has_died(second));
        assert_eq!(reclaim(&memory, &TABLE, own(&ours), first), 1);
        let [again, _] = two();
        let third = claim_of(&memory, &again).unwrap();
        assert!(index_of(third) == index_of(second) && third != second, "never the same twice");
        release(&memory, &TABLE, own(&again), third);
        assert!(has_died(third), "given back");
        assert!(claim_of(&memory, &ours).is_some());
    }

    #[test]
    fn f55_without_a_lock_the_inode_decides() {
        let (memory, [ours, theirs]) = (HeapMemory::new(4096), two());
        if ProcessId::own().pidfd_inode == 0 {
            return println!("skipped: this kernel has no file system of pidfds (Linux 6.9)");
        }
        let shared = LockFile { fd: theirs.as_fd(), is_own: false };
        let identity = claim(&memory, &TABLE, shared).unwrap().unwrap();
        let has_died = || has_died(&memory, &TABLE, own(&ours), 0, identity);
        assert!(!locks::is_held(ours.as_fd(), claim::PARTICIPANT, 2).unwrap());
        assert!(!has_died(), "its byte is free, which proves nothing here");
        let record = TABLE.record(index_of(identity));
        let inode = memory.load_u64(record + PIDFD_INODE, Ordering::Relaxed);
        memory.store_u64(record + PIDFD_INODE, inode ^ 1 << 40, Ordering::Relaxed);
        assert!(has_died(), "another process has its number");
        memory.store_u64(record + PIDFD_INODE, inode, Ordering::Relaxed);
        release(&memory, &TABLE, shared, identity);
    }
}
