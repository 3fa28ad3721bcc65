//! One suite for the ring over every memory. A naive queue and plain arithmetic decide what is right.
#![cfg(not(loom))]

mod rig;

use std::io::IoSlice;

use proptest::prelude::*;
use rig::ops::{DATA, Machine, Op, Setup, memory_bytes};
use ringway::layout::{ring, ring_data_shift};
use ringway::memory::{CrashMemory, FenceMode, HeapMemory, MappedMemory, Memory, Ordering};
use ringway::ring::{Consumer, Producer, PushError, RingGeometry};
use ringway::segment::AnonymousSegment;

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
        let segment = AnonymousSegment::create([capacity, 64], 8, FenceMode::Real, 0);
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

/// Every length at every start offset; of the largest ring, every length and every offset.
fn every_length_at_every_offset<M: Make>() {
    for (capacity, align) in SHAPES {
        let rig = Rig::<M>::new(capacity, align);
        let max = rig.geometry.max_payload_bytes() as usize;
        let (payload, mut found) = (bytes(max), vec![0; max]);
        for start in (0..capacity).step_by(align as usize) {
            let step = if capacity > 1024 { 64 } else { 1 };
            for len in ((start / 8 % step) as usize..=max).step_by(step as usize) {
                let (mut producer, mut consumer) = rig.start_at(start);
                assert_eq!(producer.try_push(len as u16, &payload[..len]), Ok(()));
                let record = consumer.peek().expect("valid").expect("committed");
                assert_eq!((record.tag(), record.len_bytes()), (len as u16, len));
                consumer.copy_out(&record, &mut found);
                assert_eq!(found[..len], payload[..len], "{len} at {start} of {capacity}");
                consumer.advance(&record);
                assert_eq!(consumer.peek(), Ok(None));
            }
        }
    }
}

/// Nothing is written but the record, its padding's header, the word behind it, and control words.
fn writes_stay_inside_the_record<M: Make>() {
    for (capacity, align) in SHAPES.into_iter().filter(|(capacity, _)| *capacity <= 256) {
        let rig = Rig::<M>::new(capacity, align);
        let max = rig.geometry.max_payload_bytes();
        for start in (0..capacity).step_by(align as usize) {
            for len in 0..=max {
                rig.fill(u64::MAX);
                let (mut producer, _) = rig.start_at(start);
                let before = rig.words();
                producer.try_push(1, &bytes(len as usize)).expect("room");
                let size = (len + 8).next_multiple_of(align);
                let record = if start + size > capacity { capacity } else { start };
                let mut allowed = vec![rig.offset(start), rig.offset(record + size)];
                allowed.extend((0..8 + len).step_by(8).map(|at| rig.offset(record) + at));
                for (at, (old, new)) in (0..).step_by(8).zip(before.iter().zip(rig.words())) {
                    let control = (ring::TAIL..ring::TAIL + 64).contains(&at);
                    assert!(
                        *old == new || control || allowed.contains(&at),
                        "{len} at {start}: {at}"
                    );
                }
                let zero_ahead = rig.memory.load_u64(rig.offset(record + size), Ordering::Relaxed);
                assert_eq!(zero_ahead, 0);
            }
        }
    }
}

/// f41: what fills the last word of a payload is zero, however the payload was written.
fn f41_the_rest_of_the_last_word_is_zero<M: Make>() {
    let rig = Rig::<M>::new(256, 8);
    for len in 1..=40_usize {
        for how in 0..4 {
            rig.fill(u64::MAX);
            let (mut producer, _) = rig.start_at(0);
            let payload = vec![0xff; len];
            match how {
                0 => producer.try_push(1, &payload).expect("room"),
                1 => {
                    let parts = [IoSlice::new(&payload[..1]), IoSlice::new(&payload[1..])];
                    producer.try_push_vectored(1, &parts).expect("room");
                }
                2 => {
                    let mut reservation = producer.try_reserve(1, len).expect("room");
                    reservation.write(&payload);
                    reservation.commit();
                }
                _ => {
                    let mut batch = producer.batch();
                    batch.push(1, &payload).expect("room");
                    batch.commit();
                }
            }
            let mut word = [0; 8];
            let last = (len - 1) / 8 * 8;
            rig.memory.copy_out(rig.offset(8) + last as u64, &mut word);
            assert!(word[..len - last].iter().all(|byte| *byte == 0xff), "{len} {how}");
            assert!(word[len - last..].iter().all(|byte| *byte == 0), "{len} {how}");
        }
    }
}

