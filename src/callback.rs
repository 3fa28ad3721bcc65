//! Calling what users have registered, on threads of the library's: what it may return, and what becomes of its panics.
//!
//! Passive receivers, subscribers, servers of functions and reactions to changes in a store call it. What
//! always holds: a panic stays in the call, whatever it panics with.

use std::any::Any;
use std::error::Error;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a callback that has failed returns.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

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

/// What a panic says.
#[cold]
pub(crate) fn text_of(panic: Box<dyn Any + Send>) -> String {
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
fn drop_quietly(panic: Box<dyn Any + Send>) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        // There might be no end to it.
        mem::forget(another);
    }
}
