//! What watches of a store that is read in place look at.
//!
//! [`Watcher`](super::watch::Watcher) asks it. What always holds: a block is looked at under a pin of its own, which is
//! given back before the next one.

use super::change_log::{self, Appended, Log};
use super::doorbells::{self, Note};
use super::interest::Truth;
use super::reader::{InSlot, ReadRefusal, Reader, unpin};
use crate::layout::store::{reader, slot};
use crate::memory::Memory;

impl<M: Memory> Truth for Reader<M> {
    type Error = ReadRefusal;

    fn version(&self, key: &[u8]) -> Result<Option<u64>, ReadRefusal> {
        Ok(self.get_to_copy(key)?.map(|found| found.version()))
    }

    fn scan(&self, prefix: &[u8], found: &mut dyn FnMut(&[u8], u64)) -> Result<(), ReadRefusal> {
        let pin = self.pin(reader::COPY_PIN as u32);
        let mut key = Vec::new();
        'again: loop {
            let root = self.root();
            let table = self.table(root);
            for index in 0..table.map_or(0, |table| table.len()) {
                let slot = table.expect("it has slots").numbered(index);
                let word = self.word(slot);
                if word <= slot::TOMBSTONE {
                    continue;
                }
                let block = match self.pin_block((slot, word), root, pin) {
                    InSlot::Block(block) => block,
                    InSlot::Nothing => continue,
                    InSlot::Changed => continue 'again,
                    InSlot::Damage => return Err(ReadRefusal::Damage),
                };
                key.resize(block.key_len as usize, 0);
                self.memory.copy_out(block.key(), &mut key);
                unpin(&self.memory, pin);
                if key.starts_with(prefix) {
                    found(&key, block.version);
                }
            }
            match (self.root() == root, table) {
                (true, Some(_)) => return Ok(()),
                (true, None) => return Err(ReadRefusal::Damage),
                (false, _) => {}
            }
        }
    }

    fn noted(&self) -> u64 {
        doorbells::noted(&self.memory)
    }

    fn notes(&self, from: u64, to: u64, notes: &mut Vec<Note>) -> bool {
        doorbells::read_notes(&self.memory, &self.geometry, from, to, notes)
    }

    fn with_hash(&self, hash: u64) -> Result<Vec<(Vec<u8>, u64)>, ReadRefusal> {
        let pin = self.pin(reader::COPY_PIN as u32);
        let mut found = Vec::new();
        'again: loop {
            found.clear();
            let root = self.root();
            let table = self.table(root);
            for index in 0..table.map_or(0, |table| table.len()) {
                let slot = table.expect("it has slots").slot(hash, index);
                let word = self.word(slot);
                if word == slot::EMPTY {
                    break;
                }
                if !slot::may_be(word, hash) {
                    continue;
                }
                let block = match self.pin_block((slot, word), root, pin) {
                    InSlot::Block(block) => block,
                    InSlot::Nothing => continue,
                    InSlot::Changed => continue 'again,
                    InSlot::Damage => return Err(ReadRefusal::Damage),
                };
                let mut key = vec![0; block.key_len as usize];
                self.memory.copy_out(block.key(), &mut key);
                unpin(&self.memory, pin);
                if block.hash == hash {
                    found.push((key, block.version));
                }
            }
            match (self.root() == root, table) {
                (true, Some(_)) => return Ok(found),
                (true, None) => return Err(ReadRefusal::Damage),
                (false, _) => {}
            }
        }
    }

    fn changes(&self, log: Log, from: u64, hashes: &mut Vec<u64>) -> Appended {
        change_log::read(&self.memory, &self.geometry, log, from, hashes)
    }
}
