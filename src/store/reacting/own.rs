//! One thread for one reaction: wait for a change, call.
//!
//! [`Reaction::start`](super::Reaction::start) starts it. What always holds: what it watches it watches since before it was
//! started; between two calls it looks whether it was stopped.

use std::thread;

use super::ReactionError;
use super::callback::{Caller, Member, ReactionReport};
use super::handle::{Reacting, Shared};
use crate::os::fork;
use crate::store::error::ReadError;
use crate::store::handle::Store;
use crate::store::interest::Interest;
use crate::store::interests::One;
use crate::store::watching::{WatchError, WatchInterrupter, Watching};

/// How long to wait, at first and at most, before a store that could not be looked at is looked at again.
const PAUSES_NS: (u64, u64) = (10_000_000, 250_000_000);

pub(super) fn start(
    store: Store,
    one: One,
    caller: Caller,
    poll_ns: u64,
) -> Result<Reacting, ReactionError> {
    let generation = fork::generation().map_err(ReactionError::Thread)?;
    let (shared, interrupter) = (Shared::new(generation), WatchInterrupter::default());
    let member = Member::new(caller, shared.clone());
    let run = {
        let interrupter = interrupter.clone();
        move || run(&store, one, member, &interrupter, poll_ns)
    };
    let builder = thread::Builder::new().name("ringway-reaction".into());
    builder.spawn(run).map_err(ReactionError::Thread)?;
    Ok(Reacting::new(shared, std::sync::Arc::new(interrupter)))
}

fn run(store: &Store, one: One, mut member: Member, interrupter: &WatchInterrupter, poll_ns: u64) {
    member.shared.runs_here();
    let mut watching = Watching::interruptible(store, one, interrupter, poll_ns);
    let mut trouble = Trouble::default();
    while !member.shared.is_stopping() {
        match next(&mut watching, interrupter, &mut trouble, |report| member.report(report)) {
            Next::News(change) => member.call(store, &change),
            Next::Look => {}
            Next::End => return,
        }
    }
}

/// What a thread that watches does next.
pub(super) enum Next<N> {
    News(N),
    /// Whether something is asked for.
    Look,
    End,
}

/// How often in a row the store could not be looked at.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    pause_ns: u64,
}

/// Waits for news, or for somebody who asks for something.
pub(super) fn next<I: Interest>(
    watching: &mut Watching<'_, I>,
    interrupter: &WatchInterrupter,
    trouble: &mut Trouble,
    report: impl FnOnce(&ReactionReport<'_>),
) -> Next<I::News> {
    match watching.wait_forever() {
        Ok(news) => {
            *trouble = Trouble::default();
            Next::News(news)
        }
        Err(WatchError::Interrupted) => Next::Look,
        Err(WatchError::Superseded) => {
            report(&ReactionReport::Superseded);
            Next::End
        }
        Err(WatchError::Read(ReadError::Forked) | WatchError::KeyLength { .. }) => Next::End,
        Err(WatchError::Read(error)) => {
            // Where writers have left it no moment, there is nothing to tell.
            if trouble.pause_ns == 0 && error != ReadError::Busy {
                report(&ReactionReport::Unreadable { error });
            }
            let (first, longest) = PAUSES_NS;
            trouble.pause_ns = (2 * trouble.pause_ns).clamp(first, longest);
            interrupter.wait(trouble.pause_ns);
            Next::Look
        }
    }
}
