//! Real processes on a mapped ring, killed with SIGKILL at random instants.
//!
//! A producer process sends numbered records in every way there is, a consumer process checks them;
//! this one kills either or both, and starts successors on the same ring. What must hold: every
//! committed record arrives, in order and whole; again only where its reader died before it gave
//! the record back; a batch arrives as a whole or not at all.
//!
//! `RINGWAY_KILLS` says how many kills there are, `RINGWAY_MESSAGES` how many records the run
//! without kills checks, `RINGWAY_SEED` replays the choices.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::io::IoSlice;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use common::random::{self, Random, mix};
use common::victim::Victim;
use ringway::layout::{CHANNEL_DATA, ring};
use ringway::memory::{Deadline, FenceMode, MappedMemory, Memory, Ordering};
use ringway::ring::{Consumer, Producer, PushError, Record, RingGeometry};
use ringway::segment::{AnonymousSegment, ChannelGeometry};
use ringway::wakeup::{WaitStrategy, Waiter, wake_if_waiting};

/// The longest batch.
const MAX_BATCH: u64 = 4;
/// A consumer gives records back at the latest after so many.
const MAX_HELD: u64 = 8;
/// Bytes in front of a record's pattern: its number, and how many of its batch follow.
const PREFIX_BYTES: usize = 16;

/// What the processes tell each other beside the ring. Words in a segment of their own.
#[derive(Clone, Copy)]
enum Word {
    /// The last record that is known to be committed. Producer.
    Committed,
    /// The last record that was checked; stored before it is given back. Consumer.
    Seen,
    /// Records that came again. Consumer.
    Again,
    /// What is wrong; 0 = nothing. Whoever finds it.
    Violation,
    /// The record about which something is wrong.
    Number,
}

mod violation {
    pub const LOST: u64 = 1;
    pub const TORN: u64 = 2;
    pub const CORRUPT: u64 = 3;
    pub const OLD: u64 = 4;
    pub const BATCH: u64 = 5;
    pub const FORGOTTEN: u64 = 6;
}

/// A ring and the words beside it. Every process has the same mappings, by inheritance.
struct Arena {
    memory: MappedMemory,
    geometry: RingGeometry,
    beside: MappedMemory,
    _segments: [AnonymousSegment; 2],
}

impl Arena {
    fn new(capacity_bytes: u64) -> Self {
        let fence = FenceMode::detect();
        let segment =
            AnonymousSegment::create(&ChannelGeometry::records([capacity_bytes, 64], 8, fence))
                .unwrap();
        let beside =
            AnonymousSegment::create(&ChannelGeometry::records([4096, 64], 8, fence)).unwrap();
        let memory = segment.memory().clone();
        let data = segment.geometry().layout().unwrap().data[0];
        let geometry =
            RingGeometry::new(&memory, ring::CONTROL[0], data, capacity_bytes, 8).unwrap();
        let words = beside.memory().clone();
        Self { memory, geometry, beside: words, _segments: [segment, beside] }
    }

    fn load(&self, word: Word) -> u64 {
        self.beside.load_u64(CHANNEL_DATA + 8 * word as u64, Ordering::Acquire)
    }

    fn store(&self, word: Word, value: u64) {
        self.beside.store_u64(CHANNEL_DATA + 8 * word as u64, value, Ordering::Release);
    }

    /// Reports and ends this process, which is a forked one: no more can be done there.
    fn violation(&self, what: u64, number: u64) -> ! {
        self.store(Word::Number, number);
        self.store(Word::Violation, what);
        // SAFETY: the call takes a number and does not return.
        unsafe { libc::_exit(1) }
    }

    fn check(&self) {
        let (violation, number) = (self.load(Word::Violation), self.load(Word::Number));
        assert_eq!(violation, 0, "violation {violation} at record {number}");
    }

