//! Waiting for many futex words at once with an `io_uring`: each is handed to the kernel once.
//!
//! A selector over many channels waits through it; where the kernel lacks it (before 6.7) or forbids
//! it, [`Uring::new`] fails and the selector takes another way.
//! What always holds: the kernel reads a word only inside [`Uring::submit`], while the word is
//! borrowed; every wait that was submitted completes at most once, under the number it was given.
//!
//! # What the kernel keeps of a word
//! A wait on a word of a shared mapping is queued under a key: the number of the file's inode, the
//! page in the file, the offset in the page. The key is made, and the word is read, when the wait is
//! submitted; a wake makes the same key from the waker's own mapping. So a queued wait refers to
//! neither mapping nor page: the mapping may go away while it is queued, and nothing is read or
//! written there. What remains is an entry in the kernel that costs some memory until it is woken,
//! cancelled, or the ring is closed.

mod abi;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::null;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};

use self::abi::*;
use super::clock::monotonic_ns;
use super::fork;
use crate::memory::Deadline;
use crate::sync::{AtomicU32, Ordering};

const SQ_ENTRIES: u32 = 64;
const CQ_ENTRIES: u32 = 2048;

/// A ring. Its descriptor is readable while completions wait.
#[derive(Debug)]
pub(crate) struct Uring {
    fd: Arc<OwnedFd>,
    /// Both rings' heads, tails and flags, and the completions.
    rings: MmapRaw,
    submissions: MmapRaw,
    sq: Offsets,
    cq: Offsets,
    sq_mask: u32,
    cq_mask: u32,
    /// How far submissions have been written. The kernel looks at them only inside `enter`.
    tail: u32,
    /// The fork generation that made it.
    generation: u64,
}

impl Uring {
    /// A ring that can wait on futex words.
    ///
    /// # Errors
    /// The kernel has no `io_uring`, forbids it, or cannot wait on futex words with it; or
    /// descriptors or memory have run out.
    pub(crate) fn new() -> io::Result<Self> {
        let generation = fork::generation()?;
        let mut params = Params {
            cq_entries: CQ_ENTRIES,
            flags: SETUP_CQSIZE | SETUP_SUBMIT_ALL | SETUP_NO_SQARRAY,
            ..Params::default()
        };
        // SAFETY: the parameters are a valid struct that the kernel reads and fills in.
        let result =
            unsafe { libc::syscall(libc::SYS_io_uring_setup, SQ_ENTRIES, &raw mut params) };
        let fd = super::check(result)? as libc::c_int;
        // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns. The kernel
        // closes it on exec.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        if params.features & FEATURES != FEATURES || !waits_on_futexes(&fd)? {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let rings_bytes =
            params.cq.cqes as usize + params.cq_entries as usize * size_of::<Completion>();
        let submissions_bytes = params.sq_entries as usize * size_of::<Submission>();
        let map = |offset, len| MmapOptions::new().offset(offset).len(len).map_raw(fd.as_raw_fd());
        let mut uring = Self {
            rings: map(0, rings_bytes)?,
            submissions: map(OFF_SQES, submissions_bytes)?,
            sq: params.sq,
            cq: params.cq,
            sq_mask: params.sq_entries - 1,
            cq_mask: params.cq_entries - 1,
            tail: 0,
            generation,
            fd: Arc::new(fd),
        };
        uring.tail = uring.word(uring.sq.tail).load(Ordering::Relaxed);
        Ok(uring)
    }

