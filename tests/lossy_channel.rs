//! Lossy channels as their users see them.
#![cfg(not(loom))]
#![allow(missing_docs)]

use std::thread;
use std::time::{Duration, Instant};

use ringway::channel::{LossyChannel, LossyOptions, LossyReceiver};
use ringway::error::{LossyTryRecvError, RecvError, RecvTimeoutError, SegmentError, SendError};
use ringway::memory::FenceMode;
use ringway::wakeup::WaitStrategy;

const LONG: Duration = Duration::from_secs(60);

fn options(capacity_bytes: u64) -> LossyOptions {
    LossyOptions { capacity_bytes, ..LossyOptions::default() }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_ne_bytes(bytes[..8].try_into().expect("eight bytes"))
}

#[test]
fn nothing_is_lost_where_the_receiver_keeps_up() {
    let (mut sender, mut receiver) = LossyChannel::pair(&options(4096)).unwrap();
    for n in 0..10_000_u64 {
        sender.send_tagged(n as u16, &n.to_ne_bytes()).unwrap();
        let message = receiver.try_recv().unwrap();
        assert_eq!((number(&message), message.tag()), (n, n as u16));
        assert_eq!((message.number(), message.lost_before()), (n, 0));
    }
    assert_eq!(receiver.try_recv().unwrap_err(), LossyTryRecvError::Empty);
    let (sent, received) = (sender.stats(), receiver.stats());
    assert_eq!((sent.sent, sent.taken, sent.lost, sent.unread), (10_000, 10_000, 0, 0));
    assert_eq!((received.received, received.lost, received.overruns), (10_000, 0, 0));
}

/// Both directions, and both ends the first to come.
#[test]
fn either_side_creates_the_channel() {
    let mut near = LossyChannel::anonymous(&options(4096)).unwrap();
    near.end().send(b"before anybody was there").unwrap();
    let mut far = LossyChannel::attach(near.descriptor().unwrap(), &options(64)).unwrap();
    near.seal_writes().unwrap();
    assert_eq!(&*far.end().recv().unwrap(), b"before anybody was there");
    let mut near = LossyChannel::anonymous_receiver(&options(4096)).unwrap();
    let mut far = LossyChannel::attach_sender(near.descriptor().unwrap()).unwrap();
    far.end().send(b"back").unwrap();
    assert_eq!(&*near.end().recv().unwrap(), b"back");
}

#[test]
fn who_comes_second_or_to_the_wrong_side_is_refused() {
    let near = LossyChannel::anonymous(&options(4096)).unwrap();
    let fd = || near.descriptor().unwrap();
    let wrong = LossyChannel::attach_sender(fd()).unwrap_err();
    assert!(matches!(wrong, SegmentError::Incompatible { field: "kind of ring", .. }), "{wrong}");
    let ordinary = ringway::channel::Channel::attach(fd(), &Default::default()).unwrap_err();
    assert!(matches!(ordinary, SegmentError::Incompatible { .. }), "{ordinary}");
    let _far = LossyChannel::attach(fd(), &options(4096)).unwrap();
    let second = LossyChannel::attach(fd(), &options(4096)).unwrap_err();
    assert!(matches!(second, SegmentError::AlreadyAttached), "{second}");
    let small = LossyChannel::anonymous(&options(64)).unwrap_err();
    assert!(matches!(small, SegmentError::Capacity { found: 64, min: 128, .. }), "{small}");
}

#[test]
fn what_is_too_long_is_refused() {
    let (mut sender, mut receiver) = LossyChannel::pair(&options(1024)).unwrap();
    let max = sender.max_message_bytes();
    assert_eq!(max, 240);
    sender.send(&[7; 240]).unwrap();
    assert_eq!(sender.send(&[7; 241]).unwrap_err(), SendError::TooLong { len: 241, max: 240 });
    assert_eq!(receiver.recv().unwrap().len(), 240);
}

/// Whoever stops for a while loses exactly what was overwritten, and the newest is always there.
#[test]
fn the_oldest_are_lost_and_counted() {
    let (mut sender, mut receiver) = LossyChannel::pair(&options(4096)).unwrap();
    let (mut sent, mut expected) = (0_u64, 0);
    for round in 0..200_u64 {
        for _ in 0..round * 3 {
            sender.send(&sent.to_ne_bytes()).unwrap();
            sent += 1;
        }
        let lost = sender.stats().lost - receiver.stats().lost;
        let unread = sender.stats().unread;
        for n in 0.. {
            let message = match receiver.try_recv() {
                Ok(message) => message,
                Err(LossyTryRecvError::Empty) => break,
                Err(error) => panic!("{error}"),
            };
            expected += message.lost_before();
            assert_eq!(number(&message), expected);
            expected += 1;
            if n == 0 {
                // It keeps up after each stop, or it is overrun within one lap and keeps a distance.
                assert!(message.lost_before() >= lost);
            }
            assert!(n < unread);
        }
        assert_eq!(expected, sent);
        let (near, far) = (sender.stats(), receiver.stats());
        assert_eq!((near.lost, near.taken), (far.lost, far.received));
        assert_eq!(near.sent, near.lost + near.taken);
    }
    assert!(receiver.stats().lost > 0);
}

