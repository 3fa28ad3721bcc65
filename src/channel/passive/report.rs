//! What a dispatcher has to tell, and to whom.
//!
//! The dispatcher and the watchdog report; the user's hook is told. What always holds: every report is
//! counted, and a hook that panics harms nobody else.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::callbacks::{CallbackId, quietly};
use crate::error::{Corruption, ExitReason, RecvError};
use crate::sync::{AtomicU64, Ordering};

/// What has happened on a passive receiver.
#[derive(Debug)]
#[non_exhaustive]
pub enum Report<'a> {
    /// A callback, or its filter, has panicked. The next one is called, then the next message received.
    Panicked {
        /// Which.
        callback: CallbackId,
        /// What the panic says.
        message: &'a str,
    },
    /// A callback has returned an error. The next one is called, then the next message received.
    Failed {
        /// Which.
        callback: CallbackId,
        /// What it returned.
        error: &'a (dyn Error + Send + Sync + 'static),
    },
    /// A callback, or its filter, has not returned yet. Told once; this receiver's messages wait.
    Stuck {
        /// Which.
        callback: CallbackId,
        /// For how long it was seen running.
        running_for: Duration,
    },
    /// A message that was no value of the receiver's type was dropped.
    Refused {
        /// What is wrong with it.
        error: RecvError,
    },
    /// The plugin at the other end was restarted. Unread messages have been carried over.
    Restarted {
        /// Why the former one ended.
        reason: ExitReason,
    },
    /// The peer wrote something impossible. Where the plugin may be restarted, the dispatcher waits for
    /// that; else it ends.
    Corrupt {
        /// What was found.
        corruption: Corruption,
    },
    /// The dispatcher has ended: nothing is received any more.
    Ended(Ended),
}

/// Why a dispatcher has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// It was stopped. What it had not received is still there.
    Stopped,
    /// It was asked to handle what was there, and has.
    Drained,
    /// The peer has closed its end, or died, and everything it sent has been handled.
    Disconnected,
    /// Nobody is at the other side, and the channel's name means another segment, or none.
    Superseded,
    /// The peer wrote something impossible.
    Corrupt(Corruption),
    /// The channel belongs to the process that this one was forked from.
    Forked,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Drained => f.write_str("drained"),
            Self::Disconnected => f.write_str("the peer is gone"),
            Self::Superseded => write!(f, "{}", RecvError::Superseded),
            Self::Corrupt(corruption) => write!(f, "channel is corrupt: {corruption}"),
            Self::Forked => f.write_str("the channel belongs to the parent"),
        }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked { callback, message } => write!(f, "{callback} panicked: {message}"),
            Self::Failed { callback, error } => write!(f, "{callback} failed: {error}"),
            Self::Stuck { callback, running_for } => {
                write!(f, "{callback} has not returned for {running_for:?}")
            }
            Self::Refused { error } => write!(f, "a message was dropped: {error}"),
            Self::Restarted { reason } => write!(f, "the peer was restarted: {reason}"),
            Self::Corrupt { corruption } => write!(f, "channel is corrupt: {corruption}"),
            Self::Ended(ended) => write!(f, "no more callbacks: {ended}"),
        }
    }
}

/// What a dispatcher has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PassiveStats {
    /// Messages handled: every callback that matches has been called.
    pub messages: u64,
    /// Calls of callbacks that returned.
    pub calls: u64,
    /// Those of them that returned an error.
    pub failures: u64,
    /// Callbacks and filters that panicked.
    pub panics: u64,
    /// Callbacks that were seen not to return in time; they may have returned since.
    pub stuck: u64,
    /// Messages dropped because they were no values of the receiver's type.
    pub refused: u64,
}

type Hook = Box<dyn Fn(&Report<'_>) + Send + Sync>;

/// Counts, and the hook.
#[derive(Default)]
pub(super) struct Reporter {
    hook: Option<Hook>,
    messages: AtomicU64,
    calls: AtomicU64,
    failures: AtomicU64,
    panics: AtomicU64,
    stuck: AtomicU64,
    refused: AtomicU64,
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Reporter {
    pub(super) fn new(hook: impl Fn(&Report<'_>) + Send + Sync + 'static) -> Self {
        Self { hook: Some(Box::new(hook)), ..Self::default() }
    }

    /// After a message: how many there were, and how many calls that returned.
    #[inline]
    pub(super) fn publish(&self, messages: u64, calls: u64) {
        // Relaxed: nothing is read because of a count.
        self.messages.store(messages, Ordering::Relaxed);
        self.calls.store(calls, Ordering::Relaxed);
    }

    #[cold]
    pub(super) fn tell(&self, report: &Report<'_>) {
        let count = match report {
            Report::Panicked { .. } => Some(&self.panics),
            Report::Failed { .. } => Some(&self.failures),
            Report::Stuck { .. } => Some(&self.stuck),
            Report::Refused { .. } => Some(&self.refused),
            _ => None,
        };
        if let Some(count) = count {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(hook) = &self.hook {
            quietly(|| hook(report));
        }
    }

    pub(super) fn stats(&self) -> PassiveStats {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        PassiveStats {
            messages: count(&self.messages),
            calls: count(&self.calls),
            failures: count(&self.failures),
            panics: count(&self.panics),
            stuck: count(&self.stuck),
            refused: count(&self.refused),
        }
    }
}
