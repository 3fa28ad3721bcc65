//! A value that was read: the bytes in the segment, or a copy of them.
//!
//! Handles return it from everything that reads. What always holds: its bytes do not change while it
//! lives; a value in the segment is pinned as long.

#![allow(unsafe_code)]

use std::fmt;
use std::ops::Deref;

use rkyv::util::AlignedVec;

use super::pinned::Pinned;
use super::shared::Shared;
use crate::memory::MappedMemory;

/// A value. Derefs to its bytes.
///
/// Mostly they lie in the segment, which is why a handle has few at a time: those beyond are copied,
/// as are all that a read-only handle reads. Writers replace and delete values beside it; this one
/// stays as it is.
#[must_use = "what was read is in here"]
pub struct Value<'a> {
    inner: Inner<'a>,
}

enum Inner<'a> {
    Pinned(Pinned<'a, MappedMemory>),
    Copied {
        bytes: AlignedVec,
        version: u64,
        tag: u32,
    },
    /// What the caller asked for in place of a value that is not there.
    Default(&'a [u8]),
}

impl<'a> Value<'a> {
    /// A value in the segment.
    ///
    /// # Safety
    /// The reader that has it pinned reads a store's memory as [`Shared::new`] was promised it is.
    #[inline]
    pub(super) unsafe fn pinned(pinned: Pinned<'a, MappedMemory>) -> Self {
        Self { inner: Inner::Pinned(pinned) }
    }

    /// A copy.
    pub(super) fn copied(bytes: AlignedVec, version: u64, tag: u32) -> Self {
        Self { inner: Inner::Copied { bytes, version, tag } }
    }

    /// What is there instead.
    pub(super) fn default(bytes: &'a [u8]) -> Self {
        Self { inner: Inner::Default(bytes) }
    }

    /// The value's version: greater than that of every value before it, under any key. 0 for what
    /// [`Store::get_or`](super::Store::get_or) was given.
    pub fn version(&self) -> u64 {
        match &self.inner {
            Inner::Pinned(pinned) => pinned.version(),
            Inner::Copied { version, .. } => *version,
            Inner::Default(_) => 0,
        }
    }

    /// Whether the bytes lie in the segment; otherwise they were copied.
    pub fn is_in_place(&self) -> bool {
        matches!(self.inner, Inner::Pinned(_))
    }

    /// The tag that it was set with.
    pub(super) fn tag(&self) -> u32 {
        match &self.inner {
            Inner::Pinned(pinned) => pinned.tag(),
            Inner::Copied { tag, .. } => *tag,
            Inner::Default(_) => 0,
        }
    }
}

impl Deref for Value<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.inner {
            Inner::Pinned(pinned) => {
                // SAFETY: the block was current after it was pinned, and stays pinned as long as `self`
                // lives; what the memory is, `pinned` was promised.
                unsafe { Shared::lend(pinned.memory(), pinned.value(), pinned.len()) }
            }
            Inner::Copied { bytes, .. } => bytes,
            Inner::Default(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Value<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Value<'_> {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value")
            .field("version", &self.version())
            .field("bytes", &&**self)
            .field("in_place", &self.is_in_place())
            .finish()
    }
}
