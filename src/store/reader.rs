//! Reading without a lock: find the slot, pin the block, look again.
//!
//! Every process that reads a store has a [`Reader`]; it claims a record with pins in the segment.
//!
//! Invariants: a block that a [`Pinned`] names was current after it was pinned, so that no writer gives it back
//! before it is unpinned; "absent" is said only of a table that was current at the end of the search.

use std::cell::Cell;

use thiserror::Error;

use super::StoreGeometry;
use super::block::{Block, hash};
use super::owner::{self, Owner};
use super::pending::Pending;
use super::pinned::Pinned;
use super::root::Root;
use super::spans::Damage;
use super::table::Table;
use crate::layout::store::{reader, slot};
use crate::layout::{LINE_BYTES, WORD_BYTES};
use crate::memory::{Memory, Ordering};

/// How many slots are looked at before a search that is to find a key's block in its cache.
const FORESEEN: u64 = 4;
/// And for keys of how many bytes: to hash a longer one twice takes longer than the block does.
const FORESEEN_KEY_BYTES: usize = 128;

/// How many slots a search looks at before it makes sure that their table is still the current one.
const NEAR_SLOTS: u64 = 32;

/// A claimed record of the reader table. `Send`, not `Sync`: a thread takes one of its own.
#[derive(Debug)]
pub struct Reader<M: Memory> {
    pub(super) memory: M,
    pub(super) geometry: StoreGeometry,
    /// Offset of the record.
    record: u64,
    /// Pins in use, a bit each.
    pub(super) used: Cell<u32>,
    /// The table of the root seen last.
    table: Cell<Option<Table>>,
    /// Whether the checksum of each value is looked at.
    pub(super) verify: Cell<bool>,
}

/// Why nothing was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReadRefusal {
    /// All pins of this reader are in use: drop some of what was read.
    #[error(
        "all {} pins of this store handle are in use; drop values that are no longer needed",
        reader::HELD_PINS
    )]
    OutOfPins,
    /// What was found is no table or no block, and still there at a second look.
    #[error("the store is damaged: a table or block is not what a writer leaves")]
    Damage,
}

impl<M: Memory> Reader<M> {
    /// Claims a record for a process, this one; `None` where none is free.
    pub fn claim(memory: M, geometry: StoreGeometry, owner: Owner) -> Option<Self> {
        let record = owner::claim(&memory, &geometry, owner)?;
        let (used, table, verify) = (Cell::new(0), Cell::new(None), Cell::new(false));
        Some(Self { memory, geometry, record, used, table, verify })
    }

