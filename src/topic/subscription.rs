//! One subscriber, as its publisher has it: a way to it, and what to do when it is slow.
//!
//! [`Publisher`](super::Publisher) has one for each. What always holds: a publication that was offered
//! has been sent, waits, or has been counted as missed; no subscriber is waited for longer than it and
//! its publisher have agreed.

use super::options::WhenSlow;
use super::outlet::{NOW, Outlet, Parcel};
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
    pub when_slow: WhenSlow,
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
    way: Way,
    /// It has been waited for in vain, and nothing could be sent to it since.
    is_late: bool,
    /// The publication is still to be sent, by the deadline.
    pub(super) waits: bool,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "what is used most is found without a pointer")]
enum Way {
    Direct(Outlet),
    Queued(Queue),
}

/// What has become of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
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
    /// A subscriber that says so of itself, and has been told that it is one. `when_slow` is within what
    /// the publisher allows.
    pub(super) fn new(
        (link, plugin): (u64, String),
        outlet: Outlet,
        when_slow: WhenSlow,
        has_store: bool,
    ) -> Self {
        let way = match when_slow {
            WhenSlow::DropOldest { queue_bytes } => Way::Queued(Queue::new(outlet, queue_bytes)),
            _ => Way::Direct(outlet),
        };
        let (sent, waited, dropped, too_long, last_missed) = (0, 0, 0, 0, None);
        let info = SubscriberInfo {
            link,
            plugin,
            when_slow,
            sent,
            waited,
            dropped,
            too_long,
            last_missed,
        };
        Self { info, first: 0, has_store, way, is_late: false, waits: false }
    }

    /// Says which publication will be the first. False where the subscriber has gone.
    pub(super) fn begin(&mut self, number: u64) -> bool {
        self.first = number;
        match &mut self.way {
            Way::Direct(outlet) => outlet.first(number),
            Way::Queued(queue) => queue.first(number),
        }
    }

    /// Sends a publication of bytes if that is simple; otherwise nothing has happened, and
    /// [`offer`](Self::offer) must be asked.
    #[inline(always)]
    pub(super) fn offer_simple(&mut self, number: u64, bytes: &[u8]) -> bool {
        match &mut self.way {
            Way::Direct(outlet) if !self.is_late => outlet.send_simple(number, bytes),
            _ => false,
        }
    }

    /// Sends a publication without waiting, or says what is to be done.
    pub(super) fn offer(&mut self, parcel: Parcel<'_>) -> Fate {
        let result = match &mut self.way {
            Way::Direct(outlet) => outlet.try_send(parcel).map(|()| Taken::Sent),
            Way::Queued(queue) => queue.offer(parcel),
        };
        let error = match result {
            Ok(taken) => {
                if let Taken::Waits { dropped } = taken {
                    self.info.dropped += dropped;
                }
                self.is_late = false;
                return Fate::Sent;
            }
            Err(error) => error,
        };
        match (error, self.info.when_slow) {
            (TrySendError::Full | TrySendError::WouldFragment { .. }, WhenSlow::Block(_)) => {
                self.waits = true;
                Fate::Waits
            }
            (TrySendError::Full, WhenSlow::Disconnect) => Fate::CutOff,
            (TrySendError::Full, _) => self.miss(parcel.number, Missed::Full),
            (TrySendError::WouldFragment { len, max } | TrySendError::TooLong { len, max }, _) => {
                self.miss(parcel.number, Missed::TooLong { len, max })
            }
            _ => Fate::Gone,
        }
    }

    /// For how long a publication that [waits](Fate::Waits) is waited for: as was agreed, and not at all
    /// where that was in vain the last time and the subscriber has not caught up since. A long publication
    /// is never [sent without waiting](Self::offer), so that one that has caught up is waited for again.
    pub(super) fn patience_ns(&self) -> u64 {
        match (&self.way, self.info.when_slow) {
            (Way::Direct(outlet), WhenSlow::Block(limit))
                if !self.is_late || outlet.is_drained() =>
            {
                u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX)
            }
            _ => 0,
        }
    }

    /// Sends a publication that [waits](Fate::Waits), until `deadline`; [`NOW`] where it is not waited for.
    pub(super) fn wait(&mut self, parcel: Parcel<'_>, deadline: Deadline) -> Fate {
        self.waits = false;
        let Way::Direct(outlet) = &mut self.way else { return Fate::Missed };
        self.info.waited += u64::from(deadline != NOW);
        match outlet.send_by(parcel, deadline) {
            Ok(()) => {
                self.is_late = false;
                Fate::Sent
            }
            Err(SendTimeoutError::Timeout) => {
                self.is_late = true;
                self.miss(parcel.number, Missed::Full)
            }
            Err(SendTimeoutError::TooLong { len, max }) => {
                self.miss(parcel.number, Missed::TooLong { len, max })
            }
            Err(_) => Fate::Gone,
        }
    }

    fn miss(&mut self, number: u64, why: Missed) -> Fate {
        match why {
            Missed::Full => self.info.dropped += 1,
            Missed::TooLong { .. } => self.info.too_long += 1,
        }
        self.info.last_missed = Some((number, why));
        Fate::Missed
    }

    /// The number of the first publication in the store, where the oldest is `oldest`, that it may still
    /// want to read.
    pub(super) fn wants_from(&mut self, oldest: u64) -> u64 {
        match &mut self.way {
            Way::Direct(outlet) => outlet.wants_from(oldest),
            Way::Queued(queue) => queue.wants_from(oldest),
        }
    }

    /// Whether it has closed, or is dead: nothing will be read any more.
    pub(super) fn is_over(&self) -> bool {
        match &self.way {
            Way::Direct(outlet) => outlet.is_over(),
            Way::Queued(queue) => queue.is_over(),
        }
    }

    /// What there is to tell of it; the next publication will have this number.
    pub(super) fn info(&mut self, next: u64) -> SubscriberInfo {
        if let Way::Queued(queue) = &self.way {
            self.info.too_long += queue.take_too_long();
        }
        let SubscriberInfo { dropped, too_long, .. } = self.info;
        let missed = self.first + dropped + too_long;
        SubscriberInfo { sent: next.saturating_sub(missed), ..self.info.clone() }
    }

    /// Whether it has taken everything, and asked for more.
    pub(super) fn is_drained(&self) -> bool {
        match &self.way {
            Way::Direct(outlet) => outlet.is_drained(),
            Way::Queued(queue) => queue.is_drained(),
        }
    }

    /// The publisher is over: the next publication would have had this number.
    pub(super) fn end(self, number: u64, deadline: Deadline) {
        match self.way {
            Way::Direct(outlet) => outlet.end(number, NOW),
            Way::Queued(queue) => queue.end(number, deadline),
        }
    }
}
