//! Block copies for x86-64: SSE2 everywhere, AVX where there is, `rep movsb` for what is long.
//!
//! `memory::copy` calls it with 64 bytes or more.
//! What always holds: only the bytes named are read and written, some of them twice; the addresses
//! may have any alignment.

use std::arch::asm;

pub(super) const EXISTS: bool = true;

/// From here on the processor's own copy loop is at least as fast, where it is made to be.
const REP_MIN_BYTES: usize = 4096;

/// Where the destination's place in its page is behind the source's by less than this, AMD's copy
/// loop takes its loads to depend on its own stores: down to a fifteenth of the speed at 8 bytes,
/// which is how a payload behind its header lies to a buffer at the start of a page.
const ALIASING_BYTES: usize = 256;
const PAGE_BYTES: usize = 4096;

/// What this processor has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// Registers of 32 bytes.
    avx: bool,
    /// A copy loop that moves whole lines.
    rep: bool,
}

impl Kind {
    pub(super) fn detect() -> Self {
        Self {
            avx: std::arch::is_x86_feature_detected!("avx"),
            rep: std::arch::is_x86_feature_detected!("ermsb"),
        }
    }

    /// Every kind that this machine can run.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        let least = Self { avx: false, rep: false };
        let Self { avx, rep } = Self::detect();
        vec![least, Self { avx, ..least }, Self { rep, ..least }, Self { avx, rep }]
    }
}

/// Whether the processor may take loads from `from` for loads of what it has just stored at `to`.
#[inline]
fn alias(to: usize, from: usize) -> bool {
    (1..ALIASING_BYTES).contains(&(to.wrapping_sub(from) % PAGE_BYTES))
}

/// Copies bytes.
///
/// # Safety
/// At least 64 bytes; readable at `from`, writable at `to`; the two do not overlap; `kind` was
/// detected.
#[inline]
pub(super) unsafe fn copy(kind: Kind, to: *mut u8, from: *const u8, len_bytes: usize) {
    if kind.rep && len_bytes >= REP_MIN_BYTES && !alias(to.addr(), from.addr()) {
        // SAFETY: the caller's promise.
        unsafe { rep(to, from, len_bytes) }
    } else if kind.avx && len_bytes <= 128 {
        // SAFETY: the caller's promise; there are 64 to 128 bytes, and the processor has AVX.
        unsafe { avx_short(to, from, len_bytes) }
    } else if kind.avx {
        // SAFETY: the caller's promise; there are 128 bytes or more, and the processor has AVX.
        unsafe { avx(to, from, len_bytes) }
    } else {
        // SAFETY: the caller's promise.
        unsafe { sse2(to, from, len_bytes) }
    }
}

/// 64 bytes at a time, the last 64 overlapping what came before.
#[inline]
unsafe fn sse2(to: *mut u8, from: *const u8, len_bytes: usize) {
    // SAFETY: there are 64 bytes or more, so that the loop stops with 1 to 64 bytes left, and the
    // last block starts at the first byte or later. The flags are the block's only other output.
    unsafe {
        asm!(
            "sub {len}, 64",
            "jbe 3f",
            "2:",
            "movups {a}, [{from}]",
            "movups {b}, [{from} + 16]",
            "movups {c}, [{from} + 32]",
            "movups {d}, [{from} + 48]",
            "movups [{to}], {a}",
            "movups [{to} + 16], {b}",
            "movups [{to} + 32], {c}",
            "movups [{to} + 48], {d}",
            "add {from}, 64",
            "add {to}, 64",
            "sub {len}, 64",
            "ja 2b",
            "3:",
            // `len` is now what is left, less 64: 0 or negative.
            "movups {a}, [{from} + {len}]",
            "movups {b}, [{from} + {len} + 16]",
            "movups {c}, [{from} + {len} + 32]",
            "movups {d}, [{from} + {len} + 48]",
            "movups [{to} + {len}], {a}",
            "movups [{to} + {len} + 16], {b}",
            "movups [{to} + {len} + 32], {c}",
            "movups [{to} + {len} + 48], {d}",
            to = inout(reg) to => _,
            from = inout(reg) from => _,
            len = inout(reg) len_bytes => _,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(nostack),
        );
    }
}

