//! The host's end of the socket that stands for one process at its keeper.
//!
//! [`Keeper`] makes one for each start, and for each process that it is to know. Invariants: every
//! exchange has a deadline; the keeper's death ends it at once; a process whose start has failed, or whose
//! [`Line`] is dropped, is ended by the keeper with its group.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::null;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::child::Step;
use super::super::clock::{monotonic_ns, timespec};
use super::super::pidfd::PidFd;
use super::super::rights;
use super::super::start::{NotStarted, Started};
use super::{Keeper, Word};
use crate::error::ExitReason;
use crate::memory::Deadline;

/// How long a child that was killed may take to end.
const KILLED_NS: u64 = 1_000_000_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Line {
    socket: OwnedFd,
    keeper: Arc<Keeper>,
    is_parent: bool,
}

/// Why nothing was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    Ended,
    Timeout,
}

impl Line {
    pub(super) fn new(socket: OwnedFd, keeper: Arc<Keeper>, is_parent: bool) -> Self {
        Self { socket, keeper, is_parent }
    }

    /// Whether the keeper is the parent of the process.
    pub(crate) fn is_parent(&self) -> bool {
        self.is_parent
    }

    /// Has the keeper reap the process, and says how it ended; `None` where it cannot be reaped yet.
    ///
    /// # Errors
    /// The keeper has ended, or does not answer.
    pub(crate) fn status(&self, deadline: Deadline) -> io::Result<Option<ExitReason>> {
        rights::send(self.socket.as_fd(), &[0], &[])?;
        match self.hear(deadline) {
            Ok((Word::Ended(reason), _)) => Ok(Some(reason)),
            Ok(_) => Ok(None),
            Err(Silence::Ended) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(Silence::Timeout) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Waits for the keeper's next word.
    fn hear(&self, deadline: Deadline) -> Result<(Word, Option<OwnedFd>), Silence> {
        loop {
            let mut bytes = [0; size_of::<[u32; 3]>()];
            match rights::receive::<1>(self.socket.as_fd(), &mut bytes) {
                Ok(rights::Received { len: 12, descriptors: [descriptor], .. }) => {
                    return Ok((Word::of(bytemuck::cast(bytes)), descriptor));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => return Err(Silence::Ended),
            }
            if self.keeper.has_ended() {
                return Err(Silence::Ended);
            }
            if monotonic_ns() >= deadline.as_ns() {
                return Err(Silence::Timeout);
            }
            wait_readable([self.socket.as_fd(), self.keeper.process.as_fd()], deadline);
        }
    }
}

/// A start that a keeper makes.
#[derive(Debug)]
pub(crate) struct KeptStart {
    line: Mutex<Option<Line>>,
    child: Mutex<ChildState>,
}

#[derive(Debug, Default)]
struct ChildState {
    /// From when there is a child until its program has been executed.
    pidfd: Option<OwnedFd>,
    kill: bool,
}

impl KeptStart {
    pub(super) fn new(line: Line) -> Self {
        Self { line: Mutex::new(Some(line)), child: Mutex::default() }
    }

    fn child(&self) -> MutexGuard<'_, ChildState> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Start::kill`](super::super::start::Start::kill).
    pub(crate) fn kill(&self) {
        let mut child = self.child();
        child.kill = true;
        if let Some(pidfd) = &child.pidfd {
            let _ = super::super::pidfd::signal(pidfd.as_raw_fd(), libc::SIGKILL, 0);
        }
    }

    /// See [`Start::wait`](super::super::start::Start::wait).
    pub(crate) fn wait(&self, deadline: Deadline) -> Result<Started, NotStarted> {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(line) = line else { return Err(NotStarted::KeeperEnded) };
        let (pid, pidfd) = match line.hear(deadline) {
            Ok((Word::Made(pid), Some(pidfd))) => (pid, pidfd),
            // Descriptors have run out here. Dropping the line ends the child.
            Ok((Word::Made(_), None)) => {
                let error = io::Error::from_raw_os_error(libc::EMFILE);
                return Err(NotStarted::Call("recvmsg", error));
            }
            Ok((Word::Refused(errno), _)) => {
                let error = io::Error::from_raw_os_error(errno);
                return Err(NotStarted::Call("starting a child of the keeper", error));
            }
            Ok(_) | Err(Silence::Ended) => return Err(NotStarted::KeeperEnded),
            Err(Silence::Timeout) => return Err(NotStarted::KeeperSilent),
        };
        let pidfd = PidFd::from(pidfd);
        let copy = pidfd.as_fd().try_clone_to_owned();
        let copy = copy.map_err(|error| NotStarted::Call("dup", error))?;
        {
            let mut child = self.child();
            child.pidfd = Some(copy);
            if child.kill {
                let _ = pidfd.signal(libc::SIGKILL);
            }
        }
        let outcome = line.hear(deadline);
        self.child().pidfd = None;
        match outcome {
            Ok((Word::Executed, _)) => Ok(Started { pid, pidfd, line: Some(line) }),
            Ok((Word::Failed(step, errno), _)) => {
                Err(NotStarted::Step(step, io::Error::from_raw_os_error(errno)))
            }
            Ok((Word::Ended(reason), _)) => Err(NotStarted::Ended(reason)),
            other => {
                let _ = pidfd.signal(libc::SIGKILL);
                let end = Deadline::at_ns(monotonic_ns().saturating_add(KILLED_NS));
                let _ = pidfd.wait(end);
                // The keeper reaps it before it says so.
                let _ = line.hear(end);
                let timed_out = matches!(other, Err(Silence::Timeout));
                Err(if timed_out { NotStarted::TimedOut } else { NotStarted::KeeperEnded })
            }
        }
    }
}

impl Word {
    fn of([kind, first, second]: [u32; 3]) -> Self {
        let exit = |value: u32| value as i32;
        match kind {
            0 => Self::Made(first),
            1 => Self::Refused(exit(first)),
            2 => Self::Executed,
            3 => Self::Failed(Step::of(first), exit(second)),
            4 => Self::Ended(ExitReason::Code(exit(first))),
            5 => Self::Ended(ExitReason::Signal(exit(first))),
            6 => Self::Ended(ExitReason::Unknown),
            _ => Self::Runs,
        }
    }

    pub(super) fn to_words(self) -> [u32; 3] {
        match self {
            Self::Made(pid) => [0, pid, 0],
            Self::Refused(errno) => [1, errno as u32, 0],
            Self::Executed => [2, 0, 0],
            Self::Failed(step, errno) => [3, step.code(), errno as u32],
            Self::Ended(ExitReason::Code(code)) => [4, code as u32, 0],
            Self::Ended(ExitReason::Signal(signal)) => [5, signal as u32, 0],
            Self::Ended(_) => [6, 0, 0],
            Self::Runs => [7, 0, 0],
        }
    }
}

/// Waits until one of two descriptors is readable, or until then.
fn wait_readable(fds: [BorrowedFd<'_>; 2], deadline: Deadline) {
    let entry =
        |fd: BorrowedFd<'_>, events| libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    wait(&mut fds.map(|fd| entry(fd, libc::POLLIN)), deadline);
}

/// Waits until a socket has room, another descriptor is readable, or until then.
pub(super) fn wait_writable(socket: BorrowedFd<'_>, other: BorrowedFd<'_>, deadline: Deadline) {
    let entry =
        |fd: BorrowedFd<'_>, events| libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    wait(&mut [entry(socket, libc::POLLOUT), entry(other, libc::POLLIN)], deadline);
}

fn wait(entries: &mut [libc::pollfd; 2], deadline: Deadline) {
    let left = timespec(deadline.as_ns().saturating_sub(monotonic_ns()));
    let timeout = if deadline == Deadline::NEVER { null() } else { &raw const left };
    // SAFETY: two entries and, where not null, a timespec, all of which outlive the call. A signal ends
    // the wait, and the caller looks.
    unsafe { libc::ppoll(entries.as_mut_ptr(), 2, timeout, null()) };
}
