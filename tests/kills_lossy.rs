//! Real processes on a lossy ring at full speed, killed with SIGKILL at random instants.
//!
//! A producer process sends numbered messages, a consumer process checks what it gets of them and
//! counts for itself; this one kills either or both, and starts successors on the same ring. What
//! must hold: every message that is received is whole; received and lost ones add up to the next
//! number at every successor, by the ring's counts and by the consumers' own; no number is used
//! twice; when everything has been read, both sides say the same.
//!
//! `RINGWAY_KILLS` says how many kills there are, `RINGWAY_SEED` replays the choices.
#![cfg(not(loom))]
#![allow(unsafe_code, missing_docs)]

mod common;

use std::thread;
use std::time::Duration;

use common::random::{self, Random, mix};
use common::victim::Victim;
use ringway::layout::{CHANNEL_DATA, ring};
use ringway::memory::{FenceMode, MappedMemory, Memory, Ordering};
use ringway::ring::RingGeometry;
use ringway::ring::lossy::{LossyConsumer, LossyGeometry, LossyProducer, PullError};
use ringway::segment::{AnonymousSegment, ChannelGeometry};

/// The longest message; rings that take less have shorter ones.
const LONGEST: usize = 600;

/// Words beside the ring, in a segment of their own.
#[derive(Clone, Copy)]
enum Word {
    /// How many messages are known to be committed. Producer.
    Committed,
    /// What is wrong; 0 = nothing. Whoever finds it.
    Violation,
    /// The message about which something is wrong.
    Number,
    /// Which of the two tallies is the newer one. Consumer.
    Tally,
    /// Messages that a successor got again, or counted as lost then. Consumer.
    Again,
    /// The tallies: three words each.
    Tallies = 8,
}

mod violation {
    pub const TORN: u64 = 1;
    pub const CORRUPT: u64 = 2;
    pub const FORGOTTEN: u64 = 3;
    pub const COUNTS: u64 = 4;
    pub const SEQUENCE: u64 = 5;
    pub const DISAGREE: u64 = 6;
}

/// What consumers have counted themselves, message by message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tally {
    next: u64,
    received: u64,
    lost: u64,
}

/// A ring and the words beside it. Every process has the same mappings, by inheritance.
struct Arena {
    memory: MappedMemory,
    geometry: LossyGeometry,
    beside: MappedMemory,
    _segments: [AnonymousSegment; 2],
}

impl Arena {
    fn new(capacity_bytes: u64) -> Self {
        let segment = |capacity_bytes| {
            let rings = ChannelGeometry::records([capacity_bytes, 64], 8, FenceMode::Real);
            AnonymousSegment::create(&rings).unwrap()
        };
        let (segment, beside) = (segment(capacity_bytes), segment(4096));
        let (memory, words) = (segment.memory().clone(), beside.memory().clone());
        let data = segment.geometry().layout().unwrap().data[0];
        let ring = RingGeometry::new(&memory, ring::CONTROL[0], data, capacity_bytes, 8).unwrap();
        let geometry = LossyGeometry::new(ring).unwrap();
        Self { memory, geometry, beside: words, _segments: [segment, beside] }
    }

    fn load_at(&self, index: u64) -> u64 {
        self.beside.load_u64(CHANNEL_DATA + 8 * index, Ordering::Acquire)
    }

    fn store_at(&self, index: u64, value: u64) {
        self.beside.store_u64(CHANNEL_DATA + 8 * index, value, Ordering::Release);
    }

    fn load(&self, word: Word) -> u64 {
        self.load_at(word as u64)
    }

    fn store(&self, word: Word, value: u64) {
        self.store_at(word as u64, value);
    }

    fn tally(&self, which: u64) -> Tally {
        let at = Word::Tallies as u64 + 3 * which;
        Tally { next: self.load_at(at), received: self.load_at(at + 1), lost: self.load_at(at + 2) }
    }

