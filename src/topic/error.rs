//! What a subscriber is told instead of a publication.
//!
//! Receiving calls return [`TopicRecvError`]; [`Departed`] says which publisher has gone, and how. What
//! always holds: after each of them but `Forked` the subscriber goes on.

use thiserror::Error;

use super::publication::PublisherId;
use crate::error::Corruption;

/// Why there is no publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TopicRecvError {
    /// There is none now.
    #[error("no publication is waiting")]
    Empty,
    /// None came in time.
    #[error("no publication came until the deadline")]
    Timeout,
    /// A publication that lay in the store has been removed from it before it was read: its publisher has
    /// needed the room, or has gone. It is counted; the next call receives the next one.
    #[error(
        "publication {number} of {publisher}, {len_bytes} bytes, is not in the store any more; receive faster, or give the publisher a larger budget"
    )]
    Expired {
        /// Whose it was.
        publisher: PublisherId,
        /// Its number.
        number: u64,
        /// How long it was.
        len_bytes: u64,
    },
    /// A publication that is no value of the subscriber's type. It is counted; the next call receives
    /// the next one.
    #[error(
        "publication {number} of {publisher} is not a value of the subscriber's type; build both from the same type"
    )]
    Invalid {
        /// Whose it was.
        publisher: PublisherId,
        /// Its number.
        number: u64,
    },
    /// A publisher has ended the link because this subscriber was slow. Everything that was in its ring
    /// has been received. Told once; other publishers are heard on. Subscribe again to hear this one.
    #[error(
        "{publisher} has ended the link to this subscriber, whose ring was full; subscribe again to go on"
    )]
    CutOff {
        /// Who.
        publisher: PublisherId,
    },
    /// The process has forked since it subscribed; the subscriber belongs to the parent.
    #[error(
        "this subscriber belongs to the process that this one was forked from; subscribe in this process"
    )]
    Forked,
}

/// How a publisher has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Departure {
    /// It has ended its work under this topic; everything it sent has been received, and what was
    /// missed at the end has been counted.
    Finished,
    /// It has ended the link while this subscriber's ring was full: this subscriber was slow and has chosen to
    /// be [disconnected](super::BackpressurePolicy::Disconnect) then, or the publisher had no room to say good-bye.
    /// Publications may be missing at the end.
    CutOff,
    /// Its process has died; everything it had committed has been received.
    Died,
    /// It wrote something impossible into the ring.
    Corrupt(Corruption),
    /// It sent what no publisher sends.
    Malformed,
}

/// A publisher that has gone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Departed {
    /// Which.
    pub publisher: PublisherId,
    /// The plugin it was in; empty for the host.
    pub plugin: String,
    /// How it has gone.
    pub departure: Departure,
    /// Publications of it that were received.
    pub received: u64,
    /// Publications of it that were lost.
    pub lost: u64,
}

/// Why there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nothing {
    Timeout,
    /// Somebody has rung.
    Rung,
    /// A publisher has [cut this subscriber off](Departure::CutOff).
    CutOff(PublisherId),
    Forked,
}

impl Nothing {
    /// What a receiving call returns; `none` where nothing has come.
    pub(super) fn into_error(self, none: TopicRecvError) -> TopicRecvError {
        match self {
            Self::Timeout | Self::Rung => none,
            Self::CutOff(publisher) => TopicRecvError::CutOff { publisher },
            Self::Forked => TopicRecvError::Forked,
        }
    }
}
