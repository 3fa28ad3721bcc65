//! Plugins that attack: what they try against their host, their neighbours, and their own memory.
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "attempts stand in tables")]

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::null_mut;
use std::thread;

use ringway::host::Plugin;
use ringway::layout::{CHANNEL_DATA, ring, side};
use ringway::memory::{Memory, Ordering};
use ringway::segment::AnonymousSegment;

use super::random::Random;
use super::spoiling::announced;

/// Its channels; hosts of such plugins have something to serve.
const KEYS: [&str; 4] = ["control", "active", "passive", "service"];

/// Those and its host's store.
const FILES: [&str; 5] = ["control", "active", "passive", "service", "store"];

/// What a call of the system said: 0, or the number of the error.
fn errno(result: libc::c_long) -> i32 {
    if result >= 0 { 0 } else { io::Error::last_os_error().raw_os_error().unwrap() }
}

fn of_io<T>(result: io::Result<T>) -> i32 {
    result.map_or_else(|error| error.raw_os_error().unwrap(), |_| 0)
}

/// Everything that one process can try on another; a number of an error each, 0 where it succeeded.
fn attack_process(pid: i32, fd: i32) -> Vec<(String, i32)> {
    let path = |file: &str| format!("/proc/{pid}/{file}");
    let open = |file: &str, write: bool| {
        of_io(OpenOptions::new().read(true).write(write).open(path(file)))
    };
    let mut bytes = [0_u8; 8];
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 8 };
    // Whether anything is mapped there does not matter: who may not is told so before.
    let remote = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 8 };
    let limit = libc::rlimit64 { rlim_cur: 3, rlim_max: 3 };
    let limited = null_mut::<libc::rlimit64>();
    let mut found = vec![
        ("open mem to write", open("mem", true)),
        ("open mem to read", open("mem", false)),
        ("open maps", open("maps", false)),
        ("open environ", open("environ", false)),
        ("list fd", of_io(fs::read_dir(path("fd")))),
        ("reopen a descriptor to write", open(&format!("fd/{fd}"), true)),
        ("reopen a descriptor to read", open(&format!("fd/{fd}"), false)),
    ];
    // SAFETY: numbers, and structs that outlive the calls; what is read goes to an array of ours.
    unsafe {
        let null = null_mut::<libc::c_void>();
        found.extend([
            ("kill", errno(libc::kill(pid, libc::SIGKILL).into())),
            ("stop", errno(libc::kill(pid, libc::SIGSTOP).into())),
            ("attach", errno(libc::ptrace(libc::PTRACE_ATTACH, pid, null, null))),
            ("seize", errno(libc::ptrace(libc::PTRACE_SEIZE, pid, null, null))),
            ("read memory", errno(libc::process_vm_readv(pid, &local, 1, &remote, 1, 0) as _)),
            ("write memory", errno(libc::process_vm_writev(pid, &local, 1, &remote, 1, 0) as _)),
            (
                "limit",
                errno(libc::syscall(
                    libc::SYS_prlimit64,
                    pid,
                    libc::RLIMIT_NOFILE,
                    &limit,
                    limited,
                )),
            ),
            ("renice", errno(libc::setpriority(libc::PRIO_PROCESS, pid as _, 19).into())),
        ]);
    }
    found.into_iter().map(|(what, errno)| (format!("{what} of {pid}"), errno)).collect()
}

/// What can be tried with the descriptors that a plugin inherits.
fn attack_descriptors(host_fd: i32, pidfd: i32, files: [i32; 5]) -> Vec<(String, i32)> {
    let none = null_mut::<libc::siginfo_t>();
    // SAFETY: the calls take numbers and no information.
    let (killed, taken) = unsafe {
        (
            errno(libc::syscall(libc::SYS_pidfd_send_signal, pidfd, libc::SIGKILL, none, 0)),
            errno(libc::syscall(libc::SYS_pidfd_getfd, pidfd, host_fd, 0)),
        )
    };
    let mut found = vec![("kill by pidfd".into(), killed), ("take a descriptor".into(), taken)];
    for (key, fd) in FILES.into_iter().zip(files) {
        let path = format!("/proc/self/fd/{fd}");
        let hole = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let (write, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: numbers, one byte that outlives the call, and a new mapping wherever there is room.
        let tries = unsafe {
            [
                ("truncate", errno(libc::ftruncate(fd, 0).into())),
                ("grow", errno(libc::ftruncate(fd, 1 << 30).into())),
                ("punch", errno(libc::fallocate(fd, hole, 0, 4096).into())),
                ("write", errno(libc::pwrite(fd, [0_u8].as_ptr().cast(), 1, 0) as _)),
                ("map", errno(libc::mmap(null_mut(), 4096, write, shared, fd, 0) as _)),
                ("seal", errno(libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_WRITE).into())),
                ("chmod", errno(libc::fchmod(fd, 0o777).into())),
                ("reopen to write", of_io(OpenOptions::new().write(true).open(&path))),
                ("reopen to read", of_io(File::open(&path))),
            ]
        };
        found.extend(tries.map(|(what, errno)| (format!("{what} {key}"), errno)));
    }
    found
}

fn attack_identity() -> Vec<(String, i32)> {
    // SAFETY: the calls take numbers and no pointer to groups.
    let tries = unsafe {
        [
            ("become root", errno(libc::setuid(0).into())),
            ("join root's group", errno(libc::setgid(0).into())),
            ("take groups", errno(libc::setgroups(0, null_mut()).into())),
        ]
    };
    tries.map(|(what, errno)| (what.into(), errno)).into()
}

