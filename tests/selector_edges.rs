//! A selector between peers that lie, forks, and other ways of waiting.
//!
//! As in `selector.rs`, each test runs over every backend that this system offers.

#![allow(unsafe_code)]

mod common;

use std::os::fd::AsRawFd;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use common::plugin::{self, NEVER};
use common::victim::Victim;
use ringway::channel::{
    Channel, ChannelOptions, Event, Readiness, Receiver, Selector, Sender, WaitBackend,
};
use ringway::error::RecvError;
use ringway::layout::ring;
use ringway::memory::{MappedMemory, Memory, Ordering};
use ringway::ring::{Producer, RingGeometry};
use ringway::segment::AnonymousSegment;

/// Runs a test over each of these backends that there is.
fn over(backends: &[WaitBackend], test: impl Fn(Selector)) {
    for backend in backends {
        match Selector::with_backend(*backend) {
            Ok(selector) => {
                println!("{backend:?}");
                test(selector);
            }
            Err(error) => println!("skipped: {backend:?}: {error}"),
        }
    }
}

const ALL: [WaitBackend; 3] = [WaitBackend::Futexes, WaitBackend::Uring, WaitBackend::Threads];
const LASTING: [WaitBackend; 2] = [WaitBackend::Uring, WaitBackend::Threads];

fn options() -> ChannelOptions {
    ChannelOptions { capacity_bytes: 1024, ..ChannelOptions::default() }
}

fn one_way() -> (Sender, Receiver) {
    let (near, far) = Channel::pair(&options()).expect("a channel");
    (near.split().0, far.split().1)
}

fn add_many(selector: &mut Selector, count: usize) -> Vec<Sender> {
    let many = (0..count).map(|_| {
        let (sender, receiver) = one_way();
        selector.add(receiver);
        sender
    });
    many.collect()
}

/// A receiver, and what a hostile peer has of its ring: the bare memory.
fn bare() -> (Channel, AnonymousSegment) {
    let channel = Channel::anonymous(&options()).unwrap();
    let segment = AnonymousSegment::attach(channel.descriptor().unwrap()).unwrap();
    (channel, segment)
}

fn producer(segment: &AnonymousSegment) -> Producer<MappedMemory> {
    let (memory, geometry) = (segment.memory().clone(), segment.geometry());
    let data = geometry.layout().unwrap().data[1];
    let geometry = RingGeometry::new(&memory, ring::CONTROL[1], data, 1024, 8).unwrap();
    Producer::attach(memory, geometry).unwrap()
}

const WAITING: u64 = ring::CONTROL[1] + ring::CONSUMER_WAITING;

fn next(selector: &mut Selector) -> (usize, Vec<u8>) {
    let mut found = None;
    assert_eq!(selector.poll(1, NEVER, |token, event| found = Some((token, text(&event)))), 1);
    found.expect("an event")
}

fn text(event: &Event<'_>) -> Vec<u8> {
    match event {
        Event::Message(message) => message.to_vec(),
        Event::Error(error) => error.to_string().into_bytes(),
    }
}

/// Waits until nothing is to be read, so that all sleep.
fn settle(selector: &mut Selector) {
    assert_eq!(selector.poll(1, Duration::from_millis(1), |_, _| ()), 0);
}

#[test]
fn f02_a_message_without_a_wake_is_found_all_the_same() {
    over(&ALL, |mut selector| {
        let _senders = add_many(&mut selector, 300);
        let (channel, segment) = bare();
        let (_sender, receiver) = channel.split();
        let token = selector.add(receiver);
        settle(&mut selector);
        producer(&segment).try_push(0, b"silent").unwrap();
        assert_eq!(next(&mut selector), (token, b"silent".to_vec()));
    });
}

#[test]
fn f36_an_announcement_that_is_taken_back_is_made_again() {
    over(&ALL, |mut selector| {
        let _senders = add_many(&mut selector, 300);
        let (channel, segment) = bare();
        let (_sender, receiver) = channel.split();
        let token = selector.add(receiver);
        settle(&mut selector);
        segment.memory().store_u32(WAITING, 0, Ordering::Relaxed);
        // As a sender that finds nobody announced: no wake. Then one that does.
        thread::scope(|scope| {
            scope.spawn(|| {
                let memory = segment.memory();
                while memory.load_u32(WAITING, Ordering::Relaxed) == 0 {
                    thread::yield_now();
                }
                producer(&segment).try_push(0, b"woken").unwrap();
                memory.store_u32(WAITING, 0, Ordering::Relaxed);
                memory.wake_u32(WAITING, 1);
            });
            assert_eq!(next(&mut selector), (token, b"woken".to_vec()));
        });
    });
}

