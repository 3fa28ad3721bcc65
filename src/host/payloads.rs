//! The host's store for large publications, on the thread that serves plugins.
//!
//! [`HostBuilder::payload_store`](super::HostBuilder::payload_store) asks for the store. It is apart from
//! the host program's own store, so that publications are no keys of that one and take none of its
//! reader records.
//!
//! Invariants: after a plugin's session, and after its death, nothing of it lies in the store.

use std::time::Duration;

use super::service::{Request, Service, ServiceProblem, Session, frame};
use crate::store::Store;
use crate::topic;

/// How long the thread that serves plugins waits for the lock: a stopped process may hold it.
const LOCK_PATIENCE: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(super) struct PayloadService {
    store: Store,
}

impl PayloadService {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }
}

impl Service for PayloadService {
    fn serve(
        &mut self,
        session: &mut Session,
        request: &Request<'_>,
    ) -> Result<(), ServiceProblem> {
        session.reply(request, frame::STATUS_UNKNOWN, &[])
    }

    fn end(&mut self, session: &Session) {
        topic::remove_left_by(&self.store, &session.visit.plugin, LOCK_PATIENCE);
    }

    fn died(&mut self, _pid: u32) {
        // The next writer does it where the lock is held for longer, or the store is damaged.
        let _ = self.store.reclaim_timeout(LOCK_PATIENCE);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::*;
    use crate::channel::{Channel, ChannelOptions};
    use crate::host::event::Events;
    use crate::host::service::{Server, Visit};
    use crate::store::StoreOptions;

    #[test]
    fn f89_publications_of_an_ended_session_are_removed() {
        let options = StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() };
        let store = Store::anonymous(&options).unwrap();
        let service = PayloadService::new(store.try_clone().unwrap());
        let services = HashMap::from([(frame::SERVICE_PAYLOADS, Box::new(service) as _)]);
        let server = Server::start(services).unwrap();
        let (ours, theirs) = Channel::pair(&ChannelOptions::default()).unwrap();
        let visit = Arc::new(Visit::new("one", &Arc::<Events>::default(), None, None));
        server.admit(Arc::clone(&visit), ours);
        for plugin in ["one", "one more"] {
            store.set([&topic::keys_of(plugin)[..], b"left"].concat(), b"x").unwrap();
        }
        drop(theirs);
        visit.wait_until_over(Duration::from_secs(60));
        let left: Vec<_> = store.iter().map(|entry| entry.unwrap().key().to_vec()).collect();
        assert_eq!(left, [b"one more\0left"]);
        server.stop();
    }
}
