//! The seeds of the fuzz targets. `RINGWAY_WRITE_SEEDS=1` writes them to `fuzz/corpus`; otherwise
//! the tests check that what is committed there is what would be written, and run it.
#![cfg(not(loom))]

mod rig;

use std::path::PathBuf;

use rig::header::{HEADER_BYTES, attach_header};
use rig::hostile::{consumer_bytes, consumer_mutator, fragments, producer_head};
use rig::op::{End, Op};
use rig::rpc::rpc_frames;
use ringway::layout::record;
use ringway::memory::FenceMode;
use ringway::segment::{AnonymousSegment, ChannelGeometry};

/// Writes or checks the seeds of a target, and runs them.
fn seeds(target: &str, seeds: &[Vec<u8>], run: fn(&[u8])) {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let write = std::env::var_os("RINGWAY_WRITE_SEEDS").is_some();
    if write {
        std::fs::create_dir_all(&directory).expect("a directory for the seeds");
    }
    for (n, seed) in seeds.iter().enumerate() {
        let path = directory.join(format!("seed-{n:02}"));
        if write {
            std::fs::write(&path, seed).expect("written");
        }
        let found = std::fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        assert_eq!(&found, seed, "{path:?} is stale: run with RINGWAY_WRITE_SEEDS=1");
        run(seed);
    }
}

#[test]
fn ring_ops() {
    let push = |len| Op::Push { len, tag: len };
    let lists: [&[Op]; 8] = [
        &[push(8), Op::Take, push(0), push(24), Op::Take, Op::Take],
        &[push(24), push(24), Op::Advance, push(24), Op::Release, push(24)],
        &[Op::Vectored { len: 21, split: 3 }, Op::Take, Op::Vectored { len: 0, split: 0 }],
        &[
            Op::Reserve { len: 24, filled: 3, end: End::Commit },
            Op::Reserve { len: 24, filled: 3, end: End::CommitFilled },
            Op::Reserve { len: 20, filled: 20, end: End::Abort },
            Op::Take,
        ],
        &[
            Op::Batch { count: 3, len: 2, commit: true },
            Op::Batch { count: 7, len: 2, commit: false },
            Op::Take,
        ],
        &[push(9), Op::Advance, Op::NewConsumer, Op::NewProducer, push(1), Op::Take],
        &[push(9), Op::Crash { image: 4 }, push(17), push(3), Op::Take],
        &[Op::Crash { image: 9 }, Op::Batch { count: 2, len: 9, commit: true }, Op::Take],
    ];
    let setups = [[0, 0], [0, 3], [4, 65], [9, 130], [15, 1], [3, 70], [1, 192], [0, 1]];
    let encode = |(ops, setup): (&[Op], [u8; 2])| {
        let decoded: Vec<Op> = ops.iter().map(|op| Op::decode(op.encode())).collect();
        assert_eq!(decoded, ops, "decoding undoes encoding");
        setup.into_iter().chain(ops.iter().flat_map(|op| op.encode())).collect()
    };
    let inputs: Vec<Vec<u8>> = lists.into_iter().zip(setups).map(encode).collect();
    seeds("ring_ops", &inputs, rig::ops::run);
}

#[test]
fn consumer_of_bytes() {
    let words = |words: &[u64]| {
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        [0, 0].into_iter().chain(bytes).collect::<Vec<u8>>()
    };
    let data = |len| record::pack(len, record::DATA, 7);
    let inputs = [
        words(&[data(8), 1, data(3), 2, 0]),
        words(&[data(24), 1, 2, 3, record::pack(24, record::PADDING, 0)]),
        words(&[data(0), data(0), data(8), 5, data(25)]),
        words(&[record::pack(8, 9, 0)]),
        words(&[data(8) | 1 << 40]),
        words(&[data(0); 8]),
    ];
    seeds("consumer_bytes", &inputs, consumer_bytes);
}

