//! A machine that runs operations on a lossy ring against a naive list of messages.
//!
//! Tests and fuzz targets share it. What always holds after every operation: what was received is
//! whole, and is the message that its number says; nothing is lost that was not overwritten or
//! jumped over; the sums of both ends are those of the list.

use ringway::layout::{RING_SLACK_BYTES, ring};
use ringway::memory::{CrashImage, CrashMemory, Memory, Ordering};
use ringway::ring::lossy::{LossyConsumer, LossyGeometry, LossyProducer, LossyRecord};
use ringway::ring::{PushError, RingGeometry};

/// Where a test's ring lies in its memory.
pub const DATA: u64 = ring::CONTROL_BYTES;

/// How long a memory must be for such a ring.
pub fn memory_bytes(capacity_bytes: u64) -> u64 {
    DATA + capacity_bytes + RING_SLACK_BYTES
}

/// One operation. Lengths are bytes of payload and may be longer than the ring takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Push {
        len: u8,
        tag: u8,
    },
    /// Many messages of one length.
    Burst {
        len: u8,
        count: u8,
    },
    /// Settle, and take one.
    Take,
    Settle,
    NewProducer,
    NewConsumer,
    /// Where the memory can: both ends die at one of the stores of the next operation.
    Crash {
        image: u8,
    },
}

impl Op {
    /// Three bytes; every three bytes are an operation.
    pub fn decode([kind, a, b]: [u8; 3]) -> Self {
        match kind % 16 {
            0..=3 => Self::Push { len: a, tag: b },
            4..=6 => Self::Burst { len: a, count: b % 40 },
            7..=11 => Self::Take,
            12 => Self::Settle,
            13 => Self::NewProducer,
            14 => Self::NewConsumer,
            _ => Self::Crash { image: a },
        }
    }

    /// Bytes that decode to this.
    pub fn encode(self) -> [u8; 3] {
        match self {
            Self::Push { len, tag } => [0, len, tag],
            Self::Burst { len, count } => [4, len, count],
            Self::Take => [7, 0, 0],
            Self::Settle => [12, 0, 0],
            Self::NewProducer => [13, 0, 0],
            Self::NewConsumer => [14, 0, 0],
            Self::Crash { image } => [15, image, 0],
        }
    }
}

/// Where a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    pub capacity_bytes: u64,
    /// Position of the first record.
    pub start: u64,
    /// Number of the first message.
    pub first: u64,
}

impl Setup {
    /// Two bytes; any are a setup. Positions and numbers start at 0, or where they soon wrap.
    pub fn decode([shape, start]: [u8; 2]) -> Self {
        let capacity_bytes = 128 << (shape % 4);
        let base = if start & 128 == 0 { 0 } else { u64::MAX << 12 };
        let first = if shape & 128 == 0 { 0 } else { u64::MAX - u64::from(shape & 63) };
        Self { capacity_bytes, start: base.wrapping_add(u64::from(start & 127) * 8), first }
    }
}

/// A message of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sent {
    number: u64,
    tag: u16,
    len: usize,
    record: u64,
    end: u64,
}

/// What the list knows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct List {
    /// Those that may still be in the ring, and some more.
    sent: Vec<Sent>,
    tail: u64,
    /// Everything before it has been announced.
    intent: u64,
    /// Everything before it has been given up: by a producer that died before it announced so.
    given_up: u64,
    /// The next number to be sent.
    next: u64,
    /// First number that the consumer has neither taken nor lost; how many it has lost.
    settled: (u64, u64),
    taken: (u64, u64),
}

/// A ring, its ends and the list.
#[derive(Debug)]
pub struct Machine<M: Memory> {
    memory: M,
    geometry: LossyGeometry,
    producer: LossyProducer<M>,
    consumer: LossyConsumer<M>,
    list: List,
    buffer: Vec<u8>,
}

const MAX_LEN: usize = 256;

fn is_before(one: u64, other: u64) -> bool {
    (one.wrapping_sub(other) as i64) < 0
}

