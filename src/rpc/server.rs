//! The serving side: a thread of its own, and functions by name.
//!
//! A program makes a [`Server`] of its host or of its [`Plugin`](crate::host::Plugin). What always holds:
//! a function runs on the server's thread alone, one at a time; two functions of a name do not exist; when
//! [`Server::stop`] has returned `Ok`, no function runs and none will.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use super::error::{Failure, ServeError};
use super::function::Function;
use super::inbox::{Arrival, Orders, ServerStats};
use super::request::Request;
use super::serving::{Manners, Serving};
use crate::channel::{Channel, ChannelOptions, Selector};
use crate::host::links::{Desk, Inbox, Kind, Link, LinkOptions, Registration};
use crate::os::fork;
use crate::os::random::random_u128;
use crate::sync::{Mutex, MutexGuard};
use crate::typed::{Decode, Encode};

/// Requests of one caller in a row while others wait, unless said otherwise.
const BUDGET: usize = 32;
/// How long a caller may leave answers in the way, unless said otherwise.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long dropping a server waits for a function that runs.
const DROP_WAIT: Duration = Duration::from_secs(1);
/// How long the host may take to hear of a function.
const LISTEN_WAIT: Duration = Duration::from_secs(10);
/// The channel that wakes the thread needs no room: one message is as good as many.
const BELL_BYTES: u64 = 4096;

/// A server that is about to be started.
#[must_use = "nothing is served before it is started"]
pub struct ServerBuilder {
    desk: Option<Arc<Desk>>,
    functions: Vec<(String, Function)>,
    manners: Manners,
    options: LinkOptions,
    thread_name: String,
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.functions.iter().map(|(name, _)| name).collect();
        f.debug_struct("ServerBuilder").field("functions", &names).finish_non_exhaustive()
    }
}

impl ServerBuilder {
    /// Of nobody whom others can find, where there is no desk.
    pub(crate) fn new(desk: Option<Arc<Desk>>) -> Self {
        Self {
            desk,
            functions: Vec::new(),
            manners: Manners { budget: BUDGET, patience: PATIENCE },
            options: LinkOptions::default(),
            thread_name: "ringway-rpc".into(),
        }
    }

    /// Serves a function of bytes: it returns them, or an error of its own.
    pub fn function<R: AsRef<[u8]>>(
        self,
        name: &str,
        function: impl FnMut(&Request<'_>) -> Result<R, Failure> + Send + 'static,
    ) -> Self {
        self.with(name, Function::bytes(function))
    }

    /// The same; the function writes its result to a vector, which is empty, and kept for the next call.
    pub fn function_into(
        self,
        name: &str,
        function: impl FnMut(&Request<'_>, &mut Vec<u8>) -> Result<(), Failure> + Send + 'static,
    ) -> Self {
        self.with(name, Function::into(function))
    }

    /// Serves a function of values; only callers that expect the same types can call it.
    pub fn typed<A: Decode, R: Encode>(
        self,
        name: &str,
        function: impl FnMut(A::View<'_>, &Request<'_>) -> Result<R::Value, Failure> + Send + 'static,
    ) -> Self {
        self.with(name, Function::typed::<A, R>(function))
    }

    fn with(mut self, name: &str, function: Function) -> Self {
        self.functions.push((name.into(), function));
        self
    }

    /// How many requests of one caller are carried out in a row while others wait: 32 unless said
    /// otherwise, at least one.
    pub fn budget(mut self, requests: usize) -> Self {
        self.manners.budget = requests.max(1);
        self
    }

    /// How long a caller may leave answers in the ring so that there is no room for the next: then it is
    /// let go of. 5 s unless said otherwise.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.manners.patience = patience;
        self
    }

    /// Capacity of the rings of each caller's link in bytes: a power of two. 256 KiB each way unless said
    /// otherwise.
    pub fn capacity_bytes(mut self, capacity_bytes: u64) -> Self {
        self.options.capacity_bytes = capacity_bytes;
        self
    }

    /// Longest arguments and results in bytes, a few for what goes with them included. 16 MiB unless said
    /// otherwise.
    pub fn max_message_bytes(mut self, max_message_bytes: u64) -> Self {
        self.options.max_message_bytes = max_message_bytes;
        self
    }

    /// Name of the server's thread. Without zeros; what is behind one is cut off.
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.thread_name = name.into().split('\0').next().unwrap_or_default().to_owned();
        self
    }

    /// Starts the thread, and makes the functions known.
    ///
    /// # Errors
    /// [`ServeError::Duplicate`] where two functions have one name, [`ServeError::Link`] where the host
    /// does not take one, because another process serves a function of that name, for example. Nothing is
    /// served then.
    pub fn start(self) -> Result<Server, ServeError> {
        let os = |call| move |source| ServeError::Os { call, source };
        let generation = fork::generation().map_err(os("mmap"))?;
        let identity = random_u128().map_err(os("getrandom"))? as u64;
        let bell = ChannelOptions { capacity_bytes: BELL_BYTES, ..ChannelOptions::default() };
        let (near, far) = Channel::pair(&bell).map_err(ServeError::Bell)?;
        let ((bell, unused), (_, heard)) = (near.split(), far.split());
        drop(unused);
        let orders = Arc::new(Orders::new(bell));
        let (for_thread, manners) = (Arc::clone(&orders), self.manners);
        let serve = move || {
            let mut selector = Selector::new();
            let _ = selector.add(heard);
            Serving::new(for_thread, selector, manners).run(identity);
        };
        let builder = thread::Builder::new().name(self.thread_name);
        let thread = builder.spawn(serve).map_err(os("starting the server's thread"))?;
        let server = Server {
            orders,
            identity,
            thread: thread.thread().id(),
            generation,
            desk: self.desk,
            options: self.options,
            registrations: Mutex::default(),
        };
        for (name, function) in self.functions {
            server.insert(&name, function)?;
        }
        Ok(server)
    }
}

