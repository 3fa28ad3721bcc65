//! The side of a handle that may write: a reader of its own, and the core under the lock.
//!
//! A [`Store`](super::Store) that was opened for writing is one.
//! What always holds: whoever has a [`Locked`] has the lock and a store in order; what runs out of room
//! looks for dead readers first, and what finds damage recovers once, before it is an error.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use rkyv::util::AlignedVec;

use super::arena;
use super::batch::Change;
use super::block::{self, Block, block_bytes};
use super::core::{Core, Refusal};
use super::cut::{Read, ReadCopy};
use super::error::{HandleError, ReadError, WriteError};
use super::lock::{Recovery, Writer};
use super::pinned::Pinned;
use super::prefixes;
use super::reader::{ReadRefusal, Reader};
use super::shared::Shared;
use super::spans::{self, Damage};
use super::table::{Place, Table};
use super::value::Value;
use crate::layout::store::{LIMBO_BYTES, LIVE_KEYS, page};
use crate::memory::{Deadline, MappedMemory, Memory, Ordering};
use crate::os::robust_mutex::RobustMutex;

/// See the module.
#[derive(Debug)]
pub(super) struct Writable {
    pub(super) reader: Reader<MappedMemory>,
    core: RefCell<Core<MappedMemory>>,
    /// The last recovery that this handle made and nobody asked about.
    recovery: RefCell<Option<Recovery>>,
    /// Where archives are made; kept for its memory.
    scratch: RefCell<AlignedVec>,
    /// How long an operation that names no time waits for other writers; `None` for however long.
    patience: Cell<Option<Duration>>,
    pub(super) shared: Arc<Shared>,
}

/// How long who makes a handle waits for a writer, where it needs the lock to look for dead readers.
pub(super) const PATIENCE_OF_CLAIM: Duration = Duration::from_secs(1);

impl Writable {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self, HandleError> {
        let Shared { memory, geometry, owner, .. } = &*shared;
        if !memory.is_ours() {
            return Err(WriteError::Forked.into());
        }
        let mut core = Core::new(memory.clone(), *geometry);
        let claim = || Reader::claim(memory.clone(), *geometry, *owner);
        let mut recovery = None;
        let reader = match claim() {
            Some(reader) => reader,
            None => {
                // A writer that is stopped must not stop whoever opens the store.
                let mut writer =
                    Writer::acquire(&mut core, &shared.lock, after(memory, PATIENCE_OF_CLAIM))
                        .map_err(WriteError::from)?;
                recovery = writer.take_recovery();
                shared.reclaim();
                claim().ok_or(HandleError::TooManyReaders { max: geometry.readers() })?
            }
        };
        let (core, recovery) = (RefCell::new(core), RefCell::new(recovery));
        let (scratch, patience) = (RefCell::default(), Cell::new(None));
        Ok(Self { reader, core, recovery, scratch, patience, shared })
    }

    /// How long an operation that names no time waits for other writers from now on.
    pub(super) fn set_patience(&self, patience: Option<Duration>) {
        self.patience.set(patience);
    }

    /// The last recovery, told once.
    pub(super) fn take_recovery(&self) -> Option<Recovery> {
        self.recovery.take()
    }

    /// A buffer to make an archive in. Empty for whoever makes one inside another.
    pub(super) fn take_scratch(&self) -> AlignedVec {
        self.scratch.take()
    }

    pub(super) fn keep_scratch(&self, scratch: AlignedVec) {
        self.scratch.replace(scratch);
    }

    /// Reads a value where it lies; where all pins are in use, copies it.
    #[inline(always)]
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Value<'_>>, ReadError> {
        if !self.shared.memory.is_ours() {
            return Err(ReadError::Forked);
        }
        match self.reader.get(key) {
            // SAFETY: the reader is one of the memory that `shared` was made of.
            Ok(found) => Ok(found.map(|pinned| unsafe { Value::pinned(pinned) })),
            Err(ReadRefusal::OutOfPins) => self.copy(key),
            Err(ReadRefusal::Damage) => Err(ReadError::Damaged),
        }
    }

    /// What this handle's reader has read.
    pub(super) fn value_of<'a>(&'a self, read: Read<'a, MappedMemory>) -> Value<'a> {
        match read {
            // SAFETY: as in `get`: no other reader's values come here.
            Read::Pinned(pinned) => unsafe { Value::pinned(pinned) },
            Read::Copied(ReadCopy { bytes, version, tag }) => Value::copied(bytes, version, tag),
        }
    }

    #[cold]
    fn copy(&self, key: &[u8]) -> Result<Option<Value<'_>>, ReadError> {
        let Some(pinned) = self.reader.get_to_copy(key)? else { return Ok(None) };
        Ok(Some(copy_of(&pinned)))
    }

    /// An entry for a watch of this prefix; `None` where none is free, or the lock cannot be had for so long.
    pub(super) fn register(&self, prefix: &[u8], patience: Duration) -> Option<prefixes::Entry> {
        let deadline = after(&self.shared.memory, patience);
        let registered = self.locked(deadline, |store| {
            let Locked { writer, shared } = store;
            let register =
                || prefixes::register(&writer.memory, &writer.geometry, shared.owner, prefix);
            Ok::<_, WriteError>(register().or_else(|| {
                shared.reclaim();
                register()
            }))
        });
        registered.ok().flatten()
    }

    /// Runs an operation under the lock.
    #[inline]
    pub(super) fn locked<T, E: From<WriteError>>(
        &self,
        deadline: Deadline,
        operation: impl FnOnce(&mut Locked<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        // It is borrowed by who has the lock, which is this thread.
        let Ok(mut core) = self.core.try_borrow_mut() else {
            return Err(WriteError::Nested.into());
        };
        let deadline = match self.patience.get() {
            Some(patience) if deadline == Deadline::NEVER => after(&self.shared.memory, patience),
            _ => deadline,
        };
        let mut writer = match Writer::acquire(&mut core, &self.shared.lock, deadline) {
            Ok(writer) => writer,
            Err(error) => return Err(WriteError::from(error).into()),
        };
        if let Some(recovery) = writer.take_recovery() {
            self.recovery.replace(Some(recovery));
        }
        operation(&mut Locked { writer, shared: &self.shared })
    }
}

