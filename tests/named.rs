//! Named and file-backed channels between processes that nobody has started from another.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::name::Name;
use common::victim::Victim;
use ringway::channel::{self, Channel, ChannelOptions, Holder, PeerState, Side};
use ringway::error::{
    Error, ExitReason, NameError, RecvError, RecvTimeoutError, SegmentError, SendError,
    TryRecvError,
};

/// Longer than anything takes; reached only by a test that has failed.
const NEVER: Duration = Duration::from_secs(60);

/// Some other user.
const NOBODY: u32 = 65534;

fn options() -> ChannelOptions {
    ChannelOptions { capacity_bytes: 4096, ..ChannelOptions::default() }
}

fn side(side: Side) -> ChannelOptions {
    ChannelOptions { side: Some(side), ..options() }
}

fn create(name: &Name) -> Channel {
    Channel::create(name, &options()).unwrap()
}

fn open(name: &Name) -> Channel {
    Channel::open(name, &options()).unwrap()
}

fn name_error<T: std::fmt::Debug>(result: Result<T, SegmentError>) -> NameError {
    match result {
        Err(SegmentError::Name(error)) => error,
        other => panic!("{other:?}"),
    }
}

const RESTARTED: RecvError = RecvError::Restarted { reason: ExitReason::Unknown };

#[test]
fn two_meet_by_name_and_talk() {
    let name = Name::new("meet");
    assert!(matches!(name_error(Channel::open(&name, &options())), NameError::NotFound { .. }));
    let mut first = create(&name);
    assert_eq!(first.peer_state(), PeerState::Absent);
    first.send(b"before anybody is there").unwrap();
    let mut second = open(&name);
    assert_eq!(first.peer_state(), PeerState::Attached);
    assert_eq!(second.peer_state(), PeerState::Attached);
    first.wait_for_peer(NEVER).unwrap();
    assert_eq!(&*second.recv().unwrap(), b"before anybody is there");
    second.send(b"and back").unwrap();
    assert_eq!(&*first.recv().unwrap(), b"and back");
    drop(first);
    assert_eq!(second.recv().unwrap_err(), RecvError::Disconnected);
    assert_eq!(second.peer_state(), PeerState::Closed);
}

#[test]
fn a_side_is_for_one() {
    let name = Name::new("one");
    let first = create(&name);
    assert!(matches!(
        name_error(Channel::create(&name, &options())),
        NameError::AlreadyExists { pid, .. } if pid == std::process::id()
    ));
    assert!(matches!(
        name_error(Channel::open(&name, &side(Side::First))),
        NameError::AlreadyClaimed { side: 0, pid, .. } if pid == std::process::id()
    ));
    let second = Channel::open_or_create(&name, &options()).unwrap();
    for attempt in [Channel::open, Channel::open_or_create] {
        assert!(matches!(
            name_error(attempt(&name, &options())),
            NameError::AlreadyClaimed { side: 1, .. }
        ));
    }
    drop(first);
    let first = Channel::open_or_create(&name, &options()).unwrap();
    drop((first, second));
}

#[test]
fn either_may_come_first() {
    let name = Name::new("either");
    thread::scope(|scope| {
        let both: Vec<_> = (0..2)
            .map(|number: u8| {
                let name = &name;
                scope.spawn(move || {
                    let mut channel = Channel::open_or_create(name, &options()).unwrap();
                    channel.wait_for_peer(NEVER).unwrap();
                    channel.send(&[number]).unwrap();
                    let other = channel.recv().unwrap()[0];
                    // Not before the other has read.
                    channel.send(b"").unwrap();
                    let _ = channel.recv();
                    other
                })
            })
            .collect();
        let found: Vec<_> = both.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(found, [1, 0]);
    });
}

#[test]
fn who_opens_can_wait_for_the_channel() {
    let name = Name::new("wait");
    let soon = Channel::open_timeout(&name, &options(), Duration::from_millis(1));
    assert!(matches!(name_error(soon), NameError::NotFound { .. }));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            Channel::open_timeout(&name, &options(), NEVER).unwrap().recv_owned().unwrap()
        });
        let mut first = create(&name);
        first.send(b"there").unwrap();
        assert_eq!(&*waiting.join().unwrap(), b"there");
    });
}

