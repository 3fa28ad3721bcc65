//! The keeper's own process: one loop over its sockets, pipes and processes.
//!
//! [`Keeper::start`](super::Keeper::start) forks it. Invariants: nothing is allocated after the fork: the
//! arrays have their final capacity, and what does not fit is refused; no call waits but the one that
//! waits for all; a process is reaped when the host asks, or when nobody can ask any more.
//!
//! | a process | is left by |
//! |---|---|
//! | being started: the pipe is open | its end: executed, or reaped |
//! | running: the host has the line | the host's question, which reaps it; the end of the line |
//! | ending: the line has ended | its group is empty, or has been killed, and it has been reaped |

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::super::child::Step;
use super::super::clock::monotonic_ns;
use super::super::pidfd::PidFd;
use super::super::process::exit_now;
use super::super::rights::{self, MAX_DESCRIPTORS, Received};
use super::super::signals;
use super::start::{Heard, Made, last_word, start};
use super::{KNOW, MAX_PROCESSES, START, Word};
use crate::error::ExitReason;

/// From SIGTERM to SIGKILL: as long as the library gives a plugin that outlives its host.
const GRACE_NS: u64 = 2_000_000_000;
/// How often a group that is ending is looked at.
const LOOK_EVERY_MS: libc::c_int = 10;
/// How long processes that were killed are waited for when the host is gone.
const KILLED_NS: u64 = 1_000_000_000;

/// Entries to wait for: two, and for each process its pipe, its line and itself.
const FIRST: usize = 2;
const EACH: usize = 3;

/// See the module.
#[derive(Debug)]
pub(super) struct Service {
    socket: OwnedFd,
    host: PidFd,
    processes: Vec<Kept>,
    entries: Vec<libc::pollfd>,
}

/// A process that the keeper knows.
#[derive(Debug)]
struct Kept {
    process: PidFd,
    is_child: bool,
    /// Until it has executed its program or has ended.
    report: Option<OwnedFd>,
    /// What it said last on `report`.
    last: Option<(Step, i32)>,
    /// Until the host is done with it.
    line: Option<OwnedFd>,
    /// Until it has been reaped, by whoever has to.
    is_there: bool,
    /// Whether the host waits to hear that it has been reaped.
    announces_end: bool,
    /// When its group is killed.
    kill_at_ns: Option<u64>,
    killed: bool,
}

impl Service {
    /// With all the memory that it will use.
    pub(super) fn new(socket: OwnedFd, host: PidFd) -> Self {
        let processes = Vec::with_capacity(MAX_PROCESSES);
        let entries = Vec::with_capacity(FIRST + EACH * MAX_PROCESSES);
        Self { socket, host, processes, entries }
    }

    /// The keeper's life, in the forked child.
    pub(super) fn run(mut self) -> ! {
        // The host's frames are not this process's to unwind.
        let _ = catch_unwind(AssertUnwindSafe(|| self.serve()));
        exit_now(0)
    }

    fn serve(&mut self) {
        let _ = signals::set_mask(signals::ALL);
        signals::reset_dispositions();
        // In the host's session, as plugins are, and out of reach of signals to the host's group.
        // SAFETY: the call takes numbers.
        unsafe { libc::setpgid(0, 0) };
        // SAFETY: the call reads a C string.
        unsafe { libc::prctl(libc::PR_SET_NAME, c"ringway-keeper".as_ptr()) };
        close_all_but(self.socket.as_raw_fd(), self.host.as_fd().as_raw_fd());
        occupy_standard_streams();
        loop {
            self.wait(true);
            // First: where the host is gone, its lines have ended too, and all groups get the same time.
            if self.entries[1].revents != 0 || !self.receive() {
                break;
            }
            self.look_at_processes();
        }
        for kept in &mut self.processes {
            kept.line = None;
            kept.end_group();
        }
        let give_up_ns = monotonic_ns().saturating_add(GRACE_NS + KILLED_NS);
        self.processes.retain(|kept| !kept.is_over());
        while !self.processes.is_empty() && monotonic_ns() < give_up_ns {
            self.wait(false);
            self.look_at_processes();
        }
    }

