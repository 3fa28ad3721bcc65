//! What the loom models share: a ring in the model memory, and ends that wait by yielding.

use ringway::layout::{record, ring};
use ringway::memory::{Memory, ModelMemory, Ordering};
use ringway::ring::{Consumer, Producer, PushError, RingGeometry};

/// Where the data of the model's ring starts.
const DATA: u64 = ring::CONTROL_BYTES;

/// A ring of `capacity_bytes` whose first record will stand at position `start`. It has been used
/// before: every other word holds what could be the header of an old record.
pub fn ring(capacity_bytes: u64, start: u64) -> (ModelMemory, RingGeometry) {
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
    let data = (DATA..DATA + capacity_bytes).step_by(8);
    let len_bytes = DATA + capacity_bytes + ringway::layout::RING_SLACK_BYTES;
    let memory = ModelMemory::new(len_bytes, halves, control.chain(data));
    let geometry = RingGeometry::new(&memory, 0, DATA, capacity_bytes, 8).expect("geometry");
    memory.store_u64(ring::HEAD, start, Ordering::Relaxed);
    let old = record::pack(8, record::DATA, 0xbad);
    for index in (0..capacity_bytes).step_by(8).filter(|index| *index != start % capacity_bytes) {
        memory.store_u64(DATA + index, old, Ordering::Relaxed);
    }
    (memory, geometry)
}

/// Both ends of such a ring.
pub fn ends(capacity_bytes: u64, start: u64) -> (Producer<ModelMemory>, Consumer<ModelMemory>) {
    let (memory, geometry) = ring(capacity_bytes, start);
    let producer = Producer::attach(memory.clone(), geometry).expect("attach");
    (producer, Consumer::attach(memory, geometry).expect("attach"))
}

/// The payload of message `n`: different in every byte from its neighbours.
pub fn payload(n: u16, len: usize) -> Vec<u8> {
    (0..len).map(|at| (n as u8 + 1).wrapping_mul(16).wrapping_add(at as u8)).collect()
}

/// Pushes message `n`, yielding while there is no room.
pub fn push(producer: &mut Producer<ModelMemory>, n: u16, len: usize) {
    loop {
        match producer.try_push(n, &payload(n, len)) {
            Ok(()) => return,
            Err(PushError::Full { .. }) => producer.memory().pause(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Takes message `n` if it is there, checks it, releases it.
pub fn try_take(consumer: &mut Consumer<ModelMemory>, n: u16, len: usize) -> bool {
    let Some(record) = consumer.peek().expect("no corruption") else { return false };
    check(consumer, &record, n, len);
    consumer.advance(&record);
    consumer.release();
    true
}

/// Checks that this record is message `n`.
pub fn check(consumer: &Consumer<ModelMemory>, record: &ringway::ring::Record, n: u16, len: usize) {
    assert_eq!((record.tag(), record.len_bytes()), (n, len));
    let mut bytes = vec![0; len];
    consumer.copy_out(record, &mut bytes);
    assert_eq!(bytes, payload(n, len));
}

/// Takes message `n`, yielding until it is there.
pub fn take(consumer: &mut Consumer<ModelMemory>, n: u16, len: usize) {
    while !try_take(consumer, n, len) {
        consumer.memory().pause();
    }
}
