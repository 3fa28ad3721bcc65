//! What a function is called with besides its arguments.
//!
//! The server's thread makes a [`Request`] for each call. What always holds: the arguments are a private
//! copy, which the caller cannot change; whether the call has been taken back is looked up when it is
//! asked for, in the ring, and taken from there in its turn.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use super::frame::CANCEL;
use super::inbox::Orders;
use crate::channel::Ahead;

/// A call, as the function that is called sees it. Derefs to the bytes of its arguments.
pub struct Request<'a> {
    pub(super) arguments: &'a [u8],
    pub(super) function: &'a str,
    pub(super) caller: &'a str,
    pub(super) id: u64,
    /// Where the call ends in the ring.
    pub(super) end: u64,
    pub(super) withdrawn: &'a RefCell<Withdrawn>,
    pub(super) orders: &'a Orders,
}

impl Request<'_> {
    /// The arguments.
    pub fn bytes(&self) -> &[u8] {
        self.arguments
    }

    /// Name of the function.
    pub fn function(&self) -> &str {
        self.function
    }

    /// Name of the plugin that calls; empty for the host.
    pub fn caller(&self) -> &str {
        self.caller
    }

    /// Whether nobody waits for the result any more: the caller has given up, has died, or this server
    /// is to stop. A function that takes long asks now and then. Costs a few looks at the caller's ring.
    pub fn is_cancelled(&self) -> bool {
        if self.orders.is_stopped() {
            return true;
        }
        let mut withdrawn = self.withdrawn.borrow_mut();
        withdrawn.look(self.end);
        withdrawn.has(self.id) || withdrawn.ahead.is_over()
    }
}

impl std::ops::Deref for Request<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.arguments
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("function", &self.function)
            .field("caller", &self.caller)
            .field("len", &self.arguments.len())
            .finish_non_exhaustive()
    }
}

/// Calls of one caller that have been taken back, as far as the ring has been looked at.
#[derive(Debug)]
pub(super) struct Withdrawn {
    ahead: Ahead,
    /// Those whose `CANCEL` has been seen and not been taken from the ring: no more than the ring holds.
    ids: HashSet<u64>,
}

impl Withdrawn {
    pub(super) fn new(ahead: Ahead) -> Self {
        Self { ahead, ids: HashSet::new() }
    }

    /// Looks at what has come behind this position.
    #[inline]
    pub(super) fn look(&mut self, end: u64) {
        let Self { ahead, ids } = self;
        ahead.look(end, CANCEL, |id| {
            ids.insert(u64::from_ne_bytes(id));
        });
    }

    #[inline]
    pub(super) fn has(&self, id: u64) -> bool {
        !self.ids.is_empty() && self.ids.contains(&id)
    }

    /// The `CANCEL` of this call has been taken from the ring.
    pub(super) fn take(&mut self, id: u64) {
        self.ids.remove(&id);
    }
}
