//! A child between its making and the execution of its program.
//!
//! `os::spawn` runs it on a stack of its own, in the memory of the host, while the thread that made it
//! is suspended. `os::keeper` runs it in a process of its own. Invariants: nothing here allocates, takes a
//! lock or panics, apart from the caller's hook; all strings and arrays were made before; the step that
//! is being taken is reported before it is taken.
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

use std::borrow::Cow;
use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null;

use super::isolation::Isolation;
use super::scheduling::{self, Scheduling};
use super::signals;

/// Runs last in the child. See `PluginSpec::pre_exec` for what it may do.
pub(crate) type Hook = Box<dyn FnMut() -> io::Result<()> + Send + Sync>;

/// What a child is to become. The same for every start of a plugin.
#[derive(Debug, Default)]
pub(crate) struct Setup<'a> {
    pub(crate) directory: Option<Cow<'a, CStr>>,
    /// A session of its own, with a process group of its own; otherwise a process group only.
    pub(crate) session: bool,
    pub(crate) scheduling: Scheduling<'a>,
    pub(crate) isolation: Isolation<'a>,
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
    /// What else the program inherits. Started by this process, it finds them under the same numbers, all
    /// of them above 2; started by a keeper, from [`FIRST_INHERITED`] on.
    pub(crate) inherited: Vec<OwnedFd>,
    /// An open `cgroup.procs`.
    pub(crate) cgroup: Option<OwnedFd>,
}

/// The number of the first descriptor that a keeper's child inherits besides the standard streams.
pub(crate) const FIRST_INHERITED: RawFd = 3;

/// The strings of one start. The arrays of arguments and of the environment end with a null.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strings<'a> {
    pub(super) programs: &'a [*const c_char],
    pub(super) arguments: &'a [*const c_char],
    pub(super) environment: &'a [*const c_char],
}

/// The descriptors of one start: see [`Image`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Descriptors<'a> {
    pub(super) streams: [Option<RawFd>; 3],
    pub(super) inherited: &'a [RawFd],
    pub(super) cgroup: Option<RawFd>,
    /// Where the child begins, if not where its maker is.
    pub(super) directory: Option<RawFd>,
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

impl Step {
    /// Those without a number of their own.
    const PLAIN: [Self; 17] = [
        Self::Signals,
        Self::ProcessGroup,
        Self::Session,
        Self::Cgroup,
        Self::Policy,
        Self::Nice,
        Self::Affinity,
        Self::Descriptors,
        Self::Groups,
        Self::Group,
        Self::User,
        Self::Capabilities,
        Self::NoNewPrivs,
        Self::Keyring,
        Self::Directory,
        Self::Hook,
        Self::Execute,
    ];
    /// Codes of the others, less their numbers.
    const STREAMS: u32 = 100;
    const LIMITS: u32 = 200;

    /// A number for another process.
    pub(super) fn code(self) -> u32 {
        match self {
            Self::Stream(number) => Self::STREAMS + number,
            Self::Limit(index) => Self::LIMITS + index,
            plain => Self::PLAIN.iter().position(|step| *step == plain).unwrap_or_default() as u32,
        }
    }

    /// The step with this number.
    pub(super) fn of(code: u32) -> Self {
        match code {
            Self::LIMITS.. => Self::Limit(code - Self::LIMITS),
            Self::STREAMS.. => Self::Stream(code - Self::STREAMS),
            plain => Self::PLAIN.get(plain as usize).copied().unwrap_or(Self::Signals),
        }
    }
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

    /// The step has failed.
    pub(super) fn fail(&self, error: &io::Error) {
        self.errno.set(error.raw_os_error().unwrap_or(libc::EINVAL));
    }

    /// The error of the last step, where it has failed.
    pub(super) fn error(&self) -> Option<io::Error> {
        let errno = self.errno.get();
        (errno != 0).then(|| io::Error::from_raw_os_error(errno))
    }
}

/// Everything that a child uses. It outlives the child's use of its maker's memory.
pub(super) struct Child<'a> {
    setup: &'a Setup<'a>,
    strings: Strings<'a>,
    descriptors: Descriptors<'a>,
    hook: Option<&'a mut Hook>,
    pub(super) report: Report,
}

impl fmt::Debug for Child<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("descriptors", &self.descriptors).finish_non_exhaustive()
    }
}

impl<'a> Child<'a> {
    pub(super) fn new(
        setup: &'a Setup<'a>,
        strings: Strings<'a>,
        descriptors: Descriptors<'a>,
        hook: Option<&'a mut Hook>,
    ) -> Self {
        Self { setup, strings, descriptors, hook, report: Report::new() }
    }

    /// Becomes the program. `before` is called when only the program remains to be executed. Returns only
    /// where that fails; the error is in the report then.
    pub(super) fn run(&mut self, before: impl FnOnce()) {
        let error = match self.prepare() {
            Ok(()) => {
                self.report.at(Step::Execute);
                before();
                self.execute()
            }
            Err(error) => error,
        };
        self.report.fail(&error);
    }

    fn prepare(&mut self) -> io::Result<()> {
        let (setup, files) = (self.setup, self.descriptors);
        signals::reset_dispositions();
        self.leave_group()?;
        if let Some(procs) = files.cgroup {
            self.report.at(Step::Cgroup);
            // SAFETY: an open descriptor, and one byte that outlives the call. 0 means the writer.
            let written = unsafe { libc::write(procs, c"0".as_ptr().cast(), 1) };
            super::check(written as libc::c_long)?;
        }
        self.schedule()?;
        for (number, stream) in files.streams.into_iter().enumerate() {
            self.report.at(Step::Stream(number as u32));
            if let Some(stream) = stream {
                // SAFETY: the call takes numbers. The new descriptor stays open on exec.
                let result = unsafe { libc::dup2(stream, number as RawFd) };
                super::check(result.into())?;
            }
        }
        self.report.at(Step::Descriptors);
        keep_only(files.inherited)?;
        setup.isolation.apply(&self.report)?;
        if setup.keyring {
            self.report.at(Step::Keyring);
            join_session_keyring()?;
        }
        if let Some(directory) = files.directory {
            self.report.at(Step::Directory);
            // SAFETY: the call takes a number.
            super::check(unsafe { libc::fchdir(directory) }.into())?;
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
        let Strings { programs, arguments, environment } = self.strings;
        let mut found = io::Error::from_raw_os_error(libc::ENOENT);
        for program in programs {
            // SAFETY: a C string, and two arrays of pointers to C strings that end with a null; all
            // of them outlive the call.
            unsafe { libc::execve(*program, arguments.as_ptr(), environment.as_ptr()) };
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
    child.run(|| {});
    super::process::exit_now(127)
}

/// Closes all descriptors on exec except the standard ones and those named.
fn keep_only(inherited: &[RawFd]) -> io::Result<()> {
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
        super::check(unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) }.into())?;
    }
    Ok(())
}

fn join_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: a null name means a new keyring without a name.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, null::<c_char>()) };
    super::check(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_a_code_of_its_own() {
        let numbered = (0..3).flat_map(|n| [Step::Stream(n), Step::Limit(n)]);
        let all: Vec<_> = Step::PLAIN.into_iter().chain(numbered).collect();
        assert!(all.iter().all(|step| Step::of(step.code()) == *step));
        let mut codes: Vec<_> = all.iter().map(|step| step.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), all.len());
    }
}