#[test]
fn f36_floods_of_wakes_and_flipping_words_keep_nobody_from_being_heard() {
    over(&ALL, |mut selector| {
        let mut senders = add_many(&mut selector, 140);
        let (channel, segment) = bare();
        let (_sender, receiver) = channel.split();
        selector.add(receiver);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let memory = segment.memory();
                let mut value = 0;
                while !stop.load(Relaxed) {
                    memory.store_u32(WAITING, value, Ordering::Relaxed);
                    memory.wake_u32(WAITING, u32::MAX);
                    value = value.wrapping_add(1) % 3;
                }
            });
            scope.spawn(|| {
                for sender in &mut senders {
                    sender.send(b"heard").unwrap();
                }
            });
            let _stops = Stops(&stop);
            let mut heard = 0;
            while heard < 140 {
                selector.poll(1, NEVER, |_, event| {
                    assert_eq!(text(&event), b"heard");
                    heard += 1;
                });
            }
            assert_eq!(selector.poll(1, Duration::from_millis(3), |_, _| ()), 0);
        });
    });
}

/// Stops a thread, also where the test has failed.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn f30_a_forked_child_is_told_and_the_parent_goes_on() {
    over(&ALL, |mut selector| {
        let mut senders = add_many(&mut selector, 140);
        settle(&mut selector);
        let selector = std::cell::RefCell::new(selector);
        let mut child = Victim::start(|| {
            let mut selector = selector.borrow_mut();
            drop(selector.remove(3));
            let mut told = [0; 140];
            selector.poll(4, NEVER, |token, event| {
                assert!(matches!(event, Event::Error(RecvError::Forked)));
                told[token] += 1;
            });
            assert!(selector.is_finished());
            assert_eq!((told[3], told.iter().sum::<i32>()), (0, 139));
            // One of its own, beside those.
            let (mut sender, receiver) = one_way();
            let token = selector.add(receiver);
            sender.send(b"mine").unwrap();
            assert_eq!(next(&mut selector), (token, b"mine".to_vec()));
            drop(selector.remove(token));
            let dropped = std::mem::take(&mut *selector);
            drop(dropped);
        });
        assert_eq!(child.wait(), 0);
        let mut selector = selector.into_inner();
        for token in [139, 3, 0] {
            senders[token].send(b"ours").unwrap();
            assert_eq!(next(&mut selector), (token, b"ours".to_vec()));
        }
    });
}

fn is_readable(readiness: &Readiness, timeout_ms: i32) -> bool {
    let fd = readiness.as_raw_fd();
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    loop {
        // SAFETY: one entry, which outlives the call.
        match unsafe { libc::poll(&mut entry, 1, timeout_ms) } {
            // What arrives may interrupt the call.
            -1 => {
                assert_eq!(std::io::Error::last_os_error().kind(), std::io::ErrorKind::Interrupted)
            }
            ready => return ready > 0,
        }
    }
}

/// Waits by the descriptor alone for an event.
fn next_readable(selector: &mut Selector, readiness: &Readiness) -> (usize, Vec<u8>) {
    let mut found = None;
    while found.is_none() {
        assert!(is_readable(readiness, 30_000));
        selector.poll(1, Duration::ZERO, |token, event| found = Some((token, text(&event))));
    }
    found.expect("an event")
}

#[test]
fn the_descriptor_is_readable_when_there_is_something() {
    over(&LASTING, |mut selector| {
        let mut senders = add_many(&mut selector, 5);
        let readiness = selector.readiness().unwrap();
        for round in 0..100_u8 {
            for token in [4, usize::from(round % 4)] {
                senders[token].send(&[round]).unwrap();
                assert_eq!(next_readable(&mut selector, &readiness), (token, vec![round]));
            }
        }
        // Those added later, and those that come from elsewhere.
        let (mut late, receiver) = one_way();
        late.send(b"late").unwrap();
        assert_eq!(selector.add(receiver), 5);
        assert_eq!(next_readable(&mut selector, &readiness), (5, b"late".to_vec()));
        let sending = thread::spawn(move || {
            late.send(b"later").unwrap();
            late
        });
        assert_eq!(next_readable(&mut selector, &readiness), (5, b"later".to_vec()));
        drop(sending.join().unwrap());
        assert_eq!(
            next_readable(&mut selector, &readiness),
            (5, RecvError::Disconnected.to_string().into_bytes())
        );
    });
}

#[test]
fn the_descriptor_stays_readable_while_messages_are_left_and_no_longer() {
    over(&LASTING, |mut selector| {
        let mut senders = add_many(&mut selector, 3);
        let readiness = selector.readiness().unwrap();
        assert_eq!(selector.poll(1, Duration::ZERO, |_, _| ()), 0);
        for number in 0..10_u64 {
            senders[1].send_pod(&number).unwrap();
        }
        // The first wake may still be on its way.
        assert!(is_readable(&readiness, 30_000));
        while selector.poll(1, Duration::ZERO, |_, _| ()) == 0 {}
        for _ in 1..10 {
            assert!(is_readable(&readiness, 0), "there is more");
            assert_eq!(selector.poll(1, Duration::ZERO, |_, _| ()), 1);
        }
        // Now and then it is readable for nothing, but not always.
        let mut unreadable = false;
        while !unreadable {
            assert_eq!(selector.poll(1, Duration::ZERO, |_, _| ()), 0);
            unreadable = !is_readable(&readiness, 0);
        }
    });
}

