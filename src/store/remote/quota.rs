//! How much a plugin may have in a store that it does not write itself, and how much it has.
//!
//! The side that writes looks before each request, and notes what came of it. What always holds: what is noted is no less
//! than what the plugin has set and is still there; a request is refused before it has changed anything.

use std::collections::HashMap;

use crate::store::batch::Change;
use crate::store::block::block_bytes;
use crate::store::error::QuotaError;
use crate::store::handle::Store;
use crate::store::interest::Truth;

/// How much a plugin that writes through its host may ask of the store.
///
/// What counts is what it has set and not deleted since; what others have replaced or deleted since counts until the limit is
/// reached, and then no longer. It counts for the plugin's name: restarting does not reset it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreQuota {
    /// Longest value in bytes. Default 1 MiB. A request with all its keys and values is also no longer than the longest
    /// message of a channel, 16 MiB.
    pub max_value_bytes: u64,
    /// Most keys whose values it has set. Default 65536.
    pub max_keys: u64,
    /// Most bytes of values that it has set, with their keys and about 48 bytes for each. Default 16 MiB.
    pub max_bytes: u64,
    /// Most changes of one batch. Default 1024; never more than 4096.
    pub max_batch: u64,
    /// Most changes in a second, on average; what was not used of the last second may come at once. `clear` counts as one
    /// change and one more for each key that it removes. Default 100,000.
    pub max_changes_per_second: u64,
}

/// How much of its rate a plugin may use in advance.
const BURST_NS: u64 = 1_000_000_000;

impl Default for StoreQuota {
    fn default() -> Self {
        Self {
            max_value_bytes: 1 << 20,
            max_keys: 65536,
            max_bytes: 16 << 20,
            max_batch: 1024,
            max_changes_per_second: 100_000,
        }
    }
}

/// What a plugin has set.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    keys: HashMap<Vec<u8>, Charge>,
    bytes: u64,
    /// Changes asked for since it was last looked whether all of it is still there.
    since_swept: usize,
    /// The time on the monotonic clock at which all changes so far are paid for, at the rate that is allowed.
    paid_until_ns: u64,
}

#[derive(Debug)]
struct Charge {
    version: u64,
    bytes: u64,
}

