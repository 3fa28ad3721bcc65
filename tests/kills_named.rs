//! Both sides of a named channel, killed with SIGKILL at random instants and attached again.
//!
//! Two processes send each other numbered messages through one segment and check them; this one kills
//! either or both and starts successors, which take the side by name. What must hold: every committed
//! message arrives, in order and whole; again only where somebody died; and nobody is kept out.
//!
//! `RINGWAY_KILLS` says how many kills there are, `RINGWAY_SEED` replays the choices.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::thread;
use std::time::Duration;

use common::name::Name;
use common::random::{self, Random, mix};
use common::victim::Victim;
use ringway::channel::{self, Channel, ChannelOptions, Side};
use ringway::error::{RecvTimeoutError, SendTimeoutError};
use ringway::layout::CHANNEL_DATA;
use ringway::memory::{FenceMode, MappedMemory, Memory, Ordering};
use ringway::segment::{AnonymousSegment, ChannelGeometry};

/// What the processes tell each other beside the channel; one of each for each side.
#[derive(Clone, Copy)]
enum Word {
    /// The last message that this side has sent for certain.
    Sent,
    /// The last message that it has checked; stored before it is given back.
    Seen,
    /// Messages that came again.
    Again,
    /// Restarts of the other side that it was told of.
    Told,
    /// What is wrong; 0 = nothing.
    Violation,
    Number,
}

mod violation {
    pub const LOST: u64 = 1;
    pub const TORN: u64 = 2;
    pub const OPEN: u64 = 3;
    pub const SEND: u64 = 4;
    pub const RECV: u64 = 5;
    pub const OLD: u64 = 6;
}

struct Beside {
    memory: MappedMemory,
    _segment: AnonymousSegment,
}

impl Beside {
    fn new() -> Self {
        let geometry = ChannelGeometry::records([4096, 64], 8, FenceMode::Real);
        let segment = AnonymousSegment::create(&geometry).unwrap();
        Self { memory: segment.memory().clone(), _segment: segment }
    }

    fn offset(word: Word, side: usize) -> u64 {
        CHANNEL_DATA + 8 * (2 * word as u64 + side as u64)
    }

    fn load(&self, word: Word, side: usize) -> u64 {
        self.memory.load_u64(Self::offset(word, side), Ordering::Acquire)
    }

    fn store(&self, word: Word, side: usize, value: u64) {
        self.memory.store_u64(Self::offset(word, side), value, Ordering::Release);
    }

    fn count(&self, word: Word, side: usize) {
        self.store(word, side, self.load(word, side) + 1);
    }

    /// Reports and ends this process, which is a forked one.
    fn violation(&self, side: usize, what: u64, number: u64) -> ! {
        self.store(Word::Number, side, number);
        self.store(Word::Violation, side, what);
        // SAFETY: the call takes a number and does not return.
        unsafe { libc::_exit(1) }
    }

    fn check(&self) {
        for side in 0..2 {
            let (found, number) = (self.load(Word::Violation, side), self.load(Word::Number, side));
            assert_eq!(found, 0, "violation {found} of side {side} at {number}");
        }
    }
}

/// A message's length and content follow from its number and direction.
fn fill(number: u64, side: usize, bytes: &mut [u8; 300]) -> usize {
    let len = 8 + (mix(number ^ (side as u64) << 40) % 290) as usize;
    bytes[..8].copy_from_slice(&number.to_ne_bytes());
    for (index, byte) in bytes[8..len].iter_mut().enumerate() {
        *byte = mix(number ^ (index as u64) << 32) as u8;
    }
    len
}

fn options(side: usize) -> ChannelOptions {
    let side = Some([Side::First, Side::Second][side]);
    ChannelOptions { capacity_bytes: 2048, side, ..ChannelOptions::default() }
}