/// An executor: runs a future in this thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return result;
        }
        thread::park();
    }
}

#[test]
fn a_future_is_ready_when_there_is_something() {
    over(&LASTING, |mut selector| {
        let mut senders = add_many(&mut selector, 5);
        let readiness = selector.readiness().unwrap();
        let (asks, asked) = mpsc::channel();
        let sending = thread::spawn(move || {
            for number in asked {
                senders[number as usize % 5].send_pod(&number).unwrap();
            }
        });
        for number in 0..100_u64 {
            // Waits, most of the time: nothing has been sent yet.
            asks.send(number).unwrap();
            let mut heard = false;
            while !heard {
                block_on(readiness.readable()).unwrap();
                selector.poll(1, Duration::ZERO, |token, event| {
                    assert_eq!(token, number as usize % 5);
                    assert_eq!(text(&event), number.to_ne_bytes());
                    heard = true;
                });
            }
        }
        drop(asks);
        sending.join().unwrap();
    });
}

#[test]
fn a_receiver_needs_no_descriptor() {
    if !plugin::alone("a_receiver_needs_no_descriptor") {
        return;
    }
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    over(&ALL, |mut selector| {
        let before = open();
        let mut senders = add_many(&mut selector, 200);
        settle(&mut selector);
        assert_eq!(open(), before);
        senders[123].send(b"heard").unwrap();
        assert_eq!(next(&mut selector), (123, b"heard".to_vec()));
    });
}

#[test]
fn a_selector_of_futexes_has_no_descriptor_and_one_that_chooses_has() {
    let mut futexes = Selector::with_backend(WaitBackend::Futexes).unwrap();
    let error = futexes.readiness().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
    let mut selector = Selector::new();
    let mut senders = add_many(&mut selector, 2);
    settle(&mut selector);
    let readiness = selector.readiness().unwrap();
    assert_ne!(selector.backend(), WaitBackend::Futexes);
    senders[1].send(b"heard").unwrap();
    assert_eq!(next_readable(&mut selector, &readiness), (1, b"heard".to_vec()));
}

#[test]
fn a_selector_that_grows_changes_its_way_of_waiting_and_loses_nothing() {
    let mut selector = Selector::new();
    let mut senders = Vec::new();
    for count in 0..200_usize {
        let (sender, receiver) = one_way();
        assert_eq!(selector.add(receiver), count);
        senders.push(sender);
        assert_eq!(selector.poll(1, Duration::from_micros(100), |_, _| ()), 0);
        senders[count / 2].send(b"heard").unwrap();
        assert_eq!(next(&mut selector), (count / 2, b"heard".to_vec()));
    }
    assert_ne!(selector.backend(), WaitBackend::Futexes);
}

#[test]
fn a_selector_may_move_to_another_thread_while_all_sleep() {
    over(&ALL, |mut selector| {
        let mut senders = add_many(&mut selector, 140);
        for token in [5, 139, 5] {
            let moved = thread::spawn(move || {
                settle(&mut selector);
                selector
            });
            selector = moved.join().unwrap();
            senders[token].send(b"heard").unwrap();
            assert_eq!(next(&mut selector), (token, b"heard".to_vec()));
        }
    });
}

/// A caller that catches its own panic goes on with all its receivers.
#[test]
fn f42_a_callback_that_panics_loses_no_receiver() {
    over(&ALL, |mut selector| {
        let mut senders = add_many(&mut selector, 2);
        for (token, sender) in senders.iter_mut().enumerate() {
            sender.send(&[token as u8]).unwrap();
        }
        let panic = |selector: &mut Selector| {
            let panics = |_: usize, _: Event<'_>| std::panic::resume_unwind(Box::new("on purpose"));
            let poll = std::panic::AssertUnwindSafe(|| selector.poll(1, NEVER, panics));
            assert!(std::panic::catch_unwind(poll).is_err());
        };
        panic(&mut selector);
        // The message at hand is gone; both receivers are still asked.
        assert_eq!(next(&mut selector), (1, vec![1]));
        senders[0].send(&[7]).unwrap();
        assert_eq!(next(&mut selector), (0, vec![7]));
        senders.clear();
        // An end that could not be told is told again.
        panic(&mut selector);
        let mut ended = 0;
        while !selector.is_finished() {
            ended += selector.poll(1, NEVER, |_, _| ());
        }
        assert_eq!(ended, 2);
    });
}
