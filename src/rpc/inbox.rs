//! What a server's thread is told by others: functions, links, and when to stop.
//!
//! [`Server`](super::Server) writes it, the thread reads it between two messages. What always holds: a
//! name belongs to one function; a function that was added before a message was sent is there when that
//! message is handled, and one that was removed is not; whoever waits for the thread's end is told.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::error::ServeError;
use super::frame::{Target, Types};
use super::function::Function;
use crate::callback::quietly;
use crate::channel::{Channel, Sender};
use crate::sync::{AtomicU32, AtomicU64, Condvar, Mutex, MutexGuard, Ordering};

/// How many functions a server can have.
const MAX_FUNCTIONS: usize = 4096;

/// Bits of what is asked for.
const NEWS: u32 = 1;
const STOP: u32 = 2;
const DRAIN: u32 = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Orders {
    /// Any thread sets bits; the server's takes `NEWS` back.
    bits: AtomicU32,
    letters: Mutex<Letters>,
    over: Condvar,
    pub(super) counters: Counters,
}

/// A caller's end, on its way to the thread.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) channel: Channel,
    /// The plugin that calls; empty for the host.
    pub(super) caller: String,
}

#[derive(Debug)]
pub(super) enum Command {
    Admit(Box<Arrival>),
    Add(Target, String, Function),
    Remove(Target),
}

#[derive(Debug)]
struct Letters {
    commands: Vec<Command>,
    /// Sent to after a command; `None` when the thread is over.
    bell: Option<Sender>,
    names: HashMap<String, (Target, Types)>,
    /// For each index how many functions have had it.
    generations: Vec<u32>,
    free: Vec<u16>,
}

impl Orders {
    pub(super) fn new(bell: Sender) -> Self {
        let letters = Letters {
            commands: Vec::new(),
            bell: Some(bell),
            names: HashMap::new(),
            generations: Vec::new(),
            free: Vec::new(),
        };
        Self {
            bits: AtomicU32::new(0),
            letters: Mutex::new(letters),
            over: Condvar::new(),
            counters: Counters::default(),
        }
    }

    /// No code under the lock leaves anything half done, so a panic elsewhere means nothing here.
    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, letters: &mut Letters, command: Option<Command>, bits: u32) {
        letters.commands.extend(command);
        // Release pairs with the Acquire in `news`.
        self.bits.fetch_or(bits, Ordering::Release);
        if let Some(bell) = &mut letters.bell {
            // One that has no room has been rung.
            let _ = bell.try_send(&[]);
        }
    }

    pub(super) fn add(&self, name: &str, function: Function) -> Result<(), ServeError> {
        let mut letters = self.letters();
        if letters.bell.is_none() {
            return Err(ServeError::Stopped);
        }
        let Letters { names, generations, free, .. } = &mut *letters;
        let Entry::Vacant(vacant) = names.entry(name.into()) else {
            return Err(ServeError::Duplicate { name: name.into() });
        };
        let index = match free.pop() {
            Some(index) => index,
            None if generations.len() == MAX_FUNCTIONS => {
                return Err(ServeError::TooMany { max: MAX_FUNCTIONS });
            }
            None => {
                generations.push(0);
                (generations.len() - 1) as u16
            }
        };
        let target = Target { index, generation: generations[usize::from(index)] };
        vacant.insert((target, function.types));
        self.put(&mut letters, Some(Command::Add(target, name.into(), function)), NEWS);
        Ok(())
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), ServeError> {
        let mut letters = self.letters();
        let Some((target, _)) = letters.names.remove(name) else {
            return Err(ServeError::Unknown { name: name.into() });
        };
        let generation = &mut letters.generations[usize::from(target.index)];
        // An index whose generations are used up stays unused.
        if let Some(next) = generation.checked_add(1) {
            *generation = next;
            letters.free.push(target.index);
        }
        self.put(&mut letters, Some(Command::Remove(target)), NEWS);
        Ok(())
    }

    /// A caller who comes when the thread is over is let go of.
    pub(super) fn admit(&self, arrival: Arrival) {
        let mut letters = self.letters();
        if letters.bell.is_some() && !self.has(DRAIN | STOP) {
            self.put(&mut letters, Some(Command::Admit(Box::new(arrival))), NEWS);
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<(Target, Types)> {
        self.letters().names.get(name).copied()
    }

    /// Names of the functions, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.letters().names.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// What has been asked for since the last time.
    pub(super) fn news(&self) -> Vec<Command> {
        let mut letters = self.letters();
        self.bits.fetch_and(!NEWS, Ordering::Relaxed);
        std::mem::take(&mut letters.commands)
    }

    /// Whether anything has been.
    #[inline]
    pub(super) fn has_news(&self) -> bool {
        self.has(NEWS)
    }

    #[inline]
    fn has(&self, bits: u32) -> bool {
        // Acquire pairs with the Release in `put`.
        self.bits.load(Ordering::Acquire) & bits != 0
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.has(STOP)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.has(DRAIN)
    }

    pub(super) fn stop(&self) {
        self.put(&mut self.letters(), None, STOP);
    }

    pub(super) fn drain(&self) {
        self.put(&mut self.letters(), None, DRAIN);
    }

    /// The thread is over.
    pub(super) fn is_over(&self) {
        let mut letters = self.letters();
        letters.bell = None;
        letters.names.clear();
        let left = std::mem::take(&mut letters.commands);
        drop(letters);
        self.over.notify_all();
        for command in left {
            quietly(|| drop(command));
        }
    }

    /// Waits for the end of the thread.
    pub(super) fn wait(&self, timeout: Duration) -> bool {
        // Not beyond what a clock can say.
        let until = Instant::now() + timeout.min(Duration::from_secs(1 << 30));
        let mut letters = self.letters();
        while letters.bell.is_some() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.over.wait_timeout(letters, left);
            letters = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// What a server has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerStats {
    /// Calls that functions were called with.
    pub calls: u64,
    /// Calls that were taken back before they began.
    pub skipped: u64,
    /// Calls that ended in a panic.
    pub panics: u64,
    /// Callers there are.
    pub callers: u64,
    /// Callers that were let go of because they broke the rules, or did not fetch their answers.
    pub dropped: u64,
}

/// The same, as the thread counts. Only it changes them.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) calls: Counter,
    pub(super) skipped: Counter,
    pub(super) panics: Counter,
    pub(super) callers: Counter,
    pub(super) dropped: Counter,
}

impl Counters {
    pub(super) fn read(&self) -> ServerStats {
        ServerStats {
            calls: self.calls.get(),
            skipped: self.skipped.get(),
            panics: self.panics.get(),
            callers: self.callers.get(),
            dropped: self.dropped.get(),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn count(&self) {
        self.set(self.get().wrapping_add(1));
    }

    #[inline]
    pub(super) fn set(&self, value: u64) {
        // One thread writes: no read-modify-write is needed.
        self.0.store(value, Ordering::Relaxed);
    }
}
