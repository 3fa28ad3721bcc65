//! Who holds something, whether it is dead, and whether a file is the one that was closed.
//!
//! Stores and named channels ask here, and nowhere else. Layers: `os < memory < identity < segment`.
//!
//! Invariants:
//! - A lock that the kernel holds outranks every number and every string that stands in memory or in `/proc`.
//! - A death is proven by a free byte, or by a pidfd whose inode is not the recorded one. Start times, boot
//!   ids and process ids prove nothing. What is unknown equals nothing, itself included.

pub(crate) mod closed;
pub(crate) mod participant;
pub(crate) mod process;
