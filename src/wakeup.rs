//! Sleeping until a word changes, and waking whoever sleeps.
//!
//! The blocking ends of a channel call it; it knows nothing of rings, only a *waiting word* on
//! which one side sleeps and a closure that tells whether there is something to get up for.
//! What always holds: a sleeper announces itself, fences, looks again and only then sleeps; a waker
//! makes its news visible, fences, and only then looks for sleepers; every sleep is timed.
//!
//! # The race, from both sides
//!
//! ```text
//! sleeper                              waker
//! waiting = 1                          publish (header, head, closed flag)
//! heavy fence                          light fence
//! look for news -> none: sleep         look at waiting -> 1: swap 0, wake
//! ```
//!
//! The two fences make it impossible that both look and both see nothing. With
//! [`FenceMode::Asymmetric`](crate::memory::FenceMode) the waker's fence costs nothing and the
//! sleeper's is a membarrier; with `Real` both are fences. If the waker dies between publishing and
//! waking, or the peer lies, the sleeper loses at most a slice of [`MAX_SLEEP_NS`]: it gets up, looks,
//! and announces itself again.
//!
//! # What a sleep costs
//!
//! One system call for the sleeper, one for the waker, and where the fence is asymmetric and the two
//! may run on different processors, the barrier. Beside a bare futex round trip on one processor, one
//! over a channel takes 1.12 times as long, and so does a bare one whose sleeps have an end, as all of
//! ours do: the kernel starts and stops a timer for each (`cargo bench --bench roundtrip`, row "raw
//! futex, timed sleeps"). The barrier, where it was taken on one processor, cost another quarter.
//!
//! # The waiting word
//!
//! | value | meaning | who changes it |
//! |---|---|---|
//! | 0 | nobody sleeps | the sleeper stores 1 before it sleeps |
//! | 1 | somebody sleeps or is about to | the waker swaps 0 in and wakes; the sleeper stores 0 when it gets up by itself |

use crate::memory::{Deadline, Memory, Ordering};

/// The longest that a sleeper goes without looking by itself. Only a peer that dies between
/// publishing and waking, or lies, makes anybody wait that long.
pub const MAX_SLEEP_NS: u64 = 250_000_000;

/// The same for the first sleep of a wait in which both sides share their only processor, as far as
/// this one knows.
pub const MAX_SHARED_SLEEP_NS: u64 = 20_000_000;

/// How an end waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WaitStrategy {
    /// Never sleeps. Lowest latency; burns its processor.
    Spin,
    /// Spins for about as long as spinning has been paying off lately, then sleeps. Does not spin
    /// where the thread may run on one processor only.
    #[default]
    SpinThenPark,
    /// Sleeps at once.
    Park,
}

/// Longest time that [`WaitStrategy::SpinThenPark`] spins: about what a wakeup costs.
const MAX_SPIN_NS: u64 = 50_000;
/// Shortest: one look at the clock.
const MIN_SPIN_NS: u64 = 1_000;
/// Polls before the first pause.
const EAGER_POLLS: u32 = 64;
/// Longest pause between two polls, in spin hints.
const MAX_PAUSES: u32 = 16;

/// One end's way of waiting, with what it has learnt.
#[derive(Debug)]
pub struct Waiter {
    strategy: WaitStrategy,
    /// How long to spin before sleeping.
    spin_ns: u64,
    may_spin: bool,
    /// See [`set_shares_cpu`](Self::set_shares_cpu).
    shares_cpu: bool,
}

impl Waiter {
    /// A waiter. `may_spin` is false where the thread, or both sides, have one processor only.
    pub fn new(strategy: WaitStrategy, may_spin: bool) -> Self {
        let spin_ns = if strategy == WaitStrategy::SpinThenPark { MAX_SPIN_NS } else { 0 };
        Self { strategy, spin_ns, may_spin, shares_cpu: false }
    }

    /// The strategy.
    pub fn strategy(&self) -> WaitStrategy {
        self.strategy
    }

    /// Whether spinning can pay off at all.
    pub fn may_spin(&self) -> bool {
        self.may_spin
    }

    /// Whether a wait begins with polling.
    #[inline]
    pub(crate) fn polls_first(&self) -> bool {
        self.strategy == WaitStrategy::Spin || self.may_spin && self.spin_ns > 0
    }

    /// Says whether both sides can run on one and the same processor only. Then spinning cannot pay
    /// off ([`WaitStrategy::Spin`] spins all the same), and going to sleep takes no barrier: one
    /// processor sees its own stores in their order, whichever thread made them. Where that was
    /// wrong, a wakeup may be missed, and costs [`MAX_SHARED_SLEEP_NS`].
    #[inline]
    pub fn set_shares_cpu(&mut self, shares_cpu: bool) {
        self.shares_cpu = shares_cpu;
        self.may_spin = !shares_cpu;
    }

