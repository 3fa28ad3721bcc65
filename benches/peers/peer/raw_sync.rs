//! raw_sync's `Event`: a mutex and a condition variable that processes share.
//!
//! A row of the sleeping tables, as a bar for wakeups: a message is one word beside the event.
//! What always holds: an event resets itself when a waiter has seen it, and one message is under way.
#![allow(clippy::disallowed_types)] // see common/shared.rs

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use ::raw_sync::Timeout;
use ::raw_sync::events::{Event, EventImpl, EventInit, EventState};

use crate::common::case::Transport;
use crate::common::link::{End, Spec};
use crate::common::shared::Shared;

/// Where each direction's event lies, and behind it its word.
const EVENTS: [usize; 2] = [0, 1024];
const WORD: usize = 512;

/// One end.
pub struct RawSync {
    // Dropped before the memory that they point into.
    out: Box<dyn EventImpl>,
    inbox: Box<dyn EventImpl>,
    out_word: usize,
    inbox_word: usize,
    shared: Shared,
}

impl fmt::Debug for RawSync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawSync").finish_non_exhaustive()
    }
}

impl Transport for RawSync {
    type End = Self;

    fn create(_spec: &Spec) -> (Self, Vec<OwnedFd>) {
        let shared = Shared::create(4096);
        let [out, inbox] = EVENTS.map(|at| {
            // SAFETY: memory that nobody else has yet, aligned, far larger than an event, and
            // outliving it.
            unsafe { Event::new(shared.as_mut_ptr().wrapping_add(at), true) }.expect("an event").0
        });
        let fd = shared.fd().try_clone_to_owned().expect("a second descriptor");
        let [out_word, inbox_word] = EVENTS.map(|at| at + WORD);
        (Self { out, inbox, out_word, inbox_word, shared }, vec![fd])
    }

    fn attach(_spec: &Spec, mut fds: Vec<OwnedFd>) -> Self {
        let shared = Shared::attach(fds.remove(0));
        let [inbox, out] = EVENTS.map(|at| {
            // SAFETY: the near side has made an event there; the memory outlives this one.
            unsafe { Event::from_existing(shared.as_mut_ptr().wrapping_add(at)) }
                .expect("the near side's event")
                .0
        });
        let [inbox_word, out_word] = EVENTS.map(|at| at + WORD);
        Self { out, inbox, out_word, inbox_word, shared }
    }
}

impl End for RawSync {
    fn send(&mut self, number: u64) {
        // Ordered by the event's mutex.
        self.shared.word(self.out_word).store(number, Ordering::Relaxed);
        self.out.set(EventState::Signaled).expect("signalling");
    }

    fn recv(&mut self) -> u64 {
        self.inbox.wait(Timeout::Infinite).expect("waiting");
        self.shared.word(self.inbox_word).load(Ordering::Relaxed)
    }
}
