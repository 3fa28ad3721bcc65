//! Whoever subscribes: one receiver for each publisher.
//!
//! A host or a plugin has one for each subscription. What always holds: publications of one publisher come
//! in the order in which they were published, and what is missing between them is counted; what a dead
//! publisher had committed is received before it is forgotten; a publisher that floods its ring, or breaks
//! the rules, keeps nothing back that others publish.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::KeepAlive;
use super::arrivals::{Arrival, NewPublishers};
use super::error::{Departed, Departure, Nothing, TopicRecvError};
use super::options::SubscribeOptions;
use super::publication::{OwnedPublication, Payload, Publication, PublisherId};
use super::source::{Arrived, Malformed, Source};
use super::wire::{Record, SubscriberNote, tag};
use crate::channel::{Channel, ChannelOptions, Found, Receiver, Selector, Sender};
use crate::error::{RecvError, RecvTimeoutError, SegmentError};
use crate::memory::Deadline;
use crate::os::clock::monotonic_ns;
use crate::ring;
use crate::store::Store;

/// How many departures are kept for who asks.
const MAX_DEPARTURES: usize = 1024;

/// How many records that are no publications one call deals with before it looks at the clock.
const UNTIMED_WORDS: u32 = 256;

/// Receives what is published under a topic, by any process of the host's family. `Send`, not `Sync`:
/// one thread at a time.
///
/// Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscriber {
    selector: Selector,
    bell: usize,
    /// By the selector's token.
    sources: Vec<Option<Source>>,
    arrivals: Arc<NewPublishers>,
    store: Option<Store>,
    departed: VecDeque<Departed>,
    stats: SubscriberStats,
    /// Keeps new publishers coming.
    keep: Option<Box<dyn KeepAlive>>,
}

/// What a subscriber has counted, over all publishers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriberStats {
    /// Publications that were received.
    pub received: u64,
    /// Publications that were lost: this subscriber was slow, or they were too long for it. What is lost
    /// at the end of a publisher that dies is not known.
    pub lost: u64,
    /// Publications that were not in the store any more when they were to be read.
    pub expired: u64,
    /// Publishers that have come.
    pub publishers: u64,
    /// Publishers that were refused because they publish values of another type.
    pub unsuitable: u64,
}

/// What the next call has to do.
#[derive(Debug)]
enum Next {
    Ring { token: usize, record: ring::Record, arrived: Arrived, trailer: usize },
    Stored { token: usize, arrived: Arrived, key: Vec<u8>, version: u64, len_bytes: u64 },
}

impl Subscriber {
    /// A subscriber without publishers; [`arrivals`](Self::arrivals) brings them.
    ///
    /// # Errors
    /// The bell's channel could not be made.
    pub(crate) fn new(
        options: &SubscribeOptions,
        fingerprint: u64,
        store: Option<Store>,
    ) -> Result<Self, SegmentError> {
        let of_bell = ChannelOptions {
            capacity_bytes: 4096,
            wait: options.wait,
            ..ChannelOptions::default()
        };
        let (ours, theirs) = Channel::pair(&of_bell)?;
        let ((bell, _), (_, heard)) = (ours.split(), theirs.split());
        let (backpressure, has_store) = (options.backpressure, store.is_some());
        let note = SubscriberNote { backpressure, has_store, fingerprint };
        let mut selector = Selector::new();
        let token = selector.add(heard);
        Ok(Self {
            selector,
            bell: token,
            sources: Vec::new(),
            arrivals: NewPublishers::new(note, bell),
            store,
            departed: VecDeque::new(),
            stats: SubscriberStats::default(),
            keep: None,
        })
    }

    /// Where whoever makes the links puts them.
    pub(crate) fn arrivals(&self) -> &Arc<NewPublishers> {
        &self.arrivals
    }

    /// What brings new publishers, for as long as there is this subscriber.
    pub(crate) fn keep(&mut self, keep: Box<dyn KeepAlive>) {
        self.keep = Some(keep);
    }

    /// Waits until the publishers that have come say that they have the link, for at most `timeout`:
    /// whatever they publish from then on is received here.
    pub(crate) fn settle(&mut self, timeout: Duration) {
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let deadline = Deadline::at_ns(monotonic_ns().saturating_add(timeout_ns));
        for arrival in self.arrivals.take() {
            let (mut source, mut receiver) = open(arrival);
            match receiver.recv_deadline(deadline) {
                Ok(message) if message.tag() == tag::START => {
                    if source.take_word(&Record::Start).is_err() {
                        continue;
                    }
                }
                // It says so when it goes on.
                Err(RecvTimeoutError::Timeout) => {}
                _ => continue,
            }
            self.listen_to(source, receiver);
        }
    }

    fn listen_to(&mut self, source: Source, receiver: Receiver) {
        let token = self.selector.add(receiver);
        if self.sources.len() <= token {
            self.sources.resize_with(token + 1, || None);
        }
        self.sources[token] = Some(source);
        self.stats.publishers += 1;
    }

