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
//! | `supervised` | one plugin: phases, death, end |
//! | `restart` | back-off, fresh segments, unread messages |
//! | `handle` | what the host program holds of a plugin |
//! | `plugin` | the plugin's side |
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
mod error;
mod event;
mod handle;
mod isolation;
mod launch;
mod plugin;
mod restart;
mod spec;
mod supervised;

use std::os::fd::{AsFd, OwnedFd};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::channel::ChannelOptions;
use crate::os::fork;
use crate::os::pidfd::PidFd;
use supervised::{Phase, Supervised};

pub use error::{ConnectError, HostError, NameError, SpawnError, TakeChannelsError};
pub use event::{HostEvent, HostEventKind};
pub use handle::{PluginHandle, PluginState};
pub use isolation::{IsolationStep, Limit};
pub use plugin::{EXIT_CODE_HOST_GONE, Plugin};
pub use spec::{MAX_NAME_BYTES, PluginSpec, Restart};

/// A process's plugins.
///
/// Dropping it ends them all: SIGTERM to each, the one started last first; SIGKILL to those that
/// are still there after their grace. It returns when all have been reaped.
#[derive(Debug)]
pub struct Host {
    options: ChannelOptions,
    events: Arc<event::Events>,
    /// A pidfd of this very process, for plugins to watch.
    own_pidfd: Arc<OwnedFd>,
    /// The fork generation it was made in.
    generation: u64,
    /// In the order in which they were started.
    plugins: Mutex<Vec<Arc<Supervised>>>,
}

/// Makes a [`Host`].
#[derive(Debug, Default)]
pub struct HostBuilder {
    options: ChannelOptions,
}

impl HostBuilder {
    /// What the channels of plugins are like whose [`PluginSpec`] does not say.
    #[must_use]
    pub fn channel_options(mut self, options: ChannelOptions) -> Self {
        self.options = options;
        self
    }

    /// Makes the host.
    ///
    /// # Errors
    /// [`HostError::Os`] where the system has no pidfds, or descriptors have run out.
    pub fn build(self) -> Result<Host, HostError> {
        let os = |call| move |source| HostError::Os { call, source };
        let generation = fork::generation().map_err(os("mmap"))?;
        let pidfd = PidFd::open(process::id()).map_err(os("pidfd_open"))?;
        let own_pidfd = pidfd.as_fd().try_clone_to_owned().map_err(os("dup"))?;
        Ok(Host {
            options: self.options,
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
        let lives = |plugin: &Supervised| !matches!(plugin.life().phase, Phase::Ended(_));
        if plugins.iter().any(|plugin| plugin.name == spec.name && lives(plugin)) {
            return Err(SpawnError::Duplicate { name: spec.name });
        }
        let (events, host) = (Arc::clone(&self.events), Arc::clone(&self.own_pidfd));
        let plugin = Arc::new(Supervised::new(spec, &self.options, events, host)?);
        plugins.push(Arc::clone(&plugin));
        Ok(plugin)
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
        let begun = Instant::now();
        for plugin in plugins.iter().rev() {
            plugin.begin_stop();
        }
        for plugin in plugins.iter().rev() {
            plugin.finish_stop(plugin.grace.saturating_sub(begun.elapsed()));
            // The ends that nobody has taken.
            plugin.life().channels = None;
        }
    }
}