    fn store_tally(&self, which: u64, tally: Tally) {
        let at = Word::Tallies as u64 + 3 * which;
        self.store_at(at, tally.next);
        self.store_at(at + 1, tally.received);
        self.store_at(at + 2, tally.lost);
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
        assert_eq!(violation, 0, "violation {violation} at message {number}");
    }

    /// The successor of a producer that was killed anywhere.
    fn producer(&self) -> LossyProducer<MappedMemory> {
        let producer = LossyProducer::attach(self.memory.clone(), self.geometry)
            .unwrap_or_else(|_| self.violation(violation::CORRUPT, 0));
        // The last one may have been committed and not been noted.
        let (sent, committed) = (producer.stats().sent, self.load(Word::Committed));
        if sent != committed && sent != committed + 1 {
            self.violation(violation::FORGOTTEN, sent);
        }
        producer
    }

    fn fill(&self, number: u64, bytes: &mut [u8; LONGEST]) -> usize {
        let longest = LONGEST.min(self.geometry.max_payload_bytes() as usize);
        let len = (mix(number) % (longest as u64 + 1)) as usize;
        for (index, chunk) in bytes[..len].chunks_mut(8).enumerate() {
            let pattern = mix(number ^ (index as u64) << 40).to_ne_bytes();
            chunk.copy_from_slice(&pattern[..chunk.len()]);
        }
        len
    }
}

/// Sends for ever, at full speed or in bursts.
fn produce(arena: &Arena, seed: u64) {
    let mut random = Random::new(seed);
    let mut producer = arena.producer();
    let mut bytes = [0; LONGEST];
    let pause = random.below(3) * random.below(400);
    for number in producer.stats().sent.. {
        let len = arena.fill(number, &mut bytes);
        if producer.try_push(number as u16, &bytes[..len]).is_err() {
            arena.violation(violation::CORRUPT, number);
        }
        arena.store(Word::Committed, number + 1);
        if pause > 0 && random.below(8) == 0 {
            (0..pause).for_each(|_| arena.memory.pause());
        }
    }
}

/// A consumer, and the counts that it keeps beside those of the ring.
struct Checker<'a> {
    arena: &'a Arena,
    consumer: LossyConsumer<MappedMemory>,
    which: u64,
    tally: Tally,
    buffer: Vec<u8>,
}

impl<'a> Checker<'a> {
    /// The successor of a consumer that was killed anywhere. The last message that it has handed out
    /// is settled, or comes again, or is lost.
    fn new(arena: &'a Arena, buffer: Vec<u8>) -> Self {
        let consumer = LossyConsumer::attach(arena.memory.clone(), arena.geometry)
            .unwrap_or_else(|_| arena.violation(violation::CORRUPT, 0));
        let stats = consumer.stats();
        let (received, lost) = (stats.received, stats.lost);
        let found = Tally { next: received.wrapping_add(lost), received, lost };
        let mut which = arena.load(Word::Tally);
        if arena.tally(which) != found {
            which = 1 - which;
            if arena.tally(which) != found {
                arena.violation(violation::COUNTS, found.next);
            }
            arena.store(Word::Tally, which);
            arena.store(Word::Again, arena.load(Word::Again) + 1);
        }
        // What was not settled must not be taken for settled by the next one.
        arena.store_tally(1 - which, found);
        Self { arena, consumer, which, tally: found, buffer }
    }

