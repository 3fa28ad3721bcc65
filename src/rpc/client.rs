//! The calling side.
//!
//! A program has a [`Client`] of its host or of its [`Plugin`](crate::host::Plugin) and calls functions by
//! name, from any thread. What always holds: a call ends by its deadline; a name is looked up once for
//! each link, and again when the callee has been restarted or the function has moved; nothing that was
//! sent is sent a second time.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use rkyv::util::AlignedVec;

use super::error::{Breach, CallError};
use super::fault::{End, Fault};
use super::frame::{CALL, RESOLVE, RESOLVED, Target, Types, UNKNOWN, WRONG_TYPES, two_words};
use super::handle::{Function, TypedFunction};
use super::line::{Line, judge};
use super::outgoing::{Clock, Outgoing, Pauses};
use super::pending::{PendingCall, TypedPendingCall};
use crate::channel::Channel;
use crate::host::links::{Link, LinkError};
use crate::sync::{Mutex, MutexGuard};
use crate::typed::{Decode, DecodeOwned, Encode};

/// How links with servers are made.
pub(super) trait Connect: Send + Sync + fmt::Debug {
    /// A link with whoever serves this function; [`LinkError::Linked`] where there is one already.
    fn connect(&self, function: &str, timeout: Duration) -> Result<Link, LinkError>;

    /// Whether there is one link and no other.
    fn is_single(&self) -> bool {
        false
    }
}

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

/// How often to look for what is not there yet.
const LOOKS: Duration = Duration::from_millis(2);

/// Calls functions that other processes serve. Clones share their links.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    connector: Box<dyn Connect>,
    /// By the links' numbers.
    lines: Mutex<Vec<(u64, Arc<Line>)>>,
    /// What [`Client::call`] has looked up.
    known: RwLock<HashMap<String, Vec<Known>>>,
}

/// A function that was looked up.
#[derive(Debug, Clone)]
pub(super) struct Known {
    line: Arc<Line>,
    target: Target,
    types: Types,
}

/// What to call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'a> {
    name: &'a str,
    types: Types,
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
        let (lines, known) = (Mutex::default(), RwLock::default());
        Self { shared: Arc::new(Shared { connector, lines, known }) }
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
        self.call_by_name(Named::bytes(name), arguments, timeout, <[u8]>::to_vec)
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
        self.call_by_name(Named::typed::<A, R>(name), bytes, timeout, take)?;
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

    fn call_by_name<T>(
        &self,
        named: Named<'_>,
        arguments: &[u8],
        timeout: Duration,
        take: impl FnMut(&[u8]) -> T,
    ) -> Result<T, CallError> {
        let mut known = self.shared.known(named);
        let place = |known: &Known| (Arc::as_ptr(&known.line), known.target);
        let before = known.as_ref().map(place);
        let result = self.shared.call(&mut known, named, arguments, timeout, take);
        if let Some(known) = known
            && before != Some(place(&known))
        {
            self.shared.keep(named, known);
        }
        result
    }
}

impl<'a> Named<'a> {
    pub(super) fn bytes(name: &'a str) -> Self {
        Self { name, types: Types::default() }
    }

    pub(super) fn typed<A: Encode, R: Decode>(name: &'a str) -> Self {
        let (arguments, result) = (A::FINGERPRINT, R::FINGERPRINT);
        Self { name, types: Types { arguments, result } }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets go of links that are over.
fn clear(lines: &mut Vec<(u64, Arc<Line>)>) {
    lines.retain(|(_, line)| {
        if line.is_over() {
            line.close();
        }
        !line.is_over()
    });
}

impl Known {
    #[inline]
    fn request<'a>(&self, arguments: &'a [u8]) -> Outgoing<'a> {
        let last = Some(self.target.pack(0));
        Outgoing { tag: CALL, payload: arguments, words: &[], last }
    }

    #[inline]
    fn call<T>(
        &self,
        arguments: &[u8],
        clock: &mut Clock,
        take: &mut impl FnMut(&[u8]) -> T,
    ) -> Result<T, Fault> {
        let take = &mut |tag, payload: &[u8]| judge(tag, payload).map(&mut *take);
        let result = self.line.ask(&self.request(arguments), clock, take)?;
        result.inspect_err(|fault| self.line.blame(fault))
    }
}

impl Shared {
    fn known(&self, named: Named<'_>) -> Option<Known> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(named.name)?.iter().find(|known| known.types == named.types).cloned()
    }

    fn keep(&self, named: Named<'_>, new: Known) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(named.name.into()).or_default();
        known.retain(|known| known.types != named.types);
        known.push(new);
    }

    #[inline]
    pub(super) fn call<T>(
        &self,
        known: &mut Option<Known>,
        named: Named<'_>,
        arguments: &[u8],
        timeout: Duration,
        mut take: impl FnMut(&[u8]) -> T,
    ) -> Result<T, CallError> {
        let mut clock = Clock::new(timeout);
        if let Some(known) = known {
            match known.call(arguments, &mut clock, &mut take) {
                Ok(result) => return Ok(result),
                // Neither was carried out.
                Err(Fault::Unknown | Fault::NotSent(_)) => {}
                Err(fault) => return Err(fault.of(named.name, timeout)),
            }
        }
        let call = |known: &Known, clock: &mut Clock| known.call(arguments, clock, &mut take);
        self.anew(known, named, &mut clock, call)
    }

