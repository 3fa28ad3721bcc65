//! Row 79: a name that is removed, or given to another segment, while processes use it.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use common::meeting::*;
use common::name::Name;
use common::victim::Victim;
use ringway::channel::{
    Channel, Event, LossyChannel, LossyOptions, LossyReceiver, PeerState, Selector, Side,
    TypedChannel,
};
use ringway::error::{
    Error, RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError,
};
use ringway::store::{self, Change, ReactionReport, Store, StoreOptions, WatchError};
use ringway::typed::Pod;

fn small() -> StoreOptions {
    StoreOptions { capacity_bytes: 1 << 18, max_readers: 4, ..StoreOptions::default() }
}

#[test]
fn f79_who_waits_alone_is_told_that_the_name_is_gone() {
    let name = Name::new("f79alone");
    let mut first = Channel::create(&name, &options()).unwrap();
    assert!(first.is_current());
    fs::remove_file(name.path()).unwrap();
    assert!(!first.is_current());
    // Would wait for ever.
    assert_eq!(first.recv_timeout(NEVER).unwrap_err(), RecvTimeoutError::Superseded);
    assert_eq!(first.send(b"to nobody"), Err(SendError::Superseded));
    assert_eq!(first.peer_state(), PeerState::Superseded);
    assert!(matches!(first.wait_for_peer(NEVER), Err(Error::Superseded)));
    let (sender, receiver) = first.split();
    assert!(!sender.is_current() && !receiver.is_current());
    // The name can be used for another one.
    let other = Channel::create(&name, &options()).unwrap();
    assert!(other.is_current() && !sender.is_current());
}

#[test]
fn f79_two_that_are_there_go_on_until_one_leaves() {
    let name = Name::new("f79two");
    let mut first = Channel::create(&name, &options()).unwrap();
    let victim = process(|| {
        let mut second = Channel::open(&name, &options()).unwrap();
        thread::spawn(move || {
            while let Ok(message) = second.recv_owned() {
                second.send(&message).unwrap();
            }
        });
    });
    fs::remove_file(name.path()).unwrap();
    for number in 0..100_u8 {
        first.send(&[number]).unwrap();
        assert_eq!(&*first.recv().unwrap(), [number]);
    }
    assert!(!first.is_current());
    assert_eq!(first.peer_state(), PeerState::Attached);
    drop(victim);
    let gone = first.recv_timeout(NEVER).unwrap_err();
    let expected = [RecvTimeoutError::Disconnected, RecvTimeoutError::Superseded];
    assert!(expected.contains(&gone), "{gone}");
    assert!(matches!(first.wait_for_peer(NEVER), Err(Error::Superseded)));
    assert_eq!(first.recv().unwrap_err(), RecvError::Superseded);
}

#[test]
fn f79_every_kind_of_wait_ends() {
    let names: Vec<_> = (0..4).map(|_| Name::new("f79kinds")).collect();
    let selected = Channel::create(&names[0], &options()).unwrap();
    let passive = Channel::create(&names[1], &options()).unwrap();
    let lossy = LossyChannel::<LossyReceiver>::create(&names[2], &LossyOptions::default()).unwrap();
    let full = TypedChannel::<Pod<[u64; 64]>, Pod<u64>>::create(&names[3], &options()).unwrap();
    assert!(lossy.is_current() && full.is_current());
    let mut lossy = lossy.into_end();
    let (mut full, _back) = full.split();
    while full.try_send(&[0; 64]).is_ok() {}
    let (_back, receiver) = selected.split();
    let mut selector = Selector::new();
    selector.add(receiver);
    let (_back, receiver) = passive.split();
    let (told, ends) = mpsc::channel();
    let running = receiver.on_receive(|_| true, |_| ()).unwrap();
    for name in &names {
        fs::rename(other(name).path(), name.path()).unwrap();
    }
    assert!(!lossy.is_current());
    thread::scope(|scope| {
        let tell = |what: &'static str, told: &mpsc::Sender<_>| told.send(what).unwrap();
        let (one, two, three) = (told.clone(), told.clone(), told.clone());
        scope.spawn(move || {
            assert_eq!(lossy.recv_timeout(NEVER).unwrap_err(), RecvTimeoutError::Superseded);
            tell("lossy", &one);
        });
        scope.spawn(move || {
            assert_eq!(full.send_timeout(&[0; 64], NEVER), Err(SendTimeoutError::Superseded));
            tell("full", &two);
        });
        scope.spawn(move || {
            let mut found = None;
            selector.poll(1, NEVER, |_, event| {
                if let Event::Error(error) = event {
                    found = Some(error);
                }
            });
            assert_eq!(found, Some(RecvError::Superseded));
            tell("selected", &three);
        });
        let mut found: Vec<_> = (0..3).map(|_| ends.recv_timeout(NEVER).unwrap()).collect();
        found.sort_unstable();
        assert_eq!(found, ["full", "lossy", "selected"]);
    });
    let mut receiver = running.wait_timeout(NEVER).unwrap();
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Superseded);
}

