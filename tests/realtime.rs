//! What the documentation calls fit for a real-time thread takes no memory; and a receiver gives back what
//! long messages have taken.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use ringway::channel::{
    Channel, ChannelOptions, Event, KEPT_BYTES, LossyChannel, LossyOptions, Selector, SendPolicy,
};

struct Counting;

thread_local! {
    /// Allocations of this thread, and bytes that it has taken and not given back.
    static TAKEN: Cell<(u64, i64)> = const { Cell::new((0, 0)) };
}

fn count(calls: u64, bytes: i64) {
    TAKEN.with(|taken| {
        let (all, now) = taken.get();
        taken.set((all + calls, now + bytes));
    });
}

// SAFETY: all calls go to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = TAKEN.with(Cell::get).0;
    work();
    TAKEN.with(Cell::get).0 - before
}

/// Bytes that this thread holds.
fn held() -> i64 {
    TAKEN.with(Cell::get).1
}

fn pair(capacity_bytes: u64) -> (Channel, Channel) {
    let options = ChannelOptions { capacity_bytes, ..ChannelOptions::default() };
    Channel::pair(&options).expect("a channel")
}

#[test]
fn f60_after_reserve_a_receiver_takes_no_memory() {
    let (mut near, mut far) = pair(4096);
    near.wait_for_peer(Duration::ZERO).expect("attached");
    const LONGEST: usize = 3 << 20;
    far.receiver().reserve(LONGEST);
    let bytes = vec![7_u8; LONGEST];
    let mut into = [0; 2000];
    let sending = std::thread::spawn(move || {
        for len in [LONGEST, 1, 2000, LONGEST / 2, 3000] {
            near.send(&bytes[..len]).expect("sent");
        }
        near
    });
    let found = allocations(|| {
        let patience = Duration::from_secs(60);
        assert_eq!(far.recv_timeout(patience).expect("a message").len(), LONGEST);
        assert_eq!(far.recv().expect("a message").len(), 1);
        assert_eq!(far.receiver().recv_into(&mut into).expect("a message").0, 2000);
        assert_eq!(far.recv().expect("a message").len(), LONGEST / 2);
        assert_eq!(far.recv().expect("a message").len(), 3000);
        // Nothing that was reserved is given back, however long nothing comes.
        for _ in 0..5 {
            assert!(far.recv_timeout(Duration::from_micros(100)).is_err());
        }
        (0..1000).for_each(|_| assert!(far.try_recv().is_err()));
    });
    assert_eq!(found, 0);
    let mut near = sending.join().expect("joined");
    let sending = std::thread::spawn(move || near.send(&[1; LONGEST]).map(|()| near));
    let found = allocations(|| assert_eq!(far.recv().expect("a message").len(), LONGEST));
    assert_eq!(found, 0);
    assert!(sending.join().expect("joined").is_ok());
}

/// Every call that the table of the module `channel` names, from the first one on.
#[test]
fn f60_calls_that_do_not_wait_take_no_memory() {
    let (mut near, mut far) = pair(1 << 16);
    near.wait_for_peer(Duration::ZERO).expect("attached");
    let (lossy_options, patience) = (LossyOptions::default(), Duration::from_secs(60));
    let (mut lossy_near, mut lossy_far) = LossyChannel::pair(&lossy_options).expect("a channel");
    lossy_near.send(&[1; 1000]).expect("sent");
    assert_eq!(lossy_far.recv_timeout(patience).expect("a message").len(), 1000);
    far.receiver().reserve(1000);
    near.sender().set_policy(SendPolicy::DropNewest);
    let mut into = [0; 1000];
    let found = allocations(|| {
        for len in 0..1000 {
            let payload = &into[..len];
            near.try_send(payload).expect("room");
            assert!(near.offer(payload).expect("room").is_sent());
            let mut slot = near.sender().try_reserve(len).expect("room");
            slot.write(payload);
            slot.commit();
            near.send_pod(&7_u32).expect("room");
            assert_eq!(far.try_recv().expect("a message").len(), len);
            assert_eq!(far.receiver().recv_into(&mut into).expect("a message").0, len);
            far.receiver().skip().expect("a message");
            assert_eq!(far.recv_pod::<u32>(), Ok(7));
            far.receiver().release();
            assert!(far.recv_timeout(Duration::ZERO).is_err());
            lossy_near.send(&into[..len]).expect("sent");
            assert_eq!(lossy_far.try_recv().expect("a message").len(), len);
            let _ = (near.peer_state(), near.sender().stats(), far.receiver().stats());
        }
    });
    assert_eq!(found, 0);
}

#[test]
fn f60_a_selector_with_a_timeout_of_zero_takes_no_memory() {
    let mut selector = Selector::new();
    let mut senders = Vec::new();
    for _ in 0..40 {
        let (near, far) = pair(4096);
        let (_, mut receiver) = far.split();
        receiver.reserve(100);
        selector.add(receiver);
        senders.push(near);
    }
    let found = allocations(|| {
        for round in 0..500 {
            senders[round % 40].try_send(&[1; 100]).expect("room");
            let mut messages = 0;
            let each =
                |_, event: Event<'_>| messages += u32::from(matches!(event, Event::Message(_)));
            assert_eq!(selector.poll(8, Duration::ZERO, each), 1);
            assert_eq!(messages, 1);
        }
    });
    assert_eq!(found, 0);
}

/// One message of 15 MiB, then nothing; in fragments, and as one record.
#[test]
fn f62_a_receiver_gives_back_what_a_long_message_took() {
    const LONG: usize = 15 << 20;
    for capacity_bytes in [1 << 16, 1 << 25] {
        for sleeps in [true, false] {
            let (near, mut far) = pair(capacity_bytes);
            let before = held();
            let sending = std::thread::spawn(move || {
                let mut near = near;
                near.send(&vec![7; LONG]).map(|()| near)
            });
            assert_eq!(far.recv().expect("a message").len(), LONG);
            assert!(held() - before >= LONG as i64);
            let mut near = sending.join().expect("joined").expect("sent");
            if sleeps {
                (0..3).for_each(|_| assert!(far.recv_timeout(Duration::from_millis(1)).is_err()));
            } else {
                (0..256).for_each(|_| assert!(far.try_recv().is_err()));
            }
            assert!(held() - before <= KEPT_BYTES as i64, "{capacity_bytes} {sleeps}");
            near.send(&[1; 1000]).expect("sent");
            assert_eq!(far.recv().expect("a message").len(), 1000);
        }
    }
}

#[test]
fn f62_receivers_of_a_selector_give_back_what_long_messages_took() {
    const LONG: usize = 3 << 20;
    let mut selector = Selector::new();
    let mut senders = Vec::new();
    for _ in 0..4 {
        let (near, far) = pair(1 << 23);
        selector.add(far.split().1);
        senders.push(near);
    }
    let before = held();
    for sender in &mut senders {
        sender.send(&vec![7; LONG]).expect("sent");
    }
    let mut messages = 0;
    while messages < 4 {
        messages += selector.poll(1, Duration::from_secs(60), |_, _| ());
    }
    assert!(held() - before >= 4 * LONG as i64);
    assert_eq!(selector.poll(1, Duration::from_millis(5), |_, _| ()), 0);
    // The selector itself keeps a little for each sleeper.
    assert!(held() - before <= 4 * KEPT_BYTES as i64);
}
