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
}

impl Default for StoreQuota {
    fn default() -> Self {
        Self { max_value_bytes: 1 << 20, max_keys: 65536, max_bytes: 16 << 20, max_batch: 1024 }
    }
}

/// What a plugin has set.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    keys: HashMap<Vec<u8>, Charge>,
    bytes: u64,
    /// Changes asked for since it was last looked whether all of it is still there.
    since_swept: usize,
}

#[derive(Debug)]
struct Charge {
    version: u64,
    bytes: u64,
}

impl Ledger {
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
        *self = Self::default();
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
