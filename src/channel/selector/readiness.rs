//! A descriptor that is readable when a selector has something.
//!
//! [`Selector::readiness`](super::Selector::readiness) makes it, for epoll and asynchronous runtimes.
//! What always holds: the descriptor is this process's own, is closed on exec, and no peer has it.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::task::Poll;

use crate::os::epoll::is_readable;
use crate::supervisor::{self, WatchToken};

/// Tells when a [`Selector`](super::Selector) has something, by a descriptor for `epoll`, `poll`, or
/// an asynchronous runtime. Clones are the same descriptor.
///
/// It is readable from when there is something until [`poll`](super::Selector::poll) has been called,
/// and stays so where that left something behind. Now and then it is readable although there is
/// nothing, because the selector looks after peers that do not keep to the protocol: call `poll`
/// then as well. Nothing can be read from it or written to it.
///
/// A thread that waits for it in a system call may find the call interrupted (`EINTR`), as by a
/// signal, when something arrives: wait again.
///
/// In a runtime that waits for descriptors (tokio: `AsyncFd::new(selector.readiness()?)`), alternate
/// its waiting and `selector.poll(budget, Duration::ZERO, …)`; in any other, use
/// [`readable`](Self::readable). With `poll`, and `epoll` works alike:
///
/// ```
/// use std::os::fd::{AsFd, AsRawFd};
/// use std::time::Duration;
/// use ringway::channel::{Channel, ChannelOptions, Event, Selector};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (mut near, far) = Channel::pair(&ChannelOptions::default())?;
/// let (_sender, receiver) = far.split();
/// let mut selector = Selector::new();
/// selector.add(receiver);
/// let readiness = selector.readiness()?;
/// near.send(b"hello")?;
/// let mut heard = false;
/// while !heard {
///     let fd = readiness.as_fd().as_raw_fd();
///     let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
///     # #[allow(unsafe_code)]
///     // SAFETY: one entry, which outlives the call.
///     unsafe { libc::poll(&mut entry, 1, -1) };
///     selector.poll(16, Duration::ZERO, |_token, event| {
///         heard = matches!(event, Event::Message(message) if message.bytes() == b"hello");
///     });
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Readiness {
    fd: Arc<OwnedFd>,
}

impl Readiness {
    pub(super) fn new(fd: Arc<OwnedFd>) -> Self {
        Self { fd }
    }

    /// Waits until the selector has something, in any executor: one thread of this process, which
    /// also waits for deaths, waits for the descriptors of all such futures. A runtime that waits
    /// for descriptors itself does it with a thread switch less.
    ///
    /// Call [`poll`](super::Selector::poll) with no timeout whenever it returns. Dropping the future
    /// ends the waiting.
    ///
    /// # Errors
    /// Descriptors or threads have run out.
    pub async fn readable(&self) -> io::Result<()> {
        let mut watch: Option<WatchToken> = None;
        poll_fn(|context| {
            drop(watch.take());
            if is_readable(self.as_fd()) {
                return Poll::Ready(Ok(()));
            }
            let waker = context.waker().clone();
            let watched = self
                .fd
                .try_clone()
                // It may have become readable by now: then it is told at once.
                .and_then(|fd| supervisor::watch(fd, Box::new(move || waker.wake())));
            match watched {
                Ok(token) => {
                    watch = Some(token);
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(error)),
            }
        })
        .await
    }
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Readiness {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
