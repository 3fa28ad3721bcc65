//! Sleeping on a word of shared memory, and waking who sleeps.
//!
//! [`MappedMemory`](crate::memory::MappedMemory) waits and wakes through it, a selector waits on
//! many words.
//! What always holds: a wait ends at its deadline; every other return is a hint to look again, so
//! callers loop on their own predicate.

use std::io;
use std::ptr::{null, null_mut};

use super::clock::timespec;
use crate::memory::Deadline;
use crate::sync::AtomicU32;

/// How many words [`wait_many`] can wait on at once.
pub(crate) const MAX_WAIT_MANY: usize = 128;

/// Sleeps while the word is `expected`, until woken or until the deadline; may return early.
///
/// The flag for private futexes is never used: sleeper and waker are different processes.
pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline: Deadline) {
    let until = timespec(deadline.as_ns());
    let until = if deadline == Deadline::NEVER { null() } else { &raw const until };
    // SAFETY: the kernel reads the word, which is borrowed, and the timespec, which lives until the
    // end of this function; an absolute time on the monotonic clock is what WAIT_BITSET takes.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT_BITSET,
            expected,
            until,
            null::<u32>(),
            libc::FUTEX_BITSET_MATCH_ANY,
        )
    };
    // Woken, EAGAIN (the word has changed), EINTR, ETIMEDOUT: all mean "look again".
}

/// Wakes up to `count` threads that sleep on the word.
pub(crate) fn wake(word: &AtomicU32, count: u32) {
    // More than the kernel can count is all of them.
    let count = libc::c_int::try_from(count).unwrap_or(libc::c_int::MAX);
    // SAFETY: the kernel uses the address, which is borrowed, as a name and writes nothing.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) };
}

/// Why [`wait_many`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Somebody woke the word with this index; others may have been woken too.
    Index(usize),
    /// A word was not as expected, or a signal came: look at all of them.
    LookAgain,
    /// The deadline has passed.
    TimedOut,
    /// The system call does not exist here, or is forbidden.
    Unsupported,
}

/// `struct futex_waitv`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Waiter {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

/// `FUTEX2_SIZE_U32`, without the private flag.
const SIZE_U32: u32 = 2;

/// Sleeps while every word has the value that stands beside it.
///
/// # Panics
/// No words, or more than [`MAX_WAIT_MANY`].
pub(crate) fn wait_many(words: &[(&AtomicU32, u32)], deadline: Deadline) -> Woken {
    assert!((1..=MAX_WAIT_MANY).contains(&words.len()), "{} words to wait on", words.len());
    let mut waiters = [Waiter { value: 0, address: 0, flags: 0, reserved: 0 }; MAX_WAIT_MANY];
    for (waiter, (word, expected)) in waiters.iter_mut().zip(words) {
        waiter.value = u64::from(*expected);
        waiter.address = word.as_ptr().addr() as u64;
        waiter.flags = SIZE_U32;
    }
    let until = timespec(deadline.as_ns());
    let until =
        if deadline == Deadline::NEVER { null_mut() } else { (&raw const until).cast_mut() };
    // SAFETY: the kernel reads as many waiters as it is told, all of which are initialised and name
    // words that are borrowed until the end of this function; and the timespec, which lives as long.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            waiters.as_ptr(),
            words.len() as libc::c_uint,
            0_u32,
            until,
            libc::CLOCK_MONOTONIC,
        )
    };
    if let Ok(index) = usize::try_from(result) {
        return Woken::Index(index);
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::ETIMEDOUT) => Woken::TimedOut,
        Some(libc::EAGAIN | libc::EINTR) => Woken::LookAgain,
        _ => Woken::Unsupported,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::os::clock::monotonic_ns;

    /// Far enough away that only a wait which nothing ends reaches it.
    fn far() -> Deadline {
        Deadline::at_ns(monotonic_ns() + 30_000_000_000)
    }

    /// Runs `sleep` in a thread and `wake` until it has returned.
    fn wake_until_awake<T: Send>(sleep: impl FnOnce() -> T + Send, wake: impl Fn()) -> T {
        thread::scope(|scope| {
            let (awake, woken) = mpsc::channel();
            scope.spawn(move || awake.send(sleep()));
            loop {
                match woken.try_recv() {
                    Ok(result) => return result,
                    Err(mpsc::TryRecvError::Empty) => wake(),
                    Err(mpsc::TryRecvError::Disconnected) => panic!("the sleeper has panicked"),
                }
                thread::yield_now();
            }
        })
    }

    #[test]
    fn a_wake_ends_a_wait() {
        let word = AtomicU32::new(7);
        let deadline = far();
        wake_until_awake(|| wait(&word, 7, deadline), || wake(&word, 1));
        assert!(monotonic_ns() < deadline.as_ns(), "the wait ended by itself");
        wake_until_awake(|| wait(&word, 7, Deadline::NEVER), || wake(&word, u32::MAX));
    }

    #[test]
    fn another_value_or_a_past_deadline_ends_a_wait_at_once() {
        let word = AtomicU32::new(7);
        let deadline = far();
        wait(&word, 8, deadline);
        assert!(monotonic_ns() < deadline.as_ns(), "slept on another value");
        wait(&word, 7, Deadline::at_ns(0));
        wait(&word, 7, Deadline::at_ns(monotonic_ns()));
    }

    #[test]
    fn a_wait_on_many_words_says_which_was_woken() {
        let words: Vec<_> = (0..3).map(AtomicU32::new).collect();
        let waiters: Vec<_> = words.iter().zip(0..).collect();
        if wait_many(&waiters, Deadline::at_ns(0)) == Woken::Unsupported {
            return;
        }
        let woken = wake_until_awake(|| wait_many(&waiters, far()), || wake(&words[2], 1));
        assert_eq!(woken, Woken::Index(2));
        assert_eq!(wait_many(&waiters, Deadline::at_ns(0)), Woken::TimedOut);
        assert_eq!(wait_many(&[(&words[0], 0), (&words[1], 9)], far()), Woken::LookAgain);
    }

    #[test]
    fn a_wait_on_as_many_words_as_possible_is_possible() {
        let words: Vec<_> = (0..MAX_WAIT_MANY).map(|_| AtomicU32::new(0)).collect();
        let waiters: Vec<_> = words.iter().map(|word| (word, 0)).collect();
        let woken = wait_many(&waiters, Deadline::at_ns(0));
        assert!(matches!(woken, Woken::TimedOut | Woken::Unsupported), "{woken:?}");
    }
}
