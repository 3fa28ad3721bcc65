//! One record, batch or reservation at a time: where it lies, what it holds, what it leaves alone.

use std::io::IoSlice;

use ringway::layout::ring;
use ringway::memory::Ordering;
use ringway::ring::PushError;

use super::{Make, Rig, SHAPES, bytes};

/// Every length at every start offset; of the largest ring, every length and every offset.
pub fn every_length_at_every_offset<M: Make>() {
    for (capacity, align) in SHAPES {
        let rig = Rig::<M>::new(capacity, align);
        let max = rig.geometry.max_payload_bytes() as usize;
        let (payload, mut found) = (bytes(max), vec![0; max]);
        for start in (0..capacity).step_by(align as usize) {
            let step = if capacity > 1024 { 64 } else { 1 };
            for len in ((start / 8 % step) as usize..=max).step_by(step as usize) {
                let (mut producer, mut consumer) = rig.start_at(start);
                assert_eq!(producer.try_push(len as u16, &payload[..len]), Ok(()));
                let record = consumer.peek().expect("valid").expect("committed");
                assert_eq!((record.tag(), record.len_bytes()), (len as u16, len));
                consumer.copy_out(&record, &mut found);
                assert_eq!(found[..len], payload[..len], "{len} at {start} of {capacity}");
                consumer.advance(&record);
                assert_eq!(consumer.peek(), Ok(None));
            }
        }
    }
}

/// Nothing is written but the record, its padding's header, the word behind it, and control words.
pub fn writes_stay_inside_the_record<M: Make>() {
    for (capacity, align) in SHAPES.into_iter().filter(|(capacity, _)| *capacity <= 256) {
        let rig = Rig::<M>::new(capacity, align);
        let max = rig.geometry.max_payload_bytes();
        for start in (0..capacity).step_by(align as usize) {
            for len in 0..=max {
                rig.fill(u64::MAX);
                let (mut producer, _) = rig.start_at(start);
                let before = rig.words();
                producer.try_push(1, &bytes(len as usize)).expect("room");
                let size = (len + 8).next_multiple_of(align);
                let record = if start + size > capacity { capacity } else { start };
                let mut allowed = vec![rig.offset(start), rig.offset(record + size)];
                allowed.extend((0..8 + len).step_by(8).map(|at| rig.offset(record) + at));
                for (at, (old, new)) in (0..).step_by(8).zip(before.iter().zip(rig.words())) {
                    let control = (ring::TAIL..ring::TAIL + 64).contains(&at);
                    assert!(
                        *old == new || control || allowed.contains(&at),
                        "{len} at {start}: {at}"
                    );
                }
                let zero_ahead = rig.memory.load_u64(rig.offset(record + size), Ordering::Relaxed);
                assert_eq!(zero_ahead, 0);
            }
        }
    }
}

/// f41: what fills the last word of a payload is zero, however the payload was written.
pub fn f41_the_rest_of_the_last_word_is_zero<M: Make>() {
    let rig = Rig::<M>::new(256, 8);
    for len in 1..=40_usize {
        for how in 0..4 {
            rig.fill(u64::MAX);
            let (mut producer, _) = rig.start_at(0);
            let payload = vec![0xff; len];
            match how {
                0 => producer.try_push(1, &payload).expect("room"),
                1 => {
                    let parts = [IoSlice::new(&payload[..1]), IoSlice::new(&payload[1..])];
                    producer.try_push_vectored(1, &parts).expect("room");
                }
                2 => {
                    let mut reservation = producer.try_reserve(1, len).expect("room");
                    reservation.write(&payload);
                    reservation.commit();
                }
                _ => {
                    let mut batch = producer.batch();
                    batch.push(1, &payload).expect("room");
                    batch.commit();
                }
            }
            let mut word = [0; 8];
            let last = (len - 1) / 8 * 8;
            rig.memory.copy_out(rig.offset(8) + last as u64, &mut word);
            assert!(word[..len - last].iter().all(|byte| *byte == 0xff), "{len} {how}");
            assert!(word[len - last..].iter().all(|byte| *byte == 0), "{len} {how}");
        }
    }
}

/// However a payload is cut into parts, the ring holds the same words.
pub fn vectored_in_any_split<M: Make>() {
    let (one, other) = (Rig::<M>::new(128, 8), Rig::<M>::new(128, 8));
    for len in 0..=25 {
        let payload = bytes(len);
        for first in 0..=len {
            for second in first..=len {
                for rig in [&one, &other] {
                    rig.fill(u64::MAX);
                }
                one.start_at(112).0.try_push(5, &payload).expect("room");
                let parts = [&payload[..first], &payload[first..second], &[], &payload[second..]];
                let parts = parts.map(IoSlice::new);
                other.start_at(112).0.try_push_vectored(5, &parts).expect("room");
                assert_eq!(one.words(), other.words(), "{len}: {first}, {second}");
            }
        }
    }
}

