//! Many interests at once: keys and prefixes, each with a number.
//!
//! [`Watches`](super::Watches) has them, for users and for a host that watches for its plugins.
//!
//! Invariants: every interest is told on its own, in the order in which it found its news. One that was removed is
//! told nothing any more. `by_bell` has each interest once, under its bell.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::interest::{Interest, OneKey, Truth};
use super::interest_prefix::Prefix;
use super::watch::Change;

/// An interest among others of one [`Watches`](super::Watches).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(u64);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Interests {
    next: u64,
    all: BTreeMap<WatchId, One>,
    /// What each bell is rung for, so that a look follows the bells that were rung.
    by_bell: BTreeMap<u32, BTreeSet<WatchId>>,
    news: VecDeque<(WatchId, Change)>,
    has_moved: bool,
}

/// A key, or all keys with a prefix.
#[derive(Debug)]
pub(crate) enum One {
    Key(OneKey),
    Prefix(Prefix),
}

impl Interest for One {
    type News = Change;

    fn bells(&self, add: &mut dyn FnMut(u32)) {
        match self {
            Self::Key(key) => key.bells(add),
            Self::Prefix(prefix) => prefix.bells(add),
        }
    }

    fn has_news(&self) -> bool {
        match self {
            Self::Key(key) => key.has_news(),
            Self::Prefix(prefix) => prefix.has_news(),
        }
    }

    fn has_moved(&self) -> bool {
        match self {
            Self::Key(key) => key.has_moved(),
            Self::Prefix(prefix) => prefix.has_moved(),
        }
    }

    fn look<T: Truth>(&mut self, truth: &T, rung: &[u32]) -> Result<Option<Change>, T::Error> {
        match self {
            Self::Key(key) => key.look(truth, rung),
            Self::Prefix(prefix) => prefix.look(truth, rung),
        }
    }
}

impl Interests {
    pub(crate) fn add(&mut self, one: One) -> WatchId {
        let id = WatchId(self.next);
        self.next += 1;
        one.bells(&mut |bell| _ = self.by_bell.entry(bell).or_default().insert(id));
        self.all.insert(id, one);
        id
    }

    /// Returns whether it was there.
    pub(crate) fn remove(&mut self, id: WatchId) -> bool {
        self.news.retain(|(other, _)| *other != id);
        let Some(one) = self.all.remove(&id) else { return false };
        one.bells(&mut |bell| {
            if let Some(ids) = self.by_bell.get_mut(&bell) {
                ids.remove(&id);
            }
        });
        self.by_bell.retain(|_, ids| !ids.is_empty());
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}

impl Interest for Interests {
    type News = (WatchId, Change);

    fn bells(&self, add: &mut dyn FnMut(u32)) {
        self.by_bell.keys().copied().for_each(add);
    }

    fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    fn has_moved(&self) -> bool {
        self.has_moved
    }

    fn look<T: Truth>(&mut self, truth: &T, rung: &[u32]) -> Result<Option<Self::News>, T::Error> {
        self.has_moved = false;
        if self.news.is_empty() {
            let ids = rung.iter().filter_map(|bell| self.by_bell.get(bell)).flatten();
            for id in ids.copied().collect::<BTreeSet<_>>() {
                let Some(one) = self.all.get_mut(&id) else { continue };
                let mut news = one.look(truth, rung)?;
                if one.has_moved() {
                    self.has_moved = true;
                    self.by_bell.retain(|_, ids| {
                        ids.remove(&id);
                        !ids.is_empty()
                    });
                    one.bells(&mut |bell| _ = self.by_bell.entry(bell).or_default().insert(id));
                }
                while let Some(change) = news {
                    self.news.push_back((id, change));
                    // A prefix finds many at once.
                    news = if one.has_news() { one.look(truth, rung)? } else { None };
                }
            }
        }
        Ok(self.news.pop_front())
    }
}
