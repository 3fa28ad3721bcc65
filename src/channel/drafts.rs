//! Messages in the making: one reservation, or a batch.
//!
//! [`Sender::reserve`] and [`Sender::batch`] make them; they are the ring's drafts plus the wakeup
//! of the receiver. What always holds: nothing is visible before `commit`, and dropping either
//! sends nothing; in a child that was forked meanwhile both write nothing.

use crate::error::{Corruption, TrySendError};
use crate::memory::{Memory, SharedMemory};
use crate::ring::{BatchDraft, Draft, PushError};

use super::Sender;

/// Room for one message. Fill it, then [`commit`](Self::commit).
///
/// It is written through methods and derefs to nothing, because the peer can touch the memory
/// behind it at any time.
#[derive(Debug)]
#[must_use = "a reservation that is dropped sends nothing"]
pub struct Reservation<'a, M: Memory = SharedMemory> {
    pub(super) sender: &'a mut Sender<M>,
    pub(super) draft: Draft,
}

impl<'a, M: Memory> Reservation<'a, M> {
    pub(super) fn new(sender: &'a mut Sender<M>, draft: Draft) -> Self {
        Self { sender, draft }
    }

    /// Bytes reserved.
    pub fn len(&self) -> usize {
        self.draft.len
    }

    /// Whether the message will be empty.
    pub fn is_empty(&self) -> bool {
        self.draft.len == 0
    }

    /// Bytes not yet filled.
    pub fn remaining(&self) -> usize {
        self.draft.remaining()
    }

    /// Sets the tag, which the receiver sees beside the message.
    pub fn set_tag(&mut self, tag: u16) {
        self.draft.tag = tag;
    }

    /// Appends as many of `bytes` as there is room for; returns how many. None in a forked child.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        if !self.is_ours() {
            return 0;
        }
        self.draft.write(&self.sender.producer, bytes)
    }

    /// Fills the whole reservation from a slice of its length.
    ///
    /// # Panics
    /// Where the length differs from what is left to fill, as `[T]::copy_from_slice` does.
    pub fn copy_from_slice(&mut self, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.remaining(), "slice and reservation differ in length");
        self.write(bytes);
    }

    /// Sends all reserved bytes; those not filled are zero. Does nothing in a forked child, whose
    /// next call on the sender says so.
    pub fn commit(mut self) {
        if self.is_ours() {
            self.draft.fill(&self.sender.producer);
            self.commit_filled();
        }
    }

    /// Sends only what was filled; the message is as long as that. Does nothing in a forked child.
    pub fn commit_filled(self) {
        if !self.is_ours() {
            return;
        }
        self.draft.commit(&mut self.sender.producer);
        self.sender.notify();
    }

    /// Gives the room back; the same as dropping.
    pub fn abort(self) {}

    /// Whether this is still the process that reserved.
    #[inline]
    fn is_ours(&self) -> bool {
        self.sender.producer.memory().is_ours()
    }
}

impl<M: Memory> std::io::Write for Reservation<'_, M> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(Self::write(self, bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Messages that become visible together. At most the ring's capacity less 8 bytes, headers and
/// rounding included.
#[derive(Debug)]
#[must_use = "a batch that is dropped sends nothing"]
pub struct Batch<'a, M: Memory = SharedMemory> {
    sender: &'a mut Sender<M>,
    draft: BatchDraft,
}

impl<'a, M: Memory> Batch<'a, M> {
    pub(super) fn new(sender: &'a mut Sender<M>) -> Self {
        let draft = BatchDraft::new(&sender.producer);
        Self { sender, draft }
    }

    /// Appends a message.
    ///
    /// # Errors
    /// [`TrySendError::Full`] where it does not fit any more; what the batch holds can still be
    /// committed. The other errors as [`Sender::try_send`].
    #[inline]
    pub fn push(&mut self, payload: &[u8]) -> Result<(), TrySendError> {
        self.push_tagged(0, payload)
    }

    /// Appends a message with a tag.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    #[inline]
    pub fn push_tagged(&mut self, tag: u16, payload: &[u8]) -> Result<(), TrySendError> {
        if !self.sender.producer.memory().is_ours() {
            return Err(TrySendError::Forked);
        }
        self.draft.push(&mut self.sender.producer, tag, payload).map_err(|error| match error {
            PushError::Full { .. } => TrySendError::Full,
            PushError::TooLong { len, max } => TrySendError::TooLong { len, max },
            PushError::Corrupt(corruption) => self.poisoned(corruption),
        })
    }

    #[cold]
    fn poisoned(&self, corruption: Corruption) -> TrySendError {
        self.sender.connection.declare_poisoned();
        TrySendError::Corrupt(corruption)
    }

    /// Messages so far.
    pub fn len(&self) -> usize {
        self.draft.messages as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.draft.messages == 0
    }

    /// Sends all messages at once. Returns how many: none in a forked child.
    pub fn commit(self) -> usize {
        if !self.sender.producer.memory().is_ours() {
            return 0;
        }
        let sent = self.draft.commit(&mut self.sender.producer);
        self.sender.notify();
        sent
    }

    /// Forgets the messages; the same as dropping.
    pub fn abort(self) {}
}
