//! Filters and callbacks, and calling them.
//!
//! The dispatcher owns them and calls them with each message. What always holds: a panic of one stays
//! in it, whatever it panics with; none is called from two threads, or within itself.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::kind::Kind;
use crate::callback::{Failure, text_of};

pub use crate::callback::CallbackResult;
pub(super) use crate::callback::quietly;

/// Names a callback of one receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallbackId(u64);

impl CallbackId {
    pub(super) const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Callbacks are numbered from 1 on, in the order in which they were registered.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for CallbackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "callback {}", self.0)
    }
}

type Filter<K> = Box<dyn for<'a> FnMut(&<K as super::kind::sealed::Take>::Item<'a>) -> bool + Send>;
type Callback<K> = Box<
    dyn for<'a> FnMut(&<K as super::kind::sealed::Take>::Item<'a>) -> Result<(), Failure> + Send,
>;

/// A callback and its filter.
pub(super) struct Entry<K: Kind> {
    pub(super) id: CallbackId,
    filter: Filter<K>,
    callback: Callback<K>,
}

/// How a call went, where it did not go well.
pub(super) enum Trouble {
    Failed(Failure),
    Panicked(String),
}

impl<K: Kind> Entry<K> {
    pub(super) fn new<R: CallbackResult>(
        id: CallbackId,
        filter: impl FnMut(&K::Item<'_>) -> bool + Send + 'static,
        mut callback: impl FnMut(&K::Item<'_>) -> R + Send + 'static,
    ) -> Self {
        let callback = move |item: &K::Item<'_>| callback(item).into_result();
        Self { id, filter: Box::new(filter), callback: Box::new(callback) }
    }

    /// Calls the callback if the filter matches. Returns whether it did.
    #[inline]
    pub(super) fn call(&mut self, item: &K::Item<'_>) -> Result<bool, Trouble> {
        let called =
            catch_unwind(AssertUnwindSafe(|| (self.filter)(item).then(|| (self.callback)(item))));
        match called {
            Ok(None) => Ok(false),
            Ok(Some(Ok(()))) => Ok(true),
            Ok(Some(Err(failure))) => Err(Trouble::Failed(failure)),
            Err(panic) => Err(Trouble::Panicked(text_of(panic))),
        }
    }
}
