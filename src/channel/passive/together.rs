//! One thread for the callbacks of several receivers, for those who ask for it.
//!
//! [`Passive::start_on`](super::Passive::start_on) brings a receiver to a [`Dispatcher`]; a selector waits
//! for all of them. What always holds: in each round a receiver has its budget of messages, then the others
//! have theirs; whoever asks for something has the thread woken by a message on a channel of its own.

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use super::caller::Caller;
use super::dispatcher::Loop;
use super::kind::Kind;
use super::report::Ended;
use super::running::{DRAIN, NEWS, STOP};
use crate::channel::{Channel, ChannelOptions, Event, Message, Receiver, Selector, Sender};
use crate::error::RecvError;
use crate::os::fork;
use crate::sync::{Mutex, MutexGuard};

/// Messages of a receiver in a round.
const BUDGET: usize = 32;
/// How long a round may wait: for ever, as far as anybody can tell.
const ALWAYS: Duration = Duration::from_secs(1 << 30);
/// The channel that wakes the thread needs no room: one message is as good as many.
const WAKER_BYTES: u64 = 4096;

/// A thread on which the callbacks of several receivers are called. To share it is a choice: a callback
/// that does not return stalls all of them.
///
/// It ends when the last of its handles, of its receivers' [`Running`](super::Running) and of their
/// [`Callbacks`](super::Callbacks) is gone.
#[derive(Clone)]
pub struct Dispatcher {
    shared: Arc<Waker>,
}

/// How the thread is reached.
pub(super) struct Waker {
    sender: Mutex<Sender>,
    arrivals: Arc<Arrivals>,
    thread: ThreadId,
    generation: u64,
}

/// Receivers that the thread has not seen yet.
type Arrivals = Mutex<Vec<(Receiver, Box<dyn Member>)>>;

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher").finish_non_exhaustive()
    }
}

/// No code under these locks leaves anything half done, so a panic elsewhere means nothing here.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Waker {
    /// Has the thread look at everybody's signal.
    pub(super) fn wake(&self) {
        if fork::is_current(self.generation) {
            // Full: it has something to look at anyway. It cannot be gone: members and handles keep it.
            let _ = lock(&self.sender).try_send(&[]);
        }
    }

    /// The thread.
    pub(super) fn thread(&self) -> ThreadId {
        self.thread
    }

    /// Brings a receiver with its callbacks.
    pub(super) fn bring<K: Kind>(&self, receiver: Receiver, caller: Caller<K>) {
        lock(&self.arrivals).push((receiver, Box::new(caller)));
        self.wake();
    }
}

impl Dispatcher {
    /// Starts the thread.
    ///
    /// # Errors
    /// There is no thread, no memory or no descriptor to be had.
    pub fn new() -> io::Result<Self> {
        let generation = fork::generation()?;
        let options = ChannelOptions { capacity_bytes: WAKER_BYTES, ..ChannelOptions::default() };
        let (near, far) = Channel::pair(&options).map_err(io::Error::other)?;
        let ((sender, unused), (_, receiver)) = (near.split(), far.split());
        drop(unused);
        let arrivals = Arc::<Arrivals>::default();
        let mut members = Members {
            selector: Selector::new(),
            placed: Vec::new(),
            arrivals: Arc::clone(&arrivals),
        };
        let waker = members.selector.add(receiver);
        members.placed.resize_with(waker + 1, || None);
        let run = move || members.run(waker);
        let thread = thread::Builder::new().name("ringway-callbacks".into()).spawn(run)?;
        let (sender, thread) = (Mutex::new(sender), thread.thread().id());
        Ok(Self { shared: Arc::new(Waker { sender, arrivals, thread, generation }) })
    }

    pub(super) fn waker(&self) -> &Arc<Waker> {
        &self.shared
    }
}

