//! An attack by standard streams: pipes that are full, and whatever can be changed about them.
//!
//! Row 70. Invariants: each incarnation ends with code 1 after a moment, so that the next one gets pipes of its
//! own; it ends with another code where it could read what is in a pipe to the host.

use std::fs::File;
use std::thread;
use std::time::{Duration, Instant};

use ringway::host::Plugin;

use super::counters::{Count, Counters};

/// Which signal says that there is room.
const F_SETSIG: i32 = 10;
/// How long an incarnation lives.
const LIFE: Duration = Duration::from_millis(50);

/// Spoils standard output and error, and ends.
pub fn spoil() {
    let counters = Counters::inherited();
    let plugin = Plugin::connect().unwrap();
    let _channels = plugin.take_channels().unwrap();
    // SAFETY: the call takes nothing.
    let host = unsafe { libc::getppid() };
    let begun = Instant::now();
    while begun.elapsed() < LIFE {
        for stream in [1, 2] {
            counters.add(Count::Attempts, 1);
            counters.add(Count::Hits, u64::from(spoil_one(stream, host)));
        }
        thread::yield_now();
    }
    std::process::exit(1);
}

/// Whether the stream is full now.
fn spoil_one(stream: i32, host: i32) -> bool {
    let flags = libc::O_NONBLOCK | libc::O_ASYNC | libc::O_APPEND;
    let changes = [
        (libc::F_SETFL, flags),
        // A signal to the host whenever there is room, if it were allowed.
        (libc::F_SETOWN, host),
        (F_SETSIG, libc::SIGKILL),
        (libc::F_SETPIPE_SZ, 4096),
    ];
    for (command, value) in changes {
        // SAFETY: the call takes numbers.
        unsafe { libc::fcntl(stream, command, value) };
    }
    // SAFETY: a byte that outlives the call.
    unsafe { libc::ioctl(stream, libc::TIOCSTI, c"x".as_ptr()) };
    for path in [format!("/proc/self/fd/{stream}"), format!("/proc/{host}/fd/{stream}")] {
        assert!(File::open(path).is_err(), "what the host is to read was stolen");
    }
    let bytes = [b'x'; 1000];
    loop {
        // SAFETY: bytes that outlive the call.
        let written = unsafe { libc::write(stream, bytes.as_ptr().cast(), bytes.len()) };
        if written < 0 {
            return std::io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN);
        }
    }
}