    /// The value of a key, pinned; `None` where the key is absent.
    ///
    /// # Errors
    /// [`ReadRefusal`].
    #[inline]
    pub fn get(&self, key: &[u8]) -> Result<Option<Pinned<'_, M>>, ReadRefusal> {
        let pin = self.free_pin();
        if is_to_copy(pin) {
            return Err(ReadRefusal::OutOfPins);
        }
        self.get_at(pin, key)
    }

    /// As [`get`](Self::get), with the pin that is kept for what is copied and unpinned at once.
    pub(super) fn get_to_copy(&self, key: &[u8]) -> Result<Option<Pinned<'_, M>>, ReadRefusal> {
        debug_assert_eq!(self.used.get() & 1 << reader::COPY_PIN, 0, "in use");
        self.get_at(reader::COPY_PIN as u32, key)
    }

    /// Searches with a pin that is free. Handles the common case: the table that was seen last is current, the slot
    /// names a value, and nobody changes either. Everything else goes to [`get_slowly`](Self::get_slowly).
    ///
    /// The look at the root that found the table is the first of the two looks that [`root`](super::root) asks for,
    /// however long ago it was. So only one look follows, behind the slot or the pin. A table that is no longer
    /// current may hold anything: its words are compared, prefetched and pinned, which harms nothing, and no
    /// result follows from them.
    #[inline(always)]
    fn get_at(&self, pin: u32, key: &[u8]) -> Result<Option<Pinned<'_, M>>, ReadRefusal> {
        let Self { memory, .. } = self;
        let hash = hash(key, self.geometry.seed());
        let Some(table) = self.table.get() else {
            return self.get_slowly(pin, key, hash);
        };
        let at = self.pin(pin);
        for index in 0..NEAR_SLOTS {
            let slot = table.slot(hash, index);
            let word = self.word(slot);
            if !slot::may_be(word, hash) {
                if word != slot::EMPTY {
                    continue;
                }
                if table.root.is_current(memory) {
                    // The table was current at the end of the search.
                    return Ok(None);
                }
                break;
            }
            // Short values lie on the line behind the header's, or begin there: both come at once.
            memory.prefetch(slot::block(word) + LINE_BYTES);
            if !pin_current(memory, at, slot::block(word), (slot, word), table.root) {
                break;
            }
            match self.block_at(slot::block(word)) {
                Ok(block) if block.has_key(memory, key, hash) => {
                    return self.found(pin, block);
                }
                // Another key; or no value, and then it is looked at more closely.
                Ok(_) => unpin(memory, at),
                Err(Damage) => {
                    unpin(memory, at);
                    break;
                }
            }
        }
        self.get_slowly(pin, key, hash)
    }

    /// The value of a key whose block is pinned; looks at its checksum if this reader is to.
    #[inline(always)]
    fn found(&self, pin: u32, block: Block) -> Result<Option<Pinned<'_, M>>, ReadRefusal> {
        if self.verify.get() && !self.is_whole(block.offset) {
            unpin(&self.memory, self.pin(pin));
            return Err(ReadRefusal::Damage);
        }
        Ok(Some(self.pinned(pin, block)))
    }

    /// Whether key and value of a pinned block are those that were written. Looks at all of them.
    #[cold]
    pub(super) fn is_whole(&self, block: u64) -> bool {
        Block::read_anywhere(&self.memory, &self.geometry, block)
            .is_ok_and(|block| block.is_whole(&self.memory, self.geometry.seed()))
    }

    /// As [`get_at`](Self::get_at), whatever the case is.
    #[inline(never)]
    fn get_slowly(
        &self,
        pin: u32,
        key: &[u8],
        hash: u64,
    ) -> Result<Option<Pinned<'_, M>>, ReadRefusal> {
        loop {
            let root = Root::load(&self.memory);
            let found = self.search(root, key, hash, self.pin(pin));
            match found {
                Search::Found(block) => return self.found(pin, block),
                Search::Changed => self.memory.pause(),
                Search::Absent | Search::Damage if self.root() != root => self.memory.pause(),
                Search::Absent => return Ok(None),
                Search::Damage => return Err(ReadRefusal::Damage),
            }
        }
    }

    /// Has the block fetched that the slot of a key names, for who is about to wait for the lock. A matter of
    /// speed only: nothing that is seen here is believed.
    #[inline]
    pub(super) fn foresee(&self, key: &[u8]) {
        let Some(table) = self.table(self.root()) else { return };
        if key.len() > FORESEEN_KEY_BYTES {
            return;
        }
        let hash = hash(key, self.geometry.seed());
        for index in 0..FORESEEN {
            let word = self.memory.load_u64(table.slot(hash, index), Ordering::Relaxed);
            if slot::may_be(word, hash) {
                return self.memory.prefetch(slot::block(word));
            }
        }
    }

    /// The memory that it reads.
    pub(super) fn memory(&self) -> &M {
        &self.memory
    }

    /// A pin that is free; the one for what is copied, where no other is.
    #[inline]
    pub(super) fn free_pin(&self) -> u32 {
        self.used.get().trailing_ones().min(reader::COPY_PIN as u32)
    }

    #[inline]
    pub(super) fn root(&self) -> Root {
        Root::load(&self.memory)
    }

    /// Offset of a pin.
    #[inline]
    pub(super) fn pin(&self, index: u32) -> u64 {
        self.record + reader::PINS + u64::from(index) * WORD_BYTES
    }

    /// The table that this look at the root names.
    #[inline]
    pub(super) fn table(&self, root: Root) -> Option<Table> {
        if let Some(table) = self.table.get()
            && table.root == root
        {
            return Some(table);
        }
        let table = Table::at(&self.memory, &self.geometry, root).ok()?;
        self.table.set(Some(table));
        Some(table)
    }

    /// What a slot says.
    #[inline]
    pub(super) fn word(&self, slot: u64) -> u64 {
        // Pairs with the Release of Journal::commit: the block is visible.
        self.memory.load_u64(slot, Ordering::Acquire)
    }

    fn search(&self, root: Root, key: &[u8], hash: u64, pin: u64) -> Search {
        let Some(table) = self.table(root) else { return Search::Damage };
        for index in 0..table.len() {
            let slot = table.slot(hash, index);
            let word = self.word(slot);
            if word == slot::EMPTY {
                // Whether it was the current table's, the caller finds out. The load of the root comes
                // behind this one, which is an Acquire.
                return Search::Absent;
            }
            if !slot::may_be(word, hash) {
                continue;
            }
            match self.pin_block((slot, word), root, pin) {
                InSlot::Block(block) if block.has_key(&self.memory, key, hash) => {
                    return Search::Found(block);
                }
                InSlot::Block(_) => unpin(&self.memory, pin),
                // The key is not here; it may be further on.
                InSlot::Nothing => {}
                InSlot::Changed => return Search::Changed,
                InSlot::Damage => return Search::Damage,
            }
        }
        Search::Damage
    }

    /// Pins the block of the value that a slot names or stands for. It is there as long as it is
    /// pinned, if it was current afterwards.
    #[inline]
    pub(super) fn pin_block(&self, (slot, word): (u64, u64), root: Root, pin: u64) -> InSlot {
        if !pin_current(&self.memory, pin, slot::block(word), (slot, word), root) {
            return InSlot::Changed;
        }
        match self.block_at(slot::block(word)) {
            Ok(block) => InSlot::Block(block),
            Err(Damage) => self.resolve((slot, word), root, pin),
        }
    }

    /// What a slot stands for that names no value: the pending block of a batch, which is pinned. Pins
    /// that in its place, or nothing.
    ///
    /// A pending block that is pinned is not used for anything else, so that its slot, once it says
    /// something else, never names it again. Where the slot still names it at the end, it has done so all
    /// the time: its batch was not over when its state was read, and what that chose was the slot's value
    /// then. Without a pin of its own, the pending block could have come back to the slot for another
    /// batch while its place is taken by the pin of the value.
    #[cold]
    fn resolve(&self, (slot, word): (u64, u64), root: Root, pin: u64) -> InSlot {
        let Self { memory, geometry, .. } = self;
        let pending = slot::block(word);
        let stands_for = Pending::read(memory, geometry, pending)
            .and_then(|pending| pending.stands_for(memory, geometry));
        let target = match stands_for {
            Some(target) if target > slot::TOMBSTONE => target,
            nothing => {
                let same = memory.load_u64(slot, Ordering::Acquire) == word && self.root() == root;
                unpin(memory, pin);
                return match nothing {
                    _ if !same => InSlot::Changed,
                    Some(_) => InSlot::Nothing,
                    None => InSlot::Damage,
                };
            }
        };
        let second = self.record + reader::PINS + reader::SECOND_PIN * WORD_BYTES;
        // The pin moves up: a writer that looks at the pins in their order, and does not see it at the
        // old place, sees it here by the Release of the store that takes that place.
        memory.store_u64(second, pending, Ordering::Release);
        let same = pin_current(memory, pin, slot::block(target), (slot, word), root);
        unpin(memory, second);
        if !same {
            return InSlot::Changed;
        }
        match self.block_at(slot::block(target)) {
            Ok(block) => InSlot::Block(block),
            Err(Damage) => {
                unpin(memory, pin);
                InSlot::Damage
            }
        }
    }

    /// Looks at a block that is pinned.
    #[inline]
    fn block_at(&self, offset: u64) -> Result<Block, Damage> {
        Block::read_anywhere(&self.memory, &self.geometry, offset)
    }
}

