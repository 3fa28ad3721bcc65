//! Whether a plugin's process answers: questions on its session, answers on its pulse.
//!
//! `start` begins it for a plugin whose [`PluginSpec::liveness`](super::PluginSpec::liveness) is set.
//! Invariants: it runs on the supervisor's thread and never waits; silence and its end are reported in
//! turn.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::event::{Events, HostEventKind};
use crate::os::{post, pulse};
use crate::supervisor::{self, WatchToken};

/// How often the supervisor calls `look`, at most.
const LOOK_EVERY: Duration = Duration::from_millis(40);

#[derive(Debug)]
struct Liveness {
    plugin: String,
    events: Arc<Events>,
    session: OwnedFd,
    pulse: OwnedFd,
    silence: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    heard_at: Instant,
    ask_at: Instant,
    is_silent: bool,
}

/// Begins to ask a process; ends when the token is dropped.
pub(super) fn begin(
    plugin: &str,
    events: &Arc<Events>,
    session: OwnedFd,
    pulse: OwnedFd,
    silence: Duration,
) -> io::Result<WatchToken> {
    let now = Instant::now();
    let state = Mutex::new(State { heard_at: now, ask_at: now, is_silent: false });
    let (plugin, events) = (plugin.to_owned(), Arc::clone(events));
    let liveness = Liveness { plugin, events, session, pulse, silence, state };
    let look = move || {
        liveness.look(Instant::now());
        true
    };
    supervisor::ask(Arc::new(look), Box::new(|| ()))
}

impl Liveness {
    fn look(&self, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if pulse::heard(self.pulse.as_fd()) {
            state.heard_at = now;
            if std::mem::take(&mut state.is_silent) {
                self.events.report(&self.plugin, HostEventKind::Heard);
            }
        }
        let silence = now.saturating_duration_since(state.heard_at);
        if silence > self.silence && !state.is_silent {
            state.is_silent = true;
            self.events.report(&self.plugin, HostEventKind::Silent { silence });
        }
        if now >= state.ask_at {
            state.ask_at = now + (self.silence / 4).max(LOOK_EVERY);
            // Without room there are questions that it has not answered.
            let _ = post::send(self.session.as_fd(), b"?", None);
        }
    }
}
