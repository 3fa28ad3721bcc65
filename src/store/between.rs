//! A memory in which others act between any two accesses of the one who has it: a second process, at a chosen
//! moment, without threads.
//!
//! Tests of readers and of the rebuild use it. What always holds: what is to happen before an access happens once, and in order.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::memory::{Deadline, HeapMemory, Memory, Ordering, Store};

/// What happens, and before the access with which number.
type Act = (u64, Box<dyn FnOnce()>);

/// See the module. Clones are one memory, and count together.
#[derive(Clone)]
pub(super) struct Between {
    pub(super) heap: HeapMemory,
    acts: Rc<RefCell<Vec<Act>>>,
    accesses: Rc<Cell<u64>>,
    /// Whether its owner may write.
    writable: bool,
}

impl Between {
    /// For who only reads: a store panics.
    pub(super) fn read_only(heap: HeapMemory) -> Self {
        Self { heap, acts: Rc::default(), accesses: Rc::default(), writable: false }
    }

    /// For who pins, or rebuilds.
    pub(super) fn writable(heap: HeapMemory) -> Self {
        Self { writable: true, ..Self::read_only(heap) }
    }

    /// Lets something happen before the access with this number from now on. To be called in the order of the accesses.
    pub(super) fn act_at(&self, access: u64, act: impl FnOnce() + 'static) {
        self.acts.borrow_mut().push((self.accesses.get() + access, Box::new(act)));
    }

    /// Whether something has not happened: its access has not come.
    pub(super) fn is_waiting(&self) -> bool {
        !self.acts.borrow().is_empty()
    }

    /// What has not happened will not.
    pub(super) fn forget_acts(&self) {
        self.acts.borrow_mut().clear();
    }

    /// How many accesses `work` makes.
    pub(super) fn accesses_of<T>(&self, work: impl FnOnce() -> T) -> u64 {
        let before = self.accesses.get();
        drop(work());
        self.accesses.get() - before
    }

    fn then(&self) -> &HeapMemory {
        let now = self.accesses.get();
        self.accesses.set(now + 1);
        loop {
            let due = self.acts.borrow().first().is_some_and(|(at, _)| *at <= now);
            if !due {
                return &self.heap;
            }
            let act = self.acts.borrow_mut().remove(0).1;
            act();
        }
    }

    fn then_write(&self) -> &HeapMemory {
        assert!(self.writable, "a reader of copies writes nothing");
        self.then()
    }
}

impl Memory for Between {
    fn len_bytes(&self) -> u64 {
        self.heap.len_bytes()
    }
    fn is_ours(&self) -> bool {
        true
    }
    fn load_u32(&self, offset: u64, order: Ordering) -> u32 {
        self.then().load_u32(offset, order)
    }
    fn load_u64(&self, offset: u64, order: Ordering) -> u64 {
        self.then().load_u64(offset, order)
    }
    fn copy_out(&self, offset: u64, bytes: &mut [u8]) {
        for (at, chunk) in (offset..).step_by(8).zip(bytes.chunks_mut(8)) {
            self.then().copy_out(at, chunk);
        }
    }
    fn store_u64(&self, offset: u64, value: u64, order: Ordering) {
        self.then_write().store_u64(offset, value, order);
    }
    fn compare_exchange_u64(
        &self,
        offset: u64,
        current: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, u64> {
        self.then_write().compare_exchange_u64(offset, current, new, order)
    }
    fn now_ns(&self) -> u64 {
        self.heap.now_ns()
    }
    fn store_fenced_u64(&self, offset: u64, value: u64) {
        self.store_u64(offset, value, Ordering::Release);
    }
    fn light_fence(&self) {}
    fn heavy_fence(&self) {}
    fn pause(&self) {}
    fn store_u32(&self, offset: u64, value: u32, order: Ordering) {
        self.then_write().store_u32(offset, value, order);
    }
    fn swap_u32(&self, offset: u64, value: u32, order: Ordering) -> u32 {
        self.then_write().swap_u32(offset, value, order)
    }
    fn copy_in(&self, offset: u64, bytes: &[u8]) {
        for (at, chunk) in (offset..).step_by(8).zip(bytes.chunks(8)) {
            self.then_write().copy_in(at, chunk);
        }
    }
    // Neither readers nor writers do any of these.
    fn compare_exchange_u32(&self, _: u64, _: u32, _: u32, _: Ordering) -> Result<u32, u32> {
        unreachable!()
    }
    fn fetch_add_u32(&self, _: u64, _: u32, _: Ordering) -> u32 {
        unreachable!()
    }
    fn swap_u64(&self, _: u64, _: u64, _: Ordering) -> u64 {
        unreachable!()
    }
    fn fetch_add_u64(&self, _: u64, _: u64, _: Ordering) -> u64 {
        unreachable!()
    }
    fn wait_u32(&self, _: u64, _: u32, _: Deadline) {
        unreachable!()
    }
    fn wake_u32(&self, _: u64, _: u32) {
        unreachable!()
    }
}

/// Writes over all of a memory.
pub(super) fn put(heap: &HeapMemory, words: &[u64]) {
    for (at, word) in (0..).step_by(8).zip(words) {
        heap.store_u64(at, *word, Ordering::Relaxed);
    }
}

/// Does what was recorded.
pub(super) fn apply(heap: &HeapMemory, store: Store) {
    match store.width_bytes {
        4 => heap.store_u32(store.offset, store.new as u32, Ordering::Relaxed),
        _ => heap.store_u64(store.offset, store.new, Ordering::Relaxed),
    }
}