/// Another channel's file, whose name is given away.
fn other(name: &Name) -> Name {
    let other = Name::new("f79other");
    drop(Channel::create(&other, &options()).unwrap());
    assert!(name.path().exists());
    other
}

#[test]
fn f79_a_store_that_lost_its_name_says_so() {
    for replaced in [false, true] {
        let name = Name::new("f79store");
        let writer = Store::create(&name, &small()).unwrap();
        let reader = Store::open_read_only(&name).unwrap();
        writer.set("key", b"old").unwrap();
        assert!(writer.is_current() && reader.is_current());
        let mut watches = [writer.watch("key").unwrap(), reader.watch("key").unwrap()];
        writer.set("key", b"last").unwrap();
        fs::remove_file(name.path()).unwrap();
        let new = replaced.then(|| Store::create(&name, &small()).unwrap());
        assert!(!writer.is_current() && !reader.is_current());
        assert!(new.is_none_or(|new| new.is_current()));
        for watch in &mut watches {
            // First what has happened.
            assert!(watch.wait(NEVER).unwrap().is_some());
            assert!(matches!(watch.wait(NEVER), Err(WatchError::Superseded)));
        }
    }
}

#[test]
fn f79_readers_of_a_store_that_was_created_anew_are_told() {
    let name = Name::new("f79anew");
    drop(Store::create(&name, &small()).unwrap());
    for replace in [(|name| drop(Store::create(name, &small()).unwrap())) as fn(&Name), |name| {
        store::remove(name).unwrap()
    }] {
        let reader = Store::open_read_only(&name).unwrap();
        assert!(reader.is_current());
        let (told, reports) = mpsc::channel();
        let reaction = reader
            .reaction("key", |_: &Store, _: &Change| ())
            .report(move |report: &ReactionReport<'_>| {
                told.send(matches!(report, ReactionReport::Superseded)).unwrap();
            })
            .start()
            .unwrap();
        replace(&name);
        assert!(!reader.is_current());
        let mut watch = reader.watch("key").unwrap();
        assert!(matches!(watch.wait(NEVER), Err(WatchError::Superseded)));
        assert_eq!(reports.recv_timeout(NEVER), Ok(true));
        drop(reaction);
    }
}

#[test]
fn f79_a_relative_path_means_the_same_after_a_change_of_directory() {
    let directory = std::env::temp_dir().join(format!("ringway-f79-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let status = Victim::start(|| {
        std::env::set_current_dir(&directory).unwrap();
        let channel = Channel::create(Path::new("file"), &on(Side::First)).unwrap();
        std::env::set_current_dir("/").unwrap();
        assert!(channel.is_current());
        fs::rename(directory.join("file"), directory.join("moved")).unwrap();
        assert!(!channel.is_current());
    })
    .wait();
    fs::remove_dir_all(&directory).unwrap();
    assert_eq!(status, 0);
}
