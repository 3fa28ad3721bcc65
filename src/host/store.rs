//! The store that a host has: handles for the host program, descriptors for its plugins, and what is
//! done about the dead and for those that may not write.
//!
//! [`HostBuilder::store`](super::HostBuilder::store) asks for it; [`Plugin::store`](super::Plugin::store)
//! is the other side. What always holds: a plugin gets descriptors that can be written through, and the file
//! in which participants sleep, only where the host program has declared it trusted; what a dead one had pinned is given back, and what
//! it left unfinished is brought in order, without anybody having to wait for it.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::control::Grant;
use super::error::{HostError, SpawnError, StoreError};
use super::service::error::ServiceError;
use super::service::{Client, Request, Service, ServiceProblem, Session, frame};
use crate::store::{
    self, Ledger, Remote, RemoteError, Store, StoreDescriptors, StoreOptions, StoreQuota, Watched,
    WriteError,
};

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

    /// New descriptors for a plugin that may do so much.
    pub(super) fn files(&self, grant: Grant) -> Result<Option<StoreFiles>, SpawnError> {
        let store = self.handle();
        let store = store.as_ref().ok_or(SpawnError::Stopped)?;
        let files = match grant {
            Grant::None => return Ok(None),
            Grant::ReadOnly => {
                store.descriptor_read_only().map(|public| StoreFiles { public, private: None })
            }
            // SAFETY: the host program has declared that the plugin writes by way of this library only:
            // `PluginSpec::trust_with_store` is the only way to this grant.
            Grant::Writable => unsafe { store.descriptor_writable() }.map(
                |StoreDescriptors { public, private }| StoreFiles {
                    public,
                    private: Some(private),
                },
            ),
        };
        files.map(Some).map_err(SpawnError::Store)
    }
}

/// The memory files of a store, as a plugin has them: both where it is trusted with the store.
#[derive(Debug)]
pub(super) struct StoreFiles {
    pub(super) public: OwnedFd,
    pub(super) private: Option<OwnedFd>,
}

impl StoreFiles {
    /// A handle of the store. A plugin that is not trusted with it writes through `service`, where there is one.
    pub(super) fn attach(&self, service: Option<&Arc<Client>>) -> Result<Store, StoreError> {
        let dup =
            |fd: &OwnedFd| fd.try_clone().map_err(|source| StoreError::Os { call: "dup", source });
        let public = dup(&self.public)?;
        Ok(match (&self.private, service) {
            (Some(private), _) => {
                Store::attach(StoreDescriptors { public, private: dup(private)? })?
            }
            (None, Some(service)) => Store::attach_through(public, through(service))?,
            (None, None) => Store::attach_read_only(public)?,
        })
    }
}

/// Does what plugins ask of the store, on the server's thread.
#[derive(Debug)]
pub(super) struct StoreService {
    store: Store,
    /// What plugins have set, by their names.
    ledgers: HashMap<String, Ledger>,
    /// What was done for the watches of which process, by its session's serial number.
    watched: HashMap<u64, Watched>,
    /// The same for processes that are over: the lock was not to be had.
    left_over: Watched,
}

impl StoreService {
    pub(super) fn new(store: Store) -> Self {
        let (ledgers, watched) = (HashMap::new(), HashMap::new());
        Self { store, ledgers, watched, left_over: Watched::default() }
    }
}

impl Service for StoreService {
    fn serve(
        &mut self,
        session: &mut Session,
        request: &Request<'_>,
    ) -> Result<(), ServiceProblem> {
        match (session.visit.quota, request.op) {
            (Some(quota), frame::OP_STORE_WRITE) => self.write(session, request, &quota),
            (Some(_), frame::OP_STORE_WATCH) => {
                let watched = self.watched.entry(session.serial()).or_default();
                let answer = watched.serve(&self.store, request.payload);
                session.reply(
                    request,
                    frame::STATUS_DONE,
                    &answer.map_err(|_| request.malformed())?,
                )
            }
            _ => session.reply(request, frame::STATUS_UNKNOWN, &[]),
        }
    }

    fn end(&mut self, session: &Session) {
        if let Some(watched) = self.watched.remove(&session.serial()) {
            self.left_over.add(watched);
        }
        let _ = self.left_over.take_back(&self.store, LOCK_PATIENCE);
    }

