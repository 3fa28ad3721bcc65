//! The table in the making: it is built a few slots at a time, beside the one that is current.
//!
//! Setting and deleting move it on; [`grow`](super::grow) decides when there is one. No reader looks at it.
//!
//! Invariants:
//! - Its first `NEXT_TABLE_EMPTIED` slots were emptied. Nothing is moved before all of them are.
//! - Then it holds the word of every block that the first `NEXT_TABLE_MOVED` slots of the current table name, once,
//!   and no other one.
//! - One step moves it on by [`EMPTIED_AT_ONCE`] slots emptied, or [`MOVED_AT_ONCE`] slots moved. One change of a key
//!   makes one step, or [`HURRY`] where the current table is nearly full.
//! - It is an index. Recovery drops it, and so does whoever finds that it cannot follow.
//!
//! ```text
//! take an object ──► empty its slots ──► move slot after slot ──► root := it, the old one is retired
//!                                        (changes of slots behind the mark follow at once)
//! ```

use super::StoreGeometry;
use super::arena;
use super::core::{Core, Refusal};
use super::journal::{Journal, Operation};
use super::limbo;
use super::root::{self, Root};
use super::spans::{Damage, Room};
use super::table::Table;
use crate::layout::store::{
    LIVE_KEYS, NEXT_TABLE, NEXT_TABLE_EMPTIED, NEXT_TABLE_MOVED, NEXT_TABLE_TAKEN, TOMBSTONES,
    block, slot,
};
use crate::memory::{Memory, Ordering};

/// How many slots one step empties.
pub(super) const EMPTIED_AT_ONCE: u64 = 256;
/// How many slots of the current table one step moves.
pub(super) const MOVED_AT_ONCE: u64 = 16;
/// How many steps one change makes where no more than a sixteenth of the current table is left.
pub(super) const HURRY: u64 = 2;
/// Stands in the number of slots taken: it cannot follow any more, and is to be dropped.
const TO_BE_DROPPED: u64 = u64::MAX;

/// Whether a table is in the making.
#[inline]
pub(super) fn is_under_way(memory: &impl Memory) -> bool {
    memory.load_u64(NEXT_TABLE, Ordering::Relaxed) != 0
}

/// Makes the table in the making follow a slot of the current one, which changed from `old` to `new`. Both
/// belong to keys with this hash.
#[inline]
pub(super) fn follow<M: Memory>(
    memory: &M,
    geometry: &StoreGeometry,
    slot: u64,
    hash: u64,
    change: (u64, u64),
) {
    if is_under_way(memory) && try_follow(memory, geometry, slot, hash, change).is_none() {
        memory.store_u64(NEXT_TABLE_TAKEN, TO_BE_DROPPED, Ordering::Release);
    }
}

/// `None` where it cannot.
fn try_follow<M: Memory>(
    memory: &M,
    geometry: &StoreGeometry,
    slot: u64,
    hash: u64,
    (old, new): (u64, u64),
) -> Option<()> {
    let number = Table::current(memory, geometry).ok()?.number_of(slot)?;
    if number >= memory.load_u64(NEXT_TABLE_MOVED, Ordering::Relaxed) {
        // It is moved when its turn comes.
        return Some(());
    }
    let next = table(memory, geometry).ok()??;
    if old > slot::TOMBSTONE {
        let at = next.slot_that_holds(memory, hash, old)?;
        let new = if new > slot::TOMBSTONE { new } else { slot::TOMBSTONE };
        memory.store_u64(at, new, Ordering::Release);
    } else if new > slot::TOMBSTONE {
        insert(memory, &next, hash, new)?;
    }
    Some(())
}

/// The table in the making.
fn table<M: Memory>(memory: &M, geometry: &StoreGeometry) -> Result<Option<Table>, Damage> {
    let offset = memory.load_u64(NEXT_TABLE, Ordering::Relaxed);
    if offset == 0 {
        return Ok(None);
    }
    Table::at(memory, geometry, Root::of_next(offset)).map(Some)
}

