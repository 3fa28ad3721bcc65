//! A mutex in shared memory that tells whoever gets it that its holder died.
//!
//! Stores keep one in their segment, and every writer takes it.
//! What always holds: who got it after a death has made it usable again before it hears of the death, so
//! that no later death makes it useless for ever; it is let go of only by the thread that has it; the
//! mapping that it lies in stays as long as this value.
//!
//! It is a pthread mutex: robust, shared between processes, and one that refuses its holder a second time.
//! The C library keeps pointers inside it while it is held, and follows them: whoever can write its memory
//! can make its holder write anywhere. That is why only `unsafe` calls lead here.

use std::io;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

use super::clock::{monotonic_ns, timespec};
use super::mapping::Mapping;
use crate::memory::Deadline;

/// Bytes that the mutex takes.
pub(crate) const BYTES: u64 = size_of::<libc::pthread_mutex_t>() as u64;
/// How long a waiter sleeps before it looks at the mutex again by itself.
const SLICE_NS: u64 = 20_000_000;

const ALIGN: u64 = align_of::<libc::pthread_mutex_t>() as u64;

/// See the module.
#[derive(Debug)]
pub(crate) struct RobustMutex {
    mutex: NonNull<libc::pthread_mutex_t>,
    /// What the pointer points into.
    _mapping: Arc<Mapping>,
}

// SAFETY: a process-shared mutex may be used by any thread; the pointer is into the mapping that the
// `Arc` keeps.
unsafe impl Send for RobustMutex {}
// SAFETY: as above.
unsafe impl Sync for RobustMutex {}

/// How it was got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Locked {
    /// Its former holder let go of it.
    Clean,
    /// Its former holder died. It has been made usable again.
    OwnerDied,
}

/// Why it was not got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotLocked {
    /// Somebody else has it, and the deadline has come.
    Deadline,
    /// This thread has it.
    Nested,
    /// Somebody made it useless for ever (`ENOTRECOVERABLE`), or it is no mutex: what the library said.
    Unusable(i32),
}