enum Search {
    Found(Block),
    Absent,
    /// The slot or the root has changed meanwhile.
    Changed,
    Damage,
}

/// What a look at a slot has found. Nothing is pinned, but for a block.
pub(super) enum InSlot {
    Block(Block),
    /// No key, before or after a batch.
    Nothing,
    /// The slot or the root has changed meanwhile.
    Changed,
    Damage,
}

pub(super) fn is_to_copy(pin: u32) -> bool {
    u64::from(pin) == reader::COPY_PIN
}

/// Pins `block`, which `slot` named. Returns whether slot and root say the same afterwards; if not,
/// nothing is pinned.
///
/// The pin and the second look are one half of a Dekker pattern; unlinking and the look at all pins,
/// in [`limbo::look_through`](super::limbo::look_through), are the other. Either the writer sees the
/// pin, or this look sees that the slot has changed.
#[inline]
pub(super) fn pin_current(
    memory: &impl Memory,
    pin: u64,
    block: u64,
    (slot, word): (u64, u64),
    root: Root,
) -> bool {
    // Release: the looks at what was pinned here before are over. The fence behind it pairs with those in
    // `limbo::look_through` and in recovery, between unlinking and the look at all pins.
    memory.store_fenced_u64(pin, block);
    let same = memory.load_u64(slot, Ordering::Acquire) == word && root.is_current(memory);
    if !same {
        unpin(memory, pin);
    }
    same
}

/// Gives up a pin.
#[inline]
pub(super) fn unpin(memory: &impl Memory, pin: u64) {
    // Pairs with the Acquire in limbo::collect_pins: the looks at the block are over.
    memory.store_u64(pin, 0, Ordering::Release);
}

impl<M: Memory> Drop for Reader<M> {
    fn drop(&mut self) {
        if self.memory.is_ours() {
            owner::release(&self.memory, self.record);
        }
    }
}
