//! Spans: runs of pages that belong together, and the pages that belong to none.
//!
//! The [arena](super::arena) takes a span for each class that has no room left, and one for each large object.
//! What always holds: a span comes and goes by one store of the word in its first page's descriptor; the words
//! of the pages inside it say how far back it starts, and mean nothing once it is gone.

use super::StoreGeometry;
use super::journal::Journal;
use crate::layout::store::page::{
    self, NEXT, PAGE_BYTES, PREVIOUS, SPAN, class_or_back, pack_span, pages,
};
use crate::layout::store::{CLASS_HEADS, EPOCH, FREE_PAGES, NEXT_PAGE};
use crate::memory::{Memory, Ordering};

/// A span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Its first page.
    pub(super) page: u64,
    /// How many pages it has.
    pub(super) pages: u64,
    pub(super) class: u32,
}

/// An index that says what cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damage;

/// The span that starts at a page, if one does; `Damage` where it would leave the arena.
pub(super) fn starting_at(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    page: u64,
) -> Result<Option<Span>, Damage> {
    let word = memory.load_u64(geometry.descriptor(page, SPAN), Ordering::Acquire);
    let len = u64::from(pages(word));
    if len > geometry.pages() - page {
        return Err(Damage);
    }
    Ok((len > 0).then(|| Span { page, pages: len, class: class_or_back(word) }))
}

/// The span that holds the byte at `offset`.
pub(super) fn around(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    offset: u64,
) -> Result<Span, Damage> {
    let page = geometry.page_of(offset).ok_or(Damage)?;
    if let Some(span) = starting_at(memory, geometry, page)? {
        return Ok(span);
    }
    let word = memory.load_u64(geometry.descriptor(page, SPAN), Ordering::Relaxed);
    let start = page.checked_sub(u64::from(class_or_back(word))).ok_or(Damage)?;
    let span = starting_at(memory, geometry, start)?.ok_or(Damage)?;
    if page - start < span.pages { Ok(span) } else { Err(Damage) }
}

/// Which pages may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Those that leave the reserve free.
    Free,
    /// All: for what gives as much back when it is done.
    Reserved,
}

/// Makes a span of `wanted` pages; `None` where no run of free pages is as long.
pub(super) fn take<M: Memory>(
    journal: &mut Journal<'_, M>,
    geometry: &StoreGeometry,
    wanted: u64,
    class: u32,
    room: Room,
) -> Result<Option<Span>, Damage> {
    let memory = journal.memory();
    let spare = geometry.spare_pages();
    let hint = memory.load_u64(NEXT_PAGE, Ordering::Relaxed).min(spare.start);
    // A run may begin before the hint and reach beyond it.
    let ranges = [hint..spare.start, 0..spare.start, spare];
    let ranges = match room {
        Room::Free if !may_take(memory, geometry, wanted) => return Ok(None),
        Room::Free => &ranges[..2],
        Room::Reserved => &ranges[..],
    };
    for range in ranges {
        if wanted > 0
            && let Some(page) = find_run(memory, geometry, range.clone(), wanted)?
        {
            return Ok(Some(make(journal, geometry, page, wanted, class)));
        }
    }
    Ok(None)
}

/// Whether so many pages can be taken without the reserve.
fn may_take(memory: &impl Memory, geometry: &StoreGeometry, wanted: u64) -> bool {
    usable_pages(memory, geometry) >= wanted
}

/// Free pages beside the reserve.
pub(super) fn usable_pages(memory: &impl Memory, geometry: &StoreGeometry) -> u64 {
    memory.load_u64(FREE_PAGES, Ordering::Relaxed).saturating_sub(geometry.reserved_pages())
}

/// The longest run of free pages that can be taken without the reserve.
pub(super) fn longest_run(memory: &impl Memory, geometry: &StoreGeometry) -> Result<u64, Damage> {
    let (mut page, mut run, mut longest) = (0, 0, 0);
    while page < geometry.spare_pages().start {
        match starting_at(memory, geometry, page)? {
            Some(span) => {
                page += span.pages;
                run = 0;
            }
            None => {
                page += 1;
                run += 1;
                longest = run.max(longest);
            }
        }
    }
    Ok(longest.min(usable_pages(memory, geometry)))
}

