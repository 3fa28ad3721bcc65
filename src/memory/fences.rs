//! How the two sides of a channel share the cost of the fence that a sleeper and its waker need.
//!
//! [`MappedMemory`] of a channel's side calls it for its light and heavy fences; `channel::connect`
//! starts it. Invariants:
//! - A side's wakes execute a fence until the side has said in its line that they do not.
//! - A sleeper executes a full fence, then reads how the peer wakes, and issues the barrier that this
//!   needs.
//! - A barrier that misses a processor, and a peer that lies, cost a slice of a sleep. The sleeper
//!   finds the message all the same.
//!
//! # From a fence to none
//!
//! ```text
//! waker's side                                     sleeper's side
//! registers for membarrier, writes its
//!   processors, then its token
//!                                                  sees the token: a thread runs on every
//!                                                    processor of both sides, then writes the token
//!                                                    to its own `flushed`
//! sees its token in the peer's `flushed`:
//!   wakes = RELIES_ON_GLOBAL; full fence;
//!   from now on no fence between news and look
//! ```
//!
//! Each direction goes through this by itself. It ends where it stands, with fences, if a side cannot
//! register, may use a processor beyond the 1024th, or cannot run on one that is switched on (a
//! cpuset forbids it), if the flush takes longer than a second, or if the channel was created with
//! [`FenceMode::Real`]: processors that nobody may disturb must not be visited.
//!
//! # Why a flush
//!
//! A registration does not reach a processor that is idle with the registering process's memory still
//! loaded. The kernel notes the registration for a processor when it switches there from one
//! address space to another; a switch from idle back to a thread of the same process is none. Until
//! then each global barrier skips that processor. A thread of the *other* process that runs there
//! once, after the registration, forces the switch. A thread of the registering process would not.
//! The private barrier has no such gap, so two sides in one process need no flush.
//!
//! # The change itself loses no wakeup
//!
//! The sleeper stores `waiting = 1`, fences, and reads `wakes`. The waker's side stores `wakes`,
//! fences, and later reads `waiting` without a fence.
//! 1. The sleeper reads the new `wakes`: it issues the barrier.
//! 2. It reads the old one: its fence came before the waker's, so every later look of the waker sees
//!    `waiting = 1`. Looks before the change stand behind fences of their own.

use std::io;
use std::sync::Arc;

use super::flush;
use super::{FenceMode, MappedMemory, Memory, Ordering};
use crate::layout::side;
use crate::os::affinity::CpuSet;
use crate::os::per_process::PerProcess;
use crate::os::{fork, membarrier, random};
use crate::sync::{AtomicU32, AtomicU64, compiler_fence, full_fence};

/// Flushes that one connection asks for: a peer can show new tokens for ever.
const MAX_FLUSHES: u32 = 16;

/// How one clone of a side's memory fences.
#[derive(Debug, Default)]
pub(super) struct Fences {
    /// What `shared.wakes` said when this clone last looked: the hot path reads nothing else.
    wakes: AtomicU32,
    /// `None` where every fence is a full one.
    shared: Option<Arc<Shared>>,
}

impl Clone for Fences {
    fn clone(&self) -> Self {
        // Relaxed: a clone that sees an old value fences once more and looks again.
        let wakes = AtomicU32::new(self.wakes.load(Ordering::Relaxed));
        Self { wakes, shared: self.shared.clone() }
    }
}

/// What all clones of a side's memory share.
#[derive(Debug)]
struct Shared {
    side: usize,
    /// Names this process; 0 until it has registered.
    token: AtomicU64,
    /// Whether the peer's side cannot be taken by another process later.
    is_private: bool,
    /// | value | meaning | who changes it |
    /// |---|---|---|
    /// | `side::FENCES` | wakes fence | initially |
    /// | another | what the side's line says as well | `adopt`, once, behind a full fence |
    wakes: AtomicU32,
    /// The token of the peer for which a flush was asked last.
    asked: AtomicU64,
    flushes: AtomicU32,
}

impl Fences {
    /// Between news and a look for sleepers. Returns whether the caller should see about a change.
    #[inline(always)]
    pub(super) fn light(&self) -> bool {
        // Relaxed: set by this very clone, behind the fence in `adopt`.
        if self.wakes.load(Ordering::Relaxed) != side::FENCES {
            // Pairs with the barrier that the peer issues in `heavy_fence`.
            compiler_fence(Ordering::SeqCst);
            return false;
        }
        // Pairs with the full fence in the peer's `heavy_fence`.
        full_fence();
        self.shared.is_some()
    }
}

/// Who issues which barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Barriers {
    global: bool,
    private: bool,
}

impl Barriers {
    /// Those of either.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self { global: self.global | other.global, private: self.private | other.private }
    }

    /// Whether the global barrier is among them, which may miss a processor.
    pub(crate) fn may_miss(self) -> bool {
        self.global
    }

    /// Issues them. One that fails (a filter of system calls, say) leaves the fence that the caller
    /// has executed: the peer may then miss the announcement, which costs a slice.
    pub(crate) fn issue(self) {
        if self.global {
            let _ = membarrier::global_barrier();
        }
        if self.private {
            let _ = membarrier::private_barrier();
        }
    }
}

impl MappedMemory {
    /// The same memory, as a side of a channel sees it. `is_private` says that no process but the
    /// present ones can ever take the peer's side.
    #[must_use]
    pub(crate) fn of_side(mut self, side: usize, is_private: bool) -> Self {
        if self.fence_mode() == FenceMode::Asymmetric && self.is_writable() {
            self.fences.shared = Some(Arc::new(Shared {
                side,
                token: AtomicU64::new(0),
                is_private,
                wakes: AtomicU32::new(side::FENCES),
                asked: AtomicU64::new(0),
                flushes: AtomicU32::new(0),
            }));
        }
        self
    }

