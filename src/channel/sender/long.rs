//! Sending messages longer than a record: in pieces, as room comes.
//!
//! What stands behind `send` and its relatives where one record does not do. What always holds: the
//! receiver hands out the whole message or nothing of it; a sender that gives up midway owes the
//! ring a record that says so, and that goes out before any other.

use std::io::IoSlice;

use super::Sender;
use super::wait::Attempt;
use crate::error::{SendError, SendTimeoutError, TrySendError};
use crate::memory::{Deadline, Memory};
use crate::ring::{Fragments, Producer, RecordKind};

/// How long a sender that has something else to do waits for room before it does it.
const MEANWHILE_NS: u64 = 1_000_000;

impl<M: Memory> Sender<M> {
    /// Whether a message of `len` bytes does not go in one record of plain data.
    pub(super) fn is_long(&self, len: usize) -> bool {
        !self.producer.geometry().fits_record(RecordKind::Data, len)
    }

    /// For calls that do not wait: one record must do.
    pub(super) fn check_fits(&self, kind: RecordKind, len: usize) -> Result<(), TrySendError> {
        let geometry = self.producer.geometry();
        if geometry.fits_record(kind, len) {
            return Ok(());
        }
        let (len, max) = (len as u64, geometry.max_message_bytes());
        if len > max {
            return Err(TrySendError::TooLong { len, max });
        }
        Err(TrySendError::WouldFragment { len, max: geometry.max_record_message_bytes(kind) })
    }

    /// Sends a message piece by piece; see [`Fragments::new`]. `None` where the deadline passed
    /// before the last one: the receiver drops what it has.
    #[inline(never)]
    pub(super) fn send_pieces(
        &mut self,
        kind: RecordKind,
        tag: u16,
        parts: &[IoSlice<'_>],
        deadline: Deadline,
    ) -> Result<Option<()>, SendError> {
        let mut pieces = Fragments::new(kind, tag, parts);
        let mut late_since = None;
        loop {
            match self.by(deadline, |producer| pieces.try_push_next(producer)) {
                Ok(Some(last)) => {
                    self.notify();
                    if last {
                        return Ok(Some(()));
                    }
                    if self.is_too_late(deadline, &mut late_since) {
                        self.give_up();
                        return Ok(None);
                    }
                }
                Ok(None) if deadline == Deadline::NEVER => {}
                Ok(None) => {
                    if pieces.is_midway() {
                        self.give_up();
                    }
                    return Ok(None);
                }
                Err(error) => {
                    // The new incarnation may have been given what was in the ring. Any other error
                    // is the end of this one.
                    if pieces.is_midway() && matches!(error, SendError::Restarted { .. }) {
                        self.owe_abort();
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Sends one message that is the concatenation of `parts`, waiting for room until `deadline`; where
    /// there is none for a while, calls `meanwhile` and waits on while that says so. For who must go on receiving, so that
    /// the peer goes on as well.
    pub(crate) fn send_meanwhile(
        &mut self,
        tag: u16,
        parts: &[IoSlice<'_>],
        deadline: Deadline,
        mut meanwhile: impl FnMut() -> bool,
    ) -> Result<(), SendTimeoutError> {
        let len = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
        let mut pieces = self.is_long(len).then(|| Fragments::new(RecordKind::Data, tag, parts));
        let mut late_since = None;
        loop {
            let slice = self.producer.memory().now_ns().saturating_add(MEANWHILE_NS);
            let push = |producer: &mut Producer<M>| match &mut pieces {
                Some(pieces) => pieces.try_push_next(producer),
                None => producer.try_push_vectored(tag, parts).map(|()| true),
            };
            let pushed = self.by(deadline.min(Deadline::at_ns(slice)), push);
            let is_midway = pieces.as_ref().is_some_and(Fragments::is_midway);
            match pushed {
                Ok(Some(last)) => {
                    self.notify();
                    if last {
                        return Ok(());
                    }
                    if self.is_too_late(deadline, &mut late_since) {
                        self.give_up();
                        return Err(SendTimeoutError::Timeout);
                    }
                }
                Ok(None) if deadline.has_passed(self.producer.memory()) || !meanwhile() => {
                    if is_midway {
                        self.give_up();
                    }
                    return Err(SendTimeoutError::Timeout);
                }
                Ok(None) => {}
                Err(error) => {
                    if is_midway && matches!(error, SendError::Restarted { .. }) {
                        self.owe_abort();
                    }
                    return Err(error.into());
                }
            }
        }
    }

    /// Sends what is left of a message, of which `sent` bytes have been sent before, as far as there is
    /// room now and a ring full takes; nothing else may be sent in between. True when that was all.
    pub(crate) fn try_send_rest(
        &mut self,
        tag: u16,
        message: &[u8],
        sent: &mut usize,
    ) -> Result<bool, SendError> {
        let parts = [IoSlice::new(message)];
        let most = self.producer.tail().wrapping_add(self.producer.geometry().capacity_bytes());
        let mut pieces = Fragments::resumed(tag, &parts, *sent as u64);
        while (1..=i64::MAX as u64).contains(&most.wrapping_sub(self.producer.tail())) {
            match self.attempt(|producer| pieces.try_push_next(producer))? {
                Attempt::Done(last) => {
                    self.notify();
                    *sent = pieces.pushed() as usize;
                    if last {
                        return Ok(true);
                    }
                }
                Attempt::Full { .. } => break,
            }
        }
        Ok(false)
    }

    /// Whether a ring full has been pushed since the deadline: a receiver can make room for each piece
    /// at the last moment, for as long as the message is.
    fn is_too_late(&self, deadline: Deadline, late_since: &mut Option<u64>) -> bool {
        if !deadline.has_passed(self.producer.memory()) {
            return false;
        }
        let tail = self.producer.tail();
        let since = *late_since.get_or_insert(tail);
        tail.wrapping_sub(since) >= self.producer.geometry().capacity_bytes()
    }

    fn give_up(&mut self) {
        self.owe_abort();
        self.pay_abort();
    }

    fn owe_abort(&mut self) {
        self.owes_abort = true;
        self.attention = true;
    }

    /// Tells the receiver at once that a message was given up, if there is room.
    fn pay_abort(&mut self) {
        if self.producer.try_push_abort().is_ok() {
            self.owes_abort = false;
            self.attention = self.untold.is_some();
            self.notify();
        }
    }
}
