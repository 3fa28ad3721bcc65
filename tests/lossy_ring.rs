//! The lossy ring against a naive list of messages: every length, every place, every crash.
#![cfg(not(loom))]

mod rig;

use rig::lossy::{Machine, Op, Setup, memory_bytes};
use ringway::memory::{CrashMemory, FenceMode, HeapMemory, MappedMemory, Memory};
use ringway::segment::{AnonymousSegment, ChannelGeometry};

fn machine<M: Memory + std::fmt::Debug>(memory: M, setup: Setup) -> Machine<M> {
    Machine::new(memory, setup)
}

fn mapped(len_bytes: u64) -> MappedMemory {
    let capacity = len_bytes.next_power_of_two();
    let geometry = ChannelGeometry::records([capacity, 64], 8, FenceMode::Real);
    let memory = AnonymousSegment::create(&geometry).expect("a segment").memory().clone();
    // The test lays its ring over the segment as if it were plain memory.
    for at in (0..4096).step_by(8) {
        memory.store_u64(at, 0, ringway::memory::Ordering::Relaxed);
    }
    memory
}

/// Every length at every place, taken at once; then so many that most are lost.
fn every_length<M: Memory + std::fmt::Debug>(make: impl Fn(u64) -> M) {
    for capacity_bytes in [128, 256, 1024] {
        let max = (capacity_bytes / 4 - 16) as u8;
        let step = if capacity_bytes > 256 { 7 } else { 1 };
        for len in (0..=max.min(239)).step_by(step) {
            let setup = Setup { capacity_bytes, start: 0, first: 0 };
            let mut machine = machine(make(memory_bytes(capacity_bytes)), setup);
            for tag in 0..40 {
                machine.apply(Op::Push { len, tag });
                machine.apply(Op::Take);
            }
            for count in 0..40 {
                machine.apply(Op::Burst { len, count });
                machine.apply(Op::Take);
                machine.apply(Op::Take);
            }
            machine.drain();
        }
    }
}

#[test]
fn every_length_on_the_heap() {
    every_length(HeapMemory::new);
}

#[test]
fn every_length_in_mapped_memory() {
    every_length(mapped);
}

/// f22: positions and numbers pass 2^64 with records of every length.
#[test]
fn f22_positions_and_numbers_wrap() {
    for capacity_bytes in [128, 512] {
        for before in 0..=capacity_bytes / 8 {
            let (start, first) = (0_u64.wrapping_sub(before * 8), 0_u64.wrapping_sub(before % 9));
            let setup = Setup { capacity_bytes, start, first };
            let mut machine = machine(HeapMemory::new(memory_bytes(capacity_bytes)), setup);
            for len in 0..40 {
                machine.apply(Op::Push { len: len % 17, tag: len });
                machine.apply(Op::Take);
                machine.apply(Op::Burst { len, count: len });
                machine.apply(Op::NewProducer);
                machine.apply(Op::NewConsumer);
                machine.apply(Op::Take);
            }
            machine.drain();
        }
    }
}

#[test]
fn random_operations() {
    use proptest::prelude::*;
    let strategy = (any::<[u8; 2]>(), prop::collection::vec(any::<[u8; 3]>(), 1..120));
    rig::runner(300)
        .run(&strategy, |(setup, ops)| {
            let setup = Setup::decode(setup);
            let mut machine = machine(HeapMemory::new(memory_bytes(setup.capacity_bytes)), setup);
            ops.into_iter().for_each(|op| machine.apply(Op::decode(op)));
            machine.drain();
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

const OPS: [Op; 8] = [
    Op::Push { len: 0, tag: 1 },
    Op::Push { len: 13, tag: 2 },
    Op::Push { len: 16, tag: 3 },
    Op::Burst { len: 5, count: 3 },
    Op::Take,
    Op::Settle,
    Op::NewProducer,
    Op::NewConsumer,
];

/// Rings of 128 bytes: empty, before the wrap, with losses that are settled and that are not.
fn states() -> Vec<Machine<CrashMemory>> {
    let push = |len| Op::Push { len, tag: 9 };
    let burst = |count| Op::Burst { len: 3, count };
    let histories: [(u64, &[Op]); 8] = [
        (0, &[]),
        (u64::MAX - 7, &[]),
        (96, &[push(16)]),
        (0, &[burst(5), Op::Take]),
        (72, &[burst(9)]),
        (8, &[burst(9), Op::Take, Op::Take]),
        (8, &[burst(9), Op::Take, Op::Settle, burst(13), Op::Take]),
        (40, &[burst(9), Op::Take, burst(8), Op::Take, burst(7), Op::Take, burst(6)]),
    ];
    let build = |(start, history): (u64, &[Op])| {
        let setup = Setup { capacity_bytes: 128, start, first: start / 8 };
        let mut machine = machine(CrashMemory::new(memory_bytes(128)), setup);
        history.iter().for_each(|op| machine.apply(*op));
        machine
    };
    histories.into_iter().map(build).collect()
}

/// Both ends die at every store of every operation, in every order in which the stores may become
/// visible; their successors do so again in their first operation.
fn crash(state: &Machine<CrashMemory>, depth: u32) -> u64 {
    let mut images = 0;
    for op in OPS {
        for mut left in state.snapshot().crashes(op) {
            images += 1;
            if depth > 1 {
                images += crash(&left, depth - 1);
            }
            left.apply(Op::Take);
            left.drain();
        }
    }
    images
}

#[test]
fn f01_every_operation_dies_at_every_store() {
    let images: u64 = states().iter().map(|state| crash(state, 1)).sum();
    println!("{images} images");
    assert!(images > 500);
}

#[test]
fn f06_successors_die_too() {
    let images: u64 = states().iter().map(|state| crash(state, 2)).sum();
    println!("{images} images at depth 2");
    assert!(images > 10_000);
}

/// Random histories whose last operation crashes, and then more of them: what the crash has left
/// half done never comes into effect.
#[test]
fn random_histories_and_what_follows_a_crash() {
    use proptest::prelude::*;
    let ops = |most| prop::collection::vec(any::<[u8; 3]>(), 0..most);
    rig::runner(150)
        .run(
            &(any::<[u8; 2]>(), ops(30), any::<[u8; 3]>(), ops(12)),
            |(setup, before, op, then)| {
                let setup = Setup::decode(setup);
                let memory = CrashMemory::new(memory_bytes(setup.capacity_bytes));
                let mut machine = machine(memory, setup);
                before.into_iter().for_each(|op| machine.apply(Op::decode(op)));
                for mut left in machine.crashes(Op::decode(op)).take(40) {
                    then.iter().for_each(|op| left.apply(Op::decode(*op)));
                    left.drain();
                }
                Ok(())
            },
        )
        .unwrap_or_else(|failure| panic!("{failure}"));
}

/// Random bytes and random scripts of a peer that changes words: no panic, no overrun.
#[test]
fn f18_arbitrary_rings_and_mutators() {
    use proptest::prelude::*;
    let strategy = prop::collection::vec(any::<u8>(), 2..700);
    rig::runner(600)
        .run(&strategy, |data| {
            rig::lossy_bytes::run(&data);
            rig::lossy::run(&data);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}
