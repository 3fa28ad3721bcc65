//! Steady state allocates nothing: neither sending nor receiving, neither awake nor asleep.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use ringway::channel::{
    Channel, ChannelOptions, Event, LossyChannel, LossyOptions, Selector, SendPolicy,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.with(|count| count.set(count.get() + 1));
}

// SAFETY: all calls go to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

#[test]
fn every_way_to_send_and_receive() {
    let (mut near, mut far) = Channel::pair(&ChannelOptions::default()).expect("a channel");
    let archive = vec![String::from("a string that has to stand outside its own header")];
    let mut round = |size: usize| {
        let bytes = [7_u8; 4096];
        let payload = &bytes[..size];
        near.send(payload).expect("sent");
        assert_eq!(far.recv().expect("received").len(), size);
        near.try_send(payload).expect("sent");
        assert_eq!(far.try_recv().expect("received").len(), size);
        near.send_pod(&7_u64).expect("sent");
        assert_eq!(far.recv_pod::<u64>(), Ok(7));
        near.sender().send_archived(&archive).expect("sent");
        let found = far.receiver().recv_archived::<Vec<String>>().expect("received");
        assert_eq!(found.len(), 1);
        near.sender().send_batch([payload, payload]).expect("sent");
        let taken = far.receiver().recv_batch(2, |m| assert_eq!(m.len(), size)).expect("received");
        assert_eq!(taken, 2);
        let mut slot = near.sender().reserve(size).expect("room");
        slot.write(payload);
        slot.commit();
        assert!(far.recv_timeout(Duration::from_secs(5)).is_ok());
        // Asleep, until the deadline.
        assert!(far.recv_timeout(Duration::from_micros(100)).is_err());
        let _ = far.try_recv();
    };
    // The first round brings the buffers to their size.
    round(4096);
    let found = allocations(|| (0..1_000).for_each(|size| round(size * 4)));
    assert_eq!(found, 0);
}

#[test]
fn a_selector_awake_and_asleep() {
    let (mut near, far) = Channel::pair(&ChannelOptions::default()).expect("a channel");
    let (_sender, receiver) = far.split();
    let mut selector = Selector::new();
    selector.add(receiver);
    let mut round = || {
        near.send(&[1; 100]).expect("sent");
        let mut messages = 0;
        let each = |_, event: Event<'_>| messages += u32::from(matches!(event, Event::Message(_)));
        assert_eq!(selector.poll(8, Duration::from_secs(5), each), 1);
        assert_eq!(messages, 1);
        assert_eq!(selector.poll(8, Duration::from_micros(50), |_, _| ()), 0);
    };
    round();
    assert_eq!(allocations(|| (0..200).for_each(|_| round())), 0);
}

/// Kept up with, overrun, and asleep.
#[test]
fn a_lossy_channel() {
    let options = LossyOptions { capacity_bytes: 4096, ..LossyOptions::default() };
    let (mut sender, mut receiver) = LossyChannel::pair(&options).expect("a channel");
    let mut round = |size: usize| {
        let bytes = [7_u8; 1000];
        sender.send(&bytes[..size]).expect("sent");
        assert_eq!(receiver.recv().expect("received").len(), size);
        (0..300).for_each(|_| sender.send(&bytes[..size]).expect("sent"));
        assert!(receiver.try_recv().expect("received").lost_before() > 0);
        while receiver.try_recv().is_ok() {}
        // Asleep, until the deadline.
        assert!(receiver.recv_timeout(Duration::from_micros(100)).is_err());
        assert_eq!(sender.stats().unread, 0);
    };
    // The first round brings the buffer to its size.
    round(1000);
    assert_eq!(allocations(|| (16..1000).step_by(7).for_each(round)), 0);
}

/// Where there is room and where there is none.
#[test]
fn offered_messages() {
    let options = ChannelOptions { capacity_bytes: 4096, ..ChannelOptions::default() };
    let (mut near, mut far) = Channel::pair(&options).expect("a channel");
    let mut round = |policy| {
        near.sender().set_policy(policy);
        for _ in 0..100 {
            let _ = near.offer(&[7; 100]);
        }
        while far.try_recv().is_ok() {}
    };
    let briefly = SendPolicy::BlockFor(Duration::from_micros(50));
    let policies = [SendPolicy::Fail, SendPolicy::DropNewest, briefly];
    policies.into_iter().for_each(&mut round);
    assert_eq!(allocations(|| policies.into_iter().cycle().take(30).for_each(round)), 0);
}

/// Messages longer than the ring, and calls, once the buffers have their size. Two threads, each of
/// which counts its own.
#[test]
fn fragments_and_calls() {
    let options = ChannelOptions { capacity_bytes: 4096, ..ChannelOptions::default() };
    let (mut near, mut far) = Channel::pair(&options).expect("a channel");
    let patience = Duration::from_secs(60);
    let rounds = 50;
    let answering = std::thread::spawn(move || {
        let mut round = || {
            let question = far.recv_timeout(patience).expect("received");
            let call = question.call().expect("a call");
            assert_eq!(question.len(), 20_000);
            far.send(b"before it").expect("sent");
            far.reply(call, &[2; 30_000]).expect("sent");
            let call = far.recv_timeout(patience).expect("received").call().expect("a call");
            far.reply(call, b"short").expect("sent");
        };
        round();
        allocations(|| (0..rounds).for_each(|_| round()))
    });
    let mut round = || {
        assert_eq!(near.call(&[1; 20_000], patience).expect("a reply").len(), 30_000);
        let pending = near.begin_call(b"short").expect("sent");
        assert_eq!(&*near.finish_call(&pending, patience).expect("a reply"), b"short");
        assert_eq!(&*near.recv().expect("received"), b"before it");
    };
    round();
    round();
    assert_eq!(allocations(|| (1..rounds).for_each(|_| round())), 0);
    assert_eq!(answering.join().expect("joined"), 0);
}
