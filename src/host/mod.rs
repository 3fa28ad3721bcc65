//! Plugin processes: starting, watching, ending and restarting them, with channels to each.
//!
//! A host program makes a [`Host`] and [spawns](Host::spawn) plugins; the program of a plugin calls
//! [`Plugin::connect`]. What always holds: nothing of a plugin has a name in the system, so nothing
//! is left when host and plugin are gone, however they ended; every process that is started is
//! reaped; a plugin that outlives its host is told so, and ended when it does not end itself.
//!
//! | file | what it holds |
//! |---|---|
//! | `builder` | what a host is made of |
//! | `spec`, `policy`, `event`, `error` | what is asked for, what happened, what went wrong |
//! | `control` | the handshake: environment variable, messages, order |
//! | `program` | what a plugin executes, with which streams |
//! | `process`, `isolation` | what kind of process it is, and what it may do less than its host |
//! | `launch` | one start of a process |
//! | `supervised`, `threads` | one plugin: its state, the order of locks, its threads |
//! | `start`, `death` | its process: from fresh channels to ready; what follows its end |
//! | `restart` | back-off, fresh segments, unread messages |
//! | `liveness` | whether a plugin's process answers |
//! | `handle` | what the host program holds of a plugin |
//! | `stop` | ending a plugin, for good or to make room for a successor |
//! | `hooks` | telling the host program of the turning points |
//! | `store` | the store that a host has |
//! | `payloads` | its store for large publications |
//! | `links` | channels between any two processes: who brokers them, and how both get an end |
//! | `registry` | channels by name or ticket |
//! | `plugin`, `guard`, `listener` | the plugin's side; its watch over its host; what it hears from it |
//! | `service` | what plugins ask of their host, and the answers |
//! | `others` | what a plugin sees of other plugins, and may do to them |
//!
//! # What a death costs
//!
//! A plugin that dies is replaced, if its [`Restart`] says so, by a process with fresh segments (the
//! old ones may still be written, by children that it has forked). The host's ends follow: the next
//! call on each returns `Restarted`, once; what the dead one had committed is received before
//! anything of its successor's; messages that it had not finished with are in the new segments
//! before any new one. So a message can be delivered twice, and is never lost, but where it was the first
//! unread one at more deaths in a row than [`PluginSpec::max_redeliveries`] allows: then it is
//! dropped and [reported](HostEventKind::Dropped). A plugin that breaks the rules can also make them
//! unreadable before it dies, to its own successor's loss, which is [reported](HostEventKind::Spoilt)
//! too.
//!
//! An end follows when it is used. One that is neither used nor dropped keeps the memory of the
//! incarnation that it was used with last, and of those since in which something is unread, or where
//! the other end of the channel is used: drop the channel that a program does not need.
//!
//! # What a plugin costs
//!
//! Three segments: `{name}-active` and `{name}-passive`, each of two rings, and a control channel of
//! two rings of 4 KiB; and where the host has something to serve, a service channel of two rings of 64
//! KiB. The host creates them, so that their memory is charged to the host's memory
//! cgroup, whatever the plugin's is. All of it is reserved and touched when a plugin is spawned, in
//! both processes before the first message: a machine that has no room for it is an error of
//! [`Host::spawn`], and no signal later. A *cgroup* that has none calls the kernel's killer, at that
//! moment and not under load: give the host's cgroup room for all plugins, and once more for each
//! that is being restarted, since the old segments stay until their unread messages have been read.
//! Besides that the host holds, per plugin, seven descriptors, an eighth where it
//! [links processes](HostBuilder::links), and no thread while nothing happens to it. One thread serves all plugins, where there is something to serve.
//!
//! # Examples
//!
//! The host:
//!
//! ```no_run
//! use ringway::host::{Host, PluginSpec, Restart};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::builder().build()?;
//! let spec = PluginSpec::new("nonebot", "./nonebot").restart(Restart::on_failure());
//! let plugin = host.spawn(spec)?;
//! let (mut active, passive) = plugin.take_channels()?;
//! drop(passive);
//! active.send(b"hello")?;
//! println!("{} bytes from {}", active.recv()?.len(), plugin.name());
//! # Ok(())
//! # }
//! ```
//!
//! The plugin, `./nonebot`:
//!
//! ```no_run
//! use ringway::host::Plugin;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let plugin = Plugin::connect()?;
//! let (active, _passive) = plugin.take_channels()?;
//! let (mut sender, mut receiver) = active.split();
//! while let Ok(message) = receiver.recv() {
//!     sender.send(&message)?;
//! }
//! # Ok(())
//! # }
//! ```

