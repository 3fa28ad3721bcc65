//! Recovery: what a writer that died has left is brought in order.
//!
//! Whoever gets the lock and finds it dirty calls it before anything else.
//! What always holds: it can be done again from any step of itself; it changes no slot, but for those of a batch,
//! which say the same afterwards; what a slot names keeps its bytes; what nobody names and nobody has pinned is free afterwards.

use super::StoreGeometry;
use super::arena::{self, LINK, State};
use super::batch;
use super::classes;
use super::core::{Core, account};
use super::journal::{self, Found, Journal, Operation};
use super::limbo;
use super::next_table;
use super::spans::{self, Damage};
use super::survey::{MAX_VERSION, Survey, Surveyed};
use crate::layout::store::page::{SPAN, STATE, pack_span};
use crate::layout::store::{
    BATCH, CLASS_HEADS, EPOCH, FREE_PAGES, LIMBO_BYTES, LIMBO_LEN, LIVE_BYTES, LIVE_KEYS,
    NEXT_PAGE, NEXT_TABLE, NEXT_VERSION, RECOVERIES, TOMBSTONES, block,
};
use crate::memory::{Memory, Ordering};

/// How a store was brought in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovered {
    /// Nothing had been in progress.
    Clean,
    /// An operation that had not changed its slot was taken back.
    TakenBack,
    /// An operation that had changed its slot was finished.
    Finished,
    /// The indexes were computed anew.
    Rebuilt,
}

/// Brings the store in order, with the journal's help where that is enough.
pub(super) fn recover<M: Memory>(core: &mut Core<M>) -> Result<Recovered, Damage> {
    let Core { memory, geometry, rung, .. } = core;
    if journal::is_open(memory) {
        // What the dead writer has changed, if anything, is there already; it may not have come to this.
        rung.ring_all(memory);
    }
    let recovered = match journal::take_back(memory) {
        Found::Nothing => Recovered::Clean,
        Found::TakenBack => Recovered::TakenBack,
        Found::Committed { mut journal, old, new } => {
            match account(&mut journal, geometry, old, new) {
                Ok(()) => {
                    journal.end();
                    Recovered::Finished
                }
                Err(Damage) => rebuild(core)?,
            }
        }
        Found::Batch => Recovered::TakenBack,
        Found::Bulk => rebuild(core)?,
    };
    // It may have been in the middle of a step.
    let recovered = match core.drop_table() {
        Ok(()) => recovered,
        Err(Damage) => rebuild(core)?,
    };
    let recovered = match recovered {
        Recovered::Rebuilt => recovered,
        _ if core.memory.load_u64(BATCH, Ordering::Relaxed) == 0 => recovered,
        _ => match batch::settle(core) {
            Ok(true) => Recovered::Finished,
            Ok(false) => Recovered::TakenBack,
            Err(Damage) => rebuild(core)?,
        },
    };
    let count = core.memory.load_u64(RECOVERIES, Ordering::Relaxed);
    core.memory.store_u64(RECOVERIES, count.wrapping_add(1), Ordering::Relaxed);
    Ok(recovered)
}

/// Computes all indexes anew.
pub(super) fn rebuild<M: Memory>(core: &mut Core<M>) -> Result<Recovered, Damage> {
    let Core { memory, geometry, pinned, .. } = core;
    // From here on nothing is taken back: whoever finds this unfinished begins anew.
    let mut journal = Journal::begin(memory, Operation::Bulk, 0, 0);
    let survey = match survey(memory, geometry, pinned) {
        Ok(survey) => survey,
        // A batch may be in the way: a survey knows values only.
        Err(Damage) => {
            batch::strip_all(memory, geometry)?;
            // Another look at the pins too: slots have changed since the first one.
            survey(memory, geometry, pinned)?
        }
    };
    memory.store_u64(BATCH, 0, Ordering::Release);
    memory.store_u64(NEXT_TABLE, 0, Ordering::Release);
    let put = |offset, value| memory.store_u64(offset, value, Ordering::Relaxed);
    put(EPOCH, memory.load_u64(EPOCH, Ordering::Relaxed).wrapping_add(1));
    for class in 0..classes::COUNT {
        memory.store_u32(CLASS_HEADS + u64::from(class) * 4, 0, Ordering::Relaxed);
    }
    let mut free_pages = survey.free_pages;
    for surveyed in &survey.spans {
        let span = surveyed.span;
        if survey.used(surveyed) == 0 {
            // All of its pages: what stands inside of it may be no mark, and would begin a span then.
            for inside in 0..span.pages {
                let descriptor = geometry.descriptor(span.page + inside, SPAN);
                memory.store_u64(descriptor, 0, Ordering::Release);
            }
            free_pages += span.pages;
            continue;
        }
        for inside in 1..span.pages {
            put(geometry.descriptor(span.page + inside, SPAN), pack_span(0, inside as u32));
        }
        rebuild_span(&mut journal, geometry, &survey, surveyed);
    }
    put(FREE_PAGES, free_pages);
    put(NEXT_PAGE, 0);
    put(LIVE_KEYS, survey.live_keys);
    put(LIVE_BYTES, survey.live_bytes);
    put(TOMBSTONES, survey.tombstones);
    put(LIMBO_LEN, 0);
    put(LIMBO_BYTES, 0);
    for &(offset, bytes) in &survey.retired {
        limbo::put(&mut journal, geometry, offset, bytes)?;
    }
    let next = Some(memory.load_u64(NEXT_VERSION, Ordering::Relaxed));
    let next = next.filter(|next| *next <= MAX_VERSION).unwrap_or(0);
    put(NEXT_VERSION, next.max(survey.last_version + 1));
    journal.end();
    Ok(Recovered::Rebuilt)
}

