//! The rows of the table of failures that concern starts, with a keeper: it starts plugins, reaps them, and
//! ends their groups.
//!
//! This test binary is executed again as the plugin. What needs root or a kernel feature is skipped, and
//! said to be, where it is missing. Invariants: what a test starts is ended when it ends.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process;
use std::ptr::null_mut;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::plugin::{self, KILLED, NEVER, NOBODY, restarts};
use common::process::{active, ask, has_ended, is_root, kinds, wait_for};
use common::stray::{Stray, pidfd_of};
use ringway::channel::Channel;
use ringway::error::ExitReason;
use ringway::host::{
    Host, HostEventKind, IsolationStep, Limit, PluginHandle, PluginSpec, SpawnError,
};

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    plugin::run_role();
}

fn keeping() -> Host {
    Host::builder().keeper().build().unwrap()
}

/// Whether the kernel lets a keeper start plugins: it can signal a group by a pidfd (Linux 6.9).
fn keepers_start() -> bool {
    let own = pidfd_of(process::id() as i32);
    let (fd, none) = (std::os::fd::AsRawFd::as_raw_fd(&own), null_mut::<libc::siginfo_t>());
    // SAFETY: an open pidfd; signal 0 only asks.
    let asked = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, 0, none, 4) };
    // Another error says that there is no such group.
    let found = asked == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL);
    if !found {
        println!("skipped: this kernel cannot signal a group by a pidfd");
    }
    found
}

/// The parent of a plugin in the role `read-files`. What the plugin's predecessor was asked last may be
/// answered again before.
fn parent(answers: &mut Channel) -> i32 {
    let mut status = ask(answers, "/proc/self/status");
    while !status.contains("PPid:") {
        let answer = answers.recv_timeout(NEVER).unwrap();
        status = String::from_utf8_lossy(&answer).into_owned();
    }
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    line.trim().parse().unwrap()
}

/// A plugin that reads files, its channel, and the keeper that is its parent.
fn kept(host: &Host, name: &str) -> (PluginHandle, Channel, i32) {
    let handle = host.spawn(plugin::spec(name, "read-files").restart(restarts(3))).unwrap();
    let mut answers = active(&handle);
    let keeper = parent(&mut answers);
    assert_eq!(ask(&mut answers, &format!("/proc/{keeper}/comm")), "ringway-keeper\n");
    (handle, answers, keeper)
}