    /// Waits for anything to do.
    fn wait(&mut self, with_host: bool) {
        let entry = |fd: RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // A negative number is passed over.
        let number = |fd: Option<RawFd>| entry(fd.unwrap_or(-1));
        let entries = &mut self.entries;
        entries.clear();
        entries.push(number(with_host.then(|| self.socket.as_raw_fd())));
        entries.push(number(with_host.then(|| self.host.as_fd().as_raw_fd())));
        let mut timeout = -1;
        for kept in &self.processes {
            entries.push(number(kept.report.as_ref().map(AsRawFd::as_raw_fd)));
            entries.push(number(kept.line.as_ref().map(AsRawFd::as_raw_fd)));
            let process = kept.process.as_fd().as_raw_fd();
            entries.push(number(kept.awaits_end().then_some(process)));
            if kept.kill_at_ns.is_some() && !kept.killed {
                timeout = LOOK_EVERY_MS;
            }
        }
        // SAFETY: as many entries as the call is told, which outlive it. A signal ends the wait, and the
        // caller looks.
        unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, timeout) };
    }

    fn look_at_processes(&mut self) {
        let entries = self.entries[FIRST..].chunks_exact(EACH);
        for (kept, entries) in self.processes.iter_mut().zip(entries) {
            kept.look(entries[0].revents != 0, entries[1].revents != 0, entries[2].revents != 0);
        }
        self.processes.retain(|kept| !kept.is_over());
    }

    /// Takes a request, where there is one. False where none will come any more.
    fn receive(&mut self) -> bool {
        let mut bytes = [0; 12];
        let Received { len, mut descriptors, complete } =
            match rights::receive::<MAX_DESCRIPTORS>(self.socket.as_fd(), &mut bytes) {
                Ok(received) => received,
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            };
        if len != bytes.len() {
            return false;
        }
        // Without a line there is nobody to tell: its other end has ended.
        let Some(line) = descriptors[0].take() else { return true };
        if !matches!(rights::receive::<0>(line.as_fd(), &mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        {
            // The host has given up already.
            return true;
        }
        let [kind, first, mask] = bytemuck::cast(bytes);
        let refused = |error: i32| tell(&line, Word::Refused(error), None);
        if !complete {
            refused(libc::EMFILE);
            return true;
        }
        if self.processes.len() == self.processes.capacity() {
            refused(libc::EAGAIN);
            return true;
        }
        let [_, subject, files @ ..] = &mut descriptors;
        let Some(subject) = subject.take() else { return true };
        match kind {
            KNOW => self.processes.push(Kept::new(subject.into(), false, None, line)),
            START => match start(subject.as_fd(), first, mask, files) {
                Ok(Made { pid, process, report }) => {
                    tell(&line, Word::Made(pid), Some(&process));
                    self.processes.push(Kept::new(process, true, Some(report), line));
                }
                Err(error) => refused(error.raw_os_error().unwrap_or(libc::EINVAL)),
            },
            _ => {}
        }
        true
    }
}

impl Kept {
    fn new(process: PidFd, is_child: bool, report: Option<OwnedFd>, line: OwnedFd) -> Self {
        Self {
            process,
            is_child,
            report,
            last: None,
            line: Some(line),
            is_there: true,
            announces_end: false,
            kill_at_ns: None,
            killed: false,
        }
    }

    /// Whether its end is to be noticed. The host notices it while it has the line.
    fn awaits_end(&self) -> bool {
        self.is_there && (self.line.is_none() || self.announces_end)
    }

    fn look(&mut self, has_report: bool, has_line: bool, has_ended: bool) {
        if has_report {
            self.read_report();
        }
        if has_line {
            self.read_line();
        }
        if has_ended {
            self.notice_end();
        }
        if let Some(kill_at_ns) = self.kill_at_ns
            && !self.killed
            && monotonic_ns() >= kill_at_ns
        {
            self.kill();
        }
    }

    fn read_report(&mut self) {
        while let Some(report) = &self.report {
            match last_word(report.as_fd()) {
                Heard::Nothing => return,
                Heard::Step(step, errno) => self.last = Some((step, errno)),
                Heard::End => self.report = None,
            }
        }
        match self.last {
            Some((Step::Execute, 0)) => self.tell(Word::Executed),
            // It ends by itself, unless somebody has stopped it.
            _ => {
                self.kill();
                self.announces_end = true;
            }
        }
    }

    fn read_line(&mut self) {
        let Some(line) = &self.line else { return };
        match rights::receive::<0>(line.as_fd(), &mut [0]) {
            Ok(Received { len: 1, .. }) => {
                let word = self.reap().map_or(Word::Runs, Word::Ended);
                self.tell(word);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => {
                self.line = None;
                self.end_group();
            }
        }
    }

    fn notice_end(&mut self) {
        let Some(reason) = self.reap() else { return };
        if std::mem::take(&mut self.announces_end) {
            self.tell(match self.last {
                Some((step, errno)) if errno != 0 => Word::Failed(step, errno),
                _ => Word::Ended(reason),
            });
        }
    }

    /// Takes the exit status; `None` where it runs, or has been reaped before.
    fn reap(&mut self) -> Option<ExitReason> {
        let reason = self.process.reap().unwrap_or(Some(ExitReason::Unknown))?;
        self.is_there = false;
        Some(reason)
    }

    fn tell(&self, word: Word) {
        if let Some(line) = &self.line {
            tell(line, word, None);
        }
    }

    /// The host is done with it: what is left of its group gets SIGTERM, and SIGKILL later.
    fn end_group(&mut self) {
        if self.report.is_some() {
            // There is no program that could handle a signal.
            return self.kill();
        }
        if self.signal(libc::SIGTERM) {
            self.kill_at_ns.get_or_insert(monotonic_ns().saturating_add(GRACE_NS));
        } else {
            self.killed = true;
        }
    }

    fn kill(&mut self) {
        self.killed = true;
        self.signal(libc::SIGKILL);
        if self.is_there {
            // Also where it has left its group, or has none yet.
            let _ = self.process.signal(libc::SIGKILL);
        }
    }

    /// Whether the group has members that could be signalled.
    fn signal(&self, signal: i32) -> bool {
        match self.process.signal_group(signal) {
            // Before Linux 6.9: the number may mean another group by now, so only the leader is signalled.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.process.signal(signal).is_ok()
            }
            result => result.is_ok(),
        }
    }

    /// Whether nothing is left to do.
    fn is_over(&self) -> bool {
        let is_owed = self.is_there && self.is_child;
        self.line.is_none() && !is_owed && (self.killed || !self.signal(0))
    }
}

/// Says a word. The host's end has room for the few words of a process; one that has ended hears nothing.
fn tell(line: &OwnedFd, word: Word, process: Option<&PidFd>) {
    let words = word.to_words();
    let process = process.map(AsFd::as_fd);
    let _ = rights::send(line.as_fd(), bytemuck::bytes_of(&words), process.as_slice());
}

/// So that no other descriptor gets their numbers.
fn occupy_standard_streams() {
    // SAFETY: the call reads a C string. All three numbers are free, so the first is the result.
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
    for number in libc::STDIN_FILENO..=libc::STDERR_FILENO {
        if number != null {
            // SAFETY: the call takes numbers.
            unsafe { libc::dup2(null, number) };
        }
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
