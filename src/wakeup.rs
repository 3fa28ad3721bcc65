//! Sleeping until a word changes, and waking a thread that sleeps.
//!
//! The blocking ends of a channel call it. It knows nothing of rings, only a *waiting word* on which
//! one side sleeps, and a closure that looks for news. Invariants:
//! - A sleeper announces itself, fences, looks again and only then sleeps.
//! - A waker makes its news visible, fences, and only then looks for a sleeper.
//! - Every sleep has an end, and a wait whose deadline has passed only looks.
//! - No wakeup depends on where a thread runs.
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
//! With the fences at least one of the two sees the other's store. Where the waker's fence is the
//! compiler's only (`memory::fences`), the sleeper's barrier stands for it. That barrier can miss a
//! processor, so that in rare cases neither sees anything:
//! 1. The sleeper announces itself once and sleeps. Its first sleep lasts 1 ms, the next ones longer.
//! 2. A sleep ends and the word is still 1. By then the announcement and the news are visible
//!    everywhere. The sleeper looks, and sleeps on without another store or fence: the waker of any
//!    later news sees the announcement.
//! 3. A sleep ends and the word is 0, and there is no news. Somebody has taken the announcement back,
//!    and may have died before the wake: the sleeper announces itself anew.
//!
//! Before the first sleep the sleeper looks for another 10 µs. News that was under way when it looked
//! first is found then, not 1 ms later.
//!
//! # What a sleep costs
//!
//! One system call for the sleeper, one for the waker, and where the waker does without a fence, the
//! barrier. Beside a bare futex round trip on one processor, one over a channel takes 1.12 times as
//! long, and so does a bare one whose sleeps have an end, as all of ours do: the kernel starts and
//! stops a timer for each (`cargo bench --bench roundtrip`, row "raw futex, timed sleeps").
//!
//! # The waiting word
//!
//! | value | meaning | who changes it |
//! |---|---|---|
//! | 0 | nobody sleeps | the sleeper stores 1 before it sleeps |
//! | 1 | somebody sleeps or is about to | the waker swaps 0 in and wakes; the sleeper stores 0 when its wait ends |

use crate::memory::{Deadline, Memory, Ordering};

/// The sleeps of one wait where the barrier may have missed a processor, in turn; the last one is
/// repeated.
const SLICES_NS: [u64; 5] = [1_000_000, 16_000_000, MAX_SLEEP_NS, 1_000_000_000, LONGEST_SLEEP_NS];
/// Where the barrier is certain, the first of them is this one: only a peer that dies between
/// publishing and waking, or lies, makes anybody wait that long.
const FIRST_CERTAIN: usize = 2;

/// The first sleep of a wait whose barrier is certain, and the longest one of whoever must look
/// regularly.
pub const MAX_SLEEP_NS: u64 = 250_000_000;
/// The longest that a sleeper goes without looking by itself.
pub const LONGEST_SLEEP_NS: u64 = 4_000_000_000;

/// How long a sleeper goes on looking before its first sleep, where the barrier may have missed a
/// processor.
const SECOND_LOOK_NS: u64 = 10_000;

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

/// What happens in a wait, for its caller to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parked {
    /// The thread is about to sleep.
    Sleeps,
    /// A sleep has run out, and there is news of which nobody has woken it.
    Missed,
}

/// One end's way of waiting, with what it has learnt.
#[derive(Debug)]
pub struct Waiter {
    strategy: WaitStrategy,
    /// How long to spin before sleeping.
    spin_ns: u64,
    may_spin: bool,
    longest_ns: u64,
}

