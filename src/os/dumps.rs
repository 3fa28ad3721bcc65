//! Whether segments are part of core dumps.
//!
//! `os::mapping` asks for each mapping that it makes.
//!
//! Invariants: the choice is this process's alone, and holds for mappings made after it.

use crate::sync::{AtomicU32, Ordering};

/// 0 or 1.
static KEPT: AtomicU32 = AtomicU32::new(0);

/// Makes the segments that this process maps from now on part of its core dumps, or leaves them out.
///
/// By default they are left out (`MADV_DONTDUMP`): a process that maps many large segments would
/// otherwise write all of them, with what other processes have in them, when it crashes. Whoever wants
/// to see the state of channels and stores in a debugger calls this before the first segment is made.
pub fn keep_in_core_dumps(keep: bool) {
    // Relaxed: no other memory depends on it.
    KEPT.store(keep.into(), Ordering::Relaxed);
}

/// Whether they are.
pub(super) fn are_kept() -> bool {
    KEPT.load(Ordering::Relaxed) != 0
}
