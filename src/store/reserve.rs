//! The reserve: room for changes that need no more than they free.
//!
//! Setting, batches and `clear` use it where no other room is left; new values leave it alone.
//!
//! Invariants:
//! - As many pages as the reserve has are free, wherever they lie, but for what a change in progress has taken, and
//!   what readers keep from being given back.
//! - Whoever has used it moves what came to lie there into the room that the old values leave.

use super::arena;
use super::classes;
use super::compact::Target;
use super::core::{Core, Refusal};
use super::spans::{self, Room, Span};
use super::table::Place;
use crate::memory::Memory;

impl<M: Memory> Core<M> {
    /// Whether the key has a value whose object is long enough for `len` bytes.
    pub(super) fn replaces_as_much(&self, key: &[u8], len: u64) -> Result<bool, Refusal> {
        let Place::Present { block, .. } = self.find(key)?.1 else { return Ok(false) };
        Ok(arena::room_bytes(&self.memory, &self.geometry, block.offset)? >= len)
    }

    /// Does something that gives back as much room as it takes, and may take it from the reserve.
    #[cold]
    pub(super) fn with_reserve<T>(
        &mut self,
        operation: impl FnOnce(&mut Self) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.refill_reserve()?;
        self.room = Room::Reserved;
        let done = operation(self);
        self.room = Room::Free;
        if done.is_ok() {
            // It has happened. Damage is there for the next operation too, which returns it.
            let _ = self.refill_reserve();
        }
        done
    }

    /// Moves what lies in the spare pages to where there is room.
    pub(super) fn refill_reserve(&mut self) -> Result<(), Refusal> {
        self.give_back()?;
        let spare = self.geometry.spare_pages();
        let mut page = spare.start;
        while page < spare.end {
            let Some(span) = spans::starting_at(&self.memory, &self.geometry, page)? else {
                page += 1;
                continue;
            };
            page += span.pages;
            self.move_out(span)?;
        }
        self.give_back()
    }

    /// Moves what a span holds to free pages, or else into other spans of its class, as far as there is room.
    fn move_out(&mut self, span: Span) -> Result<(), Refusal> {
        let end = self.geometry.spare_pages().start;
        if let Some(page) = spans::find_run(&self.memory, &self.geometry, 0..end, span.pages)? {
            return self.move_span(span, page).map(drop);
        }
        let Some(blocks) = self.all_movable(span)? else { return Ok(()) };
        if classes::get(span.class).is_none() {
            return Ok(());
        }
        let listed =
            spans::listed(&self.memory, &self.geometry, span.class).ok_or(spans::Damage)?;
        let mut others = listed.into_iter().filter(|other| other.page < end);
        let mut target = others.next();
        for block in blocks {
            while let Some(other) = target
                && !self.move_block(block, Target::In(other))?
            {
                target = others.next();
            }
        }
        Ok(())
    }
}
