//! A segment header in private memory: its fields, its checksum, and what all kinds of segments say
//! alike.
//!
//! The headers of channels and of stores are written and checked with it.
//! What always holds: nothing is said of a header in which any one bit was flipped but that it is
//! refused, and another version is told from damage.

use std::fmt::Debug;

use crate::error::SegmentError;
use crate::layout::{FINGERPRINT, LAYOUT_VERSION, MAGIC, segment};
use crate::memory::FenceMode;

/// Length of a header in memory.
pub(crate) const HEADER_BYTES: usize = segment::HEADER_BYTES as usize;

/// What a segment of some kind says about itself.
pub trait Kind: Copy + Debug {
    /// The same, of this incarnation.
    #[must_use]
    fn with_incarnation(self, incarnation: u128) -> Self;
    /// Length of the segment.
    ///
    /// # Errors
    /// It says what cannot be.
    fn len_bytes(&self) -> Result<u64, SegmentError>;
    /// Who fences.
    fn fence_mode(&self) -> FenceMode;
    /// The header that says this.
    ///
    /// # Errors
    /// It says what cannot be.
    fn encode(&self) -> Result<[u8; HEADER_BYTES], SegmentError>;
    /// What a private copy of a header says, from a segment of `len_bytes` bytes, in a file whose
    /// file system has only multiples of `page_bytes`.
    ///
    /// # Errors
    /// What is wrong with it.
    fn decode(
        bytes: [u8; HEADER_BYTES],
        len_bytes: u64,
        page_bytes: u64,
    ) -> Result<Self, SegmentError>;
}

/// A header in private memory.
pub(crate) struct Header(pub(crate) [u8; HEADER_BYTES]);

impl Header {
    /// What every segment's header says; see [`finish`](Self::finish).
    pub(crate) fn new(kind: u32, len_bytes: u64, incarnation: u128) -> Self {
        let mut header = Self([0; HEADER_BYTES]);
        header.put_u64(segment::MAGIC, MAGIC);
        header.put_u32(segment::VERSION, LAYOUT_VERSION);
        header.put_u32(segment::KIND, kind);
        header.put_u64(segment::FINGERPRINT, FINGERPRINT);
        header.put_u64(segment::LEN_BYTES, len_bytes);
        header.put_u64(segment::INCARNATION[0], incarnation as u64);
        header.put_u64(segment::INCARNATION[1], (incarnation >> 64) as u64);
        header
    }

    /// Adds the checksum.
    pub(crate) fn finish(mut self) -> [u8; HEADER_BYTES] {
        self.put_u64(segment::CHECKSUM, self.checksum());
        self.0
    }

    /// A private copy of a header, if it is whole and of this kind.
    pub(crate) fn check(bytes: [u8; HEADER_BYTES], kind: u32) -> Result<Self, SegmentError> {
        let header = Self(bytes);
        // In this order, so that a segment of another version is not called damaged.
        expect("magic", header.u64(segment::MAGIC), MAGIC)?;
        expect("layout version", header.u32(segment::VERSION).into(), LAYOUT_VERSION.into())?;
        expect("fingerprint", header.u64(segment::FINGERPRINT), FINGERPRINT)?;
        expect("checksum", header.u64(segment::CHECKSUM), header.checksum())?;
        // From here on a difference is a liar's, or a creator's of a later minor version.
        expect("kind", header.u32(segment::KIND).into(), kind.into())?;
        Ok(header)
    }

    /// Checks that the segment is as long as it should be, and says so.
    pub(crate) fn check_length(
        &self,
        needed: u64,
        len_bytes: u64,
        page_bytes: u64,
    ) -> Result<(), SegmentError> {
        expect("length in the header", self.u64(segment::LEN_BYTES), needed)?;
        if len_bytes < needed {
            return Err(SegmentError::TooSmall { found: len_bytes, needed });
        }
        expect("length", len_bytes, needed.next_multiple_of(page_bytes))
    }

    pub(crate) fn incarnation(&self) -> u128 {
        let [low, high] = segment::INCARNATION.map(|offset| u128::from(self.u64(offset)));
        low | high << 64
    }

    pub(crate) fn fence_mode(&self) -> Result<FenceMode, SegmentError> {
        let found = self.u32(segment::FENCE_MODE);
        FenceMode::from_u32(found).ok_or(SegmentError::Incompatible {
            field: "fence mode",
            found: found.into(),
            expected: FenceMode::Asymmetric as u64,
        })
    }

    fn field<const N: usize>(&self, offset: u64) -> [u8; N] {
        let offset = offset as usize;
        self.0[offset..offset + N].try_into().expect("as long as the array")
    }

    pub(crate) fn u32(&self, offset: u64) -> u32 {
        u32::from_ne_bytes(self.field(offset))
    }

    pub(crate) fn u64(&self, offset: u64) -> u64 {
        u64::from_ne_bytes(self.field(offset))
    }

    pub(crate) fn put_u32(&mut self, offset: u64, value: u32) {
        self.0[offset as usize..][..4].copy_from_slice(&value.to_ne_bytes());
    }

    pub(crate) fn put_u64(&mut self, offset: u64, value: u64) {
        self.0[offset as usize..][..8].copy_from_slice(&value.to_ne_bytes());
    }

    /// FNV-1a over the words before the checksum, mixed downwards after each. Every step is a
    /// bijection of the sum so far, so words that differ in one place never have the same sum.
    pub(super) fn checksum(&self) -> u64 {
        (0..segment::CHECKSUM).step_by(8).fold(0xcbf2_9ce4_8422_2325, |sum: u64, offset| {
            let product = (sum ^ self.u64(offset)).wrapping_mul(0x0000_0100_0000_01b3);
            product ^ product >> 32
        })
    }
}

/// Refuses a field that says something else.
pub(crate) fn expect(field: &'static str, found: u64, expected: u64) -> Result<(), SegmentError> {
    if found == expected {
        Ok(())
    } else {
        Err(SegmentError::Incompatible { field, found, expected })
    }
}
