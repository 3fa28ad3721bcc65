//! A memory on the heap, shared by the threads of one process.
//!
//! Unit tests, property tests and fuzzers run the protocols over it: no system calls, no `unsafe`,
//! every byte an atomic, so that a checker (Miri, a sanitizer) sees everything.
//! What always holds: it behaves as [`MappedMemory`](super::MappedMemory) does, only slower.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Deadline, Memory, Ordering};
use crate::sync::{AtomicU64, full_fence};

/// Zeroed memory on the heap; clones share it.
#[derive(Debug, Clone)]
pub struct HeapMemory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    words: Box<[AtomicU64]>,
    /// Guards the step from "the word is as expected" to sleeping.
    sleeping: Mutex<()>,
    woken: Condvar,
    wakes: AtomicU64,
    started: Instant,
}

impl HeapMemory {
    /// `len_bytes` zero bytes, rounded up to a whole word.
    pub fn new(len_bytes: u64) -> Self {
        let words = usize::try_from(len_bytes.div_ceil(8)).expect("fits the address space");
        Self::from_words(&vec![0; words])
    }

    /// How often somebody was woken, or would have been: what are system calls in mapped memory.
    pub fn wakes(&self) -> u64 {
        self.inner.wakes.load(Ordering::Relaxed)
    }

    /// A memory that holds these words.
    pub fn from_words(words: &[u64]) -> Self {
        Self {
            inner: Arc::new(Inner {
                words: words.iter().map(|word| AtomicU64::new(*word)).collect(),
                sleeping: Mutex::new(()),
                woken: Condvar::new(),
                wakes: AtomicU64::new(0),
                started: Instant::now(),
            }),
        }
    }

    /// A copy of all words.
    pub fn to_words(&self) -> Vec<u64> {
        self.inner.words.iter().map(|word| word.load(Ordering::Relaxed)).collect()
    }

    fn word(&self, offset: u64) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8), "misaligned access at {offset}");
        &self.inner.words[usize::try_from(offset / 8).expect("offset fits")]
    }

    /// The word that holds the `u32` at `offset`, and how far it must be shifted right.
    fn half(&self, offset: u64) -> (&AtomicU64, u32) {
        assert!(offset.is_multiple_of(4), "misaligned access at {offset}");
        (self.word(offset & !7), half_shift(offset))
    }

    fn update_half(
        &self,
        offset: u64,
        order: Ordering,
        mut new: impl FnMut(u32) -> Option<u32>,
    ) -> Result<u32, u32> {
        let (word, shift) = self.half(offset);
        let mask = u64::from(u32::MAX) << shift;
        word.fetch_update(order, Ordering::Relaxed, |old| {
            let half = new((old >> shift) as u32)?;
            Some(old & !mask | u64::from(half) << shift)
        })
        .map(|old| (old >> shift) as u32)
        .map_err(|old| (old >> shift) as u32)
    }
}

/// How far the word around the `u32` at `offset` must be shifted right to have it lowest.
pub(super) fn half_shift(offset: u64) -> u32 {
    let upper = offset % 8 == 4;
    if upper == cfg!(target_endian = "little") { 32 } else { 0 }
}

impl Memory for HeapMemory {
    fn len_bytes(&self) -> u64 {
        self.inner.words.len() as u64 * 8
    }

    fn is_ours(&self) -> bool {
        true
    }

    fn load_u32(&self, offset: u64, order: Ordering) -> u32 {
        let (word, shift) = self.half(offset);
        (word.load(order) >> shift) as u32
    }

    fn store_u32(&self, offset: u64, value: u32, order: Ordering) {
        let _ = self.update_half(offset, order, |_| Some(value));
    }

    fn swap_u32(&self, offset: u64, value: u32, order: Ordering) -> u32 {
        self.update_half(offset, order, |_| Some(value)).unwrap_or_else(|old| old)
    }

    fn compare_exchange_u32(
        &self,
        offset: u64,
        current: u32,
        new: u32,
        order: Ordering,
    ) -> Result<u32, u32> {
        self.update_half(offset, order, |old| (old == current).then_some(new))
    }

    fn fetch_add_u32(&self, offset: u64, value: u32, order: Ordering) -> u32 {
        self.update_half(offset, order, |old| Some(old.wrapping_add(value)))
            .unwrap_or_else(|old| old)
    }

    #[inline]
    fn load_u64(&self, offset: u64, order: Ordering) -> u64 {
        self.word(offset).load(order)
    }

    #[inline]
    fn store_u64(&self, offset: u64, value: u64, order: Ordering) {
        self.word(offset).store(value, order);
    }

    fn swap_u64(&self, offset: u64, value: u64, order: Ordering) -> u64 {
        self.word(offset).swap(value, order)
    }

    fn compare_exchange_u64(
        &self,
        offset: u64,
        current: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, u64> {
        self.word(offset).compare_exchange(current, new, order, Ordering::Relaxed)
    }

    fn fetch_add_u64(&self, offset: u64, value: u64, order: Ordering) -> u64 {
        self.word(offset).fetch_add(value, order)
    }

    fn copy_in(&self, offset: u64, bytes: &[u8]) {
        for (at, chunk) in (offset..).step_by(8).zip(bytes.chunks(8)) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.store_u64(at, u64::from_ne_bytes(word), Ordering::Relaxed);
        }
    }

    fn copy_out(&self, offset: u64, bytes: &mut [u8]) {
        for (at, chunk) in (offset..).step_by(8).zip(bytes.chunks_mut(8)) {
            let word = self.load_u64(at, Ordering::Relaxed).to_ne_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    fn light_fence(&self) {
        full_fence();
    }

    fn heavy_fence(&self) {
        full_fence();
    }

    fn pause(&self) {
        std::thread::yield_now();
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.inner.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn wait_u32(&self, offset: u64, expected: u32, deadline: Deadline) {
        let guard = self.inner.sleeping.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now_ns();
        if self.load_u32(offset, Ordering::Relaxed) != expected || now >= deadline.as_ns() {
            return;
        }
        let left = Duration::from_nanos(deadline.as_ns() - now).min(Duration::from_secs(3600));
        drop(self.inner.woken.wait_timeout(guard, left));
    }

    fn wake_u32(&self, _offset: u64, _count: u32) {
        self.inner.wakes.fetch_add(1, Ordering::Relaxed);
        drop(self.inner.sleeping.lock().unwrap_or_else(PoisonError::into_inner));
        self.inner.woken.notify_all();
    }
}
