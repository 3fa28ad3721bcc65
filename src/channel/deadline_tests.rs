//! Deadlines hold against a peer that ends every wait by changing the word that is waited for; and
//! how long a sleep without a barrier is.

use std::sync::Arc;
use std::time::Duration;

use super::{Connection, Receiver, Sender};
use crate::error::{RecvTimeoutError, SendTimeoutError};
use crate::layout::{ChannelLayout, ring};
use crate::memory::{Deadline, HeapMemory, Memory, Ordering};
use crate::ring::{Consumer, RingGeometry};
use crate::sync::{AtomicU32, Mutex};
use crate::wakeup::{MAX_SHARED_SLEEP_NS, MAX_SLEEP_NS, WaitStrategy, Waiter};

/// Memory in which one word has another value at every look.
#[derive(Debug, Clone)]
struct Flipping {
    heap: HeapMemory,
    word: u64,
    /// A ring that is read empty whenever its head is looked at.
    drained: Option<RingGeometry>,
    looks: Arc<AtomicU32>,
    heavy_fences: Arc<AtomicU32>,
    /// Until when each sleep was to last; they end at once.
    sleeps: Arc<Mutex<Vec<u64>>>,
}

impl Memory for Flipping {
    fn len_bytes(&self) -> u64 {
        self.heap.len_bytes()
    }
    fn is_ours(&self) -> bool {
        true
    }
    fn load_u32(&self, offset: u64, order: Ordering) -> u32 {
        if offset == self.word {
            return self.looks.fetch_add(1, Ordering::Relaxed) % 2;
        }
        self.heap.load_u32(offset, order)
    }
    fn store_u32(&self, offset: u64, value: u32, order: Ordering) {
        self.heap.store_u32(offset, value, order);
    }
    fn swap_u32(&self, offset: u64, value: u32, order: Ordering) -> u32 {
        self.heap.swap_u32(offset, value, order)
    }
    fn compare_exchange_u32(
        &self,
        offset: u64,
        current: u32,
        new: u32,
        order: Ordering,
    ) -> Result<u32, u32> {
        self.heap.compare_exchange_u32(offset, current, new, order)
    }
    fn fetch_add_u32(&self, offset: u64, value: u32, order: Ordering) -> u32 {
        self.heap.fetch_add_u32(offset, value, order)
    }
    fn load_u64(&self, offset: u64, order: Ordering) -> u64 {
        if let Some(ring) = self.drained.filter(|of| offset == of.control(ring::HEAD)) {
            let mut consumer = Consumer::attach(self.heap.clone(), ring).expect("valid");
            while let Ok(Some(record)) = consumer.peek() {
                consumer.advance(&record);
            }
            consumer.release();
        }
        self.heap.load_u64(offset, order)
    }
    fn store_u64(&self, offset: u64, value: u64, order: Ordering) {
        self.heap.store_u64(offset, value, order);
    }
    fn swap_u64(&self, offset: u64, value: u64, order: Ordering) -> u64 {
        self.heap.swap_u64(offset, value, order)
    }
    fn compare_exchange_u64(
        &self,
        offset: u64,
        current: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, u64> {
        self.heap.compare_exchange_u64(offset, current, new, order)
    }
    fn fetch_add_u64(&self, offset: u64, value: u64, order: Ordering) -> u64 {
        self.heap.fetch_add_u64(offset, value, order)
    }
    fn copy_in(&self, offset: u64, bytes: &[u8]) {
        self.heap.copy_in(offset, bytes);
    }
    fn copy_out(&self, offset: u64, bytes: &mut [u8]) {
        self.heap.copy_out(offset, bytes);
    }
    fn light_fence(&self) {
        self.heap.light_fence();
    }
    fn heavy_fence(&self) {
        self.heavy_fences.fetch_add(1, Ordering::Relaxed);
        self.heap.heavy_fence();
    }
    fn pause(&self) {}
    fn now_ns(&self) -> u64 {
        self.heap.now_ns()
    }
    fn wait_u32(&self, _offset: u64, _expected: u32, deadline: Deadline) {
        self.sleeps.lock().expect("no panic").push(deadline.as_ns());
    }
    fn wake_u32(&self, offset: u64, count: u32) {
        self.heap.wake_u32(offset, count);
    }
}

impl Flipping {
    fn new(len_bytes: u64, word: u64) -> Self {
        let heap = HeapMemory::new(len_bytes);
        let (looks, heavy_fences) = (Arc::default(), Arc::default());
        Self { heap, word, drained: None, looks, heavy_fences, sleeps: Arc::default() }
    }
}

/// The ends of a side that believes in successors, so that a closed peer is waited for.
fn ends(word: u64) -> (Sender<Flipping>, Receiver<Flipping>) {
    ends_over(word, false)
}

fn ends_over(word: u64, drained: bool) -> (Sender<Flipping>, Receiver<Flipping>) {
    let layout = ChannelLayout::new([256; 2]).expect("small");
    let mut memory = Flipping::new(layout.len_bytes, word);
    let geometry = |index: usize| {
        RingGeometry::new(&memory, ring::CONTROL[index], layout.data[index], 256, 8)
            .expect("a ring")
            .with_max_message_bytes(1 << 20)
    };
    let rings = [geometry(0), geometry(1)];
    memory.drained = drained.then_some(rings[0]);
    let connection = Arc::new(Connection::new(memory.clone(), rings, 0));
    connection.follow();
    let waiter = || Waiter::new(WaitStrategy::SpinThenPark, true);
    let sender = Sender::new(Arc::clone(&connection), waiter()).expect("fresh");
    (sender, Receiver::new(connection, waiter()).expect("fresh"))
}

const SHORT: Duration = Duration::from_millis(5);

#[test]
fn a_receiver_keeps_its_deadline_while_the_sender_closes_and_opens() {
    let (_sender, mut receiver) = ends(ring::CONTROL[1] + ring::PRODUCER_CLOSED);
    let found = receiver.recv_timeout(SHORT).map(|m| m.len());
    assert_eq!(found, Err(RecvTimeoutError::Timeout));
}

#[test]
fn a_sender_keeps_its_deadline_while_the_receiver_closes_and_opens() {
    let (mut sender, _receiver) = ends(ring::CONTROL[0] + ring::CONSUMER_CLOSED);
    while sender.try_send(&[0; 100]).is_ok() {}
    assert_eq!(sender.send_timeout(&[0; 100], SHORT), Err(SendTimeoutError::Timeout));
}

/// A receiver that makes room at the last moment, each time, keeps no sender of a long message for
/// longer than a ring full of it takes.
#[test]
fn a_sender_of_pieces_keeps_its_deadline_while_room_comes_just_in_time() {
    let (mut sender, _receiver) = ends_over(u64::MAX, true);
    let found = sender.send_timeout(&[0; 100_000], Duration::ZERO);
    assert_eq!(found, Err(SendTimeoutError::Timeout));
    sender.send(&[0; 100_000]).expect("without a deadline it goes on");
    sender.send_timeout(&[0; 121], Duration::ZERO).expect("a ring full is sent all the same");
}

/// Two sides that share their only processor need no barrier; but only the first sleep believes that
/// they do, and it is a short one.
#[test]
fn only_the_first_sleep_of_a_wait_does_without_a_barrier() {
    let memory = Flipping::new(64, u64::MAX);
    let mut waiter = Waiter::new(WaitStrategy::Park, false);
    for shares_cpu in [true, false] {
        waiter.set_shares_cpu(shares_cpu);
        memory.heavy_fences.store(0, Ordering::Relaxed);
        // Before and after each of two sleeps, and before the third.
        let mut looks = 0;
        let ready = || {
            looks += 1;
            (looks == 5).then_some(())
        };
        assert_eq!(waiter.wait(&memory, 0, Deadline::NEVER, ready, || ()), Some(()));
        let barriers = memory.heavy_fences.load(Ordering::Relaxed);
        let sleeps = std::mem::take(&mut *memory.sleeps.lock().expect("no panic"));
        assert_eq!((barriers, sleeps.len()), (if shares_cpu { 2 } else { 3 }, 2));
        // The clock only goes forward, so the second sleep is later by what it is longer, or more.
        let longer = if shares_cpu { MAX_SLEEP_NS - MAX_SHARED_SLEEP_NS } else { 0 };
        assert!(sleeps[1] - sleeps[0] >= longer);
    }
}
