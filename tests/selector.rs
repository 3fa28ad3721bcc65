//! One behaviour of a selector, whatever it waits with.
//!
//! Each test runs over every backend that this system offers; those it does not are printed.

#![allow(unsafe_code)]

mod common;

use std::collections::HashMap;
use std::process;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::plugin::{self, NEVER};
use common::random::{self, Random};
use common::spoiling;
use common::victim::Victim;
use ringway::channel::{Channel, ChannelOptions, Event, Receiver, Selector, Sender, WaitBackend};
use ringway::error::RecvError;
use ringway::host::Plugin;
use ringway::layout::ring;
use ringway::memory::{Memory, Ordering};
use ringway::segment::AnonymousSegment;

/// Runs a test over each backend.
fn over_backends(test: impl Fn(Selector)) {
    for backend in [WaitBackend::Futexes, WaitBackend::Uring, WaitBackend::Threads] {
        match Selector::with_backend(backend) {
            Ok(selector) => {
                println!("{backend:?}");
                assert_eq!(selector.backend(), backend);
                test(selector);
            }
            Err(error) => println!("skipped: {backend:?}: {error}"),
        }
    }
    println!("the selector's own choice");
    test(Selector::new());
}

fn options() -> ChannelOptions {
    ChannelOptions { capacity_bytes: 1024, ..ChannelOptions::default() }
}

/// A sender and the receiver at its other side; what goes back is not used.
fn one_way() -> (Sender, Receiver) {
    let (near, far) = Channel::pair(&options()).expect("a channel");
    (near.split().0, far.split().1)
}

fn add_many(selector: &mut Selector, count: usize) -> Vec<Sender> {
    let many = (0..count).map(|index| {
        let (sender, receiver) = one_way();
        assert_eq!(selector.add(receiver), index);
        sender
    });
    many.collect()
}

/// The only event, which must be a message: its token and bytes.
fn next(selector: &mut Selector) -> (usize, Vec<u8>) {
    let mut found = Vec::new();
    assert_eq!(selector.poll(1, NEVER, |token, event| found.push((token, bytes(&event)))), 1);
    found.remove(0)
}

fn bytes(event: &Event<'_>) -> Vec<u8> {
    match event {
        Event::Message(message) => message.to_vec(),
        Event::Error(error) => panic!("{error}"),
    }
}

fn number(event: &Event<'_>) -> u64 {
    u64::from_ne_bytes(bytes(event).try_into().expect("eight bytes"))
}

/// Everything there is to say until all have ended: what each said last.
fn ends(selector: &mut Selector) -> HashMap<usize, RecvError> {
    let mut ends = HashMap::new();
    while !selector.is_finished() {
        selector.poll(16, NEVER, |token, event| {
            if let Event::Error(error) = event {
                assert!(ends.insert(token, error).is_none(), "{token} has ended twice");
            }
        });
    }
    ends
}

#[test]
fn messages_of_each_receiver_come_in_order_and_within_its_budget() {
    const MESSAGES: u64 = 300;
    const BUDGET: usize = 7;
    over_backends(|mut selector| {
        let senders = add_many(&mut selector, 150);
        let writer = thread::spawn(move || {
            let mut senders = senders;
            for number in 0..MESSAGES {
                senders.iter_mut().for_each(|sender| sender.send_pod(&number).unwrap());
            }
        });
        let mut next = [0; 150];
        while !selector.is_finished() {
            let mut round = [0; 150];
            selector.poll(BUDGET, NEVER, |token, event| {
                if let Event::Error(error) = event {
                    return assert_eq!(error, RecvError::Disconnected);
                }
                assert_eq!(number(&event), next[token]);
                next[token] += 1;
                round[token] += 1;
            });
            assert!(round.iter().all(|count| *count <= BUDGET), "{round:?}");
        }
        assert_eq!(next, [MESSAGES; 150]);
        writer.join().unwrap();
    });
}

#[test]
fn f40_floods_keep_nobody_from_being_heard() {
    over_backends(|mut selector| {
        let senders = add_many(&mut selector, 60);
        let (stop, stopped) = mpsc::channel::<()>();
        let (quiet, floods) = {
            let mut senders = senders.into_iter();
            (senders.next().unwrap(), senders)
        };
        let flooding = thread::spawn(move || {
            let mut floods: Vec<_> = floods.collect();
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                for sender in &mut floods {
                    while sender.try_send_pod(&0_u64).is_ok() {}
                }
            }
        });
        let mut quiet = quiet;
        for number in 0..50_u64 {
            quiet.send_pod(&number).unwrap();
            let mut heard = false;
            // It is asked in every round, or woken before the next.
            while !heard {
                selector.poll(4, NEVER, |token, event| {
                    heard |= token == 0 && bytes(&event) == number.to_ne_bytes()
                });
            }
        }
        drop(stop);
        flooding.join().unwrap();
    });
}

