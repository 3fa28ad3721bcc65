//! Values under keys that two sides share: what is done with them, and how it is measured.
//!
//! The store benches make a [`Case`] of each pair of something that is [`Keyed`] and some [`Work`].
//! What always holds: every value carries its key and a turn in its first and in its last 8 bytes, and
//! who reads one checks both, so that neither a torn nor a misplaced value goes unnoticed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use super::case::{Case, Setting};
use super::cli::ChildArgs;
use super::cpu;
use super::link::{Control, Outcome};
use super::op::Op;
use super::process::{Peer, inherit};
use super::shared::Shared;
use super::stats::{Latencies, median};

/// Keys where a work says nothing else.
pub const KEYS: usize = 10_000;
/// What a value needs beside itself, roughly.
const BESIDE_VALUE_BYTES: usize = 128;
/// Looks at the flag that ends it after so many operations.
const FAR_BLOCK: usize = 64;

/// What two sides do at the same time.
pub trait Work<K> {
    /// What is timed.
    type Near: Op<K>;
    /// What goes on beside it.
    type Far: Op<K>;
    /// Keys, if so many values fit into half of the capacity.
    const KEYS: usize = KEYS;
    /// Whether all is done to one of the keys.
    const ONE: bool = false;
}

/// Keys and values to begin with.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Bytes of a value.
    pub size: usize,
    /// Number of keys.
    pub keys: usize,
    /// Bytes for all of it.
    pub capacity: usize,
    /// Whether this side changes values once they are there.
    pub writes: bool,
    /// Whether the other side does.
    pub far_writes: bool,
}

impl Load {
    fn of<K, W: Work<K>>(size: usize, capacity: usize, near: bool) -> Self {
        let most = (capacity / 2 / (size + BESIDE_VALUE_BYTES)).max(1);
        let (near_writes, far_writes) = (W::Near::WRITES, W::Far::WRITES);
        let (writes, far_writes) =
            if near { (near_writes, far_writes) } else { (far_writes, near_writes) };
        Self { size, keys: W::KEYS.min(most), capacity, writes, far_writes }
    }
}

/// One side's hold on values under keys. Keys are numbers below [`Load::keys`].
pub trait Keyed: Sized {
    /// The near side's, with a value under every key, and what the far side makes its own from.
    fn create(load: &Load) -> (Self, Vec<OwnedFd>);
    /// The far side's.
    fn attach(load: &Load, fds: Vec<OwnedFd>) -> Self;
    /// Reads as much of a value as the row says; returns what its first 8 bytes hold.
    fn get(&mut self, key: u64) -> u64;
    /// Writes a value that holds this at both ends.
    fn set(&mut self, key: u64, stamp: u64);
}

/// What maps can do besides.
pub trait Changing: Keyed {
    /// Whether the key is there.
    fn contains(&mut self, key: u64) -> bool;
    /// Removes a key; returns whether it was there.
    fn delete(&mut self, key: u64) -> bool;
    /// Writes this to both ends of the value that is there.
    fn update(&mut self, key: u64, stamp: u64);
    /// Adds [`ONE_TURN`] to a value of 8 bytes.
    fn add(&mut self, key: u64);
}

/// What a value holds in its first and in its last 8 bytes: its key and how often all were written.
pub fn stamp_of(key: u64, turn: u64) -> u64 {
    key | turn << 32
}

/// What is added to a value of 8 bytes: its key stays what it is.
pub const ONE_TURN: u64 = 1 << 32;

/// Sixteen bytes of a key.
#[inline(always)]
pub fn key_bytes(key: u64) -> [u8; 16] {
    let mut bytes = *b"a key: ........ ";
    bytes[8..].copy_from_slice(&key.to_be_bytes());
    bytes
}

/// Writes a stamp to both ends of a value.
#[inline(always)]
pub fn write_stamp(value: &mut [u8], stamp: u64) {
    let last = value.len() - 8;
    value[..8].copy_from_slice(&stamp.to_ne_bytes());
    value[last..].copy_from_slice(&stamp.to_ne_bytes());
}

/// Reads the first and the last 8 bytes of a value.
#[inline(always)]
pub fn read_stamp(value: &[u8]) -> u64 {
    let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
    let stamp = word(&value[..8]);
    assert_eq!(word(&value[value.len() - 8..]), stamp, "a torn value");
    stamp
}

/// Which key is next: all of them in an order that no prefetcher knows, or one.
#[derive(Debug, Clone, Copy)]
pub struct Walk {
    at: u64,
    step: u64,
    keys: u64,
    turn: u64,
}

impl Walk {
    fn new<K, W: Work<K>>(load: &Load, near: bool) -> Self {
        let keys = if W::ONE { 1 } else { load.keys as u64 };
        let coprime = |step: &u64| gcd(*step, keys) == 1;
        let step = (keys * 618 / 1000..).find(coprime).expect("there are primes") % keys.max(1);
        let at = if near { 0 } else { keys / 2 };
        Self { at, step, keys, turn: 1 }
    }

