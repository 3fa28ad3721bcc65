//! A child between its making and the execution of its program.
//!
//! `os::spawn` runs it on a stack of its own, in the memory of the host, while the thread that made it
//! is suspended. Invariants: nothing here allocates, takes a lock or panics, apart from the caller's
//! hook; all strings and arrays were made before; the step that is being taken is reported before it
//! is taken.
//!
//! # Order
//!
//! 1. Dispositions to their defaults, while all signals are blocked: no handler of the host ever runs
//!    in the child.
//! 2. Process group or session, control group, scheduling: they may need the host's privileges.
//! 3. Streams and descriptors.
//! 4. `isolation`: limits, identity, privileges.
//! 5. Keyring and working directory, with the rights of the new identity.
//! 6. The signal mask is emptied. A signal that was sent meanwhile takes effect here.
//! 7. The caller's hook, then the program.

use std::cell::Cell;
use std::ffi::{CString, c_char, c_int};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null;

use super::isolation::Isolation;
use super::scheduling::{self, Scheduling};
use super::signals;

/// Runs last in the child. See `PluginSpec::pre_exec` for what it may do.
pub(crate) type Hook = Box<dyn FnMut() -> io::Result<()> + Send + Sync>;

/// What a child is to become. The same for every start of a plugin.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    pub(crate) directory: Option<CString>,
    /// A session of its own, with a process group of its own; otherwise a process group only.
    pub(crate) session: bool,
    pub(crate) scheduling: Scheduling,
    pub(crate) isolation: Isolation,
    /// A session keyring of its own.
    pub(crate) keyring: bool,
}

/// What is made for one start.
#[derive(Debug)]
pub(crate) struct Image {
    /// Paths to try in this order.
    pub(crate) programs: Vec<CString>,
    pub(crate) arguments: Vec<CString>,
    pub(crate) environment: Vec<CString>,
    /// Standard input, output and error; `None` keeps the host's. None of them has a number below 3.
    pub(crate) streams: [Option<OwnedFd>; 3],
    /// What else the program inherits, under the same numbers, all of them above 2.
    pub(crate) inherited: Vec<OwnedFd>,
    /// An open `cgroup.procs`.
    pub(crate) cgroup: Option<OwnedFd>,
}

/// What a child is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Signals,
    ProcessGroup,
    Session,
    Cgroup,
    Policy,
    Nice,
    Affinity,
    Stream(u32),
    Descriptors,
    /// The limit with this index.
    Limit(u32),
    Groups,
    Group,
    User,
    Capabilities,
    NoNewPrivs,
    Keyring,
    Directory,
    Hook,
    Execute,
}

/// How far a child has come. The child writes it while its maker is suspended; the maker reads it
/// afterwards.
#[derive(Debug)]
pub(crate) struct Report {
    step: Cell<Step>,
    errno: Cell<i32>,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { step: Cell::new(Step::Signals), errno: Cell::new(0) }
    }

    pub(super) fn at(&self, step: Step) {
        self.step.set(step);
    }

    pub(super) fn step(&self) -> Step {
        self.step.get()
    }

    /// The error of the last step, where it has failed.
    pub(super) fn error(&self) -> Option<io::Error> {
        let errno = self.errno.get();
        (errno != 0).then(|| io::Error::from_raw_os_error(errno))
    }
}

/// Everything that a child uses. It outlives the child's use of the host's memory.
pub(super) struct Child<'a> {
    setup: &'a Setup,
    image: &'a Image,
    hook: Option<&'a mut Hook>,
    /// Pointers to `image`'s strings, and a null.
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    pub(super) report: Report,
}

impl fmt::Debug for Child<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("image", &self.image).finish_non_exhaustive()
    }
}

impl<'a> Child<'a> {
    pub(super) fn new(setup: &'a Setup, image: &'a Image, hook: Option<&'a mut Hook>) -> Self {
        let pointers = |strings: &[CString]| {
            strings.iter().map(|string| string.as_ptr()).chain([null()]).collect()
        };
        let (arguments, environment) = (pointers(&image.arguments), pointers(&image.environment));
        Self { setup, image, hook, arguments, environment, report: Report::new() }
    }

    /// Becomes the program. Returns only where that fails; the error is in the report then.
    pub(super) fn run(&mut self) {
        let error = match self.prepare() {
            Ok(()) => self.execute(),
            Err(error) => error,
        };
        self.report.errno.set(error.raw_os_error().unwrap_or(libc::EINVAL));
    }

