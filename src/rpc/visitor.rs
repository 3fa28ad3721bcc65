//! One caller, as the server's thread knows it.
//!
//! The thread reads the caller's requests and answers through it. What always holds: nothing waits for a
//! caller; while an answer has no room, none of its further requests is read, so that what is kept for a
//! caller is one answer; one that makes no room for long is let go of.

use std::cell::RefCell;
use std::mem;
use std::time::{Duration, Instant};

use super::frame::{ANSWER_BYTES, TOO_LONG};
use super::request::Withdrawn;
use crate::channel::Sender;
use crate::error::TrySendError;

/// See the module.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) name: String,
    pub(super) withdrawn: RefCell<Withdrawn>,
    sender: Sender,
    unsent: Option<Unsent>,
}

/// An answer for which there is no room.
#[derive(Debug)]
struct Unsent {
    tag: u16,
    bytes: Vec<u8>,
    sent: usize,
    /// When any of it has been sent last.
    since: Instant,
}

/// How a caller stands after something was done for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    /// It is served.
    Served,
    /// An answer waits for room.
    Waits,
    /// It has gone.
    Gone,
    /// It has broken a rule.
    Broken,
}

/// How sending an answer that waits has gone on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    Some,
    None,
    Gone,
}

impl Visitor {
    pub(super) fn new(name: String, sender: Sender, withdrawn: Withdrawn) -> Self {
        let withdrawn = RefCell::new(withdrawn);
        Self { name, withdrawn, sender, unsent: None }
    }

    /// Sends an answer without payload.
    #[cold]
    pub(super) fn answer_bare(&mut self, tag: u16, id: u64, answer: &mut Vec<u8>) -> Stand {
        answer.clear();
        self.answer(tag, id, answer)
    }

    /// Sends an answer: the payload, and behind it which call it is to.
    #[inline]
    pub(super) fn answer(&mut self, tag: u16, id: u64, answer: &mut Vec<u8>) -> Stand {
        answer.extend_from_slice(&id.to_ne_bytes());
        match self.sender.try_send_tagged(tag, answer) {
            Ok(()) => Stand::Served,
            Err(error) => self.answer_otherwise(tag, id, answer, error),
        }
    }

    #[cold]
    fn answer_otherwise(
        &mut self,
        tag: u16,
        id: u64,
        answer: &mut Vec<u8>,
        error: TrySendError,
    ) -> Stand {
        match error {
            TrySendError::Full | TrySendError::WouldFragment { .. } => {
                let (bytes, since) = (mem::take(answer), Instant::now());
                self.unsent = Some(Unsent { tag, bytes, sent: 0, since });
                match self.go_on() {
                    Progress::Done => Stand::Served,
                    Progress::Gone => Stand::Gone,
                    Progress::Some | Progress::None => Stand::Waits,
                }
            }
            TrySendError::TooLong { len, max } if tag != TOO_LONG => {
                answer.clear();
                for bytes in [len, max] {
                    answer.extend_from_slice(
                        &bytes.saturating_sub(ANSWER_BYTES as u64).to_ne_bytes(),
                    );
                }
                self.answer(TOO_LONG, id, answer)
            }
            TrySendError::Corrupt(_) => Stand::Broken,
            _ => Stand::Gone,
        }
    }

    /// Sends what there is room for of an answer that waits.
    pub(super) fn go_on(&mut self) -> Progress {
        let Some(unsent) = &mut self.unsent else { return Progress::Done };
        let before = unsent.sent;
        let done = if unsent.bytes.len() <= self.sender.max_record_bytes() {
            match self.sender.try_send_tagged(unsent.tag, &unsent.bytes) {
                Ok(()) => true,
                Err(TrySendError::Full) => false,
                Err(_) => return Progress::Gone,
            }
        } else {
            match self.sender.try_send_rest(unsent.tag, &unsent.bytes, &mut unsent.sent) {
                Ok(done) => done,
                Err(_) => return Progress::Gone,
            }
        };
        if done {
            self.unsent = None;
            return Progress::Done;
        }
        if unsent.sent == before {
            return Progress::None;
        }
        unsent.since = Instant::now();
        Progress::Some
    }

    /// Whether it has made no room for so long.
    pub(super) fn keeps_waiting(&self, patience: Duration) -> bool {
        self.unsent.as_ref().is_some_and(|unsent| unsent.since.elapsed() >= patience)
    }
}
