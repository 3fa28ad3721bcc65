//! A process that writes whatever it likes into a live lossy channel, at either side of it.
//!
//! It runs under another user id, where the test may switch to one. What must hold: the honest side
//! neither crashes nor hangs, no message is longer than the channel takes, no call comes back long
//! after its deadline; what is found stays found, and the next channel is a fresh one.
//!
//! `RINGWAY_STORES` says how many hostile stores there are, ten times over; `RINGWAY_SEED` replays
//! their choice.
#![cfg(not(loom))]
#![allow(unsafe_code, missing_docs)]

mod common;

use std::time::{Duration, Instant};

use common::random::{self, Random};
use common::victim::{Victim, become_nobody};
use ringway::channel::{LossyChannel, LossyOptions, LossyReceiver, LossySender};
use ringway::error::{LossyTryRecvError, RecvError, RecvTimeoutError, SendError};
use ringway::layout::{CHANNEL_DATA, record, ring};
use ringway::memory::{FenceMode, MappedMemory, Memory, Ordering};
use ringway::ring::RingGeometry;
use ringway::ring::lossy::{LossyConsumer, LossyGeometry, LossyProducer};
use ringway::segment::{AnonymousSegment, ChannelGeometry};

const CAPACITY_BYTES: u64 = 4096;
const LONGEST: usize = CAPACITY_BYTES as usize / 4 - 16;
/// How long the honest side waits in one call, at most.
const PATIENCE: Duration = Duration::from_micros(50);
/// No call comes back so long after its deadline, however busy the machine is.
const LATE: Duration = Duration::from_secs(10);
/// A channel in which nothing is found is replaced after so many calls.
const MAX_CALLS: u64 = 3_000;

/// So many channels are tried at most until something is found.
const MAX_CHANNELS: u64 = 200;

/// Words beside the channel, for the two processes.
const STORES: u64 = CHANNEL_DATA;
const STOP: u64 = CHANNEL_DATA + 128;

/// The honest end.
enum Honest {
    Sends(LossySender),
    Receives(LossyReceiver),
}

/// How a channel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    None,
    Closed,
    Corrupt,
}

/// The hostile process's view: the whole segment, writable.
struct Scribbler<'a> {
    memory: &'a MappedMemory,
    geometry: LossyGeometry,
    /// Where the ring's words and its bytes lie.
    control: u64,
    data: u64,
    beside: &'a MappedMemory,
    random: Random,
    stores: u64,
}

impl Scribbler<'_> {
    fn run(mut self) {
        let way = self.random.below(6);
        let mut producer = LossyProducer::attach(self.memory.clone(), self.geometry).ok();
        let mut consumer = LossyConsumer::attach(self.memory.clone(), self.geometry).ok();
        let mut buffer = vec![0; 2 * LONGEST];
        while self.beside.load_u32(STOP, Ordering::Relaxed) == 0 {
            let offset = match way {
                0 => self.in_data(),
                1 => self.in_control(),
                // The positions that a consumer believes for a moment.
                2 => {
                    let words = [ring::INTENT, ring::OLDEST, ring::SETTLED, ring::LANDMARKS];
                    self.control + words[self.random.below(4) as usize]
                }
                // Counts and waiting words, which cost time at most.
                3 => {
                    let words =
                        [ring::TAIL, ring::PRODUCER_MESSAGES, ring::LOSSES[0], ring::RETIRED];
                    self.control + words[self.random.below(4) as usize]
                }
                // Behaves, but for a store now and then.
                4 => {
                    let len = self.random.below(LONGEST as u64) as usize;
                    let mut newest = 0;
                    if let Some(producer) = &mut producer {
                        newest = self.data + producer.tail() % CAPACITY_BYTES;
                        let _ = producer.try_push(1, &buffer[..len]);
                    }
                    if let Some(consumer) = &mut consumer {
                        let _ = consumer.try_take(&mut buffer);
                    }
                    match self.random.below(64) {
                        0 => self.in_data(),
                        // A header that was right, in front of the right number.
                        1 if newest != 0 => newest,
                        _ => continue,
                    }
                }
                _ => self.random.below(self.memory.len_bytes()) & !7,
            };
            self.store(offset);
        }
    }

    /// Stores a word that looks like something, or like nothing.
    fn store(&mut self, offset: u64) {
        let near = |random: &mut Random, word: u64| word.wrapping_add(random.below(1024) * 8);
        let word = match self.random.below(7) {
            0 => 0,
            1 => self.random.below(CAPACITY_BYTES) & !7,
            2 => u64::MAX - self.random.below(16),
            3 => record::pack(self.random.below(2 * CAPACITY_BYTES) as u32, record::DATA, 0),
            4 => {
                let kind = self.random.below(6) as u8;
                record::pack(self.random.below(CAPACITY_BYTES) as u32, kind, 0)
            }
            5 => {
                let found = self.memory.load_u64(offset, Ordering::Relaxed);
                near(&mut self.random, found)
            }
            _ => self.random.next(),
        };
        self.memory.store_u64(offset, word, Ordering::Relaxed);
        self.stores += 1;
        self.beside.store_u64(STORES, self.stores, Ordering::Relaxed);
        (0..self.random.below(16)).for_each(|_| self.beside.pause());
    }

    fn in_data(&mut self) -> u64 {
        self.data + (self.random.below(CAPACITY_BYTES) & !7)
    }

    fn in_control(&mut self) -> u64 {
        self.control + (self.random.below(ring::LANDMARKS + 64) & !7)
    }
}

