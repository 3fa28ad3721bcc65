//! A machine that runs operations on a ring against a naive queue.
//!
//! Property tests, crash tests and fuzz targets share it. What always holds after every operation:
//! the ring took or refused what plain arithmetic says, the consumer sees exactly the
//! committed records in order, and the published head lies where the queue says.

use std::collections::VecDeque;
use std::io::IoSlice;

pub use super::op::{End, Op, Setup};
use ringway::layout::{RING_SLACK_BYTES, ring};
use ringway::memory::{Crash, CrashImage, CrashMemory, Memory, Ordering};
use ringway::ring::{Consumer, Producer, PushError, Record, RingGeometry};

/// Where a test's ring lies in its memory.
pub const DATA: u64 = ring::CONTROL_BYTES;

/// How long a memory must be for such a ring.
pub fn memory_bytes(capacity_bytes: u64) -> u64 {
    DATA + capacity_bytes + RING_SLACK_BYTES
}

/// One message of the naive queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Message {
    seed: u32,
    tag: u16,
    len: usize,
    /// Bytes before the zeros that end a reservation committed half filled.
    filled: usize,
    /// Position of its record, and behind it.
    record: u64,
    end: u64,
}

/// What the ring should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Queue {
    messages: VecDeque<Message>,
    /// How many of them the consumer has taken and not released.
    taken: usize,
    /// Position behind the last committed record, and behind the last released one.
    tail: u64,
    released: u64,
    seed: u32,
}

/// A ring, its ends and the queue.
#[derive(Debug)]
pub struct Machine<M: Memory> {
    memory: M,
    geometry: RingGeometry,
    producer: Producer<M>,
    consumer: Consumer<M>,
    queue: Queue,
    /// Whether counters are exact: they may lag behind after a crash.
    counts: bool,
    sent: u64,
    sent_bytes: u64,
}

const MAX_LEN: usize = 256;

fn payload(seed: u32, len: usize) -> [u8; MAX_LEN] {
    let mut bytes = [0; MAX_LEN];
    for (at, byte) in bytes[..len].iter_mut().enumerate() {
        *byte = (seed.wrapping_mul(151).wrapping_add(at as u32) as u8) | 1;
    }
    bytes
}

impl<M: Memory + std::fmt::Debug> Machine<M> {
    /// An empty ring in which every word that the protocol does not need is garbage.
    pub fn new(memory: M, setup: Setup) -> Self {
        let Setup { capacity_bytes, align, start } = setup;
        let geometry = RingGeometry::new(&memory, 0, DATA, capacity_bytes, align).expect("valid");
        let shift = ringway::layout::ring_data_shift(align);
        let first = start & (capacity_bytes - 1);
        for index in (0..capacity_bytes).step_by(8) {
            let old = if index == first { 0 } else { !index };
            memory.store_u64(DATA + shift + index, old, Ordering::Relaxed);
        }
        memory.store_u64(ring::HEAD, start, Ordering::Relaxed);
        let messages = VecDeque::with_capacity(64);
        let queue = Queue { messages, taken: 0, tail: start, released: start, seed: 1 };
        Self::attach(memory, geometry, queue, true)
    }

    fn attach(memory: M, geometry: RingGeometry, queue: Queue, counts: bool) -> Self {
        let producer = Producer::attach(memory.clone(), geometry).expect("no corruption");
        let consumer = Consumer::attach(memory.clone(), geometry).expect("no corruption");
        let (sent, sent_bytes) = (producer.stats().messages, producer.stats().bytes);
        Self { memory, geometry, producer, consumer, queue, counts, sent, sent_bytes }
    }

