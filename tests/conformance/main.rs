//! One suite for the ring over every memory. A naive queue and plain arithmetic decide what is right.
#![cfg(not(loom))]

mod records;
#[path = "../rig/mod.rs"]
mod rig;
mod sequences;

use rig::ops::{DATA, memory_bytes};
use ringway::layout::{ring, ring_data_shift};
use ringway::memory::{CrashMemory, FenceMode, HeapMemory, MappedMemory, Memory, Ordering};
use ringway::ring::{Consumer, Producer, RingGeometry};
use ringway::segment::{AnonymousSegment, ChannelGeometry};

/// Makes memories of one kind.
trait Make: Memory + std::fmt::Debug + Send + 'static {
    fn make(len_bytes: u64) -> Self;
}

impl Make for HeapMemory {
    fn make(len_bytes: u64) -> Self {
        Self::new(len_bytes)
    }
}

impl Make for CrashMemory {
    fn make(len_bytes: u64) -> Self {
        Self::new(len_bytes)
    }
}

/// The tests lay their ring over a segment as if it were plain memory.
impl Make for MappedMemory {
    fn make(len_bytes: u64) -> Self {
        let capacity = len_bytes.next_power_of_two();
        let segment =
            AnonymousSegment::create(&ChannelGeometry::records([capacity, 64], 8, FenceMode::Real));
        let memory = segment.expect("a segment").memory().clone();
        for at in (0..len_bytes).step_by(8) {
            memory.store_u64(at, 0, Ordering::Relaxed);
        }
        memory
    }
}

const SHAPES: [(u64, u64); 12] = [
    (64, 8),
    (64, 16),
    (64, 32),
    (128, 8),
    (128, 64),
    (256, 8),
    (256, 32),
    (512, 16),
    (512, 64),
    (1024, 8),
    (1024, 64),
    (4096, 8),
];

struct Rig<M: Memory> {
    memory: M,
    geometry: RingGeometry,
}

impl<M: Make> Rig<M> {
    fn new(capacity_bytes: u64, align: u64) -> Self {
        let memory = M::make(memory_bytes(capacity_bytes));
        let geometry = RingGeometry::new(&memory, 0, DATA, capacity_bytes, align).expect("valid");
        Self { memory, geometry }
    }

    fn offset(&self, position: u64) -> u64 {
        let align = self.geometry.payload_align();
        DATA + ring_data_shift(align) + position % self.geometry.capacity_bytes()
    }

    /// Both ends of an empty ring at this position.
    fn start_at(&self, position: u64) -> (Producer<M>, Consumer<M>) {
        self.memory.store_u64(ring::HEAD, position, Ordering::Relaxed);
        self.memory.store_u64(self.offset(position), 0, Ordering::Relaxed);
        let producer = Producer::attach(self.memory.clone(), self.geometry).expect("attach");
        (producer, Consumer::attach(self.memory.clone(), self.geometry).expect("attach"))
    }

    fn words(&self) -> Vec<u64> {
        let end = memory_bytes(self.geometry.capacity_bytes());
        (0..end).step_by(8).map(|at| self.memory.load_u64(at, Ordering::Relaxed)).collect()
    }

    fn fill(&self, word: u64) {
        for at in (DATA..memory_bytes(self.geometry.capacity_bytes())).step_by(8) {
            self.memory.store_u64(at, word, Ordering::Relaxed);
        }
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(37) | 1).collect()
}

macro_rules! suite {
    ($($file:ident::$test:ident)*) => {
        mod heap { $(#[test] fn $test() { super::$file::$test::<super::HeapMemory>(); })* }
        mod crash { $(#[test] fn $test() { super::$file::$test::<super::CrashMemory>(); })* }
        mod mapped { $(#[test] fn $test() { super::$file::$test::<super::MappedMemory>(); })* }
    };
}

suite! {
    records::every_length_at_every_offset
    records::writes_stay_inside_the_record
    records::f41_the_rest_of_the_last_word_is_zero
    records::vectored_in_any_split
    records::tags_pass_unchanged
    records::half_the_ring_always_fits_in_the_end
    records::batches_up_to_the_capacity
    records::reservations_filled_unfilled_short_and_given_up
    sequences::f21_full_and_empty
    sequences::f22_positions_wrap
    sequences::unreleased_records_come_again
    sequences::counters
    sequences::two_threads
    sequences::random_operations
}
