//! Reactions to changes in a store: called for each change, whoever made it and however he died, and never after their end.
//!
//! This test binary is executed again as a plugin. What always holds: a plugin is ended by its host at the end of each test,
//! also where the test fails.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::controlling::Hand;
use common::plugin::{self, NEVER, restarts};
use common::random::{self, Random};
use common::victim::Victim;
use ringway::host::{Host, PluginSpec};
use ringway::store::{
    Change, Reacting, ReactionDispatcher, ReactionError, ReactionReport, ReactionStopError, Store,
    StoreOptions, WatchError,
};

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    plugin::run_role();
}

fn options() -> StoreOptions {
    StoreOptions { capacity_bytes: 1 << 20, max_readers: 64, ..StoreOptions::default() }
}

fn store() -> Store {
    Store::anonymous(&options()).unwrap()
}

fn read_only(store: &Store) -> Store {
    Store::attach_read_only(store.descriptor_read_only().unwrap()).unwrap()
}

fn telling(tell: &Sender<Change>) -> impl FnMut(&Store, &Change) + Send + 'static {
    let tell = tell.clone();
    move |_: &Store, change: &Change| drop(tell.send(change.clone()))
}

type Callback = Box<dyn FnMut(&Store, &Change) + Send>;

fn next<T>(told: &Receiver<T>) -> T {
    told.recv_timeout(NEVER).expect("in time")
}

/// Waits until this key is told to have this version.
fn until(told: &Receiver<Change>, key: &str, version: Option<u64>) {
    loop {
        let change = next(told);
        if change.key == key.as_bytes() && change.version == version {
            return;
        }
    }
}

#[test]
fn every_change_is_told_on_every_kind_of_handle_and_thread() {
    let store = store();
    for reading in [store.try_clone().unwrap(), read_only(&store)] {
        let dispatcher = ReactionDispatcher::new(&reading).unwrap();
        let (tell, told) = mpsc::channel();
        let started: [(&str, Reacting); 4] = [
            ("own key", reading.on_change("a/1", telling(&tell)).unwrap()),
            ("own prefix", reading.on_change_of_prefix("a/", telling(&tell)).unwrap()),
            ("key", reading.reaction("a/1", telling(&tell)).start_on(&dispatcher).unwrap()),
            (
                "prefix",
                reading.reaction_to_prefix("a/", telling(&tell)).start_on(&dispatcher).unwrap(),
            ),
        ];
        for round in 0..20_u64 {
            store.set("b", b"nobody's business").unwrap();
            let version = store.set("a/1", &round.to_ne_bytes()).unwrap();
            for _ in &started {
                until(&told, "a/1", Some(version));
            }
            assert!(store.delete("a/1").unwrap());
            for _ in &started {
                until(&told, "a/1", None);
            }
            let version = store.set(format!("a/{}", round + 2), b"x").unwrap();
            for _ in 0..2 {
                until(&told, &format!("a/{}", round + 2), Some(version));
            }
        }
        for (what, reacting) in started {
            let calls = reacting.stats().calls;
            assert!(calls >= if what.ends_with("key") { 40 } else { 60 }, "{what}: {calls}");
            reacting.stop().unwrap();
        }
        drop(tell);
        assert_eq!(told.try_iter().count(), 0);
        assert!(told.recv().is_err(), "the callbacks are gone");
        store.clear().unwrap();
    }
}

#[test]
fn f42_a_callback_that_panics_or_fails_is_reported_and_called_again() {
    let store = store();
    let (tell, told) = mpsc::channel();
    let (report, reports) = mpsc::channel();
    let reacting = store
        .reaction("k", move |store: &Store, change: &Change| {
            let value = store.get(&change.key)?.map(|value| value.to_vec()).unwrap_or_default();
            tell.send(value.clone())?;
            assert_ne!(value, b"panic", "as it was told to");
            let text = String::from_utf8(value)?;
            text.parse::<u8>()?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        })
        .report(move |each: &ReactionReport<'_>| {
            let _ = report.send(each.to_string());
            panic!("the hook");
        })
        .start()
        .unwrap();
    for value in ["1", "panic", "2", "x", "3"] {
        store.set("k", value.as_bytes()).unwrap();
        assert_eq!(next(&told), value.as_bytes());
        match value {
            "panic" => {
                let report = next(&reports);
                assert!(report.starts_with("panicked at a change of k: "), "{report}");
                assert!(report.contains("as it was told to"), "{report}");
            }
            "x" => {
                assert_eq!(next(&reports), "failed at a change of k: invalid digit found in string")
            }
            _ => {}
        }
    }
    let stats = reacting.stats();
    assert_eq!((stats.calls, stats.panics, stats.failures), (5, 1, 1));
    reacting.stop().unwrap();
}

