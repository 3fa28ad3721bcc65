//! Waiting for many words by threads, each asleep on as many as one system call takes.
//!
//! A selector over many channels waits so where `io_uring` is not to be had.
//! What always holds: all lists are under locks; a watcher's own word changes under the lock of its
//! list, and it sleeps only on the value that it read before it took the list; a watcher keeps the
//! memory mapped that it sleeps on.
//!
//! ```text
//! selector                          watcher                           peer
//! add: list += word                 version = own word
//! flush: own word += 1, wake   ──►  lock; copy the list; unlock
//!                                   sleep on own word = version  ◄──  waiting word: 1 → 0, wake
//!                                   and on all waiting words = 1
//! wait: fired, condition  ◄──────── list -= word; fired += word
//! ```
//!
//! Whatever happens between the copy and the sleep has changed one of the words slept on, so that the
//! kernel does not let it sleep.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{array, mem};

use super::watch::{ANNOUNCED, Word};
use crate::memory::Deadline;
use crate::os::clock::monotonic_ns;
use crate::os::eventfd::EventFd;
use crate::os::fork;
use crate::os::futex::{self, Woken};
use crate::sync::{AtomicU32, Condvar, Mutex, MutexGuard, Ordering};
use crate::wakeup::MAX_SLEEP_NS;

/// Waiting words that one watcher takes: one place is its own word's.
const WORDS: usize = futex::MAX_WAIT_MANY - 1;

/// Watchers that nobody needs to tick sleep this long at a time.
const LONG_SLEEP_NS: u64 = 10_000_000_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Watchers {
    fired: Arc<Fired>,
    watchers: Vec<Watcher>,
    /// The fork generation that the threads run in.
    generation: u64,
}

/// What the watchers have found, for the selector to take.
#[derive(Debug, Default)]
struct Fired {
    found: Mutex<Found>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Found {
    ids: Vec<u64>,
    event: Option<EventFd>,
}

/// One watcher, as the selector sees it.
#[derive(Debug)]
struct Watcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// The list has changed, and the watcher has not been told.
    changed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    list: Mutex<List>,
    /// Changed and woken whenever the list was.
    version: AtomicU32,
}

#[derive(Debug, Default)]
struct List {
    words: Vec<Word>,
    /// Whether the selector wants to be woken after every slice.
    ticks: bool,
    /// And once before that, after so long.
    soon_ns: Option<u64>,
    stop: bool,
}

