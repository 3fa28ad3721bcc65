//! The measures of one store, checked once and kept privately by each process that opens it.
//!
//! Whoever creates or opens a store makes one from numbers that it has checked; nothing reads them from the segment again.
//!
//! Invariants: every offset computed here lies inside the store, and the regions do not overlap; a region of the public
//! part lies inside any mapping of the store.

#[cfg(not(loom))]
use crate::identity::participant::Table;
use crate::layout::store::page::{self, PAGE_BYTES};
use crate::layout::store::{LIMBO, change_log, generation, note, participant, private, reader};
use crate::layout::{PAGE_BYTES as SEGMENT_PAGE_BYTES, WORD_BYTES};
use crate::memory::Memory;

/// Fewest and most pages: a table and a few values; a descriptor's index plus one in 32 bits.
const PAGES: std::ops::RangeInclusive<u64> = 16..=(1 << 31);
/// Fewest and most readers.
const READERS_RANGE: std::ops::RangeInclusive<u64> = 1..=(1 << 16);
/// Entries in limbo beyond those that pins can keep there.
const LIMBO_SLACK: u64 = 1024;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreGeometry {
    readers: u64,
    pages: u64,
    notes: u64,
    change_logs: u64,
    descriptors: u64,
    arena: u64,
    private: u64,
    first_reader: u64,
    len_bytes: u64,
    seed: u64,
}

impl StoreGeometry {
    /// A store with an arena of at least `arena_bytes` bytes and `readers` reader records, whose keys
    /// are hashed with `seed`. `None` where no store can be so.
    pub fn new(arena_bytes: u64, readers: u64, seed: u64) -> Option<Self> {
        Self::of_pages(arena_bytes.div_ceil(PAGE_BYTES), readers, seed)
    }

    /// As [`new`](Self::new), with an arena of so many pages.
    pub(super) fn of_pages(pages: u64, readers: u64, seed: u64) -> Option<Self> {
        if !PAGES.contains(&pages) || !READERS_RANGE.contains(&readers) {
            return None;
        }
        // Within those ranges no sum overflows.
        let entries = readers * reader::MAX_PINS + LIMBO_SLACK;
        let notes = LIMBO + (entries * WORD_BYTES).next_multiple_of(64);
        let change_logs = notes + note::NOTES * note::BYTES;
        let descriptors = change_logs + change_log::at(change_log::LOGS);
        let arena = (descriptors + pages * page::BYTES).next_multiple_of(SEGMENT_PAGE_BYTES);
        let private = (arena + pages * PAGE_BYTES).next_multiple_of(private::ALIGN);
        // Each participant has a reader, so that there are never more of them.
        let first_reader = private + private::PARTICIPANTS + readers * participant::BYTES;
        let first_reader = first_reader.next_multiple_of(reader::BYTES);
        let end = first_reader + readers * reader::BYTES;
        let len_bytes = end.next_multiple_of(private::ALIGN);
        Some(Self {
            readers,
            pages,
            notes,
            change_logs,
            descriptors,
            arena,
            private,
            first_reader,
            len_bytes,
            seed,
        })
    }

    /// Length of both parts in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Where the private part starts: the length of the public one.
    pub fn private(&self) -> u64 {
        self.private
    }

    /// Length of the private part in bytes.
    pub fn private_bytes(&self) -> u64 {
        self.len_bytes - self.private
    }

    /// Whether this memory has the private part. That of a process which reads a store without a name by copying has
    /// not, and no other offset of that part may be used there.
    pub(super) fn has_private(&self, memory: &impl Memory) -> bool {
        memory.len_bytes() > self.private
    }

    /// Where the participants' records lie.
    #[cfg(not(loom))]
    pub(super) fn participants(&self) -> Table {
        Table {
            first: self.private + private::PARTICIPANTS,
            count: self.readers,
            next_number: self.private + private::NEXT_PARTICIPANT,
        }
    }

    /// Offset of the lock.
    pub(super) fn lock(&self) -> u64 {
        self.private + private::LOCK
    }

    /// Offset of the bell with this number, where trusted processes sleep.
    pub(super) fn bell(&self, number: u32) -> u64 {
        self.private + private::bell::numbered(number.into())
    }

    /// Offset of a word of the entry of a watched prefix.
    pub(super) fn prefix(&self, number: u32, word: u64) -> u64 {
        self.private + private::prefix::at(number.into()) + word
    }

    /// Offset of the set of watched prefixes.
    pub(super) fn used_prefixes(&self) -> u64 {
        self.private + private::prefix::USED
    }

    /// Offset of a word of the header of a change log.
    pub(super) fn change_log(&self, number: u32, word: u64) -> u64 {
        self.change_logs + change_log::at(number.into()) + word
    }