mod builder;
pub mod control;
mod death;
mod error;
mod event;
mod guard;
mod handle;
mod hooks;
mod isolation;
mod launch;
pub(crate) mod links;
mod listener;
mod liveness;
mod others;
mod payloads;
mod plugin;
mod policy;
mod process;
mod program;
mod registry;
mod restart;
mod service;
mod spec;
mod start;
mod stop;
mod store;
mod supervised;
mod threads;
mod topics;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::channel::ChannelOptions;
use crate::error::ExitReason;
use crate::os::fork;
use crate::os::keeper::Keeper;
use crate::store::Store;
use crate::supervisor::WatchToken;
use hooks::HookList;
use links::HostLinks;
use others::Roster;
use service::Server;
use store::HostStore;
use supervised::{Common, Supervised};

pub use builder::HostBuilder;
pub use control::{StopCause, StopNotice};
pub use error::{
    ConnectError, HandleError, HostError, NameError, RequestError, RequestProblem, SpawnError,
    StoreError, TakeChannelsError,
};
pub use event::{HostEvent, HostEventKind};
pub use handle::{PluginHandle, PluginState};
pub use hooks::{Moment, Occasion};
pub use isolation::{IsolationStep, Limit};
pub use links::LinkError;
pub use others::{
    ControlAction, ControlError, ControlRequest, PluginChange, PluginInfo, PluginWatch,
};
pub use plugin::{EXIT_CODE_HOST_GONE, Plugin};
pub use policy::Restart;
pub use process::SchedulingPolicy;
pub use program::Stdio;
pub use registry::{AcceptError, ChannelListener, ListedChannel, Ticket, TypedListener};
pub use service::error::{ServiceError, ServiceProblem};
pub use service::frame;
pub use spec::{MAX_NAME_BYTES, PluginSpec};

/// A process's plugins.
///
/// Dropping it ends them all *at once*: each is told, the one started last first, then gets SIGTERM,
/// then SIGKILL, at the times that its [`PluginSpec`] says, so that the drop takes as long as the most
/// patient of them. It returns when all have been reaped. [`shutdown`](Self::shutdown) ends one
/// *after the other*.
#[derive(Debug)]
pub struct Host {
    options: ChannelOptions,
    hooks: HookList,
    events: Arc<event::Events>,
    /// A pidfd of this very process, for plugins to watch.
    own_pidfd: Arc<OwnedFd>,
    /// Where there is something to serve.
    server: Option<Arc<Server>>,
    links: Option<HostLinks>,
    store: Option<Arc<HostStore>>,
    /// For large publications.
    payloads: Option<Arc<HostStore>>,
    roster: Arc<Roster>,
    /// Starts plugins, and ends what outlives this process.
    keeper: Option<Arc<Keeper>>,
    /// Until the host itself ends the keeper.
    keeper_watch: Mutex<Option<WatchToken>>,
    /// The fork generation it was made in.
    generation: u64,
    /// In the order in which they were started.
    plugins: Mutex<Vec<Arc<Supervised>>>,
    /// The client that all who ask for one share.
    pub(crate) rpc: OnceLock<crate::rpc::Client>,
}

/// How a plugin ended in [`Host::shutdown`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    /// The plugin's name.
    pub plugin: String,
    /// Why it ended. `None` where it has not: it was [left behind](HostEventKind::LeftBehind), or
    /// `shutdown` was called from one of its own hooks, and it ends when that returns.
    pub reason: Option<ExitReason>,
    /// Whether it had to be killed, because it had not ended when its time was up.
    pub killed: bool,
}

impl Host {
    /// Starts making a host.
    pub fn builder() -> HostBuilder {
        HostBuilder::default()
    }

    /// Starts a plugin and waits until it is ready.
    ///
    /// # Errors
    /// [`SpawnError`] says why it is not; nothing of it is left then.
    pub fn spawn(&self, spec: PluginSpec) -> Result<PluginHandle, SpawnError> {
        if !fork::is_current(self.generation) {
            return Err(SpawnError::Forked);
        }
        if let Err(problem) = spec::check_name(&spec.name) {
            return Err(SpawnError::Name { name: spec.name, problem });
        }
        let plugin = self.enlist(spec)?;
        match plugin.start_first() {
            Ok(()) => Ok(PluginHandle::new(plugin)),
            Err(error) => {
                self.plugins().retain(|other| !Arc::ptr_eq(other, &plugin));
                Err(error)
            }
        }
    }

    /// Puts a plugin on the list, unless its name is taken.
    fn enlist(&self, spec: PluginSpec) -> Result<Arc<Supervised>, SpawnError> {
        let mut plugins = self.plugins();
        plugins.retain(|plugin| !plugin.is_over());
        if plugins.iter().any(|plugin| plugin.name == spec.name && !plugin.life().is_ended()) {
            return Err(SpawnError::Duplicate { name: spec.name });
        }
        let common = Common {
            options: &self.options,
            hooks: &self.hooks,
            events: &self.events,
            roster: &self.roster,
            pidfd: &self.own_pidfd,
            server: self.server.as_ref(),
            links: self.links.is_some(),
            store: self.store.as_ref(),
            payloads: self.payloads.as_ref(),
            keeper: self.keeper.as_ref(),
            generation: self.generation,
        };
        let may_control = spec.may_control.clone();
        let plugin = Arc::new(Supervised::new(spec, common)?);
        self.roster.enlist(&plugin, may_control);
        plugins.push(Arc::clone(&plugin));
        Ok(plugin)
    }

