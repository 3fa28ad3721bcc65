//! Whoever publishes: one send for each subscriber.
//!
//! A host or a plugin has one for each topic that it publishes. What always holds: every subscriber gets
//! what is published after it was told that it is one, in order, or the number of what it has missed;
//! a publication takes no longer than [`PublishOptions::max_block`], whatever subscribers do, so that
//! processes that publish to each other cannot wait for each other for ever; a subscriber that is over
//! is forgotten.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::KeepAlive;
use super::arrivals::NewSubscribers;
use super::link_sender::Outgoing;
use super::options::PublishOptions;
use super::payload_store::PayloadStore;
use super::subscription::{Delivery, SubscriberInfo, Subscription};
use super::waiters::Waiters;
use super::wire::{Place, tag};
use crate::memory::Deadline;
use crate::os::clock::monotonic_ns;
use crate::os::fork;
use crate::store::{Store, StoreAccess, WriteError};

/// How long [`Publisher::flush`] sleeps between two looks at its subscribers.
const FLUSH_PAUSE: Duration = Duration::from_micros(200);

/// Publishes under a topic, to everybody who has subscribed to it. `Send`, not `Sync`: one thread at a
/// time.
///
/// Dropping it tells the subscribers, which get what they have not read yet. What lies in the store for
/// them is removed then: [`flush`](Self::flush) waits until it has been read.
#[derive(Debug)]
pub struct Publisher {
    arrivals: Arc<NewSubscribers>,
    subscriptions: Vec<Subscription>,
    /// Number of the next publication.
    next: u64,
    payloads: Option<PayloadStore>,
    /// Length from which on publications go to the store.
    store_from: usize,
    options: PublishOptions,
    counts: Counts,
    /// The fork generation it was made in.
    generation: u64,
    /// Keeps new subscribers coming.
    keep: Option<Box<dyn KeepAlive>>,
}

#[derive(Debug, Default)]
struct Counts {
    missed: u64,
    departed: u64,
    cut_off: u64,
}

/// What has become of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// Its number: they count from 0.
    pub number: u64,
    /// Subscribers to which it was sent, or for which it waits.
    pub subscribers: usize,
    /// Subscribers that have missed it: they are slow, or it is too long for them.
    /// [`Publisher::subscribers`] tells which.
    pub missed: usize,
}

/// What a publisher has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublisherStats {
    /// Publications.
    pub published: u64,
    /// Publications missed by a subscriber, summed over those that were there.
    pub missed: u64,
    /// Subscribers that have left, or died.
    pub departed: u64,
    /// Subscribers that were disconnected because they were slow, as they had asked for.
    pub cut_off: u64,
    /// Subscribers that were refused because they take values of another type.
    pub unsuitable: u64,
    /// Publications that were written into the store.
    pub stored: u64,
    /// Those of them that were removed while a subscriber may still have wanted to read them.
    pub expired: u64,
}

/// Why nothing was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The process has forked since the publisher was made; it belongs to the parent.
    #[error(
        "this publisher belongs to the process that this one was forked from; make one in this process"
    )]
    Forked,
    /// The value could not be serialised.
    #[error("the value could not be serialized: its type's Serialize failed, or memory ran out")]
    Serialise,
}

impl Publisher {
    /// A publisher without subscribers; `arrivals` brings them.
    ///
    /// # Errors
    /// The page that tells forked children from this process could not be mapped.
    pub(crate) fn new(options: &PublishOptions, fingerprint: u64) -> std::io::Result<Self> {
        Ok(Self {
            arrivals: Arc::new(NewSubscribers::new(fingerprint, options.clone())),
            subscriptions: Vec::new(),
            next: 0,
            payloads: None,
            store_from: usize::MAX,
            options: options.clone(),
            counts: Counts::default(),
            generation: fork::generation()?,
            keep: None,
        })
    }

    /// Where whoever makes the links puts them.
    pub(crate) fn arrivals(&self) -> &Arc<NewSubscribers> {
        &self.arrivals
    }

