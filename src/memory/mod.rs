//! The seam: everything that a protocol may do to memory that somebody else may be writing.
//!
//! The ring, the wakeups and the channel states are written against [`Memory`] and hold no
//! `unsafe`; the same source runs over mapped segments ([`MappedMemory`]), over a heap buffer
//! ([`HeapMemory`]: unit tests, fuzzing), over a heap that records every store so that a crash can
//! be tried after each ([`CrashMemory`]), and over loom's atomics (`ModelMemory`, `--cfg loom`).
//!
//! What always holds: offsets are checked, so no call can leave the memory; no call hands out a
//! reference into it, so nothing that a peer changes meanwhile is undefined behaviour.
//! It is generic and never `dyn`: the hot path is monomorphised and inlined.

#[cfg(not(loom))]
mod copy;
#[cfg(not(loom))]
mod crash;
#[cfg(all(feature = "raw-sync-event", not(loom)))]
mod event;
#[cfg(not(loom))]
mod fence_mode;
#[cfg(not(loom))]
mod fences;
#[cfg(not(loom))]
mod flush;
#[cfg(not(loom))]
mod heap;
#[cfg(not(loom))]
mod mapped;
#[cfg(loom)]
mod model;

pub use crate::sync::Ordering;

#[cfg(not(loom))]
pub use crash::{Crash, CrashImage, CrashMemory, Store};
#[cfg(not(loom))]
pub use fence_mode::FenceMode;
#[cfg(not(loom))]
pub(crate) use fences::Barriers;
#[cfg(not(loom))]
pub use heap::HeapMemory;
#[cfg(not(loom))]
pub use mapped::MappedMemory;
#[cfg(loom)]
pub use model::ModelMemory;

/// The memory that channels live in: mapped, or, under loom, modelled.
#[cfg(not(loom))]
pub type SharedMemory = MappedMemory;
/// The memory that channels live in: mapped, or, under loom, modelled.
#[cfg(loom)]
pub type SharedMemory = ModelMemory;

/// An absolute time on the monotonic clock, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(u64);

impl Deadline {
    /// A deadline that does not come.
    pub const NEVER: Self = Self(u64::MAX);

    /// `ns` nanoseconds after the epoch of `CLOCK_MONOTONIC`.
    pub const fn at_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// Nanoseconds after the epoch of `CLOCK_MONOTONIC`; `u64::MAX` for [`Deadline::NEVER`].
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// A deadline that has passed: who waits until then looks once.
    pub const PASSED: Self = Self(0);

    /// Whether it has come, by this memory's clock. Does not look at the clock where it never comes,
    /// or has passed from the start.
    #[inline]
    pub fn has_passed(self, memory: &impl Memory) -> bool {
        self == Self::PASSED || self != Self::NEVER && memory.now_ns() >= self.0
    }

    /// The earlier of the two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self(self.0.min(other.0))
    }
}

/// Words and bytes at offsets, fences, and sleeping on a word.
///
/// All offsets are in bytes from the start of the memory. `u64` accesses must be 8-byte aligned,
/// `u32` accesses 4-byte aligned; bytes are copied from and to 8-byte aligned offsets. A word is
/// accessed with one width only, for as long as the memory lives.
///
/// # Panics
/// Every method that takes an offset panics when the access would be misaligned or leave the
/// memory. Protocols derive offsets from geometry that was checked when they attached, so that a
/// panic is a bug in this crate and never something that a peer can bring about.
pub trait Memory: Clone {
    /// Length in bytes.
    fn len_bytes(&self) -> u64;

    /// Whether this process may touch the memory: false in a child that was forked after the memory
    /// was attached. Costs about a nanosecond; the ends of a channel ask before they touch anything.
    fn is_ours(&self) -> bool;

    /// Loads a `u32`.
    fn load_u32(&self, offset: u64, order: Ordering) -> u32;
    /// Stores a `u32`.
    fn store_u32(&self, offset: u64, value: u32, order: Ordering);
    /// Swaps a `u32`; returns what was there.
    fn swap_u32(&self, offset: u64, value: u32, order: Ordering) -> u32;
    /// Compare-exchange of a `u32`.
    ///
    /// # Errors
    /// What was there, where it was not `current`.
    fn compare_exchange_u32(
        &self,
        offset: u64,
        current: u32,
        new: u32,
        order: Ordering,
    ) -> Result<u32, u32>;
    /// Wrapping addition to a `u32`; returns what was there.
    fn fetch_add_u32(&self, offset: u64, value: u32, order: Ordering) -> u32;

