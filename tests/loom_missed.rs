//! Models of an announcement that the waker does not see, because a barrier has missed its processor, and
//! of sleeps that run out. Run with `RUSTFLAGS="--cfg loom" cargo test --release --test loom_missed`;
//! `LOOM_MAX_PREEMPTIONS=2` bounds the work.
#![cfg(loom)]

use std::cell::Cell;
use std::rc::Rc;

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use ringway::memory::{Deadline, Memory, ModelMemory, Ordering};
use ringway::wakeup::{Parked, WaitStrategy, Waiter, wake_if_waiting};

const WAITING: u64 = 0;
const NEWS: u64 = 8;

/// How many slices have passed. What was stored before a slice passed is visible to whoever sees that it
/// has: a slice is longer than any store stays in a processor's buffer.
#[derive(Debug)]
struct Slices {
    passed: Mutex<u32>,
    changed: Condvar,
}

impl Slices {
    fn new() -> Arc<Self> {
        Arc::new(Self { passed: Mutex::new(0), changed: Condvar::new() })
    }

    fn pass(&self) {
        *self.passed.lock().unwrap() += 1;
        self.changed.notify_all();
    }
}

/// A memory in which sleeps run out, and whose light fence may be none at all.
#[derive(Debug, Clone)]
struct Sliced {
    memory: ModelMemory,
    slices: Arc<Slices>,
    /// Slices that this thread's sleeps have used.
    used: Rc<Cell<u32>>,
    fenced: bool,
}

impl Sliced {
    fn new(memory: &ModelMemory, slices: &Arc<Slices>, fenced: bool) -> Self {
        let (memory, slices) = (memory.clone(), slices.clone());
        Self { memory, slices, used: Rc::default(), fenced }
    }
}

impl Memory for Sliced {
    fn len_bytes(&self) -> u64 {
        self.memory.len_bytes()
    }
    fn is_ours(&self) -> bool {
        true
    }
    fn load_u32(&self, offset: u64, order: Ordering) -> u32 {
        self.memory.load_u32(offset, order)
    }
    fn store_u32(&self, offset: u64, value: u32, order: Ordering) {
        self.memory.store_u32(offset, value, order);
    }
    fn swap_u32(&self, offset: u64, value: u32, order: Ordering) -> u32 {
        self.memory.swap_u32(offset, value, order)
    }
    fn compare_exchange_u32(&self, _: u64, _: u32, _: u32, _: Ordering) -> Result<u32, u32> {
        unreachable!("a wait exchanges nothing")
    }
    fn fetch_add_u32(&self, _: u64, _: u32, _: Ordering) -> u32 {
        unreachable!("a wait adds nothing")
    }
    fn load_u64(&self, offset: u64, order: Ordering) -> u64 {
        self.memory.load_u64(offset, order)
    }
    fn store_u64(&self, offset: u64, value: u64, order: Ordering) {
        self.memory.store_u64(offset, value, order);
    }
    fn swap_u64(&self, _: u64, _: u64, _: Ordering) -> u64 {
        unreachable!("a wait swaps no such word")
    }
    fn compare_exchange_u64(&self, _: u64, _: u64, _: u64, _: Ordering) -> Result<u64, u64> {
        unreachable!("a wait exchanges nothing")
    }
    fn fetch_add_u64(&self, _: u64, _: u64, _: Ordering) -> u64 {
        unreachable!("a wait adds nothing")
    }
    fn copy_in(&self, _: u64, _: &[u8]) {
        unreachable!("a wait copies nothing")
    }
    fn copy_out(&self, _: u64, _: &mut [u8]) {
        unreachable!("a wait copies nothing")
    }
    fn light_fence(&self) {
        if self.fenced {
            self.memory.light_fence();
        }
    }
    fn heavy_fence(&self) {
        self.memory.heavy_fence();
    }
    fn pause(&self) {
        self.memory.pause();
    }
    fn now_ns(&self) -> u64 {
        0
    }
    fn wait_u32(&self, offset: u64, expected: u32, _deadline: Deadline) {
        let mut passed = self.slices.passed.lock().unwrap();
        while *passed == self.used.get() {
            if self.memory.load_u32(offset, Ordering::Relaxed) != expected {
                return;
            }
            passed = self.slices.changed.wait(passed).unwrap();
        }
        self.used.set(*passed);
    }
    fn wake_u32(&self, _offset: u64, _count: u32) {
        drop(self.slices.passed.lock().unwrap());
        self.slices.changed.notify_all();
    }
}

fn words() -> (ModelMemory, Arc<Slices>) {
    (ModelMemory::new(16, [WAITING], [NEWS]), Slices::new())
}

/// Waits until the news is `wanted`.
fn wait_for(memory: &Sliced, wanted: u64) {
    let ready = || (memory.load_u64(NEWS, Ordering::Acquire) == wanted).then_some(());
    let note = |_: Parked| ();
    let mut waiter = Waiter::new(WaitStrategy::Park, false);
    waiter.wait(memory, WAITING, Deadline::NEVER, ready, note).expect("there is no deadline");
}

fn tell(memory: &Sliced, news: u64) {
    memory.store_u64(NEWS, news, Ordering::Release);
    wake_if_waiting(memory, WAITING);
}

fn one_missed(slices_pass: bool) {
    loom::model(move || {
        let (words, slices) = words();
        let waking = {
            let (words, slices) = (words.clone(), slices.clone());
            thread::spawn(move || {
                tell(&Sliced::new(&words, &slices, false), 1);
                if slices_pass {
                    slices.pass();
                }
            })
        };
        wait_for(&Sliced::new(&words, &slices, true), 1);
        waking.join().unwrap();
    });
}

/// Neither side may have seen the other; the sleep that runs out finds the news.
#[test]
fn f46_a_missed_announcement_is_found_when_a_sleep_runs_out() {
    one_missed(true);
}

/// The same with sleeps that do not run out: the sleeper sleeps for ever, which loom reports.
#[test]
#[should_panic]
fn f46_without_slices_a_missed_announcement_is_a_lost_wakeup() {
    one_missed(false);
}

/// A sleep runs out before there is news. The sleeper sleeps on without another store or fence, and the
/// waker finds its announcement.
#[test]
fn f46_a_sleep_that_runs_out_loses_no_later_news() {
    loom::model(|| {
        let (words, slices) = words();
        let waking = {
            let (words, slices) = (words.clone(), slices.clone());
            thread::spawn(move || {
                let memory = Sliced::new(&words, &slices, true);
                slices.pass();
                tell(&memory, 1);
            })
        };
        wait_for(&Sliced::new(&words, &slices, true), 1);
        waking.join().unwrap();
    });
}

/// A waker takes the announcement back and dies before it wakes. When the sleep runs out the sleeper
/// announces itself anew, so that the next waker finds it.
#[test]
fn f46_an_announcement_that_a_dead_waker_took_is_made_anew() {
    loom::model(|| {
        let (words, slices) = words();
        let waking = {
            let (words, slices) = (words.clone(), slices.clone());
            thread::spawn(move || {
                let memory = Sliced::new(&words, &slices, true);
                memory.swap_u32(WAITING, 0, Ordering::AcqRel);
                slices.pass();
                tell(&memory, 1);
            })
        };
        wait_for(&Sliced::new(&words, &slices, true), 1);
        waking.join().unwrap();
    });
}
