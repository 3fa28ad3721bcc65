//! Functions as the server's thread calls them: bytes in, bytes out.
//!
//! [`ServerBuilder`](super::ServerBuilder) and [`Server::add`](super::Server::add) make one of each
//! closure. What always holds: typed arguments have been checked before the closure is called, and what
//! a function leaves in the answer counts only where it returns `Ok`.

use std::fmt;

use rkyv::util::AlignedVec;

use super::error::Failure;
use super::frame::Types;
use super::request::Request;
use crate::typed::{Decode, Encode};

/// Where a function puts its result. Kept for its memory.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    scratch: AlignedVec,
}

/// Why a function has no result.
#[derive(Debug)]
pub(super) enum Fault {
    Failed(Failure),
    Malformed,
    NoResult,
}

type Body = Box<dyn FnMut(&Request<'_>, &mut Answer) -> Result<(), Fault> + Send>;

/// See the module.
pub(super) struct Function {
    pub(super) types: Types,
    body: Body,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").field("types", &self.types).finish_non_exhaustive()
    }
}

impl Function {
    /// Of bytes, which it returns.
    pub(super) fn bytes<R: AsRef<[u8]>>(
        mut function: impl FnMut(&Request<'_>) -> Result<R, Failure> + Send + 'static,
    ) -> Self {
        Self::into(move |request, answer| {
            answer.extend_from_slice(function(request)?.as_ref());
            Ok(())
        })
    }

    /// Of bytes, which it writes.
    pub(super) fn into(
        mut function: impl FnMut(&Request<'_>, &mut Vec<u8>) -> Result<(), Failure> + Send + 'static,
    ) -> Self {
        let body: Body = Box::new(move |request, answer| {
            function(request, &mut answer.bytes).map_err(Fault::Failed)
        });
        Self { types: Types::default(), body }
    }

    /// Of values.
    pub(super) fn typed<A: Decode, R: Encode>(
        mut function: impl FnMut(A::View<'_>, &Request<'_>) -> Result<R::Value, Failure>
        + Send
        + 'static,
    ) -> Self {
        let body: Body = Box::new(move |request, answer| {
            let arguments = A::decode(request.arguments).map_err(|_| Fault::Malformed)?;
            let result = function(arguments, request).map_err(Fault::Failed)?;
            let bytes = R::encode(&result, &mut answer.scratch).map_err(|_| Fault::NoResult)?;
            answer.bytes.extend_from_slice(bytes);
            Ok(())
        });
        Self { types: Types { arguments: A::FINGERPRINT, result: R::FINGERPRINT }, body }
    }

    #[inline]
    pub(super) fn call(&mut self, request: &Request<'_>, answer: &mut Answer) -> Result<(), Fault> {
        answer.bytes.clear();
        (self.body)(request, answer)
    }
}
