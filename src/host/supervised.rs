//! One plugin over all its incarnations: its state, its death, its end.
//!
//! [`Host`](super::Host) makes one for each plugin; the supervisor's thread reports deaths to it,
//! `restart` starts successors, [`PluginHandle`](super::PluginHandle) looks at it.
//! What always holds: there is at most one process of a plugin; it is reaped, by whoever notices
//! its death; nothing but its pidfd decides that it is dead.
//!
//! | phase | who leaves it | for |
//! |---|---|---|
//! | `Starting` | the thread that called `spawn` | `Running`, `Ended` |
//! | `Running` | the supervisor, at the death | `Restarting`, `Ended` |
//! | `Restarting` | the plugin's restart thread | `Running`, `Ended` |
//! | `Ended` | nobody | |

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::error::SpawnError;
use super::event::{Events, HostEventKind};
use super::launch::{Channels, Launcher, handshake};
use super::restart::Suspicion;
use super::spec::{PluginSpec, Restart};
use crate::channel::{Channel, ChannelOptions, Connection};
use crate::error::ExitReason;
use crate::memory::Deadline;
use crate::os::clock::monotonic_ns;
use crate::os::pidfd::PidFd;
use crate::supervisor::{self, WatchToken};

/// How long a process that got SIGKILL is waited for. Longer only where the kernel cannot end it.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

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
    pub(super) grace: Duration,
    pub(super) max_redeliveries: u32,
    ready_timeout: Duration,
    options: ChannelOptions,
    events: Arc<Events>,
    /// The host's own pidfd, which every plugin inherits.
    host: Arc<OwnedFd>,
    launcher: Mutex<Launcher>,
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
    /// Threads that restart it; all but the last are about to return.
    restart_threads: Vec<JoinHandle<()>>,
    /// Whether the last process has said that it is ready, until its death has been acted upon.
    pub(super) was_ready: bool,
    process: Option<Process>,
    /// How the process of the current start ended, and when that was noticed.
    exit: Option<(ExitReason, Instant)>,
    ready_at: Option<Instant>,
    pub(super) suspicions: [Suspicion; 2],
}

/// The process that is alive, or not yet known to be dead.
#[derive(Debug)]
struct Process {
    pid: u32,
    pidfd: Arc<PidFd>,
    /// For what the host will say later; closing it would tell the plugin that the host is gone.
    control: Option<Channel>,
    _watch: WatchToken,
}

impl Supervised {
    pub(super) fn new(
        spec: PluginSpec,
        default_options: &ChannelOptions,
        events: Arc<Events>,
        host: Arc<OwnedFd>,
    ) -> Result<Self, SpawnError> {
        Ok(Self {
            name: spec.name,
            restart: spec.restart,
            grace: spec.grace,
            max_redeliveries: spec.max_redeliveries,
            ready_timeout: spec.ready_timeout,
            options: spec.channel_options.unwrap_or_else(|| default_options.clone()),
            events,
            host,
            launcher: Mutex::new(Launcher::new(spec.command, spec.isolation)?),
            life: Mutex::new(Life {
                phase: Phase::Starting,
                stopping: false,
                incarnation: 0,
                failures: 0,
                connections: None,
                channels: None,
                restart_threads: Vec::new(),
                was_ready: false,
                process: None,
                exit: None,
                ready_at: None,
                suspicions: Default::default(),
            }),
            changed: Condvar::new(),
        })
    }

    pub(super) fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
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

    pub(super) fn set_phase(&self, phase: Phase) {
        let mut life = self.life();
        life.phase = phase;
        if let Phase::Ended(_) = phase {
            life.connections = None;
        }
        self.changed.notify_all();
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.life().process.as_ref().map(|process| process.pid)
    }

    /// The first start.
    pub(super) fn start_first(self: &Arc<Self>) -> Result<(), SpawnError> {
        let result = self.start(|channels| {
            let (active, passive) = (channels.active, channels.passive);
            if self.restart.is_possible() {
                active.connection().follow();
                passive.connection().follow();
            }
            let mut life = self.life();
            life.connections =
                Some([&active, &passive].map(|channel| Arc::clone(channel.connection())));
            life.channels = Some((active, passive));
            channels.control
        });
        match &result {
            Ok(pid) => self.report(HostEventKind::Started { pid: *pid }),
            Err(error) => {
                self.life().channels = None;
                let reason = match error {
                    SpawnError::Exited { reason } => *reason,
                    _ => ExitReason::Unknown,
                };
                self.set_phase(Phase::Ended(reason));
            }
        }
        result.map(drop)
    }

