//! A store, as its users have it.
//!
//! Whoever creates, opens or attaches a store gets a [`Store`]; each thread has one of its own.
//! What always holds: reading takes no lock and makes no system call; an operation that changes a key has
//! happened as a whole or not at all, whenever the process is killed; a handle in a forked child refuses
//! everything.

use std::sync::Arc;
use std::time::Duration;

use super::StoreGeometry;
use super::block;
use super::change_log::{self, Appended, Log};
use super::doorbells::{self, Note};
use super::error::{CheckError, HandleError, ReadError, WriteError};
use super::interest::Truth;
use super::lock::Recovery;
use super::read_only::ReadOnly;
use super::remote::Asking;
use super::shared::Shared;
use super::stats::StoreStats;
use super::value::Value;
use super::writable::{Locked, Writable, after};
use crate::layout::store::LIVE_KEYS;
use crate::memory::{Deadline, MappedMemory, Memory, Ordering};

/// A handle of a store: a hash table in memory that processes share.
///
/// Reads with [`get`](Self::get) and its kin, in place and without a lock; writes with
/// [`set`](Self::set) and its kin, one writer at a time. A writer that is killed, wherever it is, leaves the old value
/// or the new one, and the next writer brings the rest in order.
///
/// `Send`, not `Sync`: another thread gets a handle from [`try_clone`](Self::try_clone).
///
/// ```compile_fail,E0277
/// fn share<T: Sync>() {}
/// share::<ringway::store::Store>();
/// ```
#[derive(Debug)]
pub struct Store {
    pub(super) side: Side,
}

/// What a handle may do.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "what is used most is found without a pointer")]
pub(super) enum Side {
    /// All.
    Writable(Writable),
    /// Reading.
    ReadOnly(ReadOnly),
}

/// How a handle gets at its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreAccess {
    /// It reads in place, and writes.
    Writable,
    /// It reads, by copying; nothing that lies in the store can harm it.
    ReadOnly,
    /// It reads by copying, and asks the host to write. Each change costs a message and its answer; it is
    /// made as a whole or not at all, also where this process dies meanwhile.
    ThroughHost,
}

impl Store {
    /// A handle that may write, with a reader record of its own.
    pub(super) fn writable_over(shared: Arc<Shared>) -> Result<Self, HandleError> {
        Ok(Self { side: Side::Writable(Writable::new(shared)?) })
    }

    /// Another handle of the same store, for another thread.
    ///
    /// # Errors
    /// [`HandleError::TooManyReaders`] where every reader record has an owner that may be alive.
    pub fn try_clone(&self) -> Result<Self, HandleError> {
        let clone = match &self.side {
            Side::Writable(writable) => Self::writable_over(Arc::clone(&writable.shared))?,
            Side::ReadOnly(reading) => {
                Self::read_only_over(Arc::clone(&reading.segment), reading.host.clone())
            }
        };
        clone.verify_reads(self.verifies_reads());
        Ok(clone)
    }

    /// How this handle gets at the store.
    pub fn access(&self) -> StoreAccess {
        match &self.side {
            Side::Writable(_) => StoreAccess::Writable,
            Side::ReadOnly(ReadOnly { host: Some(_), .. }) => StoreAccess::ThroughHost,
            Side::ReadOnly(_) => StoreAccess::ReadOnly,
        }
    }

    /// Who writes for this process.
    #[inline]
    pub(super) fn host(&self) -> Option<&Asking> {
        match &self.side {
            Side::Writable(_) => None,
            Side::ReadOnly(reading) => reading.host.as_ref(),
        }
    }

    /// Makes `value`, bytes and their tag, the value of a key; returns its version.
    #[inline]
    pub(super) fn put(
        &self,
        key: &[u8],
        value: (&[u8], u32),
        deadline: Deadline,
    ) -> Result<u64, WriteError> {
        match self.host() {
            None => {
                let writable = self.writable()?;
                writable.reader.foresee(key);
                writable.locked(deadline, |store| store.set(key, value))
            }
            Some(host) => host.set(key, value, deadline),
        }
    }

    #[inline]
    pub(super) fn writable(&self) -> Result<&Writable, WriteError> {
        match &self.side {
            Side::Writable(writable) => Ok(writable),
            Side::ReadOnly(_) => Err(WriteError::ReadOnly),
        }
    }

    /// Where watches look and sleep, and whether they can announce that they sleep.
    pub(super) fn watched(&self) -> (&MappedMemory, &StoreGeometry, bool) {
        match &self.side {
            Side::Writable(Writable { shared, .. }) => (&shared.memory, &shared.geometry, true),
            Side::ReadOnly(ReadOnly { segment, .. }) => {
                (segment.memory(), segment.geometry(), false)
            }
        }
    }

    /// The memory, for looking only; refused in a forked child.
    pub(super) fn memory(&self) -> Result<&MappedMemory, ReadError> {
        let memory = match &self.side {
            Side::Writable(writable) => &writable.shared.memory,
            Side::ReadOnly(reading) => reading.segment.memory(),
        };
        if memory.is_ours() { Ok(memory) } else { Err(ReadError::Forked) }
    }

