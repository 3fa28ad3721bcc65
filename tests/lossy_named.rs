//! Lossy channels with a name: meeting, dying, coming again; killed with SIGKILL at random instants.
//!
//! What must hold: every message that is received is whole and numbered, numbers only grow and are
//! never used twice, and received and lost ones add up. There are a fiftieth as many deaths as
//! `RINGWAY_KILLS` says, 40 unless it is set; `RINGWAY_SEED` replays the choices.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::thread;
use std::time::Duration;

use common::meeting::{NEVER, Signal, name_error, process};
use common::name::Name;
use common::random::{self, Random, mix};
use common::victim::Victim;
use ringway::channel::{
    Channel, ChannelOptions, LossyChannel, LossyMessage, LossyOptions, LossyReceiver, LossySender,
};
use ringway::error::{LossyTryRecvError, NameError, RecvError, SegmentError, SendError};
use ringway::layout::CHANNEL_DATA;
use ringway::memory::{FenceMode, Memory, Ordering};
use ringway::segment::{AnonymousSegment, ChannelGeometry};

fn options() -> LossyOptions {
    LossyOptions { capacity_bytes: 4096, ..LossyOptions::default() }
}

fn sender(name: &Name) -> LossySender {
    LossyChannel::open_or_create(name, &options()).unwrap().into_end()
}

fn receiver(name: &Name) -> LossyReceiver {
    LossyChannel::open_or_create(name, &options()).unwrap().into_end()
}

#[test]
fn either_comes_first_and_each_has_its_side() {
    let name = Name::new("lossy");
    let missing = LossyChannel::<LossySender>::open(&name, &options());
    assert!(matches!(name_error(missing), NameError::NotFound { .. }));
    let mut second = receiver(&name);
    let taken = LossyChannel::<LossyReceiver>::open(&name, &options());
    assert!(matches!(name_error(taken), NameError::AlreadyClaimed { side: 1, .. }));
    let taken = LossyChannel::<LossySender>::create(&name, &options());
    assert!(matches!(name_error(taken), NameError::AlreadyExists { .. }));
    assert!(matches!(second.try_recv(), Err(LossyTryRecvError::Empty)));
    let mut first = LossyChannel::<LossySender>::open_timeout(&name, &options(), NEVER).unwrap();
    assert!(matches!(first.descriptor(), Err(SegmentError::NotMemory { .. })));
    first.end().send(b"one").unwrap();
    assert_eq!(&*second.recv().unwrap(), b"one");
    drop(first);
    assert_eq!(second.recv().unwrap_err(), RecvError::Disconnected);
    let mut first = sender(&name);
    first.send(b"two").unwrap();
    // Nobody had died, so nobody had looked.
    assert_eq!(second.recv().map(|message| message.number()), Ok(1));
    let told = second.try_recv();
    assert!(matches!(told, Err(LossyTryRecvError::Ended(RecvError::Restarted { .. }))), "{told:?}");
    assert!(matches!(second.try_recv(), Err(LossyTryRecvError::Empty)));
    drop((first, second));
    let other = Channel::open(&name, &ChannelOptions::default());
    assert!(matches!(other, Err(SegmentError::Incompatible { field: "kind of ring", .. })));
}

#[test]
fn a_sleeping_receiver_is_told_of_a_death_and_of_a_successor() {
    const SENT: u64 = 1000;
    let name = Name::new("lossy-told");
    let mut survivor = receiver(&name);
    for round in 0..10 {
        let victim = process(|| {
            let mut sender = sender(&name);
            // More than the ring holds, and than the former one had announced to overwrite.
            (0..SENT).for_each(|_| sender.send(b"before").unwrap());
            sender
        });
        if round > 0 {
            assert!(matches!(survivor.recv(), Err(RecvError::Restarted { .. })));
        }
        while survivor.recv_timeout(NEVER).unwrap().number() != (round + 1) * SENT - 1 {}
        let waiting = thread::spawn(move || {
            let told = survivor.recv().map(|message| message.number());
            (survivor, told)
        });
        drop(victim);
        let (back, told) = waiting.join().unwrap();
        assert_eq!(told, Err(RecvError::Disconnected));
        survivor = back;
    }
}

#[test]
fn a_sender_is_told_of_a_death_and_of_a_successor() {
    let name = Name::new("lossy-sender");
    let mut survivor = sender(&name);
    for round in 0..10 {
        // A receiver that is there before the death of the former one is known is a successor too.
        let victim = process(|| receiver(&name));
        if round > 0 {
            assert!(matches!(survivor.send(b"not sent"), Err(SendError::Restarted { .. })));
        }
        survivor.send(b"sent").unwrap();
        drop(victim);
        if round % 2 == 0 {
            while survivor.send(b"sent").is_ok() {
                thread::yield_now();
            }
            assert_eq!(survivor.send(b"to nobody"), Err(SendError::Disconnected));
        }
    }
}

