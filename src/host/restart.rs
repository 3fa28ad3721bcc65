//! Starting a plugin again: back-off, fresh segments, unread messages.
//!
//! Runs on a thread of its own from a plugin's death until it runs again or is given up.
//! What always holds: a new incarnation gets fresh segments, which nobody but it and the host can
//! write; the messages that the former one had not finished with are in them before it starts; the
//! host's ends have been sent there.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::SpawnError;
use super::event::HostEventKind;
use super::hooks::{Moment, Turn, tell};
use super::launch::Channels;
use super::supervised::{Asked, Life, Supervised};
use crate::channel::{Channel, Connection};
use crate::error::ExitReason;
use crate::layout::ring;
use crate::memory::{Memory, Ordering};

/// How often in a row the message that is first in a ring was the first unread one when its reader
/// died.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Suspicion {
    deaths: u32,
    /// Whether the last hand-over put that message into the ring, in the first place.
    handed_over: bool,
}

impl Suspicion {
    /// A reader died, or asked for a successor, that had released nothing, or something, before. Returns whether the message
    /// it died over is to be dropped.
    fn death(&mut self, released_any: bool, max_redeliveries: u32) -> bool {
        let same = self.handed_over && !released_any;
        self.deaths = if same { self.deaths + 1 } else { 1 };
        self.deaths > max_redeliveries
    }

    /// Some messages, or none, have been handed over; the first of those before them was dropped, or
    /// not.
    fn handed_over(&mut self, any: bool, dropped: bool) {
        self.handed_over = any;
        if dropped {
            self.deaths = 0;
        }
    }
}

/// A plugin that asks to be restarted as soon as it is ready gets a process so often and no more.
const ASKED_AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// The pause before a restart that somebody has asked for.
fn pause_when_asked(asked: Asked, ready_for: Duration) -> Duration {
    match asked {
        Asked::Host => Duration::ZERO,
        Asked::Plugin => ASKED_AT_MOST_EVERY.saturating_sub(ready_for),
    }
}

impl Supervised {
    /// Starts the plugin again, which ended for `reason` after it had been ready for `ready_for`,
    /// until it runs or has failed too often. `asked` says who wants it, where it is not what the
    /// plugin's [`Restart`](super::Restart) says.
    pub(super) fn restart(
        self: &Arc<Self>,
        mut reason: ExitReason,
        died_at: Instant,
        asked: Option<Asked>,
        ready_for: Duration,
    ) {
        self.end_remains();
        let mut pause = match asked {
            Some(asked) => Some(pause_when_asked(asked, ready_for)),
            None => self.next_pause(reason),
        };
        loop {
            let Some(length) = pause else { return self.end(&mut self.life(), reason, true) };
            if self.wait_until(length, |life| life.stopping).1 {
                return self.end(&mut self.life(), reason, false);
            }
            let turn = self.tell_restart(&mut self.life());
            tell(turn);
            let carried = Cell::new(0);
            let hand_out = |channels| self.hand_over(channels, asked, &carried);
            let restarted = |pid, incarnation| {
                let (downtime, carried) = (died_at.elapsed(), carried.get());
                HostEventKind::Restarted { pid, incarnation, downtime, carried }
            };
            match self.start(Moment::AfterRestart, restarted, hand_out) {
                Ok(turn) => return tell(turn),
                Err(SpawnError::Stopped) => return self.end(&mut self.life(), reason, false),
                Err(error) => {
                    if let SpawnError::Exited { reason: found } = error {
                        reason = found;
                    }
                    self.report(HostEventKind::StartFailed { error: error.to_string() });
                }
            }
            pause = self.next_pause(reason);
        }
    }

    /// The pause before an attempt that counts; `None` where there have been too many.
    fn next_pause(&self, reason: ExitReason) -> Option<Duration> {
        let mut life = self.life();
        let pause = self.restart.pause(reason, life.failures)?;
        life.failures += 1;
        Some(pause)
    }

