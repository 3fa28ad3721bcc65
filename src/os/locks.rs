//! Locks on bytes of a file that belong to an open file description.
//!
//! `segment` claims the sides of named channels with them, and says with them who uses a store.
//! What always holds: a lock is gone when the last descriptor and mapping of its description are,
//! and so with the process, unless somebody else was given the description; locks of two
//! descriptions conflict, also inside one process.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::thread;
use std::time::Duration;

use super::clock::monotonic_ns;
use crate::memory::Deadline;

/// Between two tries for a lock that somebody else has.
const FIRST_PAUSE: Duration = Duration::from_micros(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(2);

/// Takes the write lock on `len` bytes from `start`; false where somebody else has a lock there.
pub(crate) fn try_write(fd: BorrowedFd<'_>, start: u64, len: u64) -> io::Result<bool> {
    try_lock(fd, libc::F_WRLCK, start, len)
}

/// Takes a read lock on `len` bytes from `start`, in the place of a write lock where this description
/// has one; false where somebody else has a write lock there.
pub(crate) fn try_read(fd: BorrowedFd<'_>, start: u64, len: u64) -> io::Result<bool> {
    try_lock(fd, libc::F_RDLCK, start, len)
}

fn try_lock(fd: BorrowedFd<'_>, kind: libc::c_int, start: u64, len: u64) -> io::Result<bool> {
    match control(fd, libc::F_OFD_SETLK, kind, start, len) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// As [`try_write`], trying until the deadline.
pub(crate) fn write_by(
    fd: BorrowedFd<'_>,
    start: u64,
    len: u64,
    deadline: Deadline,
) -> io::Result<bool> {
    let mut pause = FIRST_PAUSE;
    // The blocking call has no deadline of its own.
    while !try_write(fd, start, len)? {
        if monotonic_ns() >= deadline.as_ns() {
            return Ok(false);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(true)
}

/// Gives locks back; nothing where there are none.
pub(crate) fn unlock(fd: BorrowedFd<'_>, start: u64, len: u64) -> io::Result<()> {
    control(fd, libc::F_OFD_SETLK, libc::F_UNLCK, start, len).map(drop)
}

/// Whether another description has any lock on these bytes.
pub(crate) fn is_held(fd: BorrowedFd<'_>, start: u64, len: u64) -> io::Result<bool> {
    held(fd, start, len).map(|found| found.is_some())
}

/// The bytes of one lock of another description that covers any of these. The kernel merges the
/// neighbouring write locks of one description, so they come as one range.
pub(crate) fn held(fd: BorrowedFd<'_>, start: u64, len: u64) -> io::Result<Option<Range<u64>>> {
    let found = control(fd, libc::F_OFD_GETLK, libc::F_WRLCK, start, len)?;
    if found.l_type == libc::F_UNLCK as libc::c_short {
        return Ok(None);
    }
    let start = u64::try_from(found.l_start).unwrap_or(0);
    // A length of 0 means up to the end of all files.
    let end = match u64::try_from(found.l_len) {
        Ok(0) | Err(_) => u64::MAX,
        Ok(len) => start.saturating_add(len),
    };
    Ok(Some(start..end))
}

/// Returns the structure as the kernel left it.
fn control(
    fd: BorrowedFd<'_>,
    command: libc::c_int,
    kind: libc::c_int,
    start: u64,
    len: u64,
) -> io::Result<libc::flock> {
    let off = |value: u64| libc::off_t::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
    // SAFETY: a lock of zeros is one of no bytes.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    (lock.l_start, lock.l_len) = (off(start)?, off(len)?);
    loop {
        // SAFETY: an open descriptor, and a structure that outlives the call.
        let result = unsafe { libc::fcntl(fd.as_raw_fd(), command, &mut lock) };
        match super::check(result.into()) {
            Ok(_) => return Ok(lock),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::os::fd::AsFd;

    use super::*;

    /// Two descriptions of one memory file.
    fn two() -> [File; 2] {
        let file = crate::os::memfd::create(4096).unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        [OpenOptions::new().read(true).write(true).open(path).unwrap(), file]
    }

    #[test]
    fn descriptions_exclude_each_other_and_bytes_are_independent() {
        let [ours, theirs] = two();
        assert!(try_write(ours.as_fd(), 1 << 62, 1).unwrap());
        assert!(try_write(ours.as_fd(), 1 << 62, 1).unwrap(), "no conflict with itself");
        assert!(!try_write(theirs.as_fd(), 1 << 62, 1).unwrap());
        assert!(is_held(theirs.as_fd(), 1 << 62, 1).unwrap());
        assert!(!is_held(ours.as_fd(), 1 << 62, 1).unwrap());
        assert!(try_write(theirs.as_fd(), (1 << 62) + 1, 1).unwrap());
        assert!(!try_write(theirs.as_fd(), 1 << 62, 2).unwrap(), "one of the two is taken");
        let theirs_held = held(ours.as_fd(), 1 << 62, 3).unwrap();
        assert_eq!(theirs_held, Some((1 << 62) + 1..(1 << 62) + 2));
        unlock(ours.as_fd(), 1 << 62, 1).unwrap();
        assert!(try_write(theirs.as_fd(), 1 << 62, 2).unwrap());
        drop(theirs);
        // A child that another test has forked meanwhile has their description until it executes or ends.
        let deadline = Deadline::at_ns(monotonic_ns() + 60_000_000_000);
        assert!(write_by(ours.as_fd(), 1 << 62, 2, deadline).unwrap());
    }

    #[test]
    fn readers_share_and_the_last_of_them_can_be_alone() {
        let [ours, theirs] = two();
        assert!(try_write(ours.as_fd(), 7, 2).unwrap());
        assert!(!try_read(theirs.as_fd(), 7, 2).unwrap());
        assert!(try_read(ours.as_fd(), 7, 2).unwrap(), "in the place of the other");
        assert!(try_read(theirs.as_fd(), 7, 2).unwrap());
        assert!(!try_write(ours.as_fd(), 7, 2).unwrap());
        assert!(!try_write(theirs.as_fd(), 7, 2).unwrap(), "and it keeps what it had:");
        assert!(is_held(ours.as_fd(), 7, 2).unwrap());
        drop(theirs);
        assert!(try_write(ours.as_fd(), 7, 2).unwrap());
    }

    #[test]
    fn a_lock_that_is_never_given_back_costs_its_deadline() {
        let [ours, theirs] = two();
        assert!(try_write(ours.as_fd(), 7, 1).unwrap());
        let deadline = Deadline::at_ns(monotonic_ns() + 5_000_000);
        assert!(!write_by(theirs.as_fd(), 7, 1, deadline).unwrap());
        assert!(monotonic_ns() >= deadline.as_ns());
    }
}
