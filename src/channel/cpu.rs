//! Whether two ends share their only processor.
//!
//! The blocking ends ask before they spin. What always holds: an end publishes its own processor and
//! compares; a peer that lies about its own makes this end spin or sleep at the wrong time, within
//! its deadlines, and nothing else.

use crate::memory::{Memory, Ordering};

/// What one end knows of the processors of both.
#[derive(Debug)]
pub(super) struct CpuHint {
    /// The only processor of this end's thread, plus one; 0 = several.
    own: u32,
    own_word: u64,
    peer_word: u64,
    sleeps: u32,
}

/// Threads are rarely pinned anew: ask the system at the first sleep, and then at every so many.
const SLEEPS_BETWEEN_LOOKS: u32 = 256;

impl CpuHint {
    /// For an end whose hint lies at `own_word`, and its peer's at `peer_word`.
    pub(super) fn new(memory: &impl Memory, own_word: u64, peer_word: u64) -> Self {
        let mut hint = Self { own: 0, own_word, peer_word, sleeps: 0 };
        hint.refresh(memory);
        hint
    }

    /// After a sleep: asks the system again, now and then, because threads are pinned and moved.
    pub(super) fn slept(&mut self, memory: &impl Memory) {
        if self.sleeps.is_multiple_of(SLEEPS_BETWEEN_LOOKS) {
            self.refresh(memory);
        }
        self.sleeps = self.sleeps.wrapping_add(1);
    }

    fn refresh(&mut self, memory: &impl Memory) {
        let own = memory.only_cpu();
        if own != self.own {
            self.own = own;
            memory.store_u32(self.own_word, own, Ordering::Relaxed);
        }
    }

    /// Whether both can run only on the same one processor.
    #[inline]
    pub(super) fn is_shared(&self, memory: &impl Memory) -> bool {
        self.own != 0 && memory.load_u32(self.peer_word, Ordering::Relaxed) == self.own
    }
}
