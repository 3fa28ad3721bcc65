//! Rows of the table of failures that concern stores with a name: creators, users and openers that die at any
//! step, races, headers and files that are not what they should be.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};

use common::meeting::{Signal, hang, open_file, process};
use common::name::Name;
use common::steps::kill_at_every_step;
use common::store::{geometry, lock_of, name_error, segment_error};
use common::victim::Victim;
use ringway::channel::{Channel, ChannelOptions};
use ringway::error::{NameError, SegmentError};
use ringway::layout::segment;
use ringway::layout::store::reader;
use ringway::store::{self, OpenError, Store, StoreOptions};

fn options() -> StoreOptions {
    StoreOptions { capacity_bytes: 1 << 17, max_readers: 4, ..StoreOptions::default() }
}

fn gc(name: &Name) -> Vec<String> {
    store::gc_where(|found| found == name.text()).unwrap().removed
}

fn get(store: &Store, key: &str) -> Option<Vec<u8>> {
    store.get(key).unwrap().map(|value| value.to_vec())
}

#[test]
fn f07_a_creator_that_is_killed_at_any_step_leaves_nothing_or_a_whole_store() {
    let name = Name::new("store-f07");
    let mut whole = 0;
    let deaths = kill_at_every_step(
        || drop(Store::create(&name, &options()).unwrap()),
        |step| {
            match Store::open(&name, &options()) {
                Ok(store) => {
                    whole += 1;
                    store.set("k", b"v").unwrap();
                    store.check().unwrap();
                    store.delete_existing("k").unwrap();
                }
                Err(OpenError::Segment(SegmentError::Name(NameError::NotFound { .. }))) => {}
                Err(error) => panic!("step {step}: {error}"),
            }
            // The name can be used at once.
            let store = Store::create(&name, &options());
            drop(store.unwrap_or_else(|error| panic!("step {step}: {error}")));
            gc(&name);
            assert_eq!(name.temporaries(), Vec::<std::path::PathBuf>::new(), "step {step}");
            assert!(!name.path().exists(), "step {step}");
        },
    );
    assert!(deaths > 30 && whole > 0 && whole < deaths, "{deaths} deaths, {whole} whole");
    println!("{deaths} deaths, {whole} of them behind the link");
}

#[test]
fn f06_f09_a_store_whose_processes_have_died_is_brought_in_order_at_any_step() {
    let name = Name::new("store-f09");
    drop(process(|| {
        let store = Store::create(&name, &options()).unwrap();
        for key in 0..100_u32 {
            store.set(key.to_string(), &[7; 100]).unwrap();
        }
        store
    }));
    let listed = || store::list().unwrap().into_iter().find(|found| found.name == name.text());
    assert!(listed().is_some_and(|found| found.keys == 100 && !found.in_use));
    let deaths = kill_at_every_step(
        || drop(Store::open(&name, &options()).unwrap()),
        |step| {
            let refused = name_error(Store::create(&name, &options()));
            assert!(matches!(refused, NameError::NotEmpty { keys: 100, .. }), "{refused}");
            assert_eq!(gc(&name), [""; 0], "step {step}");
        },
    );
    assert!(deaths > 15, "{deaths}");
    let store = Store::open(&name, &options()).unwrap();
    assert_eq!(store.len().unwrap(), 100);
    assert!((0..100_u32).all(|key| get(&store, &key.to_string()) == Some(vec![7; 100])));
    store.check().unwrap();
}

#[test]
fn f09_a_dead_writers_lock_is_forgotten_and_an_empty_store_replaced() {
    let name = Name::new("store-f09");
    drop(process(|| {
        let store = Store::create(&name, &options()).unwrap();
        store.set("k", b"old").unwrap();
        store
    }));
    // As if it had been killed with the lock, and the kernel had not noticed: held by a thread that lives
    // for ever. And as if all readers were there.
    let file = open_file(&name);
    file.write_all_at(&1_u32.to_ne_bytes(), lock_of(&file)).unwrap();
    for reader in 0..4 {
        file.write_all_at(&1_u64.to_ne_bytes(), geometry(&file).reader(reader) + reader::OWNER)
            .unwrap();
    }
    let first = Store::open(&name, &options()).unwrap();
    assert_eq!(get(&first, "k").unwrap(), b"old");
    first.set_timeout("k", b"new", common::meeting::NEVER).unwrap();
    let in_use = name_error(Store::create(&name, &options()));
    assert!(matches!(in_use, NameError::AlreadyExists { pid, .. } if pid == std::process::id()));
    let in_use = store::remove(&name);
    assert!(matches!(in_use, Err(SegmentError::Name(NameError::AlreadyExists { .. }))));
    // Also for those who know channels only.
    let refused = ringway::channel::remove(&name);
    assert!(matches!(refused, Err(SegmentError::Name(NameError::AlreadyClaimed { .. }))));
    first.delete_existing("k").unwrap();
    drop(first);
    let old = fs::metadata(name.path()).unwrap().ino();
    drop(Store::create(&name, &options()).unwrap());
    assert_ne!(fs::metadata(name.path()).unwrap().ino(), old);
    assert_eq!(gc(&name), [format!("ringway.{}", name.text())]);
}

