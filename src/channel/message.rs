//! A received message, lent or owned.
//!
//! [`Receiver`](super::Receiver) makes them. What always holds: the bytes are a private copy,
//! which no peer can change.

use std::ops::Deref;

use super::CallId;

/// A message in its receiver's buffer. Derefs to its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    bytes: &'a [u8],
    tag: u16,
    call: Option<CallId>,
}

impl<'a> Message<'a> {
    pub(super) fn new(bytes: &'a [u8], tag: u16) -> Self {
        Self { bytes, tag, call: None }
    }

    pub(super) fn with_call(self, call: Option<CallId>) -> Self {
        Self { call, ..self }
    }

    /// The payload.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The tag that the sender gave it; 0 unless it gave one.
    pub fn tag(&self) -> u16 {
        self.tag
    }

    /// The call that this message makes, where the sender wants a reply:
    /// [`Sender::reply`](super::Sender::reply) answers it.
    pub fn call(&self) -> Option<CallId> {
        self.call
    }

    /// A copy that outlives the receiver's next call.
    pub fn to_owned(&self) -> OwnedMessage {
        OwnedMessage { bytes: self.bytes.to_vec(), tag: self.tag, call: self.call }
    }
}

impl Deref for Message<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl AsRef<[u8]> for Message<'_> {
    fn as_ref(&self) -> &[u8] {
        self.bytes
    }
}

/// A message in memory of its own. Derefs to its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedMessage {
    bytes: Vec<u8>,
    tag: u16,
    call: Option<CallId>,
}

impl OwnedMessage {
    /// The payload.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The tag that the sender gave it; 0 unless it gave one.
    pub fn tag(&self) -> u16 {
        self.tag
    }

    /// The call that this message makes, where the sender wants a reply:
    /// [`Sender::reply`](super::Sender::reply) answers it.
    pub fn call(&self) -> Option<CallId> {
        self.call
    }
}

impl Deref for OwnedMessage {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}
