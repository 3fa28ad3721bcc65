//! The headers of a store: how measures are written by the creator and believed by others.
//!
//! Whoever creates or opens a store writes or checks them, before anything else is touched. A header's length is that
//! of its file: of both parts, or of the public part where the private part has a file of its own.
//!
//! Invariants:
//! - A header in which any one bit was flipped is refused with a typed error.
//! - Measures that were accepted are those of a store that could have been created.
//! - A private part that was accepted has the length and the incarnation that the public part asks for.

use super::StoreGeometry;
use crate::error::SegmentError;
use crate::layout::segment::{KIND_CHANNEL, KIND_STORE, KIND_STORE_PRIVATE};
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

    /// As [`from_header`](Self::from_header), of a file that holds the public part only.
    ///
    /// # Errors
    /// As [`from_header`](Self::from_header).
    pub fn from_public_header(
        header: [u8; HEADER_BYTES],
        len_bytes: u64,
    ) -> Result<Self, SegmentError> {
        Self::believe(header, len_bytes, 1, StoreGeometry::private)
    }

    /// The header that says this, of a file that holds both parts.
    pub fn to_header(&self) -> [u8; HEADER_BYTES] {
        self.say(self.geometry.len_bytes())
    }

    /// The header that says this, of a file that holds the public part only.
    pub fn to_public_header(&self) -> [u8; HEADER_BYTES] {
        self.say(self.geometry.private())
    }

    /// The header of the private part.
    pub(super) fn to_private_header(self) -> [u8; HEADER_BYTES] {
        let Self { geometry, incarnation } = self;
        Header::new(KIND_STORE_PRIVATE, geometry.private_bytes(), incarnation).finish()
    }

    /// Checks the header of a file of `len_bytes` bytes that should be the private part of this store.
    ///
    /// # Errors
    /// [`SegmentError::NotItsPrivatePart`] where it is another store's, or something else;
    /// [`SegmentError::Incompatible`] and [`SegmentError::TooSmall`] where it is damaged.
    pub(super) fn check_private(
        &self,
        bytes: [u8; HEADER_BYTES],
        len_bytes: u64,
    ) -> Result<(), SegmentError> {
        let expected = self.incarnation;
        let header = match Header::check(bytes, KIND_STORE_PRIVATE) {
            Err(SegmentError::Incompatible { field: "kind", found, .. }) => {
                let found = match u32::try_from(found) {
                    Ok(KIND_STORE) => "the public part of a store".into(),
                    Ok(KIND_CHANNEL) => "a channel".into(),
                    _ => format!("a segment of unknown kind {found:#x}"),
                };
                return Err(SegmentError::NotItsPrivatePart { found, expected });
            }
            checked => checked?,
        };
        if header.incarnation() != expected {
            let found = format!("that of store {:#034x}", header.incarnation());
            return Err(SegmentError::NotItsPrivatePart { found, expected });
        }
        header.check_length(self.geometry.private_bytes(), len_bytes, 1)
    }

    fn say(&self, len_bytes: u64) -> [u8; HEADER_BYTES] {
        let Self { geometry, incarnation } = self;
        let mut header = Header::new(KIND_STORE, len_bytes, *incarnation);
        header.put_u64(PAGES, geometry.pages());
        header.put_u64(READERS, geometry.readers());
        header.put_u32(LIBC, OWN_LIBC);
        header.put_u64(HASH_SEED, geometry.seed());
        header.put_u32(MUTEX_BYTES, OWN_MUTEX_BYTES);
        header.finish()
    }

    /// `len_of` is the length that a file of a store of these measures has.
    fn believe(
        bytes: [u8; HEADER_BYTES],
        len_bytes: u64,
        page_bytes: u64,
        len_of: impl FnOnce(&StoreGeometry) -> u64,
    ) -> Result<Self, SegmentError> {
        let header = Header::check(bytes, KIND_STORE)?;
        expect("C library", header.u32(LIBC).into(), OWN_LIBC.into())?;
        expect("bytes of a mutex", header.u32(MUTEX_BYTES).into(), OWN_MUTEX_BYTES.into())?;
        let (pages, readers) = (header.u64(PAGES), header.u64(READERS));
        let geometry = StoreGeometry::of_pages(pages, readers, header.u64(HASH_SEED))
            .ok_or(SegmentError::StoreMeasures { pages, readers })?;
        header.check_length(len_of(&geometry), len_bytes, page_bytes)?;
        Ok(Self { geometry, incarnation: header.incarnation() })
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
        Self::believe(bytes, len_bytes, page_bytes, StoreGeometry::len_bytes)
    }
}

