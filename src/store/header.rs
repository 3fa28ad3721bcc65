//! The header of a store's segment: how measures are written by the creator and believed by others.
//!
//! Whoever creates or opens a store writes or checks it, before anything else is touched.
//! What always holds: a header in which any one bit was flipped is refused with a typed error, and
//! measures that were accepted are those of a store that could have been created.

use super::StoreGeometry;
use crate::error::SegmentError;
use crate::layout::segment::KIND_STORE;
use crate::layout::store::header::{
    GLIBC, HASH_SEED, LIBC, MUSL, MUTEX_BYTES, OTHER_LIBC, PAGES, READERS,
};
use crate::memory::FenceMode;
use crate::segment::{HEADER_BYTES, Header, Kind, expect};

/// The C library whose mutex this build locks.
const OWN_LIBC: u32 = if cfg!(target_env = "gnu") {
    GLIBC
} else if cfg!(target_env = "musl") {
    MUSL
} else {
    OTHER_LIBC
};
/// Length of that mutex.
const OWN_MUTEX_BYTES: u32 = size_of::<libc::pthread_mutex_t>() as u32;

/// What a store's segment says about itself. A private copy: it was read from the segment once and is never read
/// again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreHeader {
    /// The measures of the store.
    pub geometry: StoreGeometry,
    /// Random number of this segment; drawn when it is created.
    pub incarnation: u128,
}

impl StoreHeader {
    /// What the header of a segment of `len_bytes` bytes says.
    ///
    /// # Errors
    /// What is wrong with it. Any header whatever is either refused or one that a creator could have
    /// written.
    pub fn from_header(header: [u8; HEADER_BYTES], len_bytes: u64) -> Result<Self, SegmentError> {
        Self::decode(header, len_bytes, 1)
    }

    /// The header that says this.
    pub fn to_header(&self) -> [u8; HEADER_BYTES] {
        let Self { geometry, incarnation } = self;
        let mut header = Header::new(KIND_STORE, geometry.len_bytes(), *incarnation);
        header.put_u64(PAGES, geometry.pages());
        header.put_u64(READERS, geometry.readers());
        header.put_u32(LIBC, OWN_LIBC);
        header.put_u64(HASH_SEED, geometry.seed());
        header.put_u32(MUTEX_BYTES, OWN_MUTEX_BYTES);
        header.finish()
    }
}

impl Kind for StoreHeader {
    fn with_incarnation(self, incarnation: u128) -> Self {
        Self { incarnation, ..self }
    }

    fn len_bytes(&self) -> Result<u64, SegmentError> {
        Ok(self.geometry.len_bytes())
    }

    /// Everybody who uses a store executes its own fences.
    fn fence_mode(&self) -> FenceMode {
        FenceMode::Real
    }

    fn encode(&self) -> Result<[u8; HEADER_BYTES], SegmentError> {
        Ok(self.to_header())
    }

    fn decode(
        bytes: [u8; HEADER_BYTES],
        len_bytes: u64,
        page_bytes: u64,
    ) -> Result<Self, SegmentError> {
        let header = Header::check(bytes, KIND_STORE)?;
        expect("C library", header.u32(LIBC).into(), OWN_LIBC.into())?;
        expect("bytes of a mutex", header.u32(MUTEX_BYTES).into(), OWN_MUTEX_BYTES.into())?;
        let (pages, readers) = (header.u64(PAGES), header.u64(READERS));
        let geometry = StoreGeometry::of_pages(pages, readers, header.u64(HASH_SEED))
            .ok_or(SegmentError::StoreMeasures { pages, readers })?;
        header.check_length(geometry.len_bytes(), len_bytes, page_bytes)?;
        Ok(Self { geometry, incarnation: header.incarnation() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::segment::LEN_BYTES;

    fn header() -> StoreHeader {
        StoreHeader {
            geometry: StoreGeometry::new(1 << 20, 8, 0x1122_3344_5566_7788).unwrap(),
            incarnation: 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100,
        }
    }

    /// What version 2 of the layout looks like on a 64-bit little-endian machine with the GNU C
    /// library. Where this test fails, the version has to change.
    #[test]
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    fn the_header_of_layout_version_2() {
        let bytes = header().to_header();
        let words: Vec<_> = bytes
            .chunks_exact(8)
            .map(|word| u64::from_ne_bytes(word.try_into().unwrap()))
            .collect();
        assert_eq!(
            words,
            [
                0x0179_6177_676e_6972, // "ringway", 1
                0x0000_0002_0000_0002, // version, kind
                0x0201_0008_0000_0080, // fingerprint
                0x0000_0000_0011_2000, // length
                0x0706_0504_0302_0100, // incarnation
                0x0f0e_0d0c_0b0a_0908,
                0x0000_0000_0000_0100, // pages
                0x0000_0000_0000_0008, // readers
                0x0000_0000_0000_0001, // C library
                0x1122_3344_5566_7788, // seed
                0x0000_0000_0000_0028, // bytes of a mutex
                0,
                0,
                0,
                0,
                0x53e3_04a4_fe4b_499f, // checksum
            ]
        );
    }

    #[test]
    fn what_was_written_is_read_back_and_any_flipped_bit_is_refused() {
        let (header, len_bytes) = (header(), header().geometry.len_bytes());
        let bytes = header.to_header();
        assert_eq!(StoreHeader::from_header(bytes, len_bytes).unwrap(), header);
        for bit in 0..8 * HEADER_BYTES {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refused = StoreHeader::from_header(flipped, len_bytes);
            assert!(matches!(refused, Err(SegmentError::Incompatible { .. })), "bit {bit}");
        }
        let refused = StoreHeader::from_header(bytes, len_bytes - 1);
        assert!(matches!(refused, Err(SegmentError::TooSmall { .. })));
    }

    /// Something that a liar does to a header.
    type Change = fn(&mut Header);

    #[test]
    fn a_checksum_does_not_make_nonsense_believed() {
        let len_bytes = header().geometry.len_bytes();
        let cases: [(Change, &str); 8] = [
            (|header| header.put_u32(crate::layout::segment::KIND, 1), "kind"),
            (|header| header.put_u64(LEN_BYTES, 1 << 40), "length in the header"),
            (|header| header.put_u64(PAGES, 0), "0 pages"),
            (|header| header.put_u64(PAGES, u64::MAX), "pages"),
            (|header| header.put_u64(READERS, 0), "0 readers"),
            (|header| header.put_u64(READERS, 300), "length in the header"),
            (|header| header.put_u32(LIBC, 7), "C library"),
            (|header| header.put_u32(MUTEX_BYTES, 41), "bytes of a mutex"),
        ];
        for (change, part) in cases {
            let mut header = Header(header().to_header());
            change(&mut header);
            let refused = StoreHeader::from_header(header.finish(), len_bytes).unwrap_err();
            assert!(refused.to_string().contains(part), "{refused}");
        }
    }
}
