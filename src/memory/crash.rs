//! A memory that records every store, so that whatever a crash may leave behind can be rebuilt.
//!
//! The crash tests and the fuzzers run an operation over it, and then let a successor loose on each
//! image that the operation could have left. What always holds: it behaves as [`HeapMemory`] does,
//! and every image it rebuilds is one that the orderings of the recorded stores allow.
//!
//! # Why it records instead of stopping
//!
//! A memory that stops after the n-th store has to unwind through the protocol, which no killed
//! process does: destructors would run that never run in earnest. It also shows program order only.
//! A store with `Relaxed` ordering may become visible before stores that precede it, those with
//! `Release` included, so a header that is stored `Relaxed` by mistake looks right to a memory
//! that follows program order, and wrong to this one.
//!
//! # Which images
//!
//! A crash leaves a set of the recorded stores. A set is possible if
//!
//! - with a `Release` (or `AcqRel`, `SeqCst`) store, it holds every store before that one;
//! - with any store behind a heavy or a release fence, it holds every store before that fence. A
//!   light fence orders nothing here, because it may be for the compiler only.
//!
//! For each `Release` store, and for none, taken as the last one visible, the `Relaxed` stores
//! behind it (up to the next such fence) are free. Where there are at most six of them every
//! subset is built; where there are more: every prefix (program order is among these), every suffix,
//! every single one, and all but every single one. Words are never torn; two stores to one word keep
//! their order.
//!
//! Only one process may act between [`CrashMemory::record`] and [`CrashMemory::crash`]: what one
//! does after reading the other's `Release` cannot move before it, and that is not recorded.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::heap::half_shift;
use super::{Deadline, HeapMemory, Memory, Ordering};

/// Above this many free stores not every subset is built.
const EXHAUSTIVE: usize = 6;

/// Zeroed memory on the heap that can record its stores; clones share memory and record.
#[derive(Debug, Clone)]
pub struct CrashMemory {
    heap: HeapMemory,
    recording: Arc<Mutex<Option<Crash>>>,
}

/// One recorded store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Store {
    /// Where, in bytes.
    pub offset: u64,
    /// 4 or 8.
    pub width_bytes: u8,
    /// What stood there.
    pub old: u64,
    /// What was stored.
    pub new: u64,
    /// How it is ordered behind the stores before it.
    pub order: Ordering,
}

impl Store {
    /// Whether every earlier store is visible to whoever sees this one.
    fn is_release(&self) -> bool {
        !matches!(self.order, Ordering::Relaxed | Ordering::Acquire)
    }

    fn apply(&self, words: &mut [u64]) {
        let word = &mut words[usize::try_from(self.offset / 8).expect("offset was checked")];
        if self.width_bytes == 8 {
            *word = self.new;
        } else {
            let shift = half_shift(self.offset);
            *word = *word & !(u64::from(u32::MAX) << shift) | self.new << shift;
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Store(Store),
    /// Heavy, or release: orders all stores before it before all behind it.
    Fence,
}

/// What [`CrashMemory`] has recorded: the words at the start, and every store since.
#[derive(Debug, Clone)]
pub struct Crash {
    before: Vec<u64>,
    steps: Vec<Step>,
}

/// One memory that a crash may leave behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashImage {
    words: Vec<u64>,
    /// For each recorded store, whether it is visible.
    visible: Vec<bool>,
}

impl CrashMemory {
    /// `len_bytes` zero bytes, rounded up to a whole word.
    pub fn new(len_bytes: u64) -> Self {
        Self::over(HeapMemory::new(len_bytes))
    }

    /// A memory that holds these words.
    pub fn from_words(words: &[u64]) -> Self {
        Self::over(HeapMemory::from_words(words))
    }

    fn over(heap: HeapMemory) -> Self {
        Self { heap, recording: Arc::default() }
    }

    /// A copy of all words.
    pub fn to_words(&self) -> Vec<u64> {
        self.heap.to_words()
    }

    /// Records from here on; what was recorded before is forgotten.
    pub fn record(&self) {
        let before = self.heap.to_words();
        self.with(|recording| *recording = Some(Crash { before, steps: Vec::new() }));
    }

    /// Stops recording. Returns what was recorded, nothing if nothing was.
    pub fn crash(&self) -> Crash {
        self.with(Option::take)
            .unwrap_or_else(|| Crash { before: self.heap.to_words(), steps: Vec::new() })
    }

