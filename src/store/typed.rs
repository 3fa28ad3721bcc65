//! Values of Rust types: plain data and `rkyv` archives, read where they lie.
//!
//! Users call [`Store::get_pod`], [`Store::get_archived`] and what sets them.
//! What always holds: a reference to a value of a type exists only once its bytes were checked to be one;
//! the bytes do not change after that, because blocks do not.

#![allow(unsafe_code)]

use std::any::type_name;
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;

use bytemuck::{CheckedBitPattern, NoUninit};
use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Portable, Serialize};

use super::error::TypedError;
use super::handle::Store;
use super::value::Value;
use crate::Schema;
use crate::layout::store::block::tag_of;
use crate::layout::store::slot::UNIT;
use crate::memory::Deadline;
use crate::typed::{Archived, Codec, DecodeError, Encode, Pod, access};

/// A value of a type. Derefs to it, mostly in the segment itself; see [`Value`].
#[must_use = "what was read is in here"]
pub struct Typed<'a, T> {
    /// Points into `value`'s bytes.
    target: NonNull<T>,
    value: Value<'a>,
}

impl<T> Typed<'_, T> {
    /// The value's version; see [`Value::version`].
    pub fn version(&self) -> u64 {
        self.value.version()
    }

    /// Whether the value lies in the segment; otherwise it was copied.
    pub fn is_in_place(&self) -> bool {
        self.value.is_in_place()
    }
}

impl<T> Deref for Typed<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: whoever made this got the pointer from a reference into `value`'s bytes, which stay where they
        // are, and as they are, while `value` lives: pinned in the segment, or in a buffer of its own.
        unsafe { self.target.as_ref() }
    }
}

impl<T: fmt::Debug> fmt::Debug for Typed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Typed").field("version", &self.version()).field("value", &**self).finish()
    }
}

impl Store {
    /// Makes a value of plain data the value of a key.
    ///
    /// # Errors
    /// [`TypedError::Write`], as [`set`](Self::set); [`TypedError::Alignment`].
    #[inline]
    pub fn set_pod<T: Schema + NoUninit + 'static>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
    ) -> Result<u64, TypedError> {
        check_alignment::<T>()?;
        let value = (bytemuck::bytes_of(value), const { tag_of(<Pod<T> as Codec>::FINGERPRINT) });
        Ok(self.put(key.as_ref(), value, Deadline::NEVER)?)
    }

    /// The value of a key as plain data, where it lies; `None` where the key is absent.
    ///
    /// A value that was set as bytes is read as any type whose size it has and whose value it is.
    ///
    /// # Errors
    /// [`TypedError::Type`] where it was set as a value of another type, [`TypedError::Decode`] where its
    /// bytes are no value of this one, [`TypedError::Alignment`], [`TypedError::Read`].
    ///
    /// # Examples
    /// ```
    /// use ringway::store::{Store, StoreOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = Store::anonymous(&StoreOptions { capacity_bytes: 1 << 20, ..Default::default() })?;
    /// store.set_pod("limits", &[1_u64, 5, 25])?;
    /// let limits = store.get_pod::<[u64; 3]>("limits")?.expect("just set");
    /// assert_eq!(limits[2], 25);
    /// assert!(store.get_pod::<[u32; 6]>("limits").is_err());
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn get_pod<T: Schema + CheckedBitPattern + 'static>(
        &self,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<Typed<'_, T>>, TypedError> {
        check_alignment::<T>()?;
        let Some(value) = self.get(key)? else { return Ok(None) };
        check_tag(&value, type_name::<T>(), const { tag_of(<Pod<T> as Codec>::FINGERPRINT) })?;
        if value.len() != size_of::<T>() {
            let (found, expected) = (value.len() as u64, size_of::<T>() as u64);
            return Err(DecodeError::Length { found, expected }.into());
        }
        let target: &T =
            bytemuck::checked::try_from_bytes(&value).map_err(|_| DecodeError::Invalid)?;
        let target = NonNull::from(target);
        Ok(Some(Typed { target, value }))
    }

    /// Makes a value of any shape the value of a key, as an `rkyv` archive.
    ///
    /// # Errors
    /// [`TypedError::Encode`] where the value cannot be serialised, [`TypedError::Alignment`];
    /// [`TypedError::Write`], as [`set`](Self::set).
    pub fn set_archived<T>(&self, key: impl AsRef<[u8]>, value: &T) -> Result<u64, TypedError>
    where
        T: Schema + 'static,
        T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Failure>>,
    {
        check_alignment::<T::Archived>()?;
        // Before the lock is taken: it may take long, and runs what others have written.
        let key = key.as_ref();
        let mut scratch = match self.host() {
            None => self.writable()?.take_scratch(),
            Some(_) => AlignedVec::new(),
        };
        let bytes = Archived::<T>::encode(value, &mut scratch)?;
        let tag = const { tag_of(<Archived<T> as Codec>::FINGERPRINT) };
        let set = self.put(key, (bytes, tag), Deadline::NEVER);
        if let Ok(writable) = self.writable() {
            writable.keep_scratch(scratch);
        }
        Ok(set?)
    }

    /// The value of a key as an archive, where it lies; `None` where the key is absent. It is
    /// validated at every read, which costs a look at all of it: keep what was read for as long as it is needed.
    ///
    /// # Errors
    /// [`TypedError::Type`] where it was set as a value of another type, [`TypedError::Decode`] where its
    /// bytes are no archive of this one, [`TypedError::Alignment`], [`TypedError::Read`].
    ///
    /// # Examples
    /// ```
    /// use ringway::store::{Store, StoreOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = Store::anonymous(&StoreOptions { capacity_bytes: 1 << 20, ..Default::default() })?;
    /// store.set_archived("peers", &vec![String::from("alpha"), String::from("beta")])?;
    /// let peers = store.get_archived::<Vec<String>>("peers")?.expect("just set");
    /// assert_eq!(peers[1].as_str(), "beta");
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_archived<T>(
        &self,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<Typed<'_, T::Archived>>, TypedError>
    where
        T: Schema + Archive + 'static,
        T::Archived: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Failure>>,
    {
        check_alignment::<T::Archived>()?;
        let Some(value) = self.get(key)? else { return Ok(None) };
        check_tag(&value, type_name::<T>(), const { tag_of(<Archived<T> as Codec>::FINGERPRINT) })?;
        // At every read: that a version was validated before says nothing about the bytes that are there now, for
        // a version is what the store says.
        let target: &T::Archived = access(&value)?;
        let target = NonNull::from(target);
        Ok(Some(Typed { target, value }))
    }
}

fn check_alignment<T>() -> Result<(), TypedError> {
    let needed = align_of::<T>();
    if needed as u64 > UNIT { Err(TypedError::Alignment { needed }) } else { Ok(()) }
}

fn check_tag(value: &Value<'_>, asked: &'static str, expected: u32) -> Result<(), TypedError> {
    match value.tag() {
        0 => Ok(()),
        found if found == expected => Ok(()),
        found => Err(TypedError::Type { asked, found, expected }),
    }
}