    /// The memory.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Runs one operation and checks everything that can be seen.
    pub fn apply(&mut self, op: Op) {
        match op {
            Op::Push { len, tag } => self.push(len.into(), u16::from(tag) * 257),
            Op::Vectored { len, split } => self.vectored(len.into(), split.into()),
            Op::Reserve { len, filled, end } => self.reserve(len.into(), filled.into(), end),
            Op::Batch { count, len, commit } => self.batch(count, len.into(), commit),
            Op::Take => {
                self.advance();
                self.release();
            }
            Op::Advance => self.advance(),
            Op::Release => self.release(),
            Op::NewProducer | Op::Crash { .. } => self.new_producer(),
            Op::NewConsumer => self.new_consumer(),
        }
        self.check();
    }

    fn head(&self) -> u64 {
        self.memory.load_u64(ring::HEAD, Ordering::Relaxed)
    }

    /// What the arithmetic says about a record of `len` bytes at `next`: where it goes, or why not.
    fn expect(&self, next: u64, len: usize) -> Result<Message, PushError> {
        let capacity = self.geometry.capacity_bytes();
        let (len, align) = (len as u64, self.geometry.payload_align());
        let max = capacity / 2 - 8;
        if len > max {
            return Err(PushError::TooLong { len, max });
        }
        let size = (len + 8).next_multiple_of(align);
        let index = next % capacity;
        let record =
            if index + size > capacity { next.wrapping_add(capacity - index) } else { next };
        let end = record.wrapping_add(size);
        if end.wrapping_add(8).wrapping_sub(self.head()) > capacity {
            return Err(PushError::Full {
                head_needed: end.wrapping_add(8).wrapping_sub(capacity),
            });
        }
        let (seed, len) = (self.queue.seed, len as usize);
        Ok(Message { seed, tag: 0, len, filled: len, record, end })
    }

    fn committed(&mut self, message: Message) {
        self.queue.messages.push_back(message);
        self.queue.tail = message.end;
        self.queue.seed = self.queue.seed.wrapping_add(1);
        self.sent += 1;
        self.sent_bytes += message.len as u64;
    }

    fn push(&mut self, len: usize, tag: u16) {
        let expected = self.expect(self.queue.tail, len);
        let bytes = payload(self.queue.seed, len);
        assert_eq!(self.producer.try_push(tag, &bytes[..len]), expected.map(|_| ()));
        if let Ok(message) = expected {
            self.committed(Message { tag, ..message });
        }
    }

    fn vectored(&mut self, len: usize, split: usize) {
        let expected = self.expect(self.queue.tail, len);
        let bytes = payload(self.queue.seed, len);
        let (first, rest) = bytes[..len].split_at(split.min(len));
        let (second, third) = rest.split_at(rest.len().min(split % 7));
        let parts = [first, second, &[], third].map(IoSlice::new);
        assert_eq!(self.producer.try_push_vectored(7, &parts), expected.map(|_| ()));
        if let Ok(message) = expected {
            self.committed(Message { tag: 7, ..message });
        }
    }

    fn reserve(&mut self, len: usize, filled: usize, end: End) {
        let expected = self.expect(self.queue.tail, len);
        let filled = filled.min(len);
        let bytes = payload(self.queue.seed, filled);
        let reservation = self.producer.try_reserve(9, len);
        let mut message = match (reservation, expected) {
            (Ok(mut reservation), Ok(message)) => {
                assert_eq!((reservation.len(), reservation.remaining()), (len, len));
                for piece in bytes[..filled].chunks(5) {
                    assert_eq!(reservation.write(piece), piece.len());
                }
                assert_eq!(reservation.remaining(), len - filled);
                match end {
                    End::Commit => reservation.commit(),
                    End::CommitFilled => reservation.commit_filled(),
                    End::Abort => return reservation.abort(),
                }
                message
            }
            (found, expected) => {
                return assert_eq!(found.map(|_| ()), expected.map(|_| ()));
            }
        };
        message.tag = 9;
        message.filled = filled;
        if end == End::CommitFilled {
            message.len = filled;
            let size = (filled as u64 + 8).next_multiple_of(self.geometry.payload_align());
            message.end = message.record.wrapping_add(size);
        }
        self.committed(message);
    }