impl Waiter {
    /// A waiter. `may_spin` is false where the thread, or both sides, have one processor only.
    pub fn new(strategy: WaitStrategy, may_spin: bool) -> Self {
        let spin_ns = if strategy == WaitStrategy::SpinThenPark { MAX_SPIN_NS } else { 0 };
        Self { strategy, spin_ns, may_spin, longest_ns: LONGEST_SLEEP_NS }
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
    /// off ([`WaitStrategy::Spin`] spins all the same). A wrong hint costs the time of a spin or of a
    /// sleep.
    #[inline]
    pub fn set_shares_cpu(&mut self, shares_cpu: bool) {
        self.may_spin = !shares_cpu;
    }

    /// Bounds the sleeps of the waits that follow: for things to look for that nobody wakes for.
    #[inline]
    pub fn set_longest_sleep(&mut self, longest_ns: u64) {
        self.longest_ns = longest_ns;
    }

    /// Waits until `ready` returns something or the deadline has passed. Where it has passed already,
    /// looks once and does nothing else. `note` is told of each sleep.
    ///
    /// `waiting` is the offset of the word on which the other side will wake us.
    pub fn wait<M: Memory, T>(
        &mut self,
        memory: &M,
        waiting: u64,
        deadline: Deadline,
        mut ready: impl FnMut() -> Option<T>,
        note: impl FnMut(Parked),
    ) -> Option<T> {
        if deadline.has_passed(memory) {
            return ready();
        }
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
            if self.strategy == WaitStrategy::Spin || deadline.has_passed(memory) {
                return ready();
            }
        }
        let news = self.park(memory, waiting, deadline, ready, note);
        if self.strategy == WaitStrategy::SpinThenPark && self.may_spin {
            self.learn(started, memory.now_ns());
        }
        news
    }

    /// Announces, fences, looks, sleeps; see the module.
    #[cold]
    fn park<M: Memory, T>(
        &self,
        memory: &M,
        waiting: u64,
        deadline: Deadline,
        mut ready: impl FnMut() -> Option<T>,
        mut note: impl FnMut(Parked),
    ) -> Option<T> {
        let news = 'announced: loop {
            // Relaxed: the fence orders it before the look. Its partner is the load in
            // `wake_if_waiting`.
            memory.store_u32(waiting, 1, Ordering::Relaxed);
            memory.heavy_fence();
            let certain = memory.fence_is_certain();
            let mut news = ready();
            if news.is_none() && !certain && self.may_spin {
                let until = memory.now_ns().saturating_add(SECOND_LOOK_NS);
                news = spin(memory, deadline.min(Deadline::at_ns(until)), &mut ready);
            }
            if news.is_some() {
                break news;
            }
            let first = if certain { FIRST_CERTAIN } else { 0 };
            let lasting = std::iter::repeat(LONGEST_SLEEP_NS);
            for slice_ns in SLICES_NS[first..].iter().copied().chain(lasting) {
                let now = memory.now_ns();
                if now >= deadline.as_ns() {
                    break 'announced None;
                }
                note(Parked::Sleeps);
                let slice_ns = slice_ns.min(self.longest_ns);
                let until = deadline.min(Deadline::at_ns(now.saturating_add(slice_ns)));
                memory.wait_u32(waiting, 1, until);
                let news = ready();
                // Relaxed: whether to announce again is decided by nothing else that it orders.
                let announced = memory.load_u32(waiting, Ordering::Relaxed) != 0;
                if news.is_some() {
                    if announced && until.has_passed(memory) {
                        note(Parked::Missed);
                    }
                    break 'announced news;
                }
                if !announced {
                    break;
                }
            }
        };
        memory.store_u32(waiting, 0, Ordering::Relaxed);
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

/// Wakes the other side if it sleeps; call it after making the news visible. Returns whether there
/// was somebody to wake. Costs a load where nobody sleeps.
#[inline]
pub fn wake_if_waiting<M: Memory>(memory: &M, waiting: u64) -> bool {
    memory.light_fence();
    // Relaxed: the fence orders it after our news. Its partner is the store in `Waiter::park`.
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

/// Wakes every thread that sleeps on the word, whatever it says; for attach, close and death.
#[cold]
pub fn wake_always<M: Memory>(memory: &M, waiting: u64) {
    // Pairs with the full fence that every sleeper executes in its heavy fence: no barrier is needed.
    memory.full_fence();
    memory.swap_u32(waiting, 0, Ordering::AcqRel);
    memory.wake_u32(waiting, u32::MAX);
}
