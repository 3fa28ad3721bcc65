//! Compaction: live blocks are moved together where what is free lies in too many places.
//!
//! A writer that finds no room calls it, after limbo has been looked through.
//! What always holds: a block is moved by an operation of its own, which ends with one store of the slot that names
//! it; readers that have pinned the old copy keep it; what no slot names, and what is pinned, stays where it is.
//!
//! # What it costs
//!
//! A set that finds no room pays for it. It tries to free what is missing and something more, and then, where that was of no
//! use, all that there is; each time it moves the live blocks of spans that it can empty into others of their class, what lies in
//! one window, and what lies between the holes that it closes ([`window`], [`slide`]). Where it would not help, nothing is
//! moved, and the set pays for a look at the descriptors of all spans.

use std::collections::VecDeque;

use super::arena::{self, State};
use super::classes::{self, LARGE};
use super::core::{Core, Refusal, account};
use super::journal::{Journal, Operation};
use super::next_table;
use super::spans::{self, Damage, Span};
use super::table::{Table, block_at};
use super::{slide, window};
use crate::layout::store::page::PAGE_BYTES;
use crate::layout::store::{block, slot};
use crate::memory::{Memory, Ordering};

/// A block that can be moved, and the slot that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Movable {
    slot: u64,
    word: u64,
}

/// A span, or a run of free pages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) start: u64,
    pub(super) pages: u64,
    pub(super) span: Option<Span>,
    /// Bytes to be moved.
    pub(super) cost: u64,
    /// Found to hold something that cannot be moved.
    pub(super) is_stuck: bool,
}

/// Where a block is moved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// A free object of this span.
    In(Span),
    /// The first object of this span, which does not exist yet.
    New(Span),
}

impl<M: Memory> Core<M> {
    /// Sees to it that an object of `len` bytes can be taken: gives back what no reader looks at, and
    /// moves blocks where that is not enough. Returns whether it can.
    ///
    /// Blocks have changed their places and slots their words, and the table may have changed its place.
    #[cold]
    pub(super) fn make_room(&mut self, len: u64) -> Result<bool, Refusal> {
        self.give_back()?;
        if self.has_room(len)? {
            return Ok(true);
        }
        // What is needed now goes before a table that is not needed yet.
        self.drop_table()?;
        if self.has_room(len)? {
            return Ok(true);
        }
        self.make_run(arena::pages_for(len))?;
        Ok(self.has_room(len)?)
    }

    /// Tries to make as many pages free in one piece.
    pub(super) fn make_run(&mut self, wanted: u64) -> Result<(), Refusal> {
        if self.free_pages() + self.spare_pages()? < wanted {
            return Ok(());
        }
        // More than what is missing, so that not every set has to do this; and all that there is, where
        // what is free lies too scattered.
        for goal in [wanted.max(self.geometry.pages() / 32), self.geometry.pages()] {
            if let Some(missing) = goal.checked_sub(self.free_pages()) {
                self.tighten(missing)?;
            }
            for make_a_run in [window::open, slide::close_holes] {
                if spans::has_run(&self.memory, &self.geometry, wanted)? {
                    return Ok(());
                }
                make_a_run(self, wanted)?;
            }
        }
        Ok(())
    }

    fn has_room(&self, len: u64) -> Result<bool, Damage> {
        arena::has_room(&self.memory, &self.geometry, len)
    }

    /// Free pages, without those that are kept free.
    fn free_pages(&self) -> u64 {
        spans::usable_pages(&self.memory, &self.geometry)
    }

    /// All pages of the arena but the spare ones, as spans and as runs of free ones.
    pub(super) fn pieces(&self) -> Result<Vec<Piece>, Damage> {
        let Self { memory, geometry, .. } = self;
        let mut pieces: Vec<Piece> = Vec::new();
        let mut page = 0;
        while page < geometry.spare_pages().start {
            let span = spans::starting_at(memory, geometry, page)?;
            let pages = span.map_or(1, |span| span.pages);
            let cost = span.map_or(0, |span| match classes::get(span.class) {
                Some(class) => {
                    u64::from(arena::state_of(memory, geometry, span).used) * class.object_bytes
                }
                None => spans::len_bytes(span),
            });
            match pieces.last_mut() {
                Some(free) if free.span.is_none() && span.is_none() => free.pages += 1,
                _ => pieces.push(Piece { start: page, pages, span, cost, is_stuck: false }),
            }
            page += pages;
        }
        Ok(pieces)
    }

