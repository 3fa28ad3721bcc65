//! ringway's ring by itself: its lock-free ends, polled, with nobody asleep and nobody dying.
//!
//! A row of every bench: what the protocol costs before the channel adds waiting and liveness.
//! What always holds: all bytes are copied in and out through the crate's own copy.

use std::os::fd::OwnedFd;

use ringway::layout::ring::CONTROL;
use ringway::memory::{FenceMode, MappedMemory};
use ringway::ring::{Consumer, Producer, PushError, RingGeometry};
use ringway::segment::{AnonymousSegment, ChannelGeometry};

use super::case::Transport;
use super::link::{Bytes, Copied, Spec};
use super::shared::Spin;

/// One end: a producer of one ring and the consumer of the other.
#[derive(Debug)]
pub struct RingEnds {
    producer: Producer<MappedMemory>,
    consumer: Consumer<MappedMemory>,
    /// Keeps the memory mapped.
    _segment: AnonymousSegment,
}

impl RingEnds {
    fn new(segment: AnonymousSegment, out: usize) -> Self {
        let memory = segment.memory().clone();
        let geometry = segment.geometry();
        let layout = geometry.layout().expect("a valid layout");
        let ring = |number: usize| {
            let (capacity, align) = (geometry.capacity_bytes[number], geometry.payload_align);
            RingGeometry::new(&memory, CONTROL[number], layout.data[number], capacity, align)
                .expect("a valid ring")
        };
        let producer = Producer::attach(memory.clone(), ring(out)).expect("a fresh ring");
        let consumer = Consumer::attach(memory.clone(), ring(1 - out)).expect("a fresh ring");
        Self { producer, consumer, _segment: segment }
    }
}

impl Transport for RingEnds {
    type End = Copied<Self>;

    fn create(spec: &Spec) -> (Self::End, Vec<OwnedFd>) {
        let capacity = spec.capacity as u64;
        let segment =
            AnonymousSegment::create(&ChannelGeometry::records([capacity; 2], 8, FenceMode::Real))
                .expect("an anonymous segment");
        let fd = segment.descriptor().expect("a descriptor");
        (Copied::new(Self::new(segment, 0), spec), vec![fd])
    }

    fn attach(spec: &Spec, mut fds: Vec<OwnedFd>) -> Self::End {
        let segment = AnonymousSegment::attach(fds.remove(0)).expect("the parent's segment");
        Copied::new(Self::new(segment, 1), spec)
    }
}

impl Bytes for RingEnds {
    #[inline]
    fn write(&mut self, message: &[u8]) {
        let mut spin = Spin::default();
        while let Err(error) = self.producer.try_push(0, message) {
            assert!(matches!(error, PushError::Full { .. }), "{error}");
            spin.turn();
        }
    }

    #[inline]
    fn read(&mut self, buffer: &mut [u8]) {
        let mut spin = Spin::default();
        let record = loop {
            if let Some(record) = self.consumer.peek().expect("an honest peer") {
                break record;
            }
            spin.turn();
        };
        assert_eq!(record.len_bytes(), buffer.len(), "not a record of this bench");
        self.consumer.copy_out(&record, buffer);
        self.consumer.advance(&record);
        self.consumer.release();
    }
}
