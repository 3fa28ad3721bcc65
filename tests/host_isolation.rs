//! Plugins that may do less than their host: limits, identity, privileges, a filter of one's own.
//!
//! This test binary is executed again as the plugin. What needs another user id is skipped, and
//! said to be, where the test may not switch to one. What always holds: a plugin is ended by its
//! host at the end of each test, also where the test fails.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::fs;
use std::io;
use std::time::Duration;

use common::held::{held, wait_until_held};
use common::plugin::{self, NEVER, NOBODY, host, restarts};
use ringway::channel::Channel;
use ringway::error::{ExitReason, RecvTimeoutError, SendError};
use ringway::host::{HostEventKind, IsolationStep, Limit, PluginHandle, PluginSpec, SpawnError};

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    plugin::run_role();
}

fn reader(name: &str) -> PluginSpec {
    plugin::spec_of(name, plugin::command_for_others("read-files"))
}

/// A plugin's view of a file.
fn read(active: &mut Channel, path: &str) -> String {
    while let Err(SendError::Restarted { .. }) = active.send(path.as_bytes()) {}
    loop {
        match active.recv_timeout(NEVER) {
            Ok(message) => return String::from_utf8(message.to_vec()).unwrap(),
            Err(RecvTimeoutError::Restarted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn active(handle: &PluginHandle) -> Channel {
    handle.take_channels().unwrap().0
}

/// The words behind a key in `/proc/self/status`.
fn words<'a>(status: &'a str, key: &str) -> Vec<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {key} in {status}")).split_whitespace().collect()
}

/// Soft and hard limit, from a line of `/proc/self/limits`.
fn limit_of(limits: &str, name: &str) -> [u64; 2] {
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let mut numbers = line.split_whitespace().map(|word| word.parse().unwrap());
    [numbers.next().unwrap(), numbers.next().unwrap()]
}

#[test]
fn limits_are_set_soft_and_hard_and_again_after_a_restart() {
    let host = host();
    let spec = reader("limited")
        .limit(Limit::AddressSpaceBytes(1 << 40))
        .limit(Limit::DataBytes(1 << 39))
        .limit(Limit::StackBytes(1 << 20))
        .limit(Limit::CpuSeconds(3600))
        .limit(Limit::OpenFiles(64))
        .limit(Limit::FileBytes(1 << 20))
        .limit(Limit::CoreBytes(0))
        .limit(Limit::Processes(1000))
        .limit(Limit::LockedBytes(4096));
    let handle = host.spawn(spec.restart(restarts(5))).unwrap();
    let mut active = active(&handle);
    for incarnation in 1..=2 {
        let limits = read(&mut active, "/proc/self/limits");
        for (name, expected) in [
            ("Max address space", 1 << 40),
            ("Max data size", 1 << 39),
            ("Max stack size", 1 << 20),
            ("Max cpu time", 3600),
            ("Max open files", 64),
            ("Max file size", 1 << 20),
            ("Max core file size", 0),
            ("Max processes", 1000),
            ("Max locked memory", 4096),
        ] {
            assert_eq!(limit_of(&limits, name), [expected; 2], "{name}");
        }
        assert_eq!(handle.incarnation(), incarnation);
        handle.kill().unwrap();
    }
}

#[test]
fn another_user_without_groups_and_privileges_can_attach_and_work() {
    if !plugin::may_switch_user() {
        return;
    }
    let host = host();
    let spec = reader("nobody").run_as(NOBODY, NOBODY).no_new_privs().restart(restarts(5));
    let handle = host.spawn(spec).unwrap();
    let mut active = active(&handle);
    for _ in 0..2 {
        let status = read(&mut active, "/proc/self/status");
        assert_eq!(words(&status, "Uid"), ["65534"; 4]);
        assert_eq!(words(&status, "Gid"), ["65534"; 4]);
        assert_eq!(words(&status, "Groups"), [""; 0]);
        assert_eq!(words(&status, "NoNewPrivs"), ["1"]);
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(words(&status, set), ["0000000000000000"], "{set}");
        }
        handle.kill().unwrap();
    }
}

/// A host that is no root and has its privileges as ambient capabilities, as a service manager
/// hands them out, must not pass them on.
#[test]
fn capabilities_do_not_pass_to_another_user() {
    const TEST: &str = "capabilities_do_not_pass_to_another_user";
    if !plugin::may_switch_user() || !plugin::alone(TEST) {
        return;
    }
    let host = host();
    // SAFETY: the hook makes system calls only.
    let check = || unsafe {
        // Not there any more, so it cannot be raised.
        let raised = libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, 7, 0, 0);
        if raised == -1 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EEXIST)) }
    };
    become_nobody_with_ambient(&[5, 6, 7]);
    let spec = reader("other").run_as(NOBODY - 1, NOBODY - 1);
    // SAFETY: the hook makes system calls only.
    let spec = unsafe { spec.pre_exec(check) };
    let handle = host.spawn(spec).unwrap();
    let status = read(&mut active(&handle), "/proc/self/status");
    assert_eq!(words(&status, "Uid"), ["65533"; 4]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(words(&status, set), ["0000000000000000"], "{set}");
    }
}

