//! The measures of a lossy ring.
//!
//! Both ends make one from the ring's own geometry and keep it. What always holds: the newest
//! record, padding, the next record, the word behind it and a stride fit into the ring together.

use crate::error::SegmentError;
use crate::layout::{
    MAX_CAPACITY_BYTES, MIN_LOSSY_CAPACITY_BYTES, PAGE_BYTES, WORD_BYTES, record, ring,
};
use crate::ring::RingGeometry;

/// Bytes of a message's number.
pub(super) const NUMBER_BYTES: u64 = 8;
/// Bytes in front of a message's payload.
pub(super) const PREFIX_BYTES: u64 = record::HEADER_BYTES + NUMBER_BYTES;

/// Where a lossy ring lies in its memory, and how large everything in it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LossyGeometry {
    ring: RingGeometry,
}

impl LossyGeometry {
    /// For a ring in this place.
    ///
    /// # Errors
    /// [`SegmentError::Capacity`] below 128 bytes, [`SegmentError::Alignment`] where payloads are
    /// aligned to more than 8 bytes: the receiver copies them in any case.
    pub fn new(ring: RingGeometry) -> Result<Self, SegmentError> {
        let (found, min, max) =
            (ring.capacity_bytes(), MIN_LOSSY_CAPACITY_BYTES, MAX_CAPACITY_BYTES);
        if found < min {
            return Err(SegmentError::Capacity { found, min, max });
        }
        if ring.payload_align() != WORD_BYTES {
            return Err(SegmentError::Alignment { found: ring.payload_align() });
        }
        Ok(Self { ring })
    }

    /// Capacity in bytes.
    pub fn capacity_bytes(&self) -> u64 {
        self.ring.capacity_bytes()
    }

    /// The longest message.
    pub fn max_payload_bytes(&self) -> u64 {
        self.max_record_bytes() - PREFIX_BYTES
    }

    pub(super) fn max_record_bytes(&self) -> u64 {
        self.capacity_bytes() / 4
    }

    /// By how much the intent moves at least: positions between which it stands are multiples of it.
    #[inline]
    pub(super) fn stride_bytes(&self) -> u64 {
        (self.capacity_bytes() / 8).min(PAGE_BYTES)
    }

    /// The smallest intent that covers a record up to `end` and the word behind it.
    #[inline]
    pub(super) fn intent_for(&self, end: u64) -> u64 {
        let mask = self.stride_bytes() - 1;
        end.wrapping_add(WORD_BYTES).wrapping_add(mask) & !mask
    }

    /// Distance between landmarks.
    #[inline]
    pub(super) fn landmark_bytes(&self) -> u64 {
        self.capacity_bytes() / ring::LANDMARK_COUNT
    }

    /// The control word of the landmark for records around this position.
    #[inline]
    pub(super) fn landmark(&self, position: u64) -> u64 {
        let index = position / self.landmark_bytes() % ring::LANDMARK_COUNT;
        self.control(ring::LANDMARKS + index * WORD_BYTES)
    }

    /// Offset of a control word.
    #[inline]
    pub(crate) fn control(&self, word: u64) -> u64 {
        self.ring.control(word)
    }

    /// Offset of a position's place in the buffer.
    #[inline]
    pub(super) fn offset(&self, position: u64) -> u64 {
        self.ring.offset(position)
    }

    /// Bytes from a position to the end of the buffer.
    #[inline]
    pub(super) fn room(&self, position: u64) -> u64 {
        self.capacity_bytes() - self.ring.index(position)
    }

    /// Bytes of the record of a message of `len` bytes.
    #[inline]
    pub(super) fn record_bytes(&self, len: u64) -> u64 {
        (len + PREFIX_BYTES + WORD_BYTES - 1) & !(WORD_BYTES - 1)
    }

    /// Whether records can start at this position.
    #[inline]
    pub(super) fn is_aligned(&self, position: u64) -> bool {
        position.is_multiple_of(WORD_BYTES)
    }
}

/// Whether one position or number lies before another; they wrap.
#[inline]
pub(super) fn is_before(one: u64, other: u64) -> bool {
    (one.wrapping_sub(other) as i64) < 0
}
