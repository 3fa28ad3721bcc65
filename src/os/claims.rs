//! Descriptors whose locks a forked child must not keep alive.
//!
//! `segment` holds the locks of its claims through them. A child that is forked has its parent's
//! descriptors, and with them the parent's locks, which would outlive the parent; so a handler that
//! the library runs in the child replaces each of these descriptors by `/dev/null`.
//! What always holds: a descriptor is in the table before it has a lock, and leaves the table after
//! it has given its locks back.
//!
//! The handler runs where only async-signal-safe calls are allowed, while the locks of other threads
//! of the parent may be held for ever: it walks a list that only grows, loads words and calls `dup3`.
//! A child that was made by a raw `clone` runs no handlers and keeps the locks. So does one that another
//! thread forks after the descriptor was opened and before it is in the table.

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd};
use std::ptr::null_mut;

use crate::sync::{AtomicPtr, AtomicU32, Ordering};

/// A slot of the table without a descriptor.
const FREE: u32 = u32::MAX;
const SLOTS: usize = 62;

/// Some slots of the table. Never freed.
struct Chunk {
    /// Descriptors, or `FREE`. Taken by exchange, given back by store, read by the handler.
    slots: [AtomicU32; SLOTS],
    /// Written before the chunk is in the list.
    next: *const Chunk,
}

/// The newest chunk.
static CHUNKS: AtomicPtr<Chunk> = AtomicPtr::new(null_mut());
/// What descriptors are replaced by; `FREE` until the handler is installed.
static NOTHING: AtomicU32 = AtomicU32::new(FREE);

/// A descriptor that no forked child has.
#[derive(Debug)]
pub(crate) struct Unforked {
    file: ManuallyDrop<File>,
    slot: &'static AtomicU32,
}

impl Unforked {
    /// Takes care of a descriptor that has no locks yet.
    pub(crate) fn new(file: File) -> io::Result<Self> {
        install_handler()?;
        let slot = register(file.as_raw_fd().unsigned_abs());
        Ok(Self { file: ManuallyDrop::new(file), slot })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl AsFd for Unforked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Unforked {
    fn drop(&mut self) {
        // First, so that the number is not in the table any more when somebody else gets it. A child
        // that is forked in between has a description whose locks go with ours: see `segment`, which
        // unlocks before it drops.
        self.slot.store(FREE, Ordering::Release);
        // SAFETY: dropped once, here, and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.file) };
    }
}

fn register(fd: u32) -> &'static AtomicU32 {
    let mut at = CHUNKS.load(Ordering::Acquire).cast_const();
    // SAFETY: null, or a chunk that was put in the list whole and is never freed.
    while let Some(chunk) = unsafe { at.as_ref() } {
        let take = |slot: &&AtomicU32| {
            slot.compare_exchange(FREE, fd, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        if let Some(slot) = chunk.slots.iter().find(take) {
            return slot;
        }
        at = chunk.next;
    }
    let chunk = Box::leak(Box::new(Chunk {
        slots: [const { AtomicU32::new(FREE) }; SLOTS],
        next: null_mut(),
    }));
    chunk.slots[0].store(fd, Ordering::Relaxed);
    let mut newest = CHUNKS.load(Ordering::Acquire);
    loop {
        chunk.next = newest;
        // The Release pairs with the Acquire of whoever walks the list.
        match CHUNKS.compare_exchange(newest, chunk, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return &chunk.slots[0],
            Err(other) => newest = other,
        }
    }
}

fn install_handler() -> io::Result<()> {
    if NOTHING.load(Ordering::Acquire) != FREE {
        return Ok(());
    }
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: the handler is a function of this crate, which is not unloaded while it runs. Should
    // two threads come here at once it runs twice, which does no harm.
    let result = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result));
    }
    let nothing = null.as_raw_fd().unsigned_abs();
    // Last: who finds it needs no handler any more.
    if NOTHING.compare_exchange(FREE, nothing, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
        // Open for ever.
        let _ = null.into_raw_fd();
    }
    Ok(())
}

extern "C" fn in_child() {
    let nothing = NOTHING.load(Ordering::Relaxed) as libc::c_int;
    let mut at = CHUNKS.load(Ordering::Acquire).cast_const();
    // SAFETY: null, or a chunk that was put in the list whole and is never freed.
    while let Some(chunk) = unsafe { at.as_ref() } {
        for slot in &chunk.slots {
            let fd = slot.load(Ordering::Acquire);
            if fd != FREE {
                // SAFETY: numbers; the slot's owner has this descriptor open, so nobody else's is
                // replaced.
                unsafe { libc::dup3(nothing, fd as libc::c_int, libc::O_CLOEXEC) };
            }
        }
        at = chunk.next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::memfd;
    use crate::os::tests::child_says;

    #[test]
    fn f30_a_forked_child_has_nothing_in_their_place() {
        let files: Vec<_> =
            (0..3 * SLOTS).map(|_| Unforked::new(memfd::create(4096).unwrap()).unwrap()).collect();
        let gone = memfd::create(4096).unwrap();
        let number = gone.as_raw_fd();
        drop(Unforked::new(gone).unwrap());
        let other = memfd::create(4096).unwrap();
        assert_eq!(other.as_raw_fd(), number, "the number is somebody else's now");
        assert!(child_says(|| {
            other.metadata().unwrap().len() == 4096
                && files.iter().all(|file| !file.file().metadata().unwrap().is_file())
        }));
        assert!(files.iter().all(|file| file.file().metadata().unwrap().is_file()));
    }
}
