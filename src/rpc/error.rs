//! What can go wrong with a call, and with serving.
//!
//! [`CallError`] is what callers get, [`ServeError`] what servers do; a function's own error is a
//! [`Failure`]. What always holds: an error says what is known of whether the function was carried out.

use std::fmt;
use std::io;
use std::time::Duration;

use rkyv::util::AlignedVec;
use thiserror::Error;

use crate::error::{Corruption, SegmentError};
use crate::host::LinkError;
use crate::typed::{DecodeError, DecodeOwned, Encode, EncodeError};

/// A function's own error: bytes that mean something to its callers.
///
/// ```
/// use ringway::rpc::Failure;
/// use ringway::typed::Pod;
///
/// assert_eq!(Failure::from("no such account").as_text(), Some("no such account"));
/// let code = Failure::typed::<Pod<u32>>(&404)?;
/// assert_eq!(code.decode::<Pod<u32>>()?, 404);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Failure {
    bytes: Vec<u8>,
}

impl Failure {
    /// With a value that says what happened. Caller and callee agree on its type; nothing checks that.
    ///
    /// # Errors
    /// The value cannot be serialised.
    pub fn typed<C: Encode>(value: &C::Value) -> Result<Self, EncodeError> {
        let mut scratch = AlignedVec::new();
        let bytes = C::encode(value, &mut scratch)?.to_vec();
        Ok(Self { bytes })
    }

    /// What the function has said.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same as text, if it is.
    pub fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()
    }

    /// The same as a value.
    ///
    /// # Errors
    /// The bytes are no such value.
    pub fn decode<C: DecodeOwned>(&self) -> Result<C::Value, DecodeError> {
        // An archive is read where it is aligned.
        let mut bytes = AlignedVec::<64>::new();
        bytes.extend_from_slice(&self.bytes);
        C::to_value(C::decode(&bytes)?)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_text() {
            Some(text) => f.debug_tuple("Failure").field(&text).finish(),
            None => f.debug_tuple("Failure").field(&self.bytes).finish(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.bytes))
    }
}

impl From<Vec<u8>> for Failure {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }
}

impl From<&[u8]> for Failure {
    fn from(bytes: &[u8]) -> Self {
        bytes.to_vec().into()
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<&str> for Failure {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

/// What a callee's process has written that no server writes. It is not called any more over this link;
/// the next call makes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Breach {
    /// An answer that is none, or too short for what it says it is.
    #[error("the callee sent a message of {len} bytes with tag {tag}, which is no response")]
    NoAnswer {
        /// Its tag.
        tag: u16,
        /// Its length.
        len: usize,
    },
    /// An answer to a call that is not under way.
    #[error("the callee responded to call {id}, but no such call is under way")]
    UnknownCall {
        /// Which call.
        id: u64,
    },
    /// Answers that nobody has waited for yet take more memory than they may.
    #[error(
        "responses that were not fetched have {len} bytes, at most {max} are kept; finish the pending calls"
    )]
    TooMuch {
        /// Bytes of the answers.
        len: usize,
        /// How many are kept.
        max: usize,
    },
}

