//! One subscriber, as its publisher has it: a way to it, and what to do when it is slow.
//!
//! [`Publisher`](super::Publisher) has one for each. What always holds: a publication that was offered
//! has been sent, waits, or has been counted as missed; no subscriber is waited for longer than it and
//! its publisher have agreed.

use super::link_sender::{LinkSender, NOW, Outgoing};
use super::options::BackpressurePolicy;
use super::queue::{Queue, Taken};
use crate::error::{SendTimeoutError, TrySendError};
use crate::memory::Deadline;

/// A subscriber, as its publisher sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriberInfo {
    /// Number of the link, which no other one has while this host lives.
    pub link: u64,
    /// The plugin in whose process it is; empty for the host.
    pub plugin: String,
    /// What it has chosen, within what the publisher allows.
    pub backpressure: BackpressurePolicy,
    /// Publications that were sent, or wait to be.
    pub sent: u64,
    /// Publications for which it was waited, in vain or not.
    pub waited: u64,
    /// Publications that were dropped because it was slow.
    pub dropped: u64,
    /// Publications that it could not take because they were too long.
    pub too_long: u64,
    /// The publication that it missed last, and why.
    pub last_missed: Option<(u64, Missed)>,
}

/// Why a subscriber has missed a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missed {
    /// Its ring had no room, for as long as it was waited for.
    Full,
    /// It takes none that long; or none that does not go in one record, and is not waited for.
    TooLong {
        /// Length of the publication, and what goes with it.
        len: u64,
        /// Longest possible.
        max: u64,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Subscription {
    /// But for what was sent, which follows from the others.
    info: SubscriberInfo,
    /// Number of the first publication that it was to get.
    first: u64,
    pub(super) has_store: bool,
    route: Route,
    /// It has been waited for in vain, and nothing could be sent to it since.
    is_late: bool,
    /// The publication is still to be sent, by the deadline.
    pub(super) waits: bool,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "what is used most is found without a pointer")]
enum Route {
    Direct(LinkSender),
    Queued(Queue),
}

/// What has become of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    Sent,
    /// There was no room; the caller sends to the others first.
    Waits,
    Missed,
    /// The subscriber is over.
    Gone,
    /// It is because it was slow.
    CutOff,
}

impl Subscription {
    /// A subscriber that says so of itself, and has been told that it is one. `backpressure` is within what
    /// the publisher allows.
    pub(super) fn new(
        (link, plugin): (u64, String),
        sender: LinkSender,
        backpressure: BackpressurePolicy,
        has_store: bool,
    ) -> Self {
        let route = match backpressure {
            BackpressurePolicy::DropOldest { queue_bytes } => {
                Route::Queued(Queue::new(sender, queue_bytes))
            }
            _ => Route::Direct(sender),
        };
        let (sent, waited, dropped, too_long, last_missed) = (0, 0, 0, 0, None);
        let info = SubscriberInfo {
            link,
            plugin,
            backpressure,
            sent,
            waited,
            dropped,
            too_long,
            last_missed,
        };
        Self { info, first: 0, has_store, route, is_late: false, waits: false }
    }

    /// Says which publication will be the first. False where the subscriber has gone.
    pub(super) fn begin(&mut self, number: u64) -> bool {
        self.first = number;
        match &mut self.route {
            Route::Direct(sender) => sender.first(number),
            Route::Queued(queue) => queue.first(number),
        }
    }

    /// Sends a publication of bytes if that is simple; otherwise nothing has happened, and
    /// [`offer`](Self::offer) must be asked.
    #[inline(always)]
    pub(super) fn offer_simple(&mut self, number: u64, bytes: &[u8]) -> bool {
        match &mut self.route {
            Route::Direct(sender) => !self.is_late && sender.send_simple(number, bytes),
            Route::Queued(queue) => queue.send_simple(number, bytes),
        }
    }

