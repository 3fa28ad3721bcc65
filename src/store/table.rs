//! The table: from a key's hash to the slot that names its block.
//!
//! Open addressing with linear probing. Readers search it without a lock while the writer changes it.
//! What always holds: a key that is present has one slot, which does not change while it is present; a search that
//! ends at an empty slot of the current table has passed every slot that its key could be in.

use super::StoreGeometry;
use super::arena;
use super::block::Block;
use super::classes;
use super::root::Root;
use super::spans::Damage;
use crate::layout::WORD_BYTES;
use crate::layout::store::table::{HEADER_BYTES, LOG2_SLOTS, MAX_LOG2_SLOTS, MIN_LOG2_SLOTS};
use crate::layout::store::{LEAST_LOG2_SLOTS, slot};
use crate::memory::{Memory, Ordering};

/// So many bytes of a table are emptied with one copy.
const EMPTIED_AT_ONCE_BYTES: usize = 2048;

/// A table that the root has named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Table {
    /// The look at the root that named it.
    pub(super) root: Root,
    slots: u64,
    mask: u64,
}

/// Where a search for a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The key is here.
    Present { slot: u64, word: u64, block: Block },
    /// It is not there, and would go here. `word` is empty or a tombstone.
    Absent { slot: u64, word: u64 },
}

impl Table {
    /// Bytes of a table with `1 << log2_slots` slots.
    pub(super) fn bytes(log2_slots: u64) -> u64 {
        HEADER_BYTES + (WORD_BYTES << log2_slots)
    }

    /// The fewest slots of which `keys` keys take a half or less; as a binary logarithm.
    pub(super) fn log2_for(keys: u64) -> u64 {
        let slots = keys.saturating_mul(2).max(1);
        u64::from(slots.checked_next_power_of_two().unwrap_or(1 << 63).ilog2())
            .clamp(MIN_LOG2_SLOTS, MAX_LOG2_SLOTS)
    }

    /// The fewest slots that so many keys fit into before another table is begun; as a binary logarithm.
    pub(super) fn log2_expecting(keys: u64) -> u64 {
        let slots = keys.saturating_add(keys.div_ceil(3)).max(1);
        u64::from(slots.checked_next_power_of_two().unwrap_or(1 << 63).ilog2())
            .clamp(MIN_LOG2_SLOTS, MAX_LOG2_SLOTS)
    }

    /// The fewest slots of a store's table when keys go; as a binary logarithm.
    pub(super) fn least_log2(memory: &impl Memory) -> u64 {
        let least = memory.load_u64(LEAST_LOG2_SLOTS, Ordering::Relaxed);
        least.clamp(MIN_LOG2_SLOTS, MAX_LOG2_SLOTS)
    }

    /// How many slots may be taken while no other table is in the making.
    pub(super) fn full(&self) -> u64 {
        self.len() / 16 * 15
    }

    /// And while one is.
    pub(super) fn brim(&self) -> u64 {
        self.len() / 64 * 63
    }

    /// Writes an empty table at `offset`, an object that is long enough.
    pub(super) fn write_empty(memory: &impl Memory, offset: u64, log2_slots: u64) {
        Self::begin(memory, offset, log2_slots);
        Self::empty_slots(memory, offset, 0..1 << log2_slots);
    }

    /// Writes the header of a table whose slots hold anything.
    pub(super) fn begin(memory: &impl Memory, offset: u64, log2_slots: u64) {
        memory.store_u64(offset + LOG2_SLOTS, log2_slots, Ordering::Relaxed);
    }

    /// Empties slots of a table that no reader looks at.
    pub(super) fn empty_slots(memory: &impl Memory, offset: u64, slots: std::ops::Range<u64>) {
        let zeros = [0; EMPTIED_AT_ONCE_BYTES];
        const { assert!(slot::EMPTY == 0) };
        let mut from = slots.start;
        while from < slots.end {
            let len = ((slots.end - from) * WORD_BYTES).min(zeros.len() as u64);
            memory.copy_in(offset + HEADER_BYTES + from * WORD_BYTES, &zeros[..len as usize]);
            from += len / WORD_BYTES;
        }
    }

    /// Copies all slots into a table of the same length.
    pub(super) fn copy_slots_to(&self, memory: &impl Memory, offset: u64) {
        let mut part = [0; EMPTIED_AT_ONCE_BYTES];
        let len_bytes = self.len() * WORD_BYTES;
        for at in (0..len_bytes).step_by(part.len()) {
            let part = &mut part[..(len_bytes - at).min(EMPTIED_AT_ONCE_BYTES as u64) as usize];
            memory.copy_out(self.slots + at, part);
            memory.copy_in(offset + HEADER_BYTES + at, part);
        }
    }

    /// The table that this look at the root has named.
    ///
    /// It is adopted only where an object of its length starts, in a span of the class for that length. A reader's
    /// look may be out of date, and what lies there now no table: it finds out by looking at the root once more.
    /// What it gets here lies inside the arena in any case.
    pub(super) fn at(
        memory: &impl Memory,
        geometry: &StoreGeometry,
        root: Root,
    ) -> Result<Self, Damage> {
        let offset = root.table;
        let (class, room_bytes) = arena::object_at(memory, geometry, offset)?;
        // Pairs with the Release that gives an old table back, and the fence before it: who sees what
        // came after the table sees, at the second look, that the root has changed.
        let log2_slots = memory.load_u64(offset + LOG2_SLOTS, Ordering::Acquire);
        if !(MIN_LOG2_SLOTS..=MAX_LOG2_SLOTS).contains(&log2_slots)
            || Self::bytes(log2_slots) > room_bytes
            || classes::of_len(Self::bytes(log2_slots)) != class
        {
            return Err(Damage);
        }
        Ok(Self { root, slots: offset + HEADER_BYTES, mask: (1 << log2_slots) - 1 })
    }

