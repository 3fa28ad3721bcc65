//! What the ring does with waits, over words of this process.

use std::thread;

use super::*;
use crate::os::futex;
use crate::os::tests::child_says;

fn far() -> Deadline {
    Deadline::at_ns(monotonic_ns() + 30_000_000_000)
}

/// A ring, where this system has any.
fn ring() -> Option<Uring> {
    Uring::new().inspect_err(|error| println!("skipped: {error}")).ok()
}

fn next(ring: &mut Uring, deadline: Deadline) -> Option<u64> {
    loop {
        match ring.completed() {
            None if monotonic_ns() < deadline.as_ns() => {
                ring.submit(std::iter::empty(), Some(deadline)).unwrap();
            }
            found => return found,
        }
    }
}

#[test]
fn a_wake_completes_its_wait_and_no_other() {
    let Some(mut ring) = ring() else { return };
    let words: Vec<_> = (0..1000).map(AtomicU32::new).collect();
    let waits = words.iter().zip(0..).map(|(word, index)| (u64::from(index), word, index));
    ring.submit(waits, None).unwrap();
    assert_eq!(ring.completed(), None);
    for index in [700, 3, 999] {
        futex::wake(&words[index as usize], 1);
        assert_eq!(next(&mut ring, far()), Some(index));
    }
    futex::wake(&words[3], 1);
    ring.submit([(5000, &words[3], 8)].into_iter(), None).unwrap();
    assert_eq!(next(&mut ring, far()), Some(5000), "another value completes at once");
    assert_eq!(ring.completed(), None, "each completes once");
    // More than there is room for.
    let all = (0..3).flat_map(|_| words.iter()).map(|word| (1, word, u32::MAX));
    ring.submit(all, None).unwrap();
    for _ in 0..3000 {
        assert_eq!(next(&mut ring, far()), Some(1));
    }
    assert_eq!(ring.completed(), None);
}

#[test]
fn a_wake_from_another_thread_ends_the_waiting() {
    let Some(mut ring) = ring() else { return };
    let word = AtomicU32::new(0);
    for round in 0..1000 {
        thread::scope(|scope| {
            scope.spawn(|| {
                word.store(1, Ordering::Release);
                futex::wake(&word, 1);
            });
            ring.submit([(round, &word, 0)].into_iter(), Some(far())).unwrap();
            assert_eq!(next(&mut ring, far()), Some(round));
        });
        word.store(0, Ordering::Relaxed);
    }
}

#[test]
fn a_cancelled_wait_is_in_no_queue() {
    let Some(mut ring) = ring() else { return };
    let (one, other) = (AtomicU32::new(0), AtomicU32::new(0));
    ring.submit([(1, &one, 0), (2, &other, 0)].into_iter(), None).unwrap();
    ring.cancel(1);
    ring.cancel(7);
    assert_eq!(next(&mut ring, far()), Some(1));
    futex::wake(&one, 1);
    futex::wake(&other, 1);
    assert_eq!(next(&mut ring, far()), Some(2));
    assert_eq!(ring.completed(), None);
}

#[test]
fn waiting_ends_at_its_deadline_and_times_complete() {
    let Some(mut ring) = ring() else { return };
    let until = monotonic_ns() + 2_000_000;
    assert_eq!(next(&mut ring, Deadline::at_ns(until)), None);
    assert!(monotonic_ns() >= until);
    ring.complete_now(8).unwrap();
    ring.complete_after(9, 1_000_000).unwrap();
    assert_eq!(next(&mut ring, far()), Some(8));
    assert_eq!(next(&mut ring, far()), Some(9));
}

#[test]
fn a_wait_outlives_its_thread_and_a_childs_copy_means_nothing() {
    let Some(mut ring) = ring() else { return };
    let word = Arc::new(AtomicU32::new(0));
    let waits = Arc::clone(&word);
    let mut ring = thread::spawn(move || {
        ring.submit([(1, &*waits, 0)].into_iter(), None).unwrap();
        ring
    })
    .join()
    .unwrap();
    // The kernel completes the waits of a thread that ends; before 6.16 it keeps them.
    if next(&mut ring, Deadline::at_ns(monotonic_ns() + 50_000_000)).is_some() {
        ring.submit([(1, &*word, 0)].into_iter(), None).unwrap();
    }
    let ring = std::mem::ManuallyDrop::new(ring);
    let copy = || {
        // SAFETY: the child has a copy of the value, which it drops once; the parent's stays.
        drop(unsafe { std::ptr::read(&*ring) });
        true
    };
    assert!(child_says(copy));
    let mut ring = std::mem::ManuallyDrop::into_inner(ring);
    assert_eq!(ring.completed(), None);
    futex::wake(&word, 1);
    assert_eq!(next(&mut ring, far()), Some(1));
}
