//! The child process of a measurement: the bench itself, started again.
//!
//! [`case`](super::case) starts one for each measurement between processes.
//! What always holds: the child dies with its parent, is reaped before the next measurement, and
//! inherits exactly the descriptors that it was given; a measurement that hangs ends the bench.

use std::env;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, parent_id};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::cli::ChildArgs;
use super::link::Control;

/// Exit status of a process that its watchdog ended.
pub const GAVE_UP: i32 = 124;

/// A running child; killed and reaped when dropped.
#[derive(Debug)]
pub struct Peer {
    child: Child,
}

impl Peer {
    /// Starts this program again as the child; it inherits `fds` under their own numbers.
    pub fn spawn(args: ChildArgs, fds: &[BorrowedFd<'_>]) -> Self {
        Self::spawn_with(args, fds, |_| ())
    }

    /// The same after `adjust` has changed what it likes: where output goes, the environment.
    pub fn spawn_with(
        mut args: ChildArgs,
        fds: &[BorrowedFd<'_>],
        adjust: impl FnOnce(&mut Command),
    ) -> Self {
        let inherited: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        args.fds.clone_from(&inherited);
        args.parent = std::process::id();
        let mut command = Command::new(env::current_exe().expect("the path of this program"));
        command.args(args.to_args()).stdin(Stdio::null());
        adjust(&mut command);
        let prepare = move || {
            // SAFETY: asks for a signal at the parent's death; takes no pointers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            for fd in &inherited {
                // SAFETY: clears close-on-exec in the child's own table; takes no pointers.
                if unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) } != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes two kinds of system call and reads a
        // vector that the parent filled; it does not allocate or lock.
        unsafe { command.pre_exec(prepare) };
        Self { child: command.spawn().expect("starting the child") }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the child's end, asleep, at most for this long.
    pub fn wait_at_most(&mut self, limit: Duration) -> Option<ExitStatus> {
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, self.child.id(), 0) };
        assert!(fd >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
        // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        let mut ended = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live entry.
        unsafe { libc::poll(&mut ended, 1, limit.as_millis() as libc::c_int) };
        self.child.try_wait().expect("waiting for the child")
    }

    /// Waits until the child has attached.
    pub fn wait_until_ready(&mut self, control: &Control) {
        while !control.is_ready() {
            if let Some(status) = self.child.try_wait().expect("waiting for the child") {
                panic!("the child ended before it was ready: {status}");
            }
            std::thread::yield_now();
        }
    }

    /// Waits for the child's end, which must be a success.
    pub fn finish(mut self) {
        let status = self.child.wait().expect("waiting for the child");
        assert!(status.success(), "the child failed: {status}");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both fail where the child has already been reaped, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until every child is gone, and every child of a child that has died.
pub fn reap_orphans() {
    // SAFETY: takes no pointers that it follows: no status is asked for.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {}
}

/// Makes this process the parent of its children's children, when these lose theirs.
pub fn adopt_orphans() {
    // SAFETY: takes no pointers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
}

/// In the child: stops if the parent is gone already; takes the inherited descriptors.
pub fn inherit(args: &ChildArgs) -> Vec<OwnedFd> {
    if parent_id() != args.parent {
        std::process::exit(1);
    }
    args.fds
        .iter()
        .map(|fd| {
            // SAFETY: closes it at an exec, so that no child of this one has it; no pointers.
            unsafe { libc::fcntl(*fd, libc::F_SETFD, libc::FD_CLOEXEC) };
            // SAFETY: the parent left exactly these descriptors open, and they are taken once.
            unsafe { OwnedFd::from_raw_fd(*fd) }
        })
        .collect()
}

/// Ends the bench, and with it the child, unless it is armed again or disarmed within this time.
pub fn arm_watchdog(seconds: u32) {
    extern "C" fn give_up(_signal: libc::c_int) {
        const MESSAGE: &[u8] = b"a measurement did not end: giving up\n";
        // SAFETY: a write of a constant; async-signal-safe.
        unsafe { libc::write(2, MESSAGE.as_ptr().cast(), MESSAGE.len()) };
        // SAFETY: async-signal-safe.
        unsafe { libc::_exit(GAVE_UP) };
    }
    let handler = give_up as extern "C" fn(libc::c_int);
    // SAFETY: the handler only makes async-signal-safe calls.
    unsafe { libc::signal(libc::SIGALRM, handler as *const () as libc::sighandler_t) };
    // SAFETY: takes no pointers.
    unsafe { libc::alarm(seconds) };
}
