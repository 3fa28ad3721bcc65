//! Reading without a pin: for processes that have the store read-only.
//!
//! Handles of read-only stores read with it. It writes nothing, claims nothing, and copies what it returns.
//! What always holds: nothing found in the store is followed before it has been checked against the
//! geometry, which is private; what is returned was, whole, the value of its key at some time during the call;
//! a call ends after a bounded amount of work, whatever the store holds.
//!
//! # How a copy is known to be whole
//!
//! Nothing keeps a writer from giving a block's room to another block while it is being copied. So a reader
//! looks, in this order, at the slot, at the epoch of the page that the block starts in, at the slot again,
//! at the block's version, header and key; and behind an acquire fence once more at slot, root, version and epoch. If
//! all are as they were, slot and block belonged together. Then it copies the value, and looks at version and epoch a
//! third time behind a fence. Why that is enough stands in `SAFETY.md`.

use std::cell::Cell;
use std::ops::Deref;

use rkyv::util::AlignedVec;
use thiserror::Error;

use super::StoreGeometry;
use super::block::{Block, hash};
use super::root::Root;
use super::table::Table;
#[cfg(not(loom))]
use super::value::Value;
use crate::layout::store::{LIVE_KEYS, block, slot};
use crate::memory::{Memory, Ordering};

mod budget;
mod iterate;
mod look;
mod many;
#[cfg(all(test, not(loom)))]
mod many_tests;
#[cfg(all(test, not(loom)))]
mod tests;
mod watch;

use budget::Budget;
pub use iterate::CopyingIter;
use look::{Link, Look, Seen};

/// Reads a store that this process need not be able to write. `Send`, not `Sync`.
#[derive(Debug)]
pub struct CopyingReader<M> {
    memory: M,
    geometry: StoreGeometry,
    /// The table of the root seen last.
    table: Cell<Option<Table>>,
    /// Whether the checksum of each value that is copied is looked at.
    pub(super) verify: Cell<bool>,
}

/// A value, copied out of the store.
#[derive(Debug, Clone)]
pub struct Copied {
    version: u64,
    /// Part of the fingerprint of its type; 0 where it has none.
    tag: u32,
    /// As aligned as it was in the store.
    bytes: AlignedVec,
}

impl Copied {
    fn of(block: &Block, bytes: AlignedVec) -> Self {
        Self { version: block.version, tag: block.tag, bytes }
    }

    /// The value's version: greater than that of every value before it, under any key.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// As a handle returns it.
    #[cfg(not(loom))]
    pub(super) fn into_value<'a>(self) -> Value<'a> {
        Value::copied(self.bytes, self.version, self.tag)
    }
}

/// The bytes of the value.
impl Deref for Copied {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why nothing was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CopyRefusal {
    /// What was to be copied has changed meanwhile, again and again: try later.
    #[error("the store changes faster than a value can be copied; try again")]
    Busy,
    /// What was found is no table or no block, and still there at a second look.
    #[error("the store is damaged: a table or block is not what a writer leaves")]
    Damage,
    /// There is no memory for a copy.
    #[error("there is no memory for a copy of the value, {len_bytes} bytes")]
    NoMemory {
        /// Length of the value.
        len_bytes: u64,
    },
}

/// Where a search ended.
enum Search {
    Found(Seen),
    Absent,
    Changed,
    Damage,
}

impl<M: Memory> CopyingReader<M> {
    /// For a store of these measures, in memory that is as long as they say.
    ///
    /// # Panics
    /// Where the memory is shorter.
    pub fn new(memory: M, geometry: StoreGeometry) -> Self {
        assert!(memory.len_bytes() >= geometry.private(), "the memory is too short");
        Self { memory, geometry, table: Cell::new(None), verify: Cell::new(false) }
    }

    /// The value of a key; `None` where the key is absent.
    ///
    /// # Errors
    /// [`CopyRefusal`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Copied>, CopyRefusal> {
        let mut budget = Budget::of_keys(&self.geometry, 1);
        Ok(self.find_and_copy(key, &mut budget)?.map(|(_, copied)| copied))
    }

    /// Whether a key is there. Copies no value.
    ///
    /// # Errors
    /// [`CopyRefusal`].
    pub fn contains(&self, key: &[u8]) -> Result<bool, CopyRefusal> {
        Ok(self.version(key)?.is_some())
    }

    /// The version of a key's value; `None` where the key is absent. Copies no value.
    ///
    /// # Errors
    /// [`CopyRefusal`].
    pub fn version(&self, key: &[u8]) -> Result<Option<u64>, CopyRefusal> {
        let mut budget = Budget::of_keys(&self.geometry, 1);
        Ok(self.find(key, &mut budget)?.map(|seen| seen.block.version))
    }

    /// How many keys there are, as the store says; never more than it has room for.
    pub fn len(&self) -> u64 {
        let most = self.geometry.arena_bytes() / (block::KEY + 8);
        self.memory.load_u64(LIVE_KEYS, Ordering::Relaxed).min(most)
    }

    /// Whether the store says that there are no keys.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Finds a key and copies its value.
    fn find_and_copy(
        &self,
        key: &[u8],
        budget: &mut Budget,
    ) -> Result<Option<(Seen, Copied)>, CopyRefusal> {
        loop {
            let Some(seen) = self.find(key, budget)? else { return Ok(None) };
            if let Some(copied) = self.copy_value(&seen, budget)? {
                return Ok(Some((seen, copied)));
            }
            budget.again(&self.memory)?;
        }
    }

