//! Restarts and ends that somebody has asked for: the plugin on its control ring, the host program
//! by its handle; and how a plugin is told.
//!
//! This test binary is executed again as the plugin. What always holds: a plugin is ended by its
//! host at the end of each test, also where the test fails.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::asking::exit_code;
use common::plugin::{self, KILLED, NEVER, host, restarts};
use ringway::channel::Channel;
use ringway::error::{ExitReason, RecvTimeoutError, SendError};
use ringway::host::{
    HandleError, Host, HostEventKind, Moment, PluginState, RequestProblem, Restart, Shutdown,
    StopCause,
};

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    plugin::run_role();
}

const TERMINATED: ExitReason = ExitReason::Signal(libc::SIGTERM);

fn told(cause: StopCause) -> ExitReason {
    ExitReason::Code(exit_code(cause))
}

fn send(channel: &mut Channel, message: &str) {
    while let Err(SendError::Restarted { .. }) = channel.send(message.as_bytes()) {}
}

fn next(channel: &mut Channel) -> String {
    loop {
        match channel.recv_timeout(NEVER) {
            Ok(message) => return String::from_utf8(message.to_vec()).unwrap(),
            Err(RecvTimeoutError::Restarted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Events up to the first that is like this one, which is the last.
fn until(host: &Host, wanted: impl Fn(&HostEventKind) -> bool) -> Vec<HostEventKind> {
    let mut kinds = Vec::new();
    while !kinds.last().is_some_and(&wanted) {
        kinds.push(host.next_event(NEVER).expect("in time").kind);
    }
    kinds
}

fn is_restarted(kind: &HostEventKind) -> bool {
    matches!(kind, HostEventKind::Restarted { .. })
}

#[test]
fn a_plugin_that_asks_is_restarted_and_its_successor_gets_what_is_unread() {
    let host = host();
    // It is not restarted for any other reason.
    let spec = plugin::spec("asker", "obey").restart(Restart::Never).notice(NEVER);
    let handle = host.spawn(spec).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    for message in ["one", "restart:new\nsettings", "two", "three"] {
        send(&mut active, message);
    }
    assert_eq!(next(&mut active), "one");
    assert_eq!(next(&mut active), "two");
    assert_eq!(next(&mut active), "three");
    let reason = "new settings".into();
    let [
        HostEventKind::Started { .. },
        asked,
        HostEventKind::Died { reason: died_of, .. },
        HostEventKind::Restarted { incarnation: 2, carried: 2, .. },
    ] = &until(&host, is_restarted)[..]
    else {
        panic!("other events")
    };
    assert_eq!(*asked, HostEventKind::RestartRequested { reason });
    assert_eq!(*died_of, told(StopCause::Restart), "it has listened");
    handle.kill().unwrap();
    assert_eq!(handle.wait_exit(NEVER), Ok(KILLED), "that was no request");
}

/// The supervisor may hear of the death before it hears the bell, and may never hear the bell.
#[test]
fn a_plugin_that_asks_and_ends_at_once_is_restarted_all_the_same() {
    for order in ["restart-and-exit", "restart-unrung"] {
        let host = host();
        let handle = host.spawn(plugin::spec("hasty", "obey")).unwrap();
        let (mut active, _passive) = handle.take_channels().unwrap();
        send(&mut active, &format!("{order}:no time"));
        send(&mut active, "here?");
        assert_eq!(next(&mut active), "here?");
        let asked = |kind: &HostEventKind| matches!(kind, HostEventKind::RestartRequested { reason } if reason == "no time");
        let kinds = until(&host, is_restarted);
        assert_eq!(kinds.iter().filter(|kind| asked(kind)).count(), 1, "{kinds:?}");
    }
}

#[test]
fn a_plugin_that_asks_to_end_ends_for_good() {
    let host = host();
    let spec = plugin::spec("tired", "obey").restart(Restart::always()).notice(NEVER);
    let handle = host.spawn(spec).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    send(&mut active, "end:nothing left to do");
    assert_eq!(handle.wait_exit(NEVER), Ok(told(StopCause::Shutdown)));
    assert_eq!(handle.restart(), Err(HandleError::NotRunning));
    let kinds = until(&host, |kind| matches!(kind, HostEventKind::Died { .. }));
    let asked = HostEventKind::StopRequested { reason: "nothing left to do".into() };
    assert!(kinds.contains(&asked), "{kinds:?}");
    assert!(host.spawn(plugin::spec("tired", "echo")).is_ok(), "the name is free again");
}

#[test]
fn asking_says_what_is_wrong() {
    let host = host();
    let handle = host.spawn(plugin::spec("asker", "request-errors").notice(NEVER)).unwrap();
    assert_eq!(handle.wait_exit(NEVER), Ok(told(StopCause::Shutdown)));
}

#[test]
fn a_bad_request_is_reported_and_harms_nothing() {
    for (message, problem) in [
        ("bad:9", RequestProblem::Tag { found: 9 }),
        ("bad:256", RequestProblem::Tag { found: 256 }),
        ("bad:3", RequestProblem::TooLong { len: 300, max: 256 }),
    ] {
        let host = host();
        let handle = host.spawn(plugin::spec("liar", "obey")).unwrap();
        let (mut active, _passive) = handle.take_channels().unwrap();
        send(&mut active, message);
        let kinds = until(&host, |kind| matches!(kind, HostEventKind::BadRequest { .. }));
        assert_eq!(kinds.last(), Some(&HostEventKind::BadRequest { problem }));
        // It goes on, and is not listened to any more.
        for more in [message, "end:please", "still there?"] {
            send(&mut active, more);
        }
        for more in [message, message, "end:please", "still there?"] {
            assert_eq!(next(&mut active), more);
        }
        assert_eq!(host.next_event(Duration::ZERO), None);
        assert_eq!(handle.state(), PluginState::Running);
    }
}

#[test]
fn a_bell_without_a_message_means_nothing() {
    let host = host();
    let handle = host.spawn(plugin::spec("ringer", "obey")).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    for _ in 0..100 {
        send(&mut active, "ring");
        assert_eq!(next(&mut active), "ring");
    }
    assert_eq!(handle.state(), PluginState::Running);
}

#[test]
fn f40_a_flood_of_requests_is_heard_once_for_each_process() {
    let host = host();
    let flood = plugin::spec("flood", "flood-requests").grace(Duration::ZERO);
    let flood = host.spawn(flood).unwrap();
    let neighbour = host.spawn(plugin::spec("neighbour", "echo")).unwrap();
    let (mut active, _passive) = neighbour.take_channels().unwrap();
    let mut kinds = until(&host, is_restarted);
    kinds.extend(until(&host, is_restarted));
    let asked = |kind: &&HostEventKind| matches!(kind, HostEventKind::RestartRequested { .. });
    assert_eq!(kinds.iter().filter(asked).count(), 2, "{kinds:?}");
    send(&mut active, "and you?");
    assert_eq!(next(&mut active), "and you?");
    flood.terminate().unwrap();
    let rest = std::iter::from_fn(|| host.next_event(Duration::ZERO)).map(|event| event.kind);
    assert!(rest.filter(|kind| asked(&kind)).count() <= 1);
}

#[test]
fn a_restart_by_the_host_is_no_failure_and_no_fault_of_a_message() {
    let host = host();
    let spec = plugin::spec("replaced", "deaf").restart(restarts(0)).max_redeliveries(0);
    let handle = host.spawn(spec.grace(Duration::ZERO)).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    // It never reads.
    send(&mut active, "kept");
    for incarnation in 2..6 {
        handle.restart().unwrap();
        let kinds = until(&host, is_restarted);
        let Some(HostEventKind::Restarted { incarnation: found, carried: 1, .. }) = kinds.last()
        else {
            panic!("{kinds:?}")
        };
        assert_eq!(*found, incarnation);
    }
    handle.kill().unwrap();
    assert_eq!(handle.wait_exit(NEVER), Ok(KILLED), "no failure is allowed");
    assert_eq!(handle.restart(), Err(HandleError::NotRunning));
}

#[test]
fn ends_wait_for_a_successor_that_was_asked_for_though_the_plugin_hangs_up() {
    let host = host();
    let spec = plugin::spec("closer", "close-first").restart(Restart::Never);
    let handle = host.spawn(spec.notice(Duration::from_millis(50))).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    handle.restart().unwrap();
    let error = active.recv_timeout(NEVER).map(drop).unwrap_err();
    assert_eq!(error, RecvTimeoutError::Restarted { reason: TERMINATED });
}

#[test]
fn a_plugin_that_listens_needs_no_signal() {
    let host = host();
    let handle = host.spawn(plugin::spec("listener", "obey").notice(NEVER)).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    handle.restart().unwrap();
    let kinds = until(&host, is_restarted);
    let ended = |kind: &HostEventKind| matches!(kind, HostEventKind::Died { reason, .. } if *reason == told(StopCause::Restart));
    assert!(kinds.iter().any(ended), "{kinds:?}");
    send(&mut active, "next?");
    assert_eq!(next(&mut active), "next?");
    assert_eq!(handle.terminate(), Ok(told(StopCause::Shutdown)));
}

#[test]
fn shutdown_ends_one_after_the_other_and_says_who_was_killed() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let told = |moment| {
        let order = Arc::clone(&order);
        move |occasion: &ringway::host::Occasion| {
            order.lock().unwrap().push((moment, occasion.plugin.name().to_owned()));
        }
    };
    let host = Host::builder()
        .hook(Moment::BeforeShutdown, told("before"))
        .hook(Moment::AfterShutdown, told("after"))
        .build()
        .unwrap();
    let _first = host.spawn(plugin::spec("first", "echo")).unwrap();
    let gone = host.spawn(plugin::spec("gone", "echo")).unwrap();
    let deaf = plugin::spec("deaf", "deaf").grace(Duration::from_millis(20));
    let _deaf = host.spawn(deaf).unwrap();
    let _last = host.spawn(plugin::spec("last", "echo")).unwrap();
    gone.terminate().unwrap();
    order.lock().unwrap().clear();
    let ended = |plugin: &str, reason, killed| Shutdown {
        plugin: plugin.into(),
        reason: Some(reason),
        killed,
    };
    let report = host.shutdown(NEVER).unwrap();
    let expected = [
        ended("last", TERMINATED, false),
        ended("deaf", KILLED, true),
        ended("first", TERMINATED, false),
    ];
    assert_eq!(report, expected);
    let order = order.lock().unwrap().clone();
    let expected = ["last", "deaf", "first"]
        .map(|name| [("before", name.to_owned()), ("after", name.to_owned())]);
    assert_eq!(order, expected.as_flattened());
    assert_eq!(host.shutdown(NEVER), Ok(vec![]), "nothing is left to end");
}

#[test]
fn shutdown_kills_what_is_left_when_the_time_is_up() {
    let host = host();
    let patient = |name: &str| plugin::spec(name, "deaf").notice(NEVER).grace(NEVER);
    for name in ["a", "b", "c"] {
        host.spawn(patient(name)).unwrap();
    }
    let report = host.shutdown(Duration::from_millis(30)).unwrap();
    assert_eq!(report.len(), 3);
    assert!(report.iter().all(|end| end.killed && end.reason == Some(KILLED)), "{report:?}");
}

#[test]
fn a_child_of_a_plugin_is_told_that_it_is_none() {
    let host = host();
    let handle = host.spawn(plugin::spec("parent", "start-a-child")).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    let text = next(&mut active);
    assert!(text.contains("should not hand on RINGWAY_PLUGIN"), "{text}");
}