/// Makes this thread, and those that it starts from here on, nobody's, with these capabilities.
#[allow(clippy::multiple_unsafe_ops_per_block, reason = "one switch in several calls")]
fn become_nobody_with_ambient(capabilities: &[u32]) {
    let bits = capabilities.iter().fold(0_u32, |bits, capability| bits | 1 << capability);
    let sets = [bits, bits, bits, 0, 0, 0];
    let header = [0x2008_0522_u32, 0];
    // SAFETY: numbers, and a header and sets that outlive the call, as it asks for.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0), 0);
        assert_eq!(libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY), 0);
        assert_eq!(libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()), 0);
        for capability in capabilities {
            let raise = libc::PR_CAP_AMBIENT_RAISE;
            assert_eq!(libc::prctl(libc::PR_CAP_AMBIENT, raise, *capability, 0, 0), 0);
        }
    }
}

#[test]
fn the_hook_runs_after_everything_else() {
    let switches = plugin::may_switch_user();
    let host = host();
    // The child reports by exiting with an error number that says what it found missing.
    let check = move || {
        let mut files = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the struct outlives the call.
        unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut files) };
        // SAFETY: the call takes numbers.
        let nnp = unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) };
        // SAFETY: the call takes nothing.
        let user = unsafe { libc::getuid() };
        let missing = match () {
            () if files.rlim_max != 64 => libc::ENFILE,
            () if switches && user != NOBODY => libc::EPERM,
            () if nnp != 1 => libc::EACCES,
            () => return Ok(()),
        };
        Err(io::Error::from_raw_os_error(missing))
    };
    let mut spec = reader("checked").no_new_privs().limit(Limit::OpenFiles(64));
    if switches {
        spec = spec.run_as(NOBODY, NOBODY);
    }
    // SAFETY: the hook makes system calls only.
    host.spawn(unsafe { spec.pre_exec(check) }).unwrap();
}

/// A filter of system calls that lets everything pass but `socket`, which fails.
fn forbid_sockets() -> io::Result<()> {
    const LOAD_NUMBER: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const FAIL: u32 = 0x0005_0000;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(LOAD_NUMBER, 0, 0, 0),
        step(JUMP_IF_EQUAL, 0, 1, libc::SYS_socket as u32),
        step(RETURN, 0, 0, FAIL | libc::EACCES as u32),
        step(RETURN, 0, 0, ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: a program of four steps, which outlives the call.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, 2, &raw const program, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[test]
fn a_filter_of_system_calls_can_be_installed_and_lets_a_plugin_work() {
    let host = host();
    let mut spec = reader("filtered").no_new_privs();
    if plugin::may_switch_user() {
        spec = spec.run_as(NOBODY, NOBODY);
    }
    // SAFETY: the hook makes a system call only.
    let handle = host.spawn(unsafe { spec.pre_exec(forbid_sockets) }).unwrap();
    let status = read(&mut active(&handle), "/proc/self/status");
    assert_eq!(words(&status, "Seccomp"), ["2"]);
}

#[test]
fn a_step_that_fails_is_an_error_that_says_which_and_nothing_is_left() {
    if !plugin::alone("a_step_that_fails_is_an_error_that_says_which_and_nothing_is_left") {
        return;
    }
    let host = host();
    drop(host.spawn(plugin::spec("first", "exit-7")).unwrap_err());
    let before = held();
    let fails = |spec: PluginSpec| match host.spawn(spec).unwrap_err() {
        SpawnError::Isolation { step, source } => (step, source.raw_os_error()),
        error => panic!("{error}"),
    };
    let impossible = Limit::OpenFiles(u64::MAX);
    let (step, errno) = fails(reader("greedy").limit(Limit::CoreBytes(0)).limit(impossible));
    assert_eq!((step, errno), (IsolationStep::Limit(impossible), Some(libc::EPERM)));
    let refuse = || Err(io::Error::from_raw_os_error(libc::ENOTTY));
    // SAFETY: the hook makes an error from a number.
    let (step, errno) = fails(unsafe { reader("hooked").pre_exec(refuse) });
    assert_eq!((step, errno), (IsolationStep::PreExec, Some(libc::ENOTTY)));
    // What comes behind the steps is the program's fault.
    let missing = plugin::spec_of("missing", std::process::Command::new("/nonexistent"));
    let error = host.spawn(missing.no_new_privs()).unwrap_err();
    assert!(matches!(error, SpawnError::Exec { .. }), "{error}");
    // SAFETY: a null status is allowed.
    let reaped = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) };
    assert_eq!(reaped, -1, "there is no child, dead or alive");
    wait_until_held(before);
}

