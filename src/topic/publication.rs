//! A publication that was received.
//!
//! [`Subscriber`](super::Subscriber) lends it. What always holds: its bytes are a private copy, or a value
//! in the store that is pinned as long: nobody can change them.

use std::fmt;
use std::ops::Deref;

use crate::store::Value;

/// Names a publisher of a topic: no other one of the same host has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublisherId(pub(super) u64);

impl PublisherId {
    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for PublisherId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "publisher {}", self.0)
    }
}

/// A publication, lent until the subscriber's next call. Derefs to its bytes.
#[derive(Debug)]
pub struct Publication<'a> {
    pub(super) publisher: PublisherId,
    pub(super) plugin: &'a str,
    pub(super) number: u64,
    pub(super) lost_before: u64,
    pub(super) bytes: Payload<'a>,
}

#[derive(Debug)]
pub(super) enum Payload<'a> {
    Ring(&'a [u8]),
    Store(Value<'a>),
}

impl Publication<'_> {
    /// Whose it is.
    pub fn publisher(&self) -> PublisherId {
        self.publisher
    }

    /// The plugin in whose process it was published; empty for the host.
    pub fn plugin(&self) -> &str {
        self.plugin
    }

    /// Its number: those of one publisher count from 0, whoever receives them.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many of the same publisher's publications this subscriber has lost since the one before:
    /// it was slow, or they were too long for it.
    pub fn lost_before(&self) -> u64 {
        self.lost_before
    }

    /// Whether the bytes lie in the store itself. Otherwise they were copied.
    pub fn is_in_store(&self) -> bool {
        matches!(&self.bytes, Payload::Store(value) if value.is_in_place())
    }

    /// A copy that outlives the subscriber's next call.
    pub fn to_owned(&self) -> OwnedPublication {
        let Self { publisher, number, lost_before, .. } = *self;
        OwnedPublication { publisher, number, lost_before, bytes: self.to_vec() }
    }
}

impl Deref for Publication<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Payload::Ring(bytes) => bytes,
            Payload::Store(value) => value,
        }
    }
}

impl AsRef<[u8]> for Publication<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// A publication in memory of its own. Derefs to its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnedPublication {
    /// Whose it is.
    pub publisher: PublisherId,
    /// As [`Publication::number`].
    pub number: u64,
    /// As [`Publication::lost_before`].
    pub lost_before: u64,
    /// The payload.
    pub bytes: Vec<u8>,
}

impl Deref for OwnedPublication {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}
