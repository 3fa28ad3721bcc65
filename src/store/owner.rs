//! Whose a reader's record is, and how the records of the dead are taken back.
//!
//! Readers claim and release them; holders of the lock take back those whose owners are proven dead.
//! What always holds: a record's pins count as long as the record has an owner; an owner that lives
//! keeps its record, whatever others believe, because they act on proof only.

use super::StoreGeometry;
use super::prefixes;
use crate::layout::WORD_BYTES;
use crate::layout::store::participant::INDEX_BITS;
use crate::layout::store::reader::{MAX_PINS, OWNER, PINS};
use crate::memory::{Memory, Ordering};

/// A participant: the index of its record, and a number that no other participant ever has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner(pub(crate) u64);

impl Owner {
    /// The participant with this index and this number.
    ///
    /// # Panics
    /// Where the number is 0, which no participant has, or the index is none of a record.
    pub const fn new(index: u32, number: u64) -> Self {
        assert!(number != 0 && index >> INDEX_BITS == 0, "no participant has this index or number");
        Self(index as u64 | number << INDEX_BITS)
    }

    /// Index of the participant's record.
    pub const fn index(self) -> u32 {
        self.0 as u32 & ((1 << INDEX_BITS) - 1)
    }
}

/// Claims a record; returns its offset, or `None` where none is free.
pub(super) fn claim(memory: &impl Memory, geometry: &StoreGeometry, owner: Owner) -> Option<u64> {
    records(geometry).find(|record| {
        // Acquire pairs with the Release in `release`: the former owner's unpinning lies before.
        memory.compare_exchange_u64(record + OWNER, 0, owner.0, Ordering::AcqRel).is_ok()
    })
}

/// Gives a record back, with all its pins.
pub(super) fn release(memory: &impl Memory, record: u64) {
    // A pin is left behind by a guard that was forgotten.
    for pin in 0..MAX_PINS {
        // Release: the looks at what was pinned are over.
        memory.store_u64(record + PINS + pin * WORD_BYTES, 0, Ordering::Release);
    }
    // Pairs with the Acquire in `claim`.
    memory.store_u64(record + OWNER, 0, Ordering::Release);
}

/// Takes back the records and watched prefixes of all owners that `has_died` proves dead; returns how many records. For a holder of
/// the lock: two at once could take the same record back, and the second from its next owner.
pub(super) fn reclaim(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    mut has_died: impl FnMut(Owner) -> bool,
) -> u64 {
    let mut reclaimed = 0;
    // One process has many records, mostly next to each other.
    let mut last = None;
    for record in records(geometry) {
        let owner = Owner(memory.load_u64(record + OWNER, Ordering::Acquire));
        if owner.0 == 0 {
            continue;
        }
        let dead = match last {
            Some((same, dead)) if same == owner => dead,
            _ => has_died(owner),
        };
        last = Some((owner, dead));
        // Its owner may have given it back before it died, and the next one claimed it. If it is still
        // the dead one's, nobody but the holder of the lock changes it any more.
        if dead && memory.load_u64(record + OWNER, Ordering::Acquire) == owner.0 {
            release(memory, record);
            reclaimed += 1;
        }
    }
    prefixes::reclaim(memory, geometry, has_died);
    reclaimed
}

/// Offsets of all records.
pub(super) fn records(geometry: &StoreGeometry) -> impl Iterator<Item = u64> + use<> {
    let geometry = *geometry;
    (0..geometry.readers()).map(move |index| geometry.reader(index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::HeapMemory;
    use crate::store::{Core, Reader};

    #[test]
    fn f05_the_dead_lose_their_records_and_pins_and_the_living_keep_them() {
        let geometry = StoreGeometry::new(1 << 20, 2, 0x5eed).unwrap();
        let memory = HeapMemory::new(geometry.len_bytes());
        let mut core = Core::new(memory.clone(), geometry);
        core.format().unwrap();
        core.set(b"k", &[1; 5000]).unwrap();
        let claim = |pid| Reader::claim(memory.clone(), geometry, Owner::new(pid, 77));
        let (killed, lives) = (claim(4711).unwrap(), claim(4712).unwrap());
        assert!(claim(4713).is_none(), "none is free");
        // Dead without a word: neither the guard nor the reader is dropped.
        std::mem::forget(killed.get(b"k").unwrap());
        std::mem::forget(killed);
        let kept = lives.get(b"k").unwrap().unwrap();
        core.set(b"k", b"new").unwrap();
        let limbo = || memory.load_u64(crate::layout::store::LIMBO_LEN, Ordering::Relaxed);
        let mut asked = Vec::new();
        let reclaimed = reclaim(&memory, &geometry, |owner| {
            asked.push(owner);
            owner == Owner::new(4711, 77)
        });
        assert_eq!((reclaimed, asked.len()), (1, 2));
        core.give_back().unwrap();
        assert_eq!((limbo(), kept.to_vec()), (1, vec![1; 5000]), "the other one has it pinned");
        drop(kept);
        drop(lives);
        core.give_back().unwrap();
        assert_eq!((limbo(), core.check()), (0, Ok(())));
        assert!(claim(4713).is_some());
    }

    #[test]
    fn f12_who_gave_a_record_back_before_he_died_takes_it_from_nobody() {
        let geometry = StoreGeometry::new(1 << 20, 1, 0x5eed).unwrap();
        let memory = HeapMemory::new(geometry.len_bytes());
        let record = claim(&memory, &geometry, Owner::new(9, 1)).unwrap();
        // The same number, while the proof is being looked for.
        let reclaimed = reclaim(&memory, &geometry, |dead| {
            release(&memory, record);
            claim(&memory, &geometry, Owner::new(9, 2)).unwrap();
            dead == Owner::new(9, 1)
        });
        assert_eq!(reclaimed, 0);
        assert_eq!(memory.load_u64(record + OWNER, Ordering::Relaxed), Owner::new(9, 2).0);
    }
}