/// Why a call has no result.
///
/// | error | was the function carried out? |
/// |---|---|
/// | [`Timeout`](Self::Timeout), [`Died`](Self::Died), [`Broken`](Self::Broken), [`Corrupt`](Self::Corrupt) | perhaps, in part or in full |
/// | [`Failed`](Self::Failed), [`Panicked`](Self::Panicked) | it began, and ended so |
/// | [`ResultTooLong`](Self::ResultTooLong), [`NoResult`](Self::NoResult), [`InvalidResult`](Self::InvalidResult) | yes |
/// | all others | no |
///
/// A call that has timed out is taken back: if the server has not begun it, it never will; if it has,
/// [`Request::is_cancelled`](super::Request::is_cancelled) tells it. Between the two there is no telling.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CallError {
    /// No answer came in time.
    #[error(
        "no response to the call came within {timeout:?}; it may have been carried out: call again only where doing it twice is harmless"
    )]
    Timeout {
        /// How long there was.
        timeout: Duration,
    },
    /// There was no room for the call in time: it has not been sent.
    #[error(
        "the call was not sent: the link had no room within {timeout:?}; the callee may be busy or stopped"
    )]
    Full {
        /// How long there was.
        timeout: Duration,
    },
    /// Nobody serves a function of this name.
    #[error("no process serves the function {name:?}; start its server first, or check the name")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The process that was called has died, or stopped to serve this one, after the call was sent.
    #[error(
        "the callee has died, or serves this process no longer; the call may have been carried out: look the function up again, and call again only where doing it twice is harmless"
    )]
    Died,
    /// The function's own error.
    #[error("the function was called and returned an error of its own: {0}")]
    Failed(Failure),
    /// The function has panicked. It can be called again.
    #[error("the function panicked at its server, which goes on: {message}")]
    Panicked {
        /// What it said; cut off where it is long.
        message: String,
    },
    /// The server waits for what this thread does: it could not answer. It is to be called by a thread
    /// that it does not wait for.
    #[error(
        "the function {name:?} belongs to a server that waits for this very thread; call it from another thread"
    )]
    Recursion {
        /// The function.
        name: String,
    },
    /// Too many servers wait for each other.
    #[error(
        "the call would be the end of a chain of more than {max} calls that wait for each other; call from outside a function"
    )]
    TooDeep {
        /// How many there can be.
        max: usize,
    },
    /// The function takes, or returns, values of other types.
    #[error(
        "the function {name:?} is called with {arguments} and expects {result}, and its server {}; build both sides from the same types",
        difference(found, expected)
    )]
    WrongTypes {
        /// The function.
        name: String,
        /// The type of the call's arguments.
        arguments: &'static str,
        /// The type of the result that the call expects.
        result: &'static str,
        /// Fingerprints of its arguments and result; 0 for bytes.
        found: [u64; 2],
        /// Those of the call.
        expected: [u64; 2],
    },
    /// The arguments could not be serialised.
    #[error(
        "the arguments could not be serialized: their type's Serialize failed, or memory ran out"
    )]
    Encode,
    /// The server says that the arguments are no value of their type.
    #[error(
        "the callee received arguments that are not a valid value of their type; build both sides from the same types"
    )]
    Malformed,
    /// The arguments are too long: nothing has been sent.
    #[error(
        "the arguments have {len} bytes, at most {max} fit into a call; pass large values through the store"
    )]
    TooLong {
        /// Their length.
        len: u64,
        /// Longest possible.
        max: u64,
    },
    /// The result is too long to be sent.
    #[error(
        "the result has {len} bytes, at most {max} fit into a response; pass large values through the store"
    )]
    ResultTooLong {
        /// Its length.
        len: u64,
        /// Longest possible.
        max: u64,
    },
    /// The function has returned what could not be serialised.
    #[error(
        "the callee could not serialize the result: its type's Serialize failed, or memory ran out"
    )]
    NoResult,
    /// What has come is no value of the result's type.
    #[error(
        "the result is not a valid value of its type: {0}; build both sides from the same types"
    )]
    InvalidResult(DecodeError),
    /// The callee's process has broken the rules.
    #[error(
        "the callee violated the protocol, and the link was closed: {0}; build both sides from one version of ringway, and look the function up again"
    )]
    Broken(#[from] Breach),
    /// The callee's process has damaged the link.
    #[error("the link to the callee is corrupt: {0}; look the function up again")]
    Corrupt(#[from] Corruption),
    /// This process was forked from the one that has the link.
    #[error(
        "the link belongs to the process that this one was forked from; make a client in this process"
    )]
    Forked,
    /// The answer has been fetched before, or the call could not be made.
    #[error(
        "the call has ended already, and its result was fetched or dropped; call the function again"
    )]
    Over,
    /// There is no link with the server.
    #[error("the process that serves the function cannot be linked with this one: {0}")]
    Link(LinkError),
}

/// Why nothing is served, or a function not.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// This server has a function of this name already.
    #[error("this server has a function {name:?} already; remove it first, or choose another name")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// This server has no function of this name.
    #[error("this server has no function {name:?}; register it first")]
    Unknown {
        /// The name.
        name: String,
    },
    /// As many functions as a server can have.
    #[error(
        "this server has {max} functions, which is the most that a server can have; remove one, or start another server"
    )]
    TooMany {
        /// How many that is.
        max: usize,
    },
    /// The server has been stopped.
    #[error("the server has been stopped; start another one")]
    Stopped,
    /// A function that does not return keeps the server's thread. It ends when that returns.
    #[error(
        "the server has not ended: a function has not returned within {timeout:?}; it ends when that returns"
    )]
    Busy {
        /// How long there was.
        timeout: Duration,
    },
    /// The channel over which the server's thread is woken could not be created.
    #[error("a channel that the server needs could not be made: {0}")]
    Bell(SegmentError),
    /// A system call failed.
    #[error("the server could not be started: {call} failed: {source}")]
    Os {
        /// Which call.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The host does not know the function.
    #[error("the host does not take the function {name:?}: {source}")]
    Link {
        /// The function.
        name: String,
        /// Why not.
        source: LinkError,
    },
}

/// Says which of a function's types differ, by fingerprints of the arguments and of the result.
fn difference(found: &[u64; 2], expected: &[u64; 2]) -> &'static str {
    match (found[0] == expected[0], found[1] == expected[1]) {
        (false, true) if found[0] == 0 => "takes bytes",
        (false, true) => "takes other arguments",
        (true, false) if found[1] == 0 => "returns bytes",
        (true, false) => "returns another type",
        _ if *found == [0; 2] => "takes and returns bytes",
        _ => "takes other arguments and returns another type",
    }
}
