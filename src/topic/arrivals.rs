//! Links that have come to be, on their way to whoever publishes or subscribes.
//!
//! Whoever makes the links puts them here, from a thread of its own; the publisher or the subscriber
//! takes them with its next call. What always holds: a subscriber that has been told that a publisher has
//! its link is there before that publisher's next publication; a link that nobody takes is closed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::link_sender::LinkSender;
use super::options::{BackpressurePolicy, PublishOptions};
use super::subscription::Subscription;
use super::wire::{PublisherNote, SubscriberNote, suits};
use crate::channel::{Channel, Sender};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// One end of a link, as it was made.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) link: u64,
    /// The publisher has the first side, the subscriber the second.
    pub(crate) channel: Channel,
    /// The plugin at the other side; empty for the host.
    pub(crate) plugin: String,
    /// What the other side says of itself.
    pub(crate) note: Vec<u8>,
}

/// Subscribers on their way to a publisher.
#[derive(Debug)]
pub(crate) struct NewSubscribers {
    links: Mutex<Links<Subscription>>,
    /// 1 where there may be some. The publisher looks at it before each publication.
    news: AtomicU32,
    fingerprint: u64,
    limits: PublishOptions,
    unsuitable: AtomicU64,
    /// Subscribers that had gone before the publisher knew of them.
    departed: AtomicU64,
}

#[derive(Debug)]
struct Links<T> {
    waiting: Vec<T>,
    closed: bool,
}

impl<T> Links<T> {
    fn new() -> Mutex<Self> {
        Mutex::new(Self { waiting: Vec::new(), closed: false })
    }
}

fn lock<T>(links: &Mutex<T>) -> MutexGuard<'_, T> {
    links.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NewSubscribers {
    pub(super) fn new(fingerprint: u64, limits: PublishOptions) -> Self {
        let (news, unsuitable) = (AtomicU32::new(0), AtomicU64::new(0));
        let departed = AtomicU64::new(0);
        Self { links: Links::new(), news, fingerprint, limits, unsuitable, departed }
    }

    /// What a publisher says of itself to each subscriber.
    pub(crate) fn note(&self) -> PublisherNote {
        PublisherNote { fingerprint: self.fingerprint }
    }

    /// A subscriber has come. Does not wait.
    pub(crate) fn add(&self, arrival: Arrival) {
        let Arrival { link, channel, plugin, note } = arrival;
        let Some(note) = SubscriberNote::of(&note) else {
            self.unsuitable.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if !suits(note.fingerprint, self.fingerprint) {
            self.unsuitable.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let backpressure = match note.backpressure {
            BackpressurePolicy::Block(limit) => {
                BackpressurePolicy::Block(limit.min(self.limits.max_block))
            }
            BackpressurePolicy::DropOldest { queue_bytes } => BackpressurePolicy::DropOldest {
                queue_bytes: queue_bytes.min(self.limits.max_queue_bytes),
            },
            other => other,
        };
        let mut links = lock(&self.links);
        if links.closed {
            return;
        }
        // Whoever publishes nothing takes none: those that have gone must not keep their links.
        let over: Vec<_> = links.waiting.extract_if(.., |waiting| waiting.is_over()).collect();
        self.departed.fetch_add(over.len() as u64, Ordering::Relaxed);
        // Before the subscriber is told. Release: its partner is the Acquire in `has_news`; a publication that
        // begins after the subscriber has been told finds it, and then waits for the lock.
        self.news.store(1, Ordering::Release);
        if let Some(sender) = LinkSender::begin(channel) {
            let subscription =
                Subscription::new((link, plugin), sender, backpressure, note.has_store);
            links.waiting.push(subscription);
        }
        // Closing them is nothing to hold the lock for.
        drop(links);
        drop(over);
    }

    /// Whether there may be some that have come since.
    #[inline(always)]
    pub(super) fn has_news(&self) -> bool {
        // Acquire pairs with the Release in `add`.
        self.news.load(Ordering::Acquire) != 0
    }

    /// Those that have come since.
    pub(super) fn take(&self) -> Vec<Subscription> {
        let mut links = lock(&self.links);
        self.news.store(0, Ordering::Relaxed);
        std::mem::take(&mut links.waiting)
    }

    /// How many were refused because they take values of another type, or are of another version.
    pub(super) fn unsuitable(&self) -> u64 {
        self.unsuitable.load(Ordering::Relaxed)
    }

    /// How many had gone before they were taken.
    pub(super) fn departed(&self) -> u64 {
        self.departed.load(Ordering::Relaxed)
    }

    /// Whoever comes now is turned away.
    pub(super) fn close(&self) {
        lock(&self.links).closed = true;
    }
}

/// Publishers on their way to a subscriber.
#[derive(Debug)]
pub(crate) struct NewPublishers {
    links: Mutex<Links<Arrival>>,
    /// Sent to when there is something to look at.
    bell: Mutex<Option<Sender>>,
    note: SubscriberNote,
    unsuitable: AtomicU64,
}

impl NewPublishers {
    pub(super) fn new(note: SubscriberNote, bell: Sender) -> Arc<Self> {
        let (bell, unsuitable) = (Mutex::new(Some(bell)), AtomicU64::new(0));
        Arc::new(Self { links: Links::new(), bell, note, unsuitable })
    }

    /// What a subscriber says of itself to each publisher.
    pub(crate) fn note(&self) -> SubscriberNote {
        self.note
    }

    /// A publisher has come. Does not wait.
    pub(crate) fn add(&self, arrival: Arrival) {
        let suitable = PublisherNote::of(&arrival.note)
            .is_some_and(|publisher| suits(self.note.fingerprint, publisher.fingerprint));
        if !suitable {
            self.unsuitable.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let over: Vec<_> = {
            let mut links = lock(&self.links);
            if links.closed {
                return;
            }
            // Those that have gone and have left nothing; what the dead have committed is received still.
            let has_ended = |waiting: &mut Arrival| waiting.channel.receiver().has_ended();
            let over = links.waiting.extract_if(.., has_ended).collect();
            links.waiting.push(arrival);
            over
        };
        drop(over);
        self.ring();
    }

    /// Wakes the subscriber.
    pub(super) fn ring(&self) {
        if let Some(bell) = &mut *lock(&self.bell) {
            // One that has no room has been rung.
            let _ = bell.try_send(&[]);
        }
    }

    /// Those that have come since.
    pub(super) fn take(&self) -> Vec<Arrival> {
        std::mem::take(&mut lock(&self.links).waiting)
    }

    /// How many were refused because they send values of another type, or are of another version.
    pub(super) fn unsuitable(&self) -> u64 {
        self.unsuitable.load(Ordering::Relaxed)
    }

    /// Whoever comes now is turned away.
    pub(super) fn close(&self) {
        lock(&self.links).closed = true;
        let waiting = self.take();
        drop(waiting);
        *lock(&self.bell) = None;
    }
}
