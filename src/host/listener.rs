//! What a plugin hears from its host: that it is to stop.
//!
//! Every thread of the plugin may ask [`Plugin`](super::Plugin), which asks here. Invariants: one
//! thread, which ends with the listener, reads the control ring; a stop that was found once is found
//! for ever; asking takes no lock and makes no system call.

use std::io;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::control::{StopCause, StopNotice, TAG_STOP};
use crate::channel::{Ended, Message, Receiver, Report, Running};

/// The plugin's end of the control ring.
#[derive(Debug)]
pub(super) struct Listener {
    heard: Arc<Heard>,
    /// The thread that reads; it stops when this is dropped.
    _running: Running,
}

#[derive(Debug, Default)]
struct Heard {
    stop: OnceLock<StopNotice>,
    /// For those who wait.
    lock: Mutex<()>,
    changed: Condvar,
}

impl Heard {
    fn hear(&self, notice: StopNotice) {
        // The first one counts.
        let _ = self.stop.set(notice);
        // Behind the notice: a thread that found none before it took the lock is waiting now.
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

impl Listener {
    /// Starts to read.
    ///
    /// # Errors
    /// The thread could not be started.
    pub(super) fn new(receiver: Receiver) -> io::Result<Self> {
        let heard = Arc::<Heard>::default();
        let (on_stop, on_end) = (Arc::clone(&heard), Arc::clone(&heard));
        let running = receiver
            .passive()
            .thread_name("ringway-control")
            .stuck_after(None)
            // What this version does not know is skipped.
            .on(
                |message: &Message<'_>| message.tag() == TAG_STOP,
                move |message: &Message<'_>| {
                    if let Some(notice) = StopNotice::of(message) {
                        on_stop.hear(notice);
                    }
                },
            )
            .report(move |report| match report {
                Report::Ended(Ended::Stopped) => {}
                Report::Ended(_) => on_end.hear(StopNotice {
                    cause: StopCause::HostGone,
                    notice: Duration::ZERO,
                    grace: Duration::ZERO,
                }),
                _ => {}
            })
            .start()
            .map_err(|error| error.source)?;
        Ok(Self { heard, _running: running })
    }

    /// The stop, if there was one.
    #[inline]
    pub(super) fn stop(&self) -> Option<StopNotice> {
        self.heard.stop.get().copied()
    }

    /// Waits for a stop, for at most `timeout`.
    pub(super) fn wait(&self, timeout: Duration) -> Option<StopNotice> {
        let begun = Instant::now();
        let mut guard = self.heard.lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = timeout.saturating_sub(begun.elapsed());
            if self.stop().is_some() || left.is_zero() {
                return self.stop();
            }
            let waited = self.heard.changed.wait_timeout(guard, left);
            guard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Channel, ChannelOptions};

    /// Reached only when the test has failed.
    const NEVER: Duration = Duration::from_secs(60);

    fn listener() -> (Channel, Listener) {
        let (host, plugin) = Channel::pair(&ChannelOptions::default()).unwrap();
        (host, Listener::new(plugin.split().1).unwrap())
    }

    /// The control ring is read by a thread of its own: a stop is found by whoever only asks, and asking
    /// touches no ring.
    #[test]
    fn f58_whoever_only_asks_finds_a_stop() {
        let (mut host, listener) = listener();
        assert_eq!(listener.stop(), None);
        assert_eq!(listener.wait(Duration::ZERO), None);
        host.sender().send_tagged(TAG_STOP + 1, b"of a later version").unwrap();
        let words = [1_u64, 2, 3];
        host.sender().send_tagged(TAG_STOP, bytemuck::bytes_of(&words)).unwrap();
        let begun = Instant::now();
        while listener.stop().is_none() && begun.elapsed() < NEVER {
            std::thread::yield_now();
        }
        assert_eq!(listener.stop().unwrap().cause, StopCause::Restart);
        drop(host);
        assert_eq!(listener.wait(NEVER).unwrap().cause, StopCause::Restart, "the first one counts");
    }

    #[test]
    fn f58_a_host_that_is_gone_is_a_stop_and_ends_every_wait() {
        let (host, listener) = listener();
        let found = std::thread::scope(|scope| {
            let waiting = [(); 2].map(|()| scope.spawn(|| listener.wait(NEVER)));
            drop(host);
            waiting.map(|thread| thread.join().unwrap().unwrap().cause)
        });
        assert_eq!(found, [StopCause::HostGone; 2]);
    }
}
