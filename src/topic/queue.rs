//! Publications that wait in the publisher's memory until a subscriber's ring has room.
//!
//! For subscribers that would rather miss old publications than new ones
//! ([`WhenSlow::DropOldest`](super::WhenSlow::DropOldest)). What always holds: order is kept; whoever
//! publishes waits for nobody; what waits is bounded, and the thread that waits for room is there only
//! where there was none once.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::outlet::{NOW, Outlet, Parcel};
use crate::error::{SendTimeoutError, TrySendError};
use crate::memory::Deadline;
use crate::os::clock::monotonic_ns;

/// How long the thread waits for room before it looks whether it is still wanted; twice as long each
/// time, because a long publication may need more. So it is there, when nobody wants it, no longer than
/// it has waited before.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
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
    /// `None` while the thread sends, and when the subscriber has gone.
    outlet: Option<Outlet>,
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
    pub(super) fn new(outlet: Outlet, max_bytes: u64) -> Self {
        let state = State {
            outlet: Some(outlet),
            waiting: VecDeque::new(),
            bytes: 0,
            in_hand: None,
            gone: None,
            too_long: 0,
            closing: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        Self { shared, max_bytes, has_thread: false }
    }

    /// As [`Outlet::first`].
    pub(super) fn first(&self, number: u64) -> bool {
        self.shared.state().outlet.as_mut().is_some_and(|outlet| outlet.first(number))
    }

    /// Sends a publication, or keeps it.
    ///
    /// # Errors
    /// It cannot be sent at all, or the subscriber has gone; [`TrySendError::Full`] where there is
    /// no thread to be had that would wait.
    pub(super) fn offer(&mut self, parcel: Parcel<'_>) -> Result<Taken, TrySendError> {
        let mut state = self.shared.state();
        if let Some(gone) = state.gone {
            return Err(gone);
        }
        if state.waiting.is_empty()
            && let Some(outlet) = &mut state.outlet
        {
            match outlet.try_send(parcel) {
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
        let dropped = state.keep(parcel, self.max_bytes);
        drop(state);
        self.shared.changed.notify_all();
        Ok(Taken::Waits { dropped })
    }

    /// Publications that were found to be too long for the subscriber after they had been kept; told
    /// once.
    pub(super) fn take_too_long(&self) -> u64 {
        std::mem::take(&mut self.shared.state().too_long)
    }

    /// As [`Outlet::wants_from`].
    pub(super) fn wants_from(&self, oldest: u64) -> u64 {
        let mut state = self.shared.state();
        if state.outlet.is_none() && state.gone.is_none() {
            // The thread has it, and may have sent some that were not read.
            return 0;
        }
        let waiting = state.waiting.front().map_or(u64::MAX, |waiting| waiting.number);
        state.outlet.as_mut().map_or(waiting, |outlet| outlet.wants_from(oldest).min(waiting))
    }

    /// As [`Outlet::is_over`].
    pub(super) fn is_over(&self) -> bool {
        let state = self.shared.state();
        state.gone.is_some() || state.outlet.as_ref().is_some_and(Outlet::is_over)
    }

    /// As [`Outlet::is_drained`].
    pub(super) fn is_drained(&self) -> bool {
        let state = self.shared.state();
        let is_idle = state.waiting.is_empty() && state.in_hand.is_none();
        is_idle && state.outlet.as_ref().is_none_or(Outlet::is_drained)
    }

    /// Nothing more comes; what waits is sent until `deadline`.
    pub(super) fn end(self, number: u64, deadline: Deadline) {
        let mut state = self.shared.state();
        if self.has_thread {
            state.closing = Some((number, deadline));
            drop(state);
            self.shared.changed.notify_all();
        } else if let Some(outlet) = state.outlet.take() {
            outlet.end(number, NOW);
        }
    }
}

impl State {
    /// Keeps a publication; returns how many were dropped for it.
    fn keep(&mut self, parcel: Parcel<'_>, max_bytes: u64) -> u64 {
        let len_bytes = parcel.bytes.len() as u64;
        let mut dropped = 0;
        while self.bytes.saturating_add(len_bytes) > max_bytes
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.bytes -= oldest.bytes.len() as u64;
            dropped += 1;
        }
        self.bytes += len_bytes;
        let Parcel { number, tag, bytes } = parcel;
        self.waiting.push_back(Waiting { number, tag, bytes: bytes.to_vec() });
        dropped
    }
}

impl Shared {
    /// The thread.
    fn run(&self) {
        while let Some((waiting, mut outlet)) = self.take() {
            let sent = self.send(&waiting, &mut outlet);
            let mut state = self.state();
            state.in_hand = None;
            match sent {
                Ok(()) => state.outlet = Some(outlet),
                Err(SendTimeoutError::TooLong { .. }) => {
                    state.too_long += 1;
                    state.outlet = Some(outlet);
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
    fn take(&self) -> Option<(Waiting, Outlet)> {
        let mut state = self.state();
        loop {
            if let Some(waiting) = state.waiting.pop_front() {
                let outlet = state.outlet.take()?;
                state.bytes -= waiting.bytes.len() as u64;
                state.in_hand = Some(waiting.number);
                return Some((waiting, outlet));
            }
            if let Some((number, deadline)) = state.closing {
                if let Some(outlet) = state.outlet.take() {
                    outlet.end(number, deadline);
                }
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Sends one, waiting for room as long as the publisher is there, and somewhat longer.
    fn send(&self, waiting: &Waiting, outlet: &mut Outlet) -> Result<(), SendTimeoutError> {
        let Waiting { number, tag, bytes } = waiting;
        let parcel = Parcel { number: *number, tag: *tag, bytes };
        let mut patience_ns = FIRST_WAIT.as_nanos() as u64;
        loop {
            let slice = Deadline::at_ns(monotonic_ns().saturating_add(patience_ns));
            patience_ns = patience_ns.saturating_mul(2);
            let deadline = match self.state().closing {
                Some((_, deadline)) => slice.min(deadline),
                None => slice,
            };
            match outlet.send_by(parcel, deadline) {
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
