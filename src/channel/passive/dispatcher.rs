//! The thread of a passive receiver: wait for a message, call what matches, do what is asked for.
//!
//! [`running`](super::running) starts it. What always holds: a message is given back to the sender only
//! after its last callback has returned, so one that kills the process is there for the next; what is
//! asked for is done between two messages.

use std::sync::Arc;

use super::callbacks::{CallbackId, Entry, Trouble, quietly};
use super::kind::Kind;
use super::report::{Ended, Report, Reporter};
use super::running::{DRAIN, NEWS, STOP, Shared};
use super::watchdog::Pulse;
use crate::channel::Receiver;
use crate::error::RecvError;
use crate::ring::Record;

/// Everything that only the thread touches.
pub(super) struct Dispatcher<K: Kind> {
    pub(super) receiver: Receiver,
    pub(super) entries: Vec<Entry<K>>,
    pub(super) shared: Arc<Shared<K>>,
    pub(super) reporter: Arc<Reporter>,
    pub(super) pulse: Option<Arc<Pulse>>,
    pub(super) messages: u64,
    pub(super) calls: u64,
}

impl<K: Kind> Dispatcher<K> {
    /// Until it is stopped, or there is nothing to come.
    pub(super) fn run(mut self) -> (Receiver, Ended) {
        let ended = self.dispatch();
        if ended != Ended::Forked {
            // Its callbacks have returned.
            self.receiver.release();
        }
        self.reporter.tell(&Report::Ended(ended));
        let Self { receiver, mut entries, .. } = self;
        while let Some(entry) = entries.pop() {
            quietly(|| drop(entry));
        }
        (receiver, ended)
    }

    fn dispatch(&mut self) -> Ended {
        let shared = Arc::clone(&self.shared);
        loop {
            let found = self.receiver.next_unless(&shared.signal);
            if let Some(ended) = self.step(found, !0) {
                return ended;
            }
        }
    }

    /// One message, or what there is instead. Which bits of the signal are obeyed.
    #[inline]
    fn step(&mut self, found: Result<Option<Record>, RecvError>, obeyed: u32) -> Option<Ended> {
        let found = match found {
            Ok(found) => found,
            // Told once: first of all.
            Err(error) => return self.notice(error),
        };
        // Behind the message: what was asked for before it was sent holds for it.
        let bits = self.shared.signal.bits() & obeyed;
        if bits != 0
            && let Some(ended) = self.obey(bits)
        {
            return Some(ended);
        }
        if let Some(record) = found {
            self.handle(&record);
        }
        None
    }

    #[inline]
    fn handle(&mut self, record: &Record) {
        match self.call_all(record) {
            Ok(()) => {
                self.messages += 1;
                self.reporter.publish(self.messages, self.calls);
            }
            Err(error) => {
                self.reporter.tell(&Report::Refused { error });
                self.receiver.take(record);
            }
        }
    }

    /// Calls every callback that matches a message, in order.
    #[inline]
    fn call_all(&mut self, record: &Record) -> Result<(), RecvError> {
        let Self { receiver, entries, reporter, pulse, calls, .. } = self;
        let item = K::take(receiver, record)?;
        for entry in entries {
            if let Some(pulse) = pulse {
                pulse.begin(entry.id);
            }
            let called = entry.call(&item);
            if let Some(pulse) = pulse {
                pulse.end();
            }
            *calls += match called {
                Ok(called) => u64::from(called),
                Err(trouble) => tell(reporter, entry.id, trouble),
            };
        }
        Ok(())
    }

    /// Something is asked for.
    #[cold]
    fn obey(&mut self, bits: u32) -> Option<Ended> {
        if bits & NEWS != 0 {
            // Before the news are looked at: what comes later raises it again.
            self.shared.signal.take(NEWS);
            self.shared.take_news(&mut self.entries);
        }
        if bits & STOP != 0 {
            return Some(Ended::Stopped);
        }
        (bits & DRAIN != 0).then(|| self.drain())
    }

    /// Handles what is there: at most a ring full, whatever comes meanwhile.
    #[cold]
    fn drain(&mut self) -> Ended {
        let geometry = self.receiver.consumer.geometry();
        // A record takes at least its header.
        let most = geometry.capacity_bytes() / crate::layout::WORD_BYTES;
        for _ in 0..most {
            // The signal is raised, so it does not wait.
            let found = self.receiver.next_unless(&self.shared.signal);
            let empty = matches!(found, Ok(None));
            if let Some(ended) = self.step(found, !DRAIN) {
                return ended;
            }
            if empty {
                break;
            }
        }
        Ended::Drained
    }

    /// An error instead of a message: what to tell, and whether it is the end.
    #[cold]
    fn notice(&mut self, error: RecvError) -> Option<Ended> {
        match error {
            RecvError::Restarted { reason } => {
                self.reporter.tell(&Report::Restarted { reason });
                None
            }
            RecvError::Corrupt(corruption) => {
                self.reporter.tell(&Report::Corrupt { corruption });
                loop {
                    match self.receiver.outlast_corruption(&self.shared.signal) {
                        Some(true) => return None,
                        Some(false) => return Some(Ended::Corrupt(corruption)),
                        None => {
                            let bits = self.shared.signal.bits();
                            if let Some(ended) = self.obey(bits & !DRAIN) {
                                return Some(ended);
                            }
                            // The next incarnation is not there.
                            if bits & DRAIN != 0 {
                                return Some(Ended::Drained);
                            }
                        }
                    }
                }
            }
            RecvError::Forked => Some(Ended::Forked),
            RecvError::Disconnected => Some(Ended::Disconnected),
            // Said of values that were asked for, which `handle` does.
            RecvError::Mismatch { .. } | RecvError::Invalid => {
                self.reporter.tell(&Report::Refused { error });
                None
            }
        }
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
