//! What a writer notes before it changes an index, so that its successor can take it back.
//!
//! Every change that an operation makes beside its one slot goes through a [`Journal`].
//! What always holds: until the operation is over, its changes to the indexes can be taken back by storing the
//! noted words in reverse, all of them where the slot has not been changed, those made since where it has; the
//! operation's end is one store, behind which nothing of it is taken back any more.

use super::StoreGeometry;
use super::table::block_at;
use crate::layout::store::BATCH;
use crate::layout::store::journal::{BEFORE, HEAD, MAX_PAIRS, NEW, OLD, PAIRS, SLOT};
use crate::layout::store::slot;
use crate::memory::{Memory, Ordering};

/// What an operation does, for whoever finds it unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// Changes one slot: taken back, or done again where the slot was changed.
    Slot = 1,
    /// Changes much: what it leaves is computed anew.
    Bulk = 2,
    /// Between the operations that make a batch: the batch says how far it is.
    Batch = 3,
}

/// Marks an offset that belongs to a `u32`. Offsets are multiples of 4.
const NARROW: u64 = 1;

/// An operation in progress. See the module.
#[derive(Debug)]
pub(super) struct Journal<'a, M> {
    memory: &'a M,
    kind: u64,
    pairs: u64,
}

impl<'a, M: Memory> Journal<'a, M> {
    /// Begins an operation on the slot at `slot`, which holds `old`.
    #[inline]
    pub(super) fn begin(memory: &'a M, operation: Operation, slot: u64, old: u64) -> Self {
        // Release, like every store here: a Relaxed one could become visible before the end of the
        // operation before, whose words it takes the place of.
        memory.store_u64(SLOT, slot, Ordering::Release);
        memory.store_u64(OLD, old, Ordering::Release);
        memory.store_u64(NEW, 0, Ordering::Release);
        let kind = (operation as u64) << 32;
        // Whoever sees the head sees the words above.
        memory.store_u64(HEAD, kind, Ordering::Release);
        Self { memory, kind, pairs: 0 }
    }

    pub(super) fn memory(&self) -> &'a M {
        self.memory
    }

    /// Changes the slot: from here on the operation will be finished, by whoever it is. A full fence follows the
    /// store: whoever looks behind it for pins, or for somebody who waits, needs none of its own.
    #[inline]
    pub(super) fn commit(&self, slot: u64, new: u64) {
        self.memory.store_u64(BEFORE, self.pairs, Ordering::Release);
        self.memory.store_u64(NEW, new, Ordering::Release);
        // Pairs with the Acquire of readers, who see the block behind it; and ordered behind the words
        // above, for whoever recovers.
        self.memory.store_fenced_u64(slot, new);
    }

    /// Changes a word of an index.
    #[inline]
    pub(super) fn put_u64(&mut self, offset: u64, value: u64) {
        let former = self.memory.load_u64(offset, Ordering::Relaxed);
        if former != value {
            self.note(offset, former);
            // Ordered behind the note by its Release.
            self.memory.store_u64(offset, value, Ordering::Release);
        }
    }

    /// Notes a word that is an index no more, because its place is about to be used for something else.
    #[inline]
    pub(super) fn give_up_u64(&mut self, offset: u64) {
        self.note(offset, self.memory.load_u64(offset, Ordering::Relaxed));
        // Whatever is stored there next, with whichever ordering, comes behind the note.
        self.memory.release_fence();
    }

    /// Changes a `u32` of an index.
    #[inline]
    pub(super) fn put_u32(&mut self, offset: u64, value: u32) {
        let former = self.memory.load_u32(offset, Ordering::Relaxed);
        if former != value {
            self.note(offset | NARROW, former.into());
            self.memory.store_u32(offset, value, Ordering::Release);
        }
    }

    #[inline]
    fn note(&mut self, offset: u64, former: u64) {
        if self.pairs == MAX_PAIRS {
            // Too much to take back step by step.
            self.kind = (Operation::Bulk as u64) << 32;
            self.memory.store_u64(HEAD, self.kind, Ordering::Release);
            return;
        }
        let pair = PAIRS + self.pairs * 16;
        self.memory.store_u64(pair, offset, Ordering::Release);
        self.memory.store_u64(pair + 8, former, Ordering::Release);
        self.pairs += 1;
        // Whoever counts the pair sees it.
        self.memory.store_u64(HEAD, self.kind | self.pairs, Ordering::Release);
    }

    /// The operation is over.
    pub(super) fn end(self) {
        forget(self.memory);
    }
}

