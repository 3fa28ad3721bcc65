//! A timer that can be waited for like any descriptor.
//!
//! The supervisor asks again with it, where no descriptor tells of a death.
//! What always holds: it runs on the monotonic clock and fires once each time it is set.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;

use super::clock::timespec;

#[derive(Debug)]
pub(crate) struct Timer {
    fd: OwnedFd,
}

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: the call takes numbers.
        let result = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        super::check(result.into())?;
        // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(result) } })
    }

    /// Makes it readable once, `ns` from now; until it is set again, or for good where `ns` is 0.
    pub(crate) fn set(&self, ns: u64) -> io::Result<()> {
        let once = libc::itimerspec { it_interval: timespec(0), it_value: timespec(ns) };
        // SAFETY: an open descriptor, a structure that outlives the call, and no place for the old
        // setting.
        let result = unsafe { libc::timerfd_settime(self.fd.as_raw_fd(), 0, &once, null_mut()) };
        super::check(result.into()).map(drop)
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
