//! Holders that die, nest, or take their time.

use std::fs::{self, File};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::*;
use crate::os::memfd;
use crate::os::tests::child_says;
use crate::os::{clock::monotonic_ns, futex};
use crate::sync::{AtomicU32, Ordering};

const OFFSET: u64 = 256;

/// A mutex in a new memory file.
fn mutex() -> (File, Arc<Mapping>, RobustMutex) {
    let file = memfd::create(4096).unwrap();
    let mapping = Arc::new(Mapping::read_write(&file, 4096).unwrap());
    // SAFETY: nobody else has the file, and those who get it use this type.
    let mutex = unsafe { RobustMutex::create(&mapping, OFFSET) }.unwrap();
    (file, mapping, mutex)
}

const NOW: Deadline = Deadline::at_ns(0);

fn in_ms(ms: u64) -> Deadline {
    Deadline::at_ns(monotonic_ns() + ms * 1_000_000)
}

#[test]
fn a_holder_that_is_killed_is_told_of_once() {
    let (_file, _mapping, mutex) = mutex();
    for deadline in [Deadline::NEVER, NOW, in_ms(20_000)] {
        assert!(!child_says(|| {
            assert_eq!(mutex.lock(Deadline::NEVER), Ok(Locked::Clean));
            // SAFETY: the call takes a number.
            unsafe { libc::raise(libc::SIGKILL) };
            true
        }));
        assert_eq!(mutex.lock(deadline), Ok(Locked::OwnerDied));
        mutex.unlock();
        assert_eq!(mutex.lock(deadline), Ok(Locked::Clean), "usable again");
        mutex.unlock();
    }
}

#[test]
fn who_hears_of_a_death_and_dies_is_told_of_too() {
    let (_file, _mapping, mutex) = mutex();
    for expected in [Locked::Clean, Locked::OwnerDied, Locked::OwnerDied] {
        assert!(!child_says(|| {
            assert_eq!(mutex.lock(Deadline::NEVER), Ok(expected));
            // SAFETY: the call takes a number.
            unsafe { libc::raise(libc::SIGKILL) };
            true
        }));
    }
    assert_eq!(mutex.lock(Deadline::NEVER), Ok(Locked::OwnerDied));
}

#[test]
fn a_thread_that_ends_with_it_has_died() {
    let (_file, _mapping, mutex) = mutex();
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(mutex.lock(Deadline::NEVER), Ok(Locked::Clean)));
    });
    assert_eq!(mutex.lock(Deadline::NEVER), Ok(Locked::OwnerDied));
    mutex.unlock();
}

#[test]
fn its_holder_is_refused_a_second_time_through_whichever_mapping() {
    let (file, mapping, mutex) = mutex();
    let again = Arc::new(Mapping::read_write(&file, 4096).unwrap());
    // SAFETY: `mutex` made it there.
    let other = unsafe { RobustMutex::open(&again, OFFSET) };
    assert_eq!(mutex.lock(Deadline::NEVER), Ok(Locked::Clean));
    for mutex in [&mutex, &other] {
        for deadline in [Deadline::NEVER, NOW, in_ms(20_000)] {
            assert_eq!(mutex.lock(deadline), Err(NotLocked::Nested));
        }
    }
    mutex.unlock();
    assert_eq!(other.lock(Deadline::NEVER), Ok(Locked::Clean));
    other.unlock();
    drop(mapping);
}

#[test]
fn others_wait_until_their_deadline_and_no_longer() {
    let (_file, _mapping, mutex) = mutex();
    assert_eq!(mutex.lock(Deadline::NEVER), Ok(Locked::Clean));
    thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(mutex.lock(NOW), Err(NotLocked::Deadline));
            let deadline = in_ms(30);
            assert_eq!(mutex.lock(deadline), Err(NotLocked::Deadline));
            assert!(monotonic_ns() >= deadline.as_ns(), "gave up early");
            assert_eq!(mutex.lock(in_ms(0)), Err(NotLocked::Deadline), "a deadline in the past");
            // Not theirs to let go of.
            mutex.unlock();
            assert_eq!(mutex.lock(NOW), Err(NotLocked::Deadline));
        });
    });
    mutex.unlock();
    assert_eq!(mutex.lock(in_ms(0)), Ok(Locked::Clean), "free, however late");
    mutex.unlock();
}

#[test]
fn f30_a_forked_child_cannot_let_go_of_what_its_parent_has() {
    let (_file, _mapping, mutex) = mutex();
    assert_eq!(mutex.lock(Deadline::NEVER), Ok(Locked::Clean));
    assert!(child_says(|| {
        mutex.unlock();
        mutex.lock(NOW) == Err(NotLocked::Deadline)
    }));
    assert_eq!(mutex.lock(NOW), Err(NotLocked::Nested), "still held here");
    mutex.unlock();
}

#[test]
fn it_takes_the_room_that_the_layout_has_for_it() {
    const { assert!(BYTES <= crate::layout::store::private::LOCK_BYTES) };
    const { assert!(crate::layout::store::private::LOCK.is_multiple_of(ALIGN)) };
}

/// The calling thread's id.
fn thread_id() -> libc::pid_t {
    // SAFETY: takes nothing.
    unsafe { libc::gettid() }
}

/// Waits until a thread of this process sleeps in the kernel.
fn until_asleep(thread: libc::pid_t) {
    loop {
        let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
        if stat.rsplit(')').next().unwrap().trim_start().starts_with('S') {
            return;
        }
        thread::yield_now();
    }
}

/// The mutex's first word, in which the C library keeps its holder, and whether somebody waits.
#[cfg(target_env = "gnu")]
fn lock_word(mapping: &Mapping) -> &AtomicU32 {
    // SAFETY: inside the mapping.
    let word = unsafe { mapping.base().add(OFFSET as usize) };
    // SAFETY: in the mapping, which is borrowed; a multiple of four; used as an atomic by the C library
    // and here.
    unsafe { AtomicU32::from_ptr(word.cast().as_ptr()) }
}

/// A sleeper that queues first gets the one wake of `unlock`. The waiter behind it gets the mutex all the
/// same, with a deadline and without.
#[test]
#[cfg(target_env = "gnu")]
fn f48_stolen_wakeup_delays_a_writer_by_one_slice() {
    let (_file, mapping, mutex) = mutex();
    let word = lock_word(&mapping);
    for deadline in [Deadline::NEVER, in_ms(1_000_000)] {
        assert_eq!(mutex.lock(NOW), Ok(Locked::Clean));
        // As a waiter leaves it whose deadline has passed.
        let value = word.fetch_or(libc::FUTEX_WAITERS, Ordering::Relaxed) | libc::FUTEX_WAITERS;
        thread::scope(|scope| {
            let (tell, told) = mpsc::channel();
            let (say, said) = mpsc::channel();
            let thief = scope.spawn(move || {
                say.send(thread_id()).unwrap();
                futex::wait(word, value, Deadline::NEVER);
            });
            until_asleep(said.recv().unwrap());
            let (say, said) = mpsc::channel();
            let mutex = &mutex;
            scope.spawn(move || {
                say.send(thread_id()).unwrap();
                tell.send(mutex.lock(deadline)).unwrap();
                mutex.unlock();
            });
            until_asleep(said.recv().unwrap());
            mutex.unlock();
            thief.join().unwrap();
            let got = told.recv_timeout(Duration::from_secs(60));
            if got.is_err() {
                // So that the test ends.
                futex::wake(word, u32::MAX);
            }
            assert_eq!(got, Ok(Ok(Locked::Clean)));
        });
    }
}
