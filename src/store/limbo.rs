//! Limbo: blocks that no slot names any more, and that a reader may still be looking at.
//!
//! The writer puts replaced and deleted blocks there, and takes those back that no reader has pinned, many at
//! a time, because finding out costs a look at every pin.
//! What always holds: an object that a slot named is given back to the arena only after a look at all pins that came
//! after it was unlinked; what is pinned stays.

use super::StoreGeometry;
use super::arena;
use super::journal::{Journal, Operation};
use super::spans::Damage;
use crate::layout::WORD_BYTES;
use crate::layout::store::{LIMBO_BYTES, LIMBO_LEN, reader};
use crate::memory::{Memory, Ordering};

/// How many entries are looked through at once, if their bytes do not call for it before: so few that a change which
/// does it takes little longer, and so many that the look at all readers costs little for each.
fn at_once(geometry: &StoreGeometry) -> u64 {
    (2 * geometry.readers()).clamp(128, 1024)
}

/// What the last look found to be pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Held {
    /// How many entries.
    pub(super) entries: u64,
    /// Bytes of their objects.
    pub(super) bytes: u64,
}

/// Puts an object into limbo, which was taken for so many bytes. There is room: see [`is_due`].
pub(super) fn put<M: Memory>(
    journal: &mut Journal<'_, M>,
    geometry: &StoreGeometry,
    offset: u64,
    bytes: u64,
) -> Result<(), Damage> {
    let memory = journal.memory();
    let len = memory.load_u64(LIMBO_LEN, Ordering::Relaxed);
    if len >= geometry.limbo_entries() {
        return Err(Damage);
    }
    // Behind the end, where nobody looks before the length says so. Release: not before the operation
    // that has shortened limbo was over.
    memory.store_u64(geometry.limbo_entry(len), offset, Ordering::Release);
    journal.put_u64(LIMBO_LEN, len + 1);
    let total = memory.load_u64(LIMBO_BYTES, Ordering::Relaxed);
    // As many as are taken off again when it is given back.
    journal.put_u64(LIMBO_BYTES, total.saturating_add(arena::object_bytes(bytes)));
    Ok(())
}

/// Whether limbo should be looked through before the next operation: it is nearly full, or holds
/// more than a sixteenth of the arena besides what was pinned at the last look.
pub(super) fn is_due(memory: &impl Memory, geometry: &StoreGeometry, held: Held) -> bool {
    let bytes = memory.load_u64(LIMBO_BYTES, Ordering::Relaxed);
    is_full(memory, geometry, held)
        || bytes.saturating_sub(held.bytes) > geometry.arena_bytes() / 16
}

/// Whether limbo must be looked through before more is put there. A look always makes room: what
/// it leaves is pinned, and there are more entries than pins.
pub(super) fn is_full(memory: &impl Memory, geometry: &StoreGeometry, held: Held) -> bool {
    let len = memory.load_u64(LIMBO_LEN, Ordering::Relaxed);
    // What was pinned at the last look is likely to be pinned still.
    len >= held.entries + at_once(geometry) || len + 8 > geometry.limbo_entries()
}

/// Gives back what no reader has pinned. Returns what is still held.
///
/// Operations of its own, one for each entry, so that each can be taken back and done again.
pub(super) fn look_through(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    pinned: &mut Vec<u64>,
) -> Result<Held, Damage> {
    // Pairs with the fence of a reader in `pin_current`, between its pin and its second look at the slot: a
    // reader whose pin is not seen here sees that the slot has changed.
    memory.full_fence();
    collect_pins(memory, geometry, pinned);
    let len = memory.load_u64(LIMBO_LEN, Ordering::Relaxed).min(geometry.limbo_entries());
    let mut index = len;
    let mut left = len;
    // From the end, so that the last entry, which takes a given-back one's place, has been looked at.
    while let Some(at) = index.checked_sub(1) {
        index = at;
        let entry = geometry.limbo_entry(at);
        let offset = memory.load_u64(entry, Ordering::Relaxed);
        if pinned.binary_search(&offset).is_ok() {
            continue;
        }
        let bytes = arena::room_bytes(memory, geometry, offset)?;
        let mut journal = Journal::begin(memory, Operation::Slot, 0, 0);
        left -= 1;
        let last = memory.load_u64(geometry.limbo_entry(left), Ordering::Relaxed);
        journal.put_u64(entry, last);
        journal.put_u64(LIMBO_LEN, left);
        let total = memory.load_u64(LIMBO_BYTES, Ordering::Relaxed);
        journal.put_u64(LIMBO_BYTES, total.saturating_sub(bytes));
        arena::give_back(&mut journal, geometry, offset)?;
        journal.end();
    }
    Ok(Held { entries: left, bytes: memory.load_u64(LIMBO_BYTES, Ordering::Relaxed) })
}

/// All pins of all readers, sorted.
///
/// Each reader's are looked at in their order: one that moves up, as into [`reader::SECOND_PIN`], is met
/// at the old place or at the new one.
pub(super) fn collect_pins(memory: &impl Memory, geometry: &StoreGeometry, pinned: &mut Vec<u64>) {
    pinned.clear();
    for record in (0..geometry.readers()).map(|index| geometry.reader(index)) {
        // Acquire: pairs with the Release of a claim; a reader that claims later pins after our fence.
        if memory.load_u64(record + reader::OWNER, Ordering::Acquire) == 0 {
            continue;
        }
        for pin in 0..reader::MAX_PINS {
            // Pairs with the Release of an unpin: the reader's looks at the block are over.
            let offset =
                memory.load_u64(record + reader::PINS + pin * WORD_BYTES, Ordering::Acquire);
            if offset != 0 {
                pinned.push(offset);
            }
        }
    }
    pinned.sort_unstable();
}
