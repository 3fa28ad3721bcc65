//! The ways of waiting for many words at once.
//!
//! The selector hands over words that it has announced, and is told which were woken.
//! What always holds: a word is waited for from [`Watch::flush`] or [`Watch::wait`] on until it is
//! reported, once, or [`Watch::forget`] has returned; reports are hints to look, and may be stale.
//!
//! | way | what a wait costs | needs |
//! |---|---|---|
//! | [`Futexes`] | all words, again each time | nothing; more than 128 words are polled each millisecond |
//! | [`Ring`] | the words that have been woken since | Linux 6.7, `io_uring` not forbidden |
//! | [`Watchers`](super::watchers::Watchers) | the same, and two more switches between threads | Linux 5.16, a thread for every 127 words |

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::watchers::Watchers;
use crate::memory::{Deadline, MappedMemory};
use crate::os::clock::monotonic_ns;
use crate::os::futex::{self, Woken};
use crate::os::uring::Uring;
use crate::sync::AtomicU32;
use crate::wakeup::MAX_SLEEP_NS;

/// Words are waited for while they say this: somebody sleeps.
pub(super) const ANNOUNCED: u32 = 1;

/// A number that is no wait's: the selector is to look after itself.
pub(super) const NOBODY: u64 = u64::MAX;

/// How long to sleep where nothing tells when to stop.
pub(super) const POLL_NS: u64 = 1_000_000;

/// A waiting word in a segment, which it keeps mapped.
#[derive(Debug, Clone)]
pub(super) struct Word {
    pub(super) id: u64,
    pub(super) memory: MappedMemory,
    pub(super) offset: u64,
}

impl Word {
    pub(super) fn as_atomic(&self) -> &AtomicU32 {
        self.memory.futex_word(self.offset)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) enum Watch {
    Futexes(Futexes),
    Ring(Ring),
    Watchers(Watchers),
}

impl Watch {
    /// Starts to wait for a word, at the latest in the next `flush` or `wait`.
    pub(super) fn add(&mut self, word: Word) {
        match self {
            Self::Futexes(futexes) => futexes.words.push(word),
            Self::Ring(ring) => ring.new.push(word),
            Self::Watchers(watchers) => watchers.add(word),
        }
    }

    /// Stops waiting for a word.
    pub(super) fn forget(&mut self, id: u64) {
        match self {
            Self::Futexes(futexes) => futexes.words.retain(|word| word.id != id),
            Self::Ring(ring) => ring.forget(id),
            Self::Watchers(watchers) => watchers.forget(id),
        }
    }

    /// Has everything that was added waited for.
    pub(super) fn flush(&mut self, woken: &mut Vec<u64>) {
        match self {
            Self::Futexes(_) => {}
            Self::Ring(ring) => ring.submit(None, woken),
            Self::Watchers(watchers) => watchers.flush(),
        }
    }

    /// Which words have been woken since they were added.
    pub(super) fn collect(&mut self, woken: &mut Vec<u64>) {
        match self {
            Self::Futexes(_) => {}
            Self::Ring(ring) => ring.collect(woken),
            Self::Watchers(watchers) => watchers.collect(woken),
        }
    }

    /// Sleeps until a word is woken or the deadline passes, or for no reason for less.
    pub(super) fn wait(&mut self, until: Deadline, woken: &mut Vec<u64>) {
        match self {
            Self::Futexes(futexes) => futexes.wait(until, woken),
            Self::Ring(ring) => {
                ring.submit(Some(until), woken);
                ring.collect(woken);
            }
            Self::Watchers(watchers) => watchers.wait(until, woken),
        }
    }

    /// Whether words stay waited for while the selector is awake.
    pub(super) fn is_lasting(&self) -> bool {
        !matches!(self, Self::Futexes(_))
    }

    /// Room for so many words, so that no wait has to allocate.
    pub(super) fn reserve(&mut self, words: usize) {
        match self {
            Self::Futexes(futexes) => futexes.words.reserve(words),
            Self::Ring(ring) => ring.new.reserve(words),
            Self::Watchers(watchers) => watchers.reserve(words),
        }
    }

    /// A descriptor that is readable while there is something to collect; also from time to time, for
    /// the selector to look after itself. `None` where this way has none.
    pub(super) fn descriptor(&mut self) -> io::Result<Option<Arc<OwnedFd>>> {
        match self {
            Self::Futexes(_) => Ok(None),
            Self::Ring(ring) => Ok(Some(Arc::clone(ring.uring.descriptor()))),
            Self::Watchers(watchers) => watchers.descriptor().map(Some),
        }
    }

