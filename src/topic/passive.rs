//! Callbacks for publications, on a thread of their own.
//!
//! [`Subscriber::on_publication`] and [`Subscriber::passive`] start one. What always holds: callbacks are
//! called one after the other, by one thread, with the publications in the order of
//! [`recv`](Subscriber::recv); a panic of one of them is caught and told, and the next publication is
//! received; what was stopped gives the subscriber back.

use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle, ThreadId};

use thiserror::Error;

use super::arrivals::NewPublishers;
use super::error::{Departed, Nothing, TopicRecvError};
use super::publication::Publication;
use super::subscriber::Subscriber;
use crate::callback::{CallbackResult, quietly, text_of};
use crate::os::fork;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

type Filter = Box<dyn FnMut(&Publication<'_>) -> bool + Send>;
type Callback = Box<dyn FnMut(&Publication<'_>) -> Result<(), Box<dyn Error + Send + Sync>> + Send>;
type Hook = Box<dyn FnMut(&TopicReport<'_>) + Send>;

/// A subscriber that is about to be passive: callbacks are registered, then it is started.
#[must_use = "nothing is received before it is started"]
pub struct PassiveSubscriber {
    subscriber: Subscriber,
    entries: Vec<(Filter, Callback)>,
    hook: Option<Hook>,
}

impl fmt::Debug for PassiveSubscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassiveSubscriber")
            .field("subscriber", &self.subscriber)
            .field("callbacks", &self.entries.len())
            .finish_non_exhaustive()
    }
}

/// What has happened on a passive subscriber.
#[derive(Debug)]
#[non_exhaustive]
pub enum TopicReport<'a> {
    /// A callback, or its filter, has panicked. The next one is called, then the next publication
    /// received. Callbacks are numbered from 0, in the order in which they were registered.
    Panicked {
        /// Which.
        callback: usize,
        /// What the panic says.
        message: &'a str,
    },
    /// A callback has returned an error. It goes on in the same way.
    Failed {
        /// Which.
        callback: usize,
        /// What it returned.
        error: &'a (dyn Error + Send + Sync + 'static),
    },
    /// A publication was to be received and could not be.
    Missed {
        /// Why.
        error: TopicRecvError,
    },
    /// A publisher has gone.
    Departed(Departed),
}

/// The thread could not be started. The subscriber is as it was.
#[derive(Debug, Error)]
#[error("the thread for a subscription's callbacks could not be started: {source}")]
pub struct ListenError {
    /// Why not.
    pub source: io::Error,
    /// The subscriber.
    pub subscriber: Box<Subscriber>,
}

/// Why there is no subscriber to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StopListeningError {
    /// A callback of its own has called this: the thread ends when that returns, and the subscription with
    /// it.
    #[error(
        "a callback cannot wait for the end of its own subscription; call this from another thread"
    )]
    InCallback,
    /// The process has forked since; the thread is the parent's.
    #[error(
        "the subscription's thread belongs to the process that this one was forked from; subscribe in this process"
    )]
    Forked,
}

/// What a passive subscriber has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListeningStats {
    /// Publications for which all callbacks were called that want them.
    pub publications: u64,
    /// Callbacks and filters that panicked.
    pub panics: u64,
    /// Callbacks that returned an error.
    pub failures: u64,
}

/// A passive subscriber whose thread runs. Dropping it ends the subscription, and waits for the callback
/// that runs.
#[derive(Debug)]
#[must_use = "dropping it ends the subscription"]
pub struct Listening {
    shared: Arc<Shared>,
    arrivals: Arc<NewPublishers>,
    thread: Option<JoinHandle<Option<Subscriber>>>,
    id: ThreadId,
    generation: u64,
}

#[derive(Debug, Default)]
struct Shared {
    /// 1 once it is to end.
    stop: AtomicU32,
    publications: AtomicU64,
    panics: AtomicU64,
    failures: AtomicU64,
}