    pub(super) fn start(
        &self,
        known: &mut Option<Known>,
        named: Named<'_>,
        arguments: &[u8],
        timeout: Duration,
    ) -> Result<PendingCall, CallError> {
        let mut clock = Clock::new(timeout);
        if known.is_none() {
            *known = self.known(named);
        }
        let start = |known: &Known, clock: &mut Clock| {
            let id = known.line.start(&known.request(arguments), clock)?;
            Ok(PendingCall::new(Arc::clone(&known.line), id, named.name))
        };
        if let Some(known) = known {
            match start(known, &mut clock) {
                Ok(pending) => return Ok(pending),
                Err(Fault::NotSent(_)) => {}
                Err(fault) => return Err(fault.of(named.name, timeout)),
            }
        }
        let pending = self.anew(known, named, &mut clock, start)?;
        if let Some(known) = known {
            self.keep(named, known.clone());
        }
        Ok(pending)
    }

    /// Looks the function up, then does this with it: once more where the server has gone in between.
    #[cold]
    fn anew<T>(
        &self,
        known: &mut Option<Known>,
        named: Named<'_>,
        clock: &mut Clock,
        mut each: impl FnMut(&Known, &mut Clock) -> Result<T, Fault>,
    ) -> Result<T, CallError> {
        *known = None;
        let (timeout, mut pauses) = (clock.timeout, Pauses::default());
        loop {
            let found = self.resolve(named, clock).and_then(|new| {
                let result = each(&new, clock);
                *known = Some(new);
                result
            });
            match found {
                Ok(found) => return Ok(found),
                // Who dies, or closes, each time it is asked gets no flood of links.
                Err(Fault::NotSent(End::Died)) if !clock.left().is_zero() => {
                    *known = None;
                    pauses.pause(clock);
                }
                Err(fault) => return Err(fault.of(named.name, timeout)),
            }
        }
    }

    fn resolve(&self, named: Named<'_>, clock: &mut Clock) -> Result<Known, Fault> {
        let Named { name, types } = named;
        let line = self.line(name, clock)?;
        let words = [types.arguments, types.result];
        let payload = name.as_bytes();
        let question = Outgoing { tag: RESOLVE, payload, words: &words, last: None };
        let target = line.ask(&question, clock, &mut |tag, payload| match (
            tag,
            two_words(payload),
            <[u8; 8]>::try_from(payload).map(u64::from_ne_bytes),
        ) {
            (RESOLVED, _, Ok(target)) if Target::of(target).is_some() => Ok(target),
            (UNKNOWN, ..) if payload.is_empty() => Err(Fault::Unknown),
            (WRONG_TYPES, Some(found), _) => {
                let name = name.to_owned();
                Err(CallError::WrongTypes { name, found, expected: words }.into())
            }
            _ => Err(CallError::Broken(Breach::NoAnswer { tag, len: payload.len() }).into()),
        });
        let target = match target {
            Ok(answer) => answer.inspect_err(|fault| line.blame(fault))?,
            // It has begun nothing: what it did not answer can be asked again.
            Err(Fault::Other(CallError::Died)) => return Err(Fault::NotSent(End::Died)),
            Err(fault) => return Err(fault),
        };
        let target = Target::of(target).ok_or(Fault::Unknown)?;
        Ok(Known { line, target, types })
    }

    /// The link with who serves this function.
    fn line(&self, name: &str, clock: &mut Clock) -> Result<Arc<Line>, Fault> {
        loop {
            match self.connector.connect(name, clock.left()) {
                Ok(link) => return self.enter(link),
                Err(LinkError::Linked { id }) => {
                    let mut lines = lock(&self.lines);
                    clear(&mut lines);
                    if let Some((_, line)) = lines.iter().find(|(other, _)| *other == id) {
                        return Ok(Arc::clone(line));
                    }
                    drop(lines);
                    if self.connector.is_single() {
                        return Err(CallError::Link(LinkError::PartnerGone).into());
                    }
                    // The host has not heard yet that we have let go of it.
                    if clock.left().is_zero() {
                        return Err(CallError::Link(LinkError::Linked { id }).into());
                    }
                    thread::sleep(LOOKS.min(clock.left()));
                }
                Err(LinkError::Unknown { .. }) => return Err(Fault::Unknown),
                Err(LinkError::Forked) => return Err(CallError::Forked.into()),
                Err(error) => return Err(CallError::Link(error).into()),
            }
        }
    }

    fn enter(&self, link: Link) -> Result<Arc<Line>, Fault> {
        let Ok(server) = <[u8; 8]>::try_from(&link.note[..]) else {
            let breach = Breach::NoAnswer { tag: 0, len: link.note.len() };
            return Err(CallError::Broken(breach).into());
        };
        let line = Line::new(link.channel, u64::from_ne_bytes(server));
        let os = |source| CallError::Link(LinkError::Os { call: "mmap", source });
        let line = Arc::new(line.map_err(os)?);
        let mut lines = lock(&self.lines);
        clear(&mut lines);
        lines.push((link.id, Arc::clone(&line)));
        Ok(line)
    }
}