/// The first 64 bytes and the last 64, which may overlap; all are read before any is written.
#[inline]
unsafe fn avx_short(to: *mut u8, from: *const u8, len_bytes: usize) {
    // SAFETY: there are 64 to 128 bytes, so that both blocks lie inside and leave nothing out.
    // `vzeroupper` clears the upper halves of all sixteen registers, which are all declared as
    // overwritten.
    unsafe {
        asm!(
            "vmovups ymm0, [{from}]",
            "vmovups ymm1, [{from} + 32]",
            "vmovups ymm2, [{from} + {len} - 64]",
            "vmovups ymm3, [{from} + {len} - 32]",
            "vmovups [{to}], ymm0",
            "vmovups [{to} + 32], ymm1",
            "vmovups [{to} + {len} - 64], ymm2",
            "vmovups [{to} + {len} - 32], ymm3",
            "vzeroupper",
            to = in(reg) to,
            from = in(reg) from,
            len = in(reg) len_bytes,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
            out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
            out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
            out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nostack, preserves_flags),
        );
    }
}

/// 128 bytes at a time, the last 128 overlapping what came before.
#[inline]
unsafe fn avx(to: *mut u8, from: *const u8, len_bytes: usize) {
    // SAFETY: as in `sse2`, with 128 bytes for 64; for `vzeroupper` see `avx_short`.
    unsafe {
        asm!(
            "sub {len}, 128",
            "jbe 3f",
            "2:",
            "vmovups ymm0, [{from}]",
            "vmovups ymm1, [{from} + 32]",
            "vmovups ymm2, [{from} + 64]",
            "vmovups ymm3, [{from} + 96]",
            "vmovups [{to}], ymm0",
            "vmovups [{to} + 32], ymm1",
            "vmovups [{to} + 64], ymm2",
            "vmovups [{to} + 96], ymm3",
            "sub {from}, -128",
            "sub {to}, -128",
            "sub {len}, 128",
            "ja 2b",
            "3:",
            "vmovups ymm0, [{from} + {len}]",
            "vmovups ymm1, [{from} + {len} + 32]",
            "vmovups ymm2, [{from} + {len} + 64]",
            "vmovups ymm3, [{from} + {len} + 96]",
            "vmovups [{to} + {len}], ymm0",
            "vmovups [{to} + {len} + 32], ymm1",
            "vmovups [{to} + {len} + 64], ymm2",
            "vmovups [{to} + {len} + 96], ymm3",
            "vzeroupper",
            to = inout(reg) to => _,
            from = inout(reg) from => _,
            len = inout(reg) len_bytes => _,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
            out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
            out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
            out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nostack),
        );
    }
}

/// The processor's copy loop.
#[inline]
unsafe fn rep(to: *mut u8, from: *const u8, len_bytes: usize) {
    // SAFETY: reads and writes just the bytes that the caller promises; the direction flag is clear
    // at the start of every assembly block.
    unsafe {
        asm!(
            "rep movsb",
            inout("rdi") to => _,
            inout("rsi") from => _,
            inout("rcx") len_bytes => _,
            options(nostack, preserves_flags),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::alias;

    #[test]
    fn addresses_alias_where_the_destination_is_a_little_further_into_its_page() {
        assert!(!alias(0x5000, 0x1000));
        assert!(alias(0x5008, 0x1000));
        assert!(alias(0x1008, 0x5000));
        assert!(alias(0x5004, 0x1ffc));
        assert!(!alias(0x5000, 0x1008));
        assert!(!alias(0x5100, 0x1000));
    }
}