impl Subscriber {
    /// Makes this subscriber passive: `callback` is called with each publication that matches `filter`, on
    /// a thread of its own. What matches no filter is dropped.
    ///
    /// A callback may publish, also under the topic it listens to: no publication waits longer than its
    /// publisher's [`max_block`](super::PublishOptions::max_block).
    ///
    /// # Errors
    /// [`ListenError`], with this subscriber, where there is no thread to be had.
    pub fn on_publication<R: CallbackResult>(
        self,
        filter: impl FnMut(&Publication<'_>) -> bool + Send + 'static,
        callback: impl FnMut(&Publication<'_>) -> R + Send + 'static,
    ) -> Result<Listening, ListenError> {
        self.passive().on(filter, callback).start()
    }

    /// Makes this subscriber passive, with many callbacks or somebody who is told how they went.
    pub fn passive(self) -> PassiveSubscriber {
        PassiveSubscriber { subscriber: self, entries: Vec::new(), hook: None }
    }
}

impl PassiveSubscriber {
    /// Registers a callback for publications that match a filter. Where several match, they are called in
    /// the order in which they were registered. A callback returns nothing, or a `Result` whose error is
    /// reported.
    pub fn on<R: CallbackResult>(
        mut self,
        filter: impl FnMut(&Publication<'_>) -> bool + Send + 'static,
        mut callback: impl FnMut(&Publication<'_>) -> R + Send + 'static,
    ) -> Self {
        let callback = move |publication: &Publication<'_>| callback(publication).into_result();
        self.entries.push((Box::new(filter), Box::new(callback)));
        self
    }

    /// Who is told of panics, errors, and publishers that go. Called on the thread of the callbacks. A later
    /// hook replaces an earlier one.
    pub fn report(mut self, hook: impl FnMut(&TopicReport<'_>) + Send + 'static) -> Self {
        self.hook = Some(Box::new(hook));
        self
    }

    /// Starts the thread: from now on publications are received.
    ///
    /// # Errors
    /// [`ListenError`], with the subscriber, where there is no thread to be had.
    pub fn start(self) -> Result<Listening, ListenError> {
        let Self { subscriber, mut entries, mut hook } = self;
        let arrivals = Arc::clone(subscriber.arrivals());
        let shared = Arc::new(Shared::default());
        // Handed over when there is a thread, so that it is not lost where there is none.
        let (hand_over, handed_over) = mpsc::sync_channel::<Subscriber>(1);
        let spawned = fork::generation().and_then(|generation| {
            let shared = Arc::clone(&shared);
            let builder = thread::Builder::new().name("ringway-topic".into());
            let thread = builder.spawn(move || {
                let mut subscriber = handed_over.recv().ok()?;
                shared.run(&mut subscriber, &mut entries, &mut hook);
                // They may panic when they are dropped.
                quietly(|| drop(entries));
                quietly(|| drop(hook));
                Some(subscriber)
            })?;
            Ok((thread, generation))
        });
        match spawned {
            Ok((thread, generation)) => {
                hand_over.send(subscriber).expect("it waits for it");
                let id = thread.thread().id();
                Ok(Listening { shared, arrivals, thread: Some(thread), id, generation })
            }
            Err(source) => Err(ListenError { source, subscriber: Box::new(subscriber) }),
        }
    }
}

impl Shared {
    fn run(
        &self,
        subscriber: &mut Subscriber,
        entries: &mut [(Filter, Callback)],
        hook: &mut Option<Hook>,
    ) {
        let mut tell = |report: &TopicReport<'_>| {
            if let Some(hook) = hook {
                quietly(|| hook(report));
            }
        };
        // Acquire pairs with the Release in `Listening::end`.
        while self.stop.load(Ordering::Acquire) == 0 {
            match subscriber.recv_unless_rung() {
                Ok(Ok(publication)) => {
                    for (callback, entry) in entries.iter_mut().enumerate() {
                        self.call(callback, entry, &publication, &mut tell);
                    }
                    // Relaxed: nothing is read because of a count.
                    self.publications.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Err(error)) => tell(&TopicReport::Missed { error }),
                Err(Nothing::Forked) => return,
                Err(_) => {}
            }
            while let Some(departed) = subscriber.take_departed() {
                tell(&TopicReport::Departed(departed));
            }
        }
    }

    fn call(
        &self,
        callback: usize,
        (filter, function): &mut (Filter, Callback),
        publication: &Publication<'_>,
        tell: &mut impl FnMut(&TopicReport<'_>),
    ) {
        let wanted = || if filter(publication) { function(publication) } else { Ok(()) };
        match catch_unwind(AssertUnwindSafe(wanted)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                tell(&TopicReport::Failed { callback, error: &*error });
                // It may panic when it is dropped.
                quietly(|| drop(error));
            }
            Err(panic) => {
                self.panics.fetch_add(1, Ordering::Relaxed);
                tell(&TopicReport::Panicked { callback, message: &text_of(panic) });
            }
        }
    }
}

impl Listening {
    /// Ends the thread, when the callback that runs has returned, and gives the subscriber back. What it
    /// has not received is still there.
    ///
    /// # Errors
    /// [`StopListeningError`].
    pub fn stop(mut self) -> Result<Subscriber, StopListeningError> {
        self.end()
    }

    /// What was counted.
    pub fn stats(&self) -> ListeningStats {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Shared { publications, panics, failures, .. } = &*self.shared;
        ListeningStats {
            publications: count(publications),
            panics: count(panics),
            failures: count(failures),
        }
    }

    fn end(&mut self) -> Result<Subscriber, StopListeningError> {
        let Some(thread) = self.thread.take().filter(|_| fork::is_current(self.generation)) else {
            return Err(StopListeningError::Forked);
        };
        // Release pairs with the Acquire in `run`.
        self.shared.stop.store(1, Ordering::Release);
        self.arrivals.ring();
        if thread::current().id() == self.id {
            return Err(StopListeningError::InCallback);
        }
        let subscriber = thread.join().expect("callbacks and hooks cannot end it");
        Ok(subscriber.expect("it was handed over"))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if self.thread.is_some() {
            drop(self.end());
        }
    }
}
