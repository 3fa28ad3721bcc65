//! Many receivers, one thread: fair, with a budget for each.
//!
//! A host reads all its plugins with it. What always holds: in one round no receiver hands out more
//! than its budget, so a plugin that floods its ring costs the others one budget's time; a selector
//! with nothing to do sleeps; and what a wake costs does not grow with the number of receivers.
//!
//! # Awake and asleep
//! A receiver that has had something lately is *awake*: each round asks it. One that has been quiet is
//! put to *sleep*: its waiting word is announced, all words are fenced at once, each is looked at once
//! more and handed to the [`watch`], and nobody looks at it until its word is woken. As the words of
//! the others stay where they are, a wake costs what was woken. See [`slot`] for the states.
//!
//! Peers that do not wake, or take the announcement back, are found by a glance at a part of the
//! sleepers in every slice of time; see [`Selector::poll`].

mod one;
mod readiness;
mod sleepers;
mod slot;
#[cfg(test)]
mod tests;
mod watch;
mod watchers;

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use self::slot::{Slot, State};
use self::watch::{Futexes, Ring, Watch};
use self::watchers::Watchers;
use super::{Behind, Message, Receiver};
use crate::error::RecvError;
use crate::memory::Deadline;
use crate::os::clock::monotonic_ns;
use crate::os::fork;
use crate::os::futex::MAX_WAIT_MANY;

pub(crate) use self::one::Found;
pub use self::readiness::Readiness;

/// Receivers to wait on together. They keep the tokens that [`add`](Self::add) gave them.
///
/// # What a receiver needs
/// Its segment's mapping (one of at most `vm.max_map_count`) and, while it sleeps, a few hundred
/// bytes in the kernel. No descriptor: [`Channel::split`](super::Channel::split) closes the
/// segment's, so that `RLIMIT_NOFILE` limits only channels that are whole, and those whose peer is
/// watched, which keep a pidfd.
#[derive(Debug)]
pub struct Selector {
    /// First, so that nothing is waited for any more when the receivers go.
    watch: Watch,
    slots: Vec<Option<Slot>>,
    /// Slots in use, and those of them that have not ended.
    len: usize,
    live: usize,
    /// Tokens of the slots that are awake, in the order in which they are asked.
    awake: VecDeque<usize>,
    /// Tokens of slots that sleep no longer than until they are due.
    due: Vec<usize>,
    /// The caller has chosen how to wait, or has the descriptor.
    watch_is_fixed: bool,
    ring_is_refused: bool,
    has_descriptor: bool,
    /// Waits so far, to number them.
    waits: u32,
    /// Numbers of waits that have ended; kept for its memory.
    woken: Vec<u64>,
    /// Tokens of slots that are about to sleep; kept for its memory.
    drowsy: Vec<usize>,
    /// Tokens of slots that sleep, and whose announcement the peer may not have seen; see `sleepers`.
    unsure: Vec<usize>,
    unsure_at_ns: u64,
    /// When to glance at sleepers next, and at which first.
    glance_at_ns: u64,
    glance_from: usize,
    /// The fork generation of its last call; 0 before the first.
    generation: u64,
    /// For those who take one event at a time.
    turn: one::Turn,
}

/// What a receiver had to say.
#[derive(Debug)]
pub enum Event<'a> {
    /// A message.
    Message(Message<'a>),
    /// An error. After [`RecvError::Restarted`] the receiver goes on, and after
    /// [`RecvError::Corrupt`] where its plugin may be restarted: it is then silent until that has
    /// happened, or ends with [`RecvError::Disconnected`]. After any other it has ended and is not
    /// asked again.
    Error(RecvError),
}

/// How a selector waits. All behave alike; [`Selector::new`] finds out what suits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitBackend {
    /// One system call over all receivers, for few: above 128 they are polled each millisecond.
    Futexes,
    /// An `io_uring` that keeps what was waited for (Linux 6.7).
    Uring,
    /// A thread for every 127 receivers, where `io_uring` is forbidden (Linux 5.16).
    Threads,
}

