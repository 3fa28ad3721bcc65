//! Plugins that spoil what they share with their host, behind the library's back.

use std::env;
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::process;
use std::thread;

use super::plugin::{answer, hang, raise};
use ringway::error::RecvError;
use ringway::host::Plugin;
use ringway::host::control::VARIABLE;
use ringway::layout::ring;
use ringway::memory::{MappedMemory, Memory, Ordering};
use ringway::ring::{Producer, RingGeometry};
use ringway::segment::AnonymousSegment;

/// The number that the host has announced under this key.
pub fn announced(key: &str) -> i32 {
    let text = env::var(VARIABLE).unwrap();
    let value = text.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value.unwrap().parse().unwrap()
}

/// Another open description of an inherited memory file, as a hostile plugin would make it.
pub fn reopen(key: &str) -> OwnedFd {
    let path = format!("/proc/self/fd/{}", announced(key));
    OpenOptions::new().read(true).write(true).open(path).unwrap().into()
}

/// Keeps the host from sealing.
pub fn seal_first() {
    // SAFETY: the call takes numbers.
    let result = unsafe { libc::fcntl(announced("active"), libc::F_ADD_SEALS, libc::F_SEAL_SEAL) };
    assert_eq!(result, 0);
    let plugin = Plugin::connect().unwrap();
    let _channels = plugin.take_channels().unwrap();
    hang();
}

/// The bare ring from the plugin to the host, mapped a second time behind the library's back.
pub fn bare_producer(segment: &AnonymousSegment) -> Producer<MappedMemory> {
    let (memory, geometry) = (segment.memory().clone(), segment.geometry());
    let data = geometry.layout().unwrap().data[1];
    let (capacity, align) = (geometry.capacity_bytes[1], geometry.payload_align);
    let geometry = RingGeometry::new(&memory, ring::CONTROL[1], data, capacity, align).unwrap();
    Producer::attach(memory, geometry).unwrap()
}

/// Commits a record and never wakes the receiver: as if killed, or stopped, in between.
pub fn silent_commit() {
    let segment = AnonymousSegment::attach(reopen("active")).unwrap();
    let plugin = Plugin::connect().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    let then = active.recv_owned().unwrap();
    bare_producer(&segment).try_push(1, b"silent").unwrap();
    raise(if &*then == b"die" { libc::SIGKILL } else { libc::SIGSTOP });
    hang();
}

/// Answers; asked to fork, leaves a child that holds everything open and, once its parent is dead,
/// writes into the ring for as long as it lives.
pub fn fork_on_demand() {
    let segment = AnonymousSegment::attach(reopen("active")).unwrap();
    let plugin = Plugin::connect().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    loop {
        let message = match active.recv_owned() {
            Ok(message) => message,
            Err(RecvError::Disconnected) => return,
            Err(error) => panic!("{error}"),
        };
        if &*message != b"fork" {
            active.send(&message).unwrap();
            continue;
        }
        let parent = process::id();
        // SAFETY: the child calls nothing that another thread could have locked.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // Its plugin's group ends with the plugin.
            // SAFETY: the call takes numbers.
            unsafe { libc::setpgid(0, 0) };
            // SAFETY: the call takes a number; it ends the child should nobody else do so.
            unsafe { libc::alarm(60) };
            while std::os::unix::process::parent_id() == parent {
                thread::yield_now();
            }
            let mut producer = bare_producer(&segment);
            loop {
                let _ = producer.try_push(0xbad, b"from the grave");
            }
        }
        active.send(&child.to_ne_bytes()).unwrap();
    }
}

/// Answers; asked to lie, spoils the ring to the host, or to spoil, the one from it; and dies.
pub fn lie_on_demand() {
    let segment = AnonymousSegment::attach(reopen("active")).unwrap();
    let plugin = Plugin::connect().unwrap();
    let (active, _passive) = plugin.take_channels().unwrap();
    answer(active, |message| {
        if message == b"lie" {
            let (memory, geometry) = (segment.memory(), segment.geometry());
            let data = geometry.layout().unwrap().data[1];
            for offset in (data..data + geometry.capacity_bytes[1]).step_by(8) {
                memory.store_u64(offset, u64::MAX, Ordering::Relaxed);
            }
            raise(libc::SIGKILL);
        }
        if message == b"spoil" {
            let head = ring::CONTROL[0] + ring::HEAD;
            segment.memory().store_u64(head, 3, Ordering::Relaxed);
            raise(libc::SIGKILL);
        }
    });
}

/// Takes locks of both kinds on the whole of each memory file; a forked child keeps them.
pub fn lock_everything() {
    for key in ["control", "active", "passive"] {
        let fd = announced(key);
        // SAFETY: a lock of zeros is one on nothing.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = libc::F_WRLCK as _;
        // SAFETY: the call takes numbers, and a lock that outlives it.
        let of_description = unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, &raw const lock) };
        // SAFETY: the call takes numbers.
        let of_file = unsafe { libc::flock(fd, libc::LOCK_EX | libc::LOCK_NB) };
        assert_eq!((of_description, of_file), (0, 0));
    }
}

/// Sends as much as fits, for ever.
pub fn flood() {
    let plugin = Plugin::connect().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    while active.send(b"flood").is_ok() {}
}
