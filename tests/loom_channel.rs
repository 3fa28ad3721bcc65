//! Models of the channel's own ends: close, death and hand-over against sends and receives.
//!
//! Waits have no timeout here, so that whoever is not woken is a deadlock, which loom reports. Run
//! with `RUSTFLAGS="--cfg loom" cargo test --release --test loom_channel`;
//! `LOOM_MAX_PREEMPTIONS=2` bounds the work.
#![cfg(loom)]

use loom::thread;
use ringway::channel::model::{Side, pair, strangers};
use ringway::error::{ExitReason, RecvError, SendError, TryRecvError};

const KILLED: ExitReason = ExitReason::Signal(9);

/// Fails when `close_end` does not wake, or closes before the last record is committed.
#[test]
fn a_sleeping_receiver_gets_what_was_sent_and_then_the_end() {
    loom::model(|| {
        let [near, far] = pair(64);
        let Side { mut sender, receiver: _keep, .. } = near;
        let Side { mut receiver, sender: _far, .. } = far;
        let sending = thread::spawn(move || {
            sender.send(&[1; 8]).expect("room");
            drop(sender);
        });
        assert_eq!(&*receiver.recv().expect("sent before the end"), &[1; 8]);
        assert_eq!(receiver.recv().unwrap_err(), RecvError::Disconnected);
        sending.join().expect("joined");
    });
}

/// Fails when the receiver does not look for a waiting sender after a release, or sleeps before it
/// has given back what it took, or when the sender does not wake it.
#[test]
fn both_ends_sleep_in_turn() {
    loom::model(|| {
        let [near, far] = pair(64);
        let Side { mut sender, receiver: _keep, .. } = near;
        let Side { mut receiver, sender: _far, .. } = far;
        let sending = thread::spawn(move || {
            sender.send(&[1; 24]).expect("room");
            sender.send(&[2; 24]).expect("room, once the first is given back");
            sender
        });
        for expected in 1..3 {
            assert_eq!(&*receiver.recv().expect("sent"), &[expected; 24]);
        }
        drop(sending.join().expect("joined"));
    });
}

/// A sender that waits for more room than one release gives is woken when there is enough. Fails
/// when the sender does not say how much it needs, or the receiver leaves out the fence between its
/// release and its look for a sleeper.
#[test]
fn a_sender_that_waits_for_several_releases_is_woken() {
    loom::model(|| {
        let [near, far] = pair(64);
        let Side { mut sender, receiver: _keep, .. } = near;
        let Side { mut receiver, sender: _far, .. } = far;
        for n in 0..3 {
            sender.send(&[n; 8]).expect("room");
        }
        let sending = thread::spawn(move || {
            sender.send(&[3; 24]).expect("room, once two are given back");
            sender
        });
        for n in 0..3 {
            assert_eq!(&*receiver.recv().expect("sent"), &[n; 8]);
        }
        assert_eq!(&*receiver.recv().expect("sent"), &[3; 24]);
        drop(sending.join().expect("joined"));
    });
}

/// Fails when a closing receiver does not wake the sender, or the sender does not look.
#[test]
fn a_sender_that_waits_for_room_is_told_that_the_receiver_has_closed() {
    loom::model(|| {
        let [near, far] = pair(64);
        let Side { mut sender, receiver: _keep, .. } = near;
        let Side { receiver, sender: _far, .. } = far;
        sender.send(&[1; 24]).expect("room");
        let closing = thread::spawn(move || drop(receiver));
        assert_eq!(sender.send(&[2; 24]).unwrap_err(), SendError::Disconnected);
        closing.join().expect("joined");
    });
}

/// Fails when `peer_died` does not fence or wake, or the receiver does not look at the peer's state
/// between announcing itself and sleeping.
#[test]
fn a_death_wakes_a_sleeping_receiver() {
    loom::model(|| {
        let [near, far] = pair(64);
        let handle = near.handle();
        let Side { mut receiver, sender: _keep, .. } = near;
        let mut far = far;
        let dying = thread::spawn(move || {
            far.sender.send(&[3; 8]).expect("room");
            far.forget();
            handle.peer_died(false);
        });
        assert_eq!(&*receiver.recv().expect("committed before the death"), &[3; 8]);
        assert_eq!(receiver.recv().unwrap_err(), RecvError::Disconnected);
        dying.join().expect("joined");
    });
}

/// As above, for the sender.
#[test]
fn a_death_wakes_a_sender_that_waits_for_room() {
    loom::model(|| {
        let [near, far] = pair(64);
        let handle = near.handle();
        let Side { mut sender, receiver: _keep, .. } = near;
        far.forget();
        sender.send(&[1; 24]).expect("room");
        let dying = thread::spawn(move || handle.peer_died(false));
        assert_eq!(sender.send(&[2; 24]).unwrap_err(), SendError::Disconnected);
        dying.join().expect("joined");
    });
}