fn payload(number: u64, len: usize) -> [u8; MAX_LEN] {
    let mut bytes = [0; MAX_LEN];
    for (at, byte) in bytes[..len].iter_mut().enumerate() {
        *byte = (number as u8).wrapping_mul(151).wrapping_add(at as u8) | 1;
    }
    bytes
}

/// A ring in this memory in which every word that the protocol does not need is garbage.
pub fn prepare<M: Memory>(memory: &M, setup: Setup) -> LossyGeometry {
    let Setup { capacity_bytes, start, first } = setup;
    let ring = RingGeometry::new(memory, 0, DATA, capacity_bytes, 8).expect("valid");
    for index in (0..capacity_bytes).step_by(8) {
        let old = if index == start % capacity_bytes { 0 } else { !index };
        memory.store_u64(DATA + index, old, Ordering::Relaxed);
    }
    let landmarks = (0..ring::LANDMARK_COUNT).map(|n| (ring::LANDMARKS + n * 8, start));
    let numbers = [ring::RETIRED, ring::SETTLED, ring::LOSSES[0], ring::LOSSES[1]];
    let numbers = numbers.map(|word| (word, first));
    let positions = [(ring::OLDEST, start), (ring::INTENT, start)];
    for (word, value) in landmarks.chain(numbers).chain(positions) {
        memory.store_u64(word, value, Ordering::Relaxed);
    }
    LossyGeometry::new(ring).expect("valid")
}

impl<M: Memory + std::fmt::Debug> Machine<M> {
    /// An empty ring.
    pub fn new(memory: M, setup: Setup) -> Self {
        let geometry = prepare(&memory, setup);
        let Setup { start, first, .. } = setup;
        let counts = (first, 0);
        let sent = Vec::with_capacity(256);
        let list = List {
            sent,
            tail: start,
            intent: start,
            given_up: start,
            next: first,
            settled: counts,
            taken: counts,
        };
        Self::attach(memory, geometry, list)
    }

    fn attach(memory: M, geometry: LossyGeometry, list: List) -> Self {
        let producer = LossyProducer::attach(memory.clone(), geometry).expect("no corruption");
        let consumer = LossyConsumer::attach(memory.clone(), geometry).expect("no corruption");
        Self { memory, geometry, producer, consumer, list, buffer: Vec::with_capacity(MAX_LEN) }
    }

    /// Runs one operation and checks everything that can be seen.
    pub fn apply(&mut self, op: Op) {
        match op {
            Op::Push { len, tag } => self.push(len.into(), u16::from(tag) * 257),
            Op::Burst { len, count } => {
                for n in 0..count {
                    self.push((usize::from(len) + usize::from(n) * 3) % MAX_LEN, n.into());
                }
            }
            Op::Take => {
                self.take();
            }
            Op::Settle => {
                self.consumer.settle();
                self.list.settled = self.list.taken;
            }
            Op::NewProducer | Op::Crash { .. } => {
                let (memory, geometry) = (self.memory.clone(), self.geometry);
                self.producer = LossyProducer::attach(memory, geometry).expect("no corruption");
            }
            Op::NewConsumer => {
                let (memory, geometry) = (self.memory.clone(), self.geometry);
                self.consumer = LossyConsumer::attach(memory, geometry).expect("no corruption");
                self.list.taken = self.list.settled;
            }
        }
        self.check();
    }

    fn push(&mut self, len: usize, tag: u16) {
        let capacity = self.geometry.capacity_bytes();
        let max = capacity / 4 - 16;
        let bytes = payload(self.list.next, len);
        let result = self.producer.try_push(tag, &bytes[..len]);
        if len as u64 > max {
            return assert_eq!(result, Err(PushError::TooLong { len: len as u64, max }));
        }
        assert_eq!(result, Ok(()));
        let size = (len as u64 + 16).next_multiple_of(8);
        let index = self.list.tail % capacity;
        let padding = if index + size > capacity { capacity - index } else { 0 };
        let record = self.list.tail.wrapping_add(padding);
        let end = record.wrapping_add(size);
        let number = self.list.next;
        self.list.sent.push(Sent { number, tag, len, record, end });
        if self.list.sent.len() > 200 {
            self.list.sent.drain(..100);
        }
        self.list.tail = end;
        self.list.next = number.wrapping_add(1);
        let stride = (capacity / 8).min(4096);
        if (end.wrapping_add(8).wrapping_sub(self.list.intent) as i64) > 0 {
            self.list.intent = end.wrapping_add(8).wrapping_add(stride - 1) & !(stride - 1);
        }
    }

