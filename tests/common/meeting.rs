//! What tests of named channels share: options, signals between processes, locks.

use std::fs::File;
use std::time::Duration;

use ringway::channel::{self, ChannelOptions, Side};
use ringway::error::{NameError, SegmentError};

use super::name::Name;
use super::victim::Victim;

/// Longer than anything takes; reached only by a test that has failed.
pub const NEVER: Duration = Duration::from_secs(60);

pub fn options() -> ChannelOptions {
    ChannelOptions { capacity_bytes: 4096, ..ChannelOptions::default() }
}

pub fn on(side: Side) -> ChannelOptions {
    ChannelOptions { side: Some(side), ..options() }
}

pub fn name_error<T: std::fmt::Debug>(result: Result<T, SegmentError>) -> NameError {
    match result {
        Err(SegmentError::Name(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// A pipe, to wait for what another process has done.
pub struct Signal(pub [i32; 2]);

impl Signal {
    pub fn new() -> Self {
        let mut ends = [0; 2];
        // SAFETY: the array outlives the call.
        assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
        Self(ends)
    }

    pub fn give(&self) {
        // SAFETY: an open descriptor and a byte that outlives the call.
        assert_eq!(unsafe { libc::write(self.0[1], [1_u8].as_ptr().cast(), 1) }, 1);
    }

    pub fn wait(&self) {
        let mut poll = libc::pollfd { fd: self.0[0], events: libc::POLLIN, revents: 0 };
        // SAFETY: a structure that outlives the call.
        let ready = unsafe { libc::poll(&mut poll, 1, NEVER.as_millis() as i32) };
        assert_eq!(ready, 1, "the other process has failed");
        let mut byte = 0_u8;
        // SAFETY: an open descriptor and a byte that outlives the call.
        assert_eq!(unsafe { libc::read(self.0[0], (&raw mut byte).cast(), 1) }, 1);
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        for end in self.0 {
            // SAFETY: this process's own descriptor.
            unsafe { libc::close(end) };
        }
    }
}

pub fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

/// A process that has done this and holds on to what it returned.
pub fn process<T>(run: impl FnOnce() -> T) -> Victim {
    let ready = Signal::new();
    let victim = Victim::start(|| {
        let _kept = run();
        ready.give();
        hang();
    });
    ready.wait();
    victim
}

pub fn open_file(name: &Name) -> File {
    File::options().read(true).write(true).open(name.path()).unwrap()
}

pub fn gc(name: &Name) {
    channel::gc_where(|found| found == name.text()).unwrap();
}

pub fn lock(file: &File, kind: i32, start: u64, len: u64) {
    use std::os::fd::AsRawFd;
    // SAFETY: a lock of zeros is one of no bytes.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    (lock.l_type, lock.l_start, lock.l_len) = (kind as i16, start as i64, len as i64);
    // SAFETY: an open descriptor, and a structure that outlives the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
