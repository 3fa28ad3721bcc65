//! Waiting for the reply to one call, past whatever else comes.
//!
//! More calls on [`Receiver`]. What always holds: messages that come before the reply wait, in
//! order, for later receives, and as long as they do they stay in the ring and are not released, so
//! that a successor of this process would still get them; they may take half the ring, no more.
//!
//! A look for a reply has a position of its own, ahead of the one up to which messages have been
//! taken. It deals with every reply on its way: one is awaited, others are kept for their calls, the
//! rest is dropped. A receive that comes by later goes over them. Only where a message in fragments
//! begins behind messages that wait must these be copied to private memory first, for its pieces
//! have to be released while it is put together.

use std::time::Duration;

use super::Receiver;
use super::wait::Look;
use crate::channel::calls::{CallId, Kept, Known, PendingCall};
use crate::channel::connection::peer;
use crate::channel::message::Message;
use crate::channel::sender::deadline_after;
use crate::error::{CallError, Corruption};
use crate::layout::ring;
use crate::memory::{Deadline, Memory, Ordering};
use crate::ring::{Consumer, Record, RecordKind, Whole};

/// Where an awaited reply lies.
pub(in crate::channel) enum Reply {
    /// In the receiver's buffer, of this length.
    Fetched(usize, u16),
    /// Put together.
    Assembled(usize, u16),
    /// Kept since it came.
    Kept(Kept),
}

