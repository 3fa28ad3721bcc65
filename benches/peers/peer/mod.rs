//! What ringway is compared with, a file each.
//!
//! `peers.rs` lists them as rows. Each implements `Transport`: the near side makes the memory or the
//! names, the far side, another process, attaches.
//! What always holds: a peer is used as its own documentation and examples show; where it leaves
//! polling to its user, it is polled as ringway's spinning ends poll.

pub mod blackboard;
pub mod boost;
pub mod iceoryx2;
pub mod ipc_channel;
pub mod ipmpsc;
pub mod lmdb;
pub mod mmap_sync;
pub mod raw_sync;
pub mod shm_ring;
pub mod shmem_ipc;
pub mod shmring;

use crate::common::shared::Spin;

/// Polls until it has something.
#[inline(always)]
pub fn poll<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let mut spin = Spin::default();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        spin.turn();
    }
}