    fn prepare(&mut self) -> io::Result<()> {
        let (setup, image) = (self.setup, self.image);
        signals::reset_dispositions();
        self.leave_group()?;
        if let Some(procs) = &image.cgroup {
            self.report.at(Step::Cgroup);
            // SAFETY: an open descriptor, and one byte that outlives the call. 0 means the writer.
            let written = unsafe { libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) };
            super::check(written as libc::c_long)?;
        }
        self.schedule()?;
        for (number, stream) in image.streams.iter().enumerate() {
            self.report.at(Step::Stream(number as u32));
            if let Some(stream) = stream {
                // SAFETY: the call takes numbers. The new descriptor stays open on exec.
                let result = unsafe { libc::dup2(stream.as_raw_fd(), number as RawFd) };
                super::check(result.into())?;
            }
        }
        self.report.at(Step::Descriptors);
        keep_only(&image.inherited)?;
        setup.isolation.apply(&self.report)?;
        if setup.keyring {
            self.report.at(Step::Keyring);
            join_session_keyring()?;
        }
        if let Some(directory) = &setup.directory {
            self.report.at(Step::Directory);
            // SAFETY: a C string that outlives the call.
            super::check(unsafe { libc::chdir(directory.as_ptr()) }.into())?;
        }
        self.report.at(Step::Signals);
        signals::set_mask(signals::NONE)?;
        if let Some(hook) = &mut self.hook {
            self.report.at(Step::Hook);
            // The host's frames are not this child's to unwind.
            let result = catch_unwind(AssertUnwindSafe(hook));
            result.unwrap_or_else(|_| Err(io::Error::from_raw_os_error(libc::EINVAL)))?;
        }
        Ok(())
    }

    fn leave_group(&self) -> io::Result<()> {
        let result = if self.setup.session {
            self.report.at(Step::Session);
            // SAFETY: the call takes nothing.
            unsafe { libc::setsid() }
        } else {
            self.report.at(Step::ProcessGroup);
            // SAFETY: the call takes numbers.
            unsafe { libc::setpgid(0, 0) }
        };
        super::check(result.into()).map(drop)
    }

    fn schedule(&self) -> io::Result<()> {
        let Scheduling { policy, nice, cpus } = &self.setup.scheduling;
        scheduling::reset();
        if let Some(cpus) = cpus {
            self.report.at(Step::Affinity);
            scheduling::set_cpus(cpus)?;
        }
        if let Some((policy, priority)) = *policy {
            self.report.at(Step::Policy);
            scheduling::set_policy(policy, priority)?;
        }
        if let Some(nice) = *nice {
            self.report.at(Step::Nice);
            scheduling::set_nice(nice)?;
        }
        Ok(())
    }

    /// Executes the first of the programs that there is. Returns what went wrong.
    fn execute(&self) -> io::Error {
        self.report.at(Step::Execute);
        let mut found = io::Error::from_raw_os_error(libc::ENOENT);
        for program in &self.image.programs {
            // SAFETY: a C string, and two arrays of pointers to C strings that end with a null; all
            // of them outlive the call.
            unsafe {
                libc::execve(program.as_ptr(), self.arguments.as_ptr(), self.environment.as_ptr())
            };
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                Some(libc::EACCES) => found = error,
                _ => return error,
            }
        }
        found
    }
}

/// Where a child starts. `argument` points to its [`Child`].
pub(super) extern "C" fn enter(argument: *mut std::ffi::c_void) -> c_int {
    // SAFETY: `os::spawn` passes its `Child`, which it does not touch before this child has executed
    // its program or has ended.
    let child = unsafe { &mut *argument.cast::<Child<'_>>() };
    child.run();
    super::process::exit_now(127)
}

/// Closes all descriptors on exec except the standard ones and those named.
fn keep_only(inherited: &[OwnedFd]) -> io::Result<()> {
    // SAFETY: the call takes three numbers and only marks descriptors of this process. Where the
    // kernel does not know it (before 5.11), only descriptors that somebody else has left open on
    // exec are not marked.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3 as libc::c_uint,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    for fd in inherited {
        // SAFETY: the call takes numbers; a descriptor that is not open is an error.
        super::check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) }.into())?;
    }
    Ok(())
}

fn join_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: a null name means a new keyring without a name.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, null::<c_char>()) };
    super::check(result).map(drop)
}
