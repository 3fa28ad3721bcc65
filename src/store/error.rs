//! What can go wrong with a store's operations.
//!
//! Handles return these. What always holds: an operation that returns an error has changed nothing,
//! unless its documentation says otherwise.

use thiserror::Error;

use super::lock::{AcquireError, LockRefusal};
use super::reader::ReadRefusal;
use crate::layout::store::block::MAX_KEY_BYTES;
use crate::typed::{DecodeError, EncodeError};

/// Why nothing was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// What was found is no table or no block, and still there at a second look.
    #[error("the store is damaged")]
    Damaged,
    /// A key that no store can have.
    #[error("a key of {found} bytes: must be from 1 to {}", MAX_KEY_BYTES)]
    KeyLength {
        /// How long it is.
        found: u64,
    },
    /// Writers left no moment to read in: they changed what was being read again and again, or one of them
    /// had the lock all the time.
    #[error("writers left no moment to read in")]
    Busy,
    /// By a read-only handle: there is no memory for a copy.
    #[error("no memory for a copy of {len_bytes} bytes")]
    NoMemory {
        /// Length of the value, as the store says.
        len_bytes: u64,
    },
    /// The process has forked since this handle was made; it belongs to the parent.
    #[error("this handle belongs to the process that this one was forked from")]
    Forked,
}

/// Why nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// No room, also after everything was given back that could be. The old value stays.
    #[error("no room for {needed_bytes} bytes: {free_bytes} are in free pages")]
    OutOfSpace {
        /// Bytes of the block that was to be written; more may have been needed, for a larger table.
        needed_bytes: u64,
        /// Bytes of pages that nothing lies in.
        free_bytes: u64,
    },
    /// A key that no store can have.
    #[error("a key of {found} bytes: must be from 1 to {}", MAX_KEY_BYTES)]
    KeyLength {
        /// How long it is.
        found: u64,
    },
    /// Another writer had the lock until the deadline; with a `try_` call, when it was made.
    #[error("another writer had the lock until the deadline")]
    Deadline,
    /// Called from the closure of an `update`, whose thread has the lock of this store.
    #[error("this thread is inside an update of this store")]
    Nested,
    /// The key is absent, and the operation is for keys that are present.
    #[error("there is no such key")]
    Missing,
    /// The store was opened for reading; or this is nothing that a host does for others.
    #[error("this handle is read-only")]
    ReadOnly,
    /// What was found is no table, no block or no index that a writer leaves, and recovery did not help.
    #[error("the store is damaged, and could not be recovered")]
    Damaged,
    /// The lock cannot be used: what the system said.
    #[error("the lock cannot be used: error {0}")]
    Lock(i32),
    /// The process has forked since this handle was made; it belongs to the parent.
    #[error("this handle belongs to the process that this one was forked from")]
    Forked,
    /// The host writes for this process, and this is more than it may ask for.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// The host writes for this process, and has not answered.
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

/// What a process that writes through its host has asked for too much of. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum QuotaError {
    /// The value is too long.
    #[error("a value of {found} bytes: at most {max} are allowed")]
    ValueLength {
        /// Its length in bytes.
        found: u64,
        /// The longest that is allowed.
        max: u64,
    },
    /// As many keys as are allowed have values of its own already.
    #[error("there are {max} keys with values of its own already")]
    Keys {
        /// How many are allowed.
        max: u64,
    },
    /// What it has set would take too much room.
    #[error("its values would take {needed} bytes: at most {max} are allowed")]
    Bytes {
        /// Bytes that all of it would take.
        needed: u64,
        /// How many are allowed.
        max: u64,
    },
    /// A batch of too many changes.
    #[error("a batch of {found} changes: at most {max} are allowed")]
    Batch {
        /// How many changes there are.
        found: u64,
        /// How many are allowed.
        max: u64,
    },
    /// The table's slots are in use around where the key would go, as if keys had been chosen for it.
    #[error("{found} slots in a row are in use where the key would go: at most {max} are allowed")]
    Crowded {
        /// How many there are at least.
        found: u64,
        /// How many are allowed.
        max: u64,
    },
}

/// Why a host that writes for this process has given no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The host does not write for this process.
    #[error("the host does not write to its store for this process")]
    NotServed,
    /// Too many requests are under way: this one has not been sent.
    #[error("there was no room for a request to the host in time")]
    Full,
    /// No answer came in time. The host may have carried the request out, or do so later.
    #[error("no answer of the host came in time")]
    Timeout,
    /// The request is longer than a message can be: it has not been sent.
    #[error("a request of {len} bytes: at most {max} are taken")]
    TooLong {
        /// Its length in bytes.
        len: u64,
        /// The longest possible.
        max: u64,
    },
    /// The host is gone, or does not serve this process any more. It may have carried the request out
    /// before.
    #[error("the host is gone, or does not serve this process any more")]
    Gone,
    /// The host's answer is none that this version knows. It may have carried the request out.
    #[error("the host's answer is not known here")]
    UnknownAnswer,
    /// Others changed the key, time after time, between its being read and its being exchanged.
    #[error("others changed the key during each of {attempts} attempts")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// What is there could not be read.
    #[error(transparent)]
    Read(ReadError),
}

/// Why there is no handle of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandleError {
    /// All reader records have owners that may be alive.
    #[error("all {max} reader records are in use: whoever creates the store says how many it has")]
    TooManyReaders {
        /// How many there are; fixed when the store is created.
        max: u64,
    },
    /// The records of dead readers could not be looked for.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What is wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CheckError {
    /// An index does not say what the table and the blocks say, or a block is not whole.
    #[error("the store is unsound: {what}")]
    Unsound {
        /// The first thing that is not as it must be.
        what: &'static str,
    },
    /// It could not be looked at.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why nothing was exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CompareError {
    /// The value has another version, or there is none.
    #[error("the value's version is {found:?}")]
    Changed {
        /// The version of the value that is there.
        found: Option<u64>,
    },
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why nothing was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddError {
    /// The value is no `i64`.
    #[error("the value is no i64: it has {found} bytes, or was set as one of another type")]
    NotAnInteger {
        /// How many bytes it has.
        found: u64,
    },
    /// The sum does not fit.
    #[error("{value} + {added} does not fit an i64")]
    Overflow {
        /// The value that is there.
        value: i64,
        /// What was to be added.
        added: i64,
    },
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why no value of a type was read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TypedError {
    /// The value was set as one of another type.
    #[error("the value is one of another type: tag {found:#x}, expected {expected:#x}")]
    Type {
        /// The tag that the value has, part of its type's fingerprint.
        found: u32,
        /// The tag of the type asked for.
        expected: u32,
    },
    /// The type needs more alignment than values have.
    #[error("the type needs alignment to {needed} bytes: values have 16")]
    Alignment {
        /// What it needs.
        needed: usize,
    },
    /// The bytes are no value of the type.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The value has no bytes.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Nothing was read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Nothing was written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl From<AcquireError> for WriteError {
    #[cold]
    fn from(error: AcquireError) -> Self {
        match error {
            AcquireError::Lock(LockRefusal::Deadline) => Self::Deadline,
            AcquireError::Lock(LockRefusal::Nested) => Self::Nested,
            AcquireError::Lock(LockRefusal::Unusable(error)) => Self::Lock(error),
            AcquireError::Damaged => Self::Damaged,
            AcquireError::Forked => Self::Forked,
        }
    }
}

impl From<ReadRefusal> for ReadError {
    fn from(_: ReadRefusal) -> Self {
        // Whoever may run out of pins copies instead.
        Self::Damaged
    }
}
