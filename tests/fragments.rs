//! Messages longer than a record, over real segments, in threads and in processes.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::io::IoSlice;
use std::thread;
use std::time::Duration;

use common::pieces::{bare, options, pair, payload};
use common::plugin::{self, NEVER};
use common::random::{self, Random};
use ringway::channel::{Event, Selector};
use ringway::error::{
    RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};
use ringway::host::PluginState;
use ringway::layout::{fragment, record};
use ringway::memory::MappedMemory;
use ringway::ring::{Fragments, Producer, RecordKind};

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    plugin::run_role();
}

#[test]
fn all_lengths_around_every_limit() {
    for capacity in [256, 4096] {
        let (mut host, mut plugin) = pair(capacity);
        let half = capacity as usize / 2;
        let lens: Vec<usize> =
            (half - 20..half + 20).chain([2 * half - 1, 2 * half, 9 * half, 40 * half]).collect();
        let expected = lens.clone();
        let sending = thread::spawn(move || {
            for len in lens {
                host.sender().send_tagged(len as u16, &payload(len as u64, len)).unwrap();
            }
            host
        });
        for len in expected {
            let message = plugin.recv().unwrap();
            assert_eq!(message.tag(), len as u16);
            assert_eq!(&*message, payload(len as u64, len), "{len} bytes");
        }
        let host = sending.join().unwrap();
        drop(host);
        assert_eq!(plugin.recv(), Err(RecvError::Disconnected));
        assert_eq!(plugin.receiver().stats().dropped_partial, 0);
    }
}

#[test]
fn a_message_of_16_mib_through_a_ring_of_64_kib_between_processes() {
    let host = plugin::host();
    let spec = plugin::spec("echo", "echo").channel_options(options(64 << 10));
    let handle = host.spawn(spec).unwrap();
    let (mut active, _) = handle.take_channels().unwrap();
    for seed in 0..2 {
        let question = payload(seed, 16 << 20);
        active.sender().send_tagged(9, &question).unwrap();
        let answer = active.recv_timeout(NEVER).unwrap();
        assert_eq!(answer.tag(), 9);
        assert!(*answer == *question, "the content differs");
    }
    assert_eq!(active.sender().stats().messages, 2);
    assert_eq!(active.receiver().stats().messages, 2);
    assert_eq!(active.receiver().stats().bytes, 32 << 20);
}

#[test]
fn every_way_to_send_and_to_receive() {
    let (mut host, plugin) = pair(1024);
    let (_, mut receiver) = plugin.split();
    let long = payload(1, 5000);
    let strings = vec![String::from_utf8(vec![b'x'; 3000]).unwrap(); 2];
    let sending = {
        let (long, strings) = (long.clone(), strings.clone());
        thread::spawn(move || {
            let sender = host.sender();
            sender.send_deadline(1, &long, ringway::memory::Deadline::NEVER).unwrap();
            sender.send_timeout(&long, NEVER).unwrap();
            let (a, b) = long.split_at(13);
            let (b, c) = b.split_at(2001);
            let parts = [IoSlice::new(a), IoSlice::new(&[]), IoSlice::new(b), IoSlice::new(c)];
            sender.send_vectored(7, &parts).unwrap();
            sender.send_pod::<[u64; 256]>(&[3; 256]).unwrap();
            sender.send_archived(&strings).unwrap();
            assert_eq!(sender.send_batch([b"a", &long[..], b"b", b"c", &long[..]]), Ok(5));
            assert_eq!(sender.send_batch([&long[..], &long[..], b"end"]), Ok(3));
        })
    };
    assert_eq!(&*receiver.recv_owned().unwrap(), long);
    let mut short = [0; 4999];
    let found = receiver.recv_into(&mut short).unwrap_err();
    assert_eq!(found, RecvError::Mismatch { found: 5000, expected: 4999 });
    assert_eq!(receiver.recv_pod::<u64>(), Err(RecvError::Mismatch { found: 5000, expected: 8 }));
    let mut fitting = [0; 5001];
    assert_eq!(receiver.recv_into(&mut fitting), Ok((5000, 0)));
    assert_eq!(fitting[..5000], long);
    let message = receiver.recv_timeout(NEVER).unwrap();
    assert_eq!((message.tag(), message.bytes()), (7, &long[..]));
    assert_eq!(receiver.recv_pod::<[u64; 256]>(), Ok([3; 256]));
    let found = receiver.recv_archived::<Vec<String>>().unwrap();
    assert_eq!(found.as_slice(), &strings[..]);
    let mut got = Vec::new();
    while got.len() < 5 {
        receiver.recv_batch(5 - got.len(), |message| got.push(message.bytes().to_vec())).unwrap();
    }
    assert_eq!(got, [b"a", &long[..], b"b", b"c", &long[..]]);
    let skipped = |receiver: &mut ringway::channel::Receiver| {
        while receiver.skip() == Err(TryRecvError::Empty) {
            thread::yield_now();
        }
    };
    skipped(&mut receiver);
    // SAFETY: the peer is this process, and follows the protocol.
    let mut trusted = unsafe { receiver.trust_peer() };
    assert_eq!(&*trusted.recv_in_place().unwrap(), long);
    assert_eq!(&*trusted.recv_in_place().unwrap(), b"end");
    sending.join().unwrap();
}

