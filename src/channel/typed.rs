//! Messages that are values: plain data through `bytemuck`, structures through `rkyv`.
//!
//! More calls on [`Sender`] and [`Receiver`]. What always holds: a value is looked at in the
//! receiver's private copy, after its length or its structure has been checked there; a message of
//! the wrong shape stays in the ring.

use std::mem;
use std::time::Duration;

use bytemuck::{AnyBitPattern, CheckedBitPattern, NoUninit};
use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Portable, Serialize};

use super::{CallId, Receiver, Sender};
use crate::error::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
use crate::memory::Memory;
use crate::ring::Record;
use crate::typed::{DecodeError, access};

impl From<DecodeError> for RecvError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Length { found, expected } => Self::Mismatch { found, expected },
            DecodeError::Invalid => Self::Invalid,
        }
    }
}

impl<M: Memory> Sender<M> {
    /// Sends a plain value: `size_of::<T>()` bytes in native order.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn send_pod<T: NoUninit>(&mut self, value: &T) -> Result<(), SendError> {
        self.send(bytemuck::bytes_of(value))
    }

    /// Sends a plain value if there is room now.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    #[inline]
    pub fn try_send_pod<T: NoUninit>(&mut self, value: &T) -> Result<(), TrySendError> {
        self.try_send(bytemuck::bytes_of(value))
    }

    /// Serialises a value with `rkyv` and sends it. The scratch memory is kept for the next one.
    ///
    /// # Errors
    /// [`SendError::Serialise`] where the value cannot be serialised; the others as
    /// [`send`](Self::send).
    pub fn send_archived<T>(&mut self, value: &T) -> Result<(), SendError>
    where
        T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Failure>>,
    {
        let bytes = self.serialise(value)?;
        let sent = self.send(&bytes);
        self.scratch = bytes;
        sent
    }

    /// Answers a call with a structure.
    ///
    /// # Errors
    /// As [`send_archived`](Self::send_archived).
    pub fn reply_archived<T>(&mut self, call: CallId, value: &T) -> Result<(), SendError>
    where
        T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Failure>>,
    {
        let bytes = self.serialise(value)?;
        let sent = self.reply(call, &bytes);
        self.scratch = bytes;
        sent
    }

    /// Answers a call with a plain value.
    ///
    /// # Errors
    /// As [`reply`](Self::reply).
    pub fn reply_pod<T: NoUninit>(&mut self, call: CallId, value: &T) -> Result<(), SendError> {
        self.reply(call, bytemuck::bytes_of(value))
    }

    /// The archive of a value, in the scratch memory, which is to be given back.
    pub(super) fn serialise<T>(&mut self, value: &T) -> Result<AlignedVec, SendError>
    where
        T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Failure>>,
    {
        let mut scratch = mem::take(&mut self.scratch);
        scratch.clear();
        rkyv::api::high::to_bytes_in::<_, rancor::Failure>(value, scratch)
            .map_err(|_| SendError::Serialise)
    }
}

impl<M: Memory> Receiver<M> {
    /// Receives a plain value; every bit pattern is one.
    ///
    /// # Errors
    /// [`RecvError::Mismatch`] where the message has another length than `T`; it stays. The others
    /// as [`recv`](Self::recv).
    #[inline]
    pub fn recv_pod<T: AnyBitPattern>(&mut self) -> Result<T, RecvError> {
        let record = self.next()?;
        self.take_pod(&record)
    }

    /// Receives a plain value if there is one now.
    ///
    /// # Errors
    /// As [`recv_pod`](Self::recv_pod) and [`try_recv`](Self::try_recv).
    #[inline]
    pub fn try_recv_pod<T: AnyBitPattern>(&mut self) -> Result<T, TryRecvError> {
        let record = self.try_next()?;
        Ok(self.take_pod(&record)?)
    }

    /// Receives a plain value, waiting for at most `timeout`.
    ///
    /// # Errors
    /// As [`recv_pod`](Self::recv_pod) and [`recv_timeout`](Self::recv_timeout).
    pub fn recv_pod_timeout<T: AnyBitPattern>(
        &mut self,
        timeout: Duration,
    ) -> Result<T, RecvTimeoutError> {
        let deadline = super::sender::deadline_after(self.consumer.memory(), timeout);
        let record = self.next_by(deadline)?.ok_or(RecvTimeoutError::Timeout)?;
        Ok(self.take_pod(&record)?)
    }

    /// Receives a plain value of a type that not every bit pattern is valid for (`bool`, enums).
    ///
    /// # Errors
    /// [`RecvError::Mismatch`] and [`RecvError::Invalid`] where the message is no such value; it
    /// stays. The others as [`recv`](Self::recv).
    pub fn recv_checked<T: CheckedBitPattern>(&mut self) -> Result<T, RecvError> {
        let record = self.next()?;
        let bytes = self.fetch_exactly(&record, size_of::<T>())?;
        let value = bytemuck::checked::try_pod_read_unaligned(bytes);
        let value = value.map_err(|_| RecvError::Invalid)?;
        self.take(&record);
        Ok(value)
    }

    /// Receives a value that was sent with [`Sender::send_archived`]. It is validated in the
    /// private copy and read there.
    ///
    /// # Errors
    /// [`RecvError::Invalid`] where the message is not a valid archive of a `T`, or one that nests
    /// more than 256 pointers deep; it stays. The others as [`recv`](Self::recv).
    pub fn recv_archived<T>(&mut self) -> Result<&T::Archived, RecvError>
    where
        T: Archive,
        T::Archived: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Failure>>,
    {
        let record = self.next()?;
        self.take_decoded(&record, |bytes| Ok(access::<T::Archived>(bytes)?))
    }

    #[inline]
    fn take_pod<T: AnyBitPattern>(&mut self, record: &Record) -> Result<T, RecvError> {
        let value = bytemuck::pod_read_unaligned(self.fetch_exactly(record, size_of::<T>())?);
        self.take(record);
        Ok(value)
    }

    #[inline]
    fn fetch_exactly(&mut self, record: &Record, len: usize) -> Result<&[u8], RecvError> {
        if record.len_bytes() != len {
            let (found, expected) = (record.len_bytes() as u64, len as u64);
            return Err(RecvError::Mismatch { found, expected });
        }
        Ok(self.fetch(record))
    }
}
