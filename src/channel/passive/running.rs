//! Handles on a dispatcher: adding and removing callbacks, stopping it.
//!
//! [`Passive::start`](super::Passive::start) gives a [`Running`] out. What always holds: the receiver is
//! given back once, to whoever stops the dispatcher; nobody waits for a thread that is not there, or
//! that is its own.

use std::fmt;
use std::io;
use std::mem;
use std::sync::{Arc, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::callbacks::{CallbackId, CallbackResult, Entry, quietly};
use super::caller::Caller;
use super::dispatcher::Loop;
use super::kind::{Bytes, Kind};
use super::report::{Ended, PassiveStats, Reporter};
use super::together::Waker;
use super::watchdog::{self, Pulse};
use crate::channel::Receiver;
use crate::channel::receiver::Signal;
use crate::os::fork;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Bits of a dispatcher's signal: end before the next message.
pub(super) const STOP: u32 = 1;
/// Handle what is there, then end.
pub(super) const DRAIN: u32 = 2;
/// Look at [`Shared::news`].
pub(super) const NEWS: u32 = 4;

/// What a dispatcher and its handles share.
pub(super) struct Shared<K: Kind> {
    pub(super) signal: Signal,
    reporter: Arc<Reporter>,
    news: Mutex<News<K>>,
    end: Mutex<End>,
    ended: Condvar,
    /// The fork generation that the thread runs in.
    generation: u64,
    /// How the thread is woken where it is not the receiver's own.
    waker: Option<Arc<Waker>>,
}

/// Callbacks that were registered or removed, and not yet by the dispatcher.
struct News<K: Kind> {
    last_id: u64,
    changes: Vec<Change<K>>,
}

enum Change<K: Kind> {
    Add(Entry<K>),
    Remove(CallbackId),
}

#[derive(Debug)]
enum End {
    /// The thread runs; its id, once it does.
    Running(Option<ThreadId>),
    Ended(Box<Receiver>, Ended),
    /// Given back.
    Taken(Ended),
}

/// No code under these locks leaves anything half done, so a panic elsewhere means nothing here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Kind> Shared<K> {
    /// For the dispatcher: does what was registered meanwhile.
    pub(super) fn take_news(&self, entries: &mut Vec<Entry<K>>) {
        let changes = mem::take(&mut lock(&self.news).changes);
        for change in changes {
            match change {
                Change::Add(entry) => entries.push(entry),
                Change::Remove(id) => {
                    if let Some(at) = entries.iter().position(|entry| entry.id == id) {
                        let entry = entries.remove(at);
                        quietly(|| drop(entry));
                    }
                }
            }
        }
    }

    /// The thread that calls this is the one that calls the callbacks.
    pub(super) fn runs_here(&self) {
        *lock(&self.end) = End::Running(Some(thread::current().id()));
    }

    /// The thread has done with the receiver.
    pub(super) fn give_back(&self, receiver: Receiver, ended: Ended) {
        *lock(&self.end) = End::Ended(Box::new(receiver), ended);
        self.ended.notify_all();
    }

    /// Asks the thread for something.
    fn raise(&self, bits: u32) {
        match &self.waker {
            None => self.signal.raise(bits),
            Some(waker) => {
                self.signal.set(bits);
                waker.wake();
            }
        }
    }

    fn ended(&self) -> Option<Ended> {
        match &*lock(&self.end) {
            End::Running(_) => None,
            End::Ended(_, ended) | End::Taken(ended) => Some(*ended),
        }
    }
}

