//! One record's header, decoded and checked.
//!
//! Consumers and attaching producers decode every header here, from a word that they have read
//! once. What always holds: a [`Record`] lies inside the ring, and following records from one to
//! the next moves forward by at least one word.

use super::RingGeometry;
use crate::error::Corruption;
use crate::layout::record;

/// A committed record: what its header says, checked against the ring's geometry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Position of its header.
    pub(super) position: u64,
    /// Position behind it.
    pub(super) end: u64,
    len: u32,
    tag: u16,
    padding: bool,
}

impl Record {
    /// Decodes a header word that may be anything, zero included, where it is that of a data record
    /// of at most `max_record_bytes` that lies inside the ring.
    #[inline(always)]
    pub(super) fn decode_simple(
        geometry: &RingGeometry,
        position: u64,
        header: u64,
        max_record_bytes: u64,
    ) -> Option<Self> {
        let len = record::len(header);
        let size = geometry.record_bytes(u64::from(len));
        let room = geometry.capacity_bytes() - geometry.index(position);
        let plain = record::kind(header) == record::DATA && record::reserved(header) == 0;
        if !plain || size > room || size > max_record_bytes {
            return None;
        }
        let end = position.wrapping_add(size);
        Some(Self { position, end, len, tag: record::tag(header), padding: false })
    }

    /// A data record at `position` whose measures were checked.
    #[inline(always)]
    pub(super) fn alike(position: u64, size_bytes: u64, len: u32, tag: u16) -> Self {
        Self { position, end: position.wrapping_add(size_bytes), len, tag, padding: false }
    }

    /// Decodes a non-zero header found at `position`.
    #[inline]
    pub(super) fn decode(
        geometry: &RingGeometry,
        position: u64,
        header: u64,
    ) -> Result<Self, Corruption> {
        let len = record::len(header);
        let size = geometry.record_bytes(u64::from(len));
        let room = geometry.capacity_bytes() - geometry.index(position);
        let padding = match record::kind(header) {
            record::DATA => false,
            record::PADDING => true,
            _ => return Err(impossible(geometry, position, header)),
        };
        // Padding reaches exactly to the end, which is nearer than half the ring, because what
        // follows it is a record that did not fit there; so padding never follows padding.
        let fits = size <= room && size <= geometry.max_record_bytes();
        let shaped =
            !padding || (u64::from(len) + record::HEADER_BYTES == room && record::tag(header) == 0);
        if !fits || !shaped || record::reserved(header) != 0 {
            return Err(impossible(geometry, position, header));
        }
        let end = position.wrapping_add(size);
        Ok(Self { position, end, len, tag: record::tag(header), padding })
    }

    /// Payload length in bytes.
    #[inline]
    pub fn len_bytes(&self) -> usize {
        self.len as usize
    }

    /// The user's tag.
    #[inline]
    pub fn tag(&self) -> u16 {
        self.tag
    }

    #[inline]
    pub(super) fn is_padding(&self) -> bool {
        self.padding
    }

    /// Position of the first payload byte.
    #[inline]
    pub(super) fn payload(&self) -> u64 {
        self.position.wrapping_add(record::HEADER_BYTES)
    }
}

#[cold]
pub(super) fn impossible(geometry: &RingGeometry, position: u64, header: u64) -> Corruption {
    Corruption::Record { header, position, capacity_bytes: geometry.capacity_bytes() }
}
