//! A registered channel: whoever opens it gets a channel with this process.
//!
//! [`Host::register_channel`](crate::host::Host::register_channel) makes it. What always holds:
//! channels are accepted in the order in which they came about; one that nobody accepts can be
//! written and is full some time; when the listener is dropped, those are closed.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;

use super::{PATIENCE, Ticket, link_options};
use crate::channel::{Channel, ChannelOptions};
use crate::host::links::{Desk, Inbox, Kind, Link, LinkError, Registration};
use crate::os::fork;

/// A name under which others open channels with this process. Dropping it gives the name back;
/// channels that have been accepted stay.
#[derive(Debug)]
pub struct ChannelListener {
    // Dropped before what has arrived is.
    _registration: Registration,
    arrivals: Arc<Arrivals>,
    ticket: Option<Ticket>,
    /// The fork generation it was made in.
    generation: u64,
}

/// Why no channel was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// Nobody has opened the channel in time.
    #[error(
        "no process opened the channel within {timeout:?}; wait longer, or start the other process"
    )]
    Timeout {
        /// How long there was.
        timeout: Duration,
    },
    /// Nobody will: the host is gone, or ends, or does not serve this process any more.
    #[error(
        "no process will open the channel: the host has ended, or serves this process no longer; drop the listener"
    )]
    Closed,
    /// The process has forked since.
    #[error(
        "the listener belongs to the process that this one was forked from; connect this process to the host by itself"
    )]
    Forked,
}

#[derive(Debug, Default)]
struct Arrivals {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    links: VecDeque<Link>,
    closed: bool,
}

impl Arrivals {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox for Arrivals {
    fn linked(&self, link: Link) {
        self.state().links.push_back(link);
        self.changed.notify_one();
    }

    fn closed(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }
}

impl ChannelListener {
    pub(super) fn new(
        desk: &Arc<Desk>,
        name: &str,
        options: &ChannelOptions,
    ) -> Result<Self, LinkError> {
        let os = |source| LinkError::Os { call: "mmap", source };
        let generation = fork::generation().map_err(os)?;
        let arrivals = Arc::<Arrivals>::default();
        let inbox = Arc::clone(&arrivals) as Arc<dyn Inbox>;
        let options = link_options(options);
        let registration = desk.listen(Kind::Channel, name, &[], &options, inbox, PATIENCE)?;
        Ok(Self { _registration: registration, arrivals, ticket: None, generation })
    }

    pub(super) fn unnamed(desk: &Arc<Desk>, options: &ChannelOptions) -> Result<Self, LinkError> {
        let ticket = Ticket::draw()?;
        let listener = Self::new(desk, &ticket.name(), options)?;
        Ok(Self { ticket: Some(ticket), ..listener })
    }

    /// By which the channel can be opened, where it has no name.
    pub fn ticket(&self) -> Option<Ticket> {
        self.ticket
    }

    /// The next channel that somebody has opened, waiting for it for at most `timeout`.
    ///
    /// # Errors
    /// [`AcceptError`].
    pub fn accept(&self, timeout: Duration) -> Result<Channel, AcceptError> {
        self.accept_from(timeout).map(|(channel, _)| channel)
    }

    /// As [`accept`](Self::accept); and the name of the plugin that has opened it, by the host's word,
    /// `None` where it is the host program.
    ///
    /// # Errors
    /// As there.
    pub fn accept_from(&self, timeout: Duration) -> Result<(Channel, Option<String>), AcceptError> {
        // Before the lock, which a thread may have held that a forked child has not.
        if !fork::is_current(self.generation) {
            return Err(AcceptError::Forked);
        }
        let nothing = |state: &mut State| state.links.is_empty() && !state.closed;
        let waited =
            self.arrivals.changed.wait_timeout_while(self.arrivals.state(), timeout, nothing);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.links.pop_front() {
            Some(Link { channel, peer, .. }) => {
                Ok((channel, Some(peer).filter(|peer| !peer.is_empty())))
            }
            None if state.closed => Err(AcceptError::Closed),
            None => Err(AcceptError::Timeout { timeout }),
        }
    }
}