/// Puts a block into it; `None` where an eighth of it would not stay empty.
fn insert<M: Memory>(memory: &M, next: &Table, hash: u64, word: u64) -> Option<()> {
    let taken = memory.load_u64(NEXT_TABLE_TAKEN, Ordering::Relaxed);
    if taken >= next.len() / 8 * 7 {
        return None;
    }
    next.insert_fresh(memory, hash, word).ok()?;
    memory.store_u64(NEXT_TABLE_TAKEN, taken + 1, Ordering::Release);
    Some(())
}

impl<M: Memory> Core<M> {
    /// Takes an object for a table of this length. Returns whether there was room for it.
    pub(super) fn begin_table(&mut self, log2_slots: u64) -> Result<bool, Refusal> {
        self.drop_table()?;
        let Self { memory, geometry, .. } = self;
        let mut journal = Journal::begin(memory, Operation::Slot, 0, 0);
        let object = arena::take(&mut journal, geometry, Table::bytes(log2_slots), Room::Free)?;
        if let Some(object) = object {
            Table::begin(memory, object, log2_slots);
            for word in [NEXT_TABLE_EMPTIED, NEXT_TABLE_MOVED, NEXT_TABLE_TAKEN] {
                journal.put_u64(word, 0);
            }
            journal.put_u64(NEXT_TABLE, object);
        }
        journal.end();
        Ok(object.is_some())
    }

    /// Moves the table in the making on by as many steps as so many changes make.
    #[cold]
    pub(super) fn advance_table(&mut self, changes: u64) -> Result<(), Refusal> {
        let word = |offset| self.memory.load_u64(offset, Ordering::Relaxed);
        let taken = word(LIVE_KEYS).saturating_add(word(TOMBSTONES));
        let is_full = taken >= Table::current(&self.memory, &self.geometry)?.full();
        for _ in 0..changes.saturating_mul(if is_full { HURRY } else { 1 }) {
            if !is_under_way(&self.memory) {
                break;
            }
            self.step()?;
        }
        Ok(())
    }

    /// Moves the table in the making on by one step. The step that finds all slots moved makes it current.
    fn step(&mut self) -> Result<(), Refusal> {
        let Self { memory, geometry, .. } = self;
        let Ok(Some(next)) = table(memory, geometry) else { return Err(Refusal::Damage) };
        let emptied = memory.load_u64(NEXT_TABLE_EMPTIED, Ordering::Relaxed);
        if emptied < next.len() {
            let end = next.len().min(emptied + EMPTIED_AT_ONCE);
            Table::empty_slots(memory, next.offset(), emptied..end);
            memory.store_u64(NEXT_TABLE_EMPTIED, end, Ordering::Release);
            return Ok(());
        }
        let current = Table::current(memory, geometry)?;
        let moved = memory.load_u64(NEXT_TABLE_MOVED, Ordering::Relaxed);
        if move_slots(memory, geometry, &current, &next, moved)?.is_none() {
            return Ok(self.drop_table()?);
        }
        if moved + MOVED_AT_ONCE >= current.len() {
            self.switch_tables(&current, &next)?;
        }
        Ok(())
    }

    /// Moves the table in the making on until it is current or is dropped.
    pub(super) fn finish_table(&mut self) -> Result<(), Refusal> {
        let Self { memory, geometry, .. } = &*self;
        let slots = Table::current(memory, geometry)?.len() / MOVED_AT_ONCE
            + table(memory, geometry)?.map_or(0, |next| next.len() / EMPTIED_AT_ONCE);
        // Each step ends a part of the work, and the last ones end a begun part each.
        for _ in 0..slots + 3 {
            if !is_under_way(&self.memory) {
                return Ok(());
            }
            self.step()?;
        }
        if is_under_way(&self.memory) { Err(Refusal::Damage) } else { Ok(()) }
    }

