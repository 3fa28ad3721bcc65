//! The segment header: how geometry is written by the creator and believed by an attacher.
//!
//! [`AnonymousSegment`](super::AnonymousSegment) writes one into a new segment and checks the one it
//! finds.
//! What always holds: a header in which any one bit was flipped is refused with a typed error, and
//! a geometry that was accepted is one that a creator could have asked for.

use super::words::{HEADER_BYTES, Header, Kind, expect};
use crate::error::SegmentError;
use crate::layout::{ChannelLayout, MAX_CAPACITY_BYTES, MIN_CAPACITY_BYTES, segment};
use crate::memory::{FenceMode, Memory};

/// What kind of ring lies at one of the two places of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RingKind {
    /// Records of any length, none of which is lost ([`ring`](crate::ring)).
    #[default]
    Records = segment::RING_RECORDS as isize,
    /// Records whose oldest are overwritten when the ring is full.
    Lossy = segment::RING_LOSSY as isize,
    /// Slots of one length.
    Slots = segment::RING_SLOTS as isize,
}

impl RingKind {
    fn from_u32(value: u32) -> Option<Self> {
        [Self::Records, Self::Lossy, Self::Slots].into_iter().find(|kind| *kind as u32 == value)
    }
}

/// What both sides of a channel must know before they touch it. A private copy: it was read from
/// the segment once and is never read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelGeometry {
    /// Capacity of the ring from the creator to the attacher, and of the other one.
    pub capacity_bytes: [u64; 2],
    /// Alignment of payloads in bytes.
    pub payload_align: u64,
    /// Who fences.
    pub fence_mode: FenceMode,
    /// Fingerprint of the messages' type; 0 where there is none.
    pub type_fingerprint: u64,
    /// Longest message in bytes. One that is longer than a record travels in fragments.
    pub max_message_bytes: u64,
    /// What kind of ring leads from the creator to the attacher, and back.
    pub ring_kind: [RingKind; 2],
    /// Bytes of a message, where a ring has slots; of the longer one where the two rings' messages
    /// differ; else 0.
    pub slot_bytes: u32,
    /// Random number of this segment; drawn when it is created.
    pub incarnation: u128,
}

/// Longest message of a channel that does not say otherwise.
pub const DEFAULT_MAX_MESSAGE_BYTES: u64 = 16 << 20;

impl ChannelGeometry {
    /// Two rings of records, for messages of no particular type.
    pub const fn records(
        capacity_bytes: [u64; 2],
        payload_align: u64,
        fence_mode: FenceMode,
    ) -> Self {
        Self {
            capacity_bytes,
            payload_align,
            fence_mode,
            type_fingerprint: 0,
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            ring_kind: [RingKind::Records; 2],
            slot_bytes: 0,
            incarnation: 0,
        }
    }

    /// Where everything lies, once the sizes have been checked.
    ///
    /// # Errors
    /// Capacities or an alignment that no channel can have.
    pub fn layout(&self) -> Result<ChannelLayout, SegmentError> {
        for found in self.capacity_bytes {
            let range = MIN_CAPACITY_BYTES..=MAX_CAPACITY_BYTES;
            if !found.is_power_of_two() || !range.contains(&found) {
                let (min, max) = (MIN_CAPACITY_BYTES, MAX_CAPACITY_BYTES);
                return Err(SegmentError::Capacity { found, min, max });
            }
        }
        let smallest = self.capacity_bytes[0].min(self.capacity_bytes[1]);
        let align = self.payload_align;
        if !matches!(align, 8 | 16 | 32 | 64) || align > smallest / 2 {
            return Err(SegmentError::Alignment { found: align });
        }
        let max = MAX_CAPACITY_BYTES;
        if !(1..=max).contains(&self.max_message_bytes) {
            return Err(SegmentError::MaxMessage { found: self.max_message_bytes, max });
        }
        let has_slots = self.ring_kind.contains(&RingKind::Slots);
        if has_slots != (self.slot_bytes > 0) || u64::from(self.slot_bytes) > smallest / 2 {
            let (found, max) = (self.slot_bytes, smallest / 2);
            return Err(SegmentError::SlotBytes { found, max });
        }
        // Two capacities in range cannot overflow the sum.
        ChannelLayout::new(self.capacity_bytes).ok_or(SegmentError::Capacity {
            found: u64::MAX,
            min: MIN_CAPACITY_BYTES,
            max: MAX_CAPACITY_BYTES,
        })
    }

    /// What the header of a segment of `len_bytes` bytes says; for tools that look at segments
    /// without attaching them.
    ///
    /// # Errors
    /// What is wrong with it. Any header whatever is either refused or one that a creator could have
    /// written.
    pub fn from_header(header: [u8; HEADER_BYTES], len_bytes: u64) -> Result<Self, SegmentError> {
        check(header, len_bytes)
    }

    /// The header that says this.
    ///
    /// # Errors
    /// Capacities or an alignment that no channel can have.
    pub fn to_header(&self) -> Result<[u8; HEADER_BYTES], SegmentError> {
        Ok(encode(self, self.layout()?.len_bytes))
    }
}