/// Functions that other processes call. Dropping it stops it, and waits for a function that runs, for a
/// second at most.
#[derive(Debug)]
pub struct Server {
    orders: Arc<Orders>,
    identity: u64,
    thread: ThreadId,
    generation: u64,
    desk: Option<Arc<Desk>>,
    options: LinkOptions,
    /// By the functions' names.
    registrations: Mutex<HashMap<String, Registration>>,
}

/// Where callers' links arrive. All functions of a server have the same one.
impl Inbox for Orders {
    fn linked(&self, link: Link) {
        let Link { channel, peer, .. } = link;
        self.admit(Arrival { channel, caller: peer });
    }
}

impl Server {
    /// A server that no host knows of: it serves who has the other end of a channel that it is
    /// [given](Self::serve). With a host, see [`Host::rpc_server`](crate::host::Host::rpc_server).
    pub fn builder() -> ServerBuilder {
        ServerBuilder::new(None)
    }

    /// Serves who calls over the other end of this channel, with a client made by
    /// [`Client::over`](super::Client::over), and calls itself `caller`. Watch the peer before
    /// ([`Channel::watch_peer`]) where it is another process, so that its death is noticed.
    pub fn serve(&self, channel: Channel, caller: &str) {
        self.orders.admit(Arrival { channel, caller: caller.into() });
    }

    /// Serves one function more, of bytes.
    ///
    /// # Errors
    /// As [`ServerBuilder::start`]; the server goes on without it.
    pub fn add<R: AsRef<[u8]>>(
        &self,
        name: &str,
        function: impl FnMut(&Request<'_>) -> Result<R, Failure> + Send + 'static,
    ) -> Result<(), ServeError> {
        self.insert(name, Function::bytes(function))
    }

    /// Serves one function more, of values.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_typed<A: Decode, R: Encode>(
        &self,
        name: &str,
        function: impl FnMut(A::View<'_>, &Request<'_>) -> Result<R::Value, Failure> + Send + 'static,
    ) -> Result<(), ServeError> {
        self.insert(name, Function::typed::<A, R>(function))
    }

    fn insert(&self, name: &str, function: Function) -> Result<(), ServeError> {
        self.orders.add(name, function)?;
        let Some(desk) = &self.desk else { return Ok(()) };
        // The thread knows the function first: whoever finds it in the host's list can call it.
        let inbox = Arc::clone(&self.orders);
        let note = self.identity.to_ne_bytes();
        let listened = desk.listen(Kind::Rpc, name, &note, &self.options, inbox, LISTEN_WAIT);
        match listened {
            Ok(registration) => {
                self.registrations().insert(name.into(), registration);
                Ok(())
            }
            Err(source) => {
                let _ = self.orders.remove(name);
                Err(ServeError::Link { name: name.into(), source })
            }
        }
    }

    /// Serves a function no longer. Calls that are sent after this are told that it is unknown; of those
    /// that were sent before, some may be carried out.
    ///
    /// # Errors
    /// [`ServeError::Unknown`].
    pub fn remove(&self, name: &str) -> Result<(), ServeError> {
        let registration = self.registrations().remove(name);
        drop(registration);
        self.orders.remove(name)
    }

    /// Names of its functions, sorted.
    pub fn functions(&self) -> Vec<String> {
        self.orders.names()
    }

    /// What it has counted.
    pub fn stats(&self) -> ServerStats {
        self.orders.counters.read()
    }

    /// Stops when the function that runs has returned; [`Request::is_cancelled`] tells it. Calls that
    /// have not begun never do: their callers are told that the callee has gone.
    ///
    /// # Errors
    /// [`ServeError::Busy`] where a function has not returned in time: the thread ends when it does.
    pub fn stop(self, timeout: Duration) -> Result<(), ServeError> {
        self.stop_by(timeout)
    }

    /// Answers what has been asked up to now, then stops. Takes no new callers.
    ///
    /// # Errors
    /// [`ServeError::Busy`] where that was not done in time: it is stopped then.
    pub fn drain(self, timeout: Duration) -> Result<(), ServeError> {
        self.drain_by(timeout)
    }

    pub(super) fn drain_by(&self, timeout: Duration) -> Result<(), ServeError> {
        self.registrations().clear();
        if !self.is_ours() {
            return Ok(());
        }
        self.orders.drain();
        match self.orders.wait(timeout) {
            true => Ok(()),
            false => Err(ServeError::Busy { timeout }),
        }
    }

    pub(super) fn stop_by(&self, timeout: Duration) -> Result<(), ServeError> {
        // A forked child has no such thread, and a function of this server cannot wait for itself.
        if !self.is_ours() {
            return Ok(());
        }
        self.registrations().clear();
        self.orders.stop();
        if thread::current().id() == self.thread || self.orders.wait(timeout) {
            return Ok(());
        }
        Err(ServeError::Busy { timeout })
    }

    fn is_ours(&self) -> bool {
        fork::is_current(self.generation)
    }

    fn registrations(&self) -> MutexGuard<'_, HashMap<String, Registration>> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What callers name it by in a chain of calls.
    #[cfg(test)]
    pub(super) fn identity(&self) -> u64 {
        self.identity
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop_by(DROP_WAIT);
    }
}
