//! Several keys at once, as users call it: batches, cuts, and going through all keys.
//!
//! What always holds: a batch changes all its keys or none, for every reader and whenever its process is
//! killed; what is read at once was there at once.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::batch::Change;
use super::copying::{Copied, CopyingIter};
use super::error::{ReadError, WriteError};
use super::handle::{Side, Store, checked};
use super::iterate::Entries;
use super::read_only::ReadOnly;
use super::reader::ReadRefusal;
use super::value::Value;
use super::writable::{Writable, after};
use crate::memory::{Deadline, MappedMemory, Memory};

/// How long a reader that writers leave no moment to waits for their lock.
const PATIENCE: Duration = Duration::from_secs(1);

/// Changes that will be made together. See [`Store::batch`].
#[derive(Clone)]
#[must_use = "nothing happens before it is committed"]
pub struct Batch<'a> {
    store: &'a Store,
    changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch<'_> {
    /// Makes `bytes` the value of a key.
    pub fn set(mut self, key: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> Self {
        self.changes.push((key.as_ref().to_vec(), Some(bytes.as_ref().to_vec())));
        self
    }

    /// Removes a key, where it is there.
    pub fn delete(mut self, key: impl AsRef<[u8]>) -> Self {
        self.changes.push((key.as_ref().to_vec(), None));
        self
    }

    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Makes all changes at once. Of several to one key the last one counts. Returns the versions of
    /// the new values, in the order of the calls; `None` for deletions, and for what a later change of
    /// the same key replaced. Waits for other writers, however long they take.
    ///
    /// Costs more than the changes would one by one: every key takes a further block for a moment, and its
    /// slot is stored twice. Needs room for the old values and the new ones. Readers meet a key's old value until all new ones are there.
    ///
    /// A batch does for each of its changes what one [`Store::set`] would do for the table and for replaced blocks.
    /// One that has more new keys than the table has slots left builds the larger table as a whole: less work
    /// than that, unless there was no room for a larger table before.
    ///
    /// # Errors
    /// [`WriteError`]; nothing has changed.
    pub fn commit(self) -> Result<Vec<Option<u64>>, WriteError> {
        self.commit_until(Deadline::NEVER)
    }

    /// As [`commit`](Self::commit), waiting for other writers no longer than `timeout`.
    ///
    /// # Errors
    /// [`WriteError::Deadline`] where another writer had the lock as long; else as `commit`.
    pub fn commit_timeout(self, timeout: Duration) -> Result<Vec<Option<u64>>, WriteError> {
        let deadline = self.store.deadline(timeout)?;
        self.commit_until(deadline)
    }

    fn commit_until(self, deadline: Deadline) -> Result<Vec<Option<u64>>, WriteError> {
        let changes: Vec<_> = self
            .changes
            .iter()
            .map(|(key, value)| match value {
                Some(value) => Change::set(key, value),
                None => Change::delete(key),
            })
            .collect();
        match self.store.host() {
            None => self.store.locked(deadline, |store| store.commit(&changes)),
            Some(host) => host.commit(&changes, deadline),
        }
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// A key and its value, as they were when they were met.
#[derive(Debug)]
#[must_use = "what was read is in here"]
pub struct Entry<'a> {
    key: Vec<u8>,
    value: Value<'a>,
}

impl<'a> Entry<'a> {
    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The value.
    pub fn value(&self) -> &Value<'a> {
        &self.value
    }

    /// Both.
    pub fn into_parts(self) -> (Vec<u8>, Value<'a>) {
        (self.key, self.value)
    }
}

/// All keys, or those with a prefix. See [`Store::iter`].
#[derive(Debug)]
#[must_use = "nothing is looked at before this is asked"]
pub struct Iter<'a> {
    inner: Inner<'a>,
    /// It ended with an error.
    is_over: bool,
}

#[derive(Debug)]
enum Inner<'a> {
    InPlace { writable: &'a Writable, entries: Entries<'a, MappedMemory> },
    Copied { reading: &'a ReadOnly, entries: CopyingIter<'a, MappedMemory> },
}

impl<'a> Iterator for Iter<'a> {
    type Item = Result<Entry<'a>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.inner.next();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}

impl<'a> Inner<'a> {
    fn next(&mut self) -> Option<Result<Entry<'a>, ReadError>> {
        match self {
            Self::InPlace { writable, entries } => {
                if let Err(error) = writable.check_ours() {
                    return Some(Err(error));
                }
                Some(match entries.next()? {
                    Ok((key, read)) => Ok(Entry { key, value: writable.value_of(read) }),
                    Err(refusal) => Err(refusal.into()),
                })
            }
            Self::Copied { reading, entries } => {
                if let Err(error) = reading.check_ours() {
                    return Some(Err(error));
                }
                Some(match entries.next()? {
                    Ok((key, copied)) => Ok(Entry { key, value: copied.into_value() }),
                    Err(refusal) => Err(refusal.into()),
                })
            }
        }
    }
}

