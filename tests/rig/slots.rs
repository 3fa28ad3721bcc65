//! A machine that runs operations on a slot ring against plain arithmetic, and hostile peers of one.
//!
//! Property tests, crash tests and the fuzz target share it. What always holds after every
//! operation: the ring took or refused what counting says, the consumer sees exactly the committed
//! messages in order, and tail and published head lie where counting says.

use super::hostile::Mutator;
use ringway::layout::ring;
use ringway::memory::{Crash, CrashImage, CrashMemory, HeapMemory, Memory, Ordering};
use ringway::ring::PushError;
use ringway::ring::slots::{SlotConsumer, SlotGeometry, SlotProducer};

/// Where a test's ring lies in its memory.
const DATA: u64 = ring::CONTROL_BYTES;
const MAX_SLOT_BYTES: usize = 600;

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Push,
    Batch { count: u8, commit: bool },
    Take,
    Advance,
    Release,
    NewProducer,
    NewConsumer,
}

impl Op {
    /// Any two bytes are an operation.
    pub fn decode([kind, count]: [u8; 2]) -> Self {
        match kind % 8 {
            0 | 1 => Self::Push,
            2 => Self::Batch { count: count / 2 % 24, commit: count % 2 == 1 },
            3 => Self::Take,
            4 => Self::Advance,
            5 => Self::Release,
            6 => Self::NewProducer,
            _ => Self::NewConsumer,
        }
    }
}

/// A ring's measures, and the position of its first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    pub capacity_bytes: u64,
    pub slot_bytes: u32,
    pub start: u64,
}

impl Setup {
    /// Any three bytes are a setup.
    pub fn decode([capacity, slot, start]: [u8; 3]) -> Self {
        let capacity_bytes = 64 << (capacity % 5);
        let slot_bytes = u32::from(slot) % (capacity_bytes as u32 / 2) + 1;
        let setup = Self { capacity_bytes, slot_bytes, start: 0 };
        let blocks = u64::from(start >> 1).wrapping_mul(setup.block_bytes());
        // From 0 on, or so that positions wrap.
        let start = if start & 1 == 0 { blocks } else { 0_u64.wrapping_sub(blocks) };
        Self { start, ..setup }
    }

    fn stride_bytes(&self) -> u64 {
        u64::from(self.slot_bytes).div_ceil(8) * 8
    }

    fn block_bytes(&self) -> u64 {
        (self.stride_bytes() + 8).next_power_of_two().max(64)
    }

    fn per_block(&self) -> u64 {
        (self.block_bytes() - 8) / self.stride_bytes()
    }

    fn blocks(&self) -> u64 {
        self.capacity_bytes / self.block_bytes()
    }

    /// The position of the n-th message.
    fn position(&self, n: u64) -> u64 {
        let (block, index) = (n / self.per_block(), n % self.per_block());
        self.start.wrapping_add(block * self.block_bytes()).wrapping_add(index)
    }

    pub fn memory_bytes(&self) -> u64 {
        DATA + self.capacity_bytes
    }

    fn geometry(&self, memory: &impl Memory) -> SlotGeometry {
        SlotGeometry::new(memory, 0, DATA, self.capacity_bytes, self.slot_bytes).expect("valid")
    }
}

/// The n-th message, or what is written and given up.
fn message(n: u64, given_up: bool, slot_bytes: u32) -> Vec<u8> {
    let seed = (n as u8).wrapping_mul(37).wrapping_add(if given_up { 128 } else { 1 });
    (0..slot_bytes).map(|at| seed.wrapping_add(at as u8)).collect()
}

/// A ring, its ends, and how many messages there were.
#[derive(Debug)]
pub struct Machine<M: Memory> {
    memory: M,
    setup: Setup,
    producer: SlotProducer<M>,
    consumer: SlotConsumer<M>,
    sent: u64,
    taken: u64,
    released: u64,
}

