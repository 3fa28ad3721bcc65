//! One record's header, decoded and checked.
//!
//! Consumers and attaching producers decode every header here, from a word that they have read
//! once. What always holds: a [`Record`] lies inside the ring, and following records from one to
//! the next moves forward by at least one word.

use super::RingGeometry;
use crate::error::Corruption;
use crate::layout::{WORD_BYTES, record};

/// A committed record: what its header says, checked against the ring's geometry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Position of its header.
    pub(super) position: u64,
    /// Position behind it.
    pub(super) end: u64,
    /// Payload bytes, less the word that some kinds begin with.
    len: u32,
    tag: u16,
    /// As in the header; [`ELSEWHERE`] where it does not lie in the ring.
    kind: u8,
}

/// What a record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordKind {
    /// One whole message.
    Data,
    /// A piece of a message; its word says which ([`layout::fragment`](crate::layout::fragment)).
    Fragment,
    /// One whole message to which a reply is wanted; its word is the id of the call.
    Call,
    /// A reply; its word is the id of the call.
    Reply,
}

impl RecordKind {
    /// As it stands in a header.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Data => record::DATA,
            Self::Fragment => record::FRAGMENT,
            Self::Call => record::CALL,
            Self::Reply => record::REPLY,
        }
    }

    /// Bytes before the message: a word, but for plain data.
    pub(super) fn word_bytes(self) -> u64 {
        if self == Self::Data { 0 } else { WORD_BYTES }
    }
}

/// Kind of what stands for a message that lies in private memory already. No header has it.
const ELSEWHERE: u8 = 0;

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
        let longest = geometry.max_payload_bytes();
        if !plain || size > room || size > max_record_bytes || u64::from(len) > longest {
            return None;
        }
        let end = position.wrapping_add(size);
        Some(Self { position, end, len, tag: record::tag(header), kind: record::DATA })
    }

    /// A data record at `position` whose measures were checked.
    #[inline(always)]
    pub(super) fn alike(position: u64, size_bytes: u64, len: u32, tag: u16) -> Self {
        let end = position.wrapping_add(size_bytes);
        Self { position, end, len, tag, kind: record::DATA }
    }

    /// Decodes a non-zero header found at `position`.
    #[inline]
    pub(super) fn decode(
        geometry: &RingGeometry,
        position: u64,
        header: u64,
    ) -> Result<Self, Corruption> {
        let (len, kind) = (record::len(header), record::kind(header));
        let size = geometry.record_bytes(u64::from(len));
        let room = geometry.capacity_bytes() - geometry.index(position);
        // Padding and pieces are no messages; their records bound them.
        let (word, longest) = match kind {
            record::DATA => (0, geometry.max_message_bytes()),
            record::PADDING => (0, u64::MAX),
            record::FRAGMENT => (WORD_BYTES as u32, u64::MAX),
            record::CALL | record::REPLY => (WORD_BYTES as u32, geometry.max_message_bytes()),
            _ => return Err(impossible(geometry, position, header)),
        };
        // Padding reaches exactly to the end, which is nearer than half the ring, because what
        // follows it is a record that did not fit there; so padding never follows padding.
        let fits = size <= room && size <= geometry.max_record_bytes() && len >= word;
        let fits = fits && u64::from(len - word) <= longest;
        let shaped = kind != record::PADDING
            || (u64::from(len) + record::HEADER_BYTES == room && record::tag(header) == 0);
        if !fits || !shaped || record::reserved(header) != 0 {
            return Err(impossible(geometry, position, header));
        }
        let end = position.wrapping_add(size);
        Ok(Self { position, end, len: len - word, tag: record::tag(header), kind })
    }

    /// What stands for a message in private memory.
    pub(crate) fn elsewhere(position: u64, len: usize, tag: u16) -> Self {
        Self { position, end: position, len: len as u32, tag, kind: ELSEWHERE }
    }

    /// Length in bytes of what it carries, without the word that some kinds begin with.
    #[inline]
    pub fn len_bytes(&self) -> usize {
        self.len as usize
    }

    /// The user's tag.
    #[inline]
    pub fn tag(&self) -> u16 {
        self.tag
    }

    /// What it carries.
    pub fn kind(&self) -> RecordKind {
        match self.kind {
            record::FRAGMENT => RecordKind::Fragment,
            record::CALL => RecordKind::Call,
            record::REPLY => RecordKind::Reply,
            _ => RecordKind::Data,
        }
    }

    /// Whether it is a message in the ring, and nothing more.
    #[inline(always)]
    pub(crate) fn is_data(&self) -> bool {
        self.kind == record::DATA
    }

    /// Whether the message lies in private memory.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.kind == ELSEWHERE
    }

    /// Position of its header.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Position behind it.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    #[inline]
    pub(super) fn is_padding(&self) -> bool {
        self.kind == record::PADDING
    }

    /// Position of the first payload byte behind the word, where there is one.
    #[inline]
    pub(super) fn payload(&self) -> u64 {
        let word = u64::from(!self.is_data()) * WORD_BYTES;
        self.position.wrapping_add(record::HEADER_BYTES + word)
    }
}

#[cold]
pub(super) fn impossible(geometry: &RingGeometry, position: u64, header: u64) -> Corruption {
    Corruption::Record { header, position, capacity_bytes: geometry.capacity_bytes() }
}
