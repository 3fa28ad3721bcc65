//! Holders that die, nest, or take their time.

use std::fs::File;
use std::thread;

use super::*;
use crate::os::clock::monotonic_ns;
use crate::os::memfd;
use crate::os::tests::child_says;

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
