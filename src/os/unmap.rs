//! Unmapping large mappings on another thread: the kernel takes a millisecond for some megabytes.
//!
//! A retired [`Mapping`](super::mapping::Mapping) hands itself over when it is dropped; the supervisor
//! unmaps it. Invariants: handing over takes no memory unless more than [`ROOM`] mappings wait, and no
//! system call but the one that wakes the supervisor; without a supervisor the caller unmaps.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, MutexGuard};

use memmap2::MmapRaw;

use super::eventfd::EventFd;
use super::fork;
use super::per_process::PerProcess;

/// Mappings that the queue has room for from the start.
const ROOM: usize = 256;

#[derive(Default)]
struct Queue {
    waiting: Vec<MmapRaw>,
    /// The fork generation of the supervisor, and what wakes it.
    supervisor: Option<(u64, EventFd)>,
}

static QUEUE: PerProcess<Queue> = PerProcess::new();

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock()
}

/// For the supervisor of this process: from now on mappings are handed to it. Returns a descriptor that
/// is readable when some wait.
pub(crate) fn serve(generation: u64) -> io::Result<Arc<OwnedFd>> {
    let event = EventFd::new()?;
    let descriptor = Arc::clone(event.descriptor());
    let mut queue = queue();
    queue.waiting.reserve(ROOM);
    queue.supervisor = Some((generation, event));
    Ok(descriptor)
}

/// There is no supervisor after all.
pub(crate) fn stop() {
    queue().supervisor = None;
    unmap_all();
}

/// For the supervisor: unmaps what waits.
pub(crate) fn unmap_all() {
    let mut queue = queue();
    if let Some((_, event)) = &queue.supervisor {
        event.clear();
    }
    let mut room = Vec::with_capacity(ROOM);
    std::mem::swap(&mut room, &mut queue.waiting);
    // Whoever hands one over meanwhile need not wait.
    drop(queue);
    drop(room);
}

/// Has the supervisor unmap it.
pub(super) fn hand_over(mapping: MmapRaw) {
    let mut queue = queue();
    let queue = &mut *queue;
    // In a forked child the supervisor is the parent's.
    if let Some((generation, event)) = &queue.supervisor
        && fork::is_current(*generation)
    {
        queue.waiting.push(mapping);
        event.raise();
    }
}