#[test]
fn who_may_not_switch_is_told_so() {
    if !plugin::may_switch_user() || !plugin::alone_as_nobody("who_may_not_switch_is_told_so") {
        return;
    }
    let host = host();
    let error = host.spawn(reader("root").run_as(0, 0)).unwrap_err();
    let SpawnError::Isolation { step: IsolationStep::Groups, source } = &error else {
        panic!("{error}")
    };
    assert_eq!(source.raw_os_error(), Some(libc::EPERM));
    let text = "the plugin's process could not be prepared: dropping the supplementary groups: ";
    assert!(error.to_string().starts_with(text), "{error}");
    // It may still do less than it may.
    host.spawn(reader("less").limit(Limit::CoreBytes(0)).no_new_privs()).unwrap();
}

#[test]
fn a_limit_is_a_limit() {
    let host = host();
    let command = plugin::command_for_others("burn");
    let spec = plugin::spec_of("busy", command).limit(Limit::CpuSeconds(1));
    let handle = host.spawn(spec).unwrap();
    let reason = handle.wait_exit(NEVER).unwrap();
    let out_of_time = [libc::SIGXCPU, libc::SIGKILL].map(ExitReason::Signal);
    assert!(out_of_time.contains(&reason), "{reason}");
    assert!(host.next_event(Duration::ZERO).is_some());
}

/// A host that may start plugins as somebody else and may not kill them: what it has started is to
/// it what a process that hangs in the kernel is to others.
#[test]
fn f28_an_unkillable_plugin_is_closed_on_a_deadline() {
    const TEST: &str = "f28_an_unkillable_plugin_is_closed_on_a_deadline";
    if !plugin::may_switch_user() || !plugin::alone(TEST) {
        return;
    }
    give_up_the_right_to_kill();
    let host = host();
    for asked_to in ["end", "restart"] {
        let spec = plugin::spec_of("unkillable", plugin::command_for_others("echo"));
        let spec = spec.run_as(plugin::NOBODY, plugin::NOBODY).restart(restarts(5));
        let spec = spec.grace(Duration::ZERO).kill_timeout(Duration::from_millis(50));
        let handle = host.spawn(spec).unwrap();
        let (mut active, passive) = handle.take_channels().unwrap();
        let left = handle.pid().unwrap();
        match asked_to {
            "end" => assert_eq!(handle.terminate(), Ok(ExitReason::Unknown)),
            _ => handle.restart().unwrap(),
        }
        assert_eq!(handle.wait_exit(NEVER), Ok(ExitReason::Unknown));
        // It lives, and the host's ends are closed all the same; the name can be used again.
        assert!(fs::exists(format!("/proc/{left}")).unwrap());
        assert_eq!(active.send(b"?"), Err(SendError::Disconnected));
        assert_eq!(active.recv_timeout(NEVER).unwrap_err(), RecvTimeoutError::Disconnected);
        let told = std::iter::from_fn(|| host.next_event(NEVER))
            .any(|event| event.kind == HostEventKind::LeftBehind { pid: left });
        assert!(told);
        // Hung up on, it ends by itself after all, and is reaped.
        drop((active, passive));
        let reaped = std::iter::from_fn(|| host.next_event(NEVER))
            .any(|event| matches!(event.kind, HostEventKind::Died { pid, .. } if pid == left));
        assert!(reaped);
        assert!(!fs::exists(format!("/proc/{left}")).unwrap());
    }
}

/// Takes the capability from this thread and from those that it starts.
fn give_up_the_right_to_kill() {
    const CAP_KILL: u32 = 5;
    let header = [0x2008_0522_u32, 0];
    // Effective, permitted, inheritable; then the same of the higher capabilities.
    let mut sets = [0_u32; 6];
    // SAFETY: a header and room for the sets, which outlive the call.
    let got = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) };
    assert_eq!(got, 0);
    for set in &mut sets[..3] {
        *set &= !(1 << CAP_KILL);
    }
    // SAFETY: a header and sets, which outlive the call.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    assert_eq!(set, 0);
}
