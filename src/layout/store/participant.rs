//! The record of a participant: one process that uses a store for writing.
//!
//! The identity module claims and judges them. Invariants: a record is free where its identity is 0; no
//! identity is given out twice.
//!
//! ```text
//! +0   u64 identity      +8   u32 process id, a hint      +12  u32 proof
//! +16  u64 inode of the process's pidfd, 0 = unknown
//! +24  u64 epoch         of the read sessions of this participant; 0 = none. Reserved.
//! +32..64                for the objects of this participant. Reserved.
//! ```

/// Bytes of a record.
pub const BYTES: u64 = 64;

/// `u64`: index of the record in the low 16 bits, above it a number that no two claims share.
///
/// | from | to | who |
/// |---|---|---|
/// | 0 | an identity | the process that holds the lock on the record's byte |
/// | an identity | 0 | that process; or, once it has died, a holder of the store's lock |
pub const IDENTITY: u64 = 0;
/// `u32`: process id in the store's pid namespace; written before the identity.
pub const PID: u64 = 8;
/// `u32`: [`PROOF_LOCK`] or 0; written before the identity.
pub const PROOF: u64 = 12;
/// `u64`: inode of the process's pidfd; 0 where the kernel has none that names one process only.
/// Written before the identity.
pub const PIDFD_INODE: u64 = 16;
/// `u64`: room for the epoch of read sessions.
pub const EPOCH: u64 = 24;
/// Room for words of shared objects.
pub const OBJECTS: u64 = 32;

/// The participant keeps the byte of its record locked while it lives.
pub const PROOF_LOCK: u32 = 1;

/// Bits of an identity that hold the index.
pub const INDEX_BITS: u32 = 16;

const _: () = assert!(OBJECTS < BYTES && BYTES.is_multiple_of(super::WORD_BYTES));
