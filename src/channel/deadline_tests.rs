//! Deadlines hold against a peer that ends every wait by changing the word that is waited for; what a
//! wait does once its deadline has passed; and how long sleeps are.

use std::sync::Arc;
use std::time::Duration;

use super::{Connection, Receiver, Sender};
use crate::error::{RecvTimeoutError, SendTimeoutError};
use crate::layout::{ChannelLayout, ring};
use crate::memory::{Deadline, HeapMemory, Memory, Ordering};
use crate::ring::{Consumer, RingGeometry};
use crate::sync::{AtomicU32, AtomicU64, Mutex};
use crate::wakeup::{LONGEST_SLEEP_NS, MAX_SLEEP_NS, Parked, WaitStrategy, Waiter};

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
    /// Whether heavy fences may miss a processor.
    may_miss: bool,
    /// A clock of its own, where it is not 0: each look and each sleep takes its time.
    clock_ns: Arc<AtomicU64>,
    /// Stores of words that say who sleeps, for what, and where.
    stores: Arc<AtomicU32>,
    /// Looks at the clock, and questions about processors.
    questions: Arc<AtomicU32>,
    /// The processor of the calling thread, plus one, and its only one, plus one.
    cpu: Arc<[AtomicU32; 2]>,
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
        self.count_store(offset);
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
        self.count_store(offset);
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
    fn fence_is_certain(&self) -> bool {
        !self.may_miss
    }
    fn only_cpu(&self) -> u32 {
        self.questions.fetch_add(1, Ordering::Relaxed);
        self.cpu[1].load(Ordering::Relaxed)
    }
    fn current_cpu(&self) -> u32 {
        self.cpu[0].load(Ordering::Relaxed)
    }
    fn now_ns(&self) -> u64 {
        self.questions.fetch_add(1, Ordering::Relaxed);
        match self.clock_ns.load(Ordering::Relaxed) {
            0 => self.heap.now_ns(),
            _ => self.clock_ns.fetch_add(100, Ordering::Relaxed),
        }
    }
    fn wait_u32(&self, _offset: u64, _expected: u32, deadline: Deadline) {
        self.sleeps.lock().expect("no panic").push(deadline.as_ns());
        if self.clock_ns.load(Ordering::Relaxed) != 0 {
            self.clock_ns.store(deadline.as_ns(), Ordering::Relaxed);
        }
    }
    fn wake_u32(&self, offset: u64, count: u32) {
        self.heap.wake_u32(offset, count);
    }
}

