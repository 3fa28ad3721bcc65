//! The way to one subscriber: a sender, and what the subscriber expects to come next.
//!
//! A publisher has one for each subscriber. What always holds: what goes into the ring is in the order
//! of the numbers; a number that is missing is told with the next publication, or at the end.

use std::collections::VecDeque;
use std::io::IoSlice;

use super::wire::tag;
use crate::channel::{Channel, Receiver, Sender};
use crate::error::{SendTimeoutError, TrySendError};
use crate::memory::Deadline;

/// A deadline that has come.
pub(super) const NOW: Deadline = Deadline::at_ns(0);

/// See the module.
#[derive(Debug)]
pub(super) struct LinkSender {
    sender: Sender,
    /// The number that the subscriber expects.
    next: u64,
    /// Publications that lie in the store: their numbers, and the positions behind their records.
    stored: VecDeque<(u64, u64)>,
    /// Nothing comes this way; it keeps the eye on the subscriber's process.
    _back: Receiver,
}

/// A publication on its way to a subscriber.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) number: u64,
    /// [`tag::PLAIN`] or [`tag::STORED`].
    pub(super) tag: u16,
    pub(super) bytes: &'a [u8],
}

impl LinkSender {
    /// Begins a link: says that it has arrived. From then on everything that is published must be sent.
    /// `None` where the subscriber has gone, or has a ring that takes nothing.
    pub(super) fn begin(channel: Channel) -> Option<Self> {
        let (mut sender, back) = channel.split();
        sender.try_send_tagged(tag::START, &[]).ok()?;
        Some(Self { sender, next: 0, stored: VecDeque::new(), _back: back })
    }

    /// Says which publication will be the first. False where the subscriber has gone.
    pub(super) fn first(&mut self, number: u64) -> bool {
        self.next = number;
        self.sender.try_send_tagged(tag::FIRST, &number.to_ne_bytes()).is_ok()
    }

    /// Sends a publication of bytes if nothing is missing before it, nothing needs attention and there is
    /// room for certain.
    #[inline(always)]
    pub(super) fn send_simple(&mut self, number: u64, bytes: &[u8]) -> bool {
        let sent = number == self.next && self.sender.send_simple(tag::PLAIN, bytes);
        if sent {
            self.next = number + 1;
        }
        sent
    }

    /// Sends a publication if there is room now.
    pub(super) fn try_send(&mut self, outgoing: Outgoing<'_>) -> Result<(), TrySendError> {
        if outgoing.number == self.next {
            self.sender.try_send_tagged(outgoing.tag, outgoing.bytes)?;
        } else {
            let number = outgoing.number.to_ne_bytes();
            let parts = [IoSlice::new(outgoing.bytes), IoSlice::new(&number)];
            self.sender.try_send_vectored(outgoing.tag | tag::NUMBERED, &parts)?;
        }
        self.sent(outgoing);
        Ok(())
    }

    /// Sends a publication, in fragments where it is long, waiting for room until `deadline`.
    pub(super) fn send_by(
        &mut self,
        outgoing: Outgoing<'_>,
        deadline: Deadline,
    ) -> Result<(), SendTimeoutError> {
        if outgoing.number == self.next {
            self.sender.send_deadline(outgoing.tag, outgoing.bytes, deadline)?;
        } else {
            let number = outgoing.number.to_ne_bytes();
            let parts = [IoSlice::new(outgoing.bytes), IoSlice::new(&number)];
            self.sender.send_vectored_deadline(outgoing.tag | tag::NUMBERED, &parts, deadline)?;
        }
        self.sent(outgoing);
        Ok(())
    }

    fn sent(&mut self, outgoing: Outgoing<'_>) {
        self.next = outgoing.number + 1;
        if outgoing.tag == tag::STORED {
            self.stored.push_back((outgoing.number, self.sender.position()));
        }
    }

    /// The number of the first publication in the store, where the oldest is `oldest`, that this subscriber
    /// may still want to read. What it has been sent before that one is forgotten, whatever it says.
    pub(super) fn wants_from(&mut self, oldest: u64) -> u64 {
        while let Some((number, position)) = self.stored.front() {
            if *number >= oldest && !self.sender.is_past(*position) {
                return *number;
            }
            self.stored.pop_front();
        }
        u64::MAX
    }

    /// Whether the subscriber has closed, or is dead.
    pub(super) fn is_over(&self) -> bool {
        self.sender.is_over()
    }

    /// Whether the subscriber has taken everything, and has asked for more.
    pub(super) fn is_drained(&self) -> bool {
        self.sender.is_past(self.sender.position())
    }

    /// The last publication was the one before `number`. Where there is no room by the deadline, the
    /// subscriber is not told, and knows that.
    pub(super) fn end(mut self, number: u64, deadline: Deadline) {
        let _ = self.sender.send_deadline(tag::END, &number.to_ne_bytes(), deadline);
    }
}