    /// The value of a key; `None` where the key is absent. It stays as it is while the guard lives, whatever
    /// writers do meanwhile.
    ///
    /// # Errors
    /// [`ReadError`]. A key that no store can have is [`ReadError::KeyLength`].
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value<'_>>, ReadError> {
        let key = checked(key.as_ref())?;
        match &self.side {
            Side::Writable(writable) => writable.get(key),
            Side::ReadOnly(reading) => reading.get(key),
        }
    }

    /// The value of a key, or `default` where the key is absent.
    ///
    /// # Errors
    /// [`ReadError`].
    #[inline]
    pub fn get_or<'a>(
        &'a self,
        key: impl AsRef<[u8]>,
        default: &'a [u8],
    ) -> Result<Value<'a>, ReadError> {
        Ok(self.get(key)?.unwrap_or_else(|| Value::default(default)))
    }

    /// Whether there is a value of the key.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool, ReadError> {
        Ok(self.get(key)?.is_some())
    }

    /// How many keys there are. Beside a writer it may be one more or less; on a handle that is read-only it is what
    /// the store says, and never more than there is room for.
    ///
    /// # Errors
    /// [`ReadError::Forked`].
    pub fn len(&self) -> Result<u64, ReadError> {
        let memory = self.memory()?;
        match &self.side {
            // Relaxed: a count, which nothing is concluded from.
            Side::Writable(_) => Ok(memory.load_u64(LIVE_KEYS, Ordering::Relaxed)),
            Side::ReadOnly(reading) => Ok(reading.reader.len()),
        }
    }

    /// Whether there is no key.
    ///
    /// # Errors
    /// [`ReadError::Forked`].
    pub fn is_empty(&self) -> Result<bool, ReadError> {
        Ok(self.len()? == 0)
    }

    /// What is in the store, in numbers. Takes no lock.
    ///
    /// # Errors
    /// [`ReadError::Forked`].
    pub fn stats(&self) -> Result<StoreStats, ReadError> {
        let memory = self.memory()?;
        match &self.side {
            Side::Writable(writable) => Ok(StoreStats::of(memory, &writable.shared.geometry)),
            Side::ReadOnly(reading) => Ok(StoreStats::of(memory, reading.segment.geometry())),
        }
    }

    /// Runs an operation under the lock.
    #[inline]
    pub(super) fn locked<T, E: From<WriteError>>(
        &self,
        deadline: Deadline,
        operation: impl FnOnce(&mut Locked<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.writable()?.locked(deadline, operation)
    }

    /// Makes `bytes` the value of a key. Returns the value's version, which no other value ever gets.
    /// Waits for other writers, however long they take.
    ///
    /// Nearly all calls do a bounded amount of work besides copying the value. It includes a step of a growing table
    /// ([`StoreOptions::expected_keys`](super::StoreOptions::expected_keys)), and from time to time the blocks that
    /// changes before it have replaced: at most 128, or two for each of
    /// [`max_readers`](super::StoreOptions::max_readers) up to 1024, and those that readers held. These take longer:
    /// - a call that finds no room in one piece moves values to make some, at most all of them. A store with free room keeps
    ///   this away;
    /// - a call that finds the table full and a larger one unfinished finishes it. This happens where there was no
    ///   room for a larger table before, or room was made meanwhile;
    /// - the first call after a writer's death recovers the store.
    ///
    /// # Errors
    /// [`WriteError`]; the old value stays.
    #[inline]
    pub fn set(&self, key: impl AsRef<[u8]>, bytes: &[u8]) -> Result<u64, WriteError> {
        self.put(key.as_ref(), (bytes, 0), Deadline::NEVER)
    }

    /// As [`set`](Self::set), if no other writer is at it.
    ///
    /// # Errors
    /// [`WriteError::Deadline`] where one is; else as [`set`](Self::set).
    #[inline]
    pub fn try_set(&self, key: impl AsRef<[u8]>, bytes: &[u8]) -> Result<u64, WriteError> {
        self.put(key.as_ref(), (bytes, 0), NOW)
    }

    /// As [`set`](Self::set), waiting for other writers no longer than `timeout`. What a dead writer left
    /// is brought in order after that, within milliseconds. Through a host, its answer must have come
    /// by then too.
    ///
    /// # Errors
    /// [`WriteError::Deadline`] where another writer had the lock as long; else as [`set`](Self::set).
    pub fn set_timeout(
        &self,
        key: impl AsRef<[u8]>,
        bytes: &[u8],
        timeout: Duration,
    ) -> Result<u64, WriteError> {
        self.put(key.as_ref(), (bytes, 0), self.deadline(timeout)?)
    }

    /// How long every operation of this handle that changes something, and names no time of its own, waits for
    /// other writers: [`WriteError::Deadline`] where one of them had the lock as long. `None`, as it is at
    /// first, waits however long they take. A clone begins with `None` again; a handle that only reads waits for
    /// nobody.
    ///
    /// A writer that is stopped, by a signal or a debugger, keeps the lock: a thread that must not stop with it
    /// says here how long it can wait.
    pub fn set_lock_timeout(&self, timeout: Option<Duration>) {
        if let Side::Writable(writable) = &self.side {
            writable.set_patience(timeout);
        }
    }

    /// Whether this handle looks at the checksum of every value that it reads, as
    /// [`Verify::EveryRead`](super::Verify::EveryRead) says. A clone does what its original did.
    pub fn verify_reads(&self, verify: bool) {
        match &self.side {
            Side::Writable(writable) => writable.reader.verify.set(verify),
            Side::ReadOnly(reading) => reading.reader.verify.set(verify),
        }
    }

    fn verifies_reads(&self) -> bool {
        match &self.side {
            Side::Writable(writable) => writable.reader.verify.get(),
            Side::ReadOnly(reading) => reading.reader.verify.get(),
        }
    }

    /// The deadline of a call that may last as long.
    pub(super) fn deadline(&self, timeout: Duration) -> Result<Deadline, WriteError> {
        Ok(after(self.watched().0, timeout))
    }

    /// Removes a key; returns whether it was there.
    ///
    /// # Errors
    /// [`WriteError`]; the value stays. A key that no store can have is [`WriteError::KeyLength`].
    #[inline]
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, WriteError> {
        let key = key.as_ref();
        match self.host() {
            None => self.locked(Deadline::NEVER, |store| store.delete(key)),
            Some(host) => host.delete(key),
        }
    }

    /// As [`delete`](Self::delete), for a key that must be there.
    ///
    /// # Errors
    /// [`WriteError::Missing`] where it is not; else as [`delete`](Self::delete).
    pub fn delete_existing(&self, key: impl AsRef<[u8]>) -> Result<(), WriteError> {
        if self.delete(key)? { Ok(()) } else { Err(WriteError::Missing) }
    }

    /// What this handle has recovered since it was asked last: what another writer, that died, had left
    /// unfinished. Told once; only the last one, where there were several.
    pub fn take_recovery(&self) -> Option<Recovery> {
        match &self.side {
            Side::Writable(writable) => writable.take_recovery(),
            Side::ReadOnly(_) => None,
        }
    }

    /// Looks at everything: whether the indexes say what the table and the blocks say, and whether every
    /// block is whole. Takes the lock, and as long as reading the whole store does.
    ///
    /// # Errors
    /// [`CheckError::Unsound`] with the first thing that is not as it must be.
    pub fn check(&self) -> Result<(), CheckError> {
        self.locked(Deadline::NEVER, |store| {
            store.core().check().map_err(|what| CheckError::Unsound { what })
        })
    }

    /// Takes back what dead readers have pinned, and gives the room of what was replaced or deleted
    /// back, as far as nobody looks at it. Writers do both when they run out of room. Returns how many
    /// readers had died.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn reclaim(&self) -> Result<u64, WriteError> {
        self.locked(Deadline::NEVER, |store| store.reclaim())
    }

    /// As [`reclaim`](Self::reclaim), waiting for other writers no longer than `timeout`.
    ///
    /// # Errors
    /// [`WriteError::Deadline`] where another writer had the lock as long; else as there.
    pub fn reclaim_timeout(&self, timeout: Duration) -> Result<u64, WriteError> {
        self.locked(self.deadline(timeout)?, |store| store.reclaim())
    }
}

