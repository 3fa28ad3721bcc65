//! What becomes of a message that is offered to a ring without room for it.
#![cfg(not(loom))]
#![allow(unsafe_code, missing_docs)]

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::victim::Victim;
use ringway::channel::{
    Channel, ChannelOptions, Offered, PeerState, SendPolicy, Sender, TypedChannel,
};
use ringway::error::OfferError;
use ringway::layout::ring;
use ringway::memory::{Memory, Ordering};
use ringway::ring::{Producer, RingGeometry};
use ringway::segment::AnonymousSegment;
use ringway::typed::Pod;

const LONG: Duration = Duration::from_secs(20);
const POLICIES: [SendPolicy; 4] = [
    SendPolicy::Block,
    SendPolicy::BlockFor(Duration::from_millis(2)),
    SendPolicy::Fail,
    SendPolicy::DropNewest,
];

fn options() -> ChannelOptions {
    ChannelOptions { capacity_bytes: 256, max_message_bytes: 4096, ..ChannelOptions::default() }
}

fn pair() -> (Channel, Channel) {
    Channel::pair(&options()).expect("a channel")
}

/// Fills the ring with numbers from 0 on; returns how many.
fn fill(sender: &mut Sender) -> u64 {
    (0..).find(|number| sender.try_send_pod::<u64>(number).is_err()).expect("rings are finite")
}

/// What a tool sees that maps the segment: drops in the creator's outgoing ring.
fn published(channel: &Channel) -> u64 {
    let descriptor = channel.descriptor().expect("a descriptor");
    let segment = AnonymousSegment::attach(descriptor).expect("the segment");
    segment.memory().load_u64(ring::CONTROL[0] + ring::PRODUCER_DROPPED, Ordering::Relaxed)
}

#[test]
fn with_room_every_policy_sends() {
    for policy in POLICIES {
        let (near, mut far) = pair();
        let mut near = near.with_policy(policy);
        assert_eq!(near.sender().policy(), policy);
        // Over the end of the ring, many times.
        for number in 0..200_u64 {
            let sent = near.sender().offer_tagged(number as u16, &number.to_ne_bytes());
            assert_eq!(sent, Ok(Offered::Sent));
            let message = far.recv().unwrap();
            assert_eq!((&*message, message.tag()), (&number.to_ne_bytes()[..], number as u16));
        }
        assert_eq!(near.sender().stats().dropped, 0);
    }
}

#[test]
fn block_waits_for_room() {
    let (mut near, mut far) = pair();
    assert_eq!(near.sender().policy(), SendPolicy::Block);
    let filled = fill(near.sender());
    let sending = thread::spawn(move || (near.offer(&filled.to_ne_bytes()), near));
    for expected in 0..=filled {
        assert_eq!(far.receiver().recv_timeout(LONG).unwrap()[..], expected.to_ne_bytes());
    }
    let (sent, mut near) = sending.join().unwrap();
    assert_eq!((sent, near.sender().stats().dropped), (Ok(Offered::Sent), 0));
}

#[test]
fn block_for_waits_so_long() {
    let timeout = Duration::from_millis(20);
    let (near, mut far) = pair();
    let mut near = near.with_policy(SendPolicy::BlockFor(timeout));
    let filled = fill(near.sender());
    let begun = Instant::now();
    assert_eq!(near.offer(b"no room"), Err(OfferError::Timeout));
    assert!(begun.elapsed() >= timeout, "it has waited");
    // And no longer than it must, where room comes.
    near.sender().set_policy(SendPolicy::BlockFor(LONG));
    let sending = thread::spawn(move || near.offer(b"room"));
    for expected in 0..filled {
        assert_eq!(far.recv_pod::<u64>(), Ok(expected));
    }
    assert_eq!(&*far.recv_timeout(LONG).unwrap(), b"room");
    assert_eq!(sending.join().unwrap(), Ok(Offered::Sent));
}

