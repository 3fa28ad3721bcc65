//! Hostile peers as data: what a fuzzer or a test lets them write, and what must hold nevertheless.
//!
//! What always holds: no call panics or leaves its memory (the memories check), every loop is
//! bounded, and a finding latches.

use std::cell::Cell;
use std::rc::Rc;

use ringway::layout::{fragment, ring};
use ringway::memory::{Deadline, HeapMemory, Memory, Ordering};
use ringway::ring::{Assembly, Consumer, Fragments, Producer, PushError, RecordKind, RingGeometry};

use super::ops::{DATA, Setup, memory_bytes};

/// A memory in which a peer changes words between any two accesses.
#[derive(Debug, Clone)]
pub struct Mutator {
    heap: HeapMemory,
    script: Rc<[(u64, u64, u64)]>,
    next: Rc<Cell<usize>>,
    /// Accesses so far; `None` until started.
    clock: Rc<Cell<Option<u64>>>,
}

impl Mutator {
    /// Before the access with each number, counted from [`start`](Self::start), a word is stored:
    /// (number, offset, word), in order.
    pub fn new(heap: HeapMemory, script: Vec<(u64, u64, u64)>) -> Self {
        Self { heap, script: script.into(), next: Rc::default(), clock: Rc::default() }
    }

    pub fn start(&self) {
        self.clock.set(Some(0));
    }

    fn tick(&self) {
        let Some(now) = self.clock.get() else { return };
        self.clock.set(Some(now + 1));
        while let Some((at, offset, word)) = self.script.get(self.next.get())
            && *at <= now
        {
            self.heap.store_u64(*offset, *word, Ordering::Release);
            self.next.set(self.next.get() + 1);
        }
    }

    fn then(&self) -> &HeapMemory {
        self.tick();
        &self.heap
    }
}

