//! What a plugin's process may do less than its host: identity, privileges, resources.
//!
//! Callers set it on a [`PluginSpec`]; the child applies it before it executes the program.
//! Invariants: a plugin runs with all that was asked for, or it is not started and the error names the
//! step.

use std::fmt;
use std::io;

use super::spec::PluginSpec;
use crate::os::child::Step;
use crate::os::isolation::Isolation;

/// A limit on what a plugin's process can use. The plugin cannot raise it: it is set soft and hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// Bytes of address space. The rings of all three channels and the program's own mappings count.
    AddressSpaceBytes(u64),
    /// Bytes of data segment and private writable memory.
    DataBytes(u64),
    /// Bytes of the main thread's stack.
    StackBytes(u64),
    /// Seconds of processor time. The kernel kills a process that has used them up (SIGKILL).
    CpuSeconds(u64),
    /// One more than the highest descriptor that can be opened. What was inherited stays open.
    OpenFiles(u64),
    /// Bytes to which a file can be extended; beyond it, SIGXFSZ.
    FileBytes(u64),
    /// Bytes of a core dump; 0 for none.
    CoreBytes(u64),
    /// Processes and threads of the plugin's *user*. Users with privileges are not limited.
    Processes(u64),
    /// Bytes that can be locked in memory.
    LockedBytes(u64),
}

impl Limit {
    /// The resource's number, and the limit.
    fn resource(self) -> [u64; 2] {
        let (resource, limit) = match self {
            Self::AddressSpaceBytes(bytes) => (libc::RLIMIT_AS, bytes),
            Self::DataBytes(bytes) => (libc::RLIMIT_DATA, bytes),
            Self::StackBytes(bytes) => (libc::RLIMIT_STACK, bytes),
            Self::CpuSeconds(seconds) => (libc::RLIMIT_CPU, seconds),
            Self::OpenFiles(files) => (libc::RLIMIT_NOFILE, files),
            Self::FileBytes(bytes) => (libc::RLIMIT_FSIZE, bytes),
            Self::CoreBytes(bytes) => (libc::RLIMIT_CORE, bytes),
            Self::Processes(processes) => (libc::RLIMIT_NPROC, processes),
            Self::LockedBytes(bytes) => (libc::RLIMIT_MEMLOCK, bytes),
        };
        // Signed or not, as the libc has it.
        #[allow(clippy::unnecessary_cast, reason = "not everywhere")]
        [resource as u64, limit]
    }
}

/// A step of preparing a plugin's process, in the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum IsolationStep {
    /// Making a process group of its own.
    ProcessGroup,
    /// Making a [session](PluginSpec::session) of its own.
    Session,
    /// Entering the [control group](PluginSpec::cgroup).
    Cgroup,
    /// Setting the [processors](PluginSpec::affinity).
    Affinity,
    /// Setting the [scheduling policy](PluginSpec::scheduling).
    Scheduling,
    /// Setting the [nice value](PluginSpec::nice).
    Nice,
    /// Setting a standard stream.
    Stream {
        /// 0 for input, 1 for output, 2 for errors.
        number: u32,
    },
    /// Handing over the descriptors of the plugin's channels.
    Descriptors,
    /// Setting a resource limit.
    Limit(Limit),
    /// Dropping the host's supplementary groups.
    Groups,
    /// Changing the group id.
    Group {
        /// To this one.
        gid: u32,
    },
    /// Changing the user id.
    User {
        /// To this one.
        uid: u32,
    },
    /// Dropping the host's capabilities.
    Capabilities,
    /// Forbidding new privileges.
    NoNewPrivs,
    /// Making a [keyring](PluginSpec::own_keyring) of its own.
    Keyring,
    /// Entering the [working directory](PluginSpec::current_dir).
    Directory,
    /// Unblocking signals.
    Signals,
    /// The hook that [`PluginSpec::pre_exec`] has set.
    PreExec,
}

impl fmt::Display for IsolationStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProcessGroup => write!(f, "making a process group"),
            Self::Session => write!(f, "making a session"),
            Self::Cgroup => write!(f, "entering the control group"),
            Self::Affinity => write!(f, "setting the processors"),
            Self::Scheduling => write!(f, "setting the scheduling policy"),
            Self::Nice => write!(f, "setting the nice value"),
            Self::Stream { number } => write!(f, "setting standard stream {number}"),
            Self::Descriptors => write!(f, "handing over descriptors"),
            Self::Limit(limit) => write!(f, "setting the limit {limit:?}"),
            Self::Groups => write!(f, "dropping the supplementary groups"),
            Self::Group { gid } => write!(f, "changing to group {gid}"),
            Self::User { uid } => write!(f, "changing to user {uid}"),
            Self::Capabilities => write!(f, "dropping capabilities"),
            Self::NoNewPrivs => write!(f, "forbidding new privileges"),
            Self::Keyring => write!(f, "making a session keyring"),
            Self::Directory => write!(f, "entering the working directory"),
            Self::Signals => write!(f, "unblocking signals"),
            Self::PreExec => write!(f, "the pre_exec hook"),
        }
    }
}

/// Knows the steps by what was asked for.
#[derive(Debug, Default)]
pub(super) struct StepNames {
    limits: Vec<Limit>,
    user: Option<(u32, u32)>,
}

