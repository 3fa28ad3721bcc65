//! The side that writes: requests of those that may not.
//!
//! The host's service calls [`serve`], on its own thread. What always holds: the lock is waited for no longer than a
//! few milliseconds, so that who waits longer asks again; what the quota forbids has changed nothing.

use std::time::Duration;

use super::answer::{self, Answer, Failure};
use super::quota::{Ledger, StoreQuota};
use super::request::{MAX_BATCH, Operation, Request};
use crate::os::clock::monotonic_ns;
use crate::store::batch::Change;
use crate::store::error::{QuotaError, WriteError};
use crate::store::handle::Store;
use crate::store::operations as under_lock;
use crate::store::writable::Locked;

/// How long one request waits for the lock, at most: others are served by the same thread.
pub(super) const MAX_PATIENCE: Duration = Duration::from_millis(5);

/// Longest run of slots in use that a key may be added to: searches look at all of it. Keys whose hashes do not differ on
/// purpose fill no such run.
pub(super) const MAX_RUN: u64 = 512;

/// Carries a request out, for whom this ledger is kept. The answer has 40 bytes.
pub(crate) fn serve(
    store: &Store,
    quota: &StoreQuota,
    ledger: &mut Ledger,
    request: &Request<'_>,
) -> Vec<u8> {
    answer::to_bytes(carry_out(store, quota, ledger, request))
}

fn carry_out(
    store: &Store,
    quota: &StoreQuota,
    ledger: &mut Ledger,
    request: &Request<'_>,
) -> Answer {
    let changes = match &request.operation {
        Operation::Batch(changes) => changes.len() as u64,
        Operation::Clear => store.len().unwrap_or(0).saturating_add(1),
        _ => 1,
    };
    ledger.pay(quota, monotonic_ns(), changes).map_err(WriteError::from)?;
    let deadline = store.deadline(request.patience(MAX_PATIENCE))?;
    match &request.operation {
        Operation::Put(change) => {
            admit(store, quota, ledger, &[*change])?;
            let put = store.locked(deadline, |store| {
                check_runs(store, &[*change])?;
                match change.value {
                    Some(value) => Ok::<_, Failure>(store.set(change.key, value)?),
                    None => Ok(u64::from(store.delete(change.key)?)),
                }
            })?;
            ledger.note(change, put);
            Ok(put)
        }
        Operation::SetIfAbsent(change) => {
            admit(store, quota, ledger, &[*change])?;
            let version = store.locked(deadline, |store| {
                check_runs(store, &[*change])?;
                let value = change.value.unwrap_or_default();
                Ok::<_, Failure>(under_lock::set_if_absent(store, change.key, value)?)
            })?;
            if let Some(version) = version {
                ledger.note(change, version);
            }
            Ok(version.unwrap_or(0))
        }
        Operation::CompareExchange(expected, change) => {
            admit(store, quota, ledger, &[*change])?;
            let version = store.locked(deadline, |store| {
                check_runs(store, &[*change])?;
                let expected = answer::version(*expected);
                Ok::<_, Failure>(under_lock::compare_exchange(
                    store,
                    change.key,
                    expected,
                    change.value,
                )?)
            })?;
            let version = version.unwrap_or(0);
            ledger.note(change, version);
            Ok(version)
        }
        Operation::FetchAdd(key, added) => {
            let change = Change::set(key, &[0; 8]);
            admit(store, quota, ledger, &[change])?;
            let (value, version) = store.locked(deadline, |store| {
                check_runs(store, &[change])?;
                Ok::<_, Failure>(under_lock::fetch_add(store, key, *added)?)
            })?;
            ledger.note(&change, version);
            Ok(value.cast_unsigned())
        }
        Operation::Clear => {
            let keys = store.locked(deadline, |store| store.clear())?;
            ledger.clear();
            Ok(keys)
        }
        Operation::Batch(changes) => {
            let (found, max) = (changes.len() as u64, quota.max_batch.min(MAX_BATCH as u64));
            if found > max {
                return Err(Failure::Write(QuotaError::Batch { found, max }.into()));
            }
            admit(store, quota, ledger, changes)?;
            let versions = store.locked(deadline, |store| {
                check_runs(store, changes)?;
                Ok::<_, Failure>(store.commit(changes)?)
            })?;
            for (change, version) in changes.iter().zip(&versions) {
                // What a later change has replaced is noted again by that one.
                ledger.note(change, version.unwrap_or(0));
            }
            // Those of what is set follow each other, unless deletions lie between them.
            Ok(versions.into_iter().flatten().next().unwrap_or(0))
        }
    }
}

fn admit(
    store: &Store,
    quota: &StoreQuota,
    ledger: &mut Ledger,
    changes: &[Change<'_>],
) -> Result<(), Failure> {
    Ok(ledger.admit(store, quota, changes).map_err(WriteError::from)?)
}

/// Refuses to add to a run that is too long already. The changes of one batch are not counted among each other.
fn check_runs(store: &mut Locked<'_>, changes: &[Change<'_>]) -> Result<(), Failure> {
    for change in changes.iter().filter(|change| change.value.is_some()) {
        let found = store.run_where_added(change.key, MAX_RUN)?;
        if found > MAX_RUN {
            let crowded = QuotaError::Crowded { found, max: MAX_RUN };
            return Err(Failure::Write(crowded.into()));
        }
    }
    Ok(())
}
