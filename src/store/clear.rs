//! Removing all keys at once.
//!
//! Handles call it under the lock. What always holds: one store of the root makes all keys absent, for
//! readers and for whoever recovers; what they had is free afterwards, but for what readers look at.

use super::arena;
use super::core::{Core, Refusal, next_version};
use super::doorbells::note_many_deletions;
use super::journal::{Journal, Operation};
use super::root;
use super::spans::Room;
use super::table::{Table, block_at};
use crate::layout::store::LIVE_KEYS;
use crate::memory::{Memory, Ordering};

impl<M: Memory> Core<M> {
    /// Removes all keys; returns how many there were.
    ///
    /// # Errors
    /// [`Refusal::OutOfSpace`] where an empty table has no room beside all that is there: nothing has
    /// changed. [`Refusal::Damage`]: [`recover`](Self::recover).
    pub fn clear(&mut self) -> Result<u64, Refusal> {
        let log2_slots = Table::log2_for(0);
        // All else is free afterwards.
        let has_room = self.make_room(Table::bytes(log2_slots))?;
        let room = if has_room { Room::Free } else { Room::Reserved };
        let Self { memory, geometry, rung, .. } = self;
        let keys = memory.load_u64(LIVE_KEYS, Ordering::Relaxed);
        let mut journal = Journal::begin(memory, Operation::Bulk, 0, 0);
        let Some(object) = arena::take(&mut journal, geometry, Table::bytes(log2_slots), room)?
        else {
            journal.end();
            return Err(Refusal::OutOfSpace);
        };
        Table::write_empty(memory, object, log2_slots);
        next_version(memory);
        rung.all_about_to_change(memory);
        note_many_deletions(memory);
        root::switch_to(memory, object);
        rung.ring_all(memory);
        // The journal still says that everything must be computed anew; this does, and then ends it.
        self.rebuild()?;
        let least = Table::least_log2(&self.memory);
        if least > log2_slots && self.begin_table(least)? {
            self.finish_table()?;
        }
        Ok(keys)
    }

    /// Some key; `None` where there is none.
    pub(super) fn any_key(&self) -> Result<Option<Vec<u8>>, Refusal> {
        let Self { memory, geometry, .. } = self;
        let table = Table::current(memory, geometry)?;
        let Some((_, word)) = table.words(memory).next() else { return Ok(None) };
        let block = block_at(memory, geometry, word)?;
        let mut key = vec![0; block.key_len as usize];
        memory.copy_out(block.key(), &mut key);
        Ok(Some(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::CrashMemory;
    use crate::store::{Owner, Reader, StoreGeometry};

    #[test]
    fn f04_a_writer_killed_anywhere_in_a_clear_leaves_all_or_nothing() {
        let geometry = StoreGeometry::new(64 << 10, 2, 0x5eed).unwrap();
        let memory = CrashMemory::new(geometry.len_bytes());
        let mut core = Core::new(memory.clone(), geometry);
        core.format().unwrap();
        for number in 0..100_u32 {
            core.set(&number.to_le_bytes(), &[7; 100]).unwrap();
        }
        memory.record();
        assert_eq!(core.clear(), Ok(100));
        let (mut all, mut none) = (0, 0);
        for (number, image) in memory.crash().sample(600).enumerate() {
            let heap = image.to_heap();
            let mut survivor = Core::new(heap.clone(), geometry);
            survivor.recover().unwrap();
            assert_eq!(survivor.check(), Ok(()), "image {number}");
            let reader = Reader::claim(heap, geometry, Owner::new(1, 1)).unwrap();
            let found = (0..100_u32)
                .filter(|number| reader.get(&number.to_le_bytes()).unwrap().is_some())
                .count();
            match found {
                100 => all += 1,
                0 => none += 1,
                _ => panic!("image {number}: {found} keys are left"),
            }
        }
        assert!(all > 10 && none > 10, "{all}, {none}");
    }
}
