//! Many interests at once: keys and prefixes, each with a number.
//!
//! [`Watches`](super::Watches) has them, for users and for a host that watches for its plugins.
//! What always holds: every interest is told on its own, in the order in which it found its news; one that was
//! removed is told nothing any more.

use std::collections::{BTreeMap, VecDeque};

use super::doorbells::EVERYTHING;
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
    news: VecDeque<(WatchId, Change)>,
}

/// A key, or all keys with a prefix.
#[derive(Debug)]
pub(crate) enum One {
    Key(OneKey),
    Prefix(Prefix),
}

impl Interest for One {
    type News = Change;

    fn bell(&self) -> u32 {
        match self {
            Self::Key(key) => key.bell(),
            Self::Prefix(prefix) => prefix.bell(),
        }
    }

    fn has_news(&self) -> bool {
        match self {
            Self::Key(key) => key.has_news(),
            Self::Prefix(prefix) => prefix.has_news(),
        }
    }

    fn look<T: Truth>(&mut self, truth: &T) -> Result<Option<Change>, T::Error> {
        match self {
            Self::Key(key) => key.look(truth),
            Self::Prefix(prefix) => prefix.look(truth),
        }
    }
}

impl Interests {
    pub(crate) fn add(&mut self, one: One) -> WatchId {
        let id = WatchId(self.next);
        self.next += 1;
        self.all.insert(id, one);
        id
    }

    /// Returns whether it was there.
    pub(crate) fn remove(&mut self, id: WatchId) -> bool {
        self.news.retain(|(other, _)| *other != id);
        self.all.remove(&id).is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}

impl Interest for Interests {
    type News = (WatchId, Change);

    fn bell(&self) -> u32 {
        EVERYTHING
    }

    fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    fn look<T: Truth>(&mut self, truth: &T) -> Result<Option<Self::News>, T::Error> {
        if self.news.is_empty() {
            for (id, one) in &mut self.all {
                let mut news = one.look(truth)?;
                while let Some(change) = news {
                    self.news.push_back((*id, change));
                    // A prefix finds many at once.
                    news = if one.has_news() { one.look(truth)? } else { None };
                }
            }
        }
        Ok(self.news.pop_front())
    }
}
