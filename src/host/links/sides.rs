//! How a host and a plugin come to their desks.
//!
//! [`Host`](crate::host::Host) and [`Plugin`](crate::host::Plugin) have one of these each. What always
//! holds: a desk and its thread are made with the first use, once; what could not be made is tried
//! again with the next.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::agent::{Agent, Source};
use super::desk::{Desk, Way};
use super::office::{LinkService, Mailbox, Office};
use super::{Limits, LinkError};
use crate::host::service::Client;
use crate::os::eventfd::EventFd;
use crate::os::fork;

fn os(call: &'static str) -> impl FnOnce(std::io::Error) -> LinkError {
    move |source| LinkError::Os { call, source }
}

/// The host's side: the office, and a desk of its own.
#[derive(Debug)]
pub(in crate::host) struct HostLinks {
    office: Arc<Office>,
    own: Mutex<Option<(Arc<Desk>, JoinHandle<()>)>>,
}

impl HostLinks {
    pub(in crate::host) fn new(limits: Limits) -> Self {
        Self { office: Office::new(limits), own: Mutex::default() }
    }

    /// What brings the office the requests of plugins.
    pub(in crate::host) fn service(&self) -> LinkService {
        LinkService::new(&self.office)
    }

    /// How many links there are, and how many pairs of parties that have some.
    #[cfg(test)]
    pub(in crate::host) fn census(&self) -> (usize, usize) {
        self.office.census()
    }

    fn own(&self) -> MutexGuard<'_, Option<(Arc<Desk>, JoinHandle<()>)>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host's desk.
    pub(in crate::host) fn desk(&self) -> Result<Arc<Desk>, LinkError> {
        let mut own = self.own();
        if let Some((desk, _)) = &*own {
            return Ok(Arc::clone(desk));
        }
        let generation = fork::generation().map_err(os("mmap"))?;
        let bell = EventFd::new().map_err(os("eventfd"))?;
        let mailbox = Mailbox::new(&bell);
        let party = self.office.enter_host(&mailbox);
        let desk = Desk::new(Way::Office(Arc::clone(&self.office), party), generation, bell);
        match Agent::start(&desk, Source::Mailbox(mailbox)) {
            Ok(thread) => {
                *own = Some((Arc::clone(&desk), thread));
                Ok(desk)
            }
            Err(source) => {
                self.office.leave(party);
                Err(LinkError::Os { call: "starting the links' thread", source })
            }
        }
    }

    /// The host ends: all links of it, and all links of plugins that still run, are over.
    pub(in crate::host) fn close(&self) {
        let own = self.own().take();
        if let Some((desk, thread)) = own {
            desk.stop();
            // An inbox may have been what dropped the host.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
        self.office.close();
    }
}

/// A plugin's side.
#[derive(Debug)]
pub(in crate::host) struct PluginLinks {
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// The host does not link processes.
    None,
    /// Nobody has asked for the desk yet.
    Post(OwnedFd),
    Desk(Arc<Desk>),
}

impl PluginLinks {
    pub(in crate::host) fn new(post: Option<OwnedFd>) -> Self {
        Self { state: Mutex::new(post.map_or(State::None, State::Post)) }
    }

    /// The post, for a test that reads it itself.
    #[cfg(test)]
    pub(in crate::host) fn raw_post(&self) -> OwnedFd {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Post(socket) => socket.try_clone().unwrap(),
            _ => panic!("somebody reads it already"),
        }
    }

    /// The plugin's desk.
    pub(in crate::host) fn desk(&self, service: &Arc<Client>) -> Result<Arc<Desk>, LinkError> {
        // Before the lock, which a thread may have held that a forked child has not.
        if !service.is_ours() {
            return Err(LinkError::Forked);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = match &*state {
            State::None => return Err(LinkError::NotServed),
            State::Desk(desk) => return Ok(Arc::clone(desk)),
            State::Post(socket) => socket.try_clone().map_err(os("dup"))?,
        };
        let generation = fork::generation().map_err(os("mmap"))?;
        let bell = EventFd::new().map_err(os("eventfd"))?;
        let desk = Desk::new(Way::Service(Arc::clone(service)), generation, bell);
        Agent::start(&desk, Source::Post(socket)).map_err(os("starting the links' thread"))?;
        *state = State::Desk(Arc::clone(&desk));
        Ok(desk)
    }
}