fn signal(pid: i32, signal: i32) {
    // SAFETY: the call takes numbers; the process is a child that has not been reaped.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

#[test]
fn f63_a_keeper_starts_and_restarts_plugins() {
    if !keepers_start() {
        return;
    }
    let host = keeping();
    let (handle, mut answers, keeper) = kept(&host, "kept");
    handle.kill().unwrap();
    assert_eq!(parent(&mut answers), keeper, "its successor");
    // Else the request to restart it would be taken for this one.
    wait_for(&host, |kind| matches!(kind, HostEventKind::Restarted { incarnation: 2, .. }));
    handle.restart().unwrap();
    wait_for(&host, |kind| matches!(kind, HostEventKind::Restarted { incarnation: 3, .. }));
    assert_eq!(parent(&mut answers), keeper);
    assert!(handle.terminate().is_ok());
}

#[test]
fn f65_a_keeper_tells_how_plugins_end_where_the_kernel_reaps() {
    let test = "f65_a_keeper_tells_how_plugins_end_where_the_kernel_reaps";
    if !keepers_start() || !plugin::alone(test) {
        return;
    }
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let host = keeping();
    let ends = |name: &str, role| host.spawn(plugin::spec(name, role));
    assert_eq!(ends("good", "exit-when-ready").unwrap().wait_exit(NEVER), Ok(ExitReason::Code(0)));
    assert_eq!(ends("bad", "fail-when-ready").unwrap().wait_exit(NEVER), Ok(ExitReason::Code(3)));
    let killed = ends("killed", "echo").unwrap();
    killed.kill().unwrap();
    assert_eq!(killed.wait_exit(NEVER), Ok(KILLED));
    let early = ends("early", "exit-7").unwrap_err();
    assert!(matches!(early, SpawnError::Exited { reason: ExitReason::Code(7) }), "{early}");
    let in_handshake = ends("early", "killed-in-handshake").unwrap_err();
    assert!(matches!(in_handshake, SpawnError::Exited { reason: KILLED }), "{in_handshake}");
    let kinds = kinds(&host);
    assert!(!kinds.contains(&HostEventKind::ReapedElsewhere), "{kinds:?}");
}

/// A file of its own, gone with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, mode: u32) -> Self {
        let path = std::env::temp_dir().join(format!("ringway-{name}-{}", process::id()));
        fs::write(&path, "no program").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn f63_a_keeper_fails_as_the_host_does() {
    let not_executable = Scratch::new("not-executable", 0o600);
    let no_format = Scratch::new("no-format", 0o700);
    let spec = |program: &PathBuf| PluginSpec::new("fails", program);
    let echo = || plugin::spec("fails", "echo");
    let specs: [(&str, &dyn Fn() -> PluginSpec); 8] = [
        ("missing", &|| spec(&"/nonexistent/program".into())),
        ("not in PATH", &|| PluginSpec::new("fails", "ringway-no-such-program")),
        ("not executable", &|| spec(&not_executable.0)),
        ("no format", &|| spec(&no_format.0)),
        ("too long", &|| echo().arg("x".repeat(3 << 20))),
        ("longer than a request", &|| echo().arg("x".repeat(9 << 20))),
        ("no directory", &|| echo().current_dir("/nonexistent")),
        ("no processor", &|| echo().affinity([])),
    ];
    let hosts = [Host::builder().build().unwrap(), keeping()];
    for (what, spec) in specs {
        let [own, kept] = hosts.each_ref().map(|host| host.spawn(spec()).unwrap_err());
        assert_eq!(own.to_string(), kept.to_string(), "{what}");
        let same_kind = std::mem::discriminant(&own) == std::mem::discriminant(&kept);
        assert!(same_kind, "{what}: {own:?}, {kept:?}");
        let expected = matches!(
            own,
            SpawnError::Exec { .. }
                | SpawnError::Isolation {
                    step: IsolationStep::Directory | IsolationStep::Affinity,
                    ..
                }
        );
        assert!(expected, "{what}: {own:?}");
    }
}

#[test]
fn f71_a_kept_plugin_is_what_its_specification_says() {
    if !keepers_start() {
        return;
    }
    let host = keeping();
    let directory = std::env::temp_dir();
    let spec = plugin::spec("set", "read-files").nice(7).affinity([0]).session();
    let spec = spec.limit(Limit::OpenFiles(77)).env("KEPT", "yes").current_dir(&directory);
    let handle = host.spawn(spec).unwrap();
    let mut answers = active(&handle);
    assert!(ask(&mut answers, "/proc/self/environ").contains("KEPT=yes"));
    assert!(ask(&mut answers, "/proc/self/limits").contains("77                   77"));
    assert!(ask(&mut answers, "/proc/self/status").contains("Cpus_allowed_list:\t0\n"));
    let stat = ask(&mut answers, "/proc/self/stat");
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let pid = handle.pid().unwrap().to_string();
    assert_eq!([fields[2], fields[3], fields[16]], [&pid, &pid, "7"], "group, session, nice value");
    assert!(ask(&mut answers, "/proc/self/status").contains("SigBlk:\t0000000000000000"));
}

/// Where the numbers below 64 of a plugin in the role `links` lead, but for the files that have no name.
fn descriptors(host: &Host, name: &str) -> Vec<String> {
    let spec = plugin::spec(name, "links").stderr(ringway::host::Stdio::null());
    let handle = host.spawn(spec).unwrap();
    let mut answers = active(&handle);
    let links = (0..64).map(|fd| ask(&mut answers, &format!("/proc/self/fd/{fd}")));
    let mut open: Vec<_> = links.filter(|link| !link.contains("No such file")).collect();
    // Sockets have numbers.
    open.iter_mut().filter(|link| link.starts_with("socket:")).for_each(|link| link.truncate(6));
    open.sort_unstable();
    open
}

#[test]
fn f63_descriptors_of_host_and_keeper_reach_no_plugin() {
    // Left open on exec by somebody who does not know better.
    let mut pipe = [0; 2];
    // SAFETY: the kernel writes two numbers to the array.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    let own = descriptors(&Host::builder().build().unwrap(), "own");
    let host = keeping();
    let (_other, _answers, _) = kept(&host, "other");
    assert_eq!(descriptors(&host, "kept"), own);
    for fd in pipe {
        // SAFETY: opened above, and used by nothing else.
        unsafe { libc::close(fd) };
    }
}

#[test]
fn f67_a_keeper_that_dies_is_reported_and_its_plugins_are_watched() {
    if !keepers_start() {
        return;
    }
    let host = keeping();
    let (first, mut answers, keeper) = kept(&host, "first");
    let (second, ..) = kept(&host, "second");
    signal(keeper, libc::SIGKILL);
    let told = wait_for(&host, |kind| matches!(kind, HostEventKind::KeeperEnded { .. }));
    assert_eq!(told, HostEventKind::KeeperEnded { reason: KILLED });
    assert!(ask(&mut answers, "/proc/self/comm").starts_with("failures_keeper"), "it goes on");
    first.kill().unwrap();
    let died = wait_for(&host, |kind| matches!(kind, HostEventKind::Died { .. }));
    // Who reaps it, and whether the kernel knows the reason, is not up to the host any more.
    let HostEventKind::Died { reason, .. } = died else { unreachable!() };
    assert!(matches!(reason, KILLED | ExitReason::Unknown), "{reason:?}");
    let third = host.spawn(plugin::spec("third", "read-files")).unwrap();
    assert_eq!(parent(&mut active(&third)), process::id() as i32, "the host starts it itself");
    let second = second.terminate().unwrap();
    assert!(matches!(second, ExitReason::Signal(libc::SIGTERM) | ExitReason::Unknown));
}

#[test]
fn f63_a_keeper_that_is_stopped_is_told_by_the_deadline() {
    if !keepers_start() {
        return;
    }
    let host = keeping();
    let (other, mut answers, keeper) = kept(&host, "other");
    signal(keeper, libc::SIGSTOP);
    let spec = plugin::spec("late", "echo").ready_timeout(Duration::from_millis(100));
    let error = host.spawn(spec).unwrap_err();
    assert!(matches!(error, SpawnError::KeeperSilent { .. }), "{error}");
    assert!(ask(&mut answers, "/proc/self/comm").starts_with("failures_keeper"));
    signal(keeper, libc::SIGCONT);
    // Nothing has come of the request meanwhile, or it has been ended.
    let late = host.spawn(plugin::spec("late", "read-files")).unwrap();
    let children = ask(&mut active(&late), &format!("/proc/{keeper}/task/{keeper}/children"));
    if children.contains("os error") {
        return println!("skipped: this kernel does not list children");
    }
    let mut found: Vec<u32> = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    let mut expected = [&other, &late].map(|handle| handle.pid().unwrap());
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

/// Traces a keeper, so that its next child stops before it does anything. Says that it traces, and then that
/// there is such a child, whose number it returns.
fn stop_next_child(keeper: i32, ready: &mpsc::Sender<()>) -> Result<i32, io::Error> {
    let options = libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACECLONE;
    // SAFETY: a request that takes numbers, and concerns a child.
    let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, keeper, 0_usize, options as usize) };
    if seized != 0 {
        return Err(io::Error::last_os_error());
    }
    ready.send(()).unwrap();
    let mut status = 0;
    // SAFETY: a traced child; the status outlives the call.
    assert_eq!(unsafe { libc::waitpid(keeper, &raw mut status, libc::__WALL) }, keeper);
    let mut child = 0_usize;
    // SAFETY: the keeper is stopped at the event; the number is written to a word that outlives the call.
    let got = unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, keeper, 0_usize, &raw mut child) };
    assert_eq!(got, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::ptrace(libc::PTRACE_DETACH, keeper, 0_usize, 0_usize) }, 0);
    ready.send(()).unwrap();
    Ok(child as i32)
}