impl Store {
    /// Changes of several keys that are made together: all of them, or none, for every reader, and
    /// whenever this process is killed.
    ///
    /// ```
    /// use ringway::store::{Store, StoreOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = Store::anonymous(&StoreOptions::default())?;
    /// store.set("alice", b"10")?;
    /// store.batch().delete("alice").set("bob", b"10").commit()?;
    ///
    /// let both = store.read_many(&["alice", "bob"])?;
    /// assert!(both[0].is_none());
    /// assert_eq!(both[1].as_deref(), Some(&b"10"[..]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn batch(&self) -> Batch<'_> {
        Batch { store: self, changes: Vec::new() }
    }

    /// The values of several keys as they were at one moment, in the order of the keys; `None` for those
    /// that were absent. The first ones lie in place, as many as a handle can have; the others are
    /// copied.
    ///
    /// Takes no lock where writers leave a moment to it: while no absent key is among them, one in
    /// which none of these keys changes, else one in which no key does. Where they do not, it waits up to a
    /// second for the lock of writers.
    ///
    /// # Errors
    /// [`ReadError::Busy`] where the lock was not to be had; [`ReadError`]. One key that no store can have is
    /// [`ReadError::KeyLength`] for all.
    pub fn read_many(
        &self,
        keys: &[impl AsRef<[u8]>],
    ) -> Result<Vec<Option<Value<'_>>>, ReadError> {
        keys.iter().try_for_each(|key| checked(key.as_ref()).map(drop))?;
        match &self.side {
            Side::Writable(writable) => {
                writable.check_ours()?;
                let found = match writable.reader.read_many(keys)? {
                    Some(found) => found,
                    None => writable.between_writers(|| writable.reader.read_each(keys))?,
                };
                Ok(found.into_iter().map(|read| read.map(|read| writable.value_of(read))).collect())
            }
            Side::ReadOnly(reading) => {
                reading.check_ours()?;
                let found = reading.reader.read_many(keys)?;
                Ok(found.into_iter().map(|copied| copied.map(Copied::into_value)).collect())
            }
        }
    }

    /// All keys with their values, beside writers: each is returned as it is when it is met.
    ///
    /// A key that is there from the first call to the last is returned exactly once, also where the table is replaced
    /// meanwhile; a key that comes or goes, once or not at all. The order is that of the keys' hashes, which says
    /// nothing. For all keys as they were at one moment, see [`get_all`](Self::get_all).
    ///
    /// ```
    /// # use ringway::store::{Store, StoreOptions};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = Store::anonymous(&StoreOptions::default())?;
    /// store.batch().set("cat/1", b"Tom").set("cat/2", b"Kit").set("dog/1", b"Rex").commit()?;
    /// let mut cats = Vec::new();
    /// for entry in store.prefix("cat/") {
    ///     let (key, value) = entry?.into_parts();
    ///     cats.push((key, value.to_vec()));
    /// }
    /// cats.sort();
    /// assert_eq!(cats, [(b"cat/1".to_vec(), b"Tom".to_vec()), (b"cat/2".to_vec(), b"Kit".to_vec())]);
    /// assert_eq!(store.iter().count(), 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Each entry may be a [`ReadError`], after which there are no more.
    pub fn iter(&self) -> Iter<'_> {
        self.prefix("")
    }

    /// As [`iter`](Self::iter), of the keys that start with `prefix`. Looks at all keys.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter<'_> {
        let inner = match &self.side {
            Side::Writable(writable) => {
                let entries = writable.reader.entries(prefix.as_ref());
                Inner::InPlace { writable, entries }
            }
            Side::ReadOnly(reading) => {
                Inner::Copied { reading, entries: reading.reader.prefix(prefix.as_ref()) }
            }
        };
        Iter { inner, is_over: false }
    }

    /// Copies of all keys and values as they were at one moment. Takes no lock where nothing changes
    /// meanwhile; otherwise writers wait until all is copied.
    ///
    /// # Errors
    /// [`ReadError::Busy`] where the lock was not to be had within a second; [`ReadError`].
    pub fn get_all(&self) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, ReadError> {
        match &self.side {
            Side::Writable(writable) => {
                writable.check_ours()?;
                let all = match writable.reader.read_all()? {
                    Some(all) => all,
                    None => writable.between_writers(|| writable.reader.read_all_locked())?,
                };
                Ok(all.into_iter().map(|(key, read)| (key, read.bytes.to_vec())).collect())
            }
            Side::ReadOnly(reading) => {
                reading.check_ours()?;
                let all = reading.reader.get_all()?;
                Ok(all.into_iter().map(|(key, copied)| (key, copied.to_vec())).collect())
            }
        }
    }
}

impl<'a> IntoIterator for &'a Store {
    type Item = Result<Entry<'a>, ReadError>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl Writable {
    fn check_ours(&self) -> Result<(), ReadError> {
        if self.shared.memory.is_ours() { Ok(()) } else { Err(ReadError::Forked) }
    }

    /// Reads while no writer has the lock.
    fn between_writers<T>(
        &self,
        read: impl FnOnce() -> Result<T, ReadRefusal>,
    ) -> Result<T, ReadError> {
        let deadline = after(&self.shared.memory, PATIENCE);
        let read = self.locked(deadline, |_| Ok::<_, WriteError>(read()));
        match read {
            Ok(read) => Ok(read?),
            Err(WriteError::Forked) => Err(ReadError::Forked),
            Err(WriteError::Damaged) => Err(ReadError::Damaged),
            Err(_) => Err(ReadError::Busy),
        }
    }
}
