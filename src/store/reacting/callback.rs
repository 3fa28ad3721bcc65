//! A callback: calling it, counting, and what there is to report.
//!
//! The threads that watch have one for each reaction. What always holds: it is called by one thread, never within itself; its
//! panics, and the hook's, stay in the call; whoever has stopped it does not see it called any more.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::handle::Shared;
use crate::callback::{Failure, quietly, text_of};
use crate::store::error::ReadError;
use crate::store::handle::Store;
use crate::store::watch::Change;
use crate::store::watching::WatchError;
use crate::sync::{AtomicU64, Ordering};

pub(super) type Call = Box<dyn FnMut(&Store, &Change) -> Result<(), Failure> + Send>;
type Hook = Box<dyn Fn(&ReactionReport<'_>) + Send + Sync>;

/// What has happened to a reaction.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReactionReport<'a> {
    /// The callback has panicked. It is called again at the next change.
    Panicked {
        /// What had changed.
        change: &'a Change,
        /// What the panic says.
        message: &'a str,
    },
    /// The callback has returned an error. It is called again at the next change.
    Failed {
        /// What had changed.
        change: &'a Change,
        /// What it returned.
        error: &'a (dyn std::error::Error + Send + Sync + 'static),
    },
    /// The store cannot be looked at. Told once; the thread looks again at intervals, and goes on when it can.
    Unreadable {
        /// What is wrong.
        error: ReadError,
    },
    /// The store's name means another store by now, or none. There are no more calls.
    Superseded,
}

impl fmt::Display for ReactionReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked { change, message } => {
                write!(f, "panicked at a change of {}: {message}", change.key.escape_ascii())
            }
            Self::Failed { change, error } => {
                write!(f, "failed at a change of {}: {error}", change.key.escape_ascii())
            }
            Self::Superseded => write!(f, "no more calls: {}", WatchError::Superseded),
            Self::Unreadable { error } => write!(f, "the store cannot be looked at: {error}"),
        }
    }
}

/// What a reaction has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReactionStats {
    /// Calls of the callback.
    pub calls: u64,
    /// Those that returned an error.
    pub failures: u64,
    /// Those that panicked.
    pub panics: u64,
}

/// Counts, where others can see them.
#[derive(Debug, Default)]
pub(super) struct Counts {
    calls: AtomicU64,
    failures: AtomicU64,
    panics: AtomicU64,
}

impl Counts {
    pub(super) fn stats(&self) -> ReactionStats {
        // Relaxed: nothing is concluded from a count.
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ReactionStats {
            calls: count(&self.calls),
            failures: count(&self.failures),
            panics: count(&self.panics),
        }
    }
}

/// A callback, and who is told of its troubles.
pub(super) struct Caller {
    call: Call,
    hook: Option<Hook>,
}

impl Caller {
    pub(super) fn new(call: Call) -> Self {
        Self { call, hook: None }
    }

    pub(super) fn set_hook(&mut self, hook: impl Fn(&ReactionReport<'_>) + Send + Sync + 'static) {
        self.hook = Some(Box::new(hook));
    }

    pub(super) fn report(&self, report: &ReactionReport<'_>) {
        if let Some(hook) = &self.hook {
            quietly(|| hook(report));
        }
    }
}

/// A reaction, as the thread that calls it has it. Dropped, it has ended.
pub(super) struct Member {
    /// `None` while it is being dropped.
    caller: Option<Caller>,
    pub(super) shared: Arc<Shared>,
}

impl Member {
    pub(super) fn new(caller: Caller, shared: Arc<Shared>) -> Self {
        Self { caller: Some(caller), shared }
    }

    /// Calls the callback, unless it has been stopped.
    pub(super) fn call(&mut self, store: &Store, change: &Change) {
        let (Some(caller), false) = (&mut self.caller, self.shared.is_stopping()) else { return };
        let counts = &self.shared.counts;
        counts.calls.fetch_add(1, Ordering::Relaxed);
        match catch_unwind(AssertUnwindSafe(|| (caller.call)(store, change))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                counts.failures.fetch_add(1, Ordering::Relaxed);
                caller.report(&ReactionReport::Failed { change, error: &*error });
                // The error is the user's, and so is what it does when it is dropped.
                quietly(|| drop(error));
            }
            Err(panic) => {
                counts.panics.fetch_add(1, Ordering::Relaxed);
                let message = text_of(panic);
                caller.report(&ReactionReport::Panicked { change, message: &message });
            }
        }
    }

    pub(super) fn report(&self, report: &ReactionReport<'_>) {
        if let Some(caller) = &self.caller {
            caller.report(report);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // First, so that whoever waits for the end finds nothing of the callback left.
        let caller = self.caller.take();
        quietly(|| drop(caller));
        self.shared.end();
    }
}
