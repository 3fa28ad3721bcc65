//! The rows of the table of failures that concern the start of a plugin's process: how it is made, and what
//! it inherits.
//!
//! This test binary is executed again as the plugin. What needs root or a kernel feature is skipped, and
//! said to be, where it is missing. Invariants: what a test starts is ended when it ends.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use common::plugin::{self, NEVER, NOBODY, host, restarts};
use common::process::{active, ask, is_root, wait_for};
use common::seccomp::refuse;
use ringway::channel::Channel;
use ringway::error::{ExitReason, SegmentError};
use ringway::host::{
    Host, HostError, HostEventKind, IsolationStep, PluginSpec, PluginState, SchedulingPolicy,
    SpawnError, Stdio,
};
use ringway::segment::AnonymousSegment;

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    plugin::run_role();
}

/// A plugin's own numbers, from `/proc/self/stat`, counted from 1.
fn stat_fields(active: &mut Channel) -> Vec<i64> {
    let stat = ask(active, "/proc/self/stat");
    let (_, behind) = stat.rsplit_once(')').unwrap();
    let numbers = behind.split_whitespace().map(|word| word.parse().unwrap_or(-1));
    // The first two fields and the state are no numbers.
    [0, 0, 0].into_iter().chain(numbers).collect()
}

const PROCESS_GROUP: usize = 5;
const SESSION: usize = 6;
const NICE: usize = 19;
const POLICY: usize = 41;

/// A plugin whose process stops before it executes its program, once a byte has gone into the pipe.
fn stops_before_exec(name: &str, told: io::PipeWriter) -> PluginSpec {
    let stop = move || {
        (&told).write_all(b"!")?;
        // SAFETY: the call takes a number.
        unsafe { libc::raise(libc::SIGSTOP) };
        Ok(())
    };
    // SAFETY: the hook makes system calls only.
    unsafe { plugin::spec(name, "echo").pre_exec(stop) }
}

#[test]
fn f63_a_start_that_hangs_holds_up_nobody_and_shutdown_ends_it() {
    let host = host();
    let neighbour = host.spawn(plugin::spec("neighbour", "echo")).unwrap();
    let (mut reached, told) = io::pipe().unwrap();
    thread::scope(|scope| {
        let hangs = scope.spawn(|| host.spawn(stops_before_exec("stuck", told)).map(drop));
        reached.read_exact(&mut [0]).unwrap();
        assert_eq!(neighbour.state(), PluginState::Running);
        let stuck = host.plugin("stuck").expect("it is being started");
        assert_eq!((stuck.state(), stuck.pid()), (PluginState::Starting, None));
        host.spawn(plugin::spec("other", "echo")).unwrap().terminate().unwrap();
        assert!(!hangs.is_finished(), "all this took place while it hangs");
        host.shutdown(Duration::ZERO).unwrap();
        assert!(matches!(hangs.join().unwrap(), Err(SpawnError::Stopped)));
    });
}

#[test]
fn f63_a_start_has_a_deadline_and_leaves_nothing() {
    if !plugin::alone("f63_a_start_has_a_deadline_and_leaves_nothing") {
        return;
    }
    let host = host();
    let (mut reached, told) = io::pipe().unwrap();
    let timeout = Duration::from_millis(200);
    let error = host.spawn(stops_before_exec("stuck", told).ready_timeout(timeout)).unwrap_err();
    assert!(matches!(error, SpawnError::NotExecuted { .. }), "{error}");
    reached.read_exact(&mut [0]).unwrap();
    // SAFETY: a null status is allowed.
    let reaped = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) };
    assert_eq!(reaped, -1, "there is no child, dead or alive");
}

/// What copies no page table shares the memory.
#[test]
fn f63_a_start_copies_no_memory_of_the_host() {
    let seen = Arc::new(AtomicU32::new(0));
    let child = Arc::clone(&seen);
    let note = move || {
        child.store(7, Ordering::Relaxed);
        Ok(())
    };
    let host = host();
    // SAFETY: the hook stores a word.
    let spec = unsafe { plugin::spec("sharing", "echo").pre_exec(note) };
    host.spawn(spec).unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 7);
}

