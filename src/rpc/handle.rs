//! Functions of another process, as one thread calls them.
//!
//! [`Client::function`](super::Client::function) makes them. What always holds: a name is looked up with
//! the first call, and again only when what was found is gone.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use rkyv::util::AlignedVec;

use super::error::CallError;
use super::lookup::{Known, Named, Shared};
use super::pending::PendingCall;
use crate::typed::{Decode, DecodeOwned, Encode};

/// A function of bytes, as one thread calls it: it is looked up with the first call, and a call then
/// costs no look at its name. Each thread has a clone of its own.
#[derive(Debug, Clone)]
pub struct Function {
    shared: Arc<Shared>,
    name: Arc<str>,
    known: Option<Known>,
    /// The result, while it is looked at.
    result: Vec<u8>,
}

impl Function {
    pub(super) fn new(shared: Arc<Shared>, name: &str) -> Self {
        Self { shared, name: name.into(), known: None, result: Vec::new() }
    }

    /// Calls it, for at most `timeout` in all.
    ///
    /// # Errors
    /// As [`Client::call`](super::Client::call).
    pub fn call(&mut self, arguments: &[u8], timeout: Duration) -> Result<Vec<u8>, CallError> {
        let named = Named::bytes(&self.name);
        self.shared.call(&mut self.known, named, arguments, timeout, <[u8]>::to_vec)
    }

    /// The same; `take` is lent the result, which lies in memory that is kept for the next call.
    ///
    /// # Errors
    /// As [`Client::call`](super::Client::call).
    #[inline]
    pub fn call_with<T>(
        &mut self,
        arguments: &[u8],
        timeout: Duration,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, CallError> {
        let Self { shared, name, known, result } = self;
        shared.call(known, Named::bytes(name), arguments, timeout, |bytes| {
            result.clear();
            result.extend_from_slice(bytes);
        })?;
        Ok(take(result))
    }

    /// As [`Client::start`](super::Client::start).
    ///
    /// # Errors
    /// As there.
    pub fn start(&mut self, arguments: &[u8], timeout: Duration) -> Result<PendingCall, CallError> {
        self.shared.start(&mut self.known, Named::bytes(&self.name), arguments, timeout)
    }
}

/// A function of values, as one thread calls it; otherwise as [`Function`].
pub struct TypedFunction<A, R> {
    shared: Arc<Shared>,
    name: Arc<str>,
    known: Option<Known>,
    scratch: AlignedVec,
    /// The result, while it is looked at.
    result: AlignedVec<64>,
    types: PhantomData<fn(A) -> R>,
}

impl<A: Encode, R: Decode> TypedFunction<A, R> {
    pub(super) fn new(shared: Arc<Shared>, name: &str) -> Self {
        let (name, scratch, result) = (name.into(), AlignedVec::new(), AlignedVec::new());
        Self { shared, name, known: None, scratch, result, types: PhantomData }
    }

    /// Calls it, for at most `timeout` in all.
    ///
    /// # Errors
    /// As [`Client::call_typed`](super::Client::call_typed).
    #[inline]
    pub fn call(&mut self, arguments: &A::Value, timeout: Duration) -> Result<R::Value, CallError>
    where
        R: DecodeOwned,
    {
        let bytes = self.call_raw(arguments, timeout)?;
        R::decode(bytes).and_then(R::to_value).map_err(CallError::InvalidResult)
    }

    /// The same; `take` is lent a look at the result.
    ///
    /// # Errors
    /// As [`Client::call_typed`](super::Client::call_typed).
    pub fn call_with<T>(
        &mut self,
        arguments: &A::Value,
        timeout: Duration,
        take: impl FnOnce(R::View<'_>) -> T,
    ) -> Result<T, CallError> {
        let bytes = self.call_raw(arguments, timeout)?;
        R::decode(bytes).map(take).map_err(CallError::InvalidResult)
    }

    #[inline]
    fn call_raw(&mut self, arguments: &A::Value, timeout: Duration) -> Result<&[u8], CallError> {
        let Self { shared, name, known, scratch, result, .. } = self;
        let bytes = A::encode(arguments, scratch).map_err(|_| CallError::Encode)?;
        shared.call(known, Named::typed::<A, R>(name), bytes, timeout, |bytes| {
            result.clear();
            result.extend_from_slice(bytes);
        })?;
        Ok(result)
    }
}

impl<A, R> Clone for TypedFunction<A, R> {
    fn clone(&self) -> Self {
        let (shared, name) = (Arc::clone(&self.shared), Arc::clone(&self.name));
        let (known, scratch, result) = (self.known.clone(), AlignedVec::new(), AlignedVec::new());
        Self { shared, name, known, scratch, result, types: PhantomData }
    }
}

impl<A, R> fmt::Debug for TypedFunction<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedFunction").field("name", &self.name).finish_non_exhaustive()
    }
}
