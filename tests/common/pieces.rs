//! Long messages, and the bare ring that their pieces go through.

use ringway::channel::{Channel, ChannelOptions};
use ringway::layout::ring;
use ringway::memory::MappedMemory;
use ringway::ring::{Producer, RingGeometry};
use ringway::segment::AnonymousSegment;

pub fn options(capacity_bytes: u64) -> ChannelOptions {
    ChannelOptions { capacity_bytes, ..ChannelOptions::default() }
}

pub fn pair(capacity_bytes: u64) -> (Channel, Channel) {
    Channel::pair(&options(capacity_bytes)).expect("a channel")
}

/// Every eight bytes say where they are.
pub fn payload(seed: u64, len: usize) -> Vec<u8> {
    let words = (0..len as u64 / 8 + 1).map(|at| (at << 20 ^ seed).wrapping_mul(0x9e37_79b9));
    let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    bytes.truncate(len);
    bytes
}

/// A channel's receiving side, and the bare producer of what comes to it.
pub fn bare(capacity_bytes: u64) -> (Channel, Producer<MappedMemory>, AnonymousSegment) {
    let channel = Channel::anonymous(&options(capacity_bytes)).unwrap();
    let segment = AnonymousSegment::attach(channel.descriptor().unwrap()).unwrap();
    let producer = bare_producer(&segment);
    (channel, producer, segment)
}

pub fn bare_producer(segment: &AnonymousSegment) -> Producer<MappedMemory> {
    let (memory, header) = (segment.memory().clone(), segment.geometry());
    let data = header.layout().unwrap().data[1];
    let geometry =
        RingGeometry::new(&memory, ring::CONTROL[1], data, header.capacity_bytes[1], 8).unwrap();
    Producer::attach(memory, geometry.with_max_message_bytes(header.max_message_bytes)).unwrap()
}
