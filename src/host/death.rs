//! The death of a plugin's process: why, who is told, what follows.
//!
//! The supervisor's thread runs it, where it must be short: what takes longer goes to a thread of the
//! plugin's own. Invariants: only the pidfd decides that a process is dead; its group is signalled
//! before the process is reaped; its channels are told before anybody else.
//!
//! # The group
//!
//! A plugin's process leads a group: a wrapper and what it has started, or a plugin and its helpers. When
//! the process ends unexpectedly, the rest of the group is killed at once. When it was told to end, the
//! rest has the time that the process had, where the kernel can signal a group whose leader has been
//! reaped (Linux 6.9); it is killed at once where not. Processes that have left the group keep nothing
//! but closed channels: the host closes its ends of the former incarnation, and its session.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::control::Request;
use super::event::HostEventKind;
use super::hooks::{Moment, tell};
use super::launch::Connections;
use super::supervised::{Asked, Life, Phase, Remains, Supervised};
use crate::error::ExitReason;
use crate::os::start::Started;

impl Supervised {
    /// The supervisor has seen the process die: reaps it, tells the channels, and starts what is to
    /// follow.
    pub(super) fn died(self: &Arc<Self>, started: Arc<Started>, connections: Connections) {
        let pid = started.pid;
        self.end_group(&started);
        let (reason, reliable) = reap(&started);
        if !reliable {
            self.events.reaped_elsewhere(&self.name);
        }
        let mut life = self.life();
        life.exit = Some(reason);
        if life.ready_at.is_some_and(|at| self.restart.forgets_after(at.elapsed())) {
            life.failures = 0;
        }
        let Connections { control, active, passive, service } = &connections;
        for connection in [control, active, passive].into_iter().chain(service) {
            connection.leave();
        }
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
        drop((connections, started, process));
        self.notify();
    }

    /// Kills what is left of the group of a process that is dead and not reaped, unless it has time left.
    fn end_group(&self, started: &Arc<Started>) {
        let mut life = self.life();
        let process = life.process.as_mut();
        if let Some(process) = process.filter(|process| Arc::ptr_eq(&process.started, started)) {
            process.is_dead = true;
        }
        let orderly = life.stopping || life.asked.is_some();
        if orderly && started.pidfd.signal_group(0).is_ok() {
            let kill_at = life.kill_at.unwrap_or_else(|| Instant::now() + self.patience.grace);
            life.remains = Some(Remains { started: Arc::clone(started), kill_at });
        } else {
            let _ = started.signal_group(libc::SIGKILL);
            self.launcher.kill_cgroup();
        }
    }

    /// Waits until nothing is left of the group of the last process, and kills it when its time is
    /// over. Call it without a lock.
    pub(super) fn end_remains(&self) {
        let Some(Remains { started, kill_at }) = self.life().remains.take() else { return };
        while started.pidfd.signal_group(0).is_ok() {
            if Instant::now() >= kill_at {
                let _ = started.pidfd.signal_group(libc::SIGKILL);
                break;
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.launcher.kill_cgroup();
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
        if follows {
            self.enter(life, Phase::Restarting(reason));
            self.start_thread_for_sure(life, restart);
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
            self.start_thread_for_sure(life, move |_| tell(Some(turn)));
        }
        self.notify();
    }
}

/// Takes the exit status of a process that is known to have ended, and whether it is reliable. Only where
/// somebody traces it, or its parent was a keeper that is gone, may that have to wait, 100 ms at most; or
/// where its parent is a keeper that does not answer, a second.
fn reap(started: &Started) -> (ExitReason, bool) {
    for _ in 0..100 {
        match started.reap() {
            Ok(Some(reaped)) => return reaped,
            Ok(None) => thread::sleep(Duration::from_millis(1)),
            Err(_) => break,
        }
    }
    (ExitReason::Unknown, true)
}
