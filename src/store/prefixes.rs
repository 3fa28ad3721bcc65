//! Watched prefixes: which changes writers note, and for whom.
//!
//! A watch of a prefix registers an entry. A writer compares each key that it changes with the entries, and notes the
//! key's hash for those that match. The watcher looks up the hashes that were noted, so that its work follows the
//! number of changes under its prefix. Where no entry is free, or more was noted than there is room for, it walks the
//! table.
//!
//! Invariants: a change under a registered prefix is noted before it happens, in the same operation. Where nothing
//! was noted since a look, nothing has changed. A note counts as done only once its change is visible, or will never
//! happen. Entries are registered under the lock, so that no operation is in progress then.
//!
//! # A writer that dies
//!
//! 1. Before the note's count is stored: nothing was noted, and nothing changes.
//! 2. Between the note and the change, or between the change and the bell: the note stays undone. Each look
//!    looks up its key, until a successor has recovered the store, which rings.
//! 3. Behind the bell: the note is done, as if the writer lived.

use std::fmt;

use super::StoreGeometry;
use super::owner::Owner;
use crate::layout::store::private::prefix::{
    COUNT, DONE, ENTRIES, LEN, NOTES, OWNER, PREFIX, PREFIX_BYTES,
};
use crate::memory::{Memory, Ordering};

/// The entry of a watch. Dropping it gives the entry back.
#[derive(Debug)]
pub(crate) struct Entry {
    number: u32,
    noted: u64,
    /// Kept for its drop.
    _registration: Box<dyn Kept>,
}

/// What gives the entry back, in whatever memory.
trait Kept: fmt::Debug + Send {}

impl Entry {
    /// Its number.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// How many changes had been noted for it when it was registered.
    pub(super) fn noted(&self) -> u64 {
        self.noted
    }
}

struct Registration<M: Memory> {
    memory: M,
    /// Offset of the owner.
    at: u64,
    owner: Owner,
}

impl<M: Memory + Send> Kept for Registration<M> {}

impl<M: Memory> fmt::Debug for Registration<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl<M: Memory> Drop for Registration<M> {
    fn drop(&mut self) {
        if self.memory.is_ours() {
            // Where it fails, the participant was over before, and the entry is another one's. The next
            // writer that would note something clears the bit. Pairs with the Acquire in `note` and `register`.
            let owner = self.owner.0;
            _ = self.memory.compare_exchange_u64(self.at, owner, 0, Ordering::AcqRel);
        }
    }
}

/// The numbers of the bits that are set.
pub(super) fn numbers(mut bits: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let number = bits.trailing_zeros();
        bits &= bits.wrapping_sub(1);
        (number < u64::BITS).then_some(number)
    })
}

/// Registers a watch of a prefix; `None` where no entry is free. For a holder of the lock.
pub(super) fn register<M: Memory + Send + 'static>(
    memory: &M,
    geometry: &StoreGeometry,
    owner: Owner,
    prefix: &[u8],
) -> Option<Entry> {
    let at = |number, word| geometry.prefix(number, word);
    // Pairs with the Release in `Registration`'s drop.
    let is_free = |number: &u32| memory.load_u64(at(*number, OWNER), Ordering::Acquire) == 0;
    let number = (0..ENTRIES as u32).find(is_free)?;
    let compared = &prefix[..prefix.len().min(PREFIX_BYTES as usize)];
    memory.store_u64(at(number, LEN), compared.len() as u64, Ordering::Relaxed);
    memory.copy_in(at(number, PREFIX), compared);
    let noted = memory.load_u64(at(number, COUNT), Ordering::Relaxed);
    memory.store_u64(at(number, DONE), noted, Ordering::Relaxed);
    memory.store_u64(at(number, OWNER), owner.0, Ordering::Release);
    // Last, and Release so that both stay in this order: the process may die in between. No Acquire pairs with
    // them: writers have the lock.
    let used = memory.load_u64(geometry.used_prefixes(), Ordering::Relaxed);
    memory.store_u64(geometry.used_prefixes(), used | 1 << number, Ordering::Release);
    let registration = Registration { memory: memory.clone(), at: at(number, OWNER), owner };
    Some(Entry { number, noted, _registration: Box::new(registration) })
}

