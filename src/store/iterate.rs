//! Going through all keys, beside writers.
//!
//! Handles return an [`Entries`] for `iter` and `prefix`.
//! What always holds: a key that is there from the first call to the last is returned exactly once, with a value that it
//! had in between, however often the table is replaced meanwhile; a key that comes or goes, once or not at all.
//!
//! # Why exactly once
//!
//! Keys come in the order of the slots where their searches begin, which is that of the high bits of their hashes:
//! all keys of one such slot at once, from one table. What was returned are then the keys with the lowest
//! hashes, in this table and in every other one; whichever is current next, the rest is what is above. A
//! key is in the place where a search for it would find it, so a look at all slots from where the search begins
//! to an empty one, in a table that is current at the end, has passed it. No table is pinned for this: as in
//! [`Reader::get`], what a table says counts only if it is current after the block was pinned.

use std::collections::VecDeque;

use super::block::Block;
use super::cut::{Read, ReadCopy};
use super::pinned::Pinned;
use super::reader::{InSlot, ReadRefusal, Reader};
use super::root::Root;
use crate::layout::store::slot;
use crate::memory::Memory;

/// All keys that start with a prefix, with their values. See the module.
#[derive(Debug)]
#[must_use = "nothing is looked at before this is asked"]
pub struct Entries<'a, M: Memory> {
    reader: &'a Reader<M>,
    prefix: Vec<u8>,
    /// The lowest hash that was not looked at; `None` at the end.
    next: Option<u64>,
    /// What was found where the last search began.
    found: VecDeque<(Vec<u8>, Read<'a, M>)>,
}

impl<M: Memory> Reader<M> {
    /// All keys that start with `prefix`, with their values, each as it is when it is met.
    pub fn entries(&self, prefix: &[u8]) -> Entries<'_, M> {
        let (prefix, found) = (prefix.to_vec(), VecDeque::new());
        Entries { reader: self, prefix, next: Some(0), found }
    }
}

impl<'a, M: Memory> Entries<'a, M> {
    /// As `next`, with a copy of the value.
    pub(super) fn next_copy(&mut self) -> Option<Result<(Vec<u8>, ReadCopy), ReadRefusal>> {
        self.next().map(|entry| {
            let (key, value) = entry?;
            let copied = match value {
                Read::Pinned(pinned) => ReadCopy::of(&pinned),
                Read::Copied(copied) => copied,
            };
            Ok((key, copied))
        })
    }

    /// Goes on until something is found.
    fn advance(&mut self) -> Result<(), ReadRefusal> {
        while let Some(hash) = self.next
            && self.found.is_empty()
        {
            let root = self.reader.root();
            let gone_through = match self.reader.table(root) {
                Some(table) => {
                    self.go_through(root, hash).map(|()| table.first_hash_behind(table.home(hash)))
                }
                None => Err(Stopped::Damage),
            };
            // What was found is the whole of it only if the table was current all the time.
            match gone_through {
                Ok(next) if self.reader.root() == root => self.next = next,
                Err(Stopped::Damage) if self.reader.root() == root => {
                    self.found.clear();
                    return Err(ReadRefusal::Damage);
                }
                _ => {
                    self.found.clear();
                    self.reader.memory().pause();
                }
            }
        }
        Ok(())
    }

    /// Finds all keys whose searches begin where that for `hash` does, and whose hashes are not lower.
    fn go_through(&mut self, root: Root, hash: u64) -> Result<(), Stopped> {
        let reader = self.reader;
        let table = reader.table(root).ok_or(Stopped::Damage)?;
        for index in 0..table.len() {
            let slot = table.slot(hash, index);
            let word = reader.word(slot);
            match word {
                slot::EMPTY => return Ok(()),
                slot::TOMBSTONE => continue,
                _ => {}
            }
            let pin = reader.free_pin();
            match reader.pin_block((slot, word), root, reader.pin(pin)) {
                InSlot::Block(block) => {
                    let pinned = reader.pinned(pin, block);
                    if reader.verify.get() && !pinned.is_whole() {
                        return Err(Stopped::Damage);
                    }
                    if table.home(block.hash) == table.home(hash) && block.hash >= hash {
                        self.keep(&block, pinned);
                    }
                }
                InSlot::Nothing => {}
                InSlot::Changed => return Err(Stopped::Changed),
                InSlot::Damage => return Err(Stopped::Damage),
            }
        }
        Err(Stopped::Damage)
    }

    fn keep(&mut self, block: &Block, pinned: Pinned<'a, M>) {
        let Some(key) = key_of(pinned.memory(), block, &self.prefix) else { return };
        // Deleted behind that look, and set again further on.
        if self.found.iter().any(|(found, _)| *found == key) {
            return;
        }
        let value = if pinned.is_to_be_copied() {
            Read::Copied(ReadCopy::of(&pinned))
        } else {
            Read::Pinned(pinned)
        };
        self.found.push_back((key, value));
    }
}

/// Why a look at slots was not finished.
enum Stopped {
    Changed,
    Damage,
}

impl<'a, M: Memory> Iterator for Entries<'a, M> {
    type Item = Result<(Vec<u8>, Read<'a, M>), ReadRefusal>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(refusal) = self.advance() {
            self.next = None;
            return Some(Err(refusal));
        }
        self.found.pop_front().map(Ok)
    }
}

/// The key of a block, if it starts with `prefix`.
fn key_of(memory: &impl Memory, block: &Block, prefix: &[u8]) -> Option<Vec<u8>> {
    let len = usize::try_from(block.key_len).ok()?;
    if len < prefix.len() {
        return None;
    }
    let mut key = vec![0; len];
    memory.copy_out(block.key(), &mut key);
    key.starts_with(prefix).then_some(key)
}
