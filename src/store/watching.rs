//! Watches, as users have them.
//!
//! [`Store::watch`] and its kin make them. What always holds: a watch tells every change since it was made, or since its
//! last news, though several may come as one; waiting costs writers one system call a sleep, and nothing
//! where nobody sleeps; a wait ends at its deadline.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::bed::{ByHost, Place};
use super::block;
use super::error::ReadError;
use super::handle::Store;
use super::interest::{Interest, OneKey};
use super::interest_prefix::Prefix;
use super::interests::{Interests, One, WatchId};
use super::watch::{Change, POLL_NS, Watcher};
use crate::layout::store::block::MAX_KEY_BYTES;
use crate::memory::{Deadline, MappedMemory, Memory, Ordering};
use crate::os::clock::monotonic_ns;
use crate::os::futex;
use crate::sync::AtomicU32;

/// How often a wait looks whether the store's name still means it.
const NAME_CHECK_NS: u64 = 1_000_000_000;

/// How long registering a prefix waits for a writer, or for the host. A watch that is not registered reads the log of all
/// changes.
const PATIENCE: Duration = Duration::from_millis(50);

/// Why nothing was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WatchError {
    /// A key that no store can have.
    #[error(
        "a key of {found} bytes cannot be watched: a key has from 1 to {} bytes",
        MAX_KEY_BYTES
    )]
    KeyLength {
        /// How long it is.
        found: u64,
    },
    /// [`WatchInterrupter::interrupt`] was called.
    #[error("the wait was ended by its interrupter")]
    Interrupted,
    /// The store's name means another store by now, or none: no new process changes this one.
    #[error("the store's name means another store by now, or none; open the name again")]
    Superseded,
    /// The store could not be looked at.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A watch of a key, or of all keys with a prefix.
///
/// It knows the versions of what it watches, and tells what differs from them: a change that came between
/// two waits is told by the second one, also when its writer was killed right after it. Several changes
/// of a key that nobody waited for are told as one, with the last version.
///
/// Replacing tables and moving values to make room are no changes. A write of the same bytes is one: it
/// makes a new version.
///
/// It borrows its handle, which can be used for everything else meanwhile, by the same thread. A thread
/// that waits without a timeout is woken by [`interrupter`](Self::interrupter).
///
/// ```
/// use std::time::Duration;
/// use ringway::store::{Store, StoreOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Store::anonymous(&StoreOptions { capacity_bytes: 1 << 20, ..Default::default() })?;
/// let writer = store.try_clone()?;
/// let mut watch = store.watch("motd")?;
/// let writing = std::thread::spawn(move || writer.set("motd", b"hello"));
/// let change = watch.wait(Duration::from_secs(60))?.expect("it is being set");
/// assert_eq!(change.version, Some(writing.join().expect("no panic")?));
/// assert_eq!(store.get("motd")?.expect("set"), b"hello");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Watch<'a>(Watching<'a, One>);

/// Many watches in one, for a thread that waits for all of them.
///
/// A write of a key that is not watched ends no wait, and costs its writer no system call, unless the key shares one
/// of 128 doorbells with a watched one. Each wait costs a look at the doorbells, and each change a look at the watched keys that
/// share its doorbell. What a prefix costs, [`Store::watch_prefix`] says.
///
/// Some are woken by each change of any key instead: those with keys and prefixes at more than 127 doorbells, on
/// handles that cannot write, and on a kernel without `futex_waitv` (Linux 5.16).
#[derive(Debug)]
pub struct Watches<'a>(Watching<'a, Interests>);

/// Ends waits of one [`Watch`] or [`Watches`] from other threads.
#[derive(Debug, Clone, Default)]
pub struct WatchInterrupter(Arc<AtomicU32>);

impl WatchInterrupter {
    /// Ends the wait in progress, or else the next one, with [`WatchError::Interrupted`].
    pub fn interrupt(&self) {
        // Release pairs with the Acquire of who is interrupted.
        self.0.store(1, Ordering::Release);
        futex::wake(&self.0, u32::MAX);
    }

    /// Sleeps for so long, or until somebody interrupts, whose interruption is over then.
    pub(super) fn wait(&self, timeout_ns: u64) {
        futex::wait(&self.0, 0, Deadline::at_ns(monotonic_ns().saturating_add(timeout_ns)));
        // Pairs with the Release in `interrupt`: what was asked for before it is seen.
        self.0.swap(0, Ordering::Acquire);
    }
}

/// A watch, whatever of.
#[derive(Debug)]
pub(super) struct Watching<'a, I> {
    store: &'a Store,
    watcher: Watcher<MappedMemory, I>,
    interrupted: Option<Arc<AtomicU32>>,
    by_host: ByHost,
}