/// Notes that a key is about to change, for those of the `used` entries whose prefix it has. Returns these, a bit
/// each.
#[inline(never)]
pub(super) fn note(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    used: u64,
    (key, hash): (&[u8], u64),
) -> u64 {
    let mut noted = 0;
    for number in numbers(used) {
        let at = |word| geometry.prefix(number, word);
        let len = memory.load_u64(at(LEN), Ordering::Relaxed).min(PREFIX_BYTES) as usize;
        if len > key.len() || !memory.has_bytes(at(PREFIX), &key[..len]) {
            continue;
        }
        // Pairs with the Release in `Registration`'s drop.
        if memory.load_u64(at(OWNER), Ordering::Acquire) == 0 {
            let used = memory.load_u64(geometry.used_prefixes(), Ordering::Relaxed);
            memory.store_u64(geometry.used_prefixes(), used & !(1 << number), Ordering::Release);
            continue;
        }
        let count = memory.load_u64(at(COUNT), Ordering::Relaxed);
        // Whoever sees anything of the new note sees, behind a fence of its own, that the count had come
        // to where the old one is not to be trusted.
        memory.release_fence();
        memory.store_u64(geometry.prefix_note(number, count % NOTES), hash, Ordering::Relaxed);
        // Pairs with the Acquire in `changes`. The change itself is a later Release store: whoever sees it
        // sees the count.
        memory.store_u64(at(COUNT), count.wrapping_add(1), Ordering::Release);
        noted |= 1 << number;
    }
    noted
}

/// Notes that more is about to change than there is room for.
pub(super) fn note_many(memory: &impl Memory, geometry: &StoreGeometry) {
    for number in numbers(memory.load_u64(geometry.used_prefixes(), Ordering::Relaxed)) {
        let at = geometry.prefix(number, COUNT);
        let count = memory.load_u64(at, Ordering::Relaxed);
        memory.store_u64(at, count.wrapping_add(NOTES), Ordering::Release);
    }
}

/// Says that all that was noted for an entry is over: the changes are visible, or will not happen.
pub(super) fn finish(memory: &impl Memory, geometry: &StoreGeometry, number: u32) {
    let count = memory.load_u64(geometry.prefix(number, COUNT), Ordering::Relaxed);
    // Pairs with the Acquire in `changes`: the changes are visible.
    memory.store_u64(geometry.prefix(number, DONE), count, Ordering::Release);
}

/// What was noted for an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Noted {
    /// How many notes are done; what follows may be about to happen.
    pub(super) done: u64,
    /// How many there are.
    pub(super) count: u64,
    /// Whether all that were asked for were read.
    pub(super) complete: bool,
}

/// Reads the hashes that were noted for an entry from the note with the number `from` on.
pub(super) fn changes(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    number: u32,
    from: u64,
    hashes: &mut Vec<u64>,
) -> Noted {
    hashes.clear();
    let at = |word| geometry.prefix(number, word);
    // Pairs with the Release in `finish`: all that is done is visible. Read before the count, which is no less then.
    let done = memory.load_u64(at(DONE), Ordering::Acquire);
    // Pairs with the Release in `note`.
    let count = memory.load_u64(at(COUNT), Ordering::Acquire);
    let fits = |count: u64| count.wrapping_sub(from) < NOTES;
    if fits(count) && count != from {
        for note in 0..count.wrapping_sub(from) {
            let at = geometry.prefix_note(number, from.wrapping_add(note) % NOTES);
            hashes.push(memory.load_u64(at, Ordering::Relaxed));
        }
        // Pairs with the release fence in `note`: where the place of a note was being used again, the count has
        // come to it.
        memory.acquire_fence();
        let complete = fits(memory.load_u64(at(COUNT), Ordering::Relaxed));
        return Noted { done, count, complete };
    }
    Noted { done, count, complete: fits(count) }
}

/// Takes back the entries of owners that are dead. For a holder of the lock.
pub(super) fn reclaim(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    mut has_died: impl FnMut(Owner) -> bool,
) {
    for number in 0..ENTRIES as u32 {
        let at = geometry.prefix(number, OWNER);
        let owner = memory.load_u64(at, Ordering::Acquire);
        if owner != 0 && has_died(Owner(owner)) {
            // Where it fails, its owner had given it back.
            _ = memory.compare_exchange_u64(at, owner, 0, Ordering::AcqRel);
        }
    }
}

/// Frees all entries. The caller has the store to itself.
#[cfg(not(loom))]
pub(super) fn forget(memory: &impl Memory, geometry: &StoreGeometry) {
    memory.store_u64(geometry.used_prefixes(), 0, Ordering::Relaxed);
    for number in 0..ENTRIES as u32 {
        memory.store_u64(geometry.prefix(number, OWNER), 0, Ordering::Relaxed);
    }
}