    /// The turn to tell of the restart that is going on, once for all its attempts.
    pub(super) fn tell_restart(self: &Arc<Self>, life: &mut Life) -> Option<Turn> {
        let told = std::mem::replace(&mut life.restart_told, true);
        if told || life.stopping { None } else { self.turn(Moment::BeforeRestart, life) }
    }

    /// Makes fresh channels the successors of the last incarnation's. Returns the control channel.
    fn hand_over(&self, channels: Channels, asked: Option<Asked>, carried: &Cell<u64>) -> Channel {
        let Channels { control, active, passive, service: _ } = channels;
        let new = [active, passive].map(|channel| {
            let connection = channel.into_successor();
            connection.follow();
            connection
        });
        let (old, mut suspicions, was_ready) = {
            let mut life = self.life();
            // Taken: where this start fails, the next one follows no death.
            // And no message is to blame for what the host wanted.
            let was_ready = std::mem::take(&mut life.was_ready) && asked != Some(Asked::Host);
            (life.connections.replace(new.clone()), life.suspicions, was_ready)
        };
        for ((old, new), suspicion) in old.iter().flatten().zip(new).zip(&mut suspicions) {
            carried.set(carried.get() + self.succeed(old, new, was_ready, suspicion));
        }
        self.life().suspicions = suspicions;
        control
    }

    /// Makes `new` the successor of `old`. Returns how many messages went over.
    fn succeed(
        &self,
        old: &Arc<Connection>,
        new: Arc<Connection>,
        was_ready: bool,
        suspicion: &mut Suspicion,
    ) -> u64 {
        // The dead plugin's own word; with a lie it harms only its successors.
        let head = old.outgoing().control(ring::HEAD);
        let released_any = old.memory().load_u64(head, Ordering::Acquire) != 0;
        // A message can have killed a process only once that was ready.
        let drop_first = was_ready && suspicion.death(released_any, self.max_redeliveries);
        // Fails only where the new segment is not fresh, and nobody else has it.
        let Ok(report) = old.succeed(new, drop_first) else { return 0 };
        suspicion.handed_over(report.carried > 0, report.dropped.is_some());
        if let Some((tag, len)) = report.dropped {
            self.report(HostEventKind::Dropped { tag, len });
        }
        if let Some(corruption) = report.corruption {
            self.report(HostEventKind::Spoilt { corruption });
        }
        report.carried
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_dropped_after_n_redeliveries() {
        let mut suspicion = Suspicion::default();
        // It was sent to the first incarnation directly, as the first message or a later one.
        assert!(!suspicion.death(true, 3));
        suspicion.handed_over(true, false);
        for _ in 0..2 {
            assert!(!suspicion.death(false, 3));
            suspicion.handed_over(true, false);
        }
        assert!(suspicion.death(false, 3), "three incarnations have got it again");
        suspicion.handed_over(true, true);
        for _ in 0..3 {
            assert!(!suspicion.death(false, 3), "the next message starts anew");
            suspicion.handed_over(true, false);
        }
        assert!(suspicion.death(false, 3));
    }

    #[test]
    fn a_plugin_that_asks_again_at_once_waits() {
        let pause = |asked, ready_ms| pause_when_asked(asked, Duration::from_millis(ready_ms));
        assert_eq!(pause(Asked::Plugin, 0), Duration::from_secs(1));
        assert_eq!(pause(Asked::Plugin, 400), Duration::from_millis(600));
        assert_eq!(pause(Asked::Plugin, 5000), Duration::ZERO);
        assert_eq!(pause(Asked::Host, 0), Duration::ZERO);
    }

    #[test]
    fn progress_clears_the_suspicion() {
        let mut suspicion = Suspicion::default();
        for _ in 0..100 {
            assert!(!suspicion.death(true, 1));
            suspicion.handed_over(true, false);
        }
        assert!(!suspicion.death(true, 1));
        suspicion.handed_over(false, false);
        assert!(!suspicion.death(false, 1), "the ring was empty then, so the message is another");
    }
}
