//! Channels of slots: values there and back, waiting, the end of a peer, and peers that lie.
#![cfg(not(loom))]
#![allow(unsafe_code, missing_docs)]

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytemuck::{AnyBitPattern, CheckedBitPattern, NoUninit};
use common::random::{self, Random, mix};
use common::victim::Victim;
use ringway::Schema;
use ringway::channel::{Channel, ChannelOptions, SlotChannel, TypedChannel};
use ringway::error::{
    Corruption, RecvError, RecvTimeoutError, SegmentError, SendError, SendTimeoutError,
    TryRecvError, TrySendError,
};
use ringway::layout::{CHANNEL_DATA, ring, side};
use ringway::memory::{MappedMemory, Memory, Ordering};
use ringway::segment::AnonymousSegment;
use ringway::typed::Pod;
use ringway::wakeup::WaitStrategy;

/// Longer than anything takes; reached only by a test that has failed.
const NEVER: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Schema, NoUninit, AnyBitPattern)]
#[repr(C)]
struct Tick {
    number: u64,
    pattern: u64,
    more: u64,
}

fn tick(number: u64) -> Tick {
    Tick { number, pattern: mix(number), more: !mix(number) }
}

fn options(capacity_bytes: u64) -> ChannelOptions {
    ChannelOptions { capacity_bytes, ..ChannelOptions::default() }
}

fn pair(capacity_bytes: u64) -> (SlotChannel<Tick, u64>, SlotChannel<u64, Tick>) {
    SlotChannel::pair(&options(capacity_bytes)).expect("a channel")
}