/// The callbacks of one receiver, whatever they are called with.
trait Member: Send {
    fn message(&mut self, message: Message<'_>);
    /// What the receiver has ended with, if it has.
    fn error(&mut self, error: RecvError) -> Option<Ended>;
    fn bits(&self) -> u32;
    fn take_news(&mut self);
    fn drain(self: Box<Self>, receiver: Receiver);
    fn finish(self: Box<Self>, receiver: Receiver, ended: Ended);
}

impl<K: Kind> Member for Caller<K> {
    fn message(&mut self, message: Message<'_>) {
        // What was registered before the message was sent is called with it.
        if self.shared.signal.bits() & NEWS != 0 {
            self.take_news();
        }
        match K::look(message) {
            Ok(item) => self.call_all(&item),
            Err(error) => self.refuse(error),
        }
    }

    fn error(&mut self, error: RecvError) -> Option<Ended> {
        self.notice(error)
    }

    fn bits(&self) -> u32 {
        self.shared.signal.bits()
    }

    fn take_news(&mut self) {
        Self::take_news(self);
    }

    fn drain(self: Box<Self>, receiver: Receiver) {
        let mut last = Loop { receiver, caller: *self };
        let ended = last.drain();
        last.caller.finish(last.receiver, ended);
    }

    fn finish(self: Box<Self>, receiver: Receiver, ended: Ended) {
        Self::finish(*self, receiver, ended);
    }
}

/// A member, and what its receiver has ended with, where it has.
struct Placed {
    member: Box<dyn Member>,
    ended: Option<Ended>,
}

/// Everything that only the thread touches.
struct Members {
    selector: Selector,
    /// By the selector's tokens.
    placed: Vec<Option<Placed>>,
    arrivals: Arc<Arrivals>,
}

impl Members {
    fn run(mut self, waker: usize) {
        let mut over = false;
        while !over {
            let (mut woken, mut ended) = (false, false);
            let Self { selector, placed, .. } = &mut self;
            selector.poll(BUDGET, ALWAYS, |token, event| {
                let Some(placed) = placed.get_mut(token).and_then(Option::as_mut) else {
                    woken |= token == waker;
                    over |= matches!(event, Event::Error(_));
                    return;
                };
                match event {
                    Event::Message(message) => placed.member.message(message),
                    Event::Error(error) => {
                        placed.ended = placed.member.error(error);
                        ended |= placed.ended.is_some();
                    }
                }
            });
            if ended {
                self.bury();
            }
            if woken {
                self.welcome();
                self.obey();
            }
        }
    }

    /// Takes those out whose receivers have ended.
    fn bury(&mut self) {
        for token in 0..self.placed.len() {
            // Corruption is no end where the peer may be restarted.
            if self.placed[token].is_some()
                && self.selector.has_ended(token)
                && let Some((receiver, Placed { member, ended: Some(ended) })) = self.take(token)
            {
                member.finish(receiver, ended);
            }
        }
    }

    fn welcome(&mut self) {
        let arrivals = std::mem::take(&mut *lock(&self.arrivals));
        for (receiver, member) in arrivals {
            let token = self.selector.add(receiver);
            if self.placed.len() <= token {
                self.placed.resize_with(token + 1, || None);
            }
            self.placed[token] = Some(Placed { member, ended: None });
        }
    }

    /// Does what is asked for.
    fn obey(&mut self) {
        for token in 0..self.placed.len() {
            let Some(placed) = &mut self.placed[token] else { continue };
            let bits = placed.member.bits();
            if bits & NEWS != 0 {
                placed.member.take_news();
            }
            if bits & (STOP | DRAIN) != 0
                && let Some((receiver, Placed { member, .. })) = self.take(token)
            {
                match bits & STOP {
                    0 => member.drain(receiver),
                    _ => member.finish(receiver, Ended::Stopped),
                }
            }
        }
    }

    fn take(&mut self, token: usize) -> Option<(Receiver, Placed)> {
        Some((self.selector.remove(token)?, self.placed[token].take()?))
    }
}