    fn consumer(&self) -> Consumer<MappedMemory> {
        Consumer::attach(self.memory.clone(), self.geometry)
            .unwrap_or_else(|_| self.violation(violation::CORRUPT, 0))
    }

    fn longest(&self) -> usize {
        (self.geometry.max_payload_bytes() as usize).min(600)
    }

    /// A record's length follows from its number, and so does its pattern.
    fn fill(&self, number: u64, following: u64, bytes: &mut [u8; 600]) -> usize {
        let spread = (self.longest() - PREFIX_BYTES) as u64 + 1;
        let len = PREFIX_BYTES + (mix(number) % spread) as usize;
        bytes[..8].copy_from_slice(&number.to_ne_bytes());
        bytes[8..PREFIX_BYTES].copy_from_slice(&following.to_ne_bytes());
        for (index, chunk) in bytes[PREFIX_BYTES..len].chunks_mut(8).enumerate() {
            let pattern = mix(number ^ (index as u64) << 32).to_ne_bytes();
            chunk.copy_from_slice(&pattern[..chunk.len()]);
        }
        len
    }
}

/// Sends for ever: the successor of a producer that was killed anywhere.
fn produce(arena: &Arena, seed: u64) -> ! {
    let mut random = Random::new(seed);
    let committed_before = arena.load(Word::Committed);
    let mut last = last_in_ring(arena);
    if last < committed_before {
        arena.violation(violation::FORGOTTEN, last);
    }
    let mut producer = Producer::attach(arena.memory.clone(), arena.geometry)
        .unwrap_or_else(|_| arena.violation(violation::CORRUPT, last));
    let mut waiter = Waiter::new(WaitStrategy::Park, false);
    loop {
        match push_something(arena, &mut producer, last, &mut random) {
            Ok(count) => {
                last += count;
                wake_if_waiting(&arena.memory, ring::CONTROL[0] + ring::CONSUMER_WAITING);
                arena.store(Word::Committed, last);
            }
            Err(PushError::Full { head_needed }) => {
                let until = Deadline::at_ns(arena.memory.now_ns() + 2_000_000);
                let waiting = ring::CONTROL[0] + ring::PRODUCER_WAITING;
                let room = || producer.has_room(head_needed).unwrap_or(true).then_some(());
                waiter.wait(&arena.memory, waiting, until, room, |_| ());
            }
            Err(_) => arena.violation(violation::CORRUPT, last),
        }
    }
}

/// The number of the last committed record, found without touching anything.
fn last_in_ring(arena: &Arena) -> u64 {
    let mut walker = arena.consumer();
    let mut last = None;
    loop {
        match walker.peek() {
            Ok(Some(record)) => {
                let mut number = [0; 8];
                walker.copy_out(&record, &mut number);
                walker.advance(&record);
                last = Some(u64::from_ne_bytes(number));
            }
            Ok(None) => break,
            Err(_) => arena.violation(violation::CORRUPT, 0),
        }
    }
    // Where the ring was empty, all had been seen before they were given back.
    last.unwrap_or_else(|| arena.load(Word::Seen))
}

/// Sends the records after `last` in one of four ways; tells how many.
fn push_something(
    arena: &Arena,
    producer: &mut Producer<MappedMemory>,
    last: u64,
    random: &mut Random,
) -> Result<u64, PushError> {
    let mut bytes = [0; 600];
    let number = last + 1;
    let tag = number as u16;
    match random.below(4) {
        0 => {
            let len = arena.fill(number, 0, &mut bytes);
            producer.try_push(tag, &bytes[..len])?;
        }
        1 => {
            let len = arena.fill(number, 0, &mut bytes);
            let (first, rest) = bytes[..len].split_at(random.below(len as u64 + 1) as usize);
            producer.try_push_vectored(tag, &[IoSlice::new(first), IoSlice::new(rest)])?;
        }
        2 => {
            let len = arena.fill(number, 0, &mut bytes);
            let mut reservation = producer.try_reserve(tag, len)?;
            let (first, rest) = bytes[..len].split_at(random.below(len as u64 + 1) as usize);
            reservation.write(first);
            if random.below(8) == 0 {
                drop(reservation);
                return Ok(0);
            }
            reservation.write(rest);
            reservation.commit();
        }
        _ => {
            let count = 1 + random.below(MAX_BATCH);
            // All or none: what does not fit now is tried as a whole later.
            let mut batch = producer.batch();
            for index in 0..count {
                let number = number + index;
                let len = arena.fill(number, count - 1 - index, &mut bytes);
                match batch.push(number as u16, &bytes[..len]) {
                    Ok(()) => {}
                    // A batch that no empty ring would take is tried as single records.
                    Err(PushError::Full { .. }) if index > 0 => return Ok(0),
                    Err(error) => return Err(error),
                }
            }
            return Ok(batch.commit() as u64);
        }
    }
    Ok(1)
}

