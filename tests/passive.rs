//! Passive mode: callbacks on a receiver's own thread, and what may befall them.
//!
//! What the two modes are, and that they do not mix, is checked where `Receiver::on_receive` is
//! documented.

#![allow(unsafe_code)]

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::called::{all, next, one_way, panics, reported, telling};
use ringway::channel::{
    Channel, ChannelOptions, Ended, Message, Report, Running, StopError, TypedChannel,
};
use ringway::error::{RecvError, SendError};
use ringway::layout::ring;
use ringway::memory::Memory;
use ringway::typed::Pod;

#[test]
fn passive_mode_calls_every_callback_that_matches_in_order_of_registration() {
    let (mut sender, receiver) = one_way();
    let (tell, told) = mpsc::channel();
    let mut passive = receiver.passive();
    for (name, tags) in [("first", 1..3), ("second", 2..9), ("third", 1..2), ("fourth", 2..4)] {
        let tell = tell.clone();
        let callback = move |m: &Message<'_>| tell.send((name, m.tag(), thread::current().id()));
        passive = passive.on(move |m: &Message<'_>| tags.contains(&m.tag()), callback);
    }
    let running = passive.start().unwrap();
    for tag in [2, 7, 1, 0, 3] {
        sender.send_tagged(tag, b"").unwrap();
    }
    let calls: Vec<_> = (0..8).map(|_| next(&told)).collect();
    let expected = [
        ("first", 2),
        ("second", 2),
        ("fourth", 2),
        ("second", 7),
        ("first", 1),
        ("third", 1),
        ("second", 3),
        ("fourth", 3),
    ];
    assert_eq!(calls.iter().map(|call| (call.0, call.1)).collect::<Vec<_>>(), expected);
    assert!(calls.iter().all(|call| call.2 == calls[0].2 && call.2 != thread::current().id()));
    drop(running.stop().unwrap());
    assert!(told.try_recv().is_err());
}

#[test]
fn passive_mode_takes_callbacks_while_it_runs_also_from_callbacks() {
    let (mut sender, receiver) = one_way();
    let (first, first_told) = telling();
    let running = receiver.on_receive(all, first).unwrap();
    sender.send(b"1").unwrap();
    assert_eq!(next(&first_told), b"1");
    let (second, second_told) = telling();
    let id = running.on(|m: &Message<'_>| m.len() == 2, second);
    assert_eq!(id.get(), 2);
    sender.send(b"22").unwrap();
    assert_eq!((next(&first_told), next(&second_told)), (b"22".to_vec(), b"22".to_vec()));
    // One that removes the second, and registers one more.
    let (callbacks, (third, third_told)) = (running.callbacks(), telling());
    let mut third = Some(third);
    running.on(
        |m: &Message<'_>| &**m == b"swap",
        move |_: &Message<'_>| {
            callbacks.remove(id);
            if let Some(third) = third.take() {
                callbacks.on(|m: &Message<'_>| m.len() == 2, third);
            }
        },
    );
    sender.send(b"swap").unwrap();
    sender.send(b"33").unwrap();
    assert_eq!(next(&third_told), b"33");
    assert!(second_told.recv().is_err(), "it is gone");
    let callbacks = running.callbacks();
    drop(running.stop().unwrap());
    assert_eq!(callbacks.stats().messages, 4);
}

#[test]
fn passive_mode_calls_what_was_registered_before_a_message_was_sent() {
    let (mut sender, receiver) = one_way();
    let running = receiver.passive().start().unwrap();
    for round in 0..2000_u16 {
        let (callback, told) = telling();
        let id = running.on(move |m: &Message<'_>| m.tag() == round, callback);
        sender.send_tagged(round, b"now").unwrap();
        assert_eq!(next(&told), b"now", "round {round}");
        running.remove(id);
    }
    let stats = running.stats();
    assert!(stats.calls >= 1999 && stats.panics == 0, "{stats:?}");
}

#[test]
fn passive_mode_stops_and_gives_the_receiver_back_with_what_is_left() {
    let (mut sender, receiver) = one_way();
    let (inside, entered) = mpsc::channel();
    let (leave, left) = mpsc::channel::<()>();
    let running = receiver.on_receive(all, move |m: &Message<'_>| {
        inside.send(m.to_vec()).unwrap();
        left.recv()
    });
    let running = running.unwrap();
    for message in [b"1", b"2", b"3"] {
        sender.send(message).unwrap();
    }
    assert_eq!(next(&entered), b"1");
    let Err(StopError::Timeout(running)) = running.stop_timeout(Duration::from_millis(1)) else {
        panic!("a callback has not returned");
    };
    assert_eq!(running.ended(), None);
    leave.send(()).unwrap();
    let mut receiver = running.stop().unwrap();
    assert_eq!(&*receiver.recv().unwrap(), b"2", "active again");
    // And passive again, and stopped while it sleeps.
    let (callback, told) = telling();
    let running = receiver.on_receive(all, callback).unwrap();
    assert_eq!(next(&told), b"3");
    let receiver = running.stop().unwrap();
    drop(receiver);
    assert_eq!(sender.send(b"4"), Err(SendError::Disconnected));
}

#[test]
fn passive_mode_drains_what_is_there() {
    let (mut sender, receiver) = one_way();
    for number in 0..20_u64 {
        sender.send_pod(&number).unwrap();
    }
    let (leave, left) = mpsc::channel::<()>();
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let running = receiver.on_receive(all, move |_: &Message<'_>| {
        counted.fetch_add(1, Ordering::Relaxed);
        left.recv()
    });
    let running = running.unwrap();
    let Err(StopError::Timeout(running)) = running.drain_timeout(Duration::ZERO) else {
        panic!("the first one has not returned");
    };
    drop(leave);
    let mut receiver = running.wait().unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 20);
    sender.send(b"later").unwrap();
    assert_eq!(&*receiver.recv().unwrap(), b"later");
    // An endless stream is no reason not to end.
    let running = receiver.on_receive(all, |_: &Message<'_>| ()).unwrap();
    let stream = thread::spawn(move || while sender.send(b"more").is_ok() {});
    drop(running.drain().unwrap());
    stream.join().unwrap();
}

#[test]
fn passive_mode_dropped_closes_the_receiver() {
    let (mut sender, receiver) = one_way();
    drop(receiver.on_receive(all, |_: &Message<'_>| ()).unwrap());
    while sender.send(b"to nobody").is_ok() {}
}

#[test]
fn a_callback_cannot_wait_for_its_own_end() {
    let (mut sender, receiver) = one_way();
    let (tell, told) = mpsc::channel();
    let own = Arc::new(Mutex::new(None::<Running>));
    let mine = Arc::clone(&own);
    let running = receiver.on_receive(all, move |_: &Message<'_>| {
        let running = mine.lock().unwrap().take().expect("once");
        tell.send(matches!(running.stop(), Err(StopError::OwnThread)))
    });
    *own.lock().unwrap() = Some(running.unwrap());
    sender.send(b"stop").unwrap();
    assert!(next(&told));
    while sender.send(b"to nobody").is_ok() {}
}

#[test]
fn f42_a_panic_in_a_callback_is_caught_and_reported_and_the_loop_goes_on() {
    let (mut sender, receiver) = one_way();
    let (behind, told) = telling();
    let (passive, reports) = reported(receiver.passive());
    let running = passive
        .on(|m: &Message<'_>| &**m == b"a", panics)
        .on(
            |m: &Message<'_>| if &**m == b"b" { panic!("no b") } else { true },
            |_: &Message<'_>| (),
        )
        .on(all, behind)
        .start()
        .unwrap();
    // More than a ring full: the position advances.
    for round in 0..100 {
        for message in [b"a", b"b", b"c"] {
            sender.send(message).unwrap();
            assert_eq!(next(&told), message, "round {round}");
        }
    }
    let stats = running.stats();
    assert_eq!((stats.panics, stats.failures), (200, 0));
    assert_eq!(next(&reports), "callback 1 panicked: no a");
    assert_eq!(next(&reports), "callback 2 panicked: no b");
    let receiver = running.stop().unwrap();
    assert_eq!(receiver.stats().messages, 300);
}

#[test]
fn f42_whatever_a_callback_and_the_hook_panic_with_the_loop_goes_on() {
    /// Panics when it is dropped.
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !thread::panicking() {
                panic!("the bomb");
            }
        }
    }
    fn explodes(_: &Message<'_>) {
        std::panic::panic_any(Bomb);
    }
    let (mut sender, receiver) = one_way();
    let (behind, told) = telling();
    let bomb = Bomb;
    let running = receiver
        .passive()
        .on(all, explodes)
        .on(all, move |_: &Message<'_>| assert!(size_of_val(&bomb) == 0))
        .on(all, behind)
        .report(|_: &Report<'_>| panic!("the hook"))
        .start()
        .unwrap();
    for _ in 0..3 {
        sender.send(b"on").unwrap();
        assert_eq!(next(&told), b"on");
    }
    drop(running.stop().unwrap());
}

#[test]
fn f42_an_error_returned_by_a_callback_is_reported_and_the_loop_goes_on() {
    let (mut sender, receiver) = one_way();
    let (behind, told) = telling();
    let (passive, reports) = reported(receiver.passive());
    let number =
        |m: &Message<'_>| std::str::from_utf8(m)?.parse::<u8>().map(drop).map_err(Error::from);
    type Error = Box<dyn std::error::Error + Send + Sync>;
    let running = passive.on(all, number).on(all, behind).start().unwrap();
    for message in [&b"7"[..], b"300", b"\xff", b"8"] {
        sender.send(message).unwrap();
        assert_eq!(next(&told), message);
    }
    assert!(next(&reports).starts_with("callback 1 failed: number too large"));
    assert!(next(&reports).starts_with("callback 1 failed: invalid utf-8"));
    drop(running.stop().unwrap());
    assert_eq!(next(&reports), "no more callbacks: stopped");
}

#[test]
fn a_stuck_callback_is_reported_once_and_stalls_its_own_receiver_only() {
    const LIMIT: Duration = Duration::from_millis(20);
    let ((mut sender, receiver), (mut other_sender, other)) = (one_way(), one_way());
    let (leave, left) = mpsc::channel::<()>();
    let (passive, reports) = reported(receiver.passive().stuck_after(LIMIT));
    let (behind, told) = telling();
    let stuck = passive
        .on(all, |_: &Message<'_>| ())
        .on(|m: &Message<'_>| &**m == b"hang", move |_: &Message<'_>| left.recv())
        .on(all, behind)
        .start()
        .unwrap();
    let (callback, other_told) = telling();
    let running = other.on_receive(all, callback).unwrap();
    for round in 1..=2 {
        sender.send(b"hang").unwrap();
        sender.send(b"behind").unwrap();
        let report = next(&reports);
        assert!(report.starts_with("callback 2 has not returned for "), "{report}");
        for _ in 0..100 {
            other_sender.send(b"on").unwrap();
            assert_eq!(next(&other_told), b"on");
        }
        assert!(told.try_recv().is_err());
        leave.send(()).unwrap();
        assert_eq!((next(&told), next(&told)), (b"hang".to_vec(), b"behind".to_vec()));
        assert_eq!(stuck.stats().stuck, round, "once for each time");
    }
    drop((stuck.stop().unwrap(), running.stop().unwrap()));
    assert_eq!(next(&reports), "no more callbacks: stopped");
}

#[test]
fn typed_values_come_to_callbacks_and_what_is_none_is_dropped_and_reported() {
    let (near, far) =
        TypedChannel::<Pod<u32>, Pod<bool>>::pair(&ChannelOptions::default()).unwrap();
    let (mut numbers, _) = near.split();
    let (_, receiver) = far.split();
    let (tell, told) = mpsc::channel();
    let odd = |number: &u32| number % 2 == 1;
    let running = receiver.on_receive(odd, move |number: &u32| tell.send(*number)).unwrap();
    for number in 0..6 {
        numbers.send(&number).unwrap();
    }
    assert_eq!([next(&told), next(&told), next(&told)], [1, 3, 5]);
    let mut receiver = running.stop().unwrap();
    numbers.send(&7).unwrap();
    assert_eq!(receiver.recv(), Ok(7), "a typed receiver again");

    // Bytes that are no truth values, and too many of them.
    let (near, far) = TypedChannel::<Pod<bool>, Pod<u8>>::pair(&ChannelOptions::default()).unwrap();
    let mut sender = near.into_inner().split().0;
    let (tell, told) = mpsc::channel();
    let (report, reports) = mpsc::channel();
    let running = far
        .split()
        .1
        .passive()
        .on(|_: &bool| true, move |value: &bool| tell.send(*value))
        .report(move |each| drop(report.send(each.to_string())))
        .start()
        .unwrap();
    for message in [&[1_u8][..], &[2], &[0, 0], &[0]] {
        sender.send(message).unwrap();
    }
    assert_eq!([next(&told), next(&told)], [true, false]);
    assert!(next(&reports).contains("not a valid value"));
    assert!(next(&reports).contains("has 2 bytes, expected 1"));
    let callbacks = running.callbacks();
    drop(running.stop().unwrap());
    let stats = callbacks.stats();
    assert_eq!((stats.messages, stats.calls, stats.refused), (2, 2, 2));
}

#[test]
fn passive_mode_ends_where_the_channel_is_corrupt() {
    let (near, far) = Channel::pair(&ChannelOptions::default()).unwrap();
    let segment = ringway::segment::AnonymousSegment::attach(near.descriptor().unwrap()).unwrap();
    let (mut sender, _receiver) = near.split();
    let (passive, reports) = reported(far.split().1.passive());
    let (callback, told) = telling();
    let running = passive.on(all, callback).start().unwrap();
    sender.send(b"sound").unwrap();
    assert_eq!(next(&told), b"sound");
    // A header that cannot be, where the next one will be looked for.
    let (memory, geometry) = (segment.memory(), segment.geometry());
    let data = geometry.layout().unwrap().data[0];
    for offset in (data..data + geometry.capacity_bytes[0]).step_by(8) {
        memory.store_u64(offset, u64::MAX, ringway::memory::Ordering::Release);
    }
    memory.wake_u32(ring::CONTROL[0] + ring::CONSUMER_WAITING, 1);
    assert!(next(&reports).starts_with("channel is corrupt: "));
    assert!(next(&reports).starts_with("no more callbacks: channel is corrupt: "));
    while running.ended().is_none() {
        thread::yield_now();
    }
    assert!(matches!(running.ended(), Some(Ended::Corrupt(_))));
    assert!(matches!(running.wait().unwrap().recv(), Err(RecvError::Corrupt(_))));
}
