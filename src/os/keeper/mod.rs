//! A process beside the host that starts plugins, reaps them, and ends their groups when the host is gone.
//!
//! [`HostBuilder::keeper`](crate::host::HostBuilder::keeper) asks for one; the host's launcher uses it.
//! Invariants: it is forked once, when the host is built; it never shares the host's memory from then on,
//! so nothing that it does copies, locks or touches the host's page tables; it ends when the host has
//! died, has executed another program, or closes it, after the groups that it still knows.
//!
//! # What runs where
//!
//! 1. *The host*, in [`Keeper::start`]: one `fork`, which copies the host's page tables as they are then.
//!    Whoever wants that to be cheap builds the host early.
//! 2. *The keeper* (`service`): one thread, which handles messages and makes children. It runs on a copy
//!    of a process whose other threads are gone, perhaps in the middle of an allocation. So it makes
//!    system calls on memory that was allocated before the fork, and takes no lock: arrays have their
//!    final capacity, requests are mapped, and nothing is formatted. A panic ends it.
//! 3. *A child of the keeper* (`start`): made by the system call itself, without the handlers that the
//!    host's libraries may have registered for forks. It has a copy of the keeper's page tables, which are
//!    those of the small host. It does not share memory with the keeper, so the keeper need not wait for
//!    it: one child that hangs before it executes its program holds up no other. It runs `os::child`, as a
//!    child of the host would.
//! 4. *The host* again: it watches the process by the pidfd that the keeper sends, signals it by that
//!    pidfd, and asks the keeper to reap it after it has signalled its group. No thread, no stack and no
//!    suspension are needed in the host for a start.
//!
//! A hook before exec is host memory, which the keeper does not have: such a plugin is started by the host
//! itself (`os::spawn`), and the keeper only knows its group. The same holds where a child of the keeper
//! would get more or other rights than a child of the host: the host has changed its user or groups, its
//! capabilities, its root directory, no-new-privileges or the mode of seccomp since it was built; and
//! before Linux 6.9, which cannot signal a group whose leader is another process's child safely. What else
//! a process inherits (limits, umask, affinity, nice value, control group, keyrings, namespaces), a child
//! of the keeper inherits as the host had it when it was built. The working directory is the host's at the
//! start: it is sent along.
//!
//! # Messages
//!
//! Requests go over one socket: *start*, with a frame (`frame`) and the descriptors; *know*, with the
//! pidfd of a process that the host has started. Each brings a socket of its own, the process's line
//! (`line`). On it the keeper answers, the host asks for the exit status, and its end says that the host
//! is done with the process: the keeper then ends what is left of its group.

mod frame;
mod line;
mod service;
mod standing;
mod start;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::child::{Image, Setup, Step};
use super::clock::monotonic_ns;
use super::pidfd::PidFd;
use super::spawn::above_standard;
use super::start::{NotStarted, Start};
use super::{post, rights};
use crate::error::ExitReason;
use crate::memory::Deadline;
pub(crate) use line::{KeptStart, Line};
use standing::Standing;

/// How many processes a keeper can know.
const MAX_PROCESSES: usize = 4096;
/// How long the host waits for the keeper's end.
const END_NS: u64 = 1_000_000_000;

/// The first word of a request.
const START: u32 = 1;
const KNOW: u32 = 2;

/// Bits in the third word of *start*: which descriptors come before the inherited ones.
const HAS_CGROUP: u32 = 1 << 3;

/// What a keeper says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// There is a child. Its pidfd comes along.
    Made(u32),
    /// There is none, because of this error.
    Refused(i32),
    Executed,
    /// The child has failed at this step, and has been reaped.
    Failed(Step, i32),
    /// It has been reaped.
    Ended(ExitReason),
    Runs,
}

/// The host's side.
#[derive(Debug)]
pub(crate) struct Keeper {
    socket: OwnedFd,
    process: PidFd,
    /// What the keeper's children inherit, as far as it matters.
    standing: Standing,
    /// Whether the kernel can signal a group by the descriptor of another process's child.
    signals_groups: bool,
}

