//! A memory whose owner dies after so many stores.

use std::cell::Cell;

use ringway::memory::{Deadline, Memory, ModelMemory, Ordering};

/// What it stores before its death is stored; what it does afterwards has not happened.
#[derive(Debug, Clone)]
pub struct Dying {
    memory: ModelMemory,
    /// Stores that are left.
    left: Cell<u32>,
}

impl Dying {
    pub fn after(stores: u32, memory: ModelMemory) -> Self {
        Self { memory, left: Cell::new(stores) }
    }

    fn lives(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }
}

impl Memory for Dying {
    fn len_bytes(&self) -> u64 {
        self.memory.len_bytes()
    }

    fn is_ours(&self) -> bool {
        true
    }

    fn load_u32(&self, offset: u64, order: Ordering) -> u32 {
        self.memory.load_u32(offset, order)
    }

    fn store_u32(&self, offset: u64, value: u32, order: Ordering) {
        if self.lives() {
            self.memory.store_u32(offset, value, order);
        }
    }

    fn swap_u32(&self, offset: u64, value: u32, order: Ordering) -> u32 {
        if self.lives() { self.memory.swap_u32(offset, value, order) } else { 0 }
    }

    fn compare_exchange_u32(
        &self,
        _offset: u64,
        _current: u32,
        _new: u32,
        _order: Ordering,
    ) -> Result<u32, u32> {
        unreachable!("writers do not exchange")
    }

    fn fetch_add_u32(&self, _offset: u64, _value: u32, _order: Ordering) -> u32 {
        unreachable!("writers do not add")
    }

    fn load_u64(&self, offset: u64, order: Ordering) -> u64 {
        self.memory.load_u64(offset, order)
    }

    fn store_u64(&self, offset: u64, value: u64, order: Ordering) {
        if self.lives() {
            self.memory.store_u64(offset, value, order);
        }
    }

    fn swap_u64(&self, _offset: u64, _value: u64, _order: Ordering) -> u64 {
        unreachable!("writers do not swap")
    }

    fn compare_exchange_u64(
        &self,
        _offset: u64,
        _current: u64,
        _new: u64,
        _order: Ordering,
    ) -> Result<u64, u64> {
        unreachable!("writers do not exchange")
    }

    fn fetch_add_u64(&self, _offset: u64, _value: u64, _order: Ordering) -> u64 {
        unreachable!("writers do not add")
    }

    fn copy_in(&self, offset: u64, bytes: &[u8]) {
        if self.lives() {
            self.memory.copy_in(offset, bytes);
        }
    }

    fn copy_out(&self, offset: u64, bytes: &mut [u8]) {
        self.memory.copy_out(offset, bytes);
    }

    fn light_fence(&self) {
        self.memory.light_fence();
    }

    fn heavy_fence(&self) {
        self.memory.heavy_fence();
    }

    fn pause(&self) {
        self.memory.pause();
    }

    fn now_ns(&self) -> u64 {
        self.memory.now_ns()
    }

    fn wait_u32(&self, offset: u64, expected: u32, deadline: Deadline) {
        self.memory.wait_u32(offset, expected, deadline);
    }

    fn wake_u32(&self, offset: u64, count: u32) {
        if self.lives() {
            self.memory.wake_u32(offset, count);
        }
    }
}
