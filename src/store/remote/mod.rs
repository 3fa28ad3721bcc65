//! Writing to a store through somebody who may: what a plugin that is not trusted asks its host to do.
//!
//! A handle that reads by copying has a [`Remote`] where its process has a host that writes for it; the host calls
//! [`serve`] with what arrives. What always holds: nothing of a request is believed that was not checked; a request is
//! carried out as a whole, under one hold of the lock, or not at all; every request has one answer of 40 bytes.
//!
//! | file | what it holds |
//! |---|---|
//! | `watch` | saying at a bell that one of those sleeps there; registering the prefixes that they watch |
//! | `request` | requests as bytes |
//! | `answer` | answers as bytes |
//! | `quota` | how much may be asked for, and how much of it is in use |
//! | `serve` | the side that writes |
//! | `ask` | the side that asks |

mod answer;
mod ask;
mod quota;
mod request;
mod serve;
#[cfg(test)]
mod tests;
mod watch;
#[cfg(test)]
mod watch_tests;

use std::fmt::Debug;
use std::time::Duration;

use super::error::WriteError;

pub(super) use ask::Asking;
pub(crate) use quota::Ledger;
pub use quota::StoreQuota;
pub(crate) use request::Request;
pub(crate) use serve::serve;
pub(crate) use watch::Watched;

/// How requests get to who may write, and answers back. Any thread may use it.
pub(crate) trait Remote: Debug + Send + Sync {
    /// Sends a request and waits for its answer, for at most `timeout`.
    ///
    /// # Errors
    /// [`WriteError::Remote`] says what is known of the request.
    fn request(&self, request: &[u8], timeout: Duration) -> Result<Vec<u8>, WriteError>;

    /// Asks for what a watch needs: see [`Watched::serve`]. Waits for the answer for at most `timeout`. When it comes,
    /// what was asked for holds.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    fn watch(&self, request: &[u8], timeout: Duration) -> Result<Vec<u8>, WriteError>;
}
