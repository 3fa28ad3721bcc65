//! Who is waited for, in which order, and until when.
//!
//! [`Publisher`](super::Publisher) asks for those whose rings had no room for a publication. What always
//! holds: nobody is waited for longer than was agreed, and nobody uses up the time of those that come
//! after it.

use std::vec::IntoIter;

use super::link_sender::NOW;
use super::subscription::Subscription;
use crate::memory::Deadline;
use crate::os::clock::monotonic_ns;

/// Indices of subscriptions, with deadlines that are computed when it is their turn: each has the same
/// part of the time that is left, and what one does not need is for the others.
#[derive(Debug)]
pub(super) struct Waiters {
    /// With for how long each is waited for; the most patient come last.
    left: IntoIter<(u64, usize)>,
    started_ns: u64,
    end_ns: u64,
}

impl Waiters {
    /// All that wait; the publication was begun at `started_ns`.
    pub(super) fn of(subscriptions: &[Subscription], started_ns: u64) -> Self {
        let waits = subscriptions.iter().enumerate().filter(|(_, subscription)| subscription.waits);
        let mut all: Vec<_> =
            waits.map(|(index, subscription)| (subscription.patience_ns(), index)).collect();
        all.sort_unstable();
        let longest_ns = all.last().map_or(0, |(patience_ns, _)| *patience_ns);
        let end_ns = started_ns.saturating_add(longest_ns);
        Self { left: all.into_iter(), started_ns, end_ns }
    }
}

impl Iterator for Waiters {
    type Item = (usize, Deadline);

    fn next(&mut self) -> Option<Self::Item> {
        let waiters = self.left.len() as u64;
        let (patience_ns, index) = self.left.next()?;
        if patience_ns == 0 {
            return Some((index, NOW));
        }
        let now_ns = monotonic_ns();
        let part_ns = self.end_ns.saturating_sub(now_ns) / waiters;
        let agreed_ns = self.started_ns.saturating_add(patience_ns);
        Some((index, Deadline::at_ns(now_ns.saturating_add(part_ns).min(agreed_ns))))
    }
}