/// Receives and checks for ever: the successor of a consumer that was killed anywhere.
fn consume(arena: &Arena, seed: u64) -> ! {
    let mut random = Random::new(seed);
    let mut consumer = arena.consumer();
    let mut waiter = Waiter::new(WaitStrategy::Park, false);
    let mut checker = Checker::new(arena);
    loop {
        match consumer.peek() {
            Ok(Some(record)) => {
                checker.check(&consumer, &record);
                consumer.advance(&record);
                if checker.held >= MAX_HELD || random.below(3) == 0 {
                    checker.held = 0;
                    consumer.release();
                    wake_if_waiting(&arena.memory, ring::CONTROL[0] + ring::PRODUCER_WAITING);
                }
            }
            Ok(None) => {
                checker.held = 0;
                consumer.release();
                wake_if_waiting(&arena.memory, ring::CONTROL[0] + ring::PRODUCER_WAITING);
                let until = Deadline::at_ns(arena.memory.now_ns() + 2_000_000);
                let waiting = ring::CONTROL[0] + ring::CONSUMER_WAITING;
                let news = || (!matches!(consumer.peek(), Ok(None))).then_some(());
                waiter.wait(&arena.memory, waiting, until, news, |_| ());
            }
            Err(_) => arena.violation(violation::CORRUPT, checker.last.unwrap_or(0)),
        }
    }
}

/// What one consumer has seen.
struct Checker<'a> {
    arena: &'a Arena,
    /// The last record it has read itself.
    last: Option<u64>,
    /// How many of the batch that it is in must follow.
    following: u64,
    held: u64,
}

impl<'a> Checker<'a> {
    fn new(arena: &'a Arena) -> Self {
        Self { arena, last: None, following: 0, held: 0 }
    }

    fn check(&mut self, consumer: &Consumer<MappedMemory>, record: &Record) {
        let arena = self.arena;
        let (mut found, mut expected) = ([0; 600], [0; 600]);
        let len = record.len_bytes();
        if !(PREFIX_BYTES..=found.len()).contains(&len) {
            arena.violation(violation::TORN, len as u64);
        }
        consumer.copy_out(record, &mut found[..len]);
        let word = |at: usize| {
            let bytes = found[at..].first_chunk().copied();
            u64::from_ne_bytes(bytes.unwrap_or_default())
        };
        let (number, following) = (word(0), word(8));
        let len_expected = arena.fill(number, following, &mut expected);
        if found[..len] != expected[..len_expected] || record.tag() != number as u16 {
            arena.violation(violation::TORN, number);
        }
        let seen = arena.load(Word::Seen);
        match self.last {
            Some(last) if number != last + 1 => arena.violation(violation::LOST, number),
            None if number > seen + 1 => arena.violation(violation::LOST, number),
            None if number + MAX_HELD <= seen => arena.violation(violation::OLD, number),
            _ => {}
        }
        if self.following > 0 && following != self.following - 1 {
            arena.violation(violation::BATCH, number);
        }
        if number <= seen {
            arena.store(Word::Again, arena.load(Word::Again) + 1);
        } else {
            arena.store(Word::Seen, number);
        }
        self.last = Some(number);
        self.following = following;
        self.held += 1;
    }
}

