//! Which servers wait for what this thread does.
//!
//! A server's thread enters itself, and with each call those that the caller has named; a client asks
//! before it sends. What always holds: a server whose thread is at work here, or waits for this one to
//! return, is not called from here, since it could not answer.

use std::cell::RefCell;

use super::frame::MAX_CHAIN;

thread_local! {
    /// The outermost first.
    static CHAIN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Why a call from here cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bad {
    /// The server waits for this thread.
    Recursion,
    /// Too many servers wait for each other.
    TooDeep,
}

/// From now on this thread is that of a server.
pub(super) fn enter(server: u64) {
    CHAIN.with_borrow_mut(|chain| chain.push(server));
}

/// The servers that wait for the call that this thread is at, besides its own. They stay until
/// [`forget`].
pub(super) fn add(servers: &[u8]) {
    CHAIN.with_borrow_mut(|chain| {
        let words = servers.chunks_exact(8).filter_map(|word| word.try_into().ok());
        chain.extend(words.map(u64::from_ne_bytes));
    });
}

/// Only the thread's own server is left.
pub(super) fn forget() {
    CHAIN.with_borrow_mut(|chain| chain.truncate(1));
}

/// Hands the chain to `each`, as it is sent, where this thread may call that server.
#[inline]
pub(super) fn with<T>(server: u64, each: impl FnOnce(&[u64]) -> T) -> Result<T, Bad> {
    CHAIN.with_borrow(|chain| {
        if chain.contains(&server) {
            return Err(Bad::Recursion);
        }
        if chain.len() > MAX_CHAIN {
            return Err(Bad::TooDeep);
        }
        Ok(each(chain))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_waits_is_not_called() {
        assert_eq!(with(1, <[u64]>::len), Ok(0));
        enter(1);
        assert_eq!(with(1, <[u64]>::len), Err(Bad::Recursion));
        add(&[2_u64.to_ne_bytes(), 3_u64.to_ne_bytes()].concat());
        assert_eq!(with(3, <[u64]>::len), Err(Bad::Recursion));
        assert_eq!(with(4, <[u64]>::len), Ok(3));
        forget();
        assert_eq!(with(3, <[u64]>::len), Ok(1));
        add(&[7; 8 * MAX_CHAIN]);
        assert_eq!(with(3, <[u64]>::len), Err(Bad::TooDeep));
        forget();
    }
}