#[test]
fn a_selector_hands_out_whole_messages() {
    let (mut host, plugin) = pair(1024);
    let (mut other_host, other) = pair(1024);
    let mut selector = Selector::new();
    let (token, other) = (selector.add(plugin.split().1), selector.add(other.split().1));
    let long = payload(4, 100_000);
    let sent = long.clone();
    let sending = thread::spawn(move || host.send(&sent).map(|()| host));
    other_host.send(b"short").unwrap();
    let mut found = Vec::new();
    while found.len() < 2 {
        selector.poll(1, NEVER, |from, event| match event {
            Event::Message(message) => found.push((from, message.bytes().to_vec())),
            Event::Error(error) => panic!("{error}"),
        });
    }
    found.sort();
    assert!(found == [(token, long), (other, b"short".to_vec())]);
    sending.join().unwrap().unwrap();
}

#[test]
fn what_must_be_one_record_is_told_how_long_that_is() {
    let (mut host, mut plugin) = pair(256);
    assert_eq!(host.sender().max_record_bytes(), 120);
    let long = [1; 121];
    let would = TrySendError::WouldFragment { len: 121, max: 120 };
    assert_eq!(host.try_send(&long), Err(would));
    assert_eq!(host.sender().try_send_vectored(0, &[IoSlice::new(&long)]), Err(would));
    let too_long = SendError::TooLong { len: 121, max: 120 };
    assert_eq!(host.sender().reserve(121).unwrap_err(), too_long);
    assert_eq!(host.sender().try_reserve(121).unwrap_err(), too_long.into());
    let mut batch = host.sender().batch().unwrap();
    assert_eq!(batch.push(&long), Err(too_long.into()));
    assert_eq!(batch.commit(), 0);
    assert!(matches!(plugin.try_recv(), Err(TryRecvError::Empty)));
    host.try_send(&long[..120]).unwrap();
    assert_eq!(plugin.recv().unwrap().len(), 120);
}

#[test]
fn a_sender_that_runs_out_of_time_midway_takes_it_back() {
    for abort_fits in [true, false] {
        let (mut host, mut plugin) = pair(1024);
        if !abort_fits {
            // Pieces take 128 bytes, so that of 1024 less 112 not even an abort's 24 are left.
            host.send(&[0; 104]).unwrap();
        }
        let found = host.send_timeout(&[7; 5000], Duration::from_millis(1));
        assert_eq!(found, Err(SendTimeoutError::Timeout));
        assert_eq!(host.try_send(&[0; 400]), Err(TrySendError::Full));
        if !abort_fits {
            assert_eq!(plugin.recv().unwrap().len(), 104);
        }
        assert!(matches!(plugin.try_recv(), Err(TryRecvError::Empty)));
        assert_eq!(plugin.receiver().stats().dropped_partial, u64::from(abort_fits));
        // Every way to send pays what is owed first.
        match abort_fits {
            true => host.try_send(b"next").unwrap(),
            false => {
                let mut batch = host.sender().batch().unwrap();
                batch.push(b"next").unwrap();
                batch.commit();
            }
        }
        assert_eq!(&*plugin.recv().unwrap(), b"next");
        assert_eq!(plugin.receiver().stats().dropped_partial, 1);
        assert_eq!(host.sender().stats().messages, 1 + u64::from(!abort_fits));
        assert!(matches!(plugin.try_recv(), Err(TryRecvError::Empty)));
    }
}