/// One call of the safe interface, chosen at random.
fn call(honest: &mut Honest, random: &mut Random, payload: &[u8; LONGEST]) -> End {
    match honest {
        Honest::Sends(sender) => {
            let len = random.below(LONGEST as u64 + 1) as usize;
            match sender.send(&payload[..len]) {
                Ok(()) => {
                    let _ = sender.stats();
                    End::None
                }
                Err(SendError::Disconnected) => End::Closed,
                Err(SendError::Corrupt(_)) => End::Corrupt,
                Err(error) => panic!("{error}"),
            }
        }
        Honest::Receives(receiver) if random.below(2) == 0 => match receiver.try_recv() {
            Ok(message) => {
                assert!(message.len() <= LONGEST);
                End::None
            }
            Err(LossyTryRecvError::Empty | LossyTryRecvError::Overrun) => End::None,
            Err(LossyTryRecvError::Ended(RecvError::Disconnected)) => End::Closed,
            Err(LossyTryRecvError::Ended(RecvError::Corrupt(_))) => End::Corrupt,
            Err(error) => panic!("{error}"),
        },
        Honest::Receives(receiver) => match receiver.recv_timeout(PATIENCE) {
            Ok(message) => {
                assert!(message.len() <= LONGEST);
                End::None
            }
            Err(RecvTimeoutError::Timeout) => End::None,
            Err(RecvTimeoutError::Disconnected) => End::Closed,
            Err(RecvTimeoutError::Corrupt(_)) => End::Corrupt,
            Err(error) => panic!("{error}"),
        },
    }
}

/// Uses one channel until it has ended or had its turn, while it is being scribbled on.
fn one_channel(sends: bool, random: &mut Random, beside: &MappedMemory) -> (u64, u64, End) {
    let options = LossyOptions { capacity_bytes: CAPACITY_BYTES, ..LossyOptions::default() };
    // The honest side creates it; where it receives, the lossy ring is the second one.
    let (mut honest, descriptor) = if sends {
        let channel = LossyChannel::anonymous(&options).unwrap();
        let descriptor = channel.descriptor().unwrap();
        (Honest::Sends(channel.into_end()), descriptor)
    } else {
        let channel = LossyChannel::anonymous_receiver(&options).unwrap();
        let descriptor = channel.descriptor().unwrap();
        (Honest::Receives(channel.into_end()), descriptor)
    };
    let segment = AnonymousSegment::attach(descriptor).unwrap();
    let index = usize::from(!sends);
    let (memory, data) = (segment.memory(), segment.geometry().layout().unwrap().data[index]);
    let control = ring::CONTROL[index];
    let ring = RingGeometry::new(memory, control, data, CAPACITY_BYTES, 8).unwrap();
    let geometry = LossyGeometry::new(ring).unwrap();
    beside.store_u64(STORES, 0, Ordering::Relaxed);
    beside.store_u32(STOP, 0, Ordering::Relaxed);
    let own = Random::new(random.next());
    let scribbler = Victim::start(|| {
        // Where that is not possible, it scribbles as the honest side's own user.
        become_nobody();
        Scribbler { memory, geometry, control, data, beside, random: own, stores: 0 }.run();
    });
    let payload = [0xaa; LONGEST];
    let (mut end, mut calls) = (End::None, 0);
    while calls < MAX_CALLS && end == End::None {
        calls += 1;
        let begun = Instant::now();
        end = call(&mut honest, random, &payload);
        let took = begun.elapsed();
        assert!(took < PATIENCE + LATE, "a call came back after {took:?}");
    }
    beside.store_u32(STOP, 1, Ordering::Relaxed);
    let stores = beside.load_u64(STORES, Ordering::Relaxed);
    if end == End::Corrupt {
        assert_eq!(call(&mut honest, random, &payload), End::Corrupt, "it does not heal");
    }
    drop(scribbler);
    (stores, calls, end)
}

fn scribbled_on(sends: bool) {
    let target = random::number("RINGWAY_STORES").unwrap_or(2_000_000_u64) / 10;
    let mut random = Random::new(random::seed());
    let beside =
        AnonymousSegment::create(&ChannelGeometry::records([4096, 64], 8, FenceMode::Real))
            .unwrap();
    let (mut stores, mut calls) = (0, 0);
    let mut ends = [0_u64; 3];
    // On a busy machine the first channels may all be scribbled on where it costs time at most.
    while stores < target
        || (ends[End::Corrupt as usize] == 0 && ends.iter().sum::<u64>() < MAX_CHANNELS)
    {
        let (more_stores, more_calls, end) = one_channel(sends, &mut random, beside.memory());
        stores += more_stores;
        calls += more_calls;
        ends[end as usize] += 1;
    }
    let [unscathed, closed, corrupt] = ends;
    println!(
        "{stores} hostile stores during {calls} calls on {} channels: {corrupt} found corrupt, {closed} said to be \
         closed, {unscathed} used to the end",
        corrupt + closed + unscathed
    );
    assert!(corrupt > 0, "nothing was found: the stores are not hostile");
}

#[test]
fn a_scribbling_sender_breaks_nothing_but_its_own_channel() {
    scribbled_on(false);
}

#[test]
fn a_scribbling_receiver_breaks_nothing_but_its_own_channel() {
    scribbled_on(true);
}
