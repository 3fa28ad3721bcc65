//! The host's office: the broker, and how its parties are reached.
//!
//! The server's thread brings what plugins ask for, the host's own desk comes by itself. What always
//! holds: a process of a plugin is a party from when it is served until it is not; the office waits
//! for no party, only for the time that another one's request takes.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::broker::{Broker, Limits, Malformed, Outlet, PartyId, Posted};
use super::wire::Letter;
use crate::host::event::HostEventKind;
use crate::host::service::{Reply, Request, Service, ServiceProblem, Session, Visit};
use crate::os::eventfd::EventFd;
use crate::os::post;

/// See the module.
#[derive(Debug)]
pub(in crate::host) struct Office {
    broker: Mutex<Broker>,
}

impl Office {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { broker: Mutex::new(Broker::new(limits)) })
    }

    fn broker(&self) -> MutexGuard<'_, Broker> {
        self.broker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host itself, whose letters come to `mailbox`.
    pub(super) fn enter_host(&self, mailbox: &Arc<Mailbox>) -> PartyId {
        self.broker().enter("", Box::new(Arc::clone(mailbox)))
    }

    pub(super) fn leave(&self, party: PartyId) {
        self.broker().leave(party);
    }

    /// How many links there are, and how many pairs of parties that have some.
    #[cfg(test)]
    pub(super) fn census(&self) -> (usize, usize) {
        self.broker().census()
    }

    /// No party is one any more.
    pub(super) fn close(&self) {
        self.broker().close();
    }

    pub(super) fn handle(
        &self,
        party: PartyId,
        op: u32,
        payload: &[u8],
    ) -> Result<Reply, Malformed> {
        self.broker().handle(party, op, payload)
    }
}

/// Brings the office what plugins ask for.
#[derive(Debug)]
pub(in crate::host) struct LinkService {
    office: Arc<Office>,
    /// By the session's serial number.
    parties: HashMap<u64, PartyId>,
}

impl LinkService {
    pub(in crate::host) fn new(office: &Arc<Office>) -> Self {
        Self { office: Arc::clone(office), parties: HashMap::new() }
    }
}

impl Service for LinkService {
    fn begin(&mut self, session: &Session) {
        if let Some(socket) = session.visit.take_post() {
            let visit = Arc::clone(&session.visit);
            let outlet = Box::new(PostBox { socket, visit });
            let party = self.office.broker().enter(&session.visit.plugin, outlet);
            self.parties.insert(session.serial(), party);
        }
    }

    fn serve(
        &mut self,
        session: &mut Session,
        request: &Request<'_>,
    ) -> Result<(), ServiceProblem> {
        // No party has the number 0.
        let party = self.parties.get(&session.serial()).copied().unwrap_or(0);
        let reply = self.office.handle(party, request.op, request.payload);
        let reply = reply.map_err(|Malformed| request.malformed())?;
        session.reply(request, reply.status, &reply.payload)
    }

    fn end(&mut self, session: &Session) {
        if let Some(party) = self.parties.remove(&session.serial()) {
            self.office.leave(party);
        }
    }
}

/// The host's end of a plugin's post.
#[derive(Debug)]
struct PostBox {
    socket: OwnedFd,
    visit: Arc<Visit>,
}

impl Outlet for PostBox {
    fn post(&self, letter: &Letter, descriptor: Option<OwnedFd>) -> Posted {
        let descriptor = descriptor.as_ref().map(AsFd::as_fd);
        match post::send(self.socket.as_fd(), &letter.to_bytes(), descriptor) {
            Ok(()) => Posted::Sent,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => Posted::Full,
                io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::NotConnected => Posted::Gone,
                _ => Posted::Failed,
            },
        }
    }

    fn close(&self, unheard: bool) {
        // Copies of the socket may be open in children that the host program has forked.
        post::end(self.socket.as_fd());
        if unheard {
            self.visit.tell(HostEventKind::LinksClosed);
        }
    }
}

/// The host's own letters.
#[derive(Debug)]
pub(super) struct Mailbox {
    letters: Mutex<VecDeque<(Letter, Option<OwnedFd>)>>,
    /// Raised with each letter.
    bell: EventFd,
}

impl Mailbox {
    pub(super) fn new(bell: &EventFd) -> Arc<Self> {
        Arc::new(Self { letters: Mutex::default(), bell: bell.clone() })
    }

    pub(super) fn next(&self) -> Option<(Letter, Option<OwnedFd>)> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl Outlet for Arc<Mailbox> {
    fn post(&self, letter: &Letter, descriptor: Option<OwnedFd>) -> Posted {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        letters.push_back((letter.clone(), descriptor));
        self.bell.raise();
        Posted::Sent
    }

    fn close(&self, _unheard: bool) {}
}
