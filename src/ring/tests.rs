//! Tests of what only this crate can call; the suites in `tests/` cover the rest.

use super::{Consumer, Producer, PushError, Record, RecordKind, RingGeometry};
use crate::error::Corruption;
use crate::layout::{RING_SLACK_BYTES, record, ring};
use crate::memory::{HeapMemory, Memory, Ordering};

fn ring_of(capacity_bytes: u64, align: u64) -> (HeapMemory, RingGeometry) {
    let data = ring::CONTROL_BYTES;
    let memory = HeapMemory::new(data + capacity_bytes + RING_SLACK_BYTES);
    let geometry = RingGeometry::new(&memory, 0, data, capacity_bytes, align).expect("valid");
    (memory, geometry)
}

fn ends(
    memory: &HeapMemory,
    geometry: RingGeometry,
) -> (Producer<HeapMemory>, Consumer<HeapMemory>) {
    let producer = Producer::attach(memory.clone(), geometry).expect("attach");
    (producer, Consumer::attach(memory.clone(), geometry).expect("attach"))
}

/// The quick decoder accepts what the careful one accepts as a data record, and nothing else, and
/// what it accepts lies inside the ring.
#[test]
fn both_decoders_agree() {
    for (capacity, align) in [(64, 8), (64, 32), (128, 16), (256, 64)] {
        let (_, geometry) = ring_of(capacity, align);
        let max = geometry.max_record_bytes();
        for position in (0..2 * capacity).step_by(align as usize) {
            let step = if cfg!(miri) { 19 } else { 1 };
            let lens =
                (0..=capacity as u32 + 8).step_by(step).chain([1 << 31, u32::MAX - 8, u32::MAX]);
            for len in lens {
                for kind in [0, 1, 2, 3, 4, 5, 6, 255] {
                    for (tag, reserved) in [(0, 0), (7, 0), (0, 1 << 40), (0, 1 << 47)] {
                        let header = record::pack(len, kind, tag) | reserved;
                        let careful = Record::decode(&geometry, position, header).ok();
                        let data = careful.filter(|record| record.is_data());
                        let quick = Record::decode_simple(&geometry, position, header, max);
                        assert_eq!(quick, data, "{header:#x} at {position} of {capacity}");
                        let poisoned = Record::decode_simple(&geometry, position, header, 0);
                        assert_eq!(poisoned, None);
                        let Some(record) = careful else { continue };
                        let end = geometry.index(position) + record.end - record.position;
                        assert!(end <= capacity && record.end > record.position);
                        let word = u64::from(record.kind() != RecordKind::Data) * 8;
                        assert!(
                            record.len_bytes() as u64 + 8 + word <= record.end - record.position
                        );
                    }
                }
            }
        }
    }
}

/// A header that equals the one before it is believed without decoding, but not where its record
/// would leave the ring, and not once the ring is poisoned.
#[test]
fn an_equal_header_is_checked_for_room() {
    let (memory, geometry) = ring_of(64, 8);
    let (mut producer, mut consumer) = ends(&memory, geometry);
    let header = record::pack(16, record::DATA, 7);
    for at in [0, 24] {
        producer.try_push(7, &[1; 16]).expect("room");
        let record = consumer.peek_simple().expect("committed");
        assert_eq!((record.position, record.end, record.len_bytes()), (at, at + 24, 16));
        assert_eq!(record.tag(), 7);
        consumer.advance(&record);
    }
    // 16 bytes are left before the end, and the record would be 24 long.
    memory.store_u64(ring::CONTROL_BYTES + 48, header, Ordering::Relaxed);
    assert_eq!(consumer.peek_simple(), None);
    assert!(matches!(consumer.peek(), Err(Corruption::Record { position: 48, .. })));

    let (memory, geometry) = ring_of(64, 8);
    let (mut producer, mut consumer) = ends(&memory, geometry);
    for _ in 0..2 {
        producer.try_push(7, &[1; 16]).expect("room");
    }
    let record = consumer.peek_simple().expect("committed");
    consumer.advance(&record);
    assert!(consumer.peek_simple().is_some());
    consumer.poison(Corruption::ByPeer);
    assert_eq!(consumer.peek_simple(), None);
    assert_eq!(consumer.poll_simple(3), None);
    assert_eq!(consumer.peek(), Err(Corruption::ByPeer));
}

