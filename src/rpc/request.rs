//! What a function is called with besides its arguments.
//!
//! The server's thread makes a [`Request`] for each call. What always holds: the arguments are a private
//! copy, which the caller cannot change; whether the call has been taken back is looked up when it is
//! asked for, in the ring, and taken from there in its turn.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
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
    /// Where each `CANCEL` that has been seen ends in the ring, and what it takes back; of those that
    /// have not been taken from there, so no more than the ring holds, whatever the caller writes there.
    seen: VecDeque<(u64, u64)>,
    /// The same, to be found by the call: the last one of each.
    ids: HashMap<u64, u64>,
}

impl Withdrawn {
    pub(super) fn new(ahead: Ahead) -> Self {
        Self { ahead, seen: VecDeque::new(), ids: HashMap::new() }
    }

    /// Looks at what has come behind this position.
    #[inline]
    pub(super) fn look(&mut self, end: u64) {
        self.pass(end);
        let Self { ahead, seen, ids } = self;
        ahead.look(end, CANCEL, |end, id| {
            let id = u64::from_ne_bytes(id);
            seen.push_back((end, id));
            ids.insert(id, end);
        });
    }

    #[inline]
    pub(super) fn has(&self, id: u64) -> bool {
        !self.ids.is_empty() && self.ids.contains_key(&id)
    }

    /// What stands before this position has been taken from the ring. It is forgotten by where it stood:
    /// the caller may have written another number there since.
    #[inline]
    pub(super) fn pass(&mut self, end: u64) {
        while let Some(&(at, id)) = self.seen.front()
            && end.wrapping_sub(at) <= i64::MAX as u64
        {
            self.seen.pop_front();
            // It may have been seen once more, further on.
            if self.ids.get(&id) == Some(&at) {
                self.ids.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Channel, ChannelOptions};

    #[test]
    fn what_is_kept_of_calls_taken_back_is_no_more_than_the_ring_holds() {
        let options = ChannelOptions { capacity_bytes: 4096, ..ChannelOptions::default() };
        let (mut near, far) = Channel::pair(&options).unwrap();
        let (_sender, mut receiver) = far.split();
        let mut withdrawn = Withdrawn::new(Ahead::of(&receiver).unwrap());
        let mut end = 0;
        for id in 0..5000_u64 {
            near.sender().try_send_tagged(CANCEL, &id.to_ne_bytes()).unwrap();
            // As after a call that ends where the last one did. Who writes another number there after
            // this has the first one forgotten all the same.
            withdrawn.look(end);
            assert!(withdrawn.has(id));
            end = receiver.recv_at_once().unwrap().1.end;
            if id % 3 == 0 {
                withdrawn.pass(end);
                assert!(!withdrawn.has(id));
            }
            assert!(
                withdrawn.seen.len() <= 4096 / 16 && withdrawn.ids.len() <= withdrawn.seen.len()
            );
        }
        // The same number twice: the second stands there still.
        for _ in 0..2 {
            near.sender().try_send_tagged(CANCEL, &7_u64.to_ne_bytes()).unwrap();
        }
        withdrawn.look(end);
        let [first, second] = [(); 2].map(|()| receiver.recv_at_once().unwrap().1.end);
        withdrawn.pass(first);
        assert!(withdrawn.has(7));
        withdrawn.pass(second);
        assert!(!withdrawn.has(7) && withdrawn.seen.is_empty());
    }
}