    #[inline(always)]
    fn next(&mut self) -> u64 {
        let key = self.at;
        self.at += self.step;
        if self.at >= self.keys {
            self.at -= self.keys;
        }
        key
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// One operation.
#[inline(always)]
fn step<K, O: Op<K>>(keyed: &mut K, walk: &mut Walk) {
    let key = walk.next();
    O::once(keyed, key, &mut walk.turn);
}

/// Nanoseconds of one of the near side's operations: the median of blocks.
fn timed<K: Keyed, W: Work<K>>(keyed: &mut K, load: &Load, time: Duration) -> f64 {
    let mut walk = Walk::new::<K, W>(load, true);
    let warm_up = Instant::now();
    let mut warmed = 0_u32;
    while warmed < 8 || warm_up.elapsed() < time / 5 {
        step::<K, W::Near>(keyed, &mut walk);
        warmed += 1;
    }
    let each_ns = warm_up.elapsed().as_nanos() as f64 / f64::from(warmed);
    // The clock costs as much as a short operation: once in about 50 us.
    let block = (50_000.0 / each_ns).clamp(1.0, 10_000.0) as u32;
    let mut blocks = Vec::new();
    let started = Instant::now();
    while blocks.is_empty() || started.elapsed() < time {
        let start = Instant::now();
        for _ in 0..block {
            step::<K, W::Near>(keyed, &mut walk);
        }
        blocks.push(start.elapsed().as_nanos() as f64 / f64::from(block));
    }
    median(&mut blocks)
}

/// The far side: goes on until it is told to stop.
fn beside<K: Keyed, W: Work<K>>(keyed: &mut K, load: &Load, control: &Control) {
    let mut walk = Walk::new::<K, W>(load, false);
    control.set_ready();
    while !control.is_over() {
        for _ in 0..FAR_BLOCK {
            step::<K, W::Far>(keyed, &mut walk);
        }
    }
}

fn outcome(ns: f64) -> Outcome {
    Outcome::RoundTrip { ns, each: Latencies::new() }
}

/// Measures in this process, beside a child where the work has a far side; for
/// [`Case::processes_by`].
pub fn measure_processes<K: Keyed, W: Work<K>>(case: &Case, setting: &Setting) -> Outcome {
    let control = Control::new(Shared::create(Control::BYTES));
    let load = Load::of::<K, W>(setting.spec.size, setting.spec.capacity, true);
    let (mut near, fds) = K::create(&load);
    let peer = (W::Far::IS_DONE).then(|| {
        let args = ChildArgs {
            case: case.name.into(),
            spec: setting.spec,
            job: setting.job,
            cpu: setting.far_cpu,
            near: None,
            parent: 0,
            fds: Vec::new(),
        };
        let mut inherited: Vec<BorrowedFd<'_>> = vec![control.shared().fd()];
        inherited.extend(fds.iter().map(AsFd::as_fd));
        let mut peer = Peer::spawn(args, &inherited);
        peer.wait_until_ready(&control);
        peer
    });
    drop(fds);
    let ns = timed::<K, W>(&mut near, &load, setting.time);
    control.set_over();
    if let Some(peer) = peer {
        peer.finish();
    }
    outcome(ns)
}

/// The child's part; for [`Case::processes_by`].
pub fn serve_process<K: Keyed, W: Work<K>>(args: &ChildArgs) {
    let mut fds = inherit(args);
    let control = Control::new(Shared::attach(fds.remove(0)));
    let load = Load::of::<K, W>(args.spec.size, args.spec.capacity, false);
    let mut far = K::attach(&load, fds);
    beside::<K, W>(&mut far, &load, &control);
}

/// A row between processes.
pub const fn processes<K: Keyed, W: Work<K>>(name: &'static str) -> Case {
    Case::processes_by(name, measure_processes::<K, W>, serve_process::<K, W>)
}

/// What two threads of one process share; `Clone` is the other thread's hold.
pub trait Together: Keyed + Clone + Send + 'static {}

/// A row in one process, beside a second thread where the work has a far side.
pub const fn threads<K: Together, W: Work<K>>(name: &'static str) -> Case {
    Case::threads(name, measure_threads::<K, W>)
}

fn measure_threads<K: Together, W: Work<K>>(_case: &Case, setting: &Setting) -> Outcome {
    let control = Control::new(Shared::create(Control::BYTES));
    let load = Load::of::<K, W>(setting.spec.size, setting.spec.capacity, true);
    let (mut near, _) = K::create(&load);
    let peer = (W::Far::IS_DONE).then(|| {
        let (mut far, far_cpu, far_control) = (near.clone(), setting.far_cpu, control.clone());
        thread::spawn(move || {
            cpu::pin(far_cpu);
            beside::<K, W>(&mut far, &load, &far_control);
        })
    });
    if let Some(peer) = &peer {
        while !control.is_ready() && !peer.is_finished() {
            thread::yield_now();
        }
    }
    let ns = timed::<K, W>(&mut near, &load, setting.time);
    control.set_over();
    if let Some(peer) = peer {
        peer.join().expect("the far thread");
    }
    outcome(ns)
}
