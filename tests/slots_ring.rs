//! The slot ring against counting, at every size and near the wrap, and its ends against liars.
#![cfg(not(loom))]

mod rig;

use rig::slots::{Machine, Op, Setup, run};
use ringway::error::{Corruption, SegmentError};
use ringway::layout::ring;
use ringway::memory::{HeapMemory, Memory, Ordering};
use ringway::ring::slots::{SlotConsumer, SlotGeometry, SlotProducer};

fn setups() -> impl Iterator<Item = Setup> {
    let sizes = [1, 7, 8, 9, 16, 24, 32, 55, 56, 57, 64, 120, 121, 128, 512];
    let starts = [0, 1 << 40, 0_u64.wrapping_sub(2048), 0_u64.wrapping_sub(4096)];
    [64, 128, 256, 1024].into_iter().flat_map(move |capacity_bytes| {
        sizes.into_iter().filter(move |bytes| u64::from(*bytes) <= capacity_bytes / 2).flat_map(
            move |slot_bytes| {
                starts.into_iter().map(move |start| Setup { capacity_bytes, slot_bytes, start })
            },
        )
    })
}

#[test]
fn a_ring_takes_exactly_what_counting_says() {
    let mut rings = 0;
    for setup in setups() {
        let mut machine = Machine::new(HeapMemory::new(setup.memory_bytes()), setup);
        machine.drain();
        for op in [Op::Push, Op::Advance, Op::NewConsumer, Op::Push, Op::NewProducer, Op::Take] {
            machine.apply(op);
        }
        machine.drain();
        rings += 1;
    }
    assert!(rings > 100, "{rings}");
}

#[test]
fn batches_of_every_length_from_every_place() {
    for setup in setups() {
        for filled in 0..9 {
            for count in 0..24 {
                let mut machine = Machine::new(HeapMemory::new(setup.memory_bytes()), setup);
                (0..filled).for_each(|_| machine.apply(Op::Push));
                (0..filled).for_each(|_| machine.apply(Op::Advance));
                machine.apply(Op::Batch { count, commit: false });
                machine.apply(Op::Push);
                machine.apply(Op::Batch { count, commit: true });
                machine.drain();
            }
        }
    }
}

#[test]
fn random_operations() {
    use proptest::prelude::*;
    let strategy = (any::<[u8; 3]>(), prop::collection::vec(any::<[u8; 2]>(), 0..200));
    rig::runner(500)
        .run(&strategy, |(setup, ops)| {
            let setup = Setup::decode(setup);
            let mut machine = Machine::new(HeapMemory::new(setup.memory_bytes()), setup);
            ops.into_iter().for_each(|op| machine.apply(Op::decode(op)));
            machine.drain();
            Ok(())
        })
        .expect("holds");
}

#[test]
fn random_bytes_heads_and_mutations() {
    use proptest::prelude::*;
    let strategy = prop::collection::vec(any::<u8>(), 0..300);
    rig::runner(3000)
        .run(&strategy, |data| {
            run(&data);
            Ok(())
        })
        .expect("holds");
}

fn ring_of(capacity_bytes: u64, slot_bytes: u32) -> (HeapMemory, SlotGeometry) {
    let memory = HeapMemory::new(ring::CONTROL_BYTES + capacity_bytes);
    let data = ring::CONTROL_BYTES;
    let geometry = SlotGeometry::new(&memory, 0, data, capacity_bytes, slot_bytes).expect("valid");
    (memory, geometry)
}

#[test]
fn f18_a_count_that_no_producer_writes_poisons() {
    let (memory, geometry) = ring_of(256, 8);
    let block = ring::CONTROL_BYTES;
    for (taken, lie) in [(0, 8), (0, 9), (0, u64::MAX), (0, 64), (2, 1), (2, 0), (2, 8)] {
        memory.store_u64(ring::HEAD, 0, Ordering::Relaxed);
        memory.store_u64(block, 0, Ordering::Relaxed);
        let mut producer = SlotProducer::attach(memory.clone(), geometry).expect("empty");
        let mut consumer = SlotConsumer::attach(memory.clone(), geometry).expect("empty");
        for _ in 0..taken {
            producer.try_push(&[7; 8]).expect("room");
            assert_eq!(consumer.peek(), Ok(true));
            consumer.advance();
        }
        memory.store_u64(block, lie, Ordering::Relaxed);
        let found = consumer.peek().expect_err("poison");
        assert!(matches!(found, Corruption::Record { header, .. } if header == lie), "{found}");
        // It latches, whatever stands there then.
        memory.store_u64(block, taken + 1, Ordering::Relaxed);
        assert_eq!(consumer.peek(), Err(found));
        assert_eq!(consumer.poisoned(), Some(found));
    }
}

#[test]
fn f23_own_positions_are_private() {
    let (memory, geometry) = ring_of(256, 8);
    let mut producer = SlotProducer::attach(memory.clone(), geometry).expect("empty");
    let mut consumer = SlotConsumer::attach(memory.clone(), geometry).expect("empty");
    for n in 0..3_u64 {
        producer.try_push(&n.to_ne_bytes()).expect("room");
        assert_eq!(consumer.peek(), Ok(true));
        consumer.advance();
        consumer.release();
        // The peer changes what the ends only publish.
        memory.store_u64(ring::TAIL, 5 << 20, Ordering::Relaxed);
        memory.store_u64(ring::HEAD, 6 << 20, Ordering::Relaxed);
    }
    assert_eq!((producer.tail(), consumer.position()), (3, 3));
}

#[test]
fn impossible_heads_are_not_attached() {
    let (memory, geometry) = ring_of(256, 8);
    for head in [7, 8, 63, 64 + 7] {
        memory.store_u64(ring::HEAD, head, Ordering::Relaxed);
        assert!(SlotConsumer::attach(memory.clone(), geometry).is_err(), "{head}");
        assert!(SlotProducer::attach(memory.clone(), geometry).is_err(), "{head}");
    }
    // One that says that more was taken than is committed.
    memory.store_u64(ring::HEAD, 2, Ordering::Relaxed);
    memory.store_u64(ring::CONTROL_BYTES, 1, Ordering::Relaxed);
    let found = SlotProducer::attach(memory, geometry).expect_err("refused");
    assert_eq!(found, Corruption::Walk { head: 2, capacity_bytes: 256 });
}

#[test]
fn measures_that_no_ring_has_are_refused() {
    let memory = HeapMemory::new(ring::CONTROL_BYTES + 256);
    let new = |capacity, slot| SlotGeometry::new(&memory, 0, ring::CONTROL_BYTES, capacity, slot);
    assert!(matches!(new(256, 0), Err(SegmentError::SlotBytes { found: 0, max: 128 })));
    assert!(matches!(new(256, 129), Err(SegmentError::SlotBytes { found: 129, max: 128 })));
    assert!(matches!(new(96, 8), Err(SegmentError::Capacity { found: 96, .. })));
    assert!(matches!(new(512, 8), Err(SegmentError::TooSmall { .. })));
    assert_eq!(new(256, 128).expect("valid").capacity_messages(), 1);
    assert_eq!(new(256, 8).expect("valid").capacity_messages(), 28);
}