    fn with<T>(&self, f: impl FnOnce(&mut Option<Crash>) -> T) -> T {
        f(&mut self.recording.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn step(&self, step: Step) {
        self.with(|recording| {
            if let Some(crash) = recording {
                crash.steps.push(step);
            }
        });
    }

    fn stored_u32(&self, offset: u64, old: u32, new: u32, order: Ordering) {
        let (old, new) = (old.into(), new.into());
        self.step(Step::Store(Store { offset, width_bytes: 4, old, new, order }));
    }

    fn stored_u64(&self, offset: u64, old: u64, new: u64, order: Ordering) {
        self.step(Step::Store(Store { offset, width_bytes: 8, old, new, order }));
    }
}

impl Crash {
    /// The recorded stores in program order.
    pub fn stores(&self) -> impl Iterator<Item = Store> + '_ {
        self.steps.iter().filter_map(|step| match step {
            Step::Store(store) => Some(*store),
            Step::Fence => None,
        })
    }

    /// Every different memory that the crash may have left, as described in this module's source.
    /// The first is the memory as it was, the last as it would be without a crash.
    pub fn images(&self) -> Vec<CrashImage> {
        let mut seen = HashSet::new();
        let mut images: Vec<_> =
            self.sets().into_iter().map(|visible| self.image(visible)).collect();
        images.retain(|image| seen.insert(image.words.clone()));
        images
    }

    /// The [`images`](Self::images) in which no store has overtaken another, and about `count` of the
    /// others, spread evenly: for recordings that can leave more than can be looked at. The same one may
    /// come twice.
    pub fn sample(&self, count: usize) -> impl Iterator<Item = CrashImage> + '_ {
        let sets = self.sets();
        let step = (sets.len() / count.max(1)).max(1);
        let chosen = move |(index, visible): &(usize, Vec<bool>)| {
            index.is_multiple_of(step) || visible.is_sorted_by(|earlier, later| earlier >= later)
        };
        sets.into_iter().enumerate().filter(chosen).map(|(_, visible)| self.image(visible))
    }

    /// One of the memories that the crash may have left; which, a fuzzer says.
    pub fn any_image(&self, choice: usize) -> CrashImage {
        let mut sets = self.sets();
        self.image(sets.swap_remove(choice % sets.len()))
    }

    /// The memory that a crash before the store with the number `at`, modulo one more than there are, may have
    /// left. In `late` each bit stands for every 64th of the stores that no order holds: where it is set, the
    /// store has overtaken others, or was overtaken; 0 is program order. Costs no more than the words and
    /// the stores, however many images there are.
    pub fn image_at(&self, at: usize, late: u64) -> CrashImage {
        let at = at % (self.stores().count() + 1);
        let (mut visible, mut ordered) = (Vec::new(), 0);
        for step in &self.steps {
            match step {
                Step::Store(store) => {
                    // Whatever comes before the last release, or a fence, before the crash is there.
                    let number = visible.len();
                    visible.push(number < at);
                    if number < at && store.is_release() {
                        ordered = number + 1;
                    }
                }
                Step::Fence if visible.len() <= at => ordered = visible.len(),
                // What is behind the first fence behind the crash is not.
                Step::Fence => break,
            }
        }
        let behind = self.stores().zip(&mut visible).skip(ordered);
        let free = behind.filter(|(store, _)| !store.is_release());
        for (number, (_, visible)) in free.enumerate() {
            *visible ^= late >> (number % 64) & 1 == 1;
        }
        visible.resize(self.stores().count(), false);
        self.image(visible)
    }

    fn image(&self, visible: Vec<bool>) -> CrashImage {
        let mut words = self.before.clone();
        for (store, _) in self.stores().zip(&visible).filter(|(_, visible)| **visible) {
            store.apply(&mut words);
        }
        CrashImage { words, visible }
    }

    /// The sets of stores that may be visible together.
    fn sets(&self) -> Vec<Vec<bool>> {
        let stores: Vec<Store> = self.stores().collect();
        let mut sets = Vec::new();
        let mut start = 0;
        for epoch in self.steps.split(|step| matches!(step, Step::Fence)) {
            let end = start + epoch.len();
            let releases = (start..end).filter(|at| stores[*at].is_release());
            let mut visible = vec![false; stores.len()];
            for ordered in std::iter::once(start).chain(releases.map(|at| at + 1)) {
                visible[..ordered].fill(true);
                let free: Vec<usize> =
                    (ordered..end).filter(|at| !stores[*at].is_release()).collect();
                for subset in subsets(free.len()) {
                    for (at, taken) in free.iter().zip(&subset) {
                        visible[*at] = *taken;
                    }
                    sets.push(visible.clone());
                }
            }
            start = end;
        }
        sets
    }
}

/// The choices among `free` stores; see the module's documentation.
fn subsets(free: usize) -> Vec<Vec<bool>> {
    if free <= EXHAUSTIVE {
        let all = 0..1_u32 << free;
        return all.map(|bits| (0..free).map(|at| bits >> at & 1 == 1).collect()).collect();
    }
    let choose = |taken: &dyn Fn(usize) -> bool| (0..free).map(taken).collect();
    let mut family = Vec::new();
    for n in 0..=free {
        family.push(choose(&|at| at < n));
        family.push(choose(&|at| at >= n));
        family.push(choose(&|at| at == n));
        family.push(choose(&|at| at != n));
    }
    family
}

impl CrashImage {
    /// The words.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// A memory to recover on.
    pub fn to_heap(&self) -> HeapMemory {
        HeapMemory::from_words(&self.words)
    }

