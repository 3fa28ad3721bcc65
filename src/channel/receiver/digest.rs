//! What lies between the ring and a message: records that are none, and messages that are no record.
//!
//! Every look of a receiver that finds something else than plain data comes here. What always holds:
//! one look goes over no more than a ring full of records, so that a peer that writes nothing but
//! pieces keeps nobody past a deadline; and while anything lies aside, the consumer is careful, so
//! that nothing overtakes it.

use super::Receiver;
use crate::channel::message::Message;
use crate::error::{Corruption, RecvError};
use crate::memory::Memory;
use crate::ring::{Assembly, Consumer, Record, RecordKind, Whole};

/// Messages in private memory, and parts of them.
#[derive(Debug, Default)]
pub(super) struct Aside {
    assembly: Assembly,
    /// The message that was put together and not taken yet.
    ready: Option<Whole>,
}

impl Aside {
    /// Decodes the message that is ready, and takes it where that succeeds.
    #[cold]
    pub(super) fn take_decoded<'a, M: Memory, T>(
        &'a mut self,
        consumer: &mut Consumer<M>,
        record: &Record,
        decode: impl FnOnce(&'a [u8]) -> Result<T, RecvError>,
    ) -> Result<T, RecvError> {
        let value = decode(self.assembly.message(record.len_bytes()))?;
        self.ready = None;
        consumer.set_careful(self.assembly.is_partial());
        Ok(value)
    }
}

impl<M: Memory> Receiver<M> {
    /// The next message, which may lie in the ring or in private memory; not taken. `None` where
    /// there is none, or not within a ring full of records.
    #[inline(never)]
    pub(super) fn find(&mut self) -> Result<Option<Record>, Corruption> {
        let mut looked_at = 0;
        while self.aside.ready.is_none() {
            let Some(record) = self.consumer.peek()? else { return Ok(None) };
            looked_at += record.end().wrapping_sub(record.position());
            match record.kind() {
                RecordKind::Fragment => self.absorb(&record)?,
                _ => {
                    self.end_partial();
                    return Ok(Some(record));
                }
            }
            if looked_at >= self.consumer.geometry().capacity_bytes() {
                break;
            }
        }
        let position = self.consumer.position();
        let ready = |whole: Whole| Record::elsewhere(position, whole.len_bytes(), whole.tag);
        Ok(self.aside.ready.map(ready))
    }

    /// Copies a piece, and gives its room back at once: the message may be longer than the ring.
    fn absorb(&mut self, record: &Record) -> Result<(), Corruption> {
        self.aside.ready = self.aside.assembly.absorb(&mut self.consumer, record)?;
        self.be_careful();
        if self.consumer.release() {
            self.wake_producer();
        }
        Ok(())
    }

    /// Drops a message that was begun and will not be ended.
    pub(super) fn end_partial(&mut self) {
        if self.aside.assembly.drop_partial(&mut self.consumer) {
            self.be_careful();
        }
    }

    fn be_careful(&mut self) {
        let aside = &self.aside;
        self.consumer.set_careful(aside.ready.is_some() || aside.assembly.is_partial());
    }

    /// The message that this stands for, where it does not lie in the ring. Taken or not, it lies
    /// there until the next look.
    #[inline]
    pub(in crate::channel) fn elsewhere(&self, record: &Record) -> Option<&[u8]> {
        record.is_elsewhere().then(|| self.aside.assembly.message(record.len_bytes()))
    }

    #[cold]
    pub(super) fn take_elsewhere(&mut self) {
        self.aside.ready = None;
        self.be_careful();
    }

    #[cold]
    pub(super) fn fetch_other(&mut self, record: &Record) -> &[u8] {
        if !record.is_elsewhere() {
            let len = record.len_bytes();
            self.grow(len);
            self.consumer.copy_out(record, &mut self.buffer[..len]);
        }
        self.fetched(record)
    }

    #[cold]
    pub(super) fn lend_other(&mut self, record: &Record) -> Message<'_> {
        self.fetch_other(record);
        self.take(record);
        Message::new(self.fetched(record), record.tag())
    }
}
