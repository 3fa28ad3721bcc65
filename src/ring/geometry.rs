//! The measures of one ring, checked once and then kept privately by each end.
//!
//! Whoever attaches a ring makes one from numbers it has checked; nothing reads them from shared
//! memory again, so a peer that changes them changes nothing.
//! What always holds: every offset computed here lies inside the ring's control block or data.

use super::RecordKind;
use crate::error::SegmentError;
use crate::layout::{self, MAX_CAPACITY_BYTES, MIN_CAPACITY_BYTES, WORD_BYTES, record};
use crate::memory::Memory;

/// Where a ring lies in its memory, how large it is, how its records are aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingGeometry {
    control: u64,
    data: u64,
    capacity_bytes: u64,
    align: u64,
    max_message_bytes: u64,
    /// The longest message that travels in one record.
    max_payload_bytes: u64,
}

/// Pieces of long messages take this part of the ring, so that both ends work at the same time.
const PIECES_IN_RING: u64 = 8;
/// Longer pieces would leave the nearer caches between the two copies.
const MAX_PIECE_BYTES: u64 = 64 << 10;

impl RingGeometry {
    /// A ring whose control block starts at `control` and whose data region, of `capacity_bytes`
    /// plus [`RING_SLACK_BYTES`](layout::RING_SLACK_BYTES), starts at `data` (a multiple of 64).
    ///
    /// # Errors
    /// [`SegmentError::Capacity`] unless the capacity is a power of two in range;
    /// [`SegmentError::Alignment`] unless `payload_align` is 8, 16, 32 or 64 and at most half of it;
    /// [`SegmentError::TooSmall`] where the memory ends before the ring does.
    pub fn new(
        memory: &impl Memory,
        control: u64,
        data: u64,
        capacity_bytes: u64,
        payload_align: u64,
    ) -> Result<Self, SegmentError> {
        check_capacity(capacity_bytes, payload_align)?;
        let end = |start: u64, len: u64| start.saturating_add(len);
        let needed = end(control, layout::ring::CONTROL_BYTES)
            .max(end(data, capacity_bytes + layout::RING_SLACK_BYTES));
        if needed > memory.len_bytes() {
            return Err(SegmentError::TooSmall { found: memory.len_bytes(), needed });
        }
        assert!(control.is_multiple_of(64) && data.is_multiple_of(64), "regions start on a line");
        let data = data + layout::ring_data_shift(payload_align);
        let max = capacity_bytes / 2 - record::HEADER_BYTES;
        let (align, max_message_bytes, max_payload_bytes) = (payload_align, max, max);
        Ok(Self { control, data, capacity_bytes, align, max_message_bytes, max_payload_bytes })
    }

    /// The same ring for messages of at most `max_bytes`, in fragments where they are longer than a
    /// record can be. Without this no message is longer than a record.
    #[must_use]
    pub fn with_max_message_bytes(self, max_bytes: u64) -> Self {
        let max_message_bytes = max_bytes.clamp(1, u64::from(u32::MAX) - WORD_BYTES);
        let max_payload_bytes = max_message_bytes.min(self.max_record_payload_bytes());
        Self { max_message_bytes, max_payload_bytes, ..self }
    }

    /// Capacity in bytes.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// Alignment of payloads and of records in bytes.
    pub fn payload_align(&self) -> u64 {
        self.align
    }

    /// The longest message that travels in one record.
    #[inline]
    pub fn max_payload_bytes(&self) -> u64 {
        self.max_payload_bytes
    }

    /// The longest message, in one record or in fragments.
    pub fn max_message_bytes(&self) -> u64 {
        self.max_message_bytes
    }

    /// The longest payload of a record of any kind.
    pub(super) fn max_record_payload_bytes(&self) -> u64 {
        self.max_record_bytes() - record::HEADER_BYTES
    }

    /// The longest message that goes in one record of this kind.
    pub(crate) fn max_record_message_bytes(&self, kind: RecordKind) -> u64 {
        self.max_payload_bytes.min(self.max_record_payload_bytes() - kind.word_bytes())
    }

    /// Whether a message of this length goes in one record of this kind.
    #[inline]
    pub(crate) fn fits_record(&self, kind: RecordKind, len: usize) -> bool {
        let len = len as u64;
        len <= self.max_payload_bytes && len + kind.word_bytes() <= self.max_record_payload_bytes()
    }

    /// Bytes of a long message that one fragment carries.
    pub(super) fn piece_bytes(&self) -> u64 {
        // A record of whole units, header and word included.
        let unit = (self.align).max(4 * WORD_BYTES);
        let record = (self.capacity_bytes / PIECES_IN_RING).clamp(unit, MAX_PIECE_BYTES);
        record - record::HEADER_BYTES - WORD_BYTES
    }

    pub(super) fn max_record_bytes(&self) -> u64 {
        self.capacity_bytes / 2
    }

    /// Offset of a control word.
    #[inline]
    pub(crate) fn control(&self, word: u64) -> u64 {
        self.control + word
    }

    /// Offset of a position's place in the buffer.
    #[inline]
    pub(super) fn offset(&self, position: u64) -> u64 {
        self.data + self.index(position)
    }

    /// A position's place in the buffer, from its start.
    #[inline]
    pub(super) fn index(&self, position: u64) -> u64 {
        position & (self.capacity_bytes - 1)
    }

    /// Bytes of the record that carries `len` bytes of payload, header and rounding included.
    #[inline]
    pub(super) fn record_bytes(&self, len: u64) -> u64 {
        (len + record::HEADER_BYTES + self.align - 1) & !(self.align - 1)
    }

    /// Whether records can start at this position.
    #[inline]
    pub(super) fn is_aligned(&self, position: u64) -> bool {
        position & (self.align - 1) == 0
    }
}

/// Checks the numbers that make a ring.
pub(crate) fn check_capacity(capacity_bytes: u64, payload_align: u64) -> Result<(), SegmentError> {
    let (min, max) = (MIN_CAPACITY_BYTES, MAX_CAPACITY_BYTES);
    if !capacity_bytes.is_power_of_two() || !(min..=max).contains(&capacity_bytes) {
        return Err(SegmentError::Capacity { found: capacity_bytes, min, max });
    }
    let aligned = payload_align.is_power_of_two() && (WORD_BYTES..=64).contains(&payload_align);
    if !aligned || payload_align > capacity_bytes / 2 {
        return Err(SegmentError::Alignment { found: payload_align });
    }
    Ok(())
}
