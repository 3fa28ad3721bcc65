//! Memory that both processes map: words and bytes at offsets, and sleeping on a word.
//!
//! The yardsticks and the plain rings are written on it; ringway is not.
//! What always holds: no access leaves the mapping, and no reference to its bytes is handed out
//! except to atomics.

// Atomics are otherwise taken from the crate's `sync`, which is private to it and which loom
// replaces; nothing here is ever modelled.
#![allow(clippy::disallowed_types)]

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};

/// A shared anonymous mapping and its descriptor.
#[derive(Debug)]
pub struct Shared {
    map: MmapRaw,
    /// The start of `map` and its length, kept here so that an access is one addition.
    base: *mut u8,
    len: usize,
    fd: OwnedFd,
}

// SAFETY: `base` points into `map`, which is Send; the mapping may be used from any thread.
unsafe impl Send for Shared {}
// SAFETY: through a shared reference it is reached by atomics, and by copies whose callers promise
// that nobody else uses those bytes meanwhile.
unsafe impl Sync for Shared {}

impl Shared {
    /// Zeroed memory of `len` bytes.
    pub fn create(len: usize) -> Self {
        // SAFETY: the name is a C string; the call has no other preconditions.
        let fd = unsafe { libc::memfd_create(c"ringway-bench".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0, "memfd_create: {}", std::io::Error::last_os_error());
        // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(len as u64).expect("room for the shared memory");
        Self::attach(file.into())
    }

    /// The memory behind a descriptor of [`Shared::create`]'s.
    pub fn attach(fd: OwnedFd) -> Self {
        let file = File::from(fd);
        let len = file.metadata().expect("stat of the shared memory").len() as usize;
        let map = MmapOptions::new().len(len).populate().map_raw(&file).expect("mapping");
        let base = map.as_mut_ptr();
        Self { map, base, len, fd: file.into() }
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Where it starts, for libraries that are given memory.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.base
    }

    /// The word at `offset`.
    #[inline(always)]
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len);
        // SAFETY: aligned and inside the mapping (asserted; the base is page-aligned), which lives
        // as long as `self`; bytes of it are otherwise copied only under the contracts below.
        unsafe { AtomicU64::from_ptr(self.base.wrapping_add(offset).cast()) }
    }

    /// The half word at `offset`.
    #[inline(always)]
    pub fn half(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.len);
        // SAFETY: as in `word`.
        unsafe { AtomicU32::from_ptr(self.base.wrapping_add(offset).cast()) }
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Safety
    /// The caller's protocol has passed these bytes to this side: nobody else touches them.
    #[inline(always)]
    pub unsafe fn copy_in(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len);
        let to = self.base.wrapping_add(offset);
        if bytes.len() == 8 {
            // SAFETY: eight bytes inside the mapping and inside `bytes`, which cannot overlap.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, 8) };
        } else {
            // SAFETY: that many bytes inside the mapping and in `bytes`, which cannot overlap.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        }
    }

    /// Copies bytes from `offset`.
    ///
    /// # Safety
    /// As for [`copy_in`](Self::copy_in).
    #[inline(always)]
    pub unsafe fn copy_out(&self, offset: usize, bytes: &mut [u8]) {
        assert!(offset + bytes.len() <= self.len);
        let from = self.base.wrapping_add(offset);
        if bytes.len() == 8 {
            // SAFETY: eight bytes inside the mapping and inside `bytes`, which cannot overlap.
            unsafe { ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), 8) };
        } else {
            // SAFETY: that many bytes inside the mapping and in `bytes`, which cannot overlap.
            unsafe { ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
        }
    }
}

/// Sleeps while the word is `expected`, until woken, for no reason, or for at most so long.
pub fn futex_wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: a live, aligned word, and a timespec that lives as long as the call, or none; not
    // PRIVATE, since processes share the word.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, timeout) };
}

/// Wakes one sleeper.
pub fn futex_wake(word: &AtomicU32) {
    // SAFETY: a live, aligned word.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}

/// How a poller waits for its next poll: at once at first, then with the processor's pause. Polling
/// without a pause takes the line away from the side that is writing it.
#[derive(Debug, Default)]
pub struct Spin(u32);

impl Spin {
    /// One turn.
    #[inline(always)]
    pub fn turn(&mut self) {
        if self.0 < 4 {
            self.0 += 1;
        } else {
            std::hint::spin_loop();
        }
    }
}
