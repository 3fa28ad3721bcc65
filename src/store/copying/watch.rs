//! What watches of a read-only store look at.
//!
//! [`Watcher`](crate::store::watch::Watcher) asks it. What always holds: as for everything that is read by copying.

use super::{CopyRefusal, CopyingReader};
use crate::memory::Memory;
use crate::store::change_log::{self, Appended, Log};
use crate::store::doorbells::{self, Note};
use crate::store::interest::Truth;

impl<M: Memory> Truth for CopyingReader<M> {
    type Error = CopyRefusal;

    fn version(&self, key: &[u8]) -> Result<Option<u64>, CopyRefusal> {
        CopyingReader::version(self, key)
    }

    fn scan(&self, prefix: &[u8], found: &mut dyn FnMut(&[u8], u64)) -> Result<(), CopyRefusal> {
        for entry in self.prefix(prefix) {
            let (key, copied) = entry?;
            found(&key, copied.version());
        }
        Ok(())
    }

    fn noted(&self) -> u64 {
        doorbells::noted(&self.memory)
    }

    fn notes(&self, from: u64, to: u64, notes: &mut Vec<Note>) -> bool {
        doorbells::read_notes(&self.memory, &self.geometry, from, to, notes)
    }

    fn with_hash(&self, hash: u64) -> Result<Vec<(Vec<u8>, u64)>, CopyRefusal> {
        self.keys_with_hash(hash)
    }

    fn changes(&self, log: Log, from: u64, hashes: &mut Vec<u64>) -> Appended {
        change_log::read(&self.memory, &self.geometry, log, from, hashes)
    }
}
