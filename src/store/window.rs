//! Windows: a run of pages is made free by moving what lies there into holes elsewhere.
//!
//! Compaction calls it where enough pages are free, but not in one piece.
//! What always holds: nothing is moved before everything in the window has a place outside of it; the
//! cheapest windows are tried first, and not many.

use std::collections::BTreeSet;
use std::ops::Range;

use super::compact::Piece;
use super::core::{Core, Refusal};
use super::spans::Span;
use crate::memory::Memory;

/// How many windows are thought through at most.
const TRIES: usize = 64;

/// Pieces that lie beside each other, to be emptied.
#[derive(Debug)]
struct Window {
    cost: u64,
    pieces: Range<usize>,
    pages: Range<u64>,
}

/// Spans, and the pages that they are to be moved to.
type Moves = Vec<(Span, u64)>;

/// Tries to make a run of `wanted` pages free.
pub(super) fn open<M: Memory>(core: &mut Core<M>, wanted: u64) -> Result<(), Refusal> {
    let pieces = core.pieces()?;
    // More than wanted, so that not every set has to do this.
    for wanted in [wanted.max(core.geometry.pages() / 64), wanted] {
        let Some(moves) = plan(core, &pieces, wanted)? else { continue };
        for (span, page) in moves {
            if !core.move_span(span, page)? {
                break;
            }
        }
        return core.give_back();
    }
    Ok(())
}

/// What to move where for the cheapest window that can be emptied, among those that are thought through.
fn plan<M: Memory>(
    core: &Core<M>,
    pieces: &[Piece],
    wanted: u64,
) -> Result<Option<Moves>, Refusal> {
    let mut windows = windows(pieces, wanted);
    windows.sort_unstable_by_key(|window| window.cost);
    // Pieces that are in the way.
    let mut obstacles: Vec<usize> = Vec::new();
    let mut tries = 0;
    for window in windows {
        if obstacles.iter().any(|obstacle| window.pieces.contains(obstacle)) {
            continue;
        }
        match places(core, pieces, &window)? {
            Ok(moves) => return Ok(Some(moves)),
            Err(obstacle) => obstacles.push(obstacle),
        }
        tries += 1;
        if tries == TRIES {
            break;
        }
    }
    Ok(None)
}

/// All windows of at least `wanted` pages, each as short as it can be from where it begins, without
/// spans that are longer than every run of free pages.
fn windows(pieces: &[Piece], wanted: u64) -> Vec<Window> {
    let free = pieces.iter().filter(|piece| piece.span.is_none());
    let longest = free.map(|piece| piece.pages).max().unwrap_or(0);
    let is_in_the_way = |piece: &Piece| piece.span.is_some_and(|span| span.pages > longest);
    let (mut end, mut pages, mut cost) = (0, 0, 0);
    let mut windows = Vec::new();
    for (begin, first) in pieces.iter().enumerate() {
        if end <= begin {
            (end, pages, cost) = (begin, 0, 0);
        }
        while pages < wanted && end < pieces.len() && !is_in_the_way(&pieces[end]) {
            pages += pieces[end].pages;
            cost += pieces[end].cost;
            end += 1;
        }
        if pages >= wanted {
            let pages = first.start..first.start + wanted;
            windows.push(Window { cost, pieces: begin..end, pages });
        }
        if end > begin {
            pages -= first.pages;
            cost -= first.cost;
        }
    }
    windows
}

/// Finds a place outside for everything in a window; or the piece that is in the way.
fn places<M: Memory>(
    core: &Core<M>,
    pieces: &[Piece],
    window: &Window,
) -> Result<Result<Moves, usize>, Refusal> {
    let outside = pieces.iter().filter(|piece| piece.span.is_none()).flat_map(|piece| {
        let (start, end) = (piece.start, piece.start + piece.pages);
        [start..end.min(window.pages.start), start.max(window.pages.end)..end]
    });
    // By length, so that the shortest that is long enough is found at once.
    let mut free: BTreeSet<(u64, u64)> =
        outside.filter(|run| !run.is_empty()).map(|run| (run.end - run.start, run.start)).collect();
    let inside = window.pieces.clone();
    let mut inside: Vec<(usize, Span)> =
        inside.filter_map(|index| Some((index, pieces[index].span?))).collect();
    // The longest first, as they are the hardest to place.
    inside.sort_unstable_by_key(|(_, span)| std::cmp::Reverse(span.pages));
    let mut moves = Vec::new();
    for &(index, span) in &inside {
        let run = free.range((span.pages, 0)..).next().copied();
        let Some((len, start)) = run else { return Ok(Err(index)) };
        free.remove(&(len, start));
        if len > span.pages {
            free.insert((len - span.pages, start + span.pages));
        }
        moves.push((span, start));
    }
    for &(index, span) in &inside {
        if !core.can_move(span)? {
            return Ok(Err(index));
        }
    }
    Ok(Ok(moves))
}