#[test]
fn f10_of_many_that_race_one_creates_and_all_others_join_or_are_told() {
    const RACERS: usize = 32;
    for round in 0..8 {
        let name = Name::new("store-f10");
        let options = StoreOptions { max_readers: RACERS as u32, ..options() };
        // A dead one to take over, every other time.
        if round % 2 == 1 {
            drop(process(|| Store::create(&name, &options).unwrap()));
        }
        let (go, done) = (Signal::new(), Signal::new());
        let racers: Vec<_> = (0..RACERS)
            .map(|number| {
                let (name, go, done, options) = (&name, &go, &done, &options);
                Victim::start(move || {
                    go.wait();
                    let got = if number % 2 == 0 {
                        Store::create(name, options)
                    } else {
                        Store::open_or_create(name, options)
                    };
                    match &got {
                        Ok(store) => drop(store.set(number.to_string(), b"here").unwrap()),
                        Err(OpenError::Segment(SegmentError::Name(
                            NameError::AlreadyExists { .. } | NameError::NotEmpty { .. },
                        ))) if number % 2 == 0 => {}
                        Err(error) => panic!("{error}"),
                    }
                    done.give();
                    let _kept = got;
                    hang();
                })
            })
            .collect();
        (0..RACERS).for_each(|_| go.give());
        (0..RACERS).for_each(|_| done.wait());
        let store = store::list().unwrap().into_iter().find(|found| found.name == name.text());
        let store = store.unwrap();
        // All who opened or created are in one store.
        assert!(store.in_use && store.keys >= RACERS as u64 / 2, "{store:?}, round {round}");
        drop(racers);
        assert_eq!(name.temporaries(), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn f11_any_one_flipped_bit_of_the_header_and_what_is_no_store_is_refused() {
    let name = Name::new("store-f11");
    drop(Store::create(&name, &options()).unwrap());
    let file = open_file(&name);
    for offset in 0..segment::HEADER_BYTES {
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        for bit in 0..8 {
            file.write_all_at(&[byte[0] ^ 1 << bit], offset).unwrap();
            for open in [Store::open, Store::open_or_create] {
                let refused = segment_error(open(&name, &options()));
                assert!(
                    matches!(refused, SegmentError::Incompatible { .. }),
                    "bit {bit} of byte {offset}: {refused:?}"
                );
            }
        }
        file.write_all_at(&byte, offset).unwrap();
    }
    drop(Store::open(&name, &options()).unwrap());
    // Neither is taken for the other.
    let channel = Name::new("store-f11");
    drop(Channel::create(&channel, &ChannelOptions::default()).unwrap());
    for open in [Store::open, Store::open_or_create, Store::create] {
        let refused = segment_error(open(&channel, &options()));
        assert!(matches!(refused, SegmentError::Incompatible { field: "kind", .. }), "{refused:?}");
    }
    for open in [Channel::open, Channel::open_or_create, Channel::create] {
        let refused = open(&name, &ChannelOptions::default()).unwrap_err();
        assert!(matches!(refused, SegmentError::Incompatible { field: "kind", .. }), "{refused:?}");
    }
    for refused in [store::remove(&channel), ringway::channel::remove(&name)] {
        assert!(matches!(refused, Err(SegmentError::Incompatible { field: "kind", .. })));
    }
    assert!(ringway::channel::list().unwrap().found.iter().all(|found| found.name != name.text()));
    assert!(store::list().unwrap().found.iter().all(|found| found.name != channel.text()));
}

#[test]
fn f13_a_store_in_use_in_another_pid_namespace_is_refused_for_writing() {
    const SKIPPED: i32 = 77;
    let name = Name::new("store-f13");
    let elsewhere = |run: &dyn Fn()| {
        let mut outer = Victim::start(|| {
            // SAFETY: the call takes a number.
            if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
                // SAFETY: as above; it does not return.
                unsafe { libc::_exit(SKIPPED) };
            }
            // The first child of a process that has left its namespace is in the new one.
            let status = Victim::start(|| {
                assert_eq!(std::process::id(), 1);
                run();
            })
            .wait();
            assert_eq!(status, 0);
        });
        libc::WEXITSTATUS(outer.wait())
    };
    let store = Store::create(&name, &options()).unwrap();
    let refused = elsewhere(&|| {
        let refused = segment_error(Store::open(&name, &options()));
        assert!(matches!(refused, SegmentError::PidNamespace { .. }), "{refused}");
    });
    if refused == SKIPPED {
        println!("skipped: no pid namespaces here");
        return;
    }
    assert_eq!(refused, 0);
    store.set("k", b"v").unwrap();
    drop(store);
    // Once nobody has it, it is theirs, and then again ours.
    let theirs = elsewhere(&|| {
        let store = Store::open(&name, &options()).unwrap();
        assert_eq!(get(&store, "k").unwrap(), b"v");
    });
    assert_eq!(theirs, 0);
    drop(Store::open(&name, &options()).unwrap());
}

#[test]
fn f14_a_file_that_was_cut_is_refused_before_it_is_mapped() {
    let name = Name::new("store-f14");
    drop(Store::create(&name, &options()).unwrap());
    let file = open_file(&name);
    let len_bytes = file.metadata().unwrap().len();
    for len in [4096, len_bytes - 4096, len_bytes - 1] {
        file.set_len(len).unwrap();
        let refused = segment_error(Store::open(&name, &options()));
        assert!(matches!(refused, SegmentError::TooSmall { .. }), "{len}: {refused:?}");
    }
    for (len, what) in [(100, "shorter than a header"), (0, "an empty file")] {
        file.set_len(len).unwrap();
        let refused = name_error(Store::open(&name, &options())).to_string();
        assert!(refused.contains(what), "{refused}");
    }
    file.set_len(len_bytes).unwrap();
    let refused = name_error(Store::open(&name, &options()));
    assert!(matches!(refused, NameError::Stale { .. }), "{refused}");
    // Nobody has it, so it can be created again.
    drop(Store::create(&name, &options()).unwrap());
}