    /// Starts a process on fresh channels and waits until it is ready. `hand_out` gets the channels,
    /// sees to it that the host's ends of the two reach their users, and returns the control channel.
    ///
    /// After an error there is no process.
    pub(super) fn start(
        self: &Arc<Self>,
        hand_out: impl FnOnce(Channels) -> Channel,
    ) -> Result<u32, SpawnError> {
        let channels = Channels::create(&self.options)?;
        let [control_fd, active_fd, passive_fd] = channels.descriptors()?;
        let (connections, segments) = (channels.connections(), channels.segments());
        let mut control = hand_out(channels);
        let descriptors = [&*self.host, &control_fd, &active_fd, &passive_fd];
        let pid = self.launch(descriptors, connections)?;
        drop([control_fd, active_fd, passive_fd]);
        let greeted = handshake(&mut control, &segments, self.ready_timeout);
        // Before anybody hears of the outcome.
        drop(segments);
        match greeted {
            Ok(()) => self.ready(pid, control),
            Err(error) => Err(self.give_up_start(error)),
        }
    }

    /// Starts the process and the watch over it.
    fn launch(
        self: &Arc<Self>,
        descriptors: [&OwnedFd; 4],
        connections: [Arc<Connection>; 3],
    ) -> Result<u32, SpawnError> {
        let mut launcher = self.launcher.lock().unwrap_or_else(PoisonError::into_inner);
        // Held until the process is on record, so that its death cannot be reported before.
        let mut life = self.life();
        if life.stopping {
            return Err(SpawnError::Stopped);
        }
        let (pid, pidfd) = launcher.start(&self.name, descriptors)?;
        let pidfd = Arc::new(pidfd);
        let on_death = {
            let (this, pidfd) = (Arc::clone(self), Arc::clone(&pidfd));
            move || this.died(pid, pidfd, connections)
        };
        let watch = pidfd
            .as_fd()
            .try_clone_to_owned()
            .and_then(|fd| supervisor::watch(fd, Box::new(on_death)));
        match watch {
            Ok(watch) => {
                life.exit = None;
                life.ready_at = None;
                life.was_ready = false;
                life.incarnation += 1;
                life.process = Some(Process { pid, pidfd, control: None, _watch: watch });
                Ok(pid)
            }
            Err(source) => {
                let _ = pidfd.signal(libc::SIGKILL);
                let _ = pidfd.wait(kill_deadline());
                let _ = pidfd.reap();
                Err(SpawnError::Os { call: "watching the plugin", source })
            }
        }
    }

    /// The handshake is over: the plugin runs, unless it has died since.
    fn ready(self: &Arc<Self>, pid: u32, control: Channel) -> Result<u32, SpawnError> {
        let mut life = self.life();
        life.was_ready = true;
        match (life.exit, life.phase) {
            // A former incarnation's successor: the restart goes on.
            (Some((reason, _)), Phase::Restarting(_)) => return Err(SpawnError::Exited { reason }),
            // It was started; that it has died since is another story.
            (Some((reason, _)), _) => self.follow_up(&mut life, reason),
            (None, _) => {
                if let Some(process) = &mut life.process {
                    process.control = Some(control);
                }
                life.phase = Phase::Running;
                life.ready_at = Some(Instant::now());
            }
        }
        self.changed.notify_all();
        Ok(pid)
    }

    /// Ends a process that failed the handshake.
    fn give_up_start(&self, error: SpawnError) -> SpawnError {
        if let SpawnError::Exited { .. } = error {
            // It has closed the control channel, so it is about to end, for a reason of its own.
            drop(self.wait_until(self.grace, |life| life.exit.is_some()));
        }
        self.signal(libc::SIGKILL);
        let (life, _) = self.wait_until(KILL_TIMEOUT, |life| life.exit.is_some());
        match (error, life.exit) {
            (SpawnError::Exited { .. }, Some((reason, _))) => SpawnError::Exited { reason },
            (error, _) => error,
        }
    }

    /// Sends a signal to the process, if there is one that is not dead.
    pub(super) fn signal(&self, signal: i32) -> bool {
        self.life().process.as_ref().is_some_and(|process| process.pidfd.signal(signal).is_ok())
    }