    /// Gives the table in the making back, if there is one.
    pub(super) fn drop_table(&mut self) -> Result<(), Damage> {
        let Self { memory, geometry, .. } = self;
        let offset = memory.load_u64(NEXT_TABLE, Ordering::Relaxed);
        if offset != 0 {
            let mut journal = Journal::begin(memory, Operation::Slot, 0, 0);
            arena::give_back(&mut journal, geometry, offset)?;
            journal.put_u64(NEXT_TABLE, 0);
            journal.end();
        }
        Ok(())
    }

    /// Makes `next` the current table; it holds what `current` does.
    fn switch_tables(&mut self, current: &Table, next: &Table) -> Result<(), Damage> {
        let Self { memory, geometry, .. } = self;
        // Whoever finds this unfinished computes the indexes anew.
        let mut journal = Journal::begin(memory, Operation::Bulk, 0, 0);
        root::switch_to(memory, next.offset());
        limbo::put(&mut journal, geometry, current.offset(), Table::bytes(current.log2_slots()))?;
        let word = |offset| memory.load_u64(offset, Ordering::Relaxed);
        let tombstones = word(NEXT_TABLE_TAKEN).saturating_sub(word(LIVE_KEYS));
        journal.put_u64(TOMBSTONES, tombstones);
        journal.put_u64(NEXT_TABLE, 0);
        journal.end();
        Ok(())
    }
}

/// Moves the next slots, from `moved` on. `None` where there is no room for what they name.
fn move_slots<M: Memory>(
    memory: &M,
    geometry: &StoreGeometry,
    current: &Table,
    next: &Table,
    moved: u64,
) -> Result<Option<()>, Damage> {
    if memory.load_u64(NEXT_TABLE_TAKEN, Ordering::Relaxed) == TO_BE_DROPPED {
        return Ok(None);
    }
    let end = current.len().min(moved.saturating_add(MOVED_AT_ONCE));
    let words = || {
        let word = |number| memory.load_u64(current.numbered(number), Ordering::Relaxed);
        (moved..end).map(word).filter(|word| *word > slot::TOMBSTONE)
    };
    // All of them at once, since they lie anywhere.
    words().for_each(|word| memory.prefetch(slot::block(word)));
    for word in words() {
        let offset = slot::block(word);
        geometry.page_of(offset).ok_or(Damage)?;
        let hash = memory.load_u64(offset + block::HASH, Ordering::Relaxed);
        if insert(memory, next, hash, word).is_none() {
            return Ok(None);
        }
    }
    memory.store_u64(NEXT_TABLE_MOVED, end, Ordering::Release);
    Ok(Some(()))
}

/// Whether the table in the making holds what it must. `Err` says what it does not.
pub(super) fn check<M: Memory>(memory: &M, geometry: &StoreGeometry) -> Result<(), &'static str> {
    let word = |offset| memory.load_u64(offset, Ordering::Relaxed);
    let (moved, taken) = (word(NEXT_TABLE_MOVED), word(NEXT_TABLE_TAKEN));
    let next = table(memory, geometry).map_err(|Damage| "the table in the making is none")?;
    let Some(next) = next else { return Ok(()) };
    if word(NEXT_TABLE_EMPTIED) < next.len() {
        return if moved == 0 { Ok(()) } else { Err("the table in the making is not empty") };
    }
    if taken == TO_BE_DROPPED {
        return Ok(());
    }
    let current = Table::current(memory, geometry).map_err(|Damage| "the table")?;
    let mut named = 0;
    for number in 0..moved.min(current.len()) {
        let word = word(current.numbered(number));
        if word > slot::TOMBSTONE {
            let hash = memory.load_u64(slot::block(word) + block::HASH, Ordering::Relaxed);
            let found = next.slot_that_holds(memory, hash, word);
            found.ok_or("the table in the making lacks a block")?;
            named += 1;
        }
    }
    let holds =
        next.words_and_tombstones(memory).map(|(_, word)| u64::from(word != slot::TOMBSTONE));
    let (all, blocks) = holds.fold((0, 0), |(all, blocks), block| (all + 1, blocks + block));
    if (all, blocks) == (taken, named) { Ok(()) } else { Err("slots of the table in the making") }
}
