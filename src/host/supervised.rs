//! One plugin over all its incarnations: its state, and who changes it.
//!
//! [`Host`](super::Host) makes one for each plugin; `start`, `death`, `restart` and `stop` are what
//! happens to it, [`PluginHandle`](super::PluginHandle) looks at it.
//! Invariants: there is at most one process of a plugin; it changes phase under one lock; every change
//! of phase is followed by `notify`.
//!
//! # Locks
//!
//! A thread that holds one of these locks takes only locks further down:
//!
//! 1. the host's list of plugins (`Host::plugins`),
//! 2. a plugin's `Supervised::life`,
//! 3. a plugin's `Hooks::turns`; the roster; a `Connection`'s fate (the older incarnation's first),
//! 4. `Events`, the supervisor's table of watches, a start's state (`os::spawn`).
//!
//! None of them is held while a process is started, greeted, waited for or reaped, while a hook runs, or
//! while a thread is joined. What a thread does under them makes system calls that do not wait.
//!
//! | phase | who leaves it | for |
//! |---|---|---|
//! | `Starting` | the thread that called `spawn` | `Running`, `Ended` |
//! | `Running` | the supervisor, at the death; who has waited for it in vain | `Restarting`, `Ended` |
//! | `Restarting` | the plugin's restart thread | `Running`, `Ended` |
//! | `Ended` | nobody | |

use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use super::control::Grant;
use super::error::{HandleError, SpawnError};
use super::event::{Events, HostEventKind};
use super::hooks::{HookList, Hooks};
use super::launch::Launcher;
use super::others::Roster;
use super::policy::Restart;
use super::program::Pipes;
use super::restart::Suspicion;
use super::service::{Server, Visit};
use super::spec::{Patience, PluginSpec};
use super::store::HostStore;
use crate::channel::{Channel, ChannelOptions, Connection};
use crate::error::ExitReason;
use crate::os::keeper::Keeper;
use crate::os::start::{Start, Started};
use crate::store::StoreQuota;
use crate::supervisor::WatchToken;

/// Where a plugin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Starting,
    Running,
    Restarting(ExitReason),
    Ended(ExitReason),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Supervised {
    pub(super) name: String,
    pub(super) restart: Restart,
    pub(super) patience: Patience,
    pub(super) max_redeliveries: u32,
    pub(super) hooks: Hooks,
    /// The fork generation of its host.
    pub(super) generation: u64,
    pub(super) ready_timeout: Duration,
    pub(super) options: ChannelOptions,
    pub(super) events: Arc<Events>,
    roster: Arc<Roster>,
    /// The host's own pidfd, which every plugin inherits.
    pub(super) host: Arc<OwnedFd>,
    /// Where the host has something to serve.
    pub(super) server: Option<Arc<Server>>,
    /// Whether the host links processes.
    pub(super) links: bool,
    /// The host's store, where it has one, and what this plugin may do with it.
    pub(super) store: Option<Arc<HostStore>>,
    /// The host's store for large publications, for which `grant` holds as well.
    pub(super) payloads: Option<Arc<HostStore>>,
    pub(super) grant: Grant,
    /// How much it may ask of the store where it does not write it itself.
    quota: StoreQuota,
    pub(super) launcher: Launcher,
    /// Starts the plugin where it can, and ends its group when the host is gone.
    pub(super) keeper: Option<Arc<Keeper>>,
    pub(super) liveness: Option<Duration>,
    life: Mutex<Life>,
    changed: Condvar,
}

/// What changes.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) phase: Phase,
    /// Whether it has been told to end: no more starts.
    pub(super) stopping: bool,
    /// How many processes it has been.
    pub(super) incarnation: u32,
    /// How often in a row it has failed.
    pub(super) failures: u32,
    /// The active and the passive channel of the last incarnation.
    pub(super) connections: Option<[Arc<Connection>; 2]>,
    /// The host's ends, until somebody takes them.
    pub(super) channels: Option<(Channel, Channel)>,
    /// Who has asked for the end of the process, so that a successor takes its place.
    pub(super) asked: Option<Asked>,
    /// Whether the restart that is going on has been told to the hooks.
    pub(super) restart_told: bool,
    /// Threads that restart it, end it, or call its hooks.
    pub(super) busy: Vec<ThreadId>,
    /// The same, and those that have nothing to do any more but to return.
    pub(super) threads: Vec<JoinHandle<()>>,
    /// Whether the last process has said that it is ready, until its death has been acted upon.
    pub(super) was_ready: bool,
    /// The start that is going on.
    pub(super) starting: Option<Start>,
    pub(super) process: Option<Process>,
    /// The host's ends of the last process's streams.
    pub(super) pipes: Pipes,
    /// The group of the last process that has ended, where it may have members and time left.
    pub(super) remains: Option<Remains>,
    /// When a stop that is going on kills.
    pub(super) kill_at: Option<Instant>,
    /// Threads that could not be started yet, and what tries again.
    pub(super) delayed: u32,
    pub(super) retries: Vec<WatchToken>,
    /// What of the last process that was served may still be to be done.
    pub(super) visit: Option<Arc<Visit>>,
    /// How the process of the current start ended.
    pub(super) exit: Option<ExitReason>,
    /// How the process before ended.
    pub(super) former_exit: Option<ExitReason>,
    pub(super) ready_at: Option<Instant>,
    pub(super) suspicions: [Suspicion; 2],
}

/// Who has asked for a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Host,
    Plugin,
}

