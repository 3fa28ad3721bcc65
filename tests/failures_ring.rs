//! The rows of the table of failures that concern the ring. The hostile side is played by writing
//! words; each test is named after its row.
#![cfg(not(loom))]

mod rig;

use rig::hostile::Mutator;
use rig::ops::{DATA, memory_bytes};
use ringway::error::Corruption;
use ringway::layout::{record, ring};
use ringway::memory::{HeapMemory, Memory, Ordering};
use ringway::ring::{Consumer, Producer, PushError, RingGeometry};

const CAPACITY: u64 = 128;

fn ring_at(start: u64) -> (HeapMemory, RingGeometry) {
    let memory = HeapMemory::new(memory_bytes(CAPACITY));
    memory.store_u64(ring::HEAD, start, Ordering::Relaxed);
    let geometry = RingGeometry::new(&memory, 0, DATA, CAPACITY, 8).expect("valid");
    (memory, geometry)
}

fn producer(memory: &HeapMemory, geometry: RingGeometry) -> Producer<HeapMemory> {
    Producer::attach(memory.clone(), geometry).expect("attach")
}

fn consumer(memory: &HeapMemory, geometry: RingGeometry) -> Consumer<HeapMemory> {
    Consumer::attach(memory.clone(), geometry).expect("attach")
}

fn put(memory: &HeapMemory, index: u64, word: u64) {
    memory.store_u64(DATA + index % CAPACITY, word, Ordering::Release);
}

#[test]
fn f01_producer_killed_while_writing_a_record() {
    let (memory, geometry) = ring_at(64);
    let mut first = producer(&memory, geometry);
    first.try_push(1, b"committed").expect("room");
    let mut reservation = first.try_reserve(2, 40).expect("room");
    reservation.write(&[0xff; 40]);
    // Killed: neither has a destructor that could do anything.
    drop(reservation);
    let mut batch = first.batch();
    batch.push(3, b"one").expect("room");
    batch.push(4, b"two").expect("room");
    drop(batch);

    let mut consumer = consumer(&memory, geometry);
    let record = consumer.peek().expect("valid").expect("committed");
    assert_eq!(record.tag(), 1);
    consumer.advance(&record);
    assert_eq!(consumer.peek(), Ok(None));
    let mut second = producer(&memory, geometry);
    second.try_push(5, b"next").expect("room");
    let record = consumer.peek().expect("valid").expect("committed");
    assert_eq!(record.tag(), 5);
    consumer.advance(&record);
    assert_eq!(consumer.peek(), Ok(None));
}

#[test]
fn f03_consumer_killed_while_holding_a_record() {
    let (memory, geometry) = ring_at(0);
    producer(&memory, geometry).try_push(7, b"held").expect("room");
    for _ in 0..3 {
        let mut held = consumer(&memory, geometry);
        let record = held.peek().expect("valid").expect("delivered again");
        let mut bytes = [0; 4];
        held.copy_out(&record, &mut bytes);
        assert_eq!((record.tag(), &bytes), (7, b"held"));
        held.advance(&record);
    }
}

/// Counters lie where the peer can write. They are only counted on, so any value must do.
#[test]
fn f17_counters_of_any_value() {
    let (memory, geometry) = ring_at(0);
    for word in (0..ring::CONTROL_BYTES).step_by(8).filter(|word| *word != ring::HEAD) {
        memory.store_u64(word, u64::MAX, Ordering::Relaxed);
    }
    let (mut producer, mut consumer) = (producer(&memory, geometry), consumer(&memory, geometry));
    producer.try_push(0, &[1; 56]).expect("room");
    assert!(matches!(producer.try_push(0, &[1; 56]), Err(PushError::Full { .. })));
    let mut batch = producer.batch();
    batch.push(0, b"x").expect("room");
    assert_eq!(batch.commit(), 1);
    for _ in 0..2 {
        let record = consumer.peek().expect("valid").expect("committed");
        consumer.advance(&record);
        consumer.release();
    }
    assert_eq!(consumer.stats().messages, 1);
    assert_eq!(producer.stats().messages, 1);
    assert_eq!(producer.stats().times_full, 0);
}

