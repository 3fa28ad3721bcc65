//! Passive mode between a host and its plugins: deaths and restarts of either side of a callback.

#![allow(unsafe_code)]

mod common;

use std::sync::{Arc, Mutex};
use std::thread;

use common::called::{all, next, reported, telling};
use common::plugin::{self, NEVER, host, restarts};
use ringway::channel::{Channel, Dispatcher, Ended, Message};
use ringway::error::{ExitReason, RecvError, SendError};
use ringway::host::{Plugin, PluginSpec};

/// A role of this binary: callbacks that answer, and one that hangs.
fn passive_plugin() {
    let plugin = Plugin::connect().unwrap();
    let (active, _passive) = plugin.take_channels().unwrap();
    let (sender, receiver) = active.split();
    let sender = Arc::new(Mutex::new(sender));
    let answers = Arc::clone(&sender);
    let running = receiver
        .passive()
        .on(
            |m: &Message<'_>| &**m == b"hang",
            move |_: &Message<'_>| {
                let told = sender.lock().unwrap().send(b"inside");
                while told.is_ok() {
                    thread::park();
                }
            },
        )
        .on(
            |m: &Message<'_>| &**m != b"hang",
            move |m: &Message<'_>| answers.lock().unwrap().send(m),
        )
        .start()
        .unwrap();
    let _ = running.wait();
}

fn passive_spec() -> PluginSpec {
    plugin::spec("passive", "passive").restart(restarts(5)).max_redeliveries(5)
}

/// The next answer, past news of restarts.
fn answer(channel: &mut Channel) -> Vec<u8> {
    loop {
        match channel.receiver().recv_timeout(NEVER) {
            Ok(message) => return message.to_vec(),
            Err(ringway::error::RecvTimeoutError::Restarted { .. }) => (),
            Err(error) => panic!("{error}"),
        }
    }
}

fn send(channel: &mut Channel, message: &[u8]) {
    while let Err(error) = channel.send(message) {
        assert!(matches!(error, SendError::Restarted { .. }), "{error}");
    }
}

#[test]
fn passive_mode_killed_in_a_callback_its_message_comes_to_the_next() {
    let host = host();
    let handle = host.spawn(passive_spec()).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    send(&mut active, b"before");
    assert_eq!(answer(&mut active), b"before");
    send(&mut active, b"hang");
    for _ in 0..3 {
        assert_eq!(answer(&mut active), b"inside", "at least once");
        handle.kill().unwrap();
    }
    assert_eq!(answer(&mut active), b"inside");
}

#[test]
fn passive_mode_killed_while_it_waits_the_next_gets_what_comes() {
    let host = host();
    let handle = host.spawn(passive_spec()).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    for round in [b"1", b"2", b"3"] {
        send(&mut active, round);
        // One that was killed before it had given a message's room back leaves it to the next.
        while answer(&mut active) != round {}
        // It has nothing to do, and sleeps, or is about to.
        handle.kill().unwrap();
    }
    send(&mut active, b"last");
    while answer(&mut active) != b"last" {}
}

#[test]
fn passive_mode_is_told_of_the_peers_death_behind_its_last_message() {
    let host = host();
    let handle = host.spawn(plugin::spec("mortal", "echo")).unwrap();
    let (active, _passive) = handle.take_channels().unwrap();
    let (mut sender, receiver) = active.split();
    let (passive, reports) = reported(receiver.passive());
    let (callback, told) = telling();
    let running = passive.on(all, callback).start().unwrap();
    sender.send(b"last words").unwrap();
    assert_eq!(next(&told), b"last words");
    handle.kill().unwrap();
    assert_eq!(next(&reports), "no more callbacks: the peer is gone");
    while running.ended().is_none() {
        thread::yield_now();
    }
    assert_eq!(running.ended(), Some(Ended::Disconnected));
    let mut receiver = running.wait().unwrap();
    assert_eq!(receiver.recv(), Err(RecvError::Disconnected));
}

#[test]
fn passive_mode_is_told_of_restarts_and_follows() {
    let host = host();
    let handle = host.spawn(plugin::spec("victim", "echo").restart(restarts(5))).unwrap();
    let (active, _passive) = handle.take_channels().unwrap();
    let (mut sender, receiver) = active.split();
    let (passive, reports) = reported(receiver.passive());
    let (callback, told) = telling();
    let running = passive.on(all, callback).start().unwrap();
    for round in 0..3_u64 {
        while let Err(error) = sender.send_pod(&round) {
            assert!(matches!(error, SendError::Restarted { .. }), "{error}");
        }
        // One that was killed behind its answer leaves the question to the next.
        while next(&told) != round.to_ne_bytes() {}
        handle.kill().unwrap();
        let reason = ExitReason::Signal(libc::SIGKILL);
        assert_eq!(next(&reports), format!("the peer was restarted: {reason}"));
    }
    // On the incarnation that it has followed to, it can be reached.
    let receiver = running.stop().unwrap();
    assert_eq!(next(&reports), "no more callbacks: stopped");
    drop(receiver);
}

#[test]
fn restarts_are_followed_on_a_shared_dispatcher() {
    let (host, dispatcher) = (host(), Dispatcher::new().unwrap());
    let handle = host.spawn(plugin::spec("victim", "echo").restart(restarts(5))).unwrap();
    let (active, _passive) = handle.take_channels().unwrap();
    let (mut sender, receiver) = active.split();
    let (passive, reports) = reported(receiver.passive());
    let (callback, told) = telling();
    let running = passive.on(all, callback).start_on(&dispatcher).unwrap();
    for round in 0..3_u64 {
        while let Err(error) = sender.send_pod(&round) {
            assert!(matches!(error, SendError::Restarted { .. }), "{error}");
        }
        while next(&told) != round.to_ne_bytes() {}
        handle.kill().unwrap();
        assert!(next(&reports).starts_with("the peer was restarted: "));
    }
    drop(running.stop().unwrap());
    assert_eq!(next(&reports), "no more callbacks: stopped");
}

/// The roles of this binary as a plugin.
#[test]
fn plugin_entry() {
    if std::env::var(plugin::ROLE).as_deref() == Ok("passive") {
        passive_plugin();
        std::process::exit(0);
    }
    plugin::run_role();
}
