//! Telling a forked child from the process that attached.
//!
//! Segments note the [`generation`] when they attach, and every operation of an end asks
//! [`is_current`] before it touches anything; a child gets a typed error until it attaches anew.
//! What always holds: a generation is current in the address space that asked for it, and in no
//! copy of that address space, however the copy was made.
//!
//! # How
//! One page, mapped private, holds the generation, and the kernel is told to give a copied address
//! space a page of zeros in its place (`MADV_WIPEONFORK`). So the test needs no system call and no
//! handler in the child, and a `clone` that runs no handlers is seen as well. (A `vfork` child, or
//! a thread, shares the address space instead of copying it: there it *is* the process that
//! attached.) The child's first attach writes a new generation into its page: one more than any
//! that it can have inherited, since the counter is ordinary memory and copied with the rest.
//! Where the kernel lacks the advice (before 4.14), a handler of `pthread_atfork` zeroes the page.
//!
//! # Why shared mappings are not `MADV_DONTFORK`
//! With it, the child would have holes where its copies of the mappings were, a later mapping
//! could land there, and a stale end, or a slice that was borrowed from a received message when the
//! process forked, would point into it. Without it there are no holes to guard: what was borrowed
//! stays readable, and dropping an end in the child unmaps the child's copy and nothing else.

use std::io;
use std::ptr::{NonNull, null_mut};

use crate::sync::{AtomicPtr, AtomicU64, Ordering};

/// The page's word before the page exists. Never written.
static NO_PAGE: AtomicU64 = AtomicU64::new(0);

/// Points to the word that holds the current generation, 0 in a fresh child.
///
/// | value     | meaning                 | who writes it                    |
/// |-----------|-------------------------|----------------------------------|
/// | `NO_PAGE` | nobody has attached yet | initial                          |
/// | the page  | page is set up, for ever | first caller of `generation`, once |
static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new((&raw const NO_PAGE).cast_mut());

/// The highest generation that was handed out. Copied by a fork, never wiped.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Whether `generation` was handed out by [`generation`] in this very address space.
#[inline]
pub(crate) fn is_current(generation: u64) -> bool {
    // Relaxed: who has a generation to ask about has synchronised with the call that gave it, or
    // is that caller; and a stale word only reads as another generation.
    word().load(Ordering::Relaxed) == generation
}

#[inline]
fn word() -> &'static AtomicU64 {
    // Relaxed: the page is set up by system calls and its words are atomics, so nothing else has to
    // be visible with the pointer.
    let word = PAGE.load(Ordering::Relaxed);
    // SAFETY: `PAGE` is `NO_PAGE` or a page that `generation` mapped; neither is ever unmapped.
    unsafe { &*word }
}

/// This process's generation, never 0; a new one on the first call in a forked child.
///
/// # Errors
/// The page could not be mapped.
pub(crate) fn generation() -> io::Result<u64> {
    if std::ptr::eq(word(), &NO_PAGE) {
        let page = map_page()?;
        // Release and Acquire would add nothing; see `word`.
        let installed = PAGE.compare_exchange(
            (&raw const NO_PAGE).cast_mut(),
            page.as_ptr(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if installed.is_err() {
            unmap_page(page);
        }
    }
    let current = word().load(Ordering::Relaxed);
    if current != 0 {
        return Ok(current);
    }
    // Taken before it is published: a fork in between copies a counter that is at least as high as
    // every generation that the child can find.
    let next = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    match word().compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => Ok(next),
        Err(other_thread) => Ok(other_thread),
    }
}

/// Room for one word that a copy of this address space sees as zero.
fn map_page() -> io::Result<NonNull<AtomicU64>> {
    // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
    let page = unsafe {
        libc::mmap(
            null_mut(),
            page_bytes(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the page was just mapped, and nobody else knows it.
    let wiped = unsafe { libc::madvise(page, page_bytes(), libc::MADV_WIPEONFORK) } == 0;
    if !wiped {
        // SAFETY: the handler is a function of this crate, which is not unloaded while it runs.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    }
    NonNull::new(page.cast()).ok_or_else(io::Error::last_os_error)
}

/// Gives back a page that another thread was faster to install.
fn unmap_page(page: NonNull<AtomicU64>) {
    // SAFETY: `map_page` mapped it and `generation` did not publish it.
    unsafe { libc::munmap(page.as_ptr().cast(), page_bytes()) };
}

fn page_bytes() -> usize {
    // SAFETY: the call reads a constant of the system.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(65536)
}

/// What the kernel does where it has `MADV_WIPEONFORK`.
extern "C" fn in_child() {
    if !std::ptr::eq(word(), &NO_PAGE) {
        word().store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::tests::child_says;

    #[test]
    fn f30_a_generation_is_current_where_it_was_given_out_and_in_no_copy() {
        let ours = generation().unwrap();
        assert_ne!(ours, 0);
        assert_eq!(generation().unwrap(), ours);
        assert!(is_current(ours));
        assert!(child_says(|| {
            if is_current(ours) {
                return false;
            }
            let theirs = generation().unwrap();
            let grandchild = || {
                let newest = generation().unwrap();
                newest != ours && newest != theirs && is_current(newest) && !is_current(theirs)
            };
            theirs != ours && is_current(theirs) && !is_current(ours) && child_says(grandchild)
        }));
        assert!(is_current(ours));
    }

    #[test]
    fn f30_a_clone_that_runs_no_handlers_is_detected_too() {
        let ours = generation().unwrap();
        let flags = libc::c_long::from(libc::SIGCHLD);
        // SAFETY: like fork, without the library's handlers: the child has a copy of the address
        // space and goes on here with the same stack. It makes two loads and one system call.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        if pid == 0 {
            let code = libc::c_int::from(is_current(ours));
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(code) };
        }
        assert!(pid > 0);
        let mut status = 0;
        // SAFETY: our child; `status` outlives the call.
        unsafe { libc::waitpid(pid as libc::pid_t, &mut status, 0) };
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
        assert!(is_current(ours));
    }

    #[test]
    fn threads_that_ask_at_once_get_the_same_generation() {
        let agree = || {
            let together = std::sync::Barrier::new(8);
            let ask = || {
                together.wait();
                generation().unwrap()
            };
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
                let mut found: Vec<_> =
                    threads.into_iter().map(|thread| thread.join().unwrap()).collect();
                found.dedup();
                found.len() == 1 && is_current(found[0])
            })
        };
        // A new child each time, since only the first call has anything to agree about.
        assert!((0..50).all(|_| child_says(agree)));
    }

    #[test]
    fn without_the_advice_the_handler_does_the_same() {
        assert!(child_says(|| {
            let ours = generation().unwrap();
            in_child();
            !is_current(ours) && generation().unwrap() != ours
        }));
    }
}
