//! How a process comes by a store.
//!
//! Every [`Store`] but a clone comes from here. What always holds: a handle that reads in place and writes is of a
//! segment that only this user's processes can write.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::error::{CheckError, HandleError};
use super::handle::{Side, Store};
use super::shared::Shared;
use super::{StoreDescriptors, StoreOptions, StoreSegment, Verify, named};
#[cfg(doc)]
use crate::error::NameError;
use crate::error::SegmentError;
use crate::segment::{self, Address, How};

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
    /// A new, empty store in memory files without a name. It is gone with its last user; others get
    /// it by descriptors.
    ///
    /// # Errors
    /// [`OpenError::Segment`], as [`StoreSegment::anonymous`].
    pub fn anonymous(options: &StoreOptions) -> Result<Self, OpenError> {
        Self::over(StoreSegment::anonymous(options)?, options.verify)
    }

    /// Attaches a store without a name that this user's processes alone can write, for reading in place
    /// and writing.
    ///
    /// # Errors
    /// [`OpenError::Segment`], as [`StoreSegment::attach`]; [`OpenError::Handle`] where all reader
    /// records are in use.
    pub fn attach(descriptors: StoreDescriptors) -> Result<Self, OpenError> {
        Self::over(StoreSegment::attach(descriptors)?, Verify::Never)
    }

    /// Creates a store with a name. One that nobody has, and in which there are no keys, is replaced.
    ///
    /// ```
    /// use ringway::store::{self, Store, StoreOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let name = format!("doc-store-{}", std::process::id());
    /// let options = StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() };
    /// let first = Store::create(&*name, &options)?;
    /// first.set("motd", b"hello")?;
    /// let second = Store::open(&*name, &options)?; // in another process
    /// assert_eq!(&*second.get("motd")?.expect("just set"), b"hello");
    /// drop((first, second));
    /// store::remove(&*name)?; // names stay until they are removed
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NameError::AlreadyExists`] while somebody has it, [`NameError::NotEmpty`] where there are keys in
    /// it, or may be: what was in use when the machine went down is to be opened first, or removed; [`NameError::NotOurs`] where the options would let others write it; the other [`NameError`]s
    /// and [`SegmentError`]s as they say. Nothing is kept.
    pub fn create(address: impl Into<Address>, options: &StoreOptions) -> Result<Self, OpenError> {
        Self::over(named::open_segment(&address.into(), How::Create, options)?, options.verify)
    }

    /// Opens a store that exists. Who opens it while nobody else has it brings it in order first,
    /// which takes longer where its last user had no time to close it. The store may be larger than asked
    /// for, and not smaller; [`StoreOptions::least`] opens any.
    ///
    /// # Errors
    /// [`NameError::NotFound`] where there is none; [`NameError::Differs`] where it is smaller than asked for;
    /// [`NameError::NotOurs`] where it is another user's, or
    /// others may write it; [`SegmentError::PidNamespace`] where others use it in another pid namespace;
    /// [`SegmentError::Damaged`] where the machine went down with it in use, and it did not survive that;
    /// [`OpenError::Handle`] where all reader records are in use. The others as they say. Nothing is kept.
    pub fn open(address: impl Into<Address>, options: &StoreOptions) -> Result<Self, OpenError> {
        Self::over(named::open_segment(&address.into(), How::Open, options)?, options.verify)
    }

    /// Opens the store that exists, or creates one.
    ///
    /// # Errors
    /// As [`create`](Self::create) and [`open`](Self::open).
    pub fn open_or_create(
        address: impl Into<Address>,
        options: &StoreOptions,
    ) -> Result<Self, OpenError> {
        Self::over(
            named::open_segment(&address.into(), How::OpenOrCreate, options)?,
            options.verify,
        )
    }

    /// As [`open`](Self::open), but waits until the store exists.
    ///
    /// # Errors
    /// What [`open`](Self::open) said last, where that has not come about after `timeout`.
    pub fn open_timeout(
        address: impl Into<Address>,
        options: &StoreOptions,
        timeout: Duration,
    ) -> Result<Self, OpenError> {
        let address = address.into();
        until(timeout, || Self::open(&address, options))
    }

    fn over(segment: StoreSegment, verify: Verify) -> Result<Self, OpenError> {
        let store = Self::writable_over(Arc::new(Shared::new(segment)?))?;
        match verify {
            Verify::Never => {}
            Verify::OnOpen => store.check().map_err(|error| match error {
                CheckError::Unsound { what } => SegmentError::Damaged { what }.into(),
                CheckError::Write(error) => OpenError::from(HandleError::from(error)),
            })?,
            Verify::EveryRead => store.verify_reads(true),
        }
        Ok(store)
    }

    fn segment(&self) -> &StoreSegment {
        match &self.side {
            Side::Writable(writable) => &writable.shared.segment,
            Side::ReadOnly(reading) => &reading.segment,
        }
    }

    /// Whether the store's name still means this store: false where the name was removed, or given to
    /// another one. True where it has no name. Costs a system call.
    ///
    /// A handle of a store that lost its name goes on reading and writing what no new process will see.
    /// Its watches end with [`Superseded`](super::WatchError::Superseded) within a second.
    pub fn is_current(&self) -> bool {
        self.segment().is_current()
    }

    /// A new descriptor of the public part of a store without a name, closed on exec, with which it can be attached for
    /// reading by copying. No word that a participant sleeps on, locks or pins with lies in that file.
    ///
    /// # Errors
    /// [`SegmentError::Os`], where descriptors have run out or `/proc` is missing;
    /// [`SegmentError::NotMemory`] where the store has a name, by which it is opened instead.
    pub fn descriptor_read_only(&self) -> Result<OwnedFd, SegmentError> {
        self.segment().descriptor_read_only()
    }

    /// New descriptors of both memory files of a store without a name, closed on exec, for
    /// [`attach`](Self::attach).
    ///
    /// # Safety
    /// The process that gets them writes to the store by way of this library only.
    ///
    /// # Errors
    /// [`SegmentError::Os`], where descriptors have run out; [`SegmentError::NotMemory`] where the store has a name,
    /// or this handle has its public part only.
    #[allow(unsafe_code)]
    pub unsafe fn descriptor_writable(&self) -> Result<StoreDescriptors, SegmentError> {
        self.segment().descriptors()
    }

    /// From here on nobody else can attach a store without a name for writing, whatever descriptors he
    /// has: only those who have it now write. For ever.
    ///
    /// # Errors
    /// As [`descriptor_read_only`](Self::descriptor_read_only).
    pub fn seal_writers(&self) -> Result<(), SegmentError> {
        self.segment().seal_writes()
    }
}

/// Tries to open a store until it is there, or the time is over.
fn until<T>(timeout: Duration, open: impl FnMut() -> Result<T, OpenError>) -> Result<T, OpenError> {
    segment::until(timeout, open, |error| match error {
        OpenError::Segment(SegmentError::Name(error)) => Some(error),
        _ => None,
    })
}
