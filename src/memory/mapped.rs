//! The memory that processes share: a mapped file.
//!
//! Segments make it; channels run over it.
//! What always holds: the mapping outlives every clone of this value, every access is checked
//! against lengths that are kept here and not in the segment, and every access to a word is atomic.

#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;

use super::copy::Copier;
#[cfg(feature = "raw-sync-event")]
use super::event::Events;
use super::fences::Fences;
use super::{Deadline, FenceMode, Memory, Ordering};
use crate::os::affinity;
use crate::os::clock::monotonic_ns;
use crate::os::mapping::Mapping;
use crate::os::{fork, futex};
use crate::sync::{AtomicU32, AtomicU64, full_fence, spin_loop};

/// Memory that other processes map as well; clones share it.
#[derive(Clone, Debug)]
pub struct MappedMemory {
    /// What the accesses need stands here and not behind the `Arc`: the hot path follows no pointer
    /// but this one.
    base: NonNull<u8>,
    /// Where loads end.
    loads: End,
    /// Where stores end: the same, or zero where the mapping is read-only.
    stores: End,
    /// The fork generation that attached it.
    generation: u64,
    fence_mode: FenceMode,
    pub(super) fences: Fences,
    copier: Copier,
    /// What sleepers wait on instead of futexes.
    #[cfg(feature = "raw-sync-event")]
    events: Option<Arc<Events>>,
    mapping: Arc<Mapping>,
}

/// A length in all units that accesses are checked in: the hot path does not divide.
#[derive(Clone, Copy, Debug)]
struct End {
    bytes: u64,
    /// Eight bytes each.
    words: u64,
    /// Four bytes each.
    halves: u64,
}

impl End {
    fn at(bytes: u64) -> Self {
        Self { bytes, words: bytes / 8, halves: bytes / 4 }
    }
}

// SAFETY: the pointer is into the mapping that the `Arc` keeps, which belongs to no thread.
unsafe impl Send for MappedMemory {}
// SAFETY: as above; everything that can be done through a shared reference is atomic, or a block
// copy that tolerates concurrent writers (see `memory::copy`), or unsafe to call.
unsafe impl Sync for MappedMemory {}

impl MappedMemory {
    /// The memory that a mapping holds, for the process whose fork generation this is.
    pub(crate) fn from_mapping(
        mapping: Arc<Mapping>,
        fence_mode: FenceMode,
        generation: u64,
    ) -> Self {
        // Whole words, so that an aligned offset inside it is an access inside it.
        let len_bytes = mapping.len_bytes() & !7;
        Self {
            base: mapping.base(),
            loads: End::at(len_bytes),
            stores: End::at(if mapping.is_writable() { len_bytes } else { 0 }),
            generation,
            fence_mode,
            fences: Fences::default(),
            copier: Copier::detect(),
            #[cfg(feature = "raw-sync-event")]
            events: None,
            mapping,
        }
    }

    /// The same memory, whose waiting words are slept on by events: new ones, or those that the
    /// creator has initialised.
    ///
    /// # Safety
    /// - It is writable, and the whole of a channel's segment; which nobody else has yet where
    ///   `new`, and whose creator has made the same call, with the same C library, where not.
    /// - Every process that can write it, now and later, follows the protocol.
    #[cfg(feature = "raw-sync-event")]
    pub(crate) unsafe fn with_events(self, new: bool) -> Result<Self, crate::error::SegmentError> {
        let events = if new {
            // SAFETY: what the caller has promised.
            unsafe { Events::create(&self.mapping)? }
        } else {
            // SAFETY: what the caller has promised.
            unsafe { Events::open(&self.mapping)? }
        };
        Ok(Self { events: Some(Arc::new(events)), ..self })
    }

    /// Whether whoever waits for several words has to look by himself: peers do not wake futexes.
    pub(crate) fn is_polled(&self) -> bool {
        #[cfg(feature = "raw-sync-event")]
        return self.events.is_some();
        #[cfg(not(feature = "raw-sync-event"))]
        false
    }

    /// Who may leave fences out, as the creator has decided.
    pub fn fence_mode(&self) -> FenceMode {
        self.fence_mode
    }

    /// Whether stores are allowed; where not, they panic.
    pub fn is_writable(&self) -> bool {
        self.stores.bytes != 0
    }

