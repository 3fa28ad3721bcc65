//! One look at what a slot names, and what shows afterwards that it was no mixture.
//!
//! Searches and iterators look with it. The order of its loads is what `SAFETY.md` argues with.
//! What always holds: an answer other than "changed" is about a block that the slot named at one moment, directly or by way
//! of a pending block whose batch chose it at that moment.

use super::CopyingReader;
use crate::layout::store::{block, page, slot};
use crate::memory::{Memory, Ordering};
use crate::store::block::Block;
use crate::store::pending::Pending;
use crate::store::root::Root;

/// Where a block was found: what must still be so for slot and block to belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) root: Root,
    pub(super) slot: u64,
    /// The slot's word.
    pub(super) word: u64,
}

/// What shows that a block is the one that it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    /// Where the block starts.
    offset: u64,
    version: u64,
    /// Offset of the epoch of the page that it starts in, and the epoch.
    epoch: (u64, u64),
}

/// A pending block that chose what was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choice {
    stamp: Stamp,
    pending: Pending,
    chosen: u64,
}

/// A block that belonged to its slot when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) block: Block,
    link: Link,
    stamp: Stamp,
    by: Option<Choice>,
}

/// What a look at a slot found.
pub(super) enum Look {
    /// A block, and what was made of it.
    Block(Seen, bool),
    /// No key: that of a batch that is not committed, or that deletes it.
    Nothing,
    /// Something has changed meanwhile.
    Changed,
    Damage,
}

/// Why a word has no stamp.
enum Missed {
    Changed,
    Damage,
}

impl Stamp {
    /// Whether it is the same block as before. Behind an acquire fence, which pairs with the release fences of
    /// `Block::write` and `spans::take`: where anything that was read of the block was written for
    /// another one, this look sees that one's version, or the zero before it, or that the page was taken.
    fn holds(&self, memory: &impl Memory) -> bool {
        let Self { offset, version, epoch: (word, epoch) } = *self;
        // Acquire: a version that has come back, because a block was moved there and back, is seen with the epoch
        // that was raised before.
        memory.load_u64(offset + block::VERSION, Ordering::Acquire) == version
            && memory.load_u64(word, Ordering::Relaxed) == epoch
    }
}

impl<M: Memory> CopyingReader<M> {
    /// Looks at the block that a slot names, and asks it something.
    pub(super) fn look(&self, link: Link, ask: impl FnOnce(&Block) -> bool) -> Look {
        let Self { memory, geometry, .. } = self;
        let stamp = match self.stamp(&link, link.word) {
            Ok(stamp) => stamp,
            Err(Missed::Changed) => return Look::Changed,
            Err(Missed::Damage) => return Look::Damage,
        };
        let found = Block::read(memory, stamp.offset, geometry.private() - stamp.offset);
        if found.is_err()
            && let Some(pending) = Pending::read(memory, geometry, stamp.offset)
        {
            return self.look_behind(link, stamp, pending, ask);
        }
        let answer = found.is_ok_and(|block| ask(&block));
        memory.acquire_fence();
        // The slot before the version: what the slot names now is not newer than what that look sees.
        if !(self.is_linked(&link) && stamp.holds(memory)) {
            return Look::Changed;
        }
        match found {
            Ok(block) if block.version == stamp.version => {
                Look::Block(Seen { block, link, stamp, by: None }, answer)
            }
            // Nobody who keeps to the rules leaves that in a slot, or another version for a moment.
            _ => Look::Damage,
        }
    }

    /// Looks at what a pending block stands for.
    #[cold]
    fn look_behind(
        &self,
        link: Link,
        first: Stamp,
        pending: Pending,
        ask: impl FnOnce(&Block) -> bool,
    ) -> Look {
        let Self { memory, geometry, .. } = self;
        // What it chooses is not given back before the slot has left the pending block.
        let is_chosen = || {
            memory.acquire_fence();
            self.is_linked(&link) && first.holds(memory)
        };
        let or_changed = |look| if is_chosen() { look } else { Look::Changed };
        let Some(chosen) = pending.stands_for(memory, geometry) else {
            return or_changed(Look::Damage);
        };
        if chosen <= slot::TOMBSTONE {
            return or_changed(Look::Nothing);
        }
        let stamp = match self.stamp(&link, chosen) {
            Ok(stamp) => stamp,
            Err(Missed::Damage) => return or_changed(Look::Damage),
            Err(Missed::Changed) => return Look::Changed,
        };
        let found = Block::read(memory, stamp.offset, geometry.private() - stamp.offset);
        let answer = found.is_ok_and(|block| ask(&block));
        if !(is_chosen() && stamp.holds(memory)) {
            return Look::Changed;
        }
        let by = Some(Choice { stamp: first, pending, chosen });
        match found {
            Ok(block) if block.version == stamp.version => {
                Look::Block(Seen { block, link, stamp, by }, answer)
            }
            _ => Look::Damage,
        }
    }

    /// The stamp of the block that a word names, which came of a slot.
    fn stamp(&self, link: &Link, word: u64) -> Result<Stamp, Missed> {
        let Self { memory, geometry, .. } = self;
        let offset = slot::block(word);
        let page = match geometry.page_of(offset) {
            Some(page) if geometry.private() - offset >= block::KEY => page,
            _ if self.is_linked(link) => return Err(Missed::Damage),
            _ => return Err(Missed::Changed),
        };
        // Before the slot: whoever sees that the page was taken sees that no slot names what was there
        // before. Pairs with the Release in spans::take.
        let epoch_word = geometry.descriptor(page, page::EPOCH);
        let epoch = memory.load_u64(epoch_word, Ordering::Acquire);
        // Before the version: so what is there now was written since the page was taken.
        if memory.load_u64(link.slot, Ordering::Acquire) != link.word {
            return Err(Missed::Changed);
        }
        // Pairs with the Release in Block::write: the rest of the block is at least as new.
        let version = memory.load_u64(offset + block::VERSION, Ordering::Acquire);
        Ok(Stamp { offset, version, epoch: (epoch_word, epoch) })
    }

    /// Whether slot and root say what they said.
    fn is_linked(&self, link: &Link) -> bool {
        self.memory.load_u64(link.slot, Ordering::Acquire) == link.word
            && link.root.is_current(&self.memory)
    }

    /// Whether a block is still the one that was seen, so that all that was read of it since is its own.
    pub(super) fn is_intact(&self, seen: &Seen) -> bool {
        self.memory.acquire_fence();
        seen.stamp.holds(&self.memory)
    }

    /// Whether its key still has the value that was seen.
    pub(super) fn is_current(&self, seen: &Seen) -> bool {
        let Self { memory, geometry, .. } = self;
        let is_chosen = |by: &Choice| by.pending.stands_for(memory, geometry) == Some(by.chosen);
        // The slot before the versions, as in `look`.
        seen.by.as_ref().is_none_or(is_chosen)
            && self.is_linked(&seen.link)
            && self.is_intact(seen)
            && seen.by.is_none_or(|by| by.stamp.holds(memory))
    }
}
