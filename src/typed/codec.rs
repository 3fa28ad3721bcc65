//! How values of a type travel: as they lie in memory, or as an archive.
//!
//! Typed channels are named after codecs, `TypedChannel<Pod<Tick>, Archived<Report>>`, and call them
//! for every message. What always holds: decoding looks at the bytes it was given and nothing else,
//! and refuses those that are no value of the type; what a codec does to the bytes is part of its
//! fingerprint.

use std::marker::PhantomData;
use std::mem;

use bytemuck::{CheckedBitPattern, NoUninit};
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Portable, Serialize};
use thiserror::Error;

use super::{Fingerprint, Schema, access};

/// Why a value could not be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the value could not be serialized: its type's Serialize failed, or memory ran out")]
pub struct EncodeError;

/// Why bytes are no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// As many bytes as no value of the type has.
    #[error(
        "a value of {found} bytes, expected {expected}; build sender and receiver from the same type"
    )]
    Length {
        /// How many there are.
        found: u64,
        /// How many a value has.
        expected: u64,
    },
    /// Bytes that no value of the type has.
    #[error(
        "the bytes are not a valid value of the type asked for; build sender and receiver from the same type"
    )]
    Invalid,
}

/// A type of values, and how they travel.
pub trait Codec: 'static {
    /// What is sent and received.
    type Value;
    /// Fingerprint of the value's type and of how it travels; never 0.
    const FINGERPRINT: u64;
}

/// Values that can be sent.
pub trait Encode: Codec {
    /// The value's bytes: its own, or written to `scratch`, which keeps its memory.
    ///
    /// # Errors
    /// [`EncodeError`] where it has none.
    fn encode<'a>(
        value: &'a Self::Value,
        scratch: &'a mut AlignedVec,
    ) -> Result<&'a [u8], EncodeError>;
}

/// Values that can be received.
pub trait Decode: Codec {
    /// A value, or a look at one inside the bytes.
    type View<'a>;

    /// Checks the bytes and looks at them.
    ///
    /// # Errors
    /// [`DecodeError`] where they are no value.
    fn decode(bytes: &[u8]) -> Result<Self::View<'_>, DecodeError>;
}

/// Values that can be received and kept.
pub trait DecodeOwned: Decode {
    /// The value that was looked at.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] where it cannot be built.
    fn to_value(view: Self::View<'_>) -> Result<Self::Value, DecodeError>;
}

/// Plain data: a value is its bytes in native order. To be sent, `T` must have no padding
/// ([`NoUninit`]); to be received, its valid bit patterns must be known ([`CheckedBitPattern`], which
/// every `AnyBitPattern` is).
///
/// ```compile_fail,E0277
/// # use ringway::channel::TypedChannel;
/// # use ringway::typed::Pod;
/// // A pointer means nothing in another process.
/// fn send(channel: &mut TypedChannel<Pod<Box<u64>>, Pod<u64>>) {
///     let _ = channel.send(&Box::new(1));
/// }
/// ```
#[derive(Debug)]
pub struct Pod<T>(PhantomData<fn() -> T>);

impl<T: Schema + 'static> Codec for Pod<T> {
    type Value = T;
    const FINGERPRINT: u64 = Fingerprint::new("plain data")
        .number(T::FINGERPRINT)
        .number(size_of::<T>() as u64)
        .number(align_of::<T>() as u64)
        .finish();
}

impl<T: Schema + NoUninit> Encode for Pod<T> {
    #[inline(always)]
    fn encode<'a>(value: &'a T, _: &'a mut AlignedVec) -> Result<&'a [u8], EncodeError> {
        Ok(bytemuck::bytes_of(value))
    }
}

impl<T: Schema + CheckedBitPattern + 'static> Decode for Pod<T> {
    type View<'a> = T;

    #[inline(always)]
    fn decode(bytes: &[u8]) -> Result<T, DecodeError> {
        if bytes.len() != size_of::<T>() {
            let (found, expected) = (bytes.len() as u64, size_of::<T>() as u64);
            return Err(DecodeError::Length { found, expected });
        }
        bytemuck::checked::try_pod_read_unaligned(bytes).map_err(|_| DecodeError::Invalid)
    }
}

impl<T: Schema + CheckedBitPattern + 'static> DecodeOwned for Pod<T> {
    #[inline(always)]
    fn to_value(view: T) -> Result<T, DecodeError> {
        Ok(view)
    }
}

/// Structures of any shape as `rkyv` archives: validated where they arrived, read there.
///
/// The fingerprint is of `T`'s schema and of the size and alignment of its archived form, so that
/// most builds with different formats of `rkyv` do not meet: those with other widths of pointers, for
/// example, but not those with another byte order. What a field's attributes of `rkyv` do to it does not
/// show either where its size stays.
#[derive(Debug)]
pub struct Archived<T>(PhantomData<fn() -> T>);

impl<T: Schema + Archive + 'static> Codec for Archived<T> {
    type Value = T;
    const FINGERPRINT: u64 = Fingerprint::new("rkyv 0.8")
        .number(T::FINGERPRINT)
        .number(size_of::<T::Archived>() as u64)
        .number(align_of::<T::Archived>() as u64)
        .finish();
}

impl<T> Encode for Archived<T>
where
    T: Schema + 'static,
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Failure>>,
{
    fn encode<'a>(value: &'a T, scratch: &'a mut AlignedVec) -> Result<&'a [u8], EncodeError> {
        let mut bytes = mem::take(scratch);
        bytes.clear();
        *scratch = rkyv::api::high::to_bytes_in::<_, rancor::Failure>(value, bytes)
            .map_err(|_| EncodeError)?;
        Ok(scratch)
    }
}

impl<T> Decode for Archived<T>
where
    T: Schema + Archive + 'static,
    T::Archived: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Failure>>,
{
    type View<'a> = &'a T::Archived;

    fn decode(bytes: &[u8]) -> Result<&T::Archived, DecodeError> {
        access(bytes)
    }
}

impl<T> DecodeOwned for Archived<T>
where
    T: Schema + Archive + 'static,
    T::Archived: Portable
        + for<'a> CheckBytes<HighValidator<'a, rancor::Failure>>
        + Deserialize<T, HighDeserializer<rancor::Failure>>,
{
    fn to_value(view: &T::Archived) -> Result<T, DecodeError> {
        rkyv::api::high::deserialize::<T, rancor::Failure>(view).map_err(|_| DecodeError::Invalid)
    }
}
