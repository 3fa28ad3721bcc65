//! Why a request has no answer, as a line sees it.
//!
//! `line` returns it, [judged](judge) by what the answer says, `lookup` makes a [`CallError`] of it. What
//! always holds: it tells apart what was sent from what was not, so that only the latter is tried again.

use std::time::Duration;

use super::chain::Bad;
use super::error::{Breach, CallError, Failure};
use super::frame::{
    DONE, FAILED, MALFORMED, MAX_CHAIN, NO_RESULT, PANICKED, TOO_LONG, UNKNOWN, two_words,
};
use crate::error::{Corruption, RecvTimeoutError, SendTimeoutError, TrySendError};

/// Why a line is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Died,
    Forked,
    Corrupt(Corruption),
    Broken(Breach),
}

impl From<End> for CallError {
    fn from(end: End) -> Self {
        match end {
            End::Died => Self::Died,
            End::Forked => Self::Forked,
            End::Corrupt(corruption) => Self::Corrupt(corruption),
            End::Broken(breach) => Self::Broken(breach),
        }
    }
}

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// The line was over before it was sent.
    NotSent(End),
    /// The server has no such function.
    Unknown,
    Bad(Bad),
    /// No place or no room in time.
    Full,
    /// No answer in time.
    Timeout,
    Other(CallError),
}

impl From<CallError> for Fault {
    fn from(error: CallError) -> Self {
        Self::Other(error)
    }
}

impl From<End> for Fault {
    fn from(end: End) -> Self {
        Self::Other(end.into())
    }
}

/// What it means that nothing could be received.
pub(super) fn ending(error: &RecvTimeoutError) -> End {
    match error {
        RecvTimeoutError::Corrupt(corruption) => End::Corrupt(*corruption),
        RecvTimeoutError::Forked => End::Forked,
        _ => End::Died,
    }
}

/// Why a request could not be sent.
pub(super) enum SendProblem {
    Room,
    TooLong { len: u64, max: u64 },
    End(End),
}

impl From<TrySendError> for SendProblem {
    fn from(error: TrySendError) -> Self {
        match error {
            TrySendError::Full | TrySendError::WouldFragment { .. } => Self::Room,
            TrySendError::TooLong { len, max } => Self::TooLong { len, max },
            TrySendError::Corrupt(corruption) => Self::End(End::Corrupt(corruption)),
            TrySendError::Forked => Self::End(End::Forked),
            _ => Self::End(End::Died),
        }
    }
}

impl From<SendTimeoutError> for SendProblem {
    fn from(error: SendTimeoutError) -> Self {
        match error {
            SendTimeoutError::TooLong { len, max } => Self::TooLong { len, max },
            SendTimeoutError::Corrupt(corruption) => Self::End(End::Corrupt(corruption)),
            SendTimeoutError::Forked => Self::End(End::Forked),
            SendTimeoutError::Timeout => Self::Room,
            _ => Self::End(End::Died),
        }
    }
}

impl Fault {
    /// What the caller of this function is told.
    pub(super) fn of(self, name: &str, timeout: Duration) -> CallError {
        let name = || name.to_owned();
        match self {
            Self::NotSent(end) => end.into(),
            Self::Unknown => CallError::Unknown { name: name() },
            Self::Bad(Bad::Recursion) => CallError::Recursion { name: name() },
            Self::Bad(Bad::TooDeep) => CallError::TooDeep { max: MAX_CHAIN },
            Self::Full => CallError::Full { timeout },
            Self::Timeout => CallError::Timeout { timeout },
            Self::Other(error) => error,
        }
    }
}

/// What an answer to a call says.
#[inline]
pub(super) fn judge(tag: u16, payload: &[u8]) -> Result<&[u8], Fault> {
    if tag == DONE { Ok(payload) } else { Err(judge_failure(tag, payload)) }
}

#[cold]
fn judge_failure(tag: u16, payload: &[u8]) -> Fault {
    let error = match (tag, two_words(payload), payload.len()) {
        (FAILED, ..) => CallError::Failed(Failure::from(payload)),
        (PANICKED, ..) => {
            CallError::Panicked { message: String::from_utf8_lossy(payload).into_owned() }
        }
        (UNKNOWN, _, 0) => return Fault::Unknown,
        (TOO_LONG, Some([len, max]), _) => CallError::ResultTooLong { len, max },
        (MALFORMED, _, 0) => CallError::Malformed,
        (NO_RESULT, _, 0) => CallError::NoResult,
        (_, _, len) => CallError::Broken(Breach::NoAnswer { tag, len }),
    };
    Fault::Other(error)
}
