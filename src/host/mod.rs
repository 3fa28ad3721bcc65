//! Plugin processes: starting, watching, ending and restarting them, with channels to each.
//!
//! A host program makes a [`Host`] and [spawns](Host::spawn) plugins; the program of a plugin calls
//! [`Plugin::connect`]. What always holds: nothing of a plugin has a name in the system, so nothing
//! is left when host and plugin are gone, however they ended; every process that is started is
//! reaped; a plugin that outlives its host is told so, and ended when it does not end itself.
//!
//! | file | what it holds |
//! |---|---|
//! | `spec`, `event`, `error` | what is asked for, what happened, what went wrong |
//! | `control` | the handshake: environment variable, messages, order |
//! | `isolation` | what a plugin's process may do less than its host |
//! | `launch` | one start of a process |
//! | `supervised` | one plugin: its state |
//! | `start`, `death` | its process: from fresh channels to ready; what follows its end |
//! | `restart` | back-off, fresh segments, unread messages |
//! | `handle` | what the host program holds of a plugin |
//! | `stop` | ending a plugin, for good or to make room for a successor |
//! | `hooks` | telling the host program of the turning points |
//! | `store` | the store that a host has |
//! | `plugin`, `listener` | the plugin's side; what it hears from its host |
//! | `service` | what plugins ask of their host, and the answers |
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
//! Besides that the host holds, per plugin, six descriptors, and no thread while nothing
//! happens to it. One thread serves all plugins, where there is something to serve.
//!
//! # Examples
//!
//! The host:
//!
//! ```no_run
//! use std::process::Command;
//! use ringway::host::{Host, PluginSpec, Restart};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::builder().build()?;
//! let spec = PluginSpec::new("nonebot", Command::new("./nonebot")).restart(Restart::on_failure());
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

pub mod control;
mod death;
mod error;
mod event;
mod handle;
mod hooks;
mod isolation;
mod launch;
#[allow(dead_code)]
pub(crate) mod links;
mod listener;
mod plugin;
mod restart;
mod service;
mod spec;
mod start;
mod stop;
mod store;
mod supervised;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::channel::ChannelOptions;
use crate::error::ExitReason;
use crate::os::fork;
use crate::os::pidfd::PidFd;
use crate::store::{Store, StoreOptions};
use hooks::HookList;
use service::{Server, Service, frame::SERVICE_STORE};
use store::{HostStore, StoreService};
use supervised::{Common, Supervised};

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
pub use plugin::{EXIT_CODE_HOST_GONE, Plugin};
pub use service::error::{ServiceError, ServiceProblem};
pub use service::frame;
pub use spec::{MAX_NAME_BYTES, PluginSpec, Restart};

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
    store: Option<Arc<HostStore>>,
    /// The fork generation it was made in.
    generation: u64,
    /// In the order in which they were started.
    plugins: Mutex<Vec<Arc<Supervised>>>,
}

/// Makes a [`Host`].
#[derive(Debug, Default)]
pub struct HostBuilder {
    options: ChannelOptions,
    hooks: HookList,
    serves: bool,
    #[allow(dead_code)]
    links: bool,
    store: Option<StoreOptions>,
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

impl HostBuilder {
    /// What the channels of plugins are like whose [`PluginSpec`] does not say.
    #[must_use]
    pub fn channel_options(mut self, options: ChannelOptions) -> Self {
        self.options = options;
        self
    }

    /// Calls `hook` at each such moment of every plugin's life, before the plugin's own hooks
    /// ([`PluginSpec::hook`], which says more).
    ///
    /// ```
    /// use ringway::host::{Host, Moment};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let host = Host::builder()
    ///     .hook(Moment::AfterRestart, |occasion| {
    ///         println!("{} is process number {}", occasion.plugin.name(), occasion.incarnation);
    ///     })
    ///     .build()?;
    /// # drop(host);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn hook(
        mut self,
        moment: Moment,
        hook: impl Fn(&Occasion) + Send + Sync + 'static,
    ) -> Self {
        self.hooks.add(moment, Arc::new(hook));
        self
    }

