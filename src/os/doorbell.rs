//! A descriptor that one process rings and another hears.
//!
//! A plugin rings its host's after it has asked for something on the control ring.
//! What always holds: the host never writes to one that a plugin has, and never reads it; it waits
//! for it once, so a plugin that rings for ever is heard once.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A new doorbell that nobody has rung: an eventfd, readable from the first ring on.
pub(crate) fn new() -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    super::check(fd.into())?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Rings. Does not block: one that has been rung too often to count another has been rung.
pub(crate) fn ring(bell: BorrowedFd<'_>) -> io::Result<()> {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: an open descriptor, and eight bytes that outlive the call.
    let result = unsafe { libc::write(bell.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    match super::check(result as libc::c_long) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::os::epoll::Epoll;

    #[test]
    fn however_often_it_is_rung_it_is_heard_once() {
        let bell = new().unwrap();
        let other = new().unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add(bell.as_fd(), 1).unwrap();
        for _ in 0..3 {
            ring(bell.as_fd()).unwrap();
        }
        let mut tokens = Vec::new();
        epoll.wait(&mut tokens).unwrap();
        assert_eq!(tokens, [1]);
        ring(bell.as_fd()).unwrap();
        // What is reported next is the other one.
        epoll.add(other.as_fd(), 2).unwrap();
        ring(other.as_fd()).unwrap();
        epoll.wait(&mut tokens).unwrap();
        assert_eq!(tokens, [2]);
    }
}