/// What a message with this number says.
fn content(number: u64) -> Vec<u8> {
    (0..1 + mix(number) % 40).flat_map(|at| mix(number ^ at << 50).to_ne_bytes()).collect()
}

/// Whether a message is what was sent under its number; notes the number that must come next.
fn fits(message: &LossyMessage<'_>, next: &mut u64) -> bool {
    let fits = *next + message.lost_before() == message.number()
        && message.bytes() == content(message.number());
    *next = message.number() + 1;
    fits
}

/// Lives for a moment; what it must not find wrong it says by its exit status.
fn live_for_a_moment(random: &mut Random, live: impl FnOnce(&Signal), survive: impl FnOnce()) {
    let attached = Signal::new();
    let mut victim = Victim::start(|| live(&attached));
    attached.wait();
    // Not to wait for anything, but to kill at another instant each time.
    let life = Duration::from_nanos(random.below(3_000_000));
    let status = thread::scope(|scope| {
        let killing = scope.spawn(move || {
            thread::sleep(life);
            victim.kill();
            victim.wait()
        });
        survive();
        killing.join().unwrap()
    });
    assert!(libc::WIFSIGNALED(status), "the process has failed: {status:#x}");
}

/// Without a word: this is a forked process, and it must end before it is killed.
fn end() -> ! {
    // SAFETY: the call takes a number and does not return.
    unsafe { libc::_exit(1) }
}

fn deaths() -> u64 {
    random::number("RINGWAY_KILLS").unwrap_or(2_000_u64).div_ceil(50)
}

#[test]
fn senders_killed_at_random_leave_whole_messages_with_numbers_of_their_own() {
    let (name, mut random) = (Name::new("lossy-senders"), Random::new(random::seed()));
    let mut survivor = receiver(&name);
    let (mut next, mut told) = (0, 0);
    for _ in 0..deaths() {
        let live = |attached: &Signal| {
            let mut sender = sender(&name);
            attached.give();
            loop {
                let number = sender.stats().sent;
                if sender.send(&content(number)).is_err() {
                    end();
                }
            }
        };
        live_for_a_moment(&mut random, live, || {
            loop {
                match survivor.recv() {
                    Ok(message) => assert!(fits(&message, &mut next), "before {next}"),
                    Err(RecvError::Restarted { .. }) => told += 1,
                    Err(RecvError::Disconnected) => break,
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    let stats = survivor.stats();
    println!("{} senders killed: {} received, {} lost", deaths(), stats.received, stats.lost);
    assert_eq!((stats.received + stats.lost, told), (next, deaths() - 1));
    assert!(stats.received > 0);
}

#[test]
fn receivers_killed_at_random_go_on_where_the_last_one_had_settled() {
    let (name, mut random) = (Name::new("lossy-receivers"), Random::new(random::seed()));
    let beside =
        AnonymousSegment::create(&ChannelGeometry::records([4096, 64], 8, FenceMode::Real))
            .unwrap();
    let seen = beside.memory();
    let mut survivor = sender(&name);
    let mut told = 0;
    for _ in 0..deaths() {
        let live = |attached: &Signal| {
            let mut receiver = receiver(&name);
            // What the former one had taken last it may not have settled.
            let stats = receiver.stats();
            let (mut next, before) =
                (stats.received + stats.lost, seen.load_u64(CHANNEL_DATA, Ordering::Acquire));
            if next != before && next + 1 != before {
                end();
            }
            attached.give();
            while let Ok(message) = receiver.recv() {
                if !fits(&message, &mut next) {
                    end();
                }
                seen.store_u64(CHANNEL_DATA, next, Ordering::Release);
            }
            end();
        };
        live_for_a_moment(&mut random, live, || {
            loop {
                match survivor.send(&content(survivor.stats().sent)) {
                    Ok(()) => {}
                    Err(SendError::Restarted { .. }) => told += 1,
                    Err(SendError::Disconnected) => break,
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    let stats = survivor.stats();
    println!("{} receivers killed: {} sent, {} lost", deaths(), stats.sent, stats.lost);
    assert_eq!(stats.sent, stats.taken + stats.lost + stats.unread);
    assert_eq!(told, deaths() - 1);
    assert!(seen.load_u64(CHANNEL_DATA, Ordering::Acquire) > 0);
}
