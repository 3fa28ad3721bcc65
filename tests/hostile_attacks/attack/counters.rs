//! A page of counters that a process shares with those that started it.
//!
//! Its memory file is the standard input of a plugin, so a plugin whose channels are under attack can still count.
//! Invariants: the file is as long as the page and stays so; every word only rises, but those that are `set`.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};

use ringway::host::Stdio;

const BYTES: usize = 4096;

/// What is counted, by its place in the page.
#[derive(Debug, Clone, Copy)]
pub enum Count {
    /// What an attacker has tried, or a neighbour has done.
    Attempts,
    /// What has reached what it was aimed at.
    Hits,
    /// A process that an attacker has left.
    Orphan,
    /// The longest operation of a neighbour, in ns.
    WorstNs,
}

/// See the module. Its mapping stays as long as the process.
#[derive(Debug)]
pub struct Counters {
    file: File,
    words: &'static [AtomicU64; 8],
}

impl Counters {
    /// A page of zeros.
    pub fn new() -> Self {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // SAFETY: a C string.
        let fd = unsafe { libc::memfd_create(c"counters".as_ptr(), flags) };
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: just opened, and nobody else's.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        file.set_len(BYTES as u64).unwrap();
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
        // SAFETY: the call takes numbers.
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, seals) }, 0);
        Self::over(file)
    }

    /// Those that this process has as its standard input.
    pub fn inherited() -> Self {
        // SAFETY: the call takes numbers.
        let fd = unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3) };
        assert!(fd >= 0);
        // SAFETY: just opened, and nobody else's.
        Self::over(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn over(file: File) -> Self {
        let (access, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping, whose place the kernel chooses.
        let map = unsafe { libc::mmap(null_mut(), BYTES, access, shared, file.as_raw_fd(), 0) };
        assert_ne!(map, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        // SAFETY: a page of a file that cannot shrink, never unmapped, and only used as atomics.
        Self { file, words: unsafe { &*map.cast() } }
    }

    /// For the standard input of a plugin.
    pub fn stream(&self) -> Stdio {
        self.file.try_clone().unwrap().into()
    }

    fn word(&self, count: Count) -> &AtomicU64 {
        &self.words[count as usize]
    }

    pub fn get(&self, count: Count) -> u64 {
        self.word(count).load(Ordering::Relaxed)
    }

    pub fn set(&self, count: Count, value: u64) {
        self.word(count).store(value, Ordering::Relaxed);
    }

    pub fn add(&self, count: Count, number: u64) {
        self.word(count).fetch_add(number, Ordering::Relaxed);
    }

    pub fn at_least(&self, count: Count, value: u64) {
        self.word(count).fetch_max(value, Ordering::Relaxed);
    }
}
