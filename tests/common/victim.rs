//! A forked copy of the test process, to be killed.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// A forked process that is killed and reaped at the latest when it is dropped.
pub struct Victim(libc::pid_t);

impl Victim {
    pub fn start(run: impl FnOnce()) -> Self {
        // SAFETY: the callers' closures run ring operations, which take no lock and allocate nothing.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "{}", std::io::Error::last_os_error());
        if pid == 0 {
            // SAFETY: the call takes numbers. Should the test itself be killed, so is its child.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            // A panic must not get into the copy of the test harness.
            let failed = catch_unwind(AssertUnwindSafe(run)).is_err();
            // SAFETY: the call takes a number and does not return.
            unsafe { libc::_exit(if failed { 101 } else { 0 }) };
        }
        Self(pid)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.unsigned_abs()
    }

    /// Kills it, and leaves the reaping to `wait`.
    pub fn kill(&mut self) {
        // SAFETY: the call takes numbers; the child has not been reaped, so the number is its own.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }

    /// Stops it, and waits until it has stopped.
    pub fn stop(&mut self) {
        // SAFETY: as in `kill`.
        unsafe { libc::kill(self.0, libc::SIGSTOP) };
        let mut status = 0;
        // SAFETY: a child of ours, and a status that outlives the call.
        let pid = unsafe { libc::waitpid(self.0, &mut status, libc::WUNTRACED) };
        assert!(pid == self.0 && libc::WIFSTOPPED(status));
    }

    /// Waits until it has ended by itself; returns its status.
    pub fn wait(&mut self) -> i32 {
        let mut status = 0;
        // SAFETY: a child of ours that has not been reaped, and a status that outlives the call.
        let pid = unsafe { libc::waitpid(self.0, &mut status, 0) };
        assert_eq!(std::mem::replace(&mut self.0, 0), pid);
        status
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        if self.0 != 0 {
            // SAFETY: the call takes numbers; the child has not been reaped, so the number is its own.
            unsafe { libc::kill(self.0, libc::SIGKILL) };
            self.wait();
        }
    }
}

/// In a forked child: goes on as a user that owns nothing, where this process may. The thread's own
/// calls, since the library's would signal threads that are not there.
#[allow(clippy::multiple_unsafe_ops_per_block, reason = "one switch in four calls")]
pub fn become_nobody() -> bool {
    use super::plugin::NOBODY;
    // SAFETY: the calls take numbers, and no pointer to groups. What ends the child with its parent
    // is lost with the identity, and asked for again.
    unsafe {
        libc::syscall(libc::SYS_setgroups, 0, std::ptr::null_mut::<u32>());
        libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY);
        let switched = libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) == 0;
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        switched
    }
}
