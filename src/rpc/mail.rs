//! Calls that are under way over one link, but for that of the thread that reads.
//!
//! Callers enter their calls here before they send them, and whoever reads the link puts the answers in.
//! What always holds: an answer belongs to a call that is under way, once, or the callee has broken the
//! rules; what is kept is bounded in number and in bytes; when a thread stops to read, one of those that
//! wait is told.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::Breach;
use super::frame::{CANCELLED, split_word};
use crate::sync::Condvar;

/// How many calls can be under way over one link, those included whose callers have given up and whose
/// answers have not come.
pub(super) const MAX_UNDER_WAY: usize = 1024;

/// Bytes of answers that nobody has fetched yet.
const MAX_KEPT_BYTES: usize = 64 << 20;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) tag: u16,
    pub(super) payload: Vec<u8>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Mail {
    calls: HashMap<u64, Pending>,
    kept_bytes: usize,
    /// Threads that wait while another one reads, and for which answer; `None` where it is for a place
    /// among the calls.
    followers: Vec<(Option<u64>, Arc<Condvar>)>,
}

#[derive(Debug)]
enum Pending {
    Awaited,
    Answered(Answer),
    /// Nobody waits any more; its place is free when the answer has come.
    Abandoned,
}

impl Mail {
    pub(super) fn is_full(&self) -> bool {
        self.calls.len() >= MAX_UNDER_WAY
    }

    /// A call is under way, or about to be.
    pub(super) fn enter(&mut self, id: u64) {
        self.calls.insert(id, Pending::Awaited);
    }

    /// It was not sent after all.
    pub(super) fn forget(&mut self, id: u64) {
        if let Some(Pending::Answered(answer)) = self.calls.remove(&id) {
            self.kept_bytes -= answer.payload.len();
        }
        self.tell(None);
    }

    /// Nobody waits for it any more. Whether the answer had not come.
    pub(super) fn abandon(&mut self, id: u64) -> bool {
        match self.calls.get_mut(&id) {
            Some(pending @ Pending::Awaited) => {
                *pending = Pending::Abandoned;
                true
            }
            _ => {
                self.forget(id);
                false
            }
        }
    }

    /// The answer, where it has come.
    pub(super) fn fetch(&mut self, id: u64) -> Option<Answer> {
        let Some(Pending::Answered(_)) = self.calls.get(&id) else { return None };
        let Some(Pending::Answered(answer)) = self.calls.remove(&id) else { return None };
        self.kept_bytes -= answer.payload.len();
        self.tell(None);
        Some(answer)
    }

    /// An answer has come; which call it is to stands behind it.
    pub(super) fn sort(&mut self, answer: &[u8], tag: u16) -> Result<(), Breach> {
        match split_word(answer) {
            Some((payload, id)) => self.deliver(id, tag, payload),
            None => Err(Breach::NoAnswer { tag, len: answer.len() }),
        }
    }

    /// An answer to this call has come.
    pub(super) fn deliver(&mut self, id: u64, tag: u16, payload: &[u8]) -> Result<(), Breach> {
        match self.calls.get_mut(&id) {
            // Only what was taken back is answered so.
            Some(Pending::Awaited) if tag == CANCELLED => Err(Breach::UnknownCall { id }),
            Some(pending @ Pending::Awaited) => {
                let len = self.kept_bytes.saturating_add(payload.len());
                if len > MAX_KEPT_BYTES {
                    return Err(Breach::TooMuch { len, max: MAX_KEPT_BYTES });
                }
                self.kept_bytes = len;
                *pending = Pending::Answered(Answer { tag, payload: payload.to_vec() });
                self.tell(Some(id));
                Ok(())
            }
            Some(Pending::Abandoned) => {
                self.forget(id);
                Ok(())
            }
            Some(Pending::Answered(_)) | None => Err(Breach::UnknownCall { id }),
        }
    }

    /// A thread is about to wait.
    pub(super) fn follow(&mut self, waits_for: Option<u64>) -> Arc<Condvar> {
        let told = Arc::new(Condvar::new());
        self.followers.push((waits_for, Arc::clone(&told)));
        told
    }

    /// It does not wait any more.
    pub(super) fn unfollow(&mut self, told: &Arc<Condvar>) {
        self.followers.retain(|(_, other)| !Arc::ptr_eq(other, told));
    }

    /// Wakes one thread that waits for this.
    fn tell(&self, waits_for: Option<u64>) {
        if let Some((_, told)) = self.followers.iter().find(|(id, _)| *id == waits_for) {
            told.notify_one();
        }
    }

    /// A thread no longer waits for a place among the calls. When several became free, all of those who
    /// told of one may have told this thread: it tells the next.
    pub(super) fn share(&self) {
        if !self.is_full() {
            self.tell(None);
        }
    }

    /// Somebody may read.
    pub(super) fn pass_on(&self) {
        if let Some((_, told)) = self.followers.first() {
            told.notify_one();
        }
    }

    pub(super) fn tell_all(&self) {
        self.followers.iter().for_each(|(_, told)| told.notify_one());
    }
}

#[cfg(test)]
impl Mail {
    pub(super) fn under_way(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.followers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::frame::DONE;

    #[test]
    fn an_answer_belongs_to_a_call_that_is_under_way_once() {
        let mut mail = Mail::default();
        assert_eq!(mail.deliver(1, DONE, b"a"), Err(Breach::UnknownCall { id: 1 }));
        mail.enter(1);
        assert_eq!(mail.fetch(1), None);
        assert_eq!(mail.deliver(1, CANCELLED, b""), Err(Breach::UnknownCall { id: 1 }));
        assert_eq!(mail.deliver(1, DONE, b"a"), Ok(()));
        assert_eq!(mail.deliver(1, DONE, b"b"), Err(Breach::UnknownCall { id: 1 }));
        assert_eq!(mail.fetch(1), Some(Answer { tag: DONE, payload: b"a".into() }));
        assert_eq!((mail.fetch(1), mail.kept_bytes), (None, 0));
        mail.enter(2);
        assert!(mail.abandon(2));
        assert_eq!(mail.deliver(2, CANCELLED, b""), Ok(()));
        assert_eq!(mail.deliver(2, CANCELLED, b""), Err(Breach::UnknownCall { id: 2 }));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut mail = Mail::default();
        let payload = vec![0; MAX_KEPT_BYTES / 2];
        (1..=3).for_each(|id| mail.enter(id));
        assert_eq!(mail.deliver(1, DONE, &payload), Ok(()));
        assert_eq!(mail.deliver(2, DONE, &payload), Ok(()));
        let breach = Breach::TooMuch { len: MAX_KEPT_BYTES + 1, max: MAX_KEPT_BYTES };
        assert_eq!(mail.deliver(3, DONE, b"1"), Err(breach));
        assert!(!mail.abandon(1));
        assert_eq!(mail.kept_bytes, MAX_KEPT_BYTES / 2);
    }
}
