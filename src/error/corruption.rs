//! What a peer wrote that cannot be.
//!
//! Rings and channels return it, whatever kind they are.
//! What always holds: it holds the words that were read, once, and what this end knew when it read
//! them.

use thiserror::Error;

/// What a peer wrote that no correct peer writes. Whoever finds it poisons the channel: every later
/// call on that side returns the same finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Corruption {
    /// A record header with an unknown kind, reserved bits, or a length that leaves the ring.
    #[error(
        "the peer wrote the record header {header:#018x} at position {position}, which is impossible in a ring of {capacity_bytes} bytes"
    )]
    Record {
        /// The word that was read, once.
        header: u64,
        /// Position of the record.
        position: u64,
        /// Capacity of the ring, as agreed when it was attached.
        capacity_bytes: u64,
    },
    /// A read position that went back, past the write position, or off the record grid.
    #[error("the peer's read position is {found}, expected one from {known} to {tail}")]
    Head {
        /// The word that was read, once.
        found: u64,
        /// The last position that was believed.
        known: u64,
        /// Our own write position.
        tail: u64,
    },
    /// Committed records that reach further than the ring is long.
    #[error(
        "the committed records from position {head} on do not end within the ring's {capacity_bytes} bytes"
    )]
    Walk {
        /// Where the walk began.
        head: u64,
        /// Capacity of the ring.
        capacity_bytes: u64,
    },
    /// A piece of a message that does not continue the pieces before it, or announces what no
    /// message of this channel can be.
    #[error(
        "the peer wrote the fragment {word:#018x} of {len} bytes at position {position}, which cannot follow {expected} bytes of a message"
    )]
    Fragment {
        /// The word that the piece begins with, read once.
        word: u64,
        /// Bytes of the piece.
        len: u64,
        /// Position of its record.
        position: u64,
        /// Bytes of the message that had arrived; 0 where none was begun.
        expected: u64,
    },
    /// A lossy ring's producer announced a position that went back, or is off the record grid.
    #[error("the peer announces position {found}, expected one behind {known}")]
    Intent {
        /// The word that was read, once.
        found: u64,
        /// The last position that was believed.
        known: u64,
    },
    /// A record of a lossy ring whose number cannot be its number.
    #[error("the record at position {position} has number {found}, expected {expected}")]
    Sequence {
        /// The number that was read, once.
        found: u64,
        /// The number that it must have, or the smallest one.
        expected: u64,
        /// Position of the record.
        position: u64,
    },
    /// The segment could not be sealed although nobody but the peer had it.
    #[error("the peer kept the segment from being sealed; do not use it")]
    Seal,
    /// The peer declared the channel corrupt.
    #[error("the peer has found the channel corrupt and poisoned it; its error says why")]
    ByPeer,
}
