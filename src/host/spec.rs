//! What to start, and what to do when it ends.
//!
//! Callers build a [`PluginSpec`] and give it to [`Host::spawn`](super::Host::spawn).
//! What always holds: everything has a default but the name and the command; a specification is
//! checked when it is spawned, not before.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::control::Grant;
use super::error::NameError;
use super::hooks::{HookList, Moment, Occasion};
use super::isolation::StepNames;
use super::others::{ControlRequest, Permission};
use super::policy::Restart;
use super::program::Program;
use crate::channel::ChannelOptions;
use crate::os::child::{Hook, Setup};
use crate::store::StoreQuota;

/// Longest name of a plugin in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// A plugin to be started: its name, its program, and how to treat it.
///
/// Of descriptors the plugin gets its standard streams and what connects it with the host: whatever else
/// is open in the host is closed when the program is executed.
pub struct PluginSpec {
    pub(super) name: String,
    pub(super) program: Program,
    pub(super) setup: Setup<'static>,
    pub(super) names: StepNames,
    pub(super) no_new_privs: bool,
    pub(super) pre_exec: Option<Hook>,
    pub(super) cgroup: Option<PathBuf>,
    pub(super) liveness: Option<Duration>,
    pub(super) restart: Restart,
    pub(super) ready_timeout: Duration,
    pub(super) patience: Patience,
    pub(super) channel_options: Option<ChannelOptions>,
    pub(super) max_redeliveries: u32,
    pub(super) store: Grant,
    pub(super) quota: StoreQuota,
    pub(super) hooks: HookList,
    pub(super) may_control: Permission,
}

/// How long a plugin that is to end is given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From being told to SIGTERM.
    pub(super) notice: Duration,
    /// From there to SIGKILL.
    pub(super) grace: Duration,
    /// From there until it is left behind.
    pub(super) kill: Duration,
}

impl fmt::Debug for PluginSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginSpec")
            .field("name", &self.name)
            .field("program", &self.program)
            .field("setup", &self.setup)
            .field("isolation", &self.names)
            .field("restart", &self.restart)
            .finish_non_exhaustive()
    }
}

impl PluginSpec {
    /// A plugin that is not restarted, has 10 s to become ready, 1 s to end after SIGTERM, which it
    /// gets as soon as it is to end, and channels as the host makes them by default.
    ///
    /// `program` is a path, or a name without a slash that is looked for in the plugin's `PATH`.
    ///
    /// The program should become the plugin by itself: a plugin has ended when this process has. A
    /// wrapper that waits for the real program works; one that leaves it behind does not.
    pub fn new(name: impl Into<String>, program: impl Into<OsString>) -> Self {
        Self {
            name: name.into(),
            program: Program::new(program.into()),
            setup: Setup::default(),
            names: StepNames::default(),
            no_new_privs: false,
            pre_exec: None,
            cgroup: None,
            liveness: None,
            restart: Restart::Never,
            ready_timeout: Duration::from_secs(10),
            patience: Patience {
                notice: Duration::ZERO,
                grace: Duration::from_secs(1),
                kill: Duration::from_secs(10),
            },
            channel_options: None,
            max_redeliveries: 3,
            store: Grant::ReadOnly,
            quota: StoreQuota::default(),
            hooks: HookList::default(),
            may_control: Permission::default(),
        }
    }

    /// What to do when it ends.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// Reports [`Silent`](super::HostEventKind::Silent) when the plugin's process has not answered for
    /// this long, and [`Heard`](super::HostEventKind::Heard) when it answers again. Nothing else follows.
    ///
    /// The library answers in the plugin, on a thread of its own: a plugin is silent when it is stopped,
    /// frozen or starved, and not when its own threads hang. The host asks four times in that span, and
    /// every 40 ms at most. Off unless set.
    #[must_use]
    pub fn liveness(mut self, silence: Duration) -> Self {
        self.liveness = Some(silence);
        self
    }