impl Keeper {
    /// Forks a keeper of this process.
    ///
    /// # Errors
    /// The system has no room for it.
    pub(crate) fn start() -> io::Result<Arc<Self>> {
        let standing = Standing::now()?;
        let (ours, theirs) = post::pair()?;
        let theirs = above_standard(theirs)?;
        let host = PidFd::from(above_standard(PidFd::open(std::process::id())?.into())?);
        // Signal 0 to this process's own group: it only asks.
        let probe = host.signal_group(0);
        let signals_groups =
            !matches!(probe, Err(error) if error.raw_os_error() == Some(libc::EINVAL));
        let service = service::Service::new(theirs, host);
        // SAFETY: the child calls `run`, which makes system calls, uses memory that is allocated, takes
        // no lock and does not return.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            service.run();
        }
        super::check(pid.into())?;
        drop(service);
        let process = PidFd::open(pid.unsigned_abs())?;
        Ok(Arc::new(Self { socket: ours, process, standing, signals_groups }))
    }

    /// The keeper's process.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// Whether the keeper's process has ended. Does not wait.
    pub(crate) fn has_ended(&self) -> bool {
        self.process.wait(Deadline::at_ns(0)).unwrap_or(true)
    }

    /// Takes the exit status of a keeper that has ended.
    pub(crate) fn reap(&self) -> ExitReason {
        self.process.reap().ok().flatten().unwrap_or(ExitReason::Unknown)
    }

    /// Whether it can start what this process could start.
    pub(crate) fn can_start(&self) -> bool {
        let same = || Standing::now().is_ok_and(|now| now == self.standing);
        let ready = self.signals_groups && !self.has_ended() && same();
        ready && standing::working_directory().is_ok()
    }

    /// Begins a start. The descriptors of `image` are the keeper's afterwards, too.
    pub(crate) fn begin(
        self: &Arc<Self>,
        setup: &Setup<'_>,
        image: &Image,
        deadline: Deadline,
    ) -> Result<Start, NotStarted> {
        let (frame, bytes) = frame::write(setup, image).map_err(|error| {
            if error.raw_os_error() == Some(libc::E2BIG) {
                NotStarted::Step(Step::Execute, error)
            } else {
                NotStarted::Call("writing the request to the keeper", error)
            }
        })?;
        let directory = standing::working_directory()
            .map_err(|error| NotStarted::Call("opening the working directory", error))?;
        let mut mask = 0;
        let mut descriptors = vec![frame.as_fd(), directory.as_fd()];
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let own = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        for (number, (stream, own)) in image.streams.iter().zip(own).enumerate() {
            let stream = stream.as_ref().map_or(own, AsFd::as_fd);
            if is_open(stream) {
                mask |= 1 << number;
                descriptors.push(stream);
            }
        }
        if let Some(cgroup) = &image.cgroup {
            mask |= HAS_CGROUP;
            descriptors.push(cgroup.as_fd());
        }
        descriptors.extend(image.inherited.iter().map(AsFd::as_fd));
        let line = self.ask([START, bytes, mask], &descriptors, true, deadline)?;
        Ok(Start::Kept(Arc::new(KeptStart::new(line))))
    }

    /// Makes the keeper end this process's group when the host is gone, or the line is dropped. `None`
    /// where the keeper has ended.
    pub(crate) fn know(
        self: &Arc<Self>,
        pid: u32,
        pidfd: &PidFd,
        deadline: Deadline,
    ) -> Result<Option<Line>, NotStarted> {
        match self.ask([KNOW, pid, 0], &[pidfd.as_fd()], false, deadline) {
            Ok(line) => Ok(Some(line)),
            Err(NotStarted::KeeperEnded) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a request with a new line.
    fn ask(
        self: &Arc<Self>,
        request: [u32; 3],
        descriptors: &[BorrowedFd<'_>],
        is_parent: bool,
        deadline: Deadline,
    ) -> Result<Line, NotStarted> {
        let call = |call| move |error| NotStarted::Call(call, error);
        let (ours, theirs) = rights::pair().map_err(call("socketpair"))?;
        let mut all = vec![theirs.as_fd()];
        all.extend(descriptors);
        loop {
            match rights::send(self.socket.as_fd(), bytemuck::bytes_of(&request), &all) {
                Ok(()) => return Ok(Line::new(ours, Arc::clone(self), is_parent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if monotonic_ns() >= deadline.as_ns() {
                        return Err(NotStarted::KeeperSilent);
                    }
                    line::wait_writable(self.socket.as_fd(), self.process.as_fd(), deadline);
                }
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Err(NotStarted::KeeperEnded);
                }
                Err(error) => return Err(NotStarted::Call("sendmsg", error)),
            }
        }
    }

    /// Ends the keeper, and with it the groups that it still knows. Waits a second at most.
    pub(crate) fn close(&self) {
        post::end(self.socket.as_fd());
        let _ = self.process.wait(Deadline::at_ns(monotonic_ns().saturating_add(END_NS)));
        let _ = self.process.reap();
    }
}

/// Whether the number of a standard stream is that of an open file.
fn is_open(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: the call takes numbers.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) != -1 }
}