    /// A memory to recover on, and to crash in again.
    pub fn to_memory(&self) -> CrashMemory {
        CrashMemory::from_words(&self.words)
    }

    /// Writes the image over the start of another memory.
    pub fn write_to(&self, memory: &impl Memory) {
        for (at, word) in (0..).step_by(8).zip(&self.words) {
            memory.store_u64(at, *word, Ordering::Relaxed);
        }
    }
}

/// Which of the recorded stores are visible, for messages of failed tests.
impl fmt::Display for CrashImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "crash image with stores ")?;
        self.visible.iter().try_for_each(|visible| f.write_str(if *visible { "x" } else { "." }))
    }
}

impl Memory for CrashMemory {
    fn len_bytes(&self) -> u64 {
        self.heap.len_bytes()
    }

    fn is_ours(&self) -> bool {
        true
    }

    fn load_u32(&self, offset: u64, order: Ordering) -> u32 {
        self.heap.load_u32(offset, order)
    }

    fn store_u32(&self, offset: u64, value: u32, order: Ordering) {
        let old = self.heap.swap_u32(offset, value, Ordering::SeqCst);
        self.stored_u32(offset, old, value, order);
    }

    fn swap_u32(&self, offset: u64, value: u32, order: Ordering) -> u32 {
        let old = self.heap.swap_u32(offset, value, order);
        self.stored_u32(offset, old, value, order);
        old
    }

    fn compare_exchange_u32(
        &self,
        offset: u64,
        current: u32,
        new: u32,
        order: Ordering,
    ) -> Result<u32, u32> {
        let old = self.heap.compare_exchange_u32(offset, current, new, order)?;
        self.stored_u32(offset, old, new, order);
        Ok(old)
    }

    fn fetch_add_u32(&self, offset: u64, value: u32, order: Ordering) -> u32 {
        let old = self.heap.fetch_add_u32(offset, value, order);
        self.stored_u32(offset, old, old.wrapping_add(value), order);
        old
    }

    fn load_u64(&self, offset: u64, order: Ordering) -> u64 {
        self.heap.load_u64(offset, order)
    }

    fn store_u64(&self, offset: u64, value: u64, order: Ordering) {
        let old = self.heap.swap_u64(offset, value, Ordering::SeqCst);
        self.stored_u64(offset, old, value, order);
    }

    fn swap_u64(&self, offset: u64, value: u64, order: Ordering) -> u64 {
        let old = self.heap.swap_u64(offset, value, order);
        self.stored_u64(offset, old, value, order);
        old
    }

    fn compare_exchange_u64(
        &self,
        offset: u64,
        current: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, u64> {
        let old = self.heap.compare_exchange_u64(offset, current, new, order)?;
        self.stored_u64(offset, old, new, order);
        Ok(old)
    }

    fn fetch_add_u64(&self, offset: u64, value: u64, order: Ordering) -> u64 {
        let old = self.heap.fetch_add_u64(offset, value, order);
        self.stored_u64(offset, old, old.wrapping_add(value), order);
        old
    }

    fn copy_in(&self, offset: u64, bytes: &[u8]) {
        for (at, chunk) in (offset..).step_by(8).zip(bytes.chunks(8)) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.store_u64(at, u64::from_ne_bytes(word), Ordering::Relaxed);
        }
    }

    fn copy_out(&self, offset: u64, bytes: &mut [u8]) {
        self.heap.copy_out(offset, bytes);
    }

    fn light_fence(&self) {
        self.heap.light_fence();
    }

    fn heavy_fence(&self) {
        self.heap.heavy_fence();
        self.step(Step::Fence);
    }

    fn full_fence(&self) {
        self.heap.full_fence();
        self.step(Step::Fence);
    }

    fn release_fence(&self) {
        self.heap.release_fence();
        self.step(Step::Fence);
    }

    fn pause(&self) {
        self.heap.pause();
    }

    fn now_ns(&self) -> u64 {
        self.heap.now_ns()
    }

    fn wait_u32(&self, offset: u64, expected: u32, deadline: Deadline) {
        self.heap.wait_u32(offset, expected, deadline);
    }

    fn wake_u32(&self, offset: u64, count: u32) {
        self.heap.wake_u32(offset, count);
    }
}

#[cfg(test)]
#[path = "crash_tests.rs"]
mod tests;
