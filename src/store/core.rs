//! What a writer does while it has the lock: set, delete, grow.
//!
//! The store's handles call it between taking the lock and letting it go; recovery finishes what it left.
//! What always holds: setting or deleting a key is one store of one slot; everything else follows it, or is taken
//! back when that store did not happen; what does not fit changes nothing.

use thiserror::Error;

use super::StoreGeometry;
use super::arena;
use super::block::{self, Block, block_bytes, hash};
use super::doorbells::note_deletion;
use super::grow::Growth;
use super::journal::{Journal, Operation};
use super::limbo::{self, Held};
use super::next_table;
use super::recovery::{self, Recovered};
use super::root;
use super::rung::Rung;
use super::spans::{Damage, Room};
use super::table::{Place, Table, block_at};
use crate::layout::store::{
    LEAST_LOG2_SLOTS, LIVE_BYTES, LIVE_KEYS, NEXT_VERSION, TOMBSTONES, slot,
};
use crate::memory::{Memory, Ordering};

/// Why an operation under the lock did not do what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No room, also after everything was given back that could be. The old value stays.
    #[error("the store has no room for this value")]
    OutOfSpace,
    /// An index or a block says what cannot be: the store must be recovered.
    #[error("the store is damaged: a table or block is not what a writer leaves")]
    Damage,
}

impl From<Damage> for Refusal {
    fn from(Damage: Damage) -> Self {
        Self::Damage
    }
}

/// What a process needs to change a store, besides the lock: whoever calls a method has it.
#[derive(Debug)]
pub struct Core<M> {
    pub(super) memory: M,
    pub(super) geometry: StoreGeometry,
    /// Pins, as last seen; kept for its memory.
    pub(super) pinned: Vec<u64>,
    /// What of limbo was pinned then.
    pub(super) held: Held,
    /// Whom to wake when the lock has been let go.
    pub(super) rung: Rung,
    /// What room the operation in progress may use.
    pub(super) room: Room,
}

impl<M: Memory> Core<M> {
    /// For a store of these measures, in memory that is as long as they say.
    ///
    /// # Panics
    /// Where the memory is shorter.
    pub fn new(memory: M, geometry: StoreGeometry) -> Self {
        assert!(memory.len_bytes() >= geometry.len_bytes(), "the memory is too short");
        Self {
            memory,
            geometry,
            pinned: Vec::new(),
            held: Held::default(),
            rung: Rung::new(geometry),
            room: Room::Free,
        }
    }

    /// Makes an empty store of memory that is all zeros.
    ///
    /// # Errors
    /// [`Refusal::OutOfSpace`] where not even an empty table fits.
    pub fn format(&self) -> Result<(), Refusal> {
        self.format_for(0)
    }

    /// As [`format`](Self::format), with a table that so many keys fit into.
    ///
    /// # Errors
    /// [`Refusal::OutOfSpace`] where that table does not fit.
    pub(super) fn format_for(&self, keys: u64) -> Result<(), Refusal> {
        let Self { memory, geometry, .. } = self;
        memory.store_u64(NEXT_VERSION, 1, Ordering::Relaxed);
        let free = crate::layout::store::FREE_PAGES;
        memory.store_u64(free, geometry.pages(), Ordering::Relaxed);
        let mut journal = Journal::begin(memory, Operation::Bulk, 0, 0);
        let log2_slots = Table::log2_expecting(keys);
        if keys > 0 {
            memory.store_u64(LEAST_LOG2_SLOTS, log2_slots, Ordering::Relaxed);
        }
        let object = arena::take(&mut journal, geometry, Table::bytes(log2_slots), self.room)?;
        let object = object.ok_or(Refusal::OutOfSpace)?;
        Table::write_empty(memory, object, log2_slots);
        root::switch_to(memory, object);
        journal.end();
        Ok(())
    }

    /// Where a key is, or would go.
    pub(super) fn find(&self, key: &[u8]) -> Result<(u64, Place), Damage> {
        let hash = hash(key, self.geometry.seed());
        let table = Table::current(&self.memory, &self.geometry)?;
        Ok((hash, table.find(&self.memory, &self.geometry, key, hash)?))
    }

    /// How many slots in a row are in use, or have been, around where an absent key would go; about
    /// `most` where they are more.
    pub(super) fn run_around(&self, key: &[u8], most: u64) -> Result<u64, Damage> {
        let table = Table::current(&self.memory, &self.geometry)?;
        let home = table.home(hash(key, self.geometry.seed()));
        let in_use =
            |number| self.memory.load_u64(table.numbered(number), Ordering::Relaxed) != slot::EMPTY;
        let most = most.saturating_add(1).min(table.len());
        let behind = (0..most).take_while(|step| in_use(home.wrapping_add(*step))).count() as u64;
        // The slot at the end of these will be in use too, and may join them to those behind it.
        let joined = (1..most).take_while(|step| in_use(home.wrapping_add(behind + step)));
        let joined = joined.count() as u64;
        let before = (1..most).take_while(|step| in_use(home.wrapping_sub(*step))).count() as u64;
        Ok(before + behind + 1 + joined)
    }