impl Ledger {
    /// Pays for so many changes. Refused where more than a second's worth is not paid for yet.
    pub(super) fn pay(
        &mut self,
        quota: &StoreQuota,
        now_ns: u64,
        changes: u64,
    ) -> Result<(), QuotaError> {
        let max = quota.max_changes_per_second;
        let begins_ns = self.paid_until_ns.max(now_ns);
        let wait_ns = (begins_ns - now_ns).saturating_sub(BURST_NS);
        if wait_ns > 0 || max == 0 {
            return Err(QuotaError::Rate { max, wait_ns });
        }
        let cost_ns = u128::from(changes) * u128::from(BURST_NS) / u128::from(max);
        self.paid_until_ns = begins_ns.saturating_add(u64::try_from(cost_ns).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Whether so much more may be set; of several changes to one key the last one counts.
    pub(super) fn admit(
        &mut self,
        store: &Store,
        quota: &StoreQuota,
        changes: &[Change<'_>],
    ) -> Result<(), QuotaError> {
        self.since_swept = self.since_swept.saturating_add(changes.len());
        let admitted = self.look(quota, changes);
        let may_help = matches!(admitted, Err(QuotaError::Keys { .. } | QuotaError::Bytes { .. }));
        // Not more often than it can have been filled: looking costs what filling has cost.
        if !may_help || self.since_swept < self.keys.len() {
            return admitted;
        }
        self.sweep(store);
        self.look(quota, changes)
    }

    fn look(&self, quota: &StoreQuota, changes: &[Change<'_>]) -> Result<(), QuotaError> {
        let mut sets = HashMap::with_capacity(changes.len());
        for change in changes {
            let Some((value, _)) = change.value else { continue };
            let (found, max) = (value.len() as u64, quota.max_value_bytes);
            if found > max {
                return Err(QuotaError::ValueLength { found, max });
            }
            sets.insert(change.key, cost(change.key, value));
        }
        let former = |key: &[u8]| self.keys.get(key).map_or(0, |charge| charge.bytes);
        let added = sets.keys().filter(|key| !self.keys.contains_key(**key)).count();
        if added > 0 && (self.keys.len() + added) as u64 > quota.max_keys {
            return Err(QuotaError::Keys { max: quota.max_keys });
        }
        let needed = sets.values().fold(self.bytes, |sum, bytes| sum.saturating_add(*bytes));
        let needed = needed.saturating_sub(sets.keys().map(|key| former(key)).sum());
        if needed > quota.max_bytes && needed > self.bytes {
            return Err(QuotaError::Bytes { needed, max: quota.max_bytes });
        }
        Ok(())
    }

    /// A change was made; `version` is that of the new value.
    pub(super) fn note(&mut self, change: &Change<'_>, version: u64) {
        if let Some(former) = self.keys.remove(change.key) {
            self.bytes -= former.bytes;
        }
        if let Some((value, _)) = change.value {
            let bytes = cost(change.key, value);
            self.bytes += bytes;
            self.keys.insert(change.key.to_vec(), Charge { version, bytes });
        }
    }

    /// All keys were removed.
    pub(super) fn clear(&mut self) {
        *self = Self { paid_until_ns: self.paid_until_ns, ..Self::default() };
    }

    /// Forgets what others have replaced or deleted.
    fn sweep(&mut self, store: &Store) {
        self.since_swept = 0;
        self.keys.retain(|key, charge| match store.version(key) {
            Ok(version) => version == Some(charge.version),
            Err(_) => true,
        });
        self.bytes = self.keys.values().map(|charge| charge.bytes).sum();
    }
}

fn cost(key: &[u8], value: &[u8]) -> u64 {
    block_bytes(key.len() as u64, value.len() as u64).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;

    #[test]
    fn what_others_have_taken_away_counts_no_longer_when_it_matters() {
        let options = StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() };
        let store = Store::anonymous(&options).unwrap();
        let quota = StoreQuota { max_keys: 2, ..StoreQuota::default() };
        let mut ledger = Ledger::default();
        let set = |ledger: &mut Ledger, key: &[u8]| {
            let change = Change::set(key, b"value");
            ledger.admit(&store, &quota, &[change])?;
            ledger.note(&change, store.set(key, b"value").unwrap());
            Ok(())
        };
        assert_eq!((set(&mut ledger, b"a"), set(&mut ledger, b"b")), (Ok(()), Ok(())));
        assert_eq!(set(&mut ledger, b"c"), Err(QuotaError::Keys { max: 2 }));
        assert_eq!(set(&mut ledger, b"a"), Ok(()), "what it has may be replaced");
        // It was just looked for, and has to be worth it again.
        store.delete("b").unwrap();
        assert_eq!(set(&mut ledger, b"c"), Ok(()));
        assert_eq!(ledger.bytes, cost(b"a", b"value") + cost(b"c", b"value"));
        ledger.note(&Change::delete(b"c"), 0);
        assert_eq!((ledger.keys.len(), ledger.bytes), (1, cost(b"a", b"value")));
    }

    #[test]
    fn f47_changes_have_a_rate_that_clear_does_not_reset() {
        let quota = StoreQuota { max_changes_per_second: 10, ..StoreQuota::default() };
        let (mut ledger, start) = (Ledger::default(), 5 * BURST_NS);
        let mut admitted = 0;
        while ledger.pay(&quota, start, 1).is_ok() {
            ledger.clear();
            admitted += 1;
        }
        assert_eq!(admitted, 11, "a second's worth, and the one that was begun");
        let Err(QuotaError::Rate { max: 10, wait_ns }) = ledger.pay(&quota, start, 1) else {
            panic!("refused before");
        };
        assert!(ledger.pay(&quota, start + wait_ns - 1, 1).is_err());
        assert_eq!(ledger.pay(&quota, start + wait_ns, 1), Ok(()));
        // Idle time is not saved up beyond a second's worth.
        let later = start + 1000 * BURST_NS;
        assert_eq!((0..100).filter(|_| ledger.pay(&quota, later, 1).is_ok()).count(), 11);
    }

    #[test]
    fn of_several_changes_to_one_key_the_last_counts() {
        let quota = StoreQuota { max_keys: 1, max_bytes: 100, ..StoreQuota::default() };
        let ledger = Ledger::default();
        let twice = [Change::set(b"a", &[0; 40]), Change::set(b"a", &[1; 30])];
        assert_eq!(ledger.look(&quota, &twice), Ok(()));
        let long = [Change::set(b"a", &[0; 200])];
        assert!(matches!(ledger.look(&quota, &long), Err(QuotaError::Bytes { max: 100, .. })));
        let two = [Change::set(b"a", b""), Change::set(b"b", b"")];
        assert_eq!(ledger.look(&quota, &two), Err(QuotaError::Keys { max: 1 }));
    }
}