    /// Makes the descriptor readable: now, or at the latest after a slice of time.
    pub(super) fn signal(&mut self, now: bool) {
        match self {
            Self::Futexes(_) => {}
            Self::Ring(ring) => ring.signal(now),
            Self::Watchers(watchers) => watchers.signal(now),
        }
    }

    /// Makes the descriptor readable after this time, which is shorter than a slice.
    pub(super) fn signal_after(&mut self, after_ns: u64) {
        match self {
            Self::Futexes(_) => {}
            Self::Ring(ring) => ring.signal_after(after_ns),
            Self::Watchers(watchers) => watchers.signal_after(after_ns),
        }
    }
}

/// All words in one system call, handed over anew each time; nothing is waited for in between.
#[derive(Debug, Default)]
pub(super) struct Futexes {
    words: Vec<Word>,
}

impl Futexes {
    fn wait(&mut self, until: Deadline, woken: &mut Vec<u64>) {
        let soon = Deadline::at_ns(monotonic_ns().saturating_add(POLL_NS));
        if let Some(first) = self.words.first() {
            let first = (first.as_atomic(), ANNOUNCED);
            let mut watched = [first; futex::MAX_WAIT_MANY];
            for (entry, word) in watched.iter_mut().zip(&self.words) {
                entry.0 = word.as_atomic();
            }
            let count = self.words.len().min(futex::MAX_WAIT_MANY);
            let until = if count < self.words.len() { until.min(soon) } else { until };
            if futex::wait_many(&watched[..count], until) == Woken::Unsupported {
                futex::wait(first.0, ANNOUNCED, until.min(soon));
            }
        }
        woken.extend(self.words.drain(..).map(|word| word.id));
    }
}

/// Words that the kernel keeps.
#[derive(Debug)]
pub(super) struct Ring {
    uring: Uring,
    /// Not yet handed to the kernel.
    new: Vec<Word>,
    /// The descriptor will become readable after a slice.
    ticks: bool,
    /// And before that, for a second look.
    ticks_soon: bool,
    /// The descriptor is readable for no word's sake.
    raised: bool,
}

impl Ring {
    pub(super) fn new() -> io::Result<Self> {
        let uring = Uring::new()?;
        Ok(Self { uring, new: Vec::new(), ticks: false, ticks_soon: false, raised: false })
    }

    fn submit(&mut self, until: Option<Deadline>, woken: &mut Vec<u64>) {
        if self.new.is_empty() && until.is_none() {
            return;
        }
        let waits = self.new.iter().map(|word| (word.id, word.as_atomic(), ANNOUNCED));
        if self.uring.submit(waits, until).is_err() {
            // Out of memory, most likely. Look at them again, in a while.
            for word in &self.new {
                self.uring.cancel(word.id);
            }
            woken.extend(self.new.iter().map(|word| word.id));
            if until.is_some() {
                thread::sleep(Duration::from_nanos(POLL_NS));
            }
        }
        self.new.clear();
    }

    fn collect(&mut self, woken: &mut Vec<u64>) {
        while let Some(id) = self.uring.completed() {
            match id {
                TICK => self.ticks = false,
                SOON => self.ticks_soon = false,
                NOBODY => self.raised = false,
                _ => woken.push(id),
            }
        }
    }

    fn forget(&mut self, id: u64) {
        let handed_over = self.new.iter().all(|word| word.id != id);
        self.new.retain(|word| word.id != id);
        if handed_over {
            self.uring.cancel(id);
        }
    }

    fn signal(&mut self, now: bool) {
        // Where the kernel refuses, the next call of the selector tries again.
        if now && !self.raised {
            self.raised = self.uring.complete_now(NOBODY).is_ok();
        } else if !now && !self.ticks {
            self.ticks = self.uring.complete_after(TICK, MAX_SLEEP_NS).is_ok();
        }
    }

    fn signal_after(&mut self, after_ns: u64) {
        if !self.ticks_soon {
            self.ticks_soon = self.uring.complete_after(SOON, after_ns).is_ok();
        }
    }
}

/// The number of the completion that comes after a slice.
const TICK: u64 = NOBODY - 1;
/// The number of the one before that.
const SOON: u64 = NOBODY - 2;
