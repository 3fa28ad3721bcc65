//! What a host program holds of one of its plugins.
//!
//! [`Host::spawn`](super::Host::spawn) makes it, and hooks get one. What always holds: it stays
//! usable when the plugin has ended; dropping it changes nothing, the [`Host`](super::Host) keeps the
//! plugin; in a forked child it does nothing to the plugin, and takes no lock.

use std::fmt;
use std::io::{PipeReader, PipeWriter};
use std::sync::Arc;
use std::time::Duration;

use super::error::{HandleError, TakeChannelsError};
use super::supervised::{Asked, Life, Phase, Supervised};
use crate::channel::Channel;
use crate::error::ExitReason;
use crate::os::fork;

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
    /// It has ended for good, or was [left behind](super::HostEventKind::LeftBehind).
    Ended {
        /// Why.
        reason: ExitReason,
    },
    /// Another process's: this one was forked from it, and knows nothing of the plugin.
    Foreign,
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
    /// [`TakeChannelsError::Taken`]; [`TakeChannelsError::Forked`] in a forked child.
    pub fn take_channels(&self) -> Result<(Channel, Channel), TakeChannelsError> {
        if !self.is_ours() {
            return Err(TakeChannelsError::Forked);
        }
        self.plugin.life().channels.take().ok_or(TakeChannelsError::Taken)
    }

    /// Where the plugin is.
    pub fn state(&self) -> PluginState {
        if !self.is_ours() {
            return PluginState::Foreign;
        }
        match self.plugin.life().phase {
            Phase::Starting => PluginState::Starting,
            Phase::Running => PluginState::Running,
            Phase::Restarting(reason) => PluginState::Restarting { reason },
            Phase::Ended(reason) => PluginState::Ended { reason },
        }
    }

    /// The plugin's process, if it has one just now. By the time it is used, the number may mean
    /// another process: to end the plugin call [`terminate`](Self::terminate) or
    /// [`kill`](Self::kill). `None` in a forked child.
    pub fn pid(&self) -> Option<u32> {
        self.is_ours().then(|| self.plugin.life().pid())?
    }

    /// How many processes it has been; 1 before its first restart. 0 in a forked child.
    pub fn incarnation(&self) -> u32 {
        if self.is_ours() { self.plugin.life().incarnation } else { 0 }
    }

    /// How many times it has been restarted.
    pub fn restarts(&self) -> u32 {
        self.incarnation().saturating_sub(1)
    }

    /// Waits until the plugin has ended for good, for at most `timeout`; tells why it has.
    ///
    /// # Errors
    /// [`HandleError::Timeout`]; [`HandleError::InHook`] where it has not ended and one of its own
    /// hooks calls this; [`HandleError::Forked`].
    pub fn wait_exit(&self, timeout: Duration) -> Result<ExitReason, HandleError> {
        self.check_ours()?;
        let in_hook = self.plugin.hooks.are_called_here();
        let timeout = if in_hook { Duration::ZERO } else { timeout };
        let (life, _) = self.plugin.wait_until(timeout, Life::is_ended);
        match life.phase {
            Phase::Ended(reason) => Ok(reason),
            _ if in_hook => Err(HandleError::InHook),
            _ => Err(HandleError::Timeout),
        }
    }

    /// Ends the plugin: tells it, then SIGTERM, then SIGKILL, at the times that its
    /// [`PluginSpec`](super::PluginSpec) says. Returns when it has been reaped, and its hooks have
    /// been called; it is not restarted. [`ExitReason::Unknown`] where even SIGKILL does not end it
    /// in time: it is [left behind](super::HostEventKind::LeftBehind).
    ///
    /// # Errors
    /// [`HandleError::InHook`] where one of its own hooks calls this: it is being ended then.
    /// [`HandleError::Forked`].
    pub fn terminate(&self) -> Result<ExitReason, HandleError> {
        self.check_ours()?;
        let ending = self.plugin.stop(None)?;
        Ok(ending.reason.unwrap_or(ExitReason::Unknown))
    }

    /// Has the plugin end as [`terminate`](Self::terminate) does, and a successor start at once, with
    /// fresh segments and what the former has left unread, whatever its
    /// [`Restart`](super::Restart) says. Returns at once; [events](super::HostEventKind) and hooks
    /// tell how it goes. Where a restart is going on already, it is the one asked for.
    ///
    /// # Errors
    /// [`HandleError::NotRunning`] where it has ended, or has been told to. [`HandleError::Forked`].
    pub fn restart(&self) -> Result<(), HandleError> {
        self.check_ours()?;
        self.plugin.replace(Asked::Host)
    }

    /// Kills the plugin's process with SIGKILL and returns at once. What follows is what follows any
    /// failure: it may be restarted.
    ///
    /// # Errors
    /// [`HandleError::NotRunning`] where it has no process, because it has ended or is about to be
    /// started again; also where its process has ended and the host has not reaped it yet. `Ok` says that
    /// the signal was sent to a process that had not ended when the host looked. [`HandleError::Denied`] where the system does not allow it: the plugin runs as
    /// another user, and the host has no privilege to signal it. [`HandleError::Forked`].
    pub fn kill(&self) -> Result<(), HandleError> {
        self.check_ours()?;
        self.plugin.signal(libc::SIGKILL)
    }

    /// Takes the host's end of the plugin's standard input, where that is [piped](super::Stdio::piped).
    /// Each incarnation has pipes of its own; an end that was not taken is closed when the next
    /// incarnation starts. `None` where it was taken, and in a forked child.
    pub fn take_stdin(&self) -> Option<PipeWriter> {
        self.is_ours().then(|| self.plugin.life().pipes.stdin.take())?
    }

    /// Takes the host's end of the plugin's standard output, otherwise as
    /// [`take_stdin`](Self::take_stdin). The plugin waits when the pipe is full: read it on a thread that
    /// may wait, until its end. It ends when no process has the other end any more.
    pub fn take_stdout(&self) -> Option<PipeReader> {
        self.is_ours().then(|| self.plugin.life().pipes.stdout.take())?
    }

    /// The same for standard error.
    pub fn take_stderr(&self) -> Option<PipeReader> {
        self.is_ours().then(|| self.plugin.life().pipes.stderr.take())?
    }

    fn is_ours(&self) -> bool {
        fork::is_current(self.plugin.generation)
    }

    fn check_ours(&self) -> Result<(), HandleError> {
        if self.is_ours() { Ok(()) } else { Err(HandleError::Forked) }
    }
}
