//! Starting a program without a copy of the host, within a deadline.
//!
//! The host's launcher calls it. Invariants: no page table of the host is copied; no handler of the
//! host runs in the child; what the child reads stays allocated until the child has executed its
//! program or has ended; a child that has not executed its program at the deadline is killed.
//!
//! A thread of its own makes the child with CLONE_VM and CLONE_VFORK: the child runs in the host's
//! memory on a stack of its own, and the kernel suspends the thread, and no other, until the child has
//! executed its program or has ended. So the child may use the thread's thread-local storage, `errno`
//! for example. The thread that asked for the start waits on a condition variable. Somebody may stop
//! the child meanwhile, or a file system may not answer: at the deadline the child gets SIGKILL
//! through its pidfd, which the kernel stores before the child runs, and the thread goes on. Should
//! even that not end the child, the thread stays until the child ends, and kills and reaps it then.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{null, null_mut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::child::{Child, Descriptors, Hook, Image, Setup, Step, Strings, enter};
use super::clock::monotonic_ns;
use super::dumpable::Undumpable;
use super::pidfd::PidFd;
use super::signals;
use super::start::{NotStarted, Started};
use crate::error::ExitReason;
use crate::memory::Deadline;
use crate::sync::{AtomicU32, Ordering};

/// How long a child that was killed may take to end before it is left to its thread.
const KILLED_NS: u64 = 1_000_000_000;
/// How often a child that was to be killed before it was made is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Stack of a child, without its guard page.
const STACK_BYTES: usize = 256 * 1024;
const GUARD_BYTES: usize = 64 * 1024;
/// No pidfd yet.
const NO_FD: u32 = u32::MAX;

