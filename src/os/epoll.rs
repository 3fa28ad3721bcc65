//! Waiting for many descriptors at once.
//!
//! The supervisor waits for the deaths of all peers through it.
//! What always holds: each descriptor is reported at most once after it was added, with the token
//! that it was added with.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;

/// An epoll instance. Any thread may add and remove while another waits.
#[derive(Debug)]
pub(crate) struct Epoll {
    fd: OwnedFd,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the call takes a number.
        let result = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        super::check(result.into())?;
        // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(result) } })
    }

    /// Reports `token` once when the descriptor becomes readable.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        let events = (libc::EPOLLIN | libc::EPOLLONESHOT) as u32;
        let mut event = libc::epoll_event { events, u64: token };
        self.control(libc::EPOLL_CTL_ADD, fd, &mut event)
    }

    /// Reports `token` once more for a descriptor that has been reported.
    pub(crate) fn add_again(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        let events = (libc::EPOLLIN | libc::EPOLLONESHOT) as u32;
        let mut event = libc::epoll_event { events, u64: token };
        self.control(libc::EPOLL_CTL_MOD, fd, &mut event)
    }

    /// Takes a descriptor out; it must still be open.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, null_mut())
    }

    fn control(
        &self,
        operation: libc::c_int,
        fd: BorrowedFd<'_>,
        event: *mut libc::epoll_event,
    ) -> io::Result<()> {
        // SAFETY: both descriptors are open; the event is null, which removing allows, or borrowed
        // by the caller until the call is over.
        let result =
            unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd.as_raw_fd(), event) };
        super::check(result.into()).map(drop)
    }

    /// Waits, for ever if need be, until something is readable; fills in the tokens of what is.
    pub(crate) fn wait(&self, tokens: &mut Vec<u64>) -> io::Result<()> {
        const MAX_EVENTS: usize = 64;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; MAX_EVENTS];
        tokens.clear();
        // SAFETY: the kernel writes at most as many events as the array, which outlives the call,
        // has room for.
        let result = unsafe {
            libc::epoll_wait(self.fd.as_raw_fd(), events.as_mut_ptr(), MAX_EVENTS as i32, -1)
        };
        match super::check(result.into()) {
            Ok(count) => {
                tokens.extend(events.iter().take(count as usize).map(|event| event.u64));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Whether reading a descriptor would not block.
pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which outlives the call.
    unsafe { libc::poll(&mut entry, 1, 0) > 0 }
}
