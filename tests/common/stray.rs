//! Processes that are no children of the test, by pidfd.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub fn pidfd_of(pid: i32) -> OwnedFd {
    // SAFETY: the call takes numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: just opened, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// A process that is killed when the test is over.
pub struct Stray(pub OwnedFd);

impl Drop for Stray {
    fn drop(&mut self) {
        let (fd, none) = (self.0.as_raw_fd(), std::ptr::null_mut::<libc::siginfo_t>());
        // SAFETY: an open pidfd, a signal, no information to go with it.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, none, 0) };
    }
}
