//! What an operation has rung, and whom to wake for it.
//!
//! The core tells it before a key changes and behind it. Handles have it wake sleepers after they have released the lock.
//! What always holds: the change logs know of a change before it happens; it is done there behind the last bell; nobody is woken
//! under the lock.

use super::StoreGeometry;
use super::change_log;
use super::doorbells::{EVERYTHING, fence, of, of_prefix, ring};
use super::prefixes;
use crate::layout::store::generation;
use crate::layout::store::private::bell::{GENERATION, PUBLIC, TRUSTED};
use crate::memory::{Memory, Ordering};

/// How many sleepers one ring wakes on a word that untrusted processes can map. They decide how many
/// sleep there, and each costs the writer time. Others wake by themselves at the end of their slice.
const MAX_PUBLIC_WAKES: u32 = 64;

/// A set of bells.
#[derive(Debug, Default)]
struct Bells {
    buckets: u128,
    everything: bool,
    prefixes: u64,
}

impl Bells {
    #[inline]
    fn add(&mut self, bell: u32, is_in: bool) {
        match bell {
            EVERYTHING => self.everything |= is_in,
            ..EVERYTHING => self.buckets |= u128::from(is_in) << bell,
            _ => self.prefixes |= u64::from(is_in) << (bell - of_prefix(0)),
        }
    }

    fn is_empty(&self) -> bool {
        !self.everything && self.buckets == 0 && self.prefixes == 0
    }

    /// Takes them all out.
    fn take(&mut self) -> impl Iterator<Item = u32> {
        let Self { mut buckets, everything, prefixes } = std::mem::take(self);
        let buckets = std::iter::from_fn(move || {
            let bell = buckets.trailing_zeros();
            buckets &= buckets.wrapping_sub(1);
            (bell < u128::BITS).then_some(bell)
        });
        let prefixes = prefixes::numbers(prefixes).map(of_prefix);
        everything.then_some(EVERYTHING).into_iter().chain(buckets).chain(prefixes)
    }
}

/// The bells that were rung and at which somebody waits, to be woken without the lock.
#[derive(Debug)]
pub(super) struct Rung {
    geometry: StoreGeometry,
    /// Where participants sleep.
    trusted: Bells,
    /// Where processes sleep that map the public part only.
    public: Bells,
    /// The watched prefixes whose logs were appended to since they were rung.
    appended: u64,
}

impl Rung {
    /// None so far, of a store of these measures.
    pub(super) fn new(geometry: StoreGeometry) -> Self {
        Self { geometry, trusted: Bells::default(), public: Bells::default(), appended: 0 }
    }

    /// Appends to the change logs that this key is about to change. Comes before the store that changes it, within the
    /// operation that makes it.
    #[inline]
    pub(super) fn about_to_change(&mut self, memory: &impl Memory, key: &[u8], hash: u64) {
        change_log::append(memory, &self.geometry, change_log::ALL, hash);
        let used = memory.load_u64(self.geometry.used_prefixes(), Ordering::Relaxed);
        if used != 0 {
            self.appended |= prefixes::append(memory, &self.geometry, used, (key, hash));
        }
    }

    /// More is about to change than the logs hold.
    pub(super) fn all_about_to_change(&mut self, memory: &impl Memory) {
        change_log::overrun(memory, &self.geometry, change_log::ALL);
        self.appended |= memory.load_u64(self.geometry.used_prefixes(), Ordering::Relaxed);
        for number in prefixes::numbers(self.appended) {
            change_log::overrun(memory, &self.geometry, number);
        }
    }

    /// Keys with these hashes have changed, which is all that was about to. A full fence lies behind the changes: that of
    /// [`Journal::commit`](super::journal::Journal::commit), or [`fence`].
    #[inline]
    pub(super) fn ring_behind_fence(
        &mut self,
        memory: &impl Memory,
        hashes: impl IntoIterator<Item = u64>,
    ) {
        for hash in hashes {
            self.ring_one(memory, of(hash));
        }
        self.ring_one(memory, EVERYTHING);
        if self.appended != 0 {
            self.ring_prefixes(memory);
        }
        // Last: a writer that dies before it leaves the changes undone, and every watcher looks at them.
        change_log::finish(memory, &self.geometry, change_log::ALL);
    }

    /// Says that what was appended for prefixes is over, and rings for it.
    #[cold]
    fn ring_prefixes(&mut self, memory: &impl Memory) {
        for number in prefixes::numbers(std::mem::take(&mut self.appended)) {
            change_log::finish(memory, &self.geometry, number);
            self.ring_one(memory, of_prefix(number));
        }
    }

    #[inline]
    fn ring_one(&mut self, memory: &impl Memory, bell: u32) {
        let sleepers = ring(memory, &self.geometry, bell);
        if sleepers != 0 {
            self.trusted.add(bell, sleepers & TRUSTED != 0);
            self.public.add(bell, sleepers & PUBLIC != 0);
        }
    }

    /// Any keys have changed.
    #[cold]
    pub(super) fn ring_all(&mut self, memory: &impl Memory) {
        fence(memory);
        for bell in 0..EVERYTHING {
            self.ring_one(memory, bell);
        }
        self.appended |= memory.load_u64(self.geometry.used_prefixes(), Ordering::Relaxed);
        self.ring_behind_fence(memory, []);
    }

    /// Rings one bell, although nothing has changed: who sleeps there looks, and announces himself again.
    #[cold]
    pub(super) fn ring_bell(&mut self, memory: &impl Memory, bell: u32) {
        self.ring_one(memory, bell);
    }

    /// Wakes whoever waits. Nothing but two comparisons where nobody does.
    #[inline]
    pub(super) fn wake(&mut self, memory: &impl Memory) {
        if !self.trusted.is_empty() || !self.public.is_empty() {
            self.wake_sleepers(memory);
        }
    }

    #[cold]
    fn wake_sleepers(&mut self, memory: &impl Memory) {
        for bell in self.trusted.take() {
            memory.wake_u32(self.geometry.bell(bell) + GENERATION, u32::MAX);
        }
        for bell in self.public.take() {
            memory.wake_u32(generation::of_bell(bell.into()), MAX_PUBLIC_WAKES);
        }
    }
}
