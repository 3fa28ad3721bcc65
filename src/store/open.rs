//! How a process comes by a store.
//!
//! Every [`Store`] but a clone comes from here. What always holds: a handle that reads in place and writes is of a
//! segment that only this user's processes can write.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use thiserror::Error;

use super::error::HandleError;
use super::handle::{Side, Store};
use super::shared::Shared;
use super::{StoreOptions, StoreSegment};
use crate::error::SegmentError;

/// Why a store could not be created or opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Something about its segment.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The segment is good, and there is no handle to be had.
    #[error(transparent)]
    Handle(#[from] HandleError),
}

impl Store {
    /// A new, empty store in a memory file without a name. It is gone with its last user; others get
    /// it by descriptor.
    ///
    /// # Errors
    /// [`OpenError::Segment`], as [`StoreSegment::anonymous`].
    pub fn anonymous(options: &StoreOptions) -> Result<Self, OpenError> {
        Self::over(StoreSegment::anonymous(options)?)
    }

    /// Attaches a store without a name that this user's processes alone can write, for reading in place
    /// and writing.
    ///
    /// # Errors
    /// [`OpenError::Segment`], as [`StoreSegment::attach`]; [`OpenError::Handle`] where all reader
    /// records are in use.
    pub fn attach(descriptor: OwnedFd) -> Result<Self, OpenError> {
        Self::over(StoreSegment::attach(descriptor)?)
    }

    fn over(segment: StoreSegment) -> Result<Self, OpenError> {
        Ok(Self::writable_over(Arc::new(Shared::new(segment)))?)
    }

    fn segment(&self) -> &StoreSegment {
        match &self.side {
            Side::Writable(writable) => &writable.shared.segment,
        }
    }

    /// A new descriptor of a store without a name, closed on exec, with which it can be attached for
    /// reading by copying.
    ///
    /// # Errors
    /// [`SegmentError::Os`], where descriptors have run out or `/proc` is missing.
    pub fn descriptor_read_only(&self) -> Result<OwnedFd, SegmentError> {
        self.segment().file().expect("it has no name").descriptor_read_only()
    }
    /// As [`descriptor_read_only`](Self::descriptor_read_only), for [`attach`](Self::attach).
    ///
    /// # Safety
    /// Who gets it writes to the store by way of this library only.
    ///
    /// # Errors
    /// As there.
    #[allow(unsafe_code)]
    pub unsafe fn descriptor_writable(&self) -> Result<OwnedFd, SegmentError> {
        self.segment().file().expect("it has no name").descriptor()
    }
}
