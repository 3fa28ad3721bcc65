//! The arena: objects of any length in the pages of a store.
//!
//! Writers take the blocks of values and tables from it, under the lock, and give them back when no reader can
//! look at them any more.
//! What always holds: two objects in use do not overlap; spans with room are on the list of their class, and
//! no others; a class without objects keeps no span.

use super::StoreGeometry;
use super::classes::{self, Class, LARGE};
use super::journal::Journal;
use super::spans::{self, Damage, Room, Span};
use crate::layout::store::page::{NEXT, PAGE_BYTES, PREVIOUS, STATE};
use crate::layout::store::{CLASS_HEADS, block};
use crate::memory::{Memory, Ordering};

/// The word that links a free object to the next one: the number of that, plus one. A new object is written
/// behind a release: not before the note that [`take`] has made of the link.
pub(super) const LINK: u64 = block::HASH;

/// Objects of a span, as its descriptor counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct State {
    /// Objects in use.
    pub(super) used: u32,
    /// First free object plus one; 0 = none.
    pub(super) free: u32,
    /// Objects from this one on were never used, or were free when the indexes were computed anew.
    pub(super) fresh: u32,
}

impl State {
    pub(super) fn unpack(word: u64) -> Self {
        let field = |shift: u32| u32::from((word >> shift) as u16);
        Self { used: field(0), free: field(16), fresh: field(32) }
    }

    pub(super) fn pack(self) -> u64 {
        u64::from(self.used) | u64::from(self.free) << 16 | u64::from(self.fresh) << 32
    }

    fn has_room(self, class: &Class) -> bool {
        self.used < class.objects
    }
}

/// Takes an object of at least `len` bytes; `None` where there is no room for it. What it holds is
/// left over, but for its first word, which is zero.
pub(super) fn take<M: Memory>(
    journal: &mut Journal<'_, M>,
    geometry: &StoreGeometry,
    len: u64,
    room: Room,
) -> Result<Option<u64>, Damage> {
    let memory = journal.memory();
    let number = classes::of_len(len);
    let Some(class) = classes::get(number) else {
        let wanted = classes::large_pages(len);
        let span = spans::take(journal, geometry, wanted, LARGE, room)?;
        return Ok(span.map(|span| large_object(memory, geometry, span)));
    };
    let head = memory.load_u32(head(number), Ordering::Relaxed);
    let span = match u64::from(head).checked_sub(1) {
        Some(page) => span_of_class(memory, geometry, page, number)?,
        None => match spans::take(journal, geometry, class.pages.into(), number, room)? {
            Some(span) => opened(journal, geometry, span),
            None => return Ok(None),
        },
    };
    take_of(journal, geometry, span, class).map(Some)
}

/// Takes an object that has a span to itself, on free pages from `page` on.
pub(super) fn take_large<M: Memory>(
    journal: &mut Journal<'_, M>,
    geometry: &StoreGeometry,
    page: u64,
    len: u64,
) -> u64 {
    let span = spans::make(journal, geometry, page, classes::large_pages(len), LARGE);
    large_object(journal.memory(), geometry, span)
}

fn large_object(memory: &impl Memory, geometry: &StoreGeometry, span: Span) -> u64 {
    let object = spans::start(geometry, span);
    begin(memory, object);
    object
}

/// Says that what lies in an object is no block any more.
fn begin(memory: &impl Memory, object: u64) {
    memory.store_u64(object + block::VERSION, 0, Ordering::Relaxed);
    // What is written into it, in whatever order, comes behind that, for readers that copy, and behind the
    // notes of the journal, for whoever recovers.
    memory.release_fence();
}

/// Takes an object of this span; `None` where the span is not there any more, or is full.
pub(super) fn take_from<M: Memory>(
    journal: &mut Journal<'_, M>,
    geometry: &StoreGeometry,
    span: Span,
) -> Result<Option<u64>, Damage> {
    let memory = journal.memory();
    let Some(class) = classes::get(span.class) else { return Ok(None) };
    let there = spans::starting_at(memory, geometry, span.page)? == Some(span);
    if !there || !state_of(memory, geometry, span).has_room(class) {
        return Ok(None);
    }
    take_of(journal, geometry, span, class).map(Some)
}

