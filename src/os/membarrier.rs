//! `membarrier`: a fence in every running thread of the processes that have registered for it.
//!
//! `memory::fences` registers a process and issues the barriers.
//! Invariants: after [`register`] has returned `Ok`, the private barrier reaches every running thread
//! of this process, and this process takes part in the global one.
//!
//! The global barrier has a gap: it skips a processor that was idle with this process's memory still
//! loaded when the process registered, until that processor has run another process. So a global
//! barrier decides about time only, and only after a flush; see `memory::fences`.

use std::io;

use super::fork;
use crate::sync::{AtomicU64, Ordering};

const CMD_QUERY: libc::c_int = 0;
const CMD_GLOBAL: libc::c_int = 1 << 0;
const CMD_GLOBAL_EXPEDITED: libc::c_int = 1 << 1;
const CMD_REGISTER_GLOBAL_EXPEDITED: libc::c_int = 1 << 2;
const CMD_PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
const CMD_REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

fn membarrier(command: libc::c_int) -> io::Result<libc::c_long> {
    // SAFETY: none of the commands above takes a pointer.
    super::check(unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) })
}

/// Whether the kernel has both expedited barriers.
pub(crate) fn is_supported() -> bool {
    let needed = CMD_GLOBAL_EXPEDITED
        | CMD_REGISTER_GLOBAL_EXPEDITED
        | CMD_PRIVATE_EXPEDITED
        | CMD_REGISTER_PRIVATE_EXPEDITED;
    let needed = libc::c_long::from(needed);
    membarrier(CMD_QUERY).is_ok_and(|commands| commands & needed == needed)
}

/// Registers this process for both barriers, once; later calls cost a load.
///
/// A forked child has been seen to inherit the registration, but nothing promises it, so it
/// registers anew: the kernel answers at once where that was not needed.
pub(crate) fn register(generation: u64) -> io::Result<()> {
    /// The fork generation that has registered.
    static REGISTERED: AtomicU64 = AtomicU64::new(0);

    debug_assert!(fork::is_current(generation));
    // Relaxed: the word says that a system call was made, and guards no memory.
    if REGISTERED.load(Ordering::Relaxed) == generation {
        return Ok(());
    }
    if !is_supported() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    membarrier(CMD_REGISTER_PRIVATE_EXPEDITED)?;
    membarrier(CMD_REGISTER_GLOBAL_EXPEDITED)?;
    REGISTERED.store(generation, Ordering::Relaxed);
    Ok(())
}

/// A full fence in this thread and in the running threads of every registered process, but for the
/// gap that the module describes.
pub(crate) fn global_barrier() -> io::Result<()> {
    membarrier(CMD_GLOBAL_EXPEDITED).map(drop)
}

/// A full fence in this thread and in every running thread of this process, which has registered.
pub(crate) fn private_barrier() -> io::Result<()> {
    // Without the expedited form, the slow one, which reaches every thread of the machine.
    membarrier(CMD_PRIVATE_EXPEDITED).or_else(|_| membarrier(CMD_GLOBAL)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::tests::child_says;

    const CMD_GET_REGISTRATIONS: libc::c_int = 1 << 9;

    fn is_registered() -> bool {
        let bits = CMD_REGISTER_GLOBAL_EXPEDITED | CMD_REGISTER_PRIVATE_EXPEDITED;
        let bits = libc::c_long::from(bits);
        membarrier(CMD_GET_REGISTRATIONS).is_ok_and(|registrations| registrations & bits == bits)
    }

    /// Whether this kernel has the barrier and can say who is registered.
    fn can_ask() -> bool {
        is_supported() && membarrier(CMD_GET_REGISTRATIONS).is_ok()
    }

    #[test]
    fn registering_registers_and_a_forked_child_can_register_too() {
        if !can_ask() {
            return;
        }
        register(fork::generation().unwrap()).unwrap();
        global_barrier().unwrap();
        private_barrier().unwrap();
        assert!(is_registered());
        assert!(child_says(|| {
            register(fork::generation().unwrap()).unwrap();
            is_registered() && global_barrier().is_ok() && private_barrier().is_ok()
        }));
    }
}