/// However a payload is cut into parts, the ring holds the same words.
fn vectored_in_any_split<M: Make>() {
    let (one, other) = (Rig::<M>::new(128, 8), Rig::<M>::new(128, 8));
    for len in 0..=25 {
        let payload = bytes(len);
        for first in 0..=len {
            for second in first..=len {
                for rig in [&one, &other] {
                    rig.fill(u64::MAX);
                }
                one.start_at(112).0.try_push(5, &payload).expect("room");
                let parts = [&payload[..first], &payload[first..second], &[], &payload[second..]];
                let parts = parts.map(IoSlice::new);
                other.start_at(112).0.try_push_vectored(5, &parts).expect("room");
                assert_eq!(one.words(), other.words(), "{len}: {first}, {second}");
            }
        }
    }
}

/// f21: a ring takes exactly what fits beside the word behind the last record, and says when there
/// will be room.
fn f21_full_and_empty<M: Make>() {
    for (capacity, align) in SHAPES {
        let rig = Rig::<M>::new(capacity, align);
        let max = rig.geometry.max_payload_bytes();
        let step = if capacity > 512 { 61 } else { 1 };
        for len in (0..=max).step_by(step) {
            let size = (len + 8).next_multiple_of(align);
            let (mut producer, mut consumer) = rig.start_at(0);
            let (payload, full_before) = (bytes(len as usize), producer.stats().times_full);
            let fit = (capacity - 8) / size;
            for n in 0..fit {
                assert_eq!(producer.try_push(0, &payload), Ok(()), "{n} of {fit}");
            }
            assert_eq!(producer.stats().times_full, full_before);
            let Err(PushError::Full { head_needed }) = producer.try_push(0, &payload) else {
                panic!("more than {fit} records of {size} bytes in {capacity}");
            };
            assert_eq!(producer.stats().times_full, full_before + 1);
            assert_eq!(producer.has_room(head_needed), Ok(false));
            let mut released = 0;
            while released < head_needed {
                assert_eq!(producer.has_room(head_needed), Ok(false));
                assert!(matches!(producer.try_push(0, &payload), Err(PushError::Full { .. })));
                let record = consumer.peek().expect("valid").expect("full");
                consumer.advance(&record);
                assert!(consumer.release());
                released += size;
            }
            assert_eq!(producer.has_room(head_needed), Ok(true));
            assert_eq!(producer.try_push(0, &payload), Ok(()));
        }
        let (mut producer, mut consumer) = rig.start_at(0);
        let too_long = PushError::TooLong { len: max + 1, max };
        assert_eq!(producer.try_push(0, &bytes(max as usize + 1)), Err(too_long));
        assert_eq!(
            producer.try_reserve(0, usize::MAX).map(|_| ()),
            Err(PushError::TooLong { len: u64::MAX, max })
        );
        assert_eq!(consumer.peek(), Ok(None));
        assert!(!consumer.release());
    }
}

/// PROTOCOLS 2: whatever lies before it, a record of half the ring fits once the ring is empty.
fn half_the_ring_always_fits_in_the_end<M: Make>() {
    for (capacity, align) in SHAPES {
        let rig = Rig::<M>::new(capacity, align);
        let payload = bytes(rig.geometry.max_payload_bytes() as usize);
        for start in (0..capacity).step_by(align as usize) {
            assert_eq!(rig.start_at(start).0.try_push(0, &payload), Ok(()), "at {start}");
        }
    }
}

fn tags_pass_unchanged<M: Make>() {
    let rig = Rig::<M>::new(64, 8);
    let (mut producer, mut consumer) = rig.start_at(0);
    for tag in (0..=u16::MAX).step_by(251).chain([u16::MAX]) {
        producer.try_push(tag, b"tag").expect("room");
        let record = consumer.peek().expect("valid").expect("committed");
        assert_eq!(record.tag(), tag);
        consumer.advance(&record);
        consumer.release();
    }
}

/// f22: positions pass 2^32 and 2^64 with records of every length.
fn f22_positions_wrap<M: Make>() {
    for (shape, base) in [(0, 1_u64 << 32), (1, 0), (0, 0), (2, 1 << 63), (1, 1 << 32)] {
        let (capacity_bytes, align) = (64 << shape, 8);
        for before in 0..=capacity_bytes / align {
            let start = base.wrapping_sub(before * align);
            let memory = M::make(memory_bytes(capacity_bytes));
            let mut machine = Machine::new(memory, Setup { capacity_bytes, align, start });
            for len in 0..=24 {
                machine.apply(Op::Push { len, tag: len });
                machine.apply(Op::Batch { count: 2, len: len / 3, commit: true });
                machine.apply(Op::NewProducer);
                machine.drain();
                machine.apply(Op::NewConsumer);
            }
        }
    }
}