    /// What brings new subscribers, for as long as there is this publisher.
    pub(crate) fn keep(&mut self, keep: Box<dyn KeepAlive>) {
        self.keep = Some(keep);
    }

    /// A store that large publications may go to, and in whose name. One that cannot be written in place
    /// is not used.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(crate) fn use_store(&mut self, store: Store, plugin: &str) -> std::io::Result<()> {
        let Some(from) = self.options.store_from_bytes else { return Ok(()) };
        if store.access() == StoreAccess::Writable {
            let PublishOptions { store_budget_bytes, max_block, .. } = self.options;
            self.payloads = Some(PayloadStore::new(store, plugin, store_budget_bytes, max_block)?);
            self.store_from = usize::try_from(from).unwrap_or(usize::MAX);
        }
        Ok(())
    }

    /// Publishes: sends to every subscriber, those first that have room.
    ///
    /// Where a subscriber has none, it does what that one has [chosen](super::BackpressurePolicy): only for who has
    /// chosen to be waited for does this call wait, for all of them together no longer than
    /// [`PublishOptions::max_block`]; for a message in fragments, by as much longer as a ring full takes
    /// that the subscriber makes room for. What one subscriber misses, the others get.
    ///
    /// # Errors
    /// [`PublishError::Forked`]. That somebody misses a publication is not an error.
    #[inline]
    pub fn publish(&mut self, payload: &[u8]) -> Result<Published, PublishError> {
        if self.arrivals.has_news() {
            self.admit();
        }
        if payload.len() >= self.store_from {
            return self.publish_stored(payload);
        }
        let number = self.next;
        let subscribers = self.subscriptions.len();
        for (index, subscription) in self.subscriptions.iter_mut().enumerate() {
            if !subscription.offer_simple(number, payload) {
                return self.publish_rest(payload, None, index, monotonic_ns());
            }
        }
        self.next = number + 1;
        Ok(Published { number, subscribers, missed: 0 })
    }

    /// Takes in those that have come.
    #[cold]
    fn admit(&mut self) {
        for mut subscription in self.arrivals.take() {
            if subscription.begin(self.next) {
                self.subscriptions.push(subscription);
            } else {
                self.counts.departed += 1;
            }
        }
    }

    /// Through the store, to those that have it.
    #[cold]
    fn publish_stored(&mut self, payload: &[u8]) -> Result<Published, PublishError> {
        if !fork::is_current(self.generation) {
            return Err(PublishError::Forked);
        }
        let (number, started_ns) = (self.next, monotonic_ns());
        // What is left is for subscribers: a writer of the store that is stopped does not stop what can
        // travel in the rings.
        let deadline = self.max_block_after(started_ns, 2);
        let has_time = self.reclaim_by(deadline);
        let wanted =
            has_time && self.subscriptions.iter().any(|subscription| subscription.has_store);
        let payloads = self.payloads.as_mut().filter(|_| wanted);
        let put = payloads.and_then(|payloads| payloads.put(number, payload, deadline));
        let place = put.map(|(key, version)| {
            Place { version, len_bytes: payload.len() as u64, key: &key }.to_bytes()
        });
        self.publish_rest(payload, place.as_deref(), 0, started_ns)
    }

    /// To all but the first `done` subscribers: first without waiting, then as each has chosen, counted from
    /// `started_ns`.
    #[cold]
    fn publish_rest(
        &mut self,
        payload: &[u8],
        place: Option<&[u8]>,
        done: usize,
        started_ns: u64,
    ) -> Result<Published, PublishError> {
        if !fork::is_current(self.generation) {
            return Err(PublishError::Forked);
        }
        let number = self.next;
        self.next += 1;
        let outgoing = |subscription: &Subscription| match place {
            Some(bytes) if subscription.has_store => Outgoing { number, tag: tag::STORED, bytes },
            _ => Outgoing { number, tag: tag::PLAIN, bytes: payload },
        };
        let (mut index, mut missed, mut waits) = (0, 0, false);
        let counts = &mut self.counts;
        let mut stays = |delivery| {
            match delivery {
                Delivery::Sent | Delivery::Waits => {}
                Delivery::Missed => missed += 1,
                Delivery::CutOff => counts.cut_off += 1,
                Delivery::Gone => counts.departed += 1,
            }
            !matches!(delivery, Delivery::CutOff | Delivery::Gone)
        };
        self.subscriptions.retain_mut(|subscription| {
            index += 1;
            if index <= done {
                return true;
            }
            let delivery = subscription.offer(outgoing(subscription));
            waits |= delivery == Delivery::Waits;
            stays(delivery)
        });
        if waits {
            let mut over = Vec::new();
            for (index, deadline) in Waiters::of(&self.subscriptions, started_ns) {
                let subscription = &mut self.subscriptions[index];
                if !stays(subscription.wait(outgoing(subscription), deadline)) {
                    over.push(index);
                }
            }
            over.sort_unstable();
            for index in over.into_iter().rev() {
                self.subscriptions.remove(index);
            }
        }
        self.counts.missed += missed as u64;
        let subscribers = self.subscriptions.len() - missed;
        Ok(Published { number, subscribers, missed })
    }

    /// Removes what has been read from the store. [`publish`](Self::publish) does it before it writes
    /// something there; for who publishes nothing large for a while.
    pub fn reclaim(&mut self) {
        let deadline = self.max_block_after(monotonic_ns(), 1);
        self.reclaim_by(deadline);
    }

    /// False where another writer has had the store's lock until then.
    fn reclaim_by(&mut self, deadline: Deadline) -> bool {
        let Some(payloads) = &mut self.payloads else { return true };
        let Some(oldest) = payloads.oldest() else { return true };
        let wanted =
            self.subscriptions.iter_mut().map(|subscription| subscription.wants_from(oldest)).min();
        let reclaimed = payloads.forget_before(wanted.unwrap_or(u64::MAX), deadline);
        !matches!(reclaimed, Err(WriteError::Deadline))
    }

    /// When a part of what one publication may wait is over.
    fn max_block_after(&self, started_ns: u64, parts: u32) -> Deadline {
        let part_ns = (self.options.max_block / parts).as_nanos();
        let part_ns = u64::try_from(part_ns).unwrap_or(u64::MAX);
        Deadline::at_ns(started_ns.saturating_add(part_ns))
    }

    /// Waits until every subscriber has taken everything that was published, and has asked for more, or
    /// has gone; for at most `timeout`. Whether they have. A subscriber has asked for more when it has
    /// called a receiving call again.
    pub fn flush(&mut self, timeout: Duration) -> bool {
        if !fork::is_current(self.generation) {
            return false;
        }
        let begun = Instant::now();
        loop {
            let drained = self.subscriptions.iter().all(Subscription::is_drained);
            if drained || begun.elapsed() >= timeout {
                self.reclaim();
                return drained;
            }
            thread::sleep(FLUSH_PAUSE);
        }
    }

    /// Its subscribers, as they were found with the last publication; those that have come since are
    /// among them.
    pub fn subscribers(&mut self) -> impl Iterator<Item = SubscriberInfo> {
        self.admit();
        let next = self.next;
        self.subscriptions.iter_mut().map(move |subscription| subscription.info(next))
    }

    /// What it has counted.
    pub fn stats(&self) -> PublisherStats {
        let Counts { missed, departed, cut_off } = self.counts;
        PublisherStats {
            published: self.next,
            missed,
            departed: departed + self.arrivals.departed(),
            cut_off,
            unsuitable: self.arrivals.unsuitable(),
            stored: self.payloads.as_ref().map_or(0, |payloads| payloads.stored),
            expired: self.payloads.as_ref().map_or(0, |payloads| payloads.expired),
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if !fork::is_current(self.generation) {
            // The store and what lies in it are the parent's.
            std::mem::forget(self.payloads.take());
            return;
        }
        // First, so that nobody comes any more.
        self.keep = None;
        self.arrivals.close();
        self.admit();
        let deadline = self.max_block_after(monotonic_ns(), 1);
        for subscription in self.subscriptions.drain(..) {
            subscription.end(self.next, deadline);
        }
    }
}
