//! What can go wrong with a request to the host, and with the plugin that makes it.
//!
//! [`ServiceError`] is what a plugin's calls return, [`ServiceProblem`] what a host program is told
//! when it stops serving a plugin. What always holds: a request that ended with an error other than
//! `Timeout`, `HostGone` and `Closed` has not been carried out.

use std::time::Duration;

use thiserror::Error;

use crate::error::Corruption;

/// Why a request to the host has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The host serves nothing to this plugin.
    #[error(
        "the host serves no requests of this plugin; build the host with a store, links or services"
    )]
    NotServed,
    /// There was no room for the request in time: it has not been sent.
    #[error(
        "the request was not sent to the host: there was no room within {timeout:?}; try again"
    )]
    Full {
        /// How long there was.
        timeout: Duration,
    },
    /// No answer came in time. The host may have carried the request out, or do so later.
    #[error(
        "the host has not answered within {timeout:?}; the request may have been carried out: look before you ask again"
    )]
    Timeout {
        /// How long there was.
        timeout: Duration,
    },
    /// A request that is too long: it has not been sent.
    #[error(
        "a request of {len} bytes to the host is too long: it takes at most {max}; ask for less at once"
    )]
    TooLong {
        /// Its length.
        len: u64,
        /// Longest possible.
        max: u64,
    },
    /// The host does not know the operation.
    #[error(
        "the host knows no operation {op:#x}; build host and plugin from one version of ringway"
    )]
    Unknown {
        /// The operation.
        op: u32,
    },
    /// The host has carried the request out, perhaps, and could not answer: the result is too long.
    #[error(
        "the result of operation {op:#x} of the host does not fit into a reply; ask for less at once"
    )]
    ResultTooLong {
        /// The operation.
        op: u32,
    },
    /// The host has died. It may have carried the request out before.
    #[error("the host has ended, so it answers nothing; end this process, or go on without it")]
    HostGone,
    /// The host does not serve this plugin any more: it is ending, or the plugin has broken the rules.
    /// It may have carried the request out before.
    #[error(
        "the host does not serve this plugin any longer; its event says why, and a restart of the plugin is served again"
    )]
    Closed,
    /// The service channel is corrupt.
    #[error("the service channel is corrupt: {0}")]
    Corrupt(#[from] Corruption),
    /// The process has forked since it connected; the host knows the parent.
    #[error(
        "the connection to the host belongs to the process that this one was forked from; use it there"
    )]
    Forked,
}

/// Why a host does not serve a plugin any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ServiceProblem {
    /// The plugin has damaged the channel.
    #[error("the service channel is corrupt: {0}")]
    Corrupt(#[from] Corruption),
    /// A message that is no request.
    #[error("a message of {len} bytes with tag {tag} and status {status} is no request")]
    NoRequest {
        /// Its tag.
        tag: u16,
        /// Its length.
        len: usize,
        /// Its status, 0 where it is too short to have one.
        status: u32,
    },
    /// A request whose payload the operation cannot have.
    #[error("{len} bytes are no payload of operation {op:#x}")]
    Payload {
        /// The operation.
        op: u32,
        /// Length of the payload.
        len: usize,
    },
    /// More requests under way than a process may have.
    #[error("it has more than {max} requests under way")]
    TooMany {
        /// How many it may have.
        max: usize,
    },
    /// The plugin does not read the answers to its requests.
    #[error("it does not read the answers to its requests")]
    NotReading,
    /// The plugin has done nothing wrong: the thread that serves all plugins has panicked, and serves none any
    /// more. Only another [`Host`](crate::host::Host) does.
    #[error("the host's thread that serves plugins has panicked")]
    HostPanicked,
}
