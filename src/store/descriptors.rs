//! The descriptors of a store without a name, for a process that writes.
//!
//! [`Store::descriptor_writable`](super::Store::descriptor_writable) makes them, and
//! [`Store::attach`](super::Store::attach) takes them. Invariants: none; attaching checks that the two belong together.

use std::io;
use std::os::fd::OwnedFd;

/// Two memory files that are one store. A process that only reads gets
/// [the first one](super::Store::descriptor_read_only) alone.
#[derive(Debug)]
pub struct StoreDescriptors {
    /// What every process that has the store may map for reading: header, table, values.
    pub public: OwnedFd,
    /// What participants alone may have: lock, doorbells, participants, pins.
    pub private: OwnedFd,
}

impl StoreDescriptors {
    /// The same files, with descriptors of their own.
    ///
    /// # Errors
    /// Descriptors have run out.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { public: self.public.try_clone()?, private: self.private.try_clone()? })
    }
}
