//! What a host program holds of one of its plugins.
//!
//! [`Host::spawn`](super::Host::spawn) makes it. What always holds: it stays usable when the plugin
//! has ended; dropping it changes nothing, the [`Host`](super::Host) keeps the plugin.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::error::TakeChannelsError;
use super::supervised::{Phase, Supervised};
use crate::channel::Channel;
use crate::error::ExitReason;

/// A plugin.
pub struct PluginHandle {
    plugin: Arc<Supervised>,
}

impl fmt::Debug for PluginHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginHandle")
            .field("name", &self.name())
            .field("state", &self.state())
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

/// Where a plugin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PluginState {
    /// It is being started for the first time.
    Starting,
    /// It runs, and has been ready.
    Running,
    /// It has ended, and is being started again.
    Restarting {
        /// Why it ended.
        reason: ExitReason,
    },
    /// It has ended for good.
    Ended {
        /// Why.
        reason: ExitReason,
    },
}

impl PluginHandle {
    pub(super) fn new(plugin: Arc<Supervised>) -> Self {
        Self { plugin }
    }

    /// The plugin's name.
    pub fn name(&self) -> &str {
        &self.plugin.name
    }

    /// Takes the host's ends of the channels `{name}-active` and `{name}-passive`. They follow the
    /// plugin through its restarts.
    ///
    /// # Errors
    /// [`TakeChannelsError::Taken`].
    pub fn take_channels(&self) -> Result<(Channel, Channel), TakeChannelsError> {
        self.plugin.life().channels.take().ok_or(TakeChannelsError::Taken)
    }

    /// Where the plugin is.
    pub fn state(&self) -> PluginState {
        match self.plugin.life().phase {
            Phase::Starting => PluginState::Starting,
            Phase::Running => PluginState::Running,
            Phase::Restarting(reason) => PluginState::Restarting { reason },
            Phase::Ended(reason) => PluginState::Ended { reason },
        }
    }

    /// The plugin's process, if it has one just now. By the time it is used, the number may mean
    /// another process: to end the plugin call [`terminate`](Self::terminate) or
    /// [`kill`](Self::kill).
    pub fn pid(&self) -> Option<u32> {
        self.plugin.pid()
    }

    /// How many processes it has been; 1 before its first restart.
    pub fn incarnation(&self) -> u32 {
        self.plugin.life().incarnation
    }

    /// How many times it has been restarted.
    pub fn restarts(&self) -> u32 {
        self.incarnation().saturating_sub(1)
    }

    /// Waits until the plugin has ended for good, for at most `timeout`. `None` where it has not.
    pub fn wait_exit(&self, timeout: Duration) -> Option<ExitReason> {
        let ended = |phase| match phase {
            Phase::Ended(reason) => Some(reason),
            _ => None,
        };
        let (life, _) = self.plugin.wait_until(timeout, |life| ended(life.phase).is_some());
        ended(life.phase)
    }

    /// Ends the plugin: SIGTERM, SIGKILL after its grace. Returns when it has been reaped; it is not
    /// restarted. [`ExitReason::Unknown`] where even SIGKILL does not end it, for as long as the
    /// kernel holds on to it: it is reaped when that is over.
    pub fn terminate(&self) -> ExitReason {
        self.plugin.begin_stop();
        self.plugin.finish_stop(self.plugin.grace)
    }

    /// Kills the plugin's process with SIGKILL and returns at once; `false` where it has none, because
    /// it has ended or is about to be started again. What follows is what follows any failure: it may
    /// be restarted.
    pub fn kill(&self) -> bool {
        self.plugin.signal(libc::SIGKILL)
    }
}