/// Makes a span of pages that belong to none.
pub(super) fn make<M: Memory>(
    journal: &mut Journal<'_, M>,
    geometry: &StoreGeometry,
    page: u64,
    wanted: u64,
    class: u32,
) -> Span {
    let memory = journal.memory();
    let epoch = raised_epoch(memory);
    // Until the span is there, these words say that none starts here. Release: not before the
    // operation that gave the pages back was over.
    for inside in 0..wanted {
        if inside > 0 {
            let word = geometry.descriptor(page + inside, SPAN);
            memory.store_u64(word, pack_span(0, inside as u32), Ordering::Release);
        }
        // Release: whoever sees it sees that no slot names what was here before. Pairs with the first
        // Acquire in CopyingReader::look.
        memory.store_u64(geometry.descriptor(page + inside, page::EPOCH), epoch, Ordering::Release);
    }
    // Whoever sees anything that is written into the pages from here on, and then executes an acquire
    // fence, sees that they were taken. Pairs with the fences of CopyingReader.
    memory.release_fence();
    let free = memory.load_u64(FREE_PAGES, Ordering::Relaxed);
    journal.put_u64(FREE_PAGES, free.saturating_sub(wanted));
    journal.put_u64(NEXT_PAGE, page + wanted);
    let word = pack_span(wanted as u32, class);
    journal.put_u64(geometry.descriptor(page, SPAN), word);
    Span { page, pages: wanted, class }
}

/// Raises the epoch; what it is then.
fn raised_epoch(memory: &impl Memory) -> u64 {
    let epoch = memory.load_u64(EPOCH, Ordering::Relaxed).wrapping_add(1);
    memory.store_u64(EPOCH, epoch, Ordering::Release);
    epoch
}

/// Says that a block comes to `offset` that may have been there before. Called before anything of it is written:
/// for readers that copy it is as if the page was taken anew.
pub(super) fn renew(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    offset: u64,
) -> Result<(), Damage> {
    let number = geometry.page_of(offset).ok_or(Damage)?;
    let epoch = raised_epoch(memory);
    // Pairs with the Acquire of the version in CopyingReader's Stamp: who sees the version that comes back
    // sees this.
    memory.store_u64(geometry.descriptor(number, page::EPOCH), epoch, Ordering::Release);
    memory.release_fence();
    Ok(())
}

/// Whether some run of free pages is as long.
pub(super) fn has_run(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    wanted: u64,
) -> Result<bool, Damage> {
    Ok(may_take(memory, geometry, wanted)
        && find_run(memory, geometry, 0..geometry.spare_pages().start, wanted)?.is_some())
}

/// Gives a span's pages back.
pub(super) fn give_back<M: Memory>(
    journal: &mut Journal<'_, M>,
    geometry: &StoreGeometry,
    span: Span,
) {
    let memory = journal.memory();
    let free = memory.load_u64(FREE_PAGES, Ordering::Relaxed);
    journal.put_u64(FREE_PAGES, free.saturating_add(span.pages));
    journal.put_u64(geometry.descriptor(span.page, SPAN), 0);
}

/// The first run of `wanted` free pages in `range`, which begins where a span ends or begins, or with a
/// free page.
pub(super) fn find_run(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    range: std::ops::Range<u64>,
    wanted: u64,
) -> Result<Option<u64>, Damage> {
    let (mut page, mut run) = (range.start, 0);
    // Each step moves on by a page or more.
    while page < range.end {
        match starting_at(memory, geometry, page)? {
            Some(span) => {
                page += span.pages;
                run = 0;
            }
            None => {
                page += 1;
                run += 1;
                if run == wanted {
                    return Ok(Some(page - wanted));
                }
            }
        }
    }
    Ok(None)
}

/// Offset of the first byte of a span.
pub(super) fn start(geometry: &StoreGeometry, span: Span) -> u64 {
    geometry.page(span.page)
}

/// Bytes of a span.
pub(super) fn len_bytes(span: Span) -> u64 {
    span.pages * PAGE_BYTES
}

/// The spans on the list of a class; `None` where the list is none.
pub(super) fn listed(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    class: u32,
) -> Option<Vec<Span>> {
    let head = CLASS_HEADS + u64::from(class) * 4;
    let (mut next, mut previous) = (memory.load_u32(head, Ordering::Relaxed), 0);
    let mut spans = Vec::new();
    while let Some(page) = u64::from(next).checked_sub(1) {
        let word = |word| memory.load_u32(geometry.descriptor(page, word), Ordering::Relaxed);
        let span =
            (page < geometry.pages()).then(|| starting_at(memory, geometry, page).ok())???;
        let too_many = spans.len() as u64 > geometry.pages();
        if span.class != class || word(PREVIOUS) != previous || too_many {
            return None;
        }
        spans.push(span);
        (previous, next) = (next, word(NEXT));
    }
    Some(spans)
}
