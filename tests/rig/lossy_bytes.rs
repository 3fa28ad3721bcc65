//! Ends of a lossy ring over arbitrary bytes, while a peer changes words.
//!
//! Tests and a fuzz target share it. What always holds: nothing panics, every bound is kept, and what was
//! found to be corrupt stays so.

use ringway::layout::{self, ring};
use ringway::memory::{HeapMemory, Memory, Ordering};
use ringway::ring::PushError;
use ringway::ring::lossy::{LossyConsumer, LossyProducer, PullError};

use super::hostile::Mutator;
use super::lossy::{DATA, Setup, memory_bytes, prepare};

fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// A careful receiver takes up to `limit` messages; bounds and latches are checked.
fn consume<M: Memory>(consumer: &mut LossyConsumer<M>, buffer: &mut Vec<u8>, limit: usize) {
    let max = consumer.geometry().max_payload_bytes() as usize;
    let mut next = consumer.stats().received.wrapping_add(consumer.stats().lost);
    for _ in 0..limit {
        match consumer.try_take(buffer) {
            Ok(Some(record)) => {
                assert!(record.len_bytes() <= max && consumer.poisoned().is_none());
                assert_eq!(record.number(), next.wrapping_add(record.lost_before()));
                next = record.number().wrapping_add(1);
            }
            Ok(None) | Err(PullError::Overrun) => assert_eq!(consumer.poisoned(), None),
            Err(error) => {
                let corruption = consumer.poisoned().expect("a finding latches");
                assert_eq!(error, PullError::Corrupt(corruption));
                assert_eq!(consumer.try_take(buffer), Err(error), "a finding latches");
                return;
            }
        }
        let stats = consumer.stats();
        assert_eq!(stats.received.wrapping_add(stats.lost), next);
    }
}

fn produce<M: Memory>(producer: &mut LossyProducer<M>, limit: usize) {
    for n in 0..limit {
        let _ = producer.stats();
        let result = producer.try_push(1, &[0x55; 64][..n * 13 % 61]);
        if let Some(corruption) = producer.poisoned() {
            assert_eq!(result, Err(PushError::Corrupt(corruption)), "a finding latches");
        }
    }
}

/// Both kinds of end attach to a ring of arbitrary bytes, control words included, and work on it
/// while a peer changes words between any two accesses: four bytes of script each, when and what.
pub fn run(data: &[u8]) {
    let Some(([shape, script_len], data)) = data.split_first_chunk::<2>() else { return };
    let capacity_bytes = 128 << (shape % 3);
    let heap = HeapMemory::new(memory_bytes(capacity_bytes));
    let setup = Setup { capacity_bytes, start: 0, first: 0 };
    let geometry = prepare(&heap, setup);
    let (script, data) = data.split_at(data.len().min(usize::from(script_len % 32) * 4));
    let control = [ring::INTENT, ring::OLDEST, ring::SETTLED, ring::LANDMARKS, ring::LOSSES[0]];
    let words = control.into_iter().chain((DATA..DATA + capacity_bytes).step_by(8));
    if shape & 4 == 0 {
        for (at, bytes) in words.zip(data.chunks(8)) {
            heap.store_u64(at, word(bytes), Ordering::Relaxed);
        }
    }
    let mut now = 0;
    let script = script.as_chunks::<4>().0.iter().map(|step| {
        now += u64::from(step[0] & 63);
        let words = capacity_bytes / 8;
        let offset = match step[0] & 64 {
            0 => DATA + u64::from(step[1]) % words * 8,
            _ => control[usize::from(step[1]) % control.len()],
        };
        let what = match step[0] & 128 {
            0 => layout::record::pack(step[2].into(), step[3] & 3, 0),
            _ => u64::from(step[2]) * 8 + u64::from(step[3]) * capacity_bytes,
        };
        (now, offset, what)
    });
    let memory = Mutator::new(heap, script.collect());
    let mut producer = LossyProducer::attach(memory.clone(), geometry).ok();
    let mut consumer = LossyConsumer::attach(memory.clone(), geometry).ok();
    memory.start();
    let mut buffer = Vec::new();
    for _ in 0..6 {
        producer.iter_mut().for_each(|producer| produce(producer, 5));
        consumer.iter_mut().for_each(|consumer| consume(consumer, &mut buffer, 3));
    }
    if let Ok(mut consumer) = LossyConsumer::attach(memory.clone(), geometry) {
        consume(&mut consumer, &mut buffer, 40);
    }
    let _ = LossyProducer::attach(memory, geometry).map(|mut producer| produce(&mut producer, 4));
}
