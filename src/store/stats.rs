//! What a store has in it, in numbers.
//!
//! Handles and tools ask. Invariants: it is read without a lock, so that numbers that belong together may be of
//! different moments; a process that maps the public part only reads nothing behind it.

use super::StoreGeometry;
use super::block::Block;
use super::limbo;
use super::owner;
use crate::layout::store::page::PAGE_BYTES;
use crate::layout::store::{
    FREE_PAGES, LIMBO_BYTES, LIMBO_LEN, LIVE_BYTES, LIVE_KEYS, RECOVERIES, TOMBSTONES, block,
    reader, slot,
};
use crate::memory::{Memory, Ordering};

/// What is in a store. Read beside writers: each number is true by itself, about now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StoreStats {
    /// Keys that have a value.
    pub keys: u64,
    /// Bytes of their blocks: keys, values, headers.
    pub live_bytes: u64,
    /// Deleted slots that the table has not forgotten yet.
    pub tombstones: u64,
    /// Bytes of all pages.
    pub capacity_bytes: u64,
    /// Bytes of pages that nothing lies in. Pages that something lies in have room as well.
    pub free_bytes: u64,
    /// Values and tables that were replaced or deleted, and have not been given back.
    pub retired: u64,
    /// Their bytes.
    pub retired_bytes: u64,
    /// Values that readers have pinned, each counted once. `None` in a process that reads a store without a name by
    /// copying: pins and readers are none of what it may see.
    pub pinned: Option<u64>,
    /// Bytes of their blocks; `None` as above.
    pub pinned_bytes: Option<u64>,
    /// Reader records that have an owner; `None` as above.
    pub readers: Option<u64>,
    /// Reader records.
    pub max_readers: u64,
    /// How often the store was recovered after a writer had died or panicked.
    pub recoveries: u64,
}

impl StoreStats {
    /// Of a store of these measures.
    pub(super) fn of(memory: &impl Memory, geometry: &StoreGeometry) -> Self {
        // Relaxed: numbers to look at, which nothing is concluded from.
        let word = |offset| memory.load_u64(offset, Ordering::Relaxed);
        let private = geometry.has_private(memory).then(|| pins(memory, geometry));
        Self {
            keys: word(LIVE_KEYS),
            live_bytes: word(LIVE_BYTES),
            tombstones: word(TOMBSTONES),
            capacity_bytes: geometry.arena_bytes(),
            free_bytes: word(FREE_PAGES).saturating_mul(PAGE_BYTES),
            retired: word(LIMBO_LEN),
            retired_bytes: word(LIMBO_BYTES),
            pinned: private.map(|(pinned, _)| pinned),
            pinned_bytes: private.map(|(_, bytes)| bytes),
            readers: private.map(|_| readers(memory, geometry)),
            max_readers: geometry.readers(),
            recoveries: word(RECOVERIES),
        }
    }
}

/// How many values are pinned, and the bytes of their blocks.
fn pins(memory: &impl Memory, geometry: &StoreGeometry) -> (u64, u64) {
    let mut pinned = Vec::new();
    limbo::collect_pins(memory, geometry, &mut pinned);
    pinned.dedup();
    // A pin may be on its way, and name what is no block by now.
    let blocks = pinned.iter().filter_map(|offset| {
        geometry.page_of(*offset)?;
        // Or nothing that any reader has written, where nothing can be believed.
        let whole = geometry.private() - offset >= block::KEY;
        (whole && offset.is_multiple_of(slot::UNIT)).then_some(())?;
        Block::read(memory, *offset, geometry.private() - offset).ok()?.bytes()
    });
    blocks.fold((0, 0), |(count, sum), bytes| (count + 1, sum.saturating_add(bytes)))
}

/// How many reader records have an owner.
fn readers(memory: &impl Memory, geometry: &StoreGeometry) -> u64 {
    let owned = |record: &u64| memory.load_u64(record + reader::OWNER, Ordering::Relaxed) != 0;
    owner::records(geometry).filter(owned).count() as u64
}