impl<M: Memory + std::fmt::Debug> Machine<M> {
    /// An empty ring that has been used before: messages are garbage, counts are those of the lap
    /// before, or zero.
    pub fn new(memory: M, setup: Setup) -> Self {
        for offset in (DATA..setup.memory_bytes()).step_by(8) {
            memory.store_u64(offset, !offset, Ordering::Relaxed);
        }
        for n in 0..setup.blocks() {
            let block = setup.position(n * setup.per_block());
            let before = block.wrapping_sub(setup.capacity_bytes).wrapping_add(setup.per_block());
            let count = if n % 3 == 2 { 0 } else { before };
            let offset = DATA + (block & (setup.capacity_bytes - 1));
            memory.store_u64(offset, count, Ordering::Relaxed);
        }
        memory.store_u64(ring::HEAD, setup.start, Ordering::Relaxed);
        Self::attach(memory, setup, 0, 0)
    }

    fn attach(memory: M, setup: Setup, sent: u64, released: u64) -> Self {
        let geometry = setup.geometry(&memory);
        assert_eq!(geometry.capacity_messages(), setup.blocks() * setup.per_block());
        let producer = SlotProducer::attach(memory.clone(), geometry).expect("no corruption");
        let consumer = SlotConsumer::attach(memory.clone(), geometry).expect("no corruption");
        let machine = Self { memory, setup, producer, consumer, sent, taken: released, released };
        machine.check();
        machine
    }

    /// Runs one operation and checks everything that can be seen.
    pub fn apply(&mut self, op: Op) {
        match op {
            Op::Push => self.push(),
            Op::Batch { count, commit } => self.batch(count, commit),
            Op::Take => {
                self.advance();
                self.release();
            }
            Op::Advance => self.advance(),
            Op::Release => self.release(),
            Op::NewProducer => {
                let geometry = *self.producer.geometry();
                let producer = SlotProducer::attach(self.memory.clone(), geometry);
                self.producer = producer.expect("no corruption");
            }
            Op::NewConsumer => {
                let geometry = *self.consumer.geometry();
                let consumer = SlotConsumer::attach(self.memory.clone(), geometry);
                self.consumer = consumer.expect("no corruption");
                self.taken = self.released;
            }
        }
        self.check();
    }

    fn check(&self) {
        let Self { setup, sent, taken, released, .. } = self;
        assert_eq!(self.producer.tail(), setup.position(*sent), "tail of {self:?}");
        assert_eq!(self.consumer.position(), setup.position(*taken), "position of {self:?}");
        let head = self.memory.load_u64(ring::HEAD, Ordering::Relaxed);
        assert_eq!(head, setup.position(*released), "head of {self:?}");
    }

    /// What counting says about the n-th message.
    fn expect(&self, n: u64) -> Result<(), PushError> {
        let (block, first) = (n / self.setup.per_block(), self.released / self.setup.per_block());
        if block - first < self.setup.blocks() {
            return Ok(());
        }
        let released_block = block - self.setup.blocks() + 1;
        let head_needed = self.setup.position(released_block * self.setup.per_block());
        Err(PushError::Full { head_needed })
    }

    fn push(&mut self) {
        let expected = self.expect(self.sent);
        let pushed = self.producer.try_push(&message(self.sent, false, self.setup.slot_bytes));
        assert_eq!(pushed, expected, "{self:?}");
        match expected {
            Err(PushError::Full { head_needed }) => {
                assert_eq!(self.producer.has_room(head_needed), Ok(false));
            }
            _ => self.sent += 1,
        }
    }

    fn batch(&mut self, count: u8, commit: bool) {
        let expected: Vec<_> =
            (self.sent..).take(count.into()).map(|n| (n, self.expect(n))).collect();
        let mut batch = self.producer.batch();
        let mut pushed = 0;
        for (n, expected) in expected {
            assert_eq!(batch.push(&message(n, !commit, self.setup.slot_bytes)), expected);
            match expected {
                Ok(()) => pushed += 1,
                Err(_) => break,
            }
        }
        assert_eq!((batch.len(), batch.is_empty()), (pushed, pushed == 0));
        if commit {
            assert_eq!(batch.commit(), pushed);
            self.sent += pushed as u64;
        } else {
            batch.abort();
        }
    }

    fn advance(&mut self) {
        let there = self.taken < self.sent;
        assert_eq!(self.consumer.peek(), Ok(there), "{self:?}");
        if there {
            let mut bytes = vec![0; self.setup.slot_bytes as usize];
            self.consumer.copy_out(&mut bytes);
            assert_eq!(bytes, message(self.taken, false, self.setup.slot_bytes), "{self:?}");
            self.consumer.advance();
            self.taken += 1;
        }
    }

