//! Starting a plugin again: back-off, fresh segments, unread messages.
//!
//! Runs on a thread of its own from a plugin's death until it runs again or is given up.
//! What always holds: a new incarnation gets fresh segments, which nobody but it and the host can
//! write; the messages that the former one had not finished with are in them before it starts; the
//! host's ends have been sent there.

use std::sync::Arc;
use std::time::Instant;

use super::error::SpawnError;
use super::event::HostEventKind;
use super::launch::Channels;
use super::supervised::{Phase, Supervised};
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
    /// A reader died that had released nothing, or something, before. Returns whether the message
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

impl Supervised {
    /// Starts the plugin again, which ended for `reason`, until it runs or has failed too often.
    pub(super) fn restart(self: &Arc<Self>, mut reason: ExitReason, died_at: Instant) {
        loop {
            let failures = self.life().failures;
            let Some(pause) = self.restart.pause(reason, failures) else {
                return self.end(reason, true);
            };
            if self.wait_until(pause, |life| life.stopping).1 {
                return self.end(reason, false);
            }
            self.life().failures += 1;
            let mut carried = 0;
            let started = self.start(|channels| self.hand_over(channels, &mut carried));
            match started {
                Ok(pid) => {
                    let (incarnation, downtime) = (self.life().incarnation, died_at.elapsed());
                    let kind = HostEventKind::Restarted { pid, incarnation, downtime, carried };
                    return self.report(kind);
                }
                Err(SpawnError::Stopped) => return self.end(reason, false),
                Err(error) => {
                    if let SpawnError::Exited { reason: found } = error {
                        reason = found;
                    }
                    self.report(HostEventKind::StartFailed { error: error.to_string() });
                }
            }
        }
    }

    /// No further incarnation will come.
    fn end(&self, reason: ExitReason, gave_up: bool) {
        let connections = self.life().connections.take();
        for connection in connections.iter().flatten() {
            connection.abandon();
        }
        if gave_up {
            self.report(HostEventKind::GaveUp { reason });
        }
        self.set_phase(Phase::Ended(reason));
    }

    /// Makes fresh channels the successors of the last incarnation's. Returns the control channel.
    fn hand_over(&self, channels: Channels, carried: &mut u64) -> Channel {
        let Channels { control, active, passive } = channels;
        let new = [active, passive].map(|channel| {
            let (connection, _segment) = channel.into_successor();
            connection.follow();
            connection
        });
        let (old, mut suspicions, was_ready) = {
            let mut life = self.life();
            // Taken: where this start fails, the next one follows no death.
            let was_ready = std::mem::take(&mut life.was_ready);
            (life.connections.replace(new.clone()), life.suspicions, was_ready)
        };
        for ((old, new), suspicion) in old.iter().flatten().zip(new).zip(&mut suspicions) {
            *carried += self.succeed(old, new, was_ready, suspicion);
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