/// Every kind of header that no producer writes, at every place.
#[test]
fn f18_corrupt_record_header() {
    for index in (0..CAPACITY).step_by(8) {
        let room = CAPACITY - index;
        let longest = room.min(CAPACITY / 2) as u32 - 8;
        let padding = room as u32 - 8;
        let mut bad: Vec<u64> = (0..=u8::MAX)
            .filter(|kind| !(record::DATA..=record::CALL).contains(kind))
            .map(|kind| record::pack(8, kind, 1))
            .filter(|header| *header != 0)
            .collect();
        bad.extend((0..8).map(|bit| record::pack(0, record::DATA, 0) | 1 << (40 + bit)));
        bad.extend(
            [longest + 1, longest + 8, u32::MAX, u32::MAX - 7, 1 << 31]
                .map(|len| record::pack(len, record::DATA, 0)),
        );
        // Too short for the word that it begins with.
        bad.extend([record::FRAGMENT, record::CALL, record::REPLY].map(|k| record::pack(7, k, 0)));
        for len in [padding.wrapping_sub(8), padding.wrapping_sub(1), padding + 1, padding + 8] {
            bad.push(record::pack(len, record::PADDING, 0));
        }
        bad.push(record::pack(padding, record::PADDING, 1));
        if room > CAPACITY / 2 {
            // Padding longer than the record that made it necessary.
            bad.push(record::pack(padding, record::PADDING, 0));
        }
        for header in bad {
            let (memory, geometry) = ring_at(index);
            put(&memory, index, header);
            let found = Corruption::Record { header, position: index, capacity_bytes: CAPACITY };
            let mut consumer = consumer(&memory, geometry);
            assert_eq!(consumer.peek(), Err(found), "{header:#x} at {index}");
            assert_eq!(Producer::attach(memory.clone(), geometry).err(), Some(found));
            // It latches, whatever the peer writes then.
            for after in [0, record::pack(8, record::DATA, 1), record::pack(8, 9, 1)] {
                put(&memory, index, after);
                assert_eq!(consumer.peek(), Err(found));
            }
            assert_eq!(consumer.poisoned(), Some(found));
        }
        // The longest possible and, near the end, padding are not corrupt.
        for kind in [record::DATA, record::FRAGMENT, record::CALL, record::REPLY] {
            let (memory, geometry) = ring_at(index);
            put(&memory, index, record::pack(longest, kind, 1));
            let found = consumer(&memory, geometry).peek();
            assert_eq!(matches!(found, Ok(Some(_))), kind == record::DATA || longest >= 8);
        }
    }
}

/// A padding record has a data record behind it, or is a lie.
#[test]
fn f18_padding_with_nothing_behind_it() {
    for behind in [0, record::pack(56, record::PADDING, 0), record::pack(57, record::DATA, 0)] {
        let (memory, geometry) = ring_at(96);
        put(&memory, 96, record::pack(24, record::PADDING, 0));
        put(&memory, 0, behind);
        let mut consumer = consumer(&memory, geometry);
        let found = consumer.peek();
        assert!(matches!(found, Err(Corruption::Record { position: 128, .. })), "{found:?}");
        put(&memory, 0, record::pack(8, record::DATA, 0));
        assert_eq!(consumer.peek(), found, "it latches");
    }
}

/// Every head that a consumer could not have published.
#[test]
fn f19_head_rewound_jumped_unaligned() {
    for start in [0, 1 << 32, u64::MAX - 127, 1 << 63] {
        let fill = |memory: &HeapMemory, geometry| {
            let mut producer = producer(memory, geometry);
            for _ in 0..3 {
                producer.try_push(0, &[7; 32]).expect("room");
            }
            producer
        };
        let tail = start + 120;
        let bad = [
            start.wrapping_sub(8),
            start.wrapping_sub(CAPACITY),
            start ^ 1 << 63,
            tail.wrapping_add(8),
            tail.wrapping_add(CAPACITY),
            start + 4,
            start + 1,
            start + 65,
        ];
        for found in bad {
            let (memory, geometry) = ring_at(start);
            let mut producer = fill(&memory, geometry);
            memory.store_u64(ring::HEAD, found, Ordering::Release);
            let corruption = Corruption::Head { found, known: start, tail };
            assert_eq!(producer.try_push(0, b"x"), Err(PushError::Corrupt(corruption)));
            assert_eq!(producer.poisoned(), Some(corruption));
            // It latches, in every call, also where the head is possible again.
            memory.store_u64(ring::HEAD, tail, Ordering::Release);
            let latched = Err(PushError::Corrupt(corruption));
            assert_eq!(producer.try_push(0, b"x"), latched);
            assert_eq!(producer.try_push(0, &[0; 500]), latched);
            assert_eq!(producer.try_push_vectored(0, &[]), latched);
            assert_eq!(producer.try_reserve(0, 1).map(|_| ()), latched);
            assert_eq!(producer.batch().push(0, b"x"), latched);
            assert_eq!(producer.has_room(start), Err(corruption));
        }
        // Every head between is believed, even where no record starts.
        for found in (start..=tail).step_by(8) {
            let (memory, geometry) = ring_at(start);
            let mut producer = fill(&memory, geometry);
            memory.store_u64(ring::HEAD, found, Ordering::Release);
            assert_eq!(producer.has_room(found), Ok(true));
        }
    }
}

