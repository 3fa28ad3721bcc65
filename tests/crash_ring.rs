//! Crashes at every store of every operation on a ring, and in every order that the stores may
//! become visible in. Survivors must find exactly what was committed, before the operation or after.
//!
//! `RINGWAY_CRASH_DEPTH` says how many operations in a row crash; 2 unless it says otherwise.
#![cfg(not(loom))]

mod rig;

use std::io::IoSlice;

use rig::ops::{End, Machine, Op, Setup, memory_bytes};
use ringway::layout::{RING_SLACK_BYTES, ring};
use ringway::memory::{CrashMemory, FenceMode, Memory, Ordering};
use ringway::ring::{Assembly, Consumer, Fragments, Producer, RecordKind, RingGeometry};
use ringway::segment::{AnonymousSegment, ChannelGeometry};

const OPS: [Op; 16] = [
    Op::Push { len: 0, tag: 1 },
    Op::Push { len: 13, tag: 2 },
    Op::Push { len: 24, tag: 3 },
    Op::Vectored { len: 19, split: 3 },
    Op::Reserve { len: 24, filled: 24, end: End::Commit },
    Op::Reserve { len: 24, filled: 5, end: End::Commit },
    Op::Reserve { len: 24, filled: 5, end: End::CommitFilled },
    Op::Reserve { len: 24, filled: 9, end: End::Abort },
    Op::Batch { count: 2, len: 3, commit: true },
    Op::Batch { count: 3, len: 8, commit: true },
    Op::Batch { count: 3, len: 8, commit: false },
    Op::Take,
    Op::Advance,
    Op::Release,
    Op::NewProducer,
    Op::NewConsumer,
];

/// Rings of 64 bytes: empty, before the wrap, nearly full, full, with padding, with records taken
/// but not released, with what was given up left behind.
fn states() -> Vec<Machine<CrashMemory>> {
    let push = |len| Op::Push { len, tag: 9 };
    let histories: [(u64, &[Op]); 9] = [
        (0, &[]),
        (u64::MAX - 7, &[]),
        (48, &[push(8)]),
        (40, &[push(24)]),
        (0, &[push(24), push(8)]),
        (8, &[push(8), push(8), push(0)]),
        (56, &[push(0), push(8), Op::Advance]),
        (32, &[push(8), push(8), Op::Advance, Op::Advance]),
        (16, &[OPS[10], push(0), OPS[7]]),
    ];
    let build = |(start, history): (u64, &[Op])| {
        let setup = Setup { capacity_bytes: 64, align: 8, start };
        let mut machine = Machine::new(CrashMemory::new(memory_bytes(64)), setup);
        history.iter().for_each(|op| machine.apply(*op));
        machine
    };
    histories.into_iter().map(build).collect()
}

/// Everything that may be left after crashes in `depth` of these operations, one after the other,
/// drained. Returns how many images were recovered on.
fn crash(state: &Machine<CrashMemory>, ops: &[Op], depth: u32) -> u64 {
    let mut images = 0;
    for op in ops {
        for mut left in state.snapshot().crashes(*op) {
            images += 1;
            if depth > 1 {
                images += crash(&left, ops, depth - 1);
            }
            left.drain();
            left.apply(Op::Push { len: 24, tag: 4 });
            left.drain();
        }
    }
    images
}

#[test]
fn every_operation_at_every_store() {
    let images: u64 = states().iter().map(|state| crash(state, &OPS, 1)).sum();
    println!("{images} images");
    assert!(images > 1000);
}

#[test]
fn successors_crash_too() {
    let depth = std::env::var("RINGWAY_CRASH_DEPTH").ok().and_then(|depth| depth.parse().ok());
    let ops = [OPS[1], OPS[5], OPS[8], OPS[10], OPS[11], OPS[12], OPS[14]];
    let depth = depth.unwrap_or(2);
    let images: u64 = states().iter().map(|state| crash(state, &ops, depth)).sum();
    println!("{images} images at depth {depth}");
    assert!(images > 10_000);
}

/// Death between header and `tail`, then consumption, then a second death. A producer
/// that walked from `tail` would lose the record that its predecessor's successor wrote.
#[test]
fn a_stale_tail_misleads_nobody() {
    for state in states() {
        for mut left in state.snapshot().crashes(OPS[1]) {
            left.drain();
            for mut left in left.crashes(Op::Push { len: 13, tag: 7 }) {
                left.apply(Op::NewProducer);
                left.apply(Op::Push { len: 3, tag: 8 });
                left.drain();
            }
        }
    }
}