    fn release(&mut self) {
        assert_eq!(self.consumer.release(), self.taken != self.released);
        self.released = self.taken;
    }

    /// Takes everything, fills the ring to the brim, and takes everything again.
    pub fn drain(&mut self) {
        for _ in 0..2 {
            while self.taken < self.sent {
                self.apply(Op::Advance);
            }
            self.apply(Op::Take);
            while self.expect(self.sent).is_ok() {
                self.apply(Op::Push);
            }
            self.apply(Op::Push);
        }
        while self.taken < self.sent {
            self.apply(Op::Take);
        }
        self.apply(Op::Take);
    }
}

impl Machine<CrashMemory> {
    /// The same state in memory of its own.
    pub fn snapshot(&self) -> Self {
        let memory = CrashMemory::from_words(&self.memory.to_words());
        let mut copy = Self::attach(memory, self.setup, self.sent, self.released);
        while copy.taken < self.taken {
            copy.apply(Op::Advance);
        }
        copy
    }

    /// Everything that a death during `op` may leave, with new ends attached to it.
    pub fn crashes(mut self, op: Op) -> Vec<Self> {
        let (sent, released) = (self.sent, self.released);
        self.memory.record();
        self.apply(op);
        let crash: Crash = self.memory.crash();
        let recover = |image: CrashImage| {
            let memory = image.to_memory();
            let head = memory.load_u64(ring::HEAD, Ordering::Relaxed);
            let found = [released, self.released].into_iter();
            let released = found
                .clone()
                .find(|n| self.setup.position(*n) == head)
                .unwrap_or_else(|| panic!("head {head} of {found:?} after {op:?}"));
            let geometry = self.setup.geometry(&memory);
            let walked = CrashMemory::from_words(&memory.to_words());
            let tail = SlotProducer::attach(walked, geometry).expect("no corruption").tail();
            let sent = [sent, self.sent].into_iter().find(|n| self.setup.position(*n) == tail);
            // All of it or nothing.
            let sent = sent.unwrap_or_else(|| panic!("tail {tail} after {op:?}"));
            Self::attach(memory, self.setup, sent, released)
        };
        crash.images().into_iter().map(recover).collect()
    }
}

/// Takes messages as a careful receiver does.
fn consume<M: Memory>(consumer: &mut SlotConsumer<M>, limit: usize) {
    let mut bytes = [0; MAX_SLOT_BYTES];
    let len = consumer.geometry().slot_bytes();
    for _ in 0..limit {
        match consumer.peek() {
            Ok(true) => {
                assert_eq!(consumer.poisoned(), None);
                consumer.copy_out(&mut bytes[..len]);
                consumer.advance();
                assert!(consumer.release());
            }
            Ok(false) => assert_eq!(consumer.poisoned(), None),
            Err(corruption) => {
                assert_eq!(consumer.poisoned(), Some(corruption));
                assert_eq!(consumer.peek(), Err(corruption), "a finding latches");
                return;
            }
        }
    }
}

/// Sends in every way as a careful sender does.
fn produce<M: Memory>(producer: &mut SlotProducer<M>, limit: usize) {
    let bytes = vec![0x55; producer.geometry().slot_bytes()];
    for n in 0..limit {
        let result = if n % 3 == 2 {
            let mut batch = producer.batch();
            let result = (0..n % 9).try_for_each(|_| batch.push(&bytes));
            batch.commit();
            result
        } else {
            producer.try_push(&bytes)
        };
        if let Err(PushError::Full { head_needed }) = result {
            let _ = producer.has_room(head_needed);
        }
        if let Some(corruption) = producer.poisoned() {
            let latched = Err(PushError::Corrupt(corruption));
            assert_eq!(producer.try_push(&bytes), latched, "a finding latches");
            return;
        }
    }
}

fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// What the fuzz target runs: the first byte says what the rest is, three bytes say which ring.
pub fn run(data: &[u8]) {
    let Some(([kind, setup @ ..], rest)) = data.split_first_chunk::<4>() else { return };
    let setup = Setup::decode(*setup);
    match kind % 4 {
        0 => operations(setup, rest),
        1 => bytes(setup, rest),
        2 => heads(setup, rest),
        _ => mutations(setup, rest),
    }
}

