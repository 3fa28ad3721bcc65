//! The side of a handle that only reads: by copying, whatever lies in the store.
//!
//! A [`Store`] that was attached or opened read-only is one.
//! What always holds: the mapping is read-only, so that nothing is ever written to the store from here; what is
//! returned is this process's own.

use std::sync::Arc;

use super::StoreSegment;
use super::copying::{Copied, CopyRefusal, CopyingReader};
use super::error::ReadError;
use super::handle::{Side, Store};
use super::open::OpenError;
use super::remote::{Asking, Remote};
use super::value::Value;
use crate::memory::{MappedMemory, Memory};
use crate::segment::Address;
use std::os::fd::OwnedFd;

/// See the module.
#[derive(Debug)]
pub(super) struct ReadOnly {
    pub(super) reader: CopyingReader<MappedMemory>,
    pub(super) segment: Arc<StoreSegment>,
    /// Who writes for this process, if anybody does.
    pub(super) host: Option<Asking>,
}

impl ReadOnly {
    pub(super) fn new(segment: Arc<StoreSegment>, host: Option<Asking>) -> Self {
        let reader = CopyingReader::new(segment.memory().clone(), *segment.geometry());
        Self { reader, segment, host }
    }

    pub(super) fn get<'a>(&self, key: &[u8]) -> Result<Option<Value<'a>>, ReadError> {
        self.check_ours()?;
        Ok(self.reader.get(key)?.map(Copied::into_value))
    }

    pub(super) fn check_ours(&self) -> Result<(), ReadError> {
        if self.segment.memory().is_ours() { Ok(()) } else { Err(ReadError::Forked) }
    }

    /// Tells keys and versions.
    pub(super) fn scan(
        &self,
        prefix: &[u8],
        found: &mut dyn FnMut(&[u8], u64),
    ) -> Result<(), ReadError> {
        for entry in self.reader.versions(prefix) {
            let (key, version) = entry?;
            found(&key, version);
        }
        Ok(())
    }
}

impl From<CopyRefusal> for ReadError {
    fn from(refusal: CopyRefusal) -> Self {
        match refusal {
            CopyRefusal::Busy => Self::Busy,
            CopyRefusal::Damage => Self::Damaged,
            CopyRefusal::NoMemory { len_bytes } => Self::NoMemory { len_bytes },
        }
    }
}

impl Store {
    /// Attaches a store without a name to read it by copying. Whoever made it, and whatever he does to it, this
    /// process gets errors or wrong values at worst. Needs no record of a reader and no right to write.
    ///
    /// # Errors
    /// [`OpenError::Segment`], as [`StoreSegment::attach_read_only`].
    ///
    /// # Examples
    /// ```
    /// use ringway::store::{Store, StoreAccess, StoreOptions, WriteError};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = Store::anonymous(&StoreOptions { capacity_bytes: 1 << 20, ..Default::default() })?;
    /// store.set("motd", b"hello")?;
    /// // In a process that is not trusted, with a descriptor that it was handed:
    /// let theirs = Store::attach_read_only(store.descriptor_read_only()?)?;
    /// assert_eq!(theirs.access(), StoreAccess::ReadOnly);
    /// assert_eq!(&*theirs.get("motd")?.expect("just set"), b"hello");
    /// assert_eq!(theirs.set("motd", b"mine"), Err(WriteError::ReadOnly));
    /// # Ok(())
    /// # }
    /// ```
    pub fn attach_read_only(descriptor: OwnedFd) -> Result<Self, OpenError> {
        Ok(Self::read_only_over(Arc::new(StoreSegment::attach_read_only(descriptor)?), None))
    }

    /// As [`attach_read_only`](Self::attach_read_only), for a process for which somebody else writes.
    pub(crate) fn attach_through(
        descriptor: OwnedFd,
        remote: Arc<dyn Remote>,
    ) -> Result<Self, OpenError> {
        let segment = Arc::new(StoreSegment::attach_read_only(descriptor)?);
        Ok(Self::read_only_over(segment, Some(Asking::new(remote))))
    }

    /// Opens a store with a name to read it by copying, without becoming one of its users.
    ///
    /// # Errors
    /// [`OpenError::Segment`], as [`StoreSegment::open_read_only`].
    pub fn open_read_only(address: impl Into<Address>) -> Result<Self, OpenError> {
        Ok(Self::read_only_over(Arc::new(StoreSegment::open_read_only(address)?), None))
    }

    pub(super) fn read_only_over(segment: Arc<StoreSegment>, host: Option<Asking>) -> Self {
        Self { side: Side::ReadOnly(ReadOnly::new(segment, host)) }
    }
}