/// How long a selector polls before it sleeps, in rounds without an event.
const IDLE_ROUNDS: u32 = 200;
/// And in time.
const IDLE_NS: u64 = 50_000;
/// Receivers that one system call waits for faster than a ring would.
const FEW: usize = 24;
/// Awake receivers that are cheap to ask in every round; of more, the quiet ones are put to sleep
/// while others are busy.
const CROWD: usize = 32;

impl Default for Selector {
    fn default() -> Self {
        Self::over(Watch::Futexes(Futexes::default()), false)
    }
}

impl Selector {
    /// A selector without receivers.
    pub fn new() -> Self {
        Self::default()
    }

    /// A selector that waits in a given way.
    ///
    /// # Errors
    /// The system does not offer it.
    pub fn with_backend(backend: WaitBackend) -> io::Result<Self> {
        let watch = match backend {
            WaitBackend::Futexes => Watch::Futexes(Futexes::default()),
            WaitBackend::Uring => Watch::Ring(Ring::new()?),
            WaitBackend::Threads => Watch::Watchers(Watchers::new()?),
        };
        // From here on a forked child must not use it.
        Ok(Self { generation: fork::generation()?, ..Self::over(watch, true) })
    }

    fn over(watch: Watch, watch_is_fixed: bool) -> Self {
        Self {
            watch,
            slots: Vec::new(),
            len: 0,
            live: 0,
            awake: VecDeque::new(),
            due: Vec::new(),
            watch_is_fixed,
            ring_is_refused: false,
            has_descriptor: false,
            waits: 0,
            woken: Vec::new(),
            drowsy: Vec::new(),
            unsure: Vec::new(),
            unsure_at_ns: 0,
            glance_at_ns: 0,
            glance_from: 0,
            generation: 0,
            turn: one::Turn::default(),
        }
    }

    /// How it waits now. A selector that chooses by itself changes its way as it grows.
    pub fn backend(&self) -> WaitBackend {
        match self.watch {
            Watch::Futexes(_) => WaitBackend::Futexes,
            Watch::Ring(_) => WaitBackend::Uring,
            Watch::Watchers(_) => WaitBackend::Threads,
        }
    }

    /// Takes a receiver. Returns its token: the smallest number not in use.
    pub fn add(&mut self, receiver: Receiver) -> usize {
        let slot = Some(Slot::new(receiver));
        let full = self.len == self.slots.len();
        let hole = if full { None } else { self.slots.iter().position(Option::is_none) };
        let token = hole.unwrap_or(self.slots.len());
        match hole {
            Some(token) => self.slots[token] = slot,
            None => self.slots.push(slot),
        }
        self.len += 1;
        self.live += 1;
        self.awake.push_back(token);
        self.reserve();
        if self.has_descriptor && self.is_ours() {
            self.watch.signal(true);
        }
        token
    }

    /// Makes room now, so that no round has to.
    fn reserve(&mut self) {
        let missing = |len: usize| self.len.saturating_sub(len);
        let (awake, due) = (missing(self.awake.len()), missing(self.due.len()));
        self.awake.reserve(awake);
        self.due.reserve(due);
        self.drowsy.reserve(self.len);
        self.unsure.reserve(missing(self.unsure.len()));
        // Each may be reported twice, stale reports included.
        self.woken.reserve(2 * self.len);
        if self.is_ours() {
            self.watch.reserve(self.len);
        }
    }

    /// Gives a receiver back.
    pub fn remove(&mut self, token: usize) -> Option<Receiver> {
        let slot = self.slots.get_mut(token)?.take()?;
        self.len -= 1;
        self.live -= usize::from(!slot.is_ended());
        self.awake.retain(|awake| *awake != token);
        self.due.retain(|due| *due != token);
        self.unsure.retain(|unsure| *unsure != token);
        if let Some(sleep) = slot.sleep() {
            if self.is_ours() {
                // Before the receiver, and with it the memory, may go away.
                self.watch.forget(sleep.id);
            }
            slot.announce(false);
        }
        Some(slot.receiver)
    }