/// Sends and receives for ever: the successor of whoever had this side.
fn talk(name: &Name, beside: &Beside, side: usize, seed: u64) -> ! {
    let mut random = Random::new(seed);
    let opened = Channel::open_timeout(name, &options(side), Duration::from_secs(30));
    let Ok(mut channel) = opened else { beside.violation(side, violation::OPEN, 0) };
    let mut bytes = [0; 300];
    // The first message that this process receives may be one that its predecessor had.
    let mut last = None;
    loop {
        for _ in 0..random.below(4) {
            // Sent again where the predecessor died before it could note it.
            let number = beside.load(Word::Sent, side) + 1;
            let len = fill(number, side, &mut bytes);
            match channel.send_timeout(&bytes[..len], Duration::from_micros(random.below(200))) {
                Ok(()) => beside.store(Word::Sent, side, number),
                Err(SendTimeoutError::Restarted { .. }) => beside.count(Word::Told, side),
                Err(SendTimeoutError::Timeout | SendTimeoutError::Disconnected) => break,
                Err(_) => beside.violation(side, violation::SEND, number),
            }
        }
        for _ in 0..random.below(4) {
            match channel.recv_timeout(Duration::from_micros(random.below(200))) {
                Ok(message) => check(&message, beside, side, &mut last),
                Err(RecvTimeoutError::Restarted { .. }) => beside.count(Word::Told, side),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                Err(_) => beside.violation(side, violation::RECV, 0),
            }
        }
    }
}

fn check(message: &[u8], beside: &Beside, side: usize, last: &mut Option<u64>) {
    let mut expected = [0; 300];
    let Some(number) = message.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes)) else {
        beside.violation(side, violation::TORN, 0)
    };
    let len = fill(number, 1 - side, &mut expected);
    if message != &expected[..len] {
        beside.violation(side, violation::TORN, number);
    }
    let seen = beside.load(Word::Seen, side);
    if number > seen + 1 || last.is_some_and(|last| number > last + 1) {
        beside.violation(side, violation::LOST, number);
    }
    // One that its predecessor had not given back, or one that was sent twice.
    if number + 1 < seen {
        beside.violation(side, violation::OLD, number);
    }
    if number <= seen {
        beside.count(Word::Again, side);
    } else {
        beside.store(Word::Seen, side, number);
    }
    *last = Some(number);
}

#[test]
fn killed_and_attached_again_nothing_is_lost_or_torn() {
    let kills = random::number("RINGWAY_KILLS").unwrap_or(500_u64);
    let mut random = Random::new(random::seed());
    let (mut killed, mut messages, mut again, mut told) = (0, 0, 0, 0);
    while killed < kills {
        let (name, beside) = (Name::new("kills"), Beside::new());
        drop(Channel::create(&name, &options(0)).unwrap());
        let start = |side, seed| Victim::start(|| talk(&name, &beside, side, seed));
        let mut sides = [0, 1].map(|side| Some(start(side, random.next())));
        for _ in 0..(kills - killed).min(200) {
            // Not to wait for anything, but to kill at another instant each time.
            thread::sleep(Duration::from_nanos(random.below(3_000_000)));
            beside.check();
            let whom = random.below(5);
            let of = [whom <= 2, whom >= 2];
            // Both before either is started again.
            for side in (0..2).filter(|side| of[*side]) {
                sides[side] = None;
                killed += 1;
            }
            for side in (0..2).filter(|side| of[*side]) {
                sides[side] = Some(start(side, random.next()));
            }
        }
        sides = [None, None];
        drop(sides);
        beside.check();
        for side in 0..2 {
            drain(&name, &beside, side);
            assert!(beside.load(Word::Seen, side) >= beside.load(Word::Sent, 1 - side), "lost");
            assert!(beside.load(Word::Seen, side) > 0, "nothing has happened");
            messages += beside.load(Word::Seen, side);
            again += beside.load(Word::Again, side);
            told += beside.load(Word::Told, side);
        }
        beside.check();
        channel::remove(&name).unwrap();
    }
    println!("{killed} kills, {messages} messages in order, {again} again, {told} restarts told");
    assert!(told > 0);
}

/// Reads what is left for a side, whose processes are dead.
fn drain(name: &Name, beside: &Beside, side: usize) {
    let mut end = Victim::start(|| {
        let mut channel = Channel::open(name, &options(side)).unwrap();
        let mut last = None;
        while let Ok(message) = channel.recv_timeout(Duration::ZERO) {
            check(&message, beside, side, &mut last);
        }
    });
    let status = end.wait();
    beside.check();
    assert_eq!(status, 0);
}
