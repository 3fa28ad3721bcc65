//! Children of a named channel's dead peer, which still have its segment mapped and write.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, ptr};

use common::meeting::*;
use common::name::Name;
use common::random::{self, Random};
use common::stray::{Stray, pidfd_of};
use ringway::channel::{Channel, PeerState};
use ringway::error::{RecvError, RecvTimeoutError, SegmentError, SendError, TrySendError};

/// A peer on the second side that forks a child, which does this for ever, and then is killed.
fn orphan(name: &Name, write: impl FnOnce(&mut Channel)) -> Stray {
    let (writing, pids) = (Signal::new(), Signal::new());
    let parent = process(|| {
        let mut channel = Channel::open(name, &options()).unwrap();
        // SAFETY: the child calls nothing that another thread could have locked.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: it ends with the test, or after a minute.
            unsafe { libc::alarm(60) };
            writing.give();
            write(&mut channel);
            hang();
        }
        // SAFETY: an open descriptor and four bytes that outlive the call.
        unsafe { libc::write(pids.0[1], ptr::from_ref(&child).cast(), 4) };
        channel
    });
    let mut pid = 0_i32;
    // SAFETY: an open descriptor and four bytes that outlive the call.
    assert_eq!(unsafe { libc::read(pids.0[0], ptr::from_mut(&mut pid).cast(), 4) }, 4);
    let stray = Stray(pidfd_of(pid));
    writing.wait();
    drop(parent);
    stray
}

fn lives(stray: &Stray) -> bool {
    let mut poll = libc::pollfd { fd: stray.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: a structure that outlives the call.
    unsafe { libc::poll(&mut poll, 1, 0) == 0 }
}

/// What is sent arrives, and nothing else does.
fn talk(one: &mut Channel, other: &mut Channel) {
    for number in 0..1000_u32 {
        let message = [number.to_ne_bytes(); 20].concat();
        one.send(&message).unwrap();
        assert_eq!(&*other.recv().unwrap(), message);
        other.send(&message).unwrap();
        assert_eq!(&*one.recv().unwrap(), message);
    }
}

#[test]
fn f29_what_a_dead_peers_child_sends_goes_nowhere() {
    let name = Name::new("f29");
    let mut first = Channel::create(&name, &options()).unwrap();
    let stray =
        orphan(
            &name,
            |channel| {
                while channel.try_send(b"from the child") == Err(TrySendError::Forked) {}
            },
        );
    assert_eq!(first.recv().unwrap_err(), RecvError::Disconnected);
    let mut second = Channel::open(&name, &options()).unwrap();
    assert!(matches!(first.recv(), Err(RecvError::Restarted { .. })));
    assert!(matches!(first.send(b""), Err(SendError::Restarted { .. })));
    talk(&mut first, &mut second);
    assert!(lives(&stray));
}

/// Where this process has the segment mapped.
fn mapping(name: &Name) -> &'static [AtomicU64] {
    let path = name.path();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.ends_with(path.to_str().unwrap())).unwrap();
    assert!(line.contains("rw-s"), "{line}");
    let range = line.split(' ').next().unwrap().split('-');
    let ends: Vec<_> = range.map(|end| usize::from_str_radix(end, 16).unwrap()).collect();
    let base = ptr::with_exposed_provenance::<AtomicU64>(ends[0]);
    // SAFETY: mapped as long as the channel lives, which the caller does not drop.
    unsafe { std::slice::from_raw_parts(base, (ends[1] - ends[0]) / 8) }
}

#[test]
fn f29_a_dead_peers_child_that_writes_raw_is_a_hostile_peer_until_the_segment_is_replaced() {
    let mut random = Random::new(random::seed());
    for _ in 0..20 {
        let name = Name::new("f29-raw");
        let mut first = Channel::create(&name, &options()).unwrap();
        let old = fs::metadata(name.path()).unwrap().ino();
        let mut choices = Random::new(random.next());
        let stray = orphan(&name, |_| {
            let words = mapping(&name);
            loop {
                let at = choices.below(words.len() as u64) as usize;
                let word = [0, choices.below(4096) & !7, choices.next()][choices.below(3) as usize];
                words[at].store(word, Ordering::Relaxed);
            }
        });
        // Every call returns, whatever it says.
        let mut outcomes = [0; 3];
        for _ in 0..300 {
            match first.recv_timeout(Duration::from_micros(20)) {
                Ok(_) => outcomes[0] += 1,
                Err(RecvTimeoutError::Corrupt(_)) => outcomes[1] += 1,
                Err(_) => outcomes[2] += 1,
            }
            let _ = first.send_timeout(b"to whoever is there", Duration::from_micros(20));
            let _ = first.peer_state();
        }
        match Channel::open(&name, &options()) {
            Ok(mut second) => {
                let _ = second.recv_timeout(Duration::from_micros(20));
                let _ = second.send_timeout(b"from the successor", Duration::from_micros(20));
            }
            Err(SegmentError::Os { call, source }) => panic!("{call}: {source}"),
            Err(_) => {}
        }
        drop(first);
        // Locks are not in the segment, so that it can be replaced; from here on it is as above.
        let mut first = Channel::create(&name, &options()).unwrap();
        assert_ne!(fs::metadata(name.path()).unwrap().ino(), old);
        let mut second = Channel::open(&name, &options()).unwrap();
        assert_eq!(first.peer_state(), PeerState::Attached);
        talk(&mut first, &mut second);
        assert!(lives(&stray));
        println!("{outcomes:?}: messages, corrupt, others");
    }
}
