//! Handing descriptors to a program that is about to be executed, and taking them there; what else
//! happens to a child before it executes the program.
//!
//! The host starts plugins with it, and a plugin finds what it was given.
//! What always holds: a child gets the descriptors that it was meant to get and no others, and in
//! the parent each of them stays closed on exec, so that other children cannot get them.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use super::isolation::{Isolation, Progress};
use crate::sync::{AtomicU32, Ordering};

/// How many descriptors a child can inherit besides its standard ones.
pub(crate) const INHERITED: usize = 9;

/// The numbers of the descriptors that the next child of a [`Command`] inherits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inheritance {
    /// Written by the parent before it starts a child, read by the child; 0 where there is none.
    numbers: Arc<[AtomicU32; INHERITED]>,
}

impl Inheritance {
    /// Makes every child of `command` inherit what [`set`](Self::set) named last, and nothing else
    /// but its standard descriptors. Call it once for a command.
    pub(crate) fn install(&self, command: &mut Command) {
        let numbers = Arc::clone(&self.numbers);
        // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls are
        // allowed: it loads words, calls close_range and fcntl, and makes an error from errno, none
        // of which locks or allocates.
        unsafe { command.pre_exec(move || keep_only(&numbers)) };
    }

    /// As [`install`](Self::install); then isolates the child. Returns where the parent can see how
    /// far the child has come.
    ///
    /// # Errors
    /// There is no memory for that; the command is unchanged.
    pub(crate) fn install_isolated(
        &self,
        command: &mut Command,
        mut isolation: Isolation,
    ) -> io::Result<Arc<Progress>> {
        let progress = Arc::new(Progress::new()?);
        self.install(command);
        let seen = Arc::clone(&progress);
        // SAFETY: between fork and exec, as above: `apply` stores words, makes system calls, and
        // calls a hook whose setter has promised the same of it (`PluginSpec::pre_exec`).
        unsafe { command.pre_exec(move || isolation.apply(&seen)) };
        Ok(progress)
    }

    /// Names the descriptors, at most [`INHERITED`]; what is `None` is passed over. They must stay open
    /// until the child has been started.
    pub(crate) fn set(&self, descriptors: [Option<&OwnedFd>; INHERITED]) {
        for (number, fd) in self.numbers.iter().zip(descriptors) {
            let fd = fd.map_or(0, |fd| fd.as_raw_fd().unsigned_abs());
            // Relaxed: the child's memory is a copy made after this store.
            number.store(fd, Ordering::Relaxed);
        }
    }
}

/// In the child: closes all descriptors on exec but the standard ones and those named.
fn keep_only(numbers: &[AtomicU32; INHERITED]) -> io::Result<()> {
    // SAFETY: the call takes three numbers and only marks descriptors of this process. Where the
    // kernel does not know it (before 5.11), only descriptors that somebody else has left open on
    // exec are not marked.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3 as libc::c_uint,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    for number in numbers {
        let fd = number.load(Ordering::Relaxed) as libc::c_int;
        if fd == 0 {
            continue;
        }
        // SAFETY: the call takes numbers; a descriptor that is not open is an error.
        super::check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }.into())?;
    }
    Ok(())
}

/// Takes a descriptor that this process was started with, and closes it on exec from now on.
///
/// Refuses what cannot have been handed over by [`Inheritance`]: numbers that are not open, are
/// standard descriptors, or would be closed on exec.
pub(crate) fn take_inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if fd <= libc::STDERR_FILENO {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the call takes numbers; a descriptor that is not open is an error.
    let flags = super::check(unsafe { libc::fcntl(fd, libc::F_GETFD) }.into())?;
    if flags & libc::c_long::from(libc::FD_CLOEXEC) != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "opened by this process itself"));
    }
    // SAFETY: as above.
    super::check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: the descriptor is open. The process that started this one opened it for this purpose
    // and announced its number; nothing that was opened here since is without close-on-exec unless
    // it was made so, and the flag just set makes a second call fail.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Ends the process now: no destructors, no handlers of `atexit`, which may wait for a lock that a
/// hanging thread holds.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: the call takes a number and does not return.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::process::Stdio;

    /// What descriptors a child has, as numbers, besides the standard ones.
    fn descriptors_of_child(command: &mut Command) -> Vec<RawFd> {
        let output = command.stdout(Stdio::piped()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().map(|number| number.parse().unwrap()).filter(|&fd| fd > 2).collect()
    }

    #[test]
    fn a_child_gets_what_was_named_and_nothing_else() {
        let files: [OwnedFd; INHERITED] =
            std::array::from_fn(|_| File::open("/dev/null").unwrap().into());
        let other = File::open("/dev/null").unwrap();
        // Somebody else in this process is careless about a descriptor.
        // SAFETY: the call takes numbers.
        let careless = unsafe { libc::fcntl(other.as_raw_fd(), libc::F_DUPFD, 100) };
        // SAFETY: just opened, and nobody else's.
        let _careless = unsafe { OwnedFd::from_raw_fd(careless) };
        let inheritance = Inheritance::default();
        // The shell's own builtins open nothing; the glob opens the directory for a moment.
        let mut command = Command::new("sh");
        command.args(["-c", "for f in /proc/$$/fd/*; do [ -e $f ] && echo ${f##*/}; done"]);
        inheritance.install(&mut command);
        for given in [INHERITED, 5, INHERITED] {
            let files = &files[..given];
            inheritance.set(std::array::from_fn(|index| files.get(index)));
            let mut expected: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
            let mut found = descriptors_of_child(&mut command);
            expected.sort_unstable();
            found.sort_unstable();
            assert_eq!(found, expected);
        }
        for fd in &files {
            // SAFETY: the call takes numbers.
            let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) };
            assert_eq!(flags, libc::FD_CLOEXEC, "still closed on exec here");
        }
    }

    #[test]
    fn only_what_was_inherited_can_be_taken() {
        assert!(take_inherited(-1).is_err());
        assert!(take_inherited(1).is_err());
        assert!(take_inherited(1_000_000).is_err());
        let ours = File::open("/dev/null").unwrap();
        assert!(take_inherited(ours.as_raw_fd()).is_err());
        assert!(ours.as_fd().try_clone_to_owned().is_ok(), "it is still open");
    }
}