/// Tries to change the store through the descriptor that it was given; tells how often it could.
pub fn write_anyway() {
    let fd = announced("store");
    let hole = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let (write, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: numbers, one byte that outlives the call, and new mappings wherever there is room.
    let tries = unsafe {
        let readable = libc::mmap(null_mut(), 4096, libc::PROT_READ, shared, fd, 0);
        assert_ne!(readable, libc::MAP_FAILED);
        [
            errno(libc::ftruncate(fd, 0).into()),
            errno(libc::fallocate(fd, hole, 0, 4096).into()),
            errno(libc::pwrite(fd, [0_u8].as_ptr().cast(), 1, 0) as _),
            errno(libc::mmap(null_mut(), 4096, write, shared, fd, 0) as _),
            errno(libc::mprotect(readable, 4096, write).into()),
            errno(libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_WRITE).into()),
        ]
    };
    let succeeded = tries.iter().filter(|errno| **errno == 0).count();
    let plugin = Plugin::connect().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    while active.recv_owned().is_ok() {
        let told = format!("{succeeded} of {} attempts succeeded", tries.len());
        active.send(told.as_bytes()).unwrap();
    }
}

/// Told a process and a descriptor of the host, and a process and a descriptor of a neighbour, tries
/// everything and reports.
pub fn attack() {
    // Its own, whatever the library closes.
    let keep = |key| {
        // SAFETY: the call takes numbers.
        let fd = unsafe { libc::fcntl(announced(key), libc::F_DUPFD_CLOEXEC, 3) };
        assert!(fd >= 0);
        fd
    };
    let (pidfd, files) = (keep("host"), FILES.map(keep));
    let plugin = Plugin::connect().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    while let Ok(targets) = active.recv_pod::<[i32; 4]>() {
        let [host, host_fd, neighbour, neighbour_fd] = targets;
        let mut found = attack_process(host, host_fd);
        found.extend(attack_process(neighbour, neighbour_fd));
        found.extend(attack_descriptors(host_fd, pidfd, files));
        found.extend(attack_identity());
        let lines: Vec<_> = found.iter().map(|(what, errno)| format!("{errno} {what}")).collect();
        active.send(lines.join("\n").as_bytes()).unwrap();
    }
}

/// Punches holes wherever it can before the host seals, and then works.
pub fn punch_first() {
    for key in KEYS {
        let fd = announced(key);
        let hole = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // All but the header, which the plugin's own attaching checks.
        let (from, to) = (CHANNEL_DATA as i64, 1 << 30);
        // SAFETY: the calls take numbers.
        let (punched, cut) =
            unsafe { (libc::fallocate(fd, hole, from, to), libc::ftruncate(fd, 0)) };
        assert_eq!((punched, cut), (0, -1));
    }
    super::plugin::echo();
}

/// A second mapping of an inherited memory file, made before the host seals it.
pub fn map_again(key: &str) -> AnonymousSegment {
    // SAFETY: the call takes numbers.
    let fd = unsafe { libc::fcntl(announced(key), libc::F_DUPFD_CLOEXEC, 3) };
    assert!(fd >= 0);
    // SAFETY: just opened, and nobody else's.
    AnonymousSegment::attach(unsafe { OwnedFd::from_raw_fd(fd) }).unwrap()
}

/// Writes anything anywhere into all its segments, and wakes whoever sleeps there, until it
/// is killed.
pub fn scribble() {
    super::plugin::ignore_sigterm();
    let seed = env::var("RINGWAY_TEST_SEED").unwrap().parse().unwrap();
    let segments = KEYS.map(map_again);
    let plugin = Plugin::connect().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    assert_eq!(&*active.recv_owned().unwrap(), b"begin");
    let mut random = Random::new(seed);
    thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                segments.iter().for_each(wake_all);
            }
        });
        // Some behave for a while on the words that end a channel.
        let spares = random.below(2) == 0;
        loop {
            let segment = &segments[random.below(KEYS.len() as u64) as usize];
            let offset = random.below(segment.memory().len_bytes()) & !7;
            if spares && offset < CHANNEL_DATA {
                continue;
            }
            let word = match random.below(4) {
                0 => 0,
                1 => random.below(4096) & !7,
                2 => u64::MAX - random.below(16),
                _ => random.next(),
            };
            segment.memory().store_u64(offset, word, Ordering::Relaxed);
        }
    });
}

/// Wakes every sleeper, and takes back or forges every announcement.
fn wake_all(segment: &AnonymousSegment) {
    let memory = segment.memory();
    for control in ring::CONTROL {
        for word in [ring::CONSUMER_WAITING, ring::PRODUCER_WAITING] {
            memory.swap_u32(control + word, 0, Ordering::Relaxed);
            memory.wake_u32(control + word, u32::MAX);
        }
    }
    memory.wake_u32(side::LINE[1] + side::STATE, u32::MAX);
}

/// The number of a descriptor of this process that is a segment's.
pub fn some_segment_of(pid: u32) -> i32 {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut numbers = entries.filter_map(|entry| {
        let path = entry.unwrap().path();
        let target = fs::read_link(&path).unwrap_or_default();
        let is_segment = target.to_string_lossy().contains("memfd:ringway");
        is_segment.then(|| path.file_name().unwrap().to_string_lossy().parse().unwrap())
    });
    numbers.next().expect("it has a segment")
}
