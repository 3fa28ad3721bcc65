//! A process that writes whatever it likes, wherever it can, into a live channel of a host that uses
//! the safe interface only.
//!
//! It runs under another user id, where the test may switch to one. What must hold: the host neither crashes nor hangs, no message is longer than the channel takes,
//! no call comes back long after its deadline; what the scribbler breaks is its own channel, which
//! says so and is replaced by a fresh one.
//!
//! `RINGWAY_STORES` says how many hostile stores there are (each into a channel that has not been
//! found corrupt), `RINGWAY_SEED` replays their choice.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::time::{Duration, Instant};

use common::random::{self, Random};
use common::victim::{Victim, become_nobody};
use ringway::channel::{Channel, ChannelOptions};
use ringway::error::{RecvTimeoutError, SendError, SendTimeoutError};
use ringway::error::{TryRecvError, TrySendError};
use ringway::layout::{CHANNEL_DATA, record, ring, side};
use ringway::memory::{FenceMode, MappedMemory, Memory, Ordering};
use ringway::ring::{Consumer, Producer, RingGeometry};
use ringway::segment::{AnonymousSegment, ChannelGeometry};

const CAPACITY_BYTES: u64 = 4096;
/// How long the host waits in one call, at most.
const PATIENCE: Duration = Duration::from_micros(50);
/// No call comes back so long after its deadline, however busy the machine is.
const LATE: Duration = Duration::from_secs(10);
/// A channel that is not found corrupt is replaced after so many calls.
const MAX_CALLS: u64 = 3_000;
/// So many channels are tried at most until something is found.
const MAX_CHANNELS: u64 = 200;

/// Words beside the channel, for the two processes.
const STORES: u64 = CHANNEL_DATA;
const STOP: u64 = CHANNEL_DATA + 128;

/// The hostile process's view: the whole segment, writable.
struct Scribbler<'a> {
    segment: &'a AnonymousSegment,
    beside: &'a MappedMemory,
    random: Random,
    stores: u64,
}

impl Scribbler<'_> {
    fn run(mut self) {
        let way = self.random.below(6);
        let mut rings = (way == 4).then(|| (self.producer(), self.consumer()));
        while self.beside.load_u32(STOP, Ordering::Relaxed) == 0 {
            let offset = match way {
                0 => self.data(),
                1 => self.control(),
                2 => return self.headers(),
                3 => self.harmless(),
                4 => {
                    if let Some((Some(producer), Some(consumer))) = &mut rings {
                        pass_for_a_peer(producer, consumer, &mut self.random);
                    }
                    if self.random.below(64) > 0 {
                        continue;
                    }
                    self.data()
                }
                _ => self.anywhere(),
            };
            self.store(offset);
        }
    }

    /// Stores a word that looks like something, or like nothing.
    fn store(&mut self, offset: u64) {
        let word = match self.random.below(6) {
            0 => 0,
            1 => self.random.below(CAPACITY_BYTES) & !7,
            2 => self.random.below(4),
            3 => u64::MAX - self.random.below(16),
            4 => record::pack(self.random.below(64) as u32, record::DATA, 0),
            _ => self.random.next(),
        };
        if self.random.below(4) == 0 {
            let half = 4 * self.random.below(2);
            self.segment.memory().store_u32(offset + half, word as u32, Ordering::Relaxed);
        } else {
            self.segment.memory().store_u64(offset, word, Ordering::Relaxed);
        }
        self.count();
    }

    /// Counts a store, and lets the host come in between.
    fn count(&mut self) {
        self.stores += 1;
        self.beside.store_u64(STORES, self.stores, Ordering::Relaxed);
        for _ in 0..self.random.below(16) {
            self.beside.pause();
        }
    }

    /// Writes headers of records that could almost be, where records could almost start.
    fn headers(&mut self) {
        while self.beside.load_u32(STOP, Ordering::Relaxed) == 0 {
            let offset = self.data();
            let kind = self.random.below(6) as u8;
            let len = self.random.below(CAPACITY_BYTES) >> self.random.below(12);
            let header = record::pack(len as u32, kind, self.random.next() as u16);
            self.segment.memory().store_u64(offset, header, Ordering::Release);
            self.count();
        }
    }

    fn data(&mut self) -> u64 {
        let len_bytes = self.segment.memory().len_bytes() - CHANNEL_DATA;
        CHANNEL_DATA + (self.random.below(len_bytes) & !7)
    }

    fn control(&mut self) -> u64 {
        ring::CONTROL[self.random.below(2) as usize] + (self.random.below(512) & !7)
    }

    fn anywhere(&mut self) -> u64 {
        self.random.below(self.segment.memory().len_bytes()) & !7
    }

    /// Words whose change costs the host time at most: waiting words, wishes, hints, counters.
    fn harmless(&mut self) -> u64 {
        let control = ring::CONTROL[self.random.below(2) as usize];
        let words = [
            ring::SPACE_WANTED,
            ring::TAIL,
            ring::CONSUMER_MESSAGES,
            ring::CONSUMER_BYTES,
            ring::PRODUCER_MESSAGES,
            ring::PRODUCER_HIGH_WATER,
        ];
        match self.random.below(8) {
            0 => {
                // The waiting words share theirs with the closed words, which are not harmless.
                let waiting = [ring::CONSUMER_WAITING, ring::PRODUCER_WAITING];
                let word = control + waiting[self.random.below(2) as usize];
                let value = self.random.below(3) as u32;
                self.segment.memory().store_u32(word, value, Ordering::Relaxed);
                self.count();
                control + ring::TAIL
            }
            1 => side::LINE[1] + side::PID,
            _ => control + words[self.random.below(words.len() as u64) as usize],
        }
    }

    fn geometry(&self, index: usize) -> Option<RingGeometry> {
        let data = self.segment.geometry().layout().ok()?.data[index];
        let memory = self.segment.memory();
        RingGeometry::new(memory, ring::CONTROL[index], data, CAPACITY_BYTES, 8).ok()
    }

    fn producer(&self) -> Option<Producer<MappedMemory>> {
        Producer::attach(self.segment.memory().clone(), self.geometry(1)?).ok()
    }

    fn consumer(&self) -> Option<Consumer<MappedMemory>> {
        Consumer::attach(self.segment.memory().clone(), self.geometry(0)?).ok()
    }
}

