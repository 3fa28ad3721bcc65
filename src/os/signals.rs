//! The signal mask and the dispositions of a process that is about to execute a program.
//!
//! `os::spawn` calls it in the thread that starts a child, and in the child. Invariants: the calls go
//! to the kernel directly, so they also reach the two signals that the C library keeps to itself, and
//! take no lock; a mask that was replaced is returned.

use std::io;
use std::ptr::{null, null_mut};

/// The kernel's signal set: one bit a signal, 64 of them on the supported platforms.
pub(crate) type Mask = u64;

/// No signal.
pub(crate) const NONE: Mask = 0;
/// Every signal. The kernel leaves SIGKILL and SIGSTOP out.
pub(crate) const ALL: Mask = u64::MAX;

const LAST_SIGNAL: libc::c_int = 64;

/// Blocks exactly the signals in `mask`, for this thread. Returns what was blocked before.
pub(crate) fn set_mask(mask: Mask) -> io::Result<Mask> {
    let mut before: Mask = NONE;
    // SAFETY: both sets have the size that is given, and outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            &raw mut before,
            size_of::<Mask>(),
        )
    };
    super::check(result).map(|_| before)
}

/// Gives every signal its default disposition.
pub(crate) fn reset_dispositions() {
    // The kernel's structure: handler 0 is the default; flags, restorer and mask are 0 as well. Longer
    // than on any supported platform.
    let default = [0_u64; 8];
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: the kernel reads its structure, all of which is in the array; it is not asked for
        // the old one. SIGKILL and SIGSTOP are refused, which changes nothing.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                null_mut::<u64>(),
                size_of::<Mask>(),
            )
        };
    }
}

/// Whether the kernel reaps this process's children by itself, so that nobody learns how they ended:
/// SIGCHLD is ignored, or has SA_NOCLDWAIT.
pub(crate) fn children_are_reaped() -> bool {
    // SAFETY: a disposition of zeros is a valid value to be overwritten.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the old disposition is written to `now`, which outlives the call; there is no new one.
    let result = unsafe { libc::sigaction(libc::SIGCHLD, null(), &raw mut now) };
    result == 0 && (now.sa_sigaction == libc::SIG_IGN || now.sa_flags & libc::SA_NOCLDWAIT != 0)
}