    /// Loads a `u64`.
    fn load_u64(&self, offset: u64, order: Ordering) -> u64;
    /// Stores a `u64`.
    fn store_u64(&self, offset: u64, value: u64, order: Ordering);
    /// Swaps a `u64`; returns what was there.
    fn swap_u64(&self, offset: u64, value: u64, order: Ordering) -> u64;
    /// Compare-exchange of a `u64`.
    ///
    /// # Errors
    /// What was there, where it was not `current`.
    fn compare_exchange_u64(
        &self,
        offset: u64,
        current: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, u64>;
    /// Wrapping addition to a `u64`; returns what was there.
    fn fetch_add_u64(&self, offset: u64, value: u64, order: Ordering) -> u64;

    /// Copies `bytes` to `offset` in whole words: where the length is not a multiple of 8, the rest
    /// of the last word is zeroed. Ordered like Relaxed stores.
    fn copy_in(&self, offset: u64, bytes: &[u8]);
    /// Copies bytes from `offset`. Ordered like Relaxed loads. What a peer writes meanwhile may be
    /// seen in part: every byte read was there at some time during the call.
    fn copy_out(&self, offset: u64, bytes: &mut [u8]);

    /// Whether these bytes lie at `offset`, which is on a word, copied there by
    /// [`copy_in`](Self::copy_in). Ordered like Relaxed loads.
    #[inline]
    fn has_bytes(&self, offset: u64, bytes: &[u8]) -> bool {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut offset = offset;
        for word in words {
            if self.load_u64(offset, Ordering::Relaxed) != u64::from_ne_bytes(*word) {
                return false;
            }
            offset += 8;
        }
        if rest.is_empty() {
            return true;
        }
        // What lies behind them in their last word is theirs too, and zero.
        let last = match bytes.last_chunk() {
            Some(last) => u64::from_le_bytes(*last) >> (64 - 8 * rest.len()),
            None => rest.iter().rev().fold(0, |last, byte| last << 8 | u64::from(*byte)),
        };
        self.load_u64(offset, Ordering::Relaxed).to_le() == last
    }

    /// The hot side of an asymmetric fence: between its own store and its load of the other side's
    /// word.
    ///
    /// Together with [`heavy_fence`](Self::heavy_fence) on the other side it makes at least one of the
    /// two sides see the other's store (the Dekker pattern): always where
    /// [`fence_is_certain`](Self::fence_is_certain), and nearly always where not.
    fn light_fence(&self);
    /// The rare side of an asymmetric fence; see [`light_fence`](Self::light_fence). Orders everything
    /// of this thread.
    fn heavy_fence(&self);
    /// Orders every earlier access before every later one, on this processor and in every fence mode.
    ///
    /// Two threads that each store a word, call this, and load the other's word do not both miss the other's
    /// store. It costs a locked instruction or its like.
    #[inline]
    fn full_fence(&self) {
        crate::sync::full_fence();
    }
    /// Stores a `u64` with Release, and executes a [`full_fence`](Self::full_fence) behind it. Where one
    /// instruction does both, it takes that.
    #[inline]
    fn store_fenced_u64(&self, offset: u64, value: u64) {
        self.store_u64(offset, value, Ordering::Release);
        self.full_fence();
    }

    /// Whether the heavy fence of this side, as it is at this moment, never fails to reach the other
    /// side's light fence.
    fn fence_is_certain(&self) -> bool {
        true
    }
    /// The rare side against the light fences of this process's own threads. Never fails to reach
    /// them.
    fn process_fence(&self) {
        self.heavy_fence();
    }

    /// Keeps everything before it before every later store, payload included: what is announced
    /// before it is seen by whoever has seen anything that was written after it, and then called
    /// [`acquire_fence`](Self::acquire_fence).
    #[inline]
    fn release_fence(&self) {
        crate::sync::release_fence();
    }
    /// Keeps every earlier load, payload included, before everything behind it; see
    /// [`release_fence`](Self::release_fence).
    #[inline]
    fn acquire_fence(&self) {
        crate::sync::acquire_fence();
    }

    /// Says that this memory's users are about to drop it, and must not wait until the system has freed
    /// it.
    fn retire(&self) {}

    /// Tells the processor (or the model) that this thread is spinning.
    fn pause(&self);

    /// The one processor that the calling thread may run on, plus one; 0 where it may run on
    /// several. Two sides that share their only processor must not spin.
    fn only_cpu(&self) -> u32 {
        0
    }

    /// The processor that the calling thread runs on at this moment, plus one; 0 where that is not
    /// known.
    fn current_cpu(&self) -> u32 {
        0
    }

    /// Keeps the processor from running ahead of what it has checked, where that can be had cheaply.
    /// A poller that runs ahead looks many times at once, reads messages that have not come yet, and
    /// so takes lines away from the sender that is writing them. A matter of speed only.
    #[inline]
    fn stop_speculation(&self) {}

    /// Tells the processor that the line at `offset` will be read soon, where that can be had
    /// cheaply. A matter of speed only: nothing is read, and `offset` may lie anywhere.
    #[inline]
    fn prefetch(&self, _offset: u64) {}

    /// Nanoseconds on the monotonic clock.
    fn now_ns(&self) -> u64;

    /// Sleeps while the `u32` at `offset` is `expected`, until somebody calls
    /// [`wake_u32`](Self::wake_u32) or the deadline passes. May return early for no reason.
    fn wait_u32(&self, offset: u64, expected: u32, deadline: Deadline);
    /// Wakes up to `count` threads that sleep on the word at `offset`. Never fails: a wakeup that
    /// the system refuses costs the sleeper the rest of its time slice.
    fn wake_u32(&self, offset: u64, count: u32);
}