fn operations(setup: Setup, data: &[u8]) {
    let mut machine = Machine::new(HeapMemory::new(setup.memory_bytes()), setup);
    for op in data.as_chunks::<2>().0 {
        machine.apply(Op::decode(*op));
    }
    machine.drain();
}

/// Both kinds of end attach to a ring of arbitrary bytes and work on it.
fn bytes(setup: Setup, data: &[u8]) {
    let memory = HeapMemory::new(setup.memory_bytes());
    memory.store_u64(ring::HEAD, setup.start, Ordering::Relaxed);
    for (at, bytes) in (DATA..memory.len_bytes()).step_by(8).zip(data.chunks(8)) {
        // Often a count that could be.
        let near = if bytes[0] < 128 { setup.position(u64::from(bytes[0])) } else { 0 };
        memory.store_u64(at, near.wrapping_add(word(bytes) >> 8), Ordering::Relaxed);
    }
    let geometry = setup.geometry(&memory);
    if let Ok(mut consumer) = SlotConsumer::attach(memory.clone(), geometry) {
        consume(&mut consumer, 64);
    }
    if let Ok(mut producer) = SlotProducer::attach(memory, geometry) {
        produce(&mut producer, 32);
    }
}

/// A producer works while its peer publishes heads. It believes exactly those that are the position of
/// a slot between the last one and its tail.
fn heads(setup: Setup, data: &[u8]) {
    let memory = HeapMemory::new(setup.memory_bytes());
    memory.store_u64(ring::HEAD, setup.start, Ordering::Relaxed);
    let geometry = setup.geometry(&memory);
    let mut producer = SlotProducer::attach(memory.clone(), geometry).expect("empty");
    for step in data.chunks(9) {
        produce(&mut producer, usize::from(step[0] >> 4));
        let known = memory.load_u64(ring::HEAD, Ordering::Relaxed);
        let new = match step[0] & 3 {
            0 => known.wrapping_add(word(&step[1..]) % 512),
            1 => setup.position(word(&step[1..]) % 512),
            2 => known,
            _ => word(&step[1..]),
        };
        memory.store_u64(ring::HEAD, new, Ordering::Relaxed);
        let far = new.wrapping_sub(known) > producer.tail().wrapping_sub(known);
        let lie = far || new % setup.block_bytes() >= setup.per_block();
        assert_eq!(producer.has_room(new).is_err(), lie, "{new} after {known}: {producer:?}");
        if lie {
            produce(&mut producer, 4);
            assert!(producer.poisoned().is_some());
            return;
        }
    }
}

/// Both ends work on a ring while a peer changes words between any two accesses.
fn mutations(setup: Setup, data: &[u8]) {
    let heap = HeapMemory::new(setup.memory_bytes());
    heap.store_u64(ring::HEAD, setup.start, Ordering::Relaxed);
    let mut now = 0;
    let script = data.as_chunks::<4>().0.iter().map(|step| {
        now += u64::from(step[0] & 63);
        let words = heap.len_bytes() / 8;
        let first = if step[0] & 64 == 0 { DATA / 8 } else { 0 };
        let offset = (first + u64::from(step[1]) % (words - first)) * 8;
        let what = match step[0] & 128 {
            0 => setup.position(u64::from(step[2])).wrapping_add(u64::from(step[3] & 7)),
            _ => u64::from_le_bytes([step[2]; 8]) ^ u64::from(step[3]),
        };
        (now, offset, what)
    });
    let memory = Mutator::new(heap.clone(), script.collect());
    let geometry = setup.geometry(&memory);
    let mut producer = SlotProducer::attach(memory.clone(), geometry).expect("empty");
    let mut consumer = SlotConsumer::attach(memory.clone(), geometry).expect("empty");
    memory.start();
    for _ in 0..8 {
        produce(&mut producer, 5);
        consume(&mut consumer, 7);
    }
    let _ = SlotProducer::attach(memory, geometry).map(|mut producer| produce(&mut producer, 4));
}
