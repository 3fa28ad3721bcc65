//! ringway's lossy channel: with a receiver that keeps up, with a slow one, and with none.
//!
//! Rows of the lossy bench.
//! What always holds: only the public API is used; every message that is received carries the number
//! that the channel gives it; received and lost ones add up to those sent, or the bench stops.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use ringway::channel::{LossyChannel, LossyOptions, LossyReceiver, LossySender};
use ringway::wakeup::WaitStrategy;

use super::case::{Case, Setting, Transport};
use super::cpu;
use super::link::{End, Outcome, Spec, number_of, stamp};

/// What a slow receiver does between two messages takes so long.
pub const PAUSE: Duration = Duration::from_micros(2);

fn options(spec: &Spec) -> LossyOptions {
    let capacity_bytes = spec.capacity as u64;
    LossyOptions { capacity_bytes, wait: WaitStrategy::Spin, ..LossyOptions::default() }
}

/// Parent to child. The sender looks how far the receiver is once in an eighth of the ring, and
/// waits for it where half of it is unread: so nothing is lost, which the driver checks.
#[derive(Debug)]
pub struct KeepsUp {
    side: Side,
    out: Vec<u8>,
    /// Messages between two looks, and until the next one.
    stretch: u64,
    left: u64,
}

#[derive(Debug)]
enum Side {
    Sends(LossySender),
    Receives(LossyReceiver),
}

impl KeepsUp {
    fn new(side: Side, spec: &Spec) -> Self {
        // A record is the payload, a header and a number.
        let record = spec.size.next_multiple_of(8) + 16;
        let stretch = (spec.capacity / 8 / record) as u64;
        Self { side, out: vec![0xa5; spec.size], stretch, left: stretch }
    }
}

impl Transport for KeepsUp {
    type End = Self;

    fn create(spec: &Spec) -> (Self, Vec<OwnedFd>) {
        let channel = LossyChannel::anonymous(&options(spec)).expect("a channel");
        let fd = channel.descriptor().expect("a descriptor");
        (Self::new(Side::Sends(channel.into_end()), spec), vec![fd])
    }

    fn attach(spec: &Spec, mut fds: Vec<OwnedFd>) -> Self {
        let channel = LossyChannel::attach(fds.remove(0), &options(spec));
        Self::new(Side::Receives(channel.expect("the parent's channel").into_end()), spec)
    }
}

impl End for KeepsUp {
    #[inline]
    fn send(&mut self, number: u64) {
        let Side::Sends(sender) = &mut self.side else { panic!("one way only") };
        if self.left == 0 {
            while sender.stats().unread > 3 * self.stretch {
                std::hint::spin_loop();
            }
            self.left = self.stretch;
        }
        self.left -= 1;
        stamp(&mut self.out, number);
        sender.send(&self.out).expect("an open channel");
    }

    #[inline]
    fn recv(&mut self) -> u64 {
        let Side::Receives(receiver) = &mut self.side else { panic!("one way only") };
        let message = receiver.recv().expect("an open channel");
        assert_eq!((message.len(), message.lost_before()), (self.out.len(), 0), "not kept up");
        number_of(&message)
    }
}

/// What became of the messages of the measurements of one row at one size.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fate {
    pub sent: u64,
    pub lost: u64,
}

static FATES: Mutex<BTreeMap<(&'static str, usize, usize), Fate>> = Mutex::new(BTreeMap::new());

/// What was lost until now, by name of the row, capacity, and size.
pub fn fate(name: &'static str, spec: &Spec) -> Option<Fate> {
    FATES.lock().expect("no panic before").get(&(name, spec.capacity, spec.size)).copied()
}

fn note(case: &Case, spec: &Spec, sent: u64, lost: u64) {
    let mut fates = FATES.lock().expect("no panic before");
    let fate = fates.entry((case.name, spec.capacity, spec.size)).or_default();
    *fate = Fate { sent: fate.sent + sent, lost: fate.lost + lost };
}

/// Sends for about this long; messages a second. The numbers go on from `next`.
fn flood(sender: &mut LossySender, spec: &Spec, time: Duration) -> f64 {
    let mut out = vec![0xa5; spec.size];
    let (first, started) = (sender.stats().sent, Instant::now());
    let mut next = first;
    while started.elapsed() < time {
        for number in next..next + 256 {
            stamp(&mut out, number);
            sender.send(&out).expect("an open channel");
        }
        next += 256;
    }
    (next - first) as f64 / started.elapsed().as_secs_f64()
}

/// A sender whose receiver has not come.
pub fn measure_absent(case: &Case, setting: &Setting) -> Outcome {
    let channel = LossyChannel::anonymous(&options(&setting.spec)).expect("a channel");
    let mut sender = channel.into_end();
    flood(&mut sender, &setting.spec, setting.time / 5);
    let per_second = flood(&mut sender, &setting.spec, setting.time);
    let stats = sender.stats();
    assert_eq!(stats.sent, stats.lost + stats.unread, "nobody has taken anything");
    note(case, &setting.spec, stats.sent, stats.lost);
    Outcome::OneWay { per_second }
}

/// A sender whose receiver, in a second thread, pauses after each message.
pub fn measure_slow(case: &Case, setting: &Setting) -> Outcome {
    let ends = LossyChannel::pair(&options(&setting.spec)).expect("a channel");
    let (mut sender, mut receiver) = ends;
    let far_cpu = setting.far_cpu;
    let receiving = thread::spawn(move || {
        cpu::pin(far_cpu);
        while let Ok(message) = receiver.recv() {
            assert_eq!(
                u64::from_ne_bytes(message[..8].try_into().expect("8 bytes")),
                message.number()
            );
            let begun = Instant::now();
            while begun.elapsed() < PAUSE {
                std::hint::spin_loop();
            }
        }
        receiver.stats()
    });
    flood(&mut sender, &setting.spec, setting.time / 5);
    let per_second = flood(&mut sender, &setting.spec, setting.time);
    let sent = sender.stats().sent;
    drop(sender);
    let stats = receiving.join().expect("the receiver");
    assert_eq!(stats.received + stats.lost, sent, "a loss that was not counted");
    note(case, &setting.spec, sent, stats.lost);
    Outcome::OneWay { per_second }
}