/// Takes an object of a span that has room.
fn take_of<M: Memory>(
    journal: &mut Journal<'_, M>,
    geometry: &StoreGeometry,
    span: Span,
    class: &Class,
) -> Result<u64, Damage> {
    let memory = journal.memory();
    let mut state = state_of(memory, geometry, span);
    let index = match state.free.checked_sub(1) {
        Some(index) if index < class.objects => {
            let link = object(geometry, span, class, index) + LINK;
            let next = memory.load_u64(link, Ordering::Relaxed);
            if next > u64::from(class.objects) {
                return Err(Damage);
            }
            // The object's new content takes its place.
            journal.give_up_u64(link);
            state.free = next as u32;
            index
        }
        None if state.fresh < class.objects => {
            state.fresh += 1;
            state.fresh - 1
        }
        _ => return Err(Damage),
    };
    state.used += 1;
    journal.put_u64(geometry.descriptor(span.page, STATE), state.pack());
    if !state.has_room(class) {
        unlink(journal, geometry, span)?;
    }
    let object = object(geometry, span, class, index);
    begin(memory, object);
    Ok(object)
}

/// Whether an object of `len` bytes could be taken.
pub(super) fn has_room(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    len: u64,
) -> Result<bool, Damage> {
    let number = classes::of_len(len);
    Ok(memory.load_u32(head(number), Ordering::Relaxed) != 0
        || spans::has_run(memory, geometry, pages_for(len))?)
}

/// The longest object that can be taken without the reserve, of those shorter than `len_bytes`, for which there is no
/// room. Longer ones may have room all the same, in spans that they share with others of their class.
pub(super) fn longest_free_bytes(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    len_bytes: u64,
) -> Result<u64, Damage> {
    let run = spans::longest_run(memory, geometry)?;
    // A class has room in a span that it has, or where a span of it can be made.
    let has_room = |class: &u32| {
        memory.load_u32(head(*class), Ordering::Relaxed) != 0
            || classes::get(*class).is_some_and(|class| u64::from(class.pages) <= run)
    };
    let class = classes::of_len(len_bytes);
    let in_span = (0..class).filter(has_room).filter_map(classes::get);
    let longest = in_span.map(|class| class.object_bytes).max().unwrap_or(0);
    let large = run * PAGE_BYTES;
    let large_fits = class == LARGE && classes::of_len(large) == LARGE;
    Ok(if large_fits { large.max(longest) } else { longest })
}

/// Pages of the span that an object of `len` bytes needs where no span has room for it.
pub(super) fn pages_for(len: u64) -> u64 {
    classes::get(classes::of_len(len)).map_or(classes::large_pages(len), |class| class.pages.into())
}

/// Pages of the spans that objects of these lengths need where no span has room for any of them.
pub(super) fn pages_for_all(lens: impl Iterator<Item = u64>) -> u64 {
    let (mut objects, mut pages) = ([0_u64; LARGE as usize], 0_u64);
    for len in lens {
        match objects.get_mut(classes::of_len(len) as usize) {
            Some(count) => *count += 1,
            None => pages = pages.saturating_add(classes::large_pages(len)),
        }
    }
    let spans = (0..).map_while(classes::get).zip(objects);
    let shared =
        spans.map(|(class, count)| count.div_ceil(class.objects.into()) * u64::from(class.pages));
    pages.saturating_add(shared.sum())
}

/// Gives an object back. Not in an operation that has taken a span: the span's pages may have been this
/// object's, and taking both back would not lead to where it began.
pub(super) fn give_back<M: Memory>(
    journal: &mut Journal<'_, M>,
    geometry: &StoreGeometry,
    offset: u64,
) -> Result<(), Damage> {
    let memory = journal.memory();
    let span = spans::around(memory, geometry, offset)?;
    let Some(class) = classes::get(span.class) else {
        if span.class != LARGE || spans::start(geometry, span) != offset {
            return Err(Damage);
        }
        // Readers that copy without pins see that it is no block any more.
        memory.store_u64(offset + block::VERSION, 0, Ordering::Release);
        spans::give_back(journal, geometry, span);
        return Ok(());
    };
    let index = index_of(geometry, span, class, offset).ok_or(Damage)?;
    let mut state = state_of(memory, geometry, span);
    let had_room = state.has_room(class);
    if index >= state.fresh {
        return Err(Damage);
    }
    state.used = state.used.checked_sub(1).ok_or(Damage)?;
    memory.store_u64(offset + block::VERSION, 0, Ordering::Release);
    if state.used == 0 {
        if had_room {
            unlink(journal, geometry, span)?;
        }
        spans::give_back(journal, geometry, span);
        return Ok(());
    }
    memory.store_u64(offset + LINK, state.free.into(), Ordering::Release);
    state.free = index + 1;
    journal.put_u64(geometry.descriptor(span.page, STATE), state.pack());
    if !had_room {
        link(journal, geometry, span);
    }
    Ok(())
}

