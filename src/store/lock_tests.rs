//! Writers that die, panic, or come twice, over memory of this process.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::layout::store::journal::HEAD;
use crate::memory::{HeapMemory, Ordering};
use crate::store::journal::{Journal, Operation};
use crate::store::table::Place;
use crate::store::{LocalLock, StoreGeometry};

const NOW: Deadline = Deadline::at_ns(0);

fn store() -> (Core<HeapMemory>, LocalLock) {
    let geometry = StoreGeometry::new(1 << 20, 2, 0x5eed).unwrap();
    let core = Core::new(HeapMemory::new(geometry.len_bytes()), geometry);
    core.format().unwrap();
    (core, LocalLock::new())
}

fn another(core: &Core<HeapMemory>) -> Core<HeapMemory> {
    Core::new(core.memory.clone(), core.geometry)
}

/// What a writer leaves that dies in the middle of setting "k".
fn begin(core: &Core<HeapMemory>) {
    let Place::Present { slot, word, .. } = core.find(b"k").unwrap().1 else { panic!("absent") };
    let mut journal = Journal::begin(&core.memory, Operation::Slot, slot, word);
    journal.put_u64(crate::layout::store::LIVE_KEYS, 99);
}

#[test]
fn f04_whoever_gets_the_lock_after_a_death_recovers_and_says_what() {
    let (mut core, lock) = store();
    core.set(b"k", b"old").unwrap();
    let mut successor = another(&core);
    let writer = Writer::acquire(&mut core, &lock, Deadline::NEVER).unwrap();
    begin(&writer);
    std::mem::forget(writer);
    assert_eq!(
        std::thread::scope(|scope| {
            let (lock, successor) = (&lock, &mut successor);
            scope.spawn(move || Writer::acquire(successor, lock, NOW).map(drop)).join().unwrap()
        }),
        Err(AcquireError::Lock(LockRefusal::Deadline))
    );
    lock.die();
    let mut writer = Writer::acquire(&mut successor, &lock, NOW).unwrap();
    let expected =
        Recovery { how: Recovered::TakenBack, key: Some(b"k".to_vec()), owner_died: true };
    assert_eq!(writer.take_recovery(), Some(expected));
    assert_eq!((writer.take_recovery(), writer.check()), (None, Ok(())));
    writer.set(b"k", b"new").unwrap();
    drop(writer);
    let mut writer = Writer::acquire(&mut successor, &lock, NOW).unwrap();
    assert_eq!(writer.take_recovery(), None, "nothing was unfinished");
}

#[test]
fn f42_a_panic_lets_go_of_the_lock_and_leaves_the_recovery_to_the_next() {
    let (mut core, lock) = store();
    core.set(b"k", b"old").unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let writer = Writer::acquire(&mut core, &lock, NOW).unwrap();
        begin(&writer);
        panic!("in the middle");
    }));
    assert!(panicked.is_err());
    let mut writer = Writer::acquire(&mut core, &lock, NOW).unwrap();
    let recovery = writer.take_recovery().unwrap();
    assert_eq!((recovery.how, recovery.owner_died), (Recovered::TakenBack, false));
    assert_eq!(writer.check(), Ok(()));
}

#[test]
fn a_recovery_that_fails_is_tried_again_by_the_next() {
    let (mut core, lock) = store();
    core.set(b"k", b"old").unwrap();
    let root = core.memory.load_u64(crate::layout::store::ROOT, Ordering::Relaxed);
    core.memory.store_u64(crate::layout::store::ROOT, 0, Ordering::Relaxed);
    core.memory.store_u64(HEAD, (Operation::Bulk as u64) << 32, Ordering::Relaxed);
    for _ in 0..2 {
        let refused = Writer::acquire(&mut core, &lock, NOW).map(drop);
        assert_eq!(refused, Err(AcquireError::Damaged));
    }
    core.memory.store_u64(crate::layout::store::ROOT, root, Ordering::Relaxed);
    let mut writer = Writer::acquire(&mut core, &lock, NOW).unwrap();
    assert_eq!(writer.take_recovery().unwrap().how, Recovered::Rebuilt);
    assert_eq!(writer.check(), Ok(()));
}

#[test]
fn a_thread_gets_the_lock_once() {
    let (mut core, lock) = store();
    let mut other = another(&core);
    let writer = Writer::acquire(&mut core, &lock, NOW).unwrap();
    let nested = Writer::acquire(&mut other, &lock, Deadline::NEVER).map(drop);
    assert_eq!(nested, Err(AcquireError::Lock(LockRefusal::Nested)));
    drop(writer);
    assert!(Writer::acquire(&mut other, &lock, NOW).is_ok());
}
