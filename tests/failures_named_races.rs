//! Row 78: whoever opens a name beside processes that clear away, list and create is told the truth.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::meeting::*;
use common::name::Name;
use ringway::channel::{self, Channel, Holder, Side};
use ringway::error::{NameError, SegmentError};
use ringway::store::{self, OpenError, Store, StoreOptions};

/// Enough for the old code to fail in each run.
const ROUNDS: usize = 1500;

/// Runs `user` a number of times, while `others` run over and over.
fn beside(others: &[&(dyn Fn() + Sync)], user: impl Fn(usize)) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for other in others {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    other();
                }
            });
        }
        // The others stop also where this panics.
        let _stop = Stop(&over);
        (0..ROUNDS).for_each(user);
    });
}

fn small() -> StoreOptions {
    StoreOptions { capacity_bytes: 1 << 18, max_readers: 4, ..StoreOptions::default() }
}

fn clear(name: &Name) {
    let of_name = |found: &str| found == name.text();
    for cleared in [channel::gc_where(of_name).unwrap(), store::gc_where(of_name).unwrap()] {
        assert!(cleared.skipped.is_empty(), "{:?}", cleared.skipped);
    }
}

#[test]
fn f78_who_clears_away_is_not_taken_for_the_user_of_a_side() {
    let name = Name::new("f78side");
    let mut first = Channel::create(&name, &options()).unwrap();
    first.send(b"unread, so that it stays").unwrap();
    drop(first);
    let gc = || clear(&name);
    let list = || {
        let listed = channel::list().unwrap();
        let found = listed.into_iter().find(|listed| listed.name == name.text()).unwrap();
        assert_eq!(found.sides[0], Holder::Nobody, "nobody ever takes the first side");
    };
    beside(&[&gc, &gc, &list], |round| {
        let second = Channel::open(&name, &on(Side::Second));
        drop(second.unwrap_or_else(|error| panic!("round {round}: {error}")));
    });
}

#[test]
fn f78_a_channel_can_be_had_beside_all_who_clear_and_remove() {
    let name = Name::new("f78channel");
    let gc = || clear(&name);
    let list = || drop(channel::list().unwrap());
    let remove = || match channel::remove(&name) {
        Ok(())
        | Err(SegmentError::Name(NameError::NotFound { .. } | NameError::AlreadyClaimed { .. })) => {
        }
        Err(error) => panic!("{error}"),
    };
    beside(&[&gc, &list, &remove], |round| {
        let channel = match round % 2 {
            0 => Channel::open_or_create(&name, &options()),
            _ => Channel::create(&name, &options()),
        };
        drop(channel.unwrap_or_else(|error| panic!("round {round}: {error}")));
    });
}

#[test]
fn f78_a_store_can_be_had_beside_all_who_clear_away() {
    let (kept, emptied) = (Name::new("f78kept"), Name::new("f78emptied"));
    Store::create(&kept, &small()).unwrap().set("key", b"so that it stays").unwrap();
    let gc = || [&kept, &emptied].into_iter().for_each(clear);
    let list = || drop(store::list().unwrap());
    let remove = || match store::remove(&emptied) {
        Ok(())
        | Err(SegmentError::Name(NameError::NotFound { .. } | NameError::AlreadyExists { .. })) => {
        }
        Err(error) => panic!("{error}"),
    };
    beside(&[&gc, &list, &remove], |round| {
        let store = match round % 4 {
            0 => Store::open(&kept, &small()),
            1 => {
                // It holds a key, and nobody has it.
                let refused = Store::create(&kept, &small());
                let Err(OpenError::Segment(SegmentError::Name(NameError::NotEmpty { .. }))) =
                    refused
                else {
                    panic!("round {round}: {refused:?}")
                };
                Store::open_read_only(&kept)
            }
            2 => Store::open_or_create(&emptied, &small()),
            _ => Store::create(&emptied, &small()),
        };
        drop(store.unwrap_or_else(|error| panic!("round {round}: {error}")));
    });
}

#[test]
fn f78_processes_that_create_and_are_killed_disturb_nobody() {
    let name = Name::new("f78killed");
    let creators = || {
        let creator = process(|| {
            thread::spawn({
                let name = ringway::segment::Address::from(&name);
                move || loop {
                    drop(Channel::open_or_create(&name, &on(Side::First)));
                }
            });
        });
        drop(creator);
    };
    let gc = || clear(&name);
    beside(&[&creators, &gc], |round| {
        match Channel::open_or_create(&name, &on(Side::Second)) {
            Ok(channel) => drop(channel),
            // It made a new one, in the place of one that was free.
            Err(error) => panic!("round {round}: {error}"),
        }
    });
}
