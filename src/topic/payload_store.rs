//! Large publications of one publisher, in the host's store for them: written once, removed when no
//! subscriber wants them any more.
//!
//! A publisher has one where the host has such a store
//! ([`HostBuilder::payload_store`](crate::host::HostBuilder::payload_store)) and the process may write it.
//!
//! Invariants: keys of two processes have different beginnings, so that the host can remove what a dead
//! one has left. Publications cost no more than the budget, each counted with [`ENTRY_BYTES`]. A
//! subscriber that reads a removed publication gets an error.

use std::collections::VecDeque;
use std::time::Duration;

use crate::memory::Deadline;
use crate::os::clock::monotonic_ns;
use crate::os::random;
use crate::store::{Store, WriteError};

/// What a publication costs besides its bytes: its key, its block's header, and the entries that the
/// publisher keeps of it. Without it, empty publications would cost nothing.
pub(super) const ENTRY_BYTES: u64 = 256;

/// What the keys of a plugin's publishers begin with; of the host's own, with an empty name.
pub(crate) fn keys_of(plugin: &str) -> Vec<u8> {
    [plugin.as_bytes(), b"\0"].concat()
}

/// Removes what publishers of a plugin have left in the store. Whatever cannot be removed, because
/// somebody has the lock for longer than `patience`, stays.
pub(crate) fn remove_left_by(store: &Store, plugin: &str, patience: Duration) {
    let keys: Vec<_> = store
        .prefix(keys_of(plugin))
        .map_while(Result::ok)
        .map(|entry| entry.key().to_vec())
        .collect();
    store.set_lock_timeout(Some(patience));
    // What stays costs room, and harms nobody.
    let _ = keys.iter().try_for_each(|key| store.delete(key).map(drop));
    store.set_lock_timeout(None);
}

/// See the module.
#[derive(Debug)]
pub(super) struct PayloadStore {
    store: Store,
    /// What this publisher's keys begin with.
    prefix: Vec<u8>,
    /// In the order of their numbers.
    entries: VecDeque<Stored>,
    bytes: u64,
    budget_bytes: u64,
    /// For how long other writers are waited for when it is given up.
    patience: Duration,
    /// Removed although somebody may have wanted to read them.
    pub(super) expired: u64,
    /// Written.
    pub(super) stored: u64,
}

#[derive(Debug)]
struct Stored {
    number: u64,
    cost_bytes: u64,
}

impl PayloadStore {
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn new(
        store: Store,
        plugin: &str,
        budget_bytes: u64,
        patience: Duration,
    ) -> std::io::Result<Self> {
        let mut prefix = keys_of(plugin);
        prefix.extend(random::random_u128()?.to_ne_bytes());
        let entries = VecDeque::new();
        let (bytes, expired, stored) = (0, 0, 0);
        Ok(Self { store, prefix, entries, bytes, budget_bytes, patience, expired, stored })
    }

    fn key(&self, number: u64) -> Vec<u8> {
        [&self.prefix[..], &number.to_be_bytes()].concat()
    }

    /// The call that follows waits for other writers until `deadline`, and not at all after it: a writer
    /// that is stopped has the lock for as long as it is.
    fn wait_until(&self, deadline: Deadline) {
        let left_ns = deadline.as_ns().saturating_sub(monotonic_ns());
        self.store.set_lock_timeout(Some(Duration::from_nanos(left_ns)));
    }

    /// Writes a publication, for which it makes room within the budget, by `deadline`. Returns its key and
    /// its version; `None` where it cannot be there, and has to travel in the rings.
    pub(super) fn put(
        &mut self,
        number: u64,
        payload: &[u8],
        deadline: Deadline,
    ) -> Option<(Vec<u8>, u64)> {
        let cost_bytes = ENTRY_BYTES + payload.len() as u64;
        if cost_bytes > self.budget_bytes {
            return None;
        }
        while self.bytes + cost_bytes > self.budget_bytes {
            self.remove_first(deadline).ok()?;
            self.expired += 1;
        }
        let key = self.key(number);
        self.wait_until(deadline);
        let version = self.store.set(&key, payload).ok()?;
        self.entries.push_back(Stored { number, cost_bytes });
        self.bytes += cost_bytes;
        self.stored += 1;
        Some((key, version))
    }

    /// Removes what nobody wants: all with smaller numbers, by `deadline`.
    ///
    /// # Errors
    /// What kept it from removing one of them; the others are there still.
    pub(super) fn forget_before(
        &mut self,
        number: u64,
        deadline: Deadline,
    ) -> Result<(), WriteError> {
        while self.entries.front().is_some_and(|first| first.number < number) {
            self.remove_first(deadline)?;
        }
        Ok(())
    }

    /// The number of the oldest that lies there.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.entries.front().map(|first| first.number)
    }

    fn remove_first(&mut self, deadline: Deadline) -> Result<(), WriteError> {
        self.wait_until(deadline);
        let Some(Stored { number, cost_bytes }) = self.entries.front() else { return Ok(()) };
        let cost_bytes = *cost_bytes;
        self.store.delete(self.key(*number))?;
        self.bytes -= cost_bytes;
        self.entries.pop_front();
        Ok(())
    }
}

impl Drop for PayloadStore {
    /// Whoever has not read it by now gets `Expired`.
    fn drop(&mut self) {
        let patience_ns = u64::try_from(self.patience.as_nanos()).unwrap_or(u64::MAX);
        let deadline = Deadline::at_ns(monotonic_ns().saturating_add(patience_ns));
        // What stays is removed when the session has ended.
        let _ = self.forget_before(u64::MAX, deadline);
    }
}