#[test]
fn of_many_sleepers_the_one_that_was_woken_is_dispatched() {
    over_backends(|mut selector| {
        let mut senders = add_many(&mut selector, 1000);
        assert_eq!(selector.poll(1, Duration::ZERO, |_, _| ()), 0);
        let (asks, asked) = mpsc::channel::<usize>();
        let answering = thread::spawn(move || {
            for token in asked {
                senders[token].send_pod(&(token as u64)).unwrap();
            }
            senders
        });
        let seed = random::seed();
        let mut random = Random::new(seed);
        for _ in 0..300 {
            let token = random.below(1000) as usize;
            asks.send(token).unwrap();
            assert_eq!(next(&mut selector), (token, (token as u64).to_ne_bytes().to_vec()));
        }
        drop(asks);
        let mut senders = answering.join().unwrap();
        // All at once.
        senders.iter_mut().for_each(|sender| sender.send(b"all").unwrap());
        let mut heard = vec![0; 1000];
        while heard.iter().sum::<u32>() < 1000 {
            selector.poll(1, NEVER, |token, _| heard[token] += 1);
        }
        assert_eq!(heard, [1; 1000]);
    });
}

#[test]
fn receivers_come_and_go_while_others_are_busy() {
    let seed = random::seed();
    over_backends(|mut selector| {
        let mut random = Random::new(seed);
        // By token: the sender, what it sends next, and what is expected next.
        let mut open: HashMap<usize, (Sender, u64, u64)> = HashMap::new();
        let mut aside: Vec<(Receiver, Sender, u64, u64)> = Vec::new();
        for _ in 0..4000 {
            let tokens: Vec<usize> = open.keys().copied().collect();
            match random.below(10) {
                0 if open.len() < 200 => {
                    let (receiver, sender, sent, expected) = aside.pop().unwrap_or_else(|| {
                        let (sender, receiver) = one_way();
                        (receiver, sender, 0, 0)
                    });
                    let token = selector.add(receiver);
                    assert!(open.insert(token, (sender, sent, expected)).is_none());
                }
                1 if open.len() > 20 => {
                    let token = tokens[random.below(tokens.len() as u64) as usize];
                    let receiver = selector.remove(token).expect("a receiver");
                    assert!(selector.remove(token).is_none());
                    let (sender, sent, expected) = open.remove(&token).unwrap();
                    if random.below(2) == 0 {
                        aside.push((receiver, sender, sent, expected));
                    }
                }
                2..6 if !tokens.is_empty() => {
                    let token = tokens[random.below(tokens.len() as u64) as usize];
                    let (sender, sent, _) = open.get_mut(&token).unwrap();
                    if sender.try_send_pod(sent).is_ok() {
                        *sent += 1;
                    }
                }
                _ => {
                    // Long enough to sleep, at times.
                    let timeout = Duration::from_micros(random.below(2) * 60);
                    selector.poll(3, timeout, |token, event| {
                        let (_, _, expected) = open.get_mut(&token).expect("it has not gone");
                        assert_eq!(number(&event), *expected);
                        *expected += 1;
                    });
                }
            }
            assert_eq!(selector.len(), open.len());
        }
        while open.values().any(|(_, sent, expected)| sent != expected) {
            selector.poll(3, NEVER, |token, event| {
                let (_, _, expected) = open.get_mut(&token).expect("it has not gone");
                assert_eq!(number(&event), *expected);
                *expected += 1;
            });
        }
    });
}

#[test]
fn closed_senders_are_told_once_and_after_their_last_message() {
    over_backends(|mut selector| {
        let mut senders = add_many(&mut selector, 140);
        assert_eq!(selector.poll(1, Duration::from_millis(1), |_, _| ()), 0);
        let mut last = senders.split_off(139);
        last[0].send(b"last").unwrap();
        let closing = thread::spawn(move || drop((senders, last)));
        let mut heard = false;
        while !heard {
            selector.poll(1, NEVER, |_, event| heard |= matches!(event, Event::Message(_)));
        }
        let ends = ends(&mut selector);
        closing.join().unwrap();
        assert!(ends.values().all(|end| *end == RecvError::Disconnected));
        assert_eq!(selector.poll(1, NEVER, |_, _| ()), 0, "all have ended");
    });
}

#[test]
fn a_timeout_is_never_short() {
    over_backends(|mut selector| {
        for count in [1, 200] {
            let _senders = add_many(&mut selector, count);
            for timeout in [Duration::ZERO, Duration::from_micros(300), Duration::from_millis(20)] {
                let started = Instant::now();
                assert_eq!(selector.poll(1, timeout, |_, _| ()), 0);
                assert!(started.elapsed() >= timeout);
            }
            (0..count).for_each(|token| drop(selector.remove(token)));
            assert_eq!(selector.poll(1, NEVER, |_, _| ()), 0, "nobody to wait for");
        }
    });
}

