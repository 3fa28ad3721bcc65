//! What a plugin hears from its host: that it is to stop.
//!
//! Every thread of the plugin may ask [`Plugin`](super::Plugin), which asks here. What always holds:
//! one thread at a time reads the control ring, the others wait for what it finds; a stop that was
//! found once is found for ever.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::control::{StopCause, StopNotice, TAG_STOP};
use crate::channel::Receiver;
use crate::error::RecvTimeoutError;

/// The plugin's end of the control ring.
#[derive(Debug)]
pub(super) struct Listener {
    heard: Mutex<Heard>,
    changed: Condvar,
}

#[derive(Debug)]
struct Heard {
    /// `None` while a thread reads it.
    receiver: Option<Receiver>,
    stop: Option<StopNotice>,
}

impl Listener {
    pub(super) fn new(receiver: Receiver) -> Self {
        let heard = Mutex::new(Heard { receiver: Some(receiver), stop: None });
        Self { heard, changed: Condvar::new() }
    }

    /// Waits for a stop, for at most `timeout`.
    pub(super) fn wait(&self, timeout: Duration) -> Option<StopNotice> {
        let begun = Instant::now();
        let left = || timeout.saturating_sub(begun.elapsed());
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = false;
        while heard.stop.is_none() && !last {
            // One look behind the deadline, also where there is no time at all.
            last = left().is_zero();
            let Some(mut receiver) = heard.receiver.take() else {
                let waited = self.changed.wait_timeout(heard, left());
                heard = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            };
            drop(heard);
            let stop = read(&mut receiver, left());
            heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.receiver = Some(receiver);
            heard.stop = stop;
            self.changed.notify_all();
        }
        heard.stop
    }
}

/// One message, or the lack of one.
fn read(receiver: &mut Receiver, timeout: Duration) -> Option<StopNotice> {
    match receiver.recv_timeout(timeout) {
        // What this version does not know is skipped.
        Ok(message) if message.tag() == TAG_STOP => StopNotice::of(&message),
        Ok(_) | Err(RecvTimeoutError::Timeout) => None,
        Err(_) => Some(StopNotice {
            cause: StopCause::HostGone,
            notice: Duration::ZERO,
            grace: Duration::ZERO,
        }),
    }
}