    /// The supervisor has seen the process die: reaps it, tells the channels, and starts what is to
    /// follow.
    fn died(self: &Arc<Self>, pid: u32, pidfd: Arc<PidFd>, connections: [Arc<Connection>; 3]) {
        let reason = reap(&pidfd);
        let mut life = self.life();
        life.exit = Some((reason, Instant::now()));
        let process = life.process.take();
        if life.ready_at.is_some_and(|at| self.restart.forgets_after(at.elapsed())) {
            life.failures = 0;
        }
        let [control, active, passive] = &connections;
        control.peer_died(reason, false);
        self.report(HostEventKind::Died { pid, reason });
        match life.phase {
            Phase::Running => self.follow_up(&mut life, reason),
            // The thread that restarts it goes on.
            Phase::Restarting(_) => {
                let follows = self.is_followed(&life, reason);
                active.peer_died(reason, follows);
                passive.peer_died(reason, follows);
            }
            // Nobody has the ends yet; the thread that starts it decides.
            Phase::Starting | Phase::Ended(_) => {}
        }
        // Before anybody hears of it: whoever is told finds nothing of the process left.
        drop((connections, pidfd, process));
        self.changed.notify_all();
    }

    /// Whether a successor is to be started.
    fn is_followed(&self, life: &Life, reason: ExitReason) -> bool {
        !life.stopping && self.restart.pause(reason, life.failures).is_some()
    }

    /// The plugin was ready and has died: tells its channels, and starts it again or not.
    fn follow_up(self: &Arc<Self>, life: &mut Life, reason: ExitReason) {
        let follows = self.is_followed(life, reason);
        for connection in life.connections.iter().flatten() {
            connection.peer_died(reason, follows);
        }
        if follows && let Some(thread) = self.start_restart_thread(reason) {
            life.restart_threads.retain(|thread| !thread.is_finished());
            life.restart_threads.push(thread);
            life.phase = Phase::Restarting(reason);
            return;
        }
        for connection in life.connections.take().iter().flatten() {
            connection.abandon();
        }
        if !life.stopping && self.restart.pause(reason, 0).is_some() {
            self.report(HostEventKind::GaveUp { reason });
        }
        life.phase = Phase::Ended(reason);
    }

    /// A thread that lives until the plugin runs again, or is given up: one plugin's restart never
    /// waits for another's. Where no thread is to be had, the plugin is given up.
    fn start_restart_thread(self: &Arc<Self>, reason: ExitReason) -> Option<JoinHandle<()>> {
        let this = Arc::clone(self);
        let died_at = Instant::now();
        let builder = thread::Builder::new().name(format!("ringway-{}", self.name));
        builder.spawn(move || this.restart(reason, died_at)).ok()
    }

    /// Tells the plugin to end: SIGTERM, and SIGKILL after the grace. Does not wait.
    pub(super) fn begin_stop(&self) {
        let mut life = self.life();
        life.stopping = true;
        if let Some(process) = &life.process {
            let _ = process.pidfd.signal(libc::SIGTERM);
        }
        self.changed.notify_all();
    }

    /// Waits until the plugin has ended, for at most `grace` before it is killed.
    pub(super) fn finish_stop(&self, grace: Duration) -> ExitReason {
        let ended = |life: &Life| matches!(life.phase, Phase::Ended(_));
        if !self.wait_until(grace, ended).1 {
            self.signal(libc::SIGKILL);
        }
        let (mut life, _) = self.wait_until(KILL_TIMEOUT, ended);
        let Phase::Ended(reason) = life.phase else { return ExitReason::Unknown };
        let threads = std::mem::take(&mut life.restart_threads);
        drop(life);
        for thread in threads {
            // They have nothing to do any more.
            let _ = thread.join();
        }
        reason
    }

    /// Whether it has ended, and none of its threads is left.
    pub(super) fn is_over(&self) -> bool {
        let life = self.life();
        matches!(life.phase, Phase::Ended(_))
            && life.restart_threads.iter().all(JoinHandle::is_finished)
    }
}

/// When a process that was killed just now is not waited for any longer.
fn kill_deadline() -> Deadline {
    Deadline::at_ns(monotonic_ns().saturating_add(KILL_TIMEOUT.as_nanos() as u64))
}

/// Takes the exit status of a child that is known to have ended. Only where somebody traces it may
/// that have to wait, until the tracer lets go of it.
fn reap(pidfd: &PidFd) -> ExitReason {
    for _ in 0..100 {
        match pidfd.reap() {
            Ok(Some(reason)) => return reason,
            Ok(None) => thread::sleep(Duration::from_millis(1)),
            Err(_) => break,
        }
    }
    ExitReason::Unknown
}
