//! Receiving a value: decoded in the private copy, taken only where it is one.
//!
//! The typed calls of [`Receiver`] and [`TypedReceiver`](crate::channel::TypedReceiver) use it. What
//! always holds: bytes that are no value stay in the ring, and what is lent borrows the receiver's
//! own buffer.

use super::Receiver;
use crate::error::RecvError;
use crate::memory::Memory;
use crate::ring::Record;

impl<M: Memory> Receiver<M> {
    /// Copies a record into the buffer, where it does not lie in private memory already, decodes it
    /// there, and takes it where that succeeds.
    #[inline]
    pub(in crate::channel) fn take_decoded<'a, T>(
        &'a mut self,
        record: &Record,
        decode: impl FnOnce(&'a [u8]) -> Result<T, RecvError>,
    ) -> Result<T, RecvError> {
        let len = record.len_bytes();
        self.fetch(record);
        let Self { consumer, buffer, aside, .. } = self;
        if !record.is_data() {
            let fetched = buffer.get(..len).unwrap_or_default();
            return aside.take_decoded(consumer, fetched, record, decode);
        }
        let value = decode(&buffer[..len])?;
        consumer.advance(record);
        Ok(value)
    }

    /// A record behind one that was taken, if it is there for certain; gives room back now and then.
    /// What else there may be to say is said by the next call.
    #[inline]
    pub(in crate::channel) fn next_of_batch(&mut self) -> Option<Record> {
        if self.consumer.held_bytes() >= self.consumer.geometry().capacity_bytes() / 4 {
            self.release();
        }
        self.consumer.peek_simple()
    }
}
