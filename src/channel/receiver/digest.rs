//! What lies between the ring and a message: records that are none, and messages that are no record.
//!
//! Every look of a receiver that finds something else than plain data comes here. What always holds:
//! one look goes over no more than a ring full of records, so that a peer that writes nothing but
//! pieces and replies keeps nobody past a deadline; and while anything lies aside, the consumer is
//! careful, so that nothing overtakes it.

use std::collections::VecDeque;

use rkyv::util::AlignedVec;

use super::Receiver;
use crate::channel::calls::{CallId, Kept};
use crate::channel::message::Message;
use crate::error::{Corruption, RecvError};
use crate::layout::record;
use crate::memory::Memory;
use crate::ring::{Assembly, Consumer, Record, RecordKind, Whole};

/// Messages in private memory, and parts of them.
#[derive(Debug, Default)]
pub(super) struct Aside {
    pub(super) private: Private,
    /// The next message, where it lies in private memory; not taken yet.
    pub(super) ready: Option<Whole>,
    /// Messages behind that one, in order, which waited while somebody waited for a reply.
    pub(super) queue: VecDeque<(Whole, AlignedVec<64>)>,
    /// Bytes that the queue would take in the ring, more or less: a message without a byte takes some
    /// too, so that the bound on this bounds how many there are.
    pub(super) queued_bytes: usize,
    /// What stands in the ring before this position has been looked at by who waited for a reply:
    /// of that, messages wait for `recv`, and replies have been dealt with.
    pub(super) looked_at: u64,
    /// Buffers for what must be kept.
    pub(super) spare: Vec<AlignedVec<64>>,
    /// The call that was taken last, and how many messages had been taken then.
    pub(super) called: Option<(CallId, u64)>,
}

/// Where the bytes of private messages lie.
#[derive(Debug, Default)]
pub(super) struct Private {
    pub(super) assembly: Assembly,
    pub(super) current: AlignedVec<64>,
    /// Whether the message handed out last lies in `current`; else in the assembly.
    pub(super) in_current: bool,
}

impl Private {
    /// The message of this length that was handed out last.
    pub(super) fn message(&self, len: usize) -> &[u8] {
        if self.in_current { &self.current[..len] } else { self.assembly.message(len) }
    }
}

/// What a message in the queue counts for.
fn queued_bytes(whole: &Whole) -> usize {
    record::HEADER_BYTES as usize + whole.len_bytes()
}

/// So many buffers are kept for messages that must be kept.
const MAX_SPARE: usize = 8;

impl Aside {
    /// Decodes a message that is no plain record, and takes it where that succeeds.
    #[cold]
    pub(super) fn take_decoded<'a, M: Memory, T>(
        &'a mut self,
        consumer: &mut Consumer<M>,
        fetched: &'a [u8],
        record: &Record,
        decode: impl FnOnce(&'a [u8]) -> Result<T, RecvError>,
    ) -> Result<T, RecvError> {
        let Self { private, ready, queue, called, .. } = self;
        let private = &*private;
        let elsewhere = record.is_elsewhere();
        let bytes = if elsewhere { private.message(record.len_bytes()) } else { fetched };
        let value = decode(bytes)?;
        *called = take_other(consumer, ready, record);
        consumer.set_careful(!queue.is_empty() || private.assembly.is_partial());
        Ok(value)
    }

    pub(super) fn spare(&mut self) -> AlignedVec<64> {
        self.spare.pop().unwrap_or_default()
    }

    pub(super) fn give_back(&mut self, buffer: AlignedVec<64>) {
        if self.spare.len() < MAX_SPARE {
            self.spare.push(buffer);
        }
    }

    /// Gives back every buffer that is larger than this and in which no message waits.
    pub(super) fn shrink(&mut self, bound_bytes: usize) {
        self.spare.retain(|buffer| buffer.len() <= bound_bytes);
        if self.ready.is_none() {
            self.private.assembly.shrink(bound_bytes);
            if self.private.current.len() > bound_bytes {
                self.private.current = AlignedVec::new();
            }
        }
    }

    /// Puts a message at the end of the queue.
    pub(super) fn enqueue(&mut self, whole: Whole, bytes: AlignedVec<64>) {
        self.queued_bytes += queued_bytes(&whole);
        self.queue.push_back((whole, bytes));
    }

    /// What is ready goes back to the front of the queue, whose successor it was.
    pub(super) fn put_back(&mut self) {
        let Some(whole) = self.ready.take() else { return };
        let spare = self.spare();
        let bytes = match self.private.in_current {
            true => std::mem::replace(&mut self.private.current, spare),
            false => self.private.assembly.swap_buffer(spare),
        };
        self.queued_bytes += queued_bytes(&whole);
        self.queue.push_front((whole, bytes));
    }
}

/// Takes a message that is no plain record. Returns what it calls itself, where it is a call.
fn take_other<M: Memory>(
    consumer: &mut Consumer<M>,
    ready: &mut Option<Whole>,
    record: &Record,
) -> Option<(CallId, u64)> {
    let call = match ready.take() {
        Some(whole) => (whole.kind == RecordKind::Call).then_some(whole.word),
        None => {
            let call = (record.kind() == RecordKind::Call).then(|| consumer.word(record));
            consumer.advance(record);
            call
        }
    };
    call.map(|id| (CallId(id), consumer.stats().messages))
}

