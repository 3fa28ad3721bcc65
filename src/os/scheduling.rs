//! How a new process is scheduled: reset to what an ordinary process has, then as asked for.
//!
//! `os::child` calls it in a child before it executes a program. Invariants: the reset only lowers a
//! priority, so it needs no privilege and cannot fail; the calls go to the kernel directly.

use std::borrow::Cow;
use std::io;

/// What is asked for; by default nothing but the reset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Scheduling<'a> {
    /// Policy and static priority.
    pub(crate) policy: Option<(libc::c_int, libc::c_int)>,
    pub(crate) nice: Option<i32>,
    /// One bit for each processor; `None` keeps the host's.
    pub(crate) cpus: Option<Cow<'a, [u64]>>,
}

/// Takes real-time and deadline policies and negative nice values away, as the kernel's
/// SCHED_RESET_ON_FORK does.
pub(crate) fn reset() {
    // SAFETY: the call takes numbers.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    let policy = policy as libc::c_int & !libc::SCHED_RESET_ON_FORK;
    if !matches!(policy, libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE) {
        let _ = set_policy(libc::SCHED_OTHER, 0);
    }
    // The system call returns 20 less the nice value.
    // SAFETY: the call takes numbers.
    let shifted = unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0) };
    if shifted > 20 {
        let _ = set_nice(0);
    }
}

pub(crate) fn set_policy(policy: libc::c_int, priority: libc::c_int) -> io::Result<()> {
    // The kernel's structure is one number.
    // SAFETY: the kernel reads the number, which outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) };
    super::check(result).map(drop)
}

pub(crate) fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: the call takes numbers.
    let result = unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, nice) };
    super::check(result).map(drop)
}

pub(crate) fn set_cpus(cpus: &[u64]) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as the slice has.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(cpus), cpus.as_ptr()) };
    super::check(result).map(drop)
}
