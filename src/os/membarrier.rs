//! `membarrier`: a fence in every running thread of every process that has registered for it.
//!
//! Segments register when they attach to an asymmetrically fenced channel; the sleeping side issues
//! the barrier through [`Memory::heavy_fence`](crate::memory::Memory::heavy_fence).
//! What always holds: after [`register`] has returned `Ok` in a process, the barriers that other
//! processes issue reach its threads.

use std::io;

use super::fork;
use crate::sync::{AtomicU64, Ordering};

const CMD_QUERY: libc::c_int = 0;
const CMD_GLOBAL_EXPEDITED: libc::c_int = 1 << 1;
const CMD_REGISTER_GLOBAL_EXPEDITED: libc::c_int = 1 << 2;

fn membarrier(command: libc::c_int) -> io::Result<libc::c_long> {
    // SAFETY: none of the commands above takes a pointer.
    super::check(unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) })
}

/// Whether the kernel has the expedited global barrier.
pub(crate) fn is_supported() -> bool {
    let needed = (CMD_GLOBAL_EXPEDITED | CMD_REGISTER_GLOBAL_EXPEDITED) as libc::c_long;
    membarrier(CMD_QUERY).is_ok_and(|commands| commands & needed == needed)
}

/// Registers this process, once; later calls cost a load.
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
    membarrier(CMD_REGISTER_GLOBAL_EXPEDITED)?;
    REGISTERED.store(generation, Ordering::Relaxed);
    Ok(())
}

/// A full fence in this thread and in every running thread of every registered process.
#[inline]
pub(crate) fn barrier() -> io::Result<()> {
    membarrier(CMD_GLOBAL_EXPEDITED).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::tests::child_says;

    const CMD_GET_REGISTRATIONS: libc::c_int = 1 << 9;

    fn is_registered() -> bool {
        let bit = CMD_REGISTER_GLOBAL_EXPEDITED as libc::c_long;
        membarrier(CMD_GET_REGISTRATIONS).is_ok_and(|registrations| registrations & bit != 0)
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
        barrier().unwrap();
        assert!(is_registered());
        assert!(child_says(|| {
            register(fork::generation().unwrap()).unwrap();
            is_registered() && barrier().is_ok()
        }));
    }
}