/// What a batch holds is not committed: a head among it is a lie.
#[test]
fn f19_head_inside_an_uncommitted_batch() {
    let (memory, geometry) = ring_at(0);
    let mut producer = producer(&memory, geometry);
    let mut batch = producer.batch();
    for _ in 0..3 {
        batch.push(0, &[7; 32]).expect("room");
    }
    memory.store_u64(ring::HEAD, 40, Ordering::Release);
    let corruption = Corruption::Head { found: 40, known: 0, tail: 0 };
    assert_eq!(batch.push(0, &[7; 32]), Err(PushError::Corrupt(corruption)));
}

#[test]
fn f19_unaligned_head_at_attach() {
    for found in [1, 4, 7, u64::MAX] {
        let (memory, geometry) = ring_at(found);
        assert!(matches!(
            Producer::attach(memory.clone(), geometry),
            Err(Corruption::Walk { head, .. }) if head == found
        ));
        assert!(matches!(
            Consumer::attach(memory, geometry),
            Err(Corruption::Head { found: head, .. }) if head == found
        ));
    }
}

/// Headers all around: an attaching producer stops after one lap; a consumer takes one record a
/// call, and padding never leads to padding.
#[test]
fn f20_endless_records_and_padding() {
    for len in [0, 8, 24, 56] {
        let (memory, geometry) = ring_at(0);
        for index in (0..CAPACITY).step_by(8) {
            put(&memory, index, record::pack(len, record::DATA, 0));
        }
        let walk = Corruption::Walk { head: 0, capacity_bytes: CAPACITY };
        assert_eq!(Producer::attach(memory.clone(), geometry).err(), Some(walk));
        let mut consumer = consumer(&memory, geometry);
        let before = consumer.stats().messages;
        for taken in 0..100 {
            assert_eq!(consumer.stats().messages, before + taken);
            let Ok(Some(record)) = consumer.peek() else { break };
            consumer.advance(&record);
        }
    }
    // A full ring is not a lap: the word behind the last record is zero.
    let (memory, geometry) = ring_at(0);
    let mut full = producer(&memory, geometry);
    full.try_push(0, &[1; 56]).expect("room");
    full.try_push(0, &[1; 48]).expect("room");
    assert!(Producer::attach(memory, geometry).is_ok());
}

/// The header changes between any two reads: what was checked is what is used.
#[test]
fn f23_header_changed_between_two_reads() {
    let good = record::pack(16, record::DATA, 1);
    let bad = [record::pack(u32::MAX, record::DATA, 1), record::pack(8, 77, 1), 0, u64::MAX];
    for changed in bad {
        for after in 0..6 {
            let (heap, geometry) = ring_at(0);
            put(&heap, 0, good);
            let memory = Mutator::new(heap, vec![(after, DATA, changed)]);
            let mut consumer = Consumer::attach(memory.clone(), geometry).expect("attach");
            memory.start();
            let mut bytes = [0xee; 64];
            match consumer.peek() {
                Ok(Some(record)) => {
                    assert_eq!((record.len_bytes(), record.tag()), (16, 1));
                    consumer.copy_out(&record, &mut bytes);
                    assert_eq!(bytes[16..], [0xee; 48]);
                    consumer.advance(&record);
                    assert!(consumer.release());
                    assert_eq!(memory.load_u64(ring::HEAD, Ordering::Relaxed), 24);
                }
                Ok(None) => assert_eq!((after, changed), (0, 0)),
                Err(_) => assert_eq!(after, 0, "one read, so only a change before it shows"),
            }
        }
    }
}

/// Positions an end has published are never read back.
#[test]
fn f23_own_positions_are_private() {
    let (memory, geometry) = ring_at(0);
    let (mut producer, mut consumer) = (producer(&memory, geometry), consumer(&memory, geometry));
    for n in 0..20 {
        memory.store_u64(ring::TAIL, u64::MAX - n, Ordering::Release);
        producer.try_push(n as u16, b"message").expect("room");
        let record = consumer.peek().expect("valid").expect("committed");
        assert_eq!(record.tag(), n as u16);
        consumer.advance(&record);
        consumer.release();
        let head = memory.load_u64(ring::HEAD, Ordering::Relaxed);
        // The consumer does not look at its own head; the producer is shown the right one again.
        memory.store_u64(ring::HEAD, head ^ 0xff00, Ordering::Release);
        assert_eq!(consumer.peek(), Ok(None));
        memory.store_u64(ring::HEAD, head, Ordering::Release);
    }
}
