//! What a desk knows of its registrations, of what it has asked for, and of its ends of links.
//!
//! The desk's callers and its thread change it under one lock. What always holds: an end is in it from
//! its offer until its channel has been dropped; nothing that belongs to somebody else is dropped
//! under the lock.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::wire::EndId;
use super::{Inbox, Link, LinkError};
use crate::channel::{Channel, ChannelTypes, Connection};
use crate::wakeup::WaitStrategy;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Table {
    last_token: u64,
    pub(super) registrations: HashMap<u64, Registered>,
    pub(super) connects: HashMap<u64, Connecting>,
    pub(super) ends: HashMap<EndId, Held>,
    /// Nothing will come any more.
    pub(super) ended: bool,
}

/// A name that is listened to, or joined.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) inbox: Arc<dyn Inbox>,
    /// The first registration's token that has the same inbox.
    pub(super) group: u64,
    pub(super) terms: Terms,
    /// How many of the links that were begun with it have come about, or to nothing.
    pub(super) settled: u64,
}

/// How this side attaches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// `None` where any will do.
    pub(super) types: Option<ChannelTypes>,
    pub(super) wait: WaitStrategy,
}

/// What has become of a call of `connect`.
#[derive(Debug)]
pub(super) enum Connecting {
    Awaited(Terms),
    Linked(Box<Link>),
    Failed(LinkError),
}

/// An end.
#[derive(Debug)]
pub(super) enum Held {
    /// Attached, and not to be used yet.
    Offered(Box<Offered>),
    /// Somebody has the channel.
    Used(Weak<Connection>),
}

#[derive(Debug)]
pub(super) struct Offered {
    pub(super) channel: Channel,
    pub(super) token: u64,
    pub(super) begun: bool,
    pub(super) peer: String,
    pub(super) note: Vec<u8>,
}

/// Where a link goes.
#[derive(Debug)]
pub(super) enum Delivery {
    To(Arc<dyn Inbox>, Link),
    /// To a caller of `connect`, who is to be told.
    Taken,
    /// Nobody wants it any more.
    Unwanted(Link),
}

impl Table {
    pub(super) fn next_token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }

    /// The group of an inbox, where this token is its first one.
    pub(super) fn group_of(&self, inbox: &Arc<dyn Inbox>, token: u64) -> u64 {
        let mut registered = self.registrations.values();
        let same = registered.find(|other| Arc::ptr_eq(&other.inbox, inbox));
        same.map_or(token, |other| other.group)
    }

    /// How an offer for this token is attached; `None` where nobody wants it any more.
    pub(super) fn terms(&self, token: u64) -> Option<Terms> {
        match (self.registrations.get(&token), self.connects.get(&token)) {
            (Some(registered), _) => Some(registered.terms),
            (None, Some(Connecting::Awaited(terms))) => Some(*terms),
            (None, _) => None,
        }
    }

    /// Whether more callers than one wait for a link.
    pub(super) fn others_connect(&self) -> bool {
        let is_awaited = |one: &&Connecting| matches!(one, Connecting::Awaited(_));
        self.connects.values().filter(is_awaited).nth(1).is_some()
    }

    /// A link that was begun with a registration has come about, or to nothing.
    pub(super) fn settle(&mut self, token: u64, begun: bool) {
        if let Some(registered) = self.registrations.get_mut(&token) {
            registered.settled += u64::from(begun);
        }
    }

    /// What was asked for under this token comes to nothing.
    pub(super) fn fail(&mut self, token: u64, begun: bool, error: LinkError) {
        self.settle(token, begun);
        if let Some(connecting @ Connecting::Awaited(_)) = self.connects.get_mut(&token) {
            *connecting = Connecting::Failed(error);
        }
    }

    /// An end may be used: whose link it is, under which token, and whether that waits for it.
    pub(super) fn go(&mut self, end: EndId) -> Option<(Delivery, u64, bool)> {
        let offered = match self.ends.remove(&end)? {
            Held::Offered(offered) => *offered,
            used @ Held::Used(_) => {
                self.ends.insert(end, used);
                return None;
            }
        };
        let Offered { channel, token, begun, peer, note } = offered;
        self.ends.insert(end, Held::Used(Arc::downgrade(channel.connection())));
        let link = Link { id: end.link, channel, peer, note };
        let delivery = if let Some(registered) = self.registrations.get(&token) {
            Delivery::To(Arc::clone(&registered.inbox), link)
        } else if let Some(connecting @ Connecting::Awaited(_)) = self.connects.get_mut(&token) {
            *connecting = Connecting::Linked(Box::new(link));
            Delivery::Taken
        } else {
            Delivery::Unwanted(link)
        };
        Some((delivery, token, begun))
    }
}