/// Starts a process that runs this on its side and then waits to be killed.
fn process(run: impl FnOnce()) -> Victim {
    let mut started = [0; 2];
    // SAFETY: the array outlives the call.
    assert_eq!(unsafe { libc::pipe2(started.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    let victim = Victim::start(|| {
        run();
        // SAFETY: an open descriptor and a byte that outlives the call.
        unsafe { libc::write(started[1], [1_u8].as_ptr().cast(), 1) };
        loop {
            thread::park();
        }
    });
    let mut byte = 0_u8;
    // SAFETY: this process's own descriptor; the child keeps its copy.
    unsafe { libc::close(started[1]) };
    // SAFETY: an open descriptor and a byte that outlives the call.
    let read = unsafe { libc::read(started[0], (&raw mut byte).cast(), 1) };
    // SAFETY: as above.
    unsafe { libc::close(started[0]) };
    assert_eq!(read, 1, "the process has failed");
    victim
}

#[test]
fn a_death_is_told_after_the_last_message_and_a_successor_goes_on() {
    let name = Name::new("death");
    let mut survivor = create(&name);
    for round in 0..20_u8 {
        let victim = process(|| {
            let mut channel = open(&name);
            channel.send(&[round, 0]).unwrap();
            channel.send(&[round, 1]).unwrap();
            std::mem::forget(channel);
        });
        if round > 0 {
            assert_eq!(survivor.recv().unwrap_err(), RESTARTED);
            assert_eq!(
                survivor.send(b"not sent"),
                Err(SendError::Restarted { reason: ExitReason::Unknown })
            );
        }
        survivor.wait_for_peer(NEVER).unwrap();
        assert_eq!(&*survivor.recv().unwrap(), [round, 0]);
        drop(victim);
        assert_eq!(&*survivor.recv().unwrap(), [round, 1]);
        assert_eq!(survivor.recv().unwrap_err(), RecvError::Disconnected);
        assert_eq!(survivor.peer_state(), PeerState::Died(ExitReason::Unknown));
        assert_eq!(survivor.send(b"to nobody"), Err(SendError::Disconnected));
        let waited = survivor.wait_for_peer(Duration::from_millis(1));
        assert!(matches!(waited, Err(Error::Timeout(_))));
    }
}

#[test]
fn what_a_dead_reader_had_not_given_back_is_read_by_the_next() {
    let name = Name::new("again");
    let mut survivor = create(&name);
    for message in 0..4_u8 {
        survivor.send(&[message]).unwrap();
    }
    drop(process(|| {
        let mut channel = open(&name);
        assert_eq!(&*channel.recv().unwrap(), [0]);
        assert_eq!(&*channel.recv().unwrap(), [1]);
        std::mem::forget(channel);
    }));
    let mut next = open(&name);
    for message in 1..4_u8 {
        assert_eq!(&*next.recv().unwrap(), [message]);
    }
    next.send(b"done").unwrap();
    assert_eq!(survivor.peer_state(), PeerState::Attached);
    assert_eq!(survivor.recv().unwrap_err(), RESTARTED);
    assert_eq!(&*survivor.recv().unwrap(), b"done");
}

#[test]
fn a_blocked_survivor_is_told_of_death_and_of_the_successor() {
    let name = Name::new("blocked");
    let survivor = create(&name);
    let victim = process(|| std::mem::forget(open(&name)));
    survivor.wait_for_peer(NEVER).unwrap();
    let (mut sender, mut receiver) = survivor.split();
    while sender.try_send(&[0; 512]).is_ok() {}
    let (told, news) = mpsc::channel();
    let told_too = told.clone();
    let receiving = thread::spawn(move || {
        let tell = |receiver: &mut channel::Receiver| {
            let result = receiver.recv().map(|message| message.to_vec());
            told.send(("receiver", format!("{result:?}"))).unwrap();
        };
        tell(&mut receiver);
        while matches!(receiver.try_recv(), Err(TryRecvError::Disconnected)) {
            thread::yield_now();
        }
        (0..3).for_each(|_| tell(&mut receiver));
    });
    let sending = thread::spawn(move || {
        let result = sender.send(&[0; 2000]);
        told_too.send(("sender", format!("{result:?}"))).unwrap();
    });
    drop(victim);
    let mut first: Vec<_> = (0..2).map(|_| news.recv_timeout(NEVER).unwrap()).collect();
    first.sort();
    let gone = "Err(Disconnected)".to_string();
    assert_eq!(first, [("receiver", gone.clone()), ("sender", gone)]);
    sending.join().unwrap();
    let mut next = open(&name);
    next.send(b"1").unwrap();
    next.send(b"2").unwrap();
    drop(next);
    let rest: Vec<_> = (0..3).map(|_| news.recv_timeout(NEVER).unwrap().1).collect();
    // `Restarted` went to the call that waited for the successor.
    assert_eq!(rest, ["Ok([49])", "Ok([50])", "Err(Disconnected)"]);
    receiving.join().unwrap();
}

#[test]
fn who_closes_may_come_back() {
    let name = Name::new("back");
    let mut first = create(&name);
    let mut second = open(&name);
    second.send(b"bye").unwrap();
    drop(second);
    assert_eq!(&*first.recv().unwrap(), b"bye");
    assert_eq!(first.recv().unwrap_err(), RecvError::Disconnected);
    assert_eq!(first.send(b"gone"), Err(SendError::Disconnected));
    let mut second = open(&name);
    first.wait_for_peer(NEVER).unwrap();
    assert_eq!(first.recv().unwrap_err(), RESTARTED);
    assert!(matches!(first.send(b"not sent"), Err(SendError::Restarted { .. })));
    first.send(b"hello again").unwrap();
    assert_eq!(&*second.recv().unwrap(), b"hello again");
    second.send(b"hello").unwrap();
    assert_eq!(&*first.recv().unwrap(), b"hello");
    assert_eq!(
        first.recv_timeout(Duration::from_millis(1)).unwrap_err(),
        RecvTimeoutError::Timeout
    );
}

#[test]
fn when_both_have_left_nobody_receives_his_own_messages() {
    let name = Name::new("own");
    let (mut first, second) = (create(&name), open(&name));
    drop(second);
    let mut second = open(&name);
    assert!(matches!(first.send(b"x"), Err(SendError::Restarted { .. }) | Ok(())));
    let _ = second.recv_timeout(Duration::from_millis(1));
    first.send(b"for the second").unwrap();
    second.send(b"for the first").unwrap();
    second.send(b"and one more").unwrap();
    drop((first, second));
    let refused = name_error(Channel::open_or_create(&name, &options()));
    assert!(matches!(refused, NameError::Unread { to_first: 2, .. }), "{refused}");
    let mut first = Channel::open_or_create(&name, &side(Side::First)).unwrap();
    assert_eq!(&*first.recv().unwrap(), b"for the first");
    assert_eq!(&*first.recv().unwrap(), b"and one more");
    assert_eq!(first.recv().unwrap_err(), RecvError::Disconnected);
    let mut second = Channel::open_or_create(&name, &options()).unwrap();
    while second.try_recv().is_ok() {}
    drop((first, second));
    // Nothing is unread: whoever comes now starts afresh.
    let first = Channel::open_or_create(&name, &options()).unwrap();
    assert_eq!(first.peer_state(), PeerState::Absent);
    // A creator does not ask.
    drop(first);
    drop(create(&name));
}

#[test]
fn what_there_is_can_be_listed_and_cleared_away() {
    let (used, dead, unread) = (Name::new("used"), Name::new("dead"), Name::new("unread"));
    let _used = create(&used);
    drop(create(&dead));
    let mut left = create(&unread);
    left.send(b"to be read").unwrap();
    drop(left);
    let find = |name: &Name| {
        let listed = channel::list().unwrap().into_iter();
        listed.into_iter().find(|listed| listed.name == name.text())
    };
    let this = Holder::Process(std::process::id());
    assert_eq!(find(&used).unwrap().sides, [this, Holder::Nobody]);
    assert_eq!(find(&dead).unwrap().sides, [Holder::Nobody; 2]);
    let found = find(&unread).unwrap();
    assert_eq!((found.unread.unwrap().to_second, found.sides[0]), (1, Holder::Nobody));
    assert!(found.len_bytes > 2 * 4096);
    let ours = |name: &str| [&used, &dead, &unread].iter().any(|ours| ours.text() == name);
    let removed = channel::gc_where(ours).unwrap().removed;
    assert!(removed.contains(&format!("ringway.{}", dead.text())), "{removed:?}");
    assert!(find(&dead).is_none() && find(&used).is_some() && find(&unread).is_some());
    let refused = name_error(channel::remove(&used));
    assert!(matches!(refused, NameError::AlreadyClaimed { side: 0, .. }), "{refused}");
    channel::remove(&unread).unwrap();
    assert!(find(&unread).is_none());
    assert!(matches!(name_error(channel::remove(&unread)), NameError::NotFound { .. }));
}

/// Another user could cut the file while it is mapped.
#[test]
fn f14_another_users_segment_is_listed_and_not_looked_into() {
    let name = Name::new("theirs");
    drop(create(&name));
    let path = format!("/dev/shm/ringway.{}", name.text());
    if std::os::unix::fs::chown(&path, Some(NOBODY), None).is_err() {
        println!("skipped: files cannot be given away here");
        return;
    }
    let listed = channel::list().unwrap().into_iter().find(|found| found.name == name.text());
    let found = listed.unwrap().unread.unwrap_err();
    assert!(matches!(found, SegmentError::Name(NameError::NotOurs { .. })), "{found}");
    let removed = channel::gc_where(|chosen| chosen == name.text()).unwrap();
    assert_eq!(removed.removed, [""; 0]);
    let reason = &removed.skipped[0].reason;
    assert!(matches!(reason, SegmentError::Name(NameError::NotOurs { .. })), "{reason}");
    std::os::unix::fs::chown(&path, Some(0), None).unwrap();
}

#[test]
fn a_file_works_as_a_name_does() {
    let directory = std::env::temp_dir().join(format!("ringway-file-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("channel");
    let address = || path.clone();
    let mut first = Channel::create(address(), &options()).unwrap();
    let mut second = Channel::open(address(), &options()).unwrap();
    second.send(b"through a file").unwrap();
    drop((second, first));
    first = Channel::open(address(), &side(Side::First)).unwrap();
    let found = first.recv_owned();
    drop(first);
    let others = std::fs::read_dir(&directory).unwrap().count();
    channel::remove(address()).unwrap();
    std::fs::remove_dir(&directory).unwrap();
    assert_eq!(&*found.unwrap(), b"through a file");
    assert_eq!(others, 1, "nothing but the channel");
}
