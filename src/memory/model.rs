//! A memory of loom's atomics, for models that run the shipping source under every interleaving.
//!
//! `tests/loom_*.rs` call it, compiled with `--cfg loom` only. What always holds: a word is an
//! atomic of its own, so loom may show each thread any value that the orderings allow; payload bytes
//! are read as if without atomics, so that a copy that nothing orders is reported as a race, except
//! in a memory that was made for protocols that expect races.
//!
//! What differs from the mapped memory, and why that is sound:
//!
//! - Both fences are `SeqCst`. That the asymmetric pair gives the same guarantee is membarrier's
//!   contract and not shown here.
//! - Waiting never times out: a lost wakeup is a deadlock, and loom reports deadlocks. The clock
//!   stands still.
//! - Only words that were named exist, and each with one width: halves of a word share no location,
//!   so the model orders nothing between them that the machine would not.
#![allow(unsafe_code)]

use std::collections::{HashMap, HashSet};

use loom::sync::atomic::fence;
use loom::sync::{Arc, Condvar, Mutex};

use super::{Deadline, Memory, Ordering};
use crate::sync::{AtomicU32, AtomicU64};

/// Words in loom's memory model; clones share them.
#[derive(Debug, Clone)]
pub struct ModelMemory {
    inner: Arc<Inner>,
    /// What others may write too, for whoever holds a lock on everything else.
    shared: Option<std::sync::Arc<HashSet<u64>>>,
    /// Whether [`Memory::store_fenced_u64`] is an exchange without a fence.
    unfenced: bool,
}

#[derive(Debug)]
struct Inner {
    len_bytes: u64,
    /// Whether payloads are read with Relaxed loads: by a protocol that finds out afterwards whether
    /// what it has read was being overwritten.
    racing: bool,
    words: HashMap<u64, AtomicU64>,
    halves: HashMap<u64, Half>,
}

/// A `u32` on which threads may sleep.
#[derive(Debug)]
struct Half {
    value: AtomicU32,
    /// Guards the step from "the word is as expected" to sleeping, as the kernel does.
    sleeping: Mutex<()>,
    woken: Condvar,
}

impl ModelMemory {
    /// A memory of `len_bytes` in which the `u32` at each offset of `halves` and the `u64` at each
    /// offset of `words` exist, all zero.
    pub fn new(
        len_bytes: u64,
        halves: impl IntoIterator<Item = u64>,
        words: impl IntoIterator<Item = u64>,
    ) -> Self {
        Self::with_copies(false, len_bytes, halves, words)
    }

    /// As [`new`](Self::new), but payloads may be copied out while they are overwritten: each word
    /// copied is any that a Relaxed load may see.
    pub fn racing(
        len_bytes: u64,
        halves: impl IntoIterator<Item = u64>,
        words: impl IntoIterator<Item = u64>,
    ) -> Self {
        Self::with_copies(true, len_bytes, halves, words)
    }

    fn with_copies(
        racing: bool,
        len_bytes: u64,
        halves: impl IntoIterator<Item = u64>,
        words: impl IntoIterator<Item = u64>,
    ) -> Self {
        let named = |offset: u64, width| {
            assert!(
                offset.is_multiple_of(width) && offset + width <= len_bytes,
                "no word: {offset}"
            );
            offset
        };
        let word = |offset| (named(offset, 8), AtomicU64::new(0));
        let half = |offset| {
            let (value, sleeping, woken) = (AtomicU32::new(0), Mutex::new(()), Condvar::new());
            (named(offset, 4), Half { value, sleeping, woken })
        };
        let (words, halves) = (words.into_iter().map(word), halves.into_iter().map(half));
        let (words, halves) = (words.collect(), halves.collect());
        let inner = Arc::new(Inner { len_bytes, racing, words, halves });
        Self { inner, shared: None, unfenced: false }
    }

    /// The same words, for a thread whose [`Memory::store_fenced_u64`] is an acquire-release exchange and no
    /// fence. For models that must fail.
    #[must_use]
    pub fn unfenced(&self) -> Self {
        Self { unfenced: true, ..self.clone() }
    }

