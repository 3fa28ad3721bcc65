//! Who reads what a server sends, and who waits meanwhile.
//!
//! A line's callers come here when their answers have not come at once. What always holds: at most one
//! thread has the receiving end; nobody waits for it without being told when it is back, when their own
//! answer has come, or when the line is over.

use std::sync::PoisonError;

use super::{Line, State};
use crate::channel::Receiver;
use crate::error::RecvTimeoutError;
use crate::memory::Deadline;
use crate::os::clock::monotonic_ns;
use crate::rpc::fault::{End, ending};
use crate::rpc::outgoing::Clock;

/// How long a thread reads until it looks at what others have found out.
const SLICE_NS: u64 = 50_000_000;

impl Line {
    /// Reads what the server sends, or waits while another thread does, until `ready` finds what it
    /// looks for; `None` where that has not come in time. `waits_for` is the answer whose coming may
    /// make it ready; where there is none, a place among the calls.
    pub(super) fn read_until<T>(
        &self,
        waits_for: Option<u64>,
        clock: &mut Clock,
        ready: &mut impl FnMut(&mut State) -> Option<T>,
    ) -> Result<Option<T>, End> {
        let mut state = self.state();
        let mut last = false;
        let result = loop {
            if let Some(found) = ready(&mut state) {
                break Ok(Some(found));
            }
            if let Some(end) = state.ended {
                break Err(end);
            }
            if last {
                break Ok(None);
            }
            last = clock.left().is_zero();
            if let Some(mut receiver) = state.receiver.take() {
                drop(state);
                self.read(&mut receiver, clock.deadline());
                state = self.put_back(receiver, |state| &mut state.receiver);
            } else {
                let told = state.mail.follow(waits_for);
                let waited = told.wait_timeout(state, clock.left());
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                state.mail.unfollow(&told);
            }
        };
        // One of those that wait goes on reading.
        if state.receiver.is_some() {
            state.mail.pass_on();
        }
        if waits_for.is_none() {
            state.mail.share();
        }
        result
    }

    /// One answer, or the lack of one; for no longer than it may take to notice that the line is over, or
    /// that there is a place, which others find out.
    fn read(&self, receiver: &mut Receiver, deadline: Deadline) {
        let slice = Deadline::at_ns(monotonic_ns().saturating_add(SLICE_NS));
        let end = match receiver.recv_deadline(deadline.min(slice)) {
            Ok(message) => {
                let sorted = self.state().mail.sort(message.bytes(), message.tag());
                match sorted {
                    Ok(()) => return,
                    Err(breach) => End::Broken(breach),
                }
            }
            Err(RecvTimeoutError::Timeout) => return,
            Err(error) => ending(&error),
        };
        // Whoever waits finds it next.
        self.end(end);
    }

    /// Reads all answers that are there, unless somebody else does. Whether the line goes on.
    pub(super) fn pump(&self) -> bool {
        let mut state = self.state();
        let State { receiver, mail, .. } = &mut *state;
        let Some(receiver) = receiver else { return state.ended.is_none() };
        let mut sorted = Ok(());
        while sorted.is_ok()
            && let Ok(message) = receiver.try_recv()
        {
            sorted = mail.sort(message.bytes(), message.tag());
        }
        mail.pass_on();
        let goes_on = state.ended.is_none();
        drop(state);
        if let Err(breach) = sorted {
            self.end(End::Broken(breach));
            return false;
        }
        goes_on
    }
}
