//! The thread of a passive receiver: wait for a message, call what matches, do what is asked for.
//!
//! [`running`](super::running) starts it. What always holds: a message is given back to the sender only
//! after its last callback has returned, so one that kills the process is there for the next; what is
//! asked for is done between two messages.

use super::caller::Caller;
use super::kind::Kind;
use super::report::Ended;
use super::running::{DRAIN, NEWS, STOP};
use crate::channel::Receiver;
use crate::error::RecvError;
use crate::layout::WORD_BYTES;
use crate::ring::Record;

/// A receiver and its callbacks.
pub(super) struct Loop<K: Kind> {
    pub(super) receiver: Receiver,
    pub(super) caller: Caller<K>,
}

impl<K: Kind> Loop<K> {
    /// Until it is stopped, or there is nothing to come.
    pub(super) fn run(mut self) {
        let ended = self.dispatch();
        self.caller.finish(self.receiver, ended);
    }

    fn dispatch(&mut self) -> Ended {
        loop {
            let found = self.receiver.next_unless(&self.caller.shared.signal);
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
        let bits = self.caller.shared.signal.bits() & obeyed;
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
        match K::take(&mut self.receiver, record) {
            Ok(item) => return self.caller.call_all(&item),
            Err(error) => self.caller.refuse(error),
        }
        self.receiver.take(record);
    }

    /// Something is asked for.
    #[cold]
    fn obey(&mut self, bits: u32) -> Option<Ended> {
        if bits & NEWS != 0 {
            self.caller.take_news();
        }
        if bits & STOP != 0 {
            return Some(Ended::Stopped);
        }
        (bits & DRAIN != 0).then(|| self.drain())
    }

    /// Handles what is there: at most a ring full, whatever comes meanwhile.
    #[cold]
    pub(super) fn drain(&mut self) -> Ended {
        // A record takes at least its header.
        let most = self.receiver.consumer.geometry().capacity_bytes() / WORD_BYTES;
        for _ in 0..most {
            // The signal is raised, so it does not wait.
            let found = self.receiver.next_unless(&self.caller.shared.signal);
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

    /// An error instead of a message.
    #[cold]
    fn notice(&mut self, error: RecvError) -> Option<Ended> {
        let ended = self.caller.notice(error)?;
        if !matches!(ended, Ended::Corrupt(_)) {
            return Some(ended);
        }
        loop {
            match self.receiver.outlast_corruption(&self.caller.shared.signal) {
                Some(true) => return None,
                Some(false) => return Some(ended),
                None => {
                    let bits = self.caller.shared.signal.bits();
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
}