/// Whatever lies before it, a record of half the ring fits once the ring is empty.
pub fn half_the_ring_always_fits_in_the_end<M: Make>() {
    for (capacity, align) in SHAPES {
        let rig = Rig::<M>::new(capacity, align);
        let payload = bytes(rig.geometry.max_payload_bytes() as usize);
        for start in (0..capacity).step_by(align as usize) {
            assert_eq!(rig.start_at(start).0.try_push(0, &payload), Ok(()), "at {start}");
        }
    }
}

pub fn tags_pass_unchanged<M: Make>() {
    let rig = Rig::<M>::new(64, 8);
    let (mut producer, mut consumer) = rig.start_at(0);
    for tag in (0..=u16::MAX).step_by(251).chain([u16::MAX]) {
        producer.try_push(tag, b"tag").expect("room");
        let record = consumer.peek().expect("valid").expect("committed");
        assert_eq!(record.tag(), tag);
        consumer.advance(&record);
        consumer.release();
    }
}

/// A batch takes what fits beside the word behind it, at any place, and is visible when committed,
/// whole; one that is given up leaves nothing.
pub fn batches_up_to_the_capacity<M: Make>() {
    for (capacity, align) in SHAPES.into_iter().filter(|(capacity, _)| *capacity <= 512) {
        let rig = Rig::<M>::new(capacity, align);
        let payload = bytes(rig.geometry.max_payload_bytes() as usize);
        for start in (0..capacity).step_by(align as usize) {
            for len in [0, 1, 24, payload.len() / 3, payload.len()] {
                batch_of(&rig, start, &payload[..len.min(payload.len())]);
            }
        }
    }
}

fn batch_of<M: Make>(rig: &Rig<M>, start: u64, payload: &[u8]) {
    let (mut producer, mut consumer) = rig.start_at(start);
    for commit in [false, true] {
        let mut batch = producer.batch();
        let mut pushed = 0;
        while batch.push(pushed, payload).is_ok() {
            pushed += 1;
        }
        assert!(matches!(batch.push(0, &[0; 3000]), Err(PushError::TooLong { .. })));
        assert!(pushed > 0, "one record always fits");
        assert_eq!(batch.len(), usize::from(pushed), "what failed is not counted");
        assert_eq!(consumer.peek(), Ok(None), "nothing is visible before the commit");
        if !commit {
            batch.abort();
            assert_eq!(consumer.peek(), Ok(None));
            continue;
        }
        assert_eq!(batch.commit(), usize::from(pushed));
        for tag in 0..pushed {
            let record = consumer.peek().expect("valid").expect("committed");
            assert_eq!(record.tag(), tag);
            consumer.advance(&record);
        }
        assert_eq!(consumer.peek(), Ok(None));
    }
    assert_eq!(producer.batch().commit(), 0, "an empty batch commits nothing");
    assert_eq!(consumer.peek(), Ok(None));
}

/// A reservation commits what was filled, zeros for the rest, or less than was reserved; it takes
/// no more than was reserved, and given up it leaves nothing.
pub fn reservations_filled_unfilled_short_and_given_up<M: Make>() {
    let rig = Rig::<M>::new(128, 8);
    for start in (0..128).step_by(8) {
        for len in 0..=56 {
            for filled in [0, 1, len / 2, len] {
                reservations_of(&rig, start, len, filled.min(len));
            }
        }
    }
}

fn reservations_of<M: Make>(rig: &Rig<M>, start: u64, len: usize, filled: usize) {
    let payload = bytes(56);
    rig.fill(u64::MAX);
    let (mut producer, mut consumer) = rig.start_at(start);
    producer.try_reserve(1, len).expect("room").abort();
    let mut dropped = producer.try_reserve(2, len).expect("room");
    assert_eq!(dropped.write(&payload), len, "no more than was reserved");
    drop(dropped);
    assert_eq!(consumer.peek(), Ok(None));

    let mut whole = producer.try_reserve(3, len).expect("room");
    assert_eq!(whole.write(&payload[..filled]), filled);
    whole.commit();
    let record = consumer.peek().expect("valid").expect("committed");
    assert_eq!((record.tag(), record.len_bytes()), (3, len));
    let mut found = vec![0xee; len];
    consumer.copy_out(&record, &mut found);
    assert_eq!(found[..filled], payload[..filled]);
    assert!(found[filled..].iter().all(|byte| *byte == 0));
    consumer.advance(&record);
    consumer.release();

    let mut short = producer.try_reserve(5, len).expect("room");
    short.write(&payload[..filled]);
    short.commit_filled();
    let record = consumer.peek().expect("valid").expect("committed");
    assert_eq!((record.tag(), record.len_bytes()), (5, filled));
    consumer.copy_out(&record, &mut found);
    assert_eq!(found[..filled], payload[..filled]);
    consumer.advance(&record);
    assert_eq!(consumer.peek(), Ok(None));
}
