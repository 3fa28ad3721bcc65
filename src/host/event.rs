//! What happened to plugins, for whoever wants to know.
//!
//! The host's threads report, callers of [`Host::next_event`](super::Host::next_event) read.
//! What always holds: events of one plugin come in the order in which they happened; when nobody
//! reads, the oldest are forgotten and counted.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::RequestProblem;
use super::hooks::Moment;
use super::others::ControlAction;
use super::service::error::ServiceProblem;
use crate::error::{Corruption, ExitReason};

/// Something that happened to a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEvent {
    /// The plugin's name; empty where it concerns no plugin.
    pub plugin: String,
    /// When it happened.
    pub at: Instant,
    /// What happened.
    pub kind: HostEventKind,
}

/// What can happen to a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostEventKind {
    /// Started for the first time, and ready.
    Started {
        /// Its process.
        pid: u32,
    },
    /// Its process has ended.
    Died {
        /// The process.
        pid: u32,
        /// Why.
        reason: ExitReason,
    },
    /// Started again, and ready.
    Restarted {
        /// Its process.
        pid: u32,
        /// How many processes it has been, this one included.
        incarnation: u32,
        /// From when the former one was found dead until this one was ready.
        downtime: Duration,
        /// Messages that the former one had not finished with, and that this one gets; of those in
        /// fragments, each piece counts.
        carried: u64,
    },
    /// A message was dropped, because as many incarnations in a row as
    /// [`PluginSpec::max_redeliveries`](super::PluginSpec::max_redeliveries) allows, and one more,
    /// have ended with it as their first unread one.
    Dropped {
        /// Tag of the message.
        tag: u16,
        /// Its length.
        len: usize,
    },
    /// The dead process had spoilt its side of a channel, so that the messages that it had not
    /// finished with could not be carried over, or not all of them.
    Spoilt {
        /// What was found.
        corruption: Corruption,
    },
    /// It has asked to be restarted, and is being.
    RestartRequested {
        /// The plugin's own words: at most [`MAX_REASON_BYTES`](super::control::MAX_REASON_BYTES), no
        /// control characters.
        reason: String,
    },
    /// It has asked to be ended for good, and is being.
    StopRequested {
        /// The plugin's own words, as above.
        reason: String,
    },
    /// Another plugin has done something to it, as the host program [allows](super::PluginSpec::may_control).
    ControlledBy {
        /// The other plugin's name.
        plugin: String,
        /// What it has done.
        action: ControlAction,
    },
    /// It has sent something that is no request where a request should stand. Nothing follows, and
    /// the host does not listen to this process any more.
    BadRequest {
        /// What is wrong with it.
        problem: RequestProblem,
    },
    /// It is not served any more: what it sent on its service channel breaks the rules, or the host itself cannot
    /// serve it ([`HostPanicked`](ServiceProblem::HostPanicked)). Its own calls say so to it; everything else goes
    /// on, and in the first case a successor is served again.
    ServiceClosed {
        /// What was wrong.
        problem: ServiceProblem,
    },
    /// It does not read what it is told of its [links](super::HostBuilder::links), or could not be told:
    /// they are over, and its names are gone. Everything else goes on; a successor starts anew.
    LinksClosed,
    /// A hook has panicked. Everything goes on.
    HookPanicked {
        /// When it was called.
        moment: Moment,
        /// What the panic said, where it said something.
        message: String,
    },
    /// Not even SIGKILL has ended it in time. It counts as ended; should it end after all, it is
    /// reaped, and its death reported.
    LeftBehind {
        /// Its process.
        pid: u32,
    },
    /// The reasons for which processes end are not reliable in this host, said once a host: it ignores
    /// SIGCHLD, or something else in it waits for all children. A reason is then
    /// [unknown](ExitReason::Unknown) before Linux 6.15, and is not taken for a failure.
    ReapedElsewhere,
    /// The host's [keeper](super::HostBuilder::keeper) has ended before the host. Its plugins go on and are
    /// watched; before Linux 6.15 the reasons for which they end are [unknown](ExitReason::Unknown). From
    /// now on the host starts plugins itself, and nothing ends their groups when the host is gone.
    KeeperEnded {
        /// Why.
        reason: ExitReason,
    },
    /// A thread that this plugin needs could not be started. It is tried again until it can.
    NoThread {
        /// The error.
        error: String,
    },
    /// It has not answered for as long as its [`PluginSpec::liveness`](super::PluginSpec::liveness) says.
    Silent {
        /// For how long.
        silence: Duration,
    },
    /// It answers again.
    Heard,
    /// A further incarnation could not be started; what went wrong, in words.
    StartFailed {
        /// The error.
        error: String,
    },
    /// It has failed too often, and stays ended.
    GaveUp {
        /// Why it ended the last time.
        reason: ExitReason,
    },
}

/// How many events wait for a reader.
const MAX_WAITING: usize = 4096;

/// Events that nobody has read yet.
#[derive(Debug, Default)]
pub(super) struct Events {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<HostEvent>,
    forgotten: u64,
    /// Whether `ReapedElsewhere` has been said.
    reaping_told: bool,
}

impl Events {
    /// Reports [`HostEventKind::ReapedElsewhere`], once.
    pub(super) fn reaped_elsewhere(&self, plugin: &str) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let told = std::mem::replace(&mut waiting.reaping_told, true);
        drop(waiting);
        if !told {
            self.report(plugin, HostEventKind::ReapedElsewhere);
        }
    }

    pub(super) fn report(&self, plugin: &str, kind: HostEventKind) {
        let event = HostEvent { plugin: plugin.into(), at: Instant::now(), kind };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.events.len() == MAX_WAITING {
            waiting.events.pop_front();
            waiting.forgotten += 1;
        }
        waiting.events.push_back(event);
        self.changed.notify_all();
    }

    pub(super) fn next(&self, timeout: Duration) -> Option<HostEvent> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut waiting, _) = self
            .changed
            .wait_timeout_while(waiting, timeout, |waiting| waiting.events.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        waiting.events.pop_front()
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_events_are_bounded_and_counted() {
        let events = Events::default();
        assert_eq!(events.next(Duration::ZERO), None);
        for pid in 0..MAX_WAITING as u32 + 3 {
            events.report("p", HostEventKind::Started { pid });
        }
        assert_eq!(events.forgotten(), 3);
        let first = events.next(Duration::ZERO).unwrap();
        assert_eq!(first.kind, HostEventKind::Started { pid: 3 });
    }
}