    /// The current table.
    pub(super) fn current(memory: &impl Memory, geometry: &StoreGeometry) -> Result<Self, Damage> {
        Self::at(memory, geometry, Root::load(memory))
    }

    /// Number of slots.
    pub(super) fn len(&self) -> u64 {
        self.mask + 1
    }

    /// Binary logarithm of the number of slots.
    pub(super) fn log2_slots(&self) -> u64 {
        self.len().ilog2().into()
    }

    /// Offset of the table's object.
    pub(super) fn offset(&self) -> u64 {
        self.slots - HEADER_BYTES
    }

    /// The number of the slot where a search for `hash` begins: its high bits, so that the order of
    /// these is that of the hashes, in a table of any length.
    #[inline]
    pub(super) fn home(&self, hash: u64) -> u64 {
        hash >> self.mask.leading_zeros()
    }

    /// The first hash whose search begins behind `home`; `None` behind the last.
    pub(super) fn first_hash_behind(&self, home: u64) -> Option<u64> {
        (home < self.mask).then(|| (home + 1) << self.mask.leading_zeros())
    }

    /// Offset of the `index`th slot from where a search for `hash` begins.
    #[inline]
    pub(super) fn slot(&self, hash: u64, index: u64) -> u64 {
        self.numbered(self.home(hash).wrapping_add(index))
    }

    /// Offset of the slot with this number; behind the last one comes the first.
    #[inline]
    pub(super) fn numbered(&self, number: u64) -> u64 {
        self.slots + (number & self.mask) * WORD_BYTES
    }

    /// Whether a slot lies at `offset`.
    pub(super) fn has_slot(&self, offset: u64) -> bool {
        self.number_of(offset).is_some()
    }

    /// The number of the slot at `offset`.
    pub(super) fn number_of(&self, offset: u64) -> Option<u64> {
        let inside = offset.wrapping_sub(self.slots);
        let number = inside / WORD_BYTES;
        (inside.is_multiple_of(WORD_BYTES) && number < self.len()).then_some(number)
    }

    /// Searches for a key, under the lock.
    pub(super) fn find(
        &self,
        memory: &impl Memory,
        geometry: &StoreGeometry,
        key: &[u8],
        hash: u64,
    ) -> Result<Place, Damage> {
        self.find_beside(memory, geometry, key, hash, |_| false)
    }

    /// Searches for a key, under the lock, as if other keys were in the slots that are `taken`.
    pub(super) fn find_beside(
        &self,
        memory: &impl Memory,
        geometry: &StoreGeometry,
        key: &[u8],
        hash: u64,
        taken: impl Fn(u64) -> bool,
    ) -> Result<Place, Damage> {
        let mut reusable = None;
        for index in 0..self.len() {
            let slot = self.slot(hash, index);
            if taken(slot) {
                continue;
            }
            let word = memory.load_u64(slot, Ordering::Relaxed);
            if word == slot::EMPTY {
                let (slot, word) = reusable.unwrap_or((slot, word));
                return Ok(Place::Absent { slot, word });
            }
            if word == slot::TOMBSTONE {
                reusable.get_or_insert((slot, word));
            } else if slot::may_be(word, hash) {
                // That it lies in an object, those ask for whom it matters; it is read inside of the arena.
                let block = Block::read_anywhere(memory, geometry, slot::block(word))?;
                if block.has_key(memory, key, hash) {
                    return Ok(Place::Present { slot, word, block });
                }
            }
        }
        // A table is never full: some slot is empty.
        Err(Damage)
    }

    /// The slot that holds this word, which names a block of a key with this hash.
    pub(super) fn slot_that_holds(
        &self,
        memory: &impl Memory,
        hash: u64,
        word: u64,
    ) -> Option<u64> {
        (0..self.len())
            .map(|index| self.slot(hash, index))
            .map(|slot| (slot, memory.load_u64(slot, Ordering::Relaxed)))
            .take_while(|(_, found)| *found != slot::EMPTY)
            .find_map(|(slot, found)| (found == word).then_some(slot))
    }

    /// Puts a block into a table that nobody else has, where its key is not.
    pub(super) fn insert_fresh(
        &self,
        memory: &impl Memory,
        hash: u64,
        word: u64,
    ) -> Result<(), Damage> {
        for index in 0..self.len() {
            let slot = self.slot(hash, index);
            if memory.load_u64(slot, Ordering::Relaxed) == slot::EMPTY {
                memory.store_u64(slot, word, Ordering::Relaxed);
                return Ok(());
            }
        }
        Err(Damage)
    }

    /// The words of all slots that name a block, with their offsets.
    pub(super) fn words<'a>(
        &self,
        memory: &'a impl Memory,
    ) -> impl Iterator<Item = (u64, u64)> + 'a {
        self.words_and_tombstones(memory).filter(|(_, word)| *word != slot::TOMBSTONE)
    }

    /// The words of all slots that are not empty, with their offsets.
    pub(super) fn words_and_tombstones<'a>(
        &self,
        memory: &'a impl Memory,
    ) -> impl Iterator<Item = (u64, u64)> + 'a {
        let Self { slots, .. } = *self;
        (0..self.len()).filter_map(move |index| {
            let slot = slots + index * WORD_BYTES;
            let word = memory.load_u64(slot, Ordering::Relaxed);
            (word != slot::EMPTY).then_some((slot, word))
        })
    }
}

/// The block that a slot's word names, under the lock.
pub(super) fn block_at(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    word: u64,
) -> Result<Block, Damage> {
    let offset = slot::block(word);
    let room_bytes = arena::room_bytes(memory, geometry, offset)?;
    Block::read(memory, offset, room_bytes)
}
