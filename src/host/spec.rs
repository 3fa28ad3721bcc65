//! What to start, and what to do when it ends.
//!
//! Callers build a [`PluginSpec`] and give it to [`Host::spawn`](super::Host::spawn).
//! What always holds: everything has a default but the name and the command; a specification is
//! checked when it is spawned, not before.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::control::Grant;
use super::error::NameError;
use super::hooks::{HookList, Moment, Occasion};
use super::isolation::Wanted;
use super::others::{ControlRequest, Permission};
use crate::channel::ChannelOptions;
use crate::error::ExitReason;
use crate::store::StoreQuota;

/// Longest name of a plugin in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// What a host does when a plugin ends.
///
/// A restart waits for a while, at first `backoff_initial`, twice as long after each further
/// failure, at most `backoff_max`. After `max_restarts` failures in a row the host gives up. A
/// plugin that has been ready for [`Restart::STABLE`] (or `backoff_max`, if that is longer) before it
/// failed starts counting anew.
///
/// A restart that somebody has asked for ([`PluginHandle::restart`](super::PluginHandle::restart),
/// [`Plugin::request_restart`](super::Plugin::request_restart)) takes place whatever is said here, and
/// does not count as a failure. There is no pause before it, but where a plugin asks for its own: its
/// successor is started a second after it became ready at the earliest. Where the successor cannot be
/// started, what is said here decides about further attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Restart {
    /// Nothing.
    #[default]
    Never,
    /// Starts it again when it was killed or exited with a code other than 0.
    OnFailure {
        /// How many failures in a row are one too many.
        max_restarts: u32,
        /// Pause before the first restart.
        backoff_initial: Duration,
        /// Longest pause.
        backoff_max: Duration,
    },
    /// Starts it again whatever it ended of, until it is told to end.
    Always {
        /// How many ends in a row are one too many.
        max_restarts: u32,
        /// Pause before the first restart.
        backoff_initial: Duration,
        /// Longest pause.
        backoff_max: Duration,
    },
}

impl Restart {
    /// How long a plugin must have been ready for its earlier failures to be forgotten.
    pub const STABLE: Duration = Duration::from_secs(10);

    const MAX_RESTARTS: u32 = 10;
    const BACKOFF_INITIAL: Duration = Duration::from_millis(1);
    const BACKOFF_MAX: Duration = Duration::from_secs(5);

    /// [`OnFailure`](Self::OnFailure) with at most 10 restarts in a row and pauses from 1 ms to 5 s.
    pub const fn on_failure() -> Self {
        Self::OnFailure {
            max_restarts: Self::MAX_RESTARTS,
            backoff_initial: Self::BACKOFF_INITIAL,
            backoff_max: Self::BACKOFF_MAX,
        }
    }

    /// [`Always`](Self::Always) with the same limits as [`on_failure`](Self::on_failure).
    pub const fn always() -> Self {
        Self::Always {
            max_restarts: Self::MAX_RESTARTS,
            backoff_initial: Self::BACKOFF_INITIAL,
            backoff_max: Self::BACKOFF_MAX,
        }
    }

    /// Whether there can be successors that nobody has asked for.
    pub(super) fn is_possible(&self) -> bool {
        *self != Self::Never
    }

    /// The pause before the next start, after a plugin that has failed `failures` times in a row
    /// ended for `reason`; `None` where it is not to be started again.
    pub(super) fn pause(&self, reason: ExitReason, failures: u32) -> Option<Duration> {
        let (max_restarts, initial, longest) = match *self {
            Self::Never => return None,
            Self::OnFailure { .. } if reason == ExitReason::Code(0) => return None,
            Self::OnFailure { max_restarts, backoff_initial, backoff_max }
            | Self::Always { max_restarts, backoff_initial, backoff_max } => {
                (max_restarts, backoff_initial, backoff_max)
            }
        };
        let doublings = failures.min(31);
        (failures < max_restarts).then(|| initial.saturating_mul(1 << doublings).min(longest))
    }

    /// Whether a plugin that was ready for this long has earned that its failures are forgotten.
    pub(super) fn forgets_after(&self, ready: Duration) -> bool {
        match *self {
            Self::Never => false,
            Self::OnFailure { backoff_max, .. } | Self::Always { backoff_max, .. } => {
                ready >= backoff_max.max(Self::STABLE)
            }
        }
    }
}

/// A plugin to be started: its name, its command, and how to treat it.
///
/// The command's arguments, environment, directory and standard streams are used as they are. Of
/// other descriptors the plugin gets only the host's: whatever else is open is closed on exec.
#[derive(Debug)]
pub struct PluginSpec {
    pub(super) name: String,
    pub(super) command: Command,
    pub(super) restart: Restart,
    pub(super) ready_timeout: Duration,
    pub(super) patience: Patience,
    pub(super) channel_options: Option<ChannelOptions>,
    pub(super) max_redeliveries: u32,
    pub(super) isolation: Wanted,
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

impl PluginSpec {
    /// A plugin that is not restarted, has 10 s to become ready, 1 s to end after SIGTERM, which it
    /// gets as soon as it is to end, and channels as the host makes them by default.
    pub fn new(name: impl Into<String>, command: Command) -> Self {
        Self {
            name: name.into(),
            command,
            restart: Restart::Never,
            ready_timeout: Duration::from_secs(10),
            patience: Patience {
                notice: Duration::ZERO,
                grace: Duration::from_secs(1),
                kill: Duration::from_secs(10),
            },
            channel_options: None,
            max_redeliveries: 3,
            isolation: Wanted::default(),
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
    /// use std::process::Command;
    /// use ringway::host::{ControlAction, PluginSpec};
    ///
    /// let spec = PluginSpec::new("manager", Command::new("./manager")).may_control(|request| {
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

    #[test]
    fn failures_are_forgotten_after_a_stable_time() {
        let restart = |backoff_max| Restart::Always {
            max_restarts: 1,
            backoff_initial: Duration::ZERO,
            backoff_max,
        };
        let just = Duration::from_nanos(1);
        let short = restart(Duration::from_secs(1));
        assert!(short.forgets_after(Restart::STABLE));
        assert!(!short.forgets_after(Restart::STABLE - just));
        let long = Duration::from_secs(60);
        assert!(restart(long).forgets_after(long));
        assert!(!restart(long).forgets_after(long - just));
        assert!(!Restart::Never.forgets_after(Duration::MAX));
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let restart = Restart::OnFailure {
            max_restarts: 5,
            backoff_initial: Duration::from_millis(10),
            backoff_max: Duration::from_millis(50),
        };
        let killed = ExitReason::Signal(9);
        let pauses: Vec<_> = (0..6).map(|failures| restart.pause(killed, failures)).collect();
        let expected = [Some(10), Some(20), Some(40), Some(50), Some(50), None];
        assert_eq!(pauses, expected.map(|pause| pause.map(Duration::from_millis)));
        assert_eq!(restart.pause(ExitReason::Code(0), 0), None);
        assert_eq!(restart.pause(ExitReason::Code(1), 0), Some(Duration::from_millis(10)));
        assert_eq!(Restart::Never.pause(killed, 0), None);
        assert!(Restart::always().pause(ExitReason::Code(0), 0).is_some());
        assert_eq!(
            Restart::OnFailure {
                max_restarts: u32::MAX,
                backoff_initial: Duration::from_secs(1),
                backoff_max: Duration::MAX,
            }
            .pause(killed, 4_000_000_000),
            Some(Duration::from_secs(1 << 31))
        );
    }
}
