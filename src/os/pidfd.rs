//! Processes by descriptor: whether one has died, why, and signals that cannot hit another.
//!
//! The supervisor and the host watch their peers and plugins through it.
//! What always holds: a [`PidFd`] means the same process for as long as it is open, even after the
//! number has been given to another one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{null, null_mut};

use super::clock::{monotonic_ns, timespec};
use crate::error::ExitReason;
use crate::memory::Deadline;

/// A process.
#[derive(Debug)]
pub(crate) struct PidFd {
    fd: OwnedFd,
}

impl PidFd {
    /// Opens the process that has this number now.
    ///
    /// Whoever learned the number from elsewhere compares the [`inode`](Self::inode): the number may
    /// have been given away in between.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let pid = libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the call takes two numbers.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = super::check(result)? as libc::c_int;
        // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns. The kernel
        // closes it on exec.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Its inode, which no other process ever gets; `None` where the kernel keeps none for each process
    /// (before 6.9), or numbers that could come back (on 32 bits).
    pub(crate) fn inode(&self) -> Option<u64> {
        /// Magic number of the file system of pidfds.
        const PID_FS_MAGIC: i64 = 0x5049_4446;
        // SAFETY: a structure of zeros is one that says nothing.
        let mut system: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: an open descriptor, and a structure that outlives the call.
        super::check(unsafe { libc::fstatfs(self.fd.as_raw_fd(), &mut system) }.into()).ok()?;
        if system.f_type as i64 != PID_FS_MAGIC || size_of::<libc::ino_t>() < 8 {
            return None;
        }
        // SAFETY: as above.
        let mut found: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        super::check(unsafe { libc::fstat(self.fd.as_raw_fd(), &mut found) }.into()).ok()?;
        Some(found.st_ino)
    }

    /// Waits until the process has ended or the deadline has passed; `true` where it has ended.
    pub(crate) fn wait(&self, deadline: Deadline) -> io::Result<bool> {
        loop {
            let left = timespec(deadline.as_ns().saturating_sub(monotonic_ns()));
            let timeout = if deadline == Deadline::NEVER { null() } else { &raw const left };
            let mut poll =
                libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd and, where not null, one timespec, both alive until the call is
            // over; a null mask leaves the signal mask alone.
            let result = unsafe { libc::ppoll(&mut poll, 1, timeout, null()) };
            match super::check(result.into()) {
                Ok(ready) => return Ok(ready > 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, signal_number: i32) -> io::Result<()> {
        signal(self.fd.as_raw_fd(), signal_number, 0)
    }

    /// Sends a signal to the process group that has the process's number, whether the process is alive
    /// or not; signal 0 only asks whether the group has members.
    ///
    /// # Errors
    /// `InvalidInput` before Linux 6.9.
    pub(crate) fn signal_group(&self, signal_number: i32) -> io::Result<()> {
        const SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;
        signal(self.fd.as_raw_fd(), signal_number, SIGNAL_PROCESS_GROUP)
    }

    /// The same for a child of ours that has this number and has not been reaped, on every kernel.
    pub(crate) fn signal_group_of_child(&self, pid: u32, signal_number: i32) -> io::Result<()> {
        match self.signal_group(signal_number) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                // SAFETY: the call takes numbers. Until it is reaped, the number is the child's.
                let result = unsafe { libc::kill(-(pid as libc::pid_t), signal_number) };
                super::check(result.into()).map(drop)
            }
            result => result,
        }
    }

    /// Takes the exit status of a child that has ended; `None` while it runs.
    pub(crate) fn reap(&self) -> io::Result<Option<ExitReason>> {
        Ok(self.reap_child()?.map(|(reason, _)| reason))
    }

    /// The same, and whether this call has reaped it.
    ///
    /// Where the process is no child of ours, or somebody else has reaped it, the kernel still knows
    /// the reason from Linux 6.15 on; [`ExitReason::Unknown`] otherwise.
    pub(crate) fn reap_child(&self) -> io::Result<Option<(ExitReason, bool)>> {
        // SAFETY: a siginfo of zeros is one that says nothing.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id = self.fd.as_raw_fd() as libc::id_t;
        let options = libc::WEXITED | libc::WNOHANG;
        loop {
            // SAFETY: `info` outlives the call.
            let result = unsafe { libc::waitid(libc::P_PIDFD, id, &mut info, options) };
            match super::check(result.into()) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {
                    let ended = self.wait(Deadline::at_ns(0))?;
                    return Ok(
                        ended.then(|| (self.exit_info().unwrap_or(ExitReason::Unknown), false))
                    );
                }
                Err(error) => return Err(error),
            }
        }
        // SAFETY: zeroed, or filled by waitid, which fills this member.
        let pid = unsafe { info.si_pid() };
        if pid == 0 {
            return Ok(None);
        }
        // SAFETY: waitid has filled in a child's status.
        let status = unsafe { info.si_status() };
        let reason = match info.si_code {
            libc::CLD_EXITED => ExitReason::Code(status),
            libc::CLD_KILLED | libc::CLD_DUMPED => ExitReason::Signal(status),
            _ => ExitReason::Unknown,
        };
        Ok(Some((reason, true)))
    }