    /// Spans of a class that have room, with what their descriptors count.
    fn spans_with_room(&self, class: u32) -> Result<Vec<(Span, State)>, Damage> {
        let spans = spans::listed(&self.memory, &self.geometry, class).ok_or(Damage)?;
        let state = |span| (span, arena::state_of(&self.memory, &self.geometry, span));
        Ok(spans.into_iter().map(state).collect())
    }

    /// How many pages would become free if the blocks of each class lay as close as they can.
    fn spare_pages(&self) -> Result<u64, Damage> {
        let mut pages = 0;
        for number in 0..LARGE {
            let Some(class) = classes::get(number) else { continue };
            let room: u32 = self
                .spans_with_room(number)?
                .iter()
                .map(|(_, state)| class.objects.saturating_sub(state.used))
                .sum();
            pages += u64::from(room / class.objects) * u64::from(class.pages);
        }
        Ok(pages)
    }

    /// Empties spans until `goal` pages are free that were not, or nothing is left to be gained. Those
    /// that are less than half full first.
    pub(super) fn tighten(&mut self, goal: u64) -> Result<(), Refusal> {
        let mut emptied = 0;
        for percent in [50, 100] {
            for number in 0..LARGE {
                if emptied < goal {
                    emptied += self.tighten_class(number, percent, goal - emptied)?;
                }
            }
            self.give_back()?;
        }
        Ok(())
    }

    /// Moves the blocks of the emptiest spans of a class into the fullest. Returns how many pages will be
    /// free once limbo has been looked through.
    fn tighten_class(&mut self, number: u32, percent: u32, goal: u64) -> Result<u64, Refusal> {
        let Some(class) = classes::get(number) else { return Ok(0) };
        let mut spans = self.spans_with_room(number)?;
        spans.sort_unstable_by_key(|(_, state)| std::cmp::Reverse(state.used));
        let room_of = |state: &State| class.objects.saturating_sub(state.used);
        let mut room: u32 = spans.iter().map(|(_, state)| room_of(state)).sum();
        let count = spans.len();
        let mut spans = VecDeque::from(spans);
        let mut emptied = 0;
        for _ in 1..count {
            let Some((victim, state)) = spans.pop_back() else { break };
            if emptied >= goal
                || state.used * 100 > class.objects * percent
                || room - room_of(&state) < state.used
            {
                break;
            }
            let Some(blocks) = self.all_movable(victim)? else {
                // It stays, and its room can be used first.
                spans.push_front((victim, state));
                continue;
            };
            room -= room_of(&state);
            for block in blocks {
                while let Some((span, state)) = spans.front_mut()
                    && !self.move_block(block, Target::In(*span))?
                {
                    room -= room_of(state);
                    spans.pop_front();
                }
                if let Some((_, state)) = spans.front_mut() {
                    state.used += 1;
                    room = room.saturating_sub(1);
                }
            }
            emptied += u64::from(class.pages);
        }
        Ok(emptied)
    }

    /// Whether everything that the span holds can be moved.
    pub(super) fn can_move(&self, span: Span) -> Result<bool, Damage> {
        Ok(self.holds_the_table(span)? || self.all_movable(span)?.is_some())
    }

    /// Whether the span is that of the current table alone, and nobody has pinned it.
    fn holds_the_table(&self, span: Span) -> Result<bool, Damage> {
        let start = spans::start(&self.geometry, span);
        let table = Table::current(&self.memory, &self.geometry)?;
        let is_pinned = self.pinned.binary_search(&start).is_ok();
        let is_short = self.can_move_table(&table);
        Ok(span.class == LARGE && start == table.offset() && !is_pinned && is_short)
    }

