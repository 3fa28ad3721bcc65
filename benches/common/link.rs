//! What a message is, and the two drivers that send them: round trip and one way.
//!
//! [`case`](super::case) runs a driver over each transport, one end in the parent, the other in the
//! child or in a second thread.
//! What always holds: messages are numbered from zero without a gap, and both drivers stop the bench
//! on any other number; every 64th message carries its number in its last 8 bytes as well.
#![allow(clippy::disallowed_types)] // see shared.rs

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::shared::Shared;
use super::stats::{Latencies, median};

/// The number of a message that asks for an acknowledgement.
pub const MARK: u64 = u64::MAX - 1;
/// The number of the last message.
pub const STOP: u64 = u64::MAX;
/// How many messages go out before somebody looks at the clock, in bytes.
const BYTES_PER_LOOK: usize = 256 << 10;

/// Size of the messages and capacity of what carries them, both in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    pub size: usize,
    pub capacity: usize,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// There and back, one message under way.
    RoundTrip,
    /// As many as go one way.
    OneWay,
}

/// What a measurement found.
#[derive(Debug)]
pub enum Outcome {
    /// Nanoseconds of a round trip: median of blocks, and each one timed.
    RoundTrip { ns: f64, each: Latencies },
    /// Messages in a second.
    OneWay { per_second: f64 },
}

/// One end of something that carries numbered messages both ways.
pub trait End {
    /// Sends message `number`; a batching end may keep it until [`flush`](Self::flush).
    fn send(&mut self, number: u64);
    /// Makes everything sent visible.
    fn flush(&mut self) {}
    /// Receives a message, reads as much of it as the row says, and returns its number.
    fn recv(&mut self) -> u64;
}

/// Carries bytes; [`Copied`] makes an [`End`] of it.
pub trait Bytes {
    /// Copies a whole message in.
    fn write(&mut self, message: &[u8]);
    /// Copies a whole message out.
    fn read(&mut self, buffer: &mut [u8]);
}

/// An end that copies every message from and to private buffers.
#[derive(Debug)]
pub struct Copied<B> {
    bytes: B,
    out: Vec<u8>,
    inbox: Vec<u8>,
}

impl<B: Bytes> Copied<B> {
    /// With buffers for messages of this size.
    pub fn new(bytes: B, spec: &Spec) -> Self {
        Self { bytes, out: vec![0xa5; spec.size], inbox: vec![0x5a; spec.size] }
    }
}

impl<B: Bytes> End for Copied<B> {
    #[inline]
    fn send(&mut self, number: u64) {
        stamp(&mut self.out, number);
        self.bytes.write(&self.out);
    }

    #[inline]
    fn recv(&mut self) -> u64 {
        self.bytes.read(&mut self.inbox);
        number_of(&self.inbox)
    }
}

/// Numbers a message.
#[inline(always)]
pub fn stamp(message: &mut [u8], number: u64) {
    message[..8].copy_from_slice(&number.to_ne_bytes());
    if number.is_multiple_of(64) {
        let tail = message.len() - 8;
        message[tail..].copy_from_slice(&number.to_ne_bytes());
    }
}

/// The number of a message, its last 8 bytes checked where they carry it.
#[inline(always)]
pub fn number_of(message: &[u8]) -> u64 {
    let number = word_of(&message[..8]);
    if number.is_multiple_of(64) {
        assert_eq!(word_of(&message[message.len() - 8..]), number, "the end of a message is wrong");
    }
    number
}

fn word_of(bytes: &[u8]) -> u64 {
    u64::from_ne_bytes(bytes.try_into().expect("eight bytes"))
}

/// Three words beside what is measured: the far side is ready; how many marks it has seen; it may stop.
#[derive(Debug, Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

impl Control {
    /// Bytes that it needs.
    pub const BYTES: usize = 4096;

    /// Over this memory.
    pub fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// The memory.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Says that the far side is ready.
    pub fn set_ready(&self) {
        self.shared.word(0).store(1, Ordering::Release);
    }

    /// Whether the far side is ready.
    pub fn is_ready(&self) -> bool {
        self.shared.word(0).load(Ordering::Acquire) == 1
    }

    /// Tells the far side to stop, where no message does.
    pub fn set_over(&self) {
        self.shared.word(256).store(1, Ordering::Release);
    }

