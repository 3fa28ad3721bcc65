//! Who holds which side of a named segment, and who uses a store: locks on bytes of its file.
//!
//! Whoever attaches, replaces, removes or inspects a named segment asks here.
//! What always holds: the locks lie on a description of their own, which nothing is mapped through
//! (a mapping that a forked child inherits would keep them) and which forked children do not have;
//! so they are gone when this process is, or when they are given back.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use crate::error::SegmentError;
use crate::layout::claim;
use crate::memory::Deadline;
use crate::os::claims::Unforked;
use crate::os::{fork, locks, os};

/// A description of a segment's file, and the locks that it has.
#[derive(Debug)]
pub(crate) struct Claim {
    file: Unforked,
    /// The fork generation that it belongs to.
    generation: u64,
}

impl Claim {
    /// `file` was opened for this and nothing else, and has no locks.
    pub(crate) fn new(file: File) -> Result<Self, SegmentError> {
        let generation = fork::generation().map_err(os("mmap"))?;
        Ok(Self { file: Unforked::new(file).map_err(os("pthread_atfork"))?, generation })
    }

    pub(crate) fn file(&self) -> &File {
        self.file.file()
    }

    /// Takes a side; false where somebody else has it.
    pub(crate) fn take(&self, side: usize) -> Result<bool, SegmentError> {
        locks::try_write(self.file.as_fd(), claim::SIDE[side], 1).map_err(os("fcntl(F_OFD_SETLK)"))
    }

    /// Takes both sides, or a store for itself; false where somebody else has one, or uses it.
    pub(crate) fn take_both(&self) -> Result<bool, SegmentError> {
        locks::try_write(self.file.as_fd(), claim::SIDE[0], claim::SIDES_BYTES)
            .map_err(os("fcntl(F_OFD_SETLK)"))
    }

    /// Becomes one of those who use a store, or stays it where this was alone; false where somebody is
    /// alone with it, who cannot be while the gate is ours.
    pub(crate) fn share(&self) -> Result<bool, SegmentError> {
        locks::try_read(self.file.as_fd(), claim::SIDE[0], claim::SIDES_BYTES)
            .map_err(os("fcntl(F_OFD_SETLK)"))
    }

    /// Takes both sides and the gate in one step; false where somebody else has any of them.
    pub(crate) fn take_all(&self) -> Result<bool, SegmentError> {
        locks::try_write(self.file.as_fd(), claim::SIDE[0], claim::SIDES_BYTES + 1)
            .map_err(os("fcntl(F_OFD_SETLK)"))
    }

    /// Whether somebody else uses the side. `None` where the lock also covers the gate: a process
    /// that only looks holds both for a moment. Needs no lock, and no right to write.
    pub(crate) fn is_used(&self, side: usize) -> io::Result<Option<bool>> {
        let found = locks::held(self.file.as_fd(), claim::SIDE[side], 1)?;
        Ok(match found {
            None => Some(false),
            Some(range) if range.contains(&claim::GATE) => None,
            Some(_) => Some(true),
        })
    }

    /// Whether somebody else has the side.
    pub(crate) fn is_taken(&self, side: usize) -> io::Result<bool> {
        locks::is_held(self.file.as_fd(), claim::SIDE[side], 1)
    }

    /// Enters the gate; false where somebody else has not left it before the deadline.
    pub(crate) fn enter(&self, deadline: Deadline) -> Result<bool, SegmentError> {
        locks::write_by(self.file.as_fd(), claim::GATE, 1, deadline)
            .map_err(os("fcntl(F_OFD_SETLK)"))
    }

    /// Leaves the gate.
    pub(crate) fn leave(&self) {
        // Fails for no description that is open.
        let _ = locks::unlock(self.file.as_fd(), claim::GATE, 1);
    }

    /// Leaves the gate and gives the sides back, in one step.
    pub(crate) fn leave_all(&self) {
        let _ = locks::unlock(self.file.as_fd(), claim::SIDE[0], claim::SIDES_BYTES + 1);
    }

    /// Gives everything back.
    pub(crate) fn release(&self) {
        // A child that was forked without the library has its parent's description.
        if !fork::is_current(self.generation) {
            return;
        }
        let _ = locks::unlock(self.file.as_fd(), claim::SIDE[0], claim::SIDES_BYTES + 1);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Closing is not enough: a child that is being forked may have got the description.
        self.release();
    }
}
