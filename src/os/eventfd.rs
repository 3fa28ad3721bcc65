//! A counter with a descriptor: readable while it is not zero.
//!
//! A selector that waits by threads shows with it that there is something.
//! What always holds: raising and clearing never block.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct EventFd {
    fd: Arc<OwnedFd>,
}

impl EventFd {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the call takes two numbers.
        let result = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        super::check(result.into())?;
        // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
        Ok(Self { fd: Arc::new(unsafe { OwnedFd::from_raw_fd(result) }) })
    }

    /// Its descriptor.
    pub(crate) fn descriptor(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// Makes it readable.
    pub(crate) fn raise(&self) {
        let one = 1_u64;
        // SAFETY: the kernel reads eight bytes, which outlive the call. It refuses only where the
        // counter is at its end, and then the descriptor is readable.
        unsafe { libc::write(self.fd.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }

    /// Makes it unreadable.
    pub(crate) fn clear(&self) {
        let mut count = 0_u64;
        // SAFETY: the kernel writes eight bytes, or none where the counter is zero.
        unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::os::epoll::is_readable;

    #[test]
    fn it_is_readable_from_raised_to_cleared() {
        let event = EventFd::new().unwrap();
        assert!(!is_readable(event.descriptor().as_fd()));
        event.clear();
        event.raise();
        event.raise();
        assert!(is_readable(event.descriptor().as_fd()));
        event.clear();
        assert!(!is_readable(event.descriptor().as_fd()));
    }
}