    /// The messages that have not been overwritten.
    fn whole(&self) -> impl Iterator<Item = &Sent> {
        let floor = self.list.intent.wrapping_sub(self.geometry.capacity_bytes());
        self.list.sent.iter().filter(move |sent| !is_before(sent.record, floor))
    }

    /// The messages that have not been given up.
    fn kept(&self) -> impl Iterator<Item = &Sent> {
        self.whole().filter(|sent| !is_before(sent.record, self.list.given_up))
    }

    fn take(&mut self) -> Option<LossyRecord> {
        let (next, lost) = self.list.taken;
        let result = self.consumer.try_take(&mut self.buffer).expect("a message that stays");
        self.list.settled = self.list.taken;
        // Overwritten or not, something is there as long as not everything has been taken.
        let Some(record) = result else {
            assert_eq!(next, self.list.next, "a message is there");
            return None;
        };
        let number = record.number();
        let position = |number| self.list.sent.iter().position(|sent| sent.number == number);
        let at = position(number).unwrap_or_else(|| panic!("{number} was never sent"));
        let sent = self.list.sent[at];
        assert_eq!((record.tag(), record.len_bytes()), (sent.tag, sent.len));
        assert_eq!(self.buffer[..sent.len], payload(number, sent.len)[..sent.len], "torn");
        assert_eq!(record.lost_before(), number.wrapping_sub(next));
        assert!((record.lost_before() as i64) >= 0, "a message came twice");
        assert!(self.whole().any(|whole| *whole == sent), "read what may be overwritten");
        let next_is_kept = self.kept().any(|kept| kept.number == next && !self.is_padded(kept));
        assert!(record.lost_before() == 0 || !next_is_kept, "lost without need");
        // However slow the consumer is, it does not skip more than half a ring and what lies between
        // two landmarks.
        let capacity = self.geometry.capacity_bytes();
        let floor = self.list.intent.wrapping_sub(capacity);
        let oldest = self.kept().next().copied().expect("one at least");
        let sizes = self.list.sent.iter().map(|sent| sent.end.wrapping_sub(sent.record));
        let between = capacity / 8 * 2 + 2 * sizes.max().unwrap_or(0);
        let near = sent.record.wrapping_sub(floor) <= capacity / 2 + between;
        assert!(record.lost_before() == 0 || near || sent == oldest, "skipped too much");
        self.list.taken = (number.wrapping_add(1), lost.wrapping_add(record.lost_before()));
        Some(record)
    }

    /// Whether padding stands before this message: a consumer that has come to the padding is overrun
    /// when that is overwritten.
    fn is_padded(&self, sent: &Sent) -> bool {
        self.list
            .sent
            .iter()
            .any(|before| before.number == sent.number.wrapping_sub(1) && before.end != sent.record)
    }

    fn check(&self) {
        let (next, lost) = self.list.taken;
        let stats = self.consumer.stats();
        assert_eq!((stats.received.wrapping_add(stats.lost), stats.lost), (next, lost));
        let stats = self.producer.stats();
        assert_eq!(stats.sent, self.list.next);
        assert_eq!(stats.sent, stats.taken.wrapping_add(stats.lost).wrapping_add(stats.unread));
        let (settled, lost) = self.list.settled;
        let oldest = self.kept().next().map_or(stats.overwritten, |sent| sent.number);
        assert_eq!(stats.overwritten, oldest);
        let beyond = (oldest.wrapping_sub(settled) as i64).max(0) as u64;
        assert_eq!(stats.lost, lost.wrapping_add(beyond));
    }

