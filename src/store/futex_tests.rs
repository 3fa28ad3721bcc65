//! What a process of another user does to the words of a store that it has mapped read-only.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::{null, null_mut};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::doorbells;
use super::{Store, StoreOptions};
use crate::layout::store::{LIMBO, generation, private};
use crate::memory::MappedMemory;

/// A user id that nobody has.
const NOBODY: u32 = 61_234;
/// Only what hangs takes so long.
const NEVER: Duration = Duration::from_secs(60);

/// A child process, killed and reaped when it is dropped.
struct Child(libc::pid_t);

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: our own child, which has not been reaped.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        // SAFETY: as above; no status is wanted.
        unsafe { libc::waitpid(self.0, null_mut(), 0) };
    }
}

/// Runs `act` again and again in a child under another user id, with the address at which it has mapped
/// the file of this descriptor.
fn attack(descriptor: i32, len_bytes: usize, act: impl Fn(usize)) -> Child {
    // SAFETY: the child only calls the system, on memory of its own, until it is killed.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid > 0 {
        return Child(pid);
    }
    // SAFETY: takes numbers; ends the child where its parent does not.
    unsafe { libc::alarm(120) };
    // SAFETY: a raw call, so that only this thread's ids change.
    let group = unsafe { libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY) };
    // SAFETY: as above.
    let user = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
    let shared = libc::MAP_SHARED;
    // SAFETY: a new mapping, whose place the kernel chooses.
    let map = unsafe { libc::mmap(null_mut(), len_bytes, libc::PROT_READ, shared, descriptor, 0) };
    if group != 0 || user != 0 || map == libc::MAP_FAILED {
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(1) };
    }
    loop {
        act(map.addr());
    }
}

/// `FUTEX_WAIT_REQUEUE_PI` on a word, without end.
fn wait_requeue_pi(word: usize, value: u32) {
    let own = 0_u32;
    // SAFETY: the kernel reads the word, and may write the other one, which outlives the call.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word,
            libc::FUTEX_WAIT_REQUEUE_PI,
            value,
            null::<libc::timespec>(),
            &raw const own,
            0,
        )
    };
}

/// Waits a moment on each word, and moves its sleepers to a word of its own.
fn wait_and_requeue_all(map: usize, len_bytes: usize) {
    let own = 0_u32;
    let moment = libc::timespec { tv_sec: 0, tv_nsec: 1000 };
    for word in (map..map + len_bytes).step_by(4) {
        // SAFETY: inside the mapping, which is a multiple of pages long.
        let value = unsafe { (word as *const u32).read_volatile() };
        // SAFETY: the kernel reads the word and the time.
        unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, value, &raw const moment) };
        let (requeue, all) = (libc::FUTEX_CMP_REQUEUE, i32::MAX as usize);
        // SAFETY: the kernel reads the word; the other one is a name for sleepers.
        unsafe { libc::syscall(libc::SYS_futex, word, requeue, 0, all, &raw const own, value) };
    }
}

/// Locks every byte of a file, and lets go of them.
fn lock_all(descriptor: i32) {
    for kind in [libc::F_RDLCK, libc::F_UNLCK] {
        // SAFETY: zeros are valid.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = kind as libc::c_short;
        // SAFETY: the lock outlives the call, which takes an open descriptor.
        unsafe { libc::fcntl(descriptor, libc::F_OFD_SETLK, &raw const lock) };
    }
}

/// What `FUTEX_WAKE` returns for the word at this offset.
fn wake(memory: &MappedMemory, offset: u64) -> i64 {
    let word = memory.futex_word(offset).as_ptr();
    // SAFETY: the kernel uses the address, which is mapped, as a name.
    unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, i32::MAX) }
}

#[test]
fn f48_another_user_that_sleeps_on_public_words_harms_no_writer() {
    // SAFETY: takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        println!("skipped: only root can start a process under another user id");
        return;
    }
    let options = StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() };
    let store = Store::anonymous(&options).unwrap();
    store.set("k", b"0").unwrap();
    let (memory, geometry, _) = store.watched();
    let bell = doorbells::of(super::block::hash(b"k", geometry.seed()));
    let bells = [bell, doorbells::EVERYTHING];
    // All that a process gets that is not trusted.
    let file = File::from(store.descriptor_read_only().unwrap());
    let public_bytes = file.metadata().unwrap().len();
    assert_eq!(public_bytes, geometry.private(), "lock, doorbells and pins lie behind it");
    let attack = |act: &dyn Fn(usize)| attack(file.as_raw_fd(), public_bytes as usize, act);
    let copies = bells.map(|bell| generation::of_bell(bell.into()));
    let pi = copies.map(|offset| {
        attack(&|map| {
            let word = map + offset as usize;
            // SAFETY: inside the mapping.
            wait_requeue_pi(word, unsafe { (word as *const u32).read_volatile() });
        })
    });
    // The first page, where all public words lie that change, again and again; and everything, more slowly.
    let sweeping = [LIMBO, public_bytes]
        .map(|len_bytes| attack(&|map| wait_and_requeue_all(map, len_bytes as usize)));
    // Locks on every byte keep nobody from becoming a participant, and hide no death.
    let strange = attack(&|_| lock_all(file.as_raw_fd()));
    // The attack works on the words that it can reach.
    let begun = Instant::now();
    while copies.iter().any(|offset| wake(memory, *offset) >= 0) {
        if begun.elapsed() >= NEVER {
            println!("this kernel wakes sleepers of FUTEX_WAIT_REQUEUE_PI");
            break;
        }
        thread::yield_now();
    }
    // Each round is told, and no wake of a word that participants sleep on fails meanwhile.
    let writer = store.try_clone().unwrap();
    let mut watch = store.watch("k").unwrap();
    thread::scope(|scope| {
        let (next, awaited) = mpsc::channel();
        scope.spawn(move || {
            while awaited.recv().is_ok() {
                writer.set("k", b"1").unwrap();
            }
        });
        for _ in 0..20_000 {
            next.send(()).unwrap();
            assert!(watch.wait(NEVER).unwrap().is_some(), "a change was missed");
            for bell in bells {
                let word = geometry.bell(bell) + private::bell::GENERATION;
                assert!(wake(memory, word) >= 0, "bell {bell}");
            }
            assert!(wake(memory, geometry.lock()) >= 0, "the lock");
        }
        drop(next);
    });
    // Somebody comes, is seen to live, and goes.
    // SAFETY: it is attached just below.
    let other = Store::attach(unsafe { store.descriptor_writable() }.unwrap()).unwrap();
    other.set("k", b"2").unwrap();
    assert_eq!((store.reclaim(), store.stats().unwrap().readers), (Ok(0), Some(2)));
    drop(other);
    drop((pi, sweeping, strange));
    store.check().unwrap();
}