#[test]
fn producer_and_heads() {
    let step = |flags: u8, number: u64| {
        std::iter::once(flags).chain(number.to_le_bytes()).collect::<Vec<u8>>()
    };
    let input = |setup: [u8; 2], steps: &[(u8, u64)]| {
        let steps = steps.iter().flat_map(|(flags, number)| step(*flags, *number));
        setup.into_iter().chain(steps).collect::<Vec<u8>>()
    };
    let inputs = [
        input([0, 0], &[(0x40, 1), (0x40, 2), (0x40, 4)]),
        input([0, 3], &[(0xf1, 16), (0xf2, 0), (0xf1, u64::MAX)]),
        input([5, 65], &[(0x30, 3), (0xf3, u64::MAX - 7)]),
        input([2, 0], &[(0x20, 2), (0xf1, 4)]),
    ];
    seeds("producer_head", &inputs, producer_head);
}

#[test]
fn ends_and_a_mutator() {
    let inputs = [
        vec![0, 0],
        vec![0, 0, 3, 0, 8, 1, 3, 2, 9, 2],
        vec![0, 3, 10, 1, 255, 1, 5, 0, 0, 0, 140, 2, 255, 7],
        vec![5, 65, 64, 32, 1, 1, 70, 33, 8, 0],
    ];
    seeds("consumer_mutator", &inputs, consumer_mutator);
}

#[test]
fn headers_of_segments() {
    let header = |capacity_bytes, align| {
        let segment = AnonymousSegment::create(&ChannelGeometry::records(
            capacity_bytes,
            align,
            FenceMode::Real,
        ));
        // The incarnation is random; a seed is not.
        let mut geometry = *segment.expect("a segment").geometry();
        geometry.incarnation = 0x0123_4567_89ab_cdef;
        geometry.to_header().expect("valid")
    };
    let input = |flags: u8, header: [u8; HEADER_BYTES]| {
        std::iter::once(flags).chain(header).collect::<Vec<u8>>()
    };
    let mut inputs = vec![
        input(0, header([64, 64], 8)),
        input(2, header([4096, 65536], 64)),
        input(3, header([1 << 20, 64], 16)),
    ];
    for at in [8, 12, 16, 24, 48, 64, 68] {
        let mut damaged = header([256, 256], 8);
        damaged[at] ^= 0x11;
        inputs.push(input(3, damaged));
    }
    seeds("attach_header", &inputs, attach_header);
}

#[test]
fn lossy_rings() {
    use rig::lossy::Op;
    let push = |len| Op::Push { len, tag: len };
    let burst = |count| Op::Burst { len: 9, count };
    let lists: [&[Op]; 6] = [
        &[push(8), Op::Take, push(0), push(16), Op::Take, Op::Take],
        &[burst(20), Op::Take, burst(9), Op::Take, Op::Settle, burst(30), Op::Take],
        &[burst(7), Op::NewProducer, burst(7), Op::NewConsumer, Op::Take],
        &[burst(5), Op::Crash { image: 3 }, burst(2), Op::Take, push(1), Op::Take],
        &[burst(39), Op::Take, Op::Crash { image: 1 }, Op::Settle, Op::Take],
        &[push(200), burst(39), Op::Take, burst(39), Op::Take, burst(39), Op::Take],
    ];
    let setups = [[0, 0], [0, 3], [1, 140], [2, 255], [128, 9], [3, 1]];
    let encode = |(ops, setup): (&[Op], [u8; 2])| {
        let decoded: Vec<Op> = ops.iter().map(|op| Op::decode(op.encode())).collect();
        assert_eq!(decoded, ops, "decoding undoes encoding");
        setup.into_iter().chain(ops.iter().flat_map(|op| op.encode())).collect()
    };
    let inputs: Vec<Vec<u8>> = lists.into_iter().zip(setups).map(encode).collect();
    seeds("lossy", &inputs, rig::lossy::run);
}

#[test]
fn lossy_rings_of_bytes() {
    let input = |setup: [u8; 2], script: &[u8], words: &[u64]| {
        let words = words.iter().flat_map(|word| word.to_le_bytes());
        setup.into_iter().chain(script.iter().copied()).chain(words).collect::<Vec<u8>>()
    };
    let data = |len| record::pack(len, record::DATA, 7);
    let script = [3, 0, 16, 1, 69, 0, 200, 0, 130, 4, 1, 1];
    let inputs = [
        input([4, 0], &[], &[]),
        input([4, 3], &script, &[]),
        input([0, 0], &[], &[128, 0, 0, 0, 0, data(8), 0, 1, data(16), 1, 2, 3]),
        input([1, 0], &[], &[256, 8, 3, 8, 2, data(0), 9, data(0), 3]),
        input([0, 2], &script[..8], &[160, 40, 0, 88, 0, data(8), 0, 1]),
    ];
    seeds("lossy_bytes", &inputs, rig::lossy_bytes::run);
}