    /// Tells the peer that this process has registered, and on which processors it runs. Call it once,
    /// when the side is taken.
    pub(crate) fn announce_fences(&self) {
        let Some(shared) = &self.fences.shared else { return };
        // Where one of them cannot be had, both sides stay with fences.
        let (Ok(token), Ok(cpus)) = (process_token(), CpuSet::of_process()) else { return };
        let line = side::LINE[shared.side];
        self.copy_in(side::CPUS[shared.side], bytemuck::bytes_of(&cpus.0));
        shared.token.store(token, Ordering::Relaxed);
        // Pairs with the Acquire in `peer_token`: the peer then reads these processors.
        self.store_u64(line + side::TOKEN, token, Ordering::Release);
        self.see_to_fences();
    }

    /// Sees whether a flush is due or done. For every place that is slow anyway.
    #[cold]
    #[inline(never)]
    pub(crate) fn see_to_fences(&self) {
        let Some(shared) = &self.fences.shared else { return };
        let own = shared.token.load(Ordering::Relaxed);
        let peer = self.peer_token(shared);
        if own != 0 && peer != 0 {
            if peer == own {
                if shared.is_private {
                    self.adopt(shared, side::RELIES_ON_PRIVATE);
                }
            } else {
                self.ask_for_flush(shared, peer);
                let flushed = side::LINE[1 - shared.side] + side::FLUSHED;
                // Pairs with the Release in `report_flush`.
                if self.load_u64(flushed, Ordering::Acquire) == own {
                    self.adopt(shared, side::RELIES_ON_GLOBAL);
                }
            }
        }
        // Pairs with the Release in `adopt`: the fence in there has been executed.
        let wakes = shared.wakes.load(Ordering::Acquire);
        self.fences.wakes.store(wakes, Ordering::Relaxed);
    }

    /// From now on wakes do without a fence.
    fn adopt(&self, shared: &Shared, wakes: u32) {
        if shared.wakes.load(Ordering::Relaxed) != side::FENCES {
            return;
        }
        self.store_u32(side::LINE[shared.side] + side::WAKES, wakes, Ordering::Relaxed);
        // Pairs with the full fence in the peer's `heavy_fence`; see the module.
        full_fence();
        // Pairs with the Acquire in `see_to_fences`, for this side's other end.
        shared.wakes.store(wakes, Ordering::Release);
    }

    fn ask_for_flush(&self, shared: &Arc<Shared>, peer: u64) {
        // Relaxed: whoever swaps the token in asks, and only once.
        if shared.asked.load(Ordering::Relaxed) == peer
            || shared.asked.swap(peer, Ordering::Relaxed) == peer
            || shared.flushes.fetch_add(1, Ordering::Relaxed) >= MAX_FLUSHES
        {
            return;
        }
        let sides = [0, 1].map(|side| {
            let mut cpus = CpuSet::default();
            self.copy_out(side::CPUS[side], bytemuck::bytes_of_mut(&mut cpus.0));
            cpus
        });
        let (memory, line) = (self.clone(), side::LINE[shared.side]);
        let report_flush = Box::new(move || {
            // Pairs with the Acquire in the peer's `see_to_fences`: the flush was before.
            memory.store_u64(line + side::FLUSHED, peer, Ordering::Release);
        });
        flush::ask(sides[0].union(&sides[1]), report_flush);
    }

    fn peer_token(&self, shared: &Shared) -> u64 {
        // Pairs with the Release in `announce_fences`.
        self.load_u64(side::LINE[1 - shared.side] + side::TOKEN, Ordering::Acquire)
    }

    /// Which barriers a sleeper of this side must issue, behind its announcement and a full fence.
    pub(crate) fn barriers(&self) -> Barriers {
        let Some(shared) = &self.fences.shared else { return Barriers::default() };
        let word = side::LINE[1 - shared.side] + side::WAKES;
        // Relaxed: the caller's fence orders it; see the module.
        if self.load_u32(word, Ordering::Relaxed) == side::FENCES {
            return Barriers::default();
        }
        let private = self.peer_token(shared) == shared.token.load(Ordering::Relaxed);
        Barriers { global: !private, private }
    }

    /// A fence against the light fences of this process's own threads.
    pub(super) fn fence_own_threads(&self) {
        full_fence();
        if self.fences.shared.is_some() {
            // Whatever `wakes` says: it may change at this moment. Only a process that has registered
            // leaves fences out, and its private barrier reaches all its threads.
            let _ = membarrier::private_barrier();
        }
    }

    /// How both sides wake at this moment: [`FenceMode::Asymmetric`] where neither executes a fence.
    pub(crate) fn current_fence_mode(&self) -> FenceMode {
        let Some(shared) = &self.fences.shared else { return FenceMode::Real };
        self.see_to_fences();
        let peer = side::LINE[1 - shared.side] + side::WAKES;
        let fences = shared.wakes.load(Ordering::Relaxed) == side::FENCES
            || self.load_u32(peer, Ordering::Relaxed) == side::FENCES;
        if fences { FenceMode::Real } else { FenceMode::Asymmetric }
    }
}

/// A number that no other process has, for this process, which registers for the barriers.
fn process_token() -> io::Result<u64> {
    static TOKEN: PerProcess<Option<u64>> = PerProcess::new();
    let generation = fork::generation()?;
    membarrier::register(generation)?;
    let mut token = TOKEN.lock();
    match *token {
        Some(token) => Ok(token),
        None => Ok(*token.insert(random::random_u128()? as u64 | 1)),
    }
}

#[cfg(test)]
#[path = "fences_tests.rs"]
mod tests;