    /// Whether the far side may stop.
    pub fn is_over(&self) -> bool {
        self.shared.word(256).load(Ordering::Acquire) == 1
    }

    /// Says how many marks the far side has seen.
    pub fn acknowledge(&self, count: u64) {
        self.shared.word(128).store(count, Ordering::Release);
    }

    fn wait_for(&self, count: u64) {
        let mut polls = 0_u32;
        while self.shared.word(128).load(Ordering::Acquire) < count {
            polls += 1;
            if polls.is_multiple_of(4096) {
                std::thread::yield_now();
            }
        }
    }
}

/// The near side of a measurement that takes about `time`.
pub fn drive<E: End>(end: &mut E, job: Job, spec: &Spec, time: Duration, at: &Control) -> Outcome {
    match job {
        Job::RoundTrip => round_trips(end, time),
        Job::OneWay => one_way(end, spec, time, at),
    }
}

/// The far side: returns after [`STOP`].
pub fn serve<E: End>(end: &mut E, job: Job, at: &Control) {
    match job {
        Job::RoundTrip => echo(end),
        Job::OneWay => drain(end, at),
    }
}

fn round_trips<E: End>(end: &mut E, time: Duration) -> Outcome {
    let mut next = 0;
    let mut exchange = |end: &mut E| {
        end.send(next);
        end.flush();
        assert_eq!(end.recv(), next, "the answer to another message");
        next += 1;
    };
    let warm_up = Instant::now();
    let mut warmed = 0_u32;
    while warmed < 8 || warm_up.elapsed() < time / 5 {
        exchange(end);
        warmed += 1;
    }
    let each_ns = warm_up.elapsed().as_nanos() as f64 / f64::from(warmed);

    // Untimed inside a block of about 50 us: the clock costs as much as a line transfer.
    let block = (50_000.0 / each_ns).clamp(1.0, 1000.0) as u32;
    let mut blocks = Vec::new();
    let started = Instant::now();
    while blocks.is_empty() || started.elapsed() < time / 2 {
        let start = Instant::now();
        for _ in 0..block {
            exchange(end);
        }
        blocks.push(start.elapsed().as_nanos() as f64 / f64::from(block));
    }

    let mut each = Latencies::new();
    let started = Instant::now();
    let mut last = started;
    while last - started < time / 2 {
        exchange(end);
        let now = Instant::now();
        each.record(now - last);
        last = now;
    }
    end.send(STOP);
    end.flush();
    assert_eq!(end.recv(), STOP, "the answer to another message");
    Outcome::RoundTrip { ns: median(&mut blocks), each }
}

fn echo<E: End>(end: &mut E) {
    let mut expected = 0;
    loop {
        let number = end.recv();
        end.send(number);
        end.flush();
        if number == STOP {
            return;
        }
        assert_eq!(number, expected, "a message is missing or came twice");
        expected += 1;
    }
}

fn one_way<E: End>(end: &mut E, spec: &Spec, time: Duration, at: &Control) -> Outcome {
    let look = (BYTES_PER_LOOK / spec.size).clamp(1, 4096) as u64;
    let mut next = 0;
    let mut run = |end: &mut E, time: Duration| {
        let (first, started) = (next, Instant::now());
        while started.elapsed() < time {
            for number in next..next + look {
                end.send(number);
            }
            next += look;
        }
        next - first
    };
    // Twice round everything that has that capacity, so that all of it has been touched; something
    // slow is not given that long.
    let (mut warmed, laps) = (0, 2 * spec.capacity.div_ceil(spec.size) as u64);
    let warm_up = Instant::now();
    while warmed < laps && warm_up.elapsed() < 2 * time {
        warmed += run(end, time / 5);
    }
    end.send(MARK);
    end.flush();
    at.wait_for(1);
    let started = Instant::now();
    let sent = run(end, time);
    end.send(STOP);
    end.flush();
    at.wait_for(2);
    Outcome::OneWay { per_second: sent as f64 / started.elapsed().as_secs_f64() }
}

fn drain<E: End>(end: &mut E, at: &Control) {
    let mut expected = 0;
    loop {
        let number = end.recv();
        if number == expected {
            expected += 1;
        } else if number == MARK {
            at.acknowledge(1);
        } else {
            assert_eq!(number, STOP, "a message is missing or came twice; expected {expected}");
            at.acknowledge(2);
            return;
        }
    }
}