    /// Whether a receiver has ended, so that nothing will ever come of it.
    pub(in crate::channel) fn has_ended(&self, token: usize) -> bool {
        self.slots.get(token).and_then(Option::as_ref).is_some_and(Slot::is_ended)
    }

    /// Number of receivers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no receiver.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether every receiver has ended: nothing will ever come again.
    pub fn is_finished(&self) -> bool {
        self.live == 0
    }

    /// A descriptor that is readable when there is something, for `epoll` and asynchronous runtimes.
    /// From now on each [`poll`](Self::poll) costs a system call or two more.
    ///
    /// # Errors
    /// The system offers nothing that has a descriptor, or descriptors have run out; the selector
    /// goes on without. [`Unsupported`](io::ErrorKind::Unsupported) where
    /// [`WaitBackend::Futexes`] was asked for.
    pub fn readiness(&mut self) -> io::Result<Readiness> {
        self.enter();
        if !self.watch.is_lasting() && !self.watch_is_fixed {
            self.replace_watch(
                Ring::new().map(Watch::Ring).or_else(|_| Watchers::new().map(Watch::Watchers))?,
            );
        }
        let descriptor = self.watch.descriptor()?.ok_or(io::ErrorKind::Unsupported)?;
        self.watch_is_fixed = true;
        self.has_descriptor = true;
        // Nothing has been handed to the kernel yet.
        self.watch.signal(true);
        Ok(Readiness::new(descriptor))
    }

