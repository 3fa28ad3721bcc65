//! Ending a plugin, for good or to make room for a successor: told, SIGTERM, SIGKILL, left behind.
//!
//! [`Host`](super::Host) and [`PluginHandle`](super::PluginHandle) call it, and the supervisor's
//! thread where a plugin has asked for it. Invariants: every step has a deadline, also the last one; a
//! plugin that rings for ever is heard once; what has been begun goes on if its caller cannot wait;
//! signals go to the plugin's process group.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::control::{Request, StopCause, StopNotice, TAG_STOP, request_of};
use super::error::{HandleError, RequestProblem};
use super::event::HostEventKind;
use super::hooks::{Moment, Turn, tell};
use super::supervised::{Asked, Life, Phase, Supervised};
use crate::error::{ExitReason, TryRecvError};

/// How an end that somebody waited for came about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    /// `None` where it was left behind.
    pub(super) reason: Option<ExitReason>,
    pub(super) killed: bool,
}

/// Times at which patience ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    pub(super) terminate_at: Instant,
    pub(super) kill_at: Instant,
}

/// The decision to end a plugin for good, made once; with the turn to tell the hooks of it.
#[derive(Debug)]
#[must_use = "the plugin is told when the decision is carried out"]
pub(super) struct DecidedStop(Option<Turn>);

impl Supervised {
    /// The times of an end that begins now, none of them later than `latest`.
    pub(super) fn schedule(&self, latest: Option<Instant>) -> Schedule {
        let now = Instant::now();
        let after = |time: Instant, pause: Duration| {
            let time = time.checked_add(pause).unwrap_or(now + FAR_AWAY);
            latest.map_or(time, |latest| time.min(latest))
        };
        let terminate_at = after(now, self.patience.notice);
        Schedule { terminate_at, kill_at: after(terminate_at, self.patience.grace) }
    }

    /// Decides that the plugin ends for good: no more starts, no second stop. `None` where that was
    /// decided before. The caller holds the lock, so exactly one of several callers gets the decision.
    pub(super) fn decide_stop(self: &Arc<Self>, life: &mut Life) -> Option<DecidedStop> {
        if life.stopping || life.is_ended() {
            return None;
        }
        life.stopping = true;
        if let Some(start) = &life.starting {
            // There is no program yet that could be told.
            start.kill();
        }
        self.notify();
        Some(DecidedStop(self.turn(Moment::BeforeShutdown, life)))
    }

    /// Calls the hooks and tells the plugin.
    fn announce_stop(&self, decided: DecidedStop) {
        tell(decided.0);
        self.say_stop(&mut self.life(), StopCause::Shutdown);
    }

    /// Tells the plugin to end for good. Waits for nothing but hooks.
    pub(super) fn begin_stop(self: &Arc<Self>) {
        let decided = self.decide_stop(&mut self.life());
        if let Some(decided) = decided {
            self.announce_stop(decided);
        }
    }

    /// Ends the plugin on a thread of its own. Kills it where no thread can be had.
    pub(super) fn stop_in_background(self: &Arc<Self>, life: &mut Life, decided: DecidedStop) {
        let begun = self.start_thread(life, |this| {
            this.announce_stop(decided);
            _ = this.stop(None);
        });
        if begun.is_err() {
            let _ = life.signal(libc::SIGKILL);
        }
    }

    /// Says on the control ring that the process is to end. A ring without room, or one that the
    /// plugin has spoilt, is the plugin's loss.
    fn say_stop(&self, life: &mut Life, cause: StopCause) {
        let (notice, grace) = (self.patience.notice, self.patience.grace);
        let words = StopNotice { cause, notice, grace }.to_words();
        if let Some(control) = life.process.as_mut().and_then(|process| process.control.as_mut()) {
            let _ = control.sender().try_send_tagged(TAG_STOP, bytemuck::bytes_of(&words));
        }
    }

    /// Sends a signal to the process, if there is one that is not dead.
    pub(super) fn signal(&self, signal: i32) -> Result<(), HandleError> {
        self.life().signal(signal)
    }

    /// Waits until `done` holds, at most until then.
    fn done_by(&self, time: Instant, done: impl FnMut(&Life) -> bool) -> bool {
        self.wait_until(time.saturating_duration_since(Instant::now()), done).1
    }

    /// After [`begin_stop`](Self::begin_stop): the plugin's time to end by itself.
    pub(super) fn await_notice(&self, schedule: Schedule) {
        if !self.done_by(schedule.terminate_at, Life::is_ended) {
            let _ = self.signal(libc::SIGTERM);
        }
    }

    /// After [`await_notice`](Self::await_notice): its time to end after SIGTERM. Returns whether it
    /// had to be killed.
    pub(super) fn await_grace(&self, schedule: Schedule) -> bool {
        if self.done_by(schedule.kill_at, Life::is_ended) {
            return false;
        }
        self.launcher.kill_cgroup();
        self.signal(libc::SIGKILL).is_ok()
    }

    /// After [`await_grace`](Self::await_grace): waits for what the kernel must do, and for this
    /// plugin's threads.
    pub(super) fn settle(self: &Arc<Self>, killed: bool) -> Ending {
        let (mut life, ended) = self.wait_until(self.patience.kill, Life::is_ended);
        if !ended {
            self.leave_behind(&mut life);
        }
        let reason = match life.phase {
            Phase::Ended(reason) if ended => Some(reason),
            _ => None,
        };
        let own = thread::current().id();
        if !life.busy.contains(&own) {
            // Those of the plugin's threads that come here wait for no other.
            drop(life);
            self.end_remains();
            drop(self.wait_until(self.patience.kill, |life| life.delayed == 0));
            life = self.wait_while(self.life(), |life| !life.busy.is_empty());
            let threads = std::mem::take(&mut life.threads);
            drop(life);
            for thread in threads {
                let _ = thread.join();
            }
        }
        Ending { reason, killed }
    }