    /// Finds a key.
    fn find(&self, key: &[u8], budget: &mut Budget) -> Result<Option<Seen>, CopyRefusal> {
        let hash = hash(key, self.geometry.seed());
        loop {
            match self.search(key, hash, budget)? {
                Search::Found(seen) => return Ok(Some(seen)),
                Search::Absent => return Ok(None),
                Search::Damage => return Err(CopyRefusal::Damage),
                Search::Changed => budget.again(&self.memory)?,
            }
        }
    }

    fn search(&self, key: &[u8], hash: u64, budget: &mut Budget) -> Result<Search, CopyRefusal> {
        let same = |block: &Block| block.has_key(&self.memory, key, hash);
        self.search_chain(hash, budget, same, |seen, _| Ok(Some(Search::Found(seen))))
    }

    /// All keys with this hash, and their versions. One that moves meanwhile may be there twice.
    fn keys_with_hash(&self, hash: u64) -> Result<Vec<(Vec<u8>, u64)>, CopyRefusal> {
        let mut budget = Budget::of_keys(&self.geometry, 1);
        let mut keys = Vec::new();
        loop {
            let same = |block: &Block| block.hash == hash;
            let search = self.search_chain(hash, &mut budget, same, |seen, budget| {
                budget.copy(seen.block.key_len)?;
                let Some(key) = self.copy_key(&seen)? else { return Ok(Some(Search::Changed)) };
                keys.push((key, seen.block.version));
                Ok(None)
            });
            match search? {
                Search::Found(_) | Search::Absent => return Ok(keys),
                Search::Damage => return Err(CopyRefusal::Damage),
                Search::Changed => budget.again(&self.memory)?,
            }
            keys.clear();
        }
    }

    /// Asks `found` about each block in the places of this hash that is the `same`, until it knows how the search ends.
    fn search_chain(
        &self,
        hash: u64,
        budget: &mut Budget,
        same: impl Fn(&Block) -> bool,
        mut found: impl FnMut(Seen, &mut Budget) -> Result<Option<Search>, CopyRefusal>,
    ) -> Result<Search, CopyRefusal> {
        let root = self.root();
        // "Absent", and what cannot be, count only if the table is still the current one: the looks at
        // its slots are Acquire, so that this one comes behind them.
        let settled = |search| if self.root() == root { search } else { Search::Changed };
        let Some(table) = self.table_of(root) else { return Ok(settled(Search::Damage)) };
        for index in 0..table.len() {
            budget.step()?;
            let slot = table.slot(hash, index);
            // Pairs with the Release of Journal::commit: the block is visible.
            let word = self.memory.load_u64(slot, Ordering::Acquire);
            if word == slot::EMPTY {
                return Ok(settled(Search::Absent));
            }
            if !slot::may_be(word, hash) {
                continue;
            }
            budget.look()?;
            match self.look(Link { root, slot, word }, &same) {
                Look::Block(seen, true) => {
                    if let Some(search) = found(seen, budget)? {
                        return Ok(search);
                    }
                }
                Look::Block(_, false) | Look::Nothing => {}
                Look::Changed => return Ok(Search::Changed),
                Look::Damage => return Ok(Search::Damage),
            }
        }
        Ok(settled(Search::Damage))
    }

    fn copy_key(&self, seen: &Seen) -> Result<Option<Vec<u8>>, CopyRefusal> {
        let key = self.copy(seen, seen.block.key(), seen.block.key_len)?;
        Ok(key.map(AlignedVec::into_vec))
    }

    fn root(&self) -> Root {
        Root::load(&self.memory)
    }

    /// The table of this look at the root. Its measures are read once, and checked, for as long as it is current.
    fn table_of(&self, root: Root) -> Option<Table> {
        if let Some(table) = self.table.get()
            && table.root == root
        {
            return Some(table);
        }
        let table = Table::at(&self.memory, &self.geometry, root).ok()?;
        self.table.set(Some(table));
        Some(table)
    }

    /// Copies a block's value; `None` where the copy is not whole.
    fn copy_value(&self, seen: &Seen, budget: &mut Budget) -> Result<Option<Copied>, CopyRefusal> {
        let Seen { block, .. } = seen;
        budget.copy(block.value_len)?;
        // It belongs to the block if the copy does.
        let checksum = self.memory.load_u64(block.offset + block::CHECKSUM, Ordering::Relaxed);
        let bytes = self.copy(seen, block.value(), block.value_len)?;
        if self.verify.get() && bytes.as_ref().is_some_and(|bytes| !block.is_value(bytes, checksum))
        {
            return Err(CopyRefusal::Damage);
        }
        Ok(bytes.map(|bytes| Copied::of(block, bytes)))
    }

    /// Copies bytes of a block, which lie inside the store, because `Block::read` has seen to it; `None` where
    /// the copy is not whole.
    fn copy(
        &self,
        seen: &Seen,
        start: u64,
        len_bytes: u64,
    ) -> Result<Option<AlignedVec>, CopyRefusal> {
        let mut copy = buffer(len_bytes).ok_or(CopyRefusal::NoMemory { len_bytes })?;
        self.memory.copy_out(start, &mut copy);
        Ok(self.is_intact(seen).then_some(copy))
    }
}

/// Lengths from here on are asked for before they are taken: how long a value is, the store says.
const ASKED_BYTES: usize = 1 << 20;

/// A buffer of zeros; `None` where there is no memory for it.
fn buffer(len_bytes: u64) -> Option<AlignedVec> {
    let len = usize::try_from(len_bytes).ok()?;
    if len >= ASKED_BYTES {
        Vec::<u8>::new().try_reserve_exact(len).ok()?;
    }
    let mut buffer = AlignedVec::with_capacity(len);
    buffer.resize(len, 0);
    Some(buffer)
}
