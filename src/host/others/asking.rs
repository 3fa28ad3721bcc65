//! The plugin's side: its calls as requests to the host.
//!
//! Any thread of a plugin may call these. What always holds: a call ends by its deadline; a watch that is asked again goes on
//! behind the last change that it told.

use std::sync::Arc;
use std::time::Duration;

use super::acting::ControlAction;
use super::error::ControlError;
use super::roster::Change;
use super::wire::{
    self, STATUS_BUSY, STATUS_DENIED, STATUS_NOT_PERMITTED, STATUS_NOT_RUNNING, STATUS_NOTHING,
    STATUS_UNKNOWN_NAME,
};
use crate::host::handle::PluginState;
use crate::host::plugin::Plugin;
use crate::host::service::Client;
use crate::host::service::error::ServiceError;
use crate::host::service::frame::{OP_PLUGIN_LIST, OP_PLUGIN_WATCH, STATUS_DONE};
use crate::host::spec::check_name;

/// How long an answer may take that has nothing to wait for: the host is alive, and its thread is not.
const ANSWER: Duration = Duration::from_secs(10);

/// How long the answer to a watch may take behind its deadline.
const LATE: Duration = Duration::from_secs(1);

/// A plugin of the host, as another plugin sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PluginInfo {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub state: PluginState,
    /// How many processes it has been; 0 before its first one runs.
    pub incarnation: u32,
}

/// Something that has happened to a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PluginChange {
    /// Where it has got to, and why the process before ended where one has.
    pub state: PluginState,
    /// How many processes it has been.
    pub incarnation: u32,
    /// Number of the change: changes of all plugins of a host have growing numbers.
    pub number: u64,
    /// Whether changes before this one, behind the one that was told last, are not told any more: the host keeps
    /// the last 64 of each plugin.
    pub missed: bool,
}

/// A watch over another plugin. Made by [`Plugin::watch_plugin`].
#[derive(Debug)]
pub struct PluginWatch {
    client: Arc<Client>,
    name: String,
    last: PluginChange,
}

impl From<Change> for PluginChange {
    fn from(change: Change) -> Self {
        let Change { number, state, incarnation, missed } = change;
        Self { state, incarnation, number, missed }
    }
}

impl Plugin {
    /// All plugins of the host, in the order of their names, this one too. Each is told as it was when it was met; one
    /// that has ended stays on the list until its name is used again, or many have ended after it.
    ///
    /// # Errors
    /// [`ControlError::Service`]: [`NotServed`](ServiceError::NotServed) where the host
    /// [serves](crate::host::HostBuilder::process_control) nothing of the kind.
    pub fn plugins(&self) -> Result<Vec<PluginInfo>, ControlError> {
        let client = self.client()?;
        let mut found = Vec::<PluginInfo>::new();
        loop {
            let behind = found.last().map_or("", |plugin| &plugin.name);
            let reply = client.call(OP_PLUGIN_LIST, behind.as_bytes(), ANSWER)?;
            let (mut rest, before) = (&reply.payload[..], found.len());
            while let Some((name, Change { state, incarnation, .. })) = wire::take_entry(&mut rest)
            {
                found.push(PluginInfo { name, state, incarnation });
            }
            if reply.status != STATUS_DONE || !rest.is_empty() {
                return Err(ControlError::Answer { op: OP_PLUGIN_LIST });
            }
            if found.len() == before {
                return Ok(found);
            }
        }
    }

    /// Has the host end a plugin's process and start a successor, as
    /// [`PluginHandle::restart`](crate::host::PluginHandle::restart) does: what it leaves unread reaches the successor.
    /// Returns when that has begun; a [watch](Self::watch_plugin) tells how it goes.
    ///
    /// The host program decides what a plugin may do to others ([`PluginSpec::may_control`]); to itself it may do
    /// everything, and is ended then like any other, perhaps before the answer comes. Between restarts of itself there
    /// is [a pause](crate::host::Restart).
    ///
    /// [`PluginSpec::may_control`]: crate::host::PluginSpec::may_control
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn restart_plugin(&self, name: &str) -> Result<(), ControlError> {
        self.control(ControlAction::Restart, name)
    }

