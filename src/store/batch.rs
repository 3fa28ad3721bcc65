//! Several keys at once: all of them change, or none.
//!
//! The store's handles call [`Core::commit`] under the lock; recovery calls [`settle`] for a batch that it finds.
//! What always holds: every object taken for a batch is named in the batch's block, until it is in limbo or part
//! of the truth; the store of the state is the only one by which anything changes for readers.
//!
//! ```text
//! take objects ──► write them ──► slots := pending ──► state := committed ──► slots := new ──► limbo
//! └──── dies here: what was taken goes into limbo ─────┘└─── dies here: the rest is done ───────────┘
//! ```

use std::collections::{HashMap, HashSet};

use super::StoreGeometry;
use super::arena;
use super::block::{Block, block_bytes, hash};
use super::core::{Core, Refusal, account, assert_key, next_version};
use super::doorbells::{self, note_deletion};
use super::grow::Growth;
use super::journal::{self, Found, Journal, Operation};
use super::limbo;
use super::next_table;
use super::pending::{self, Pending};
use super::spans::{Damage, Room};
use super::table::{Place, Table, block_at};
use crate::layout::WORD_BYTES;
use crate::layout::store::batch::{COMMITTED, COUNT, ENTRIES, ENTRY_BYTES, PREPARED, STATE};
use crate::layout::store::block::{HASH, KEY_LEN, KIND, KIND_BATCH, VERSION};
use crate::layout::store::{BATCH, pending as layout, slot};
use crate::memory::{Memory, Ordering};

/// One key of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    pub(super) key: &'a [u8],
    /// The new value and its tag; `None` deletes the key.
    pub(super) value: Option<(&'a [u8], u32)>,
}

impl<'a> Change<'a> {
    /// Makes `value` the value of a key.
    pub fn set(key: &'a [u8], value: &'a [u8]) -> Self {
        Self { key, value: Some((value, 0)) }
    }

    /// Removes a key, where it is there.
    pub fn delete(key: &'a [u8]) -> Self {
        Self { key, value: None }
    }
}

/// A change, and where it goes.
struct Placed<'a> {
    /// Its number among all that were asked for.
    number: usize,
    change: Change<'a>,
    hash: u64,
    slot: u64,
    old: u64,
}

/// What was taken for a change.
#[derive(Debug, Clone, Copy)]
struct Entry {
    slot: u64,
    pending: u64,
    /// 0 for a deletion.
    value: u64,
}

/// The block of the batch in progress.
#[derive(Debug, Clone, Copy)]
struct Batch {
    offset: u64,
    /// How many entries there is room for.
    capacity: u64,
}

