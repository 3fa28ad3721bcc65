//! Publications that wait in the publisher's memory until a subscriber's ring has room.
//!
//! [`Subscription`](super::subscription) has one per subscriber with
//! [`BackpressurePolicy::DropOldest`](super::BackpressurePolicy::DropOldest).
//!
//! Invariants: publications keep their order. `publish` waits for no subscriber. Waiting publications
//! cost at most `max_bytes`, each counted with [`ENTRY_BYTES`], or there is one of them. The thread
//! starts when a ring is full for the first time.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::link_sender::{LinkSender, NOW, Outgoing};
use crate::error::{SendTimeoutError, TrySendError};
use crate::memory::Deadline;
use crate::os::clock::monotonic_ns;

/// How long the thread waits for room before it looks whether it is still wanted; twice as long each
/// time, because a long publication may need more. So it is there, when nobody wants it, no longer than
/// it has waited before.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// What a waiting publication costs besides its bytes: its entry, the allocation behind it, and the
/// room that the list of entries keeps free. Without it, empty publications would cost nothing.
pub(super) const ENTRY_BYTES: u64 = 128;

// An entry, at most one free place for it, and the allocator's own words.
const _: () = assert!(2 * size_of::<Waiting>() + 32 <= ENTRY_BYTES as usize);

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    /// The link while nothing waits. Otherwise the thread has it, or `State` has.
    direct: Option<LinkSender>,
    shared: Arc<Shared>,
    max_bytes: u64,
    has_thread: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// `None` while the thread sends, while [`Queue::direct`] has it, and after the subscriber is gone.
    sender: Option<LinkSender>,
    waiting: VecDeque<Waiting>,
    bytes: u64,
    /// What the thread is sending.
    in_hand: Option<u64>,
    /// What ended it.
    gone: Option<TrySendError>,
    too_long: u64,
    /// The publisher is over: the number that the next publication would have had, and how long to go on.
    closing: Option<(u64, Deadline)>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    tag: u16,
    bytes: Vec<u8>,
}

