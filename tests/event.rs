//! Channels whose sleepers wait on `raw_sync` events (feature `raw-sync-event`).
//!
//! Two processes wherever it matters; every peer here runs this library.
#![allow(unsafe_code)]

mod common;

use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::meeting::NEVER;
use common::random::{self, Random};
use common::stray::pidfd_of;
use common::victim::Victim;
use ringway::channel::{Channel, ChannelOptions, Event, Selector};
use ringway::error::{RecvError, RecvTimeoutError, SegmentError};
use ringway::layout::segment;
use ringway::segment::AnonymousSegment;
use ringway::wakeup::WaitStrategy;

fn parking() -> ChannelOptions {
    ChannelOptions { capacity_bytes: 4096, wait: WaitStrategy::Park, ..ChannelOptions::default() }
}

fn create() -> Channel {
    // SAFETY: all that these tests let write the segment runs this library.
    unsafe { Channel::anonymous_with_event(&parking()) }.expect("a channel")
}

fn pair() -> (Channel, Channel) {
    // SAFETY: as above.
    unsafe { Channel::pair_with_event(&parking()) }.expect("a channel")
}

/// A channel of either kind and a process at its other side, that sends back what it gets.
fn with_echo(events: bool) -> (Channel, Victim) {
    let channel = if events { create() } else { Channel::anonymous(&parking()).unwrap() };
    let fd = channel.descriptor().unwrap();
    let echo = Victim::start(move || {
        let mut far = if events {
            // SAFETY: as in `create`, by which the descriptor's segment was made.
            unsafe { Channel::attach_with_event(fd, &parking()) }.unwrap()
        } else {
            Channel::attach(fd, &parking()).unwrap()
        };
        while let Ok(message) = far.recv_owned() {
            if far.send(&message).is_err() {
                break;
            }
        }
    });
    (channel, echo)
}

/// Both sides sleep at once after each message, so every message needs its wakeup. One that is lost
/// is made up for by the sleeper's own look after 250 ms: a few such pauses are this machine's.
#[test]
fn no_wakeup_is_lost_between_two_processes_that_sleep() {
    let round_trips = random::number("RINGWAY_ROUND_TRIPS").unwrap_or(100_000_u64);
    let (mut near, mut echo) = with_echo(true);
    let mut slow = 0;
    for number in 0..round_trips {
        let started = Instant::now();
        near.send(&number.to_ne_bytes()).unwrap();
        assert_eq!(*near.recv_timeout(NEVER).unwrap(), number.to_ne_bytes());
        slow += u64::from(started.elapsed() >= Duration::from_millis(200));
        assert!(slow <= 20, "{slow} of {number} round trips took as long as without a wakeup");
    }
    let stats = near.receiver().stats();
    println!("{round_trips} round trips, {} sleeps, {slow} of 200 ms or more", stats.sleeps);
    assert!(stats.sleeps > round_trips / 10, "{} sleeps: nobody slept", stats.sleeps);
    drop(near);
    assert_eq!(echo.wait(), 0, "it ends when the channel is closed");
}

/// Whenever in a second they begin.
#[test]
fn timeouts_last_as_long_as_asked() {
    let (mut near, _far) = pair();
    for _ in 0..12 {
        let timeout = Duration::from_millis(400);
        let started = Instant::now();
        assert!(matches!(near.recv_timeout(timeout), Err(RecvTimeoutError::Timeout)));
        assert!(started.elapsed() >= timeout, "{:?}", started.elapsed());
    }
}

#[test]
fn a_sender_that_waits_for_room_is_woken() {
    let (near, mut echo) = with_echo(true);
    let (mut sender, mut receiver) = {
        near.wait_for_peer(NEVER).unwrap();
        near.split()
    };
    let sends = thread::spawn(move || {
        for number in 0..20_000_u64 {
            sender.send(&[number; 32].map(u64::to_ne_bytes).concat()).unwrap();
        }
    });
    for number in 0..20_000_u64 {
        let message = receiver.recv_timeout(NEVER).unwrap();
        assert_eq!(message.bytes()[..8], number.to_ne_bytes());
    }
    sends.join().unwrap();
    drop(receiver);
    assert_eq!(echo.wait(), 0);
}

