//! The table grows with its keys, and shrinks behind them.
//!
//! Setting and deleting call it.
//!
//! Invariants:
//! - Another table is built beside the current one, a few slots with each operation ([`next_table`]), and one
//!   store of the root switches to it.
//! - A table that is begun when three quarters of the current one are taken is ready before fifteen sixteenths
//!   are: each change takes one slot at most, and moves it on by one step.
//! - Where there is no room for another table, the current one goes on being used until a sixteenth is left. One
//!   that is begun then is moved on by [`HURRY`] steps at a time, and is ready before a sixty-fourth is left.
//! - What cannot wait for that is a batch of more keys than there are slots left, and a full store where the table
//!   in the making had to give its room back.
//!
//! [`next_table`]: super::next_table

use super::arena;
use super::core::{Core, Refusal};
use super::journal::{Journal, Operation};
use super::limbo;
use super::next_table::{self, EMPTIED_AT_ONCE, HURRY, MOVED_AT_ONCE};
use super::root;
use super::table::Table;
use crate::layout::store::table::MAX_MOVED_LOG2_SLOTS;
use crate::layout::store::{LIVE_KEYS, TOMBSTONES};
use crate::memory::{Memory, Ordering};

/// Into so many parts a table is divided; with each that fills up, it is tried whether it can be replaced.
const PARTS: u64 = 64;
/// How often a table is replaced for one batch: it may be under way for fewer keys.
const TRIES: u32 = 3;

// A table of `n` slots is replaced by one of `2n` slots at most, in fewer operations than `3n / 16`.
const _: () =
    assert!(16 * (EMPTIED_AT_ONCE + 2 * MOVED_AT_ONCE) < 3 * EMPTIED_AT_ONCE * MOVED_AT_ONCE);
// And in fewer hurried ones than `3n / 64`.
const _: () = assert!(
    64 * (EMPTIED_AT_ONCE + 2 * MOVED_AT_ONCE) < 3 * HURRY * EMPTIED_AT_ONCE * MOVED_AT_ONCE
);

/// When another table is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// When three quarters of the current one are taken.
    Early,
    /// When only a sixteenth is left: the room is wanted for a value.
    WhenFull,
}

impl<M: Memory> Core<M> {
    /// Sees to it that so many more keys leave a quarter of the table empty, soon; where there is no room for
    /// another table, a sixteenth. Returns whether anything may have changed its place.
    ///
    /// Moves a table in the making on to its end only for more keys than the current one has slots left: see the
    /// module.
    pub(super) fn make_room_for_keys(
        &mut self,
        more: u64,
        growth: Growth,
    ) -> Result<bool, Refusal> {
        let mut changed = false;
        if more == 0 {
            return Ok(changed);
        }
        for _ in 0..TRIES {
            let word = |offset| self.memory.load_u64(offset, Ordering::Relaxed);
            let table = Table::current(&self.memory, &self.geometry)?;
            let (keys, tombstones) = (word(LIVE_KEYS), word(TOMBSTONES));
            let taken = keys.saturating_add(tombstones).saturating_add(more);
            let (crowded, full) = (table.len() / 4 * 3, table.full());
            let Some(over) = taken.checked_sub(crowded + 1) else { return Ok(changed) };
            if !next_table::is_under_way(&self.memory) {
                // Not with every key, because it may cost much and be of no use.
                let is_due = growth == Growth::Early && over.is_multiple_of(table.len() / PARTS);
                if taken <= full && !is_due {
                    return Ok(changed);
                }
                let (wanted, current) =
                    (Table::log2_for(keys.saturating_add(more)), table.log2_slots());
                changed = true;
                let begun = self.begin_table_making_room(wanted)?
                    || tombstones >= table.len() / 8
                        && wanted > current
                        && self.begin_table_making_room(current)?;
                if !begun {
                    return if taken > full { Err(Refusal::OutOfSpace) } else { Ok(changed) };
                }
            }
            if more > 1 {
                // As many steps as changes one by one would make.
                self.go_on_with_table(more)?;
                changed = true;
            }
            if next_table::is_under_way(&self.memory) {
                if taken <= table.brim() {
                    return Ok(changed);
                }
                self.finish_table()?;
            }
            changed = true;
        }
        Err(Refusal::OutOfSpace)
    }

    /// Replaces a table of which less than an eighth is in use, where that needs nothing moved.
    pub(super) fn shrink_where_few_are_left(&mut self) -> Result<(), Refusal> {
        let keys = self.memory.load_u64(LIVE_KEYS, Ordering::Relaxed);
        let table = Table::current(&self.memory, &self.geometry)?;
        let least = Table::least_log2(&self.memory);
        let is_large = table.log2_slots() > least;
        if is_large
            && keys < table.len() / 8
            && keys.is_multiple_of(table.len() / PARTS)
            && !next_table::is_under_way(&self.memory)
        {
            self.begin_table(Table::log2_for(keys).max(least))?;
        }
        Ok(())
    }

    fn begin_table_making_room(&mut self, log2_slots: u64) -> Result<bool, Refusal> {
        Ok(self.begin_table(log2_slots)?
            || (self.make_room(Table::bytes(log2_slots))? && self.begin_table(log2_slots)?))
    }

    /// Whether the table is short enough to be moved in one operation.
    pub(super) fn can_move_table(&self, table: &Table) -> bool {
        table.log2_slots() <= MAX_MOVED_LOG2_SLOTS
    }

    /// Moves the table, which has a span to itself, to free pages from `page` on, as it is.
    pub(super) fn move_table(&mut self, page: u64) -> Result<(), Refusal> {
        self.drop_table()?;
        self.tidy()?;
        let Self { memory, geometry, .. } = self;
        let table = Table::current(memory, geometry)?;
        let bytes = Table::bytes(table.log2_slots());
        let mut journal = Journal::begin(memory, Operation::Bulk, 0, 0);
        let object = arena::take_large(&mut journal, geometry, page, bytes);
        Table::begin(memory, object, table.log2_slots());
        table.copy_slots_to(memory, object);
        root::switch_to(memory, object);
        limbo::put(&mut journal, geometry, table.offset(), bytes)?;
        journal.end();
        Ok(())
    }

    /// Builds a table beside the current one, without its tombstones, and switches to it. Returns whether there
    /// was room.
    #[cfg(any(test, loom))]
    pub(super) fn replace_table(&mut self, log2_slots: u64) -> Result<bool, Refusal> {
        self.tidy()?;
        if !self.begin_table(log2_slots)? {
            return Ok(false);
        }
        self.finish_table()?;
        Ok(true)
    }
}
