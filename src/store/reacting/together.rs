//! One thread for many reactions, for those who ask for it.
//!
//! [`Reaction::start_on`](super::Reaction::start_on) brings a reaction to a [`ReactionDispatcher`]. What always holds: each
//! watches since before it was brought; what is asked for is done between two calls; the thread ends with the last
//! handle and the last reaction.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::ReactionError;
use super::callback::{Caller, Member, ReactionReport};
use super::handle::{Reacting, Shared, Waker};
use super::own::{Next, Trouble, next};
use crate::os::fork;
use crate::store::handle::Store;
use crate::store::interests::{Interests, One, WatchId};
use crate::store::watch::POLL_NS;
use crate::store::watching::{WatchInterrupter, Watching};

/// A thread on which the callbacks of several reactions are called. To share it is a choice: a callback that does not return
/// holds up all of them, and stopping one waits for the others' callbacks too.
///
/// What a change costs, of a key that reactions are for or of another one, [`Watches`](crate::store::Watches) says.
///
/// It ends when its last handle and the last [`Reacting`] of its reactions are gone.
#[derive(Clone)]
pub struct ReactionDispatcher {
    thread: Arc<Thread>,
    generation: u64,
    /// Where the store is mapped.
    address: usize,
}

/// Reaches the thread; it ends when this is dropped.
struct Thread {
    inbox: Arc<Inbox>,
}

struct Inbox {
    letters: Mutex<Letters>,
    interrupter: WatchInterrupter,
}

#[derive(Default)]
struct Letters {
    arrivals: Vec<(One, Member, u64)>,
    over: bool,
}

impl fmt::Debug for ReactionDispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReactionDispatcher").finish_non_exhaustive()
    }
}

impl Inbox {
    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waker for Thread {
    fn wake(&self) {
        self.inbox.interrupter.interrupt();
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.inbox.letters().over = true;
        self.wake();
    }
}

impl ReactionDispatcher {
    /// Starts the thread, with a [clone](Store::try_clone) of this handle.
    ///
    /// # Errors
    /// [`ReactionError::Handle`], [`ReactionError::Thread`].
    pub fn new(store: &Store) -> Result<Self, ReactionError> {
        let generation = fork::generation().map_err(ReactionError::Thread)?;
        let (address, store) = (address_of(store), store.try_clone()?);
        let (letters, interrupter) = Default::default();
        let inbox = Arc::new(Inbox { letters, interrupter });
        let run = {
            let inbox = Arc::clone(&inbox);
            move || run(&store, &inbox)
        };
        let builder = thread::Builder::new().name("ringway-reactions".into());
        builder.spawn(run).map_err(ReactionError::Thread)?;
        Ok(Self { thread: Arc::new(Thread { inbox }), generation, address })
    }

    /// Whether a reaction of this handle can be brought here.
    pub(super) fn check(&self, store: &Store) -> Result<(), ReactionError> {
        if !fork::is_current(self.generation) {
            return Err(ReactionError::Forked);
        }
        if address_of(store) == self.address { Ok(()) } else { Err(ReactionError::OtherStore) }
    }

    pub(super) fn bring(&self, one: One, caller: Caller, poll_ns: u64) -> Reacting {
        let shared = Shared::new(self.generation);
        let member = Member::new(caller, Arc::clone(&shared));
        self.thread.inbox.letters().arrivals.push((one, member, poll_ns));
        self.thread.wake();
        Reacting::new(shared, Arc::clone(&self.thread) as _)
    }
}

/// Handles that were cloned from each other have one mapping.
fn address_of(store: &Store) -> usize {
    std::ptr::from_ref(store.watched().0.futex_word(0)).addr()
}

fn run(store: &Store, inbox: &Inbox) {
    let interests = Interests::default();
    let mut watching = Watching::interruptible(store, interests, &inbox.interrupter, POLL_NS);
    let mut members = HashMap::<WatchId, Member>::new();
    let mut trouble = Trouble::default();
    loop {
        let (arrivals, over) = {
            let mut letters = inbox.letters();
            (std::mem::take(&mut letters.arrivals), letters.over)
        };
        for (one, member, poll_ns) in arrivals {
            member.shared.runs_here();
            watching.look_at_least_every(poll_ns);
            members.insert(watching.interest_mut().add(one), member);
        }
        let stopped = members.extract_if(|_, member| member.shared.is_stopping());
        for (id, member) in stopped.collect::<Vec<_>>() {
            watching.interest_mut().remove(id);
            drop(member);
        }
        // Reactions keep the thread: there are none left, and nobody can bring one.
        if over {
            return;
        }
        let report =
            |report: &ReactionReport<'_>| members.values().for_each(|member| member.report(report));
        match next(&mut watching, &inbox.interrupter, &mut trouble, report) {
            Next::News((id, change)) => {
                if let Some(member) = members.get_mut(&id) {
                    member.call(store, &change);
                }
            }
            Next::Look => {}
            Next::End => return,
        }
    }
}