    /// Its descriptor.
    pub(crate) fn descriptor(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// Hands waits to the kernel: each completes, once, when its word is woken, or at once where the
    /// word is not as expected. With `until`, then waits for any completion, or until then, or for
    /// no reason for less.
    ///
    /// # Errors
    /// The kernel refused; how many of the waits it has taken does not show, and those that it has
    /// may complete.
    pub(crate) fn submit<'a>(
        &mut self,
        waits: impl Iterator<Item = (u64, &'a AtomicU32, u32)>,
        until: Option<Deadline>,
    ) -> io::Result<()> {
        for (user_data, word, expected) in waits {
            // SAFETY of what the kernel will do with the address: `push` and what follows submit it
            // before this function returns, while the word is borrowed; see the module for after.
            self.push(Submission {
                opcode: OP_FUTEX_WAIT,
                fd: FUTEX_U32,
                address: word.as_ptr().addr() as u64,
                offset: u64::from(expected),
                address3: MATCH_ANY,
                user_data,
                ..Submission::default()
            })?;
        }
        match until {
            Some(until) => self.enter_until(until),
            None => self.flush(),
        }
    }

    /// Completes `user_data` at once: makes the descriptor readable.
    pub(crate) fn complete_now(&mut self, user_data: u64) -> io::Result<()> {
        self.push(Submission { opcode: OP_NOP, fd: -1, user_data, ..Submission::default() })?;
        self.flush()
    }

    /// Completes `user_data` after so many nanoseconds.
    pub(crate) fn complete_after(&mut self, user_data: u64, after_ns: u64) -> io::Result<()> {
        let after = timespec(after_ns);
        self.push(Submission {
            opcode: OP_TIMEOUT,
            fd: -1,
            address: (&raw const after).addr() as u64,
            len: 1,
            user_data,
            ..Submission::default()
        })?;
        // The kernel reads `after` now, and not later.
        self.flush()
    }

    /// The next completion that is there.
    pub(crate) fn completed(&mut self) -> Option<u64> {
        let head = self.word(self.cq.head).load(Ordering::Relaxed);
        // Pairs with the kernel's Release: the completion itself is visible.
        if head == self.word(self.cq.tail).load(Ordering::Acquire) {
            return self.overflowed().then(|| self.completed()).flatten();
        }
        let index = (head & self.cq_mask) as usize;
        let offset = self.cq.cqes as usize + index * size_of::<Completion>();
        // SAFETY: the index is masked to the number of completions, which end inside the mapping.
        let completion = unsafe { self.rings.as_mut_ptr().add(offset) }.cast::<Completion>();
        // SAFETY: aligned, mapped and initialised by the kernel, which does not write it again
        // before `head` has moved past it.
        let user_data = unsafe { (*completion).user_data };
        // Release: the read above is over before the kernel may use the place again.
        self.word(self.cq.head).store(head.wrapping_add(1), Ordering::Release);
        Some(user_data)
    }

    /// Whether completions had no room and now have. Costs a load where there was always room.
    fn overflowed(&mut self) -> bool {
        if self.word(self.sq.flags).load(Ordering::Relaxed) & SQ_CQ_OVERFLOW == 0 {
            return false;
        }
        self.enter(0, 0, ENTER_GETEVENTS, None).is_ok()
            && self.word(self.cq.head).load(Ordering::Relaxed)
                != self.word(self.cq.tail).load(Ordering::Acquire)
    }

    /// Takes a wait back. When it returns, the wait is in no queue any more; it may complete, or may
    /// have completed.
    pub(crate) fn cancel(&self, user_data: u64) {
        self.cancel_matching(user_data, 0);
    }

    fn cancel_matching(&self, user_data: u64, flags: u32) {
        let none = Timespec { seconds: -1, nanoseconds: -1 };
        let (pad, pad2) = ([0; 7], [0; 3]);
        let cancel = Cancel { user_data, fd: -1, flags, timeout: none, opcode: 0, pad, pad2 };
        // SAFETY: the kernel reads one struct that outlives the call.
        unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.fd.as_raw_fd(),
                REGISTER_SYNC_CANCEL,
                &raw const cancel,
                1,
            )
        };
        // Fails where there is no such wait any more, which is what was wanted.
    }

    /// Writes a submission, behind those not yet taken by the kernel.
    fn push(&mut self, submission: Submission) -> io::Result<()> {
        if self.tail.wrapping_sub(self.word(self.sq.head).load(Ordering::Acquire)) > self.sq_mask {
            self.flush()?;
        }
        let index = (self.tail & self.sq_mask) as usize;
        // SAFETY: the index is masked to the number of submissions that the mapping holds.
        let place = unsafe { self.submissions.as_mut_ptr().cast::<Submission>().add(index) };
        // SAFETY: aligned and mapped; the kernel has taken what was there before.
        unsafe { place.write(submission) };
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    /// Has the kernel take all submissions.
    fn flush(&mut self) -> io::Result<()> {
        self.submit_with(0, 0, None)
    }

    /// As `flush`; then waits.
    fn enter_until(&mut self, until: Deadline) -> io::Result<()> {
        let left = timespec(until.as_ns().saturating_sub(monotonic_ns()));
        self.submit_with(1, ENTER_GETEVENTS, Some(left))
    }

    fn submit_with(&mut self, wanted: u32, flags: u32, left: Option<Timespec>) -> io::Result<()> {
        // Release: the submissions are written before the kernel sees the new tail.
        self.word(self.sq.tail).store(self.tail, Ordering::Release);
        loop {
            let head = self.word(self.sq.head).load(Ordering::Acquire);
            let waiting = self.tail.wrapping_sub(head);
            if waiting == 0 && flags == 0 {
                return Ok(());
            }
            match self.enter(waiting, wanted, flags, left.as_ref()) {
                // All of them: the kernel waits only after it has taken all.
                Ok(taken) if taken == waiting => return Ok(()),
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    // Nothing was to be taken, so this is about the waiting, which may end early.
                    Some(libc::EINTR | libc::ETIME) if waiting == 0 => return Ok(()),
                    Some(libc::EINTR) => {}
                    _ => {
                        self.retract();
                        return Err(error);
                    }
                },
            }
        }
        self.retract();
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// Takes back the submissions that the kernel has not taken: it must never see them, since what
    /// they name is borrowed for this call alone. It looks only inside `enter`.
    fn retract(&mut self) {
        self.tail = self.word(self.sq.head).load(Ordering::Acquire);
        self.word(self.sq.tail).store(self.tail, Ordering::Release);
    }

    fn enter(
        &self,
        submissions: u32,
        wanted: u32,
        flags: u32,
        left: Option<&Timespec>,
    ) -> io::Result<u32> {
        let timeout = left.map_or(0, |left| (&raw const *left).addr() as u64);
        let argument = EnterArgument { mask: 0, mask_bytes: 0, min_wait_us: 0, timeout };
        let (argument, bytes, flags) = match left {
            Some(_) => (&raw const argument, size_of::<EnterArgument>(), flags | ENTER_EXT_ARG),
            None => (null(), 0, flags),
        };
        // SAFETY: the kernel takes submissions that `push` has written, and reads the argument and
        // the time it names, which outlive the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.fd.as_raw_fd(),
                submissions,
                wanted,
                flags,
                argument,
                bytes,
            )
        };
        super::check(result).map(|taken| taken as u32)
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the offset came from the kernel, for this mapping.
        let word = unsafe { self.rings.as_mut_ptr().add(offset as usize) };
        // SAFETY: the kernel's offsets of words are aligned, and it accesses them as atomics.
        unsafe { AtomicU32::from_ptr(word.cast()) }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // Somebody else may keep the descriptor. A forked child's copy means the parent's waits.
        if fork::is_current(self.generation) {
            self.cancel_matching(0, CANCEL_ALL | CANCEL_ANY);
        }
    }
}

fn waits_on_futexes(fd: &OwnedFd) -> io::Result<bool> {
    let none = ProbeOperation { operation: 0, reserved: 0, flags: 0, reserved2: 0 };
    let operations = [none; 64];
    let mut probe = Probe { last: 0, len: 0, reserved: 0, reserved2: [0; 3], operations };
    let count = operations.len();
    // SAFETY: the kernel fills in at most as many operations as the struct has room for.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            fd.as_raw_fd(),
            REGISTER_PROBE,
            &raw mut probe,
            count,
        )
    };
    super::check(result)?;
    Ok(probe.operations[usize::from(OP_FUTEX_WAIT)].flags & OP_SUPPORTED != 0)
}

fn timespec(ns: u64) -> Timespec {
    let part = |value| i64::try_from(value).unwrap_or(i64::MAX);
    Timespec { seconds: part(ns / 1_000_000_000), nanoseconds: part(ns % 1_000_000_000) }
}