    /// Hands out what is there: up to `budget` messages of each receiver, in turn. Waits for at most
    /// `timeout` where there is nothing. Returns how many events it handed out: 0 after the timeout,
    /// or at once where every receiver has ended.
    ///
    /// With a timeout of zero it looks once at each receiver that is awake, puts none to sleep and makes
    /// no system call, unless somebody has the [descriptor](Self::readiness).
    ///
    /// What a peer sends that keeps to the protocol is found at once, and so is its death. What one
    /// sends that does not wake is found within two seconds: within as many slices of 250 ms as there
    /// are times 128 receivers, and never more than eight.
    ///
    /// A selector works in any thread, and best when it is always the same. Where `each` panics, what it
    /// was given is gone if that was a message or a restart; the selector can go on.
    pub fn poll(
        &mut self,
        budget: usize,
        timeout: Duration,
        mut each: impl FnMut(usize, Event<'_>),
    ) -> usize {
        self.poll_at(budget, 0, timeout, |token, event, _| {
            each(token, event);
            ControlFlow::Continue(())
        })
    }

    /// [`poll`](Self::poll) for who wants to look at what lies behind a message, and who says after each whether the receiver may hand out more in this round.
    ///
    /// Where no more than `alone` receivers are awake, one that has handed out a message is looked at for
    /// as long as another may come at once, about a microsecond: who answers one caller only is as quick
    /// as with the receiver itself. It costs the others that time.
    pub(crate) fn poll_at(
        &mut self,
        budget: usize,
        alone: usize,
        timeout: Duration,
        mut each: impl FnMut(usize, Event<'_>, Behind) -> ControlFlow<()>,
    ) -> usize {
        self.enter();
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let started_ns = monotonic_ns();
        let deadline = Deadline::at_ns(started_ns.saturating_add(timeout_ns));
        let (mut idle_rounds, mut idle_since_ns, mut now_ns) = (0, started_ns, started_ns);
        loop {
            self.rouse(now_ns);
            let events = self.round(budget, alone, timeout_ns > 0, &mut each);
            now_ns = monotonic_ns();
            if events > 0 || self.is_finished() || now_ns >= deadline.as_ns() {
                self.leave();
                return events;
            }
            idle_rounds += 1;
            let spins = idle_rounds < IDLE_ROUNDS && now_ns - idle_since_ns < IDLE_NS;
            if spins && self.may_spin() {
                std::hint::spin_loop();
            } else {
                self.sleep(deadline, now_ns);
                now_ns = monotonic_ns();
                (idle_rounds, idle_since_ns) = (0, now_ns);
            }
        }
    }

    /// One turn over all receivers that are awake. Puts quiet ones to sleep if the caller has time.
    fn round(
        &mut self,
        budget: usize,
        alone: usize,
        has_time: bool,
        each: &mut impl FnMut(usize, Event<'_>, Behind) -> ControlFlow<()>,
    ) -> usize {
        let lingers = self.awake.len() <= alone;
        let mut events = 0;
        let mut idle = 0;
        for _ in 0..self.awake.len() {
            let Some(token) = self.awake.pop_front() else { break };
            // First: `each` may panic, and its caller go on.
            self.awake.push_back(token);
            let Some(slot) = &mut self.slots[token] else {
                self.awake.pop_back();
                continue;
            };
            let found =
                slot.hand_out(budget, lingers, &mut |event, behind| each(token, event, behind));
            slot.idle_rounds = if found > 0 { 0 } else { slot.idle_rounds.saturating_add(1) };
            idle += usize::from(slot.idle_rounds >= IDLE_ROUNDS);
            if slot.is_ended() {
                self.live -= 1;
                self.awake.pop_back();
            }
            events += found;
        }
        // Nobody is always first.
        if let Some(first) = self.awake.pop_front() {
            self.awake.push_back(first);
        }
        if has_time && idle > 0 && self.awake.len() > CROWD && self.watch.is_lasting() {
            self.put_to_sleep(IDLE_ROUNDS);
        }
        events
    }

    fn may_spin(&self) -> bool {
        let slots = self.awake.iter().filter_map(|token| self.slots[*token].as_ref());
        slots.into_iter().any(Slot::may_spin)
    }

    /// Many receivers are waited for in another way than few.
    fn choose_watch(&mut self) {
        if self.watch_is_fixed || self.live <= FEW || self.watch.is_lasting() {
            return;
        }
        // Each is tried once: what the system refuses now it will refuse later.
        if !self.ring_is_refused {
            match Ring::new() {
                Ok(ring) => return self.replace_watch(Watch::Ring(ring)),
                Err(_) => self.ring_is_refused = true,
            }
        }
        // Up to there, one call for all of them costs less than the threads.
        if self.live > MAX_WAIT_MANY {
            self.watch_is_fixed = true;
            if let Ok(watchers) = Watchers::new() {
                self.replace_watch(Watch::Watchers(watchers));
            }
        }
    }

    /// Waits in another way from now on.
    fn replace_watch(&mut self, watch: Watch) {
        for token in 0..self.slots.len() {
            self.wake_early(token);
        }
        self.watch = watch;
        self.watch.reserve(self.len);
    }

    /// Whether this is the process in which it was used last, or nobody has used it.
    fn is_ours(&self) -> bool {
        self.generation == 0 || fork::is_current(self.generation)
    }

    /// Before anything else: in a forked child, lets go of everything that is the parent's. The
    /// receivers then say that they are, one by one.
    fn enter(&mut self) {
        if self.generation != 0 && fork::is_current(self.generation) {
            return;
        }
        if self.generation != 0 {
            self.watch = Watch::Futexes(Futexes::default());
            self.watch_is_fixed = true;
            self.has_descriptor = false;
            self.woken.clear();
            self.unsure.clear();
            self.awake.clear();
            for (token, slot) in self.slots.iter_mut().enumerate() {
                if let Some(slot) = slot.as_mut().filter(|slot| !slot.is_ended()) {
                    slot.state = State::Awake;
                    slot.is_unsure = false;
                    self.awake.push_back(token);
                }
            }
        }
        // Receivers have a generation, so there is one; without receivers there is nothing to guard.
        self.generation = fork::generation().unwrap_or(0);
    }
}
