//! The table grows with its keys, and shrinks behind them.
//!
//! Setting and deleting call it. What always holds: another table is built beside the current one, and one store of the
//! root switches to it; where there is no room for it, the current one goes on being used as long as searches in it end.

use super::arena;
use super::core::{Core, Refusal};
use super::journal::{Journal, Operation};
use super::limbo;
use super::spans::Damage;
use super::table::Table;
use crate::layout::store::table::MIN_LOG2_SLOTS;
use crate::layout::store::{LIVE_KEYS, ROOT, TOMBSTONES, block, root, slot};
use crate::memory::{Memory, Ordering};

/// Into so many parts a table is divided; with each that fills up, it is tried whether it can be replaced.
const PARTS: u64 = 64;

impl<M: Memory> Core<M> {
    /// Sees to it that so many more keys leave a quarter of the table empty; where there is no room for
    /// another table, a sixteenth. Returns whether anything may have changed its place.
    pub(super) fn make_room_for_keys(&mut self, more: u64) -> Result<bool, Refusal> {
        let word = |offset| self.memory.load_u64(offset, Ordering::Relaxed);
        let table = Table::current(&self.memory, &self.geometry)?;
        let (keys, tombstones) = (word(LIVE_KEYS), word(TOMBSTONES));
        let taken = keys.saturating_add(tombstones).saturating_add(more);
        let (crowded, full) = (table.len() / 4 * 3, table.len() / 16 * 15);
        let Some(over) = taken.checked_sub(crowded + 1) else { return Ok(false) };
        // Not with every key, because it may cost much and be of no use.
        if taken <= full && !over.is_multiple_of(table.len() / PARTS) {
            return Ok(false);
        }
        let (wanted, current) = (Table::log2_for(keys.saturating_add(more)), table.log2_slots());
        let mut replaced = self.replace_table_making_room(wanted)?;
        if !replaced && tombstones >= table.len() / 8 && wanted > current {
            replaced = self.replace_table_making_room(current)?;
        }
        if replaced || taken <= full { Ok(true) } else { Err(Refusal::OutOfSpace) }
    }

    /// Replaces a table of which less than an eighth is in use, where that needs nothing moved.
    pub(super) fn shrink_where_few_are_left(&mut self) -> Result<(), Refusal> {
        let keys = self.memory.load_u64(LIVE_KEYS, Ordering::Relaxed);
        let table = Table::current(&self.memory, &self.geometry)?;
        let is_large = table.log2_slots() > MIN_LOG2_SLOTS;
        if is_large && keys < table.len() / 8 && keys.is_multiple_of(table.len() / PARTS) {
            self.replace_table(Table::log2_for(keys), None)?;
        }
        Ok(())
    }

    fn replace_table_making_room(&mut self, log2_slots: u64) -> Result<bool, Refusal> {
        Ok(self.replace_table(log2_slots, None)?
            || (self.make_room(Table::bytes(log2_slots))?
                && self.replace_table(log2_slots, None)?))
    }

    /// Moves the table, which has a span to itself, to free pages from `page` on.
    pub(super) fn move_table(&mut self, page: u64) -> Result<(), Refusal> {
        let log2_slots = Table::current(&self.memory, &self.geometry)?.log2_slots();
        self.replace_table(log2_slots, Some(page)).map(drop)
    }

    /// Builds a table beside the current one, without its tombstones, and switches to it; at `page` or
    /// where there is room. Returns whether there was.
    pub(super) fn replace_table(
        &mut self,
        log2_slots: u64,
        page: Option<u64>,
    ) -> Result<bool, Refusal> {
        self.tidy()?;
        let Self { memory, geometry, .. } = self;
        let table = Table::current(memory, geometry)?;
        let mut journal = Journal::begin(memory, Operation::Bulk, 0, 0);
        let bytes = Table::bytes(log2_slots);
        let object = match page {
            Some(page) => Some(arena::take_large(&mut journal, geometry, page, bytes)),
            None => arena::take(&mut journal, geometry, bytes)?,
        };
        let Some(object) = object else {
            journal.end();
            return Ok(false);
        };
        Table::write_empty(memory, object, log2_slots);
        let word = root::pack(object, root::generation(table.root).wrapping_add(1));
        let new = Table::at(memory, geometry, word)?;
        for (_, word) in table.words(memory) {
            let offset = slot::block(word);
            geometry.page_of(offset).ok_or(Damage)?;
            let hash = memory.load_u64(offset + block::HASH, Ordering::Relaxed);
            new.insert_fresh(memory, hash, word)?;
        }
        // Pairs with the Acquire of a look at the root: the new slots are visible.
        memory.store_u64(ROOT, word, Ordering::Release);
        let len = Table::bytes(table.log2_slots());
        limbo::put(&mut journal, geometry, table.offset(), len)?;
        journal.put_u64(TOMBSTONES, 0);
        journal.end();
        Ok(true)
    }
}