#[test]
fn f63_memory_is_dumpable_again_after_a_change_of_user() {
    let test = "f63_memory_is_dumpable_again_after_a_change_of_user";
    if !plugin::may_switch_user() || !plugin::alone(test) {
        return;
    }
    let host = host();
    let dumpable = || {
        // SAFETY: the call takes numbers.
        unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) }
    };
    assert_eq!(dumpable(), 1);
    let during = Arc::new(AtomicU32::new(9));
    let child = Arc::clone(&during);
    let note = move || {
        // SAFETY: the call takes numbers.
        let now = unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) };
        child.store(now as u32, Ordering::Relaxed);
        Ok(())
    };
    let spec = plugin::spec_of("other", plugin::command_for_others("echo")).run_as(NOBODY, NOBODY);
    // SAFETY: the hook makes a system call and stores a word.
    host.spawn(unsafe { spec.pre_exec(note) }).unwrap();
    assert_eq!((during.load(Ordering::Relaxed), dumpable()), (0, 1));
}

#[test]
fn f64_blocked_and_ignored_signals_are_not_inherited() {
    if !plugin::alone("f64_blocked_and_ignored_signals_are_not_inherited") {
        return;
    }
    let all = u64::MAX;
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
    // SAFETY: a set of 64 signals that outlives the call; the old one is not asked for.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, 0_usize, 8)
    };
    assert_eq!(result, 0);
    let host = host();
    let spec = plugin::spec("unblocked", "read-files").grace(NEVER);
    let handle = host.spawn(spec).unwrap();
    let status = ask(&mut active(&handle), "/proc/self/status");
    let mask = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!(mask("SigBlk:"), 0);
    // The standard library of the plugin itself ignores SIGPIPE.
    assert_eq!(mask("SigIgn:"), 1 << (libc::SIGPIPE - 1));
    assert_eq!(handle.terminate(), Ok(ExitReason::Signal(libc::SIGTERM)));
}

fn read_to_end(mut pipe: io::PipeReader) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn f70_each_incarnation_has_pipes_of_its_own() {
    let host = host();
    let spec = plugin::spec("speaker", "speak").stderr(Stdio::piped()).restart(restarts(3));
    let handle = host.spawn(spec).unwrap();
    let first = handle.take_stderr().unwrap();
    assert!(handle.take_stderr().is_none() && handle.take_stdout().is_none());
    handle.kill().unwrap();
    wait_for(&host, |kind| matches!(kind, HostEventKind::Restarted { .. }));
    assert!(read_to_end(first).contains("something went wrong"));
    let second = handle.take_stderr().unwrap();
    handle.terminate().unwrap();
    assert!(read_to_end(second).contains("something went wrong"));
}

#[test]
fn f70_input_is_null_and_so_are_outputs_of_another_user() {
    let host = host();
    let spec = PluginSpec::new("plain", "/proc/self/exe")
        .args(plugin::command("links").get_args())
        .env(plugin::ROLE, "links")
        .ready_timeout(NEVER);
    let handle = host.spawn(spec).unwrap();
    let mut answers = active(&handle);
    let ours = fs::read_link("/proc/self/fd/2").unwrap();
    assert_eq!(ask(&mut answers, "/proc/self/fd/0"), "/dev/null");
    assert_eq!(ask(&mut answers, "/proc/self/fd/2"), ours.to_string_lossy());
    if !plugin::may_switch_user() {
        return;
    }
    let spec = PluginSpec::new("other", "/proc/self/exe")
        .args(plugin::command("links").get_args())
        .env(plugin::ROLE, "links")
        .ready_timeout(NEVER)
        .run_as(NOBODY, NOBODY);
    let handle = host.spawn(spec).unwrap();
    let mut answers = active(&handle);
    for fd in 0..3 {
        assert_eq!(ask(&mut answers, &format!("/proc/self/fd/{fd}")), "/dev/null");
    }
}

