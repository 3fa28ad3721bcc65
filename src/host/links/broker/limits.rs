//! How much a party can have.
//!
//! The broker asks before it begins a link. What always holds: what a plugin has, in links, names and
//! memory, is bounded, alone and with each other party, so that none can use up what another one
//! needs; the host itself is bounded only in what it has with one plugin.

use super::PartyId;

/// The most of each; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::host) struct Limits {
    pub(in crate::host::links) links: usize,
    pub(in crate::host::links) pair_links: usize,
    /// Names listened to and joined.
    pub(in crate::host::links) names: usize,
    /// How often one name can be listened to, and how often joined.
    pub(in crate::host::links) one_name: usize,
    pub(in crate::host::links) bytes: u64,
    pub(in crate::host::links) pair_bytes: u64,
    pub(in crate::host::links) link_bytes: u64,
    /// Offers that a party has not answered.
    pub(in crate::host::links) unanswered: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            links: 1024,
            pair_links: 128,
            names: 1024,
            one_name: 8,
            bytes: 1 << 30,
            pair_bytes: 128 << 20,
            link_bytes: 64 << 20,
            unanswered: 32,
        }
    }
}

/// What there can be too many of, by code.
pub(in crate::host::links) const WHAT: [&str; 7] = [
    "links",
    "links with one other process",
    "names",
    "bytes of links",
    "bytes of links with one other process",
    "bytes of one link",
    "registrations of one name",
];

/// What is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany {
    /// Of [`WHAT`].
    pub(super) code: u64,
    pub(super) max: u64,
    /// The party that has it, where it is one.
    pub(super) whose: Option<PartyId>,
}

impl TooMany {
    pub(super) fn names(limits: &Limits) -> Self {
        Self { code: 2, max: limits.names as u64, whose: None }
    }

    pub(super) fn one_name(limits: &Limits) -> Self {
        Self { code: 6, max: limits.one_name as u64, whose: None }
    }

    pub(super) fn link_bytes(limits: &Limits) -> Self {
        Self { code: 5, max: limits.link_bytes, whose: None }
    }
}

/// Links, and the bytes of their segments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) links: usize,
    pub(super) bytes: u64,
}

impl Share {
    pub(super) fn add(&mut self, bytes: u64) {
        self.links += 1;
        self.bytes += bytes;
    }

    pub(super) fn take(&mut self, bytes: u64) {
        self.links -= 1;
        self.bytes -= bytes;
    }

    /// Whether `more` links can be had by one party, each of so many bytes.
    pub(super) fn check_own(
        &self,
        limits: &Limits,
        more: usize,
        bytes: u64,
        whose: PartyId,
    ) -> Result<(), TooMany> {
        self.check(limits.links, limits.bytes, more, bytes).map_err(|problem| match problem {
            None => TooMany { code: 0, max: limits.links as u64, whose: Some(whose) },
            Some(max) => TooMany { code: 3, max, whose: Some(whose) },
        })
    }

    /// Whether one more can be had by two parties with each other.
    pub(super) fn check_pair(&self, limits: &Limits, bytes: u64) -> Result<(), TooMany> {
        self.check(limits.pair_links, limits.pair_bytes, 1, bytes).map_err(
            |problem| match problem {
                None => TooMany { code: 1, max: limits.pair_links as u64, whose: None },
                Some(max) => TooMany { code: 4, max, whose: None },
            },
        )
    }

    /// The error is the limit of bytes where it is that one.
    fn check(
        &self,
        max_links: usize,
        max_bytes: u64,
        more: usize,
        bytes: u64,
    ) -> Result<(), Option<u64>> {
        if self.links + more > max_links {
            return Err(None);
        }
        if self.bytes.saturating_add(bytes.saturating_mul(more as u64)) > max_bytes {
            return Err(Some(max_bytes));
        }
        Ok(())
    }
}
