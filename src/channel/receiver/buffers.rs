//! How much memory a receiver keeps for messages to come.
//!
//! The receiver asks it at every sleep, and where it finds nothing. Invariants: a buffer that is larger
//! than [`KEPT_BYTES`], and than what was reserved, is given back after [`SLEEPS`] sleeps or [`LOOKS`]
//! vain looks since it was last needed; nothing is given back while a message lies in it.

use rkyv::util::AlignedVec;

use super::Receiver;
use super::digest::Aside;
use crate::memory::Memory;
use crate::ring::room_for;

/// What each of a receiver's buffers keeps at most, in bytes, unless more was reserved.
pub const KEPT_BYTES: usize = 1 << 20;

/// Sleeps after which a larger one is given back. The sleeps of one wait grow, so these take at least a
/// slice of 16 ms.
const SLEEPS: u32 = 3;
/// Looks that found nothing after which a larger one is given back.
const LOOKS: u32 = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Keeps {
    reserved_bytes: usize,
    sleeps: u32,
    looks: u32,
}

impl Keeps {
    pub(super) fn reserve(&mut self, len: usize) {
        self.reserved_bytes = self.reserved_bytes.max(room_for(len));
    }

    /// A long message has come.
    pub(super) fn used(&mut self) {
        (self.sleeps, self.looks) = (0, 0);
    }

    /// The receiver is about to sleep.
    #[cold]
    pub(super) fn sleeps(&mut self, buffer: &mut AlignedVec<64>, aside: &mut Aside) {
        self.sleeps = self.sleeps.saturating_add(1);
        if self.sleeps == SLEEPS {
            self.shrink(buffer, aside);
        }
    }

    /// The receiver has looked and found nothing.
    #[inline]
    pub(super) fn found_nothing(&mut self, buffer: &mut AlignedVec<64>, aside: &mut Aside) {
        self.looks = self.looks.saturating_add(1);
        if self.looks == LOOKS {
            self.shrink(buffer, aside);
        }
    }

    /// Gives back what is too large. No message may be lent.
    #[cold]
    pub(super) fn shrink(&mut self, buffer: &mut AlignedVec<64>, aside: &mut Aside) {
        let bound_bytes = self.reserved_bytes.max(KEPT_BYTES);
        if buffer.len() > bound_bytes {
            *buffer = AlignedVec::new();
        }
        aside.shrink(bound_bytes);
    }
}

impl<M: Memory> Receiver<M> {
    /// Makes room for messages of up to `len` bytes, so that receiving one takes no memory from now on;
    /// this is kept. Without it a buffer grows with the longest message received, and one that has
    /// become larger than [`KEPT_BYTES`] is given back once no message has come for some time.
    ///
    /// What is made later stays outside: messages that wait while a reply is awaited
    /// ([`finish_call`](Self::finish_call)) lie in memory of their own. Not fit for a real-time thread.
    pub fn reserve(&mut self, len: usize) {
        let longest = self.consumer.geometry().max_payload_bytes() as usize;
        self.keeps.reserve(len);
        self.grow(len.min(longest));
        if len > longest {
            self.aside.private.assembly.reserve(len);
        }
    }

    /// The buffer grows with the longest record seen, which is at most half the ring.
    #[cold]
    pub(super) fn grow(&mut self, len: usize) {
        self.keeps.used();
        if self.buffer.len() < len {
            self.buffer.resize(room_for(len), 0);
        }
    }
}