    /// Has the host end a plugin for good: told, SIGTERM, SIGKILL, as its
    /// [`PluginSpec`](crate::host::PluginSpec) says. Otherwise as [`restart_plugin`](Self::restart_plugin).
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn stop_plugin(&self, name: &str) -> Result<(), ControlError> {
        self.control(ControlAction::Stop, name)
    }

    /// Has the host kill a plugin's process with SIGKILL. What follows is what follows any failure: it may be restarted.
    /// Otherwise as [`restart_plugin`](Self::restart_plugin).
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn kill_plugin(&self, name: &str) -> Result<(), ControlError> {
        self.control(ControlAction::Kill, name)
    }

    /// Watches a plugin from now on, this one or another. [`PluginWatch::last`] is where it is now.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use ringway::host::{Plugin, PluginState};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let plugin = Plugin::connect()?;
    /// plugin.ready()?;
    /// let mut watch = plugin.watch_plugin("worker")?;
    /// plugin.restart_plugin("worker")?;
    /// while let Some(change) = watch.wait(Duration::from_secs(60))? {
    ///     match change.state {
    ///         PluginState::Restarting { reason } => println!("it has ended: {reason}"),
    ///         PluginState::Running => break,
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ControlError::Unknown`], [`ControlError::Service`].
    pub fn watch_plugin(&self, name: &str) -> Result<PluginWatch, ControlError> {
        let client = Arc::clone(self.client()?);
        check(name)?;
        let (last, name) = (ask(&client, name, wire::NOW, Duration::ZERO)?, name.into());
        let last = last.ok_or(ControlError::Answer { op: OP_PLUGIN_WATCH })?;
        Ok(PluginWatch { client, name, last })
    }

    fn client(&self) -> Result<&Arc<Client>, ServiceError> {
        self.service.as_ref().ok_or(ServiceError::NotServed)
    }

    fn control(&self, action: ControlAction, name: &str) -> Result<(), ControlError> {
        let client = self.client()?;
        check(name)?;
        let reply = client.call(action.op(), name.as_bytes(), ANSWER)?;
        let name = name.into();
        match reply.status {
            STATUS_DONE => Ok(()),
            STATUS_UNKNOWN_NAME => Err(ControlError::Unknown { name }),
            STATUS_NOT_PERMITTED => Err(ControlError::NotPermitted { action, name }),
            STATUS_NOT_RUNNING => Err(ControlError::NotRunning { name }),
            STATUS_BUSY => Err(ControlError::Busy),
            STATUS_DENIED => Err(ControlError::Denied { name }),
            _ => Err(ControlError::Answer { op: action.op() }),
        }
    }
}

/// No plugin has a name that none can have; and the host would not take it for a request.
fn check(name: &str) -> Result<(), ControlError> {
    check_name(name).map_err(|_| ControlError::Unknown { name: name.into() })
}

impl PluginWatch {
    /// The plugin's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The change that was told last, or the one before the watch began.
    pub fn last(&self) -> PluginChange {
        self.last
    }

    /// Waits for the next change, for at most `timeout`; then there is none. Changes are told one by one, in their
    /// order, also those that came between two waits and those of a later plugin of the same name. The host answers at
    /// the change, and nobody looks at intervals.
    ///
    /// # Errors
    /// [`ControlError::Unknown`] where the name has been forgotten; [`ControlError::Service`], which is a
    /// [`Timeout`](ServiceError::Timeout) where the host has not answered a second behind the deadline.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<PluginChange>, ControlError> {
        let change = ask(&self.client, &self.name, self.last.number, timeout)?;
        self.last = change.unwrap_or(self.last);
        Ok(change)
    }
}

fn ask(
    client: &Client,
    name: &str,
    seen: u64,
    timeout: Duration,
) -> Result<Option<PluginChange>, ControlError> {
    let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    let request = wire::watch(seen, timeout_ns, name);
    let reply = client.call(OP_PLUGIN_WATCH, &request, timeout.saturating_add(LATE))?;
    match (reply.status, wire::take_entry(&mut &reply.payload[..])) {
        (STATUS_DONE, Some((_, change))) => Ok(Some(change.into())),
        (STATUS_NOTHING, _) => Ok(None),
        (STATUS_UNKNOWN_NAME, _) => Err(ControlError::Unknown { name: name.into() }),
        _ => Err(ControlError::Answer { op: OP_PLUGIN_WATCH }),
    }
}