impl StepNames {
    /// What the child gives up; privileges aside.
    pub(super) fn isolation(&self, no_new_privs: bool) -> Isolation<'static> {
        let limits = self.limits.iter().map(|limit| limit.resource()).collect();
        Isolation { limits, user: self.user, no_new_privs }
    }

    /// Whether the plugin runs as another user.
    pub(super) fn switches_user(&self) -> bool {
        self.user.is_some()
    }

    /// `None` for the execution itself.
    pub(super) fn name(&self, step: Step) -> Option<IsolationStep> {
        let (uid, gid) = self.user.unwrap_or_default();
        Some(match step {
            Step::ProcessGroup => IsolationStep::ProcessGroup,
            Step::Session => IsolationStep::Session,
            Step::Cgroup => IsolationStep::Cgroup,
            Step::Affinity => IsolationStep::Affinity,
            Step::Policy => IsolationStep::Scheduling,
            Step::Nice => IsolationStep::Nice,
            Step::Stream(number) => IsolationStep::Stream { number },
            Step::Descriptors => IsolationStep::Descriptors,
            Step::Limit(index) => IsolationStep::Limit(*self.limits.get(index as usize)?),
            Step::Groups => IsolationStep::Groups,
            Step::Group => IsolationStep::Group { gid },
            Step::User => IsolationStep::User { uid },
            Step::Capabilities => IsolationStep::Capabilities,
            Step::NoNewPrivs => IsolationStep::NoNewPrivs,
            Step::Keyring => IsolationStep::Keyring,
            Step::Directory => IsolationStep::Directory,
            Step::Signals => IsolationStep::Signals,
            Step::Hook => IsolationStep::PreExec,
            Step::Execute => return None,
        })
    }
}

/// # Isolation
///
/// A plugin that runs under the host's user id can trace the host and write into its memory. These
/// options take that away, and what else is not needed. `SAFETY.md` says what each gives and what
/// it does not. In the child they take effect in the order of [`IsolationStep`], whatever the order of
/// the calls.
impl PluginSpec {
    /// Runs the plugin under another user id and group id, without the host's supplementary groups
    /// and capabilities. Both must be given: a plugin that kept the host's group could open what the
    /// group may open. Give every plugin a user id of its own: two plugins of one user can trace
    /// each other.
    ///
    /// The program must be executable for that user. The host needs the privileges to change
    /// identity (root, or CAP_SETUID and CAP_SETGID), and CAP_KILL to end the plugin.
    #[must_use]
    pub fn run_as(mut self, uid: u32, gid: u32) -> Self {
        self.names.user = Some((uid, gid));
        self
    }

    /// Sets a resource limit. Of two of the same kind the later counts.
    #[must_use]
    pub fn limit(mut self, limit: Limit) -> Self {
        let limits = &mut self.names.limits;
        limits.retain(|other| other.resource()[0] != limit.resource()[0]);
        limits.push(limit);
        self
    }

    /// Keeps the plugin, and all that it executes, from gaining privileges through programs that
    /// are set-user-id or have capabilities. Filters of system calls and Landlock rules can be
    /// installed without privileges only under it.
    #[must_use]
    pub fn no_new_privs(mut self) -> Self {
        self.no_new_privs = true;
        self
    }

    /// Runs a closure in the child, after everything else and right before the program is executed:
    /// the place for a seccomp filter or Landlock rules. Where it returns an error, or panics, the
    /// plugin is not started. It runs at every start.
    ///
    /// A filter must allow `execve`, and what [`Plugin`](super::Plugin) needs: `mmap`, `munmap`,
    /// `madvise`, `fcntl`, `fstat`, `fstatfs`, `pread64`, `read`, `write`, `sendto`, `recvfrom`, `futex`,
    /// `membarrier`, `clock_gettime`, `epoll_create1`, `epoll_ctl`, `epoll_wait`, `sched_getaffinity`, and
    /// what starts a thread.
    ///
    /// # Safety
    /// The closure runs in a child that *shares the host's memory* while the host's other threads go
    /// on. Whatever it writes to memory is written in the host. It may be killed at any instruction,
    /// when the time for the start is over. So it may only make calls that are async-signal-safe and
    /// write to what it has captured; it must not allocate, take a lock, panic, start a thread, or touch
    /// the plugin's descriptors. Parts of the process that a system call changes (identity, filters,
    /// namespaces, directories) are the child's own; memory mappings are the host's.
    #[must_use]
    #[allow(unsafe_code, reason = "declares what its caller must promise")]
    pub unsafe fn pre_exec(
        mut self,
        hook: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.pre_exec = Some(Box::new(hook));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_limits_of_a_kind_the_later_counts() {
        let spec = PluginSpec::new("limited", "true")
            .limit(Limit::OpenFiles(10))
            .limit(Limit::CoreBytes(0))
            .limit(Limit::OpenFiles(20));
        let names = spec.names;
        assert_eq!(
            *names.isolation(false).limits,
            [Limit::CoreBytes(0), Limit::OpenFiles(20)].map(Limit::resource)
        );
        let second = IsolationStep::Limit(Limit::OpenFiles(20));
        assert_eq!(names.name(Step::Limit(1)), Some(second));
        assert_eq!(names.name(Step::Limit(2)), None);
    }
}