/// A forked process holds on to every descriptor of the others, so the tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn killed_at_random_nothing_is_lost_or_torn() {
    let _turn = turn();
    let kills = random::number("RINGWAY_KILLS").unwrap_or(2_000_u64);
    let mut random = Random::new(random::seed());
    let (mut killed, mut records, mut again) = (0, 0, 0);
    while killed < kills {
        let capacity_bytes = 256 << (2 * random.below(5));
        let arena = Arena::new(capacity_bytes);
        let start = |produces: bool, seed| {
            Victim::start(|| if produces { produce(&arena, seed) } else { consume(&arena, seed) })
        };
        let mut producer = start(true, random.next());
        let mut consumer = start(false, random.next());
        for _ in 0..(kills - killed).min(500) {
            // Not to wait for anything, but to kill at another instant each time.
            thread::sleep(Duration::from_nanos(random.below(400_000)));
            arena.check();
            let whom = random.below(5);
            if whom <= 2 {
                drop(producer);
                producer = start(true, random.next());
            }
            if whom >= 2 {
                drop(consumer);
                consumer = start(false, random.next());
            }
            killed += 1 + u64::from(whom == 2);
        }
        // A last consumer reads everything, in a process that is not killed.
        drop((producer, consumer));
        arena.check();
        drain(&arena);
        assert!(arena.load(Word::Seen) >= arena.load(Word::Committed), "records have been lost");
        assert!(arena.load(Word::Seen) > 0, "nothing has happened");
        records += arena.load(Word::Seen);
        again += arena.load(Word::Again);
    }
    println!("{killed} kills, {records} records in order, {again} of them delivered again");
}

/// Reads what is left.
fn drain(arena: &Arena) {
    let mut consumer = arena.consumer();
    let mut checker = Checker::new(arena);
    let mut end = Victim::start(|| {
        while let Ok(Some(record)) = consumer.peek() {
            checker.check(&consumer, &record);
            consumer.advance(&record);
        }
    });
    let status = end.wait();
    arena.check();
    assert_eq!(status, 0);
}

#[test]
fn numbered_messages_arrive_in_sequence() {
    let _turn = turn();
    let messages = random::number("RINGWAY_MESSAGES").unwrap_or(1_000_000_u64);
    let seed = random::seed();
    let arena = Arena::new(1 << 16);
    let length = |number: u64| 8 + (mix(number ^ seed) % 57) as usize;
    let _producer = Victim::start(|| {
        let Ok(mut producer) = Producer::attach(arena.memory.clone(), arena.geometry) else {
            arena.violation(violation::CORRUPT, 0)
        };
        for number in 0..messages {
            let payload = [number; 8];
            let bytes: &[u8] = bytemuck::cast_slice(&payload);
            while producer.try_push(number as u16, &bytes[..length(number)]).is_err() {
                arena.memory.pause();
            }
        }
        loop {
            // SAFETY: the call takes nothing.
            unsafe { libc::pause() };
        }
    });
    let mut consumer = arena.consumer();
    let mut bytes = [0; 64];
    for number in 0..messages {
        let record = loop {
            match consumer.peek().unwrap() {
                Some(record) => break record,
                None => {
                    consumer.release();
                    arena.check();
                }
            }
        };
        let len = length(number);
        assert_eq!((record.len_bytes(), record.tag()), (len, number as u16));
        consumer.copy_out(&record, &mut bytes);
        let expected = [number; 8];
        assert_eq!(bytes[..len], bytemuck::cast_slice::<_, u8>(&expected)[..len]);
        consumer.advance(&record);
        if number % 16 == 0 {
            consumer.release();
        }
    }
    arena.check();
    println!("{messages} messages in sequence");
}