    /// How long it may take from its start until it is ready. It is killed when it takes longer.
    #[must_use]
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.ready_timeout = timeout;
        self
    }

    /// How long it may take to end by itself once it has been told to on its control ring, before it
    /// gets SIGTERM. A plugin that listens ([`Plugin::wait_for_stop`](super::Plugin::wait_for_stop))
    /// needs no handler of signals then. 0 unless changed: the signal follows at once.
    #[must_use]
    pub fn notice(mut self, notice: Duration) -> Self {
        self.patience.notice = notice;
        self
    }

    /// How long it may take to end after SIGTERM. It is killed when it takes longer.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.patience.grace = grace;
        self
    }

    /// How long it may take to end after SIGKILL: 10 s unless changed. The kernel may take its time,
    /// with a process of much memory or one that waits for a device; and a host that runs without
    /// privileges cannot kill a plugin that runs as somebody else. One that takes longer is
    /// [left behind](super::HostEventKind::LeftBehind).
    #[must_use]
    pub fn kill_timeout(mut self, timeout: Duration) -> Self {
        self.patience.kill = timeout;
        self
    }

    /// Calls `hook` at each such moment of this plugin's life, after the host's own hooks. Hooks of
    /// one moment are called in the order in which they were set. One that does not return holds
    /// up its plugin, and no other; one that panics is reported.
    #[must_use]
    pub fn hook(
        mut self,
        moment: Moment,
        hook: impl Fn(&Occasion) + Send + Sync + 'static,
    ) -> Self {
        self.hooks.add(moment, Arc::new(hook));
        self
    }

    /// Capacity, alignment and way of waiting of both channels. Ring 0 is the one that the host
    /// writes.
    #[must_use]
    pub fn channel_options(mut self, options: ChannelOptions) -> Self {
        self.channel_options = Some(options);
        self
    }

    /// Keeps the host's store from it.
    #[must_use]
    pub fn no_store(mut self) -> Self {
        self.store = Grant::None;
        self
    }

    /// How much it may have in the host's [store](super::HostBuilder::store), which the host writes for it.
    /// Says nothing about a plugin that is [trusted](Self::trust_with_store) and writes by itself.
    #[must_use]
    pub fn store_quota(mut self, quota: StoreQuota) -> Self {
        self.quota = quota;
        self
    }

    /// Lets it read the host's [store](super::HostBuilder::store) in place, and write it.
    ///
    /// It must run under the host's user id: another user's process is refused a store that the host's
    /// user can write.
    ///
    /// # Safety
    /// The plugin's process writes to the store by way of this library only, whatever its messages and
    /// the store make it do: it is trusted like a part of the host. One that writes anything else can
    /// make the host, and every other process that has the store writable, write anywhere and read
    /// what was never written.
    #[must_use]
    #[allow(unsafe_code, reason = "declares what its caller must promise")]
    pub unsafe fn trust_with_store(mut self) -> Self {
        self.store = Grant::Writable;
        self
    }

    /// Which plugins it may restart, stop and kill: `decide` is asked about each request. Unless something is said here,
    /// a plugin may list and watch the others, and act on none but itself.
    ///
    /// A plugin that may restart others may do so as often as they become ready; one that may stop them ends them for
    /// good. The host program is told of each ([`ControlledBy`](super::HostEventKind::ControlledBy)).
    /// `decide` is called on a thread that waits for nothing else; where it panics, the request is denied.
    ///
    /// ```
    /// use ringway::host::{ControlAction, PluginSpec};
    ///
    /// let spec = PluginSpec::new("manager", "./manager").may_control(|request| {
    ///     request.action == ControlAction::Restart && request.plugin.starts_with("worker-")
    /// });
    /// ```
    #[must_use]
    pub fn may_control(
        mut self,
        decide: impl Fn(&ControlRequest<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.may_control = Permission::new(decide);
        self
    }

    /// How often a message is given to a further incarnation of the plugin, after incarnations that
    /// ended with it as their first unread message. Then it is dropped and reported, so that one
    /// message cannot kill every incarnation. Default 3.
    #[must_use]
    pub fn max_redeliveries(mut self, redeliveries: u32) -> Self {
        self.max_redeliveries = redeliveries;
        self
    }
}

/// Checks a plugin's name.
pub(super) fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong { len: name.len(), max: MAX_NAME_BYTES });
    }
    match name.chars().find(|&c| c == '/' || c.is_control()) {
        None => Ok(()),
        Some(c) => Err(NameError::Character(c)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(check_name("nonebot 2"), Ok(()));
        assert_eq!(check_name(&"n".repeat(64)), Ok(()));
        assert_eq!(check_name(""), Err(NameError::Empty));
        assert_eq!(check_name(&"n".repeat(65)), Err(NameError::TooLong { len: 65, max: 64 }));
        assert_eq!(check_name("a/b"), Err(NameError::Character('/')));
        assert_eq!(check_name("a\0b"), Err(NameError::Character('\0')));
        assert_eq!(check_name("a\nb"), Err(NameError::Character('\n')));
    }
}
