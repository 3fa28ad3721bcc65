//! What the crate asks of Linux: thin wrappers around system calls, a file each.
//!
//! `memory::mapped`, `segment`, `channel` and `host` call it; protocol files never do.
//! What always holds: everything here is safe to call with any arguments, every descriptor is
//! closed on exec, and a failed call leaves nothing behind.

#![allow(unsafe_code)]

use std::io;

use crate::error::SegmentError;

#[allow(dead_code, reason = "the current processor is asked for by the channel")]
pub(crate) mod affinity;
pub(crate) mod clock;
pub(crate) mod epoll;
pub(crate) mod fork;
#[allow(dead_code, reason = "a selector waits on many words")]
pub(crate) mod futex;
pub(crate) mod mapping;
pub(crate) mod membarrier;
pub(crate) mod memfd;
#[allow(dead_code, reason = "the host and the supervisor watch processes")]
pub(crate) mod pidfd;
pub(crate) mod random;

/// The result of a C call that returns -1 and sets `errno` where it fails.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Names the call that failed.
pub(crate) fn os(call: &'static str) -> impl FnOnce(io::Error) -> SegmentError {
    move |source| SegmentError::Os { call, source }
}
