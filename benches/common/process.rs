//! The child process of a measurement: the bench itself, started again.
//!
//! [`case`](super::case) starts one for each measurement between processes.
//! What always holds: the child dies with its parent, is reaped before the next measurement, and
//! inherits exactly the descriptors that it was given; a measurement that hangs ends the bench.

use std::env;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, parent_id};
use std::process::{Child, Command, Stdio};

use super::cli::ChildArgs;
use super::link::Control;

/// A running child; killed and reaped when dropped.
#[derive(Debug)]
pub struct Peer {
    child: Child,
}

impl Peer {
    /// Starts this program again as the child; it inherits `fds` under their own numbers.
    pub fn spawn(mut args: ChildArgs, fds: &[BorrowedFd<'_>]) -> Self {
        let inherited: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        args.fds.clone_from(&inherited);
        args.parent = std::process::id();
        let mut command = Command::new(env::current_exe().expect("the path of this program"));
        command.args(args.to_args()).stdin(Stdio::null());
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

/// In the child: stops if the parent is gone already; takes the inherited descriptors.
pub fn inherit(args: &ChildArgs) -> Vec<OwnedFd> {
    if parent_id() != args.parent {
        std::process::exit(1);
    }
    args.fds
        .iter()
        .map(|fd| {
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
        unsafe { libc::_exit(124) };
    }
    let handler = give_up as extern "C" fn(libc::c_int);
    // SAFETY: the handler only makes async-signal-safe calls.
    unsafe { libc::signal(libc::SIGALRM, handler as *const () as libc::sighandler_t) };
    // SAFETY: takes no pointers.
    unsafe { libc::alarm(seconds) };
}