impl<M: Memory> Core<M> {
    /// Makes all changes at once, or none. Of several changes to one key the last one counts. Returns the
    /// versions of the new values, in the order of the changes; `None` for deletions, and for
    /// what a later change of the same key replaces.
    ///
    /// # Errors
    /// [`Refusal::OutOfSpace`]: nothing has changed. [`Refusal::Damage`]: [`recover`](Self::recover).
    ///
    /// # Panics
    /// Where a key is empty or longer than 64 KiB.
    pub fn commit(&mut self, changes: &[Change<'_>]) -> Result<Vec<Option<u64>>, Refusal> {
        self.go_on()?;
        let mut versions = vec![None; changes.len()];
        let changes = last_of_each_key(changes);
        match self.try_commit(&changes, &mut versions) {
            Err(Refusal::OutOfSpace) => {
                self.make_room_for_all(&changes)?;
                let done = self.try_commit(&changes, &mut versions);
                if done == Err(Refusal::OutOfSpace) {
                    self.give_back()?;
                    if !self.all_replace_as_much(&changes)? {
                        return Err(Refusal::OutOfSpace);
                    }
                    self.with_reserve(|core| core.try_commit(&changes, &mut versions))?;
                } else {
                    done?;
                }
            }
            done => done?,
        }
        Ok(versions)
    }

    fn try_commit(
        &mut self,
        changes: &[(usize, Change<'_>)],
        versions: &mut [Option<u64>],
    ) -> Result<(), Refusal> {
        let placed = self.place(changes)?;
        if placed.is_empty() {
            return Ok(());
        }
        match self.prepare(&placed, versions) {
            Ok(batch) => {
                publish(&self.memory, batch, &placed);
                for placed in &placed {
                    self.rung.about_to_change(&self.memory, placed.change.key, placed.hash);
                }
                note_deletions(&self.memory, &self.geometry, &placed)?;
                // The commit. Pairs with the Acquire in pending::state: who sees it sees the blocks.
                // Release also keeps it behind the slots, for whoever recovers.
                self.memory.store_u64(batch.offset + STATE, COMMITTED, Ordering::Release);
                doorbells::fence(&self.memory);
                let hashes = placed.iter().map(|placed| placed.hash);
                self.rung.ring_behind_fence(&self.memory, hashes);
                settle(self)?;
                Ok(())
            }
            Err(Refusal::OutOfSpace) => {
                if self.memory.load_u64(BATCH, Ordering::Relaxed) != 0 {
                    settle(self)?;
                }
                Err(Refusal::OutOfSpace)
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Whether none of the changes needs more room, once it is made, than there was before.
    fn all_replace_as_much(&self, changes: &[(usize, Change<'_>)]) -> Result<bool, Refusal> {
        for (_, Change { key, value }) in changes {
            if let Some((bytes, _)) = value {
                let len = block_bytes(key.len() as u64, bytes.len() as u64).unwrap_or(u64::MAX);
                if !self.replaces_as_much(key, len)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Gives back what no reader looks at; where room for all changes is then not found in one piece, moves
    /// blocks.
    fn make_room_for_all(&mut self, changes: &[(usize, Change<'_>)]) -> Result<(), Refusal> {
        self.give_back()?;
        let values = changes.iter().filter_map(|(_, Change { key, value })| {
            block_bytes(key.len() as u64, (*value)?.0.len() as u64)
        });
        let pending = changes.iter().map(|_| layout::BYTES);
        let batch = ENTRIES + changes.len() as u64 * ENTRY_BYTES;
        let wanted = arena::pages_for_all(values.chain(pending).chain([batch]));
        self.make_run(wanted)
    }

    /// Makes room in the table, and finds each change's slot. Deletions of what is absent fall away.
    fn place<'a>(&mut self, changes: &[(usize, Change<'a>)]) -> Result<Vec<Placed<'a>>, Refusal> {
        // As many steps as single operations would have made.
        self.go_on_with_table((changes.len() as u64).saturating_sub(1))?;
        let mut more = 0;
        for (_, change) in changes.iter().filter(|(_, change)| change.value.is_some()) {
            more += u64::from(matches!(self.find(change.key)?.1, Place::Absent { .. }));
        }
        self.make_room_for_keys(more, Growth::Early)?;
        let Self { memory, geometry, .. } = self;
        let table = Table::current(memory, geometry)?;
        // Slots for keys that are absent yet: no other one of the batch may go there.
        let mut taken = HashSet::new();
        let mut placed = Vec::with_capacity(changes.len());
        for &(number, change) in changes {
            let hash = hash(change.key, geometry.seed());
            let (slot, old) =
                match table
                    .find_beside(memory, geometry, change.key, hash, |slot| taken.contains(&slot))?
                {
                    Place::Present { slot, word, .. } => (slot, word),
                    Place::Absent { .. } if change.value.is_none() => continue,
                    Place::Absent { slot, word } => {
                        taken.insert(slot);
                        (slot, word)
                    }
                };
            placed.push(Placed { number, change, hash, slot, old });
        }
        Ok(placed)
    }

    /// Takes and writes all blocks.
    fn prepare(
        &mut self,
        placed: &[Placed<'_>],
        versions: &mut [Option<u64>],
    ) -> Result<Batch, Refusal> {
        let Self { memory, geometry, .. } = self;
        let capacity = placed.len() as u64;
        let mut journal = Journal::begin(memory, Operation::Slot, 0, 0);
        let Some(offset) =
            arena::take(&mut journal, geometry, ENTRIES + capacity * ENTRY_BYTES, self.room)?
        else {
            journal.end();
            return Err(Refusal::OutOfSpace);
        };
        let batch = Batch { offset, capacity };
        batch.write(memory, next_version(memory));
        // From here on the batch's block says what there is to do.
        journal.put_u64(BATCH, offset);
        journal.end();
        for (index, placed) in (0..).zip(placed) {
            let version = batch.take((memory, geometry, self.room), index, placed)?;
            versions[placed.number] = placed.change.value.map(|_| version);
        }
        Ok(batch)
    }
}

/// Of several changes to one key, the last one; all with their numbers, in their order.
fn last_of_each_key<'a>(changes: &[Change<'a>]) -> Vec<(usize, Change<'a>)> {
    let mut last = HashMap::with_capacity(changes.len());
    for (index, change) in changes.iter().enumerate() {
        assert_key(change.key);
        last.insert(change.key, index);
    }
    let counts = |(index, change): &(usize, Change<'a>)| last[change.key] == *index;
    changes.iter().copied().enumerate().filter(counts).collect()
}

/// Puts the pending blocks into the slots. Readers still see the old values.
fn publish(memory: &impl Memory, batch: Batch, placed: &[Placed<'_>]) {
    for (index, placed) in (0..).zip(placed) {
        let pending = slot::pack(batch.entry(memory, index).pending, placed.hash);
        // Pairs with the Acquire of readers: the pending block is visible.
        memory.store_u64(placed.slot, pending, Ordering::Release);
    }
}

/// Notes what is about to be deleted, for watchers.
fn note_deletions(
    memory: &impl Memory,
    geometry: &StoreGeometry,
    placed: &[Placed<'_>],
) -> Result<(), Damage> {
    for Placed { change, hash, old, .. } in
        placed.iter().filter(|placed| placed.change.value.is_none())
    {
        let version = block_at(memory, geometry, *old)?.version;
        note_deletion(memory, geometry, change.key, *hash, version);
    }
    Ok(())
}

impl Batch {
    fn write(self, memory: &impl Memory, version: u64) {
        let Self { offset, .. } = self;
        memory.release_fence();
        memory.store_u64(offset + HASH, 0, Ordering::Relaxed);
        memory.store_u32(offset + KEY_LEN, 0, Ordering::Relaxed);
        memory.store_u32(offset + KIND, KIND_BATCH, Ordering::Relaxed);
        memory.store_u64(offset + STATE, PREPARED, Ordering::Relaxed);
        memory.store_u64(offset + COUNT, 0, Ordering::Relaxed);
        memory.store_u64(offset + VERSION, version, Ordering::Release);
    }

    /// The batch in progress.
    fn current(memory: &impl Memory, geometry: &StoreGeometry) -> Result<Self, Damage> {
        let offset = memory.load_u64(BATCH, Ordering::Acquire);
        let room = arena::room_bytes(memory, geometry, offset)?;
        let version = memory.load_u64(offset + VERSION, Ordering::Acquire);
        if version == 0 || memory.load_u32(offset + KIND, Ordering::Relaxed) != KIND_BATCH {
            return Err(Damage);
        }
        Ok(Self { offset, capacity: room.saturating_sub(ENTRIES) / ENTRY_BYTES })
    }

    fn count(self, memory: &impl Memory) -> Result<u64, Damage> {
        let count = memory.load_u64(self.offset + COUNT, Ordering::Acquire);
        if count <= self.capacity { Ok(count) } else { Err(Damage) }
    }

    fn entry_offset(self, index: u64) -> u64 {
        debug_assert!(index < self.capacity);
        self.offset + ENTRIES + index * ENTRY_BYTES
    }

    fn entry(self, memory: &impl Memory, index: u64) -> Entry {
        let word =
            |at| memory.load_u64(self.entry_offset(index) + at * WORD_BYTES, Ordering::Relaxed);
        Entry { slot: word(0), pending: word(1), value: word(2) }
    }

    /// Takes what a change needs, and writes it; notes it as the next entry. Returns the version that
    /// the new value has.
    fn take<M: Memory>(
        self,
        (memory, geometry, room): (&M, &StoreGeometry, Room),
        index: u64,
        placed: &Placed<'_>,
    ) -> Result<u64, Refusal> {
        let Placed { change: Change { key, value }, hash, slot, old, .. } = *placed;
        let mut noted = Journal::begin(memory, Operation::Slot, 0, 0);
        let object = match value {
            None => 0,
            Some((bytes, _)) => {
                let len = block_bytes(key.len() as u64, bytes.len() as u64);
                let len = len.unwrap_or(u64::MAX);
                let Some(object) = arena::take(&mut noted, geometry, len, room)? else {
                    // Nothing was taken.
                    noted.end();
                    return Err(Refusal::OutOfSpace);
                };
                object
            }
        };
        let Some(pending) = arena::take(&mut noted, geometry, layout::BYTES, room)? else {
            // The value's object is taken back, with all that was noted.
            return match journal::take_back(memory) {
                Found::TakenBack => Err(Refusal::OutOfSpace),
                _ => Err(Refusal::Damage),
            };
        };
        // Behind the count, where nobody looks yet.
        for (at, word) in (self.entry_offset(index)..).step_by(8).zip([slot, pending, object]) {
            memory.store_u64(at, word, Ordering::Release);
        }
        noted.put_u64(self.offset + COUNT, index + 1);
        noted.end();
        let version = next_version(memory);
        let new = match value {
            None => slot::TOMBSTONE,
            Some(value) => {
                Block::write(memory, object, (key, hash), value, version);
                slot::pack(object, hash)
            }
        };
        Pending { hash, old, new, batch: self.offset }.write(memory, pending, version);
        Ok(version)
    }
}

/// Brings the batch in progress to its end: done, if its state says so, and as if it had never been, if not.
/// Can die at any step and be done again. Returns whether it was done.
///
/// Called by the batch's own writer, and by whoever recovers; nobody else meets a pending block under the lock.
pub(super) fn settle<M: Memory>(core: &mut Core<M>) -> Result<bool, Damage> {
    let batch = Batch::current(&core.memory, &core.geometry)?;
    let committed = match pending::state(&core.memory, &core.geometry, batch.offset) {
        Some(PREPARED) => false,
        Some(COMMITTED) => true,
        _ => return Err(Damage),
    };
    strip(&core.memory, &core.geometry, batch)?;
    loop {
        core.make_room_in_limbo()?;
        let Core { memory, geometry, .. } = core;
        let Some(last) = batch.count(memory)?.checked_sub(1) else { break };
        let Entry { slot, pending, value } = batch.entry(memory, last);
        let mut journal = Journal::begin(memory, Operation::Slot, 0, 0);
        if committed {
            let Pending { hash, old, new, .. } =
                Pending::read(memory, geometry, pending).ok_or(Damage)?;
            next_table::follow(memory, geometry, slot, hash, (old, new));
            account(&mut journal, geometry, old, new)?;
        } else if value != 0 {
            retire(&mut journal, geometry, value)?;
        }
        retire(&mut journal, geometry, pending)?;
        journal.put_u64(batch.offset + COUNT, last);
        journal.end();
    }
    let mut journal = Journal::begin(&core.memory, Operation::Slot, 0, 0);
    retire(&mut journal, &core.geometry, batch.offset)?;
    journal.put_u64(BATCH, 0);
    journal.end();
    Ok(committed)
}

/// Makes the batch's slots name what its pending blocks stand for.
fn strip<M: Memory>(memory: &M, geometry: &StoreGeometry, batch: Batch) -> Result<(), Damage> {
    let table = Table::current(memory, geometry)?;
    for index in 0..batch.count(memory)? {
        let Entry { slot, pending, .. } = batch.entry(memory, index);
        if !table.has_slot(slot) {
            return Err(Damage);
        }
        let word = memory.load_u64(slot, Ordering::Relaxed);
        // Where the slot does not name it, it did not yet, or does not any more.
        if slot::block(word) == pending && word > slot::TOMBSTONE {
            strip_slot(memory, geometry, slot, pending)?;
        }
    }
    Ok(())
}

fn strip_slot<M: Memory>(
    memory: &M,
    geometry: &StoreGeometry,
    slot: u64,
    offset: u64,
) -> Result<(), Damage> {
    let pending = Pending::read(memory, geometry, offset).ok_or(Damage)?;
    let word = pending.stands_for(memory, geometry).ok_or(Damage)?;
    if word > slot::TOMBSTONE && block_at(memory, geometry, word)?.hash != pending.hash {
        return Err(Damage);
    }
    // Pairs with the Acquire of readers. Readers see the same value before and after.
    memory.store_u64(slot, word, Ordering::Release);
    Ok(())
}

/// Makes every slot that names a pending block name what that stands for, without the help of any index.
/// What the blocks lie in is then for the rebuild to find.
pub(super) fn strip_all<M: Memory>(memory: &M, geometry: &StoreGeometry) -> Result<(), Damage> {
    let table = Table::current(memory, geometry)?;
    for (slot, word) in table.words(memory) {
        let offset = slot::block(word);
        if Pending::read(memory, geometry, offset).is_some() {
            strip_slot(memory, geometry, slot, offset)?;
        }
    }
    // Before the rebuild's stores, some of which go into what the slots named.
    memory.release_fence();
    Ok(())
}

fn retire<M: Memory>(
    journal: &mut Journal<'_, M>,
    geometry: &StoreGeometry,
    offset: u64,
) -> Result<(), Damage> {
    let bytes = arena::room_bytes(journal.memory(), geometry, offset)?;
    limbo::put(journal, geometry, offset, bytes)
}
