//! The monotonic clock.
//!
//! Whoever computes a deadline reads it; futex waits and pidfd polls count on the same clock.
//! What always holds: it never goes back, and it does not jump when somebody sets the time of day.

/// Nanoseconds since the epoch of `CLOCK_MONOTONIC`.
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec that outlives the call. The call cannot fail: the clock
    // exists on every Linux and the pointer is good.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// The timespec of an absolute time in nanoseconds.
pub(super) fn timespec(ns: u64) -> libc::timespec {
    // Both parts fit: 2^64 ns are less than 2^35 s.
    libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_standard_library_and_never_goes_back() {
        let mut last = monotonic_ns();
        let (started, ours) = (std::time::Instant::now(), last);
        for _ in 0..10_000 {
            let now = monotonic_ns();
            assert!(now >= last);
            last = now;
        }
        // Read between two readings of ours, so it cannot have advanced further than they have.
        let elapsed = started.elapsed().as_nanos();
        assert!(elapsed <= u128::from(monotonic_ns() - ours));
    }

    #[test]
    fn the_largest_deadline_has_a_timespec() {
        let largest = timespec(u64::MAX);
        assert!(largest.tv_sec > 0);
        assert!((0..1_000_000_000).contains(&largest.tv_nsec));
    }
}