#[test]
fn fail_says_that_the_ring_is_full() {
    let (near, mut far) = pair();
    let mut near = near.with_policy(SendPolicy::Fail);
    let filled = fill(near.sender());
    for _ in 0..3 {
        assert_eq!(near.offer(b"no room"), Err(OfferError::Full));
    }
    assert_eq!((near.sender().stats().dropped, published(&near)), (0, 0));
    for expected in 0..filled {
        assert_eq!(far.recv_pod::<u64>(), Ok(expected));
    }
    far.receiver().release();
    assert_eq!(near.offer(b"room"), Ok(Offered::Sent));
    assert_eq!(&*far.recv().unwrap(), b"room");
}

/// What is there stays and what comes is dropped; both sides of the count agree, and it goes on in a
/// successor.
#[test]
fn drop_newest_drops_and_counts_where_tools_see_it() {
    let (near, mut far) = pair();
    let mut near = near.with_policy(SendPolicy::DropNewest);
    let (mut offered, mut sent, mut received) = (0_u64, 0_u64, Vec::new());
    for round in 0..40 {
        for _ in 0..round {
            sent += u64::from(near.offer(&offered.to_ne_bytes()).unwrap().is_sent());
            offered += 1;
            let dropped = near.sender().stats().dropped;
            assert_eq!((sent + dropped, published(&near)), (offered, dropped));
        }
        let first = received.len();
        while let Ok(message) = far.try_recv() {
            received.push(u64::from_ne_bytes(message[..].try_into().unwrap()));
        }
        // The oldest ones, without a gap.
        assert!(received[first..].windows(2).all(|pair| pair[1] == pair[0] + 1));
        assert_eq!(received.len() as u64, sent);
    }
    let dropped = near.sender().stats().dropped;
    assert!(dropped > 100 && sent > 100);
    assert_eq!(near.sender().stats().messages, sent);
    let segment = AnonymousSegment::attach(near.descriptor().unwrap()).unwrap();
    let (memory, data) = (segment.memory(), segment.geometry().layout().unwrap().data[0]);
    let geometry = RingGeometry::new(memory, ring::CONTROL[0], data, 256, 8).unwrap();
    drop(near);
    let successor = Producer::attach(memory.clone(), geometry).unwrap();
    assert_eq!(successor.stats().dropped, dropped);
}

/// Nobody who must not wait sends fragments; nothing of the message is ever seen, nor counted.
#[test]
fn what_does_not_go_in_one_record_is_refused_or_waited_for() {
    let (mut near, mut far) = pair();
    let max = near.sender().max_record_bytes();
    let long = vec![7; max + 1];
    for policy in [SendPolicy::Fail, SendPolicy::DropNewest] {
        near.sender().set_policy(policy);
        let (len, max) = (long.len() as u64, max as u64);
        assert_eq!(near.offer(&long), Err(OfferError::WouldFragment { len, max }));
        let too_long = Err(OfferError::TooLong { len: 4097, max: 4096 });
        assert_eq!(near.offer(&[0; 4097]), too_long);
        assert_eq!(near.offer(&long[1..]), Ok(Offered::Sent));
        assert_eq!(far.recv().unwrap().len(), long.len() - 1);
        far.receiver().release();
    }
    for policy in [SendPolicy::Block, SendPolicy::BlockFor(LONG)] {
        let message = vec![7; 4096];
        near.sender().set_policy(policy);
        let sending = thread::spawn(move || (near.offer(&message), near));
        assert_eq!(far.recv_timeout(LONG).unwrap().len(), 4096);
        let sent;
        (sent, near) = sending.join().unwrap();
        assert_eq!(sent, Ok(Offered::Sent));
    }
    near.sender().set_policy(SendPolicy::BlockFor(Duration::from_millis(2)));
    assert_eq!(near.offer(&[7; 4096]), Err(OfferError::Timeout));
    assert_eq!((near.sender().stats().dropped, published(&near)), (0, 0));
    assert!(far.try_recv().is_err(), "the half message is not one");
}