fn found<T: std::fmt::Debug>(result: Result<T, SegmentError>) -> (&'static str, u64, u64) {
    match result {
        Err(SegmentError::Incompatible { field, found, expected }) => (field, found, expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn safe_calls_refuse_a_channel_with_events_and_the_other_way_round() {
    let near = create();
    let fd = || near.descriptor().unwrap();
    let refused = ("wakeups", 1, 0);
    assert_eq!(found(Channel::attach(fd(), &parking())), refused);
    assert_eq!(found(AnonymousSegment::attach(fd())), refused);
    assert_eq!(found(AnonymousSegment::inspect(fd())), refused);
    // SAFETY: as in `create`.
    let mut far = unsafe { Channel::attach_with_event(fd(), &parking()) }.expect("nobody has it");
    let mut near = near;
    near.send(b"there").unwrap();
    assert_eq!(*far.recv().unwrap(), *b"there");
    // SAFETY: as in `create`.
    let second = unsafe { Channel::attach_with_event(near.descriptor().unwrap(), &parking()) };
    assert!(matches!(second, Err(SegmentError::AlreadyAttached)), "{second:?}");

    let plain = Channel::anonymous(&parking()).unwrap();
    // SAFETY: as in `create`; refused before anything is touched.
    let wrong = unsafe { Channel::attach_with_event(plain.descriptor().unwrap(), &parking()) };
    assert_eq!(found(wrong), ("wakeups", 0, 1));
}

#[test]
fn f11_any_flipped_bit_of_the_header_is_refused() {
    let near = create();
    let file = std::fs::File::from(near.descriptor().unwrap());
    let attach = || {
        // SAFETY: as in `create`; a header that is refused is all that this call looks at.
        unsafe { Channel::attach_with_event(near.descriptor().unwrap(), &parking()) }
    };
    for bit in 0..segment::HEADER_BYTES * 8 {
        let (offset, mask) = (bit / 8, 1_u8 << (bit % 8));
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ mask], offset).unwrap();
        assert!(attach().is_err(), "bit {bit}");
        file.write_all_at(&byte, offset).unwrap();
    }
    attach().expect("as it was");
}

#[test]
fn a_peer_that_closes_or_dies_wakes_the_sleeper() {
    let (mut near, far) = pair();
    let sleeper = thread::spawn(move || {
        let error = near.recv_timeout(NEVER).map(|_| ());
        (error, near.receiver().stats().sleeps)
    });
    drop(far);
    assert!(matches!(sleeper.join().unwrap().0, Err(RecvTimeoutError::Disconnected)));

    let mut near = create();
    let fd = near.descriptor().unwrap();
    let mut dies = Victim::start(move || {
        // SAFETY: as in `create`.
        let mut far = unsafe { Channel::attach_with_event(fd, &parking()) }.unwrap();
        far.send(b"here").unwrap();
        far.recv_timeout(NEVER).unwrap();
        // Without closing anything.
        std::mem::forget(far);
    });
    near.watch_peer_id(dies.id()).unwrap();
    assert_eq!(*near.recv_timeout(NEVER).unwrap(), *b"here");
    near.send(b"die").unwrap();
    assert!(matches!(near.recv_timeout(NEVER), Err(RecvTimeoutError::Disconnected)));
    assert_eq!(dies.wait(), 0);
}

/// Together with one that is woken by futex. The next message is sent when the last one was handed
/// out, so that the selector sleeps in between.
#[test]
fn a_selector_polls_receivers_with_events() {
    let mut selector = Selector::new();
    let (event, plain) = (pair(), Channel::pair(&parking()).unwrap());
    assert_eq!(selector.add(event.1.split().1), 0);
    assert_eq!(selector.add(plain.1.split().1), 1);
    let (mut events, mut plain) = (event.0.split().0, plain.0.split().0);
    let (done, next) = mpsc::channel::<()>();
    let sends = thread::spawn(move || {
        for number in 0..200_u64 {
            events.send(&number.to_ne_bytes()).unwrap();
            next.recv().unwrap();
        }
        plain.send(b"last").unwrap();
    });
    let (mut expected, mut last, mut slow) = (0_u64, 0, 0);
    while !selector.is_finished() {
        let started = Instant::now();
        selector.poll(8, NEVER, |token, event| match event {
            Event::Message(message) if token == 0 => {
                assert_eq!(message.bytes(), expected.to_ne_bytes());
                expected += 1;
                done.send(()).unwrap();
            }
            Event::Message(_) => last += 1,
            Event::Error(error) => assert!(matches!(error, RecvError::Disconnected)),
        });
        slow += u64::from(started.elapsed() >= Duration::from_millis(200));
        assert!(slow <= 20, "{slow} of {expected} messages took as long as without polling");
    }
    sends.join().unwrap();
    assert_eq!((expected, last), (200, 1));
}

/// How a process ends whose peer is killed at a random instant: its status, or `None` where it hangs.
fn survivor(events: bool, random: &mut Random) -> Option<i32> {
    let delay = Duration::from_micros(random.below(5_000));
    let mut survivor = Victim::start(|| {
        let (mut near, mut echo) = with_echo(events);
        near.watch_peer_id(echo.id()).unwrap();
        near.wait_for_peer(NEVER).unwrap();
        let killer = thread::spawn(move || {
            thread::sleep(delay);
            echo.kill();
            echo
        });
        while near.send(b"ping").is_ok() && near.recv().is_ok() {}
        drop(near);
        drop(killer.join());
    });
    let pidfd = pidfd_of(survivor.id() as i32);
    let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: a structure that outlives the call.
    let ended = unsafe { libc::poll(&mut poll, 1, 5_000) } == 1;
    // Its own child is killed with it.
    ended.then(|| survivor.wait())
}

/// Why this is for processes that are not killed: with futexes every survivor goes on; with events,
/// those do whose peer held nothing when it died. Whoever hangs is killed here.
#[test]
fn a_killed_peer_may_hang_the_other_side_and_a_futex_never_does() {
    let mut random = Random::new(random::seed());
    let mut hung = 0;
    for _ in 0..20 {
        assert_eq!(survivor(false, &mut random), Some(0), "with futexes");
        match survivor(true, &mut random) {
            Some(status) => assert_eq!(status, 0, "with events"),
            None => hung += 1,
        }
        if hung == 3 {
            break;
        }
    }
    println!("{hung} of 20 survivors of a killed peer hung");
}
