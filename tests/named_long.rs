//! Long messages, calls and replies in one named segment whose processes are killed and succeeded.
//!
//! One process survives each test; the other one, on either side, is killed with SIGKILL at random
//! instants and attached again. Messages of up to 1 MiB go through rings of 64 KiB, so that most deaths
//! come in the middle of one.
//!
//! There are a fiftieth as many deaths for each test and side as `RINGWAY_KILLS` says, 40 unless it is
//! set; `RINGWAY_SEED` replays the choices.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use common::meeting::{NEVER, Signal};
use common::name::Name;
use common::random::{self, Random, mix};
use common::victim::Victim;
use ringway::channel::{Channel, ChannelOptions, PendingCall, Side};
use ringway::error::{CallError, RecvError, SendError};
use ringway::layout::CHANNEL_DATA;
use ringway::memory::{FenceMode, MappedMemory, Memory, Ordering};
use ringway::segment::{AnonymousSegment, ChannelGeometry};

const RING_BYTES: u64 = 64 << 10;

fn options(side: usize) -> ChannelOptions {
    let side = Some([Side::First, Side::Second][side]);
    ChannelOptions { capacity_bytes: RING_BYTES, side, ..ChannelOptions::default() }
}

/// One in four fits in a record.
fn is_long(number: u64) -> bool {
    !number.is_multiple_of(4)
}

/// Length and content follow from the number.
fn message(number: u64) -> Vec<u8> {
    let len = match is_long(number) {
        true => (1 << 20) - mix(number) % 10_000,
        false => 8 + mix(number) % 1000,
    };
    content(number, len)
}

/// The number, and something that goes with it: a stretch of the same long noise from somewhere on.
fn content(number: u64, len: u64) -> Vec<u8> {
    static NOISE: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..150_000).flat_map(|at| mix(at).to_ne_bytes()).collect());
    let from = (mix(number) % 100_000) as usize;
    let mut bytes = number.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&NOISE[from..][..len as usize - 8]);
    bytes
}

/// The number of a message, which must be whole.
fn number_of(bytes: &[u8]) -> Option<u64> {
    let number = u64::from_ne_bytes(*bytes.first_chunk()?);
    (bytes == message(number)).then_some(number)
}

