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
    #[error("a message of {len} bytes with tag {tag} is no answer")]
    NoAnswer {
        /// Its tag.
        tag: u16,
        /// Its length.
        len: usize,
    },
    /// An answer to a call that is not under way.
    #[error("an answer to call {id}, which is not under way")]
    UnknownCall {
        /// Which call.
        id: u64,
    },
    /// Answers that nobody has waited for yet take more memory than they may.
    #[error("answers that nobody has fetched yet have {len} bytes: at most {max} are kept")]
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
    #[error("no answer came within {timeout:?}")]
    Timeout {
        /// How long there was.
        timeout: Duration,
    },
    /// There was no room for the call in time: it has not been sent.
    #[error("there was no room for the call within {timeout:?}")]
    Full {
        /// How long there was.
        timeout: Duration,
    },
    /// Nobody serves a function of this name.
    #[error("nobody serves a function {name:?}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The process that was called has died, or stopped to serve this one, after the call was sent.
    #[error("the callee has died, or serves this process no more")]
    Died,
    /// The function's own error.
    #[error("the function has failed: {0}")]
    Failed(Failure),
    /// The function has panicked. It can be called again.
    #[error("the function has panicked: {message}")]
    Panicked {
        /// What it said; cut off where it is long.
        message: String,
    },
    /// The server waits for what this thread does: it could not answer. It is to be called by a thread
    /// that it does not wait for.
    #[error("{name:?} belongs to a server that waits for this very thread")]
    Recursion {
        /// The function.
        name: String,
    },
    /// Too many servers wait for each other.
    #[error("a chain of more than {max} calls that wait for each other")]
    TooDeep {
        /// How many there can be.
        max: usize,
    },
    /// The function takes, or returns, values of other types.
    #[error("{name:?} is of other types: fingerprints {found:x?}, not {expected:x?}")]
    WrongTypes {
        /// The function.
        name: String,
        /// Fingerprints of its arguments and result; 0 for bytes.
        found: [u64; 2],
        /// Those of the call.
        expected: [u64; 2],
    },
    /// The arguments could not be serialised.
    #[error("the arguments could not be serialised")]
    Encode,
    /// The server says that the arguments are no value of their type.
    #[error("the arguments are not a valid value of their type")]
    Malformed,
    /// The arguments are too long: nothing has been sent.
    #[error("arguments of {len} bytes: at most {max} are taken")]
    TooLong {
        /// Their length.
        len: u64,
        /// Longest possible.
        max: u64,
    },
    /// The result is too long to be sent.
    #[error("a result of {len} bytes: at most {max} are taken")]
    ResultTooLong {
        /// Its length.
        len: u64,
        /// Longest possible.
        max: u64,
    },
    /// The function has returned what could not be serialised.
    #[error("the result could not be serialised")]
    NoResult,
    /// What has come is no value of the result's type.
    #[error("the result is not a valid value of its type: {0}")]
    InvalidResult(DecodeError),
    /// The callee's process has broken the rules.
    #[error("the callee has broken the rules: {0}")]
    Broken(#[from] Breach),
    /// The callee's process has damaged the link.
    #[error("the link is corrupt: {0}")]
    Corrupt(#[from] Corruption),
    /// This process was forked from the one that has the link.
    #[error("this process was forked from the one that has the link")]
    Forked,
    /// The answer has been fetched before, or the call could not be made.
    #[error("the call is over")]
    Over,
    /// There is no link with the server.
    #[error("no link with who serves it: {0}")]
    Link(LinkError),
}

/// Why nothing is served, or a function not.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// This server has a function of this name already.
    #[error("this server has a function {name:?} already")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// This server has no function of this name.
    #[error("this server has no function {name:?}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// As many functions as a server can have.
    #[error("a server can have {max} functions")]
    TooMany {
        /// How many that is.
        max: usize,
    },
    /// The server has been stopped.
    #[error("the server has been stopped")]
    Stopped,
    /// A function that does not return keeps the server's thread. It ends when that returns.
    #[error("a function has not returned within {timeout:?}")]
    Busy {
        /// How long there was.
        timeout: Duration,
    },
    /// The channel over which the server's thread is woken could not be created.
    #[error("a channel of the server's own: {0}")]
    Bell(SegmentError),
    /// A system call failed.
    #[error("{call}: {source}")]
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
