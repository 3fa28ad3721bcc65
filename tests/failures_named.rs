//! Rows of the table of failures that concern named segments: creators and peers that die at any
//! step, races, headers and files that are not what they should be.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant};

use common::meeting::*;
use common::name::Name;
use common::steps::kill_at_every_step;
use common::victim::Victim;
use ringway::channel::{self, Channel, ChannelOptions, PeerState};
use ringway::error::{NameError, RecvError, RecvTimeoutError, SegmentError};
use ringway::layout::{claim, segment, side};

#[test]
fn f07_a_creator_that_is_killed_at_any_step_leaves_nothing_or_a_whole_segment() {
    let name = Name::new("f07");
    let mut whole = 0;
    let deaths = kill_at_every_step(
        || drop(Channel::create(&name, &options()).unwrap()),
        |step| {
            match Channel::open(&name, &options()) {
                Ok(mut second) => {
                    whole += 1;
                    assert_ne!(second.peer_state(), PeerState::Attached, "step {step}");
                    assert_eq!(second.recv().unwrap_err(), RecvError::Disconnected);
                }
                Err(SegmentError::Name(NameError::NotFound { .. })) => {}
                Err(error) => panic!("step {step}: {error}"),
            }
            // The name can be used at once.
            let first = Channel::create(&name, &options());
            drop(first.unwrap_or_else(|error| panic!("step {step}: {error}")));
            gc(&name);
            assert_eq!(name.temporaries(), Vec::<std::path::PathBuf>::new(), "step {step}");
            assert!(!name.path().exists(), "step {step}");
        },
    );
    assert!(deaths > 30 && whole > 0 && whole < deaths, "{deaths} deaths, {whole} whole");
    println!("{deaths} deaths, {whole} of them behind the link");
}

#[test]
fn f08_a_peer_that_is_killed_at_any_step_of_attaching_is_seen_as_gone() {
    let name = Name::new("f08");
    let mut first = Channel::create(&name, &options()).unwrap();
    first.send(b"unread").unwrap();
    let deaths = kill_at_every_step(
        || drop(Channel::open(&name, &options()).unwrap()),
        |step| {
            // Whatever it got to: nobody waits for it, and another one can attach.
            let waited = first.recv_timeout(Duration::ZERO).map(|message| message.to_vec());
            assert!(
                matches!(
                    waited,
                    Err(RecvTimeoutError::Timeout
                        | RecvTimeoutError::Disconnected
                        | RecvTimeoutError::Restarted { .. })
                ),
                "step {step}: {waited:?}"
            );
            assert_ne!(state_soon(&first), PeerState::Attached, "step {step}");
        },
    );
    let mut second = Channel::open(&name, &options()).unwrap();
    assert_eq!(&*second.recv().unwrap(), b"unread");
    assert!(deaths > 20, "{deaths}");
}

/// The peer's state, once what is told later has been told.
fn state_soon(channel: &Channel) -> PeerState {
    let deadline = Instant::now() + NEVER;
    while channel.peer_state() == PeerState::Attached && Instant::now() < deadline {
        std::thread::yield_now();
    }
    channel.peer_state()
}

#[test]
fn f09_a_segment_whose_processes_have_died_is_replaced_at_any_step() {
    let name = Name::new("f09");
    let make_dead = || {
        let name = &name;
        drop(process(|| {
            let mut first = Channel::create(name, &options()).unwrap();
            first.send(b"old").unwrap();
            first
        }));
    };
    make_dead();
    let old = fs::metadata(name.path()).unwrap().ino();
    let mut replaced = 0;
    let deaths = kill_at_every_step(
        || drop(Channel::create(&name, &options()).unwrap()),
        |step| {
            // There is always one, and it is whole.
            let now = fs::metadata(name.path()).unwrap().ino();
            replaced += usize::from(now != old);
            let listed = channel::list().unwrap().into_iter();
            let found = listed.into_iter().find(|listed| listed.name == name.text()).unwrap();
            assert_eq!(found.unread.unwrap().to_second, u64::from(now == old), "step {step}");
            drop(Channel::open(&name, &options()).unwrap());
        },
    );
    assert!(deaths > 30 && replaced > 0 && replaced < deaths, "{deaths}, {replaced}");
}