#[test]
fn the_end_comes_after_the_last_message() {
    let (mut sender, mut receiver) = LossyChannel::pair(&options(4096)).unwrap();
    sender.send(b"last words").unwrap();
    drop(sender);
    assert_eq!(&*receiver.recv().unwrap(), b"last words");
    assert_eq!(receiver.recv().unwrap_err(), RecvError::Disconnected);
    let ended = LossyTryRecvError::Ended(RecvError::Disconnected);
    assert_eq!(receiver.try_recv().unwrap_err(), ended);
    let (mut sender, receiver) = LossyChannel::pair(&options(4096)).unwrap();
    drop(receiver);
    assert_eq!(sender.send(b"x").unwrap_err(), SendError::Disconnected);
}

#[test]
fn waits_end_at_their_deadline_or_with_a_message() {
    for wait in [WaitStrategy::Park, WaitStrategy::SpinThenPark, WaitStrategy::Spin] {
        for fence in [FenceMode::Real, FenceMode::detect()] {
            let fence = Some(fence);
            let options =
                LossyOptions { capacity_bytes: 4096, wait, fence, ..LossyOptions::default() };
            let (mut sender, mut receiver) = LossyChannel::pair(&options).unwrap();
            let short = receiver.recv_timeout(Duration::from_millis(2)).unwrap_err();
            assert_eq!(short, RecvTimeoutError::Timeout);
            let sending = thread::spawn(move || {
                for n in 0..100_u64 {
                    sender.send(&n.to_ne_bytes()).unwrap();
                    thread::yield_now();
                }
            });
            let mut next = 0;
            while let Ok(message) = receiver.recv_timeout(LONG) {
                assert_eq!(number(&message), next + message.lost_before());
                next = number(&message) + 1;
            }
            assert_eq!(next, 100, "the newest one is always received");
            sending.join().unwrap();
        }
    }
}

/// Full speed, contents checked, until so many have arrived; nobody waits for the receiver.
fn flood(receiver: &mut LossyReceiver, arrivals: u64) {
    for _ in 0..arrivals {
        let before = receiver.stats();
        let (number, lost) = {
            let message = receiver.recv_timeout(LONG).expect("something comes");
            let word = |at: usize| u64::from_ne_bytes(message[at..at + 8].try_into().unwrap());
            for at in (0..message.len()).step_by(8) {
                assert_eq!(word(at), message.number() ^ at as u64, "torn");
            }
            (message.number(), message.lost_before())
        };
        assert_eq!(number, before.received + before.lost + lost);
    }
}

#[test]
fn two_threads_at_full_speed() {
    for (capacity_bytes, len) in [(128, 16), (1024, 64), (1 << 16, 200), (1 << 18, 8)] {
        let (mut sender, mut receiver) = LossyChannel::pair(&options(capacity_bytes)).unwrap();
        let sending = thread::spawn(move || {
            let mut bytes = vec![0; len];
            for number in 0_u64.. {
                for (at, word) in (0_u64..).step_by(8).zip(bytes.as_chunks_mut::<8>().0) {
                    *word = (number ^ at).to_ne_bytes();
                }
                if sender.send(&bytes).is_err() {
                    return sender.stats();
                }
            }
            unreachable!()
        });
        flood(&mut receiver, 5_000);
        drop(receiver);
        let stats = sending.join().unwrap();
        assert_eq!(stats.sent, stats.taken + stats.lost + stats.unread);
        assert_eq!(stats.taken, 5_000);
    }
}

/// A sender that never stops cannot hold a call beyond its deadline.
#[test]
fn a_slow_receiver_keeps_its_deadline_and_makes_progress() {
    let (mut sender, mut receiver) = LossyChannel::pair(&options(256)).unwrap();
    let sending = thread::spawn(move || while sender.send(&[1; 48]).is_ok() {});
    for _ in 0..200 {
        let begun = Instant::now();
        let _ = receiver.recv_timeout(Duration::from_millis(1));
        assert!(begun.elapsed() < LONG);
    }
    assert!(receiver.stats().received > 0);
    drop(receiver);
    sending.join().unwrap();
}
