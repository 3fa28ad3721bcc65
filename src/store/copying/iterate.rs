//! All keys with their values, copied one after the other.
//!
//! [`CopyingReader::iter`] and [`CopyingReader::prefix`] make it.
//! What always holds: a key that is there from the beginning to the end comes exactly once, also where its value
//! changes and where the table is replaced meanwhile; each value was whole and current when it was copied.
//!
//! # How it goes on in another table
//!
//! A slot that is still empty has never been passed by the search for any key. So when the iterator comes from
//! one empty slot to another, it has seen all keys whose searches begin between the two, and no others. Which
//! keys these are is told by their hashes, in any table.

use std::collections::HashSet;

use rkyv::util::AlignedVec;

use super::budget::Budget;
use super::{Copied, CopyRefusal, CopyingReader, Link, Look};
use crate::layout::store::slot;
use crate::memory::{Memory, Ordering};
use crate::store::root::Root;
use crate::store::table::Table;

/// In so many tables an iterator may have made progress.
const MAX_TABLES: usize = 1024;
/// So many keys may stand between two empty slots, and so many more in all where tables were replaced.
const MAX_CLUSTER: usize = 1 << 16;
const MAX_STRAY: usize = 1 << 16;

/// Iterates over a store that may change meanwhile. Ends after the first error.
#[derive(Debug)]
pub struct CopyingIter<'a, M> {
    reader: &'a CopyingReader<M>,
    prefix: Vec<u8>,
    budget: Budget,
    walk: Option<Walk>,
    /// Keys that came from tables that have been replaced.
    done: Vec<Done>,
    /// Hashes of keys that came behind the last empty slot.
    cluster: HashSet<u64>,
    /// Hashes of keys that had done so when their table was replaced.
    stray: HashSet<u64>,
    over: bool,
    /// Whether values are copied.
    values: bool,
}

/// Where in a table the iterator is.
#[derive(Debug)]
struct Walk {
    table: Table,
    done: Done,
    /// Slots looked at.
    at: u64,
}

/// Keys that have come: those whose searches begin in a range of a table's slots.
#[derive(Debug, Clone, Copy)]
struct Done {
    /// Index of the first slot.
    start: u64,
    /// How many, the last of which is empty.
    slots: u64,
    mask: u64,
}

impl Done {
    fn has(&self, hash: u64) -> bool {
        // As `Table::home` in that table.
        (hash >> self.mask.leading_zeros()).wrapping_sub(self.start) & self.mask < self.slots
    }
}

/// What became of a slot.
enum Step {
    Entry(Vec<u8>, Copied),
    /// Nothing to return: on to the next one.
    Next,
    /// Something has changed meanwhile: the same one again.
    Again,
}

impl<M: Memory> CopyingReader<M> {
    /// All keys with their values, in no particular order. Entries that are set or deleted meanwhile may
    /// come or not; every other one comes exactly once.
    pub fn iter(&self) -> CopyingIter<'_, M> {
        self.prefix(b"")
    }

    /// As [`iter`](Self::iter), keys that begin with `prefix` only. Looks at all keys.
    pub fn prefix(&self, prefix: &[u8]) -> CopyingIter<'_, M> {
        CopyingIter {
            reader: self,
            prefix: prefix.to_vec(),
            budget: Budget::of_keys(&self.geometry, 1),
            walk: None,
            done: Vec::new(),
            cluster: HashSet::new(),
            stray: HashSet::new(),
            over: false,
            values: true,
        }
    }

    /// As [`prefix`](Self::prefix), keys and versions only.
    #[cfg(not(loom))]
    pub(in crate::store) fn versions(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Vec<u8>, u64), CopyRefusal>> {
        let entries = CopyingIter { values: false, ..self.prefix(prefix) };
        entries.map(|entry| entry.map(|(key, copied)| (key, copied.version())))
    }
}

impl<M: Memory> Iterator for CopyingIter<'_, M> {
    type Item = Result<(Vec<u8>, Copied), CopyRefusal>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.advance().transpose();
        self.over = !matches!(next, Some(Ok(_)));
        self.budget.next_key(&self.reader.geometry);
        next
    }
}

