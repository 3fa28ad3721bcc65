//! The rows of the table of failures that concern host and plugins, each shown on real processes.
//!
//! Tests named `fNN_…` belong to the failure with that number. This test binary is executed again
//! as the plugin. What always holds: what a test starts is ended when it ends, also where it fails.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::fs;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::plugin::{self, KILLED, NEVER, host, restarts};
use common::stray::{Stray, pidfd_of};
use ringway::channel::{Channel, Event, OwnedMessage, Selector};
use ringway::error::{
    Corruption, ExitReason, RecvError, RecvTimeoutError, SendError, SendTimeoutError,
};
use ringway::host::{HandleError, HostEventKind, PluginHandle, PluginState, SpawnError};

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    plugin::run_role();
}

/// The next message, whatever restarts are told before it.
fn next(channel: &mut Channel) -> OwnedMessage {
    loop {
        match channel.recv_timeout(NEVER) {
            Ok(message) => return message.to_owned(),
            Err(RecvTimeoutError::Restarted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Sends, whatever restart is told before it.
fn send(channel: &mut Channel, message: &[u8]) {
    loop {
        match channel.send(message) {
            Ok(()) => return,
            Err(SendError::Restarted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn signal(handle: &PluginHandle, signal: i32) {
    let pid = handle.pid().unwrap() as libc::pid_t;
    // SAFETY: the call takes numbers; the process is a child that has not been reaped.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

/// Stops a plugin, and returns when it has stopped: a signal that is sent before that may be taken
/// first.
fn stop(handle: &PluginHandle) {
    signal(handle, libc::SIGSTOP);
    // All its threads: one that still runs would take the next signal.
    let tasks = format!("/proc/{}/task", handle.pid().unwrap());
    for task in fs::read_dir(tasks).unwrap() {
        let stat = task.unwrap().path().join("stat");
        // One that has ended since cannot take a signal either.
        while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") T ")) {
            std::thread::yield_now();
        }
    }
}

/// Makes a plugin fork. It has finished with the request when this returns.
fn fork(active: &mut Channel) -> Stray {
    active.send(b"fork").unwrap();
    let child = i32::from_ne_bytes(next(active)[..].try_into().unwrap());
    active.send(b"done?").unwrap();
    assert_eq!(&*next(active), b"done?");
    Stray(pidfd_of(child))
}

#[test]
fn f02_a_commit_without_a_wake_is_found_within_the_bounded_wait() {
    for then in ["stop", "die"] {
        let host = host();
        let handle = host.spawn(plugin::spec("silent", "silent-commit")).unwrap();
        let (mut active, _passive) = handle.take_channels().unwrap();
        active.send(then.as_bytes()).unwrap();
        assert_eq!(active.recv_timeout(NEVER).unwrap().bytes(), b"silent");
        let end = active.recv_timeout(Duration::from_millis(10)).map(drop);
        match then {
            "stop" => assert_eq!(end, Err(RecvTimeoutError::Timeout)),
            _ => assert_eq!(
                active.recv_timeout(NEVER).map(drop),
                Err(RecvTimeoutError::Disconnected)
            ),
        }
    }
}

#[test]
fn f12_a_reused_process_number_is_not_taken_for_the_plugin() {
    let host = host();
    let handle = host.spawn(plugin::spec("original", "echo")).unwrap();
    let pid = handle.pid().unwrap();
    handle.terminate().unwrap();
    for _ in 0..200 {
        // Ask for the same number again; other processes may be faster.
        if fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).is_err() {
            eprintln!("skipped: process numbers cannot be chosen here");
            return;
        }
        let mut other = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let reused = other.id() == pid;
        if reused {
            assert_eq!(handle.kill(), Err(HandleError::NotRunning));
            assert_eq!(handle.terminate(), Ok(ExitReason::Signal(libc::SIGTERM)));
            assert_eq!(other.try_wait().unwrap(), None, "the other process lives");
        }
        other.kill().unwrap();
        other.wait().unwrap();
        if reused {
            return;
        }
    }
    eprintln!("skipped: the number was not given out again");
}

#[test]
fn f15_a_plugin_that_forbids_the_seal_is_refused() {
    let host = host();
    let error = host.spawn(plugin::spec("sealer", "seal-first")).unwrap_err();
    assert!(matches!(error, SpawnError::Corrupt(Corruption::Seal)), "{error}");
    let died = |kind: &HostEventKind| matches!(kind, HostEventKind::Died { reason: KILLED, .. });
    assert!(std::iter::from_fn(|| host.next_event(Duration::ZERO)).any(|event| died(&event.kind)));
}

#[test]
fn f15_after_the_handshake_the_segments_cannot_be_punched() {
    let host = host();
    let handle = host.spawn(plugin::spec("echo", "echo")).unwrap();
    let (active, passive) = handle.take_channels().unwrap();
    for channel in [active, passive] {
        let fd = channel.descriptor().unwrap();
        // SAFETY: the call takes numbers.
        let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
        for seal in [libc::F_SEAL_SHRINK, libc::F_SEAL_GROW, libc::F_SEAL_FUTURE_WRITE] {
            assert_ne!(seals & seal, 0, "seals {seals:#x} lack {seal:#x}");
        }
    }
}

#[test]
fn f18_what_a_dead_plugin_has_spoilt_does_not_spoil_its_successor() {
    let host = host();
    let spec = plugin::spec("liar", "lie").restart(restarts(5)).max_redeliveries(0);
    let handle = host.spawn(spec).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    active.send(b"lie").unwrap();
    loop {
        match active.recv_timeout(NEVER) {
            Err(RecvTimeoutError::Restarted { .. }) => break,
            Err(RecvTimeoutError::Corrupt(_)) => std::thread::yield_now(),
            other => panic!("{other:?}"),
        }
    }
    for message in [b"one", b"two"] {
        send(&mut active, message);
        assert_eq!(active.recv_timeout(NEVER).unwrap().bytes(), message);
    }
}

#[test]
fn f19_a_dead_plugins_impossible_head_is_reported_and_its_successor_works() {
    let host = host();
    let handle = host.spawn(plugin::spec("spoiler", "lie").restart(restarts(5))).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    active.send(b"spoil").unwrap();
    let error = active.recv_timeout(NEVER).map(drop).unwrap_err();
    assert_eq!(error, RecvTimeoutError::Restarted { reason: KILLED });
    send(&mut active, b"and now?");
    assert_eq!(active.recv_timeout(NEVER).unwrap().bytes(), b"and now?");
    let spoilt = std::iter::from_fn(|| host.next_event(Duration::ZERO)).any(|event| {
        matches!(
            event.kind,
            HostEventKind::Spoilt { corruption: Corruption::Head { found: 3, .. } }
        )
    });
    assert!(spoilt, "the loss is reported");
}

#[test]
fn f27_a_stopped_plugin_costs_its_caller_no_more_than_the_deadline() {
    let host = host();
    let spec = plugin::spec("sleeper", "echo").grace(Duration::from_millis(50));
    let handle = host.spawn(spec).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    stop(&handle);
    let mut sent = 0_u32;
    let full = loop {
        match active.send_timeout(&[0; 1000], Duration::from_millis(20)) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full, SendTimeoutError::Timeout);
    // It may have answered some before it stopped.
    let mut answers = 0;
    while let Ok(message) = active.recv_timeout(Duration::from_millis(20)) {
        assert_eq!(message.len(), 1000);
        answers += 1;
    }
    signal(&handle, libc::SIGCONT);
    for _ in answers..sent {
        assert_eq!(active.recv_timeout(NEVER).unwrap().len(), 1000);
    }
    stop(&handle);
    assert_eq!(handle.terminate(), Ok(KILLED), "SIGTERM waits, SIGKILL does not");
}

#[test]
fn f29_a_dead_plugins_child_writes_into_the_void() {
    let host = host();
    let handle = host.spawn(plugin::spec("parent", "fork").restart(restarts(5))).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    let _stray = fork(&mut active);
    handle.kill().unwrap();
    let (mut told, mut void) = (0, 0);
    for number in 0..1000_u32 {
        send(&mut active, &number.to_ne_bytes());
        let answer = loop {
            match active.recv_timeout(NEVER) {
                Ok(message) if message.tag() == 0xbad => void += told,
                // It may be delivered again.
                Ok(message) if message.bytes() == b"done?" => {}
                Ok(message) => break message.to_owned(),
                Err(RecvTimeoutError::Restarted { .. }) => told += 1,
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(answer[..], number.to_ne_bytes());
    }
    assert_eq!(told, 1);
    // What stands in a dead plugin's ring is believed up to one ring full, in records of a header
    // and 16 bytes, of which the last may reach over the limit.
    let capacity_bytes = ringway::channel::ChannelOptions::default().capacity_bytes;
    assert!(void <= capacity_bytes / 24 + 1, "{void} messages of a dead plugin");
}

#[test]
fn f34_both_processes_have_their_memory_before_the_first_message() {
    let host = host();
    let handle = host.spawn(plugin::spec("reader", "read-files")).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    active.send(b"/proc/self/smaps").unwrap();
    let theirs = active.recv_timeout(NEVER).unwrap().to_vec();
    let ours = fs::read("/proc/self/smaps").unwrap();
    for (smaps, at_least) in [(theirs, 2), (ours, 3)] {
        let smaps = String::from_utf8(smaps).unwrap();
        let number = |line: &str| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        let mut segments = 0;
        let mut lines = smaps.lines();
        while let Some(line) = lines.next() {
            if line.contains("memfd:ringway") && line.contains("rw-s") {
                let size = number(lines.by_ref().find(|line| line.starts_with("Size:")).unwrap());
                let rss = number(lines.by_ref().find(|line| line.starts_with("Rss:")).unwrap());
                assert_eq!(rss, size, "{line}");
                segments += 1;
            }
        }
        assert!(segments >= at_least, "{segments} in {smaps}");
    }
}

#[test]
fn f40_a_flooding_plugin_gets_no_more_than_its_budget() {
    const BUDGET: usize = 16;
    let host = host();
    let mut selector = Selector::new();
    let flood = host.spawn(plugin::spec("flood", "flood")).unwrap();
    let (active, _passive) = flood.take_channels().unwrap();
    let (_flood_sender, receiver) = active.split();
    let flood_token = selector.add(receiver);
    let echo = host.spawn(plugin::spec("echo", "echo")).unwrap();
    let (active, _passive) = echo.take_channels().unwrap();
    let (mut sender, receiver) = active.split();
    selector.add(receiver);
    for number in 0..500_u32 {
        sender.send(&number.to_ne_bytes()).unwrap();
        let mut answered = false;
        while !answered {
            let mut floods = 0;
            selector.poll(BUDGET, NEVER, |token, event| {
                let Event::Message(message) = event else { panic!("{event:?}") };
                if token == flood_token {
                    floods += 1;
                } else {
                    assert_eq!(message.bytes(), number.to_ne_bytes());
                    answered = true;
                }
            });
            assert!(floods <= BUDGET, "{floods} messages of one plugin in a row");
        }
    }
}

#[test]
fn f44_death_is_the_pidfds_word_whoever_holds_the_descriptors() {
    let host = host();
    let handle = host.spawn(plugin::spec("parent", "fork")).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    let _stray = fork(&mut active);
    handle.kill().unwrap();
    assert_eq!(handle.wait_exit(NEVER), Ok(KILLED));
    let end = loop {
        if let Err(error) = active.receiver().recv() {
            break error;
        }
    };
    assert_eq!(end, RecvError::Disconnected);
    assert_eq!(handle.state(), PluginState::Ended { reason: KILLED });
}

/// Nothing that the host decides asks for a lock on the plugin's files.
#[test]
fn f44_a_plugin_that_locks_its_files_and_leaves_a_child_with_the_locks_is_replaced() {
    let host = host();
    let handle = host.spawn(plugin::spec("locker", "lock").restart(restarts(5))).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    let _stray = fork(&mut active);
    handle.kill().unwrap();
    send(&mut active, b"and now?");
    // The first answer may have got lost with the one who was to give it.
    while &*next(&mut active) != b"and now?" {}
    assert_eq!(handle.restarts(), 1);
    assert_eq!(handle.terminate(), Ok(ExitReason::Signal(libc::SIGTERM)));
}

#[test]
fn f45_a_message_that_kills_every_incarnation_is_dropped_and_reported() {
    let host = host();
    let spec = plugin::spec("mortal", "die-of-poison").restart(restarts(20)).max_redeliveries(2);
    let handle = host.spawn(spec).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    for message in [&b"before"[..], b"poison", b"after", b"more"] {
        send(&mut active, message);
    }
    assert_eq!(&*next(&mut active), b"before");
    assert_eq!(&*next(&mut active), b"after", "what stood behind it arrives, once");
    assert_eq!(&*next(&mut active), b"more");
    let kinds: Vec<_> =
        std::iter::from_fn(|| host.next_event(Duration::ZERO)).map(|event| event.kind).collect();
    let dropped: Vec<_> =
        kinds.iter().filter(|kind| matches!(kind, HostEventKind::Dropped { .. })).collect();
    assert_eq!(dropped, [&HostEventKind::Dropped { tag: 0, len: 6 }]);
    assert_eq!(handle.restarts(), 3, "once after the first delivery, twice after redeliveries");
}

/// A name for this program that goes when the test is over.
struct Link(std::path::PathBuf);

impl Link {
    fn make(&self) {
        std::os::unix::fs::symlink(std::env::current_exe().unwrap(), &self.0).unwrap();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A start that fails is no death: the message has not been given to anybody.
#[test]
fn f45_failing_starts_do_not_count_against_a_message() {
    let name = format!("ringway-f45-{}", std::process::id());
    let link = Link(std::env::temp_dir().join(name));
    link.make();
    let template = plugin::command("deaf");
    let mut command = Command::new(&link.0);
    command.args(template.get_args()).stdin(Stdio::null()).stdout(Stdio::null());
    for (key, value) in template.get_envs() {
        value.map(|value| command.env(key, value));
    }
    let host = host();
    let spec = plugin::spec_of("late", command).restart(restarts(u32::MAX)).max_redeliveries(1);
    // It never reads, and does not end when it is asked to.
    let handle = host.spawn(spec.grace(Duration::ZERO)).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    let event = || host.next_event(NEVER).expect("in time").kind;
    assert!(matches!(event(), HostEventKind::Started { .. }));
    active.send(b"kept").unwrap();
    fs::remove_file(&link.0).unwrap();
    handle.kill().unwrap();
    let mut kinds = Vec::new();
    for _ in 0..4 {
        kinds.push(event());
    }
    link.make();
    while !matches!(kinds.last(), Some(HostEventKind::Restarted { .. })) {
        kinds.push(event());
    }
    let failed = |kind: &&HostEventKind| matches!(kind, HostEventKind::StartFailed { .. });
    assert!(kinds.iter().filter(failed).count() >= 3, "{kinds:?}");
    assert!(matches!(kinds.last(), Some(HostEventKind::Restarted { carried: 1, .. })), "{kinds:?}");
}
