//! Calls and replies, over real segments, in threads and in processes.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::env;
use std::process;
use std::thread;
use std::time::Duration;

use common::plugin::{self, KILLED, NEVER, ROLE};
use ringway::channel::{CallId, Channel, ChannelOptions};
use ringway::error::{CallError, RecvError, RecvTimeoutError, TryRecvError, TrySendError};
use ringway::host::Plugin;
use ringway::layout::{fragment, record, ring};
use ringway::memory::{MappedMemory, Memory, Ordering};
use ringway::ring::{Producer, PushError, RecordKind, RingGeometry};
use ringway::segment::AnonymousSegment;

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    match env::var(ROLE).as_deref() {
        Ok("answer") => answer(),
        Ok("answer-or-die") => answer_or_die(),
        _ => return plugin::run_role(),
    }
    process::exit(0);
}

/// Answers calls with what was asked, backwards; sends everything else back before that.
fn answer() {
    let (mut active, _passive) = Plugin::connect().unwrap().take_channels().unwrap();
    while let Ok(message) = active.recv_owned() {
        match message.call() {
            Some(call) => {
                let backwards: Vec<u8> = message.iter().rev().copied().collect();
                active.reply(call, &backwards).unwrap();
            }
            None => active.send(&message).unwrap(),
        }
    }
}

/// Takes the first call of its life to the grave, unless it was asked twice.
fn answer_or_die() {
    let (mut active, _passive) = Plugin::connect().unwrap().take_channels().unwrap();
    while let Ok(message) = active.recv_owned() {
        let again = message.starts_with(b"again");
        match message.call() {
            Some(call) if again => active.reply(call, b"answered").unwrap(),
            Some(call) => {
                active.reply(call, b"last words").unwrap();
                plugin::raise(libc::SIGKILL);
            }
            None => plugin::raise(libc::SIGKILL),
        }
    }
}

fn options(capacity_bytes: u64) -> ChannelOptions {
    ChannelOptions { capacity_bytes, ..ChannelOptions::default() }
}

fn pair(capacity_bytes: u64) -> (Channel, Channel) {
    Channel::pair(&options(capacity_bytes)).expect("a channel")
}

const NOW: Duration = Duration::ZERO;
const SHORT: Duration = Duration::from_millis(1);

