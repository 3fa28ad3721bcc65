//! Watching a process that nobody has started: by pidfd, or by its lock.
//!
//! A connection in a named segment calls it through [`Lookout`]. Invariant: a process counts as dead where the
//! kernel says so, by the inode of its pidfd or by a free byte; nothing follows from a number that is unknown, or of
//! another pid namespace.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::attachment::Lookout;
use super::connection::Connection;
use crate::identity::process::{self, Found};
use crate::layout::side;
use crate::os::boot;
use crate::segment::{NamedSegment, SideLine, read_side};
use crate::supervisor::{self, OnDeath, WatchToken};

/// Watches the other side of a named segment.
pub(super) struct Stranger {
    segment: Arc<NamedSegment>,
    connection: Weak<Connection>,
    /// The watch, and the attachment that it is for.
    watch: Mutex<Option<(u32, WatchToken)>>,
    /// The watch over the segment's name.
    name_watch: Mutex<Option<WatchToken>>,
}

impl fmt::Debug for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stranger").field("segment", &self.segment).finish_non_exhaustive()
    }
}

/// What the kernel knows of a process.
enum Sight {
    /// It lives, and this tells of its death.
    Seen(OwnedFd),
    /// It is dead.
    Dead,
    /// It cannot be seen from here, or has said nothing of use about itself.
    Unseen,
}

impl Stranger {
    pub(super) fn new(segment: Arc<NamedSegment>, connection: Weak<Connection>) -> Self {
        // The supervisor runs since this side was attached, so there is a token.
        let name_watch = watch_name(&segment, &connection).ok();
        Self { segment, connection, watch: Mutex::new(None), name_watch: Mutex::new(name_watch) }
    }

    fn peer_side(&self) -> usize {
        1 - self.segment.side()
    }

    fn keep(&self, attaches: u32, token: io::Result<WatchToken>) {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        // Two ends may come here at once with two attachments. Numbers wrap.
        let newer = watch.as_ref().is_none_or(|(known, _)| attaches.wrapping_sub(*known) < 1 << 31);
        // The supervisor runs since this side was attached, so there is a token; without one, calls
        // end at their deadlines.
        if let (true, Ok(token)) = (newer, token) {
            *watch = Some((attaches, token));
        }
    }

    fn on_death(&self, attaches: u32) -> OnDeath {
        let connection = self.connection.clone();
        Box::new(move || {
            if let Some(connection) = connection.upgrade() {
                connection.stranger_died(attaches);
            }
        })
    }
}

impl Lookout for Stranger {
    fn watch(&self, attaches: u32) -> bool {
        let line = read_side(self.segment.memory(), self.peer_side());
        // Where it cannot be found out, that is not its fault.
        let taken = self.segment.claim().is_taken(self.peer_side()).unwrap_or(true);
        if !taken {
            return !is_dead(&self.segment, self.peer_side(), attaches);
        }
        let token = match look_at(&line) {
            Sight::Dead => return false,
            Sight::Seen(pidfd) => supervisor::watch(pidfd, self.on_death(attaches)),
            Sight::Unseen => Err(io::ErrorKind::NotFound.into()),
        };
        let token = token.or_else(|_| {
            let segment = Arc::downgrade(&self.segment);
            let peer_side = self.peer_side();
            let lives = move || {
                let Some(segment) = segment.upgrade() else { return true };
                let taken = segment.claim().is_taken(peer_side).unwrap_or(true);
                taken || !is_dead(&segment, peer_side, attaches)
            };
            supervisor::ask(Arc::new(lives), self.on_death(attaches))
        });
        self.keep(attaches, token);
        true
    }

    fn is_current(&self) -> bool {
        self.segment.is_current()
    }

    fn leaving(&self) {
        // What cannot be written is reported to nobody: the side just is no longer in use.
        let _ = self.segment.sync();
    }

    fn left(&self) {
        drop(self.watch.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.name_watch.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.segment.release();
    }
}

/// Tells the connection when the segment's name is gone, or means another file, while nobody is at the other
/// side. Two that are both there go on: they need no name.
fn watch_name(
    segment: &Arc<NamedSegment>,
    connection: &Weak<Connection>,
) -> io::Result<WatchToken> {
    let (segment, asked, told) = (Arc::downgrade(segment), connection.clone(), connection.clone());
    let question = move || {
        let (Some(segment), Some(connection)) = (segment.upgrade(), asked.upgrade()) else {
            return true;
        };
        // Cheapest first. The peer once more behind the name: nobody attaches once the name is another's.
        connection.has_peer() || segment.is_current() || connection.has_peer()
    };
    let on_no = move || {
        if let Some(connection) = told.upgrade() {
            connection.supersede();
        }
    };
    supervisor::ask_slowly(Arc::new(question), Box::new(on_no))
}

/// Whether somebody whose lock was found free has died: not, where he has closed before, or somebody
/// else has come since.
fn is_dead(segment: &NamedSegment, peer_side: usize, attaches: u32) -> bool {
    // Read after the lock was seen to be free, which it is after the state was written.
    let line = read_side(segment.memory(), peer_side);
    line.state == side::ATTACHED && line.attaches == attaches
}

/// Looks for the process that a line names.
fn look_at(line: &SideLine) -> Sight {
    if !process::same_namespace(line.pid_namespace, boot::pid_namespace()) {
        return Sight::Unseen;
    }
    match process::find(line.pid, line.pidfd_inode) {
        Found::Alive(pidfd) => {
            pidfd.as_fd().try_clone_to_owned().map_or(Sight::Unseen, Sight::Seen)
        }
        Found::Dead => Sight::Dead,
        Found::Unknown => Sight::Unseen,
    }
}
