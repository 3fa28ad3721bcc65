//! What users hold of a reaction that runs, and what it shares with the thread that calls it.
//!
//! [`Reaction::start`](super::Reaction::start) gives a [`Reacting`] out. What always holds: nobody waits for a thread that is not
//! there, or that is its own; who has waited for the end finds the callback gone.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::callback::{Counts, ReactionStats};
use crate::os::fork;
use crate::store::watching::WatchInterrupter;

/// Why nobody has waited for the end of a reaction. It has been told to end all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReactionStopError {
    /// Its callback, or another one of the same thread, has not returned in time.
    #[error(
        "the reaction has not ended: a callback has not returned in time; it ends when that returns"
    )]
    Timeout,
    /// Called by a callback on the thread that would have to end it.
    #[error(
        "a callback cannot wait for the end of its own reaction; call this from another thread"
    )]
    OwnThread,
    /// The process has forked since it was started; the thread is the parent's.
    #[error(
        "the reaction belongs to the process that this one was forked from; start one in this process"
    )]
    Forked,
}

/// What the thread and the handle share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) counts: Counts,
    state: Mutex<State>,
    ended: Condvar,
    /// The fork generation that the thread runs in.
    pub(super) generation: u64,
}

#[derive(Debug, Default)]
struct State {
    stopping: bool,
    ended: bool,
    /// Who calls the callback, once that is known.
    thread: Option<ThreadId>,
}

impl Shared {
    pub(super) fn new(generation: u64) -> Arc<Self> {
        let (counts, state, ended) = Default::default();
        Arc::new(Self { counts, state, ended, generation })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.state().stopping
    }

    /// This thread will call the callback.
    pub(super) fn runs_here(&self) {
        self.state().thread = Some(thread::current().id());
    }

    pub(super) fn end(&self) {
        self.state().ended = true;
        self.ended.notify_all();
    }
}

/// How a thread that watches is reached.
pub(super) trait Waker: Send + Sync {
    fn wake(&self);
}

impl Waker for WatchInterrupter {
    fn wake(&self) {
        self.interrupt();
    }
}

/// A reaction that runs. Dropping it ends it, without waiting for the callback.
#[must_use = "the callback is not called any more once this is dropped"]
pub struct Reacting {
    shared: Arc<Shared>,
    waker: Arc<dyn Waker>,
}

impl fmt::Debug for Reacting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reacting").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Reacting {
    pub(super) fn new(shared: Arc<Shared>, waker: Arc<dyn Waker>) -> Self {
        Self { shared, waker }
    }

    /// Ends it: when this returns the callback has returned, is not called any more, and has been dropped.
    ///
    /// # Errors
    /// [`ReactionStopError::OwnThread`], [`ReactionStopError::Forked`].
    pub fn stop(self) -> Result<(), ReactionStopError> {
        self.end_by(None)
    }

    /// As [`stop`](Self::stop), waiting no longer than `timeout`.
    ///
    /// # Errors
    /// [`ReactionStopError`].
    pub fn stop_timeout(self, timeout: Duration) -> Result<(), ReactionStopError> {
        self.end_by(Instant::now().checked_add(timeout))
    }

    /// What it has counted.
    pub fn stats(&self) -> ReactionStats {
        self.shared.counts.stats()
    }

    fn end_by(&self, deadline: Option<Instant>) -> Result<(), ReactionStopError> {
        let shared = &self.shared;
        if !fork::is_current(shared.generation) {
            return Err(ReactionStopError::Forked);
        }
        self.tell();
        let mut state = shared.state();
        while !state.ended {
            if state.thread == Some(thread::current().id()) {
                return Err(ReactionStopError::OwnThread);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => return Err(ReactionStopError::Timeout),
                Some(left) => {
                    let waited = shared.ended.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => shared.ended.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        Ok(())
    }

    fn tell(&self) {
        self.shared.state().stopping = true;
        self.waker.wake();
    }
}

impl Drop for Reacting {
    fn drop(&mut self) {
        if fork::is_current(self.shared.generation) {
            self.tell();
        }
    }
}
