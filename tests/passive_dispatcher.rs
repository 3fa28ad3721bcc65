//! Passive mode: several receivers that share a dispatcher's thread.

#![allow(unsafe_code)]

mod common;

use std::sync::mpsc;
use std::thread;

use common::called::{all, next, one_way, panics, reported, telling};
use common::plugin::NEVER;
use common::victim::Victim;
use ringway::channel::ChannelOptions;
use ringway::channel::{Dispatcher, Message, StopError, TypedChannel};
use ringway::error::RecvError;
use ringway::typed::Pod;

#[test]
fn several_receivers_may_share_a_dispatcher() {
    let dispatcher = Dispatcher::new().unwrap();
    let (tell, told) = mpsc::channel();
    let mut many: Vec<_> = (0..40)
        .map(|number| {
            let (sender, receiver) = one_way();
            let tell = tell.clone();
            let callback =
                move |m: &Message<'_>| tell.send((number, m.tag(), thread::current().id()));
            (sender, receiver.passive().on(all, callback).start_on(&dispatcher).unwrap())
        })
        .collect();
    drop(dispatcher);
    for tag in 0..20 {
        for (sender, _) in &mut many {
            sender.send_tagged(tag, b"").unwrap();
        }
    }
    let calls: Vec<_> = (0..20 * 40).map(|_| next(&told)).collect();
    assert!(calls.iter().all(|call| call.2 == calls[0].2));
    for number in 0..40 {
        let tags: Vec<_> =
            calls.iter().filter(|call| call.0 == number).map(|call| call.1).collect();
        assert_eq!(tags, (0..20).collect::<Vec<_>>());
    }
    // One is stopped, the others go on.
    let (mut sender, running) = many.remove(7);
    let mut receiver = running.stop().unwrap();
    sender.send(b"active").unwrap();
    assert_eq!(&*receiver.recv().unwrap(), b"active");
    let (late, late_told) = telling();
    many[0].1.on(|m: &Message<'_>| &**m == b"late", late);
    many[0].0.send(b"late").unwrap();
    assert_eq!(next(&late_told), b"late");
    // One whose peer is gone has ended, and can be had back.
    let (sender, running) = many.remove(0);
    drop(sender);
    assert_eq!(running.wait().unwrap().recv(), Err(RecvError::Disconnected));
    // One is drained.
    let (mut sender, running) = many.remove(0);
    sender.send_tagged(99, b"").unwrap();
    drop(running.drain().unwrap());
    while next(&told).1 != 99 {}
    // With the last of them the thread ends, and drops what it has.
    drop((many, tell));
    while told.recv_timeout(NEVER).is_ok() {}
    assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Disconnected));
}

#[test]
fn f42_on_a_shared_dispatcher_a_panic_stops_nobody() {
    let dispatcher = Dispatcher::new().unwrap();
    let ((mut first, one), (mut second, two)) = (one_way(), one_way());
    let (callback, told) = telling();
    let (passive, reports) = reported(one.passive().on(all, panics));
    let failing = passive.start_on(&dispatcher).unwrap();
    let sound = two.passive().on(all, callback).start_on(&dispatcher).unwrap();
    for _ in 0..100 {
        first.send(b"a").unwrap();
        assert_eq!(next(&reports), "callback 1 panicked: no a");
        second.send(b"b").unwrap();
        assert_eq!(next(&told), b"b");
    }
    drop((failing.stop().unwrap(), sound.stop().unwrap()));
}

#[test]
fn values_come_to_callbacks_on_a_shared_dispatcher() {
    let dispatcher = Dispatcher::new().unwrap();
    let (near, far) = TypedChannel::<Pod<bool>, Pod<u8>>::pair(&ChannelOptions::default()).unwrap();
    let mut sender = near.into_inner().split().0;
    let (tell, told) = mpsc::channel();
    let values = far.split().1.passive();
    let running = values.on(|_: &bool| true, move |value: &bool| tell.send(*value));
    let running = running.start_on(&dispatcher).unwrap();
    for message in [&[1_u8][..], &[2], &[0, 0], &[0]] {
        sender.send(message).unwrap();
    }
    assert_eq!([next(&told), next(&told)], [true, false]);
    let callbacks = running.callbacks();
    drop(running.stop().unwrap());
    assert_eq!(callbacks.stats().refused, 2);
}

#[test]
fn f30_a_forked_child_does_not_wait_for_a_dispatcher_that_is_the_parents() {
    let (mut sender, receiver) = one_way();
    let (callback, told) = telling();
    let running = receiver.on_receive(all, callback).unwrap();
    let mut running = Some(running);
    let mut child = Victim::start(|| {
        assert!(matches!(running.take().unwrap().stop(), Err(StopError::Forked)));
    });
    assert_eq!(child.wait(), 0);
    let mut child = Victim::start(|| drop(running.take()));
    assert_eq!(child.wait(), 0);
    sender.send(b"on").unwrap();
    assert_eq!(next(&told), b"on", "the parent's goes on");
    drop(running.take().unwrap().stop().unwrap());
}
