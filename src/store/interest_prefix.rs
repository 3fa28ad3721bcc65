//! All keys with a prefix.
//!
//! Watches and reactions have one each, or several in [`Interests`](super::interests::Interests).
//! Invariants: `known` is what was told, or was there at the start. Whatever differs from `known` was appended to the change
//! log since: to that of an entry, or else to that of all changes. Where the log was overrun, a look walks the table.

use std::collections::{BTreeMap, VecDeque};

use super::StoreGeometry;
use super::block::hash;
use super::change_log::Log;
use super::doorbells::{self, EVERYTHING};
use super::interest::{Deletions, Interest, Truth};
use super::prefixes::Entry;
use super::watch::Change;

/// A key behind its hash.
type Key = (u64, Vec<u8>);
/// Keys with versions.
type Keys = BTreeMap<Key, u64>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Prefix {
    prefix: Vec<u8>,
    seed: u64,
    /// What gives it a log of its own.
    entry: Option<Entry>,
    /// How many changes in the log need no look any more.
    seen: u64,
    /// Whether the entry was lost at the last look.
    has_moved: bool,
    known: Keys,
    /// Keys that were told to be gone, with the versions that were known of them. Those of the last look, and of
    /// all looks since something is in the log that may not have happened yet.
    gone: Keys,
    deletions: Deletions,
    news: VecDeque<Change>,
}

/// Which keys a look is for.
enum Scope {
    All,
    /// Those with these hashes, in order.
    Hashes(Vec<u64>),
}

impl Scope {
    fn has(&self, hash: u64) -> bool {
        match self {
            Self::All => true,
            Self::Hashes(hashes) => hashes.binary_search(&hash).is_ok(),
        }
    }

    /// Those of the keys that it is for.
    fn of<'a>(&self, keys: &'a Keys) -> Vec<(&'a Key, &'a u64)> {
        match self {
            Self::All => keys.iter().collect(),
            Self::Hashes(hashes) => hashes.iter().flat_map(|hash| with_hash(keys, *hash)).collect(),
        }
    }
}

fn with_hash(keys: &Keys, hash: u64) -> impl Iterator<Item = (&Key, &u64)> {
    keys.range((hash, Vec::new())..).take_while(move |((other, _), _)| *other == hash)
}

impl Prefix {
    /// From now on. The entry is one for this prefix.
    pub(crate) fn new<T: Truth>(
        truth: &T,
        geometry: &StoreGeometry,
        prefix: &[u8],
        entry: Option<Entry>,
    ) -> Result<Self, T::Error> {
        let done = || truth.changes(Log::OF_ALL, 0, &mut Vec::new()).done;
        let seen = entry.as_ref().map_or_else(done, Entry::appended);
        let mut new = Self {
            prefix: prefix.to_vec(),
            seed: geometry.seed(),
            seen,
            has_moved: false,
            entry,
            known: Keys::new(),
            gone: Keys::new(),
            deletions: Deletions::from_now(truth),
            news: VecDeque::new(),
        };
        new.known = new.find(truth, &Scope::All)?;
        Ok(new)
    }

    fn log(&self) -> Log {
        self.entry.as_ref().map_or(Log::OF_ALL, Entry::log)
    }

    /// What is there now.
    fn find<T: Truth>(&self, truth: &T, scope: &Scope) -> Result<Keys, T::Error> {
        let mut found = Keys::new();
        let mut add = |key: &[u8], version| {
            // One that moves to another slot meanwhile may be found twice.
            let newest = found.entry((hash(key, self.seed), key.to_vec())).or_insert(version);
            *newest = version.max(*newest);
        };
        match scope {
            Scope::All => truth.scan(&self.prefix, &mut add)?,
            Scope::Hashes(hashes) => {
                for hash in hashes {
                    let keys = truth.with_hash(*hash)?.into_iter();
                    keys.filter(|(key, _)| key.starts_with(&self.prefix))
                        .for_each(|(key, version)| add(&key, version));
                }
            }
        }
        Ok(found)
    }

