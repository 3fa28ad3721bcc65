//! The service channel between real processes: asked by many threads, misused, and outlived.
//!
//! This test binary is executed again as the plugin. What always holds: a plugin is ended by its
//! host at the end of each test, also where the test fails.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use common::plugin::{self, KILLED, NEVER, host, restarts};
use common::serving::serving_host;
use ringway::channel::Channel;
use ringway::error::RecvTimeoutError;
use ringway::host::{Host, HostEventKind, PluginHandle, ServiceProblem};

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    plugin::run_role();
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

/// A plugin that pings, to see that it is served whatever others do.
struct Neighbour {
    _handle: PluginHandle,
    active: Channel,
}

impl Neighbour {
    fn start(host: &Host) -> Self {
        let handle = host.spawn(plugin::spec("neighbour", "ping")).unwrap();
        let (mut active, _passive) = handle.take_channels().unwrap();
        assert_eq!(next(&mut active), "Ok(())");
        Self { _handle: handle, active }
    }

    fn is_served(&mut self) {
        self.active.send(b"ping").unwrap();
        assert_eq!(next(&mut self.active), "Ok(())");
    }
}

/// The next event that is not a start.
fn event(host: &Host) -> (String, HostEventKind) {
    loop {
        let event = host.next_event(NEVER).expect("an event");
        if !matches!(event.kind, HostEventKind::Started { .. }) {
            return (event.plugin, event.kind);
        }
    }
}

#[test]
fn pings_are_answered_before_and_after_a_plugin_is_ready() {
    let host = serving_host();
    let mut plugin = Neighbour::start(&host);
    for _ in 0..100 {
        plugin.is_served();
    }
    assert!(host.next_event(Duration::ZERO).is_some_and(|event| event.plugin == "neighbour"));
    assert_eq!(host.next_event(Duration::ZERO), None);
}

#[test]
fn without_anything_to_serve_there_is_no_service_channel() {
    let host = host();
    let handle = host.spawn(plugin::spec("alone", "ping")).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    assert_eq!(next(&mut active), "Err(NotServed)");
}

#[test]
fn f40_who_misuses_its_service_channel_loses_it_and_nobody_else_does() {
    let host = serving_host();
    let mut neighbour = Neighbour::start(&host);
    for (misuse, problem) in [
        ("garbage", ServiceProblem::NoRequest { tag: 0, len: 5, status: 0 }),
        ("flood", ServiceProblem::NotReading),
    ] {
        let spec = plugin::spec(misuse, "misuse-service").restart(restarts(3));
        let handle = host.spawn(spec).unwrap();
        let (mut active, _passive) = handle.take_channels().unwrap();
        active.send(misuse.as_bytes()).unwrap();
        assert_eq!(event(&host), (misuse.into(), HostEventKind::ServiceClosed { problem }));
        neighbour.is_served();
        // It is told when it asks, and goes on otherwise.
        let told = next(&mut active);
        assert!(told.starts_with("Closed") || told.starts_with("Corrupt"), "{told}");
        // Its successor is served again.
        handle.kill().unwrap();
        assert!(matches!(event(&host).1, HostEventKind::Died { reason: KILLED, .. }));
        assert!(matches!(event(&host).1, HostEventKind::Restarted { .. }));
        assert_eq!(handle.terminate().map(drop), Ok(()));
        assert!(matches!(event(&host).1, HostEventKind::Died { .. }));
    }
}

#[test]
fn f01_a_plugin_that_dies_with_requests_under_way_is_followed_by_one_that_is_served() {
    let host = serving_host();
    let mut neighbour = Neighbour::start(&host);
    let spec = plugin::spec("victim", "misuse-service").restart(restarts(20));
    let handle = host.spawn(spec).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    for round in 2..12 {
        while active.send(b"die").is_err() {}
        assert!(matches!(event(&host).1, HostEventKind::Died { reason: KILLED, .. }));
        let HostEventKind::Restarted { incarnation, carried, .. } = event(&host).1 else {
            panic!("another event")
        };
        assert_eq!((incarnation, carried), (round, 0), "the message was released");
        neighbour.is_served();
    }
    assert_eq!(host.next_event(Duration::ZERO), None, "nothing is said of the dead's answers");
}

#[test]
fn f01_a_host_that_is_killed_ends_every_request() {
    let mut command = plugin::command("host-of-a-pinger");
    let mut host = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(host.stderr.take().unwrap()).lines();
    let ready = lines.next().unwrap().unwrap();
    host.kill().unwrap();
    host.wait().unwrap();
    assert_eq!(ready, "ready");
    assert_eq!(lines.next().unwrap().unwrap(), "HostGone, then HostGone");
}