    /// Offset of a place for an entry of a change log.
    pub(super) fn change_log_entry(&self, number: u32, place: u64) -> u64 {
        self.change_log(number, change_log::HEADER_BYTES + place * WORD_BYTES)
    }

    /// Offset of the generation of a bell, for a process that has this memory: whoever maps the public part only has
    /// a copy there.
    pub(super) fn generation(&self, memory: &impl Memory, number: u32) -> u64 {
        if self.has_private(memory) {
            self.bell(number) + private::bell::GENERATION
        } else {
            generation::of_bell(number.into())
        }
    }

    /// Number of pages.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// The reserve: pages at the arena's end for compaction, and for changes that need no more room than they free.
    pub(super) fn spare_pages(&self) -> std::ops::Range<u64> {
        // Spans of short and middling objects have up to eight pages.
        self.pages - (self.pages / 64).max((self.pages / 4).min(8))..self.pages
    }

    /// How many free pages new values leave alone, wherever they lie.
    pub(super) fn reserved_pages(&self) -> u64 {
        let spare = self.spare_pages();
        spare.end - spare.start
    }

    /// Bytes of the arena.
    pub fn arena_bytes(&self) -> u64 {
        self.pages * PAGE_BYTES
    }

    /// Number of reader records.
    pub fn readers(&self) -> u64 {
        self.readers
    }

    /// What keys are hashed with.
    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// Offset of a reader's record.
    pub fn reader(&self, index: u64) -> u64 {
        debug_assert!(index < self.readers);
        self.first_reader + index * reader::BYTES
    }

    /// How many entries limbo has.
    pub(super) fn limbo_entries(&self) -> u64 {
        self.readers * reader::MAX_PINS + LIMBO_SLACK
    }

    /// Offset of an entry of limbo.
    pub(super) fn limbo_entry(&self, index: u64) -> u64 {
        LIMBO + index * WORD_BYTES
    }

    /// Offset of a place for a note of a deletion.
    pub(super) fn note(&self, place: u64) -> u64 {
        debug_assert!(place < note::NOTES);
        self.notes + place * note::BYTES
    }

    /// Offset of a word of a page's descriptor.
    pub(super) fn descriptor(&self, page: u64, word: u64) -> u64 {
        self.descriptors + page * page::BYTES + word
    }

    /// Offset of a page.
    pub(super) fn page(&self, page: u64) -> u64 {
        self.arena + page * PAGE_BYTES
    }

    /// The page that a byte of the arena lies in; `None` for an offset outside of it.
    pub(super) fn page_of(&self, offset: u64) -> Option<u64> {
        let page = offset.checked_sub(self.arena)? / PAGE_BYTES;
        (page < self.pages).then_some(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_follow_each_other() {
        for (arena_bytes, readers) in [(1 << 16, 1), (1 << 20, 8), (64 << 20, 256)] {
            let geometry = StoreGeometry::new(arena_bytes, readers, 0).unwrap();
            let last = geometry.limbo_entries() - 1;
            assert!(geometry.limbo_entry(last) + 8 <= geometry.note(0));
            assert!(geometry.note(note::NOTES - 1) + note::BYTES <= geometry.change_log(0, 0));
            for number in 0..change_log::LOGS as u32 {
                let last =
                    geometry.change_log_entry(number, change_log::entries(number.into()) - 1);
                assert!(last + WORD_BYTES <= geometry.change_log(number + 1, 0));
            }
            assert!(geometry.change_log(change_log::LOGS as u32, 0) <= geometry.descriptor(0, 0));
            let last = geometry.pages() - 1;
            assert!(geometry.descriptor(last, page::BYTES) <= geometry.page(0));
            let private = geometry.private();
            assert!(
                (private..private + private::ALIGN).contains(&(geometry.page(last) + PAGE_BYTES))
            );
            assert!(private.is_multiple_of(private::ALIGN));
            let participants = private + private::PARTICIPANTS + readers * participant::BYTES;
            assert!(participants <= geometry.reader(0));
            assert!(geometry.reader(readers - 1) + reader::BYTES <= geometry.len_bytes());
            assert!(geometry.len_bytes().is_multiple_of(private::ALIGN));
            assert_eq!(geometry.page_of(geometry.page(last) + PAGE_BYTES - 1), Some(last));
            assert_eq!(geometry.page_of(geometry.page(0) - 1), None);
            assert_eq!(geometry.page_of(geometry.len_bytes()), None);
            assert!(geometry.arena_bytes() >= arena_bytes);
        }
    }

    #[test]
    fn nonsense_makes_no_store() {
        for (arena_bytes, readers) in
            [(0, 1), (1 << 15, 1), (u64::MAX, 1), (1 << 20, 0), (1 << 20, u64::MAX)]
        {
            assert_eq!(StoreGeometry::new(arena_bytes, readers, 0), None);
        }
    }
}