/// Writes the header of a channel segment, for sleepers that are woken in this way. Whoever hands the
/// segment on afterwards orders it before everything that the receiver does.
pub(super) fn write_for(
    memory: &impl Memory,
    geometry: &ChannelGeometry,
    wakeup: u32,
) -> Result<(), SegmentError> {
    memory.copy_in(0, &encode_for(geometry, geometry.layout()?.len_bytes, wakeup));
    Ok(())
}

fn encode(geometry: &ChannelGeometry, len_bytes: u64) -> [u8; HEADER_BYTES] {
    encode_for(geometry, len_bytes, segment::WAKEUP_FUTEX)
}

fn encode_for(geometry: &ChannelGeometry, len_bytes: u64, wakeup: u32) -> [u8; HEADER_BYTES] {
    let mut header = Header::new(segment::KIND_CHANNEL, len_bytes, geometry.incarnation);
    header.put_u64(segment::CAPACITY_BYTES[0], geometry.capacity_bytes[0]);
    header.put_u64(segment::CAPACITY_BYTES[1], geometry.capacity_bytes[1]);
    header.put_u32(segment::PAYLOAD_ALIGN, geometry.payload_align as u32);
    header.put_u32(segment::FENCE_MODE, geometry.fence_mode as u32);
    header.put_u64(segment::TYPE_FINGERPRINT, geometry.type_fingerprint);
    header.put_u64(segment::MAX_MESSAGE_BYTES, geometry.max_message_bytes);
    header.put_u32(segment::RING_KIND[0], geometry.ring_kind[0] as u32);
    header.put_u32(segment::RING_KIND[1], geometry.ring_kind[1] as u32);
    header.put_u32(segment::WAKEUP, wakeup);
    header.put_u32(segment::SLOT_BYTES, geometry.slot_bytes);
    header.finish()
}

/// Checks a private copy of a header, from a segment of `len_bytes` bytes.
pub(super) fn check(
    bytes: [u8; HEADER_BYTES],
    len_bytes: u64,
) -> Result<ChannelGeometry, SegmentError> {
    check_all(bytes, len_bytes, 1, segment::WAKEUP_FUTEX)
}

/// As [`check`], for whoever wakes and is woken in this way and no other: no safe call leads to
/// another than futexes.
pub(super) fn check_for(
    bytes: [u8; HEADER_BYTES],
    len_bytes: u64,
    wakeup: u32,
) -> Result<ChannelGeometry, SegmentError> {
    check_all(bytes, len_bytes, 1, wakeup)
}

fn check_all(
    bytes: [u8; HEADER_BYTES],
    len_bytes: u64,
    page_bytes: u64,
    wakeup: u32,
) -> Result<ChannelGeometry, SegmentError> {
    let header = Header::check(bytes, segment::KIND_CHANNEL)?;
    expect("wakeups", header.u32(segment::WAKEUP).into(), wakeup.into())?;
    let ring_kind = |index: usize| {
        let found = header.u32(segment::RING_KIND[index]);
        RingKind::from_u32(found).ok_or(SegmentError::Incompatible {
            field: "kind of ring",
            found: found.into(),
            expected: segment::RING_RECORDS.into(),
        })
    };
    let geometry = ChannelGeometry {
        capacity_bytes: segment::CAPACITY_BYTES.map(|offset| header.u64(offset)),
        payload_align: header.u32(segment::PAYLOAD_ALIGN).into(),
        fence_mode: header.fence_mode()?,
        type_fingerprint: header.u64(segment::TYPE_FINGERPRINT),
        max_message_bytes: header.u64(segment::MAX_MESSAGE_BYTES),
        ring_kind: [ring_kind(0)?, ring_kind(1)?],
        slot_bytes: header.u32(segment::SLOT_BYTES),
        incarnation: header.incarnation(),
    };
    header.check_length(geometry.layout()?.len_bytes, len_bytes, page_bytes)?;
    Ok(geometry)
}

impl Kind for ChannelGeometry {
    fn with_incarnation(self, incarnation: u128) -> Self {
        Self { incarnation, ..self }
    }

    fn len_bytes(&self) -> Result<u64, SegmentError> {
        Ok(self.layout()?.len_bytes)
    }

    fn fence_mode(&self) -> FenceMode {
        self.fence_mode
    }

    fn encode(&self) -> Result<[u8; HEADER_BYTES], SegmentError> {
        self.to_header()
    }

