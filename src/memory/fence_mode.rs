//! Which side of a channel pays for the fence that a sleeper and its waker need.
//!
//! Segments write it in their header; [`MappedMemory`](super::MappedMemory) fences accordingly.
//! What always holds: both sides of a channel use the same mode, and a process that uses the
//! asymmetric one is registered for it.

use crate::os::{affinity, fork, membarrier};

/// Who pays for the fence between "I sleep" and "is anybody asleep?". Fixed when a channel is
/// created, and written in its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum FenceMode {
    /// The sleeper, by `membarrier`. Both processes are registered for it.
    Asymmetric = 1,
    /// Both sides, each by a fence of its own.
    Real = 2,
}

impl FenceMode {
    /// What suits this system: asymmetric, unless it has one processor only (where the barrier costs
    /// more than it saves) or lacks the call. That this process is pinned to one processor says
    /// nothing: its peer may be pinned to another, and then a fence for each message would cost more
    /// than all sleeps together.
    pub fn detect() -> Self {
        let registers = || fork::generation().and_then(membarrier::register).is_ok();
        if affinity::online_cpus() != Some(1) && registers() {
            Self::Asymmetric
        } else {
            Self::Real
        }
    }

    /// The mode that a header word means.
    pub(crate) fn from_u32(word: u32) -> Option<Self> {
        match word {
            1 => Some(Self::Asymmetric),
            2 => Some(Self::Real),
            _ => None,
        }
    }
}
