//! Closing files that somebody else has made.
//!
//! `os::memfd` calls it for descriptors that it refuses. Closing a file can wait for its maker: a file system
//! in user space is told, and need not answer; a socket may linger. Invariants: the caller never waits; a
//! descriptor is closed, or stays open for ever where no thread can be had.

use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread;

/// Enough for one system call.
const STACK_BYTES: usize = 64 << 10;

/// Closes a descriptor on a thread of its own, which takes as long as its maker likes.
pub(crate) fn elsewhere(fd: OwnedFd) {
    // A closure that is not run is dropped here, and must not close it.
    let fd = ManuallyDrop::new(fd);
    let number = fd.as_raw_fd();
    // SAFETY: an open descriptor, whose former owner is never dropped.
    let close = move || drop(unsafe { OwnedFd::from_raw_fd(number) });
    let thread = thread::Builder::new().name("ringway-close".into()).stack_size(STACK_BYTES);
    let _ = thread.spawn(close);
}
