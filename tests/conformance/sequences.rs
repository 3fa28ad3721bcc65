//! Many records one after the other: full and empty, wrapping positions, successors, two threads.

use proptest::prelude::*;
use ringway::layout::ring;
use ringway::memory::Ordering;
use ringway::ring::{Consumer, Producer, PushError};

use super::rig::ops::{Machine, Op, Setup, memory_bytes};
use super::{Make, Rig, SHAPES, bytes, rig};

/// f21: a ring takes exactly what fits beside the word behind the last record, and says when there
/// will be room.
pub fn f21_full_and_empty<M: Make>() {
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

/// f22: positions pass 2^32 and 2^64 with records of every length.
pub fn f22_positions_wrap<M: Make>() {
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
pub fn unreleased_records_come_again<M: Make>() {
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

/// Counters go on where the predecessor's stood when it last published them, and the high-water mark is what was in the ring.
pub fn counters<M: Make>() {
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
    // The last few may not have been published.
    let (sent, taken) = (producer.stats(), consumer.stats());
    assert!((85..=100).contains(&sent.messages) && sent.bytes == 12 * sent.messages, "{sent:?}");
    assert!((85..=100).contains(&taken.messages) && taken.bytes == 12 * taken.messages);
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
pub fn two_threads<M: Make>() {
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
pub fn random_operations<M: Make>() {
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
