//! Why a producer wrote nothing.
//!
//! Everything that reserves room in a ring returns it; the channel turns it into its own errors.
//! What always holds: with it, nothing has been committed.

use thiserror::Error;

use crate::error::Corruption;

/// Why a record was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PushError {
    /// No room now. There will be once the consumer's `head` has reached this position.
    #[error("the ring is full; try again when the receiver has read")]
    Full {
        /// The position that the consumer must have released.
        head_needed: u64,
    },
    /// No record can be this long.
    #[error(
        "the payload has {len} bytes, this ring takes at most {max} in a message; send less, or use a larger ring"
    )]
    TooLong {
        /// Length of the payload.
        len: u64,
        /// Longest possible.
        max: u64,
    },
    /// The consumer wrote something impossible.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
}
