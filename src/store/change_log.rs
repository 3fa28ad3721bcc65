//! Change logs: which keys have changed lately.
//!
//! One log is for all keys, and one for each watched prefix. Writers append the hash of a key before it changes;
//! watchers look up the hashes that were appended since their last look, so that their work follows the number of
//! changes. Where more was appended than a log holds, they walk the table.
//!
//! The logs lie in the public part: a process that maps the store read-only reads them as well.
//!
//! Invariants: a change is appended before it happens, in the same operation. Where nothing was appended since a
//! look, nothing has changed. An entry counts as done only once its change is visible and its bells were rung, or once
//! it will never happen.
//!
//! # A writer that dies
//!
//! 1. Before the count is stored: nothing was appended, and nothing changes.
//! 2. Between that and the last bell: the entry stays undone. Each look looks up its key, until a successor has
//!    recovered the store, which rings.
//! 3. Behind the last bell: the entry is done, as if the writer lived.

use super::StoreGeometry;
use crate::layout::store::change_log::{COUNT, DONE, REGISTRATION, entries};
use crate::layout::store::private::prefix::ENTRIES;
use crate::memory::{Memory, Ordering};

/// Number of the log of all changes. Those before it belong to the watched prefixes.
pub(super) const ALL: u32 = ENTRIES as u32;

/// Which log a watcher reads, and for how long it is the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Log {
    pub(super) number: u32,
    /// What [`REGISTRATION`] says as long as it is.
    pub(super) registration: u64,
}

impl Log {
    /// That of all changes.
    pub(super) const OF_ALL: Self = Self { number: ALL, registration: 0 };

    /// Whether it can be that of a prefix.
    pub(super) fn is_of_prefix(self) -> bool {
        self.number < ALL && self.registration % 2 == 1
    }
}

/// Appends a key that is about to change, by its hash.
#[inline]
pub(super) fn append(memory: &impl Memory, geometry: &StoreGeometry, number: u32, hash: u64) {
    let count = memory.load_u64(geometry.change_log(number, COUNT), Ordering::Relaxed);
    // A reader that sees anything of the new entry sees, behind its own acquire fence, that the count had reached the
    // old one's place. Pairs with the fence in `read_from`.
    memory.release_fence();
    let entry = geometry.change_log_entry(number, count % entries(number.into()));
    memory.store_u64(entry, hash, Ordering::Relaxed);
    // Pairs with the Acquire in `read_from`. The change itself is a later Release store: a reader that sees it sees the
    // count.
    memory.store_u64(geometry.change_log(number, COUNT), count.wrapping_add(1), Ordering::Release);
}

/// Appends more than the log holds.
pub(super) fn overrun(memory: &impl Memory, geometry: &StoreGeometry, number: u32) {
    let at = geometry.change_log(number, COUNT);
    let count = memory.load_u64(at, Ordering::Relaxed);
    // Pairs with the Acquire in `read_from`.
    memory.store_u64(at, count.wrapping_add(entries(number.into())), Ordering::Release);
}

/// Says that all that was appended is over: the changes are visible, or will not happen.
#[inline]
pub(super) fn finish(memory: &impl Memory, geometry: &StoreGeometry, number: u32) {
    let count = memory.load_u64(geometry.change_log(number, COUNT), Ordering::Relaxed);
    // Pairs with the Acquire in `read` and `undone`: the changes, and what was rung for them, are visible.
    memory.store_u64(geometry.change_log(number, DONE), count, Ordering::Release);
}

/// What was read of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    /// How many entries are done; what follows may be about to happen.
    pub(super) done: u64,
    /// How many there are.
    pub(super) count: u64,
    /// Whether all that were asked for were read.
    pub(super) is_complete: bool,
    /// Whether the log was still the watcher's.
    pub(super) is_registered: bool,
}

/// Reads the hashes that were appended from the entry `from` on.
pub(super) fn read(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    log: Log,
    from: u64,
    hashes: &mut Vec<u64>,
) -> Appended {
    let at = |word| geometry.change_log(log.number, word);
    // Pairs with the Release in `finish`: all that is done is visible. Read before the count, which is no less then.
    let done = memory.load_u64(at(DONE), Ordering::Acquire);
    let (count, is_complete) = read_from(memory, geometry, log.number, from, hashes);
    // Behind the count, which is an Acquire: as long as the log is registered, all changes are appended. Pairs with
    // the Release in `prefixes::end` and `prefixes::register`.
    let is_registered = memory.load_u64(at(REGISTRATION), Ordering::Acquire) == log.registration;
    Appended { done, count, is_complete: is_complete && is_registered, is_registered }
}

/// Keys that may have changed without a bell having been rung for it.
#[derive(Debug)]
pub(super) enum Undone {
    /// Those with these hashes.
    Hashes(Vec<u64>),
    /// Too many to be told.
    Any,
}

/// What is in progress, or was when its writer died. What changes behind this, rings behind this.
pub(super) fn undone(memory: &impl Memory, geometry: &StoreGeometry) -> Undone {
    let mut hashes = Vec::new();
    // Pairs with the Release in `finish`: what was rung is visible.
    let done = memory.load_u64(geometry.change_log(ALL, DONE), Ordering::Acquire);
    match read_from(memory, geometry, ALL, done, &mut hashes) {
        (_, true) => Undone::Hashes(hashes),
        (_, false) => Undone::Any,
    }
}

/// Reads from an entry on. Returns how many there are, and whether all that were asked for were read.
fn read_from(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    number: u32,
    from: u64,
    hashes: &mut Vec<u64>,
) -> (u64, bool) {
    hashes.clear();
    let entries = entries(number.into());
    // Pairs with the Release in `append`.
    let count = memory.load_u64(geometry.change_log(number, COUNT), Ordering::Acquire);
    let fits = |count: u64| count.wrapping_sub(from) < entries;
    if !fits(count) || count == from {
        return (count, fits(count));
    }
    for entry in 0..count.wrapping_sub(from) {
        let at = geometry.change_log_entry(number, from.wrapping_add(entry) % entries);
        hashes.push(memory.load_u64(at, Ordering::Relaxed));
    }
    // Pairs with the release fence in `append`: where the place of an entry was being used again, the count has come
    // to it.
    memory.acquire_fence();
    (count, fits(memory.load_u64(geometry.change_log(number, COUNT), Ordering::Relaxed)))
}
