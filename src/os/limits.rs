//! The longest file that this process may make (`RLIMIT_FSIZE`).
//!
//! Whatever makes or lengthens a file asks here first: the kernel answers a file that is too long with
//! SIGXFSZ, which kills the process.
//!
//! Invariants: no call of this crate gives a file a length beyond the limit that was read just before.

use std::io;

use crate::error::SegmentError;

/// The limit in bytes; `None` where there is none.
fn file_bytes() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a resource that exists, and a structure that outlives the call.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) };
    (result == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Refuses a file of this length with `EFBIG` where the limit does not allow it.
pub(crate) fn refuse_too_long(len_bytes: u64) -> io::Result<()> {
    match file_bytes() {
        Some(limit) if len_bytes > limit => Err(io::Error::from_raw_os_error(libc::EFBIG)),
        _ => Ok(()),
    }
}

/// The error where there is no room for a segment: the limit, where that is the reason.
pub(crate) fn no_room(len_bytes: u64, source: io::Error) -> SegmentError {
    match file_bytes() {
        Some(limit_bytes)
            if len_bytes > limit_bytes && source.raw_os_error() == Some(libc::EFBIG) =>
        {
            SegmentError::FileLimit { len_bytes, limit_bytes }
        }
        _ => SegmentError::NoSpace { len_bytes, source },
    }
}
