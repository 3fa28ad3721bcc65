//! What is left when a plugin, a start or a host has failed: nothing.
//!
//! Tests named `fNN_…` belong to the failure with that number. This test binary is executed again
//! as the plugin, as the host that is killed, and as the process whose descriptors are counted.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::held::{held, wait_until_held};
use common::plugin::{self, KILLED, NEVER, host, restarts};
use common::stray::{Stray, pidfd_of};
use ringway::error::{ExitReason, RecvTimeoutError, SendError};
use ringway::host::{Host, HostEventKind, SpawnError};
use ringway::store::StoreOptions;

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    plugin::run_role();
}

fn host_with_a_store() -> Host {
    let options = StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() };
    Host::builder().store(options).build().unwrap()
}

/// Whether this process has a child, dead or alive.
fn has_children() -> bool {
    // SAFETY: a null status is allowed; nothing is reaped with WNOWAIT's cousin WNOHANG unless a
    // child is dead, and then the test fails anyway.
    unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) != -1 }
}

/// Waits until another process than a child has ended.
fn wait_for_end_of(pidfd: &OwnedFd) {
    let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, alive until the call is over.
    assert_eq!(unsafe { libc::poll(&mut poll, 1, NEVER.as_millis() as i32) }, 1, "still alive");
}

#[test]
fn f08_killed_during_the_handshake_nothing_is_left() {
    if !plugin::alone("f08_killed_during_the_handshake_nothing_is_left") {
        return;
    }
    // What stays for the life of the process: the supervisor, and what a forked child gets in place of locks.
    drop(host_with_a_store().spawn(plugin::spec("first", "exit-7")).unwrap_err());
    let before = held();
    for make in [host as fn() -> Host, host_with_a_store] {
        let host = make();
        for round in 0..5 {
            let name = format!("victim-{round}");
            let error = host.spawn(plugin::spec(&name, "killed-in-handshake")).unwrap_err();
            assert!(matches!(error, SpawnError::Exited { reason: KILLED }), "{error}");
            let late = plugin::spec(&name, "never-ready").ready_timeout(Duration::from_millis(100));
            assert!(matches!(host.spawn(late).unwrap_err(), SpawnError::NotReady { .. }));
            drop(host.spawn(plugin::spec(&name, "exit-7")).unwrap_err());
            drop(host.spawn(plugin::spec_of(&name, Command::new("/nonexistent"))).unwrap_err());
            let handle = host.spawn(plugin::spec(&name, "fail-when-ready").restart(restarts(2)));
            assert_eq!(handle.unwrap().wait_exit(NEVER), Ok(ExitReason::Code(3)));
            assert!(!has_children(), "everything has been reaped");
        }
        // Joins the restart threads, which may be about to close what they hold, and the server's.
        drop(host);
        wait_until_held(before);
    }
}

#[test]
fn idle_ends_do_not_keep_what_former_incarnations_had() {
    if !plugin::alone("idle_ends_do_not_keep_what_former_incarnations_had") {
        return;
    }
    let host = host();
    let handle = host.spawn(plugin::spec("victim", "echo").restart(restarts(50))).unwrap();
    let (active, passive) = handle.take_channels().unwrap();
    let mut after_the_first = None;
    for _ in 0..10 {
        handle.kill().unwrap();
        loop {
            let event = host.next_event(NEVER).unwrap();
            if let HostEventKind::Restarted { .. } = event.kind {
                break;
            }
        }
        wait_until_held(*after_the_first.get_or_insert_with(held));
    }
    for mut channel in [active, passive] {
        assert!(matches!(channel.send(b"after"), Err(SendError::Restarted { .. })));
        channel.send(b"after").unwrap();
        assert!(matches!(channel.recv_timeout(NEVER), Err(RecvTimeoutError::Restarted { .. })));
        assert_eq!(channel.recv_timeout(NEVER).unwrap().bytes(), b"after");
    }
}

#[test]
fn f39_without_descriptors_spawn_fails_and_leaves_nothing() {
    if !plugin::alone("f39_without_descriptors_spawn_fails_and_leaves_nothing") {
        return;
    }
    for make in [host as fn() -> Host, host_with_a_store] {
        let host = make();
        drop(host.spawn(plugin::spec("first", "exit-7")).unwrap_err());
        let before = held();
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the struct outlives the call.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
        let mut failures = 0;
        loop {
            // One of those counted was the directory being read.
            let tight = libc::rlimit { rlim_cur: (before.0 - 1 + failures) as u64, ..limit };
            // SAFETY: the struct outlives the call.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &tight) }, 0);
            let result = host.spawn(plugin::spec("hungry", "echo"));
            // SAFETY: the struct outlives the call.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
            match result {
                Ok(handle) => {
                    handle.terminate().unwrap();
                    break;
                }
                Err(_) => {
                    assert!(!has_children());
                    wait_until_held(before);
                    failures += 1;
                }
            }
        }
        assert!(failures >= 6, "three segments and three descriptors for the plugin need room");
    }
}

/// A child that is killed and waited for when the test is over.
struct Middle(Child);

impl Drop for Middle {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn plugins_end_when_their_host_is_killed_and_nothing_is_left() {
    let mut command = plugin::command("host-of-two");
    let mut middle = Middle(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(middle.0.stderr.take().unwrap()).lines();
    let line = lines.find_map(|line| line.unwrap().strip_prefix("plugins ").map(String::from));
    let pids = line.unwrap();
    let plugins: Vec<_> =
        pids.split(' ').map(|pid| Stray(pidfd_of(pid.parse().unwrap()))).collect();
    assert_eq!(plugins.len(), 2);
    for pid in pids.split(' ').chain([&*middle.0.id().to_string()]) {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        assert!(maps.contains("memfd:ringway"));
        assert!(!maps.contains("/dev/shm/"), "nothing of a plugin has a name: {maps}");
    }
    middle.0.kill().unwrap();
    for plugin in &plugins {
        wait_for_end_of(&plugin.0);
    }
}
