//! Doorbells: how a writer tells watchers that something has changed, and what it notes for them.
//!
//! The core rings inside its operations, by [`Rung`](super::rung::Rung), behind the store that changes a key. Watchers look
//! at bells and notes.
//!
//! Invariants: the version of a key is the truth, and the bell only says when to look. A bell is rung behind
//! the change, or by recovery. A deletion is noted before it happens, so that no key comes and goes unseen.
//! Participants sleep only on words of the private part, which no untrusted process can map.
//!
//! # A bell
//!
//! | word | part | meaning | who changes it |
//! |---|---|---|---|
//! | generation | private | how often the bell was rung | holder of the lock |
//! | its copy | public | the same | holder of the lock |
//! | waiting | private | who sleeps, or is about to: participants on the generation, read-only processes on its copy | sleepers, and the host for read-only processes, set their bit; the ringer swaps 0 in, and wakes |
//!
//! A read-only process can steal wakes of the copy, or make each wake of it fail. That delays read-only processes,
//! which look at intervals as well. A wake there ends after a fixed number of sleepers, and its errors are
//! ignored, so that it costs the writer a bounded time.
//!
//! An announcement is not taken back, because others may be sleeping on the same bell. One that is left over
//! costs a writer one system call.
//!
//! # Notes of deletions
//!
//! A key that was absent at one look and is at the next may have been there in between. So each deletion leaves
//! a note in a ring of [`NOTES`]: version, hash, length and start of the key. Who looks compares what was noted
//! since; where more was noted than there is room for, it has to say that the key may have changed.

use super::StoreGeometry;
use crate::layout::store::generation;
use crate::layout::store::note::{self, NOTES};
use crate::layout::store::private::bell::{BUCKETS, GENERATION, PUBLIC, WAITING};
use crate::layout::store::private::prefix::ENTRIES;
use crate::memory::{Memory, Ordering};

/// Number of the bell that is rung whenever any key has changed.
pub(super) const EVERYTHING: u32 = BUCKETS as u32;

/// Number of the bell of a key with this hash.
pub(super) fn of(hash: u64) -> u32 {
    // Not the bits that choose a slot, nor those that a slot keeps.
    ((hash >> 20) % BUCKETS) as u32
}

/// Number of the bell of a watched prefix.
pub(super) fn of_prefix(entry: u32) -> u32 {
    EVERYTHING + 1 + entry
}

/// Whether a bell has this number.
pub(super) fn exists(number: u32) -> bool {
    number < of_prefix(ENTRIES as u32)
}

/// Whether the host has announced a read-only process at a bell that was not rung since.
pub(super) fn is_announced(memory: &impl Memory, geometry: &StoreGeometry, bell: u32) -> bool {
    memory.load_u32(geometry.bell(bell) + WAITING, Ordering::Relaxed) & PUBLIC != 0
}

/// Announces at a bell that these sleep there, or are about to.
///
/// Where the bit is set already, nothing has to be stored. Its ringer swaps it out before it moves the
/// generation: a sleeper that has seen the generation before either is woken, or does not fall asleep.
pub(super) fn announce(memory: &impl Memory, geometry: &StoreGeometry, bell: u32, sleepers: u32) {
    let word = geometry.bell(bell) + WAITING;
    // Relaxed: the fence orders it before the look. Its partner is the load in `ring`.
    let mut found = memory.load_u32(word, Ordering::Relaxed);
    while found & sleepers != sleepers {
        let new = found | sleepers;
        match memory.compare_exchange_u32(word, found, new, Ordering::Relaxed) {
            Ok(_) => break,
            Err(now) => found = now,
        }
    }
    memory.full_fence();
}

/// Between a change and the look for who waits for it.
#[inline]
pub(super) fn fence(memory: &impl Memory) {
    // Pairs with the fence of a watcher in `announce`: it sees the change, or we see it waiting.
    memory.full_fence();
}

