//! Models of writers that die with the lock of a store, beside a reader and the next writer. Run with
//! `RUSTFLAGS="--cfg loom" cargo test --release --test loom_store_death`; `LOOM_MAX_PREEMPTIONS=2` bounds the
//! work. What each model says that it fails with was tried on the source, within that bound.
#![cfg(loom)]

#[path = "model/dying.rs"]
mod dying;
#[path = "model/store.rs"]
mod model;

use dying::Dying;
use loom::thread;
use model::check;
use ringway::memory::Deadline;
use ringway::store::{Core, LocalLock, Writer, model as store};

fn value(n: u8) -> [u8; 16] {
    [n; 16]
}

/// A writer dies in a `set`, at any of its stores, or behind it. Another one, who wants the lock meanwhile,
/// sets another key; a reader reads; at the end everything is in order.
#[test]
fn f04_a_writer_dies_with_the_lock() {
    for stores in 0..60 {
        check(move || {
            let (mut core, memory, geometry) = store::store(1);
            core.set(b"k", &value(1)).expect("room");
            let lock = LocalLock::new();
            let reader = store::reader(memory.clone(), geometry, 1);
            let (theirs, locked) = (lock.clone(), store::locked(&core));
            let dying = thread::spawn(move || {
                let mut core = Core::new(Dying::after(stores, locked), geometry);
                let mut writer =
                    Writer::acquire(&mut core, &theirs, Deadline::NEVER).expect("waits");
                let _ = writer.set(b"k", &value(2));
                // The dead let go of nothing.
                std::mem::forget(writer);
                theirs.die();
            });
            let first = reader.get(b"k").expect("no damage").expect("present").to_vec();
            assert!([value(1), value(2)].contains(&first[..].try_into().expect("16 bytes")));
            {
                let mut writer = Writer::acquire(&mut core, &lock, Deadline::NEVER).expect("waits");
                writer.set(b"other", &value(3)).expect("room");
            }
            dying.join().expect("joined");
            let writer = Writer::acquire(&mut core, &lock, Deadline::NEVER).expect("waits");
            drop(writer);
            let last = reader.get(b"k").expect("no damage").expect("present").to_vec();
            assert!(first == last || first == value(1) && last == value(2), "{first:?}, {last:?}");
            assert_eq!(core.check(), Ok(()));
        });
    }
}
