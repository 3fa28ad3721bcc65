//! Waiting until a key, or any key with a prefix, has changed.
//!
//! Handles make a [`Watcher`] for each watch; a host makes one that many interests share.
//!
//! Invariants: a wait that returns without news has looked after the deadline; a change is told however its
//! writer died; a watcher changes nothing in the store but the announcement that it sleeps.
//!
//! # The race, from both sides
//!
//! ```text
//! watcher                                  writer, under the lock
//! look at the bell's generation            store the slot: the change
//! waiting = 1                              light fence
//! heavy fence                              look at waiting -> 1: swap 0
//! look at the key -> nothing new:          generation + 1
//! sleep while the generation is the same   unlock; wake, if waiting was 1
//! ```
//!
//! The two fences make it impossible that both look and both see nothing. A writer that is killed behind its slot
//! store wakes nobody: the watcher gets up by itself after a slice of [`MAX_SLEEP_NS`], and finds the change,
//! because what it looks at is the key and not the bell. Recovery rings all bells.
//!
//! Who cannot write the segment cannot announce himself. Where he has a host that can, that one stores and fences for him, and he
//! looks behind its answer. Otherwise he sleeps on the generation all the same, and is woken if somebody else is, or looks at
//! intervals, [`POLL_NS`] if nothing else is said.

use std::collections::BTreeSet;

use super::StoreGeometry;
use super::change_log::{self, Undone};
use super::doorbells::{self, EVERYTHING};
use super::interest::{Interest, Truth};
use crate::layout::store::private::bell::TRUSTED;
use crate::memory::{Deadline, Memory, Ordering};
use crate::wakeup::MAX_SLEEP_NS;

/// How often who cannot announce himself looks, in nanoseconds.
pub(crate) const POLL_NS: u64 = 10_000_000;

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The key. Where only a [`possibly`](Self::possibly) changed prefix is told, that prefix, or as much of
    /// the key as is known.
    pub key: Vec<u8>,
    /// Version of the value that was there at the look which found the change; `None` where the key was
    /// absent. By now it may have changed again: that will be told next.
    pub version: Option<u64>,
    /// Whether it is not certain that anything has changed. Told of keys that are absent, as before, and may
    /// have come and gone since: more was deleted than the store keeps notes of (64 keys).
    pub possibly: bool,
}

/// How a watcher says that it is about to sleep, and how it sleeps.
pub(crate) trait Bed {
    /// At how many bells it can sleep at once.
    fn most_bells(&self) -> usize;

    /// Says that somebody is about to sleep at this bell, for which there is time until the deadline. Returns whether whoever
    /// rings it from now on wakes him; otherwise he looks at intervals.
    fn announce(&mut self, bell: u32, deadline: Deadline) -> bool;

    /// Sleeps while each of these words, a `u32` at an offset, has the value beside it, until the deadline; may return
    /// early. Returns false, at once, where it cannot sleep on more than one word after all.
    fn sleep(&mut self, words: &[(u64, u32)], deadline: Deadline) -> bool;
}

/// Announces at a bell that this participant is about to sleep there.
pub(crate) fn announce(memory: &impl Memory, geometry: &StoreGeometry, bell: u32) {
    doorbells::announce(memory, geometry, bell, TRUSTED);
}

/// A bed in memory, for tests and models.
#[cfg(any(test, loom))]
#[derive(Debug)]
pub(crate) struct Plain<M> {
    pub(crate) memory: M,
    pub(crate) geometry: StoreGeometry,
    /// Whether the memory can be written.
    pub(crate) announces: bool,
}

#[cfg(any(test, loom))]
impl<M: Memory> Bed for Plain<M> {
    fn most_bells(&self) -> usize {
        1
    }

    fn announce(&mut self, bell: u32, _: Deadline) -> bool {
        if self.announces {
            announce(&self.memory, &self.geometry, bell);
        }
        self.announces
    }

    fn sleep(&mut self, words: &[(u64, u32)], deadline: Deadline) -> bool {
        let &[(word, expected)] = words else { return false };
        self.memory.wait_u32(word, expected, deadline);
        true
    }
}

/// A bell, as its watcher has it.
#[derive(Debug)]
struct Bell {
    number: u32,
    /// Offset of its generation.
    generation: u64,
    /// Its generation before the last look, where nothing was in progress then.
    quiet: Option<u32>,
}

impl Bell {
    fn numbered(memory: &impl Memory, geometry: &StoreGeometry, number: u32) -> Self {
        Self { number, generation: geometry.generation(memory, number), quiet: None }
    }

    fn generation(&self, memory: &impl Memory) -> u32 {
        // Pairs with the Release in `doorbells`: a watcher that sees the new generation sees the change.
        memory.load_u32(self.generation, Ordering::Acquire)
    }
}

/// Waits for changes of one thing: a key, keys with a prefix, or many interests.
///
/// It sleeps at all bells that are rung for it where it can sleep at so many. Then no write elsewhere wakes it, but of keys
/// that share a bell. Otherwise it sleeps at the bell of everything. It looks only at what a rung bell is rung for.
#[derive(Debug)]
pub(crate) struct Watcher<M, I> {
    memory: M,
    geometry: StoreGeometry,
    /// Those that are rung for it, in order; `None` where that has to be asked.
    bells: Option<Vec<Bell>>,
    /// Where it sleeps when these are too many.
    everything: Bell,
    /// Whether it can sleep at one bell only.
    one_bell: bool,
    /// Where it is about to sleep; kept for its memory.
    words: Vec<(u64, u32)>,
    /// The longest that it sleeps without looking, where it is woken.
    pub(super) slice_ns: u64,
    /// And where it is not.
    poll_ns: u64,
    interest: I,
}

