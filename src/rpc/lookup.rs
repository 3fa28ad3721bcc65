//! What a client has looked up: functions, and links with those who serve them.
//!
//! [`Client`](super::Client) and its handles share one [`Shared`]. What always holds: a name is looked up
//! once for each link, and again when the callee has been restarted or the function has moved; nothing
//! that was sent is sent a second time; there is one link with each server.

use std::any::type_name;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use super::error::{Breach, CallError};
use super::fault::{End, Fault, judge};
use super::frame::{CALL, RESOLVE, RESOLVED, Target, Types, UNKNOWN, WRONG_TYPES, two_words};
use super::line::Line;
use super::outgoing::{Clock, Outgoing, Pauses};
use super::pending::PendingCall;
use crate::host::links::{Link, LinkError};
use crate::sync::{Mutex, MutexGuard};
use crate::typed::{Decode, Encode};

/// How links with servers are made.
pub(super) trait Connect: Send + Sync + fmt::Debug {
    /// A link with whoever serves this function; [`LinkError::Linked`] where there is one already.
    fn connect(&self, function: &str, timeout: Duration) -> Result<Link, LinkError>;

    /// Whether there is one link and no other.
    fn is_single(&self) -> bool {
        false
    }
}

/// How often to look for what is not there yet.
pub(super) const LOOKS: Duration = Duration::from_millis(2);

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    connector: Box<dyn Connect>,
    /// By the links' numbers.
    lines: Mutex<Vec<(u64, Arc<Line>)>>,
    /// What [`Client::call`](super::Client::call) has looked up.
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
    /// The types' names, for errors.
    type_names: [fn() -> &'static str; 2],
}

impl<'a> Named<'a> {
    pub(super) fn bytes(name: &'a str) -> Self {
        Self { name, types: Types::default(), type_names: [|| "bytes"; 2] }
    }

    pub(super) fn typed<A: Encode, R: Decode>(name: &'a str) -> Self {
        let (arguments, result) = (A::FINGERPRINT, R::FINGERPRINT);
        let type_names = [type_name::<A::Value> as fn() -> &'static str, type_name::<R::Value>];
        Self { name, types: Types { arguments, result }, type_names }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
    pub(super) fn new(connector: Box<dyn Connect>) -> Self {
        let (lines, known) = (Mutex::default(), RwLock::default());
        Self { connector, lines, known }
    }

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

    /// Calls it as it is known, and keeps what was found out about it.
    pub(super) fn call_by_name<T>(
        &self,
        named: Named<'_>,
        arguments: &[u8],
        timeout: Duration,
        take: impl FnMut(&[u8]) -> T,
    ) -> Result<T, CallError> {
        let mut known = self.known(named);
        let place = |known: &Known| (Arc::as_ptr(&known.line), known.target);
        let before = known.as_ref().map(place);
        let result = self.call(&mut known, named, arguments, timeout, take);
        if let Some(known) = known
            && before != Some(place(&known))
        {
            self.keep(named, known);
        }
        result
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

    pub(super) fn resolve(&self, named: Named<'_>, clock: &mut Clock) -> Result<Known, Fault> {
        let Named { name, types, type_names } = named;
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
                let [arguments, result] = type_names.map(|name| name());
                let expected = words;
                Err(CallError::WrongTypes { name, arguments, result, found, expected }.into())
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