/// Behaves for a moment.
fn pass_for_a_peer(
    producer: &mut Producer<MappedMemory>,
    consumer: &mut Consumer<MappedMemory>,
    random: &mut Random,
) {
    let payload = [0x55; 256];
    let _ = producer.try_push(random.next() as u16, &payload[..random.below(256) as usize]);
    if let Ok(Some(record)) = consumer.peek() {
        consumer.advance(&record);
        consumer.release();
    }
}

/// How a channel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing was found.
    None,
    /// The scribbler has written that it has closed.
    Closed,
    /// The channel says that it is corrupt.
    Corrupt,
}

/// One call of the safe interface, chosen at random.
fn call(channel: &mut Channel, random: &mut Random, buffer: &mut [u8; 4096]) -> End {
    let len = (random.below(200) * random.below(12)) as usize;
    let max = channel.sender().max_message_bytes();
    let payload = &buffer[..len];
    match random.below(8) {
        0 => sent(channel.try_send(payload).err()),
        1 => match channel.send_timeout(payload, PATIENCE) {
            Ok(()) | Err(SendTimeoutError::Timeout | SendTimeoutError::TooLong { .. }) => End::None,
            Err(SendTimeoutError::Disconnected) => End::Closed,
            Err(SendTimeoutError::Corrupt(_)) => End::Corrupt,
            Err(error) => panic!("{error}"),
        },
        2 => match channel.sender().try_reserve(len) {
            Ok(mut reservation) => {
                reservation.write(payload);
                reservation.commit();
                End::None
            }
            Err(error) => sent(Some(error)),
        },
        3 => match channel.sender().batch() {
            Ok(mut batch) => {
                let error = (0..3).find_map(|_| batch.push(payload).err());
                batch.commit();
                sent(error)
            }
            Err(SendError::Disconnected) => End::Closed,
            Err(SendError::Corrupt(_)) => End::Corrupt,
            Err(error) => panic!("{error}"),
        },
        4 | 5 => received(channel.try_recv().map(|message| assert!(message.len() <= max)).err()),
        6 => received(channel.receiver().skip().err()),
        _ => match channel.recv_timeout(PATIENCE) {
            Ok(message) => {
                assert!(message.len() <= max);
                End::None
            }
            Err(RecvTimeoutError::Timeout) => End::None,
            Err(RecvTimeoutError::Disconnected) => End::Closed,
            Err(RecvTimeoutError::Corrupt(_)) => End::Corrupt,
            Err(error) => panic!("{error}"),
        },
    }
}