/// Whatever a sender commits while its channel is handed over arrives once, in order, in the new
/// incarnation. Fails when the sender does not look for a hand-over after its commit, when
/// `succeed` copies before it announces itself, or when either leaves its fence out.
#[test]
fn what_is_sent_during_a_hand_over_arrives_once_and_in_order() {
    loom::model(|| {
        let [near, far] = pair(64);
        let [new_near, new_far] = pair(64);
        let old = near.handle();
        let Side { mut sender, receiver: _keep, .. } = near;
        far.forget();
        old.peer_died(true);
        sender.send(&[0; 8]).expect("room");
        let host = thread::spawn(move || {
            let new = new_near.forget();
            old.succeed(&new)
        });
        let mut sent = 1;
        if sender.send(&[1; 8]) != Err(SendError::Restarted { reason: KILLED }) {
            sent += 1;
        }
        host.join().expect("joined");
        let Side { mut receiver, sender: _far, .. } = new_far;
        for expected in 0..sent {
            let found = receiver.try_recv().expect("carried over or sent there");
            assert_eq!(&*found, &[expected; 8]);
        }
        assert!(receiver.try_recv().is_err(), "nothing twice");
    });
}

/// A receiver that sleeps when its channel is handed over is told once, and then reads what the
/// dead peer had committed, and then the new one's.
#[test]
fn a_sleeping_receiver_follows_a_hand_over() {
    loom::model(|| {
        let [near, mut far] = pair(64);
        let [new_near, mut new_far] = pair(64);
        let old = near.handle();
        let Side { mut receiver, sender: _keep, .. } = near;
        far.sender.send(&[0; 8]).expect("room");
        far.forget();
        let host = thread::spawn(move || {
            old.peer_died(true);
            let new = new_near.forget();
            old.succeed(&new);
            new_far.sender.send(&[1; 8]).expect("room");
            new_far.forget();
        });
        let mut told = 0;
        let mut found = Vec::new();
        while found.len() < 2 {
            match receiver.recv() {
                Ok(message) => found.push(message[0]),
                Err(RecvError::Restarted { reason }) => {
                    assert_eq!(reason, KILLED);
                    told += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((found, told), (vec![0, 1], 1));
        host.join().expect("joined");
    });
}

const SUCCEEDED: RecvError = RecvError::Restarted { reason: ExitReason::Unknown };

/// A process dies, another takes its side, and only then is the death told: the survivor goes on with
/// the second one. Fails when a death counts for whoever has the place, or a successor does not wake.
#[test]
fn a_death_that_is_told_late_does_not_harm_the_successor() {
    loom::model(|| {
        let (near, place, kernel) = strangers(64);
        let Side { mut sender, mut receiver, .. } = near;
        place.attach().forget();
        near_looks(&mut receiver);
        let late = kernel.clone();
        let telling = thread::spawn(move || late.tell(1));
        let succeeding = thread::spawn(move || {
            let mut next = place.attach();
            next.sender.send(&[2; 8]).expect("room");
            next
        });
        let mut told = 0;
        let message = loop {
            match receiver.recv() {
                Ok(message) => break message[0],
                Err(SUCCEEDED) => told += 1,
                Err(RecvError::Disconnected) => thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        let mut next = succeeding.join().expect("joined");
        telling.join().expect("joined");
        told += usize::from(receiver.try_recv().err() == Some(SUCCEEDED.into()));
        assert_eq!((message, told), (2, 1));
        assert!(receiver.try_recv().err() == Some(TryRecvError::Empty), "it lives");
        let restarted = SendError::Restarted { reason: ExitReason::Unknown };
        assert_eq!(sender.send(&[3; 8]), Err(restarted));
        sender.send(&[3; 8]).expect("it lives");
        assert_eq!(&*next.receiver.recv().expect("sent"), &[3; 8]);
    });
}

/// Makes the first process known to the survivor.
fn near_looks(receiver: &mut ringway::channel::Receiver<ringway::memory::ModelMemory>) {
    assert!(receiver.try_recv().err() == Some(TryRecvError::Empty));
}

/// The successor of one whose death nobody has noticed sends, and dies as well: its message arrives,
/// and then the end. Fails when the death of one that is not watched yet gets lost.
#[test]
fn a_successor_that_dies_too_is_noticed() {
    loom::model(|| {
        let (near, place, kernel) = strangers(64);
        let Side { mut receiver, sender: _keep, .. } = near;
        place.attach().forget();
        near_looks(&mut receiver);
        let dying = thread::spawn(move || {
            let mut next = place.attach();
            next.sender.send(&[2; 8]).expect("room");
            next.forget();
            kernel.kill(2);
        });
        let (mut told, mut found) = (0, 0);
        loop {
            match receiver.recv() {
                Ok(message) => found += message[0],
                Err(SUCCEEDED) => told += 1,
                Err(RecvError::Disconnected) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((found, told), (2, 1));
        dying.join().expect("joined");
    });
}

/// A sender that waits for the room which a dead receiver does not make is told of the successor, and
/// then gets the room from it.
#[test]
fn a_sender_that_waits_for_room_goes_on_with_the_successor() {
    loom::model(|| {
        let (near, place, _kernel) = strangers(64);
        let Side { mut sender, receiver: _keep, .. } = near;
        place.attach().forget();
        assert!(sender.send(&[1; 24]).is_ok());
        let succeeding = thread::spawn(move || {
            let mut next = place.attach();
            assert_eq!(&*next.receiver.recv().expect("not given back"), &[1; 24]);
            assert_eq!(&*next.receiver.recv().expect("sent"), &[2; 24]);
            next
        });
        let mut result = sender.send(&[2; 24]);
        if result == Err(SendError::Restarted { reason: ExitReason::Unknown }) {
            result = sender.send(&[2; 24]);
        }
        assert_eq!(result, Ok(()));
        drop(succeeding.join().expect("joined"));
    });
}
