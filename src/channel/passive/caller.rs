//! The callbacks of one receiver, as the thread that calls them has them.
//!
//! The receiver's own [`dispatcher`](super::dispatcher), or one that it [shares](super::Dispatcher), hands it
//! every message. What always holds: callbacks are called one after the other, in the order in which they
//! were registered, and what was registered before a message was sent is called with it.

use std::sync::Arc;

use super::callbacks::{CallbackId, Entry, Trouble, quietly};
use super::kind::Kind;
use super::report::{Ended, Report, Reporter};
use super::running::{NEWS, Shared};
use super::watchdog::Pulse;
use crate::channel::Receiver;
use crate::error::RecvError;

/// See the module.
pub(super) struct Caller<K: Kind> {
    entries: Vec<Entry<K>>,
    pub(super) shared: Arc<Shared<K>>,
    reporter: Arc<Reporter>,
    pulse: Option<Arc<Pulse>>,
    messages: u64,
    calls: u64,
}

impl<K: Kind> Caller<K> {
    pub(super) fn new(
        entries: Vec<Entry<K>>,
        shared: Arc<Shared<K>>,
        reporter: Arc<Reporter>,
        pulse: Option<Arc<Pulse>>,
    ) -> Self {
        Self { entries, shared, reporter, pulse, messages: 0, calls: 0 }
    }

    /// Calls every callback that matches.
    #[inline]
    pub(super) fn call_all(&mut self, item: &K::Item<'_>) {
        let Self { entries, reporter, pulse, calls, .. } = self;
        for entry in entries {
            if let Some(pulse) = pulse {
                pulse.begin(entry.id);
            }
            let called = entry.call(item);
            if let Some(pulse) = pulse {
                pulse.end();
            }
            *calls += match called {
                Ok(called) => u64::from(called),
                Err(trouble) => tell(reporter, entry.id, trouble),
            };
        }
        self.messages += 1;
        self.reporter.publish(self.messages, self.calls);
    }

    /// Registers and removes what was asked for.
    #[cold]
    pub(super) fn take_news(&mut self) {
        // Before the news are looked at: what comes later raises it again.
        self.shared.signal.take(NEWS);
        self.shared.take_news(&mut self.entries);
    }

    /// A message was no value.
    #[cold]
    pub(super) fn refuse(&self, error: RecvError) {
        self.reporter.tell(&Report::Refused { error });
    }

    /// An error instead of a message: what to tell, and whether it is the end, but for corruption, which
    /// may be outlasted.
    #[cold]
    pub(super) fn notice(&self, error: RecvError) -> Option<Ended> {
        match error {
            RecvError::Restarted { reason } => {
                self.reporter.tell(&Report::Restarted { reason });
                None
            }
            RecvError::Corrupt(corruption) => {
                self.reporter.tell(&Report::Corrupt { corruption });
                Some(Ended::Corrupt(corruption))
            }
            RecvError::Forked => Some(Ended::Forked),
            RecvError::Disconnected => Some(Ended::Disconnected),
            RecvError::Superseded => Some(Ended::Superseded),
            // Said of values that were asked for, and of no other message.
            RecvError::Mismatch { .. } | RecvError::Invalid => {
                self.refuse(error);
                None
            }
        }
    }

    /// Tells the end, and gives the receiver to whoever waits for it.
    pub(super) fn finish(self, mut receiver: Receiver, ended: Ended) {
        // Its callbacks have returned. Does nothing where it is the parent's.
        receiver.release();
        self.reporter.tell(&Report::Ended(ended));
        let Self { mut entries, shared, .. } = self;
        while let Some(entry) = entries.pop() {
            quietly(|| drop(entry));
        }
        shared.give_back(receiver, ended);
    }
}

/// Reports a call that did not go well. Returns 1 where it has returned.
#[cold]
fn tell(reporter: &Reporter, callback: CallbackId, trouble: Trouble) -> u64 {
    match trouble {
        Trouble::Failed(error) => {
            reporter.tell(&Report::Failed { callback, error: &*error });
            // An error is the user's, and so is what it does when it is dropped.
            quietly(|| drop(error));
            1
        }
        Trouble::Panicked(message) => {
            reporter.tell(&Report::Panicked { callback, message: &message });
            0
        }
    }
}
