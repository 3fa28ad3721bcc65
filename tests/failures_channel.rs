//! What can go wrong with a channel's ends, row by row. The hostile peer has the segment's
//! descriptor and writes whatever it likes.
#![allow(unsafe_code)]

use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ringway::channel::{Channel, ChannelOptions, PeerState};
use ringway::error::{
    Corruption, RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError,
};
use ringway::layout::{CHANNEL_DATA, ring, side};
use ringway::memory::{FenceMode, MappedMemory, Memory, Ordering};
use ringway::segment::AnonymousSegment;
use ringway::wakeup::WaitStrategy;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(30);

fn pair_that(wait: WaitStrategy) -> (Channel, Channel) {
    let options =
        ChannelOptions { wait, fence: Some(FenceMode::Asymmetric), ..ChannelOptions::default() };
    Channel::pair(&options).expect("a channel")
}

/// The segment as a hostile peer maps it.
fn hostile(channel: &Channel) -> MappedMemory {
    let descriptor = channel.descriptor().expect("a descriptor");
    AnonymousSegment::attach(descriptor).expect("the segment").memory().clone()
}

#[test]
fn f24_an_archive_that_was_validated_does_not_change_any_more() {
    let (mut host, mut plugin) = pair_that(WaitStrategy::SpinThenPark);
    let memory = hostile(&host);
    let value = vec![String::from("a string that is too long to stand inside its own header")];
    plugin.sender().send_archived(&value).expect("sent");
    let archived = host.receiver().recv_archived::<Vec<String>>().expect("valid");
    let data = CHANNEL_DATA + ChannelOptions::default().capacity_bytes + 64;
    assert_ne!(memory.load_u64(data + 8, Ordering::Relaxed), 0, "the message lies here");
    for word in (data..data + 256).step_by(8) {
        memory.store_u64(word, u64::MAX, Ordering::Relaxed);
    }
    assert_eq!(archived[0].as_str(), value[0]);
}

/// Runs `child` in a forked child and returns its exit code.
fn in_forked_child(child: impl FnOnce() -> bool) -> i32 {
    // SAFETY: the child calls nothing but `child`, which uses channels and memory only, and leaves
    // by `_exit`; glibc keeps its allocator usable in a forked child.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
        // SAFETY: the call does not return.
        unsafe { libc::_exit(if passed.unwrap_or(false) { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: the child is this process's own, and the status is written to a local.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!(waited, pid);
    status
}

#[test]
fn f30_a_forked_child_gets_a_typed_error_and_never_closes_its_parents_ends() {
    let (host, mut plugin) = pair_that(WaitStrategy::SpinThenPark);
    plugin.send(b"for the parent").expect("sent");
    let mut parents = Some(host);
    let status = in_forked_child(|| {
        let mut host = parents.take().expect("inherited");
        let refused = matches!(host.try_recv(), Err(TryRecvError::Forked))
            && matches!(host.recv_timeout(SHORT), Err(RecvTimeoutError::Forked))
            && host.try_send(b"from nobody") == Err(TrySendError::Forked)
            && host.send(b"from nobody") == Err(SendError::Forked)
            && host.sender().batch().is_err();
        drop(host);
        // What is attached here works here.
        let (mut near, mut far) = pair_that(WaitStrategy::SpinThenPark);
        near.send(b"own").expect("sent");
        refused && &*far.recv().expect("received") == b"own"
    });
    assert_eq!(status, 0, "the child saw what it should not have");
    let mut host = parents.expect("the parent has kept it");
    assert_eq!(&*host.recv().expect("still there"), b"for the parent");
    assert_eq!(plugin.peer_state(), PeerState::Attached);
    assert_eq!(plugin.try_recv().map(|m| m.len()), Err(TryRecvError::Empty));
}

extern "C" fn nothing(_: libc::c_int) {}

#[test]
fn f35_signals_neither_end_a_wait_nor_shorten_it() {
    // SAFETY: a zeroed sigaction is a valid one; the handler is async-signal-safe, it does nothing.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
    // SAFETY: as above; no SA_RESTART, so that the futex call returns EINTR.
    let result = unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) };
    assert_eq!(result, 0);
    let (mut host, mut plugin) = pair_that(WaitStrategy::Park);
    let (tell, told) = mpsc::channel();
    let (first_is_over, over) = mpsc::channel();
    let waiting = thread::spawn(move || {
        // SAFETY: the call has no preconditions.
        tell.send(unsafe { libc::pthread_self() }).expect("the test waits");
        let timeout = Duration::from_millis(200);
        let started = Instant::now();
        let nothing = host.recv_timeout(timeout).map(|m| m.len());
        assert_eq!(nothing, Err(RecvTimeoutError::Timeout));
        assert!(started.elapsed() >= timeout, "a wait ended early");
        first_is_over.send(()).expect("the test waits");
        host.recv().map(|m| m.len())
    });
    let thread_id = told.recv().expect("the thread is there");
    while over.try_recv().is_err() {
        // SAFETY: the thread has not been joined, so its id is valid; the signal is handled.
        unsafe { libc::pthread_kill(thread_id, libc::SIGUSR1) };
        thread::yield_now();
    }
    for _ in 0..100 {
        // SAFETY: as above.
        unsafe { libc::pthread_kill(thread_id, libc::SIGUSR1) };
        thread::yield_now();
    }
    plugin.send(b"now").expect("sent");
    assert_eq!(waiting.join().expect("no panic"), Ok(3));
}

#[test]
fn f36_stolen_and_forged_announcements_cost_time_and_nothing_else() {
    let (mut host, mut plugin) = pair_that(WaitStrategy::Park);
    let memory = hostile(&host);
    let word = ring::CONTROL[1] + ring::CONSUMER_WAITING;
    let (stop, stopped) = mpsc::channel::<()>();
    let thief = thread::spawn(move || {
        let mut value = 0_u32;
        while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
            memory.store_u32(word, value % 4, Ordering::Relaxed);
            memory.wake_u32(word, u32::MAX);
            value = value.wrapping_add(1);
        }
    });
    for number in 0..200_u64 {
        let started = Instant::now();
        let early = host.recv_timeout(Duration::from_millis(1)).map(|m| m.len());
        assert_eq!(early, Err(RecvTimeoutError::Timeout));
        assert!(started.elapsed() >= Duration::from_millis(1));
        plugin.send_pod(&number).expect("sent");
        assert_eq!(host.receiver().recv_pod_timeout::<u64>(LONG), Ok(number));
    }
    drop(stop);
    thief.join().expect("no panic");
}