    /// Takes in those that have come.
    fn admit(&mut self) {
        for arrival in self.arrivals.take() {
            let (source, receiver) = open(arrival);
            self.listen_to(source, receiver);
        }
    }

    /// Receives a publication, waiting for it as long as it takes, also while there is no publisher. It is
    /// lent until the next call.
    ///
    /// # Errors
    /// [`TopicRecvError`], but `Empty` and `Timeout`.
    pub fn recv(&mut self) -> Result<Publication<'_>, TopicRecvError> {
        let next = loop {
            match self.find(Deadline::NEVER, false) {
                Ok(next) => break next,
                Err(Nothing::Timeout | Nothing::Rung) => {}
                Err(nothing) => return Err(nothing.into_error(TopicRecvError::Timeout)),
            }
        };
        self.take(next)
    }

    /// Receives a publication if there is one now.
    ///
    /// # Errors
    /// [`TopicRecvError::Empty`]; the others as [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<Publication<'_>, TopicRecvError> {
        match self.find(Deadline::at_ns(0), false) {
            Ok(next) => self.take(next),
            Err(nothing) => Err(nothing.into_error(TopicRecvError::Empty)),
        }
    }

    /// Receives a publication, waiting for at most `timeout`.
    ///
    /// # Errors
    /// [`TopicRecvError::Timeout`]; the others as [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Publication<'_>, TopicRecvError> {
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let deadline = Deadline::at_ns(monotonic_ns().saturating_add(timeout_ns));
        match self.find(deadline, false) {
            Ok(next) => self.take(next),
            Err(nothing) => Err(nothing.into_error(TopicRecvError::Timeout)),
        }
    }

    /// As [`recv`](Self::recv), but that it ends when somebody rings.
    pub(super) fn recv_unless_rung(
        &mut self,
    ) -> Result<Result<Publication<'_>, TopicRecvError>, Nothing> {
        let next = self.find(Deadline::NEVER, true)?;
        Ok(self.take(next))
    }

    /// Copies of publications, as they come; waits for each as long as it takes. Ends in a forked child.
    pub fn iter(&mut self) -> impl Iterator<Item = Result<OwnedPublication, TopicRecvError>> {
        std::iter::from_fn(|| match self.recv() {
            Err(TopicRecvError::Forked) => None,
            result => Some(result.map(|publication| publication.to_owned())),
        })
    }

    /// Copies of the publications that are there now.
    pub fn try_iter(&mut self) -> impl Iterator<Item = Result<OwnedPublication, TopicRecvError>> {
        std::iter::from_fn(|| match self.try_recv() {
            Err(TopicRecvError::Forked | TopicRecvError::Empty) => None,
            result => Some(result.map(|publication| publication.to_owned())),
        })
    }

    /// The next publication that has come; not taken yet.
    #[inline]
    fn find(&mut self, deadline: Deadline, until_rung: bool) -> Result<Next, Nothing> {
        let mut words = 0;
        loop {
            // The clock is looked at only where nothing is there, or much that is no publication.
            let found = match self.selector.find(Duration::ZERO) {
                Some(found) => found,
                None if deadline == Deadline::at_ns(0) => return Err(Nothing::Timeout),
                None => self.wait(deadline)?,
            };
            match found {
                Found::Message(token, record) if token == self.bell => {
                    self.selector.lend(token, &record);
                    self.admit();
                    if until_rung {
                        return Err(Nothing::Rung);
                    }
                }
                Found::Message(token, record) => {
                    if let Some(next) = self.understand(token, record) {
                        return Ok(next);
                    }
                }
                Found::Error(_, RecvError::Forked) => return Err(Nothing::Forked),
                Found::Error(token, error) => {
                    if let Some(publisher) = self.lose(token, error) {
                        return Err(Nothing::CutOff(publisher));
                    }
                }
            }
            // Whoever can be rung is also told of departures at once.
            if until_rung && !self.departed.is_empty() {
                return Err(Nothing::Rung);
            }
            words += 1;
            if words >= UNTIMED_WORDS {
                words = 0;
                if deadline != Deadline::NEVER && monotonic_ns() >= deadline.as_ns() {
                    return Err(Nothing::Timeout);
                }
            }
        }
    }

    #[cold]
    fn wait(&mut self, deadline: Deadline) -> Result<Found, Nothing> {
        let left_ns = deadline.as_ns().saturating_sub(monotonic_ns());
        self.selector.find(Duration::from_nanos(left_ns)).ok_or(Nothing::Timeout)
    }

    /// What a record is: a publication, or something that is dealt with here.
    #[inline]
    fn understand(&mut self, token: usize, record: ring::Record) -> Option<Next> {
        let source = self.sources.get_mut(token)?.as_mut()?;
        if record.tag() == tag::PLAIN
            && let Ok(arrived) = source.arrive(None)
        {
            self.stats.received += 1;
            return Some(Next::Ring { token, record, arrived, trailer: 0 });
        }
        self.understand_other(token, record)
    }

    #[cold]
    fn understand_other(&mut self, token: usize, record: ring::Record) -> Option<Next> {
        let source = self.sources.get_mut(token)?.as_mut()?;
        let lost_so_far = source.lost;
        // A copy; where the publication is lent it is copied once more, and only its length is the same for
        // certain.
        let bytes = self.selector.look(token, &record);
        let next = match Record::of(record.tag(), bytes) {
            None => Err(Malformed),
            Some(Record::Publication { number, payload }) => {
                let trailer = bytes.len() - payload.len();
                let next = |arrived| Some(Next::Ring { token, record, arrived, trailer });
                source.arrive(number).map(next)
            }
            Some(Record::Stored { number, place }) => match &self.store {
                // It has been told so.
                None => Err(Malformed),
                Some(_) => source.arrive(number).map(|arrived| {
                    let (key, version, len_bytes) =
                        (place.key.to_vec(), place.version, place.len_bytes);
                    Some(Next::Stored { token, arrived, key, version, len_bytes })
                }),
            },
            Some(word) => source.take_word(&word).map(|()| None),
        };
        self.stats.lost = self.stats.lost.saturating_add(source.lost - lost_so_far);
        match next {
            Ok(Some(next @ Next::Ring { .. })) => {
                self.stats.received += 1;
                return Some(next);
            }
            Ok(next) => {
                self.selector.lend(token, &record);
                return next;
            }
            Err(Malformed) => drop(self.depart(token, |_| Departure::Malformed)),
        }
        None
    }

    /// Lends the publication.
    #[inline]
    fn take(&mut self, next: Next) -> Result<Publication<'_>, TopicRecvError> {
        match next {
            Next::Ring { token, record, arrived: Arrived { number, lost_before }, trailer } => {
                let message = self.selector.lend(token, &record).bytes();
                let bytes = &message[..message.len().saturating_sub(trailer)];
                let source = self.sources[token].as_ref().expect("whose publication it is");
                let (publisher, plugin) = (source.publisher, &source.plugin[..]);
                let bytes = Payload::Ring(bytes);
                Ok(Publication { publisher, plugin, number, lost_before, bytes })
            }
            Next::Stored { token, arrived, key, version, len_bytes } => {
                let source = self.sources[token].as_mut().expect("whose publication it is");
                let Arrived { number, lost_before } = arrived;
                let value = self.store.as_ref().and_then(|store| store.get(&key).ok().flatten());
                let is_it = value.as_ref().is_some_and(|value| {
                    value.version() == version && value.len() as u64 == len_bytes
                });
                let publisher = source.publisher;
                let Some(value) = value.filter(|_| is_it) else {
                    self.stats.expired += 1;
                    source.received -= 1;
                    return Err(TopicRecvError::Expired { publisher, number, len_bytes });
                };
                self.stats.received += 1;
                let (plugin, bytes) = (&source.plugin[..], Payload::Store(value));
                Ok(Publication { publisher, plugin, number, lost_before, bytes })
            }
        }
    }

    /// A publisher's ring has nothing more. Returns the publisher where it has cut this subscriber off.
    #[cold]
    fn lose(&mut self, token: usize, error: RecvError) -> Option<PublisherId> {
        let (publisher, departure) = self.depart(token, |source| match error {
            RecvError::Corrupt(corruption) => Departure::Corrupt(corruption),
            _ => source.departure(),
        })?;
        (departure == Departure::CutOff).then_some(publisher)
    }

    /// Removes a publisher, where the token is one's. Returns which, and how it has gone.
    fn depart(
        &mut self,
        token: usize,
        how: impl FnOnce(&Source) -> Departure,
    ) -> Option<(PublisherId, Departure)> {
        drop(self.selector.remove(token));
        let source = self.sources.get_mut(token).and_then(Option::take)?;
        let (publisher, departure) = (source.publisher, how(&source));
        if self.departed.len() == MAX_DEPARTURES {
            self.departed.pop_front();
        }
        self.departed.push_back(source.depart(departure));
        Some((publisher, departure))
    }

    /// The next publisher that has gone, each once. They are found when something is received; while
    /// nobody asks, the last 1024 are kept.
    pub fn take_departed(&mut self) -> Option<Departed> {
        self.departed.pop_front()
    }

    /// How many publishers it listens to now, as far as it has found out by receiving.
    pub fn publishers(&self) -> usize {
        self.sources.iter().flatten().count()
    }

    /// What it has counted.
    pub fn stats(&self) -> SubscriberStats {
        SubscriberStats { unsuitable: self.arrivals.unsuitable(), ..self.stats }
    }
}

/// A link's end, taken apart.
fn open(arrival: Arrival) -> (Source, Receiver) {
    let Arrival { link, channel, plugin, .. } = arrival;
    let connection = Arc::clone(channel.connection());
    let (back, receiver): (Sender, Receiver) = channel.split();
    (Source::new((link, plugin), connection, back), receiver)
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        // First, so that nobody comes any more.
        self.keep = None;
        self.arrivals.close();
    }
}