/// What the journal said, and what was made of it.
#[derive(Debug)]
pub(super) enum Found<'a, M> {
    /// Nothing was in progress.
    Nothing,
    /// No operation was in progress, but a batch was.
    Batch,
    /// An operation that had not changed its slot. All that it did has been taken back.
    TakenBack,
    /// An operation that had changed its slot: the indexes are as they were at that moment, and must
    /// follow.
    Committed {
        journal: Journal<'a, M>,
        /// The slot's word before and after.
        old: u64,
        new: u64,
    },
    /// Something that cannot be taken back step by step.
    Bulk,
}

/// Whether an operation or a batch is in progress, or was when its writer died.
pub(super) fn is_open(memory: &impl Memory) -> bool {
    // Pairs with the Release in `end`, and in `put_u64`, which ends a batch: who finds nothing in progress
    // sees all that was done before.
    memory.load_u64(HEAD, Ordering::Acquire) != 0 || memory.load_u64(BATCH, Ordering::Acquire) != 0
}

/// Takes back what an operation that its writer has not finished did to the indexes. Can be done
/// again until [`Journal::end`] or [`forget`].
pub(super) fn take_back<M: Memory>(memory: &M) -> Found<'_, M> {
    let head = memory.load_u64(HEAD, Ordering::Acquire);
    let (kind, pairs) = (head & !u64::from(u32::MAX), head & u64::from(u32::MAX));
    if head == 0 {
        return Found::Nothing;
    }
    if head == (Operation::Batch as u64) << 32 {
        return Found::Batch;
    }
    let word = |offset| memory.load_u64(offset, Ordering::Acquire);
    let (slot, old, new, before) = (word(SLOT), word(OLD), word(NEW), word(BEFORE));
    if kind != (Operation::Slot as u64) << 32 || pairs > MAX_PAIRS || !is_word(memory, slot, 8) {
        return Found::Bulk;
    }
    let committed = new != 0 && word(slot) == new;
    let kept = if committed { before } else { 0 };
    for index in (kept..pairs).rev() {
        let pair = PAIRS + index * 16;
        let (offset, former) = (word(pair), word(pair + 8));
        let (start, width) = (offset & !NARROW, if offset & NARROW == 0 { 8 } else { 4 });
        // A journal that nobody wrote leads nowhere.
        if !is_word(memory, start, width) {
            return Found::Bulk;
        }
        if width == 4 {
            memory.store_u32(start, former as u32, Ordering::Release);
        } else {
            memory.store_u64(start, former, Ordering::Release);
        }
    }
    if !committed {
        forget(memory);
        return Found::TakenBack;
    }
    if kept > pairs {
        return Found::Bulk;
    }
    memory.store_u64(HEAD, kind | kept, Ordering::Release);
    Found::Committed { journal: Journal { memory, kind, pairs: kept }, old, new }
}

/// The key whose slot the operation in progress changes, where there is one and its key is known.
pub(super) fn key_in_progress(memory: &impl Memory, geometry: &StoreGeometry) -> Option<Vec<u8>> {
    let word = |offset| memory.load_u64(offset, Ordering::Acquire);
    if word(HEAD) >> 32 != Operation::Slot as u64 {
        return None;
    }
    // The new block is whole before the journal names it.
    let named = [word(NEW), word(OLD)].into_iter().find(|word| *word > slot::TOMBSTONE)?;
    let block = block_at(memory, geometry, named).ok()?;
    let mut key = vec![0; block.key_len as usize];
    memory.copy_out(block.key(), &mut key);
    Some(key)
}