    fn batch(&mut self, count: u8, len: usize, commit: bool) {
        let before = self.queue.clone();
        let (mut next, counted) = (self.queue.tail, (self.sent, self.sent_bytes));
        let lens = (0..count).map(|n| (len + usize::from(n) * 5) % (MAX_LEN - 1));
        let mut expected = Vec::new();
        let mut seed = self.queue.seed;
        for len in lens {
            let message = self.expect(next, len).map(|found| Message { seed, tag: 3, ..found });
            if let Ok(message) = message {
                next = message.end;
                seed = seed.wrapping_add(1);
            }
            expected.push((len, message));
        }
        let mut batch = self.producer.batch();
        let mut messages = Vec::new();
        for (len, message) in expected {
            let seed = message.as_ref().map_or(0, |message| message.seed);
            assert_eq!(batch.push(3, &payload(seed, len)[..len]), message.map(|_| ()));
            messages.extend(message);
        }
        assert_eq!(batch.len(), messages.len());
        assert_eq!(batch.is_empty(), messages.is_empty());
        if commit {
            assert_eq!(batch.commit(), messages.len());
            messages.into_iter().for_each(|message| self.committed(message));
        } else {
            batch.abort();
            assert_eq!((&self.queue, (self.sent, self.sent_bytes)), (&before, counted));
        }
    }

    fn advance(&mut self) {
        let expected = self.queue.messages.get(self.queue.taken).copied();
        let record = self.consumer.peek().expect("no corruption");
        let Some((record, message)) = record.zip(expected) else {
            assert_eq!((record, expected), (None, None));
            return;
        };
        check_record(&self.consumer, &record, &message);
        assert_eq!(self.consumer.peek(), Ok(Some(record)), "peeking takes nothing");
        self.consumer.advance(&record);
        self.queue.taken += 1;
    }

    fn release(&mut self) {
        self.consumer.release();
        for message in self.queue.messages.drain(..self.queue.taken) {
            self.queue.released = message.end;
        }
        self.queue.taken = 0;
        assert!(!self.consumer.release(), "nothing is left to release");
    }

    fn new_producer(&mut self) {
        let (memory, geometry) = (self.memory.clone(), self.geometry);
        self.producer = Producer::attach(memory, geometry).expect("no corruption");
        if self.counts {
            // The predecessor may not have published the last of them.
            let stats = self.producer.stats();
            assert!(self.sent - stats.messages < 16, "counts lag by more than they may");
            (self.sent, self.sent_bytes) = (stats.messages, stats.bytes);
        }
    }

    fn new_consumer(&mut self) {
        let (memory, geometry) = (self.memory.clone(), self.geometry);
        self.consumer = Consumer::attach(memory, geometry).expect("no corruption");
        self.queue.taken = 0;
    }

    fn check(&self) {
        assert_eq!(check_head(self.head(), &self.queue), Ok(()), "{:?}", self.queue);
        let stats = self.producer.stats();
        if self.counts {
            assert_eq!((stats.messages, stats.bytes), (self.sent, self.sent_bytes));
        }
        assert!(stats.high_water_bytes <= self.geometry.capacity_bytes());
    }

    /// Takes everything that is there, and finds exactly what was committed.
    pub fn drain(&mut self) {
        while self.queue.taken < self.queue.messages.len() {
            self.advance();
        }
        self.advance();
        self.release();
        self.check();
    }
}

/// The head is behind the last released record, or before the next one where padding lies between.
fn check_head(head: u64, queue: &Queue) -> Result<(), u64> {
    let next = queue.messages.front().map_or(queue.tail, |message| message.record);
    if head == queue.released || head == next { Ok(()) } else { Err(head) }
}

fn check_record<M: Memory>(consumer: &Consumer<M>, record: &Record, message: &Message) {
    assert!(is_message(consumer, record, message), "{record:?} is not {message:?}");
}

fn is_message<M: Memory>(consumer: &Consumer<M>, record: &Record, message: &Message) -> bool {
    let mut found = [0xee; MAX_LEN];
    consumer.copy_out(record, &mut found);
    let mut expected = payload(message.seed, message.filled);
    expected[message.len..].fill(0xee);
    (record.tag(), record.len_bytes()) == (message.tag, message.len) && found == expected
}

