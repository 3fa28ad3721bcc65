//! A sign of life: a pipe that one process beats and another hears.
//!
//! A plugin answers its host with it. Invariants: neither end ever waits; each end has flags of its own,
//! so neither process can make the other one wait.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Beats. A pipe without room has beats in it that nobody has heard, which is as good.
pub(crate) fn beat(pulse: BorrowedFd<'_>) {
    // SAFETY: an open descriptor, and one byte that outlives the call.
    unsafe { libc::write(pulse.as_raw_fd(), c"!".as_ptr().cast(), 1) };
}

/// Whether there has been a beat since the last call. Takes at most 4 KiB of them.
pub(crate) fn heard(pulse: BorrowedFd<'_>) -> bool {
    let mut room = [0_u8; 4096];
    // SAFETY: an open descriptor, and as many bytes as the call is told.
    let got = unsafe { libc::read(pulse.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) };
    got > 0
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::os::pipe;

    #[test]
    fn beats_are_heard_once_and_nobody_waits() {
        let (hears, beats) = pipe::pair().unwrap();
        assert!(!heard(hears.as_fd()));
        // More than the pipe holds.
        for _ in 0..100_000 {
            beat(beats.as_fd());
        }
        assert!(heard(hears.as_fd()));
        while heard(hears.as_fd()) {}
        drop(beats);
        assert!(!heard(hears.as_fd()));
    }
}