fn is_word(memory: &impl Memory, start: u64, width: u64) -> bool {
    start.is_multiple_of(width) && start.checked_add(8).is_some_and(|end| end <= memory.len_bytes())
}

/// Says that no operation is in progress; or no other than the batch that it was a part of.
pub(super) fn forget(memory: &impl Memory) {
    let in_batch = memory.load_u64(BATCH, Ordering::Acquire) != 0;
    let head = if in_batch { (Operation::Batch as u64) << 32 } else { 0 };
    memory.store_u64(HEAD, head, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{CrashMemory, HeapMemory};

    const WIDE: u64 = 8192;
    const NARROW_WORD: u64 = 8200;

    fn read(memory: &impl Memory) -> (u64, u32) {
        (memory.load_u64(WIDE, Ordering::Relaxed), memory.load_u32(NARROW_WORD, Ordering::Relaxed))
    }

    const SLOT_WORD: u64 = 8208;

    #[test]
    fn an_unfinished_operation_is_taken_back_or_can_be_finished() {
        let memory = CrashMemory::new(16 << 10);
        memory.store_u64(WIDE, 7, Ordering::Relaxed);
        memory.store_u32(NARROW_WORD, 9, Ordering::Relaxed);
        memory.store_u64(SLOT_WORD, 5, Ordering::Relaxed);
        memory.record();
        let mut journal = Journal::begin(&memory, Operation::Slot, SLOT_WORD, 5);
        journal.put_u64(WIDE, 8);
        journal.put_u64(WIDE, 9);
        journal.commit(SLOT_WORD, 6);
        journal.put_u32(NARROW_WORD, 10);
        journal.put_u64(WIDE, 11);
        journal.end();
        let (mut before, mut between, mut after) = (0, 0, 0);
        for image in memory.crash().images() {
            let heap = image.to_heap();
            let slot = || heap.load_u64(SLOT_WORD, Ordering::Relaxed);
            // Twice, as after a death in the middle of it.
            for _ in 0..2 {
                match take_back(&heap) {
                    Found::Nothing | Found::TakenBack if slot() == 5 => {
                        assert_eq!(read(&heap), (7, 9));
                        before += 1;
                    }
                    Found::Nothing => {
                        assert_eq!(read(&heap), (11, 10));
                        after += 1;
                    }
                    Found::Committed { old: 5, new: 6, .. } => {
                        assert_eq!((read(&heap), slot()), ((9, 9), 6));
                        between += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(before > 5 && between > 5 && after > 1, "{before}, {between}, {after}");
    }

    #[test]
    fn too_much_is_not_taken_back() {
        let memory = HeapMemory::new(16 << 10);
        for (puts, too_much) in [(MAX_PAIRS, false), (MAX_PAIRS + 2, true)] {
            let mut journal = Journal::begin(&memory, Operation::Slot, SLOT_WORD, 5);
            for value in 1..=puts {
                journal.put_u64(WIDE, value);
            }
            assert_eq!(matches!(take_back(&memory), Found::Bulk), too_much);
        }
    }

    #[test]
    fn a_journal_that_nobody_wrote_leads_nowhere() {
        let memory = HeapMemory::new(16 << 10);
        let (len, odd) = (16 << 10, 12);
        for (head, slot, offset) in [
            (1 << 32 | 1, 64, u64::MAX),
            (1 << 32 | 1, 64, len),
            (1 << 32 | 1, 64, len - 4),
            (1 << 32 | 1, 64, odd),
            (1 << 32 | 1, odd, 64),
            (1 << 32, u64::MAX, 64),
            (1 << 32 | (MAX_PAIRS + 1), 64, 64),
            (u64::MAX, 64, 64),
        ] {
            memory.store_u64(SLOT, slot, Ordering::Relaxed);
            memory.store_u64(PAIRS, offset, Ordering::Relaxed);
            memory.store_u64(HEAD, head, Ordering::Relaxed);
            assert!(matches!(take_back(&memory), Found::Bulk), "{head:#x} {slot} {offset}");
        }
    }
}