#[test]
fn values_there_and_back() {
    let (mut host, mut plugin) = pair(4096);
    assert_eq!(plugin.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(plugin.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
    host.send(&tick(1)).expect("room");
    host.try_send(&tick(2)).expect("room");
    host.send_timeout(&tick(3), NEVER).expect("room");
    assert_eq!(plugin.recv(), Ok(tick(1)));
    assert_eq!(plugin.try_recv(), Ok(tick(2)));
    assert_eq!(plugin.recv_timeout(NEVER), Ok(tick(3)));
    plugin.send(&7).expect("room");
    assert_eq!(host.recv(), Ok(7));
    let ((mut tx, _host_rx), (_plugin_tx, mut rx)) = (host.split(), plugin.split());
    assert_eq!(tx.send_batch((0..50).map(tick)), Ok(50));
    let mut numbers = Vec::new();
    assert_eq!(rx.recv_batch(20, |tick| numbers.push(tick.number)), Ok(20));
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    drop(tx);
    let rest: Vec<_> = rx.iter().map(|tick| tick.expect("a value").number).collect();
    assert_eq!(rest, (20..50).collect::<Vec<_>>());
    assert_eq!(rx.recv(), Err(RecvError::Disconnected));
    assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
}

#[test]
fn values_without_bytes_and_large_ones() {
    #[derive(Debug, Clone, Copy, PartialEq, Schema, NoUninit, AnyBitPattern)]
    #[repr(C)]
    struct Nothing;
    #[derive(Debug, Clone, Copy, PartialEq, Schema, NoUninit, AnyBitPattern)]
    #[repr(C)]
    struct Large([[u8; 30]; 10]);
    let pair = SlotChannel::<Nothing, Large>::pair(&options(4096));
    let (mut host, mut plugin) = pair.expect("a channel");
    for n in 0..40 {
        host.send(&Nothing).expect("room");
        plugin.send(&Large([[n; 30]; 10])).expect("room");
        assert_eq!((plugin.recv(), host.recv()), (Ok(Nothing), Ok(Large([[n; 30]; 10]))));
    }
    let too_large = SlotChannel::<Large, u64>::anonymous(&options(512));
    assert!(matches!(too_large, Err(SegmentError::SlotBytes { found: 300, max: 256 })));
}

#[test]
fn a_full_ring_and_a_sender_that_waits() {
    for wait in [WaitStrategy::Park, WaitStrategy::SpinThenPark, WaitStrategy::Spin] {
        let options = ChannelOptions { wait, ..options(256) };
        let pair = SlotChannel::<Tick, u64>::pair(&options).expect("a channel");
        let ((mut tx, _host_rx), (_plugin_tx, mut rx)) = (pair.0.split(), pair.1.split());
        let mut batch = tx.batch().expect("open");
        let pushed = (0..).take_while(|n| batch.push(&tick(*n)).is_ok()).count() as u64;
        assert_eq!((pushed, batch.len() as u64, batch.commit() as u64), (8, 8, 8));
        assert_eq!(pushed, tx.capacity());
        assert_eq!(tx.try_send(&tick(8)), Err(TrySendError::Full));
        let soon = Duration::from_millis(1);
        assert_eq!(tx.send_timeout(&tick(8), soon), Err(SendTimeoutError::Timeout));
        let sending = thread::spawn(move || {
            (8..2000).try_for_each(|n| tx.send(&tick(n)))?;
            tx.send_batch((2000..4000).map(tick))
        });
        for n in 0..4000 {
            assert_eq!(rx.recv(), Ok(tick(n)));
        }
        assert_eq!(sending.join().expect("joined"), Ok(2000));
    }
}

/// A receiver that has read everything, and a sender that has no room, both ends parked.
#[test]
fn parked_ends_wake_each_other() {
    let options = ChannelOptions { wait: WaitStrategy::Park, ..options(64) };
    let (mut host, mut plugin) = SlotChannel::<u64, u64>::pair(&options).expect("a channel");
    let echo = thread::spawn(move || {
        while let Ok(n) = plugin.recv() {
            plugin.send(&n).expect("open");
        }
    });
    for n in 0..5000 {
        host.send(&n).expect("open");
        assert_eq!(host.recv(), Ok(n));
    }
    drop(host);
    echo.join().expect("joined");
}

#[test]
fn the_end_of_either_end_is_told() {
    let (host, plugin) = pair(256);
    let ((mut tx, host_rx), (plugin_tx, mut rx)) = (host.split(), plugin.split());
    tx.send(&tick(1)).expect("room");
    let waiting = thread::spawn(move || [rx.recv(), rx.recv()]);
    tx.send(&tick(2)).expect("room");
    assert_eq!(waiting.join().expect("joined"), [Ok(tick(1)), Ok(tick(2))]);
    assert_eq!(tx.send(&tick(3)), Err(SendError::Disconnected), "the receiver is gone");
    assert_eq!(tx.batch().map(|_| ()), Err(SendError::Disconnected));
    drop(host_rx);
    drop(plugin_tx);
}

#[test]
fn what_a_receiver_has_done_with_is_given_back_in_portions() {
    let (host, plugin) = SlotChannel::<u64, u64>::pair(&options(4096)).expect("a channel");
    let fd = host.descriptor().expect("a descriptor");
    let ((mut tx, _host_rx), (_plugin_tx, mut rx)) = (host.split(), plugin.split());
    assert_eq!(rx.max_unreleased(), 62);
    tx.send_batch(0..300).expect("room");
    let memory = peer_memory(&fd);
    let position = |n: u64| n / 7 * 64 + n % 7;
    for received in 1..=300_u64 {
        rx.recv().expect("a value");
        let head = memory.load_u64(ring::CONTROL[0] + ring::HEAD, Ordering::Relaxed);
        assert!((position(received.saturating_sub(63))..position(received)).contains(&head));
    }
    // Finding nothing more gives back everything.
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    let mut batch = tx.batch().expect("open");
    assert_eq!((0..).take_while(|n| batch.push(n).is_ok()).count(), 448 - 300 % 7);
}

fn is_refused<T>(result: Result<T, SegmentError>, name: &str) -> bool {
    match result {
        Err(SegmentError::Incompatible { field, .. }) => field == name,
        Err(SegmentError::Types { .. }) => name == "type",
        _ => false,
    }
}

#[test]
fn f11_a_channel_of_another_kind_or_type_is_refused() {
    let options = ChannelOptions::default();
    let slots = SlotChannel::<Tick, u64>::anonymous(&options).expect("a channel");
    let fd = || slots.descriptor().expect("a descriptor");
    assert!(is_refused(SlotChannel::<Tick, u64>::attach(fd(), &options), "type"));
    assert!(is_refused(SlotChannel::<u64, [u64; 3]>::attach(fd(), &options), "type"));
    assert!(is_refused(Channel::attach(fd(), &options), "type"));
    // The same types in records.
    type Records = TypedChannel<Pod<u64>, Pod<Tick>>;
    assert!(is_refused(Records::attach(fd(), &options), "kind of ring"));
    let records = TypedChannel::<Pod<Tick>, Pod<u64>>::anonymous(&options).expect("a channel");
    let fd = records.descriptor().expect("a descriptor");
    assert!(is_refused(SlotChannel::<u64, Tick>::attach(fd, &options), "kind of ring"));
    drop(SlotChannel::<u64, Tick>::attach(slots.descriptor().expect("fd"), &options));
    let again = SlotChannel::<u64, Tick>::attach(slots.descriptor().expect("fd"), &options);
    assert!(matches!(again, Err(SegmentError::AlreadyAttached)));
}

#[test]
fn a_message_that_is_no_value_stays_until_it_is_skipped() {
    #[derive(Debug, Clone, Copy, PartialEq, Schema, NoUninit, CheckedBitPattern)]
    #[repr(u8)]
    enum Switch {
        #[allow(dead_code, reason = "a value that is received")]
        Off = 0,
        On = 1,
    }
    let (host, plugin) = SlotChannel::<Switch, Switch>::pair(&options(64)).expect("a channel");
    let memory = peer_memory(&host.descriptor().expect("a descriptor"));
    let ((mut tx, _host_rx), (_plugin_tx, mut rx)) = (host.split(), plugin.split());
    tx.send(&Switch::On).expect("room");
    tx.send(&Switch::On).expect("room");
    memory.store_u64(CHANNEL_DATA + 8, 2, Ordering::Relaxed);
    assert_eq!(rx.recv(), Err(RecvError::Invalid));
    assert_eq!(rx.recv_batch(3, drop), Err(RecvError::Invalid));
    assert_eq!(rx.iter().collect::<Vec<_>>(), [Err(RecvError::Invalid)]);
    rx.skip().expect("there");
    assert_eq!(rx.recv(), Ok(Switch::On));
}

/// What a liar maps.
fn peer_memory(fd: &std::os::fd::OwnedFd) -> MappedMemory {
    let fd = fd.try_clone().expect("a descriptor");
    AnonymousSegment::attach(fd).expect("a segment").memory().clone()
}

#[test]
fn f18_a_lie_poisons_the_channel_for_good_and_for_both() {
    let (mut host, mut plugin) = pair(256);
    let memory = peer_memory(&host.descriptor().expect("a descriptor"));
    host.send(&tick(1)).expect("room");
    memory.store_u64(CHANNEL_DATA, 60, Ordering::Relaxed);
    let found = plugin.recv().expect_err("poison");
    assert!(matches!(found, RecvError::Corrupt(Corruption::Record { header: 60, .. })));
    memory.store_u64(CHANNEL_DATA, 1, Ordering::Relaxed);
    assert_eq!(plugin.recv(), Err(found));
    // The other side is told when it would wait, or the ends are closed.
    assert_eq!(host.recv(), Err(RecvError::Corrupt(Corruption::ByPeer)));
    memory.store_u32(side::LINE[1] + side::POISONED, 0, Ordering::Relaxed);
    assert_eq!(host.recv(), Err(RecvError::Corrupt(Corruption::ByPeer)), "it cannot be taken back");
}

#[test]
fn f19_an_impossible_head_poisons() {
    let (mut host, _plugin) = pair(256);
    let memory = peer_memory(&host.descriptor().expect("a descriptor"));
    memory.store_u64(ring::CONTROL[0] + ring::HEAD, 1 << 30, Ordering::Relaxed);
    (0..8).for_each(|n| host.send(&tick(n)).expect("room"));
    let found = host.send(&tick(8)).expect_err("poison");
    assert!(matches!(found, SendError::Corrupt(Corruption::Head { .. })));
    memory.store_u64(ring::CONTROL[0] + ring::HEAD, 0, Ordering::Relaxed);
    assert_eq!(host.try_send(&tick(8)), Err(TrySendError::from(found)));
}

#[test]
fn f30_a_forked_child_has_no_ends() {
    let _alone = alone();
    let (host, plugin) = pair(256);
    let ((mut tx, _host_rx), (_plugin_tx, mut rx)) = (host.split(), plugin.split());
    let mut batch = tx.batch().expect("open");
    batch.push(&tick(1)).expect("room");
    let mut child = Victim::start(move || {
        assert_eq!(batch.push(&tick(2)), Err(TrySendError::Forked));
        assert_eq!(batch.commit(), 0);
        assert_eq!(rx.recv(), Err(RecvError::Forked));
        assert_eq!(rx.try_recv(), Err(TryRecvError::Forked));
        drop(rx);
    });
    assert_eq!(child.wait(), 0);
}

/// Forking tests, one at a time: a fork copies the other one's threads' locks.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process that sends is killed at a random instant. What must hold: what arrives is in order and
/// whole, and then the receiver is told, also where it sleeps.
#[test]
fn kills_of_a_sender() {
    let _alone = alone();
    let kills = random::number("RINGWAY_SLOT_KILLS").unwrap_or(200);
    let mut random = Random::new(random::seed());
    for _ in 0..kills {
        let host = SlotChannel::<u64, Tick>::anonymous(&options(1024)).expect("a channel");
        let fd = host.descriptor().expect("a descriptor");
        let batches = random.below(2) == 0;
        let victim = Victim::start(move || {
            let plugin = SlotChannel::<Tick, u64>::attach(fd, &options(1024)).expect("attached");
            let (mut tx, _rx) = plugin.split();
            for n in (0..).step_by(5) {
                if batches {
                    tx.send_batch((n..n + 5).map(tick)).expect("open");
                } else {
                    (n..n + 5).for_each(|n| tx.send(&tick(n)).expect("open"));
                }
            }
        });
        let mut host = host;
        host.watch_peer_id(victim.id()).expect("a pidfd");
        let limit = random.below(3000);
        let mut victim = Some(victim);
        for n in 0.. {
            match host.recv() {
                Ok(value) => assert_eq!(value, tick(n)),
                Err(RecvError::Disconnected) => break,
                Err(error) => panic!("{error}"),
            }
            if n == limit {
                victim = None;
            }
        }
        assert!(victim.is_none());
    }
}

/// A process that receives is killed at a random instant. What must hold: its successor on the same
/// ring gets everything, whole and in order, and again no more than was held.
#[test]
fn kills_of_a_receiver() {
    use ringway::ring::slots::{SlotConsumer, SlotGeometry, SlotProducer};
    /// So many messages are done with before they are released.
    const HELD: u64 = 10;
    let _alone = alone();
    let mut random = Random::new(random::seed());
    let (host, _plugin) = pair(1024);
    let memory = peer_memory(&host.descriptor().expect("a descriptor"));
    let seen = peer_memory(&pair(256).0.descriptor().expect("a descriptor"));
    let geometry =
        SlotGeometry::new(&memory, ring::CONTROL[0], CHANNEL_DATA, 1024, 24).expect("a ring");
    let mut producer = SlotProducer::attach(memory.clone(), geometry).expect("fresh");
    let (mut sent, mut received) = (1, 0);
    let kills = random::number("RINGWAY_SLOT_KILLS").unwrap_or(200);
    for kill in 0..100 * kills {
        // Until enough has been received, too.
        if kill >= kills && received > 1000 {
            break;
        }
        let last = seen.load_u64(CHANNEL_DATA, Ordering::Acquire);
        let (theirs, words) = (memory.clone(), seen.clone());
        let victim = Victim::start(move || {
            let mut consumer = SlotConsumer::attach(theirs, geometry).expect("no corruption");
            let (mut next, mut value) = (None, tick(0));
            loop {
                if !consumer.peek().expect("no corruption") {
                    consumer.release();
                    std::hint::spin_loop();
                    continue;
                }
                consumer.copy_out(bytemuck::bytes_of_mut(&mut value));
                assert_eq!(value, tick(value.number), "torn");
                match next {
                    Some(next) => assert_eq!(value.number, next, "out of order"),
                    // Numbers start at 1; 0 was seen before the first.
                    None => assert!((last.saturating_sub(HELD)..=last + 1).contains(&value.number)),
                }
                consumer.advance();
                next = Some(value.number + 1);
                words.store_u64(CHANNEL_DATA, value.number, Ordering::Release);
                if value.number % HELD == 0 {
                    consumer.release();
                }
            }
        });
        let started = Instant::now();
        let until = Duration::from_micros(random.below(2000));
        while started.elapsed() < until {
            if producer.try_push(bytemuck::bytes_of(&tick(sent))).is_ok() {
                sent += 1;
            }
        }
        drop(victim);
        received = seen.load_u64(CHANNEL_DATA, Ordering::Acquire).max(received);
    }
    assert!(received > 1000, "{received} received over {kills} kills");
}

/// A process that writes whatever it likes into a live channel. What must hold: every call of the
/// safe interface comes back, with a value, a deadline, or the word that the channel is corrupt.
#[test]
fn f17_a_scribbler() {
    const CALLS: u64 = 500;
    let _alone = alone();
    let mut random = Random::new(random::seed());
    let (mut corrupt, soon) = (0, Duration::from_micros(20));
    let channels = random::number("RINGWAY_SLOT_SCRIBBLERS").unwrap_or(60);
    for _ in 0..channels {
        let (mut host, _plugin) = pair(256);
        let memory = peer_memory(&host.descriptor().expect("a descriptor"));
        let mut theirs = Random::new(random.next());
        let _scribbler = Victim::start(move || {
            let len_bytes = memory.len_bytes() - CHANNEL_DATA;
            loop {
                let offset = match theirs.below(3) {
                    0 => ring::CONTROL[theirs.below(2) as usize] + theirs.below(512),
                    _ => CHANNEL_DATA + theirs.below(len_bytes),
                };
                let word = match theirs.below(4) {
                    0 => theirs.below(512),
                    1 => u64::MAX - theirs.below(300),
                    2 => theirs.below(16) * 64 + theirs.below(4),
                    _ => theirs.next(),
                };
                memory.store_u64(offset & !7, word, Ordering::Release);
                (0..theirs.below(200)).for_each(|_| std::hint::spin_loop());
            }
        });
        for n in 0..CALLS {
            let received = match n % 3 {
                0 => host.try_recv().map(|_| ()).map_err(|error| error != TryRecvError::Empty),
                1 => host
                    .recv_timeout(soon)
                    .map(|_| ())
                    .map_err(|error| !matches!(error, RecvTimeoutError::Timeout)),
                _ => host.receiver().skip().map_err(|error| error != TryRecvError::Empty),
            };
            let sent = match n % 2 {
                0 => host.try_send(&tick(n)).map_err(|error| error != TrySendError::Full),
                _ => host
                    .send_timeout(&tick(n), soon)
                    .map_err(|error| error != SendTimeoutError::Timeout),
            };
            if received == Err(true) && sent == Err(true) {
                corrupt += 1;
                break;
            }
        }
    }
    println!("{corrupt} of {channels} channels were ended by their scribbler");
    assert!(corrupt > 0);
}