/// Starts a thread, or brings the receiver to one that is shared; gives it back where there is none to be
/// had.
pub(super) fn start<K: Kind>(
    receiver: Receiver,
    entries: Vec<Entry<K>>,
    reporter: Arc<Reporter>,
    stuck_after: Option<Duration>,
    on: Thread<'_>,
) -> Result<Running<K>, (io::Error, Box<Receiver>)> {
    let generation = match fork::generation() {
        Ok(generation) => generation,
        Err(error) => return Err((error, Box::new(receiver))),
    };
    let pulse = stuck_after.map(|limit| Pulse::new(limit, Arc::clone(&reporter)));
    if let Some(Err(error)) = pulse.as_ref().map(watchdog::watch) {
        return Err((error, Box::new(receiver)));
    }
    let waker = match on {
        Thread::Own(_) => None,
        Thread::Shared(waker) => Some(Arc::clone(waker)),
    };
    let shared = Arc::new(Shared {
        signal: Signal::new(&receiver),
        reporter: Arc::clone(&reporter),
        news: Mutex::new(News { last_id: entries.len() as u64, changes: Vec::new() }),
        end: Mutex::new(End::Running(waker.as_ref().map(|waker| waker.thread()))),
        ended: Condvar::new(),
        generation,
        waker,
    });
    let caller = Caller::new(entries, Arc::clone(&shared), reporter, pulse);
    let name = match on {
        Thread::Own(name) => name,
        Thread::Shared(waker) => {
            waker.bring(receiver, caller);
            return Ok(Running { callbacks: Callbacks { shared } });
        }
    };
    // Here the thread finds it, or who could not start one.
    let handed_over = Arc::new(Mutex::new(Some(Loop { receiver, caller })));
    let taken = Arc::clone(&handed_over);
    let run = move || {
        let Some(taken) = lock(&taken).take() else { return };
        taken.caller.shared.runs_here();
        taken.run();
    };
    match thread::Builder::new().name(name).spawn(run) {
        Ok(_detached) => Ok(Running { callbacks: Callbacks { shared } }),
        Err(error) => {
            let Loop { receiver, .. } = lock(&handed_over).take().expect("no thread has taken it");
            Err((error, Box::new(receiver)))
        }
    }
}

/// Where callbacks are called.
pub(super) enum Thread<'a> {
    /// On a thread of this name.
    Own(String),
    Shared(&'a Arc<Waker>),
}

/// A passive receiver at work. Dropping it stops it: it is closed when the callback that runs, if there
/// is one, has returned; nobody waits for that.
#[must_use = "dropping it stops the callbacks and closes the receiver"]
pub struct Running<K: Kind = Bytes> {
    callbacks: Callbacks<K>,
}

/// Registers and removes callbacks of a [`Running`], from any thread, and from callbacks too.
pub struct Callbacks<K: Kind = Bytes> {
    shared: Arc<Shared<K>>,
}

/// Why a receiver was not given back.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StopError<K: Kind = Bytes> {
    /// A callback has not returned by the deadline. It stops when that has.
    #[error(
        "the dispatcher has not ended: a callback had not returned by the deadline; it ends when that returns, wait again with the handle in this error"
    )]
    Timeout(Running<K>),
    /// Asked for by a callback, for which the dispatcher would wait. It stops when that has returned.
    #[error(
        "a callback cannot wait for the end of the dispatcher that runs it; call this from another thread (the dispatcher ends when the callback returns)"
    )]
    OwnThread,
    /// The process has forked since it was started; the dispatcher is the parent's.
    #[error(
        "the dispatcher belongs to the process that this one was forked from; open the channel anew in this process"
    )]
    Forked,
}

impl<K: Kind> Clone for Callbacks<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K: Kind> fmt::Debug for Callbacks<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl<K: Kind> fmt::Debug for Running<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.stats();
        let ended = self.ended();
        f.debug_struct("Running").field("stats", &stats).field("ended", &ended).finish()
    }
}

