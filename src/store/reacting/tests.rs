//! Reactions to what happens in a store that cannot be looked at for a while.

use std::sync::mpsc;

use super::{ReactionDispatcher, ReactionReport};
use crate::layout::store::ROOT;
use crate::memory::{Deadline, Memory, Ordering};
use crate::store::doorbells;
use crate::store::{Change, Store, StoreOptions, WriteError};

#[test]
fn a_store_that_cannot_be_looked_at_is_told_of_once_and_looked_at_again() {
    let options = StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() };
    let store = Store::anonymous(&options).unwrap();
    let dispatcher = ReactionDispatcher::new(&store).unwrap();
    let (tell, told) = mpsc::channel();
    let report = tell.clone();
    let reacting = store
        .reaction("k", move |_: &Store, change: &Change| tell.send(Ok(change.version)))
        .report(move |found: &ReactionReport<'_>| report.send(Err(found.to_string())).unwrap())
        .start_on(&dispatcher)
        .unwrap();
    let others = ["a", "b", "c"].map(|key| {
        let reaction = store.reaction(key, |_: &Store, _: &Change| ());
        reaction.start_on(&dispatcher).unwrap()
    });
    let memory = store.watched().0;
    let root = memory.load_u64(ROOT, Ordering::Relaxed);
    memory.store_u64(ROOT, 1, Ordering::Relaxed);
    let ring = store.locked(Deadline::NEVER, |store| {
        store.core().ring(doorbells::EVERYTHING);
        Ok::<_, WriteError>(())
    });
    assert_eq!(ring, Ok(()));
    let damaged = "the store cannot be looked at: the store is damaged";
    let told_first = told.recv().unwrap().unwrap_err();
    assert!(told_first.starts_with(damaged), "{told_first}");
    // Between the ends of two of them it looks again.
    for other in others {
        other.stop().unwrap();
    }
    memory.store_u64(ROOT, root, Ordering::Relaxed);
    let version = store.set("k", b"1").unwrap();
    assert_eq!(told.recv().unwrap(), Ok(Some(version)));
    reacting.stop().unwrap();
    assert!(told.recv().is_err(), "nothing else was told");
}