/// No code under these locks leaves anything half done, so a panic elsewhere means nothing here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watchers {
    /// # Errors
    /// The kernel cannot wait on several words, or a thread could not be started.
    pub(super) fn new() -> io::Result<Self> {
        let word = AtomicU32::new(0);
        if futex::wait_many(&[(&word, 0)], Deadline::at_ns(0)) == Woken::Unsupported {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let generation = fork::generation()?;
        let mut watchers = Self { fired: Arc::default(), watchers: Vec::new(), generation };
        watchers.start()?;
        Ok(watchers)
    }

    fn start(&mut self) -> io::Result<()> {
        let (shared, fired) = (Arc::<Shared>::default(), Arc::clone(&self.fired));
        let theirs = Arc::clone(&shared);
        let builder = thread::Builder::new().name("ringway-watcher".into());
        let thread = Some(builder.spawn(move || theirs.run(&fired))?);
        self.watchers.push(Watcher { shared, thread, changed: false });
        Ok(())
    }

    /// How many threads there are.
    #[cfg(test)]
    pub(super) fn threads(&self) -> usize {
        self.watchers.len()
    }

    /// Room for so many words in all.
    pub(super) fn reserve(&mut self, words: usize) {
        // Where no thread is to be had, `add` copes.
        while self.watchers.len() * WORDS < words && self.start().is_ok() {}
        lock(&self.fired.found).ids.reserve(words);
    }

    pub(super) fn add(&mut self, word: Word) {
        for watcher in &mut self.watchers {
            let mut list = lock(&watcher.shared.list);
            if list.words.len() < WORDS {
                list.words.push(word);
                watcher.changed = true;
                return;
            }
        }
        // No thread is to be had: look at it again.
        lock(&self.fired.found).ids.push(word.id);
    }

    /// The memory stays mapped until the watcher has noticed, which is soon.
    pub(super) fn forget(&mut self, id: u64) {
        for watcher in &self.watchers {
            watcher.shared.tell(|list| list.words.retain(|word| word.id != id));
        }
    }

    pub(super) fn flush(&mut self) {
        for watcher in &mut self.watchers {
            if mem::take(&mut watcher.changed) {
                watcher.shared.tell(|_| ());
            }
        }
    }

    pub(super) fn collect(&mut self, woken: &mut Vec<u64>) {
        let mut found = lock(&self.fired.found);
        // First: what is found from here on raises it again.
        if let Some(event) = &found.event {
            event.clear();
        }
        woken.append(&mut found.ids);
    }

    pub(super) fn wait(&mut self, until: Deadline, woken: &mut Vec<u64>) {
        self.flush();
        let mut found = lock(&self.fired.found);
        loop {
            let left_ns = until.as_ns().saturating_sub(monotonic_ns());
            if !found.ids.is_empty() || left_ns == 0 {
                return woken.append(&mut found.ids);
            }
            let left = Duration::from_nanos(left_ns);
            let waited = self.fired.changed.wait_timeout(found, left);
            (found, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn descriptor(&mut self) -> io::Result<Arc<OwnedFd>> {
        let mut found = lock(&self.fired.found);
        let event = match found.event.take() {
            Some(event) => event,
            None => EventFd::new()?,
        };
        let descriptor = Arc::clone(event.descriptor());
        event.raise();
        found.event = Some(event);
        drop(found);
        self.watchers[0].shared.tell(|list| list.ticks = true);
        Ok(descriptor)
    }

    pub(super) fn signal(&mut self, now: bool) {
        // The first watcher does it after each slice.
        if now && let Some(event) = &lock(&self.fired.found).event {
            event.raise();
        }
    }

    pub(super) fn signal_after(&mut self, after_ns: u64) {
        self.watchers[0].shared.tell(|list| list.soon_ns = Some(after_ns));
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        if !fork::is_current(self.generation) {
            // The threads are the parent's, and may have held the locks.
            return self.watchers.drain(..).for_each(mem::forget);
        }
        for watcher in &self.watchers {
            watcher.shared.tell(|list| list.stop = true);
        }
        for watcher in &mut self.watchers {
            // They run nothing that could panic, and stop at once.
            let _ = watcher.thread.take().map(JoinHandle::join);
        }
    }
}

impl Shared {
    /// Changes the list and has the watcher look at it.
    fn tell(&self, change: impl FnOnce(&mut List)) {
        let mut list = lock(&self.list);
        change(&mut list);
        // Relaxed: the lock orders it; the kernel compares it before the watcher sleeps.
        self.version.fetch_add(1, Ordering::Relaxed);
        drop(list);
        futex::wake(&self.version, 1);
    }

    fn run(&self, fired: &Fired) {
        let mut words: Vec<Word> = Vec::new();
        let mut ids = Vec::new();
        let mut result = Woken::LookAgain;
        loop {
            let woken = match result {
                Woken::Index(index) => index.checked_sub(1),
                _ => None,
            };
            if let Some(index) = woken {
                // First of all: somebody waits for it.
                let id = words[index].id;
                lock(&self.list).words.retain(|word| word.id != id);
                ids.push(id);
                fired.add(&mut ids);
            }
            let (version, ticks, soon_ns) = {
                let mut list = lock(&self.list);
                if list.stop {
                    return;
                }
                if result == Woken::TimedOut {
                    list.soon_ns = None;
                }
                if result == Woken::LookAgain {
                    list.words.retain(|word| {
                        let waits = is_announced(word);
                        if !waits {
                            ids.push(word.id);
                        }
                        waits
                    });
                }
                words.clear();
                words.extend(list.words.iter().cloned());
                // Relaxed: changed under this lock.
                (self.version.load(Ordering::Relaxed), list.ticks, list.soon_ns)
            };
            if !ids.is_empty() || ticks && result == Woken::TimedOut {
                fired.add(&mut ids);
            }
            let slice_ns = if ticks { MAX_SLEEP_NS } else { LONG_SLEEP_NS };
            let slice_ns = soon_ns.unwrap_or(slice_ns);
            let until = Deadline::at_ns(monotonic_ns().saturating_add(slice_ns));
            let watched: [_; futex::MAX_WAIT_MANY] = array::from_fn(|index| {
                match index.checked_sub(1).and_then(|index| words.get(index)) {
                    Some(word) => (word.as_atomic(), ANNOUNCED),
                    None => (&self.version, version),
                }
            });
            result = futex::wait_many(&watched[..=words.len()], until);
        }
    }
}

fn is_announced(word: &Word) -> bool {
    // Relaxed: the selector's look follows.
    word.as_atomic().load(Ordering::Relaxed) == ANNOUNCED
}

impl Fired {
    fn add(&self, ids: &mut Vec<u64>) {
        let mut found = lock(&self.found);
        found.ids.append(ids);
        if let Some(event) = &found.event {
            event.raise();
        }
        drop(found);
        self.changed.notify_one();
    }
}