    /// Moves all that a span holds to a new span on free pages from `page` on. Returns false where not
    /// all of it could be moved.
    pub(super) fn move_span(&mut self, span: Span, page: u64) -> Result<bool, Refusal> {
        let to = Span { page, ..span };
        if self.holds_the_table(span)? {
            self.move_table(page)?;
            return Ok(true);
        }
        let Some(blocks) = self.all_movable(span)? else { return Ok(false) };
        let mut target = Target::New(to);
        for block in blocks {
            if !self.move_block(block, target)? {
                return Ok(false);
            }
            target = Target::In(to);
        }
        Ok(true)
    }

    /// The blocks of a span, where all of them can be moved and none is pinned, as far as was seen.
    pub(super) fn all_movable(&self, span: Span) -> Result<Option<Vec<Movable>>, Damage> {
        let Self { memory, geometry, .. } = self;
        let table = Table::current(memory, geometry)?;
        let Some(class) = classes::get(span.class) else {
            let block = self.movable(&table, spans::start(geometry, span));
            return Ok(block.map(|block| vec![block]));
        };
        let state = arena::state_of(memory, geometry, span);
        let mut in_use = vec![true; state.fresh.min(class.objects) as usize];
        let mut next = u64::from(state.free);
        while let Some(index) = next.checked_sub(1) {
            let free = in_use.get_mut(index as usize).filter(|in_use| **in_use).ok_or(Damage)?;
            *free = false;
            let object = arena::object(geometry, span, class, index as u32);
            next = memory.load_u64(object + arena::LINK, Ordering::Relaxed);
        }
        let objects = (0..).zip(in_use).filter(|(_, in_use)| *in_use);
        let object = |(index, _)| arena::object(geometry, span, class, index);
        Ok(objects.map(|index| self.movable(&table, object(index))).collect())
    }

    /// The block at `offset`, where a slot names it, it is an ordinary value, and nobody has pinned it.
    fn movable(&self, table: &Table, offset: u64) -> Option<Movable> {
        let Self { memory, geometry, pinned, .. } = self;
        // What lies there may also be a table, or in limbo: then no slot names it.
        let hash = memory.load_u64(offset + block::HASH, Ordering::Relaxed);
        let word = slot::pack(offset, hash);
        let slot = table.slot_that_holds(memory, hash, word)?;
        let pinned = pinned.binary_search(&offset).is_ok();
        let block = block_at(memory, geometry, word).ok()?;
        (!pinned && block.hash == hash).then_some(Movable { slot, word })
    }

    /// Moves a block: the slot that names it names its copy afterwards, which has the same version.
    /// Returns false, and nothing has changed, where there is no room at the target.
    pub(super) fn move_block(&mut self, block: Movable, target: Target) -> Result<bool, Refusal> {
        self.tidy()?;
        let Self { memory, geometry, .. } = self;
        let Movable { slot, word } = block;
        let found = block_at(memory, geometry, word)?;
        let mut journal = Journal::begin(memory, Operation::Slot, slot, word);
        let object = match target {
            Target::In(span) => arena::take_from(&mut journal, geometry, span)?,
            Target::New(Span { page, pages, class }) => {
                if class == LARGE {
                    Some(arena::take_large(&mut journal, geometry, page, pages * PAGE_BYTES))
                } else {
                    let span = spans::make(&mut journal, geometry, page, pages, class);
                    let span = arena::opened(&mut journal, geometry, span);
                    arena::take_from(&mut journal, geometry, span)?
                }
            }
        };
        let Some(object) = object else {
            journal.end();
            return Ok(false);
        };
        spans::renew(memory, geometry, object)?;
        found.copy_to(memory, object);
        let new = slot::pack(object, found.hash);
        journal.commit(slot, new);
        next_table::follow(memory, geometry, slot, found.hash, (word, new));
        account(&mut journal, geometry, word, new)?;
        journal.end();
        Ok(true)
    }
}
