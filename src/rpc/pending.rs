//! Calls that are under way.
//!
//! [`Client::start`](super::Client::start) and its relatives make them. What always holds: a result is
//! fetched once; a call whose handle is dropped is taken back, and its answer, if it comes, is dropped.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use rkyv::util::AlignedVec;

use super::error::CallError;
use super::fault::{Fault, judge};
use super::line::Line;
use super::outgoing::Clock;
use crate::typed::DecodeOwned;

/// A call that is under way. Dropping it takes it back: a function that has not begun will not, and one
/// that has can [learn of it](super::Request::is_cancelled).
#[must_use = "dropping it takes the call back"]
pub struct PendingCall {
    line: Arc<Line>,
    /// `None` once the answer has been fetched.
    id: Option<u64>,
    name: Box<str>,
}

impl fmt::Debug for PendingCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingCall").field("name", &self.name).field("id", &self.id).finish()
    }
}

impl PendingCall {
    pub(super) fn new(line: Arc<Line>, id: u64, name: &str) -> Self {
        Self { line, id: Some(id), name: name.into() }
    }

    /// Waits for the result, for at most `timeout`.
    ///
    /// # Errors
    /// [`CallError::Timeout`]: the call goes on, and can be waited for again. After any other error it is
    /// over, and so it is after the result ([`CallError::Over`]). A function that was removed meanwhile
    /// is [`CallError::Unknown`].
    pub fn wait(&mut self, timeout: Duration) -> Result<Vec<u8>, CallError> {
        let id = self.id.ok_or(CallError::Over)?;
        let answer = match self.line.wait(id, &mut Clock::new(timeout)) {
            Ok(Some(answer)) => answer,
            Ok(None) => return Err(CallError::Timeout { timeout }),
            Err(end) => {
                self.id = None;
                return Err(end.into());
            }
        };
        self.id = None;
        let judged = judge(answer.tag, &answer.payload);
        match judged.inspect_err(|fault| self.line.blame(fault)) {
            Ok(_) => Ok(answer.payload),
            Err(Fault::Unknown) => Err(CallError::Unknown { name: self.name.to_string() }),
            Err(Fault::Other(error)) => Err(error),
            Err(_) => Err(CallError::Over),
        }
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.line.give_up(id);
        }
    }
}

/// A call of a function of values; otherwise as [`PendingCall`].
#[must_use = "dropping it takes the call back"]
pub struct TypedPendingCall<R> {
    call: PendingCall,
    result: PhantomData<fn() -> R>,
}

impl<R> fmt::Debug for TypedPendingCall<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.call.fmt(f)
    }
}

impl<R: DecodeOwned> TypedPendingCall<R> {
    pub(super) fn new(call: PendingCall) -> Self {
        Self { call, result: PhantomData }
    }

    /// Waits for the result, for at most `timeout`.
    ///
    /// # Errors
    /// As [`PendingCall::wait`].
    pub fn wait(&mut self, timeout: Duration) -> Result<R::Value, CallError> {
        let result = self.call.wait(timeout)?;
        // An archive is read where it is aligned.
        let mut bytes = AlignedVec::<64>::with_capacity(result.len());
        bytes.extend_from_slice(&result);
        R::decode(&bytes).and_then(R::to_value).map_err(CallError::InvalidResult)
    }
}
