//! Requests as bytes.
//!
//! Who asks writes them, who serves reads them. What always holds: what is read was as long as it said, to the byte, and
//! is something that a store can be asked for; reading it takes no more memory than a fixed number of times what has arrived.
//!
//! ```text
//! 0       1       4              8
//! +-------+-------+--------------+----------------------------------------------------------
//! | kind  | 0     | patience µs  | by kind: expected version, number to add, count; changes
//! +-------+-------+--------------+----------------------------------------------------------
//! change:  key length u32 | 1 + tag u32, or 0 for a deletion | value length u32 | key | value
//! ```
//!
//! All in native byte order, and nothing aligned.

use std::time::Duration;

use crate::store::batch::Change;
use crate::store::block;

/// Most changes of a batch.
pub(super) const MAX_BATCH: usize = 4096;

/// Tags have 24 bits.
const MAX_TAG: u32 = 0x00ff_ffff;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// How long to wait for the lock, in microseconds.
    pub(super) patience_us: u32,
    pub(super) operation: Operation<'a>,
}

/// See [`Request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation<'a> {
    /// Sets a key, or deletes it.
    Put(Change<'a>),
    /// Sets a key that is absent.
    SetIfAbsent(Change<'a>),
    /// As `Put`, where the key has this version; 0 where it is to be absent.
    CompareExchange(u64, Change<'a>),
    FetchAdd(&'a [u8], i64),
    Clear,
    Batch(Vec<Change<'a>>),
}

/// That these bytes are no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl<'a> Request<'a> {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let (kind, number) = match &self.operation {
            Operation::Put(_) => (1, None),
            Operation::SetIfAbsent(_) => (2, None),
            Operation::CompareExchange(expected, _) => (3, Some(*expected)),
            Operation::FetchAdd(_, added) => (4, Some(added.cast_unsigned())),
            Operation::Clear => (5, None),
            Operation::Batch(changes) => (6, Some(changes.len() as u64)),
        };
        let mut bytes = vec![kind, 0, 0, 0];
        bytes.extend(self.patience_us.to_ne_bytes());
        bytes.extend(number.map(u64::to_ne_bytes).iter().flatten());
        match &self.operation {
            Operation::FetchAdd(key, _) => put(&mut bytes, &Change { key, value: None }),
            Operation::Put(change)
            | Operation::SetIfAbsent(change)
            | Operation::CompareExchange(_, change) => put(&mut bytes, change),
            Operation::Batch(changes) => changes.iter().for_each(|change| put(&mut bytes, change)),
            Operation::Clear => {}
        }
        bytes
    }

    /// # Errors
    /// [`Malformed`] where these are no request's bytes.
    pub(crate) fn of(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut rest = bytes;
        let [kind, zeros @ ..] = take::<4>(&mut rest)?;
        let patience_us = u32::from_ne_bytes(take(&mut rest)?);
        if zeros != [0; 3] {
            return Err(Malformed);
        }
        let operation = match kind {
            1 => Operation::Put(change(&mut rest)?),
            2 => Operation::SetIfAbsent(change(&mut rest)?),
            3 => {
                Operation::CompareExchange(u64::from_ne_bytes(take(&mut rest)?), change(&mut rest)?)
            }
            4 => {
                let added = i64::from_ne_bytes(take(&mut rest)?);
                match change(&mut rest)? {
                    Change { key, value: None } => Operation::FetchAdd(key, added),
                    _ => return Err(Malformed),
                }
            }
            5 => Operation::Clear,
            6 => {
                let count = u64::from_ne_bytes(take(&mut rest)?);
                if count > MAX_BATCH as u64 {
                    return Err(Malformed);
                }
                Operation::Batch((0..count).map(|_| change(&mut rest)).collect::<Result<_, _>>()?)
            }
            _ => return Err(Malformed),
        };
        let is_what_it_says = match &operation {
            Operation::SetIfAbsent(change) => change.value.is_some(),
            _ => true,
        };
        if is_what_it_says && rest.is_empty() {
            Ok(Self { patience_us, operation })
        } else {
            Err(Malformed)
        }
    }

    /// How long the lock is waited for, and no longer than `most`.
    pub(super) fn patience(&self, most: Duration) -> Duration {
        Duration::from_micros(self.patience_us.into()).min(most)
    }
}

fn put(bytes: &mut Vec<u8>, Change { key, value }: &Change<'_>) {
    let (value, what) = value.map_or((&[][..], 0), |(value, tag)| (value, tag + 1));
    bytes.extend((key.len() as u32).to_ne_bytes());
    bytes.extend(what.to_ne_bytes());
    bytes.extend((value.len() as u32).to_ne_bytes());
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(value);
}

pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (found, behind) = rest.split_first_chunk::<N>().ok_or(Malformed)?;
    *rest = behind;
    Ok(*found)
}

fn take_slice<'a>(rest: &mut &'a [u8], len: u32) -> Result<&'a [u8], Malformed> {
    let (found, behind) = rest.split_at_checked(len as usize).ok_or(Malformed)?;
    *rest = behind;
    Ok(found)
}

fn change<'a>(rest: &mut &'a [u8]) -> Result<Change<'a>, Malformed> {
    let [key_len, what, value_len] =
        [take(rest)?, take(rest)?, take(rest)?].map(u32::from_ne_bytes);
    let key = take_slice(rest, key_len)?;
    let value = take_slice(rest, value_len)?;
    block::check_key(key).map_err(|_| Malformed)?;
    match what.checked_sub(1) {
        None if value.is_empty() => Ok(Change { key, value: None }),
        Some(tag) if tag <= MAX_TAG => Ok(Change { key, value: Some((value, tag)) }),
        _ => Err(Malformed),
    }
}