#[test]
fn a_closed_peer_is_an_error_and_no_drop() {
    for (policy, full) in POLICIES.into_iter().flat_map(|policy| [(policy, false), (policy, true)])
    {
        let (near, far) = pair();
        let mut near = near.with_policy(policy);
        if full {
            fill(near.sender());
        }
        drop(far);
        assert_eq!(near.offer(b"to nobody"), Err(OfferError::Disconnected), "{policy:?} {full}");
        assert_eq!((near.sender().stats().dropped, published(&near)), (0, 0));
    }
}

#[test]
fn a_dead_peer_is_an_error_and_no_drop() {
    for (policy, full) in POLICIES.into_iter().flat_map(|policy| [(policy, false), (policy, true)])
    {
        let near = Channel::anonymous(&options()).unwrap();
        let mut near = near.with_policy(policy);
        let descriptor = near.descriptor().unwrap();
        let mut far = Victim::start(move || {
            let _far = Channel::attach(descriptor, &options()).unwrap();
            loop {
                // SAFETY: the call takes nothing.
                unsafe { libc::pause() };
            }
        });
        near.wait_for_peer(LONG).unwrap();
        near.watch_peer_id(far.id()).unwrap();
        if full {
            fill(near.sender());
        }
        far.kill();
        if policy != SendPolicy::Block || !full {
            // Whoever does not wait, or not for long, does not wait for the news either.
            while !matches!(near.peer_state(), PeerState::Died(_)) {
                thread::yield_now();
            }
        }
        assert_eq!(near.offer(b"to nobody"), Err(OfferError::Disconnected), "{policy:?} {full}");
        assert_eq!((near.sender().stats().dropped, published(&near)), (0, 0));
    }
}

/// In a process that the kernel kills at its first system call but read, write and exit.
#[test]
fn fail_and_drop_newest_make_no_system_call() {
    let mut child = Victim::start(|| {
        let (near, far) = pair();
        let mut near = near.with_policy(SendPolicy::Fail);
        let mut far = far;
        // SAFETY: the call takes numbers.
        let strict = unsafe { libc::prctl(libc::PR_SET_SECCOMP, 1) };
        let mut passed = strict == 0;
        for _ in 0..20 {
            near.sender().set_policy(SendPolicy::Fail);
            while near.offer(b"fits").is_ok() {}
            for _ in 0..100 {
                passed &= near.offer(b"does not") == Err(OfferError::Full);
            }
            near.sender().set_policy(SendPolicy::DropNewest);
            for _ in 0..100 {
                passed &= near.offer(b"does not") == Ok(Offered::Dropped);
            }
            while far.try_recv().is_ok() {}
        }
        passed &= near.sender().stats().dropped == 2_000;
        // SAFETY: the call takes a number and does not return. Not `_exit`, which ends the group.
        unsafe { libc::syscall(libc::SYS_exit, if passed { 0 } else { 3 }) };
    });
    assert_eq!(child.wait(), 0, "killed, or seen to do something else");
}

#[test]
fn typed_senders_have_policies_too() {
    let options = ChannelOptions { capacity_bytes: 256, ..ChannelOptions::default() };
    let near = TypedChannel::<Pod<u64>, Pod<u64>>::anonymous(&options).unwrap();
    let descriptor = near.descriptor().unwrap();
    let mut far = TypedChannel::<Pod<u64>, Pod<u64>>::attach(descriptor, &options).unwrap();
    let (mut sender, _receiver) = near.split();
    sender.set_policy(SendPolicy::DropNewest);
    let sent = (0..100_u64).filter(|number| sender.offer(number).unwrap().is_sent()).count() as u64;
    assert_eq!(sender.sender().stats().dropped, 100 - sent);
    for expected in 0..sent {
        assert_eq!(far.recv(), Ok(expected));
    }
    sender.set_policy(SendPolicy::Fail);
    assert_eq!(sender.offer(&1), Ok(Offered::Sent));
}