/// What the header of a file says that holds the public part only.
#[derive(Debug, Clone, Copy)]
pub(super) struct PublicHeader(pub(super) StoreHeader);

impl Kind for PublicHeader {
    fn with_incarnation(self, incarnation: u128) -> Self {
        Self(self.0.with_incarnation(incarnation))
    }

    fn len_bytes(&self) -> Result<u64, SegmentError> {
        Ok(self.0.geometry.private())
    }

    fn fence_mode(&self) -> FenceMode {
        self.0.fence_mode()
    }

    fn encode(&self) -> Result<[u8; HEADER_BYTES], SegmentError> {
        Ok(self.0.to_public_header())
    }

    fn decode(
        bytes: [u8; HEADER_BYTES],
        len_bytes: u64,
        page_bytes: u64,
    ) -> Result<Self, SegmentError> {
        StoreHeader::believe(bytes, len_bytes, page_bytes, StoreGeometry::private).map(Self)
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
        let words = |bytes: [u8; HEADER_BYTES]| {
            let words = bytes.chunks_exact(8);
            words.map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(
            words(header().to_header()),
            [
                0x0179_6177_676e_6972, // "ringway", 1
                0x0000_0002_0000_0002, // version, kind
                0x0201_0008_0000_0080, // fingerprint
                0x0000_0000_0011_4000, // length
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
                0x0354_dda9_00c2_ab93, // checksum
            ]
        );
        // The two files of a store without a name.
        let public = words(header().to_public_header());
        assert_eq!((public[3], public[15]), (0x0011_1000, 0x3471_2d05_7756_6ce2));
        assert_eq!(public[4..15], words(header().to_header())[4..15]);
        let private = words(header().to_private_header());
        assert_eq!(
            (&private[..6], private[15]),
            (
                &[
                    0x0179_6177_676e_6972, // "ringway", 1
                    0x0000_0003_0000_0002, // version, kind
                    0x0201_0008_0000_0080, // fingerprint
                    0x0000_0000_0000_3000, // length
                    0x0706_0504_0302_0100, // incarnation
                    0x0f0e_0d0c_0b0a_0908,
                ][..],
                0xd77a_5699_daad_daf6
            )
        );
        assert_eq!(private[6..15], [0; 9]);
    }

    #[test]
    fn f48_a_private_part_that_is_damaged_or_another_stores_is_refused() {
        let (header, bytes) = (header(), header().to_private_header());
        let len_bytes = header.geometry.private_bytes();
        header.check_private(bytes, len_bytes).unwrap();
        for bit in 0..8 * HEADER_BYTES {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refused = header.check_private(flipped, len_bytes);
            assert!(matches!(refused, Err(SegmentError::Incompatible { .. })), "bit {bit}");
        }
        let longer = header.check_private(bytes, len_bytes + 4096);
        assert!(matches!(longer, Err(SegmentError::Incompatible { field: "length", .. })));
        let other = StoreHeader { incarnation: 7, ..header };
        let said = other.check_private(bytes, len_bytes).unwrap_err().to_string();
        assert!(said.contains("that of store 0x0f0e"), "{said}");
        let said =
            header.check_private(header.to_public_header(), len_bytes).unwrap_err().to_string();
        assert!(said.contains("is the public part of a store"), "{said}");
        let larger = StoreGeometry::new(1 << 20, 80, 0).unwrap();
        let larger = StoreHeader { geometry: larger, ..header };
        assert!(larger.check_private(bytes, len_bytes).is_err());
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
        // One file is not taken for the other.
        let (public, public_bytes) = (header.to_public_header(), header.geometry.private());
        assert_eq!(StoreHeader::from_public_header(public, public_bytes).unwrap(), header);
        assert!(StoreHeader::from_header(public, public_bytes).is_err());
        assert!(StoreHeader::from_header(public, len_bytes).is_err());
        assert!(StoreHeader::from_public_header(bytes, len_bytes).is_err());
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