fn payload(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

/// A channel's receiving side, and the bare producer of what comes to it.
fn bare(capacity_bytes: u64) -> (Channel, Producer<MappedMemory>) {
    let channel = Channel::anonymous(&options(capacity_bytes)).unwrap();
    let segment = AnonymousSegment::attach(channel.descriptor().unwrap()).unwrap();
    let (memory, header) = (segment.memory().clone(), segment.geometry());
    let data = header.layout().unwrap().data[1];
    let geometry =
        RingGeometry::new(&memory, ring::CONTROL[1], data, header.capacity_bytes[1], 8).unwrap();
    let geometry = geometry.with_max_message_bytes(header.max_message_bytes);
    (channel, Producer::attach(memory, geometry).unwrap())
}

#[test]
fn calls_of_every_length_are_answered_between_processes() {
    let host = plugin::host();
    let spec = plugin::spec("answer", "answer").channel_options(options(4096));
    let (mut active, _) = host.spawn(spec).unwrap().take_channels().unwrap();
    let near = |limit: usize| limit - 20..limit + 20;
    for len in (0..40).chain(near(2040)).chain(near(4096)).chain([100_000, 1 << 20]) {
        let question = payload(len as u8, len);
        let reply = active.call(&question, NEVER).unwrap();
        assert_eq!(reply.call(), None);
        assert!(reply.iter().rev().eq(&question), "{len} bytes");
    }
    assert_eq!(active.receiver().stats().dropped_replies, 0);
}

#[test]
fn what_comes_before_the_reply_waits_in_order_and_stays_in_the_ring() {
    let (mut host, mut plugin) = pair(4096);
    let pending = host.begin_call(b"question").unwrap();
    let question = plugin.recv_owned().unwrap();
    assert_eq!(question.call(), Some(pending.id()));
    for n in 0..5_u8 {
        plugin.send(&[n; 30]).unwrap();
    }
    let back = plugin.begin_call(b"and you?").unwrap();
    plugin.reply(question.call().unwrap(), b"answer").unwrap();
    plugin.send(b"last").unwrap();

    assert_eq!(&*host.finish_call(&pending, NEVER).unwrap(), b"answer");
    assert_eq!(host.finish_call(&pending, NEVER), Err(CallError::NotPending));
    // A successor of this process would get them: nothing has been released.
    let segment = AnonymousSegment::attach(host.descriptor().unwrap()).unwrap();
    let head = ring::CONTROL[1] + ring::HEAD;
    let head = || segment.memory().load_u64(head, Ordering::Acquire);
    assert_eq!(head(), 0);
    for n in 0..5 {
        assert_eq!(&*host.recv().unwrap(), &[n; 30]);
        assert_eq!(head(), u64::from(n) * 40);
    }
    let message = host.recv_owned().unwrap();
    assert_eq!((message.call(), &*message), (Some(back.id()), &b"and you?"[..]));
    assert_eq!(host.receiver().last_call(), message.call());
    assert_eq!(&*host.recv().unwrap(), b"last", "the reply in between is gone over");
    assert_eq!(host.receiver().last_call(), None);
    assert!(matches!(host.try_recv(), Err(TryRecvError::Empty)));
    host.reply(back.id(), b"me too").unwrap();
    assert_eq!(&*plugin.finish_call(&back, NEVER).unwrap(), b"me too");
    assert_eq!(host.receiver().stats().dropped_replies, 0);
}

#[test]
fn many_calls_are_finished_in_any_order() {
    for len in [3, 5000] {
        let (host, mut plugin) = pair(4096);
        let (mut sender, mut receiver) = host.split();
        let answering = thread::spawn(move || {
            let mut calls = Vec::new();
            for _ in 0..6 {
                let message = plugin.recv_owned().unwrap();
                calls.push((message.call().unwrap(), message.to_vec()));
            }
            // Backwards, the longest way.
            for (call, message) in calls.into_iter().rev() {
                plugin.reply(call, &message).unwrap();
            }
            plugin
        });
        let pending: Vec<_> =
            (0..6).map(|n| sender.begin_call(&payload(n, len)).unwrap()).collect();
        for n in [5, 0, 3, 4] {
            let reply = receiver.finish_call(&pending[n], NEVER).unwrap();
            assert_eq!(&*reply, payload(n as u8, len), "{n}");
        }
        // A receive that comes by keeps replies for their calls too.
        let mut plugin = answering.join().unwrap();
        plugin.send(b"message").unwrap();
        assert_eq!(&*receiver.recv().unwrap(), b"message");
        for n in [2, 1] {
            let reply = receiver.finish_call(&pending[n], NOW).unwrap();
            assert_eq!(&*reply, payload(n as u8, len), "{n}");
        }
        assert_eq!(receiver.stats().dropped_replies, 0);
    }
}

#[test]
fn replies_that_nobody_waits_for_any_more_are_dropped_and_counted() {
    let (mut host, mut plugin) = pair(4096);
    assert_eq!(host.call(b"1", SHORT), Err(CallError::Timeout));
    drop(host.begin_call(b"2").unwrap());
    let answered = host.begin_call(b"3").unwrap();
    let mut calls = Vec::new();
    while let Ok(message) = plugin.try_recv() {
        calls.extend(message.call());
    }
    assert_eq!(calls.len(), 3);
    for call in &calls {
        plugin.reply(*call, b"once").unwrap();
        plugin.reply(*call, &[9; 600]).unwrap();
    }
    assert_eq!(&*host.finish_call(&answered, NEVER).unwrap(), b"once");
    plugin.send(b"after").unwrap();
    assert_eq!(&*host.recv().unwrap(), b"after");
    // Two to each of the first calls, and the second to the third.
    assert_eq!(host.receiver().stats().dropped_replies, 5);
    let stray = host.begin_call(b"4").unwrap();
    let (mut other, _far) = pair(4096);
    assert_eq!(other.finish_call(&stray, NEVER), Err(CallError::NotPending));
}

#[test]
fn a_backlog_is_told_and_the_call_stays_pending() {
    let (mut host, mut plugin) = pair(4096);
    let pending = host.begin_call(b"?").unwrap();
    let call = plugin.recv().unwrap().call().unwrap();
    let mut sent = 0;
    while plugin.try_send(&[sent; 92]).is_ok() {
        sent += 1;
    }
    let found = host.finish_call(&pending, NEVER).unwrap_err();
    assert!(matches!(found, CallError::Backlog { waiting_bytes: 1945..=2048 }), "{found:?}");
    assert_eq!(host.finish_call(&pending, NEVER), Err(found), "nothing has changed");
    assert_eq!(&*host.recv().unwrap(), [0; 92]);
    let _ = host.try_recv().unwrap();
    plugin.reply(call, b"!").unwrap();
    assert!(matches!(host.finish_call(&pending, NEVER), Err(CallError::Backlog { .. })));
    for n in 2..sent {
        assert_eq!(&*host.recv().unwrap(), [n; 92]);
    }
    assert_eq!(&*host.finish_call(&pending, NEVER).unwrap(), b"!");
}

/// Less than half the ring waits, and still the reply has no room.
#[test]
fn a_peer_that_waits_for_room_is_a_backlog_too() {
    let (mut host, mut plugin) = pair(4096);
    let pending = host.begin_call(b"?").unwrap();
    let call = plugin.recv().unwrap().call().unwrap();
    plugin.send(&[1; 500]).unwrap();
    assert_eq!(host.recv().unwrap().len(), 500);
    plugin.send(&[2; 1900]).unwrap();
    // It would need padding.
    let answering = thread::spawn(move || plugin.reply(call, &[3; 1900]).map(|()| plugin));
    let found = host.finish_call(&pending, NEVER).unwrap_err();
    assert!(matches!(found, CallError::Backlog { .. }), "{found:?}");
    assert_eq!(&*host.recv().unwrap(), [2; 1900]);
    assert_eq!(&*host.finish_call(&pending, NEVER).unwrap(), [3; 1900]);
    answering.join().unwrap().unwrap();
}

/// A message in fragments behind others that wait: all are kept in private memory, in order.
#[test]
fn fragments_behind_messages_that_wait() {
    let (mut host, mut plugin) = pair(4096);
    for reply_len in [1, 9000] {
        let pending = host.begin_call(b"?").unwrap();
        let call = plugin.recv().unwrap().call().unwrap();
        let sending = thread::spawn(move || {
            plugin.send(b"first").unwrap();
            plugin.sender().send_tagged(7, &payload(1, 10_000)).unwrap();
            plugin.reply(call, &payload(2, reply_len)).unwrap();
            plugin.send(b"third").unwrap();
            plugin
        });
        // A message that is longer than half the ring is a backlog for what comes in pieces too.
        let reply = match host.finish_call(&pending, NEVER) {
            Ok(reply) => reply.to_owned(),
            Err(CallError::Backlog { .. }) => {
                assert_eq!(&*host.recv().unwrap(), b"first");
                let long = host.recv().unwrap();
                assert_eq!((long.tag(), long.bytes()), (7, &payload(1, 10_000)[..]));
                host.finish_call(&pending, NEVER).unwrap().to_owned()
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(&*reply, payload(2, reply_len));
        if reply_len == 1 {
            assert_eq!(&*host.recv().unwrap(), b"first");
            assert!(host.receiver().recv_pod::<u64>().is_err());
            let long = host.recv().unwrap();
            assert_eq!((long.tag(), long.bytes()), (7, &payload(1, 10_000)[..]));
        }
        assert_eq!(&*host.recv().unwrap(), b"third");
        plugin = sending.join().unwrap();
    }
}

#[test]
fn typed_calls() {
    let (mut host, mut plugin) = pair(4096);
    let answering = thread::spawn(move || {
        let receiver = plugin.receiver();
        let question = receiver.recv_pod::<u64>().unwrap();
        let call = receiver.last_call().unwrap();
        plugin.sender().reply_pod(call, &(question * 2)).unwrap();
        let receiver = plugin.receiver();
        let len = receiver.recv_archived::<Vec<String>>().unwrap().len() as u32;
        let call = receiver.last_call().unwrap();
        plugin.sender().reply_archived(call, &format!("{len} strings")).unwrap();
        let call = plugin.recv().unwrap().call().unwrap();
        plugin.reply(call, b"abc").unwrap();
    });
    assert_eq!(host.call_pod::<u64, u64>(&21, NEVER), Ok(42));
    let strings = vec![String::from("one"), "x".repeat(5000)];
    let answer = host.call_archived::<_, String>(&strings, NEVER).unwrap();
    assert_eq!(answer, "2 strings");
    let found = host.call_pod::<u64, u64>(&1, NEVER);
    assert_eq!(found, Err(CallError::Mismatch { found: 3, expected: 8 }));
    answering.join().unwrap();
}

#[test]
fn limits_of_calls() {
    let (mut host, mut plugin) = pair(256);
    let long = [1; 113];
    let pending = host.begin_call(b"").unwrap();
    let call = plugin.recv().unwrap().call().unwrap();
    let found = plugin.sender().try_reply(call, &long);
    assert_eq!(found, Err(TrySendError::WouldFragment { len: 113, max: 112 }));
    plugin.sender().try_reply(call, &long[1..]).unwrap();
    assert_eq!(host.finish_call(&pending, NEVER).unwrap().len(), 112);
    let max = host.sender().max_message_bytes();
    let found = host.call(&vec![0; max + 1], NEVER).unwrap_err();
    assert_eq!(found, CallError::TooLong { len: max as u64 + 1, max: max as u64 });
    drop(plugin);
    assert_eq!(host.call(b"anybody?", NEVER), Err(CallError::Disconnected));
}

/// The last thing that the dead one did counts; what it had not released is asked of its successor.
#[test]
fn calls_follow_their_plugin_to_its_successor() {
    let host = plugin::host();
    let spec = plugin::spec("answer-or-die", "answer-or-die").restart(plugin::restarts(9));
    let (mut active, _) = host.spawn(spec).unwrap().take_channels().unwrap();
    let fatal = active.begin_call(b"fatal").unwrap();
    let again = active.begin_call(b"again").unwrap();
    let mut told = 0;
    let mut finish = |call: &_| loop {
        match active.finish_call(call, NEVER) {
            Ok(reply) => break reply.to_vec(),
            Err(CallError::Restarted { reason }) => {
                assert_eq!(reason, KILLED);
                told += 1;
            }
            Err(error) => panic!("{error}"),
        }
    };
    // The second call was in the ring behind the first, over which it dies as often as it may.
    assert_eq!(finish(&again), b"answered");
    assert_eq!(finish(&fatal), b"last words");
    assert!(told >= 1, "told {told} times");
}

fn push(producer: &mut Producer<MappedMemory>, id: u64) -> Result<(), PushError> {
    producer.try_push_kind(RecordKind::Reply, id, 0, b"stray")
}

/// Replies to nobody, as fast as they are dropped: receives and calls keep their deadlines, and one
/// call goes over no more than a ring full.
#[test]
fn f20_endless_replies_keep_nobody_past_a_deadline() {
    let (mut host, mut producer) = bare(4096);
    while push(&mut producer, 7).is_ok() {}
    assert!(matches!(host.try_recv(), Err(TryRecvError::Empty)));
    assert_eq!(host.receiver().stats().dropped_replies, 4096 / 24);
    let begin = fragment::pack(100, record::REPLY, fragment::FIRST);
    // Until the host has closed its receiving end.
    let closed = |producer: &Producer<MappedMemory>| {
        producer.memory().load_u32(ring::CONTROL[1] + ring::CONSUMER_CLOSED, Ordering::Relaxed) != 0
    };
    let flooding = thread::spawn(move || {
        let mut n = 0_u64;
        while !closed(&producer) {
            n += 1;
            let _ = match n % 2 {
                0 => push(&mut producer, n),
                _ => producer.try_push_kind(RecordKind::Fragment, begin, 0, b"begin it"),
            };
        }
    });
    for _ in 0..5 {
        let found = host.recv_timeout(SHORT);
        assert_eq!(found.map(|message| message.len()), Err(RecvTimeoutError::Timeout));
        let found = host.call(b"?", SHORT);
        assert_eq!(found.map(|message| message.len()), Err(CallError::Timeout));
    }
    drop(host);
    flooding.join().unwrap();
}

/// Messages without a byte take memory too where they are kept: they are no way around the bound.
#[test]
fn f43_empty_messages_that_wait_are_bounded_as_well() {
    let (mut host, mut producer) = bare(4096);
    let pending = host.begin_call(b"?").unwrap();
    let mut sent = 0;
    let found = loop {
        for _ in 0..8 {
            producer.try_push(0, b"").unwrap();
            sent += 1;
        }
        // It makes the receiver take over what waits in the ring.
        producer.try_push_abort().unwrap();
        match host.finish_call(&pending, Duration::ZERO) {
            Err(CallError::Timeout) => assert!(sent < 1000, "{sent} messages are kept"),
            found => break found.map(|message| message.len()),
        }
    };
    assert!(matches!(found, Err(CallError::Backlog { waiting_bytes: 2048.. })), "{found:?}");
    for _ in 0..sent {
        assert!(host.try_recv().unwrap().is_empty());
    }
    assert!(matches!(host.finish_call(&pending, Duration::ZERO), Err(CallError::Timeout)));
}

/// An id that a former process drew is not taken for one of ours, however few it has drawn.
#[test]
fn ids_do_not_repeat() {
    let mut seen: Vec<CallId> = Vec::new();
    for _ in 0..20 {
        let (mut host, plugin) = pair(256);
        for _ in 0..5 {
            let pending = host.begin_call(b"").unwrap();
            assert!(!seen.contains(&pending.id()));
            seen.push(pending.id());
        }
        drop(plugin);
    }
}

#[test]
fn a_dead_callee_is_told() {
    let (mut host, plugin) = pair(4096);
    let pending = host.begin_call(b"?").unwrap();
    drop(plugin);
    assert_eq!(host.finish_call(&pending, NEVER), Err(CallError::Disconnected));
    assert_eq!(host.recv(), Err(RecvError::Disconnected));
}