    /// The same words, for a thread that holds a lock without which nobody writes any but the `shared` ones.
    ///
    /// What it loads of the others is read as if without atomics, so that a store which no lock orders is
    /// reported as a race. It also makes loom look further: loom compares each store with the last
    /// access to its word only, and overlooks the loads of other threads where the storing one has
    /// looked at the word itself in between.
    #[must_use]
    pub fn locked(&self, shared: impl IntoIterator<Item = u64>) -> Self {
        let shared = std::sync::Arc::new(shared.into_iter().collect());
        Self { shared: Some(shared), ..self.clone() }
    }

    fn is_locked(&self, offset: u64) -> bool {
        self.shared.as_ref().is_some_and(|shared| !shared.contains(&offset))
    }

    fn word(&self, offset: u64) -> &AtomicU64 {
        let word = self.inner.words.get(&offset);
        word.unwrap_or_else(|| panic!("the model has no u64 at {offset}"))
    }

    fn half(&self, offset: u64) -> &Half {
        let half = self.inner.halves.get(&offset);
        half.unwrap_or_else(|| panic!("the model has no u32 at {offset}"))
    }
}

impl Memory for ModelMemory {
    fn len_bytes(&self) -> u64 {
        self.inner.len_bytes
    }

    fn is_ours(&self) -> bool {
        true
    }

    fn load_u32(&self, offset: u64, order: Ordering) -> u32 {
        if self.is_locked(offset) {
            // SAFETY: loom checks the obligation, as in `copy_out`.
            return unsafe { self.half(offset).value.unsync_load() };
        }
        self.half(offset).value.load(order)
    }

    fn store_u32(&self, offset: u64, value: u32, order: Ordering) {
        self.half(offset).value.store(value, order);
    }

    fn swap_u32(&self, offset: u64, value: u32, order: Ordering) -> u32 {
        self.half(offset).value.swap(value, order)
    }

    fn compare_exchange_u32(
        &self,
        offset: u64,
        current: u32,
        new: u32,
        order: Ordering,
    ) -> Result<u32, u32> {
        self.half(offset).value.compare_exchange(current, new, order, Ordering::Relaxed)
    }

    fn fetch_add_u32(&self, offset: u64, value: u32, order: Ordering) -> u32 {
        self.half(offset).value.fetch_add(value, order)
    }

    fn load_u64(&self, offset: u64, order: Ordering) -> u64 {
        if self.is_locked(offset) {
            // SAFETY: loom checks the obligation, as in `copy_out`.
            return unsafe { self.word(offset).unsync_load() };
        }
        self.word(offset).load(order)
    }

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

    fn has_bytes(&self, offset: u64, bytes: &[u8]) -> bool {
        // As payload is read, so that a comparison that races is reported too.
        let mut found = vec![0; bytes.len()];
        self.copy_out(offset, &mut found);
        found == bytes
    }

    fn copy_out(&self, offset: u64, bytes: &mut [u8]) {
        for (at, chunk) in (offset..).step_by(8).zip(bytes.chunks_mut(8)) {
            if self.inner.racing {
                let word = self.load_u64(at, Ordering::Relaxed).to_ne_bytes();
                chunk.copy_from_slice(&word[..chunk.len()]);
                continue;
            }
            // SAFETY: loom checks the obligation, that no other thread stores concurrently, on this
            // very call and ends the model with an error where it does not hold.
            let word = unsafe { self.word(at).unsync_load() }.to_ne_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    fn store_fenced_u64(&self, offset: u64, value: u64) {
        if self.unfenced {
            self.swap_u64(offset, value, Ordering::AcqRel);
        } else {
            self.store_u64(offset, value, Ordering::Release);
            self.full_fence();
        }
    }

    fn light_fence(&self) {
        fence(Ordering::SeqCst);
    }

    fn heavy_fence(&self) {
        fence(Ordering::SeqCst);
    }

    fn pause(&self) {
        loom::thread::yield_now();
    }

    fn now_ns(&self) -> u64 {
        0
    }

    fn wait_u32(&self, offset: u64, expected: u32, _deadline: Deadline) {
        let half = self.half(offset);
        let guard = half.sleeping.lock().expect("loom's locks are not poisoned");
        if half.value.load(Ordering::Relaxed) == expected {
            drop(half.woken.wait(guard));
        }
    }

    fn wake_u32(&self, offset: u64, _count: u32) {
        let half = self.half(offset);
        drop(half.sleeping.lock().expect("loom's locks are not poisoned"));
        half.woken.notify_all();
    }
}
