//! Plugins that see and control others through their host: listed, watched, restarted, stopped, killed.
//!
//! This test binary is executed again as the plugin. What always holds: a plugin is ended by its
//! host at the end of each test, also where the test fails.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use common::controlling::{Hand, controlling_host};
use common::plugin::{self, NEVER, restarts};
use ringway::channel::Channel;
use ringway::error::{ExitReason, RecvTimeoutError};
use ringway::host::{ControlAction, Host, HostEventKind, PluginHandle, PluginSpec, PluginState};

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    plugin::run_role();
}

fn manager(name: &str) -> PluginSpec {
    plugin::spec(name, "control-others").restart(restarts(1000)).may_control(|_| true)
}

fn worker(host: &Host, name: &str) -> (PluginHandle, Channel) {
    let spec = plugin::spec(name, "echo").restart(restarts(1000)).max_redeliveries(1000);
    let handle = host.spawn(spec).unwrap();
    let (active, _passive) = handle.take_channels().unwrap();
    (handle, active)
}

/// The next echo, past news of restarts.
fn echo(channel: &mut Channel) -> Vec<u8> {
    loop {
        match channel.recv_timeout(NEVER) {
            Ok(message) => return message.to_vec(),
            Err(RecvTimeoutError::Restarted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

const RESTARTING: &str = "Restarting { reason: Signal(9) }";
const TERMINATED: &str = "Restarting { reason: Signal(15) }";

#[test]
fn every_plugin_may_list_and_watch_the_others_and_act_on_none() {
    let host = controlling_host();
    let (handle, _active) = worker(&host, "worker");
    let mut hand = Hand::start(&host, plugin::spec("curious", "control-others"));
    assert_eq!(hand.tell("list"), "curious Running 1, worker Running 1");
    assert_eq!(hand.tell("watch worker"), "Running 1");
    assert_eq!(hand.tell("wait worker 1"), "nothing");
    for action in ["Restart", "Stop", "Kill"] {
        let denied = format!("NotPermitted {{ action: {action}, name: \"worker\" }}");
        assert_eq!(hand.tell(&format!("{} worker", action.to_lowercase())), denied);
    }
    assert_eq!(hand.tell("wait worker 0"), "nothing");
    handle.kill().unwrap();
    assert_eq!(hand.tell("wait worker"), format!("{RESTARTING} 1"));
    assert_eq!(hand.tell("wait worker"), "Running 2");
    handle.terminate().unwrap();
    assert_eq!(hand.tell("wait worker"), "Ended { reason: Signal(15) } 2");
    assert_eq!(hand.tell("list"), "curious Running 1, worker Ended { reason: Signal(15) } 2");
    // The next one of that name is watched as well.
    let (_handle, _active) = worker(&host, "worker");
    assert_eq!(
        (&*hand.tell("wait worker"), &*hand.tell("wait worker")),
        ("Starting 0", "Running 1")
    );
}

#[test]
fn the_host_program_decides_what_a_plugin_may_do() {
    let host = controlling_host();
    let _workers = ["one", "two"].map(|name| worker(&host, name));
    let spec = plugin::spec("manager", "control-others").may_control(|request| {
        assert_ne!(request.plugin, "two", "a decision that panics is a no");
        request.by == "manager" && request.action == ControlAction::Kill
    });
    let mut hand = Hand::start(&host, spec);
    let denied = |action, name| format!("NotPermitted {{ action: {action}, name: \"{name}\" }}");
    assert_eq!(hand.tell("restart one"), denied("Restart", "one"));
    assert_eq!(hand.tell("kill two"), denied("Kill", "two"));
    assert_eq!(hand.tell("kill one"), "()");
    assert_eq!(hand.tell("kill three"), "Unknown { name: \"three\" }");
    assert_eq!(hand.tell("watch no/name"), "Unknown { name: \"no/name\" }");
    let controlled =
        HostEventKind::ControlledBy { plugin: "manager".into(), action: ControlAction::Kill };
    while host.next_event(NEVER).expect("it is reported").kind != controlled {}
    let next = host.next_event(NEVER).expect("and so is what comes of it");
    assert!(matches!(next.kind, HostEventKind::Died { .. }) && next.plugin == "one", "{next:?}");
}

#[test]
fn a_plugin_restarted_by_another_gets_what_it_has_not_read() {
    let host = controlling_host();
    let spec = plugin::spec("worker", "deaf").restart(restarts(0)).grace(Duration::ZERO);
    let handle = host.spawn(spec).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    for message in [b"1", b"2", b"3"] {
        active.send(message).unwrap();
    }
    let mut hand = Hand::start(&host, manager("manager"));
    hand.tell("watch worker");
    for incarnation in 2..5 {
        assert_eq!(hand.tell("restart worker"), "()");
        assert_eq!(hand.tell("wait worker"), format!("{RESTARTING} {}", incarnation - 1));
        assert_eq!(hand.tell("wait worker"), format!("Running {incarnation}"));
    }
    // The event may come a moment behind what the watch tells.
    let mut carried = 0;
    while carried < 3 {
        let event = host.next_event(NEVER).expect("it is reported");
        if let HostEventKind::Restarted { carried: messages, .. } = event.kind {
            assert_eq!(messages, 3);
            carried += 1;
        }
    }
    // And one that reads has them.
    let (_handle, mut active) = worker(&host, "reader");
    hand.tell("watch reader");
    for round in 0..20_u8 {
        hand.order("restart reader");
        for message in 0..10 {
            while active.send(&[round, message]).is_err() {}
        }
        while echo(&mut active) != [round, 9] {}
        assert_eq!(hand.answer(), "()");
        assert_eq!(hand.tell("wait reader"), format!("{TERMINATED} {}", round + 1));
        assert_eq!(hand.tell("wait reader"), format!("Running {}", round + 2));
    }
}

#[test]
fn a_change_between_two_waits_is_never_missed() {
    let host = controlling_host();
    let (handle, _active) = worker(&host, "worker");
    let mut hand = Hand::start(&host, plugin::spec("watcher", "control-others"));
    hand.tell("watch worker");
    let restart = |times| {
        for _ in 0..times {
            let before = handle.incarnation();
            handle.kill().unwrap();
            while handle.incarnation() == before || handle.state() != PluginState::Running {
                std::thread::yield_now();
            }
        }
    };
    restart(10);
    for incarnation in 1..11 {
        assert_eq!(hand.tell("wait worker 0"), format!("{RESTARTING} {incarnation}"));
        assert_eq!(hand.tell("wait worker 0"), format!("Running {}", incarnation + 1));
    }
    assert_eq!(hand.tell("wait worker 0"), "nothing");
    // More than are kept: that is said, and the last 64 are told.
    restart(40);
    assert_eq!(hand.tell("wait worker 0"), format!("{RESTARTING} 19 and others before"));
    for incarnation in 20..=51 {
        assert_eq!(hand.tell("wait worker 0"), format!("Running {incarnation}"));
        if incarnation < 51 {
            assert_eq!(hand.tell("wait worker 0"), format!("{RESTARTING} {incarnation}"));
        }
    }
    assert_eq!(hand.tell("wait worker 0"), "nothing");
}

#[test]
fn a_plugin_stopped_by_another_stays_ended() {
    let host = controlling_host();
    let (handle, _active) = worker(&host, "worker");
    let mut hand = Hand::start(&host, manager("manager"));
    hand.tell("watch worker");
    assert_eq!(hand.tell("stop worker"), "()");
    assert_eq!(hand.tell("wait worker"), "Ended { reason: Signal(15) } 1");
    for order in ["restart worker", "stop worker", "kill worker"] {
        assert_eq!(hand.tell(order), "NotRunning { name: \"worker\" }", "{order}");
    }
    assert_eq!(handle.wait_exit(NEVER), Ok(ExitReason::Signal(libc::SIGTERM)));
    // And so does one that has ended by itself, without successors.
    let brief = host.spawn(plugin::spec("brief", "exit-when-ready")).unwrap();
    assert_eq!(brief.wait_exit(NEVER), Ok(ExitReason::Code(0)));
    for order in ["restart brief", "stop brief", "kill brief"] {
        assert_eq!(hand.tell(order), "NotRunning { name: \"brief\" }", "{order}");
    }
}

#[test]
fn a_plugin_that_is_being_started_can_be_ended_and_not_restarted() {
    let host = controlling_host();
    let mut hand = Hand::start(&host, manager("manager"));
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| host.spawn(plugin::spec("slow", "never-ready")).map(drop));
        // There is one as soon as its process is there.
        hand.insist("kill slow", "()");
        assert!(starting.join().unwrap().is_err());
        let starting = scope.spawn(|| host.spawn(plugin::spec("slower", "never-ready")).map(drop));
        while hand.tell("restart slower") == "Unknown { name: \"slower\" }" {}
        assert_eq!(hand.tell("restart slower"), "NotRunning { name: \"slower\" }");
        assert_eq!(hand.tell("stop slower"), "()");
        assert!(starting.join().unwrap().is_err());
    });
}

/// One that cannot be ended yet keeps nobody waiting but those who wait for its end.
#[test]
fn f27_a_plugin_that_takes_long_to_end_holds_up_nobody() {
    let host = controlling_host();
    let spec = plugin::spec("slow", "deaf").grace(NEVER);
    let slow = host.spawn(spec).unwrap();
    let (_handle, _active) = worker(&host, "worker");
    let mut hand = Hand::start(&host, manager("manager"));
    assert_eq!(
        (&*hand.tell("watch slow"), &*hand.tell("watch worker")),
        ("Running 1", "Running 1")
    );
    assert_eq!((&*hand.tell("restart slow"), &*hand.tell("stop slow")), ("()", "()"));
    assert_eq!(hand.tell("stop slow"), "NotRunning { name: \"slow\" }");
    assert_eq!(hand.tell("kill worker"), "()");
    assert_eq!(hand.tell("wait worker"), format!("{RESTARTING} 1"));
    assert_eq!(hand.tell("wait worker"), "Running 2");
    assert_eq!(hand.tell("kill slow"), "()");
    assert_eq!(hand.tell("wait slow"), "Ended { reason: Signal(9) } 1");
    assert_eq!(slow.wait_exit(NEVER), Ok(plugin::KILLED));
}

#[test]
fn plugins_restart_stop_and_kill_themselves_without_leave() {
    let host = controlling_host();
    let spec = plugin::spec("self", "control-others").restart(restarts(1000));
    let mut hand = Hand::start(&host, spec);
    for (round, order) in
        ["kill self", "restart self", "kill self", "restart self"].into_iter().enumerate()
    {
        hand.order(order);
        // Its answer may have come before its end, and after.
        loop {
            let answer = hand.tell("list");
            if answer == format!("self Running {}", round + 2) {
                break;
            }
        }
    }
    hand.order("stop self");
    assert_eq!(hand.handle.wait_exit(NEVER), Ok(ExitReason::Signal(libc::SIGTERM)));
}

/// As if it had asked to be restarted: told of once, and the message is to blame.
#[test]
fn f40_a_plugin_that_floods_its_host_with_restarts_of_itself_is_heard_once() {
    let host = controlling_host();
    let spec = plugin::spec("self", "control-others").restart(restarts(1000));
    let mut hand = Hand::start(&host, spec.grace(NEVER).max_redeliveries(0));
    assert_eq!(hand.tell("flood-restarts self"), "()".repeat(20));
    hand.handle.kill().unwrap();
    let mut kinds = Vec::new();
    while !matches!(kinds.last(), Some(HostEventKind::Restarted { .. })) {
        kinds.push(host.next_event(NEVER).expect("in time").kind);
    }
    let count = |wanted: fn(&HostEventKind) -> bool| kinds.iter().filter(|one| wanted(one)).count();
    assert_eq!(count(|one| matches!(one, HostEventKind::ControlledBy { .. })), 1, "{kinds:?}");
    assert_eq!(count(|one| matches!(one, HostEventKind::Dropped { .. })), 1, "{kinds:?}");
    assert_eq!(hand.tell("list"), "self Running 2");
}

/// Each restarts, kills and watches each, itself too, all at the same time.
#[test]
fn plugins_that_restart_each_other_do_not_wait_for_each_other() {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    let host = controlling_host();
    let mut hands: Vec<_> = NAMES.iter().map(|name| Hand::start(&host, manager(name))).collect();
    for round in 0..40 {
        for (number, hand) in hands.iter_mut().enumerate() {
            let what = if (round + number) % 3 == 0 { "kill" } else { "restart" };
            hand.order(&format!("{what} {}", NAMES[(number + round) % 4]));
        }
    }
    // All of them run in the end, and are served.
    for hand in &mut hands {
        hand.insist("restart nobody", "Unknown { name: \"nobody\" }");
    }
    let total: u32 = hands.iter().map(|hand| hand.handle.restarts()).sum();
    assert!(total > 4, "{total}");
    // They are ended while they are being restarted.
    for (number, hand) in hands.iter_mut().enumerate() {
        hand.order(&format!("restart {}", NAMES[(number + 1) % 4]));
    }
    assert_eq!(host.shutdown(NEVER).map(|report| report.len()), Ok(4));
}

#[test]
fn f02_who_is_killed_while_it_waits_for_a_change_is_missed_by_nobody() {
    let host = controlling_host();
    let (handle, _active) = worker(&host, "worker");
    let mut other = Hand::start(&host, manager("other"));
    let mut hand = Hand::start(&host, manager("watcher").max_redeliveries(0));
    other.tell("watch watcher");
    for round in 1..=20 {
        assert_eq!(hand.tell("watch worker"), "Running 1");
        assert_eq!(hand.tell("wait worker aloud"), "waits");
        assert_eq!(other.tell("kill watcher"), "()");
        assert_eq!(other.tell("wait watcher"), format!("{RESTARTING} {round}"));
        assert_eq!(other.tell("wait watcher"), format!("Running {}", round + 1));
    }
    // Another one waits as before, and so does a successor.
    other.tell("watch worker");
    hand.tell("watch worker");
    handle.kill().unwrap();
    for hand in [&mut hand, &mut other] {
        assert_eq!(hand.tell("wait worker"), format!("{RESTARTING} 1"));
        assert_eq!(hand.tell("wait worker"), "Running 2");
    }
}

#[test]
fn f03_who_waits_for_a_change_is_told_that_the_host_was_killed() {
    let mut host = plugin::command("host-of-a-watcher").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(host.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("waits"));
    host.kill().unwrap();
    host.wait().unwrap();
    let last = lines.find(|line| line != "waits");
    assert_eq!(last.as_deref(), Some("Service(HostGone)"));
}

#[test]
fn without_anything_to_serve_nothing_is_told_of_others() {
    let host = plugin::host();
    let mut hand = Hand::start(&host, manager("alone"));
    assert_eq!(hand.tell("list"), "Service(NotServed)");
    assert_eq!(hand.tell("kill alone"), "Service(NotServed)");
}
