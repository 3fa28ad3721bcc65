//! The plugin's watch over its host: what happens in a plugin when its host is gone.
//!
//! [`Plugin::connect`](super::Plugin::connect) begins it; it lasts as long as the process.
//! Invariants: two descriptors tell of the end, the host's pidfd and the session; the first of them
//! counts, and what follows happens once. Questions on the session are answered without waiting.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use super::error::ConnectError;
use super::plugin::EXIT_CODE_HOST_GONE;
use crate::channel::{Channel, Connection};
use crate::error::ExitReason;
use crate::os::per_process::PerProcess;
use crate::os::process::exit_now;
use crate::os::{post, pulse};
use crate::supervisor::{self, WatchToken};
use crate::sync::{AtomicU32, Ordering};

/// What is done once the host is gone.
#[derive(Debug)]
pub(super) struct HostGone {
    /// Weak, so that a channel's memory goes with its ends.
    connections: Vec<Weak<Connection>>,
    post: Option<OwnedFd>,
    grace: Arc<Mutex<Option<Duration>>>,
    /// 1 once it has been done.
    done: AtomicU32,
}

impl HostGone {
    pub(super) fn new<'a>(
        channels: impl Iterator<Item = &'a Channel>,
        post: Option<OwnedFd>,
        grace: Arc<Mutex<Option<Duration>>>,
    ) -> Self {
        let connections = channels.map(|channel| Arc::downgrade(channel.connection())).collect();
        Self { connections, post, grace, done: AtomicU32::new(0) }
    }

    /// Disconnects the channels, ends the post, and ends the process some time later.
    fn act(&self) {
        // Relaxed: only one thread acts, and nothing is read on its behalf.
        if self.done.swap(1, Ordering::Relaxed) != 0 {
            return;
        }
        for connection in self.connections.iter().filter_map(Weak::upgrade) {
            connection.peer_died(ExitReason::Unknown, false);
        }
        // The host's end may be open in a child that it has forked.
        if let Some(post) = &self.post {
            post::end(post.as_fd());
        }
        let grace = *self.grace.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(grace) = grace {
            end_after(grace);
        }
    }
}

/// Keeps the watches for as long as the process lives.
static WATCHES: PerProcess<[Option<WatchToken>; 2]> = PerProcess::new();

fn keep(index: usize, token: WatchToken) {
    let former = {
        let mut watches = WATCHES.lock();
        watches[index].replace(token)
    };
    drop(former);
}

/// Watches both descriptors, and answers questions on `pulse`.
pub(super) fn watch(
    host: OwnedFd,
    session: OwnedFd,
    pulse: Option<OwnedFd>,
    gone: HostGone,
) -> Result<(), ConnectError> {
    let os = |call| move |source| ConnectError::Os { call, source };
    let gone = Arc::new(gone);
    let on_death = {
        let gone = Arc::clone(&gone);
        Box::new(move || gone.act())
    };
    keep(0, supervisor::watch(host, on_death).map_err(os("watching the host"))?);
    let session = Arc::new(Session { session, pulse, gone });
    session.watch().map_err(os("watching the session"))
}

#[derive(Debug)]
struct Session {
    session: OwnedFd,
    pulse: Option<OwnedFd>,
    gone: Arc<HostGone>,
}

impl Session {
    fn watch(self: &Arc<Self>) -> std::io::Result<()> {
        let this = Arc::clone(self);
        let token =
            supervisor::watch(self.session.try_clone()?, Box::new(move || this.on_event()))?;
        keep(1, token);
        Ok(())
    }

    /// There is a question, or the end.
    fn on_event(self: &Arc<Self>) {
        let mut room = [0; 16];
        match post::receive(self.session.as_fd(), &mut room) {
            Ok((0, _)) => return self.gone.act(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return self.gone.act(),
            Ok(_) => {
                if let Some(pulse) = &self.pulse {
                    pulse::beat(pulse.as_fd());
                }
            }
        }
        // Where descriptors have run out, the pidfd still tells of the host's death.
        let _ = self.watch();
    }
}

/// Ends the process after `grace`, from a thread of its own, so that other deaths are still noticed.
fn end_after(grace: Duration) {
    let end = move || {
        thread::sleep(grace);
        exit_now(EXIT_CODE_HOST_GONE)
    };
    if thread::Builder::new().name("ringway-host-gone".into()).spawn(end).is_err() {
        exit_now(EXIT_CODE_HOST_GONE);
    }
}