/// Larger rings, all alignments, random histories: the last operation crashes.
#[test]
fn random_histories() {
    use proptest::prelude::*;
    let strategy =
        (any::<[u8; 2]>(), prop::collection::vec(any::<[u8; 3]>(), 0..40), any::<[u8; 3]>());
    rig::runner(150)
        .run(&strategy, |(setup, history, last)| {
            let setup = Setup::decode(setup);
            let memory = CrashMemory::new(memory_bytes(setup.capacity_bytes));
            let mut machine = Machine::new(memory, setup);
            history.into_iter().for_each(|op| machine.apply(Op::decode(op)));
            machine.crashes(Op::decode(last)).for_each(|mut left| left.drain());
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

/// The same images over a mapped segment: both ends attach there as they do on the heap.
#[test]
fn images_over_a_mapped_segment() {
    let segment =
        AnonymousSegment::create(&ChannelGeometry::records([8192, 64], 8, FenceMode::Real))
            .expect("a segment");
    let memory = segment.memory();
    let geometry = RingGeometry::new(memory, 0, ring::CONTROL_BYTES, 64, 8).expect("valid");
    for state in states() {
        for op in OPS {
            for left in state.snapshot().crashes(op) {
                let words = left.memory().to_words();
                let end = ring::CONTROL_BYTES + 64 + RING_SLACK_BYTES;
                for (at, word) in (0..end).step_by(8).zip(&words) {
                    memory.store_u64(at, *word, Ordering::Relaxed);
                }
                let mut producer = Producer::attach(memory.clone(), geometry).expect("attach");
                let mut consumer = Consumer::attach(memory.clone(), geometry).expect("attach");
                let mut found = Vec::new();
                while let Some(record) = consumer.peek().expect("valid") {
                    let mut bytes = vec![0; record.len_bytes()];
                    consumer.copy_out(&record, &mut bytes);
                    consumer.advance(&record);
                    found.push((record.tag(), bytes));
                }
                assert_eq!(found, left.contents());
                consumer.release();
                producer.try_push(1, &[9; 24]).expect("room");
                assert_eq!(consumer.peek().expect("valid").map(|record| record.tag()), Some(1));
            }
        }
    }
}

/// A long message dies at every store, in every order that the stores may become visible in: a new
/// pair of ends finds the whole of it or nothing, and the next message whole.
#[test]
fn f43_a_message_in_fragments_at_every_store() {
    let long: Vec<u8> = (0..60).map(|at| at as u8 | 1).collect();
    let parts = [IoSlice::new(&long)];
    let mut images = 0;
    for start in [0, 8, 40, 56, u64::MAX - 23] {
        for (aborts, keeps_up) in [(false, false), (false, true), (true, false), (true, true)] {
            let memory = CrashMemory::new(memory_bytes(256));
            memory.store_u64(ring::HEAD, start, Ordering::Relaxed);
            let geometry = RingGeometry::new(&memory, 0, ring::CONTROL_BYTES, 256, 8)
                .expect("valid")
                .with_max_message_bytes(100);
            let mut producer = Producer::attach(memory.clone(), geometry).expect("attach");
            let mut consumer = Consumer::attach(memory.clone(), geometry).expect("attach");
            let mut pieces = Fragments::new(RecordKind::Data, 1, &parts);
            let mut last = false;
            while !last {
                memory.record();
                if aborts && pieces.is_midway() {
                    producer.try_push_abort().expect("room");
                    last = true;
                } else {
                    last = pieces.try_push_next(&mut producer).expect("room");
                }
                // All of it, where all of it was sent and is still there.
                let mut wholes = 0;
                for image in memory.crash().images() {
                    images += 1;
                    let found = recover(image.to_memory(), geometry);
                    wholes += u32::from(found == long);
                    assert!(found.is_empty() || found == long, "{image}");
                }
                assert_eq!(wholes > 0, last && !aborts && !keeps_up);
                if keeps_up {
                    let record = consumer.peek().expect("valid").expect("a piece");
                    consumer.advance(&record);
                    consumer.release();
                }
            }
        }
    }
    println!("{images} images");
    assert!(images > 200);
}

/// What new ends make of an image: the message that was in the ring; then they go on.
fn recover(memory: CrashMemory, geometry: RingGeometry) -> Vec<u8> {
    let mut consumer = Consumer::attach(memory.clone(), geometry).expect("attach");
    let mut assembly = Assembly::default();
    let mut found = Vec::new();
    let mut take = |consumer: &mut Consumer<CrashMemory>| {
        let mut last = Vec::new();
        while let Some(record) = consumer.peek().expect("valid") {
            assert_eq!(record.kind(), RecordKind::Fragment);
            if let Some(whole) = assembly.absorb(consumer, &record).expect("no lie") {
                last = assembly.message(whole.len_bytes()).to_vec();
            }
            consumer.release();
        }
        last
    };
    found.extend(take(&mut consumer));
    let mut producer = Producer::attach(memory, geometry).expect("attach");
    let next = [7; 70];
    let parts = [IoSlice::new(&next)];
    let mut pieces = Fragments::new(RecordKind::Data, 2, &parts);
    loop {
        let last = pieces.try_push_next(&mut producer).expect("room");
        let taken = take(&mut consumer);
        assert_eq!(taken, if last { &next[..] } else { &[] });
        if last {
            return found;
        }
    }
}
