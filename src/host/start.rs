//! Starting a plugin's process, for the first time and again: from fresh channels to *ready*.
//!
//! The thread of [`Host::spawn`](super::Host::spawn) runs it, and `restart`'s.
//! Invariants: after an error there is no process; a process that runs is watched, and on record before
//! its death can be reported; no lock is held while the process is started or greeted, and one deadline
//! bounds both.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::SpawnError;
use super::event::HostEventKind;
use super::hooks::{Moment, Turn, tell};
use super::launch::{Channels, Connections, Handed, handshake};
use super::liveness;
use super::program::Pipes;
use super::store::HostStore;
use super::supervised::{Life, Phase, Process, Supervised};
use crate::channel::Channel;
use crate::error::ExitReason;
use crate::memory::Deadline;
use crate::os::clock::monotonic_ns;
use crate::os::start::Started;
use crate::os::{doorbell, pipe, post, signals};
use crate::segment::DEFAULT_MAX_MESSAGE_BYTES;
use crate::supervisor::{self, WatchToken};

/// What has become of a process that was ready.
enum Ready {
    /// It runs, or has died as one that ran; the turn to tell that it is ready.
    Runs(Option<Turn>),
    /// It has died, and another attempt is to be made.
    Died(ExitReason),
}

/// The longest request of a plugin: the longest message of a channel unless somebody says otherwise.
const MAX_REQUEST_BYTES: u64 = DEFAULT_MAX_MESSAGE_BYTES;

/// How long a successor waits for what its predecessor has asked for and the host has not seen to.
const LAST_REQUESTS: Duration = Duration::from_secs(5);

/// How long a process that nobody watches is waited for after SIGKILL.
const KILLED_AT_ONCE_NS: u64 = 10_000_000_000;