/// Looks at all pins, and then at everything.
fn survey<M: Memory>(
    memory: &M,
    geometry: &StoreGeometry,
    pinned: &mut Vec<u64>,
) -> Result<Survey, Damage> {
    // As in `limbo::look_through`: what no slot names by now, and is not pinned, nobody looks at.
    memory.full_fence();
    limbo::collect_pins(memory, geometry, pinned);
    Survey::of(memory, geometry, pinned)
}

/// Links a span's free objects, but for those behind its last one in use, and the span where it has any.
fn rebuild_span<M: Memory>(
    journal: &mut Journal<'_, M>,
    geometry: &StoreGeometry,
    survey: &Survey,
    surveyed: &Surveyed,
) {
    let (memory, span) = (journal.memory(), surveyed.span);
    let Some(class) = classes::get(span.class) else { return };
    let mut state = State { used: survey.used(surveyed), free: 0, fresh: class.objects };
    let full = state.used == class.objects;
    let objects = if full { 0 } else { class.objects };
    for index in (0..objects).rev() {
        if survey.uses(surveyed, index) {
            continue;
        }
        let object = arena::object(geometry, span, class, index);
        if state.fresh == index + 1 {
            // Nothing behind it is in use: as if it never had been. What lies there says that it is no block,
            // and keeps its bytes until it is taken.
            state.fresh = index;
            if memory.load_u64(object + block::VERSION, Ordering::Relaxed) != 0 {
                memory.store_u64(object + block::VERSION, 0, Ordering::Relaxed);
            }
            continue;
        }
        memory.store_u64(object + block::VERSION, 0, Ordering::Relaxed);
        // Release: whoever copies without a pin, and sees the link, sees the zero before it.
        memory.store_u64(object + LINK, state.free.into(), Ordering::Release);
        state.free = index + 1;
    }
    memory.store_u64(geometry.descriptor(span.page, STATE), state.pack(), Ordering::Relaxed);
    if !full {
        arena::link(journal, geometry, span);
    }
}

/// Whether every index says what the truth says, and every block is whole. `Err` names the first
/// thing that is not so.
pub(super) fn check<M: Memory>(core: &mut Core<M>) -> Result<(), &'static str> {
    let Core { memory, geometry, pinned, .. } = core;
    let count = |offset| memory.load_u64(offset, Ordering::Relaxed);
    let agree = |what, same| if same { Ok(()) } else { Err(what) };
    limbo::collect_pins(memory, geometry, pinned);
    let limbo_len = count(LIMBO_LEN);
    agree("a batch is not over", count(BATCH) == 0)?;
    agree("limbo is too long", limbo_len <= geometry.limbo_entries())?;
    let mut waiting: Vec<u64> =
        (0..limbo_len).map(|index| count(geometry.limbo_entry(index))).collect();
    let next_table = Some(count(NEXT_TABLE)).filter(|offset| *offset != 0);
    waiting.extend(next_table);
    waiting.sort_unstable();
    // What waits in limbo is in use, pinned or not; so is the table in the making.
    let survey = Survey::of(memory, geometry, &waiting).map_err(|Damage| "the truth is damaged")?;
    agree("limbo holds what a slot names", survey.retired.len() == waiting.len())?;
    next_table::check(memory, geometry)?;
    agree("live keys", count(LIVE_KEYS) == survey.live_keys)?;
    agree("live bytes", count(LIVE_BYTES) == survey.live_bytes)?;
    agree("tombstones", count(TOMBSTONES) == survey.tombstones)?;
    agree("free pages", count(FREE_PAGES) == survey.free_pages)?;
    agree("versions", count(NEXT_VERSION) > survey.last_version)?;
    let mut with_room = vec![0; classes::COUNT as usize];
    for surveyed in &survey.spans {
        let (span, used) = (&surveyed.span, survey.used(surveyed));
        let Some(class) = classes::get(span.class) else {
            agree("a large span is in use", used > 0)?;
            continue;
        };
        let state = State::unpack(count(geometry.descriptor(span.page, STATE)));
        agree("objects in use", state.used == used && used > 0)?;
        agree("objects never used", state.fresh <= class.objects)?;
        let mut free = vec![false; class.objects as usize];
        let mut next = u64::from(state.free);
        while let Some(index) = next.checked_sub(1) {
            let fresh = index >= u64::from(state.fresh);
            let in_use = !fresh && survey.uses(surveyed, index as u32);
            agree("a free object", !fresh && !in_use && !free[index as usize])?;
            free[index as usize] = true;
            next = count(arena::object(geometry, *span, class, index as u32) + LINK);
        }
        let listed = free.iter().filter(|free| **free).count() as u32;
        agree("free objects", used + listed + (class.objects - state.fresh) == class.objects)?;
        with_room[span.class as usize] += u32::from(used < class.objects);
    }
    for (class, expected) in with_room.into_iter().enumerate() {
        let found = spans::listed(memory, geometry, class as u32).ok_or("a list of spans")?;
        agree("spans with room", found.len() as u32 == expected)?;
    }
    let seed = geometry.seed();
    let table = super::table::Table::current(memory, geometry).map_err(|Damage| "the table")?;
    for (_, word) in table.words(memory) {
        let block = super::table::block_at(memory, geometry, word).map_err(|Damage| "a block")?;
        agree("a block's checksum", block.is_whole(memory, seed))?;
    }
    Ok(())
}
