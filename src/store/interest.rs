//! What a watcher is interested in: a key, or, by [`Prefix`], all keys with a prefix.
//!
//! [`Watcher`](super::watch::Watcher) asks it for news whenever a bell was rung, or may have been.
//! What always holds: what it knows is what it found at its last look, or what it was told to start from; what
//! differs from that is news, and so is what was deleted since and is absent both times.

use super::StoreGeometry;
use super::block::hash;
use super::change_log::{Appended, Log};
use super::doorbells::{self, Note};
use super::watch::Change;

/// Where versions are looked up.
pub(crate) trait Truth {
    /// Why nothing could be looked up.
    type Error;

    /// Version of a key's value; `None` where it is absent.
    fn version(&self, key: &[u8]) -> Result<Option<u64>, Self::Error>;

    /// Calls `found` with every key that has this prefix, and its version. A key that is there all the
    /// time is found at least once.
    fn scan(&self, prefix: &[u8], found: &mut dyn FnMut(&[u8], u64)) -> Result<(), Self::Error>;

    /// How many deletions were noted.
    fn noted(&self) -> u64;

    /// As [`doorbells::read_notes`].
    fn notes(&self, from: u64, to: u64, notes: &mut Vec<Note>) -> bool;

    /// Every key with this hash, and its version: one, or none.
    fn with_hash(&self, hash: u64) -> Result<Vec<(Vec<u8>, u64)>, Self::Error>;

    /// As [`change_log::read`](super::change_log::read).
    fn changes(&self, log: Log, from: u64, hashes: &mut Vec<u64>) -> Appended;
}

/// See the module.
pub(crate) trait Interest {
    /// What is told.
    type News;

    /// Calls `add` with the numbers of the bells that are rung for it, some perhaps twice.
    fn bells(&self, add: &mut dyn FnMut(u32));

    /// Whether news of the last look is still to be told.
    fn has_news(&self) -> bool;

    /// Whether other bells are rung for it since the last look than before.
    fn has_moved(&self) -> bool {
        false
    }

    /// Looks at what these of its bells are rung for, and tells what has changed. They are in order.
    fn look<T: Truth>(&mut self, truth: &T, rung: &[u32]) -> Result<Option<Self::News>, T::Error>;
}

/// Deletions since the last look.
#[derive(Debug)]
pub(super) struct Deletions {
    /// How many had been noted before it.
    pub(super) seen: u64,
    pub(super) notes: Vec<Note>,
}

impl Deletions {
    pub(super) fn from_now(truth: &impl Truth) -> Self {
        Self { seen: truth.noted(), notes: Vec::new() }
    }

    /// Reads what was noted up to `now`; returns whether that is all.
    pub(super) fn read(&mut self, truth: &impl Truth, now: u64) -> bool {
        let complete = truth.notes(self.seen, now, &mut self.notes);
        self.seen = now;
        complete
    }
}

/// One key.
#[derive(Debug)]
pub(crate) struct OneKey {
    key: Vec<u8>,
    hash: u64,
    known: Option<u64>,
    /// The newest version that was known of.
    newest: u64,
    deletions: Deletions,
}

impl OneKey {
    /// From now on.
    pub(crate) fn new<T: Truth>(
        truth: &T,
        geometry: &StoreGeometry,
        key: &[u8],
    ) -> Result<Self, T::Error> {
        // Before the look: what is deleted in between is then told rather than not.
        let deletions = Deletions::from_now(truth);
        let known = truth.version(key)?;
        let hash = hash(key, geometry.seed());
        Ok(Self { key: key.to_vec(), hash, known, newest: known.unwrap_or(0), deletions })
    }

    /// From what the caller has seen. What came and went before now is not told.
    pub(crate) fn since(
        truth: &impl Truth,
        geometry: &StoreGeometry,
        key: &[u8],
        known: Option<u64>,
    ) -> Self {
        let (deletions, hash) = (Deletions::from_now(truth), hash(key, geometry.seed()));
        Self { key: key.to_vec(), hash, known, newest: known.unwrap_or(0), deletions }
    }
}

impl Interest for OneKey {
    type News = Change;

    fn bells(&self, add: &mut dyn FnMut(u32)) {
        add(doorbells::of(self.hash));
    }

    fn has_news(&self) -> bool {
        false
    }

    fn look<T: Truth>(&mut self, truth: &T, _: &[u32]) -> Result<Option<Change>, T::Error> {
        let noted = truth.noted();
        let version = truth.version(&self.key)?;
        let complete = self.deletions.read(truth, noted);
        let change = |possibly| Change { key: self.key.clone(), version, possibly };
        let news = if version != self.known {
            Some(change(false))
        } else if version.is_some() {
            None
        } else if self.deletions.notes.iter().any(|note| {
            // What we knew to be there, and have told to be gone, is no news.
            note.is_of(&self.key, self.hash) && note.version > self.newest
        }) {
            Some(change(false))
        } else {
            (!complete).then(|| change(true))
        };
        self.known = version;
        self.newest = self.newest.max(version.unwrap_or(0));
        Ok(news)
    }
}