    /// Waits until `ready` returns something or the deadline has passed (then it has looked once
    /// after it). `sleeps` is called before each sleep.
    ///
    /// `waiting` is the offset of the word on which the other side will wake us.
    pub fn wait<M: Memory, T>(
        &mut self,
        memory: &M,
        waiting: u64,
        deadline: Deadline,
        mut ready: impl FnMut() -> Option<T>,
        mut sleeps: impl FnMut(),
    ) -> Option<T> {
        let spins = self.polls_first();
        let mut started = 0;
        if spins {
            for _ in 0..EAGER_POLLS {
                if let Some(news) = ready() {
                    return Some(news);
                }
            }
            started = memory.now_ns();
            let until = match self.strategy {
                WaitStrategy::Spin => deadline,
                _ => deadline.min(Deadline::at_ns(started.saturating_add(self.spin_ns))),
            };
            if let Some(news) = spin(memory, until, &mut ready) {
                self.spin_ns = (self.spin_ns.saturating_mul(2)).min(MAX_SPIN_NS);
                return Some(news);
            }
            if self.strategy == WaitStrategy::Spin {
                return ready();
            }
        }
        let news = park(memory, waiting, deadline, self.shares_cpu, ready, &mut sleeps);
        if self.strategy == WaitStrategy::SpinThenPark && self.may_spin {
            self.learn(started, memory.now_ns());
        }
        news
    }

    /// After a sleep: would spinning have been enough?
    fn learn(&mut self, started: u64, ended: u64) {
        let worthwhile = ended.saturating_sub(started) <= 2 * MAX_SPIN_NS;
        self.spin_ns = if worthwhile {
            (self.spin_ns.saturating_mul(2)).clamp(MIN_SPIN_NS, MAX_SPIN_NS)
        } else {
            (self.spin_ns / 2).max(MIN_SPIN_NS)
        };
    }
}

/// Polls with growing pauses, so that the poller does not fight the writer for the line.
fn spin<M: Memory, T>(
    memory: &M,
    until: Deadline,
    ready: &mut impl FnMut() -> Option<T>,
) -> Option<T> {
    let mut pauses = 1;
    loop {
        for _ in 0..8 {
            if let Some(news) = ready() {
                return Some(news);
            }
            for _ in 0..pauses {
                memory.pause();
            }
        }
        pauses = (pauses * 2).min(MAX_PAUSES);
        if until != Deadline::NEVER && memory.now_ns() >= until.as_ns() {
            return None;
        }
    }
}

/// Announces, fences, looks, sleeps; again after every slice.
#[cold]
fn park<M: Memory, T>(
    memory: &M,
    waiting: u64,
    deadline: Deadline,
    mut shares_cpu: bool,
    mut ready: impl FnMut() -> Option<T>,
    sleeps: &mut impl FnMut(),
) -> Option<T> {
    loop {
        // Relaxed: the fence orders it before the look. Its partner is the load in `wake`.
        memory.store_u32(waiting, 1, Ordering::Relaxed);
        let slice_ns = if shares_cpu {
            memory.light_fence();
            MAX_SHARED_SLEEP_NS
        } else {
            memory.heavy_fence();
            MAX_SLEEP_NS
        };
        // The other side may have moved to another processor unseen: the next sleep, if there is
        // one, is a careful one.
        shares_cpu = false;
        if let Some(news) = ready() {
            memory.store_u32(waiting, 0, Ordering::Relaxed);
            return Some(news);
        }
        let now = memory.now_ns();
        if now >= deadline.as_ns() {
            memory.store_u32(waiting, 0, Ordering::Relaxed);
            return None;
        }
        sleeps();
        let slice = deadline.min(Deadline::at_ns(now.saturating_add(slice_ns)));
        memory.wait_u32(waiting, 1, slice);
        if let Some(news) = ready() {
            memory.store_u32(waiting, 0, Ordering::Relaxed);
            return Some(news);
        }
    }
}

/// Wakes the other side if it sleeps; call it after making the news visible. Returns whether there
/// was somebody to wake. Costs a load where nobody sleeps.
#[inline]
pub fn wake_if_waiting<M: Memory>(memory: &M, waiting: u64) -> bool {
    memory.light_fence();
    // Relaxed: the fence orders it after our news. Its partner is the store in `park`.
    memory.load_u32(waiting, Ordering::Relaxed) != 0 && wake(memory, waiting)
}

/// Takes the announcement back and wakes the sleeper.
#[cold]
fn wake<M: Memory>(memory: &M, waiting: u64) -> bool {
    if memory.swap_u32(waiting, 0, Ordering::AcqRel) == 0 {
        return false;
    }
    memory.wake_u32(waiting, 1);
    true
}

/// Wakes whoever sleeps on the word, whatever it says; for attach, close and death.
#[cold]
pub fn wake_always<M: Memory>(memory: &M, waiting: u64) {
    memory.heavy_fence();
    memory.swap_u32(waiting, 0, Ordering::AcqRel);
    memory.wake_u32(waiting, u32::MAX);
}
