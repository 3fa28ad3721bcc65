//! Pipes that are closed on exec and on which no call waits.
//!
//! A plugin's sign of life and a keeper's child use one each. Invariant: each end has flags of its own, so neither
//! process can make the other one wait.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// The end to read and the end to write.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: the kernel writes two numbers to the array, which outlives the call.
    let result = unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) };
    super::check(result.into())?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    let read = unsafe { OwnedFd::from_raw_fd(fds[0]) };
    // SAFETY: and so is this.
    Ok((read, unsafe { OwnedFd::from_raw_fd(fds[1]) }))
}
