//! Models of the slot ring: its shipping source under every interleaving and every value that the
//! orderings allow. Run with `RUSTFLAGS="--cfg loom" cargo test --release --test loom_slots`;
//! `LOOM_MAX_PREEMPTIONS=2` bounds the work. What each model says that it fails with was tried on the
//! source, within that bound.
#![cfg(loom)]

use loom::thread;
use ringway::layout::ring;
use ringway::memory::{Memory, ModelMemory, Ordering};
use ringway::ring::PushError;
use ringway::ring::slots::{SlotConsumer, SlotGeometry, SlotProducer};

const DATA: u64 = ring::CONTROL_BYTES;
/// Slots of 24 bytes, two to a block of 64.
const SLOT_BYTES: u32 = 24;
const BLOCK: u64 = 64;

/// A ring of `blocks` blocks that has been used before, whose first message will be at `start`.
fn ring_at(blocks: u64, start: u64) -> (ModelMemory, SlotGeometry) {
    let capacity = blocks * BLOCK;
    let halves = [
        ring::CONSUMER_WAITING,
        ring::CONSUMER_CLOSED,
        ring::PRODUCER_WAITING,
        ring::PRODUCER_CLOSED,
    ];
    let control = [ring::SPACE_WANTED]
        .into_iter()
        .chain((ring::HEAD..=ring::CONSUMER_MISSED).step_by(8))
        .chain((ring::TAIL..=ring::PRODUCER_MISSED).step_by(8));
    let data = (DATA..DATA + capacity).step_by(8);
    let memory = ModelMemory::new(DATA + capacity, halves, control.chain(data));
    let geometry = SlotGeometry::new(&memory, 0, DATA, capacity, SLOT_BYTES).expect("geometry");
    memory.store_u64(ring::HEAD, start, Ordering::Relaxed);
    for block in (0..blocks).map(|n| start.wrapping_add(n * BLOCK)) {
        let old = block.wrapping_sub(capacity).wrapping_add(2);
        memory.store_u64(DATA + (block & (capacity - 1)), old, Ordering::Relaxed);
    }
    (memory, geometry)
}

fn ends(blocks: u64, start: u64) -> (SlotProducer<ModelMemory>, SlotConsumer<ModelMemory>) {
    let (memory, geometry) = ring_at(blocks, start);
    let producer = SlotProducer::attach(memory.clone(), geometry).expect("attach");
    (producer, SlotConsumer::attach(memory, geometry).expect("attach"))
}

fn message(n: u8) -> [u8; SLOT_BYTES as usize] {
    std::array::from_fn(|at| (n + 1) * 16 + at as u8)
}

fn push(producer: &mut SlotProducer<ModelMemory>, n: u8) {
    loop {
        match producer.try_push(&message(n)) {
            Ok(()) => return,
            Err(PushError::Full { .. }) => producer.memory().pause(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn try_take(consumer: &mut SlotConsumer<ModelMemory>, n: u8) -> bool {
    if !consumer.peek().expect("no corruption") {
        return false;
    }
    let mut bytes = [0; SLOT_BYTES as usize];
    consumer.copy_out(&mut bytes);
    assert_eq!(bytes, message(n));
    consumer.advance();
    true
}

fn take(consumer: &mut SlotConsumer<ModelMemory>, n: u8) {
    while !try_take(consumer, n) {
        consumer.memory().pause();
    }
}

/// One thread sends so many messages, one takes them and gives back after every one or two.
fn stream(blocks: u64, start: u64, messages: u8, release_every: u8) {
    loom::model(move || {
        let (mut producer, mut consumer) = ends(blocks, start);
        let producing = thread::spawn(move || (0..messages).for_each(|n| push(&mut producer, n)));
        for n in 0..messages {
            take(&mut consumer, n);
            if (n + 1) % release_every == 0 {
                consumer.release();
            }
        }
        producing.join().expect("joined");
        assert_eq!(consumer.peek(), Ok(false));
    });
}

/// Fails when the count is stored or read `Relaxed`, or stored before the message.
#[test]
fn messages_of_one_block() {
    stream(2, 0, 2, 1);
}

/// Fails when `head` is stored or read `Relaxed`, or a block is begun before all of it is released.
#[test]
fn a_block_is_used_again() {
    stream(1, 0_u64.wrapping_sub(BLOCK), 3, 1);
}

/// Fails when `head` is stored or read `Relaxed`.
#[test]
fn room_is_given_back_in_portions() {
    stream(1, 64, 4, 2);
}

/// Fails when the first count of a batch is stored `Relaxed`, or before the others.
#[test]
fn a_batch_is_visible_whole_or_not_at_all() {
    for first in [0, 1] {
        loom::model(move || {
            let (mut producer, mut consumer) = ends(2, 0);
            (0..first).for_each(|n| push(&mut producer, n));
            (0..first).for_each(|n| take(&mut consumer, n));
            let producing = thread::spawn(move || {
                let mut batch = producer.batch();
                (first..first + 3).for_each(|n| batch.push(&message(n)).expect("room"));
                assert_eq!(batch.commit(), 3);
            });
            take(&mut consumer, first);
            assert!(try_take(&mut consumer, first + 1), "half a batch");
            assert!(try_take(&mut consumer, first + 2), "half a batch");
            assert_eq!(consumer.peek(), Ok(false));
            producing.join().expect("joined");
        });
    }
}

/// A dead producer has prepared a count behind the one that it did not come to store. Fails when its
/// successor does not take that back.
#[test]
fn a_producer_is_succeeded_while_the_consumer_runs() {
    loom::model(|| {
        let (memory, geometry) = ring_at(2, 0);
        let mut consumer = SlotConsumer::attach(memory.clone(), geometry).expect("attach");
        let producing = thread::spawn(move || {
            let mut first = SlotProducer::attach(memory.clone(), geometry).expect("attach");
            push(&mut first, 0);
            drop(first);
            memory.store_u64(DATA + BLOCK, BLOCK + 1, Ordering::Relaxed);
            let mut second = SlotProducer::attach(memory, geometry).expect("attach");
            push(&mut second, 1);
        });
        take(&mut consumer, 0);
        take(&mut consumer, 1);
        assert_eq!(consumer.peek(), Ok(false));
        producing.join().expect("joined");
        assert_eq!(consumer.peek(), Ok(false));
    });
}

/// A consumer's successor is given again what was not released, while the producer runs.
#[test]
fn a_consumer_is_succeeded_while_the_producer_runs() {
    loom::model(|| {
        let (memory, geometry) = ring_at(2, 128);
        let mut producer = SlotProducer::attach(memory.clone(), geometry).expect("attach");
        let producing = thread::spawn(move || (0..3).for_each(|n| push(&mut producer, n)));
        let mut first = SlotConsumer::attach(memory.clone(), geometry).expect("attach");
        take(&mut first, 0);
        first.release();
        take(&mut first, 1);
        drop(first);
        let mut second = SlotConsumer::attach(memory, geometry).expect("attach");
        take(&mut second, 1);
        take(&mut second, 2);
        producing.join().expect("joined");
    });
}
