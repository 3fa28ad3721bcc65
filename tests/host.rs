//! Plugins as real processes: started, answered, restarted, ended.
//!
//! This test binary is executed again as the plugin. What always holds: a plugin is ended by its
//! host at the end of each test, also where the test fails.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::io::Read;
use std::process::Command;
use std::time::Duration;

use common::plugin::{self, KILLED, NEVER, host, restarts};
use common::victim::Victim;
use ringway::channel::{ChannelOptions, ChannelTypes};
use ringway::error::{ExitReason, RecvTimeoutError, SendError};
use ringway::host::{
    HandleError, Host, HostEventKind, NameError, PluginState, Restart, SpawnError,
    TakeChannelsError,
};
use ringway::typed::Pod;

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    plugin::run_role();
}

fn events(host: &Host) -> Vec<HostEventKind> {
    std::iter::from_fn(|| host.next_event(Duration::ZERO)).map(|event| event.kind).collect()
}

#[test]
fn a_plugin_answers_on_both_channels_and_ends_when_told() {
    let host = host();
    let handle = host.spawn(plugin::spec("echo", "echo")).unwrap();
    assert_eq!(handle.state(), PluginState::Running);
    let (mut active, mut passive) = handle.take_channels().unwrap();
    assert_eq!(handle.take_channels().unwrap_err(), TakeChannelsError::Taken);
    for length in [0, 1, 7, 8, 100, 5000] {
        let message = vec![7; length];
        active.send(&message).unwrap();
        passive.send(&message).unwrap();
        assert_eq!(active.recv_timeout(NEVER).unwrap().bytes(), message);
        assert_eq!(passive.recv_timeout(NEVER).unwrap().bytes(), message);
    }
    assert_eq!(handle.terminate(), Ok(ExitReason::Signal(libc::SIGTERM)));
    assert_eq!(active.recv_timeout(NEVER).unwrap_err(), RecvTimeoutError::Disconnected);
    assert_eq!(passive.send(b"?").unwrap_err(), SendError::Disconnected);
    assert_eq!(handle.state(), PluginState::Ended { reason: ExitReason::Signal(libc::SIGTERM) });
    assert_eq!(handle.pid(), None);
    assert_eq!(handle.kill(), Err(HandleError::NotRunning));
    assert_eq!(handle.wait_exit(NEVER), Ok(ExitReason::Signal(libc::SIGTERM)));
}

#[test]
fn a_plugin_that_is_hung_up_on_ends_by_itself() {
    let host = host();
    let handle = host.spawn(plugin::spec("echo", "echo").restart(Restart::on_failure())).unwrap();
    drop(handle.take_channels().unwrap());
    assert_eq!(handle.wait_exit(NEVER), Ok(ExitReason::Code(0)));
    assert_eq!(handle.restarts(), 0, "no failure");
}