    /// The plugin of this name, unless it has ended for good; `None` in a forked child.
    pub fn plugin(&self, name: &str) -> Option<PluginHandle> {
        if !fork::is_current(self.generation) {
            return None;
        }
        let plugins = self.plugins();
        let found = plugins.iter().find(|plugin| plugin.name == name && !plugin.life().is_ended());
        found.map(|plugin| PluginHandle::new(Arc::clone(plugin)))
    }

    /// A handle of the host's store, for this thread; each thread has one of its own.
    ///
    /// # Errors
    /// [`StoreError::None`] where it has [none](HostBuilder::store); [`StoreError::Handle`] where all
    /// reader records are in use, or this process has forked since.
    pub fn store(&self) -> Result<Store, StoreError> {
        self.store.as_ref().ok_or(StoreError::None)?.handle_of_host()
    }

    /// A handle of the store for large publications, where there is one.
    pub(super) fn payloads(&self) -> Option<Store> {
        self.payloads.as_ref()?.handle_of_host().ok()
    }

    /// The next thing that happened to a plugin, waiting for it for at most `timeout`. Each event is
    /// returned once; while nobody asks, the last 4096 are kept.
    pub fn next_event(&self, timeout: Duration) -> Option<HostEvent> {
        self.events.next(timeout)
    }

    /// How many events have been forgotten because nobody asked for them.
    pub fn forgotten_events(&self) -> u64 {
        self.events.forgotten()
    }

    /// Ends all plugins that have been started, one after the other, the one started last first:
    /// whatever was started earlier is there while what was started later, and may need it, finishes
    /// its work. Each has the time that its [`PluginSpec`] says; all together have `timeout`, and what
    /// is left when it is over is killed without delay. Says how each of them ended, in the order in
    /// which they did.
    ///
    /// That is the way for a host that has the time: a signal in the terminal, a stop of its service.
    /// One that has not drops itself, which takes no longer than its most patient plugin.
    ///
    /// # Errors
    /// [`HandleError::Forked`].
    pub fn shutdown(&self, timeout: Duration) -> Result<Vec<Shutdown>, HandleError> {
        if !fork::is_current(self.generation) {
            return Err(HandleError::Forked);
        }
        let latest = Instant::now().checked_add(timeout);
        let plugins = self.plugins().clone();
        let mut report = Vec::new();
        for plugin in plugins.iter().rev().filter(|plugin| !plugin.life().is_ended()) {
            let ending = plugin.stop(latest).ok();
            report.push(Shutdown {
                plugin: plugin.name.clone(),
                reason: ending.and_then(|ending| ending.reason),
                killed: ending.is_some_and(|ending| ending.killed),
            });
        }
        Ok(report)
    }

    /// The host's own desk for links.
    ///
    /// # Errors
    /// [`LinkError::NotServed`], [`LinkError::Forked`].
    pub(crate) fn desk(&self) -> Result<Arc<links::Desk>, LinkError> {
        if !fork::is_current(self.generation) {
            return Err(LinkError::Forked);
        }
        self.links.as_ref().ok_or(LinkError::NotServed)?.desk()
    }

    fn plugins(&self) -> MutexGuard<'_, Vec<Arc<Supervised>>> {
        self.plugins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The plugins of the process that this one was forked from are not ours to end.
        if !fork::is_current(self.generation) {
            return;
        }
        let plugins = std::mem::take(&mut *self.plugins());
        let mut waited_for = Vec::new();
        for plugin in plugins.iter().rev() {
            if plugin.hooks.are_called_here() {
                // Another thread ends it when the hook has returned.
                let _ = plugin.stop(None);
            } else {
                plugin.begin_stop();
                waited_for.push((plugin, plugin.schedule(None)));
            }
        }
        // What comes first is waited for first, so that nobody's patience adds to another's.
        waited_for.sort_by_key(|(_, schedule)| schedule.terminate_at);
        for (plugin, schedule) in &waited_for {
            plugin.await_notice(*schedule);
        }
        waited_for.sort_by_key(|(_, schedule)| schedule.kill_at);
        for (plugin, schedule) in &waited_for {
            plugin.await_grace(*schedule);
        }
        for (plugin, _) in waited_for {
            plugin.settle(false);
            // The ends that nobody has taken.
            plugin.life().channels = None;
        }
        if let Some(server) = &self.server {
            // Handles of plugins keep it; there is nobody left to serve.
            server.stop();
        }
        if let Some(links) = &self.links {
            links.close();
        }
        for store in [&self.store, &self.payloads].into_iter().flatten() {
            store.close();
        }
        drop(self.keeper_watch.get_mut().map(Option::take));
        if let Some(keeper) = &self.keeper {
            keeper.close();
        }
    }
}
