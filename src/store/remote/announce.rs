//! Announcements for those that cannot write the segment: that somebody is about to sleep at a bell.
//!
//! The host's service has an [`Announced`] for each process that it serves, and asks it when a request comes and when the
//! process is over. What always holds: what was announced for a process, and still stands, is among its bells; there are no
//! more of these than [`MAX_STANDING`].

use std::time::Duration;

use super::request::Malformed;
use crate::layout::store::private::bell::PUBLIC;
use crate::store::doorbells;
use crate::store::error::WriteError;
use crate::store::handle::Store;

/// At how many bells one process may have itself announced at a time. Each costs writers one system call.
pub(crate) const MAX_STANDING: usize = 64;

/// Bells at which somebody was announced on behalf of one process.
#[derive(Debug, Default)]
pub(crate) struct Announced {
    bells: Vec<u32>,
}

impl Announced {
    /// Says at the bell that this request names that somebody is about to sleep there. Returns whether that was
    /// said; not where the process has itself announced at too many others.
    ///
    /// # Errors
    /// [`Malformed`] where these are not the bytes of a bell's number.
    pub(crate) fn announce(&mut self, store: &Store, request: &[u8]) -> Result<bool, Malformed> {
        let bell = u32::from_ne_bytes(request.try_into().map_err(|_| Malformed)?);
        if !doorbells::exists(bell) {
            return Err(Malformed);
        }
        let (memory, geometry, _) = store.watched();
        if !self.bells.contains(&bell) {
            // Where it was rung since, the announcement is gone.
            self.bells.retain(|bell| doorbells::is_announced(memory, geometry, *bell));
            if self.bells.len() >= MAX_STANDING {
                return Ok(false);
            }
            self.bells.push(bell);
        }
        doorbells::announce(memory, geometry, bell, PUBLIC);
        Ok(true)
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

    /// Takes over what was announced for another one.
    pub(crate) fn add(&mut self, other: Self) {
        self.bells.extend(other.bells);
        self.bells.sort_unstable();
        self.bells.dedup();
    }
}
