//! A start of a program and its process, whoever makes the process: this one, or its keeper.
//!
//! `host` calls it. Invariants: a process that was started is reaped by its parent and by nobody else; a
//! signal reaches the process that was started, or its group, and no other.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use super::child::{Hook, Image, Setup, Step};
use super::clock::monotonic_ns;
use super::keeper::{KeptStart, Line};
use super::pidfd::PidFd;
use super::process::leads_group;
use super::spawn::OwnStart;
use crate::error::ExitReason;
use crate::memory::Deadline;

/// How long a keeper may take to say how a process has ended.
const STATUS_NS: u64 = 1_000_000_000;

/// A program that has been executed.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: u32,
    pub(crate) pidfd: PidFd,
    /// To the keeper that is its parent, or only knows its group. Closing it ends what is left of the group.
    pub(crate) line: Option<Line>,
}

/// Why a program was not executed. Nothing of the attempt is left, except as `TimedOut` says.
#[derive(Debug)]
pub(crate) enum NotStarted {
    /// There is no child: this call failed.
    Call(&'static str, io::Error),
    /// The child failed at this step.
    Step(Step, io::Error),
    /// The child ended before it executed the program.
    Ended(ExitReason),
    /// The hook is still in use by a child that could not be ended.
    HookInUse,
    /// The child had not executed the program at the deadline. It was killed; where it cannot end, a
    /// thread, or the keeper, waits for it.
    TimedOut,
    /// The keeper has ended. A child that it had made was killed.
    KeeperEnded,
    /// The keeper had not made a child at the deadline. Should it make one later, it ends it.
    KeeperSilent,
}

/// A start that is going on.
#[derive(Debug, Clone)]
pub(crate) enum Start {
    Own(OwnStart),
    Kept(Arc<KeptStart>),
}

impl Start {
    /// Begins a start in this process.
    ///
    /// # Errors
    /// No thread could be started.
    pub(crate) fn begin(
        setup: Arc<Setup<'static>>,
        image: Image,
        hook: Option<Arc<Mutex<Hook>>>,
    ) -> io::Result<Self> {
        OwnStart::begin(setup, image, hook).map(Self::Own)
    }

    /// Waits for the program to be executed. Call it once.
    ///
    /// # Errors
    /// [`NotStarted`].
    pub(crate) fn wait(&self, deadline: Deadline) -> Result<Started, NotStarted> {
        match self {
            Self::Own(start) => start.wait(deadline),
            Self::Kept(start) => start.wait(deadline),
        }
    }

    /// Kills the child, now or as soon as there is one, unless it has executed its program. Any thread
    /// may call it.
    pub(crate) fn kill(&self) {
        match self {
            Self::Own(start) => start.kill(),
            Self::Kept(start) => start.kill(),
        }
    }
}

impl Started {
    /// Signals the group, and the process itself where it has left the group.
    ///
    /// # Errors
    /// `ESRCH` where the process has ended, reaped or not. Its group would still take a signal: a process
    /// that has not been reaped is a member.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        if self.pidfd.wait(Deadline::at_ns(0))? {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        let group = self.signal_group(signal);
        if leads_group(self.pid) { group } else { self.pidfd.signal(signal) }
    }

    /// Signals the group of a process that has not been reaped.
    pub(crate) fn signal_group(&self, signal: i32) -> io::Result<()> {
        // A keeper starts nothing where the kernel cannot signal a group by a descriptor, so there the
        // number is that of our own child.
        self.pidfd.signal_group_of_child(self.pid, signal)
    }

    /// Takes the exit status of a process that has ended, and whether it is reliable; `None` while the
    /// kernel keeps it for a tracer, or where the keeper is gone and the kernel does not know it.
    pub(crate) fn reap(&self) -> io::Result<Option<(ExitReason, bool)>> {
        match &self.line {
            Some(line) if line.is_parent() => {
                let deadline = Deadline::at_ns(monotonic_ns().saturating_add(STATUS_NS));
                match line.status(deadline) {
                    Ok(status) => Ok(status.map(|reason| (reason, true))),
                    // The keeper is stopped. It reaps the process when it goes on.
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                        Ok(Some((ExitReason::Unknown, true)))
                    }
                    // The keeper is gone. The kernel knows once another process has reaped it (Linux 6.15).
                    Err(_) => {
                        let known = self.pidfd.reap()?.filter(|it| *it != ExitReason::Unknown);
                        Ok(known.map(|reason| (reason, true)))
                    }
                }
            }
            _ => self.pidfd.reap_child(),
        }
    }

    /// Kills and reaps it with its group, where it ends in time.
    pub(crate) fn discard(self, deadline: Deadline) {
        let _ = self.signal_group(libc::SIGKILL);
        let _ = self.pidfd.signal(libc::SIGKILL);
        let _ = self.pidfd.wait(deadline);
        let _ = self.reap();
    }
}

impl AsFd for Started {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_that_has_ended_takes_no_signal_before_it_is_reaped_either() {
        let mut child = Command::new("true").process_group(0).spawn().unwrap();
        let pidfd = PidFd::open(child.id()).unwrap();
        let started = Started { pid: child.id(), pidfd, line: None };
        assert!(started.pidfd.wait(Deadline::NEVER).unwrap());
        started.signal_group(libc::SIGKILL).expect("the kernel takes it");
        let refused = started.signal(libc::SIGKILL).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ESRCH));
        assert!(child.wait().unwrap().success());
    }
}