fn sent(error: Option<TrySendError>) -> End {
    match error {
        None
        | Some(
            TrySendError::Full | TrySendError::TooLong { .. } | TrySendError::WouldFragment { .. },
        ) => End::None,
        Some(TrySendError::Disconnected) => End::Closed,
        Some(TrySendError::Corrupt(_)) => End::Corrupt,
        Some(error) => panic!("{error}"),
    }
}

fn received(error: Option<TryRecvError>) -> End {
    match error {
        None | Some(TryRecvError::Empty) => End::None,
        Some(TryRecvError::Disconnected) => End::Closed,
        Some(TryRecvError::Corrupt(_)) => End::Corrupt,
        Some(error) => panic!("{error}"),
    }
}

/// Uses one channel until it has ended or had its turn, while it is being scribbled on.
fn one_channel(random: &mut Random, beside: &MappedMemory) -> (u64, u64, End) {
    let options = ChannelOptions { capacity_bytes: CAPACITY_BYTES, ..ChannelOptions::default() };
    let mut channel = Channel::anonymous(&options).unwrap();
    // The hostile process maps it like any plugin, and keeps the mapping.
    let segment = AnonymousSegment::attach(channel.descriptor().unwrap()).unwrap();
    beside.store_u64(STORES, 0, Ordering::Relaxed);
    beside.store_u32(STOP, 0, Ordering::Relaxed);
    let own = Random::new(random.next());
    let scribbler = Victim::start(|| {
        // Where that is not possible, it scribbles as the host's own user.
        become_nobody();
        Scribbler { segment: &segment, beside, random: own, stores: 0 }.run();
    });
    channel.seal_writes().unwrap();
    let mut buffer = [0xaa; 4096];
    let mut end = End::None;
    let mut calls = 0;
    while calls < MAX_CALLS {
        calls += 1;
        let begun = Instant::now();
        end = call(&mut channel, random, &mut buffer);
        let took = begun.elapsed();
        assert!(took < PATIENCE + LATE, "a call came back after {took:?}");
        if end != End::None {
            break;
        }
    }
    beside.store_u32(STOP, 1, Ordering::Relaxed);
    let stores = beside.load_u64(STORES, Ordering::Relaxed);
    if end == End::Corrupt {
        // Poison latches.
        assert!(
            matches!(channel.sender().try_send(b"x"), Err(TrySendError::Corrupt(_))) || {
                matches!(channel.receiver().try_recv(), Err(TryRecvError::Corrupt(_)))
            }
        );
    }
    drop(scribbler);
    (stores, calls, end)
}

#[test]
fn a_scribbling_peer_breaks_nothing_but_its_own_channel() {
    let target = random::number("RINGWAY_STORES").unwrap_or(1_000_000_u64);
    let mut random = Random::new(random::seed());
    let beside =
        AnonymousSegment::create(&ChannelGeometry::records([4096, 64], 8, FenceMode::Real))
            .unwrap();
    let (mut stores, mut calls) = (0, 0);
    let (mut corrupt, mut closed, mut unscathed) = (0_u64, 0_u64, 0_u64);
    // On a busy machine the first channels may all be scribbled on where it costs time at most.
    while stores < target || (corrupt == 0 && unscathed + closed < MAX_CHANNELS) {
        let (more_stores, more_calls, end) = one_channel(&mut random, beside.memory());
        stores += more_stores;
        calls += more_calls;
        match end {
            End::None => unscathed += 1,
            End::Closed => closed += 1,
            End::Corrupt => corrupt += 1,
        }
    }
    println!(
        "{stores} hostile stores during {calls} calls on {} channels: {corrupt} found corrupt and replaced, {closed} \
         said to be closed and replaced, {unscathed} used to the end",
        corrupt + closed + unscathed
    );
    assert!(corrupt > 0, "nothing was found: the stores are not hostile");
}
