//! Passive mode: messages are handed to callbacks, on a thread of the receiver's own.
//!
//! [`Receiver::on_receive`] starts it with one callback, [`Receiver::passive`] with many and with
//! options. What always holds: the receiver is taken, so that nobody else receives from it meanwhile;
//! every callback whose filter matches is called with a message, in the order in which they were
//! registered; a callback that fails or panics costs no other one a call, and no message.
//!
//! ```
//! use std::sync::mpsc;
//! use ringway::channel::{Channel, ChannelOptions, Message};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (near, far) = Channel::pair(&ChannelOptions::default())?;
//! let (mut sender, _) = near.split();
//! let (_, receiver) = far.split();
//! let (tell, told) = mpsc::channel();
//! let running = receiver
//!     .on_receive(|m: &Message| m.starts_with(b"hel"), move |m: &Message| tell.send(m.to_vec()))?;
//! sender.send(b"goodbye")?;
//! sender.send(b"hello")?;
//! assert_eq!(told.recv()?, b"hello");
//! let receiver = running.stop()?; // active again
//! # drop(receiver);
//! # Ok(())
//! # }
//! ```
//!
//! One mode per channel is a matter of types:
//!
//! ```compile_fail,E0382
//! # use ringway::channel::{Message, Receiver};
//! fn mixed(mut receiver: Receiver) {
//!     let running = receiver.on_receive(|_: &Message| true, |_: &Message| ());
//!     let message = receiver.recv(); // the dispatcher has it
//! }
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `callbacks` | filters and callbacks; calling them |
//! | `kind` | what they are called with: messages, or values |
//! | `caller` | the callbacks of one receiver, on the thread that calls them |
//! | `dispatcher` | the thread: wait, call, do what is asked for |
//! | `together` | one thread for several receivers |
//! | `running` | handles on that thread |
//! | `report` | what there is to tell, and to whom |
//! | `watchdog` | noticing callbacks that do not return |

mod callbacks;
mod caller;
mod dispatcher;
mod kind;
mod report;
mod running;
mod together;
mod watchdog;

use std::fmt;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::{Receiver, TypedReceiver};
use crate::typed::Decode;
use callbacks::Entry;
use report::Reporter;
use running::Thread;

pub use callbacks::{CallbackId, CallbackResult};
pub use kind::{Bytes, Kind, Values};
pub use report::{Ended, PassiveStats, Report};
pub use running::{Callbacks, Running, StopError};
pub use together::Dispatcher;

/// How long a callback may run before it is reported as stuck, where nothing else is said.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// A receiver that is about to be passive: callbacks are registered, then it is started.
///
/// ```
/// # use ringway::channel::{Channel, ChannelOptions, Message, Report};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (near, far) = Channel::pair(&ChannelOptions::default())?;
/// let running = far.split().1
///     .passive()
///     .on(|m: &Message| m.tag() == 1, |m: &Message| println!("one: {} bytes", m.len()))
///     .on(|m: &Message| m.tag() == 2, |m: &Message| std::str::from_utf8(m).map(|text| print!("{text}")))
///     .report(|report: &Report| eprintln!("{report}"))
///     .start()?;
/// # drop(near);
/// # running.wait()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is received before it is started"]
pub struct Passive<K: Kind = Bytes> {
    receiver: Receiver,
    entries: Vec<Entry<K>>,
    reporter: Reporter,
    stuck_after: Option<Duration>,
    name: String,
}

/// The dispatcher's thread could not be started. The receiver is as it was.
#[derive(Debug, Error)]
#[error(
    "the dispatcher's thread could not be started: {source}; the receiver is in this error, try again or receive without a dispatcher"
)]
pub struct StartError<E: fmt::Debug = Receiver> {
    /// Why not.
    pub source: io::Error,
    /// The receiver.
    pub receiver: Box<E>,
}

impl<K: Kind> fmt::Debug for Passive<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passive")
            .field("receiver", &self.receiver)
            .field("callbacks", &self.entries.len())
            .field("stuck_after", &self.stuck_after)
            .finish_non_exhaustive()
    }
}

impl<K: Kind> Passive<K> {
    fn over(receiver: Receiver) -> Self {
        let (entries, reporter) = (Vec::new(), Reporter::default());
        let name = String::from("ringway-callbacks");
        Self { receiver, entries, reporter, stuck_after: Some(STUCK_AFTER), name }
    }