    /// Makes `bytes` the value of a key; returns the value's version, which no other value ever gets.
    ///
    /// # Errors
    /// [`Refusal::OutOfSpace`]: nothing has changed. [`Refusal::Damage`]: [`recover`](Self::recover).
    ///
    /// # Panics
    /// Where the key is empty or longer than 64 KiB.
    pub fn set(&mut self, key: &[u8], bytes: &[u8]) -> Result<u64, Refusal> {
        self.set_tagged(key, (bytes, 0))
    }

    /// As [`set`](Self::set); the tag, of 24 bits, goes with the value.
    pub(super) fn set_tagged(&mut self, key: &[u8], value: (&[u8], u32)) -> Result<u64, Refusal> {
        assert_key(key);
        self.go_on()?;
        match self.set_where_there_is_room(key, value, Growth::Early)? {
            Some(version) => Ok(version),
            None => self.set_after_making_room(key, value),
        }
    }

    /// `None` where there is no room for the value.
    fn set_where_there_is_room(
        &mut self,
        key: &[u8],
        value: (&[u8], u32),
        growth: Growth,
    ) -> Result<Option<u64>, Refusal> {
        let bytes = value.0;
        let (hash, mut place) = self.find(key)?;
        // A tombstone's place leaves as many slots empty as there were.
        if let Place::Absent { word: slot::EMPTY, .. } = place
            && self.make_room_for_keys(1, growth)?
        {
            place = self.find(key)?.1;
        }
        let len = block_bytes(key.len() as u64, bytes.len() as u64).ok_or(Refusal::OutOfSpace)?;
        let (slot, old, old_bytes) = match place {
            Place::Present { slot, word, block } => (slot, word, block.bytes().ok_or(Damage)?),
            Place::Absent { slot, word } => (slot, word, 0),
        };
        let mut journal = Journal::begin(&self.memory, Operation::Slot, slot, old);
        let Some(object) = arena::take(&mut journal, &self.geometry, len, self.room)? else {
            journal.end();
            return Ok(None);
        };
        let version = next_version(&self.memory);
        Block::write(&self.memory, object, (key, hash), value, version);
        let new = slot::pack(object, hash);
        self.rung.about_to_change(&self.memory, key, hash);
        journal.commit(slot, new);
        self.rung.ring_behind_fence(&self.memory, [hash]);
        next_table::follow(&self.memory, &self.geometry, slot, hash, (old, new));
        account_bytes(&mut journal, &self.geometry, (old, old_bytes), (new, len))?;
        journal.end();
        Ok(Some(version))
    }

    #[cold]
    fn set_after_making_room(&mut self, key: &[u8], value: (&[u8], u32)) -> Result<u64, Refusal> {
        let len = block_bytes(key.len() as u64, value.0.len() as u64).ok_or(Refusal::OutOfSpace)?;
        if self.make_room(len)? {
            // Another table would take that room.
            let set = self.set_where_there_is_room(key, value, Growth::WhenFull)?;
            return set.ok_or(Refusal::OutOfSpace);
        }
        if !self.replaces_as_much(key, len)? {
            return Err(Refusal::OutOfSpace);
        }
        self.with_reserve(|core| {
            let set = core.set_where_there_is_room(key, value, Growth::WhenFull)?;
            set.ok_or(Refusal::OutOfSpace)
        })
    }

    /// Removes a key; returns whether it was there.
    ///
    /// # Errors
    /// [`Refusal::Damage`]: [`recover`](Self::recover).
    pub fn delete(&mut self, key: &[u8]) -> Result<bool, Refusal> {
        self.go_on()?;
        let (hash, Place::Present { slot, word, block }) = self.find(key)? else {
            return Ok(false);
        };
        // Before anything changes: what lies in no object is damage, and no key that is gone afterwards.
        let bytes = block_at(&self.memory, &self.geometry, word)?.bytes().ok_or(Damage)?;
        let mut journal = Journal::begin(&self.memory, Operation::Slot, slot, word);
        // Nobody gets it; whoever looks at the counter sees that something changes.
        next_version(&self.memory);
        // Before the deletion's note: whoever sees that one sees this one.
        self.rung.about_to_change(&self.memory, key, hash);
        note_deletion(&self.memory, &self.geometry, key, hash, block.version);
        journal.commit(slot, slot::TOMBSTONE);
        self.rung.ring_behind_fence(&self.memory, [hash]);
        next_table::follow(&self.memory, &self.geometry, slot, hash, (word, slot::TOMBSTONE));
        account_bytes(&mut journal, &self.geometry, (word, bytes), (slot::TOMBSTONE, 0))?;
        journal.end();
        self.shrink_where_few_are_left()?;
        Ok(true)
    }

    /// Wakes whoever watches what was changed. Called without the lock, after an operation or several, by
    /// [`Writer`](super::Writer) when it is dropped.
    #[inline]
    pub fn wake_watchers(&mut self) {
        self.rung.wake(&self.memory);
    }

    /// Rings a bell, although nothing has changed.
    pub(super) fn ring(&mut self, bell: u32) {
        self.rung.ring_bell(&self.memory, bell);
    }