    /// Gives the host a store without a name. A plugin that is [trusted](PluginSpec::trust_with_store)
    /// with it reads and writes it as the host does: [`Host::store`] and [`Plugin::store`] are the same
    /// calls on both sides. Any other plugin gets it read-only, and reads by copying; with the same calls it
    /// asks the host to write, within [its quota](PluginSpec::store_quota). One that is
    /// [denied](PluginSpec::no_store) it does not get it.
    ///
    /// The store's memory is the host's, and gone with its last user; it stays as it is through
    /// restarts of plugins. Of [`StoreOptions::max_readers`] the host needs two, and one more for each
    /// handle of its own and of plugins that it trusts.
    ///
    /// ```
    /// use ringway::host::Host;
    /// use ringway::store::StoreOptions;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let options = StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() };
    /// let host = Host::builder().store(options).build()?;
    /// host.store()?.set("motd", b"hello")?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn store(mut self, options: StoreOptions) -> Self {
        self.store = Some(options);
        self
    }

    /// Gives every plugin a service channel, also where there is nothing else to ask for, so that
    /// [`Plugin::ping`] has an answer.
    #[must_use]
    pub fn answer_pings(mut self) -> Self {
        self.serves = true;
        self
    }

    /// Lets the host and its plugins make channels with each other, whoever started whom: the registry,
    /// topics and calls stand on it. Without it these calls end with [`LinkError::NotServed`]. The
    /// host makes and seals the channels; no message passes through it.
    #[must_use]
    pub fn links(mut self) -> Self {
        self.links = true;
        self.serves = true;
        self
    }

    /// Makes the host.
    ///
    /// # Errors
    /// [`HostError::Os`] where the system has no pidfds, or descriptors have run out;
    /// [`HostError::Store`] where there can be no such store, or no room for it.
    pub fn build(self) -> Result<Host, HostError> {
        let os = |call| move |source| HostError::Os { call, source };
        let generation = fork::generation().map_err(os("mmap"))?;
        let pidfd = PidFd::open(process::id()).map_err(os("pidfd_open"))?;
        let own_pidfd = pidfd.as_fd().try_clone_to_owned().map_err(os("dup"))?;
        let store = self.store.as_ref().map(HostStore::new).transpose()?.map(Arc::new);
        let mut services: HashMap<u16, Box<dyn Service>> = HashMap::new();
        if let Some(store) = &store {
            services.insert(SERVICE_STORE, Box::new(StoreService::new(store.handle_of_host()?)));
        }
        let serves = self.serves || !services.is_empty();
        let server = serves.then(|| Server::start(services).map(Arc::new)).transpose()?;
        Ok(Host {
            server,
            store,
            options: self.options,
            hooks: self.hooks,
            events: Arc::default(),
            own_pidfd: Arc::new(own_pidfd),
            generation,
            plugins: Mutex::default(),
        })
    }
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
            pidfd: &self.own_pidfd,
            server: self.server.as_ref(),
            store: self.store.as_ref(),
            generation: self.generation,
        };
        let plugin = Arc::new(Supervised::new(spec, common)?);
        plugins.push(Arc::clone(&plugin));
        Ok(plugin)
    }

    /// A handle of the host's store, for this thread; each thread has one of its own.
    ///
    /// # Errors
    /// [`StoreError::None`] where it has [none](HostBuilder::store); [`StoreError::Handle`] where all
    /// reader records are in use, or this process has forked since.
    pub fn store(&self) -> Result<Store, StoreError> {
        self.store.as_ref().ok_or(StoreError::None)?.handle_of_host()
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
    #[allow(dead_code)]
    pub(crate) fn desk(&self) -> Result<Arc<links::Desk>, LinkError> {
        Err(LinkError::NotServed)
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
        if let Some(store) = &self.store {
            store.close();
        }
    }
}
