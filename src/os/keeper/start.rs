//! A child of the keeper, from its making until it executes its program.
//!
//! The keeper's `service` calls it. Invariants: what the child needs is in memory that it has a copy of, so
//! the keeper can give its own back at once; the pipe that the keeper reads ends when the child has
//! executed its program or has ended, and not before.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::super::child::{Child, Descriptors, FIRST_INHERITED, Setup, Step, Strings};
use super::super::pidfd::PidFd;
use super::super::pipe;
use super::super::process::exit_now;
use super::super::rights::MAX_DESCRIPTORS;
use super::HAS_CGROUP;
use super::frame::Frame;

/// A child that has been made.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) pid: u32,
    pub(super) process: PidFd,
    /// Two words: the step and the error, once before the program is executed, once where a step fails.
    pub(super) report: OwnedFd,
}

/// Makes a child that becomes what the frame says. `files` are those that came with it, in the order of
/// [`Keeper::begin`](super::Keeper::begin), behind the frame.
pub(super) fn start(
    frame: BorrowedFd<'_>,
    bytes: u32,
    mask: u32,
    files: &[Option<OwnedFd>],
) -> io::Result<Made> {
    let frame = Frame::map(frame, bytes)?;
    let (setup, strings) = (frame.setup()?, frame.strings()?);
    let (report, theirs) = pipe::pair()?;
    let mut pidfd: libc::c_int = -1;
    let flags = (libc::CLONE_PIDFD | libc::SIGCHLD) as libc::c_ulong;
    let (none, zero) = (std::ptr::null_mut::<u8>(), 0 as libc::c_ulong);
    // SAFETY: without a stack and without sharing memory this is a fork, whose child goes on here. The
    // child calls `become_program`, which makes system calls, uses memory that it has a copy of, takes no
    // lock and does not return. The kernel stores a number to the word.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, &raw mut pidfd, zero, zero) };
    if pid == 0 {
        become_program(&setup, strings, mask, files, theirs.as_raw_fd());
    }
    let pid = super::super::check(pid)?;
    // SAFETY: the kernel has opened it for this call, and nobody else owns it.
    let process = PidFd::from(unsafe { OwnedFd::from_raw_fd(pidfd) });
    Ok(Made { pid: pid as u32, process, report })
}

fn become_program(
    setup: &Setup<'_>,
    strings: Strings<'_>,
    mask: u32,
    files: &[Option<OwnedFd>],
    report: RawFd,
) -> ! {
    let mut numbers = [0; MAX_DESCRIPTORS];
    let (step, error) = match Placed::place(mask, files, report, &mut numbers) {
        Ok(Placed { descriptors, report }) => {
            let mut child = Child::new(setup, strings, descriptors, None);
            child.run(|| say(report, Step::Execute, 0));
            let error = child.report.error();
            (child.report.step(), error.unwrap_or_else(|| io::ErrorKind::Other.into()))
        }
        Err(error) => (Step::Descriptors, error),
    };
    say(report, step, error.raw_os_error().unwrap_or(libc::EINVAL));
    exit_now(127)
}

/// The descriptors under numbers of the child's own.
struct Placed<'a> {
    descriptors: Descriptors<'a>,
    report: RawFd,
}

impl<'a> Placed<'a> {
    /// Gives the inherited ones the numbers from [`FIRST_INHERITED`] on, and all others higher ones.
    fn place(
        mask: u32,
        files: &[Option<OwnedFd>],
        report: RawFd,
        numbers: &'a mut [RawFd; MAX_DESCRIPTORS],
    ) -> io::Result<Self> {
        let sent = files.iter().flatten().count();
        let before = 1 + mask.count_ones() as usize;
        let inherited = sent.checked_sub(before).ok_or(io::ErrorKind::InvalidData)?;
        let free = FIRST_INHERITED + inherited as RawFd;
        let mut moved = [-1; MAX_DESCRIPTORS];
        for (moved, file) in moved.iter_mut().zip(files.iter().flatten()) {
            *moved = duplicate_above(file.as_fd(), free)?;
        }
        // SAFETY: the number is that of the child's own copy of the pipe, which nothing here closes.
        let report = duplicate_above(unsafe { BorrowedFd::borrow_raw(report) }, free)?;
        for (index, from) in moved[before..sent].iter().enumerate() {
            let to = FIRST_INHERITED + index as RawFd;
            // SAFETY: the call takes numbers. What had the number is a copy of the keeper's descriptor, of
            // which only numbers above are used from here on.
            super::super::check(unsafe { libc::dup2(*from, to) }.into())?;
            numbers[index] = to;
        }
        let mut others = moved[1..before].iter().copied();
        let mut next = |bit: u32| if mask & bit == 0 { None } else { others.next() };
        let streams = [next(1), next(1 << 1), next(1 << 2)];
        let cgroup = next(HAS_CGROUP);
        let descriptors = Descriptors {
            streams,
            inherited: &numbers[..inherited],
            cgroup,
            directory: Some(moved[0]),
        };
        Ok(Self { descriptors, report })
    }
}

/// The same descriptor under a number that is at least `least`, closed on exec.
fn duplicate_above(fd: BorrowedFd<'_>, least: RawFd) -> io::Result<RawFd> {
    // SAFETY: the call takes numbers.
    let other = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) };
    super::super::check(other.into()).map(|_| other)
}

/// Tells the keeper how far the child is.
fn say(report: RawFd, step: Step, errno: i32) {
    let words = [step.code(), errno as u32];
    // SAFETY: eight bytes, which outlive the call. The pipe has room for two such messages.
    unsafe { libc::write(report, words.as_ptr().cast(), size_of_val(&words)) };
}

/// The child's last word, if it has said one since: the step, and the error where it failed.
pub(super) fn last_word(report: BorrowedFd<'_>) -> Heard {
    let mut words = [0_u32; 2];
    loop {
        // SAFETY: room for eight bytes, which outlives the call.
        let got = unsafe { libc::read(report.as_raw_fd(), words.as_mut_ptr().cast(), 8) };
        match super::super::check(got as libc::c_long) {
            Ok(8) => return Heard::Step(Step::of(words[0]), words[1] as i32),
            Ok(_) => return Heard::End,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Heard::Nothing,
            Err(_) => return Heard::End,
        }
    }
}

/// What was read of a child's report.
pub(super) enum Heard {
    Nothing,
    Step(Step, i32),
    /// The child has executed its program, or has ended.
    End,
}
