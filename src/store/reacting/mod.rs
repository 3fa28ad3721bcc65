//! Reactions: callbacks that are called when a key, or any key with a prefix, has changed.
//!
//! [`Store::on_change`] starts one on a thread of its own; [`Reaction`] has the options, [`ReactionDispatcher`] is a thread
//! for many. What always holds: no change is missed, though several may be told as one; a callback that fails or panics is
//! reported, and called again at the next change; one that was stopped is not called any more.
//!
//! | file | what it holds |
//! |---|---|
//! | `callback` | a callback, calling it, what there is to report |
//! | `own` | one thread for one reaction |
//! | `together` | one thread for many |
//! | `handle` | what users hold of a reaction that runs |

mod callback;
mod handle;
mod own;
#[cfg(test)]
mod tests;
mod together;

use std::fmt;
use std::io;
use std::time::Duration;

use thiserror::Error;

use super::error::{HandleError, ReadError};
use super::handle::Store;
use super::interest::OneKey;
use super::interests::One;
use super::watch::{Change, POLL_NS};
use super::watching::{WatchError, check_key};
use crate::callback::CallbackResult;
use callback::{Call, Caller};

pub use callback::{ReactionReport, ReactionStats};
pub use handle::{Reacting, ReactionStopError};
pub use together::ReactionDispatcher;

/// Why a reaction was not started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReactionError {
    /// The key cannot be watched, or the store not be looked at.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// There is no handle of the store for the thread.
    #[error("the reaction's thread needs a handle of the store, which cannot be had: {0}")]
    Handle(#[from] HandleError),
    /// The dispatcher was made for another store, or for another mapping of this one.
    #[error(
        "the dispatcher was made for another store, or another mapping of this one; use one made with a clone of this handle"
    )]
    OtherStore,
    /// The process has forked since the dispatcher was made; its thread is the parent's.
    #[error(
        "the dispatcher belongs to the process that this one was forked from; make one in this process"
    )]
    Forked,
    /// There is no thread to be had.
    #[error("the reaction's thread could not be started: {0}")]
    Thread(#[source] io::Error),
}

impl From<ReadError> for ReactionError {
    fn from(error: ReadError) -> Self {
        Self::Watch(error.into())
    }
}

/// A reaction that is about to be started. See [`Store::reaction`].
#[must_use = "nothing is watched before it is started"]
pub struct Reaction<'a> {
    store: &'a Store,
    to: To,
    caller: Caller,
    poll_ns: u64,
}

#[derive(Debug)]
enum To {
    Key(Vec<u8>),
    Prefix(Vec<u8>),
}

impl fmt::Debug for Reaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reaction").field("to", &self.to).finish_non_exhaustive()
    }
}

impl Reaction<'_> {
    /// Who is told of errors, panics, and that the store cannot be looked at. Called on the thread of the callback; it
    /// should be short. Without any, reports are counted only ([`Reacting::stats`]).
    pub fn report(mut self, hook: impl Fn(&ReactionReport<'_>) + Send + Sync + 'static) -> Self {
        self.caller.set_hook(hook);
        self
    }

    /// As [`Watch::set_poll_interval`](super::Watch::set_poll_interval): how often to look where no writer can be asked for
    /// a wakeup. On a dispatcher, the shortest of all its reactions counts.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        self
    }

    /// Starts a thread for it. Every change from now on is told: read the key after this, not before.
    ///
    /// The thread has a [clone](Store::try_clone) of the handle, and so, where the store is mapped for writing, one of
    /// [`max_readers`](super::StoreOptions::max_readers).
    ///
    /// # Errors
    /// [`ReactionError`].
    pub fn start(self) -> Result<Reacting, ReactionError> {
        let (one, store) = (self.one()?, self.store.try_clone()?);
        own::start(store, one, self.caller, self.poll_ns)
    }

    /// Has a thread do it that others share. A callback that does not return holds up all of them.
    ///
    /// # Errors
    /// [`ReactionError::OtherStore`] where the dispatcher was not made with this handle, or one that it was cloned from or
    /// to; [`ReactionError`].
    pub fn start_on(self, dispatcher: &ReactionDispatcher) -> Result<Reacting, ReactionError> {
        dispatcher.check(self.store)?;
        let one = self.one()?;
        Ok(dispatcher.bring(one, self.caller, self.poll_ns))
    }

    /// What is watched, from now on.
    fn one(&self) -> Result<One, ReactionError> {
        Ok(match &self.to {
            To::Key(key) => {
                One::Key(OneKey::new(self.store, self.store.watched().1, check_key(key)?)?)
            }
            To::Prefix(prefix) => self.store.interest_in_prefix(prefix)?,
        })
    }
}