    /// The mapping.
    pub(crate) fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// Borrows bytes of the segment itself.
    ///
    /// # Safety
    /// Nobody, in any process, writes them while the borrow lives. Only a protocol that has been
    /// given them and a peer that keeps to it can promise that.
    ///
    /// # Panics
    /// The bytes do not lie inside the memory.
    #[inline]
    pub(crate) unsafe fn slice(&self, offset: u64, len_bytes: usize) -> &[u8] {
        let start = self.range(offset, len_bytes, self.loads.bytes);
        // SAFETY:
        // - `range` has checked that the bytes lie in the mapping, which `self` keeps alive.
        // - A new mapping is initialised, by zeros.
        // - That nobody writes meanwhile is the caller's promise.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), len_bytes) }
    }

    /// Where bytes of the segment lie that somebody may want to write in place. Valid for reads and
    /// writes as long as this memory lives; dereferencing is subject to what
    /// [`slice`](Self::slice) asks.
    ///
    /// # Panics
    /// The bytes do not lie inside the memory, or it is read-only.
    #[inline]
    pub(crate) fn slice_mut(&self, offset: u64, len_bytes: usize) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(self.range(offset, len_bytes, self.stores.bytes), len_bytes)
    }

    /// A word to wait on together with others, which [`Memory::wait_u32`] cannot.
    ///
    /// # Panics
    /// The word does not lie inside the memory.
    pub(crate) fn futex_word(&self, offset: u64) -> &AtomicU32 {
        self.u32_at(offset, self.loads)
    }

    /// Pointer to the first of some bytes that end at `end` or before.
    #[inline]
    fn range(&self, offset: u64, len_bytes: usize, end: u64) -> NonNull<u8> {
        if offset > end || len_bytes as u64 > end - offset {
            outside(offset, len_bytes, end);
        }
        // SAFETY: `offset` is at most `end`, which is at most the mapping's length.
        unsafe { self.base.add(offset as usize) }
    }

    /// Pointer to the first of some bytes that start on a word.
    #[inline]
    fn block(&self, offset: u64, len_bytes: usize, end: u64) -> NonNull<u8> {
        if !offset.is_multiple_of(8) {
            outside(offset, len_bytes, end);
        }
        self.range(offset, len_bytes, end)
    }

    #[inline]
    fn u32_at(&self, offset: u64, end: End) -> &AtomicU32 {
        // One comparison for both: rotating moves the bits that alignment forbids to the top.
        if offset.rotate_right(2) >= end.halves {
            outside(offset, 4, end.bytes);
        }
        // SAFETY: `offset` is less than `end`, which is at most the mapping's length.
        let word = unsafe { self.base.add(offset as usize) };
        // SAFETY:
        // - The word is aligned: the mapping is, to a page, and `offset` is.
        // - It ends inside the mapping, as `end` is a multiple of 8, and `self` keeps that alive.
        // - Nobody accesses it but with atomics and block copies; borrows of it are made only by
        //   `slice` and `slice_mut`, whose callers promise that nobody writes.
        unsafe { AtomicU32::from_ptr(word.as_ptr().cast()) }
    }

    #[inline]
    fn u64_at(&self, offset: u64, end: End) -> &AtomicU64 {
        if offset.rotate_right(3) >= end.words {
            outside(offset, 8, end.bytes);
        }
        // SAFETY: `offset` is less than `end`, which is at most the mapping's length.
        let word = unsafe { self.base.add(offset as usize) };
        // SAFETY: as in `u32_at`.
        unsafe { AtomicU64::from_ptr(word.as_ptr().cast()) }
    }
}

#[cold]
#[inline(never)]
fn outside(offset: u64, len_bytes: usize, end: u64) -> ! {
    panic!("access to {len_bytes} bytes at {offset}: misaligned, or not inside {end} bytes");
}

impl Memory for MappedMemory {
    #[inline]
    fn len_bytes(&self) -> u64 {
        self.loads.bytes
    }

    #[inline]
    fn is_ours(&self) -> bool {
        fork::is_current(self.generation)
    }

    #[inline]
    fn load_u32(&self, offset: u64, order: Ordering) -> u32 {
        self.u32_at(offset, self.loads).load(order)
    }

    #[inline]
    fn store_u32(&self, offset: u64, value: u32, order: Ordering) {
        self.u32_at(offset, self.stores).store(value, order);
    }

    #[inline]
    fn swap_u32(&self, offset: u64, value: u32, order: Ordering) -> u32 {
        self.u32_at(offset, self.stores).swap(value, order)
    }

    #[inline]
    fn compare_exchange_u32(
        &self,
        offset: u64,
        current: u32,
        new: u32,
        order: Ordering,
    ) -> Result<u32, u32> {
        self.u32_at(offset, self.stores).compare_exchange(current, new, order, Ordering::Relaxed)
    }