/// The process that is alive, or not yet known to be dead.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) started: Arc<Started>,
    /// Closing it ends the plugin's session.
    pub(super) session: OwnedFd,
    /// Whether it is being reaped: its number may mean another process from then on.
    pub(super) is_dead: bool,
    /// From when it is ready on. Closing it would tell the plugin that the host is gone.
    pub(super) control: Option<Channel>,
    /// Hears the plugin's bell, once.
    pub(super) bell: Option<WatchToken>,
    /// Asks whether it runs, where that is wanted.
    pub(super) liveness: Option<WatchToken>,
    pub(super) _watch: WatchToken,
}

/// What is left of a process that has ended: the group that it led.
#[derive(Debug)]
pub(super) struct Remains {
    pub(super) started: Arc<Started>,
    /// When it is killed.
    pub(super) kill_at: Instant,
}

impl Life {
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.started.pid)
    }

    /// Sends a signal to the process and its group. A process that is being started has no program that
    /// could handle a signal: it is killed.
    ///
    /// # Errors
    /// [`HandleError::NotRunning`], [`HandleError::Denied`].
    pub(super) fn signal(&self, signal: i32) -> Result<(), HandleError> {
        let Some(process) = self.process.as_ref().filter(|process| !process.is_dead) else {
            let start = self.starting.as_ref().ok_or(HandleError::NotRunning)?;
            start.kill();
            return Ok(());
        };
        process.started.signal(signal).map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH) | None => HandleError::NotRunning,
            Some(os_error) => HandleError::Denied { os_error },
        })
    }

    /// How the last process that has ended did.
    pub(super) fn last_exit(&self) -> Option<ExitReason> {
        self.exit.or(self.former_exit)
    }

    pub(super) fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }
}

/// What a host's plugins have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Common<'a> {
    pub(super) options: &'a ChannelOptions,
    pub(super) hooks: &'a HookList,
    pub(super) events: &'a Arc<Events>,
    pub(super) roster: &'a Arc<Roster>,
    pub(super) pidfd: &'a Arc<OwnedFd>,
    pub(super) server: Option<&'a Arc<Server>>,
    pub(super) links: bool,
    pub(super) store: Option<&'a Arc<HostStore>>,
    pub(super) payloads: Option<&'a Arc<HostStore>>,
    pub(super) keeper: Option<&'a Arc<Keeper>>,
    pub(super) generation: u64,
}

impl Supervised {
    pub(super) fn new(mut spec: PluginSpec, common: Common<'_>) -> Result<Self, SpawnError> {
        Ok(Self {
            launcher: Launcher::new(&mut spec)?,
            liveness: spec.liveness,
            name: spec.name,
            restart: spec.restart,
            patience: spec.patience,
            max_redeliveries: spec.max_redeliveries,
            hooks: common.hooks.with(spec.hooks),
            generation: common.generation,
            ready_timeout: spec.ready_timeout,
            options: spec.channel_options.unwrap_or_else(|| common.options.clone()),
            events: Arc::clone(common.events),
            roster: Arc::clone(common.roster),
            host: Arc::clone(common.pidfd),
            server: common.server.map(Arc::clone),
            links: common.links,
            store: common.store.map(Arc::clone),
            payloads: common.payloads.map(Arc::clone),
            keeper: common.keeper.map(Arc::clone),
            quota: spec.quota,
            grant: match common.store.or(common.payloads) {
                Some(_) => spec.store,
                None => Grant::None,
            },
            life: Mutex::new(Life {
                phase: Phase::Starting,
                stopping: false,
                incarnation: 0,
                failures: 0,
                connections: None,
                channels: None,
                asked: None,
                restart_told: false,
                busy: Vec::new(),
                threads: Vec::new(),
                was_ready: false,
                starting: None,
                process: None,
                pipes: Pipes::default(),
                remains: None,
                kill_at: None,
                delayed: 0,
                retries: Vec::new(),
                visit: None,
                exit: None,
                former_exit: None,
                ready_at: None,
                suspicions: Default::default(),
            }),
            changed: Condvar::new(),
        })
    }

    pub(super) fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the server and this plugin's threads share of a process that is served.
    pub(super) fn visit(&self, post: Option<OwnedFd>) -> Visit {
        let asks = self.grant == Grant::ReadOnly;
        Visit::new(&self.name, &self.events, asks.then_some(self.quota), post)
    }

    /// Has it in another phase from now on. Whoever waits for that is told, but by
    /// [`notify`](Self::notify).
    pub(super) fn enter(&self, life: &mut Life, phase: Phase) {
        life.phase = phase;
        self.roster.note(&self.name, life);
    }

    pub(super) fn report(&self, kind: HostEventKind) {
        self.events.report(&self.name, kind);
    }

    /// Waits until `done` holds, at most for `timeout`; tells whether it holds.
    pub(super) fn wait_until(
        &self,
        timeout: Duration,
        mut done: impl FnMut(&Life) -> bool,
    ) -> (MutexGuard<'_, Life>, bool) {
        let (life, result) = self
            .changed
            .wait_timeout_while(self.life(), timeout, |life| !done(life))
            .unwrap_or_else(PoisonError::into_inner);
        (life, !result.timed_out())
    }

    /// Waits for as long as `busy` holds.
    pub(super) fn wait_while<'a>(
        &self,
        life: MutexGuard<'a, Life>,
        mut busy: impl FnMut(&Life) -> bool,
    ) -> MutexGuard<'a, Life> {
        let waited = self.changed.wait_while(life, |life| busy(life));
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn notify(&self) {
        self.changed.notify_all();
    }
}