    /// Finds what is new. Changes nothing where it fails.
    fn find_news<T: Truth>(&mut self, truth: &T) -> Result<(), T::Error> {
        let before = truth.noted();
        let mut hashes = Vec::new();
        let mut appended = truth.changes(self.log(), self.seen, &mut hashes);
        if !appended.is_registered {
            // What its log does not have, the walk finds.
            (self.entry, self.has_moved) = (None, true);
            appended = truth.changes(Log::OF_ALL, 0, &mut hashes);
            appended.is_complete = false;
        }
        let scope = if appended.is_complete {
            hashes.sort_unstable();
            hashes.dedup();
            Scope::Hashes(hashes)
        } else {
            Scope::All
        };
        if let Scope::Hashes(hashes) = &scope
            && hashes.is_empty()
        {
            // A deletion under the prefix would have been appended to the log first.
            self.deletions.seen = before;
            return Ok(());
        }
        // Behind the log, so that the deletions in it are read.
        let now = truth.noted();
        let found = self.find(truth, &scope)?;
        let complete = self.deletions.read(truth, now);
        let gone = self.tell(&scope, &found, complete);
        // What is not done is looked at again, and not told twice.
        if appended.done == appended.count {
            self.gone.clear();
        }
        for key in gone.keys() {
            self.known.remove(key);
        }
        self.gone.extend(gone);
        self.known.extend(found);
        self.seen = appended.done;
        Ok(())
    }

    /// Tells how what was found differs from what is known. Returns what was told to be gone.
    fn tell(&mut self, scope: &Scope, found: &Keys, complete: bool) -> Keys {
        let Self { prefix, known, news, deletions, gone: gone_before, .. } = self;
        let mut changed: Vec<_> =
            found.iter().filter(|(key, version)| known.get(*key) != Some(version)).collect();
        changed.sort_unstable_by_key(|((_, key), _)| key);
        let mut lost = scope.of(known);
        lost.retain(|(key, _)| !found.contains_key(*key));
        lost.sort_unstable_by_key(|((_, key), _)| key);
        let change =
            |key: &[u8], version, possibly| Change { key: key.to_vec(), version, possibly };
        news.extend(changed.iter().map(|((_, key), version)| change(key, Some(**version), false)));
        news.extend(lost.iter().map(|((_, key), _)| change(key, None, false)));
        let mut gone: Keys =
            lost.iter().map(|(key, version)| ((*key).clone(), **version)).collect();
        for note in deletions.notes.iter().filter(|note| scope.has(note.hash)) {
            if !note.may_have_prefix(prefix) {
                continue;
            }
            let is_told = |((_, key), version): (&Key, &u64)| {
                *version >= note.version && key.starts_with(note.key_start())
            };
            let was_told =
                with_hash(gone_before, note.hash).chain(with_hash(&gone, note.hash)).any(is_told);
            match note.key() {
                // What was deleted was known, or is there again: told above, if it is news.
                Some(key) => {
                    let key = (note.hash, key.to_vec());
                    if found.contains_key(&key) || known.contains_key(&key) {
                        continue;
                    }
                    if !was_told && !gone.contains_key(&key) {
                        news.push_back(change(&key.1, None, false));
                    }
                    gone.insert(key, note.version);
                }
                None => {
                    if !was_told && !with_hash(known, note.hash).any(is_told) {
                        news.push_back(change(note.key_start(), None, true));
                        gone.insert((note.hash, note.key_start().to_vec()), note.version);
                    }
                }
            }
        }
        // What has changed, is absent, and was not known may have come and gone.
        let is_known = |hash| {
            [&*known, found, &*gone_before, &gone]
                .into_iter()
                .any(|keys| with_hash(keys, hash).next().is_some())
        };
        let is_certain = complete
            || match scope {
                Scope::All => false,
                Scope::Hashes(hashes) => hashes.iter().all(|hash| is_known(*hash)),
            };
        if !is_certain {
            news.push_back(change(prefix, None, true));
        }
        gone
    }
}

impl Interest for Prefix {
    type News = Change;

    fn bells(&self, add: &mut dyn FnMut(u32)) {
        let of_entry = |entry: &Entry| doorbells::of_prefix(entry.log().number);
        add(self.entry.as_ref().map_or(EVERYTHING, of_entry));
    }

    fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    fn has_moved(&self) -> bool {
        self.has_moved
    }

    fn look<T: Truth>(&mut self, truth: &T, _: &[u32]) -> Result<Option<Change>, T::Error> {
        if self.news.is_empty() {
            self.has_moved = false;
            self.find_news(truth)?;
        }
        Ok(self.news.pop_front())
    }
}
