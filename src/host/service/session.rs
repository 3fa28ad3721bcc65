//! One plugin's process, as the server knows it; and what a service is.
//!
//! [`Server`](super::Server) makes a [`Session`] for each process and calls the services with it.
//! What always holds: an answer is sent at once or not at all, so that no plugin keeps the server
//! waiting; a plugin that keeps to the rules has room for every answer.

use std::fmt::Debug;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::error::ServiceProblem;
use super::frame::{Header, MAX_REPLY_BYTES, STATUS_TOO_LONG};
use super::server::Sessions;
use crate::channel::Sender;
use crate::error::TrySendError;
use crate::host::event::{Events, HostEventKind};
use crate::store::StoreQuota;

/// A part of what a host serves: operations that belong together. It runs on the server's thread, so
/// that everything it does is short.
pub(in crate::host) trait Service: Debug + Send {
    /// A plugin's process is served from now on.
    fn begin(&mut self, session: &Session) {
        let _ = session;
    }

    /// Carries out a request, of which nothing has been checked but its header, and
    /// [answers](Session::reply) it.
    ///
    /// # Errors
    /// What rule the plugin has broken: it is not served any more.
    fn serve(&mut self, session: &mut Session, request: &Request<'_>)
    -> Result<(), ServiceProblem>;

    /// Does what is not the answer to a request that has just come: called after every round of requests, after
    /// [`Bell::ring`](super::Bell::ring), and when the time that it returned is over.
    fn attend(&mut self, sessions: &mut Sessions<'_>) -> Option<Duration> {
        let _ = sessions;
        None
    }

    /// A plugin's process is not served any more.
    fn end(&mut self, session: &Session) {
        let _ = session;
    }

    /// A plugin's process has died, and been reaped.
    fn died(&mut self, pid: u32) {
        let _ = pid;
    }
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub(in crate::host) struct Request<'a> {
    pub(in crate::host) op: u32,
    pub(in crate::host) id: u64,
    pub(in crate::host) payload: &'a [u8],
}

impl Request<'_> {
    /// That it has a payload that its operation cannot have.
    pub(in crate::host) fn malformed(&self) -> ServiceProblem {
        ServiceProblem::Payload { op: self.op, len: self.payload.len() }
    }
}

/// What the host's other threads see of a session.
#[derive(Debug)]
pub(in crate::host) struct Visit {
    /// The plugin's name.
    pub(in crate::host) plugin: String,
    /// How much it may ask of the host's store; `None` where it may not, or writes it itself.
    pub(in crate::host) quota: Option<StoreQuota>,
    /// The host's end of the plugin's post, until somebody takes it.
    post: Mutex<Option<OwnedFd>>,
    events: Arc<Events>,
    is_over: Mutex<bool>,
    over: Condvar,
}

impl Visit {
    pub(in crate::host) fn new(
        plugin: &str,
        events: &Arc<Events>,
        quota: Option<StoreQuota>,
        post: Option<OwnedFd>,
    ) -> Self {
        let (plugin, events) = (plugin.into(), Arc::clone(events));
        let (is_over, over) = (Mutex::new(false), Condvar::new());
        Self { plugin, quota, post: Mutex::new(post), events, is_over, over }
    }

    /// The host's end of the plugin's post, once.
    pub(in crate::host) fn take_post(&self) -> Option<OwnedFd> {
        self.post.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until everything that the process had asked for before it died has been seen to, for at
    /// most `timeout`.
    pub(in crate::host) fn wait_until_over(&self, timeout: Duration) {
        let is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.over.wait_timeout_while(is_over, timeout, |is_over| !*is_over));
    }

    pub(super) fn is_over(&self) {
        *self.is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.over.notify_all();
    }

    pub(super) fn report(&self, problem: ServiceProblem) {
        self.tell(HostEventKind::ServiceClosed { problem });
    }

    /// Tells the host program.
    pub(in crate::host) fn tell(&self, kind: HostEventKind) {
        self.events.report(&self.plugin, kind);
    }
}

/// See the module.
#[derive(Debug)]
pub(in crate::host) struct Session {
    pub(in crate::host) visit: Arc<Visit>,
    sender: Sender,
    serial: u64,
}

impl Session {
    pub(super) fn new(visit: Arc<Visit>, sender: Sender, serial: u64) -> Self {
        Self { visit, sender, serial }
    }

    /// A number that no other session of this server has.
    pub(in crate::host) fn serial(&self) -> u64 {
        self.serial
    }

    /// Answers a request.
    ///
    /// # Errors
    /// The plugin does not read its answers, or has damaged the channel.
    pub(in crate::host) fn reply(
        &mut self,
        request: &Request<'_>,
        status: u32,
        payload: &[u8],
    ) -> Result<(), ServiceProblem> {
        let fits = payload.len() <= MAX_REPLY_BYTES;
        let (status, payload) = if fits { (status, payload) } else { (STATUS_TOO_LONG, &[][..]) };
        let header = Header { op: request.op, status, id: request.id };
        let header = header.to_bytes();
        match self.sender.try_send_vectored(0, &[IoSlice::new(&header), IoSlice::new(payload)]) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full) => Err(ServiceProblem::NotReading),
            Err(TrySendError::Corrupt(corruption)) => Err(corruption.into()),
            // It is gone: its receiving end says so next.
            Err(_) => Ok(()),
        }
    }
}