#[test]
fn one_that_was_stopped_is_not_called_any_more() {
    let store = store();
    let dispatcher = ReactionDispatcher::new(&store).unwrap();
    for shared in [false, true] {
        let start = |callback: Callback| {
            let mut callback = callback;
            let reaction =
                store.reaction("k", move |store: &Store, change: &Change| callback(store, change));
            if shared { reaction.start_on(&dispatcher) } else { reaction.start() }.unwrap()
        };
        let (tell, told) = mpsc::channel();
        // Endless changes are no reason not to end.
        let over = Arc::new(Mutex::new(false));
        let writing = {
            let (store, over) = (store.try_clone().unwrap(), Arc::clone(&over));
            thread::spawn(move || {
                while !*over.lock().unwrap() {
                    store.set("k", b"").unwrap();
                }
            })
        };
        let reacting = start(Box::new(telling(&tell)));
        next(&told);
        reacting.stop().unwrap();
        drop(told);
        // One that is inside its callback is waited for, or not.
        let (enter, entered) = mpsc::channel();
        let (leave, left) = mpsc::channel::<()>();
        let reacting = start(Box::new(move |_, _| {
            let _ = enter.send(());
            let _ = left.recv();
        }));
        next(&entered);
        let late = reacting.stop_timeout(Duration::from_millis(1));
        assert_eq!(late, Err(ReactionStopError::Timeout));
        drop(leave);
        while entered.recv_timeout(NEVER).is_ok() {}
        // One cannot wait for its own end, and ends.
        let own = Arc::new(Mutex::new(None::<Reacting>));
        let (tell, told) = mpsc::channel();
        let mine = Arc::clone(&own);
        let mut lock = own.lock().unwrap();
        *lock = Some(start(Box::new(move |_, _| {
            if let Some(reacting) = mine.lock().unwrap().take() {
                let _ = tell.send(reacting.stop());
            }
        })));
        drop(lock);
        assert_eq!(next(&told), Err(ReactionStopError::OwnThread));
        assert!(told.recv_timeout(NEVER).is_err());
        *over.lock().unwrap() = true;
        writing.join().unwrap();
    }
}

#[test]
fn reactions_come_and_go_on_a_dispatcher_also_from_callbacks() {
    let store = store();
    let dispatcher = ReactionDispatcher::new(&store).unwrap();
    let (tell, told) = mpsc::channel();
    let many: Vec<_> = (0..40)
        .map(|number| {
            let (tell, mut calls) = (tell.clone(), 0);
            let callback = move |_: &Store, _: &Change| {
                calls += 1;
                tell.send((number, calls, thread::current().id()))
            };
            store.reaction(format!("{number}"), callback).start_on(&dispatcher).unwrap()
        })
        .collect();
    for round in 1..4 {
        for number in 0..40 {
            store.set(format!("{number}"), b"x").unwrap();
            let (found, calls, _) = next(&told);
            assert_eq!((found, calls), (number, round));
        }
    }
    // One that brings another, which hears of what comes behind.
    let nested = {
        let (own, tell) = (dispatcher.clone(), tell.clone());
        let mut brought = Vec::new();
        let bring = move |store: &Store, _: &Change| {
            let tell = tell.clone();
            let callback = move |_: &Store, _: &Change| tell.send((99, 0, thread::current().id()));
            brought.push(store.reaction("late", callback).start_on(&own));
            store.set("late", b"now").map(drop)
        };
        store.reaction("bring", bring).start_on(&dispatcher).unwrap()
    };
    store.set("bring", b"").unwrap();
    assert_eq!(next(&told).0, 99);
    // With the last of them the thread ends.
    drop((many, nested, dispatcher, tell));
    assert!(told.recv_timeout(NEVER).is_err());
    let readers = || store.stats().unwrap().readers;
    while readers() > Some(1) {
        thread::yield_now();
    }
}

#[test]
fn what_cannot_be_started_says_why() {
    let (store, other) = (store(), store());
    let ignore = |_: &Store, _: &Change| ();
    let dispatcher = ReactionDispatcher::new(&other).unwrap();
    let error = store.reaction("k", ignore).start_on(&dispatcher).unwrap_err();
    assert!(matches!(error, ReactionError::OtherStore));
    let error = store.on_change("", ignore).unwrap_err();
    let no_key = |error| matches!(error, ReactionError::Watch(WatchError::KeyLength { found: 0 }));
    assert!(no_key(error));
    let error = other.reaction("", ignore).start_on(&dispatcher).unwrap_err();
    assert!(no_key(error));
    let few = Store::anonymous(&StoreOptions { max_readers: 1, ..options() }).unwrap();
    assert!(matches!(few.on_change("k", ignore), Err(ReactionError::Handle(_))));
}