#[test]
fn a_death_is_told_to_a_sleeper() {
    over_backends(|mut selector| {
        let mut senders = add_many(&mut selector, 130);
        let mut channel = Channel::anonymous(&options()).unwrap();
        let descriptor = channel.descriptor().unwrap();
        let victim = Victim::start(|| {
            let mut peer = Channel::attach(descriptor, &options()).unwrap();
            peer.send(b"alive").unwrap();
            let _ = peer.recv();
        });
        channel.watch_peer_id(victim.id()).unwrap();
        let (_sender, receiver) = channel.split();
        let token = selector.add(receiver);
        assert_eq!(next(&mut selector), (token, b"alive".to_vec()));
        assert_eq!(selector.poll(1, Duration::from_millis(2), |_, _| ()), 0);
        drop(victim);
        let mut end = None;
        while end.is_none() {
            selector.poll(1, NEVER, |token, event| end = Some((token, format!("{event:?}"))));
        }
        assert_eq!(end.unwrap(), (token, "Error(Disconnected)".into()));
        senders[77].send(b"still here").unwrap();
        assert_eq!(next(&mut selector).0, 77);
    });
}

/// The roles of this binary as a plugin.
#[test]
fn plugin_entry() {
    if std::env::var("RINGWAY_TEST_ROLE").as_deref() == Ok("spoil-and-live") {
        let fd = spoiling::reopen("active");
        let segment = AnonymousSegment::attach(fd).unwrap();
        let plugin = Plugin::connect().unwrap();
        let (mut active, _passive) = plugin.take_channels().unwrap();
        while let Ok(message) = active.recv_owned() {
            if &*message == b"spoil" {
                // Or the next incarnation would get it again.
                active.receiver().release();
                let data = segment.geometry().layout().unwrap().data[1];
                for offset in (data..data + 1024).step_by(8) {
                    segment.memory().store_u64(offset, u64::MAX, Ordering::Relaxed);
                }
                let word = ring::CONTROL[1] + ring::CONSUMER_WAITING;
                segment.memory().store_u32(word, 0, Ordering::Relaxed);
                segment.memory().wake_u32(word, 1);
                plugin::hang();
            }
            // A kill between the answer and the next receive would deliver the message again.
            active.receiver().release();
            active.send(&message).unwrap();
        }
        process::exit(0);
    }
    plugin::run_role();
}

#[test]
fn a_restart_is_followed_and_corruption_ends_with_its_incarnation() {
    over_backends(|mut selector| {
        let _senders = add_many(&mut selector, 130);
        let host = plugin::host();
        let spec = plugin::spec("mortal", "spoil-and-live").restart(plugin::restarts(20));
        let handle = host.spawn(spec).unwrap();
        let (active, _passive) = handle.take_channels().unwrap();
        let (mut sender, receiver) = active.split();
        let token = selector.add(receiver);
        let mut say = |bytes: &[u8]| while sender.send(bytes).is_err() {};
        say(b"one");
        assert_eq!(next(&mut selector), (token, b"one".to_vec()));
        handle.kill().unwrap();
        let error = |selector: &mut Selector| {
            let mut found = None;
            while found.is_none() {
                selector.poll(1, NEVER, |from, event| {
                    assert_eq!(from, token);
                    let Event::Error(error) = event else { panic!("{event:?}") };
                    found = Some(error);
                });
            }
            found.unwrap()
        };
        assert_eq!(error(&mut selector), RecvError::Restarted { reason: plugin::KILLED });
        say(b"two");
        assert_eq!(next(&mut selector), (token, b"two".to_vec()));
        for _ in 0..2 {
            assert_eq!(selector.poll(1, Duration::from_millis(1), |_, _| ()), 0);
            say(b"spoil");
            assert!(matches!(error(&mut selector), RecvError::Corrupt(_)));
            // Told once, while the plugin lives on.
            assert_eq!(selector.poll(1, Duration::from_millis(5), |_, _| ()), 0);
            assert!(!selector.is_finished());
            handle.kill().unwrap();
            assert_eq!(error(&mut selector), RecvError::Restarted { reason: plugin::KILLED });
            say(b"three");
            assert_eq!(next(&mut selector), (token, b"three".to_vec()));
        }
        say(b"spoil");
        assert!(matches!(error(&mut selector), RecvError::Corrupt(_)));
        handle.terminate().unwrap();
        assert_eq!(error(&mut selector), RecvError::Disconnected);
    });
}