#[test]
fn f63_a_kept_start_that_hangs_holds_up_nobody() {
    if !keepers_start() {
        return;
    }
    let host = keeping();
    let (other, mut answers, keeper) = kept(&host, "other");
    let (ready, traced) = mpsc::channel();
    thread::scope(|scope| {
        let tracer = scope.spawn(move || {
            let child = stop_next_child(keeper, &ready)?;
            // Reported to its tracer first: its stop, and its end when it is killed.
            let mut status = 0;
            while !libc::WIFSIGNALED(status) {
                // SAFETY: a traced process; the status outlives the call.
                let found = unsafe { libc::waitpid(child, &raw mut status, libc::__WALL) };
                assert_eq!(found, child);
            }
            Ok::<_, io::Error>(libc::WTERMSIG(status))
        });
        if traced.recv_timeout(NEVER).is_err() {
            return println!("skipped: no process can be traced here: {:?}", tracer.join());
        }
        let stuck = scope.spawn(|| host.spawn(plugin::spec("stuck", "echo")).map(drop));
        // Somebody else's request, behind the one that hangs.
        traced.recv_timeout(NEVER).unwrap();
        kept(&host, "next").0.terminate().unwrap();
        other.kill().unwrap();
        assert_eq!(parent(&mut answers), keeper, "its successor");
        assert!(!stuck.is_finished(), "all this took place while it hangs");
        host.shutdown(Duration::ZERO).unwrap();
        assert!(matches!(stuck.join().unwrap(), Err(SpawnError::Stopped)));
        assert_eq!(tracer.join().unwrap().unwrap(), libc::SIGKILL);
    });
}

