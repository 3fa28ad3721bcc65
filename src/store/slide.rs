//! Sliding: spans are moved down to the end of those before them, so that the holes between them become one.
//!
//! Compaction calls it where what lies between the holes fits into none of them.
//! What always holds: a span is moved to pages that are free, never over itself: where that is not possible at
//! once it is moved to the spare pages at the arena's end first, which nothing else is put into.

use super::compact::Piece;
use super::core::{Core, Refusal};
use super::spans::{self, Damage, Span};
use crate::memory::Memory;

/// How many times pieces are looked for that can be moved.
const TRIES: usize = 64;

/// Tries to make a run of `wanted` pages free.
pub(super) fn close_holes<M: Memory>(core: &mut Core<M>, wanted: u64) -> Result<(), Refusal> {
    core.refill_reserve()?;
    let spare = core.geometry.spare_pages();
    let mut pieces = core.pieces()?;
    for _ in 0..TRIES {
        let Some((begin, end)) = cheapest(&pieces, wanted, spare.end - spare.start) else { break };
        let mut stuck = None;
        for (index, piece) in pieces.iter().enumerate().take(end).skip(begin) {
            if let Some(span) = piece.span
                && !core.can_move(span)?
            {
                stuck = Some(index);
                break;
            }
        }
        match stuck {
            Some(index) => pieces[index].is_stuck = true,
            None => return slide(core, &pieces[begin..end]),
        }
    }
    Ok(())
}

/// Pieces that begin with free pages and have `wanted` of them, with the fewest bytes in the others.
fn cheapest(pieces: &[Piece], wanted: u64, spare: u64) -> Option<(usize, usize)> {
    let mut best: Option<(u64, (usize, usize))> = None;
    for begin in (0..pieces.len()).filter(|begin| pieces[*begin].span.is_none()) {
        let (mut free, mut cost) = (0, 0);
        for (index, piece) in pieces.iter().enumerate().skip(begin) {
            let too_long = piece.span.is_some() && piece.pages > free.max(spare);
            if piece.is_stuck || too_long || best.is_some_and(|(least, _)| cost >= least) {
                break;
            }
            if piece.span.is_none() {
                free += piece.pages;
                if free >= wanted {
                    best = Some((cost, (begin, index + 1)));
                    break;
                }
            }
            cost += piece.cost;
        }
    }
    best.map(|(_, pieces)| pieces)
}

/// Moves the spans among these pieces down, one after the other.
fn slide<M: Memory>(core: &mut Core<M>, pieces: &[Piece]) -> Result<(), Refusal> {
    let mut to = pieces.first().map_or(0, |piece| piece.start);
    for span in pieces.iter().filter_map(|piece| piece.span) {
        // What was moved before is free once nobody looks at it.
        if !is_free(core, to, span)? {
            core.give_back()?;
        }
        if !is_free(core, to, span)? {
            let aside = Span { page: core.geometry.spare_pages().start, ..span };
            if !is_free(core, aside.page, aside)? || !core.move_span(span, aside.page)? {
                return Ok(());
            }
            core.give_back()?;
            if !is_free(core, to, span)? || !core.move_span(aside, to)? {
                return Ok(());
            }
        } else if !core.move_span(span, to)? {
            return Ok(());
        }
        to += span.pages;
    }
    core.give_back()
}

/// Whether as many pages as `span` has are free from `page` on, where a span ends or begins.
fn is_free<M: Memory>(core: &Core<M>, page: u64, span: Span) -> Result<bool, Damage> {
    let end = page + span.pages;
    if end > core.geometry.pages() {
        return Ok(false);
    }
    let found = spans::find_run(&core.memory, &core.geometry, page..end, span.pages);
    Ok(found? == Some(page))
}