/// Bytes of an object that is taken for `len` bytes.
pub(super) fn object_bytes(len: u64) -> u64 {
    match classes::get(classes::of_len(len)) {
        Some(class) => class.object_bytes,
        None => classes::large_pages(len).saturating_mul(PAGE_BYTES),
    }
}

/// Bytes that the object at `offset` has room for.
pub(super) fn room_bytes(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    offset: u64,
) -> Result<u64, Damage> {
    Ok(object_at(memory, geometry, offset)?.1)
}

/// Class, and bytes of room, of the object that starts at `offset`.
pub(super) fn object_at(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    offset: u64,
) -> Result<(u32, u64), Damage> {
    let span = spans::around(memory, geometry, offset)?;
    let object_bytes = match classes::get(span.class) {
        Some(class) => {
            index_of(geometry, span, class, offset).ok_or(Damage)?;
            class.object_bytes
        }
        None if span.class == LARGE && spans::start(geometry, span) == offset => {
            spans::len_bytes(span)
        }
        None => return Err(Damage),
    };
    Ok((span.class, object_bytes))
}

/// What a span's descriptor counts.
pub(super) fn state_of(memory: &impl Memory, geometry: &StoreGeometry, span: Span) -> State {
    State::unpack(memory.load_u64(geometry.descriptor(span.page, STATE), Ordering::Relaxed))
}

/// Offset of an object.
pub(super) fn object(geometry: &StoreGeometry, span: Span, class: &Class, index: u32) -> u64 {
    spans::start(geometry, span) + u64::from(index) * class.object_bytes
}

/// Which of a span's objects starts at `offset`.
pub(super) fn index_of(
    geometry: &StoreGeometry,
    span: Span,
    class: &Class,
    offset: u64,
) -> Option<u32> {
    // Spans of a class are short, and the processor divides short numbers faster.
    let inside = u32::try_from(offset.checked_sub(spans::start(geometry, span))?).ok()?;
    let object_bytes = class.object_bytes as u32;
    let index = inside / object_bytes;
    (inside.is_multiple_of(object_bytes) && index < class.objects).then_some(index)
}

fn head(class: u32) -> u64 {
    CLASS_HEADS + u64::from(class) * 4
}

/// The span of this class that starts at `page`, which an index names.
fn span_of_class(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    page: u64,
    class: u32,
) -> Result<Span, Damage> {
    if page >= geometry.pages() {
        return Err(Damage);
    }
    let span = spans::starting_at(memory, geometry, page)?.ok_or(Damage)?;
    if span.class == class { Ok(span) } else { Err(Damage) }
}

/// Makes a span that was just made ready for its first object.
pub(super) fn opened<M: Memory>(
    journal: &mut Journal<'_, M>,
    geometry: &StoreGeometry,
    span: Span,
) -> Span {
    journal.put_u64(geometry.descriptor(span.page, STATE), State::default().pack());
    link(journal, geometry, span);
    span
}

/// Puts a span at the head of its class's list.
pub(super) fn link<M: Memory>(journal: &mut Journal<'_, M>, geometry: &StoreGeometry, span: Span) {
    let memory = journal.memory();
    let former = memory.load_u32(head(span.class), Ordering::Relaxed);
    journal.put_u32(geometry.descriptor(span.page, NEXT), former);
    journal.put_u32(geometry.descriptor(span.page, PREVIOUS), 0);
    if let Some(next) = u64::from(former).checked_sub(1)
        && next < geometry.pages()
    {
        journal.put_u32(geometry.descriptor(next, PREVIOUS), span.page as u32 + 1);
    }
    journal.put_u32(head(span.class), span.page as u32 + 1);
}

/// Takes a span off its class's list.
fn unlink<M: Memory>(
    journal: &mut Journal<'_, M>,
    geometry: &StoreGeometry,
    span: Span,
) -> Result<(), Damage> {
    let memory = journal.memory();
    let word = |page, word| memory.load_u32(geometry.descriptor(page, word), Ordering::Relaxed);
    let (next, previous) = (word(span.page, NEXT), word(span.page, PREVIOUS));
    if u64::from(next.max(previous)) > geometry.pages() {
        return Err(Damage);
    }
    match u64::from(previous).checked_sub(1) {
        Some(previous) => journal.put_u32(geometry.descriptor(previous, NEXT), next),
        None => journal.put_u32(head(span.class), next),
    }
    if let Some(next) = u64::from(next).checked_sub(1) {
        journal.put_u32(geometry.descriptor(next, PREVIOUS), previous);
    }
    Ok(())
}
