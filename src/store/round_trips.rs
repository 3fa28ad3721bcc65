//! Changes that depend on what is there, where a host writes: read, and exchanged if it is still so.
//!
//! [`Store::swap`] and [`Store::update`] call it. What always holds: what is exchanged is the version that was read, so
//! that nothing of what others do meanwhile is lost.

use super::error::{CompareError, ReadError, RemoteError, WriteError};
use super::handle::Store;
use super::remote::Asking;

/// How often it is tried.
const ATTEMPTS: u32 = 1000;

impl Store {
    pub(super) fn swap_through(
        &self,
        host: &Asking,
        key: &[u8],
        bytes: &[u8],
    ) -> Result<Option<Vec<u8>>, WriteError> {
        let mut former = None;
        self.exchange(host, key, |old| {
            former = old.map(<[u8]>::to_vec);
            Some(bytes.to_vec())
        })?;
        Ok(former)
    }

    pub(super) fn update_through(
        &self,
        host: &Asking,
        key: &[u8],
        change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<u64>, WriteError> {
        self.exchange(host, key, change)
    }

    fn exchange(
        &self,
        host: &Asking,
        key: &[u8],
        mut change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<u64>, WriteError> {
        for _ in 0..ATTEMPTS {
            let old = match self.get(key) {
                Ok(old) => old,
                Err(ReadError::Busy) => continue,
                Err(ReadError::Forked) => return Err(WriteError::Forked),
                Err(ReadError::Damaged) => return Err(WriteError::Damaged),
                Err(error) => return Err(RemoteError::Read(error).into()),
            };
            let new = change(old.as_deref());
            let expected = old.as_ref().map(|old| old.version());
            match host.compare_exchange(key, expected, new.as_deref()) {
                Ok(version) => return Ok(version),
                Err(CompareError::Changed { .. }) => {}
                Err(CompareError::Write(error)) => return Err(error),
            }
        }
        Err(RemoteError::Contended { attempts: ATTEMPTS }.into())
    }
}
