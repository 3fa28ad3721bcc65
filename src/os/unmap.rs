//! Unmapping large mappings on another thread: the kernel takes a millisecond for some megabytes.
//!
//! A retired [`Mapping`](super::mapping::Mapping) hands itself over when it is dropped; the supervisor unmaps it.
//! Invariants:
//! - Handing over takes no lock, no memory, and no system call but the one that wakes the supervisor.
//! - Without a supervisor the caller unmaps.
//! - A service that was published is never freed.
//!
//! The list is Treiber's stack (R. K. Treiber, "Systems Programming: Coping with Parallelism", 1986) without its
//! pop: all of it is taken at once, so that a mapping cannot come back while somebody looks at it.

use std::ops::Deref;
use std::ptr::null_mut;

use memmap2::MmapRaw;

use super::eventfd::EventFd;
use super::fork;
use crate::sync::{AtomicPtr, Ordering};

/// A mapping with what the list needs, so that handing over takes no memory.
#[derive(Debug)]
pub(super) struct Listed {
    raw: MmapRaw,
    next: AtomicPtr<Self>,
}

impl Listed {
    pub(super) fn new(raw: MmapRaw) -> Box<Self> {
        Box::new(Self { raw, next: AtomicPtr::new(null_mut()) })
    }
}

impl Deref for Listed {
    type Target = MmapRaw;

    fn deref(&self) -> &MmapRaw {
        &self.raw
    }
}

/// What the supervisor of a process does for the others.
#[derive(Debug)]
struct Service {
    /// The fork generation of that process.
    generation: u64,
    event: EventFd,
}

/// Null until the first supervisor runs, then the newest one's. A fork copies the pointer and what it names.
static SERVICE: AtomicPtr<Service> = AtomicPtr::new(null_mut());

/// The mapping that was handed over last, which names the one before.
static NEWEST: AtomicPtr<Listed> = AtomicPtr::new(null_mut());

/// For the supervisor of this process, when its thread runs: from now on mappings are handed to it, and `event` is
/// readable when some wait.
pub(crate) fn serve(generation: u64, event: EventFd) {
    // A fork may have copied some that the parent's supervisor had not unmapped yet.
    event.raise();
    // Release: pairs with the Acquire in `hand_over`.
    SERVICE.store(Box::into_raw(Box::new(Service { generation, event })), Ordering::Release);
}

/// For the supervisor: unmaps what waits.
pub(crate) fn unmap_all(event: &EventFd) {
    // First, so that what comes later makes it readable again.
    event.clear();
    // Acquire: pairs with the Release in `hand_over`.
    let mut newest = NEWEST.swap(null_mut(), Ordering::Acquire);
    while !newest.is_null() {
        // SAFETY: `hand_over` made it by `into_raw`, and the swap took it from everybody else.
        let mapping = unsafe { Box::from_raw(newest) };
        // Relaxed: ordered by the swap.
        newest = mapping.next.load(Ordering::Relaxed);
    }
}

/// Has the supervisor unmap it.
pub(super) fn hand_over(mapping: Box<Listed>) {
    // Acquire: pairs with the Release in `serve`.
    // SAFETY: null, or a service that `serve` has published whole and that is never freed.
    let service = unsafe { SERVICE.load(Ordering::Acquire).as_ref() };
    // In a forked child the supervisor is the parent's.
    let Some(service) = service.filter(|service| fork::is_current(service.generation)) else {
        return;
    };
    let mapping = Box::leak(mapping);
    let mut newest = NEWEST.load(Ordering::Relaxed);
    loop {
        mapping.next.store(newest, Ordering::Relaxed);
        // Release: pairs with the Acquire in `unmap_all`, which sees `next` and all that was done with the mapping.
        let exchanged =
            NEWEST.compare_exchange(newest, mapping, Ordering::Release, Ordering::Relaxed);
        match exchanged {
            Ok(_) => break,
            Err(other) => newest = other,
        }
    }
    service.event.raise();
}
