//! Changes that depend on what is there: under one hold of the lock.
//!
//! Users call these like [`Store::set`]. What always holds: nobody changes the key between the look at it and the
//! change; a closure that panics has changed nothing.

use super::error::{AddError, CompareError, WriteError};
use super::handle::Store;
use super::writable::Locked;
use crate::layout::store::block::tag_of;
use crate::memory::Deadline;
use crate::typed::{Codec, Pod};

/// The tag of integers that are added to.
const INTEGER: u32 = tag_of(<Pod<i64> as Codec>::FINGERPRINT);

impl Store {
    /// Makes `bytes` the value of a key that is absent. Returns the value's version; `None` where the key
    /// has a value, which stays.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn set_if_absent(
        &self,
        key: impl AsRef<[u8]>,
        bytes: &[u8],
    ) -> Result<Option<u64>, WriteError> {
        let key = key.as_ref();
        match self.host() {
            None => self.locked(Deadline::NEVER, |store| set_if_absent(store, key, (bytes, 0))),
            Some(host) => host.set_if_absent(key, bytes),
        }
    }

    /// Makes `bytes` the value of a key; returns the value that it had.
    ///
    /// # Errors
    /// As [`set`](Self::set); through a host also [`RemoteError::Contended`](super::RemoteError::Contended).
    pub fn swap(&self, key: impl AsRef<[u8]>, bytes: &[u8]) -> Result<Option<Vec<u8>>, WriteError> {
        let key = key.as_ref();
        if let Some(host) = self.host() {
            return self.swap_through(host, key, bytes);
        }
        self.locked(Deadline::NEVER, |store| {
            let former = store.find(key)?.map(|block| store.bytes_of(&block).to_vec());
            store.set(key, (bytes, 0))?;
            Ok(former)
        })
    }

    /// Makes of a key's value what the closure makes of it: `None` stands for an absent key on both
    /// sides. Returns the version of the new value. Other writers wait until the closure is done.
    ///
    /// The closure may read through any handle of this store. It must not write through one: that is
    /// [`WriteError::Nested`].
    ///
    /// [Through a host](super::StoreAccess::ThroughHost) nobody waits for the closure: it is called again where
    /// somebody else changes the key before the host has, and its result replaces only the value that it was
    /// given.
    ///
    /// # Errors
    /// As [`set`](Self::set); through a host also [`RemoteError::Contended`](super::RemoteError::Contended).
    ///
    /// # Panics
    /// Where the closure does; the value is then what it was, and the store goes on.
    ///
    /// # Examples
    /// ```
    /// use ringway::store::{Store, StoreOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = Store::anonymous(&StoreOptions { capacity_bytes: 1 << 20, ..Default::default() })?;
    /// for word in [&b"to"[..], b"be"] {
    ///     store.update("words", |old| Some([old.unwrap_or(b""), word, b" "].concat()))?;
    /// }
    /// assert_eq!(&*store.get("words")?.expect("just set"), b"to be ");
    /// # Ok(())
    /// # }
    /// ```
    pub fn update(
        &self,
        key: impl AsRef<[u8]>,
        mut change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<u64>, WriteError> {
        let key = key.as_ref();
        if let Some(host) = self.host() {
            return self.update_through(host, key, change);
        }
        self.locked(Deadline::NEVER, |store| {
            let block = store.find(key)?;
            let new = change(block.as_ref().map(|block| store.bytes_of(block)));
            store.still_ours()?;
            put(store, key, new.as_deref().map(|bytes| (bytes, 0)))
        })
    }

    /// Makes `new` the value of a key whose value has the version `expected`; `None` stands for an
    /// absent key in both places. Returns the version of the new value.
    ///
    /// Versions are never used twice in a store, also not after a deletion.
    ///
    /// # Errors
    /// [`CompareError::Changed`] where the value has another version; else as [`set`](Self::set).
    pub fn compare_exchange(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<u64>,
        new: Option<&[u8]>,
    ) -> Result<Option<u64>, CompareError> {
        let key = key.as_ref();
        match self.host() {
            None => self.locked(Deadline::NEVER, |store| {
                compare_exchange(store, key, expected, new.map(|bytes| (bytes, 0)))
            }),
            Some(host) => host.compare_exchange(key, expected, new),
        }
    }

    /// Adds to an `i64`, which lies in the store as its eight bytes in native order; an absent key counts
    /// as 0. Returns the value before. [`get_pod`](Self::get_pod) reads it.
    ///
    /// # Errors
    /// [`AddError::NotAnInteger`] where the value has another length or type, [`AddError::Overflow`] where
    /// the sum is too large; else as [`set`](Self::set).
    pub fn fetch_add(&self, key: impl AsRef<[u8]>, added: i64) -> Result<i64, AddError> {
        let key = key.as_ref();
        match self.host() {
            None => self.locked(Deadline::NEVER, |store| Ok(fetch_add(store, key, added)?.0)),
            Some(host) => host.fetch_add(key, added),
        }
    }

    /// Removes all keys; returns how many there were. All of them are gone at once, also for whoever
    /// recovers the store; except where it is so full that an empty table has no room, in which case
    /// some go first.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn clear(&self) -> Result<u64, WriteError> {
        match self.host() {
            None => self.locked(Deadline::NEVER, |store| store.clear()),
            Some(host) => host.clear(),
        }
    }
}

/// Sets or deletes a key.
fn put(
    store: &mut Locked<'_>,
    key: &[u8],
    new: Option<(&[u8], u32)>,
) -> Result<Option<u64>, WriteError> {
    match new {
        Some(value) => store.set(key, value).map(Some),
        None => store.delete(key).map(|_| None),
    }
}

/// See [`Store::set_if_absent`].
pub(super) fn set_if_absent(
    store: &mut Locked<'_>,
    key: &[u8],
    value: (&[u8], u32),
) -> Result<Option<u64>, WriteError> {
    match store.find(key)? {
        Some(_) => Ok(None),
        None => store.set(key, value).map(Some),
    }
}

/// See [`Store::compare_exchange`].
pub(super) fn compare_exchange(
    store: &mut Locked<'_>,
    key: &[u8],
    expected: Option<u64>,
    new: Option<(&[u8], u32)>,
) -> Result<Option<u64>, CompareError> {
    let found = store.find(key)?.map(|block| block.version);
    if found != expected {
        return Err(CompareError::Changed { found });
    }
    Ok(put(store, key, new)?)
}

/// See [`Store::fetch_add`]. Returns the value before, and the version of the new one.
pub(super) fn fetch_add(
    store: &mut Locked<'_>,
    key: &[u8],
    added: i64,
) -> Result<(i64, u64), AddError> {
    let value = match store.find(key)? {
        None => 0,
        Some(block) => {
            let bytes = store.bytes_of(&block);
            match bytes.try_into() {
                Ok(bytes) if matches!(block.tag, 0 | INTEGER) => i64::from_ne_bytes(bytes),
                _ => return Err(AddError::NotAnInteger { found: block.value_len }),
            }
        }
    };
    let sum = value.checked_add(added).ok_or(AddError::Overflow { value, added })?;
    let version = store.set(key, (&sum.to_ne_bytes(), INTEGER))?;
    Ok((value, version))
}