    fn decode(
        bytes: [u8; HEADER_BYTES],
        len_bytes: u64,
        page_bytes: u64,
    ) -> Result<Self, SegmentError> {
        check_all(bytes, len_bytes, page_bytes, segment::WAKEUP_FUTEX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{CrashMemory, HeapMemory, Ordering};

    /// Something that a liar does to a header.
    type Change = fn(&mut Header);

    const GEOMETRY: ChannelGeometry = ChannelGeometry {
        capacity_bytes: [4096, 64],
        payload_align: 32,
        fence_mode: FenceMode::Real,
        type_fingerprint: 0x1122_3344_5566_7788,
        max_message_bytes: 1 << 20,
        ring_kind: [RingKind::Records, RingKind::Slots],
        slot_bytes: 16,
        incarnation: 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100,
    };

    fn write(memory: &impl Memory, geometry: &ChannelGeometry) -> Result<(), SegmentError> {
        write_for(memory, geometry, segment::WAKEUP_FUTEX)
    }

    /// What version 2 of the layout looks like on a 64-bit little-endian machine. A peer of another
    /// minor version must be able to read it: where this test fails, the version has to change.
    #[test]
    #[cfg(all(target_endian = "little", target_pointer_width = "64"))]
    fn the_header_of_layout_version_2() {
        let memory = HeapMemory::new(segment::HEADER_BYTES);
        write(&memory, &GEOMETRY).unwrap();
        let words: Vec<_> =
            (0..16).map(|word| memory.load_u64(word * 8, Ordering::Relaxed)).collect();
        assert_eq!(
            words,
            [
                0x0179_6177_676e_6972, // "ringway", 1
                0x0000_0001_0000_0002, // version, kind
                0x0201_0008_0000_0080, // fingerprint
                0x0000_0000_0000_3000, // length
                0x0706_0504_0302_0100, // incarnation
                0x0f0e_0d0c_0b0a_0908,
                0x0000_0000_0000_1000, // capacities
                0x0000_0000_0000_0040,
                0x0000_0002_0000_0020, // payload alignment, fence mode
                0x1122_3344_5566_7788, // type fingerprint
                0x0000_0000_0010_0000, // longest message
                0x0000_0002_0000_0000, // kinds of ring
                0x0000_0010_0000_0000, // wakeups, bytes of a slot
                0,
                0,
                0xd455_f049_4f9e_14c5, // checksum
            ]
        );
    }

    #[test]
    fn what_was_written_is_read_back() {
        let len_bytes = GEOMETRY.layout().unwrap().len_bytes;
        assert_eq!(check(encode(&GEOMETRY, len_bytes), len_bytes).unwrap(), GEOMETRY);
    }

    #[test]
    fn a_checksum_does_not_make_nonsense_believed() {
        let len_bytes = GEOMETRY.layout().unwrap().len_bytes;
        let refused = |change: Change| {
            let mut header = Header(encode(&GEOMETRY, len_bytes));
            change(&mut header);
            header.put_u64(segment::CHECKSUM, header.checksum());
            check(header.0, len_bytes).unwrap_err().to_string()
        };
        let cases: [(Change, &str); 16] = [
            (|header| header.put_u64(segment::MAGIC, 1), "magic"),
            (|header| header.put_u32(segment::VERSION, 1), "layout version"),
            (|header| header.put_u32(segment::KIND, 2), "kind"),
            (|header| header.put_u64(segment::FINGERPRINT, 0), "fingerprint"),
            (|header| header.put_u64(segment::LEN_BYTES, 1 << 40), "length in the header"),
            (|header| header.put_u64(segment::CAPACITY_BYTES[1], 65), "capacity of 65"),
            (|header| header.put_u64(segment::CAPACITY_BYTES[0], 8192), "length in the header"),
            (|header| header.put_u32(segment::PAYLOAD_ALIGN, 64), "payload alignment"),
            (|header| header.put_u32(segment::FENCE_MODE, 3), "fence mode"),
            (|header| header.put_u64(segment::MAX_MESSAGE_BYTES, 0), "longest message"),
            (|header| header.put_u64(segment::MAX_MESSAGE_BYTES, 1 << 40), "longest message"),
            (|header| header.put_u32(segment::RING_KIND[0], 7), "kind of ring"),
            (|header| header.put_u32(segment::WAKEUP, segment::WAKEUP_EVENT), "wakeups"),
            (|header| header.put_u32(segment::WAKEUP, 2), "wakeups"),
            (|header| header.put_u32(segment::SLOT_BYTES, 0), "slots of 0 bytes"),
            (|header| header.put_u32(segment::SLOT_BYTES, 33), "slots of 33 bytes"),
        ];
        for (change, part) in cases {
            let message = refused(change);
            assert!(message.contains(part), "{message}");
        }
    }

    /// A creator that dies at any store of the header, in any order in which the stores may become
    /// visible, leaves what nobody attaches, or the whole of it.
    #[test]
    fn f07_a_header_that_was_half_written_is_refused() {
        let len_bytes = GEOMETRY.layout().unwrap().len_bytes;
        let whole = encode(&GEOMETRY, len_bytes);
        let memory = CrashMemory::new(len_bytes);
        memory.record();
        write(&memory, &GEOMETRY).unwrap();
        let (mut refused, mut attached) = (0, 0);
        for image in memory.crash().images() {
            let mut header = [0; HEADER_BYTES];
            image.to_heap().copy_out(0, &mut header);
            match check(header, len_bytes) {
                Ok(_) => {
                    assert_eq!(header, whole);
                    attached += 1;
                }
                Err(_) => refused += 1,
            }
        }
        assert!(refused >= 10 && attached >= 1, "{refused} refused, {attached} attached");
    }
}
