//! Models of watching a store: sleeps have no end there, so a change that is missed is a deadlock, which
//! loom reports. Run with `RUSTFLAGS="--cfg loom" cargo test --release --test loom_store_watch`;
//! `LOOM_MAX_PREEMPTIONS=2` bounds the work. What each model says that it fails with was tried on the source,
//! within that bound.
#![cfg(loom)]

#[path = "model/store.rs"]
mod model;

use loom::thread;
use model::check;
use ringway::store::model as store;

const VALUE: [u8; 16] = [7; 16];

/// Fails when writer or watcher leaves out its fence, the watcher does not announce itself or does not look
/// behind that, the bell is not rung or nobody is woken, the watcher takes a bell that was not rung for
/// proof that nothing is in progress, or looks at the key before the bell; and when it looks at the bell `Relaxed`.
#[test]
fn a_sleeping_watcher_is_told_of_a_value() {
    check(|| {
        let (mut core, memory, geometry) = store::store(1);
        let reader = store::reader(memory, geometry, 1);
        let mut watch = store::watch(&reader, b"k");
        let writing = thread::spawn(move || {
            let version = core.set(b"k", &VALUE).expect("room");
            core.wake_watchers();
            version
        });
        let told = watch.wait();
        let version = writing.join().expect("joined");
        assert_eq!(told.version, Some(version));
    });
}

/// Two values, and the second may come while the watcher is still busy with the first. Fails, besides, when
/// the bell is rung before the announcement is taken back, or `Relaxed`.
#[test]
fn a_sleeping_watcher_is_told_of_the_last_value() {
    check(|| {
        let (mut core, memory, geometry) = store::store(1);
        let reader = store::reader(memory, geometry, 1);
        let mut watch = store::watch(&reader, b"k");
        let writing = thread::spawn(move || {
            let first = core.set(b"k", &VALUE).expect("room");
            core.wake_watchers();
            let second = core.set(b"k", &VALUE).expect("room");
            core.wake_watchers();
            [first, second].map(Some)
        });
        let mut told = watch.wait();
        let first = told.version;
        if first == Some(1) {
            told = watch.wait();
        }
        let versions = writing.join().expect("joined");
        assert!(versions.contains(&first) && told.version == versions[1]);
    });
}

/// A key that was absent, comes and goes. Fails, besides, when the deletion is not noted.
#[test]
fn a_key_that_comes_and_goes_is_told() {
    check(|| {
        let (mut core, memory, geometry) = store::store(1);
        let reader = store::reader(memory, geometry, 1);
        let mut watch = store::watch(&reader, b"k");
        let writing = thread::spawn(move || {
            core.set(b"k", &VALUE).expect("room");
            assert!(core.delete(b"k").expect("no damage"));
            core.wake_watchers();
        });
        let told = watch.wait();
        if told.version.is_some() {
            assert_eq!(watch.wait().version, None);
        }
        writing.join().expect("joined");
    });
}

/// A prefix, whose watcher looks up what was noted. Fails when nothing is noted, when the note comes behind the slot's
/// store, when the prefix's bell is not rung, or when a note is taken for done before its change is visible.
#[test]
fn f87_sleeping_watcher_of_a_prefix_is_told_of_the_last_value() {
    check(|| {
        let (mut core, memory, geometry) = store::store(1);
        let reader = store::reader(memory, geometry, 1);
        let mut watch = store::watch_prefix(&core, &reader, b"k");
        let writing = thread::spawn(move || {
            let first = core.set(b"k", &VALUE).expect("room");
            core.wake_watchers();
            let second = core.set(b"k", &VALUE).expect("room");
            core.wake_watchers();
            [first, second].map(Some)
        });
        let mut told = watch.wait();
        let first = told.version;
        if first == Some(1) {
            told = watch.wait();
        }
        let versions = writing.join().expect("joined");
        assert!(versions.contains(&first) && told.version == versions[1]);
    });
}