impl<'a, I: Interest> Watching<'a, I> {
    fn new(store: &'a Store, interest: I) -> Self {
        let (memory, geometry, _) = store.watched();
        let watcher = Watcher::new(memory.clone(), geometry, interest, POLL_NS);
        Self { store, watcher, interrupted: None, by_host: ByHost::default() }
    }

    /// One whose waits end where this interrupter says so.
    pub(super) fn interruptible(
        store: &'a Store,
        interest: I,
        interrupter: &WatchInterrupter,
        poll_ns: u64,
    ) -> Self {
        let mut watching = Self::new(store, interest);
        watching.watcher.set_poll_ns(poll_ns);
        watching.interrupted = Some(Arc::clone(&interrupter.0));
        watching
    }

    pub(super) fn interest_mut(&mut self) -> &mut I {
        self.watcher.interest_mut()
    }

    /// Looks as often as this, or more often, where nobody wakes it.
    pub(super) fn look_at_least_every(&mut self, poll_ns: u64) {
        self.watcher.set_poll_ns(poll_ns.min(self.watcher.poll_ns()));
    }

    pub(super) fn wait_forever(&mut self) -> Result<I::News, WatchError> {
        loop {
            if let Some(news) = self.wait(Deadline::NEVER)? {
                return Ok(news);
            }
        }
    }

    fn try_wait(&mut self) -> Result<Option<I::News>, WatchError> {
        self.store.memory()?;
        Ok(self.watcher.look(self.store)?)
    }

    fn wait(&mut self, deadline: Deadline) -> Result<Option<I::News>, WatchError> {
        // Whoever waits says so in the segment: not before this.
        self.store.memory()?;
        let (memory, geometry, announces) = self.store.watched();
        let interrupted = self.interrupted.as_deref();
        let mut place = Place {
            memory: memory.clone(),
            geometry,
            announces,
            host: self.store.host(),
            by_host: &mut self.by_host,
            interrupted,
        };
        let stop = || interrupted.is_some_and(|word| word.load(Ordering::Acquire) != 0);
        loop {
            let now_ns = place.memory.now_ns();
            let until = deadline.min(Deadline::at_ns(now_ns.saturating_add(NAME_CHECK_NS)));
            let news = self.watcher.wait(self.store, until, &mut place, stop)?;
            if news.is_some() {
                return Ok(news);
            }
            if interrupted.is_some_and(|word| word.swap(0, Ordering::Acquire) != 0) {
                return Err(WatchError::Interrupted);
            }
            if !self.store.is_current() {
                return Err(WatchError::Superseded);
            }
            if place.memory.now_ns() >= deadline.as_ns() {
                return Ok(None);
            }
        }
    }

    fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<I::News>, WatchError> {
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let now_ns = self.store.watched().0.now_ns();
        self.wait(Deadline::at_ns(now_ns.saturating_add(timeout_ns)))
    }

    fn interrupter(&mut self) -> WatchInterrupter {
        WatchInterrupter(Arc::clone(self.interrupted.get_or_insert_default()))
    }
}

impl Store {
    /// Watches a key from now on. Read it after this, not before, and no change falls in between.
    ///
    /// # Errors
    /// [`WatchError::KeyLength`], or [`WatchError::Read`].
    pub fn watch(&self, key: impl AsRef<[u8]>) -> Result<Watch<'_>, WatchError> {
        let key = OneKey::new(self, self.watched().1, check_key(key.as_ref())?)?;
        Ok(Watch(Watching::new(self, One::Key(key))))
    }

    /// Watches a key from what the caller knows of it: `known` is the version of the value that it has seen,
    /// or `None` where it was absent. What differs from that is told at once.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub fn watch_since(
        &self,
        key: impl AsRef<[u8]>,
        known: Option<u64>,
    ) -> Result<Watch<'_>, WatchError> {
        let key = OneKey::since(self, self.watched().1, check_key(key.as_ref())?, known);
        Ok(Watch(Watching::new(self, One::Key(key))))
    }

    /// Watches all keys that begin with these bytes, from now on. Keeps a copy of those keys.
    ///
    /// Writes elsewhere cost neither their writer a system call nor this watch a look. A change under the prefix costs
    /// the same at any number of keys. This holds for 32 prefixes of all processes together, four of them for each plugin whose host
    /// writes for it.
    ///
    /// Every other watch is woken by each change of any key, where it can be woken, and looks up what has changed, at any
    /// number of keys. Only where more came between two looks than the store keeps record of is the table walked through: 128
    /// changes under the prefix, or 1,024 of any keys.
    ///
    /// Waits up to 50 ms for a writer that has the lock, or for the host.
    ///
    /// # Errors
    /// [`WatchError::Read`].
    pub fn watch_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Watch<'_>, WatchError> {
        Ok(Watch(Watching::new(self, self.interest_in_prefix(prefix.as_ref())?)))
    }

    /// All keys that begin with these bytes, with an entry where one is to be had.
    pub(super) fn interest_in_prefix(&self, prefix: &[u8]) -> Result<One, ReadError> {
        self.memory()?;
        // Before the first look, so that whatever changes behind it is noted.
        let entry = match (self.writable(), self.host()) {
            (Ok(writable), _) => writable.register(prefix, PATIENCE),
            (Err(_), Some(host)) => host.register(self.watched().0, prefix, PATIENCE),
            (Err(_), None) => None,
        };
        Ok(One::Prefix(Prefix::new(self, self.watched().1, prefix, entry)?))
    }

    /// Watches nothing yet: keys and prefixes are added to it.
    pub fn watches(&self) -> Watches<'_> {
        Watches(Watching::new(self, Interests::default()))
    }
}

