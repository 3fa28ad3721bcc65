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
mod closing;
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
pub(crate) mod per_process;
pub(crate) mod pidfd;
pub(crate) mod pipe;
pub(crate) mod post;
pub(crate) mod process;
pub(crate) mod pulse;
pub(crate) mod random;
mod rights;
pub(crate) mod robust_mutex;
pub(crate) mod scheduling;
pub(crate) mod signals;
pub(crate) mod spawn;
pub(crate) mod start;
pub(crate) mod timer;
pub(crate) mod unmap;
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
    /// Runs a test, named with its modules, in a process where no other test runs. Tells whether this is that
    /// process.
    pub(crate) fn alone(test: &str) -> bool {
        const ALONE: &str = "RINGWAY_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            return true;
        }
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ALONE, test);
        assert!(command.status().unwrap().success(), "{test}");
        false
    }

    /// Runs `work` in a thread that the kernel ends at any system call but reading and writing; what it
    /// returned, or `None` where it was ended. The thread's own memory is left behind, and so is a lock of the
    /// allocator that it was about to hand to another thread: for tests that run [`alone`].
    pub(crate) fn without_system_calls(
        work: impl FnOnce() -> bool + Send + 'static,
    ) -> Option<bool> {
        use crate::sync::{AtomicU32, Ordering};
        let said = std::sync::Arc::new(AtomicU32::new(0));
        let theirs = std::sync::Arc::clone(&said);
        let thread = std::thread::spawn(move || {
            let strict = allow_few_calls();
            // Without seccomp the work is done all the same.
            let right = work();
            theirs.store(1 + u32::from(right), Ordering::Release);
            if strict {
                // SAFETY: ends this thread, which owns nothing that others wait for.
                unsafe { libc::syscall(libc::SYS_exit, 0) };
            }
        });
        while !thread.is_finished() && said.load(Ordering::Acquire) == 0 && is_there(&thread) {
            std::thread::yield_now();
        }
        match said.load(Ordering::Acquire) {
            0 => None,
            found => Some(found == 2),
        }
    }

    /// Has the kernel end this thread at any system call but `read`, `write` and `exit`. False where the
    /// system refuses that.
    fn allow_few_calls() -> bool {
        let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let number = |call: libc::c_long| u32::try_from(call).unwrap();
        let mut filter = [
            // Loads the number of the call, and compares it.
            line(0x20, 0, 0, 0),
            line(0x15, 3, 0, number(libc::SYS_read)),
            line(0x15, 2, 0, number(libc::SYS_write)),
            line(0x15, 1, 0, number(libc::SYS_exit)),
            line(0x06, 0, 0, libc::SECCOMP_RET_KILL_THREAD),
            line(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: the call takes numbers, and forbids this thread to gain privileges.
        let bound = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        // SAFETY: the program and its lines outlive the call.
        let set = unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        bound == 0 && set == 0
    }

    /// Whether the kernel still has a thread.
    fn is_there(thread: &std::thread::JoinHandle<()>) -> bool {
        use std::os::unix::thread::JoinHandleExt;
        // SAFETY: the handle has not been joined or detached, so the thread's name is valid; no signal
        // is sent.
        unsafe { libc::pthread_kill(thread.as_pthread_t(), 0) == 0 }
    }

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
