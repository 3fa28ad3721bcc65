//! The rows of the table of failures that concern the end of a plugin's process and of its group, and what
//! the host learns of it.
//!
//! This test binary is executed again as the plugin. What needs root or a kernel feature is skipped, and
//! said to be, where it is missing. Invariants: what a test starts is ended when it ends.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::io::Read;
use std::process::{self, Stdio as Std};
use std::thread;
use std::time::Duration;

use common::plugin::{self, KILLED, NEVER, NOBODY, host, restarts};
use common::process::{active, ask, has_ended, is_root, kinds, wait_for};
use common::stray::{Stray, pidfd_of};
use ringway::channel::Channel;
use ringway::error::{ExitReason, RecvTimeoutError};
use ringway::host::{HandleError, Host, HostEventKind, Moment, PluginSpec, PluginState, Stdio};
use ringway::store::StoreOptions;

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    plugin::run_role();
}

#[test]
fn f65_where_children_are_reaped_by_the_kernel_that_is_said_once() {
    if !plugin::alone("f65_where_children_are_reaped_by_the_kernel_that_is_said_once") {
        return;
    }
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let host = host();
    for name in ["first", "second"] {
        let spec = plugin::spec(name, "exit-when-ready").restart(restarts(3));
        let reason = host.spawn(spec).unwrap().wait_exit(NEVER).unwrap();
        assert!(matches!(reason, ExitReason::Code(0) | ExitReason::Unknown), "{reason:?}");
    }
    let kinds = kinds(&host);
    let count =
        |wanted: fn(&HostEventKind) -> bool| kinds.iter().filter(|kind| wanted(kind)).count();
    assert_eq!(count(|kind| matches!(kind, HostEventKind::ReapedElsewhere)), 1, "{kinds:?}");
    let again = |kind: &HostEventKind| {
        matches!(kind, HostEventKind::Restarted { .. } | HostEventKind::GaveUp { .. })
    };
    assert_eq!(count(again), 0, "what exited with 0 is not started again: {kinds:?}");
}

/// A plugin behind a shell that runs this script with the program as its arguments.
fn wrapped(name: &str, role: &str, script: &str) -> PluginSpec {
    let command = plugin::command(role);
    PluginSpec::new(name, "/bin/sh")
        .args(["-c", script])
        .arg(command.get_program())
        .args(command.get_args())
        .env(plugin::ROLE, role)
        .stdout(Stdio::null())
        .ready_timeout(NEVER)
}

/// The process that answers, by pidfd.
fn inner(active: &mut Channel) -> Stray {
    let pid = ask(active, "/proc/self").parse().unwrap();
    Stray(pidfd_of(pid))
}