/// A deadline that has come.
const NOW: Deadline = Deadline::at_ns(0);

impl Truth for Store {
    type Error = ReadError;

    fn version(&self, key: &[u8]) -> Result<Option<u64>, ReadError> {
        self.memory()?;
        match &self.side {
            Side::Writable(writable) => Ok(writable.reader.version(key)?),
            Side::ReadOnly(reading) => Ok(reading.reader.version(key)?),
        }
    }

    fn scan(&self, prefix: &[u8], found: &mut dyn FnMut(&[u8], u64)) -> Result<(), ReadError> {
        self.memory()?;
        match &self.side {
            Side::Writable(writable) => Ok(writable.reader.scan(prefix, found)?),
            Side::ReadOnly(reading) => reading.scan(prefix, found),
        }
    }

    fn noted(&self) -> u64 {
        doorbells::noted(self.watched().0)
    }

    fn notes(&self, from: u64, to: u64, notes: &mut Vec<Note>) -> bool {
        let (memory, geometry, _) = self.watched();
        doorbells::read_notes(memory, geometry, from, to, notes)
    }

    fn with_hash(&self, hash: u64) -> Result<Vec<(Vec<u8>, u64)>, ReadError> {
        self.memory()?;
        match &self.side {
            Side::Writable(writable) => Ok(writable.reader.with_hash(hash)?),
            Side::ReadOnly(reading) => Ok(reading.reader.with_hash(hash)?),
        }
    }

    fn changes(&self, log: Log, from: u64, hashes: &mut Vec<u64>) -> Appended {
        let (memory, geometry, _) = self.watched();
        change_log::read(memory, geometry, log, from, hashes)
    }
}

#[cfg(test)]
#[path = "handle_tests.rs"]
mod tests;

/// Refuses a key that no store can have.
#[inline]
pub(super) fn checked(key: &[u8]) -> Result<&[u8], ReadError> {
    block::check_key(key).map_err(|found| ReadError::KeyLength { found })
}