#[test]
fn f63_a_plugin_with_a_hook_is_started_by_the_host() {
    let host = keeping();
    // SAFETY: the hook does nothing.
    let spec = unsafe { plugin::spec("hooked", "read-files").pre_exec(|| Ok(())) };
    let handle = host.spawn(spec).unwrap();
    assert_eq!(parent(&mut active(&handle)), process::id() as i32);
    handle.kill().unwrap();
    assert_eq!(handle.wait_exit(NEVER), Ok(KILLED));
}

#[test]
fn f68_a_keeper_gives_no_rights_that_the_host_has_given_up() {
    let test = "f68_a_keeper_gives_no_rights_that_the_host_has_given_up";
    if !is_root() || !plugin::alone(test) {
        return;
    }
    let host = keeping();
    // SAFETY: the calls take numbers.
    assert_eq!(unsafe { libc::setgroups(0, std::ptr::null()) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setresgid(NOBODY, NOBODY, NOBODY) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) }, 0);
    let late = host.spawn(plugin::spec_of("late", plugin::command_for_others("read-files")));
    let mut answers = active(&late.unwrap());
    assert!(ask(&mut answers, "/proc/self/status").contains("Uid:\t65534\t65534\t65534\t65534"));
    assert_eq!(parent(&mut answers), process::id() as i32);
}

#[test]
fn f70_a_kept_plugin_runs_as_another_user() {
    if !plugin::may_switch_user() || !keepers_start() {
        return;
    }
    let host = keeping();
    let spec = plugin::spec_of("other-user", plugin::command_for_others("read-files"));
    let handle = host.spawn(spec.run_as(NOBODY, NOBODY)).unwrap();
    let mut answers = active(&handle);
    let status = ask(&mut answers, "/proc/self/status");
    assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"));
    assert!(status.contains("Groups:\t \n"), "{status}");
    assert_ne!(parent(&mut answers), process::id() as i32);
}

#[test]
fn f66_the_group_of_a_kept_plugin_ends_with_it() {
    let host = keeping();
    let spec = plugin::spec("parent", "has-a-child").grace(Duration::from_millis(100));
    let handle = host.spawn(spec).unwrap();
    let message = active(&handle).recv_timeout(NEVER).map(|message| message.to_vec()).unwrap();
    let child = Stray(pidfd_of(i32::from_ne_bytes(message[..].try_into().unwrap())));
    handle.terminate().unwrap();
    assert!(has_ended(&child.0));
}