#[test]
fn a_receiver_that_runs_out_of_time_midway_goes_on_later() {
    let (mut host, mut producer, _segment) = bare(1024);
    let long = payload(3, 700);
    let parts = [IoSlice::new(&long)];
    let mut pieces = Fragments::new(RecordKind::Data, 5, &parts);
    while !pieces.try_push_next(&mut producer).unwrap() {
        let found = host.recv_timeout(Duration::from_micros(10));
        assert_eq!(found, Err(RecvTimeoutError::Timeout));
        assert!(matches!(host.try_recv(), Err(TryRecvError::Empty)));
    }
    let message = host.recv_timeout(NEVER).unwrap();
    assert_eq!((message.tag(), message.bytes()), (5, &long[..]));
    assert_eq!(host.receiver().stats().dropped_partial, 0);
}

#[test]
fn one_call_goes_over_no_more_than_a_ring_full() {
    let (mut host, mut producer, _segment) = bare(256);
    let word = |flags, number| fragment::pack(number, record::DATA * (flags & 1), flags);
    // A beginning that never goes on, over and over.
    for _ in 0..100 {
        let begin = |producer: &mut Producer<MappedMemory>| {
            producer.try_push_kind(RecordKind::Fragment, word(1, 100), 0, b"begun")
        };
        while begin(&mut producer).is_ok() {}
        assert!(matches!(host.try_recv(), Err(TryRecvError::Empty)));
        assert!(producer.has_room(producer.tail().wrapping_sub(256 - 32)).unwrap());
    }
    assert!(host.receiver().stats().dropped_partial >= 500);
}

/// A plugin that echoes long messages is killed at random, in the middle of one most of the time.
/// What arrives is whole and in order; what it was killed over may be lost, and is sent again.
#[test]
fn f43_killed_at_random_nothing_is_torn() {
    let kills = random::number("RINGWAY_KILLS").unwrap_or(2_000_u64).div_ceil(100);
    let mut random = Random::new(random::seed());
    let host = plugin::host();
    let spec = plugin::spec("echo", "echo")
        .channel_options(options(16 << 10))
        .restart(plugin::restarts(u32::MAX));
    let handle = host.spawn(spec).unwrap();
    let (mut active, _) = handle.take_channels().unwrap();
    let (mut killed, mut told, mut answered, mut number) = (0, 0, 0, 0_u64);
    while killed < kills || answered == 0 {
        number += 1;
        let len = 100_000 + random.below(100_000) as usize;
        let message = payload(number, len);
        // Not to wait for anything, but to kill at another instant each time.
        let pause = Duration::from_micros(random.below(600));
        let (sent, dies) = thread::scope(|scope| {
            let killer = scope.spawn(|| {
                thread::sleep(pause);
                // One that is being started tells nobody of its death.
                let runs = handle.state() == PluginState::Running;
                runs && number.is_multiple_of(2) && killed < kills && handle.kill().is_ok()
            });
            let sent = active.sender().send_tagged(number as u16, &message);
            (sent, killer.join().unwrap())
        });
        killed += u64::from(dies);
        assert!(matches!(sent, Ok(()) | Err(SendError::Restarted { .. })), "{sent:?}");
        // Until the receiver has heard of every death, and of the answer where there must be one.
        let mut open = sent.is_ok() && !dies;
        while told < killed || open {
            match active.recv_timeout(NEVER) {
                Ok(answer) => {
                    let expected = payload(u64::from(answer.tag()), answer.len());
                    assert!(*answer == *expected, "an answer is torn");
                    open &= answer.tag() != number as u16;
                    answered += 1;
                }
                Err(RecvTimeoutError::Restarted { .. }) => told += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }
    println!("{killed} plugins killed, {answered} answers whole");
}
