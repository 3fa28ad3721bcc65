//! Why there is no link.
//!
//! [`Desk`](super::Desk) returns it, and with it everything that stands on links. What always holds:
//! after an error nothing of the attempt is left, or will be as soon as the host has heard of it.

use std::io;
use std::time::Duration;

use thiserror::Error;

use super::broker::WHAT;
use super::wire;
use crate::channel::ChannelTypes;
use crate::error::SegmentError;
use crate::host::error::NameError;
use crate::host::service::Reply;
use crate::host::service::error::ServiceError;
use crate::host::service::frame::STATUS_DONE;

/// Why a channel between two processes of a host did not come about.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The host does not broker: it was not [built](crate::host::HostBuilder::links) to.
    #[error("the host does not link processes: it must be built with `links()`")]
    NotServed,
    /// Nobody listens under this name.
    #[error(
        "no process listens under the name {name:?}; start its listener first, or check the name"
    )]
    Unknown {
        /// The name.
        name: String,
    },
    /// Nobody listens for this ticket any more, or nobody ever has.
    #[error(
        "no process listens for this ticket: it was used, or its listener has ended; ask the listener's process for a new one"
    )]
    TicketGone,
    /// Somebody listens under this name already.
    #[error("a process listens under the name {name:?} already; choose another name")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// A name that no listener can have.
    #[error("the name of the channel {0}")]
    Name(#[from] NameError),
    /// The name of a plugin's own channel, `{plugin}-active` or `{plugin}-passive`: the plugin and the
    /// host program have it by itself, and no other channel can have such a name.
    #[error("the name {name:?} is a plugin's own: it is taken with take_channels()")]
    Reserved {
        /// The name.
        name: String,
    },
    /// A note that is too long.
    #[error(
        "the note of the link has {len} bytes, at most {max} are taken; shorten it, or send it over the link"
    )]
    Note {
        /// Its length.
        len: usize,
        /// Longest possible.
        max: usize,
    },
    /// Who listens expects messages of other types.
    #[error(
        "the listener's messages are {}, and this side sends {sends} and receives {receives}; build both sides from the same types, and let one send what the other receives",
        if *found == 0 { "bytes" } else { "of other types" }
    )]
    Types {
        /// What this side sends.
        sends: &'static str,
        /// What this side receives.
        receives: &'static str,
        /// Fingerprint of the listener's types.
        found: u64,
        /// Fingerprint of this side's types.
        expected: u64,
    },
    /// This process has a link with that listener's inbox already.
    #[error(
        "this process is linked with that listener already, by link {id}; use that link, or drop it first"
    )]
    Linked {
        /// The link.
        id: u64,
    },
    /// It did not come about in time.
    #[error(
        "the listener has not accepted the link within {timeout:?}; it may be busy or stopped: wait longer, or try again"
    )]
    Timeout {
        /// How long there was.
        timeout: Duration,
    },
    /// There was no room for the request in time: nothing has been asked for.
    #[error(
        "the request was not sent to the host: there was no room within {timeout:?}; try again"
    )]
    Full {
        /// How long there was.
        timeout: Duration,
    },
    /// One of the two has as many as a plugin can have.
    #[error("this process has too many {what}, at most {max}; drop some first")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there can be.
        max: u64,
    },
    /// The other side has gone, or cannot attach.
    #[error(
        "the other side of the link has ended, or cannot attach the channel; connect again when it listens"
    )]
    PartnerGone,
    /// The host is gone.
    #[error(
        "the host has ended, so there are no further links; end this process, or go on without them"
    )]
    HostGone,
    /// The host does not serve this process any more: it is ending, or this process has broken the
    /// rules.
    #[error(
        "the host does not serve this process any longer; the host's event says why, and a restart of the plugin is served again"
    )]
    Closed,
    /// The process has forked since.
    #[error(
        "the connection to the host belongs to the process that this one was forked from; use it there"
    )]
    Forked,
    /// The two do not understand each other.
    #[error(
        "the host's answer cannot be understood; build host and plugin from one version of ringway"
    )]
    UnknownAnswer,
    /// A system call failed.
    #[error("{call} failed: {source}")]
    Os {
        /// Which call.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// No channel can be as the options say, or this process could not attach it.
    #[error("the link's channel cannot be used: {0}")]
    Attach(#[from] SegmentError),
}

impl LinkError {
    /// Why a request to the host has no answer.
    pub(super) fn of(error: ServiceError, timeout: Duration) -> Self {
        match error {
            ServiceError::Full { .. } => Self::Full { timeout },
            ServiceError::Timeout { .. } => Self::Timeout { timeout },
            ServiceError::NotServed | ServiceError::Unknown { .. } => Self::NotServed,
            ServiceError::HostGone => Self::HostGone,
            ServiceError::Closed | ServiceError::Corrupt(_) => Self::Closed,
            ServiceError::Forked => Self::Forked,
            ServiceError::TooLong { .. } | ServiceError::ResultTooLong { .. } => {
                Self::UnknownAnswer
            }
        }
    }
}

/// The number in an answer to a request under this name, of these types.
pub(super) fn number_in(reply: &Reply, name: &str, types: ChannelTypes) -> Result<u64, LinkError> {
    let number = |at: usize| {
        let bytes = reply.payload.get(at * 8..at * 8 + 8).ok_or(LinkError::UnknownAnswer)?;
        Ok::<_, LinkError>(bytemuck::pod_read_unaligned::<u64>(bytes))
    };
    let name = || name.to_string();
    Err(match reply.status {
        STATUS_DONE => return number(0),
        wire::STATUS_UNKNOWN_NAME => LinkError::Unknown { name: name() },
        wire::STATUS_DUPLICATE => LinkError::Duplicate { name: name() },
        wire::STATUS_RESERVED => LinkError::Reserved { name: name() },
        wire::STATUS_TYPES => {
            let [sends, receives] = types.names();
            LinkError::Types { sends, receives, found: number(0)?, expected: types.fingerprint(0) }
        }
        wire::STATUS_LINKED => LinkError::Linked { id: number(0)? },
        wire::STATUS_TOO_MANY => {
            let what = usize::try_from(number(0)?).ok().and_then(|code| WHAT.get(code));
            LinkError::TooMany { what: what.ok_or(LinkError::UnknownAnswer)?, max: number(1)? }
        }
        wire::STATUS_CLOSED => LinkError::Closed,
        _ => LinkError::UnknownAnswer,
    })
}