/// A record fits simply only where the word behind it is free too, in front of the end of the buffer,
/// and while the ring is not poisoned.
#[test]
fn what_fits_simply() {
    let (memory, geometry) = ring_of(64, 8);
    let (mut producer, mut consumer) = ends(&memory, geometry);
    assert!(!producer.push_simple(0, &[0; 8]), "nothing is known before the first record");
    producer.try_push(0, &[0; 8]).expect("room");
    assert!(!producer.push_simple(0, &[0; 32]), "room enough, but longer than half the ring");
    assert!(producer.push_simple(0, &[0; 8]) && producer.push_simple(0, &[0; 8]));
    assert!(!producer.push_simple(0, &[0; 8]), "the word behind it is the first header");
    assert_eq!(producer.try_push(0, &[0; 8]), Err(PushError::Full { head_needed: 8 }));
    for _ in 0..3 {
        let record = consumer.peek().expect("valid").expect("committed");
        consumer.advance(&record);
    }
    consumer.release();
    // 16 bytes are left before the end, then 48.
    producer.try_push(0, &[0; 16]).expect("room");
    assert_eq!(producer.tail(), 64 + 24);
    producer.poison(Corruption::ByPeer);
    assert!(!producer.push_simple(0, &[]));
}

/// Longer than messages may be is too long however much room there is, up to the longest number.
#[test]
fn too_long_is_never_simple() {
    let (memory, geometry) = ring_of(1024, 8);
    let (mut producer, _) = ends(&memory, geometry.with_max_message_bytes(12));
    producer.try_push(0, &[0; 12]).expect("room");
    assert!(producer.push_simple(0, &[0; 12]));
    for len in [13, 16, 17, 100] {
        let too_long = Err(PushError::TooLong { len: len as u64, max: 12 });
        assert_eq!(producer.try_push(0, &vec![0; len]), too_long);
    }
    for len in [13, 1 << 32, usize::MAX - 15, usize::MAX - 8, usize::MAX] {
        assert!(producer.draft_in_place_simple(len).is_none(), "{len}");
        assert!(matches!(producer.draft_in_place(len), Err(PushError::TooLong { .. })));
        assert!(matches!(producer.draft(0, len), Err(PushError::TooLong { .. })));
    }
}

/// A record that is longer than messages may be was written by nobody who follows the protocol.
#[test]
fn f18_a_record_longer_than_the_longest_message() {
    for kind in [record::DATA, record::CALL, record::REPLY] {
        let word = if kind == record::DATA { 0 } else { 8 };
        for len in [12, 13, 14, 100] {
            let (memory, geometry) = ring_of(256, 8);
            let (mut producer, mut consumer) = ends(&memory, geometry.with_max_message_bytes(12));
            producer.try_push(0, &[1; 12]).expect("room");
            let record = consumer.peek().expect("valid").expect("committed");
            consumer.advance(&record);
            let header = record::pack(len + word, kind, 0);
            memory.store_u64(ring::CONTROL_BYTES + 24, header, Ordering::Relaxed);
            match consumer.peek() {
                Ok(Some(record)) => assert!(len == 12 && record.len_bytes() == 12, "{kind} {len}"),
                found => {
                    assert!(matches!(found, Err(Corruption::Record { position: 24, .. })));
                    assert_ne!(len, 12);
                }
            }
        }
    }
}

/// Counters that a peer set to their maximum are counted on all the same.
#[test]
fn f17_sleeps_and_wakeups_wrap() {
    let (memory, geometry) = ring_of(64, 8);
    let words = [
        ring::CONSUMER_SLEEPS,
        ring::CONSUMER_WAKEUPS,
        ring::PRODUCER_SLEEPS,
        ring::PRODUCER_WAKEUPS,
    ];
    for word in words {
        memory.store_u64(word, u64::MAX, Ordering::Relaxed);
    }
    let (mut producer, mut consumer) = ends(&memory, geometry);
    producer.count_parked([1, 0]);
    producer.count_wakeup();
    consumer.count_parked([1, 0]);
    consumer.count_wakeup();
    assert_eq!(words.map(|word| memory.load_u64(word, Ordering::Relaxed)), [0; 4]);
}