/// A start that is going on.
#[derive(Debug, Clone)]
pub(crate) struct OwnStart(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The child's pidfd. The kernel stores it before the child runs.
    pidfd: AtomicU32,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
enum State {
    /// The thread is making the child, or is suspended. The pidfd, where there is one, is open. `kill`: the
    /// child is to be killed as soon as there is one.
    GoingOn {
        kill: bool,
    },
    Over(Result<Started, NotStarted>),
    /// Nobody waits any more.
    Left,
}

impl OwnStart {
    /// Begins a start, on a thread of its own.
    ///
    /// # Errors
    /// No thread could be started.
    pub(crate) fn begin(
        setup: Arc<Setup<'static>>,
        image: Image,
        hook: Option<Arc<Mutex<Hook>>>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            pidfd: AtomicU32::new(NO_FD),
            state: Mutex::new(State::GoingOn { kill: false }),
            changed: Condvar::new(),
        });
        let start = Self(Arc::clone(&shared));
        thread::Builder::new().name("ringway-start".into()).spawn(move || {
            let outcome = shared.run(&setup, &image, hook.as_deref());
            // The child has its own copies of these descriptors.
            drop(image);
            shared.finish(outcome);
        })?;
        Ok(start)
    }

    /// See [`Start::wait`](super::start::Start::wait).
    pub(crate) fn wait(&self, deadline: Deadline) -> Result<Started, NotStarted> {
        let is_over = |state: &State| !matches!(state, State::GoingOn { kill: false });
        if let Some(outcome) = self.0.outcome_by(deadline, is_over) {
            return outcome;
        }
        let end = Deadline::at_ns(monotonic_ns().saturating_add(KILLED_NS));
        while monotonic_ns() < end.as_ns() {
            self.kill();
            let slice = monotonic_ns().saturating_add(LOOK_EVERY.as_nanos() as u64);
            let is_over = |state: &State| !matches!(state, State::GoingOn { .. });
            if let Some(outcome) = self.0.outcome_by(Deadline::at_ns(slice), is_over) {
                if let Ok(started) = outcome {
                    started.discard(end);
                }
                return Err(NotStarted::TimedOut);
            }
        }
        let mut state = self.0.state();
        if let State::Over(Ok(started)) = std::mem::replace(&mut *state, State::Left) {
            drop(state);
            started.discard(end);
        }
        Err(NotStarted::TimedOut)
    }

    /// See [`Start::kill`](super::start::Start::kill).
    pub(crate) fn kill(&self) {
        let mut state = self.0.state();
        // Relaxed: the number is all that is used. The lock keeps it open: see `run`.
        let pidfd = self.0.pidfd.load(Ordering::Relaxed);
        if let State::GoingOn { kill } = &mut *state {
            *kill = true;
            if pidfd != NO_FD {
                let _ = super::pidfd::signal(pidfd as RawFd, libc::SIGKILL, 0);
            }
            // `wait` looks for a child that is made from now on.
            self.0.changed.notify_all();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the outcome, waiting until then, or until `is_over` holds.
    fn outcome_by(
        &self,
        deadline: Deadline,
        is_over: impl Fn(&State) -> bool,
    ) -> Option<Result<Started, NotStarted>> {
        let left = Duration::from_nanos(deadline.as_ns().saturating_sub(monotonic_ns()));
        let waited = self.changed.wait_timeout_while(self.state(), left, |state| !is_over(state));
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if matches!(*state, State::GoingOn { .. }) {
            return None;
        }
        match std::mem::replace(&mut *state, State::Left) {
            State::Over(outcome) => Some(outcome),
            State::GoingOn { .. } | State::Left => None,
        }
    }

    fn finish(&self, outcome: Result<Started, NotStarted>) {
        let mut state = self.state();
        if matches!(*state, State::GoingOn { .. }) {
            *state = State::Over(outcome);
            self.changed.notify_all();
            return;
        }
        drop(state);
        if let Ok(started) = outcome {
            started.discard(Deadline::NEVER);
        }
    }

    /// Makes the child and returns when it has executed its program or has ended.
    fn run(
        &self,
        setup: &Setup<'_>,
        image: &Image,
        hook: Option<&Mutex<Hook>>,
    ) -> Result<Started, NotStarted> {
        let mut hook = match hook.map(|hook| hook.try_lock()).transpose() {
            Ok(hook) => hook,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => return Err(NotStarted::HookInUse),
        };
        let stack = Stack::new().map_err(|error| NotStarted::Call("mmap", error))?;
        let pointers = |strings: &[CString]| strings.iter().map(|string| string.as_ptr()).collect();
        let with_null = |strings: &[CString]| {
            strings.iter().map(|string| string.as_ptr()).chain([null()]).collect()
        };
        let programs: Vec<_> = pointers(&image.programs);
        let (arguments, environment): (Vec<_>, Vec<_>) =
            (with_null(&image.arguments), with_null(&image.environment));
        let strings =
            Strings { programs: &programs, arguments: &arguments, environment: &environment };
        let inherited: Vec<_> = image.inherited.iter().map(AsRawFd::as_raw_fd).collect();
        let descriptors = Descriptors {
            streams: image.streams.each_ref().map(|fd| fd.as_ref().map(AsRawFd::as_raw_fd)),
            inherited: &inherited,
            cgroup: image.cgroup.as_ref().map(AsRawFd::as_raw_fd),
            directory: None,
        };
        let mut child = Child::new(setup, strings, descriptors, hook.as_deref_mut());
        let undumpable = setup.isolation.user.map(|_| Undumpable::begin());
        let mask = signals::set_mask(signals::ALL)
            .map_err(|error| NotStarted::Call("rt_sigprocmask", error))?;
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
        // SAFETY: `enter` gets the `Child` that it expects and runs on a stack that nobody else uses.
        // This thread is suspended until the child has executed its program or has ended, so `child`,
        // `stack` and this thread's storage outlive the child's use of them. The kernel stores a
        // number to the word, which is aligned and lives as long as `self`.
        let pid = unsafe {
            libc::clone(
                enter,
                stack.top(),
                flags,
                (&raw mut child).cast(),
                self.pidfd.as_ptr().cast::<libc::pid_t>(),
            )
        };
        let error = io::Error::last_os_error();
        // In this order: see `dumpable`.
        drop(undumpable);
        let _ = signals::set_mask(mask);
        if pid == -1 {
            return Err(NotStarted::Call("clone", error));
        }
        // Relaxed: the kernel stored it before `clone` returned in this thread.
        let fd = self.pidfd.load(Ordering::Relaxed);
        // SAFETY: the kernel (5.2 and later; a host needs 5.4) has opened it for this call, and nobody else
        // owns it. `kill` uses its
        // number only under the lock and while the state is `GoingOn`; it is closed after that.
        let pidfd = PidFd::from(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
        let (step, error) = (child.report.step(), child.report.error());
        if step == Step::Execute && error.is_none() {
            return Ok(Started { pid: pid.unsigned_abs(), pidfd, line: None });
        }
        // It has ended, or is about to: the kernel lets this thread go on a little earlier.
        let _ = pidfd.wait(Deadline::at_ns(monotonic_ns().saturating_add(KILLED_NS)));
        let reason = pidfd.reap().ok().flatten().unwrap_or(ExitReason::Unknown);
        self.close(pidfd);
        Err(error.map_or(NotStarted::Ended(reason), |error| NotStarted::Step(step, error)))
    }

    /// Closes the pidfd of a child that is no more, so that `kill` does not use its number.
    fn close(&self, pidfd: PidFd) {
        let _state = self.state();
        // Relaxed: the lock orders it with `kill`.
        self.pidfd.store(NO_FD, Ordering::Relaxed);
        drop(pidfd);
    }
}

/// Memory for a child's stack, with a page below it that cannot be touched.
#[derive(Debug)]
struct Stack {
    bottom: *mut libc::c_void,
}

impl Stack {
    const BYTES: usize = GUARD_BYTES + STACK_BYTES;

    fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let bottom = unsafe { libc::mmap(null_mut(), Self::BYTES, protection, flags, -1, 0) };
        if bottom == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { bottom };
        // SAFETY: the start of the mapping just made, which nobody uses yet.
        let result = unsafe { libc::mprotect(bottom, GUARD_BYTES, libc::PROT_NONE) };
        super::check(result.into())?;
        Ok(stack)
    }

    /// The end of the stack, where a child begins. Aligned to a page.
    fn top(&self) -> *mut libc::c_void {
        self.bottom.wrapping_byte_add(Self::BYTES)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, with this length, and no child runs on it any more.
        unsafe { libc::munmap(self.bottom, Self::BYTES) };
    }
}

/// The same descriptor under a number that no standard stream has.
pub(crate) fn above_standard(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > libc::STDERR_FILENO {
        return Ok(fd);
    }
    // SAFETY: the call takes numbers.
    let other = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) };
    super::check(other.into())?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(other) })
}