impl Store {
    /// Calls `callback` whenever the key has changed, from now on, on a thread of its own. Dropping what this returns
    /// ends it.
    ///
    /// The callback gets a handle of the store, the thread's own, and what has changed: the key, and the version that its value
    /// had when the change was found. It reads the value by itself, with the handle: a newer one perhaps, whose own change is
    /// told next. Changes that come while the callback runs, or before it was called, are told as one, with the last
    /// version; none is missed, whoever made it and however he died: at once, or within 250 ms where a writer was killed before it
    /// could wake anybody. The callback may write too, also the key itself, of which it is told then.
    ///
    /// The same calls work on every handle: one that writes, one that writes through a host, and one that is read-only,
    /// which looks every 10 ms, if nobody else sleeps.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use ringway::store::{Change, Store, StoreOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = Store::anonymous(&StoreOptions { capacity_bytes: 1 << 20, ..Default::default() })?;
    /// let (tell, told) = mpsc::channel();
    /// let reacting = store.on_change("motd", move |store: &Store, change: &Change| {
    ///     let value = store.get(&change.key)?;
    ///     tell.send(value.map(|value| value.to_vec()))?;
    ///     Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    /// })?;
    /// store.set("motd", b"hello")?;
    /// assert_eq!(told.recv()?.as_deref(), Some(&b"hello"[..]));
    /// reacting.stop()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ReactionError`].
    pub fn on_change<R: CallbackResult>(
        &self,
        key: impl AsRef<[u8]>,
        callback: impl FnMut(&Store, &Change) -> R + Send + 'static,
    ) -> Result<Reacting, ReactionError> {
        self.reaction(key, callback).start()
    }

    /// As [`on_change`](Self::on_change), for every key that begins with `prefix`: one call for each key that has changed.
    ///
    /// # Errors
    /// [`ReactionError`].
    pub fn on_change_of_prefix<R: CallbackResult>(
        &self,
        prefix: impl AsRef<[u8]>,
        callback: impl FnMut(&Store, &Change) -> R + Send + 'static,
    ) -> Result<Reacting, ReactionError> {
        self.reaction_to_prefix(prefix, callback).start()
    }

    /// As [`on_change`](Self::on_change), with options, or on a thread that is shared.
    pub fn reaction<R: CallbackResult>(
        &self,
        key: impl AsRef<[u8]>,
        callback: impl FnMut(&Store, &Change) -> R + Send + 'static,
    ) -> Reaction<'_> {
        self.reaction_to(To::Key(key.as_ref().to_vec()), callback)
    }

    /// As [`on_change_of_prefix`](Self::on_change_of_prefix), with options, or on a thread that is shared.
    pub fn reaction_to_prefix<R: CallbackResult>(
        &self,
        prefix: impl AsRef<[u8]>,
        callback: impl FnMut(&Store, &Change) -> R + Send + 'static,
    ) -> Reaction<'_> {
        self.reaction_to(To::Prefix(prefix.as_ref().to_vec()), callback)
    }

    fn reaction_to<R: CallbackResult>(
        &self,
        to: To,
        mut callback: impl FnMut(&Store, &Change) -> R + Send + 'static,
    ) -> Reaction<'_> {
        let call: Call = Box::new(move |store, change| callback(store, change).into_result());
        Reaction { store: self, to, caller: Caller::new(call), poll_ns: POLL_NS }
    }
}
