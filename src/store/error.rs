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
    #[error(
        "the store is damaged: a table or block is not what a writer leaves; open it anew, or restore it from a copy"
    )]
    Damaged,
    /// A key that no store can have.
    #[error("a key of {found} bytes is not possible: a key has from 1 to {} bytes", MAX_KEY_BYTES)]
    KeyLength {
        /// How long it is.
        found: u64,
    },
    /// Writers left no moment to read in: they changed what was being read again and again, or one of them
    /// had the lock all the time.
    #[error(
        "writers changed the value faster than it could be read; try again, or read with a writable handle"
    )]
    Busy,
    /// By a read-only handle: there is no memory for a copy.
    #[error(
        "there is no memory for a copy of the value, {len_bytes} bytes; free memory, or read it in place"
    )]
    NoMemory {
        /// Length of the value, as the store says.
        len_bytes: u64,
    },
    /// The process has forked since this handle was made; it belongs to the parent.
    #[error(
        "this handle of the store belongs to the process that this one was forked from; open the store in this process"
    )]
    Forked,
}

/// Why nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// No room, also after everything was given back that could be. The old value stays.
    #[error(
        "the store is full: {needed_bytes} bytes are needed in one piece, the largest free piece has \
         {largest_bytes}, {free_bytes} are in free pages, and readers keep {pinned_bytes}: delete keys, drop values \
         that were read, or create the store with a larger `capacity_bytes`"
    )]
    OutOfSpace {
        /// Bytes of the block that was to be written, or of the larger table that a new key needs.
        needed_bytes: u64,
        /// Bytes of the longest block that can be written. Less than what is needed.
        largest_bytes: u64,
        /// Bytes of pages that nothing lies in, without the reserve for replacing and deleting.
        free_bytes: u64,
        /// Bytes of replaced and deleted values that readers keep from being given back.
        pinned_bytes: u64,
    },
    /// A key that no store can have.
    #[error("a key of {found} bytes is not possible: a key has from 1 to {} bytes", MAX_KEY_BYTES)]
    KeyLength {
        /// How long it is.
        found: u64,
    },
    /// Another writer had the lock until the deadline; with a `try_` call, when it was made.
    #[error(
        "another writer had the store's lock until the deadline; it may be stopped: try again, or wait longer"
    )]
    Deadline,
    /// Called from the closure of an `update`, whose thread has the lock of this store.
    #[error(
        "this thread is inside an `update` of this store, and cannot write there; write after it has returned"
    )]
    Nested,
    /// The key is absent, and the operation is for keys that are present.
    #[error("the store has no such key; set it first")]
    Missing,
    /// The store was opened for reading; or this is nothing that a host does for others.
    #[error(
        "this handle of the store is read-only; open the store for writing, or write through the host"
    )]
    ReadOnly,
    /// What was found is no table, no block or no index that a writer leaves, and recovery did not help.
    #[error(
        "the store is damaged, and could not be recovered; restore it from a copy, or create it anew"
    )]
    Damaged,
    /// The lock cannot be used: what the system said.
    #[error("the store's lock cannot be used: {}; create the store anew", std::io::Error::from_raw_os_error(*.0))]
    Lock(i32),
    /// The process has forked since this handle was made; it belongs to the parent.
    #[error(
        "this handle of the store belongs to the process that this one was forked from; open the store in this process"
    )]
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
    #[error(
        "a value of {found} bytes is too long: the host allows this process at most {max}; split it, or raise the plugin's `store_quota`"
    )]
    ValueLength {
        /// Its length in bytes.
        found: u64,
        /// The longest that is allowed.
        max: u64,
    },
    /// As many keys as are allowed have values of its own already.
    #[error(
        "this process has set {max} keys, which is all that the host allows it; delete some first"
    )]
    Keys {
        /// How many are allowed.
        max: u64,
    },
    /// What it has set would take too much room.
    #[error(
        "this process's values would take {needed} bytes: the host allows it at most {max}; delete some first"
    )]
    Bytes {
        /// Bytes that all of it would take.
        needed: u64,
        /// How many are allowed.
        max: u64,
    },
    /// It has asked for changes faster than is allowed. Nothing was changed.
    #[error(
        "this process has asked for more than {max} changes a second, which is all that the host allows it; ask again in {wait_ns} ns"
    )]
    Rate {
        /// How many a second are allowed.
        max: u64,
        /// After how many nanoseconds the next one is allowed.
        wait_ns: u64,
    },
    /// A batch of too many changes.
    #[error("a batch of {found} changes is too large: the host allows at most {max}; split it")]
    Batch {
        /// How many changes there are.
        found: u64,
        /// How many are allowed.
        max: u64,
    },
    /// The table's slots are in use around where the key would go, as if keys had been chosen for it.
    #[error(
        "the key cannot be set: {found} slots in a row are in use where it would go, the host allows at most {max}; choose another key"
    )]
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
    #[error("the host does not write to its store for this process; allow it in the plugin's spec")]
    NotServed,
    /// Too many requests are under way: this one has not been sent.
    #[error("the request was not sent to the host: there was no room in time; try again")]
    Full,
    /// No answer came in time. The host may have carried the request out, or do so later.
    #[error(
        "the host has not answered in time; the change may have been made: read the key to see"
    )]
    Timeout,
    /// The request is longer than a message can be: it has not been sent.
    #[error(
        "a request of {len} bytes to change the store is too long: the host takes at most {max}; split it"
    )]
    TooLong {
        /// Its length in bytes.
        len: u64,
        /// The longest possible.
        max: u64,
    },
    /// The host is gone, or does not serve this process any more. It may have carried the request out
    /// before.
    #[error("the host has ended, or does not serve this process any longer")]
    Gone,
    /// The host's answer is none that this version knows. It may have carried the request out.
    #[error("the host's answer is unknown to this version of ringway; build both from one version")]
    UnknownAnswer,
    /// Others changed the key, time after time, between its being read and its being exchanged.
    #[error(
        "other writers changed the key during each of {attempts} attempts; try again, or use `update`"
    )]
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
    #[error(
        "all {max} reader records of the store are in use by handles; drop some, or create the store with a larger `max_readers`"
    )]
    TooManyReaders {
        /// How many there are; fixed when the store is created.
        max: u64,
    },
    /// All records of participants have owners that may be alive.
    #[error(
        "all {max} participants' records of the store are in use by processes that may be alive: create it with a larger max_readers"
    )]
    TooManyParticipants {
        /// How many there are: as many as readers; fixed when the store is created.
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
    #[error("the store is damaged: {what}; restore it from a copy, or create it anew")]
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
    #[error(
        "the value was not exchanged: its version is {found:?}, not the one expected; read it again"
    )]
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
    #[error(
        "the value is not an i64: it has {found} bytes, or was set as one of another type; use another key"
    )]
    NotAnInteger {
        /// How many bytes it has.
        found: u64,
    },
    /// The sum does not fit.
    #[error(
        "the sum {value} + {added} does not fit into an i64; the value stays, set it to a smaller one first"
    )]
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
    #[error(
        "the value was set as one of another type than {asked}; read it as the type that it was set as, or as bytes"
    )]
    Type {
        /// The type asked for.
        asked: &'static str,
        /// The tag that the value has, part of its type's fingerprint.
        found: u32,
        /// The tag of the type asked for.
        expected: u32,
    },
    /// The type needs more alignment than values have.
    #[error(
        "the type needs an alignment of {needed} bytes, values in a store have 16; store a type that needs less"
    )]
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