#[test]
fn f30_a_forked_child_does_not_wait_for_a_thread_that_is_the_parents() {
    let store = store();
    let (tell, told) = mpsc::channel();
    let dispatcher = ReactionDispatcher::new(&store).unwrap();
    let mut own = Some(store.on_change("k", telling(&tell)).unwrap());
    let mut shared = Some(store.reaction("k", telling(&tell)).start_on(&dispatcher).unwrap());
    let mut child = Victim::start(|| {
        for reacting in [&mut own, &mut shared] {
            let stopped = reacting.take().unwrap().stop();
            assert_eq!(stopped, Err(ReactionStopError::Forked));
        }
    });
    assert_eq!(child.wait(), 0);
    let version = store.set("k", b"on").unwrap();
    for _ in 0..2 {
        until(&told, "k", Some(version));
    }
}

/// Nobody takes the lock after the death, so nobody recovers, and nobody rings.
#[test]
fn f02_what_a_writer_did_that_was_killed_right_after_it_is_reacted_to() {
    let mut random = Random::new(random::seed());
    for _ in 0..15 {
        let store = store();
        let dispatcher = ReactionDispatcher::new(&store).unwrap();
        let [(own, own_told), (shared, shared_told)] = [(); 2].map(|()| mpsc::channel());
        let _own = store.on_change("k", telling(&own)).unwrap();
        let _shared = store.reaction_to_prefix("", telling(&shared)).start_on(&dispatcher).unwrap();
        // SAFETY: it goes to a fork of this process, which runs this library.
        let descriptor = unsafe { store.descriptor_writable() }.unwrap();
        let mut writer = Victim::start(move || {
            let store = Store::attach(descriptor).unwrap();
            for round in 0_u64.. {
                store.set("k", &round.to_le_bytes()).unwrap();
                if round % 3 == 0 {
                    store.delete("k").unwrap();
                }
            }
        });
        let first = next(&own_told).version;
        for _ in 0..random.below(20_000) {
            std::hint::spin_loop();
        }
        writer.kill();
        writer.wait();
        let last = store.get("k").unwrap().map(|value| value.version());
        // The second one has not been asked yet.
        for (told, first) in [(&own_told, first), (&shared_told, Some(0))] {
            // Where too much was deleted to be noted, an absent key may be told by its prefix only.
            let known = |it: &Change| it.key == b"k" || (it.possibly && last.is_none());
            let mut found = told.try_iter().filter(known).last().map_or(first, |it| it.version);
            while found != last {
                found = Some(next(told)).filter(known).map_or(found, |it| it.version);
            }
        }
    }
}

/// The host changes a key, and the plugin answers with another: killed while it waits, and while it is called.
fn reacts_through_restarts(spec: PluginSpec) {
    let host = Host::builder().store(options()).build().unwrap();
    let store = host.store().unwrap();
    let mut hand = Hand::start(&host, spec.restart(restarts(100)));
    let mut outs = store.watches();
    outs.add("out").unwrap();
    outs.add("out too").unwrap();
    for round in 0..30_u64 {
        assert_eq!(hand.answer(), "reacts");
        let value = round.to_ne_bytes();
        for step in 0..round % 4 {
            // The last of several is enough.
            store.set("in", &step.to_ne_bytes()).unwrap();
        }
        store.set("in", &value).unwrap();
        if round % 3 > 0 {
            let is = |key| store.get(key).unwrap().is_some_and(|found| *found == value);
            while !is("out") || !is("out too") {
                outs.wait(NEVER).unwrap().expect("a change was missed");
            }
        }
        hand.handle.kill().unwrap();
    }
    store.check().unwrap();
}

#[test]
fn a_plugin_that_writes_through_its_host_reacts_through_restarts() {
    reacts_through_restarts(plugin::spec("untrusted", "react"));
}

#[test]
fn a_plugin_that_is_trusted_reacts_through_restarts() {
    let spec = plugin::spec("trusted", "react");
    // SAFETY: the plugin is this very program, which writes to the store by way of the library only.
    reacts_through_restarts(unsafe { spec.trust_with_store() });
}