    #[inline]
    fn fetch_add_u32(&self, offset: u64, value: u32, order: Ordering) -> u32 {
        self.u32_at(offset, self.stores).fetch_add(value, order)
    }

    #[inline]
    fn load_u64(&self, offset: u64, order: Ordering) -> u64 {
        self.u64_at(offset, self.loads).load(order)
    }

    #[inline]
    fn store_u64(&self, offset: u64, value: u64, order: Ordering) {
        self.u64_at(offset, self.stores).store(value, order);
    }

    #[inline]
    fn swap_u64(&self, offset: u64, value: u64, order: Ordering) -> u64 {
        self.u64_at(offset, self.stores).swap(value, order)
    }

    #[inline]
    fn compare_exchange_u64(
        &self,
        offset: u64,
        current: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, u64> {
        self.u64_at(offset, self.stores).compare_exchange(current, new, order, Ordering::Relaxed)
    }

    #[inline]
    fn fetch_add_u64(&self, offset: u64, value: u64, order: Ordering) -> u64 {
        self.u64_at(offset, self.stores).fetch_add(value, order)
    }

    #[inline(always)]
    fn copy_in(&self, offset: u64, bytes: &[u8]) {
        let to = self.block(offset, bytes.len(), self.stores.bytes);
        // SAFETY: `to` is on a word and the bytes end inside the mapping, which is a whole number
        // of words long and kept alive by `self`; nobody has a reference to them (see `u32_at`).
        unsafe { self.copier.copy_in(to, bytes) };
    }

    #[inline(always)]
    fn copy_out(&self, offset: u64, bytes: &mut [u8]) {
        let from = self.block(offset, bytes.len(), self.loads.bytes);
        // SAFETY: as in `copy_in`.
        unsafe { self.copier.copy_out(from, bytes) };
    }

    #[inline]
    fn light_fence(&self) {
        if self.fences.light() {
            self.see_to_fences();
        }
    }

    fn heavy_fence(&self) {
        self.see_to_fences();
        // Pairs with the full fence in the peer's `light_fence`; with one that is the compiler's
        // only, the barrier does.
        full_fence();
        self.barriers().issue();
    }

    fn fence_is_certain(&self) -> bool {
        !self.barriers().may_miss()
    }

    fn process_fence(&self) {
        self.fence_own_threads();
    }

    /// On x86-64 one exchange: it is a locked instruction, which waits until the store is visible and lets no
    /// later load go first. `mfence` behind a store does the same, and keeps every later instruction waiting
    /// as well. No other architecture's exchange orders later loads behind its store.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn store_fenced_u64(&self, offset: u64, value: u64) {
        self.swap_u64(offset, value, Ordering::SeqCst);
        crate::sync::compiler_fence(Ordering::SeqCst);
    }

    fn retire(&self) {
        self.mapping.retire();
    }

    #[inline]
    fn stop_speculation(&self) {
        // SAFETY: the instruction needs SSE2, which x86-64 has, and touches no memory.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            std::arch::x86_64::_mm_lfence();
        }
    }

    #[inline]
    fn prefetch(&self, offset: u64) {
        let line = self.base.as_ptr().wrapping_add(offset as usize);
        // SAFETY: a prefetch is no access: it faults nowhere, and changes nothing but caches.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.cast());
        }
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{}]", in(reg) line, options(nostack, readonly, preserves_flags));
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = line;
    }

    #[inline]
    fn pause(&self) {
        spin_loop();
    }

    fn only_cpu(&self) -> u32 {
        affinity::only_cpu().map_or(0, |cpu| cpu + 1)
    }

    fn current_cpu(&self) -> u32 {
        affinity::current_cpu().map_or(0, |cpu| cpu + 1)
    }

    #[inline]
    fn now_ns(&self) -> u64 {
        monotonic_ns()
    }

    fn wait_u32(&self, offset: u64, expected: u32, deadline: Deadline) {
        let word = self.u32_at(offset, self.loads);
        #[cfg(feature = "raw-sync-event")]
        if let Some(events) = &self.events {
            return events.wait(word, offset, expected, deadline);
        }
        futex::wait(word, expected, deadline);
    }

    fn wake_u32(&self, offset: u64, count: u32) {
        #[cfg(feature = "raw-sync-event")]
        if let Some(events) = &self.events {
            return events.wake(offset);
        }
        futex::wake(self.u32_at(offset, self.loads), count);
    }
}

#[cfg(test)]
#[path = "mapped_tests.rs"]
pub(super) mod tests;
