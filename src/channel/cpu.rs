//! Whether two ends share their only processor.
//!
//! The blocking ends ask before they spin. Invariants: an end publishes its own processor and
//! compares it with the peer's; a wrong answer makes an end spin or sleep at the wrong time, within
//! its deadlines, and nothing else.
//!
//! Threads are pinned, released and moved after their ends were made. An end that sees itself on
//! another processor than it has published asks the system at once; otherwise it asks in every
//! [`WAITS_BETWEEN_LOOKS`]th wait, so that a wrong answer lasts for less than a millisecond of sleeps.

use crate::memory::{Memory, Ordering};

/// What one end knows of the processors of both.
#[derive(Debug)]
pub(super) struct CpuHint {
    /// The only processor of this end's thread, plus one; 0 = several.
    own: u32,
    own_word: u64,
    peer_word: u64,
    waits: u32,
}

/// Waits that a hint is believed for while nothing contradicts it.
const WAITS_BETWEEN_LOOKS: u32 = 16;

impl CpuHint {
    /// For an end whose hint lies at `own_word`, and its peer's at `peer_word`.
    pub(super) fn new(memory: &impl Memory, own_word: u64, peer_word: u64) -> Self {
        let mut hint = Self { own: 0, own_word, peer_word, waits: 0 };
        hint.ask(memory);
        hint
    }

    /// Before a wait: brings the hint up to date. Whether both ends can run only on the same one
    /// processor.
    pub(super) fn refresh(&mut self, memory: &impl Memory) -> bool {
        self.waits = self.waits.wrapping_add(1);
        let moved = self.own != 0 && memory.current_cpu() != self.own;
        if moved || self.waits.is_multiple_of(WAITS_BETWEEN_LOOKS) {
            self.ask(memory);
        }
        self.is_shared(memory)
    }

    /// Publishes what is known in the memory of a next incarnation, whose words lie at the same places.
    pub(super) fn publish(&self, memory: &impl Memory) {
        // A fresh word says 0.
        if self.own != 0 {
            memory.store_u32(self.own_word, self.own, Ordering::Relaxed);
        }
    }

    fn ask(&mut self, memory: &impl Memory) {
        let own = memory.only_cpu();
        if own != self.own {
            self.own = own;
            memory.store_u32(self.own_word, own, Ordering::Relaxed);
        }
    }

    /// Whether both can run only on the same one processor, as far as is known.
    #[inline]
    pub(super) fn is_shared(&self, memory: &impl Memory) -> bool {
        self.own != 0 && memory.load_u32(self.peer_word, Ordering::Relaxed) == self.own
    }
}