/// Rings one bell. Returns who is to be woken: bits of [`WAITING`].
///
/// The announcement is taken back before the generation moves. So who has seen the new generation announces
/// himself behind that, and whose announcement is taken finds the generation moved, or is asleep and
/// woken.
#[inline]
pub(super) fn ring(memory: &impl Memory, geometry: &StoreGeometry, number: u32) -> u32 {
    let bell = geometry.bell(number);
    // Relaxed: the fence orders it behind the change. Its partner is the exchange in `announce`.
    let sleepers = match memory.load_u32(bell + WAITING, Ordering::Relaxed) {
        0 => 0,
        _ => memory.swap_u32(bell + WAITING, 0, Ordering::Relaxed),
    };
    let generation = memory.load_u32(bell + GENERATION, Ordering::Relaxed);
    // Release pairs with the Acquire in `Watcher::generation`: a watcher that sees the new generation sees the
    // change, and announces itself behind the swap.
    memory.store_u32(bell + GENERATION, generation.wrapping_add(1), Ordering::Release);
    // The copy for those that map the public part only; pairs with the same Acquire.
    let copy = generation::of_bell(number.into());
    memory.store_u32(copy, generation.wrapping_add(1), Ordering::Release);
    sleepers
}

/// Notes that a value is about to be deleted. Nothing has to be taken back where it is not: who finds
/// the note finds the value present as before.
pub(super) fn note_deletion(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    key: &[u8],
    hash: u64,
    version: u64,
) {
    let count = memory.load_u64(note::COUNT, Ordering::Relaxed);
    let at = geometry.note(count % NOTES);
    // Whoever sees anything of the new note sees, behind a fence of its own, that the count had come
    // to where the old one is not to be trusted.
    memory.release_fence();
    memory.store_u64(at + note::VERSION, version, Ordering::Relaxed);
    memory.store_u64(at + note::HASH, hash, Ordering::Relaxed);
    memory.store_u64(at + note::KEY_LEN, key.len() as u64, Ordering::Relaxed);
    memory.copy_in(at + note::KEY, &key[..key.len().min(note::KEY_BYTES as usize)]);
    // Release pairs with the Acquire in `noted`.
    memory.store_u64(note::COUNT, count.wrapping_add(1), Ordering::Release);
}

/// Says that more is about to be deleted than can be noted.
pub(super) fn note_many_deletions(memory: &impl Memory) {
    let count = memory.load_u64(note::COUNT, Ordering::Relaxed);
    memory.store_u64(note::COUNT, count.wrapping_add(NOTES), Ordering::Release);
}

/// A note of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) version: u64,
    pub(super) hash: u64,
    key_len: u64,
    key: [u8; note::KEY_BYTES as usize],
}

impl Note {
    /// Whether it can be that of this key. For keys that were noted whole there is no doubt.
    pub(super) fn is_of(&self, key: &[u8], hash: u64) -> bool {
        self.hash == hash && self.key_len == key.len() as u64 && key.starts_with(self.key_start())
    }

    /// Whether the key can have this prefix.
    pub(super) fn may_have_prefix(&self, prefix: &[u8]) -> bool {
        let start = self.key_start();
        prefix.len() as u64 <= self.key_len
            && if prefix.len() <= start.len() {
                start.starts_with(prefix)
            } else {
                prefix.starts_with(start)
            }
    }

    /// The key, where it was noted whole.
    pub(super) fn key(&self) -> Option<&[u8]> {
        (self.key_len <= note::KEY_BYTES).then(|| self.key_start())
    }

    /// As much of the key as was noted.
    pub(super) fn key_start(&self) -> &[u8] {
        &self.key[..self.key_len.min(note::KEY_BYTES) as usize]
    }
}

/// How many deletions have been noted so far.
pub(super) fn noted(memory: &impl Memory) -> u64 {
    // Pairs with the Release in `note_deletion`.
    memory.load_u64(note::COUNT, Ordering::Acquire)
}

/// Reads the notes with the numbers `from..to` into `notes`. Returns whether those are all that there
/// were; where not, `notes` holds only some of them.
pub(super) fn read_notes(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    from: u64,
    to: u64,
    notes: &mut Vec<Note>,
) -> bool {
    notes.clear();
    let count = to.wrapping_sub(from);
    if count >= NOTES {
        return false;
    }
    for number in 0..count {
        let at = geometry.note(from.wrapping_add(number) % NOTES);
        let word = |word| memory.load_u64(at + word, Ordering::Relaxed);
        let (version, hash, key_len) = (word(note::VERSION), word(note::HASH), word(note::KEY_LEN));
        let mut key = [0; note::KEY_BYTES as usize];
        memory.copy_out(at + note::KEY, &mut key);
        notes.push(Note { version, hash, key_len, key });
    }
    // Pairs with the release fence in `note_deletion`: where the place of a note was being used again,
    // the count has come to it.
    memory.acquire_fence();
    memory.load_u64(note::COUNT, Ordering::Relaxed).wrapping_sub(from) < NOTES
}