#[test]
fn f71_scheduling_is_reset_and_set_as_asked_for() {
    if !is_root() || !plugin::alone("f71_scheduling_is_reset_and_set_as_asked_for") {
        return;
    }
    // SAFETY: the call takes numbers.
    assert_eq!(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -5) }, 0);
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameters outlive the call.
    let real_time = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) };
    if real_time != 0 {
        println!("real-time policies are not to be had here: only nice values are tested");
    }
    let host = host();
    let reset = host.spawn(plugin::spec("reset", "read-files")).unwrap();
    let fields = stat_fields(&mut active(&reset));
    assert_eq!((fields[POLICY], fields[NICE]), (0, 0));
    let spec = plugin::spec("set", "read-files")
        .scheduling(SchedulingPolicy::Batch)
        .nice(-2)
        .affinity([0]);
    let set = host.spawn(spec).unwrap();
    let mut answers = active(&set);
    let fields = stat_fields(&mut answers);
    assert_eq!((fields[POLICY], fields[NICE]), (i64::from(libc::SCHED_BATCH), -2));
    assert!(ask(&mut answers, "/proc/self/status").contains("Cpus_allowed_list:\t0\n"));
    let impossible = plugin::spec("impossible", "echo").scheduling(SchedulingPolicy::Fifo(200));
    let error = host.spawn(impossible).unwrap_err();
    let is_step = matches!(error, SpawnError::Isolation { step: IsolationStep::Scheduling, .. });
    assert!(is_step, "{error}");
}

#[test]
fn f71_group_session_and_directory_are_the_plugin_s_own() {
    let host = host();
    let group = host.spawn(plugin::spec("group", "read-files").current_dir("/proc")).unwrap();
    let fields = stat_fields(&mut active(&group));
    let pid = i64::from(group.pid().unwrap());
    // SAFETY: the call takes numbers.
    let ours = i64::from(unsafe { libc::getsid(0) });
    assert_eq!((fields[PROCESS_GROUP], fields[SESSION]), (pid, ours));
    let spec = plugin::spec("session", "links").session().own_keyring().current_dir("/proc");
    let session = match host.spawn(spec) {
        Ok(session) => session,
        Err(SpawnError::Isolation { step: IsolationStep::Keyring, source }) => {
            return println!("skipped: no keyrings here: {source}");
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(ask(&mut active(&session), "/proc/self/cwd"), "/proc");
    let pid = session.pid().unwrap() as i32;
    // SAFETY: the call takes a number.
    assert_eq!(unsafe { libc::getsid(pid) }, pid);
}

#[test]
fn f74_a_kernel_without_pidfds_is_named() {
    if !plugin::alone("f74_a_kernel_without_pidfds_is_named") {
        return;
    }
    refuse(&[(libc::SYS_pidfd_open, libc::ENOSYS)]);
    let error = Host::builder().build().unwrap_err();
    assert!(matches!(error, HostError::Kernel { lacks: "pidfd_open", .. }), "{error}");
    assert!(error.to_string().contains("5.3"), "{error}");
}

#[test]
fn f53_a_file_of_huge_pages_is_no_segment() {
    let flags = libc::MFD_HUGETLB | libc::MFD_ALLOW_SEALING | libc::MFD_CLOEXEC;
    // SAFETY: a C string.
    let fd = unsafe { libc::memfd_create(c"huge".as_ptr(), flags) };
    if fd < 0 {
        return println!("skipped: no huge pages here: {}", io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else's.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
    // SAFETY: the call takes numbers.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) }, 0);
    let error = AnonymousSegment::attach(file.into()).unwrap_err();
    assert!(
        matches!(&error, SegmentError::NotMemory { found } if found.contains("huge")),
        "{error}"
    );
}

#[test]
fn f54_what_is_no_memory_is_refused_before_it_is_asked_anything() {
    if !plugin::alone("f54_what_is_no_memory_is_refused_before_it_is_asked_anything") {
        return;
    }
    let files = [(); 2].map(|()| File::open("/proc/self/exe").unwrap());
    // A file system in user space might never answer these.
    refuse(&[libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx].map(|call| (call, libc::EIO)));
    let [channel, store] = files.map(OwnedFd::from);
    let error = AnonymousSegment::attach(channel).unwrap_err();
    assert!(matches!(error, SegmentError::NotMemory { .. }), "{error}");
    let error = ringway::store::Store::attach_read_only(store).unwrap_err();
    assert!(error.to_string().contains("cannot be sealed"), "{error}");
}
