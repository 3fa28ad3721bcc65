//! What the crate asks of Linux: thin wrappers around system calls, a file each.
//!
//! `memory::mapped`, `segment`, `channel` and `host` call it; protocol files never do.
//! What always holds: everything here is safe to call with any arguments, every descriptor is
//! closed on exec, and a failed call leaves nothing behind.

#![allow(unsafe_code)]

use std::io;

use crate::error::SegmentError;

pub(crate) mod affinity;
pub(crate) mod boot;
pub(crate) mod child;
pub(crate) mod claims;
pub(crate) mod clock;
pub(crate) mod doorbell;
mod dumpable;
pub(crate) mod dumps;
pub(crate) mod epoll;
pub(crate) mod eventfd;
pub(crate) mod fork;
pub(crate) mod futex;
pub(crate) mod isolation;
pub(crate) mod keeper;
pub(crate) mod limits;
pub(crate) mod locks;
pub(crate) mod mapping;
pub(crate) mod membarrier;
pub(crate) mod memfd;
pub(crate) mod names;
pub(crate) mod pidfd;
pub(crate) mod post;
pub(crate) mod process;
pub(crate) mod pulse;
pub(crate) mod random;
pub(crate) mod robust_mutex;
pub(crate) mod scheduling;
pub(crate) mod signals;
pub(crate) mod spawn;
pub(crate) mod timer;
pub(crate) mod uring;

/// The result of a C call that returns -1 and sets `errno` where it fails.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Names the call that failed.
pub(crate) fn os(call: &'static str) -> impl FnOnce(io::Error) -> SegmentError {
    move |source| SegmentError::Os { call, source }
}

#[cfg(test)]
pub(crate) mod tests {
    /// Runs `claim` in a forked child, which it cannot survive for more than a minute; whether it
    /// returned `true`. A panic is `false`.
    pub(crate) fn child_says(claim: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child runs on a copy of this thread; the library keeps its allocator usable
        // in such a child, and nothing else that other threads may hold is used.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork");
        if pid == 0 {
            // SAFETY: sets a timer that kills the child.
            unsafe { libc::alarm(60) };
            let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(claim));
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(libc::c_int::from(!said.unwrap_or(false))) };
        }
        let mut status = 0;
        // SAFETY: our child; `status` outlives the call.
        let reaped = unsafe { libc::waitpid(pid, &mut status, 0) };
        reaped == pid && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }
}
