//! Block copies for aarch64: pairs of vector registers.
//!
//! `memory::copy` calls it with 64 bytes or more.
//! What always holds: only the bytes named are read and written, some of them twice; the addresses
//! may have any alignment. (Compiled and read, never run: no such machine was at hand.)

use std::arch::asm;

pub(super) const EXISTS: bool = true;

#[derive(Debug, Clone, Copy)]
pub(super) struct Kind;

impl Kind {
    pub(super) fn detect() -> Self {
        Self
    }

    /// Every kind that this machine can run.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        vec![Self]
    }
}

/// Copies bytes: 64 at a time, the last 64 overlapping what came before.
///
/// # Safety
/// At least 64 bytes; readable at `from`, writable at `to`; the two do not overlap.
#[inline]
pub(super) unsafe fn copy(_kind: Kind, to: *mut u8, from: *const u8, len_bytes: usize) {
    // SAFETY: there are 64 bytes or more, so that the loop stops with 1 to 64 bytes left, and the
    // last block starts at the first byte or later. The flags are the block's only other output.
    unsafe {
        asm!(
            "subs {len}, {len}, #64",
            "b.ls 3f",
            "2:",
            "ldp {a:q}, {b:q}, [{from}]",
            "ldp {c:q}, {d:q}, [{from}, #32]",
            "stp {a:q}, {b:q}, [{to}]",
            "stp {c:q}, {d:q}, [{to}, #32]",
            "add {from}, {from}, #64",
            "add {to}, {to}, #64",
            "subs {len}, {len}, #64",
            "b.hi 2b",
            "3:",
            // `len` is now what is left, less 64: 0 or negative.
            "add {from}, {from}, {len}",
            "add {to}, {to}, {len}",
            "ldp {a:q}, {b:q}, [{from}]",
            "ldp {c:q}, {d:q}, [{from}, #32]",
            "stp {a:q}, {b:q}, [{to}]",
            "stp {c:q}, {d:q}, [{to}, #32]",
            to = inout(reg) to => _,
            from = inout(reg) from => _,
            len = inout(reg) len_bytes => _,
            a = out(vreg) _,
            b = out(vreg) _,
            c = out(vreg) _,
            d = out(vreg) _,
            options(nostack),
        );
    }
}
