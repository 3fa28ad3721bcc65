//! What a watcher is interested in: a key, all keys with a prefix, or many of both.
//!
//! [`Watcher`](super::watch::Watcher) asks it for news whenever a bell was rung, or may have been.
//! What always holds: what it knows is what it found at its last look, or what it was told to start from; what
//! differs from that is news, and so is what was deleted since and is absent both times.

use std::collections::{BTreeMap, VecDeque};

use super::StoreGeometry;
use super::block::hash;
use super::doorbells::EVERYTHING;
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
}

/// See the module.
pub(crate) trait Interest {
    /// What is told.
    type News;

    /// Number of the bell that is rung for it.
    fn bell(&self) -> u32;

    /// Whether news of the last look is still to be told.
    fn has_news(&self) -> bool;

    /// Looks, and tells what has changed.
    fn look<T: Truth>(&mut self, truth: &T) -> Result<Option<Self::News>, T::Error>;
}

/// Deletions since the last look.
#[derive(Debug)]
struct Deletions {
    /// How many had been noted before it.
    seen: u64,
    notes: Vec<Note>,
}

impl Deletions {
    fn from_now(truth: &impl Truth) -> Self {
        Self { seen: truth.noted(), notes: Vec::new() }
    }

    /// Reads what was noted up to `now`; returns whether that is all.
    fn read(&mut self, truth: &impl Truth, now: u64) -> bool {
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

    fn bell(&self) -> u32 {
        doorbells::of(self.hash)
    }

    fn has_news(&self) -> bool {
        false
    }

    fn look<T: Truth>(&mut self, truth: &T) -> Result<Option<Change>, T::Error> {
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

/// All keys with a prefix.
#[derive(Debug)]
pub(crate) struct Prefix {
    prefix: Vec<u8>,
    known: BTreeMap<Vec<u8>, u64>,
    /// Keys that the last look told to be gone, with the versions that were known of them.
    gone: Vec<(Vec<u8>, u64)>,
    deletions: Deletions,
    news: VecDeque<Change>,
}

impl Prefix {
    /// From now on.
    pub(crate) fn new<T: Truth>(truth: &T, prefix: &[u8]) -> Result<Self, T::Error> {
        let deletions = Deletions::from_now(truth);
        let known = scan(truth, prefix)?;
        let (prefix, gone, news) = (prefix.to_vec(), Vec::new(), VecDeque::new());
        Ok(Self { prefix, known, gone, deletions, news })
    }

    fn look_at_all<T: Truth>(&mut self, truth: &T) -> Result<(), T::Error> {
        let noted = truth.noted();
        let found = scan(truth, &self.prefix)?;
        let complete = self.deletions.read(truth, noted);
        let mut tell = |key: &[u8], version, possibly| {
            self.news.push_back(Change { key: key.to_vec(), version, possibly });
        };
        for (key, version) in &found {
            if self.known.get(key) != Some(version) {
                tell(key, Some(*version), false);
            }
        }
        let gone: Vec<_> = self.known.iter().filter(|(key, _)| !found.contains_key(*key)).collect();
        for (key, _) in &gone {
            tell(key, None, false);
        }
        for note in self.deletions.notes.iter().filter(|note| note.may_have_prefix(&self.prefix)) {
            let told = |(key, version): (&Vec<u8>, &u64)| {
                *version >= note.version && key.starts_with(note.key_start())
            };
            match note.key() {
                // What was deleted was known, or is there again: told above, if it is news.
                Some(key) if found.contains_key(key) || self.known.contains_key(key) => {}
                Some(key) => {
                    if !self.gone.iter().any(|(key, version)| told((key, version))) {
                        tell(key, None, false);
                    }
                }
                None => {
                    let gone = self.gone.iter().map(|(key, version)| (key, version));
                    if !gone.chain(&self.known).any(told) {
                        tell(note.key_start(), None, true);
                    }
                }
            }
        }
        if !complete {
            tell(&self.prefix, None, true);
        }
        self.gone = gone.into_iter().map(|(key, version)| (key.clone(), *version)).collect();
        self.known = found;
        Ok(())
    }
}

fn scan<T: Truth>(truth: &T, prefix: &[u8]) -> Result<BTreeMap<Vec<u8>, u64>, T::Error> {
    let mut found = BTreeMap::new();
    truth.scan(prefix, &mut |key, version| {
        // One that moves to another slot meanwhile may be found twice.
        let newest = found.entry(key.to_vec()).or_insert(version);
        *newest = version.max(*newest);
    })?;
    Ok(found)
}

impl Interest for Prefix {
    type News = Change;

    fn bell(&self) -> u32 {
        EVERYTHING
    }

    fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    fn look<T: Truth>(&mut self, truth: &T) -> Result<Option<Change>, T::Error> {
        if self.news.is_empty() {
            self.look_at_all(truth)?;
        }
        Ok(self.news.pop_front())
    }
}