#[test]
fn messages_in_pieces() {
    let piece = |len: u8, word: [u8; 3]| [len << 2, word[0], word[1], word[2]];
    let input = |steps: &[[u8; 4]]| {
        [2, 0, 30].into_iter().chain(steps.iter().flatten().copied()).collect::<Vec<u8>>()
    };
    let inputs = [
        input(&[piece(20, [60, 1, 1]), piece(20, [20, 0, 0]), piece(20, [40, 0, 0])]),
        input(&[piece(20, [60, 5, 1]), piece(0, [0, 0, 2]), piece(20, [60, 4, 1])]),
        input(&[piece(20, [60, 1, 1]), piece(20, [21, 0, 0])]),
        input(&[piece(20, [60, 1, 1]), [3 | 8 << 2, 0, 0, 0], piece(20, [20, 0, 0])]),
        input(&[[2, 200, 7, 0], [2, 200, 2, 0], [2, 150, 7, 0]]),
        input(&[piece(9, [255, 1, 1]), piece(9, [9, 0, 0]), [2, 130, 7, 0]]),
    ];
    seeds("fragments", &inputs, fragments);
}

#[test]
fn slot_rings() {
    let input = |kind: u8, setup: [u8; 3], rest: &[u8]| [&[kind], &setup[..], rest].concat();
    let head = |flags: u8, number: u64| [&[flags], &number.to_le_bytes()[..]].concat();
    let inputs = [
        input(0, [0, 7, 0], &[0, 0, 2, 21, 4, 0, 5, 0, 6, 0, 7, 0, 3, 0]),
        input(0, [2, 7, 3], &[2, 47, 2, 19, 0, 0, 3, 0, 3, 0, 2, 18, 0, 0]),
        input(0, [4, 60, 1], &[0, 0, 0, 0, 3, 0, 7, 0, 6, 0, 2, 9]),
        input(1, [1, 7, 0], &[7, 0, 0, 0, 0, 0, 0, 0]),
        input(1, [1, 23, 0], &[1; 64]),
        input(2, [1, 7, 0], &[head(0xf0, 3), head(0xf1, 20), head(0xf3, u64::MAX)].concat()),
        input(2, [0, 7, 5], &[head(0x40, 1), head(0x41, 4)].concat()),
        input(3, [1, 7, 0], &[3, 0, 8, 1, 10, 8, 200, 2, 70, 32, 5, 0]),
    ];
    seeds("slots", &inputs, rig::slots::run);
}

#[test]
fn stores_of_bytes() {
    let change = |place: u16, value: u64| {
        place.to_le_bytes().into_iter().chain(value.to_le_bytes()).collect::<Vec<u8>>()
    };
    let changes = [
        change(0, 0),
        change(48, 1 << 32),
        change(1 << 15, u64::MAX),
        change(1 << 15 | 9, 0x4100_0000_0000_0040),
        change(1 << 14 | 3, 0x4100_0000_0000_0001),
    ];
    let mut inputs: Vec<Vec<u8>> = changes.to_vec();
    inputs.push(changes.concat());
    seeds("store_readonly", &inputs, rig::store::readonly);
    // A descriptor by which the table is longer than its object.
    inputs.push(change(0x4070, 1));
    // A word inside of a span of which nothing is left: the rebuild that frees it frees all of its pages.
    let in_a_span = [
        [0].to_vec(),
        change(0x4100, 0x08fc_0000_0000_0140),
        change(0x4a88, 0x8009_0000_ffff_ffff),
    ];
    let inputs: Vec<_> = inputs
        .into_iter()
        .zip([0, 1].into_iter().cycle())
        .map(|(input, flags)| std::iter::once(flags).chain(input).collect())
        .chain(std::iter::once(in_a_span.concat()))
        .collect();
    seeds("store_recovery", &inputs, rig::store::recovery);
}