    fn died(&mut self, _pid: u32) {
        // Where somebody has the lock for longer, or the store is damaged, the next writer sees to it.
        let _ = self.store.reclaim_timeout(LOCK_PATIENCE);
        let _ = self.left_over.take_back(&self.store, Duration::ZERO);
    }
}

impl StoreService {
    fn write(
        &mut self,
        session: &mut Session,
        request: &Request<'_>,
        quota: &StoreQuota,
    ) -> Result<(), ServiceProblem> {
        let asked = store::Request::of(request.payload).map_err(|_| request.malformed())?;
        let ledger = self.ledgers.entry(session.visit.plugin.clone()).or_default();
        let answer = store::serve(&self.store, quota, ledger, &asked);
        session.reply(request, frame::STATUS_DONE, &answer)
    }
}

/// The plugin's side: its service channel, for requests to the store.
fn through(service: &Arc<Client>) -> Arc<dyn Remote> {
    Arc::new(Through { service: Arc::clone(service) })
}

#[derive(Debug)]
struct Through {
    service: Arc<Client>,
}

impl Remote for Through {
    fn request(&self, request: &[u8], timeout: Duration) -> Result<Vec<u8>, WriteError> {
        self.call(frame::OP_STORE_WRITE, request, timeout)
    }

    fn watch(&self, request: &[u8], timeout: Duration) -> Result<Vec<u8>, WriteError> {
        self.call(frame::OP_STORE_WATCH, request, timeout)
    }
}

impl Through {
    fn call(&self, op: u32, request: &[u8], timeout: Duration) -> Result<Vec<u8>, WriteError> {
        match self.service.call(op, request, timeout) {
            Ok(reply) if reply.status == frame::STATUS_DONE => Ok(reply.payload),
            Ok(_) | Err(ServiceError::ResultTooLong { .. }) => {
                Err(RemoteError::UnknownAnswer.into())
            }
            Err(ServiceError::Forked) => Err(WriteError::Forked),
            Err(error) => Err(match error {
                ServiceError::NotServed | ServiceError::Unknown { .. } => RemoteError::NotServed,
                ServiceError::Full { .. } => RemoteError::Full,
                ServiceError::Timeout { .. } => RemoteError::Timeout,
                ServiceError::TooLong { len, max } => RemoteError::TooLong { len, max },
                _ => RemoteError::Gone,
            }
            .into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Channel, ChannelOptions};
    use crate::host::event::Events;
    use crate::host::service::{Server, Visit};
    use crate::store::{QuotaError, StoreQuota};

    #[test]
    fn only_who_may_ask_is_served_and_by_its_own_quota() {
        let options = StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() };
        let host = HostStore::new(&options).unwrap();
        let service = StoreService::new(host.handle_of_host().unwrap());
        let services = HashMap::from([(frame::SERVICE_STORE, Box::new(service) as _)]);
        let server = Server::start(services).unwrap();
        let events = Arc::new(Events::default());
        let asking = |plugin, quota| {
            let options = ChannelOptions {
                capacity_bytes: frame::CAPACITY_BYTES,
                ..ChannelOptions::default()
            };
            let (ours, theirs) = Channel::pair(&options).unwrap();
            server.admit(Arc::new(Visit::new(plugin, &events, quota, None)), ours);
            let client = Arc::new(Client::new(theirs).unwrap());
            let files = host.files(Grant::ReadOnly).unwrap().unwrap();
            assert!(files.private.is_none());
            files.attach(Some(&client)).unwrap()
        };
        let one = StoreQuota { max_keys: 1, ..StoreQuota::default() };
        let (first, second) = (asking("first", Some(one)), asking("second", Some(one)));
        first.set("a", b"").unwrap();
        second.set("b", b"").unwrap();
        assert_eq!(first.set("c", b""), Err(QuotaError::Keys { max: 1 }.into()));
        // Another process of the first one's.
        let successor = asking("first", Some(one));
        assert_eq!(successor.set("c", b""), Err(QuotaError::Keys { max: 1 }.into()));
        let denied = asking("denied", None);
        assert_eq!(denied.set("a", b"x"), Err(RemoteError::NotServed.into()));
        assert_eq!(denied.clear(), Err(RemoteError::NotServed.into()));
        let store = host.handle_of_host().unwrap();
        assert_eq!(store.len(), Ok(2));
        server.stop();
        assert_eq!(first.set("a", b""), Err(RemoteError::Gone.into()));
        store.check().unwrap();
    }
}
