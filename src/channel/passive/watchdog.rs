//! Noticing callbacks that do not return: one thread for all dispatchers of a process.
//!
//! Each dispatcher beats its [`Pulse`] before and after a callback; the thread looks at all pulses now
//! and then. What always holds: a callback is reported only after it was seen running all the time that
//! it may take, once; a beat costs a store, and no look at the clock.
//!
//! The thread starts with the first pulse and then stays. A forked child has no such thread: it gets a
//! new one with its own first pulse.

use std::io;
use std::sync::{Arc, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::callbacks::CallbackId;
use super::report::{Report, Reporter};
use crate::os::per_process::PerProcess;
use crate::sync::{AtomicU64, Condvar, Mutex, MutexGuard, Ordering};

/// Longest time between two looks.
const MAX_TICK: Duration = Duration::from_millis(250);
const MIN_TICK: Duration = Duration::from_millis(1);

/// What a dispatcher is doing.
#[derive(Debug)]
pub(super) struct Pulse {
    /// Odd while a callback runs. Only the dispatcher changes it.
    beat: AtomicU64,
    /// Number of the callback that runs, or ran last.
    callback: AtomicU64,
    limit: Duration,
    reporter: Arc<Reporter>,
}

impl Pulse {
    pub(super) fn new(limit: Duration, reporter: Arc<Reporter>) -> Arc<Self> {
        let (beat, callback) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { beat, callback, limit, reporter })
    }

    /// A callback begins.
    #[inline]
    pub(super) fn begin(&self, callback: CallbackId) {
        self.callback.store(callback.get(), Ordering::Relaxed);
        self.step();
    }

    /// It has returned, or panicked.
    #[inline]
    pub(super) fn end(&self) {
        self.step();
    }

    #[inline]
    fn step(&self) {
        let beat = self.beat.load(Ordering::Relaxed);
        // Release pairs with the Acquire in `Watched::look`: who sees a beat sees its callback.
        self.beat.store(beat.wrapping_add(1), Ordering::Release);
    }
}

/// A pulse as the thread has seen it.
#[derive(Debug)]
struct Watched {
    pulse: Weak<Pulse>,
    beat: u64,
    since: Instant,
    told: bool,
}

impl Watched {
    /// Looks once; `None` where the dispatcher is gone. Returns the pulse where it is to be told of.
    fn look(&mut self, now: Instant) -> Option<(Arc<Pulse>, Option<Duration>)> {
        let pulse = self.pulse.upgrade()?;
        let beat = pulse.beat.load(Ordering::Acquire);
        if beat != self.beat || beat.is_multiple_of(2) {
            (self.beat, self.since, self.told) = (beat, now, false);
            return Some((pulse, None));
        }
        let running_for = now.duration_since(self.since);
        if self.told || running_for < pulse.limit {
            return Some((pulse, None));
        }
        self.told = true;
        Some((pulse, Some(running_for)))
    }
}

#[derive(Debug, Default)]
struct Watchdog {
    watched: Mutex<Vec<Watched>>,
    added: Condvar,
}

/// The watchdog of this process, once there is one.
static CURRENT: PerProcess<Option<Arc<Watchdog>>> = PerProcess::new();

/// No code under these locks leaves anything half done, so a panic elsewhere means nothing here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Watches a pulse as long as somebody holds it.
///
/// # Errors
/// The thread could not be started.
pub(super) fn watch(pulse: &Arc<Pulse>) -> io::Result<()> {
    let watchdog = Watchdog::of_this_process()?;
    let (pulse, since) = (Arc::downgrade(pulse), Instant::now());
    lock(&watchdog.watched).push(Watched { pulse, beat: 0, since, told: false });
    watchdog.added.notify_one();
    Ok(())
}

impl Watchdog {
    fn of_this_process() -> io::Result<Arc<Self>> {
        let mut current = CURRENT.lock();
        if let Some(watchdog) = &*current {
            return Ok(Arc::clone(watchdog));
        }
        let watchdog = Arc::new(Self::default());
        let running = Arc::clone(&watchdog);
        thread::Builder::new().name("ringway-watchdog".into()).spawn(move || running.run())?;
        Ok(Arc::clone(current.insert(watchdog)))
    }

    fn run(&self) {
        let mut stuck = Vec::new();
        loop {
            let mut watched = lock(&self.watched);
            let (now, mut tick) = (Instant::now(), MAX_TICK);
            watched.retain_mut(|each| {
                let Some((pulse, running_for)) = each.look(now) else { return false };
                tick = tick.min(pulse.limit / 4).max(MIN_TICK);
                // Kept: the last holder of a pulse drops the user's hook, not under this lock.
                stuck.push((pulse, running_for));
                true
            });
            let idle = watched.is_empty();
            drop(watched);
            for (pulse, running_for) in stuck.drain(..) {
                let Some(running_for) = running_for else { continue };
                let callback = CallbackId::new(pulse.callback.load(Ordering::Relaxed));
                pulse.reporter.tell(&Report::Stuck { callback, running_for });
            }
            let watched = lock(&self.watched);
            let waits = |watched: MutexGuard<'_, Vec<Watched>>| {
                // Woken for no reason, it looks once more than it must.
                match idle && watched.is_empty() {
                    true => drop(self.added.wait(watched)),
                    false => drop(self.added.wait_timeout(watched, tick)),
                }
            };
            waits(watched);
        }
    }
}
