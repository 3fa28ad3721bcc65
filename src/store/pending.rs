//! Pending blocks: what a slot says before and after a batch, and which of the two it says now.
//!
//! A batch puts one into each slot that it changes; whoever finds one there, reader or recovery, asks it.
//! What always holds: while a slot names a pending block, its batch's block is there; all slots of a batch change
//! what they say by the one store of its state.
//!
//! # For whoever reads without pins
//!
//! A slot that names a pending block says [`Pending::stands_for`], if afterwards, behind an acquire fence or Acquire loads, the slot
//! still holds the same word, the pending block the same version, and the root and the epoch are unchanged: a pending
//! block leaves its slot before it, or its batch's block, is given back, and does not come back. Nothing that was found is believed before.

use super::StoreGeometry;
use crate::layout::WORD_BYTES;
use crate::layout::store::block::{HASH, KEY_LEN, KIND, KIND_PENDING, VERSION};
use crate::layout::store::{batch, pending, slot};
use crate::memory::{Memory, Ordering};

/// What a pending block says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pending {
    /// Hash of the key.
    pub(super) hash: u64,
    /// The slot's word, where the batch is not committed.
    pub(super) old: u64,
    /// The slot's word, where it is.
    pub(super) new: u64,
    /// Offset of the batch's block.
    pub(super) batch: u64,
}

impl Pending {
    /// Writes the block, version last.
    pub(super) fn write(&self, memory: &impl Memory, offset: u64, version: u64) {
        // Behind the zero in the version, for those who read without pins.
        memory.release_fence();
        memory.store_u64(offset + HASH, self.hash, Ordering::Relaxed);
        memory.store_u32(offset + KEY_LEN, 0, Ordering::Relaxed);
        memory.store_u32(offset + KIND, KIND_PENDING, Ordering::Relaxed);
        memory.store_u64(offset + pending::NEW, self.new, Ordering::Relaxed);
        memory.store_u64(offset + pending::OLD, self.old, Ordering::Relaxed);
        memory.store_u64(offset + pending::BATCH, self.batch, Ordering::Relaxed);
        // Pairs with the Acquire in `read`.
        memory.store_u64(offset + VERSION, version, Ordering::Release);
    }

    /// The pending block at `offset`, which may be anything; `None` where there is none.
    pub(super) fn read(
        memory: &impl Memory,
        geometry: &StoreGeometry,
        offset: u64,
    ) -> Option<Self> {
        if !fits(geometry, offset, pending::BYTES) {
            return None;
        }
        // Pairs with the Release in `write`.
        let version = memory.load_u64(offset + VERSION, Ordering::Acquire);
        let kind = memory.load_u32(offset + KIND, Ordering::Relaxed);
        let word = |at| memory.load_u64(offset + at, Ordering::Relaxed);
        (version != 0 && kind == KIND_PENDING).then(|| Self {
            hash: word(HASH),
            old: word(pending::OLD),
            new: word(pending::NEW),
            batch: word(pending::BATCH),
        })
    }

    /// The word that the slot stands for: empty, deleted, or that of a block. `None` where the batch
    /// that the block names is none.
    pub(super) fn stands_for(&self, memory: &impl Memory, geometry: &StoreGeometry) -> Option<u64> {
        match state(memory, geometry, self.batch)? {
            batch::PREPARED => Some(self.old),
            batch::COMMITTED => Some(self.new),
            _ => None,
        }
    }
}

/// The state of the batch whose block lies at `offset`, if one does.
pub(super) fn state(memory: &impl Memory, geometry: &StoreGeometry, offset: u64) -> Option<u64> {
    // Pairs with the Release that commits: the new blocks are visible.
    fits(geometry, offset, batch::STATE + WORD_BYTES)
        .then(|| memory.load_u64(offset + batch::STATE, Ordering::Acquire))
}

/// Whether a block of `len` bytes can lie at `offset`.
fn fits(geometry: &StoreGeometry, offset: u64, len: u64) -> bool {
    offset.is_multiple_of(slot::UNIT)
        && geometry.page_of(offset).is_some()
        && geometry.private() - offset >= len
}
