//! The calling side.
//!
//! A program has a [`Client`] of its host or of its [`Plugin`](crate::host::Plugin) and calls functions by
//! name, from any thread. What always holds: a call ends by its deadline, with a result or with an error
//! that says what is known of it; clones of a client share what it has looked up.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rkyv::util::AlignedVec;

use super::error::CallError;
use super::fault::Fault;
use super::handle::{Function, TypedFunction};
use super::lookup::{Connect, LOOKS, Named, Shared, lock};
use super::outgoing::{Clock, Pauses};
use super::pending::{PendingCall, TypedPendingCall};
use crate::channel::Channel;
use crate::host::links::{Link, LinkError};
use crate::sync::Mutex;
use crate::typed::{Decode, DecodeOwned, Encode};

/// The one link over a channel that somebody else has made.
#[derive(Debug)]
struct Given(Mutex<Option<Channel>>);

impl Connect for Given {
    fn connect(&self, _: &str, _: Duration) -> Result<Link, LinkError> {
        let channel = lock(&self.0).take().ok_or(LinkError::Linked { id: 0 })?;
        // Who serves is not known: no chain of calls names it.
        let (peer, note) = (String::new(), vec![0; 8]);
        Ok(Link { id: 0, channel, peer, note })
    }

    fn is_single(&self) -> bool {
        true
    }
}

/// Calls functions that other processes serve. Clones share their links.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Calls functions of the server that [serves](super::Server::serve) the other end of this channel.
    /// When that is over, so is the client: it makes no other link. A call in a circle over such clients is
    /// not noticed before it times out. With a host, see
    /// [`Host::rpc_client`](crate::host::Host::rpc_client).
    ///
    /// ```
    /// use std::time::Duration;
    /// use ringway::channel::{Channel, ChannelOptions};
    /// use ringway::rpc::{Client, Server};
    /// use ringway::typed::Pod;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (near, far) = Channel::pair(&ChannelOptions::default())?;
    /// let server = Server::builder()
    ///     .typed::<Pod<[u64; 2]>, Pod<u64>>("add", |[a, b], _| {
    ///         a.checked_add(b).ok_or_else(|| "too much".into())
    ///     })
    ///     .function("upper", |request| Ok(request.to_ascii_uppercase()))
    ///     .start()?;
    /// server.serve(far, "me");
    /// let client = Client::over(near);
    /// let second = Duration::from_secs(1);
    /// assert_eq!(client.call("upper", b"text", second)?, b"TEXT");
    /// assert_eq!(client.call_typed::<Pod<[u64; 2]>, Pod<u64>>("add", &[1, 2], second)?, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn over(channel: Channel) -> Self {
        Self::with(Box::new(Given(Mutex::new(Some(channel)))))
    }

    pub(super) fn with(connector: Box<dyn Connect>) -> Self {
        Self { shared: Arc::new(Shared::new(connector)) }
    }

    /// Calls a function of bytes, for at most `timeout` in all. A program that calls the same one often
    /// has a [`Function`] of it. With the first call of a name, and the first after a restart, the server's
    /// thread is asked for it, which waits its turn as a call does.
    ///
    /// # Errors
    /// [`CallError`] says what is known of the call.
    pub fn call(
        &self,
        name: &str,
        arguments: &[u8],
        timeout: Duration,
    ) -> Result<Vec<u8>, CallError> {
        self.shared.call_by_name(Named::bytes(name), arguments, timeout, <[u8]>::to_vec)
    }

    /// Calls a function of values.
    ///
    /// # Errors
    /// As [`call`](Self::call); [`CallError::WrongTypes`] where the function is of others.
    pub fn call_typed<A: Encode, R: DecodeOwned>(
        &self,
        name: &str,
        arguments: &A::Value,
        timeout: Duration,
    ) -> Result<R::Value, CallError> {
        let mut scratch = AlignedVec::new();
        let bytes = A::encode(arguments, &mut scratch).map_err(|_| CallError::Encode)?;
        let mut result = AlignedVec::<64>::new();
        let take = |bytes: &[u8]| result.extend_from_slice(bytes);
        self.shared.call_by_name(Named::typed::<A, R>(name), bytes, timeout, take)?;
        R::decode(&result).and_then(R::to_value).map_err(CallError::InvalidResult)
    }

    /// Begins a call whose result is fetched later, waiting for room for at most `timeout`. So many calls
    /// as one likes, up to a thousand for each server, are under way at a time. Dropping the
    /// [`PendingCall`] takes the call back.
    ///
    /// # Errors
    /// As [`call`](Self::call); the function is not carried out then.
    pub fn start(
        &self,
        name: &str,
        arguments: &[u8],
        timeout: Duration,
    ) -> Result<PendingCall, CallError> {
        let mut known = None;
        self.shared.start(&mut known, Named::bytes(name), arguments, timeout)
    }

    /// The same for a function of values.
    ///
    /// # Errors
    /// As there, and as [`call_typed`](Self::call_typed).
    pub fn start_typed<A: Encode, R: DecodeOwned>(
        &self,
        name: &str,
        arguments: &A::Value,
        timeout: Duration,
    ) -> Result<TypedPendingCall<R>, CallError> {
        let mut scratch = AlignedVec::new();
        let bytes = A::encode(arguments, &mut scratch).map_err(|_| CallError::Encode)?;
        let named = Named::typed::<A, R>(name);
        Ok(TypedPendingCall::new(self.shared.start(&mut None, named, bytes, timeout)?))
    }

    /// A function of bytes, to be called often. Nobody is asked yet.
    pub fn function(&self, name: &str) -> Function {
        Function::new(Arc::clone(&self.shared), name)
    }

    /// A function of values, to be called often. Nobody is asked yet.
    pub fn typed_function<A: Encode, R: Decode>(&self, name: &str) -> TypedFunction<A, R> {
        TypedFunction::new(Arc::clone(&self.shared), name)
    }

    /// Waits until somebody serves a function of this name, for a callee that is being started.
    ///
    /// # Errors
    /// As [`call`](Self::call); [`CallError::Unknown`] where nobody did in time.
    pub fn wait_for(&self, name: &str, timeout: Duration) -> Result<(), CallError> {
        let (mut clock, mut pauses) = (Clock::new(timeout), Pauses::default());
        loop {
            match self.shared.resolve(Named::bytes(name), &mut clock) {
                Ok(_) | Err(Fault::Other(CallError::WrongTypes { .. })) => return Ok(()),
                Err(Fault::Unknown) if !clock.left().is_zero() => {
                    thread::sleep(LOOKS.min(clock.left()));
                }
                Err(Fault::NotSent(_)) if !clock.left().is_zero() => pauses.pause(&mut clock),
                Err(fault) => return Err(fault.of(name, clock.timeout)),
            }
        }
    }
}
