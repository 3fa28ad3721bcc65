//! A process that was started by a host: taking what it inherited, ending itself.
//!
//! A plugin calls it. Invariants: a descriptor is taken once and closed on exec from then on, so that
//! the plugin's own children do not get it.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Takes a descriptor that this process was started with, and closes it on exec from now on.
///
/// Refuses what cannot have been handed over by a host: numbers that are not open, are
/// standard descriptors, or would be closed on exec.
pub(crate) fn take_inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if fd <= libc::STDERR_FILENO {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the call takes numbers; a descriptor that is not open is an error.
    let flags = super::check(unsafe { libc::fcntl(fd, libc::F_GETFD) }.into())?;
    if flags & libc::c_long::from(libc::FD_CLOEXEC) != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "opened by this process itself"));
    }
    // SAFETY: as above.
    super::check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: the descriptor is open. The process that started this one opened it for this purpose
    // and announced its number; nothing that was opened here since is without close-on-exec unless
    // it was made so, and the flag just set makes a second call fail.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether a process, of ours and not reaped, is in the process group that has its number.
pub(crate) fn leads_group(pid: u32) -> bool {
    let pid = pid as libc::pid_t;
    // SAFETY: the call takes a number.
    unsafe { libc::getpgid(pid) == pid }
}

/// Ends the process now: no destructors, no handlers of `atexit`, which may wait for a lock that a
/// hanging thread holds.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: the call takes a number and does not return.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd};

    #[test]
    fn only_what_was_inherited_can_be_taken() {
        assert!(take_inherited(-1).is_err());
        assert!(take_inherited(1).is_err());
        assert!(take_inherited(1_000_000).is_err());
        let ours = File::open("/dev/null").unwrap();
        assert!(take_inherited(ours.as_raw_fd()).is_err());
        assert!(ours.as_fd().try_clone_to_owned().is_ok(), "it is still open");
    }
}