    /// Registers a callback for messages that match a filter. Where several match, they are called in
    /// the order in which they were registered.
    ///
    /// A callback returns nothing, or a `Result` whose error is reported. After a panic in a filter or
    /// in a callback, which is caught and reported, it is called with the next message as before.
    pub fn on<R: CallbackResult>(
        mut self,
        filter: impl FnMut(&K::Item<'_>) -> bool + Send + 'static,
        callback: impl FnMut(&K::Item<'_>) -> R + Send + 'static,
    ) -> Self {
        let id = CallbackId::new(self.entries.len() as u64 + 1);
        self.entries.push(Entry::new(id, filter, callback));
        self
    }

    /// Who is told of errors, panics, stuck callbacks, restarts and the end. Called on the dispatcher's
    /// thread, and for what is stuck on another one; it should be short. A later hook replaces an
    /// earlier one. Without any, reports are counted only ([`Running::stats`]).
    pub fn report(mut self, hook: impl Fn(&Report<'_>) + Send + Sync + 'static) -> Self {
        self.reporter = Reporter::new(hook);
        self
    }

    /// How long a callback may run before it is reported as stuck, once for each time; nothing is done
    /// to it. A second where nothing else is said; `None`: as long as it likes.
    ///
    /// Time is taken now and then, a quarter of this apart and at least once in 250 ms, so the report
    /// comes as much later.
    pub fn stuck_after(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.stuck_after = limit.into();
        self
    }

    /// Name of the dispatcher's thread. Without zeros; what is behind one is cut off.
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into().split('\0').next().unwrap_or_default().to_owned();
        self
    }

    /// Starts the dispatcher: from now on messages are received.
    ///
    /// # Errors
    /// [`StartError`], with the receiver, where there is no thread to be had.
    pub fn start(mut self) -> Result<Running<K>, StartError<K::End>> {
        let name = mem::take(&mut self.name);
        self.start_in(Thread::Own(name))
    }

    /// Brings the receiver to a thread that it shares with others. Messages of all of them are handled in
    /// turn; a callback that does not return stalls all of them, and stopping one of them waits for the
    /// others' callbacks too. Messages that the thread has found when [`Running::stop`] is called are
    /// handled still.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_on(self, dispatcher: &Dispatcher) -> Result<Running<K>, StartError<K::End>> {
        self.start_in(Thread::Shared(dispatcher.waker()))
    }

    fn start_in(self, on: Thread<'_>) -> Result<Running<K>, StartError<K::End>> {
        let Self { receiver, entries, reporter, stuck_after, .. } = self;
        running::start(receiver, entries, Arc::new(reporter), stuck_after, on).map_err(
            |(source, receiver)| StartError { source, receiver: Box::new(K::end(*receiver)) },
        )
    }
}

impl Receiver {
    /// Makes this receiver passive: `callback` is called with each message that matches `filter`, on a
    /// thread of its own. More callbacks: [`Running::on`], or [`passive`](Self::passive) to register
    /// them before the first message is received. What matches no filter is dropped.
    ///
    /// # Errors
    /// [`StartError`], with this receiver, where there is no thread to be had.
    pub fn on_receive<R: CallbackResult>(
        self,
        filter: impl FnMut(&super::Message<'_>) -> bool + Send + 'static,
        callback: impl FnMut(&super::Message<'_>) -> R + Send + 'static,
    ) -> Result<Running, StartError> {
        self.passive().on(filter, callback).start()
    }

    /// Makes this receiver passive, with many callbacks or with options.
    pub fn passive(self) -> Passive {
        Passive::over(self)
    }
}

impl<C: Decode> TypedReceiver<C> {
    /// As [`Receiver::on_receive`], with values. A message that is no value is dropped and reported.
    ///
    /// # Errors
    /// As there.
    pub fn on_receive<R: CallbackResult>(
        self,
        filter: impl FnMut(&C::View<'_>) -> bool + Send + 'static,
        callback: impl FnMut(&C::View<'_>) -> R + Send + 'static,
    ) -> Result<Running<Values<C>>, StartError<Self>> {
        self.passive().on(filter, callback).start()
    }

    /// As [`Receiver::passive`], with values.
    pub fn passive(self) -> Passive<Values<C>> {
        Passive::over(self.into_inner())
    }
}