/// The child of a plugin in the role `has-a-child`.
fn child_of(active: &mut Channel) -> Stray {
    let pid = loop {
        match active.recv_timeout(NEVER) {
            Ok(message) => break i32::from_ne_bytes(message[..].try_into().unwrap()),
            Err(RecvTimeoutError::Restarted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    };
    Stray(pidfd_of(pid))
}

#[test]
fn f66_the_whole_group_ends_with_terminate_after_the_grace() {
    let host = host();
    let spec = plugin::spec("parent", "has-a-child").grace(Duration::from_millis(100));
    let handle = host.spawn(spec).unwrap();
    let child = child_of(&mut active(&handle));
    handle.terminate().unwrap();
    assert!(has_ended(&child.0));
}

#[test]
fn f66_the_whole_group_ends_when_its_leader_dies() {
    let host = host();
    let handle = host.spawn(plugin::spec("parent", "has-a-child").restart(restarts(3))).unwrap();
    let mut active = active(&handle);
    let child = child_of(&mut active);
    handle.kill().unwrap();
    assert!(has_ended(&child.0));
    drop(child_of(&mut active));
}

#[test]
fn f66_terminate_ends_what_a_wrapper_has_started() {
    let host = host();
    let spec = wrapped("wrapped", "links", r#""$0" "$@"; exit $?"#);
    let handle = host.spawn(spec).unwrap();
    let program = inner(&mut active(&handle));
    handle.terminate().unwrap();
    assert!(has_ended(&program.0));
}

#[test]
fn f66_a_killed_wrapper_takes_its_program_along() {
    let host = host();
    let spec = wrapped("wrapped", "links", r#""$0" "$@"; exit $?"#).restart(restarts(3));
    let handle = host.spawn(spec).unwrap();
    let mut active = active(&handle);
    let program = inner(&mut active);
    handle.kill().unwrap();
    assert!(has_ended(&program.0));
    drop(inner(&mut active));
}

#[test]
fn f66_a_program_that_has_left_its_group_is_told_of_the_end() {
    let host = host();
    let script = r#"trap '' TERM; setsid "$0" "$@" & wait"#;
    let handle = match host.spawn(wrapped("wrapped", "links", script)) {
        Ok(handle) => handle,
        Err(error) => return println!("skipped: no setsid here: {error}"),
    };
    let program = inner(&mut active(&handle));
    handle.kill().unwrap();
    assert_eq!(handle.wait_exit(NEVER), Ok(KILLED));
    // It runs this library, whose session has ended.
    assert!(has_ended(&program.0));
}

/// A host in a process of its own, and its plugin.
fn host_of_one(role: &str) -> (process::Child, Stray) {
    let mut host = plugin::command(role).stderr(Std::piped()).spawn().unwrap();
    let mut text = String::new();
    let mut stderr = host.stderr.take().unwrap();
    while !text.contains('\n') {
        let mut byte = [0];
        stderr.read_exact(&mut byte).unwrap();
        text.push(byte[0].into());
    }
    let pid = text.trim().strip_prefix("plugin ").expect(&text).parse().unwrap();
    (host, Stray(pidfd_of(pid)))
}

#[test]
fn f67_a_keeper_ends_what_does_not_run_the_library() {
    let (mut host, wrapper) = host_of_one("host-with-a-keeper");
    host.kill().unwrap();
    host.wait().unwrap();
    assert!(has_ended(&wrapper.0));
}

#[test]
fn f67_a_keeper_ends_with_its_host() {
    if !plugin::alone("f67_a_keeper_ends_with_its_host") {
        return;
    }
    let host = Host::builder().keeper().build().unwrap();
    host.spawn(plugin::spec("kept", "echo")).unwrap();
    drop(host);
    // SAFETY: a null status is allowed.
    let reaped = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) };
    assert_eq!(reaped, -1, "there is no child, dead or alive");
}

#[test]
fn f67_a_host_that_executes_another_program_ends_its_plugins() {
    let (mut host, left) = host_of_one("host-that-executes");
    let ended = has_ended(&left.0);
    let still_there = host.try_wait().unwrap().is_none();
    host.kill().unwrap();
    host.wait().unwrap();
    assert!(ended && still_there);
}

#[test]
fn f68_f69_a_host_that_becomes_another_user_starts_plugins_and_may_not_kill_roots() {
    let test = "f68_f69_a_host_that_becomes_another_user_starts_plugins_and_may_not_kill_roots";
    if !is_root() || !plugin::alone(test) {
        return;
    }
    let options = StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() };
    let host = Host::builder().links().store(options).build().unwrap();
    let spec = |name: &str| {
        let spec = plugin::spec_of(name, plugin::command_for_others("read-files"));
        spec.restart(restarts(3)).grace(Duration::ZERO).kill_timeout(Duration::ZERO)
    };
    let early = host.spawn(spec("early")).unwrap();
    // SAFETY: the calls take numbers.
    assert_eq!(unsafe { libc::setgroups(0, std::ptr::null()) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setresgid(NOBODY, NOBODY, NOBODY) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) }, 0);
    let late = host.spawn(spec("late")).unwrap();
    let mut answers = active(&late);
    assert!(ask(&mut answers, "/proc/self/status").contains("Uid:\t65534"));
    late.kill().unwrap();
    assert!(ask(&mut answers, "/proc/self/status").contains("Uid:\t65534"), "its successor");
    assert_eq!(early.kill(), Err(HandleError::Denied { os_error: libc::EPERM }));
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(thread::panicking(), "what the panic carries panics");
    }
}

#[test]
fn f72_a_hook_may_panic_with_what_panics_when_it_is_dropped() {
    let host = host();
    let spec = plugin::spec("survives", "echo").restart(restarts(3));
    let spec = spec.hook(Moment::BeforeRestart, |_| std::panic::panic_any(Bomb));
    let handle = host.spawn(spec).unwrap();
    handle.kill().unwrap();
    wait_for(&host, |kind| matches!(kind, HostEventKind::HookPanicked { .. }));
    wait_for(&host, |kind| matches!(kind, HostEventKind::Restarted { .. }));
    handle.terminate().unwrap();
}

fn limit_processes(soft: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit outlives the call.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NPROC, &raw mut limit) }, 0);
    limit.rlim_cur = soft.min(limit.rlim_max);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) }, 0);
}

#[test]
fn f73_a_restart_without_a_thread_is_tried_again() {
    let test = "f73_a_restart_without_a_thread_is_tried_again";
    if !plugin::may_switch_user() || !plugin::alone_as_nobody(test) {
        return;
    }
    let host = host();
    let spec = plugin::spec_of("delayed", plugin::command_for_others("echo"));
    let handle = host.spawn(spec.restart(restarts(3))).unwrap();
    limit_processes(0);
    handle.kill().unwrap();
    wait_for(&host, |kind| matches!(kind, HostEventKind::NoThread { .. }));
    assert!(matches!(handle.state(), PluginState::Restarting { .. }));
    limit_processes(u64::MAX);
    wait_for(&host, |kind| matches!(kind, HostEventKind::Restarted { .. }));
    // And one that is told to end meanwhile does not wait for a thread.
    limit_processes(0);
    handle.kill().unwrap();
    wait_for(&host, |kind| matches!(kind, HostEventKind::NoThread { .. }));
    assert_eq!(handle.terminate(), Ok(KILLED));
}

#[test]
fn f77_a_stopped_plugin_is_silent_until_it_goes_on() {
    let host = host();
    let spec = plugin::spec("stopped", "echo").liveness(Duration::from_millis(200));
    let handle = host.spawn(spec).unwrap();
    let signal = |signal| {
        // SAFETY: the call takes numbers; the process is a child that has not been reaped.
        assert_eq!(unsafe { libc::kill(handle.pid().unwrap() as i32, signal) }, 0);
    };
    signal(libc::SIGSTOP);
    wait_for(&host, |kind| matches!(kind, HostEventKind::Silent { .. }));
    signal(libc::SIGCONT);
    wait_for(&host, |kind| matches!(kind, HostEventKind::Heard));
}
