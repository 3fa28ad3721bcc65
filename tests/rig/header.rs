//! A hostile creator as data: segment headers that are arbitrary, or wrong in a few places only.
//!
//! What always holds: a header is refused, or says what a creator could have asked for.

use ringway::layout::segment;
use ringway::segment::ChannelGeometry;
use ringway::store::StoreHeader;

/// Length of a header.
pub const HEADER_BYTES: usize = segment::HEADER_BYTES as usize;

/// Attaches to a header: a byte of flags (1: correct the checksum, 2: take the length from the
/// header), and the header.
pub fn attach_header(data: &[u8]) {
    let Some((flags, data)) = data.split_first() else { return };
    let mut header = [0; HEADER_BYTES];
    let given = data.len().min(HEADER_BYTES);
    header[..given].copy_from_slice(&data[..given]);
    if flags & 1 != 0 {
        correct_checksum(&mut header);
    }
    let len_bytes = if flags & 2 != 0 { word(&header, segment::LEN_BYTES) } else { 12 << 10 };
    if let Ok(store) = StoreHeader::from_header(header, len_bytes) {
        assert_eq!(store.geometry.len_bytes(), len_bytes);
        let again = StoreHeader::from_header(store.to_header(), len_bytes).expect("its own header");
        assert_eq!(again, store);
    }
    if let Ok(store) = StoreHeader::from_public_header(header, len_bytes) {
        assert_eq!(store.geometry.private(), len_bytes);
        let again = StoreHeader::from_public_header(store.to_public_header(), len_bytes);
        assert_eq!(again.expect("its own header"), store);
    }
    let Ok(geometry) = ChannelGeometry::from_header(header, len_bytes) else { return };
    let layout = geometry.layout().expect("checked");
    assert_eq!(layout.len_bytes, len_bytes);
    assert!(layout.data[0] + geometry.capacity_bytes[0] <= layout.data[1]);
    assert!(layout.data[1] + geometry.capacity_bytes[1] <= len_bytes);
    let again = geometry.to_header().expect("checked");
    let again = ChannelGeometry::from_header(again, len_bytes).expect("its own header");
    assert_eq!(again, geometry);
}

fn word(header: &[u8; HEADER_BYTES], offset: u64) -> u64 {
    let at = offset as usize;
    u64::from_ne_bytes(header[at..at + 8].try_into().expect("eight bytes"))
}

/// As the layout describes it, so that what lies behind the checksum's check is reached.
pub fn correct_checksum(header: &mut [u8; HEADER_BYTES]) {
    let words = (0..segment::CHECKSUM).step_by(8).map(|offset| word(header, offset));
    let sum = words.fold(0xcbf2_9ce4_8422_2325, |sum: u64, word| {
        let product = (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        product ^ product >> 32
    });
    header[segment::CHECKSUM as usize..].copy_from_slice(&sum.to_ne_bytes());
}
