//! Keeps the host's memory closed to tracers while a child that changes its identity shares it.
//!
//! `os::spawn` holds an [`Undumpable`] from before it makes such a child until the child has executed
//! its program or has ended. Invariants: the memory is undumpable while at least one guard exists;
//! what the last guard restores is what the first one found.
//!
//! The guard is dropped while its thread blocks all signals. A thread that changes the identity of
//! the whole process waits for that thread, so the kernel makes the memory undumpable after the guard
//! has restored it, and not before.

use super::per_process::PerProcess;

static SWITCHES: PerProcess<Switches> = PerProcess::new();

#[derive(Debug, Default)]
struct Switches {
    under_way: u32,
    was_dumpable: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Undumpable(());

impl Undumpable {
    pub(super) fn begin() -> Self {
        let mut switches = SWITCHES.lock();
        if switches.under_way == 0 {
            // SAFETY: the call takes numbers.
            let now = unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) };
            switches.was_dumpable = now == 1;
            set(0);
        }
        switches.under_way += 1;
        Self(())
    }
}

impl Drop for Undumpable {
    fn drop(&mut self) {
        let mut switches = SWITCHES.lock();
        switches.under_way -= 1;
        if switches.under_way == 0 && switches.was_dumpable {
            set(1);
        }
    }
}

fn set(dumpable: libc::c_ulong) {
    // SAFETY: the call takes numbers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, dumpable, 0, 0, 0) };
}
