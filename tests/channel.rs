//! The channel's ends over a real segment, in two threads.

#![allow(unsafe_code)]

use std::io::IoSlice;
use std::thread;
use std::time::Duration;

use ringway::channel::{Channel, ChannelOptions, Event, PeerState, Selector};
use ringway::error::{
    RecvError, RecvTimeoutError, SegmentError, SendError, SendTimeoutError, TryRecvError,
    TrySendError,
};
use ringway::memory::FenceMode;
use ringway::wakeup::WaitStrategy;

fn pair() -> (Channel, Channel) {
    Channel::pair(&ChannelOptions::default()).expect("a channel")
}

fn small(wait: WaitStrategy, fence: FenceMode) -> (Channel, Channel) {
    let options = ChannelOptions {
        capacity_bytes: 256,
        wait,
        fence: Some(fence),
        ..ChannelOptions::default()
    };
    Channel::pair(&options).expect("a channel")
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn messages_cross_both_ways_and_never_come_back_to_their_sender() {
    let (mut host, mut plugin) = pair();
    host.send(b"question").unwrap();
    assert!(matches!(host.try_recv(), Err(TryRecvError::Empty)));
    assert_eq!(&*plugin.recv().unwrap(), b"question");
    plugin.sender().send_tagged(7, b"answer").unwrap();
    let answer = host.recv().unwrap();
    assert_eq!((&*answer, answer.tag()), (&b"answer"[..], 7));
}

#[test]
fn every_strategy_and_fence_passes_a_sequence_through_a_tiny_ring() {
    for wait in [WaitStrategy::Spin, WaitStrategy::SpinThenPark, WaitStrategy::Park] {
        for fence in [FenceMode::Asymmetric, FenceMode::Real] {
            let (host, plugin) = small(wait, fence);
            let (mut sender, _back) = host.split();
            let (_forth, mut receiver) = plugin.split();
            let reader = thread::spawn(move || {
                for expected in 0..20_000_u64 {
                    assert_eq!(receiver.recv_pod::<u64>().unwrap(), expected);
                }
                assert_eq!(receiver.recv().unwrap_err(), RecvError::Disconnected);
            });
            for number in 0..20_000_u64 {
                sender.send_pod(&number).unwrap();
            }
            drop(sender);
            reader.join().unwrap();
        }
    }
}

#[test]
fn a_full_ring_says_so_and_keeps_its_deadline() {
    let (mut host, mut plugin) = small(WaitStrategy::SpinThenPark, FenceMode::Real);
    let mut sent = 0_u64;
    while host.sender().try_send_pod(&sent).is_ok() {
        sent += 1;
    }
    assert!(sent > 10);
    assert_eq!(host.try_send(&[0; 8]).unwrap_err(), TrySendError::Full);
    let timeout = Duration::from_millis(20);
    assert_eq!(host.send_timeout(&[0; 8], timeout).unwrap_err(), SendTimeoutError::Timeout);
    for expected in 0..sent {
        assert_eq!(plugin.recv_pod::<u64>().unwrap(), expected);
    }
    let found = plugin.recv_timeout(timeout).unwrap_err();
    assert_eq!(found, RecvTimeoutError::Timeout);
    host.send_timeout(&[0; 8], LONG).unwrap();
    assert!(host.sender().stats().times_full > 0);
}

#[test]
fn a_message_too_long_is_told_its_limit_and_nothing_is_sent() {
    // Less than goes in a record, and more.
    for max in [100, 1000] {
        let options = ChannelOptions {
            capacity_bytes: 256,
            max_message_bytes: max,
            ..ChannelOptions::default()
        };
        let (mut host, mut plugin) = Channel::pair(&options).unwrap();
        assert_eq!(host.sender().max_message_bytes(), max as usize);
        let long = vec![1; max as usize + 1];
        let found = host.send(&long).unwrap_err();
        assert_eq!(found, SendError::TooLong { len: max + 1, max });
        let found = host.try_send(&long).unwrap_err();
        assert_eq!(found, TrySendError::TooLong { len: max + 1, max });
        assert!(matches!(plugin.try_recv(), Err(TryRecvError::Empty)));
        let sending = thread::spawn(move || host.send(&long[1..]));
        assert_eq!(plugin.recv().unwrap().len(), max as usize);
        sending.join().unwrap().unwrap();
    }
}

#[test]
fn a_closed_sender_is_noticed_after_the_last_message() {
    let (host, mut plugin) = pair();
    let (mut sender, receiver) = host.split();
    sender.send(b"last").unwrap();
    sender.close();
    assert_eq!(&*plugin.recv().unwrap(), b"last");
    assert_eq!(plugin.recv().unwrap_err(), RecvError::Disconnected);
    plugin.send(b"still open the other way").unwrap();
    drop(receiver);
    assert_eq!(plugin.send(b"not any more").unwrap_err(), SendError::Disconnected);
    assert_eq!(plugin.peer_state(), PeerState::Closed);
}

#[test]
fn a_sleeping_receiver_is_woken_by_close() {
    for wait in [WaitStrategy::Park, WaitStrategy::SpinThenPark] {
        let (host, mut plugin) = small(wait, FenceMode::Asymmetric);
        let reader = thread::spawn(move || plugin.recv().map(|_| ()).unwrap_err());
        drop(host);
        assert_eq!(reader.join().unwrap(), RecvError::Disconnected);
    }
}

#[test]
fn a_message_of_another_shape_stays_in_the_ring() {
    let (mut host, mut plugin) = pair();
    host.send(b"seven b").unwrap();
    let wrong = RecvError::Mismatch { found: 7, expected: 8 };
    assert_eq!(plugin.recv_pod::<u64>().unwrap_err(), wrong);
    let mut short = [0; 3];
    let wrong = RecvError::Mismatch { found: 7, expected: 3 };
    assert_eq!(plugin.receiver().recv_into(&mut short).unwrap_err(), wrong);
    let found = plugin.receiver().recv_archived::<Vec<String>>().unwrap_err();
    assert_eq!(found, RecvError::Invalid);
    let mut long = [0; 10];
    assert_eq!(plugin.receiver().recv_into(&mut long).unwrap(), (7, 0));
    assert_eq!(&long[..7], b"seven b");
    host.send(&[2]).unwrap();
    assert_eq!(plugin.receiver().recv_checked::<bool>().unwrap_err(), RecvError::Invalid);
    plugin.receiver().skip().unwrap();
    host.send(&[1]).unwrap();
    assert!(plugin.receiver().recv_checked::<bool>().unwrap());
}

#[test]
fn structures_cross_as_archives() {
    let (mut host, mut plugin) = pair();
    let value = vec![String::from("first"), String::from("a second, longer than the inline one")];
    for _ in 0..3 {
        host.sender().send_archived(&value).unwrap();
        let archived = plugin.receiver().recv_archived::<Vec<String>>().unwrap();
        assert!(archived.iter().zip(&value).all(|(there, here)| there.as_str() == here));
        assert_eq!(archived.len(), 2);
    }
}

/// A list, as deep as it is long.
#[derive(rkyv::Archive, rkyv::Serialize)]
#[rkyv(bytecheck(bounds(__C: rkyv::validation::ArchiveContext)))]
#[rkyv(serialize_bounds(__S: rkyv::ser::Writer))]
enum List {
    End,
    More(#[rkyv(omit_bounds)] Box<List>),
}

fn list(depth: usize) -> List {
    (0..depth).fold(List::End, |list, _| List::More(Box::new(list)))
}

/// Checking recurses as deep as the value does: a peer must not choose how much stack that takes.
#[test]
fn f24_an_archive_that_is_too_deep_is_refused() {
    let (mut host, mut plugin) = pair();
    host.sender().send_archived(&list(200)).unwrap();
    assert!(plugin.receiver().recv_archived::<List>().is_ok());
    // Making and dropping it takes a stack of its own.
    let deep = std::thread::Builder::new().stack_size(256 << 20).spawn(move || {
        host.sender().send_archived(&list(10_000)).unwrap();
        host
    });
    let _host = deep.unwrap().join().unwrap();
    assert_eq!(plugin.receiver().recv_archived::<List>().err(), Some(RecvError::Invalid));
}

#[test]
fn reservations_and_vectors_and_batches_arrive_as_they_were_filled() {
    let (mut host, mut plugin) = pair();
    let mut slot = host.sender().reserve(10).unwrap();
    assert_eq!(slot.write(b"abc"), 3);
    slot.set_tag(3);
    slot.commit();
    let mut slot = host.sender().try_reserve(10).unwrap();
    assert_eq!(slot.write(b"abc"), 3);
    slot.commit_filled();
    drop(host.sender().reserve(100).unwrap());
    let parts = [IoSlice::new(b"one"), IoSlice::new(b""), IoSlice::new(b"two and three")];
    host.sender().send_vectored(9, &parts).unwrap();
    let mut batch = host.sender().batch().unwrap();
    batch.push(b"x").unwrap();
    batch.push_tagged(1, b"y").unwrap();
    assert_eq!(batch.commit(), 2);

    let first = plugin.recv().unwrap();
    assert_eq!((first.bytes(), first.tag()), (&b"abc\0\0\0\0\0\0\0"[..], 3));
    assert_eq!(plugin.recv().unwrap().bytes(), b"abc");
    let joined = plugin.recv_owned().unwrap();
    assert_eq!((&*joined, joined.tag()), (&b"onetwo and three"[..], 9));
    let mut seen = Vec::new();
    let taken = plugin.receiver().recv_batch(10, |m| seen.push((m.to_vec(), m.tag()))).unwrap();
    assert_eq!((taken, seen), (2, vec![(b"x".to_vec(), 0), (b"y".to_vec(), 1)]));
}

#[test]
fn a_dropped_batch_sends_nothing_and_a_long_one_goes_out_in_parts() {
    let (host, plugin) = small(WaitStrategy::SpinThenPark, FenceMode::Asymmetric);
    let (mut sender, _back) = host.split();
    let (_forth, mut receiver) = plugin.split();
    let mut batch = sender.batch().unwrap();
    batch.push(b"never").unwrap();
    drop(batch);
    let reader = thread::spawn(move || {
        (0..5_000_u64).all(|expected| receiver.recv_pod::<u64>().unwrap() == expected)
    });
    let numbers = (0..5_000_u64).map(u64::to_ne_bytes);
    assert_eq!(sender.send_batch(numbers).unwrap(), 5_000);
    assert!(reader.join().unwrap());
}

#[test]
fn trusted_ends_borrow_the_ring_itself() {
    let (host, plugin) = pair();
    let (sender, _back) = host.split();
    let (_forth, receiver) = plugin.split();
    // SAFETY: both ends are in this process and run this library.
    let mut sender = unsafe { sender.trust_peer() };
    // SAFETY: as above.
    let mut receiver = unsafe { receiver.trust_peer() };
    for round in 0..1000_usize {
        let len = 1 + round % 700;
        let mut slot = sender.reserve_in_place(len).unwrap();
        slot.as_mut_slice().fill(round as u8);
        slot.commit();
        let message = receiver.recv_in_place().unwrap();
        assert_eq!(message.bytes(), vec![round as u8; len]);
    }
}

#[test]
fn a_side_can_be_attached_once() {
    let host = Channel::anonymous(&ChannelOptions::default()).unwrap();
    assert_eq!(host.peer_state(), PeerState::Absent);
    assert!(host.wait_for_peer(Duration::from_millis(5)).is_err());
    let first = Channel::attach(host.descriptor().unwrap(), &ChannelOptions::default()).unwrap();
    host.wait_for_peer(LONG).unwrap();
    let second = Channel::attach(host.descriptor().unwrap(), &ChannelOptions::default());
    assert!(matches!(second, Err(SegmentError::AlreadyAttached)));
    // The failed attempt has not closed the first one's ends.
    assert_eq!(host.peer_state(), PeerState::Attached);
    drop(first);
}

#[test]
fn bad_capacities_are_told_what_would_be_right() {
    for capacity_bytes in [0, 1, 32, 100, 4097, 1 << 33, u64::MAX] {
        let options = ChannelOptions { capacity_bytes, ..ChannelOptions::default() };
        let error = Channel::anonymous(&options).unwrap_err();
        assert!(
            matches!(error, SegmentError::Capacity { found, min: 64, .. } if found == capacity_bytes)
        );
    }
    for payload_align in [0, 1, 4, 12, 128] {
        let options = ChannelOptions { payload_align, ..ChannelOptions::default() };
        let error = Channel::anonymous(&options).unwrap_err();
        assert!(matches!(error, SegmentError::Alignment { found } if found == payload_align));
    }
}

#[test]
fn a_selector_serves_all_its_receivers_and_tells_their_ends() {
    let mut selector = Selector::new();
    let mut hosts = Vec::new();
    for _ in 0..5 {
        let (host, plugin) = small(WaitStrategy::SpinThenPark, FenceMode::Asymmetric);
        let (_forth, receiver) = plugin.split();
        selector.add(receiver);
        hosts.push(host);
    }
    assert_eq!(selector.poll(4, Duration::from_millis(5), |_, _| ()), 0);
    let writer = thread::spawn(move || {
        for number in 0..2_000_u64 {
            for host in &mut hosts {
                host.send_pod(&number).unwrap();
            }
        }
    });
    let mut next = [0_u64; 5];
    let mut ended = 0;
    while !selector.is_finished() {
        selector.poll(4, LONG, |token, event| match event {
            Event::Message(message) => {
                assert_eq!(*message, next[token].to_ne_bytes());
                next[token] += 1;
            }
            Event::Error(error) => {
                assert_eq!(error, RecvError::Disconnected);
                ended += 1;
            }
        });
    }
    writer.join().unwrap();
    assert_eq!((next, ended), ([2_000; 5], 5));
}

#[test]
fn a_selector_gives_each_receiver_no_more_than_its_budget() {
    let (mut flooding, first) = pair();
    let (mut quiet, second) = pair();
    for number in 0..1_000_u64 {
        flooding.send_pod(&number).unwrap();
    }
    quiet.send(b"heard").unwrap();
    let mut selector = Selector::new();
    let (_a, first) = first.split();
    let (_b, second) = second.split();
    let (first, second) = (selector.add(first), selector.add(second));
    let mut counts = [0, 0];
    selector.poll(16, LONG, |token, _| counts[token] += 1);
    assert_eq!((counts[first], counts[second]), (16, 1));
}
