//! Watched prefixes: for whom writers append to which change log.
//!
//! A watch of a prefix registers an entry. A writer compares each key that it changes with the entries, and appends the
//! key to the [logs](super::change_log) of those that match. Where no entry is free, a watcher reads the log of all changes.
//!
//! A host registers entries for its plugins, which map the public part only and read the log there. So the log tells
//! whether the registration stands: its number is stored in the log, and changes when the watcher gives the entry back or is found
//! dead. A watcher that still relies on it then is told by the bell of the prefix, which is rung at the next matching change, and by
//! the next registration.
//!
//! Invariants: entries are registered under the lock, so that no operation is in progress then. A change under a registered
//! prefix is in its log before it happens.

use std::fmt;

use super::StoreGeometry;
use super::change_log::{self, Log};
use super::doorbells;
use super::owner::Owner;
use crate::layout::store::change_log::{COUNT, REGISTRATION};
use crate::layout::store::private::prefix::{ENTRIES, LEN, OWNER, PREFIX, PREFIX_BYTES};
use crate::memory::{Memory, Ordering};

/// The entry of a watch. Dropping it gives the entry back.
#[derive(Debug)]
pub(crate) struct Entry {
    log: Log,
    appended: u64,
    /// Kept for its drop.
    _registration: Box<dyn Kept>,
}

/// What gives the entry back when it is dropped: in a memory that this process writes, or by way of the host.
pub(super) trait Kept: fmt::Debug + Send {}

impl Entry {
    /// That of this log, which had so many entries when it was registered.
    pub(super) fn new(log: Log, appended: u64, registration: Box<dyn Kept>) -> Self {
        Self { log, appended, _registration: registration }
    }

    /// Its log.
    pub(super) fn log(&self) -> Log {
        self.log
    }

    /// How many changes were in the log when it was registered.
    pub(super) fn appended(&self) -> u64 {
        self.appended
    }
}

struct Registration<M: Memory> {
    memory: M,
    geometry: StoreGeometry,
    log: Log,
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
            let Self { memory, geometry, log, owner } = self;
            end(memory, geometry, log.number, log.registration);
            // Where it fails, the participant was over before, and the entry is another one's. The next
            // writer that would append something clears the bit. Pairs with the Acquire in `append` and `register`.
            let at = geometry.prefix(log.number, OWNER);
            _ = memory.compare_exchange_u64(at, owner.0, 0, Ordering::AcqRel);
        }
    }
}

/// Says in the log that this registration is over. Comes before the owner goes: the next one registers behind that.
fn end(memory: &impl Memory, geometry: &StoreGeometry, number: u32, registration: u64) {
    // Where it fails, it was over before. Pairs with the Acquire in `change_log::read`.
    let at = geometry.change_log(number, REGISTRATION);
    _ = memory.compare_exchange_u64(
        at,
        registration,
        registration.wrapping_add(1),
        Ordering::AcqRel,
    );
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
    // A watcher that relied on the entry before looks, and finds the registration gone.
    doorbells::ring(memory, geometry, doorbells::of_prefix(number));
    change_log::finish(memory, geometry, number);
    let word = geometry.change_log(number, REGISTRATION);
    let registration = memory.load_u64(word, Ordering::Relaxed) | 1;
    // Pairs with the Acquire in `change_log::read`.
    memory.store_u64(word, registration, Ordering::Release);
    memory.store_u64(at(number, OWNER), owner.0, Ordering::Release);
    // Last, and Release so that all stay in this order: the process may die in between. No Acquire pairs with
    // them: writers have the lock.
    let used = memory.load_u64(geometry.used_prefixes(), Ordering::Relaxed);
    memory.store_u64(geometry.used_prefixes(), used | 1 << number, Ordering::Release);
    let log = Log { number, registration };
    let registration = Registration { memory: memory.clone(), geometry: *geometry, log, owner };
    let appended = memory.load_u64(geometry.change_log(number, COUNT), Ordering::Relaxed);
    Some(Entry::new(log, appended, Box::new(registration)))
}

/// Appends a key that is about to change to the logs of those of the `used` entries whose prefix it has. Returns which
/// bells are to be rung for it, a bit each.
#[inline(never)]
pub(super) fn append(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    used: u64,
    (key, hash): (&[u8], u64),
) -> u64 {
    let mut appended = 0;
    for number in numbers(used) {
        let at = |word| geometry.prefix(number, word);
        let len = memory.load_u64(at(LEN), Ordering::Relaxed).min(PREFIX_BYTES) as usize;
        if len > key.len() || !memory.has_bytes(at(PREFIX), &key[..len]) {
            continue;
        }
        appended |= 1 << number;
        // Pairs with the Release in `Registration`'s drop.
        if memory.load_u64(at(OWNER), Ordering::Acquire) == 0 {
            let used = memory.load_u64(geometry.used_prefixes(), Ordering::Relaxed);
            memory.store_u64(geometry.used_prefixes(), used & !(1 << number), Ordering::Release);
            continue;
        }
        change_log::append(memory, geometry, number, hash);
    }
    appended
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
            let registration = geometry.change_log(number, REGISTRATION);
            let registration = memory.load_u64(registration, Ordering::Relaxed);
            if registration % 2 == 1 {
                end(memory, geometry, number, registration);
            }
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
        let registration =
            memory.load_u64(geometry.change_log(number, REGISTRATION), Ordering::Relaxed);
        end(memory, geometry, number, registration | 1);
    }
}
