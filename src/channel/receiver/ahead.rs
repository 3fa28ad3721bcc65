//! Looking at what stands in the ring behind the message at hand, without taking it.
//!
//! Servers of remote calls ask it whether a call has been taken back that they have not come to, or are
//! at. What always holds: nothing is written to the ring, and nothing that is seen here is taken, so a
//! peer that writes nonsense is found out by the receiver in its turn, and only there.

use std::sync::Arc;

use super::Receiver;
use crate::channel::connection::Connection;
use crate::channel::message::Message;
use crate::error::{Corruption, TryRecvError};
use crate::layout::side;
use crate::memory::SharedMemory;
use crate::ring::Consumer;

/// What is known of what stands behind a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behind {
    /// The position at which the message ends: what follows stands there.
    pub(crate) end: u64,
    /// The message has come while it was waited for, so that it is not worth while to look.
    pub(crate) is_new: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ahead {
    connection: Arc<Connection<SharedMemory>>,
    /// A reader of its own, which never takes and never releases.
    consumer: Consumer<SharedMemory>,
    /// Up to where it has looked.
    looked_at: u64,
}

impl Ahead {
    /// Looks at the ring of this receiver.
    ///
    /// # Errors
    /// The peer has spoilt it.
    pub(crate) fn of(receiver: &Receiver) -> Result<Self, Corruption> {
        let connection = Arc::clone(&receiver.connection);
        let consumer = Consumer::attach(connection.memory().clone(), *connection.incoming())?;
        let looked_at = consumer.position();
        Ok(Self { connection, consumer, looked_at })
    }

    /// Looks at what has come behind the message that ends at position `end`, and has not been looked
    /// at before. Tells of each plain message with this tag where it ends, and its first eight bytes; at
    /// most a ring full.
    #[inline]
    pub(crate) fn look(&mut self, end: u64, tag: u16, mut each: impl FnMut(u64, [u8; 8])) {
        let capacity_bytes = self.consumer.geometry().capacity_bytes();
        if self.looked_at.wrapping_sub(end) > capacity_bytes {
            self.looked_at = end;
        }
        let most = end.wrapping_add(capacity_bytes);
        // What cannot be is told by the receiver, when it comes there.
        while let Ok(Some(record)) = self.consumer.peek_at(self.looked_at) {
            if record.is_data() && record.tag() == tag && record.len_bytes() >= 8 {
                let mut bytes = [0; 8];
                self.consumer.copy_data(&record, &mut bytes);
                each(record.end(), bytes);
            }
            if most.wrapping_sub(record.end()) > capacity_bytes {
                break;
            }
            self.looked_at = record.end();
        }
    }

    /// Whether whoever sends has closed the channel or is over.
    pub(crate) fn is_over(&self) -> bool {
        self.connection.look_out();
        self.connection.peer() != crate::channel::connection::peer::ALIVE
            || self.connection.peer_shows() != side::ATTACHED
    }
}

impl Receiver {
    /// As [`try_recv`](Self::try_recv), with where the message ends.
    #[inline]
    pub(in crate::channel) fn try_recv_at(
        &mut self,
    ) -> Result<(Message<'_>, Behind), TryRecvError> {
        let record = self.try_next()?;
        // What lies in private memory has left the ring already.
        let end = if record.is_elsewhere() { self.consumer.position() } else { record.end() };
        Ok((self.lend(&record), Behind { end, is_new: false }))
    }

    /// A message that is there or comes at once, and where it ends: looks at nothing but the ring, and at
    /// no clock. `None` says nothing about the reason.
    #[inline]
    pub(crate) fn recv_at_once(&mut self) -> Option<(Message<'_>, Behind)> {
        let mut is_new = false;
        let record = match self.next_simple() {
            Some(record) => record,
            None => {
                is_new = !self.consumer.has_something();
                self.poll()?
            }
        };
        // What is there at once lies in the ring.
        Some((self.lend(&record), Behind { end: record.end(), is_new }))
    }
}