    /// Ends the plugin: all of the above. Inside one of the plugin's own hooks, another thread goes
    /// on with it.
    ///
    /// # Errors
    /// [`HandleError::InHook`].
    pub(super) fn stop(self: &Arc<Self>, latest: Option<Instant>) -> Result<Ending, HandleError> {
        let schedule = self.schedule(latest);
        self.life().kill_at.get_or_insert(schedule.kill_at);
        self.begin_stop();
        let finish = move |this: &Arc<Self>| {
            this.await_notice(schedule);
            let killed = this.await_grace(schedule);
            this.settle(killed)
        };
        if !self.hooks.are_called_here() {
            return Ok(finish(self));
        }
        if self.start_thread(&mut self.life(), move |this| _ = finish(this)).is_err() {
            let _ = self.signal(libc::SIGKILL);
        }
        Err(HandleError::InHook)
    }

    /// Ends the process, so that a successor takes its place. Does not wait for that.
    ///
    /// # Errors
    /// [`HandleError::NotRunning`].
    pub(super) fn replace(self: &Arc<Self>, asked: Asked) -> Result<(), HandleError> {
        let mut life = self.life();
        match life.phase {
            _ if life.stopping => return Err(HandleError::NotRunning),
            Phase::Running => {}
            Phase::Restarting(_) => return Ok(()),
            Phase::Starting | Phase::Ended(_) => return Err(HandleError::NotRunning),
        }
        self.replace_running(&mut life, asked);
        Ok(())
    }

    pub(super) fn replace_running(self: &Arc<Self>, life: &mut Life, asked: Asked) {
        if life.asked.is_some() {
            return;
        }
        life.asked = Some(asked);
        // From here on its ends wait for a successor, should it close its own before it ends.
        for connection in life.connections.iter().flatten() {
            connection.follow();
        }
        let incarnation = life.incarnation;
        if self.start_thread(life, move |this| this.make_room(incarnation)).is_err() {
            let _ = life.signal(libc::SIGKILL);
        }
    }

    /// Ends this incarnation's process. What follows is decided at its death.
    fn make_room(self: &Arc<Self>, incarnation: u32) {
        let is_gone = |life: &Life| life.incarnation != incarnation || life.exit.is_some();
        let signal = |signal| {
            let life = self.life();
            if !is_gone(&life) {
                let _ = life.signal(signal);
            }
        };
        let turn = {
            let mut life = self.life();
            if is_gone(&life) {
                // Who starts the successor tells of it.
                return;
            }
            self.tell_restart(&mut life)
        };
        tell(turn);
        {
            let mut life = self.life();
            if !is_gone(&life) {
                self.say_stop(&mut life, StopCause::Restart);
            }
        }
        let schedule = self.schedule(None);
        if self.done_by(schedule.terminate_at, is_gone) {
            return;
        }
        signal(libc::SIGTERM);
        if self.done_by(schedule.kill_at, is_gone) {
            return;
        }
        signal(libc::SIGKILL);
        let (mut life, gone) = self.wait_until(self.patience.kill, is_gone);
        if !gone {
            // Two processes of one plugin there must not be.
            life.stopping = true;
            self.leave_behind(&mut life);
        }
    }

    /// Its process cannot be ended in time: goes on without it. Should it end after all, it will be
    /// reaped.
    fn leave_behind(self: &Arc<Self>, life: &mut Life) {
        if life.is_ended() {
            return;
        }
        if let Some(pid) = life.pid() {
            self.report(HostEventKind::LeftBehind { pid });
        }
        self.end(life, ExitReason::Unknown, false);
    }

    /// The plugin has rung its bell. Runs on the supervisor's thread, once for each process.
    pub(super) fn rung(self: &Arc<Self>, pid: u32) {
        let mut life = self.life();
        if life.pid() != Some(pid) || !matches!(life.phase, Phase::Running) {
            return;
        }
        match self.hear(&mut life) {
            Some(Request::Restart { .. }) if !life.stopping => {
                self.replace_running(&mut life, Asked::Plugin);
            }
            Some(Request::End { .. }) => {
                if let Some(decided) = self.decide_stop(&mut life) {
                    self.stop_in_background(&mut life, decided);
                }
            }
            _ => {}
        }
    }

    /// Reads the one message that the host listens to, checks and reports it.
    pub(super) fn hear(&self, life: &mut Life) -> Option<Request> {
        let process = life.process.as_mut()?;
        // Heard once: the token is the right to be.
        drop(process.bell.take()?);
        let control = process.control.as_mut()?;
        let heard = match control.receiver().try_recv() {
            Ok(message) => request_of(message.tag(), &message),
            Err(TryRecvError::Corrupt(corruption)) => Err(RequestProblem::Corrupt(corruption)),
            // It has rung for nothing, or ended without a word.
            Err(_) => return None,
        };
        match heard {
            Ok(request) => {
                self.report(match request.clone() {
                    Request::Restart { reason } => HostEventKind::RestartRequested { reason },
                    Request::End { reason } => HostEventKind::StopRequested { reason },
                });
                Some(request)
            }
            Err(problem) => {
                self.report(HostEventKind::BadRequest { problem });
                None
            }
        }
    }

    /// Whether it has ended, and none of its threads is left.
    pub(super) fn is_over(&self) -> bool {
        let life = self.life();
        life.is_ended() && life.busy.is_empty() && life.delayed == 0
    }
}

/// Longer than any host runs.
const FAR_AWAY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