pub(super) fn check_key(key: &[u8]) -> Result<&[u8], WatchError> {
    block::check_key(key).map_err(|found| WatchError::KeyLength { found })
}

impl Watch<'_> {
    /// What has changed and was not told yet, if anything. Does not wait.
    ///
    /// # Errors
    /// [`WatchError::Read`].
    pub fn try_wait(&mut self) -> Result<Option<Change>, WatchError> {
        self.0.try_wait()
    }

    /// Waits for a change, no longer than `timeout`; then there is none. Looks at least once.
    ///
    /// # Errors
    /// [`WatchError::Interrupted`], [`WatchError::Superseded`] or [`WatchError::Read`].
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<Change>, WatchError> {
        self.0.wait_timeout(timeout)
    }

    /// Waits for a change, however long it takes.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_forever(&mut self) -> Result<Change, WatchError> {
        self.0.wait_forever()
    }

    /// How often to look where no writer can be asked for a wakeup: on a handle that is read-only, and has no host
    /// that announces its sleeps ([`StoreAccess::ThroughHost`](super::StoreAccess::ThroughHost)), or one that does not answer. 10 ms if
    /// nothing is said, at most 250 ms.
    pub fn set_poll_interval(&mut self, interval: Duration) {
        self.0.watcher.set_poll_ns(u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What ends a wait from another thread.
    pub fn interrupter(&mut self) -> WatchInterrupter {
        self.0.interrupter()
    }
}

impl Watches<'_> {
    /// Watches a key from now on, as well.
    ///
    /// # Errors
    /// As [`Store::watch`].
    pub fn add(&mut self, key: impl AsRef<[u8]>) -> Result<WatchId, WatchError> {
        let store = self.0.store;
        let key = OneKey::new(store, store.watched().1, check_key(key.as_ref())?)?;
        Ok(self.0.watcher.interest_mut().add(One::Key(key)))
    }

    /// Watches a key from what the caller knows of it, as [`Store::watch_since`] does.
    ///
    /// # Errors
    /// As [`Store::watch`].
    pub fn add_since(
        &mut self,
        key: impl AsRef<[u8]>,
        known: Option<u64>,
    ) -> Result<WatchId, WatchError> {
        let store = self.0.store;
        let key = OneKey::since(store, store.watched().1, check_key(key.as_ref())?, known);
        Ok(self.0.watcher.interest_mut().add(One::Key(key)))
    }

    /// Watches all keys with a prefix from now on, as well.
    ///
    /// # Errors
    /// As [`Store::watch_prefix`].
    pub fn add_prefix(&mut self, prefix: impl AsRef<[u8]>) -> Result<WatchId, WatchError> {
        let prefix = self.0.store.interest_in_prefix(prefix.as_ref())?;
        Ok(self.0.watcher.interest_mut().add(prefix))
    }

    /// Watches this no more; returns whether it did.
    pub fn remove(&mut self, id: WatchId) -> bool {
        self.0.watcher.interest_mut().remove(id)
    }

    /// How many keys and prefixes it watches.
    pub fn len(&self) -> usize {
        self.0.watcher.interest().len()
    }

    /// Whether it watches nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What has changed and was not told yet, if anything. Does not wait.
    ///
    /// # Errors
    /// [`WatchError::Read`].
    pub fn try_wait(&mut self) -> Result<Option<(WatchId, Change)>, WatchError> {
        self.0.try_wait()
    }

    /// Waits for a change, no longer than `timeout`; then there is none. Looks at least once.
    ///
    /// # Errors
    /// [`WatchError::Interrupted`], [`WatchError::Superseded`] or [`WatchError::Read`].
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<(WatchId, Change)>, WatchError> {
        self.0.wait_timeout(timeout)
    }

    /// What ends a wait from another thread.
    pub fn interrupter(&mut self) -> WatchInterrupter {
        self.0.interrupter()
    }
}

#[cfg(test)]
#[path = "watching_tests.rs"]
mod tests;
