//! One record of a lossy ring: its header decoded, and what a receiver learns of it.
//!
//! The consumer decodes what it has copied, the producer what it gives up. What always holds: what
//! is decoded lies inside the ring, and following records moves forward.

use super::LossyGeometry;
use crate::error::Corruption;
use crate::layout::record;

/// A message that was copied out whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LossyRecord {
    pub(super) number: u64,
    pub(super) lost_before: u64,
    pub(super) len: u32,
    pub(super) tag: u16,
}

impl LossyRecord {
    /// Payload length in bytes.
    pub fn len_bytes(&self) -> usize {
        self.len as usize
    }

    /// The user's tag.
    pub fn tag(&self) -> u16 {
        self.tag
    }

    /// The message's number: how many were sent before it.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many messages were lost between the last one received and this one.
    pub fn lost_before(&self) -> u64 {
        self.lost_before
    }
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    Message { len: u32, tag: u16, end: u64 },
    Padding { end: u64 },
}

impl Header {
    /// Decodes a word found at `position`; `None` where it is no header.
    #[inline]
    pub(super) fn decode(geometry: &LossyGeometry, position: u64, header: u64) -> Option<Self> {
        let (len, tag) = (record::len(header), record::tag(header));
        let room = geometry.room(position);
        if record::reserved(header) != 0 {
            return None;
        }
        match record::kind(header) {
            record::DATA => {
                let size = geometry.record_bytes(u64::from(len));
                let end = position.wrapping_add(size);
                let fits = size <= room && size <= geometry.max_record_bytes();
                fits.then_some(Self::Message { len, tag, end })
            }
            // Padding reaches to the end, and is shorter than the record that did not fit there.
            record::PADDING => {
                let size = u64::from(len) + record::HEADER_BYTES;
                let fits = size == room && size < geometry.max_record_bytes() && tag == 0;
                fits.then_some(Self::Padding { end: position.wrapping_add(size) })
            }
            _ => None,
        }
    }
}

#[cold]
pub(super) fn impossible(geometry: &LossyGeometry, position: u64, header: u64) -> Corruption {
    Corruption::Record { header, position, capacity_bytes: geometry.capacity_bytes() }
}
