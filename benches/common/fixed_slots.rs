//! A queue of fixed-size slots with two indices, each side caching the other's.
//!
//! A row of the throughput bench: the algorithm of rigtorp's `SPSCQueue` (C++), written anew over
//! shared memory.
//! What always holds: one slot stays empty, so that equal indices mean empty; slots are a multiple
//! of 8 bytes and messages are of the size that both sides know.
#![allow(clippy::disallowed_types)] // see shared.rs

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use super::case::Transport;
use super::link::{Bytes, Copied, Spec};
use super::shared::{Shared, Spin};

/// Where the words of one direction lie, in bytes from its start.
const WRITE_INDEX: usize = 0;
const READ_INDEX: usize = 128;
const SLOTS: usize = 256;

/// One end: a queue out and a queue in.
#[derive(Debug)]
pub struct FixedSlots {
    shared: Shared,
    slots: usize,
    slot_bytes: usize,
    out: Side,
    inbox: Side,
}

/// This side's index of one queue, and what it last saw of the other's.
#[derive(Debug)]
struct Side {
    start: usize,
    mine: usize,
    theirs: usize,
}

impl FixedSlots {
    fn geometry(spec: &Spec) -> (usize, usize, usize) {
        let slot_bytes = spec.size.next_multiple_of(8);
        let slots = spec.capacity / slot_bytes + 1;
        (slots, slot_bytes, (SLOTS + slots * slot_bytes).next_multiple_of(4096))
    }

    fn new(shared: Shared, spec: &Spec, out: usize, inbox: usize) -> Self {
        let (slots, slot_bytes, bytes) = Self::geometry(spec);
        let side = |number| Side { start: number * bytes, mine: 0, theirs: 0 };
        Self { shared, slots, slot_bytes, out: side(out), inbox: side(inbox) }
    }

    #[inline(always)]
    fn after(&self, index: usize) -> usize {
        if index + 1 == self.slots { 0 } else { index + 1 }
    }
}

impl Bytes for FixedSlots {
    #[inline]
    fn write(&mut self, message: &[u8]) {
        let next = self.after(self.out.mine);
        let mut spin = Spin::default();
        while next == self.out.theirs {
            // Pairs with the Release in `read`.
            let word = self.shared.word(self.out.start + READ_INDEX);
            self.out.theirs = word.load(Ordering::Acquire) as usize;
            spin.turn();
        }
        let slot = self.out.start + SLOTS + self.out.mine * self.slot_bytes;
        // SAFETY: a slot from the write index to before the read index is the sender's.
        unsafe { self.shared.copy_in(slot, message) };
        self.out.mine = next;
        // Pairs with the Acquire in `read`.
        self.shared.word(self.out.start + WRITE_INDEX).store(next as u64, Ordering::Release);
    }

    #[inline]
    fn read(&mut self, buffer: &mut [u8]) {
        let mut spin = Spin::default();
        while self.inbox.mine == self.inbox.theirs {
            // Pairs with the Release in `write`.
            let word = self.shared.word(self.inbox.start + WRITE_INDEX);
            self.inbox.theirs = word.load(Ordering::Acquire) as usize;
            spin.turn();
        }
        let slot = self.inbox.start + SLOTS + self.inbox.mine * self.slot_bytes;
        // SAFETY: a slot from the read index to before the write index is the receiver's.
        unsafe { self.shared.copy_out(slot, buffer) };
        self.inbox.mine = self.after(self.inbox.mine);
        // Pairs with the Acquire in `write`.
        let word = self.shared.word(self.inbox.start + READ_INDEX);
        word.store(self.inbox.mine as u64, Ordering::Release);
    }
}

impl Transport for FixedSlots {
    type End = Copied<Self>;

    fn create(spec: &Spec) -> (Self::End, Vec<OwnedFd>) {
        let (_, _, bytes) = Self::geometry(spec);
        let shared = Shared::create(2 * bytes);
        let fd = shared.fd().try_clone_to_owned().expect("a second descriptor");
        (Copied::new(Self::new(shared, spec, 0, 1), spec), vec![fd])
    }

    fn attach(spec: &Spec, mut fds: Vec<OwnedFd>) -> Self::End {
        Copied::new(Self::new(Shared::attach(fds.remove(0)), spec, 1, 0), spec)
    }
}