/// A consumer that was succeeded before it released: its records come again, in order.
fn unreleased_records_come_again<M: Make>() {
    let rig = Rig::<M>::new(128, 8);
    let (mut producer, _) = rig.start_at(96);
    for tag in 0..3 {
        producer.try_push(tag, b"again").expect("room");
    }
    let mut next = 0;
    for released in [0, 1, 0, 2] {
        let mut consumer = Consumer::attach(rig.memory.clone(), rig.geometry).expect("attach");
        for tag in next..3 {
            let record = consumer.peek().expect("valid").expect("unreleased");
            assert_eq!(record.tag(), tag);
            consumer.advance(&record);
            if tag + 1 == next + released {
                consumer.release();
            }
        }
        assert_eq!(consumer.peek(), Ok(None));
        next += released;
    }
}

/// Counters go on where the predecessor's stood, and the high-water mark is what was in the ring.
fn counters<M: Make>() {
    let rig = Rig::<M>::new(256, 8);
    let (mut producer, mut consumer) = rig.start_at(0);
    for n in 1..=100 {
        producer.try_push(0, b"twelve bytes").expect("room");
        let record = consumer.peek().expect("valid").expect("committed");
        consumer.advance(&record);
        consumer.release();
        let (sent, taken) = (producer.stats(), consumer.stats());
        assert_eq!((sent.messages, sent.bytes), (n, 12 * n));
        assert_eq!((taken.messages, taken.bytes), (n, 12 * n));
        assert!(sent.high_water_bytes <= 24, "one record at a time: {sent:?}");
    }
    let producer = Producer::attach(rig.memory.clone(), rig.geometry).expect("attach");
    let consumer = Consumer::attach(rig.memory.clone(), rig.geometry).expect("attach");
    assert_eq!(producer.stats().messages, 100);
    assert_eq!(consumer.stats().bytes, 1200);
    let word = |offset| rig.memory.load_u64(offset, Ordering::Relaxed);
    assert_eq!(word(ring::TAIL), word(ring::HEAD));
}

/// Tries until it works; a bound, so that a failed other thread fails this one.
fn patiently<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    for _ in 0..20_000_000 {
        if let Some(result) = attempt() {
            return result;
        }
        std::thread::yield_now();
    }
    panic!("the other thread is stuck");
}

/// Two threads, records of changing lengths, both ends polling.
fn two_threads<M: Make>() {
    let rig = Rig::<M>::new(512, 8);
    let (mut producer, mut consumer) = rig.start_at(u64::MAX - 511);
    const MESSAGES: u16 = 20_000;
    let producing = std::thread::spawn(move || {
        let payload = bytes(200);
        for n in 0..MESSAGES {
            patiently(|| producer.try_push(n, &payload[..usize::from(n) % 200]).ok());
        }
    });
    let (payload, mut found) = (bytes(200), [0; 200]);
    for n in 0..MESSAGES {
        let record = patiently(|| consumer.peek().expect("valid"));
        let len = usize::from(n) % 200;
        assert_eq!((record.tag(), record.len_bytes()), (n, len));
        consumer.copy_out(&record, &mut found);
        assert_eq!(found[..len], payload[..len]);
        consumer.advance(&record);
        consumer.release();
    }
    producing.join().expect("joined");
}

/// Random operations against the queue.
fn random_operations<M: Make>() {
    let strategy = (any::<[u8; 2]>(), prop::collection::vec(any::<[u8; 3]>(), 1..120));
    rig::runner(400)
        .run(&strategy, |(setup, ops)| {
            let setup = Setup::decode(setup);
            let memory = M::make(memory_bytes(setup.capacity_bytes));
            let mut machine = Machine::new(memory, setup);
            for op in ops {
                machine.apply(Op::decode(op));
            }
            machine.drain();
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

macro_rules! suite {
    ($($test:ident)*) => {
        mod heap { $(#[test] fn $test() { super::$test::<super::HeapMemory>(); })* }
        mod crash { $(#[test] fn $test() { super::$test::<super::CrashMemory>(); })* }
        mod mapped { $(#[test] fn $test() { super::$test::<super::MappedMemory>(); })* }
    };
}

suite! {
    every_length_at_every_offset
    writes_stay_inside_the_record
    f41_the_rest_of_the_last_word_is_zero
    vectored_in_any_split
    f21_full_and_empty
    half_the_ring_always_fits_in_the_end
    tags_pass_unchanged
    f22_positions_wrap
    unreleased_records_come_again
    counters
    two_threads
    random_operations
}