impl<M: Memory> CopyingIter<'_, M> {
    fn advance(&mut self) -> Result<Option<(Vec<u8>, Copied)>, CopyRefusal> {
        let memory = &self.reader.memory;
        loop {
            let root = self.reader.root();
            let Some(walk) = self.walk.as_ref().filter(|walk| walk.table.root == root) else {
                self.enter(root)?;
                continue;
            };
            if walk.at == walk.table.len() {
                return Ok(None);
            }
            self.budget.step()?;
            let slot = walk.table.numbered(walk.done.start + walk.at);
            // Pairs with the Release of Journal::commit: the block is visible.
            let word = memory.load_u64(slot, Ordering::Acquire);
            let step = match word {
                slot::EMPTY => self.pass_empty(root),
                slot::TOMBSTONE => Step::Next,
                _ => self.take(Link { root, slot, word })?,
            };
            match step {
                Step::Again => self.budget.again(memory)?,
                Step::Next => self.step(),
                Step::Entry(key, copied) => {
                    self.step();
                    return Ok(Some((key, copied)));
                }
            }
        }
    }

    fn step(&mut self) {
        self.budget.next_slot();
        if let Some(walk) = &mut self.walk {
            walk.at += 1;
        }
    }

    /// Begins with a table, behind an empty slot of it.
    #[cold]
    fn enter(&mut self, root: Root) -> Result<(), CopyRefusal> {
        self.budget.again(&self.reader.memory)?;
        if let Some(Walk { done, .. }) = self.walk.take()
            && done.slots > 0
        {
            self.done.push(done);
        }
        let refuse = |refusal| if self.reader.root() == root { Err(refusal) } else { Ok(()) };
        self.stray.extend(self.cluster.drain());
        if self.done.len() > MAX_TABLES || self.stray.len() > MAX_STRAY {
            return Err(CopyRefusal::Busy);
        }
        let Some(table) = self.reader.table_of(root) else { return refuse(CopyRefusal::Damage) };
        for index in 0..table.len() {
            self.budget.step()?;
            let word = self.reader.memory.load_u64(table.numbered(index), Ordering::Acquire);
            if word == slot::EMPTY {
                let mask = table.len() - 1;
                let done = Done { start: (index + 1) & mask, slots: 0, mask };
                self.walk = Some(Walk { table, done, at: 0 });
                return Ok(());
            }
        }
        // A table is never full: some slot is empty.
        refuse(CopyRefusal::Damage)
    }

    /// All keys whose searches begin here or between the last empty slot and here have come, if the slot
    /// was the current table's.
    fn pass_empty(&mut self, root: Root) -> Step {
        if self.reader.root() != root {
            return Step::Again;
        }
        if let Some(walk) = &mut self.walk {
            walk.done.slots = walk.at + 1;
            self.cluster.clear();
        }
        Step::Next
    }

    /// Takes what a slot names, where it has not come yet.
    fn take(&mut self, link: Link) -> Result<Step, CopyRefusal> {
        let seen = match self.reader.look(link, |_| true) {
            Look::Block(seen, _) => seen,
            Look::Nothing => return Ok(Step::Next),
            Look::Changed => return Ok(Step::Again),
            Look::Damage => return Err(CopyRefusal::Damage),
        };
        let hash = seen.block.hash;
        let came = [&self.cluster, &self.stray].into_iter().any(|hashes| hashes.contains(&hash));
        if came || self.done.iter().any(|done| done.has(hash)) {
            return Ok(Step::Next);
        }
        // Keys too: slots may name one block again and again, which is a copy of its key each time.
        self.budget.copy(seen.block.key_len)?;
        let Some(key) = self.reader.copy_key(&seen)? else { return Ok(Step::Again) };
        if !key.starts_with(&self.prefix) {
            return Ok(Step::Next);
        }
        let copied = match self.values {
            true => self.reader.copy_value(&seen, &mut self.budget)?,
            false => Some(Copied::of(&seen.block, AlignedVec::new())),
        };
        let Some(copied) = copied else { return Ok(Step::Again) };
        if self.cluster.len() == MAX_CLUSTER {
            return Err(CopyRefusal::Busy);
        }
        self.cluster.insert(hash);
        Ok(Step::Entry(key, copied))
    }
}