impl RobustMutex {
    /// Makes a mutex that nobody has at `offset` of a mapping.
    ///
    /// # Safety
    /// - Nobody else uses these bytes yet, and later only through this type.
    /// - Every process that can write the mapping's file, now and later, leaves them to the C library;
    ///   all of them use the same one, and count thread ids in the same pid namespace.
    ///
    /// # Panics
    /// The bytes do not lie inside the mapping, or it is read-only.
    pub(crate) unsafe fn create(mapping: &Arc<Mapping>, offset: u64) -> io::Result<Self> {
        let made = Self::at(mapping, offset);
        let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: room for the attributes, which the call initialises.
        errno(unsafe { libc::pthread_mutexattr_init(attributes) })?;
        // SAFETY: initialised above, as in the following calls; they take a number.
        let robust =
            unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) };
        // SAFETY: as above.
        let shared =
            unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) };
        // SAFETY: as above.
        let checks =
            unsafe { libc::pthread_mutexattr_settype(attributes, libc::PTHREAD_MUTEX_ERRORCHECK) };
        // SAFETY: the attributes are initialised; `at` has checked the mutex's place, which nobody else
        // uses, as the caller promises.
        let init = unsafe { libc::pthread_mutex_init(made.mutex.as_ptr(), attributes) };
        // SAFETY: initialised above, and not used behind this.
        unsafe { libc::pthread_mutexattr_destroy(attributes) };
        for result in [robust, shared, checks, init] {
            errno(result)?;
        }
        Ok(made)
    }

    /// The mutex that somebody made at `offset` of a mapping's file.
    ///
    /// # Safety
    /// - Somebody made it there, by [`create`](Self::create), before the mapping was made.
    /// - Every process that can write the mapping's file keeps to what is said there.
    ///
    /// # Panics
    /// The bytes do not lie inside the mapping, or it is read-only.
    pub(crate) unsafe fn open(mapping: &Arc<Mapping>, offset: u64) -> Self {
        Self::at(mapping, offset)
    }

    fn at(mapping: &Arc<Mapping>, offset: u64) -> Self {
        let end = offset.checked_add(BYTES);
        let inside = end.is_some_and(|end| end <= mapping.len_bytes());
        assert!(
            mapping.is_writable() && inside && offset.is_multiple_of(ALIGN),
            "no place for a mutex"
        );
        // SAFETY: just checked to lie inside the mapping.
        let mutex = unsafe { mapping.base().add(offset as usize) };
        Self { mutex: mutex.cast(), _mapping: Arc::clone(mapping) }
    }

    /// Gets the mutex, or says why not. With a deadline of 0 it does not wait.
    ///
    /// A thread that keeps it for ever, by ending while it has it, has died as far as others can tell.
    #[inline]
    pub(crate) fn lock(&self, deadline: Deadline) -> Result<Locked, NotLocked> {
        // SAFETY: whoever made this value promised that a mutex lies there, and the mapping that it
        // lies in is kept by `self`.
        let result = unsafe { libc::pthread_mutex_trylock(self.mutex.as_ptr()) };
        match result {
            0 => Ok(Locked::Clean),
            libc::EBUSY if deadline.as_ns() != 0 => self.lock_slow(deadline),
            error => self.other(error),
        }
    }

    /// Waits in slices of [`SLICE_NS`]. Each slice begins with a look at the mutex, so that a wake that
    /// was lost, because its waker died or another sleeper got it, costs one slice.
    #[cold]
    fn lock_slow(&self, deadline: Deadline) -> Result<Locked, NotLocked> {
        loop {
            let now_ns = monotonic_ns();
            let slice = deadline.min(Deadline::at_ns(now_ns.saturating_add(SLICE_NS)));
            // SAFETY: as in `lock`.
            let result = unsafe { lock_by(self.mutex.as_ptr(), slice) };
            // Only this says that the slice is over: a dead owner's mutex is acquired in any slice.
            let repeats = matches!(result, libc::ETIMEDOUT | libc::EBUSY);
            match result {
                0 => return Ok(Locked::Clean),
                _ if repeats && now_ns < deadline.as_ns() => {}
                error => return self.other(error),
            }
        }
    }

    #[cold]
    fn other(&self, result: libc::c_int) -> Result<Locked, NotLocked> {
        match result {
            libc::EOWNERDEAD => {
                // At once: should this thread let go of it, or panic, before it was told that the mutex is
                // good again, it would never be.
                // SAFETY: as in `lock`; this thread has the mutex, with the word that its holder died.
                let result = unsafe { libc::pthread_mutex_consistent(self.mutex.as_ptr()) };
                if result == 0 { Ok(Locked::OwnerDied) } else { Err(NotLocked::Unusable(result)) }
            }
            libc::EBUSY | libc::ETIMEDOUT => Err(NotLocked::Deadline),
            libc::EDEADLK => Err(NotLocked::Nested),
            error => Err(NotLocked::Unusable(error)),
        }
    }

    /// Lets go of the mutex. Does nothing where this thread does not have it.
    #[inline]
    pub(crate) fn unlock(&self) {
        // SAFETY: as in `lock`. A thread that does not have it gets an error, as it checks its holder.
        unsafe { libc::pthread_mutex_unlock(self.mutex.as_ptr()) };
    }
}

/// Waits on the monotonic clock, which the standard's own timed call does not.
///
/// # Safety
/// A mutex lies there.
#[cfg(target_env = "gnu")]
unsafe fn lock_by(mutex: *mut libc::pthread_mutex_t, deadline: Deadline) -> libc::c_int {
    unsafe extern "C" {
        /// Of glibc, from 2.30 on.
        fn pthread_mutex_clocklock(
            mutex: *mut libc::pthread_mutex_t,
            clock: libc::clockid_t,
            until: *const libc::timespec,
        ) -> libc::c_int;
    }
    let until = timespec(deadline.as_ns());
    // SAFETY: a mutex, as the caller promises, and a time that outlives the call.
    unsafe { pthread_mutex_clocklock(mutex, libc::CLOCK_MONOTONIC, &until) }
}

/// Looks again and again, with pauses that grow to a millisecond: the library has no timed call on
/// the monotonic clock.
///
/// # Safety
/// A mutex lies there.
#[cfg(not(target_env = "gnu"))]
unsafe fn lock_by(mutex: *mut libc::pthread_mutex_t, deadline: Deadline) -> libc::c_int {
    let mut pause_ns = 1000;
    loop {
        // SAFETY: a mutex, as the caller promises.
        let result = unsafe { libc::pthread_mutex_trylock(mutex) };
        let now_ns = monotonic_ns();
        if result != libc::EBUSY || now_ns >= deadline.as_ns() {
            return result;
        }
        let left_ns = deadline.as_ns() - now_ns;
        let pause = timespec(left_ns.min(pause_ns));
        // SAFETY: a time that outlives the call, and no room for what is left of it.
        unsafe { libc::nanosleep(&pause, std::ptr::null_mut()) };
        pause_ns = (pause_ns * 2).min(1_000_000);
    }
}

/// The result of a pthread call, which returns its error.
fn errno(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

#[cfg(test)]
#[path = "robust_mutex_tests.rs"]
mod tests;