impl Memory for Mutator {
    fn len_bytes(&self) -> u64 {
        self.heap.len_bytes()
    }
    fn is_ours(&self) -> bool {
        true
    }
    fn load_u32(&self, offset: u64, order: Ordering) -> u32 {
        self.then().load_u32(offset, order)
    }
    fn store_u32(&self, offset: u64, value: u32, order: Ordering) {
        self.then().store_u32(offset, value, order);
    }
    fn swap_u32(&self, offset: u64, value: u32, order: Ordering) -> u32 {
        self.then().swap_u32(offset, value, order)
    }
    fn compare_exchange_u32(
        &self,
        at: u64,
        old: u32,
        new: u32,
        order: Ordering,
    ) -> Result<u32, u32> {
        self.then().compare_exchange_u32(at, old, new, order)
    }
    fn fetch_add_u32(&self, offset: u64, value: u32, order: Ordering) -> u32 {
        self.then().fetch_add_u32(offset, value, order)
    }
    fn load_u64(&self, offset: u64, order: Ordering) -> u64 {
        self.then().load_u64(offset, order)
    }
    fn store_u64(&self, offset: u64, value: u64, order: Ordering) {
        self.then().store_u64(offset, value, order);
    }
    fn swap_u64(&self, offset: u64, value: u64, order: Ordering) -> u64 {
        self.then().swap_u64(offset, value, order)
    }
    fn compare_exchange_u64(
        &self,
        at: u64,
        old: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, u64> {
        self.then().compare_exchange_u64(at, old, new, order)
    }
    fn fetch_add_u64(&self, offset: u64, value: u64, order: Ordering) -> u64 {
        self.then().fetch_add_u64(offset, value, order)
    }
    fn copy_in(&self, offset: u64, bytes: &[u8]) {
        for (at, chunk) in (offset..).step_by(8).zip(bytes.chunks(8)) {
            self.then().copy_in(at, chunk);
        }
    }
    fn copy_out(&self, offset: u64, bytes: &mut [u8]) {
        for (at, chunk) in (offset..).step_by(8).zip(bytes.chunks_mut(8)) {
            self.then().copy_out(at, chunk);
        }
    }
    fn light_fence(&self) {
        self.tick();
    }
    fn heavy_fence(&self) {
        self.tick();
    }
    fn pause(&self) {
        self.tick();
    }
    fn now_ns(&self) -> u64 {
        0
    }
    fn wait_u32(&self, _offset: u64, _expected: u32, _deadline: Deadline) {
        self.tick();
    }
    fn wake_u32(&self, _offset: u64, _count: u32) {
        self.tick();
    }
}

/// Takes up to `limit` records as a careful receiver does, and checks each.
pub fn consume<M: Memory>(consumer: &mut Consumer<M>, limit: usize) {
    let mut bytes = [0xee; 512];
    let max = consumer.geometry().max_payload_bytes() as usize;
    for _ in 0..limit {
        match consumer.peek() {
            Ok(Some(record)) => {
                assert!(record.len_bytes() <= max && consumer.poisoned().is_none());
                consumer.copy_out(&record, &mut bytes);
                assert!(bytes[max..].iter().all(|byte| *byte == 0xee), "past the payload");
                consumer.advance(&record);
                assert!(consumer.release());
            }
            Ok(None) => assert_eq!(consumer.poisoned(), None),
            Err(corruption) => {
                assert_eq!(consumer.poisoned(), Some(corruption));
                assert_eq!(consumer.peek(), Err(corruption), "a finding latches");
                return;
            }
        }
    }
}

/// Sends with every call as a careful sender does, `limit` times, and checks that a finding latches.
pub fn produce<M: Memory>(producer: &mut Producer<M>, limit: usize) {
    let payload = [0x55; 64];
    for n in 0..limit {
        let len = n * 13 % 61;
        let result = match n % 4 {
            0 => producer.try_push(1, &payload[..len]),
            1 => producer.try_push_vectored(1, &[std::io::IoSlice::new(&payload[..len])]),
            2 => producer.try_reserve(1, len).map(|reservation| reservation.commit()),
            _ => {
                let mut batch = producer.batch();
                let result = batch.push(1, &payload[..len]).and(batch.push(1, &payload[..8]));
                let _ = batch.commit();
                result
            }
        };
        if let Err(PushError::Full { head_needed }) = result {
            let _ = producer.has_room(head_needed);
        }
        if let Some(corruption) = producer.poisoned() {
            let latched = Err(PushError::Corrupt(corruption));
            assert_eq!(producer.try_push(1, &payload[..len]), latched, "a finding latches");
            return;
        }
    }
}

fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// A ring whose every data word comes from `bytes`, and its measures; what is left of the bytes.
fn ring_from(data: &[u8]) -> Option<(HeapMemory, RingGeometry)> {
    let (setup, data) = data.split_first_chunk::<2>()?;
    let Setup { capacity_bytes, align, start } = Setup::decode(*setup);
    let memory = HeapMemory::new(memory_bytes(capacity_bytes));
    let geometry = RingGeometry::new(&memory, 0, DATA, capacity_bytes, align).expect("valid");
    memory.store_u64(ring::HEAD, start, Ordering::Relaxed);
    for (at, bytes) in (DATA..memory.len_bytes()).step_by(8).zip(data.chunks(8)) {
        memory.store_u64(at, word(bytes), Ordering::Relaxed);
    }
    Some((memory, geometry))
}

/// Both kinds of end attach to a ring of arbitrary bytes and work on it.
pub fn consumer_bytes(data: &[u8]) {
    let Some((memory, geometry)) = ring_from(data) else { return };
    if let Ok(mut consumer) = Consumer::attach(memory.clone(), geometry) {
        consume(&mut consumer, 64);
    }
    if let Ok(mut producer) = Producer::attach(memory, geometry) {
        produce(&mut producer, 16);
    }
}

/// A producer works while its peer publishes heads: nine bytes each, how (from the true head, or
/// anything) and the number. It believes exactly those that lie between the last one and its tail.
pub fn producer_head(data: &[u8]) {
    let Some((memory, geometry)) = ring_from(&data[..data.len().min(2)]) else { return };
    let mut producer = Producer::attach(memory.clone(), geometry).expect("empty");
    for step in data[2..].chunks(9) {
        produce(&mut producer, usize::from(step[0] >> 4));
        let known = memory.load_u64(ring::HEAD, Ordering::Relaxed);
        let new = match step[0] & 3 {
            0 => known.wrapping_add(word(&step[1..]) % 64 * 8),
            1 => known.wrapping_add(word(&step[1..])),
            2 => known,
            _ => word(&step[1..]),
        };
        memory.store_u64(ring::HEAD, new, Ordering::Relaxed);
        let tail = producer.tail();
        let too_far = new.wrapping_sub(known) > tail.wrapping_sub(known);
        let lie = too_far || !new.is_multiple_of(geometry.payload_align());
        assert_eq!(producer.has_room(new).is_err(), lie, "{new} after {known}, tail {tail}");
        if lie {
            produce(&mut producer, 4);
            assert!(producer.poisoned().is_some());
            return;
        }
    }
}

/// Both ends work on a valid ring while a peer changes words between any two accesses: four bytes
/// each, when, where, and what (a header that is nearly right, or a byte everywhere).
pub fn consumer_mutator(data: &[u8]) {
    let Some((heap, geometry)) = ring_from(&data[..data.len().min(2)]) else { return };
    let mut now = 0;
    let script = data[2..].chunks_exact(4).map(|step| {
        now += u64::from(step[0] & 63);
        let words = heap.len_bytes() / 8;
        // Mostly in the data, sometimes in the control block.
        let first = if step[0] & 64 == 0 { DATA / 8 } else { 0 };
        let offset = (first + u64::from(step[1]) % (words - first)) * 8;
        let what = match step[0] & 128 {
            0 => u64::from(step[2]) | u64::from(step[3] & 7) << 32 | u64::from(step[3] >> 3) << 48,
            _ => u64::from_le_bytes([step[2]; 8]) ^ u64::from(step[3]),
        };
        (now, offset, what)
    });
    let memory = Mutator::new(heap.clone(), script.collect());
    let mut producer = Producer::attach(memory.clone(), geometry).expect("empty");
    let mut consumer = Consumer::attach(memory.clone(), geometry).expect("empty");
    memory.start();
    for _ in 0..8 {
        produce(&mut producer, 3);
        consume(&mut consumer, 3);
    }
    let _ = Producer::attach(memory, geometry).map(|mut producer| produce(&mut producer, 4));
}

/// Puts messages together from a ring of arbitrary bytes, and from what two producers write there:
/// pieces with arbitrary words. Nothing is handed out that is longer than agreed on, and memory stays
/// below twice what has arrived.
pub fn fragments(data: &[u8]) {
    let Some((memory, geometry)) = ring_from(&data[..data.len().min(2)]) else { return };
    let max = u64::from(data.get(2).copied().unwrap_or(0)) * 8 + 1;
    let geometry = geometry.with_max_message_bytes(max);
    let mut producer = Producer::attach(memory.clone(), geometry).expect("empty");
    let mut consumer = Consumer::attach(memory.clone(), geometry).expect("empty");
    let mut assembly = Assembly::default();
    let mut arrived = 0;
    let bytes = [0x77; 256];
    for step in data.get(3..).unwrap_or_default().chunks_exact(4) {
        let [how, number, kind, flags] = [step[0], step[1], step[2], step[3]];
        let len = usize::from(how >> 2).min(geometry.capacity_bytes() as usize / 2 - 16);
        let word = fragment::pack(u64::from(number), kind % 8, flags % 8);
        let pushed = match how & 3 {
            0 | 1 => producer.try_push_kind(RecordKind::Fragment, word, 0, &bytes[..len]),
            // A whole message as a correct sender sends it, or its beginning.
            2 => {
                let parts = [std::io::IoSlice::new(&bytes[..usize::from(number)])];
                let mut pieces = Fragments::new(RecordKind::Data, 1, &parts);
                (0..=kind % 8).try_for_each(|_| match pieces.try_push_next(&mut producer) {
                    Ok(false) => Ok(()),
                    Ok(true) => Err(PushError::Full { head_needed: 0 }),
                    Err(error) => Err(error),
                })
            }
            _ => producer.try_push(0, &bytes[..len.min(geometry.max_payload_bytes() as usize)]),
        };
        if let Err(PushError::Corrupt(corruption)) = pushed {
            panic!("{corruption}");
        }
        loop {
            let record = match consumer.peek() {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(found) => panic!("{found}"),
            };
            if record.kind() != RecordKind::Fragment {
                assembly.drop_partial(&mut consumer);
                consumer.advance(&record);
                consumer.release();
                continue;
            }
            arrived += record.len_bytes();
            match assembly.absorb(&mut consumer, &record) {
                Ok(Some(whole)) => {
                    let len = whole.len_bytes();
                    assert!(len as u64 <= max && assembly.message(len).len() == len);
                    assert!(!assembly.is_partial());
                }
                Ok(None) => {}
                Err(found) => {
                    assert_eq!(consumer.peek(), Err(found), "a finding latches");
                    return;
                }
            }
            assert!(assembly.memory_bytes() <= 256 + 2 * arrived.min(max as usize + 8));
            consumer.release();
        }
    }
}