    /// Takes everything that is there; then both sides must say the same.
    pub fn drain(&mut self) {
        while self.take().is_some() {}
        self.check();
        let (sender, receiver) = (self.producer.stats(), self.consumer.stats());
        assert_eq!((sender.taken, sender.lost), (receiver.received, receiver.lost));
        assert_eq!(sender.unread, 0);
    }
}

impl Machine<CrashMemory> {
    /// The same ring in a memory of its own, with both ends attached anew.
    pub fn snapshot(&self) -> Self {
        let memory = CrashMemory::from_words(&self.memory.to_words());
        let mut list = self.list.clone();
        list.taken = list.settled;
        Self::attach(memory, self.geometry, list)
    }

    /// Runs one operation, and returns what every crash during it may leave: rings with both ends
    /// attached anew, in the state before the operation, after it, or after some of its messages.
    pub fn crashes(&mut self, op: Op) -> impl Iterator<Item = Self> + use<> {
        let before = self.list.clone();
        self.memory.record();
        self.apply(op);
        let (images, after) = (self.memory.crash().images(), self.list.clone());
        let geometry = self.geometry;
        images.into_iter().map(move |image| Self::recover(&image, geometry, &before, &after))
    }

    /// As [`crashes`](Self::crashes), but one of them, which `choice` says.
    pub fn crash_once(&mut self, op: Op, choice: usize) -> Self {
        let before = self.list.clone();
        self.memory.record();
        self.apply(op);
        let image = self.memory.crash().any_image(choice);
        Self::recover(&image, self.geometry, &before, &self.list)
    }

    fn recover(image: &CrashImage, geometry: LossyGeometry, before: &List, after: &List) -> Self {
        let memory = image.to_memory();
        let mut list = after.clone();
        let mut left = Self::attach(memory, geometry, list.clone());
        // What was committed: everything before, and perhaps some of what came then.
        let sent = left.producer.stats().sent;
        assert!(sent.wrapping_sub(before.next) <= after.next.wrapping_sub(before.next), "{image}");
        list.sent.retain(|message| is_before(message.number, sent));
        list.next = sent;
        list.tail = list.sent.last().map_or(before.tail, |message| message.end);
        assert_eq!(left.producer.tail(), list.tail, "{image}");
        // What was announced may go beyond what was committed, and what was given up beyond that.
        let oldest = left.memory.load_u64(ring::OLDEST, Ordering::Relaxed);
        let intent = left.memory.load_u64(ring::INTENT, Ordering::Relaxed);
        let capacity = geometry.capacity_bytes();
        let covers = |position: u64| position.wrapping_sub(before.intent);
        assert!(covers(intent) <= covers(after.intent), "{image}");
        assert!(intent.wrapping_sub(oldest) <= capacity, "{image}");
        (list.intent, list.given_up) = (intent, oldest);
        // The consumer had settled what it had taken before, or not yet.
        let stats = left.consumer.stats();
        let settled = (stats.received.wrapping_add(stats.lost), stats.lost);
        assert!(settled == before.settled || settled == after.settled, "{image}: {settled:?}");
        (list.settled, list.taken) = (settled, settled);
        left.list = list;
        left
    }
}

/// What a fuzzer runs: two bytes of setup, then operations of three bytes each.
pub fn run(data: &[u8]) {
    let Some((setup, data)) = data.split_first_chunk::<2>() else { return };
    let setup = Setup::decode(*setup);
    let memory = CrashMemory::new(memory_bytes(setup.capacity_bytes));
    let mut machine = Machine::new(memory, setup);
    let mut choice = None;
    for bytes in data.as_chunks::<3>().0 {
        let op = Op::decode(*bytes);
        match (op, choice.take()) {
            (Op::Crash { image }, _) => choice = Some(usize::from(image)),
            (op, Some(image)) => machine = machine.crash_once(op, image),
            (op, None) => machine.apply(op),
        }
    }
    machine.drain();
}