impl<M: Memory> Receiver<M> {
    /// The next message, which may lie in the ring or in private memory; not taken. `None` where
    /// there is none, or not within a ring full of records.
    #[inline(never)]
    pub(super) fn find(&mut self) -> Result<Option<Record>, Corruption> {
        if self.aside.ready.is_none() && !self.aside.queue.is_empty() {
            self.dequeue();
        }
        let mut looked_at = 0;
        while self.aside.ready.is_none() {
            let Some(record) = self.consumer.peek()? else { return Ok(None) };
            looked_at += record.end().wrapping_sub(record.position());
            match record.kind() {
                RecordKind::Fragment => {
                    if let Some(whole) = self.absorb(&record)? {
                        match whole.kind {
                            RecordKind::Reply => self.settle_whole(&whole),
                            _ => self.aside.ready = Some(whole),
                        }
                    }
                    self.be_careful();
                }
                RecordKind::Reply => {
                    self.end_partial();
                    if !self.is_settled(&record) {
                        self.settle(&record);
                    }
                    self.consumer.pass(&record);
                    self.give_room_back();
                }
                RecordKind::Data | RecordKind::Call => {
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

    /// The first message of the queue becomes the next one.
    fn dequeue(&mut self) {
        let Some((whole, bytes)) = self.aside.queue.pop_front() else { return };
        self.aside.queued_bytes -= queued_bytes(&whole);
        let old = std::mem::replace(&mut self.aside.private.current, bytes);
        self.aside.give_back(old);
        self.aside.private.in_current = true;
        self.aside.ready = Some(whole);
    }

    /// Copies a piece, and gives its room back at once: the message may be longer than the ring.
    /// Returns the message when it is whole.
    pub(super) fn absorb(&mut self, record: &Record) -> Result<Option<Whole>, Corruption> {
        self.keeps.used();
        let whole = self.aside.private.assembly.absorb(&mut self.consumer, record)?;
        if whole.is_some() {
            self.aside.private.in_current = false;
        }
        self.give_room_back();
        Ok(whole)
    }

    pub(super) fn give_room_back(&mut self) {
        if self.consumer.release() {
            self.wake_producer();
        }
    }

    /// Drops a message that was begun and will not be ended.
    pub(super) fn end_partial(&mut self) {
        if self.aside.private.assembly.drop_partial(&mut self.consumer) {
            self.be_careful();
        }
    }

    pub(super) fn be_careful(&mut self) {
        let aside = &self.aside;
        let careful =
            aside.ready.is_some() || !aside.queue.is_empty() || aside.private.assembly.is_partial();
        self.consumer.set_careful(careful);
    }

    /// Whether a reply was dealt with by who waited for one.
    fn is_settled(&self, record: &Record) -> bool {
        let behind = self.aside.looked_at.wrapping_sub(record.position());
        (1..=self.consumer.geometry().capacity_bytes()).contains(&behind)
    }

    /// A reply that nobody waits for right now: keeps it where its call is pending.
    pub(super) fn settle(&mut self, record: &Record) {
        let id = self.consumer.word(record);
        if !self.calls.wants(id) {
            return self.consumer.count_stray_reply();
        }
        let (bytes, len) = (self.copy_of(record), record.len_bytes());
        self.keep(id, Kept { bytes, len, tag: record.tag() });
    }

    /// The same of a reply that came in pieces, and lies in the assembly.
    pub(super) fn settle_whole(&mut self, whole: &Whole) {
        if !self.calls.wants(whole.word) {
            return self.consumer.count_stray_reply();
        }
        let spare = self.aside.spare();
        let bytes = self.aside.private.assembly.swap_buffer(spare);
        self.keep(whole.word, Kept { bytes, len: whole.len_bytes(), tag: whole.tag });
    }

    fn keep(&mut self, id: u64, reply: Kept) {
        // It may have been cancelled meanwhile, in another thread.
        if let Some(unwanted) = self.calls.keep(id, reply) {
            self.aside.give_back(unwanted.bytes);
            self.consumer.count_stray_reply();
        }
    }

    /// A record's message in a buffer of its own.
    pub(super) fn copy_of(&mut self, record: &Record) -> AlignedVec<64> {
        let (mut bytes, len) = (self.aside.spare(), record.len_bytes());
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        self.consumer.copy_out(record, &mut bytes[..len]);
        bytes
    }

    /// The message that this stands for, where it does not lie in the ring. Taken or not, it lies
    /// there until the next look.
    #[inline]
    pub(in crate::channel) fn elsewhere(&self, record: &Record) -> Option<&[u8]> {
        record.is_elsewhere().then(|| self.aside.private.message(record.len_bytes()))
    }

    #[cold]
    pub(super) fn take_other(&mut self, record: &Record) {
        self.aside.called = take_other(&mut self.consumer, &mut self.aside.ready, record);
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
        self.take_other(record);
        let call = self.aside.called.map(|(id, _)| id);
        Message::new(self.fetched(record), record.tag()).with_call(call)
    }

    /// The call that the message received last makes, where it is one: for calls that return no
    /// [`Message`], as [`recv_pod`](Self::recv_pod).
    pub fn last_call(&self) -> Option<CallId> {
        let (id, messages) = self.aside.called?;
        (messages == self.consumer.stats().messages).then_some(id)
    }
}
