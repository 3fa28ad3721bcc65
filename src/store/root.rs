//! The root: which table is current, and how often another one became so.
//!
//! Readers compare two looks at it; writers switch tables through it.
//!
//! Invariants:
//! - The generation is stored before the root word, both with Release. It is never lowered and never repeats.
//! - A table is complete before the generation that belongs to it is stored.
//! - A look loads the root word first, then the generation, both with Acquire.
//!
//! # What two equal looks prove
//!
//! Let both looks see the word `w` and the generation `g`. Let switch `n` store generation `n`, then its root word.
//! Loads of slots lie between the two looks. Then the table at `w` that these loads saw is current at the second
//! look, and no other one became current between the two looks.
//!
//! 1. The second look's word comes from switch `g`. The first look saw generation `g` before any slot was loaded.
//!    Switch `g` had completed its table before it stored `g`. So the slots belong to the table of switch `g`. No
//!    later switch began before the second look, since that one still saw `g` behind the word.
//! 2. The second look's word comes from switch `g - 1`: the writer is between its two stores. The first look saw
//!    `g`, which is stored behind the root word of switch `g - 1`. So the slots belong to the table of switch
//!    `g - 1`, which is current until the next store.
//! 3. It comes from an older switch. That cannot be: a reader that has seen `g` sees the root word of switch
//!    `g - 1` or of a later one.
//! 4. It comes from a later switch `n > g`. That cannot be: a reader that has seen its word sees a generation of
//!    `n` or more.
//!
//! A table may come back to the place of an older one, so `w` alone proves nothing. Were the generation loaded
//! first at the second look, several switches could lie between it and the word.
//!
//! A writer that dies between the two stores leaves case 2. The next switch begins from the generation that it
//! finds, so `g` is used by no other one.

use crate::layout::store::{GENERATION, ROOT};
use crate::memory::{Memory, Ordering};

/// One look at the root. See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Root {
    /// Offset of the table.
    pub(super) table: u64,
    generation: u64,
}

impl Root {
    /// Looks at the root.
    #[inline]
    pub(super) fn load(memory: &impl Memory) -> Self {
        // Both pair with the Release stores in `switch_to`: the table's slots are visible. The order is the
        // module's.
        let table = memory.load_u64(ROOT, Ordering::Acquire);
        Self { table, generation: memory.load_u64(GENERATION, Ordering::Acquire) }
    }

    /// What would name a table that is not the current one.
    pub(super) fn of_next(table: u64) -> Self {
        Self { table, generation: 0 }
    }

    /// Whether the root is still the same. A load before this one lies before the second look.
    #[inline]
    pub(super) fn is_current(self, memory: &impl Memory) -> bool {
        Self::load(memory) == self
    }
}

/// Makes the table at this offset the current one. All of it has been written.
pub(super) fn switch_to(memory: &impl Memory, table: u64) {
    let generation = memory.load_u64(GENERATION, Ordering::Relaxed).wrapping_add(1);
    // Both pair with the Acquire loads in `Root::load`.
    memory.store_u64(GENERATION, generation, Ordering::Release);
    memory.store_u64(ROOT, table, Ordering::Release);
}
