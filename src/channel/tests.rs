//! Ends against closes that are taken back, forks at the wrong moment, and hand-overs that nobody
//! follows.
//!
//! These need what only the crate can do: write a peer's words, play the host. What always holds: a
//! call that would go on for ever fails the test instead of hanging it.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::{Channel, ChannelOptions, Selector};
use crate::error::{
    ExitReason, RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError,
};
use crate::layout::ring;
use crate::memory::{Memory, Ordering};
use crate::os::tests::{alone, child_says, without_system_calls};

/// Longer than anything takes; reached only by a test that has failed.
const NEVER: Duration = Duration::from_secs(30);

fn small() -> ChannelOptions {
    ChannelOptions { capacity_bytes: 4096, ..ChannelOptions::default() }
}

fn pair() -> (Channel, Channel) {
    Channel::pair(&small()).unwrap()
}

/// Runs what must come to an end in a thread of its own.
fn ends<T: Send + 'static>(what: &str, call: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    thread::spawn(move || done.send(call()));
    result.recv_timeout(NEVER).unwrap_or_else(|_| panic!("{what} has not returned"))
}

/// A plugin that may be restarted closes its sender, which starts a grace, and takes that back.
#[test]
fn f36_a_close_that_is_taken_back_does_not_keep_a_receiver_past_its_deadline() {
    let (mut host, plugin) = pair();
    host.connection().follow();
    let closed = host.connection().incoming().control(ring::PRODUCER_CLOSED);
    let memory = plugin.connection().memory();
    memory.store_u32(closed, 1, Ordering::Relaxed);
    assert!(host.try_recv().is_err());
    memory.store_u32(closed, 0, Ordering::Relaxed);
    // Longer than the grace, which has an end of its own.
    let timeout = Duration::from_nanos(super::sender::CLOSING_GRACE_NS) + Duration::from_millis(5);
    let found = ends("recv_timeout", move || host.recv_timeout(timeout).map(|m| m.to_owned()));
    assert_eq!(found.unwrap_err(), RecvTimeoutError::Timeout);
    drop(plugin);
}

/// The process forks while a message is in the making.
#[test]
fn f30_what_is_being_filled_is_not_sent_by_a_forked_child() {
    let (mut host, mut plugin) = pair();
    let mut slot = host.sender().reserve(8).unwrap();
    assert!(child_says(|| {
        let written = slot.write(b"child");
        slot.commit();
        written == 0
    }));
    assert!(plugin.try_recv().is_err(), "a reservation");
    let mut batch = host.sender().batch().unwrap();
    batch.push(b"parent").unwrap();
    assert!(child_says(|| batch.push(b"child").is_err() && batch.commit() == 0));
    assert!(plugin.try_recv().is_err(), "a batch");
    host.send(b"parent").unwrap();
    assert_eq!(&*plugin.recv().unwrap(), b"parent");
}

/// Nobody has the ends of the old incarnation any more, before or after the new one is there.
#[test]
fn ends_that_were_dropped_are_closed_in_the_next_incarnation_too() {
    for dropped_first in [true, false] {
        let (host, plugin) = pair();
        let (new_host, mut new_plugin) = pair();
        let (old, new) = (Arc::clone(host.connection()), new_host.into_successor());
        let mut host = Some(host);
        host.as_mut().unwrap().send(b"last").unwrap();
        old.peer_died(ExitReason::Unknown, true);
        if dropped_first {
            host = None;
        }
        old.succeed(new, false).unwrap();
        drop(host);
        assert_eq!(&*new_plugin.recv_timeout(NEVER).unwrap(), b"last");
        let found = ends("recv", move || {
            let end = new_plugin.recv().map(|message| message.to_owned()).unwrap_err();
            (end, new_plugin.send(b"anybody?").unwrap_err())
        });
        assert_eq!(found, (RecvError::Disconnected, SendError::Disconnected));
        drop(plugin);
    }
}

/// The plugin's process has died; something that it has left behind has its end.
#[test]
fn f66_a_holder_of_a_dead_incarnation_s_channel_is_told() {
    let (mut host, mut left) = pair();
    host.send(b"last").unwrap();
    left.send(b"unread").unwrap();
    host.connection().leave();
    let found = ends("recv", move || {
        let last = left.recv().map(|message| message.to_owned()).unwrap();
        let end = left.recv().map(|message| message.to_owned()).unwrap_err();
        (last, end, left.send(b"anybody?").unwrap_err())
    });
    assert_eq!(&*found.0, b"last");
    assert_eq!((found.1, found.2), (RecvError::Disconnected, SendError::Disconnected));
    assert_eq!(&*host.recv_timeout(NEVER).unwrap(), b"unread", "the host's own end goes on");
}

/// The first calls after a restart leave the old segment behind: the caller makes no system call that
/// unmaps it.
#[test]
fn f59_the_first_call_after_a_restart_unmaps_nothing() {
    if !alone("channel::tests::f59_the_first_call_after_a_restart_unmaps_nothing") {
        return;
    }
    crate::supervisor::start().unwrap();
    let options = ChannelOptions { capacity_bytes: 4 << 20, ..ChannelOptions::default() };
    let pair = || Channel::pair(&options).unwrap();
    let ((host, plugin), (new_host, mut new_plugin)) = (pair(), pair());
    let (old, new) = (Arc::clone(host.connection()), new_host.into_successor());
    old.peer_died(ExitReason::Unknown, true);
    old.succeed(new, false).unwrap();
    drop((old, plugin));
    let (mut sender, mut receiver) = host.split();
    let done = without_system_calls(move || {
        let told = |result| matches!(result, Err(TrySendError::Restarted { .. }));
        let told = told(sender.try_send(b"first")) && sender.try_send(b"first").is_ok();
        let found = matches!(receiver.try_recv(), Err(TryRecvError::Restarted { .. }));
        let empty = receiver.try_recv().is_err();
        // They go with their thread.
        std::mem::forget((sender, receiver));
        told && found && empty
    });
    assert_eq!(done, Some(true), "a system call, or a wrong result");
    assert_eq!(&*new_plugin.recv_timeout(NEVER).unwrap(), b"first");
}

/// A wait whose deadline has passed, and every call that does not wait, make no system call.
#[test]
fn f57_a_passed_deadline_makes_no_system_call() {
    if !alone("channel::tests::f57_a_passed_deadline_makes_no_system_call") {
        return;
    }
    let (mut host, mut plugin) = pair();
    let mut selector = Selector::new();
    let (_other, other) = pair();
    selector.add(other.split().1);
    let pending = host.begin_call(b"nobody answers").unwrap();
    // Whatever is made at the first call: buffers, the selector's own.
    while host.try_send(&[0; 1000]).is_ok() {}
    while plugin.try_recv().is_ok() {}
    while host.try_send(&[0; 1000]).is_ok() {}
    selector.poll(8, Duration::ZERO, |_, _| ());
    let done = without_system_calls(move || {
        let mut right = true;
        for _ in 0..1000 {
            right &= matches!(host.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
            right &= host.try_recv().is_err();
            right &= host.send_timeout(&[0; 1000], Duration::ZERO).is_err();
            right &= host.wait_for_peer(Duration::ZERO).is_ok();
            right &= host.finish_call(&pending, Duration::ZERO).is_err();
            right &= selector.poll(8, Duration::ZERO, |_, _| ()) == 0;
        }
        std::mem::forget((host, pending, selector));
        right
    });
    assert_eq!(done, Some(true), "a system call, or a wrong result");
    drop(plugin);
}
