//! Watching for those that cannot write the segment: their host says that they are about to sleep at a bell, and
//! registers the prefixes that they watch.
//!
//! The host's service has a [`Watched`] for each process that it serves, and asks it when a request comes and when the
//! process is over. What always holds: what was done for a process, and still stands, is in its record; there is no more of
//! it than [`MAX_STANDING`] announcements and [`MAX_PREFIXES`] prefixes.
//!
//! ```text
//! request:  1 | number of the bell u32
//!           2 | how many are given back u32 | number of the log u32 each | prefix
//! answer:   whether it was announced u8
//!           number of the log u32 | its registration u64 | its changes u64; or nothing
//! ```

use std::time::Duration;

use super::request::{Malformed, take};
use super::serve::MAX_PATIENCE;
use crate::layout::store::private::bell::PUBLIC;
use crate::store::change_log::Log;
use crate::store::doorbells;
use crate::store::error::WriteError;
use crate::store::handle::Store;
use crate::store::prefixes::Entry;

/// At how many bells one process may have itself announced at a time. Each costs writers one system call.
pub(crate) const MAX_STANDING: usize = 64;

/// How many prefixes the host registers for one process at a time. Each costs writers a comparison.
pub(crate) const MAX_PREFIXES: usize = 4;

/// What a process asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WatchRequest<'a> {
    /// That it is said at a bell that somebody is about to sleep there.
    Announce(u32),
    /// That a prefix is registered, and those of these logs are no more.
    Register { given_back: Vec<u32>, prefix: &'a [u8] },
}

impl<'a> WatchRequest<'a> {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Announce(bell) => [&[1][..], &bell.to_ne_bytes()].concat(),
            Self::Register { given_back, prefix } => {
                let mut bytes = vec![2];
                bytes.extend((given_back.len() as u32).to_ne_bytes());
                bytes.extend(given_back.iter().copied().flat_map(u32::to_ne_bytes));
                bytes.extend_from_slice(prefix);
                bytes
            }
        }
    }

    pub(super) fn of(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut rest = bytes;
        let [kind] = take(&mut rest)?;
        let number = u32::from_ne_bytes(take(&mut rest)?);
        match kind {
            1 if rest.is_empty() && doorbells::exists(number) => Ok(Self::Announce(number)),
            2 => {
                let given_back: Result<_, _> =
                    (0..number).map(|_| Ok(u32::from_ne_bytes(take(&mut rest)?))).collect();
                Ok(Self::Register { given_back: given_back?, prefix: rest })
            }
            _ => Err(Malformed),
        }
    }
}

/// What was registered, as an answer: the log, and how many changes were in it.
pub(super) fn registered_to_bytes(registered: Option<(Log, u64)>) -> Vec<u8> {
    let Some((log, appended)) = registered else { return Vec::new() };
    [&log.number.to_ne_bytes()[..], &log.registration.to_ne_bytes(), &appended.to_ne_bytes()]
        .concat()
}

/// `None` where nothing was.
pub(super) fn registered_of(mut answer: &[u8]) -> Result<Option<(Log, u64)>, Malformed> {
    if answer.is_empty() {
        return Ok(None);
    }
    let number = u32::from_ne_bytes(take(&mut answer)?);
    let registration = u64::from_ne_bytes(take(&mut answer)?);
    let appended = u64::from_ne_bytes(take(&mut answer)?);
    let log = Log { number, registration };
    if log.is_of_prefix() && answer.is_empty() { Ok(Some((log, appended))) } else { Err(Malformed) }
}

/// What was done on behalf of one process.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// Bells at which it was announced.
    bells: Vec<u32>,
    prefixes: Vec<Entry>,
}

impl Watched {
    /// Does what a request asks for, and says what came of it.
    ///
    /// # Errors
    /// [`Malformed`] where these are not the bytes of a request.
    pub(crate) fn serve(&mut self, store: &Store, request: &[u8]) -> Result<Vec<u8>, Malformed> {
        match WatchRequest::of(request)? {
            WatchRequest::Announce(bell) => Ok(vec![u8::from(self.announce(store, bell))]),
            WatchRequest::Register { given_back, prefix } => {
                self.prefixes.retain(|entry| !given_back.contains(&entry.log().number));
                Ok(registered_to_bytes(self.register(store, prefix)))
            }
        }
    }

    /// Whether it was announced; not where the process has itself announced at too many others.
    fn announce(&mut self, store: &Store, bell: u32) -> bool {
        let (memory, geometry, _) = store.watched();
        if !self.bells.contains(&bell) {
            // Where it was rung since, the announcement is gone.
            self.bells.retain(|bell| doorbells::is_announced(memory, geometry, *bell));
            if self.bells.len() >= MAX_STANDING {
                return false;
            }
            self.bells.push(bell);
        }
        doorbells::announce(memory, geometry, bell, PUBLIC);
        true
    }

    fn register(&mut self, store: &Store, prefix: &[u8]) -> Option<(Log, u64)> {
        if self.prefixes.len() >= MAX_PREFIXES {
            return None;
        }
        let entry = store.writable().ok()?.register(prefix, MAX_PATIENCE)?;
        let registered = (entry.log(), entry.appended());
        self.prefixes.push(entry);
        Some(registered)
    }

    /// How many prefixes are registered for the process.
    #[cfg(test)]
    pub(super) fn prefixes(&self) -> usize {
        self.prefixes.len()
    }

    /// Takes back what still stands, so that no writer calls the system for a sleeper that is gone. Others that
    /// sleep at the same bells are woken, look, and announce themselves again.
    ///
    /// # Errors
    /// [`WriteError`] where the lock was not to be had for so long; then it can be called again.
    pub(crate) fn take_back(
        &mut self,
        store: &Store,
        patience: Duration,
    ) -> Result<(), WriteError> {
        self.prefixes.clear();
        let (memory, geometry, _) = store.watched();
        self.bells.retain(|bell| doorbells::is_announced(memory, geometry, *bell));
        if self.bells.is_empty() {
            return Ok(());
        }
        store.locked(store.deadline(patience)?, |store| {
            self.bells.drain(..).for_each(|bell| store.core().ring(bell));
            Ok(())
        })
    }

    /// Takes over what was done for another one.
    pub(crate) fn add(&mut self, other: Self) {
        self.prefixes.extend(other.prefixes);
        self.bells.extend(other.bells);
        self.bells.sort_unstable();
        self.bells.dedup();
    }
}