    /// What the kernel remembers of a process that has been reaped.
    fn exit_info(&self) -> Option<ExitReason> {
        /// PIDFD_GET_INFO for the first version of the structure, 64 bytes: a mask of what is asked
        /// for and then of what was filled in, and as its last word the status.
        const GET_INFO: libc::c_ulong = 0xc040_ff0b;
        const INFO_EXIT: u64 = 1 << 3;
        let mut info = [0_u64; 8];
        info[0] = INFO_EXIT;
        // SAFETY: the kernel reads and writes 64 bytes, as the request's number says.
        let result =
            unsafe { libc::ioctl(self.fd.as_raw_fd(), GET_INFO as libc::Ioctl, info.as_mut_ptr()) };
        if result != 0 || info[0] & INFO_EXIT == 0 {
            return None;
        }
        // Its last four bytes.
        let [.., a, b, c, d] = info[7].to_ne_bytes();
        let status = i32::from_ne_bytes([a, b, c, d]);
        if libc::WIFSIGNALED(status) {
            Some(ExitReason::Signal(libc::WTERMSIG(status)))
        } else {
            Some(ExitReason::Code(libc::WEXITSTATUS(status)))
        }
    }
}

/// `pidfd_send_signal` without further information.
pub(super) fn signal(pidfd: RawFd, signal: i32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: the call takes numbers, and no information to go with the signal.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd,
            signal,
            null_mut::<libc::siginfo_t>(),
            flags,
        )
    };
    super::check(result).map(drop)
}

/// Whether `waitid` takes a pidfd (Linux 5.4).
pub(crate) fn can_be_waited_for(pidfd: BorrowedFd<'_>) -> bool {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: a siginfo of zeros is one that says nothing.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let id = pidfd.as_raw_fd() as libc::id_t;
    // SAFETY: `info` outlives the call.
    let result = unsafe { libc::waitid(libc::P_PIDFD, id, &mut info, options) };
    !matches!(super::check(result.into()), Err(error) if error.raw_os_error() == Some(libc::EINVAL))
}

impl From<OwnedFd> for PidFd {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl From<PidFd> for OwnedFd {
    fn from(process: PidFd) -> Self {
        process.fd
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// Kills and reaps its child, also when a test fails.
    struct Reaped(Child);

    impl Drop for Reaped {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn spawn(script: &str) -> (Reaped, PidFd) {
        let child = Reaped(Command::new("sh").args(["-c", script]).spawn().unwrap());
        let pidfd = PidFd::open(child.0.id()).unwrap();
        (child, pidfd)
    }

    #[test]
    fn a_killed_child_is_seen_and_its_signal_told() {
        let (_child, pidfd) = spawn("exec sleep 600");
        assert!(!pidfd.wait(Deadline::at_ns(0)).unwrap());
        assert_eq!(pidfd.reap().unwrap(), None);
        pidfd.signal(libc::SIGKILL).unwrap();
        assert!(pidfd.wait(Deadline::NEVER).unwrap());
        assert_eq!(pidfd.reap().unwrap(), Some(ExitReason::Signal(libc::SIGKILL)));
        let again = pidfd.reap().unwrap();
        // From Linux 6.15 on the kernel remembers.
        assert!(
            matches!(again, Some(ExitReason::Unknown | ExitReason::Signal(libc::SIGKILL))),
            "reaped already"
        );
        assert_eq!(pidfd.signal(0).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn an_exit_code_is_told() {
        let (_child, pidfd) = spawn("exit 7");
        assert!(pidfd.wait(Deadline::NEVER).unwrap());
        assert_eq!(pidfd.reap().unwrap(), Some(ExitReason::Code(7)));
    }

    #[test]
    fn a_stranger_runs_until_it_does_not() {
        let parent = PidFd::open(std::os::unix::process::parent_id()).unwrap();
        assert_eq!(parent.reap().unwrap(), None);
        assert!(PidFd::open(0).is_err());
        assert!(PidFd::open(u32::MAX).is_err());
    }
}
