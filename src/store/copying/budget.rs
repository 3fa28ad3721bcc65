//! How much a reader may do before it gives up: the bound on what contents of a store can cost it.
//!
//! Every call of a [`CopyingReader`](super::CopyingReader) begins with one, and draws from it.
//! What always holds: a correct store, however large, never exhausts it but by changing all the time.

use super::{CopyRefusal, StoreGeometry};
use crate::layout::WORD_BYTES;
use crate::memory::Memory;

/// How often something may have changed before a call gives up.
const ATTEMPTS: u32 = 256;
/// How many blocks a search may look at. The tags in the slots make every look but the last one
/// a one in 65,536 chance.
const LOOKS: u32 = 1 << 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Budget {
    attempts: u32,
    looks: u32,
    /// Slots.
    steps: u64,
    bytes: u64,
}

impl Budget {
    /// Enough for a call on so many keys.
    pub(super) fn of_keys(geometry: &StoreGeometry, keys: usize) -> Self {
        let arena = geometry.arena_bytes();
        let bytes = (4 * arena).saturating_mul(keys.max(1) as u64);
        Self { attempts: ATTEMPTS, looks: LOOKS, steps: 2 * arena / WORD_BYTES, bytes }
    }

    /// Something has changed: begins again, if not too often.
    pub(super) fn again(&mut self, memory: &impl Memory) -> Result<(), CopyRefusal> {
        draw(&mut self.attempts, 1)?;
        memory.pause();
        Ok(())
    }

    /// On to the next slot of an iteration: changes are counted from here.
    pub(super) fn next_slot(&mut self) {
        self.attempts = ATTEMPTS;
    }

    /// The next of several keys: slots and blocks are counted from here.
    pub(super) fn next_key(&mut self, geometry: &StoreGeometry) {
        *self = Self { bytes: self.bytes, attempts: self.attempts, ..Self::of_keys(geometry, 1) };
    }

    /// The next of all keys, each of which has a block of its own: slots are counted for all of them, so
    /// that a table cannot make each search as long as itself.
    pub(super) fn next_of_all(&mut self) {
        (self.attempts, self.looks) = (ATTEMPTS, LOOKS);
    }

    /// For a slot.
    #[inline]
    pub(super) fn step(&mut self) -> Result<(), CopyRefusal> {
        draw(&mut self.steps, 1)
    }

    /// For a block.
    pub(super) fn look(&mut self) -> Result<(), CopyRefusal> {
        draw(&mut self.looks, 1)
    }

    /// For bytes to copy.
    pub(super) fn copy(&mut self, bytes: u64) -> Result<(), CopyRefusal> {
        draw(&mut self.bytes, bytes)
    }
}

fn draw<T>(from: &mut T, amount: T) -> Result<(), CopyRefusal>
where
    T: Copy + PartialOrd + std::ops::Sub<Output = T>,
{
    if *from < amount {
        return Err(CopyRefusal::Busy);
    }
    *from = *from - amount;
    Ok(())
}