    /// What every operation does first: looks through limbo where it is time to, and moves the table in the making
    /// on by a step.
    #[inline]
    pub(super) fn go_on(&mut self) -> Result<(), Refusal> {
        self.tidy()?;
        self.go_on_with_table(1)
    }

    /// Moves the table in the making on by as many steps as so many operations do.
    #[inline]
    pub(super) fn go_on_with_table(&mut self, operations: u64) -> Result<(), Refusal> {
        if next_table::is_under_way(&self.memory) { self.advance_table(operations) } else { Ok(()) }
    }

    /// Looks through limbo where it is time to.
    pub(super) fn tidy(&mut self) -> Result<(), Refusal> {
        if limbo::is_due(&self.memory, &self.geometry, self.held) {
            self.give_back()
        } else {
            Ok(())
        }
    }

    /// Sees to it that a few more entries fit into limbo, in the middle of a batch.
    pub(super) fn make_room_in_limbo(&mut self) -> Result<(), Damage> {
        if limbo::is_full(&self.memory, &self.geometry, self.held) {
            self.held = limbo::look_through(&self.memory, &self.geometry, &mut self.pinned)?;
        }
        Ok(())
    }

    /// Gives the room of what was replaced or deleted, and no reader has pinned, back. Setting does so
    /// by itself from time to time.
    ///
    /// # Errors
    /// [`Refusal::Damage`]: [`recover`](Self::recover).
    pub fn give_back(&mut self) -> Result<(), Refusal> {
        self.held = limbo::look_through(&self.memory, &self.geometry, &mut self.pinned)?;
        Ok(())
    }

    /// Brings the store in order after a writer has died, at whatever step: its last operation has
    /// happened or has not, and everything else is as it was. Can die and be done again.
    ///
    /// # Errors
    /// [`Refusal::Damage`] where the table itself, or a block, says what no writer leaves.
    pub fn recover(&mut self) -> Result<Recovered, Refusal> {
        Ok(recovery::recover(self)?)
    }

    /// Computes all indexes anew, from the table and the blocks.
    ///
    /// # Errors
    /// As [`recover`](Self::recover).
    pub fn rebuild(&mut self) -> Result<Recovered, Refusal> {
        Ok(recovery::rebuild(self)?)
    }

    /// Whether every index says what the table and the blocks say, and every block is whole. Looks at
    /// everything.
    ///
    /// # Errors
    /// What the first thing is that is not so.
    pub fn check(&mut self) -> Result<(), &'static str> {
        recovery::check(self)
    }
}

/// A key that no block can hold is the caller's mistake.
pub(super) fn assert_key(key: &[u8]) {
    assert!(block::check_key(key).is_ok(), "a key has 1 to 65536 bytes");
}

/// The version of the next value. The store comes before any use of it, so that a version is never
/// given out twice; and in every operation, behind the journal's beginning and before the store that changes
/// a key: see [`Quiet`](super::cut::Quiet).
pub(super) fn next_version(memory: &impl Memory) -> u64 {
    let version = memory.load_u64(NEXT_VERSION, Ordering::Relaxed);
    memory.store_u64(NEXT_VERSION, version.wrapping_add(1), Ordering::Release);
    version
}

/// Makes limbo and the counts follow a slot that changed from `old` to `new`, of which nothing else is known.
pub(super) fn account<M: Memory>(
    journal: &mut Journal<'_, M>,
    geometry: &StoreGeometry,
    old: u64,
    new: u64,
) -> Result<(), Damage> {
    let memory = journal.memory();
    let bytes_of = |word| -> Result<u64, Damage> {
        if word <= slot::TOMBSTONE {
            return Ok(0);
        }
        block_at(memory, geometry, word)?.bytes().ok_or(Damage)
    };
    let (old_bytes, new_bytes) = (bytes_of(old)?, bytes_of(new)?);
    account_bytes(journal, geometry, (old, old_bytes), (new, new_bytes))
}

/// As [`account`], for words whose blocks have so many bytes; 0 where a word names none.
#[inline]
fn account_bytes<M: Memory>(
    journal: &mut Journal<'_, M>,
    geometry: &StoreGeometry,
    (old, old_bytes): (u64, u64),
    (new, new_bytes): (u64, u64),
) -> Result<(), Damage> {
    let memory = journal.memory();
    let count = |offset| memory.load_u64(offset, Ordering::Relaxed);
    let (was, is) = (u64::from(old > slot::TOMBSTONE), u64::from(new > slot::TOMBSTONE));
    journal
        .put_u64(LIVE_BYTES, count(LIVE_BYTES).saturating_add(new_bytes).saturating_sub(old_bytes));
    journal.put_u64(LIVE_KEYS, count(LIVE_KEYS).saturating_add(is).saturating_sub(was));
    let (was, is) = (u64::from(old == slot::TOMBSTONE), u64::from(new == slot::TOMBSTONE));
    journal.put_u64(TOMBSTONES, count(TOMBSTONES).saturating_add(is).saturating_sub(was));
    if old > slot::TOMBSTONE {
        limbo::put(journal, geometry, slot::block(old), old_bytes)?;
    }
    Ok(())
}
