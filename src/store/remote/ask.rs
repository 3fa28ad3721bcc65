//! The side that asks: a handle's calls as requests.
//!
//! [`Store`](crate::store::Store) calls it where it has the store read-only and a host that writes. What always holds: a
//! call that returns an answer was carried out exactly once, as it says; who waits for the lock longer than the
//! other side does asks again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Remote;
use super::answer::{self, Answer, Failure};
use super::request::{MAX_BATCH, Operation, Request};
use super::serve::MAX_PATIENCE;
use super::watch::{self, WatchRequest};
use crate::memory::{Deadline, MappedMemory, Memory};
use crate::os::clock::monotonic_ns;
use crate::store::batch::Change;
use crate::store::block;
use crate::store::error::{AddError, CompareError, QuotaError, WriteError};
use crate::store::prefixes::{Entry, Kept};

/// How long an answer may take where the caller does not say: the host is alive, and its thread is not.
const ANSWER: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Clone)]
pub(in crate::store) struct Asking {
    remote: Arc<dyn Remote>,
    /// Numbers of the logs whose prefixes are watched no more: the host is told with the next request.
    given_back: Arc<Mutex<Vec<u32>>>,
}

/// A registration by the host.
#[derive(Debug)]
struct ByHost {
    number: u32,
    asking: Asking,
    memory: MappedMemory,
}

impl Kept for ByHost {}

impl Drop for ByHost {
    fn drop(&mut self) {
        // A forked child has none of the parent's, and its lock may have been taken at the fork.
        if self.memory.is_ours() {
            self.asking.lock_given_back().push(self.number);
        }
    }
}

impl Asking {
    pub(in crate::store) fn new(remote: Arc<dyn Remote>) -> Self {
        Self { remote, given_back: Arc::default() }
    }

    fn ask(&self, operation: Operation<'_>, deadline: Deadline) -> Answer {
        let mut request = Request { patience_us: 0, operation };
        let until = || Duration::from_nanos(deadline.as_ns().saturating_sub(monotonic_ns()));
        let mut left = until();
        loop {
            request.patience_us = left.min(MAX_PATIENCE).as_micros() as u32;
            let is_given = !left.is_zero() && deadline != Deadline::NEVER;
            let timeout = if is_given { left } else { ANSWER };
            let bytes = self.remote.request(&request.to_bytes(), timeout);
            let answer = answer::of(&bytes?);
            let is_late = answer == Err(Failure::Write(WriteError::Deadline));
            if !is_late || left <= MAX_PATIENCE {
                return answer;
            }
            left = until();
            if left.is_zero() {
                // The answer took as long. Asking again would wait for one without a limit of the caller's.
                return answer;
            }
        }
    }

    /// Has it said at a bell that somebody is about to sleep there; whether that was done.
    pub(in crate::store) fn announce(
        &self,
        bell: u32,
        timeout: Duration,
    ) -> Result<bool, WriteError> {
        Ok(self.remote.watch(&WatchRequest::Announce(bell).to_bytes(), timeout)? == [1])
    }

    /// Has a prefix registered, in the store that is mapped here; `None` where that was not done.
    pub(in crate::store) fn register(
        &self,
        memory: &MappedMemory,
        prefix: &[u8],
        timeout: Duration,
    ) -> Option<Entry> {
        let given_back = std::mem::take(&mut *self.lock_given_back());
        let request = WatchRequest::Register { given_back, prefix };
        let Ok(answer) = self.remote.watch(&request.to_bytes(), timeout) else {
            // Once more the next time.
            if let WatchRequest::Register { given_back, .. } = request {
                self.lock_given_back().extend(given_back);
            }
            return None;
        };
        let (log, appended) = watch::registered_of(&answer).ok()??;
        let (asking, memory) = (self.clone(), memory.clone());
        let registration = Box::new(ByHost { number: log.number, asking, memory });
        Some(Entry::new(log, appended, registration))
    }

    fn lock_given_back(&self) -> MutexGuard<'_, Vec<u32>> {
        self.given_back.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::store) fn set(
        &self,
        key: &[u8],
        value: (&[u8], u32),
        deadline: Deadline,
    ) -> Result<u64, WriteError> {
        let change = checked(Change { key, value: Some(value) })?;
        Ok(self.ask(Operation::Put(change), deadline)?)
    }

    pub(in crate::store) fn delete(&self, key: &[u8]) -> Result<bool, WriteError> {
        let change = checked(Change { key, value: None })?;
        Ok(self.ask(Operation::Put(change), Deadline::NEVER)? != 0)
    }

    pub(in crate::store) fn set_if_absent(
        &self,
        key: &[u8],
        bytes: &[u8],
    ) -> Result<Option<u64>, WriteError> {
        let change = checked(Change::set(key, bytes))?;
        Ok(answer::version(self.ask(Operation::SetIfAbsent(change), Deadline::NEVER)?))
    }

    pub(in crate::store) fn compare_exchange(
        &self,
        key: &[u8],
        expected: Option<u64>,
        new: Option<&[u8]>,
    ) -> Result<Option<u64>, CompareError> {
        if expected == Some(0) {
            // No value has it, and here it would stand for none.
            let found = match self.compare_exchange(key, Some(u64::MAX), new) {
                Err(CompareError::Changed { found }) => found,
                other => return other,
            };
            return Err(CompareError::Changed { found });
        }
        let change = checked(Change { key, value: new.map(|bytes| (bytes, 0)) })?;
        let operation = Operation::CompareExchange(expected.unwrap_or(0), change);
        Ok(answer::version(self.ask(operation, Deadline::NEVER)?))
    }

    pub(in crate::store) fn fetch_add(&self, key: &[u8], added: i64) -> Result<i64, AddError> {
        checked(Change::delete(key))?;
        Ok(self.ask(Operation::FetchAdd(key, added), Deadline::NEVER)?.cast_signed())
    }

    pub(in crate::store) fn clear(&self) -> Result<u64, WriteError> {
        Ok(self.ask(Operation::Clear, Deadline::NEVER)?)
    }

    pub(in crate::store) fn commit(
        &self,
        changes: &[Change<'_>],
        deadline: Deadline,
    ) -> Result<Vec<Option<u64>>, WriteError> {
        let (found, max) = (changes.len() as u64, MAX_BATCH as u64);
        if found > max {
            return Err(QuotaError::Batch { found, max }.into());
        }
        for change in changes {
            checked(*change)?;
        }
        let last: HashMap<_, _> =
            changes.iter().enumerate().map(|(index, change)| (change.key, index)).collect();
        let (sets, deletions): (Vec<_>, Vec<_>) = (0..changes.len())
            .filter(|index| last[changes[*index].key] == *index)
            .partition(|index| changes[*index].value.is_some());
        // Deletions behind: then the versions of what is set follow each other.
        let sorted = sets.iter().chain(&deletions).map(|index| changes[*index]).collect();
        let first = self.ask(Operation::Batch(sorted), deadline)?;
        let mut versions = vec![None; changes.len()];
        for (version, index) in (first..).zip(sets) {
            versions[index] = Some(version);
        }
        Ok(versions)
    }
}

/// Refuses what cannot be asked for: a key that no store can have, a value that no request can hold.
fn checked(change: Change<'_>) -> Result<Change<'_>, WriteError> {
    block::check_key(change.key).map_err(|found| WriteError::KeyLength { found })?;
    let (found, max) = (change.value.map_or(0, |(bytes, _)| bytes.len() as u64), u32::MAX.into());
    if found > max {
        return Err(QuotaError::ValueLength { found, max }.into());
    }
    Ok(change)
}