impl<K: Kind> Callbacks<K> {
    /// Registers one more callback, behind those that there are; see
    /// [`Passive::on`](super::Passive::on). It sees the messages that are received from now on, perhaps
    /// but for the one that is being handled.
    pub fn on<R: CallbackResult>(
        &self,
        filter: impl FnMut(&K::Item<'_>) -> bool + Send + 'static,
        callback: impl FnMut(&K::Item<'_>) -> R + Send + 'static,
    ) -> CallbackId {
        let mut news = lock(&self.shared.news);
        news.last_id += 1;
        let id = CallbackId::new(news.last_id);
        // Under the lock, so that ids are in the order of registration.
        news.changes.push(Change::Add(Entry::new(id, filter, callback)));
        drop(news);
        self.shared.raise(NEWS);
        id
    }

    /// Removes a callback, if it is still there. It is not called with messages that are received from
    /// now on, perhaps but for the one that is being handled.
    pub fn remove(&self, callback: CallbackId) {
        lock(&self.shared.news).changes.push(Change::Remove(callback));
        self.shared.raise(NEWS);
    }

    /// What was counted so far.
    pub fn stats(&self) -> PassiveStats {
        self.shared.reporter.stats()
    }
}

impl<K: Kind> Running<K> {
    /// A handle to register and remove callbacks with, for another thread or a callback.
    pub fn callbacks(&self) -> Callbacks<K> {
        self.callbacks.clone()
    }

    /// As [`Callbacks::on`].
    pub fn on<R: CallbackResult>(
        &self,
        filter: impl FnMut(&K::Item<'_>) -> bool + Send + 'static,
        callback: impl FnMut(&K::Item<'_>) -> R + Send + 'static,
    ) -> CallbackId {
        self.callbacks.on(filter, callback)
    }

    /// As [`Callbacks::remove`].
    pub fn remove(&self, callback: CallbackId) {
        self.callbacks.remove(callback);
    }

    /// What was counted so far.
    pub fn stats(&self) -> PassiveStats {
        self.callbacks.stats()
    }

    /// Why it has ended; `None` while it goes on.
    pub fn ended(&self) -> Option<Ended> {
        self.callbacks.shared.ended()
    }

    /// Stops it before the next message, and gives the receiver back with everything that was not
    /// received. Waits for the callbacks that are being called; for one that is stuck, for ever.
    ///
    /// # Errors
    /// [`StopError::OwnThread`], [`StopError::Forked`].
    pub fn stop(self) -> Result<K::End, StopError<K>> {
        self.callbacks.shared.raise(STOP);
        self.finish(None)
    }

    /// [`stop`](Self::stop), waiting for at most `timeout`.
    ///
    /// # Errors
    /// [`StopError::Timeout`] where a callback has not returned until then; the others as there.
    pub fn stop_timeout(self, timeout: Duration) -> Result<K::End, StopError<K>> {
        self.callbacks.shared.raise(STOP);
        self.finish(Some(timeout))
    }

    /// Handles the messages that are there, at most a ring full, then stops as [`stop`](Self::stop)
    /// does.
    ///
    /// # Errors
    /// As there.
    pub fn drain(self) -> Result<K::End, StopError<K>> {
        self.callbacks.shared.raise(DRAIN);
        self.finish(None)
    }

    /// [`drain`](Self::drain), waiting for at most `timeout`.
    ///
    /// # Errors
    /// As [`stop_timeout`](Self::stop_timeout).
    pub fn drain_timeout(self, timeout: Duration) -> Result<K::End, StopError<K>> {
        self.callbacks.shared.raise(DRAIN);
        self.finish(Some(timeout))
    }

    /// Waits until it ends by itself: the peer is gone, or the channel corrupt.
    ///
    /// # Errors
    /// As [`stop`](Self::stop).
    pub fn wait(self) -> Result<K::End, StopError<K>> {
        self.finish(None)
    }

    /// [`wait`](Self::wait) for at most `timeout`; it goes on after that.
    ///
    /// # Errors
    /// As [`stop_timeout`](Self::stop_timeout).
    pub fn wait_timeout(self, timeout: Duration) -> Result<K::End, StopError<K>> {
        self.finish(Some(timeout))
    }

    fn finish(self, timeout: Option<Duration>) -> Result<K::End, StopError<K>> {
        let shared = Arc::clone(&self.callbacks.shared);
        if !fork::is_current(shared.generation) {
            return Err(StopError::Forked);
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut end = lock(&shared.end);
        loop {
            match &*end {
                End::Running(thread) if *thread == Some(thread::current().id()) => {
                    return Err(StopError::OwnThread);
                }
                End::Running(_) => (),
                End::Ended(_, ended) | End::Taken(ended) => {
                    let taken = End::Taken(*ended);
                    if let End::Ended(receiver, _) = mem::replace(&mut *end, taken) {
                        return Ok(K::end(*receiver));
                    }
                    unreachable!("only a handle that is consumed takes it");
                }
            }
            let now = Instant::now();
            end = match deadline {
                Some(deadline) if now >= deadline => {
                    drop(end);
                    return Err(StopError::Timeout(self));
                }
                Some(deadline) => {
                    let waited = shared.ended.wait_timeout(end, deadline - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => shared.ended.wait(end).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl<K: Kind> Drop for Running<K> {
    fn drop(&mut self) {
        let shared = &self.callbacks.shared;
        if fork::is_current(shared.generation) {
            shared.raise(STOP);
        }
    }
}