    /// Sends a publication without waiting, or says what is to be done.
    pub(super) fn offer(&mut self, outgoing: Outgoing<'_>) -> Delivery {
        let result = match &mut self.route {
            Route::Direct(sender) => sender.try_send(outgoing).map(|()| Taken::Sent),
            Route::Queued(queue) => queue.offer(outgoing),
        };
        let error = match result {
            Ok(taken) => {
                if let Taken::Waits { dropped } = taken {
                    self.info.dropped += dropped;
                }
                self.is_late = false;
                return Delivery::Sent;
            }
            Err(error) => error,
        };
        match (error, self.info.backpressure) {
            (
                TrySendError::Full | TrySendError::WouldFragment { .. },
                BackpressurePolicy::Block(_),
            ) => {
                self.waits = true;
                Delivery::Waits
            }
            (TrySendError::Full, BackpressurePolicy::Disconnect) => Delivery::CutOff,
            (TrySendError::Full, _) => self.miss(outgoing.number, Missed::Full),
            (TrySendError::WouldFragment { len, max } | TrySendError::TooLong { len, max }, _) => {
                self.miss(outgoing.number, Missed::TooLong { len, max })
            }
            _ => Delivery::Gone,
        }
    }

    /// For how long a publication that [waits](Delivery::Waits) is waited for: as was agreed, and not at all
    /// where that was in vain the last time and the subscriber has not caught up since. A long publication
    /// is never [sent without waiting](Self::offer), so that one that has caught up is waited for again.
    pub(super) fn patience_ns(&self) -> u64 {
        match (&self.route, self.info.backpressure) {
            (Route::Direct(sender), BackpressurePolicy::Block(limit))
                if !self.is_late || sender.is_drained() =>
            {
                u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX)
            }
            _ => 0,
        }
    }

    /// Sends a publication that [waits](Delivery::Waits), until `deadline`; [`NOW`] where it is not waited for.
    pub(super) fn wait(&mut self, outgoing: Outgoing<'_>, deadline: Deadline) -> Delivery {
        self.waits = false;
        let Route::Direct(sender) = &mut self.route else { return Delivery::Missed };
        self.info.waited += u64::from(deadline != NOW);
        match sender.send_by(outgoing, deadline) {
            Ok(()) => {
                self.is_late = false;
                Delivery::Sent
            }
            Err(SendTimeoutError::Timeout) => {
                self.is_late = true;
                self.miss(outgoing.number, Missed::Full)
            }
            Err(SendTimeoutError::TooLong { len, max }) => {
                self.miss(outgoing.number, Missed::TooLong { len, max })
            }
            Err(_) => Delivery::Gone,
        }
    }

    fn miss(&mut self, number: u64, why: Missed) -> Delivery {
        match why {
            Missed::Full => self.info.dropped += 1,
            Missed::TooLong { .. } => self.info.too_long += 1,
        }
        self.info.last_missed = Some((number, why));
        Delivery::Missed
    }

    /// The number of the first publication in the store, where the oldest is `oldest`, that it may still
    /// want to read.
    pub(super) fn wants_from(&mut self, oldest: u64) -> u64 {
        match &mut self.route {
            Route::Direct(sender) => sender.wants_from(oldest),
            Route::Queued(queue) => queue.wants_from(oldest),
        }
    }

    /// Whether it has closed, or is dead: nothing will be read any more.
    pub(super) fn is_over(&self) -> bool {
        match &self.route {
            Route::Direct(sender) => sender.is_over(),
            Route::Queued(queue) => queue.is_over(),
        }
    }

    /// What there is to tell of it; the next publication will have this number.
    pub(super) fn info(&mut self, next: u64) -> SubscriberInfo {
        if let Route::Queued(queue) = &self.route {
            self.info.too_long += queue.take_too_long();
        }
        let SubscriberInfo { dropped, too_long, .. } = self.info;
        let missed = self.first + dropped + too_long;
        SubscriberInfo { sent: next.saturating_sub(missed), ..self.info.clone() }
    }

    /// Whether it has taken everything, and asked for more.
    pub(super) fn is_drained(&self) -> bool {
        match &self.route {
            Route::Direct(sender) => sender.is_drained(),
            Route::Queued(queue) => queue.is_drained(),
        }
    }

    /// The publisher is over: the next publication would have had this number.
    pub(super) fn end(self, number: u64, deadline: Deadline) {
        match self.route {
            Route::Direct(sender) => sender.end(number, NOW),
            Route::Queued(queue) => queue.end(number, deadline),
        }
    }
}