impl Flipping {
    fn count_store(&self, offset: u64) {
        let words = [ring::CONSUMER_WAITING, ring::PRODUCER_WAITING, ring::SPACE_WANTED];
        if words.contains(&(offset % ring::CONTROL_BYTES)) {
            self.stores.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn new(len_bytes: u64, word: u64) -> Self {
        let heap = HeapMemory::new(len_bytes);
        Self {
            heap,
            word,
            drained: None,
            looks: Arc::default(),
            heavy_fences: Arc::default(),
            sleeps: Arc::default(),
            may_miss: false,
            clock_ns: Arc::default(),
            stores: Arc::default(),
            questions: Arc::default(),
            cpu: Arc::default(),
        }
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

/// What a wait has done to its memory.
#[derive(Debug, PartialEq, Eq, Clone, Copy, Default)]
struct Done {
    fences: u32,
    sleeps: usize,
    stores: u32,
    questions: u32,
}

fn done(memory: &Flipping) -> Done {
    Done {
        fences: memory.heavy_fences.swap(0, Ordering::Relaxed),
        sleeps: std::mem::take(&mut *memory.sleeps.lock().expect("no panic")).len(),
        stores: memory.stores.swap(0, Ordering::Relaxed),
        questions: memory.questions.swap(0, Ordering::Relaxed),
    }
}

#[test]
fn f57_a_passed_deadline_only_looks() {
    let (mut sender, mut receiver) = ends(u64::MAX);
    while sender.try_send(&[0; 100]).is_ok() {}
    let memory = receiver.connection.memory().clone();
    done(&memory);
    let found = receiver.recv_timeout(Duration::ZERO).map(|m| m.len());
    assert_eq!(found, Err(RecvTimeoutError::Timeout));
    assert_eq!(done(&memory), Done::default());
    let sent = sender.send_timeout(&[0; 100], Duration::ZERO);
    assert_eq!(sent, Err(SendTimeoutError::Timeout));
    assert_eq!(done(&memory), Done::default());
    // A deadline that lies in the past takes the clock, and nothing else.
    let past = Deadline::at_ns(1);
    assert!(receiver.recv_deadline(past).is_err());
    assert!(sender.send_deadline(0, &[0; 100], past).is_err());
    let Done { fences, sleeps, stores, .. } = done(&memory);
    assert_eq!((fences, sleeps, stores), (0, 0, 0));
    // And through the waiter itself, whatever its strategy.
    for strategy in [WaitStrategy::Park, WaitStrategy::SpinThenPark, WaitStrategy::Spin] {
        let mut looks = 0;
        let found = Waiter::new(strategy, true).wait(
            &memory,
            ring::CONTROL[0],
            Deadline::PASSED,
            || {
                looks += 1;
                None::<()>
            },
            |_| (),
        );
        assert_eq!((found, looks, done(&memory)), (None, 1, Done::default()));
    }
}

/// Sleeps, in turn, of a wait that finds something after so many of them, in milliseconds.
fn slices(memory: &Flipping, waiter: &mut Waiter, wanted: usize) -> (Vec<u64>, u32, u32) {
    let (mut sleeps, mut missed) = (0, 0);
    done(memory);
    memory.clock_ns.store(1, Ordering::Relaxed);
    let begun = std::cell::RefCell::new(Vec::new());
    let ready = || {
        // Looked at behind each sleep, before the next one.
        (memory.sleeps.lock().expect("no panic").len() == wanted).then_some(())
    };
    let found = waiter.wait(memory, 0, Deadline::NEVER, ready, |what| match what {
        Parked::Sleeps => {
            sleeps += 1;
            begun.borrow_mut().push(memory.clock_ns.load(Ordering::Relaxed));
        }
        Parked::Missed => missed += 1,
    });
    assert_eq!((found, sleeps), (Some(()), wanted));
    let ends = std::mem::take(&mut *memory.sleeps.lock().expect("no panic"));
    // Rounded: the wait reads the clock a little before it tells of the sleep.
    let begun = begun.into_inner();
    let lengths =
        ends.iter().zip(begun).map(|(end, begun)| (end - begun).div_ceil(1_000_000)).collect();
    (lengths, missed, memory.heavy_fences.swap(0, Ordering::Relaxed))
}

#[test]
fn f46_a_wait_announces_itself_once_and_sleeps_longer_each_time() {
    let mut memory = Flipping::new(64, u64::MAX);
    let mut waiter = Waiter::new(WaitStrategy::Park, true);
    let (lengths, _, fences) = slices(&memory, &mut waiter, 5);
    assert_eq!((lengths, fences), (vec![250, 1000, 4000, 4000, 4000], 1));
    memory.may_miss = true;
    let stores = memory.stores.swap(0, Ordering::Relaxed);
    assert_eq!(stores, 2, "announced, and taken back");
    let (lengths, _, fences) = slices(&memory, &mut waiter, 6);
    assert_eq!((lengths, fences), (vec![1, 16, 250, 1000, 4000, 4000], 1));
    waiter.set_longest_sleep(MAX_SLEEP_NS);
    assert_eq!(slices(&memory, &mut waiter, 5).0, [1, 16, 250, 250, 250]);
    waiter.set_longest_sleep(LONGEST_SLEEP_NS);
    // Somebody takes the announcement back and dies: announced anew each time, from the shortest on.
    memory.word = 0;
    memory.looks.store(0, Ordering::Relaxed);
    let (lengths, _, fences) = slices(&memory, &mut waiter, 3);
    // The word reads 0, 1, 0: a new wait after the first sleep, another slice after the second.
    assert_eq!((lengths, fences), (vec![1, 1, 16], 2));
}

#[test]
fn f46_a_missed_announcement_is_counted() {
    let mut memory = Flipping::new(64, u64::MAX);
    memory.may_miss = true;
    let mut waiter = Waiter::new(WaitStrategy::Park, false);
    memory.clock_ns.store(1, Ordering::Relaxed);
    let missed = std::cell::Cell::new(0);
    // There is news when the first sleep has run out.
    let ready = || (!memory.sleeps.lock().expect("no panic").is_empty()).then_some(());
    let note = |what| missed.set(missed.get() + u32::from(what == Parked::Missed));
    assert_eq!(waiter.wait(&memory, 0, Deadline::NEVER, ready, note), Some(()));
    assert_eq!(missed.get(), 1);
}

/// An end whose thread is pinned, released or moved after it was made: how often it asks the system,
/// and what it believes.
#[test]
fn f56_a_thread_that_is_pinned_or_moved_later_is_noticed() {
    let memory = Flipping::new(64, u64::MAX);
    let (own, peer) = (0, 4);
    let set = |current: u32, only: u32| {
        memory.cpu[0].store(current, Ordering::Relaxed);
        memory.cpu[1].store(only, Ordering::Relaxed);
    };
    set(1, 1);
    memory.store_u32(peer, 1, Ordering::Relaxed);
    let mut hint = super::cpu::CpuHint::new(&memory, own, peer);
    assert!(hint.refresh(&memory));
    // Moved to another processor: noticed at once, and the peer can read it.
    set(2, 2);
    assert!(!hint.refresh(&memory));
    assert_eq!(memory.heap.load_u32(own, Ordering::Relaxed), 2);
    // The peer follows: no question is needed.
    memory.store_u32(peer, 2, Ordering::Relaxed);
    assert!(hint.refresh(&memory));
    // Released, and still on the same processor: noticed within 16 waits.
    set(2, 0);
    assert!((0..16).any(|_| !hint.refresh(&memory)));
    // Pinned to the peer's, where it happens to run.
    set(2, 2);
    assert!((0..16).any(|_| hint.refresh(&memory)));
    // Believed meanwhile: one question in 16 waits.
    memory.questions.store(0, Ordering::Relaxed);
    for _ in 0..160 {
        hint.refresh(&memory);
    }
    assert_eq!(memory.questions.load(Ordering::Relaxed), 10);
}

/// Whatever the hint says, a sleeper executes its heavy fence and sleeps as long as another.
#[test]
fn f56_no_wakeup_rests_on_a_hint() {
    let mut memory = Flipping::new(64, u64::MAX);
    memory.may_miss = true;
    let mut waiter = Waiter::new(WaitStrategy::SpinThenPark, true);
    for shares_cpu in [true, false] {
        waiter.set_shares_cpu(shares_cpu);
        let (lengths, _, fences) = slices(&memory, &mut waiter, 2);
        assert_eq!((lengths, fences), (vec![1, 16], 1), "{shares_cpu}");
    }
}
