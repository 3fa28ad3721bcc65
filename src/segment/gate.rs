//! The gate of a named segment: whoever holds it decides about the segment.
//!
//! [`Found::gate`] enters it. Openers, replacers and removers take sides under it.
//!
//! Invariants: one process at a time is in the gate; whoever is in it acts only while the name still
//! means the file; a look gives its locks back in one step with the gate.

use std::cell::Cell;
use std::fs;

use super::named::{Found, refused};
use super::sides;
use crate::error::SegmentError;
use crate::memory::MappedMemory;
use crate::os::names::FileId;
use crate::os::os;

/// Nobody else attaches, replaces or removes the segment while this lives.
///
/// Dropping it also gives back the sides that were taken for a look ([`take_both`](Self::take_both)),
/// in one step with the gate: whoever enters next never takes a look for a use.
#[derive(Debug)]
#[must_use = "the gate is left when this is dropped"]
pub(crate) struct Gate<'a> {
    found: &'a Found,
    /// Whether this process uses the segment from now on, and keeps its side.
    keeps: Cell<bool>,
}

impl<'a> Gate<'a> {
    /// The caller has entered it.
    pub(super) fn new(found: &'a Found) -> Self {
        Self { found, keeps: Cell::new(false) }
    }

    /// Whether the name still means this file.
    pub(super) fn is_named(&self) -> Result<bool, SegmentError> {
        let at = FileId::at(&self.found.path).map_err(os("lstat"))?;
        Ok(at == Some(self.found.id))
    }

    /// Which sides somebody else has.
    pub(crate) fn taken(&self) -> Result<[bool; 2], SegmentError> {
        let taken = |side| self.found.claim.is_taken(side).map_err(os("fcntl(F_OFD_GETLK)"));
        Ok([taken(0)?, taken(1)?])
    }

    /// Takes a side and says so in its line; false where somebody else has it.
    pub(crate) fn attach(&self, memory: &MappedMemory, side: usize) -> Result<bool, SegmentError> {
        let taken = self.found.claim.take(side)?;
        if taken {
            self.keeps.set(true);
            sides::attach(memory, side, &self.found.own);
        }
        Ok(taken)
    }

    /// Takes both sides, or a store for itself, so that nobody alive has it; false where somebody has.
    pub(crate) fn take_both(&self) -> Result<bool, SegmentError> {
        self.found.claim.take_both()
    }

    /// Becomes one of the users of a store; false where somebody is alone with it.
    pub(crate) fn share(&self) -> Result<bool, SegmentError> {
        let shared = self.found.claim.share()?;
        self.keeps.set(self.keeps.get() || shared);
        Ok(shared)
    }

    /// Takes the name away. The caller has both sides.
    pub(crate) fn remove(&self) -> Result<(), SegmentError> {
        fs::remove_file(&self.found.path).map_err(|error| refused(&self.found.address, error))
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        if self.keeps.get() {
            self.found.claim.leave();
        } else {
            self.found.claim.leave_all();
        }
    }
}