impl<M: Memory> Receiver<M> {
    /// Waits for the reply to a call, for at most `timeout`. The reply is lent: it lies in this
    /// receiver's own memory until the next call. Messages that come before it wait for later
    /// receives, and replies to other calls for those.
    ///
    /// # Errors
    /// [`CallError::Timeout`] and [`CallError::Backlog`]: the call stays pending. So it does after
    /// [`CallError::Restarted`]: a call that the dead peer had not finished with is delivered to its
    /// successor, which may answer it. [`CallError::NotPending`] where it was answered before, or
    /// begun on another channel.
    pub fn finish_call(
        &mut self,
        call: &PendingCall,
        timeout: Duration,
    ) -> Result<Message<'_>, CallError> {
        if !call.is_of(&self.calls) {
            return Err(CallError::NotPending);
        }
        if !self.consumer.memory().is_ours() {
            return Err(CallError::Forked);
        }
        let reply = match self.calls.look_up(call.id().0) {
            Known::Replied(kept) => {
                self.release();
                Reply::Kept(kept)
            }
            Known::Nothing => return Err(CallError::NotPending),
            Known::Pending => {
                // Where there is no time at all, the one look of `await_reply` is enough.
                let polled = if timeout.is_zero() { None } else { self.poll_reply(call.id())? };
                let reply = match polled {
                    Some(reply) => reply,
                    None => {
                        let deadline = deadline_after(self.consumer.memory(), timeout);
                        self.await_reply(call.id(), deadline)?
                    }
                };
                self.calls.cancel(call.id().0);
                reply
            }
        };
        Ok(self.lend_reply(reply))
    }

    /// The reply to a call if it comes at once; looks at nothing but the ring, and at no clock.
    pub(in crate::channel) fn poll_reply(
        &mut self,
        call: CallId,
    ) -> Result<Option<Reply>, CallError> {
        if self.poll_something() { self.look_for(call) } else { Ok(None) }
    }

    /// The reply to a call, by whoever knows that it is not kept.
    pub(in crate::channel) fn await_reply(
        &mut self,
        call: CallId,
        deadline: Deadline,
    ) -> Result<Reply, CallError> {
        self.aside.put_back();
        self.be_careful();
        let mut last = false;
        loop {
            if let Some(reply) = self.look_for(call)? {
                return Ok(reply);
            }
            if last {
                return Err(CallError::Timeout);
            }
            let at = self.aside.looked_at;
            if is_stuck(&self.consumer, at) {
                return Err(self.backlog());
            }
            if let Look::Wait(seen) = self.look_behind(at)?
                && !self.wait(seen, deadline, at)?
                && deadline != Deadline::NEVER
            {
                return Err(CallError::Timeout);
            }
            // A peer can end every wait at once by changing what is waited for, for ever.
            last = deadline.has_passed(self.consumer.memory());
        }
    }

    pub(in crate::channel) fn lend_reply(&mut self, reply: Reply) -> Message<'_> {
        match reply {
            Reply::Fetched(len, tag) => Message::new(&self.buffer[..len], tag),
            Reply::Assembled(len, tag) => {
                Message::new(self.aside.private.assembly.message(len), tag)
            }
            Reply::Kept(Kept { bytes, len, tag }) => {
                // Nothing that is ready lies there: what was has been put back.
                self.aside.put_back();
                self.be_careful();
                let old = std::mem::replace(&mut self.aside.private.current, bytes);
                self.aside.give_back(old);
                Message::new(&self.aside.private.current[..len], tag)
            }
        }
    }

    /// Looks at what has come, up to the reply. `None` where it is not among it, or not within a
    /// ring full of records.
    fn look_for(&mut self, call: CallId) -> Result<Option<Reply>, CallError> {
        let healthy = self.consumer.memory().is_ours() && self.connection.is_alive(self.known);
        if !healthy && !self.attend()? {
            return Ok(None);
        }
        self.give_room_back();
        let capacity_bytes = self.consumer.geometry().capacity_bytes();
        let ahead = self.aside.looked_at.wrapping_sub(self.consumer.position());
        if ahead > capacity_bytes {
            self.aside.looked_at = self.consumer.position();
        }
        let mut looked_at = 0;
        while looked_at < capacity_bytes {
            let record = match self.consumer.peek_at(self.aside.looked_at) {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(corruption) => return self.spoilt(corruption),
            };
            looked_at += record.end().wrapping_sub(record.position());
            if let Some(reply) = self.look_at(&record, call)? {
                return Ok(Some(reply));
            }
        }
        Ok(None)
    }

    /// What a dead peer has left may be spoilt; its successor's ring is another.
    fn spoilt(&mut self, corruption: Corruption) -> Result<Option<Reply>, CallError> {
        if self.connection.peer() == peer::SUCCEEDED && self.told {
            self.follow();
            return Ok(None);
        }
        Err(self.corrupt(corruption).into())
    }

    /// Deals with one record, and goes on behind it. Returns the reply where this is it.
    fn look_at(&mut self, record: &Record, call: CallId) -> Result<Option<Reply>, CallError> {
        match record.kind() {
            RecordKind::Data | RecordKind::Call => {
                self.end_partial();
                let held = record.end().wrapping_sub(self.consumer.position());
                if self.is_over(held) {
                    return Err(self.backlog());
                }
                self.aside.looked_at = record.end();
                Ok(None)
            }
            RecordKind::Reply => {
                self.end_partial();
                let found = self.consumer.word(record) == call.0;
                if found {
                    let len = record.len_bytes();
                    self.fetch_other(record);
                    self.consumer.count_message(len);
                } else {
                    self.settle(record);
                }
                let waits = self.aside.looked_at != self.consumer.position();
                self.aside.looked_at = record.end();
                if !waits {
                    self.consumer.pass(record);
                    self.give_room_back();
                }
                Ok(found.then(|| Reply::Fetched(record.len_bytes(), record.tag())))
            }
            RecordKind::Fragment => self.look_at_piece(call),
        }
    }

    fn look_at_piece(&mut self, call: CallId) -> Result<Option<Reply>, CallError> {
        let held = self.aside.looked_at.wrapping_sub(self.consumer.position());
        if !self.aside.private.assembly.is_partial() && self.is_over(held) {
            return Err(self.backlog());
        }
        self.spill();
        let whole = match self.consumer.peek() {
            Ok(Some(record)) if record.kind() == RecordKind::Fragment => self.absorb(&record),
            // Changed since it was looked at, which no correct peer does: looked at once more.
            Ok(_) => return Ok(None),
            Err(corruption) => Err(corruption),
        };
        self.aside.looked_at = self.consumer.position();
        self.be_careful();
        let whole = match whole {
            Ok(Some(whole)) => whole,
            Ok(None) => return Ok(None),
            Err(corruption) => return self.spoilt(corruption),
        };
        if whole.kind != RecordKind::Reply {
            let spare = self.aside.spare();
            let bytes = self.aside.private.assembly.swap_buffer(spare);
            self.aside.enqueue(whole, bytes);
            self.be_careful();
        } else if whole.word == call.0 {
            return Ok(Some(Reply::Assembled(whole.len_bytes(), whole.tag)));
        } else {
            self.settle_whole(&whole);
        }
        Ok(None)
    }

    /// Copies the messages that wait in the ring to private memory, and gives their room back.
    pub(super) fn spill(&mut self) {
        let (capacity_bytes, end) =
            (self.consumer.geometry().capacity_bytes(), self.aside.looked_at);
        while (1..=capacity_bytes).contains(&end.wrapping_sub(self.consumer.position())) {
            let Ok(Some(record)) = self.consumer.peek() else { break };
            match record.kind() {
                kind @ (RecordKind::Data | RecordKind::Call) => {
                    let word =
                        if kind == RecordKind::Call { self.consumer.word(&record) } else { 0 };
                    let whole = Whole::new(kind, word, record.tag(), record.len_bytes());
                    let bytes = self.copy_of(&record);
                    self.aside.enqueue(whole, bytes);
                    self.consumer.advance(&record);
                }
                RecordKind::Reply | RecordKind::Fragment => self.consumer.pass(&record),
            }
        }
        self.aside.looked_at = self.consumer.position();
        self.give_room_back();
        self.be_careful();
    }

    /// Whether more waits than may.
    fn is_over(&self, held_bytes: u64) -> bool {
        let waiting = held_bytes.saturating_add(self.aside.queued_bytes as u64);
        waiting > self.consumer.geometry().capacity_bytes() / 2
    }

    fn backlog(&self) -> CallError {
        let held = self.aside.looked_at.wrapping_sub(self.consumer.position());
        let waiting_bytes = held.saturating_add(self.aside.queued_bytes as u64);
        CallError::Backlog { waiting_bytes }
    }
}

/// Whether the peer waits for room that only a receive would give it, because messages up to
/// position `at` wait. Nobody wakes us for that: it is seen when a slice of the wait ends.
pub(super) fn is_stuck<M: Memory>(consumer: &Consumer<M>, at: u64) -> bool {
    if at == consumer.position() {
        return false;
    }
    let (memory, geometry) = (consumer.memory(), consumer.geometry());
    // Relaxed: a wrong answer costs a slice of a wait, or a `Backlog` that is none.
    let waiting = memory.load_u32(geometry.control(ring::PRODUCER_WAITING), Ordering::Relaxed);
    let wanted = memory.load_u64(geometry.control(ring::SPACE_WANTED), Ordering::Relaxed);
    waiting != 0 && !consumer.has_released(wanted)
}
