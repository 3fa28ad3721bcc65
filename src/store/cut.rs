//! One consistent cut: values that several keys had at one moment.
//!
//! Readers call it for `read_many` and `get_all`, without the lock.
//! What always holds: of what is returned there was a moment at which all of it was so; where writers leave none
//! to a reader, it says so, instead of returning something else.
//!
//! # Why what was there twice was there in between
//!
//! No version is given to two values of one key. So a key whose value has the same version at two looks has
//! had that value all the time between them, and all keys had theirs between the end of the first looks
//! and the beginning of the second ones. Of an absent key no such thing can be said: it may have come and gone. For
//! absent keys, and for whole stores, nothing at all must have changed: see [`Quiet`].

use rkyv::util::AlignedVec;

use super::pinned::Pinned;
use super::reader::{ReadRefusal, Reader};
use super::root::Root;
use crate::layout::store::NEXT_VERSION;
use crate::layout::store::journal::HEAD;
use crate::memory::{Memory, Ordering};

/// So often a cut is tried beside writers.
const TRIES: u32 = 32;
/// So often a whole store is read beside writers, in the hope that it stays as it is.
const TRIES_OF_ALL: u32 = 3;
/// So many looks a reader waits for an operation to end.
const LOOKS: u32 = 1000;

/// A time in which no key changes: begun at a moment when no operation was in progress.
///
/// Every operation that changes a key stores the journal's head, takes a version, changes the key, and clears
/// the head, in this order, each with Release. Who finds the head clear after it has looked at the
/// next version sees all changes of operations that took their version before that; a change that it does
/// not see was made by an operation that took one later, and who sees that change sees the next version moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quiet {
    next_version: u64,
    root: Root,
}

impl Quiet {
    /// `None` where an operation was in progress all the time, or was given up by its writer.
    pub(super) fn begin(memory: &impl Memory) -> Option<Self> {
        for _ in 0..LOOKS {
            // Both pair with the Release stores of writers; in this order, see above.
            let next_version = memory.load_u64(NEXT_VERSION, Ordering::Acquire);
            if memory.load_u64(HEAD, Ordering::Acquire) == 0 {
                return Some(Self { next_version, root: Root::load(memory) });
            }
            memory.pause();
        }
        None
    }

    /// Whether nothing has changed before what was loaded last.
    pub(super) fn holds(self, memory: &impl Memory) -> bool {
        memory.acquire_fence();
        memory.load_u64(NEXT_VERSION, Ordering::Acquire) == self.next_version
            && self.root.is_current(memory)
    }
}

/// A value that was read: pinned where it lies, or, where pins ran out, copied.
#[derive(Debug)]
#[must_use = "what was read is in here"]
pub enum Read<'a, M: Memory> {
    /// In place.
    Pinned(Pinned<'a, M>),
    /// A copy.
    Copied(ReadCopy),
}

/// The copy of a value.
#[derive(Debug, Clone)]
pub struct ReadCopy {
    pub(super) bytes: AlignedVec,
    pub(super) version: u64,
    pub(super) tag: u32,
}

impl ReadCopy {
    pub(super) fn of<M: Memory>(pinned: &Pinned<'_, M>) -> Self {
        let mut bytes = AlignedVec::with_capacity(pinned.len());
        bytes.resize(pinned.len(), 0);
        pinned.memory().copy_out(pinned.value(), &mut bytes);
        Self { bytes, version: pinned.version(), tag: pinned.tag() }
    }
}

impl<M: Memory> Read<'_, M> {
    /// The value's version.
    pub fn version(&self) -> u64 {
        match self {
            Self::Pinned(pinned) => pinned.version(),
            Self::Copied(copied) => copied.version,
        }
    }

    /// Copies the value out.
    pub fn to_vec(&self) -> Vec<u8> {
        match self {
            Self::Pinned(pinned) => pinned.to_vec(),
            Self::Copied(copied) => copied.bytes.to_vec(),
        }
    }
}

/// Keys with copies of their values.
pub(super) type All = Vec<(Vec<u8>, ReadCopy)>;
/// Values of several keys, `None` for those that are absent.
pub(super) type Cut<'a, M> = Vec<Option<Read<'a, M>>>;

impl<M: Memory> Reader<M> {
    /// The values of several keys as they were at one moment, in the order of the keys; as many as
    /// pins are free are pinned, the others copied. `None` where writers left no such moment.
    ///
    /// # Errors
    /// [`ReadRefusal::Damage`].
    pub fn read_many(&self, keys: &[impl AsRef<[u8]>]) -> Result<Option<Cut<'_, M>>, ReadRefusal> {
        for _ in 0..TRIES {
            let quiet = Quiet::begin(self.memory());
            let found = self.read_each(keys)?;
            if quiet.is_some_and(|quiet| quiet.holds(self.memory())) || self.still(keys, &found)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The values of several keys, one after the other: a cut, where the lock is held.
    pub(super) fn read_each(&self, keys: &[impl AsRef<[u8]>]) -> Result<Cut<'_, M>, ReadRefusal> {
        keys.iter().map(|key| self.read(key.as_ref())).collect()
    }

    fn read(&self, key: &[u8]) -> Result<Option<Read<'_, M>>, ReadRefusal> {
        match self.get(key) {
            Ok(found) => Ok(found.map(Read::Pinned)),
            Err(ReadRefusal::OutOfPins) => {
                let found = self.get_to_copy(key)?;
                Ok(found.map(|pinned| Read::Copied(ReadCopy::of(&pinned))))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Whether all keys are there and have the values that were found.
    fn still(&self, keys: &[impl AsRef<[u8]>], found: &Cut<'_, M>) -> Result<bool, ReadRefusal> {
        if found.iter().any(Option::is_none) {
            return Ok(false);
        }
        for (key, former) in keys.iter().zip(found) {
            let now = self.get_to_copy(key.as_ref())?.map(|pinned| pinned.version());
            if now != former.as_ref().map(Read::version) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// All keys with their values, in no order, as they were at one moment. `None` where writers left
    /// no such moment.
    ///
    /// # Errors
    /// [`ReadRefusal::Damage`].
    pub fn read_all(&self) -> Result<Option<All>, ReadRefusal> {
        for _ in 0..TRIES_OF_ALL {
            let Some(quiet) = Quiet::begin(self.memory()) else { return Ok(None) };
            let mut all = Vec::new();
            let mut entries = self.entries(b"");
            while let Some(entry) = entries.next_copy() {
                all.push(entry?);
                // Soon, so that little is done in vain.
                if all.len() % 256 == 0 && !quiet.holds(self.memory()) {
                    break;
                }
            }
            if quiet.holds(self.memory()) {
                return Ok(Some(all));
            }
        }
        Ok(None)
    }

    /// All keys with their values, where the lock is held.
    pub(super) fn read_all_locked(&self) -> Result<All, ReadRefusal> {
        let mut entries = self.entries(b"");
        std::iter::from_fn(|| entries.next_copy()).collect()
    }
}
