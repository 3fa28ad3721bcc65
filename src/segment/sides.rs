//! The lines in which the sides of a channel say who has them.
//!
//! Whoever takes a side of a named segment writes its line under the gate's lock; its peer, tools
//! and the next one to attach read it.
//! What always holds: the number of attachments grows before anything else changes that a peer acts
//! upon, so that a process which dies while it attaches is seen as one that came and died.

use crate::layout::{ring, side};
use crate::memory::{Memory, Ordering};

/// What a line says. Any of it may be a lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SideLine {
    pub(crate) state: u32,
    pub(crate) poisoned: bool,
    pub(crate) attaches: u32,
    pub(crate) pid: u32,
    pub(crate) pidfd_inode: u64,
    pub(crate) pid_namespace: u64,
    pub(crate) boot: u64,
}

/// Reads the line of a side.
pub(crate) fn read(memory: &impl Memory, of_side: usize) -> SideLine {
    let line = side::LINE[of_side];
    // Pairs with the Release in `attach`: who they were is visible. While the next one attaches it
    // may be seen in part; then the former one has gone, whoever it was.
    let attaches = memory.load_u32(line + side::ATTACHES, Ordering::Acquire);
    let word = |offset| memory.load_u64(line + offset, Ordering::Relaxed);
    SideLine {
        state: memory.load_u32(line + side::STATE, Ordering::Acquire).min(side::CLOSED),
        poisoned: memory.load_u32(line + side::POISONED, Ordering::Acquire) != 0,
        attaches,
        pid: memory.load_u32(line + side::PID, Ordering::Relaxed),
        pidfd_inode: word(side::PIDFD_INODE),
        pid_namespace: word(side::PID_NAMESPACE),
        boot: word(side::BOOT),
    }
}

/// Takes a side; the caller has its claim and the gate. `who` gives the identity; the rest is
/// ignored.
pub(crate) fn attach(memory: &impl Memory, of_side: usize, who: &SideLine) {
    let line = side::LINE[of_side];
    // What a former process knew of the peer's wakes and its own is over: this one fences.
    memory.store_u32(line + side::WAKES, side::FENCES, Ordering::Relaxed);
    memory.store_u64(line + side::TOKEN, 0, Ordering::Relaxed);
    memory.store_u64(line + side::FLUSHED, 0, Ordering::Relaxed);
    memory.store_u32(line + side::PID, who.pid, Ordering::Relaxed);
    memory.store_u64(line + side::PIDFD_INODE, who.pidfd_inode, Ordering::Relaxed);
    memory.store_u64(line + side::PID_NAMESPACE, who.pid_namespace, Ordering::Relaxed);
    memory.store_u64(line + side::BOOT, who.boot, Ordering::Relaxed);
    // Relaxed: only who has the gate writes it. 0 would mean that nobody ever came.
    let former = memory.load_u32(line + side::ATTACHES, Ordering::Relaxed);
    let attaches = former.wrapping_add(1).max(1);
    // Pairs with the Acquire in `read`.
    memory.store_u32(line + side::ATTACHES, attaches, Ordering::Release);
    memory.store_u32(line + side::STATE, side::ATTACHED, Ordering::Release);
    // Only now: with a word taken back and nobody's coming announced, a peer would wait for ever.
    for (control, waiting, closed) in [
        (ring::CONTROL[of_side], ring::PRODUCER_WAITING, ring::PRODUCER_CLOSED),
        (ring::CONTROL[1 - of_side], ring::CONSUMER_WAITING, ring::CONSUMER_CLOSED),
    ] {
        memory.store_u32(control + waiting, 0, Ordering::Relaxed);
        memory.store_u32(control + closed, 0, Ordering::Release);
    }
    memory.wake_u32(line + side::ATTACHES, u32::MAX);
    memory.wake_u32(line + side::STATE, u32::MAX);
}

/// Gives a side back that was attached and whose ends were never made.
pub(crate) fn leave(memory: &impl Memory, of_side: usize) {
    for (control, closed) in [
        (ring::CONTROL[of_side], ring::PRODUCER_CLOSED),
        (ring::CONTROL[1 - of_side], ring::CONSUMER_CLOSED),
    ] {
        memory.store_u32(control + closed, 1, Ordering::Release);
    }
    let state = side::LINE[of_side] + side::STATE;
    memory.store_u32(state, side::CLOSED, Ordering::Release);
    memory.wake_u32(state, u32::MAX);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::HeapMemory;

    #[test]
    fn what_was_written_is_read_and_every_attachment_counts() {
        let memory = HeapMemory::new(4096);
        let nobody = read(&memory, 1);
        assert_eq!((nobody.state, nobody.attaches), (side::ABSENT, 0));
        let who = SideLine { pid: 7, pidfd_inode: 8, pid_namespace: 9, boot: 10, ..nobody };
        attach(&memory, 1, &who);
        let found = read(&memory, 1);
        assert_eq!(found, SideLine { state: side::ATTACHED, attaches: 1, ..who });
        leave(&memory, 1);
        assert_eq!(read(&memory, 1).state, side::CLOSED);
        let closed = ring::CONTROL[1] + ring::PRODUCER_CLOSED;
        assert_eq!(memory.load_u32(closed, Ordering::Relaxed), 1);
        memory.store_u32(side::LINE[1] + side::ATTACHES, u32::MAX, Ordering::Relaxed);
        attach(&memory, 1, &who);
        assert_eq!(read(&memory, 1).attaches, 1, "never 0 again");
        assert_eq!(memory.load_u32(closed, Ordering::Relaxed), 0);
        assert_eq!(read(&memory, 0), nobody);
    }
}