impl Supervised {
    /// The first start.
    pub(super) fn start_first(self: &Arc<Self>) -> Result<(), SpawnError> {
        let turn = self.turn(Moment::BeforeStart, &self.life());
        tell(turn);
        let started = |pid, _| HostEventKind::Started { pid };
        let result = self.start(Moment::AfterStart, started, |channels| {
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
        match result {
            Ok(turn) => {
                tell(turn);
                Ok(())
            }
            Err(error) => {
                let reason = match error {
                    SpawnError::Exited { reason } => reason,
                    _ => ExitReason::Unknown,
                };
                let mut life = self.life();
                life.channels = None;
                life.connections = None;
                life.pipes = Pipes::default();
                self.enter(&mut life, Phase::Ended(reason));
                self.notify();
                Err(error)
            }
        }
    }

    /// Starts a process on fresh channels and waits until it is ready. `hand_out` gets the channels,
    /// sees to it that the host's ends of the two reach their users, and returns the control channel.
    /// Returns the turn to tell that it is `ready`; `event` makes what is reported of it, from the
    /// process and the incarnation.
    ///
    /// After an error there is no process.
    pub(super) fn start(
        self: &Arc<Self>,
        ready: Moment,
        event: impl FnOnce(u32, u32) -> HostEventKind,
        hand_out: impl FnOnce(Channels) -> Channel,
    ) -> Result<Option<Turn>, SpawnError> {
        let os = |call| move |source| SpawnError::Os { call, source };
        let mut channels = Channels::create(&self.options, self.longest_request())?;
        let [control_fd, active_fd, passive_fd] = channels.descriptors()?;
        let service_fd = channels.service_descriptor()?;
        let files = |store: &Option<Arc<HostStore>>| {
            store.as_ref().map_or(Ok(None), |store| store.files(self.grant))
        };
        let (store, payloads) = (files(&self.store)?, files(&self.payloads)?);
        let bell = doorbell::new().map_err(os("eventfd"))?;
        let (our_post, their_post) = self.post()?.unzip();
        let (our_session, session) = post::pair().map_err(os("socketpair"))?;
        let pulse = self.liveness.map(|_| pipe::pair()).transpose().map_err(os("pipe"))?;
        let (our_pulse, pulse) = pulse.unzip();
        let (connections, segments) = (channels.connections(), channels.segments()?);
        let service = channels.service.take();
        let mut control = hand_out(channels);
        self.await_last_requests();
        let handed = Handed {
            host: self.host.try_clone().map_err(os("dup"))?,
            session,
            pulse,
            control: control_fd,
            bell: bell.try_clone().map_err(os("dup"))?,
            active: active_fd,
            passive: passive_fd,
            service: service_fd,
            store,
            payloads,
            post: their_post,
            access: self.grant,
        };
        let timeout_ns = u64::try_from(self.ready_timeout.as_nanos()).unwrap_or(u64::MAX);
        let deadline = Deadline::at_ns(monotonic_ns().saturating_add(timeout_ns));
        let pid = self.launch(handed, connections, our_session, deadline)?;
        let attached = || self.serve(service, our_post);
        let greeted = handshake(&mut control, &segments, deadline, self.ready_timeout, attached);
        // Before anybody hears of the outcome.
        drop(segments);
        let ready = greeted.and_then(|()| {
            let this = Arc::clone(self);
            let on_ring = Box::new(move || this.rung(pid));
            // Before anybody can be told of the process. What is rung meanwhile waits.
            let mut life = self.life();
            let bell = supervisor::watch(bell, on_ring).map_err(os("watching the bell"))?;
            if let (Some(pulse), Some(process)) = (our_pulse, &mut life.process) {
                process.liveness = Some(self.ask_whether_it_runs(process, pulse)?);
            }
            let ready = self.ready(&mut life, ready, control, bell);
            if let Ready::Runs(_) = &ready {
                // Before anything that it asks for.
                self.report(event(pid, life.incarnation));
            }
            Ok(ready)
        });
        match ready {
            Ok(Ready::Runs(turn)) => Ok(turn),
            Ok(Ready::Died(reason)) => Err(SpawnError::Exited { reason }),
            Err(error) => Err(self.give_up_start(error)),
        }
    }

    /// How long a request on the service channel can be; `None` where there is nothing to serve.
    fn longest_request(&self) -> Option<u64> {
        self.server.is_some().then_some(MAX_REQUEST_BYTES)
    }

    /// The two ends of the process's post, where the host links processes.
    fn post(&self) -> Result<Option<(OwnedFd, OwnedFd)>, SpawnError> {
        let os = |source| SpawnError::Os { call: "socketpair", source };
        self.links.then(post::pair).transpose().map_err(os)
    }

    /// Serves the process from now on.
    fn serve(&self, service: Option<Channel>, post: Option<OwnedFd>) {
        if let (Some(server), Some(channel)) = (&self.server, service) {
            let visit = Arc::new(self.visit(post));
            self.life().visit = Some(Arc::clone(&visit));
            server.admit(visit, channel);
        }
    }

    /// Waits until what the former process had asked for has been seen to.
    fn await_last_requests(&self) {
        let visit = self.life().visit.take();
        if let Some(visit) = visit {
            visit.wait_until_over(LAST_REQUESTS);
        }
    }

    fn ask_whether_it_runs(
        &self,
        process: &Process,
        pulse: OwnedFd,
    ) -> Result<WatchToken, SpawnError> {
        let os = |call| move |source| SpawnError::Os { call, source };
        let session = process.session.try_clone().map_err(os("dup"))?;
        let silence = self.liveness.unwrap_or_default();
        liveness::begin(&self.name, &self.events, session, pulse, silence)
            .map_err(os("watching the plugin"))
    }

    /// Starts the process and the watch over it. `session` is the host's end.
    fn launch(
        self: &Arc<Self>,
        handed: Handed,
        connections: Connections,
        session: OwnedFd,
        deadline: Deadline,
    ) -> Result<u32, SpawnError> {
        if self.life().stopping {
            return Err(SpawnError::Stopped);
        }
        let kept = self.keeper.as_ref().is_some_and(|keeper| keeper.can_start());
        if !kept && signals::children_are_reaped() {
            self.events.reaped_elsewhere(&self.name);
        }
        let keeper = self.keeper.as_ref();
        let (start, pipes) =
            self.launcher.begin(&self.name, handed, keeper, deadline, self.ready_timeout)?;
        {
            let mut life = self.life();
            if life.stopping {
                start.kill();
            }
            life.starting = Some(start.clone());
        }
        let started = start.wait(deadline);
        let mut life = self.life();
        life.starting = None;
        let mut started = match started {
            Ok(started) if !life.stopping => started,
            Ok(started) => {
                drop(life);
                discard(started);
                return Err(SpawnError::Stopped);
            }
            Err(_) if life.stopping => return Err(SpawnError::Stopped),
            Err(error) => return Err(self.launcher.failed(error, self.ready_timeout)),
        };
        if let (Some(keeper), None) = (keeper, &started.line) {
            match keeper.know(started.pid, &started.pidfd, deadline) {
                Ok(line) => started.line = line,
                Err(error) => {
                    drop(life);
                    discard(started);
                    return Err(self.launcher.failed(error, self.ready_timeout));
                }
            }
        }
        let pid = started.pid;
        let started = Arc::new(started);
        let on_death = {
            let (this, started) = (Arc::clone(self), Arc::clone(&started));
            move || this.died(started, connections)
        };
        // `life` stays locked until the process is on record: `died` takes it first.
        let watch = started
            .as_fd()
            .try_clone_to_owned()
            .and_then(|fd| supervisor::watch(fd, Box::new(on_death)));
        match watch {
            Ok(watch) => {
                life.former_exit = life.exit.take().or(life.former_exit);
                life.ready_at = None;
                life.was_ready = false;
                life.asked = None;
                life.incarnation += 1;
                life.pipes = pipes;
                life.process = Some(Process {
                    started,
                    session,
                    is_dead: false,
                    control: None,
                    bell: None,
                    liveness: None,
                    _watch: watch,
                });
                Ok(pid)
            }
            Err(source) => {
                drop(life);
                if let Some(started) = Arc::into_inner(started) {
                    discard(started);
                }
                Err(SpawnError::Os { call: "watching the plugin", source })
            }
        }
    }

    /// The handshake is over: the plugin runs, unless it has died since.
    fn ready(
        self: &Arc<Self>,
        life: &mut Life,
        moment: Moment,
        control: Channel,
        bell: WatchToken,
    ) -> Ready {
        life.was_ready = true;
        if let (Some(reason), Phase::Restarting(_)) = (life.exit, life.phase) {
            // A former incarnation's successor: the restart goes on.
            return Ready::Died(reason);
        }
        let turn = self.turn(moment, life);
        match life.exit {
            // It was started; that it has died since is another story.
            Some(reason) => self.follow_up(life, reason),
            None => {
                if let Some(process) = &mut life.process {
                    process.control = Some(control);
                    process.bell = Some(bell);
                }
                self.enter(life, Phase::Running);
                life.restart_told = false;
                life.ready_at = Some(Instant::now());
            }
        }
        self.notify();
        Ready::Runs(turn)
    }

    /// Ends a process that failed the handshake.
    fn give_up_start(&self, error: SpawnError) -> SpawnError {
        if let SpawnError::Exited { .. } = error {
            // It has closed the control channel, so it is about to end, for a reason of its own.
            drop(self.wait_until(self.patience.grace, |life| life.exit.is_some()));
        }
        let _ = self.signal(libc::SIGKILL);
        let (life, _) = self.wait_until(self.patience.kill, |life| life.exit.is_some());
        match (error, life.exit) {
            (SpawnError::Exited { .. }, Some(reason)) => SpawnError::Exited { reason },
            (error, _) => error,
        }
    }
}

/// Ends a process that nobody watches.
fn discard(started: Started) {
    started.discard(Deadline::at_ns(monotonic_ns().saturating_add(KILLED_AT_ONCE_NS)));
}
