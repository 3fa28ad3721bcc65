//! Crashes at every store of every operation on a slot ring, and in every order that the stores may
//! become visible in. Survivors must find exactly what was committed, before the operation or after.
#![cfg(not(loom))]

mod rig;

use rig::slots::{Machine, Op, Setup};
use ringway::memory::CrashMemory;

const OPS: [Op; 11] = [
    Op::Push,
    Op::Batch { count: 1, commit: true },
    Op::Batch { count: 3, commit: true },
    Op::Batch { count: 9, commit: true },
    Op::Batch { count: 23, commit: true },
    Op::Batch { count: 9, commit: false },
    Op::Take,
    Op::Advance,
    Op::Release,
    Op::NewProducer,
    Op::NewConsumer,
];

/// Rings of several sizes, empty, filled in part, nearly full, full, with messages that were taken
/// and not released, with what was given up left behind.
fn states() -> Vec<Machine<CrashMemory>> {
    let histories: [&[(Op, u8)]; 7] = [
        &[],
        &[(Op::Push, 3)],
        &[(Op::Push, 7), (Op::Take, 7)],
        &[(Op::Push, 9), (Op::Take, 5), (Op::Advance, 2)],
        &[(Op::Push, 27)],
        &[(Op::Push, 40)],
        &[(Op::Push, 20), (Op::Take, 18), (OPS[5], 1), (Op::Push, 3), (Op::Advance, 1)],
    ];
    let wrap = 0_u64.wrapping_sub(128);
    let setups = [(256, 8, 0), (256, 8, wrap), (256, 16, 128), (64, 8, wrap), (256, 60, wrap)];
    let mut states = Vec::new();
    for (capacity_bytes, slot_bytes, start) in setups {
        let setup = Setup { capacity_bytes, slot_bytes, start };
        for history in histories {
            let mut machine = Machine::new(CrashMemory::new(setup.memory_bytes()), setup);
            for (op, times) in history {
                (0..*times).for_each(|_| machine.apply(*op));
            }
            states.push(machine);
        }
    }
    states
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
            // A single message first: what a dead batch has left behind it must not come with it.
            left.apply(Op::Push);
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
    let ops = [OPS[0], OPS[2], OPS[3], OPS[9]];
    let images: u64 = states().iter().step_by(3).map(|state| crash(state, &ops, 2)).sum();
    println!("{images} images at depth 2");
    assert!(images > 10_000);
}