/// What has become of a publication that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Sent,
    /// It waits; so many older ones were dropped for it.
    Waits {
        dropped: u64,
    },
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    pub(super) fn new(sender: LinkSender, max_bytes: u64) -> Self {
        let state = State {
            sender: None,
            waiting: VecDeque::new(),
            bytes: 0,
            in_hand: None,
            gone: None,
            too_long: 0,
            closing: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        Self { direct: Some(sender), shared, max_bytes, has_thread: false }
    }

    /// As [`LinkSender::first`].
    pub(super) fn first(&mut self, number: u64) -> bool {
        self.direct.as_mut().is_some_and(|sender| sender.first(number))
    }

    /// As [`LinkSender::send_simple`]; false where something waits.
    #[inline(always)]
    pub(super) fn send_simple(&mut self, number: u64, bytes: &[u8]) -> bool {
        self.direct.as_mut().is_some_and(|sender| sender.send_simple(number, bytes))
    }

    /// Sends a publication, or keeps it.
    ///
    /// # Errors
    /// It cannot be sent at all, or the subscriber is gone. [`TrySendError::Full`]: a thread could not
    /// be started.
    pub(super) fn offer(&mut self, outgoing: Outgoing<'_>) -> Result<Taken, TrySendError> {
        let mut state = self.shared.state();
        if let Some(gone) = state.gone {
            return Err(gone);
        }
        if self.direct.is_none() && state.waiting.is_empty() {
            // The thread has sent everything and given the link back, or it is still sending.
            self.direct = state.sender.take();
        }
        if let Some(sender) = &mut self.direct {
            match sender.try_send(outgoing) {
                Ok(()) => return Ok(Taken::Sent),
                Err(TrySendError::Full | TrySendError::WouldFragment { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if !self.has_thread {
            let shared = Arc::clone(&self.shared);
            let builder = thread::Builder::new().name("ringway-topic".into());
            builder.spawn(move || shared.run()).map_err(|_| TrySendError::Full)?;
            self.has_thread = true;
        }
        if let Some(sender) = self.direct.take() {
            state.sender = Some(sender);
        }
        let dropped = state.keep(outgoing, self.max_bytes);
        drop(state);
        self.shared.changed.notify_all();
        Ok(Taken::Waits { dropped })
    }

    /// Takes the number of publications that were found too long after they had been kept.
    pub(super) fn take_too_long(&self) -> u64 {
        std::mem::take(&mut self.shared.state().too_long)
    }

    /// As [`LinkSender::wants_from`].
    pub(super) fn wants_from(&mut self, oldest: u64) -> u64 {
        if let Some(sender) = &mut self.direct {
            return sender.wants_from(oldest);
        }
        let mut state = self.shared.state();
        if state.sender.is_none() && state.gone.is_none() {
            // The thread has the link. The subscriber may not have read what the thread has sent.
            return 0;
        }
        let waiting = state.waiting.front().map_or(u64::MAX, |waiting| waiting.number);
        state.sender.as_mut().map_or(waiting, |sender| sender.wants_from(oldest).min(waiting))
    }

    /// As [`LinkSender::is_over`].
    pub(super) fn is_over(&self) -> bool {
        if let Some(sender) = &self.direct {
            return sender.is_over();
        }
        let state = self.shared.state();
        state.gone.is_some() || state.sender.as_ref().is_some_and(LinkSender::is_over)
    }

    /// As [`LinkSender::is_drained`].
    pub(super) fn is_drained(&self) -> bool {
        if let Some(sender) = &self.direct {
            return sender.is_drained();
        }
        let state = self.shared.state();
        let is_idle = state.waiting.is_empty() && state.in_hand.is_none();
        is_idle && state.sender.as_ref().is_none_or(LinkSender::is_drained)
    }

    /// Ends the link. The thread sends what waits until `deadline`.
    pub(super) fn end(mut self, number: u64, deadline: Deadline) {
        let direct = self.direct.take();
        if !self.has_thread {
            if let Some(sender) = direct {
                sender.end(number, NOW);
            }
            return;
        }
        let mut state = self.shared.state();
        state.sender = direct.or_else(|| state.sender.take());
        state.closing = Some((number, deadline));
        drop(state);
        self.shared.changed.notify_all();
    }
}

/// What a publication of these bytes costs while it waits.
fn cost_bytes(bytes: &[u8]) -> u64 {
    ENTRY_BYTES.saturating_add(bytes.len() as u64)
}

impl State {
    /// Keeps a publication. Returns how many older ones were dropped for it.
    fn keep(&mut self, outgoing: Outgoing<'_>, max_bytes: u64) -> u64 {
        let cost_bytes = cost_bytes(outgoing.bytes);
        let mut dropped = 0;
        while self.bytes.saturating_add(cost_bytes) > max_bytes
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.bytes -= self::cost_bytes(&oldest.bytes);
            dropped += 1;
        }
        self.bytes += cost_bytes;
        let Outgoing { number, tag, bytes } = outgoing;
        self.waiting.push_back(Waiting { number, tag, bytes: bytes.to_vec() });
        dropped
    }
}

impl Shared {
    /// The thread.
    fn run(&self) {
        while let Some((waiting, mut sender)) = self.take() {
            let sent = self.send(&waiting, &mut sender);
            let mut state = self.state();
            state.in_hand = None;
            match sent {
                Ok(()) => state.sender = Some(sender),
                Err(SendTimeoutError::TooLong { .. }) => {
                    state.too_long += 1;
                    state.sender = Some(sender);
                }
                Err(error) => {
                    state.gone = Some(match error {
                        SendTimeoutError::Corrupt(corruption) => TrySendError::Corrupt(corruption),
                        SendTimeoutError::Forked => TrySendError::Forked,
                        _ => TrySendError::Disconnected,
                    });
                    state.waiting.clear();
                    return;
                }
            }
        }
    }

    /// The next one to send; `None` at the end.
    fn take(&self) -> Option<(Waiting, LinkSender)> {
        let mut state = self.state();
        loop {
            if let Some(waiting) = state.waiting.pop_front() {
                let sender = state.sender.take()?;
                state.bytes -= cost_bytes(&waiting.bytes);
                state.in_hand = Some(waiting.number);
                return Some((waiting, sender));
            }
            if let Some((number, deadline)) = state.closing {
                if let Some(sender) = state.sender.take() {
                    sender.end(number, deadline);
                }
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Sends one, waiting for room as long as the publisher is there, and somewhat longer.
    fn send(&self, waiting: &Waiting, sender: &mut LinkSender) -> Result<(), SendTimeoutError> {
        let Waiting { number, tag, bytes } = waiting;
        let outgoing = Outgoing { number: *number, tag: *tag, bytes };
        let mut patience_ns = FIRST_WAIT.as_nanos() as u64;
        loop {
            let slice = Deadline::at_ns(monotonic_ns().saturating_add(patience_ns));
            patience_ns = patience_ns.saturating_mul(2);
            let deadline = match self.state().closing {
                Some((_, deadline)) => slice.min(deadline),
                None => slice,
            };
            match sender.send_by(outgoing, deadline) {
                Err(SendTimeoutError::Timeout) => {}
                result => return result,
            }
            let closing = self.state().closing;
            if closing.is_some_and(|(_, deadline)| monotonic_ns() >= deadline.as_ns()) {
                return Err(SendTimeoutError::Timeout);
            }
        }
    }
}
