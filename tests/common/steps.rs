//! A process that is killed at the entry of its n-th system call, for every n.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `run` in forked copies of this process, the n-th of which is killed where it is about to make
/// its n-th system call; calls `after` behind each death, and returns how many deaths there were. The
/// copy that comes through must succeed.
pub fn kill_at_every_step(run: impl Fn(), mut after: impl FnMut(usize)) -> usize {
    for steps in 1.. {
        if !killed_at(steps, &run) {
            return steps - 1;
        }
        after(steps);
    }
    unreachable!("it ends")
}

/// Runs `run` in a forked copy of this process that is killed at its n-th system call. False where it
/// ended by itself before that.
pub fn killed_at(steps: usize, run: &impl Fn()) -> bool {
    // SAFETY: the child runs on a copy of this thread; the library keeps its allocator usable.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        // SAFETY: asks to be traced by the parent; the pointers are ignored.
        unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
        // SAFETY: stops this process until its parent has seen it.
        unsafe { libc::raise(libc::SIGSTOP) };
        let failed = catch_unwind(AssertUnwindSafe(run)).is_err();
        // SAFETY: the call takes a number and does not return.
        unsafe { libc::_exit(if failed { 101 } else { 0 }) };
    }
    let mut stops = 0;
    loop {
        let mut status = 0;
        // SAFETY: our child, and a status that outlives the call.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, libc::__WALL) }, pid);
        if libc::WIFEXITED(status) {
            assert_eq!(libc::WEXITSTATUS(status), 0, "the process has failed by itself");
            return false;
        }
        if libc::WIFSIGNALED(status) {
            return true;
        }
        // The first stop is the one it asked for; then entry and exit of each call.
        stops += 1;
        if stops == 2 * steps {
            // SAFETY: numbers; the child has not been reaped.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            continue;
        }
        // SAFETY: a stopped tracee of ours; no signal is passed on.
        unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, 0) };
    }
}
