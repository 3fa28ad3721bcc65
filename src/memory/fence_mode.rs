//! Whether a waker may leave out the fence between its news and its look for a sleeper.
//!
//! A channel's creator writes it in the header; `memory::fences` finds out, for each side, whether and
//! when the permission can be used.
//! Invariants: a process that maps a segment with the asymmetric mode for writing has registered for
//! membarrier.

use crate::os::{affinity, fork, membarrier};

/// Who executes the fence between "I sleep" and "is anybody asleep?". What is allowed is fixed when a
/// channel is created; [`Channel::fence_mode`](crate::channel::Channel::fence_mode) says what holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum FenceMode {
    /// The sleeper, by `membarrier`, once each process has made sure that the other's barriers reach
    /// it: a short-lived thread visits every processor that either process may use. Until then, and
    /// where that fails, both sides.
    Asymmetric = 1,
    /// Both sides, each by a fence of its own. No processor is visited.
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
