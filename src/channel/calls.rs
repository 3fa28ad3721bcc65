//! Calls: which are on their way, and the replies to those that nobody waits for right now.
//!
//! Both ends of a side share one table: the sender draws an id for each call, the receiver looks up
//! whom a reply is for. What always holds: an id is never drawn twice while the ends live, and no
//! other process's ends draw it but by a chance of 2^-63; a reply to a call that is not pending is
//! dropped; there is at most one reply for each that is.

use std::hash::{BuildHasher, RandomState};
use std::process;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use rkyv::util::AlignedVec;

use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

/// Names a call. The side that is called sees it with the message
/// ([`Message::call`](super::Message::call)), and answers under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId(pub(super) u64);

impl CallId {
    /// The number itself.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// A call that was sent, and whose reply is awaited. Dropping it cancels the call: its reply will be
/// dropped and counted.
#[derive(Debug)]
#[must_use = "dropping it cancels the call"]
pub struct PendingCall {
    table: Arc<Calls>,
    id: CallId,
}

impl PendingCall {
    /// The call's name, as the other side sees it.
    pub fn id(&self) -> CallId {
        self.id
    }

    /// Whether it was begun on a channel with this table.
    pub(super) fn is_of(&self, table: &Arc<Calls>) -> bool {
        Arc::ptr_eq(&self.table, table)
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        self.table.cancel(self.id.0);
    }
}

/// A message in memory of its own.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) bytes: AlignedVec<64>,
    pub(super) len: usize,
    pub(super) tag: u16,
}

/// What is known of a call.
#[derive(Debug)]
pub(super) enum Known {
    /// Its reply has come.
    Replied(Kept),
    /// It has not.
    Pending,
    /// It is answered, cancelled, or was never begun.
    Nothing,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Calls {
    next: AtomicU64,
    /// Sorted by id.
    pending: Mutex<Vec<(u64, Option<Kept>)>>,
}

impl Default for Calls {
    fn default() -> Self {
        // A successor of this process must not take a reply to us for one to itself. Processes that
        // are forked from one have the same keys, so that these alone do not tell them apart. The
        // highest bit is free, so that ids only grow.
        let this = (process::id(), SystemTime::now());
        let first = RandomState::new().hash_one(this) >> 1;
        Self { next: AtomicU64::new(first), pending: Mutex::default() }
    }
}

impl Calls {
    /// An id that was not drawn before.
    pub(super) fn draw(&self) -> CallId {
        // Relaxed: only that each is drawn once matters.
        CallId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Begins a call.
    pub(super) fn begin(self: &Arc<Self>) -> PendingCall {
        let mut pending = self.pending();
        let id = self.draw();
        pending.push((id.0, None));
        PendingCall { table: Arc::clone(self), id }
    }

    fn pending(&self) -> MutexGuard<'_, Vec<(u64, Option<Kept>)>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a call. A reply that has come is handed over, and the call is over.
    pub(super) fn look_up(&self, id: u64) -> Known {
        let mut pending = self.pending();
        let Ok(at) = find(&pending, id) else { return Known::Nothing };
        match pending[at].1.take() {
            Some(reply) => {
                pending.remove(at);
                Known::Replied(reply)
            }
            None => Known::Pending,
        }
    }

    /// Whether the reply to this call is to be kept.
    pub(super) fn wants(&self, id: u64) -> bool {
        let pending = self.pending();
        find(&pending, id).is_ok_and(|at| pending[at].1.is_none())
    }

    /// Keeps a reply. Returns it where nobody wants it any more.
    pub(super) fn keep(&self, id: u64, reply: Kept) -> Option<Kept> {
        let mut pending = self.pending();
        match find(&pending, id) {
            Ok(at) if pending[at].1.is_none() => {
                pending[at].1 = Some(reply);
                None
            }
            _ => Some(reply),
        }
    }

    /// The call is over, whether its reply has come or not.
    pub(super) fn cancel(&self, id: u64) {
        let mut pending = self.pending();
        if let Ok(at) = find(&pending, id) {
            pending.remove(at);
        }
    }
}

fn find(pending: &[(u64, Option<Kept>)], id: u64) -> Result<usize, usize> {
    pending.binary_search_by_key(&id, |(id, _)| *id)
}