impl Machine<CrashMemory> {
    /// The same ring in a memory of its own, with both ends attached anew.
    pub fn snapshot(&self) -> Self {
        let memory = CrashMemory::from_words(&self.memory.to_words());
        let mut queue = self.queue.clone();
        let taken = std::mem::take(&mut queue.taken);
        let mut copy = Self::attach(memory, self.geometry, queue, false);
        (0..taken).for_each(|_| copy.advance());
        copy
    }

    /// Tags and payloads of what is committed and not released.
    pub fn contents(&self) -> Vec<(u16, Vec<u8>)> {
        let message = |message: &Message| {
            (message.tag, payload(message.seed, message.filled)[..message.len].to_vec())
        };
        self.queue.messages.iter().map(message).collect()
    }

    /// Runs one operation, and returns what every crash during it may leave: rings with both ends
    /// attached anew, each checked to hold exactly what was committed before the operation or after.
    pub fn crashes(&mut self, op: Op) -> impl Iterator<Item = Self> + use<> {
        let (crash, queues) = self.crash(op);
        let geometry = self.geometry;
        crash.images().into_iter().map(move |image| Self::recover(&image, geometry, op, &queues))
    }

    /// As [`crashes`](Self::crashes), but one of them, which `choice` says.
    pub fn crash_once(&mut self, op: Op, choice: usize) -> Self {
        let (crash, queues) = self.crash(op);
        Self::recover(&crash.any_image(choice), self.geometry, op, &queues)
    }

    fn crash(&mut self, op: Op) -> (Crash, [Queue; 2]) {
        let before = self.queue.clone();
        self.memory.record();
        self.apply(op);
        (self.memory.crash(), [self.queue.clone(), before])
    }

    fn recover(image: &CrashImage, geometry: RingGeometry, op: Op, queues: &[Queue; 2]) -> Self {
        let queue = queues.iter().find(|queue| holds(image, geometry, queue));
        let mut queue = queue.unwrap_or_else(|| panic!("{image} of {op:?}: {queues:?}")).clone();
        queue.taken = 0;
        let memory = image.to_memory();
        let head = memory.load_u64(ring::HEAD, Ordering::Relaxed);
        assert_eq!(check_head(head, &queue), Ok(()), "{image} of {op:?}: {queue:?}");
        Self::attach(memory, geometry, queue, false)
    }
}

/// Whether a new consumer finds exactly what is queued.
fn holds(image: &CrashImage, geometry: RingGeometry, queue: &Queue) -> bool {
    let Ok(mut consumer) = Consumer::attach(image.to_heap(), geometry) else { return false };
    for message in &queue.messages {
        let Ok(Some(record)) = consumer.peek() else { return false };
        if !is_message(&consumer, &record, message) {
            return false;
        }
        consumer.advance(&record);
    }
    consumer.peek() == Ok(None)
}

/// Crashes in one input of a fuzzer: they are slow.
const MAX_CRASHES: usize = 2;

/// Runs a setup of two bytes and operations of three. An operation behind a [`Op::Crash`] is cut
/// short by the death of both ends.
pub fn run(data: &[u8]) {
    let Some((setup, data)) = data.split_first_chunk::<2>() else { return };
    let setup = Setup::decode(*setup);
    let memory = CrashMemory::new(memory_bytes(setup.capacity_bytes));
    let mut machine = Machine::new(memory, setup);
    let mut crashes = 0;
    let mut ops = data.as_chunks::<3>().0.iter().map(|bytes| Op::decode(*bytes));
    while let Some(op) = ops.next() {
        match (op, crashes < MAX_CRASHES) {
            (Op::Crash { image }, true) => {
                crashes += 1;
                let Some(op) = ops.next() else { break };
                machine = machine.crash_once(op, image.into());
            }
            _ => machine.apply(op),
        }
    }
    machine.drain();
}
