//! The death of a plugin's process: why, who is told, what follows.
//!
//! The supervisor's thread runs it, where it must be short: what takes longer goes to a thread of the
//! plugin's own. What always holds: nothing but the pidfd decides that a process is dead; it is
//! reaped, by whoever notices its death; its channels say so before anybody else does.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::control::Request;
use super::event::HostEventKind;
use super::hooks::{Moment, tell};
use super::launch::Connections;
use super::supervised::{Asked, Life, Phase, Supervised};
use crate::error::ExitReason;
use crate::os::pidfd::PidFd;

impl Supervised {
    /// The supervisor has seen the process die: reaps it, tells the channels, and starts what is to
    /// follow.
    pub(super) fn died(self: &Arc<Self>, pid: u32, pidfd: Arc<PidFd>, connections: Connections) {
        let reason = reap(&pidfd);
        let mut life = self.life();
        life.exit = Some(reason);
        if life.ready_at.is_some_and(|at| self.restart.forgets_after(at.elapsed())) {
            life.failures = 0;
        }
        let Connections { control, active, passive, service } = &connections;
        control.peer_died(reason, false);
        if let Some(service) = service {
            service.peer_died(reason, false);
        }
        if let Some(server) = &self.server {
            server.died(pid);
        }
        // What it asked for before it ended, and nobody has heard yet.
        let request = self.hear(&mut life);
        let process = life.process.take();
        self.report(HostEventKind::Died { pid, reason });
        match request {
            Some(Request::End { .. }) => life.stopping = true,
            Some(Request::Restart { .. }) => life.asked = Some(Asked::Plugin),
            None => {}
        }
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
        self.notify();
    }

    /// Whether a successor is to be started.
    fn is_followed(&self, life: &Life, reason: ExitReason) -> bool {
        let wanted = life.asked.is_some() || self.restart.pause(reason, life.failures).is_some();
        wanted && !life.stopping
    }

    /// The plugin was ready and has died: tells its channels, and starts it again or not.
    pub(super) fn follow_up(self: &Arc<Self>, life: &mut Life, reason: ExitReason) {
        let follows = self.is_followed(life, reason);
        for connection in life.connections.iter().flatten() {
            connection.peer_died(reason, follows);
        }
        let ready_for = life.ready_at.map_or(Duration::ZERO, |at| at.elapsed());
        let (asked, died_at) = (life.asked, Instant::now());
        let restart = move |this: &Arc<Self>| this.restart(reason, died_at, asked, ready_for);
        if follows && self.start_thread(life, restart) {
            self.enter(life, Phase::Restarting(reason));
            return;
        }
        let gave_up = !life.stopping && self.restart.pause(reason, 0).is_some();
        self.end(life, reason, gave_up);
    }

    /// It has ended, and no further incarnation will come.
    pub(super) fn end(self: &Arc<Self>, life: &mut Life, reason: ExitReason, gave_up: bool) {
        for connection in life.connections.take().iter().flatten() {
            connection.abandon();
        }
        if gave_up {
            self.report(HostEventKind::GaveUp { reason });
        }
        self.enter(life, Phase::Ended(reason));
        if let Some(turn) = self.turn(Moment::AfterShutdown, life) {
            // Not here: the supervisor's thread has other deaths to notice.
            self.start_thread(life, move |_| tell(Some(turn)));
        }
        self.notify();
    }
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