#[test]
fn f10_of_many_that_race_one_creates_and_everybody_else_is_told() {
    const RACERS: usize = 64;
    for round in 0..12 {
        let name = Name::new("f10");
        // A dead one to take over, every other time.
        if round % 2 == 1 {
            drop(process(|| Channel::create(&name, &options()).unwrap()));
        }
        let (go, outcomes) = (Signal::new(), Signal::new());
        let racers: Vec<_> = (0..RACERS)
            .map(|number| {
                let (name, go, outcomes) = (&name, &go, &outcomes);
                Victim::start(move || {
                    go.wait();
                    let creates = number % 2 == 0;
                    let got = if creates {
                        Channel::create(name, &options())
                    } else {
                        Channel::open_or_create(name, &options())
                    };
                    let outcome = match &got {
                        Ok(_) => b'+',
                        Err(SegmentError::Name(
                            NameError::AlreadyExists { .. }
                            | NameError::AlreadyClaimed { .. }
                            | NameError::Busy { .. },
                        )) => b'-',
                        Err(_) => b'!',
                    };
                    // SAFETY: an open descriptor and a byte that outlives the call.
                    unsafe { libc::write(outcomes.0[1], [outcome].as_ptr().cast(), 1) };
                    let _kept = got;
                    hang();
                })
            })
            .collect();
        (0..RACERS).for_each(|_| go.give());
        let mut found = [0_u8; RACERS];
        for at in 0..RACERS {
            // SAFETY: an open descriptor and a byte of the array.
            let read = unsafe { libc::read(outcomes.0[0], found[at..].as_mut_ptr().cast(), 1) };
            assert_eq!(read, 1);
        }
        let count = |outcome: u8| found.iter().filter(|&&found| found == outcome).count();
        assert_eq!((count(b'+'), count(b'!')), (2, 0), "one for each side, round {round}");
        let listed = channel::list().unwrap().into_iter();
        let found = listed.into_iter().find(|listed| listed.name == name.text()).unwrap();
        assert!(!found.sides.contains(&channel::Holder::Nobody));
        drop(racers);
        assert_eq!(name.temporaries(), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn f11_any_one_flipped_bit_of_the_header_is_refused() {
    let name = Name::new("f11");
    drop(Channel::create(&name, &options()).unwrap());
    let file = open_file(&name);
    for offset in 0..segment::HEADER_BYTES {
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        for bit in 0..8 {
            file.write_all_at(&[byte[0] ^ 1 << bit], offset).unwrap();
            for open in [Channel::open, Channel::open_or_create] {
                let refused = open(&name, &options());
                assert!(
                    matches!(refused, Err(SegmentError::Incompatible { .. })),
                    "bit {bit} of byte {offset}: {refused:?}"
                );
            }
        }
        file.write_all_at(&byte, offset).unwrap();
    }
    drop(Channel::open(&name, &options()).unwrap());
    // And what has been told to be something else by its creator.
    let wider = ChannelOptions { capacity_bytes: 8192, ..options() };
    drop(Channel::create(&name, &wider).unwrap());
    drop(Channel::open(&name, &options()).unwrap());
}

#[test]
fn f12_a_number_that_was_given_away_is_not_taken_for_the_peer() {
    let name = Name::new("f12");
    let victim = process(|| Channel::create(&name, &options()).unwrap());
    drop(victim);
    // As if the process that runs the tests had got its number: it lives, and started earlier.
    let (line, other) = (side::LINE[0], std::os::unix::process::parent_id());
    open_file(&name).write_all_at(&other.to_ne_bytes(), line + side::PID).unwrap();
    let mut second = Channel::open(&name, &options()).unwrap();
    assert!(matches!(second.peer_state(), PeerState::Died(_)));
    assert_eq!(second.recv().unwrap_err(), RecvError::Disconnected);
    drop(second);
    // With somebody's lock in the way, whose number it is decides; that one would not die.
    let reader = process(|| {
        let file = File::open(name.path()).unwrap();
        lock(&file, libc::F_RDLCK, claim::SIDE[0], 1);
        file
    });
    let mut second = Channel::open(&name, &options()).unwrap();
    drop(reader);
    assert_eq!(second.recv_timeout(NEVER).unwrap_err(), RecvTimeoutError::Disconnected);
}

#[test]
fn f13_a_peer_in_another_pid_namespace_is_watched_by_its_lock() {
    let name = Name::new("f13");
    let mut first = Channel::create(&name, &options()).unwrap();
    let ready = Signal::new();
    // The first child of a process that has left its namespace is in the new one.
    let mut outer = Victim::start(|| {
        // SAFETY: the call takes a number.
        if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
            ready.give();
            hang();
        }
        let _inner = Victim::start(|| {
            // Its own number there is 1, which is somebody else's here.
            assert_eq!(std::process::id(), 1);
            let _kept = Channel::open(&name, &options()).unwrap();
            ready.give();
            hang();
        });
        hang();
    });
    ready.wait();
    if first.peer_state() == PeerState::Absent {
        println!("skipped: no pid namespaces here");
        return;
    }
    assert_eq!(first.peer_state(), PeerState::Attached);
    assert_eq!(
        first.recv_timeout(Duration::from_millis(200)).unwrap_err(),
        RecvTimeoutError::Timeout,
        "it lives"
    );
    outer.kill();
    // Its namespace goes with it.
    assert_eq!(first.recv_timeout(NEVER).unwrap_err(), RecvTimeoutError::Disconnected);
    outer.wait();
}

#[test]
fn f14_a_file_that_was_cut_is_refused_before_it_is_mapped() {
    let name = Name::new("f14");
    drop(Channel::create(&name, &options()).unwrap());
    let file = open_file(&name);
    let len_bytes = file.metadata().unwrap().len();
    for len in [4096, len_bytes - 4096, len_bytes - 1] {
        file.set_len(len).unwrap();
        let refused = Channel::open(&name, &options());
        assert!(matches!(refused, Err(SegmentError::TooSmall { .. })), "{len}: {refused:?}");
    }
    for (len, what) in [(100, "shorter than a header"), (0, "an empty file")] {
        file.set_len(len).unwrap();
        let refused = name_error(Channel::open(&name, &options())).to_string();
        assert!(refused.contains(what), "{refused}");
    }
    file.set_len(len_bytes).unwrap();
    let refused = name_error(Channel::open(&name, &options()));
    assert!(matches!(refused, NameError::Stale { .. }), "{refused}");
    // Nobody has it, so it can be created again.
    drop(Channel::create(&name, &options()).unwrap());
}
