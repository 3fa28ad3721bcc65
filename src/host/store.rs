//! The store that a host has: handles for the host program, descriptors for its plugins, and what is
//! done about the dead.
//!
//! [`HostBuilder::store`](super::HostBuilder::store) asks for it; [`Plugin::store`](super::Plugin::store)
//! is the other side. What always holds: a plugin gets a descriptor that can be written through only
//! where the host program has declared it trusted; what a dead one had pinned is given back, and what
//! it left unfinished is brought in order, without anybody having to wait for it.

#![allow(unsafe_code)]

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::control::Grant;
use super::error::{HostError, SpawnError, StoreError};
use super::service::{Request, Service, ServiceProblem, Session, frame};
use crate::store::{Store, StoreOptions};

/// How long the thread that serves plugins waits for the lock, at most: whoever has it may have been
/// stopped.
const LOCK_PATIENCE: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(super) struct HostStore {
    /// To make others of; `None` once the host has been dropped.
    handle: Mutex<Option<Store>>,
}

impl HostStore {
    /// # Errors
    /// The store could not be made.
    pub(super) fn new(options: &StoreOptions) -> Result<Self, HostError> {
        Ok(Self { handle: Mutex::new(Some(Store::anonymous(options)?)) })
    }

    fn handle(&self) -> MutexGuard<'_, Option<Store>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle for another thread of the host's process.
    pub(super) fn handle_of_host(&self) -> Result<Store, StoreError> {
        Ok(self.handle().as_ref().ok_or(StoreError::None)?.try_clone()?)
    }

    /// Lets go of the store: nothing more is started. Threads that are about to end may keep `self` for
    /// a moment.
    pub(super) fn close(&self) {
        *self.handle() = None;
    }

    /// A new descriptor for a plugin that may do so much.
    pub(super) fn descriptor(&self, grant: Grant) -> Result<Option<OwnedFd>, SpawnError> {
        let store = self.handle();
        let store = store.as_ref().ok_or(SpawnError::Stopped)?;
        let descriptor = match grant {
            Grant::None => return Ok(None),
            Grant::ReadOnly => store.descriptor_read_only(),
            // SAFETY: the host program has declared that the plugin writes by way of this library only:
            // `PluginSpec::trust_with_store` is the only way to this grant.
            Grant::Writable => unsafe { store.descriptor_writable() },
        };
        descriptor.map(Some).map_err(SpawnError::Store)
    }
}

/// Does what plugins ask of the store, on the server's thread.
#[derive(Debug)]
pub(super) struct StoreService {
    store: Store,
}

impl StoreService {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }
}

impl Service for StoreService {
    fn serve(
        &mut self,
        session: &mut Session,
        request: &Request<'_>,
    ) -> Result<(), ServiceProblem> {
        session.reply(request, frame::STATUS_UNKNOWN, &[])
    }

    fn died(&mut self, _pid: u32) {
        // Where somebody has the lock for longer, or the store is damaged, the next writer sees to it.
        let _ = self.store.reclaim_timeout(LOCK_PATIENCE);
    }
}
