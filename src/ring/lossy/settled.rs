//! How far the consumer is, and what it has lost: one word, and two pairs of words.
//!
//! The consumer publishes it, the producer and the consumer's successor read it. What always holds:
//! whatever the moment at which the consumer dies, the losses that `settled` makes valid are those
//! that belong to it.

use super::LossyGeometry;
use super::geometry::is_before;
use crate::layout::ring;
use crate::memory::{Memory, Ordering};

/// A reader that sees the words change looks again, so often.
const MAX_LOOKS: u32 = 64;

/// How far a consumer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settled {
    /// The first number that is neither taken nor lost.
    pub(super) next: u64,
    /// How many before it were lost.
    pub(super) lost: u64,
    /// Which pair says so.
    pair: usize,
}

impl Settled {
    /// What is published. A live consumer may move on meanwhile.
    pub(super) fn load<M: Memory>(memory: &M, geometry: &LossyGeometry) -> Self {
        let mut found = Self::load_once(memory, geometry);
        for _ in 0..MAX_LOOKS {
            // Pairs with the release fence in `store`: whoever has seen a pair that is being
            // written sees that it is no longer the one in effect.
            memory.acquire_fence();
            let again = memory.load_u64(geometry.control(ring::SETTLED), Ordering::Relaxed);
            if again == found.next {
                break;
            }
            found = Self::load_once(memory, geometry);
        }
        found
    }

    fn load_once<M: Memory>(memory: &M, geometry: &LossyGeometry) -> Self {
        // Pairs with the Release in `store`: the pair that belongs to it is visible.
        let next = memory.load_u64(geometry.control(ring::SETTLED), Ordering::Acquire);
        let pairs = ring::LOSSES.map(|pair| {
            let word = |word, order| memory.load_u64(geometry.control(word), order);
            // Acquire pairs with the Release in `mend`.
            (word(pair, Ordering::Acquire), word(pair + 8, Ordering::Relaxed))
        });
        let distance = |pair: usize| next.wrapping_sub(pairs[pair].0);
        let pair = usize::from(distance(1) < distance(0));
        let (as_of, lost) = pairs[pair];
        let lost = if is_before(next, as_of) { 0 } else { lost };
        Self { next, lost, pair }
    }

    /// For a consumer that attaches: a predecessor may have died with a pair half written, which is
    /// beyond `settled` now and will not be for ever.
    pub(super) fn mend<M: Memory>(&mut self, memory: &M, geometry: &LossyGeometry) {
        let other = geometry.control(ring::LOSSES[1 - self.pair]);
        if is_before(self.next, memory.load_u64(other, Ordering::Relaxed)) {
            memory.store_u64(other + 8, self.lost, Ordering::Relaxed);
            // Pairs with the Acquire in `load_once`: in effect from here on, and then whole.
            memory.store_u64(other, self.next, Ordering::Release);
            // Of two with the same number the first is in effect: the other is written next.
            self.pair = Self::load_once(memory, geometry).pair;
        }
    }

    /// Publishes that everything before `next` is settled, `lost` messages of it by being lost.
    #[inline]
    pub(super) fn store<M: Memory>(
        &mut self,
        memory: &M,
        geometry: &LossyGeometry,
        next: u64,
        lost: u64,
    ) {
        if lost != self.lost {
            self.store_lost(memory, geometry, next, lost);
        }
        self.next = next;
        // Pairs with the Acquire in `load_once`.
        memory.store_u64(geometry.control(ring::SETTLED), next, Ordering::Release);
    }

    #[cold]
    fn store_lost<M: Memory>(
        &mut self,
        memory: &M,
        geometry: &LossyGeometry,
        next: u64,
        lost: u64,
    ) {
        // Pairs with the acquire fence in `load`.
        memory.release_fence();
        // Not in effect before `settled` says `next`: it is beyond.
        self.pair = 1 - self.pair;
        let pair = geometry.control(ring::LOSSES[self.pair]);
        memory.store_u64(pair, next, Ordering::Relaxed);
        memory.store_u64(pair + 8, lost, Ordering::Relaxed);
        self.lost = lost;
    }
}
