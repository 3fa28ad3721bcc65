//! An attack on starts: a process that the plugin leaves behind stops and kills every successor.
//!
//! Row 63. It has left the plugin's process group and session, so it outlives the plugin. Invariants: it only
//! signals processes of its own user, which is nobody else's.

use std::thread;
use std::time::{Duration, Instant};

use ringway::host::Plugin;

use super::counters::{Count, Counters};
use super::hang;

/// For how long a successor is stopped before it is killed, so that its successor has its turn.
const STOPPED: Duration = Duration::from_millis(50);

/// The first incarnation leaves the orphan; all of them wait for what it does to them.
pub fn leave_one() {
    let counters = Counters::inherited();
    let plugin = Plugin::connect().unwrap();
    let _channels = plugin.take_channels().unwrap();
    // SAFETY: the call takes nothing.
    let is_own_user = unsafe { libc::getuid() } >= super::opportunity::FIRST_USER;
    assert!(is_own_user, "it would stop processes of others");
    if counters.get(Count::Orphan) == 0 {
        // SAFETY: the child makes system calls and counts.
        let child = unsafe { libc::fork() };
        if child == 0 {
            stop_all(&counters);
        }
    }
    hang();
}

fn stop_all(counters: &Counters) -> ! {
    // Before it stops its parent, which would otherwise have no time to say so.
    counters.set(Count::Orphan, std::process::id().into());
    // SAFETY: the call takes nothing.
    unsafe { libc::setsid() };
    // SAFETY: the call takes a number; it ends this process should nobody else do so.
    unsafe { libc::alarm(600) };
    // Its plugin becomes ready first.
    thread::yield_now();
    loop {
        let begun = Instant::now();
        while begun.elapsed() < STOPPED {
            counters.add(Count::Attempts, 1);
            // SAFETY: the call takes numbers. All processes that this user may signal, but this one.
            let stopped = unsafe { libc::kill(-1, libc::SIGSTOP) } == 0;
            counters.add(Count::Hits, u64::from(stopped));
        }
        // SAFETY: as above.
        unsafe { libc::kill(-1, libc::SIGKILL) };
    }
}
