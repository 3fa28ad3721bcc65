//! Filters and callbacks, and calling them.
//!
//! The dispatcher owns them and calls them with each message. What always holds: a panic of one stays
//! in it, whatever it panics with; none is called from two threads, or within itself.

use std::error::Error;
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::kind::Kind;

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

/// What a callback that has failed returns.
pub(super) type Failure = Box<dyn Error + Send + Sync>;

/// What a callback may return: nothing, or whether it has succeeded.
pub trait CallbackResult {
    /// The error, where there was one.
    ///
    /// # Errors
    /// What is to be reported.
    fn into_result(self) -> Result<(), Box<dyn Error + Send + Sync>>;
}

impl CallbackResult for () {
    #[inline]
    fn into_result(self) -> Result<(), Failure> {
        Ok(())
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> CallbackResult for Result<(), E> {
    #[inline]
    fn into_result(self) -> Result<(), Failure> {
        self.map_err(Into::into)
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

/// What a panic says.
#[cold]
pub(crate) fn text_of(panic: Box<dyn std::any::Any + Send>) -> String {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => String::from("a panic without a text"),
    };
    drop_quietly(panic);
    text
}

/// Runs what may panic, and forgets what it panics with. Whether it did not.
pub(crate) fn quietly(run: impl FnOnce()) -> bool {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(()) => true,
        Err(panic) => {
            drop_quietly(panic);
            false
        }
    }
}

/// Drops what may panic when it is dropped.
fn drop_quietly(panic: Box<dyn std::any::Any + Send>) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        // There might be no end to it.
        mem::forget(another);
    }
}