#[test]
fn killed_in_the_middle_nothing_is_lost_and_each_end_is_told_once() {
    const MESSAGES: u64 = 20_000;
    const WINDOW: u64 = 100;
    let host = host();
    let handle = host.spawn(plugin::spec("victim", "echo").restart(restarts(50))).unwrap();
    let (active, _passive) = handle.take_channels().unwrap();
    let (mut sender, mut receiver) = active.split();
    let (mut sent, mut answered, mut again) = (0, 0, 0);
    let (mut sender_told, mut receiver_told) = (0, 0);
    while answered < MESSAGES {
        if sent < MESSAGES && sent - answered < WINDOW {
            match sender.send(&sent.to_ne_bytes()) {
                Ok(()) => {
                    sent += 1;
                    if sent == MESSAGES / 3 {
                        handle.kill().unwrap();
                    }
                }
                Err(SendError::Restarted { .. }) => sender_told += 1,
                Err(error) => panic!("{error}"),
            }
            continue;
        }
        match receiver.recv_timeout(NEVER) {
            Ok(message) => {
                let number = u64::from_ne_bytes(message.bytes().try_into().unwrap());
                assert!(number <= answered, "{answered} has been lost");
                if number < answered {
                    again += 1;
                } else {
                    answered += 1;
                }
            }
            Err(RecvTimeoutError::Restarted { reason }) => {
                assert_eq!(reason, KILLED);
                receiver_told += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((sender_told, receiver_told), (1, 1));
    // The successor may have answered everything before the host's thread gets on.
    let mut told = Vec::new();
    while !matches!(told.last(), Some(HostEventKind::Restarted { .. })) {
        told.push(host.next_event(NEVER).unwrap().kind);
    }
    assert_eq!(handle.restarts(), 1);
    let [
        HostEventKind::Started { .. },
        HostEventKind::Died { reason: KILLED, .. },
        HostEventKind::Restarted { incarnation: 2, carried, .. },
    ] = told[..]
    else {
        panic!("other events")
    };
    assert!(again <= carried, "{again} answers came again, {carried} messages were carried over");
}

#[test]
fn a_program_that_is_not_executable_is_an_error() {
    let host = host();
    let missing = plugin::spec_of("missing", Command::new("/nonexistent/plugin"));
    let error = host.spawn(missing).unwrap_err();
    assert!(matches!(&error, SpawnError::Exec { program, .. } if program == "/nonexistent/plugin"));
    let directory = plugin::spec_of("directory", Command::new("/"));
    assert!(matches!(host.spawn(directory).unwrap_err(), SpawnError::Exec { .. }));
}

#[test]
fn a_plugin_that_exits_at_once_is_an_error_that_says_how() {
    let error = host().spawn(plugin::spec("brief", "exit-7")).unwrap_err();
    assert!(matches!(error, SpawnError::Exited { reason: ExitReason::Code(7) }), "{error}");
    // A program that knows nothing of hosts.
    let error = host().spawn(plugin::spec_of("true", Command::new("true"))).unwrap_err();
    assert!(matches!(error, SpawnError::Exited { reason: ExitReason::Code(0) }), "{error}");
}

#[test]
fn a_plugin_that_is_never_ready_is_killed() {
    let host = host();
    let timeout = Duration::from_millis(300);
    let error = host.spawn(plugin::spec("slow", "never-ready").ready_timeout(timeout)).unwrap_err();
    assert!(matches!(error, SpawnError::NotReady { timeout: found } if found == timeout));
    assert!(
        events(&host).iter().any(|kind| matches!(kind, HostEventKind::Died { reason: KILLED, .. }))
    );
}

#[test]
fn names_are_checked_and_unique() {
    let host = host();
    for (name, expected) in [
        (String::new(), NameError::Empty),
        ("n".repeat(65), NameError::TooLong { len: 65, max: 64 }),
        ("a/b".into(), NameError::Character('/')),
        ("a\0b".into(), NameError::Character('\0')),
    ] {
        let error = host.spawn(plugin::spec(&name, "echo")).unwrap_err();
        assert!(matches!(error, SpawnError::Name { problem, .. } if problem == expected));
    }
    let first = host.spawn(plugin::spec("twin", "echo")).unwrap();
    let error = host.spawn(plugin::spec("twin", "echo")).unwrap_err();
    assert!(matches!(error, SpawnError::Duplicate { name } if name == "twin"));
    first.terminate().unwrap();
    host.spawn(plugin::spec("twin", "echo")).unwrap();
}

#[test]
fn standard_error_is_what_the_specification_says() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let host = host();
    let handle = host.spawn(plugin::spec("speaker", "speak").stderr(writer)).unwrap();
    handle.terminate().unwrap();
    drop((handle, host));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(text.contains("something went wrong"), "{text:?}");
}

#[test]
fn a_plugin_that_ignores_sigterm_is_killed_after_its_grace() {
    let host = host();
    let spec = plugin::spec("deaf", "deaf").grace(Duration::from_millis(50));
    let handle = host.spawn(spec.restart(restarts(50))).unwrap();
    assert_eq!(handle.terminate(), Ok(KILLED));
    assert_eq!(handle.restarts(), 0, "it was told to end");
    assert_eq!(handle.terminate(), Ok(KILLED), "again is the same");
}

#[test]
fn a_plugin_that_fails_again_and_again_is_given_up() {
    let host = host();
    let handle = host.spawn(plugin::spec("weak", "fail-when-ready").restart(restarts(3))).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    assert_eq!(handle.wait_exit(NEVER), Ok(ExitReason::Code(3)));
    assert_eq!(handle.restarts(), 3);
    let kinds = events(&host);
    let died = kinds.iter().filter(|kind| matches!(kind, HostEventKind::Died { .. })).count();
    assert_eq!(died, 4);
    assert_eq!(kinds.last(), Some(&HostEventKind::GaveUp { reason: ExitReason::Code(3) }));
    let end = loop {
        match active.recv_timeout(NEVER) {
            Err(RecvTimeoutError::Restarted { .. }) => {}
            other => break other.map(drop),
        }
    };
    assert_eq!(end, Err(RecvTimeoutError::Disconnected));
    assert!(host.spawn(plugin::spec("weak", "echo")).is_ok(), "the name is free again");
}

#[test]
fn restarts_come_after_pauses_that_grow_and_failures_are_counted() {
    const FIRST: Duration = Duration::from_millis(20);
    let host = host();
    let restart =
        Restart::OnFailure { max_restarts: 4, backoff_initial: FIRST, backoff_max: 3 * FIRST };
    let spec = plugin::spec("weak", "fail-when-used").restart(restart).max_redeliveries(10);
    let handle = host.spawn(spec).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    let mut pauses = [1, 2, 3, 3].into_iter();
    let mut kinds = Vec::new();
    // What the first has not finished with kills all that come after it.
    active.send(b"fail").unwrap();
    loop {
        kinds.push(host.next_event(NEVER).expect("in time").kind);
        match kinds.last().unwrap() {
            HostEventKind::Restarted { downtime, .. } => {
                assert!(*downtime >= pauses.next().unwrap() * FIRST, "{downtime:?}");
            }
            // One that ends so soon that the host has not yet acted upon its being ready is a start
            // that failed, and counts as well.
            HostEventKind::StartFailed { .. } => assert!(pauses.next().is_some()),
            HostEventKind::GaveUp { .. } => break,
            _ => {}
        }
    }
    assert_eq!(pauses.next(), None, "four times and no more: {kinds:?}");
}

#[test]
fn every_error_of_the_host_is_one_error() -> Result<(), ringway::error::Error> {
    let host = Host::builder().build()?;
    let handle = host.spawn(plugin::spec("echo", "echo"))?;
    let (mut active, _passive) = handle.take_channels()?;
    active.send(b"all by one question mark")?;
    handle.terminate()?;
    let all: ringway::error::Error = handle.restart().unwrap_err().into();
    assert_eq!(all.to_string(), HandleError::NotRunning.to_string());
    Ok(())
}

#[test]
fn always_means_after_success_too() {
    let host = host();
    let always = Restart::Always {
        max_restarts: 2,
        backoff_initial: Duration::ZERO,
        backoff_max: Duration::ZERO,
    };
    let handle = host.spawn(plugin::spec("brief", "exit-when-ready").restart(always)).unwrap();
    assert_eq!(handle.wait_exit(NEVER), Ok(ExitReason::Code(0)));
    assert_eq!(handle.restarts(), 2);
}

#[test]
fn a_host_that_is_dropped_ends_all_its_plugins() {
    let host = host();
    let handles = ["a", "b", "c"].map(|name| host.spawn(plugin::spec(name, "echo")).unwrap());
    drop(host);
    for handle in handles {
        let ended = PluginState::Ended { reason: ExitReason::Signal(libc::SIGTERM) };
        assert_eq!(handle.state(), ended);
    }
}

#[test]
fn f30_a_forked_child_cannot_use_the_host_nor_end_its_plugins() {
    let host = host();
    let handle = host.spawn(plugin::spec("echo", "echo")).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    let mut channel = Some(active);
    let mut host = Some(host);
    let mut child = Victim::start(|| {
        let refused = host.as_ref().unwrap().spawn(plugin::spec("other", "echo"));
        assert!(matches!(refused, Err(SpawnError::Forked)));
        assert_eq!(host.as_ref().unwrap().shutdown(NEVER), Err(HandleError::Forked));
        assert_eq!(handle.kill(), Err(HandleError::Forked));
        assert_eq!(handle.terminate(), Err(HandleError::Forked));
        assert_eq!(handle.restart(), Err(HandleError::Forked));
        assert_eq!(handle.wait_exit(NEVER), Err(HandleError::Forked));
        assert_eq!(handle.take_channels().unwrap_err(), TakeChannelsError::Forked);
        let known = (handle.state(), handle.pid(), handle.incarnation());
        assert_eq!(known, (PluginState::Foreign, None, 0));
        assert_eq!(channel.as_mut().unwrap().send(b"?").unwrap_err(), SendError::Forked);
        drop((host.take(), channel.take()));
    });
    assert_eq!(child.wait(), 0);
    active = channel.take().unwrap();
    active.send(b"still there").unwrap();
    assert_eq!(active.recv_timeout(NEVER).unwrap().bytes(), b"still there");
    assert_eq!(handle.state(), PluginState::Running);
}

#[test]
fn connecting_says_what_is_missing() {
    let output = plugin::command("connect-errors").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn channels_that_a_host_creates_for_types_stay_typed_across_a_restart() {
    let types = ChannelTypes::of::<Pod<[u64; 2]>, Pod<u64>>();
    let options = ChannelOptions { types, ..ChannelOptions::default() };
    let host = host();
    let spec = plugin::spec("adder", "typed").channel_options(options).restart(restarts(3));
    let handle = host.spawn(spec).unwrap();
    let (active, _passive) = handle.take_channels().unwrap();
    let mut add = active.typed::<Pod<[u64; 2]>, Pod<u64>>().unwrap();
    add.send(&[2, 3]).unwrap();
    assert_eq!(add.recv_timeout(NEVER), Ok(5));
    handle.kill().unwrap();
    assert_eq!(add.recv_timeout(NEVER), Err(RecvTimeoutError::Restarted { reason: KILLED }));
    match add.send(&[4, 5]) {
        Err(SendError::Restarted { .. }) => add.send(&[4, 5]).unwrap(),
        sent => sent.unwrap(),
    }
    // It may have died between its answer and its release of the question.
    let answer = add.recv_timeout(NEVER).unwrap();
    assert_eq!(if answer == 5 { add.recv_timeout(NEVER).unwrap() } else { answer }, 9);
}

/// The plugin finds other types than it expects, or none.
#[test]
fn f11_a_plugin_notices_that_its_channels_are_for_other_types() {
    for types in [ChannelTypes::of::<Pod<[u32; 4]>, Pod<u64>>(), ChannelTypes::UNTYPED] {
        let options = ChannelOptions { types, ..ChannelOptions::default() };
        let host = host();
        let handle = host.spawn(plugin::spec("adder", "typed").channel_options(options)).unwrap();
        assert_eq!(handle.wait_exit(NEVER), Ok(ExitReason::Code(9)));
    }
}

/// Channels for short messages have a handshake, requests and notices like any others.
#[test]
fn the_longest_message_of_a_plugins_channels_is_not_that_of_its_control_channel() {
    let options = ChannelOptions { max_message_bytes: 8, ..ChannelOptions::default() };
    let host = host();
    let handle = host.spawn(plugin::spec("echo", "echo").channel_options(options)).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    active.send(b"8 bytes.").unwrap();
    assert_eq!(active.recv_timeout(NEVER).unwrap().bytes(), b"8 bytes.");
    let too_long = Err(SendError::TooLong { len: 9, max: 8 });
    assert_eq!(active.send(b"9 bytes.."), too_long);
}
