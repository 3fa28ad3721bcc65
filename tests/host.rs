//! Plugins as real processes: this test binary is executed again, as the plugin.
//!
//! Tests named `fNN_…` show what the failure with that number must lead to. What always holds: a
//! plugin is ended by its host at the end of each test, also where the test fails.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::time::Duration;

use common::plugin::{self, NEVER};
use ringway::error::{ExitReason, RecvTimeoutError, SendError};
use ringway::host::{Host, HostEventKind, PluginState, Restart, SpawnError, TakeChannelsError};

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    plugin::run_role();
}

fn host() -> Host {
    Host::builder().build().unwrap()
}

fn quick() -> Restart {
    Restart::OnFailure {
        max_restarts: 50,
        backoff_initial: Duration::ZERO,
        backoff_max: Duration::from_millis(1),
    }
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
    assert_eq!(handle.terminate(), ExitReason::Signal(libc::SIGTERM));
    assert_eq!(active.recv_timeout(NEVER).unwrap_err(), RecvTimeoutError::Disconnected);
    assert_eq!(passive.send(b"?").unwrap_err(), SendError::Disconnected);
    assert_eq!(handle.state(), PluginState::Ended { reason: ExitReason::Signal(libc::SIGTERM) });
    assert_eq!(handle.pid(), None);
}

#[test]
fn killed_in_the_middle_nothing_is_lost_and_each_end_is_told_once() {
    const MESSAGES: u64 = 20_000;
    const WINDOW: u64 = 100;
    let host = host();
    let handle = host.spawn(plugin::spec("victim", "echo").restart(quick())).unwrap();
    let (active, _passive) = handle.take_channels().unwrap();
    let (mut sender, mut receiver) = active.split();
    let (mut sent, mut answered, mut again) = (0, 0, 0);
    let (mut sender_told, mut receiver_told) = (0, 0);
    while answered < MESSAGES {
        if sent < MESSAGES && sent - answered < WINDOW {
            match sender.send(&sent.to_ne_bytes()) {
                Ok(()) => sent += 1,
                Err(SendError::Restarted { .. }) => sender_told += 1,
                Err(error) => panic!("{error}"),
            }
            if sent == MESSAGES / 3 {
                handle.kill();
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
                assert_eq!(reason, ExitReason::Signal(libc::SIGKILL));
                receiver_told += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((sender_told, receiver_told), (1, 1));
    assert!(again <= WINDOW, "{again} answers came again");
    assert_eq!(handle.restarts(), 1);
    let kinds: Vec<_> =
        std::iter::from_fn(|| host.next_event(Duration::ZERO)).map(|event| event.kind).collect();
    assert!(matches!(
        kinds[..],
        [
            HostEventKind::Started { .. },
            HostEventKind::Died { reason: ExitReason::Signal(libc::SIGKILL), .. },
            HostEventKind::Restarted { incarnation: 2, .. }
        ]
    ));
}

#[test]
fn a_program_that_is_not_executable_is_an_error() {
    let host = host();
    let missing = plugin::spec_of("missing", std::process::Command::new("/nonexistent/plugin"));
    let error = host.spawn(missing).unwrap_err();
    assert!(matches!(&error, SpawnError::Exec { program, .. } if program == "/nonexistent/plugin"));
    let directory = plugin::spec_of("directory", std::process::Command::new("/"));
    assert!(matches!(host.spawn(directory).unwrap_err(), SpawnError::Exec { .. }));
}
