//! Why there is no link.
//!
//! [`Desk`](super::Desk) returns it, and with it everything that stands on links. What always holds:
//! after an error nothing of the attempt is left, or will be as soon as the host has heard of it.

use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::error::SegmentError;
use crate::host::error::NameError;

/// Why a channel between two processes of a host did not come about.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The host does not broker: it was not [built](crate::host::HostBuilder::links) to.
    #[error("the host does not link processes: it must be built with `links()`")]
    NotServed,
    /// Nobody listens under this name.
    #[error("nobody listens under the name {name:?}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// Somebody listens under this name already.
    #[error("somebody listens under the name {name:?} already")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// A name that no listener can have.
    #[error("the name {0}")]
    Name(#[from] NameError),
    /// A note that is too long.
    #[error("a note of {len} bytes: at most {max} are taken")]
    Note {
        /// Its length.
        len: usize,
        /// Longest possible.
        max: usize,
    },
    /// Who listens expects messages of other types.
    #[error(
        "the listener's messages are of other types: fingerprint {found:#x}, not {expected:#x}"
    )]
    Types {
        /// Fingerprint of the listener's types.
        found: u64,
        /// Fingerprint of this side's types.
        expected: u64,
    },
    /// This process has a link with that listener's inbox already.
    #[error("this process is linked with that listener already, by link {id}")]
    Linked {
        /// The link.
        id: u64,
    },
    /// It did not come about in time.
    #[error("no link came about within {timeout:?}")]
    Timeout {
        /// How long there was.
        timeout: Duration,
    },
    /// One of the two has as many as a plugin can have.
    #[error("too many {what}: at most {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there can be.
        max: u64,
    },
    /// The other side has gone, or cannot attach.
    #[error("the other side has gone, or cannot attach")]
    PartnerGone,
    /// The host is gone.
    #[error("the host is gone")]
    HostGone,
    /// The host does not serve this process any more: it is ending, or this process has broken the
    /// rules.
    #[error("the host does not serve this process any more")]
    Closed,
    /// The process has forked since.
    #[error("this process was forked from the one that the host knows")]
    Forked,
    /// The two do not understand each other.
    #[error("the host's answer cannot be understood")]
    UnknownAnswer,
    /// A system call failed.
    #[error("{call}: {source}")]
    Os {
        /// Which call.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// No channel can be as the options say, or this process could not attach it.
    #[error("the channel: {0}")]
    Attach(#[from] SegmentError),
}