    /// Takes a message, if there is one, and checks it.
    fn take(&mut self) -> Result<bool, PullError> {
        let Some(record) = self.consumer.try_take(&mut self.buffer)? else { return Ok(false) };
        let (arena, number) = (self.arena, record.number());
        if number != self.tally.next + record.lost_before() {
            arena.violation(violation::SEQUENCE, number);
        }
        let mut expected = [0; LONGEST];
        let len = arena.fill(number, &mut expected);
        let whole = record.len_bytes() == len && self.buffer[..len] == expected[..len];
        if !whole || record.tag() != number as u16 {
            arena.violation(violation::TORN, number);
        }
        self.tally = Tally {
            next: number + 1,
            received: self.tally.received + 1,
            lost: self.tally.lost + record.lost_before(),
        };
        let stats = self.consumer.stats();
        if (stats.received, stats.lost) != (self.tally.received, self.tally.lost) {
            arena.violation(violation::COUNTS, number);
        }
        self.which = 1 - self.which;
        arena.store_tally(self.which, self.tally);
        arena.store(Word::Tally, self.which);
        Ok(true)
    }
}

/// Receives for ever, at full speed or slowly.
fn consume(arena: &Arena, seed: u64, buffer: Vec<u8>) {
    let mut random = Random::new(seed);
    let mut checker = Checker::new(arena, buffer);
    let pause = random.below(3) * random.below(400);
    loop {
        match checker.take() {
            Ok(true) => (0..pause).for_each(|_| arena.memory.pause()),
            Ok(false) | Err(PullError::Overrun) => arena.memory.pause(),
            Err(_) => arena.violation(violation::CORRUPT, checker.tally.next),
        }
    }
}

/// Reads what is left while nobody sends, and compares what the two sides say.
fn settle(arena: &Arena, buffer: Vec<u8>) {
    let producer = arena.producer();
    let mut checker = Checker::new(arena, buffer);
    while checker.take().unwrap_or_else(|_| arena.violation(violation::CORRUPT, 0)) {}
    let (sent, taken) = (producer.stats(), checker.tally);
    let agree = sent.sent == taken.next && (sent.taken, sent.lost) == (taken.received, taken.lost);
    if !agree || sent.unread != 0 {
        arena.violation(violation::DISAGREE, taken.next);
    }
}

#[test]
fn killed_at_random_received_and_lost_make_what_was_sent() {
    let kills = random::number("RINGWAY_KILLS").unwrap_or(1_000_u64);
    let mut random = Random::new(random::seed());
    let (mut killed, mut received, mut lost, mut again) = (0, 0, 0, 0);
    while killed < kills {
        let arena = Arena::new(128 << (2 * random.below(6)));
        // Grown before anybody is forked, who must not allocate.
        let buffer = || vec![0; 1024];
        let produce = |seed| Victim::start(|| produce(&arena, seed));
        let consume = |seed| {
            let buffer = buffer();
            Victim::start(|| consume(&arena, seed, buffer))
        };
        let (mut producer, mut consumer) = (produce(random.next()), consume(random.next()));
        for _ in 0..(kills - killed).min(250) {
            // Not to wait for anything, but to kill at another instant each time.
            thread::sleep(Duration::from_nanos(random.below(400_000)));
            arena.check();
            let whom = random.below(5);
            if whom <= 2 {
                producer.kill();
            }
            if whom >= 2 {
                drop(consumer);
                if whom == 2 {
                    // Nobody is there: what both sides say must agree.
                    producer.wait();
                    let buffer = buffer();
                    assert_eq!(Victim::start(|| settle(&arena, buffer)).wait(), 0);
                    arena.check();
                }
                consumer = consume(random.next());
            }
            if whom <= 2 {
                drop(producer);
                producer = produce(random.next());
            }
            killed += 1 + u64::from(whom == 2);
        }
        drop((producer, consumer));
        arena.check();
        let buffer = buffer();
        let status = Victim::start(|| settle(&arena, buffer)).wait();
        arena.check();
        assert_eq!(status, 0);
        let tally = arena.tally(arena.load(Word::Tally));
        assert!(tally.received > 0, "nothing has happened");
        received += tally.received;
        lost += tally.lost;
        again += arena.load(Word::Again);
    }
    println!(
        "{killed} kills, {received} messages received whole and {lost} lost; {again} consumers died with a message \
         that was not settled"
    );
    assert!(lost > 0, "everything was received: nothing was tried");
}
