//! A value that is pinned: where it lies, and its end.
//!
//! [`Reader`] makes one of each block that it has found. What always holds: the block stays as it is, and is given to
//! nobody, until this is dropped; what is not asked for is not read.

use super::block::Block;
use super::reader::{Reader, is_to_copy, unpin};
use crate::layout::store::block;
use crate::memory::{Memory, Ordering};

/// A block that stays as it is until this is dropped.
#[derive(Debug)]
#[must_use = "a block is pinned only as long as this lives"]
pub struct Pinned<'a, M: Memory> {
    reader: &'a Reader<M>,
    /// Offset of the block.
    block: u64,
    /// Offset of the value.
    value: u64,
    len: usize,
    pin: u32,
}

impl<M: Memory> Reader<M> {
    /// A block that was pinned with this pin.
    #[inline]
    pub(super) fn pinned(&self, pin: u32, block: Block) -> Pinned<'_, M> {
        self.used.set(self.used.get() | 1 << pin);
        let (value, len) = (block.value(), block.value_len as usize);
        Pinned { reader: self, block: block.offset, value, len, pin }
    }
}

impl<M: Memory> Pinned<'_, M> {
    /// Length of the value in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the value is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value's version: greater than that of every value before it, under any key.
    #[inline]
    pub fn version(&self) -> u64 {
        // Relaxed: it was seen when the block was pinned, and stays.
        self.reader.memory.load_u64(self.block + block::VERSION, Ordering::Relaxed)
    }

    /// Whether key and value are those that were written. Looks at all of them.
    pub(super) fn is_whole(&self) -> bool {
        self.reader.is_whole(self.block)
    }

    /// The memory that it lies in.
    #[inline]
    pub(super) fn memory(&self) -> &M {
        &self.reader.memory
    }

    /// Whether it has the pin for what is copied and unpinned at once.
    pub(super) fn is_to_be_copied(&self) -> bool {
        is_to_copy(self.pin)
    }

    /// Offset of the value.
    #[inline]
    pub(super) fn value(&self) -> u64 {
        self.value
    }

    /// The tag that it was set with.
    pub(super) fn tag(&self) -> u32 {
        let kind = self.reader.memory.load_u32(self.block + block::KIND, Ordering::Relaxed);
        block::tag(kind).unwrap_or(0)
    }

    /// Copies the value out.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut value = vec![0; self.len];
        self.reader.memory.copy_out(self.value, &mut value);
        value
    }
}

impl<M: Memory> Drop for Pinned<'_, M> {
    #[inline]
    fn drop(&mut self) {
        let reader = self.reader;
        // In a forked child it is the parent's pin.
        if reader.memory.is_ours() {
            unpin(&reader.memory, reader.pin(self.pin));
        }
        reader.used.set(reader.used.get() & !(1 << self.pin));
    }
}
