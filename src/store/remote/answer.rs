//! Answers as bytes: a code and four numbers.
//!
//! Who serves writes them, who asked reads them. What always holds: an error is the same on both sides.

use crate::store::error::{AddError, CompareError, QuotaError, RemoteError, WriteError};

/// Bytes of an answer.
pub(super) const BYTES: usize = 40;

/// Why a request was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The version that is there, or 0.
    Changed(u64),
    NotAnInteger(u64),
    Overflow(i64, i64),
    Write(WriteError),
}

/// What came of a request: a version, a number, or 0 and 1 for no and yes.
pub(super) type Answer = Result<u64, Failure>;

pub(super) fn to_bytes(answer: Answer) -> Vec<u8> {
    let numbers: [u64; 3] = match answer {
        Ok(number) => [0, number, 0],
        Err(Failure::Changed(found)) => [1, found, 0],
        Err(Failure::NotAnInteger(found)) => [2, found, 0],
        Err(Failure::Overflow(value, added)) => [3, value.cast_unsigned(), added.cast_unsigned()],
        Err(Failure::Write(error)) => match error {
            WriteError::OutOfSpace { needed_bytes, largest_bytes, free_bytes, pinned_bytes } => {
                let numbers = [16, needed_bytes, largest_bytes, free_bytes, pinned_bytes];
                return bytemuck::bytes_of(&numbers).to_vec();
            }
            WriteError::KeyLength { found } => [17, found, 0],
            WriteError::Deadline => [18, 0, 0],
            WriteError::Missing => [19, 0, 0],
            WriteError::Damaged => [20, 0, 0],
            WriteError::Lock(error) => [21, u64::from(error.cast_unsigned()), 0],
            WriteError::Quota(quota) => match quota {
                QuotaError::ValueLength { found, max } => [32, found, max],
                QuotaError::Keys { max } => [33, 0, max],
                QuotaError::Bytes { needed, max } => [34, needed, max],
                QuotaError::Batch { found, max } => [35, found, max],
                QuotaError::Crowded { found, max } => [36, found, max],
                QuotaError::Rate { max, wait_ns } => [37, wait_ns, max],
            },
            // Not of a handle that writes for others.
            WriteError::Nested
            | WriteError::ReadOnly
            | WriteError::Forked
            | WriteError::Remote(_) => [64, 0, 0],
        },
    };
    let [code, first, second] = numbers;
    bytemuck::bytes_of(&[code, first, second, 0, 0]).to_vec()
}

pub(super) fn of(bytes: &[u8]) -> Answer {
    let unknown = Failure::Write(WriteError::Remote(RemoteError::UnknownAnswer));
    if bytes.len() != BYTES {
        return Err(unknown);
    }
    let number = |at: usize| bytemuck::pod_read_unaligned::<u64>(&bytes[8 * at..8 * at + 8]);
    let [code, first, second, third, fourth] = [0, 1, 2, 3, 4].map(number);
    Err(Failure::Write(match code {
        0 => return Ok(first),
        1 => return Err(Failure::Changed(first)),
        2 => return Err(Failure::NotAnInteger(first)),
        3 => return Err(Failure::Overflow(first.cast_signed(), second.cast_signed())),
        16 => WriteError::OutOfSpace {
            needed_bytes: first,
            largest_bytes: second,
            free_bytes: third,
            pinned_bytes: fourth,
        },
        17 => WriteError::KeyLength { found: first },
        18 => WriteError::Deadline,
        19 => WriteError::Missing,
        20 => WriteError::Damaged,
        21 => WriteError::Lock(first as i32),
        32 => QuotaError::ValueLength { found: first, max: second }.into(),
        33 => QuotaError::Keys { max: second }.into(),
        34 => QuotaError::Bytes { needed: first, max: second }.into(),
        35 => QuotaError::Batch { found: first, max: second }.into(),
        36 => QuotaError::Crowded { found: first, max: second }.into(),
        37 => QuotaError::Rate { max: second, wait_ns: first }.into(),
        _ => return Err(unknown),
    }))
}

/// A version, or that there is none.
pub(super) fn version(number: u64) -> Option<u64> {
    (number != 0).then_some(number)
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

impl From<CompareError> for Failure {
    fn from(error: CompareError) -> Self {
        match error {
            CompareError::Changed { found } => Self::Changed(found.unwrap_or(0)),
            CompareError::Write(error) => Self::Write(error),
        }
    }
}

impl From<AddError> for Failure {
    fn from(error: AddError) -> Self {
        match error {
            AddError::NotAnInteger { found } => Self::NotAnInteger(found),
            AddError::Overflow { value, added } => Self::Overflow(value, added),
            AddError::Write(error) => Self::Write(error),
        }
    }
}

impl From<Failure> for WriteError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Write(error) => error,
            // An answer to another question.
            _ => Self::Remote(RemoteError::UnknownAnswer),
        }
    }
}

impl From<Failure> for CompareError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Changed(found) => Self::Changed { found: version(found) },
            other => Self::Write(other.into()),
        }
    }
}

impl From<Failure> for AddError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotAnInteger(found) => Self::NotAnInteger { found },
            Failure::Overflow(value, added) => Self::Overflow { value, added },
            other => Self::Write(other.into()),
        }
    }
}