#[test]
fn f18_a_corrupt_record_poisons_the_channel_for_good_and_for_both() {
    let (mut host, mut plugin) = pair_that(WaitStrategy::SpinThenPark);
    let memory = hostile(&host);
    plugin.send(b"good").expect("sent");
    assert_eq!(host.recv().expect("received").len(), 4);
    let data = CHANNEL_DATA + ChannelOptions::default().capacity_bytes + 64;
    memory.store_u64(data + 16, u64::MAX, Ordering::Release);
    let found = host.recv().map(|m| m.len());
    assert!(matches!(found, Err(RecvError::Corrupt(Corruption::Record { .. }))), "{found:?}");
    // Repairing it does not help: the finding stays.
    memory.store_u64(data + 16, 0, Ordering::Release);
    assert_eq!(host.try_recv().map(|m| m.len()), Err(found.unwrap_err().into()));
    // The peer, were it an honest one, is told.
    let found = plugin.recv().map(|m| m.len());
    assert_eq!(found, Err(RecvError::Corrupt(Corruption::ByPeer)));
}

#[test]
fn f19_a_forged_head_poisons_the_sender() {
    let options = ChannelOptions { capacity_bytes: 4096, ..ChannelOptions::default() };
    for head in [8, 4096 * 3, u64::MAX - 7, 12] {
        let (mut host, _plugin) = Channel::pair(&options).expect("a channel");
        let memory = hostile(&host);
        // One message released for certain, so that 8 is a step back.
        while host.try_send(&[0; 100]).is_ok() {}
        memory.store_u64(ring::CONTROL[0] + ring::HEAD, 1120, Ordering::Release);
        host.try_send(&[0; 100]).expect("there is room now");
        memory.store_u64(ring::CONTROL[0] + ring::HEAD, head, Ordering::Release);
        let error = loop {
            if let Err(error) = host.send(&[0; 100]) {
                break error;
            }
        };
        let expected =
            |corruption| matches!(corruption, Corruption::Head { found, .. } if found == head);
        assert!(matches!(error, SendError::Corrupt(it) if expected(it)), "{error:?}");
        assert_eq!(host.try_send(b"x"), Err(error.into()));
    }
}

#[test]
fn f17_a_peer_that_rewrites_the_header_changes_nothing_for_who_has_attached() {
    let (mut host, mut plugin) = pair_that(WaitStrategy::SpinThenPark);
    let memory = hostile(&host);
    for word in (0..128).step_by(8) {
        memory.store_u64(word, u64::MAX, Ordering::Relaxed);
    }
    for number in 0..100_000_u64 {
        host.send_pod(&number).expect("sent");
        assert_eq!(plugin.recv_pod::<u64>(), Ok(number));
    }
    // But nobody else attaches.
    let descriptor = host.descriptor().expect("a descriptor");
    assert!(Channel::attach(descriptor, &ChannelOptions::default()).is_err());
}

#[test]
fn a_state_word_that_means_nothing_counts_as_closed() {
    let (host, _plugin) = pair_that(WaitStrategy::SpinThenPark);
    let memory = hostile(&host);
    memory.store_u32(side::LINE[1] + side::STATE, 77, Ordering::Relaxed);
    assert_eq!(host.peer_state(), PeerState::Closed);
}

#[test]
fn the_death_of_a_watched_process_ends_every_wait() {
    let mut sleeper =
        Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().expect("sleep");
    let options = ChannelOptions { capacity_bytes: 4096, ..ChannelOptions::default() };
    let (mut host, mut plugin) = Channel::pair(&options).expect("a channel");
    host.watch_peer_id(sleeper.id()).expect("watched");
    plugin.send(b"committed before the death").expect("sent");
    let (mut sender, mut receiver) = host.split();
    let full = thread::spawn(move || {
        loop {
            if let Err(error) = sender.send(&[0; 512]) {
                return error;
            }
        }
    });
    assert_eq!(receiver.recv().expect("committed").len(), 26);
    let empty = thread::spawn(move || receiver.recv().map(|m| m.len()));
    sleeper.kill().expect("killed");
    sleeper.wait().expect("reaped");
    assert_eq!(full.join().expect("no panic"), SendError::Disconnected);
    assert_eq!(empty.join().expect("no panic"), Err(RecvError::Disconnected));
}

#[test]
fn a_sender_that_is_all_that_is_left_is_told_of_the_death_too() {
    let mut sleeper =
        Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().expect("sleep");
    let (mut host, _plugin) = pair_that(WaitStrategy::Park);
    host.watch_peer_id(sleeper.id()).expect("watched");
    let (mut sender, receiver) = host.split();
    drop(receiver);
    let full = thread::spawn(move || {
        loop {
            if let Err(error) = sender.send(&[0; 512]) {
                return error;
            }
        }
    });
    sleeper.kill().expect("killed");
    sleeper.wait().expect("reaped");
    assert_eq!(full.join().expect("no panic"), SendError::Disconnected);
}
