//! What kind of process a plugin is: its session, control group, scheduling and keyring.
//!
//! Callers set it on a [`PluginSpec`]; the child applies it before it executes the program.
//! Invariants: a plugin leads a process group of its own; it has no real-time policy and no negative
//! nice value that nobody has set for it.

use std::path::Path;

use super::spec::PluginSpec;

/// How the kernel schedules a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchedulingPolicy {
    /// SCHED_OTHER: as every ordinary process.
    Other,
    /// SCHED_BATCH: as an ordinary process that is taken for busy.
    Batch,
    /// SCHED_IDLE: when nothing else wants the processor.
    Idle,
    /// SCHED_FIFO with this priority, 1 to 99. Needs a privilege.
    Fifo(u8),
    /// SCHED_RR with this priority, 1 to 99. Needs a privilege.
    RoundRobin(u8),
}

impl SchedulingPolicy {
    fn numbers(self) -> (libc::c_int, libc::c_int) {
        match self {
            Self::Other => (libc::SCHED_OTHER, 0),
            Self::Batch => (libc::SCHED_BATCH, 0),
            Self::Idle => (libc::SCHED_IDLE, 0),
            Self::Fifo(priority) => (libc::SCHED_FIFO, priority.into()),
            Self::RoundRobin(priority) => (libc::SCHED_RR, priority.into()),
        }
    }
}

/// # Process
///
/// Each plugin leads a process group of its own, so that a signal can reach all processes of a plugin
/// and no other's. Ctrl-C in a terminal goes to the host alone, and so does a hang-up of the terminal:
/// the host decides what becomes of its plugins. A plugin that reads from the terminal is stopped
/// (SIGTTIN). A host that ends a plugin signals the whole group; a plugin whose process has ended has
/// ended with its group.
///
/// All signals have their default disposition in a plugin and none is blocked, whatever the host has
/// set. A real-time or deadline policy and a negative nice value of the host are not inherited. Inherited,
/// unless set here, are the host's processors (affinity), a positive nice value, the control group, the
/// keyrings, the working directory and the umask.
impl PluginSpec {
    /// Starts the plugin in a session of its own, without a controlling terminal. It can then not be
    /// stopped by the terminal. Where the kernel groups by session (`sched_autogroup`), the plugin is
    /// weighed against the host's session as a whole, and its nice value counts inside its own session
    /// only.
    #[must_use]
    pub fn session(mut self) -> Self {
        self.setup.session = true;
        self
    }

    /// Moves the plugin into the control group (version 2) in this directory, of its own and
    /// delegated to the host's user. When the plugin is killed, or has ended, everything that is left in
    /// that group is killed too (`cgroup.kill`, Linux 5.14): also what has left the process group.
    #[must_use]
    pub fn cgroup(mut self, directory: impl AsRef<Path>) -> Self {
        self.cgroup = Some(directory.as_ref().into());
        self
    }

    /// Sets the scheduling policy.
    #[must_use]
    pub fn scheduling(mut self, policy: SchedulingPolicy) -> Self {
        self.setup.scheduling.policy = Some(policy.numbers());
        self
    }

    /// Sets the nice value, -20 to 19. One below the host's needs a privilege.
    #[must_use]
    pub fn nice(mut self, nice: i32) -> Self {
        self.setup.scheduling.nice = Some(nice);
        self
    }

    /// Sets the processors on which the plugin may run, by number, below 65536.
    #[must_use]
    pub fn affinity(mut self, processors: impl IntoIterator<Item = u16>) -> Self {
        let mut words = vec![0_u64; 16];
        for processor in processors.into_iter().map(usize::from) {
            if processor / 64 >= words.len() {
                words.resize(processor / 64 + 1, 0);
            }
            words[processor / 64] |= 1 << (processor % 64);
        }
        self.setup.scheduling.cpus = Some(words.into());
        self
    }

    /// Gives the plugin a session keyring of its own, so that it does not have the host's keys.
    #[must_use]
    pub fn own_keyring(mut self) -> Self {
        self.setup.keyring = true;
        self
    }
}