/// A waiting producer is woken exactly when `head` has reached what it asked for, and for any
/// nonsense it may have asked for the consumer only answers yes or no.
#[test]
fn released_enough_or_not() {
    for start in [0, u64::MAX - 7, (1 << 32) - 16] {
        let (memory, geometry) = ring_of(64, 8);
        memory.store_u64(ring::HEAD, start, Ordering::Relaxed);
        let (mut producer, mut consumer) = ends(&memory, geometry);
        for released in 0..20_u64 {
            let head = start.wrapping_add(released * 8);
            assert!(consumer.has_released(head));
            assert!(consumer.has_released(head.wrapping_sub(8)));
            assert!(!consumer.has_released(head.wrapping_add(8)));
            assert!(!consumer.has_released(head.wrapping_add(1 << 40)));
            producer.try_push(0, b"").expect("room");
            let record = consumer.peek().expect("valid").expect("committed");
            consumer.advance(&record);
            assert_eq!(consumer.held_bytes(), 8);
            assert!(consumer.release());
        }
    }
}

/// What is written in place is committed whole, with nothing of an earlier record behind it.
#[test]
fn a_draft_filled_in_place() {
    for len in 0..=24_usize {
        let (memory, geometry) = ring_of(64, 8);
        for at in (ring::CONTROL_BYTES + 8..memory.len_bytes()).step_by(8) {
            memory.store_u64(at, u64::MAX, Ordering::Relaxed);
        }
        let (mut producer, mut consumer) = ends(&memory, geometry);
        let draft = producer.draft_in_place(len).expect("room");
        let payload = draft.payload(&producer);
        // What is behind the payload in its last word is left over from earlier records.
        let mut bytes = vec![0x11; len.next_multiple_of(8)];
        bytes[len..].fill(0xee);
        memory.copy_in(payload, &bytes);
        assert_eq!(consumer.peek(), Ok(None), "nothing is visible before the commit");
        draft.commit(&mut producer, 3);
        let record = consumer.peek().expect("valid").expect("committed");
        assert_eq!((record.tag(), record.len_bytes()), (3, len));
        assert_eq!(consumer.payload_offset(&record), payload);
        let mut bytes = vec![0xee; len.next_multiple_of(8)];
        memory.copy_out(payload, &mut bytes);
        assert!(bytes[..len].iter().all(|byte| *byte == 0x11));
        assert!(bytes[len..].iter().all(|byte| *byte == 0));
        consumer.advance(&record);
        assert_eq!(consumer.peek(), Ok(None));
    }
}

/// A place for a record that a channel cannot have is refused with a typed error.
#[test]
fn measures_that_no_ring_can_have() {
    let (memory, _) = ring_of(64, 8);
    for capacity in [0, 1, 8, 63, 65, 96, 1 << 33, u64::MAX] {
        assert!(RingGeometry::new(&memory, 0, ring::CONTROL_BYTES, capacity, 8).is_err());
    }
    for align in [0, 1, 4, 7, 9, 24, 64, 128, u64::MAX] {
        assert!(RingGeometry::new(&memory, 0, ring::CONTROL_BYTES, 64, align).is_err());
    }
    for (control, data, capacity) in
        [(0, ring::CONTROL_BYTES + 64, 64), (1024, 1024, 64), (0, 1024, 128)]
    {
        assert!(RingGeometry::new(&memory, control, data, capacity, 8).is_err());
    }
    for start in [u64::MAX - 63, 1 << 63] {
        assert!(RingGeometry::new(&memory, start, 1024, 64, 8).is_err());
        assert!(RingGeometry::new(&memory, 0, start, 64, 8).is_err());
    }
}
