//! That no wake is lost: with glances at sleepers switched off, what is not woken is never found.

use std::os::fd::AsFd;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use super::*;
use crate::channel::{Channel, ChannelOptions, Sender};
use crate::error::{ExitReason, RecvError};
use crate::layout::ring;
use crate::memory::{Memory, Ordering};
use crate::os::epoll::is_readable;

/// Longer than anything takes; reached only by a test that has failed.
const NEVER: Duration = Duration::from_secs(20);

/// A selector that only wakes can rouse, over each backend, with so many receivers.
fn over_backends(count: usize, test: impl Fn(Selector, Vec<Sender>)) {
    for backend in [WaitBackend::Futexes, WaitBackend::Uring, WaitBackend::Threads] {
        let Ok(mut selector) = Selector::with_backend(backend) else {
            println!("skipped: {backend:?}");
            continue;
        };
        println!("{backend:?}");
        selector.glance_at_ns = u64::MAX;
        let senders = (0..count).map(|_| add(&mut selector)).collect();
        test(selector, senders);
    }
}

fn add(selector: &mut Selector) -> Sender {
    let options = ChannelOptions { capacity_bytes: 1024, ..ChannelOptions::default() };
    let (near, far) = Channel::pair(&options).unwrap();
    selector.add(far.split().1);
    near.split().0
}

/// The next event, which is the only one: an error's text or a message.
fn next(selector: &mut Selector) -> (usize, Vec<u8>) {
    let mut found = None;
    let events = selector.poll(1, NEVER, |token, event| {
        let text = match event {
            Event::Message(message) => message.to_vec(),
            Event::Error(error) => error.to_string().into_bytes(),
        };
        assert!(found.replace((token, text)).is_none());
    });
    assert_eq!(events, 1, "a wake was lost");
    found.unwrap()
}

/// Polls until all receivers sleep, where they sleep for longer than a poll. One poll is enough,
/// unless the machine is so busy that it ends before it comes to that.
fn settle(selector: &mut Selector) {
    let begun = Instant::now();
    loop {
        assert_eq!(selector.poll(1, Duration::from_millis(2), |_, _| ()), 0);
        if selector.awake.is_empty() || !selector.watch.is_lasting() {
            return;
        }
        assert!(begun.elapsed() < NEVER, "some never sleep");
    }
}

#[test]
fn no_wake_is_lost_between_the_last_look_and_sleep() {
    over_backends(100, |mut selector, mut senders| {
        let (asks, asked) = mpsc::channel::<usize>();
        let sending = thread::spawn(move || {
            for token in asked {
                senders[token].send_pod(&(token as u64)).unwrap();
            }
        });
        for round in 0..5000_usize {
            let token = round * 37 % 100;
            asks.send(token).unwrap();
            assert_eq!(next(&mut selector), (token, (token as u64).to_ne_bytes().to_vec()));
        }
        drop(asks);
        sending.join().unwrap();
    });
}

#[test]
fn closes_deaths_and_graces_wake() {
    over_backends(10, |mut selector, mut senders| {
        settle(&mut selector);
        drop(senders.pop());
        assert_eq!(next(&mut selector), (9, RecvError::Disconnected.to_string().into_bytes()));
        let connection = |selector: &Selector, token: usize| {
            let slot = selector.slots[token].as_ref().unwrap();
            Arc::clone(&slot.receiver.connection)
        };
        settle(&mut selector);
        connection(&selector, 5).peer_died(ExitReason::Unknown, false);
        assert_eq!(next(&mut selector), (5, RecvError::Disconnected.to_string().into_bytes()));
        // One that may be restarted has some time to exit after it has closed; nothing wakes then.
        connection(&selector, 8).follow();
        settle(&mut selector);
        drop(senders.pop());
        assert_eq!(next(&mut selector), (8, RecvError::Disconnected.to_string().into_bytes()));
        assert_eq!(selector.live, 7);
    });
}

#[test]
fn every_message_makes_the_descriptor_readable() {
    over_backends(10, |mut selector, mut senders| {
        let Ok(readiness) = selector.readiness() else { return };
        let (asks, asked) = mpsc::channel::<usize>();
        let sending = thread::spawn(move || {
            for token in asked {
                senders[token].send_pod(&(token as u64)).unwrap();
            }
        });
        for round in 0..2000_usize {
            asks.send(round % 10).unwrap();
            let mut heard = 0;
            // Each look for nothing is a tick, a quarter of a second long, or the tail of the last.
            for _ in 0..40 {
                while !is_readable(readiness.as_fd()) {
                    thread::yield_now();
                }
                heard += selector.poll(1, Duration::ZERO, |token, _| assert_eq!(token, round % 10));
                if heard > 0 {
                    break;
                }
            }
            assert_eq!(heard, 1, "a wake was lost");
        }
        drop(asks);
        sending.join().unwrap();
    });
}

#[test]
fn what_was_removed_is_neither_waited_for_nor_announced() {
    over_backends(10, |mut selector, mut senders| {
        settle(&mut selector);
        let mut receiver = selector.remove(4).unwrap();
        let memory = receiver.consumer.memory().clone();
        let word = receiver.consumer.geometry().control(ring::CONSUMER_WAITING);
        assert_eq!(memory.load_u32(word, Ordering::Relaxed), 0);
        senders[4].send(b"alone").unwrap();
        assert_eq!(&*receiver.try_recv().unwrap(), b"alone");
        // Another in its place: what is left of the first one's wait means nothing to it.
        let mut other = add(&mut selector);
        settle(&mut selector);
        memory.wake_u32(word, u32::MAX);
        settle(&mut selector);
        other.send(b"here").unwrap();
        assert_eq!(next(&mut selector), (4, b"here".to_vec()));
    });
}

#[test]
fn where_io_uring_is_refused_threads_wait_for_many() {
    let mut selector = Selector::new();
    selector.glance_at_ns = u64::MAX;
    selector.ring_is_refused = true;
    let mut senders: Vec<_> = (0..MAX_WAIT_MANY).map(|_| add(&mut selector)).collect();
    settle(&mut selector);
    assert_eq!(selector.backend(), WaitBackend::Futexes);
    senders.extend((0..300).map(|_| add(&mut selector)));
    settle(&mut selector);
    if selector.backend() == WaitBackend::Futexes {
        return println!("skipped: no waiting on several words");
    }
    assert_eq!(selector.backend(), WaitBackend::Threads);
    for token in [0, 427, 128, 127] {
        senders[token].send(b"here").unwrap();
        assert_eq!(next(&mut selector), (token, b"here".to_vec()));
    }
    // One more costs no more threads than it needs.
    senders.push(add(&mut selector));
    let Watch::Watchers(watchers) = &selector.watch else { panic!("{selector:?}") };
    assert_eq!(watchers.threads(), 429_usize.div_ceil(127));
}
