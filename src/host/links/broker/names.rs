//! Listeners and joiners, by kind and name.
//!
//! The broker asks it who is to be linked with whom. What always holds: an entry belongs to a party
//! that is there; names of one kind come in order, so that a list can be gone through in steps while
//! it changes.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::PartyId;
use super::links::Partner;
use crate::host::links::Kind;
use crate::host::links::wire::{Entry, ListAsk, Shape, is_ticket};

/// Kind, name, and a number that no other entry has.
pub(super) type Key = (Kind, String, u64);

/// What a registration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Listener,
    Joiner,
}

/// Who listens.
#[derive(Debug, Clone)]
pub(super) struct Listener {
    pub(super) party: PartyId,
    pub(super) token: u64,
    pub(super) group: u64,
    pub(super) note: Vec<u8>,
    pub(super) shape: Shape,
    pub(super) plugin: String,
    /// It is a plugin's own channel, and only listed.
    pub(super) of_pair: bool,
}

/// Who joins.
#[derive(Debug, Clone)]
pub(super) struct Joiner {
    pub(super) party: PartyId,
    pub(super) token: u64,
    pub(super) note: Vec<u8>,
}

impl Listener {
    /// The entry of one of a plugin's own channels.
    pub(super) fn of_pair(party: PartyId, plugin: &str) -> Self {
        let (shape, plugin) = (Shape::default(), plugin.into());
        Self { party, token: 0, group: 0, note: Vec::new(), shape, plugin, of_pair: true }
    }

    pub(super) fn partner(&self, begun: bool) -> Partner {
        let Self { party, token, ref note, .. } = *self;
        Partner { party, token, note: note.clone(), begun }
    }
}

impl Joiner {
    pub(super) fn partner(&self, begun: bool) -> Partner {
        let Self { party, token, ref note } = *self;
        Partner { party, token, note: note.clone(), begun }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Names {
    listeners: BTreeMap<Key, Listener>,
    joiners: BTreeMap<Key, Joiner>,
}

impl Names {
    pub(super) fn listen(&mut self, key: Key, listener: Listener) {
        self.listeners.insert(key, listener);
    }

    pub(super) fn join(&mut self, key: Key, joiner: Joiner) {
        self.joiners.insert(key, joiner);
    }

    /// The first, where there may be several.
    pub(super) fn listener(&self, kind: Kind, name: &str) -> Option<&Listener> {
        of_name(&self.listeners, kind, name).next()
    }

    pub(super) fn listeners(&self, kind: Kind, name: &str) -> Vec<Listener> {
        of_name(&self.listeners, kind, name).cloned().collect()
    }

    pub(super) fn joiners(&self, kind: Kind, name: &str) -> Vec<Joiner> {
        of_name(&self.joiners, kind, name).cloned().collect()
    }

    pub(super) fn withdraw(&mut self, role: Role, key: &Key) {
        match role {
            Role::Listener => drop(self.listeners.remove(key)),
            Role::Joiner => drop(self.joiners.remove(key)),
        }
    }

    /// Takes out what a party has.
    pub(super) fn forget(&mut self, party: PartyId) {
        self.listeners.retain(|_, listener| listener.party != party);
        self.joiners.retain(|_, joiner| joiner.party != party);
    }

    /// The first listener after the one named, but for those that can be found by ticket only.
    pub(super) fn after(&self, ask: &ListAsk) -> Option<Entry> {
        let after = (ask.kind, ask.name.clone(), ask.id);
        let rest = self.listeners.range((Bound::Excluded(after), Bound::Unbounded));
        let mut named = rest
            .take_while(|((kind, ..), _)| *kind == ask.kind)
            .filter(|((_, name, _), _)| !is_ticket(name));
        let ((_, name, id), listener) = named.next()?;
        Some(Entry { id: *id, name: name.clone(), plugin: listener.plugin.clone() })
    }
}

/// All entries of a name.
fn of_name<'a, T>(
    entries: &'a BTreeMap<Key, T>,
    kind: Kind,
    name: &str,
) -> impl Iterator<Item = &'a T> {
    let bounds = (kind, name.to_string(), 0)..=(kind, name.to_string(), u64::MAX);
    entries.range(bounds).map(|(_, entry)| entry)
}