/// Words that the processes share beside the channel.
struct Beside(MappedMemory, #[allow(dead_code, reason = "keeps the mapping")] AnonymousSegment);

/// Which word.
#[derive(Clone, Copy)]
enum Word {
    /// What the mortal side has done so far.
    Done,
    /// The first number of the current life.
    First,
    /// What is wrong, and at which number.
    Wrong,
}

impl Beside {
    fn new() -> Self {
        let geometry = ChannelGeometry::records([4096, 64], 8, FenceMode::Real);
        let segment = AnonymousSegment::create(&geometry).unwrap();
        Self(segment.memory().clone(), segment)
    }

    fn get(&self, word: Word) -> u64 {
        self.0.load_u64(CHANNEL_DATA + 8 * word as u64, Ordering::Acquire)
    }

    fn set(&self, word: Word, value: u64) {
        self.0.store_u64(CHANNEL_DATA + 8 * word as u64, value, Ordering::Release);
    }

    /// What a forked process needs: else it reports and ends at once, before it is killed.
    fn need<T>(&self, found: Option<T>, what: u64) -> T {
        found.unwrap_or_else(|| {
            self.set(Word::Wrong, what);
            // SAFETY: the call takes a number and does not return.
            unsafe { libc::_exit(1) }
        })
    }
}

/// What happens to one side over and over, while the other one lives.
struct Deaths {
    name: Name,
    mortal: usize,
    random: Random,
    left: u64,
}

impl Deaths {
    /// The survivor's side is made first.
    fn of(mortal: usize) -> (Self, Channel) {
        let name = Name::new("long");
        let survivor = Channel::create(&name, &options(1 - mortal)).unwrap();
        let left = random::number("RINGWAY_KILLS").unwrap_or(2_000_u64).div_ceil(50);
        // Before anybody is forked.
        drop(message(0));
        (Self { name, mortal, random: Random::new(random::seed()), left }, survivor)
    }

    fn open(&self) -> Channel {
        Channel::open(&self.name, &options(self.mortal)).unwrap()
    }

    /// A process attaches and lives for a moment; meanwhile `survive` runs here. False when there were enough.
    fn next(
        &mut self,
        beside: &Beside,
        live: impl FnOnce(Channel),
        survive: impl FnOnce(),
    ) -> bool {
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        let attached = Signal::new();
        let mut victim = Victim::start(|| {
            let channel = self.open();
            attached.give();
            live(channel);
        });
        attached.wait();
        // Not to wait for anything, but to kill at another instant each time.
        let life = Duration::from_nanos(self.random.below(15_000_000));
        let status = thread::scope(|scope| {
            let killing = scope.spawn(move || {
                thread::sleep(life);
                victim.kill();
                victim.wait()
            });
            survive();
            killing.join().unwrap()
        });
        assert_eq!(beside.get(Word::Wrong), 0, "what the process has found");
        assert!(libc::WIFSIGNALED(status), "the process has failed: {status:#x}");
        true
    }
}

#[test]
fn f43_a_sender_dies_midway_and_the_next_message_is_its_successors() {
    for mortal in [0, 1] {
        let (mut deaths, mut survivor) = Deaths::of(mortal);
        let beside = Beside::new();
        let (mut life, mut messages, mut told) = (0_u64, 0, 0);
        let mut attached_before = false;
        loop {
            let first = life << 20;
            beside.set(Word::Done, first);
            let mut expected = first;
            let goes_on = deaths.next(
                &beside,
                |mut channel| {
                    for number in first.. {
                        beside.need(channel.send(&message(number)).ok(), number);
                        beside.set(Word::Done, number + 1);
                    }
                },
                || {
                    loop {
                        match survivor.recv() {
                            Ok(message) => {
                                assert_eq!(number_of(&message), Some(expected));
                                expected += 1;
                            }
                            Err(RecvError::Restarted { .. }) => {
                                assert!(attached_before && expected == first);
                                told += 1;
                            }
                            Err(RecvError::Disconnected) => break,
                            Err(error) => panic!("{error}"),
                        }
                    }
                },
            );
            if !goes_on {
                break;
            }
            let certain = beside.get(Word::Done);
            assert!(expected == certain || expected == certain + 1, "{expected} of {certain}");
            messages += expected - first;
            attached_before = true;
            life += 1;
        }
        let partial = survivor.receiver().stats().dropped_partial;
        println!("{life} senders killed, {partial} midway, {messages} messages whole");
        assert_eq!(told, life - 1);
        assert!(partial > 0 && messages > 0);
    }
}

#[test]
fn f43_a_receiver_dies_midway_and_its_successor_gets_the_next_one_whole() {
    for mortal in [0, 1] {
        let (mut deaths, mut survivor) = Deaths::of(mortal);
        let beside = Beside::new();
        let (mut number, mut killed, mut told) = (0, 0, 0);
        let (mut skipped, mut again, mut lives) = (0, 0, 0);
        loop {
            let before = beside.get(Word::Done);
            beside.set(Word::First, u64::MAX);
            let goes_on = deaths.next(
                &beside,
                |mut channel| {
                    let mut expected = None;
                    loop {
                        let message = channel.recv().ok();
                        let found = message.and_then(|message| number_of(&message));
                        let found = beside.need(found, u64::MAX);
                        let fits = expected.is_none_or(|expected| expected == found);
                        beside.need(fits.then_some(()), found);
                        if expected.is_none() {
                            beside.set(Word::First, found);
                        }
                        expected = Some(found + 1);
                        beside.set(Word::Done, found + 1);
                    }
                },
                || {
                    loop {
                        match survivor.send(&message(number)) {
                            Ok(()) => number += 1,
                            Err(SendError::Restarted { .. }) => told += 1,
                            Err(SendError::Disconnected) => break,
                            Err(error) => panic!("{error}"),
                        }
                    }
                },
            );
            if !goes_on {
                break;
            }
            killed += 1;
            lives += 1;
            let first = beside.get(Word::First);
            if first == u64::MAX {
                assert_eq!(beside.get(Word::Done), before);
                continue;
            }
            // Of each that died, one message that it had begun to give back is nobody's; one that it
            // had received and not given back comes again.
            match first.checked_sub(before) {
                Some(lost) if lost <= lives && (before..first).all(is_long) => skipped += lost,
                None if first + 1 == before && !is_long(first) => again += 1,
                _ => panic!("{first} after {before}, {lives} deaths"),
            }
            lives = 0;
        }
        println!("{killed} receivers killed, {number} messages, {skipped} lost, {again} again");
        assert_eq!(told, killed - 1);
        assert!((1..=number).contains(&beside.get(Word::Done)));
    }
}

/// A question says which one it is, and how long its answer shall be.
fn question(number: u64, len: u64, answer_len: u64) -> Vec<u8> {
    let mut bytes = content(number, 16 + len);
    bytes[8..16].copy_from_slice(&answer_len.to_ne_bytes());
    bytes
}

fn answer(question: &[u8]) -> Vec<u8> {
    let word = |at: usize| u64::from_ne_bytes(question[8 * at..][..8].try_into().unwrap());
    content(mix(word(0)), 8 + word(1))
}

#[test]
fn f43_a_caller_dies_and_its_successor_takes_no_reply_to_it_for_its_own() {
    for mortal in [0, 1] {
        let (mut deaths, mut survivor) = Deaths::of(mortal);
        let beside = Beside::new();
        let (mut life, mut told, mut replies) = (0_u64, 0, 0);
        loop {
            let goes_on = deaths.next(
                &beside,
                |mut channel| {
                    for round in 1.. {
                        // Long ones and short ones, three at once.
                        let ask = |at: u64| {
                            let number = life << 32 | round << 2 | at;
                            let len = |is_long| mix(number) % if is_long { 400_000 } else { 100 };
                            question(number, len(at == 1), len(at == 2))
                        };
                        let questions = [0, 1, 2].map(ask);
                        let calls = questions.each_ref().map(|question| {
                            beside.need(channel.begin_call(question).ok(), u64::MAX)
                        });
                        for (call, question) in calls.iter().zip(&questions).rev() {
                            let reply = channel.finish_call(call, NEVER).ok();
                            let fits = reply.map(|reply| *reply == answer(question));
                            beside.need(fits.filter(|fits| *fits), round);
                            beside.set(Word::Done, beside.get(Word::Done) + 1);
                        }
                    }
                },
                || answer_until_nobody_asks(&mut survivor, &mut replies, &mut told),
            );
            if !goes_on {
                break;
            }
            life += 1;
        }
        let mut last = deaths.open();
        last.recv_timeout(Duration::ZERO).unwrap_err();
        let strays = last.receiver().stats().dropped_replies;
        let finished = beside.get(Word::Done);
        println!(
            "{life} callers killed, {replies} replies, {finished} finished, {strays} to the dead"
        );
        assert!(finished > 0 && strays > 0 && told > 0);
    }
}

fn answer_until_nobody_asks(survivor: &mut Channel, replies: &mut u64, told: &mut u64) {
    loop {
        let (call, answer) = match survivor.recv() {
            Ok(message) => (message.call().expect("a call"), answer(&message)),
            Err(RecvError::Restarted { .. }) => {
                *told += 1;
                continue;
            }
            Err(RecvError::Disconnected) => return,
            Err(error) => panic!("{error}"),
        };
        // To whom had asked, or to whoever has come since.
        loop {
            match survivor.reply(call, &answer) {
                Ok(()) => *replies += 1,
                Err(SendError::Restarted { .. }) => continue,
                Err(SendError::Disconnected) => {}
                Err(error) => panic!("{error}"),
            }
            break;
        }
    }
}

#[test]
fn f43_a_callee_dies_and_its_successor_answers_what_it_had_not() {
    for mortal in [0, 1] {
        let (mut deaths, mut survivor) = Deaths::of(mortal);
        let (mut killed, mut told, mut number, mut answered) = (0_u64, 0, 0, 0);
        let mut open: Vec<(PendingCall, Vec<u8>)> = Vec::new();
        let beside = Beside::new();
        let mut call = |survivor: &mut Channel, goes_on: bool| {
            loop {
                // Short questions, each of which one record holds; every other answer is long.
                while goes_on && open.len() < 4 {
                    let longest = [100, 400_000][number as usize % 2];
                    let question = question(number, 100, mix(number) % longest);
                    match survivor.begin_call(&question) {
                        Ok(call) => open.push((call, question)),
                        Err(SendError::Restarted { .. }) => continue,
                        Err(SendError::Disconnected) => return,
                        Err(error) => panic!("{error}"),
                    }
                    number += 1;
                }
                let Some((call, question)) = open.first() else { return };
                match survivor.finish_call(call, NEVER) {
                    Ok(reply) => {
                        assert!(*reply == answer(question), "{answered}");
                        answered += 1;
                        drop(open.remove(0));
                    }
                    Err(CallError::Restarted { .. }) => told += 1,
                    Err(CallError::Disconnected) => return,
                    Err(error) => panic!("{error} after {answered} answers"),
                }
            }
        };
        while deaths.next(&beside, serve, || call(&mut survivor, true)) {
            killed += 1;
        }
        // The last one answers the rest.
        thread::scope(|scope| {
            let last = deaths.open();
            scope.spawn(|| serve(last));
            call(&mut survivor, false);
            drop(survivor);
        });
        println!("{killed} callees killed, all of {answered} calls answered, {told} restarts told");
        assert!(told > 0 && answered > 0 && number == answered && open.is_empty());
    }
}

fn serve(mut channel: Channel) {
    while let Ok(question) = channel.recv_owned() {
        let Ok(()) = channel.reply(question.call().expect("a call"), &answer(&question)) else {
            return;
        };
    }
}