impl<M: Memory, I: Interest> Watcher<M, I> {
    /// A watcher that looks every `poll_ns` nanoseconds where nobody wakes it.
    pub(crate) fn new(memory: M, geometry: &StoreGeometry, interest: I, poll_ns: u64) -> Self {
        Self {
            everything: Bell::numbered(&memory, geometry, EVERYTHING),
            memory,
            geometry: *geometry,
            bells: None,
            one_bell: false,
            words: Vec::new(),
            slice_ns: MAX_SLEEP_NS,
            poll_ns: poll_ns.clamp(1, MAX_SLEEP_NS),
            interest,
        }
    }

    /// How often to look where nobody wakes it.
    pub(crate) fn set_poll_ns(&mut self, poll_ns: u64) {
        self.poll_ns = poll_ns.clamp(1, MAX_SLEEP_NS);
    }

    /// How often that is.
    pub(crate) fn poll_ns(&self) -> u64 {
        self.poll_ns
    }

    /// What is watched.
    pub(crate) fn interest(&self) -> &I {
        &self.interest
    }

    /// What is watched, to add to it or take from it. The next look is at all of it.
    pub(crate) fn interest_mut(&mut self) -> &mut I {
        self.bells = None;
        &mut self.interest
    }

    /// The bells that are rung for it.
    fn bells<'a>(
        bells: &'a mut Option<Vec<Bell>>,
        (memory, geometry): (&M, &StoreGeometry),
        interest: &I,
    ) -> &'a mut Vec<Bell> {
        bells.get_or_insert_with(|| {
            let mut numbers = BTreeSet::new();
            interest.bells(&mut |number| _ = numbers.insert(number));
            numbers.into_iter().map(|number| Bell::numbered(memory, geometry, number)).collect()
        })
    }

    /// Whether something has changed since the last look.
    ///
    /// # Errors
    /// What `truth` says where it cannot be looked at.
    pub(crate) fn look<T: Truth>(&mut self, truth: &T) -> Result<Option<I::News>, T::Error> {
        let Self { memory, geometry, bells, interest, .. } = self;
        if interest.has_news() {
            return interest.look(truth, &[]);
        }
        // What is undone, and then a generation: whatever rings it later, changes something later. What is undone
        // may have changed already and not rung; where its writer has died, nobody rings yet.
        let undone = change_log::undone(memory, geometry);
        let may_have_changed = |bell: u32| match &undone {
            Undone::Any => true,
            Undone::Hashes(hashes) if bell < EVERYTHING => {
                hashes.iter().any(|hash| doorbells::of(*hash) == bell)
            }
            Undone::Hashes(hashes) => !hashes.is_empty(),
        };
        let (mut rung, mut generations) = (Vec::new(), Vec::new());
        let all = Self::bells(bells, (&*memory, &*geometry), &*interest);
        for bell in &mut *all {
            let generation = bell.generation(memory);
            let is_undone = may_have_changed(bell.number);
            if is_undone || bell.quiet != Some(generation) {
                rung.push(bell.number);
                generations.push((!is_undone).then_some(generation));
                // Where the look fails, the next one looks again.
                bell.quiet = None;
            }
        }
        if rung.is_empty() {
            return Ok(None);
        }
        let news = interest.look(truth, &rung)?;
        let mut seen = rung.iter().zip(generations).peekable();
        for bell in all {
            if let Some((_, generation)) = seen.next_if(|(number, _)| **number == bell.number) {
                bell.quiet = generation;
            }
        }
        if interest.has_moved() {
            *bells = None;
        }
        Ok(news)
    }

    /// Announces that it is about to sleep, and notes on which words. Returns whether it will be woken.
    fn announce(&mut self, bed: &mut impl Bed, deadline: Deadline) -> bool {
        let Self { memory, geometry, bells, everything, words, interest, .. } = self;
        let bells = Self::bells(bells, (&*memory, &*geometry), &*interest);
        let most = if self.one_bell { 1 } else { bed.most_bells() };
        let few = (1..=most).contains(&bells.len());
        let bells = if few { bells.as_slice() } else { std::slice::from_ref(&*everything) };
        words.clear();
        // Each generation is loaded before its announcement.
        bells.iter().fold(true, |is_woken, bell| {
            words.push((bell.generation, bell.generation(memory)));
            bed.announce(bell.number, deadline) && is_woken
        })
    }

    /// Waits until something has changed, until the deadline, or until `stop` says so between two sleeps.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    pub(crate) fn wait<T: Truth>(
        &mut self,
        truth: &T,
        deadline: Deadline,
        bed: &mut impl Bed,
        stop: impl Fn() -> bool,
    ) -> Result<Option<I::News>, T::Error> {
        loop {
            if let Some(news) = self.look(truth)? {
                return Ok(Some(news));
            }
            let is_woken = self.announce(bed, deadline);
            if let Some(news) = self.look(truth)? {
                return Ok(Some(news));
            }
            let now = self.memory.now_ns();
            if now >= deadline.as_ns() || stop() {
                return Ok(None);
            }
            let slice_ns = if is_woken { self.slice_ns } else { self.poll_ns };
            let slice = deadline.min(Deadline::at_ns(now.saturating_add(slice_ns)));
            self.one_bell |= !bed.sleep(&self.words, slice);
        }
    }
}
