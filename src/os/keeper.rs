//! A process that outlives its host for a moment, and ends the process groups that the host has left.
//!
//! [`HostBuilder::keeper`](crate::host::HostBuilder::keeper) asks for one; `host` tells it of each
//! plugin's group. Invariants: it is forked once, before the host has plugins; it makes system calls on
//! memory that was allocated before the fork, and nothing else; it ends when the host has died, has
//! executed a program, or closes the keeper, after the groups that it still knows.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::thread;
use std::time::{Duration, Instant};

use super::clock::monotonic_ns;
use super::pidfd::PidFd;
use super::process::exit_now;
use super::{post, signals};
use crate::memory::Deadline;

/// How many groups a keeper can know.
const MAX_GROUPS: usize = 4096;
/// From SIGTERM to SIGKILL: as long as the library gives a plugin that outlives its host.
const GRACE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long the host waits for the keeper's end.
const END_NS: u64 = 1_000_000_000;

/// The host's side.
#[derive(Debug)]
pub(crate) struct Keeper {
    socket: OwnedFd,
    process: PidFd,
}

impl Keeper {
    /// Forks a keeper of this process.
    ///
    /// # Errors
    /// The system has no room for it.
    pub(crate) fn start() -> io::Result<Self> {
        let (ours, theirs) = post::pair()?;
        let host = PidFd::open(std::process::id())?;
        let groups = Vec::with_capacity(MAX_GROUPS);
        // SAFETY: the child calls `keep`, which makes system calls, uses memory that is allocated, takes
        // no lock and does not return.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            keep(theirs, host, groups);
        }
        super::check(pid.into())?;
        Ok(Self { socket: ours, process: PidFd::open(pid.unsigned_abs())? })
    }

    /// Makes the keeper end this group when the host is gone.
    ///
    /// # Errors
    /// The keeper has ended.
    pub(crate) fn add(&self, pid: u32, leader: BorrowedFd<'_>) -> io::Result<()> {
        post::send(self.socket.as_fd(), &pid.to_ne_bytes(), Some(leader))
    }

    /// The group has ended.
    pub(crate) fn remove(&self, pid: u32) {
        // A keeper that is not told ends a group that has no members.
        let _ = post::send(self.socket.as_fd(), &pid.to_ne_bytes(), None);
    }

    /// Ends the keeper, and with it the groups that it still knows. Waits a second at most.
    pub(crate) fn close(&self) {
        post::end(self.socket.as_fd());
        let _ = self.process.wait(Deadline::at_ns(monotonic_ns().saturating_add(END_NS)));
        let _ = self.process.reap();
    }
}

/// The keeper's life.
fn keep(socket: OwnedFd, host: PidFd, mut groups: Vec<(u32, PidFd)>) -> ! {
    let _ = signals::set_mask(signals::ALL);
    signals::reset_dispositions();
    // SAFETY: the call takes nothing.
    unsafe { libc::setsid() };
    // SAFETY: the call reads a C string.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"ringway-keeper".as_ptr()) };
    close_all_but(socket.as_raw_fd(), host.as_fd().as_raw_fd());
    while hears(&socket, &host, &mut groups) {}
    end_all(&mut groups);
    exit_now(0)
}

/// Waits for the host's word or its end. False when the host is gone.
fn hears(socket: &OwnedFd, host: &PidFd, groups: &mut Vec<(u32, PidFd)>) -> bool {
    let entry = |fd: RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut entries = [entry(socket.as_raw_fd()), entry(host.as_fd().as_raw_fd())];
    // SAFETY: two entries, which outlive the call.
    unsafe { libc::poll(entries.as_mut_ptr(), 2, -1) };
    let mut pid = [0; 4];
    match post::receive(socket.as_fd(), &mut pid) {
        Ok((4, leader)) => {
            let pid = u32::from_ne_bytes(pid);
            match leader {
                // Without room it would have to allocate.
                Some(leader) if groups.len() < groups.capacity() => {
                    groups.push((pid, leader.into()));
                }
                Some(_) => {}
                None => groups.retain(|(other, _)| *other != pid),
            }
            true
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => entries[1].revents == 0,
        _ => false,
    }
}

fn end_all(groups: &mut Vec<(u32, PidFd)>) {
    let signal = |leader: &PidFd, signal| match leader.signal_group(signal) {
        // Before Linux 6.9: the number may mean another group by now, so only the leader is signalled.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => leader.signal(signal),
        result => result,
    };
    groups.retain(|(_, leader)| signal(leader, libc::SIGTERM).is_ok());
    let kill_at = Instant::now() + GRACE;
    while !groups.is_empty() && Instant::now() < kill_at {
        thread::sleep(LOOK_EVERY);
        groups.retain(|(_, leader)| signal(leader, 0).is_ok());
    }
    for (_, leader) in groups {
        let _ = signal(leader, libc::SIGKILL);
    }
}

/// Nothing that the host has open stays open because of its keeper.
fn close_all_but(one: RawFd, other: RawFd) {
    let (low, high) = (one.min(other), one.max(other));
    let close = |from: RawFd, to: libc::c_uint| {
        let from = from as libc::c_uint;
        if from <= to {
            // SAFETY: the call takes numbers. These descriptors' owners are the parent's values, of which
            // this process uses none again.
            unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
        }
    };
    if low > 0 {
        close(0, low as libc::c_uint - 1);
    }
    close(low + 1, high as libc::c_uint - 1);
    close(high + 1, libc::c_uint::MAX);
}