/// The lock of a store in order. Its calls try once more where that can help.
#[derive(Debug)]
pub(super) struct Locked<'a> {
    writer: Writer<'a, MappedMemory, RobustMutex>,
    shared: &'a Shared,
}

impl Locked<'_> {
    /// What the lock guards.
    pub(super) fn core(&mut self) -> &mut Core<MappedMemory> {
        &mut self.writer
    }

    /// Refuses to go on in a child that was forked since the lock was got, by what the caller runs
    /// under it: the lock is the parent's.
    pub(super) fn still_ours(&self) -> Result<(), WriteError> {
        if self.writer.memory.is_ours() { Ok(()) } else { Err(WriteError::Forked) }
    }

    /// Makes `value`, bytes and their tag, the value of a key; returns its version.
    #[inline]
    pub(super) fn set(&mut self, key: &[u8], value: (&[u8], u32)) -> Result<u64, WriteError> {
        check_key(key)?;
        match self.writer.set_tagged(key, value) {
            Ok(version) => Ok(version),
            Err(refusal) => self.set_again(key, value, refusal),
        }
    }

    #[cold]
    fn set_again(
        &mut self,
        key: &[u8],
        value: (&[u8], u32),
        refusal: Refusal,
    ) -> Result<u64, WriteError> {
        let needed_bytes = block_bytes(key.len() as u64, value.0.len() as u64).unwrap_or(u64::MAX);
        self.help(refusal, needed_bytes)?;
        self.writer.set_tagged(key, value).map_err(|refusal| self.refused(refusal, needed_bytes))
    }

    /// Makes all changes at once; returns the versions of the new values.
    pub(super) fn commit(
        &mut self,
        changes: &[Change<'_>],
    ) -> Result<Vec<Option<u64>>, WriteError> {
        let mut needed_bytes = 0_u64;
        for change in changes {
            check_key(change.key)?;
            let value_len = change.value.map_or(0, |(bytes, _)| bytes.len() as u64);
            let bytes = block_bytes(change.key.len() as u64, value_len).unwrap_or(u64::MAX);
            needed_bytes = needed_bytes.saturating_add(bytes);
        }
        match self.writer.commit(changes) {
            Ok(versions) => Ok(versions),
            Err(refusal) => {
                self.help(refusal, needed_bytes)?;
                self.writer.commit(changes).map_err(|refusal| self.refused(refusal, needed_bytes))
            }
        }
    }

    /// How many slots in a row would be in use if this key were added, as far as that is more than `most`; 0
    /// where it is there.
    pub(super) fn run_where_added(&mut self, key: &[u8], most: u64) -> Result<u64, WriteError> {
        if self.find(key)?.is_some() {
            return Ok(0);
        }
        let core = &*self.writer;
        core.run_around(key, most).map_err(|Damage| WriteError::Damaged)
    }

    /// Removes a key; returns whether it was there.
    #[inline]
    pub(super) fn delete(&mut self, key: &[u8]) -> Result<bool, WriteError> {
        check_key(key)?;
        match self.writer.delete(key) {
            Ok(deleted) => Ok(deleted),
            Err(refusal) => self.delete_again(key, refusal),
        }
    }

    #[cold]
    fn delete_again(&mut self, key: &[u8], refusal: Refusal) -> Result<bool, WriteError> {
        self.help(refusal, 0)?;
        self.writer.delete(key).map_err(|refusal| self.refused(refusal, 0))
    }

    /// The block of a key.
    pub(super) fn find(&mut self, key: &[u8]) -> Result<Option<Block>, WriteError> {
        check_key(key)?;
        let place = match self.writer.find(key) {
            Ok((_, place)) => place,
            Err(Damage) => {
                self.help(Refusal::Damage, 0)?;
                self.writer.find(key).map_err(|Damage| WriteError::Damaged)?.1
            }
        };
        Ok(match place {
            Place::Present { block, .. } => Some(block),
            Place::Absent { .. } => None,
        })
    }

    /// The bytes of a block that [`find`](Self::find) has found, until the next change.
    pub(super) fn bytes_of(&self, block: &Block) -> &[u8] {
        // SAFETY: `find` has found it in a slot of a store that `Shared::new` was promised to be one. This
        // thread has the lock, and changes nothing while `self` is borrowed.
        unsafe { Shared::lend(&self.writer.memory, block.value(), block.value_len as usize) }
    }

    /// Removes all keys; returns how many there were. At once, where an empty table has room.
    pub(super) fn clear(&mut self) -> Result<u64, WriteError> {
        let mut deleted = 0;
        let mut helped = false;
        loop {
            match self.writer.clear() {
                Ok(keys) => return Ok(keys + deleted),
                Err(Refusal::OutOfSpace) if deleted > 0 || self.reclaim()? == 0 => {
                    let key = self.writer.any_key().map_err(|refusal| self.refused(refusal, 0))?;
                    let Some(key) = key else { return Ok(deleted) };
                    if !self.delete(&key)? {
                        // A slot names a key that no search finds: it would be met again and again.
                        return Err(WriteError::Damaged);
                    }
                    deleted += 1;
                    self.reclaim()?;
                }
                Err(Refusal::OutOfSpace) => {}
                Err(Refusal::Damage) if helped => return Err(WriteError::Damaged),
                Err(Refusal::Damage) => {
                    helped = true;
                    self.help(Refusal::Damage, 0)?;
                }
            }
        }
    }

    /// Takes back what dead readers have, and gives back what nobody looks at any more. Returns how
    /// many readers that were.
    pub(super) fn reclaim(&mut self) -> Result<u64, WriteError> {
        let core = &mut *self.writer;
        let reclaimed = self.shared.reclaim();
        core.give_back().map_err(|refusal| self.refused(refusal, 0))?;
        Ok(reclaimed)
    }

    /// Does what may help where an operation was refused; an error where nothing can.
    fn help(&mut self, refusal: Refusal, needed_bytes: u64) -> Result<(), WriteError> {
        let helped = match refusal {
            Refusal::OutOfSpace => self.reclaim()? > 0,
            Refusal::Damage => self.writer.rebuild().is_ok(),
        };
        if helped { Ok(()) } else { Err(self.refused(refusal, needed_bytes)) }
    }

    #[cold]
    fn out_of_space(&self, needed_bytes: u64) -> WriteError {
        let Core { memory, geometry, .. } = &*self.writer;
        let word = |offset| memory.load_u64(offset, Ordering::Relaxed);
        let free_bytes = spans::usable_pages(memory, geometry).saturating_mul(page::PAGE_BYTES);
        // What has room was refused because a larger table has none.
        let table_bytes = || Table::bytes(Table::log2_for(word(LIVE_KEYS).saturating_add(1)));
        let found = arena::has_room(memory, geometry, needed_bytes).and_then(|has_room| {
            let needed_bytes = if has_room { table_bytes() } else { needed_bytes };
            Ok((needed_bytes, arena::longest_free_bytes(memory, geometry, needed_bytes)?))
        });
        let Ok((needed_bytes, largest_bytes)) = found else { return WriteError::Damaged };
        // All else that was retired has just been given back.
        let pinned_bytes = word(LIMBO_BYTES);
        WriteError::OutOfSpace { needed_bytes, largest_bytes, free_bytes, pinned_bytes }
    }

    fn refused(&self, refusal: Refusal, needed_bytes: u64) -> WriteError {
        match refusal {
            Refusal::OutOfSpace => self.out_of_space(needed_bytes),
            Refusal::Damage => WriteError::Damaged,
        }
    }
}

/// The deadline of what begins now and may take as long.
pub(super) fn after(memory: &MappedMemory, timeout: Duration) -> Deadline {
    let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    Deadline::at_ns(memory.now_ns().saturating_add(timeout_ns))
}

/// A copy of a value that is pinned, as aligned as the value is.
pub(super) fn copy_of<'a>(pinned: &Pinned<'_, MappedMemory>) -> Value<'a> {
    let mut bytes = AlignedVec::with_capacity(pinned.len());
    bytes.resize(pinned.len(), 0);
    pinned.memory().copy_out(pinned.value(), &mut bytes);
    Value::copied(bytes, pinned.version(), pinned.tag())
}

/// Refuses a key that no store can have.
#[inline]
fn check_key(key: &[u8]) -> Result<(), WriteError> {
    block::check_key(key).map(drop).map_err(|found| WriteError::KeyLength { found })
}