#[test]
fn operations_on_stores() {
    use rig::store_ops::Op;
    let set = |key, len| Op::Set { key, len };
    let crash = |at, late| Op::Crash { at, late };
    let fill = |first, count| Op::Fill { first, count };
    let lists: [&[Op]; 9] = [
        &[set(1, 9), set(2, 200), Op::Delete { key: 1 }, Op::GiveBack, set(1, 0), Op::Rebuild],
        &[set(1, 9), crash(1 << 15, 0), set(1, 100), crash(u16::MAX, 3), Op::Delete { key: 1 }],
        &[fill(0, 40), fill(41, 40), crash(40_000, 0), Op::Drain { first: 0, count: 60 }],
        &[fill(0, 46), crash(50_000, 5), set(200, 9), Op::Drain { first: 3, count: 63 }],
        &[
            fill(0, 8),
            crash(45_000, 0),
            crash(20_000, 1),
            Op::Batch { first: 5, len: 29, deleted: 0b1010 },
            Op::Batch { first: 0, len: 7, deleted: 0 },
        ],
        &[set(1, 255), set(2, 251), set(3, 250), crash(30_000, 0), set(4, 254), set(1, 3)],
        &[fill(0, 63), crash(33_000, 0), Op::Clear, fill(0, 3), crash(65_000, 255), Op::Clear],
        &[
            set(7, 130),
            Op::Pin { key: 7 },
            set(7, 240),
            Op::Pin { key: 7 },
            crash(9_000, 7),
            Op::GiveBack,
            set(7, 1),
            Op::Unpin,
            crash(1 << 15, 0),
            crash(1 << 15, 0),
            Op::Rebuild,
        ],
        &[
            Op::Batch { first: 0, len: 0xe7, deleted: 0 },
            Op::Batch { first: 8, len: 0xe7, deleted: 0 },
            Op::Drain { first: 2, count: 9 },
            crash(50_000, 0),
            set(90, 255),
            crash(50_000, 0),
            set(91, 247),
        ],
    ];
    let encode = |ops: &[Op]| {
        let decoded: Vec<Op> = ops.iter().map(|op| Op::decode(op.encode())).collect();
        assert_eq!(decoded, ops, "decoding undoes encoding");
        ops.iter().flat_map(|op| op.encode()).collect()
    };
    let inputs: Vec<Vec<u8>> = lists.into_iter().map(encode).collect();
    seeds("store_ops", &inputs, rig::store_ops::run);
}

#[test]
fn frames_of_remote_calls() {
    /// To a server or to a caller: tags and frames.
    fn frames(to_caller: bool, frames: &[(u8, &[&[u8]])]) -> Vec<u8> {
        let mut data = vec![u8::from(to_caller)];
        for (tag, parts) in frames {
            let frame = parts.concat();
            data.extend([*tag, frame.len() as u8]);
            data.extend(frame);
        }
        data
    }
    let (one, two, target) = (1_u64.to_ne_bytes(), 2_u64.to_ne_bytes(), 0_u64.to_ne_bytes());
    let types: &[u8] = &[0; 16];
    let list = [
        // Resolved, called, taken back.
        frames(
            false,
            &[(2, &[b"echo", types, &one]), (1, &[b"text", &two, &target]), (3, &[&two])],
        ),
        frames(false, &[(1, &[b"text", &two, &(1_u64 << 48).to_ne_bytes()])]),
        frames(false, &[(1, &[&one, &two, &(1_u64 << 48).to_ne_bytes()]), (3, &[&one])]),
        frames(false, &[(1, &[&one, &7_u64.to_ne_bytes()]), (9, &[])]),
        // An answer to each request; one that failed; one to nobody.
        frames(true, &[(22, &[&target, &one]), (16, &[b"result", &two])]),
        frames(true, &[(22, &[&target, &one]), (17, &[b"why", &two]), (16, &[&[9; 8]])]),
        frames(true, &[(23, &[types, &one]), (19, &[&two]), (20, &[types, &3_u64.to_ne_bytes()])]),
        frames(true, &[(22, &[&one])]),
    ];
    seeds("rpc_frames", &list, rpc_frames);
}
