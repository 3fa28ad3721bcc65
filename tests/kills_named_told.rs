//! How soon the survivor of a named channel is told that its peer was killed.
//!
//! The peer is a stranger: nobody has started it for the channel, and nobody was given its pidfd. Both
//! ends of the survivor sleep, one for a message and one for room. What must hold: each is told once,
//! after the kill; how soon is printed. There are a hundredth as many kills as `RINGWAY_KILLS`
//! says, and at least 200.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Instant;

use common::meeting::{NEVER, open_file, options, process};
use common::name::Name;
use common::random;
use ringway::channel::{self, Channel};
use ringway::error::{RecvError, SendError};
use ringway::layout::{ring, side};

#[test]
fn how_soon_by_pidfd() {
    kill_strangers("by pidfd", |_| {});
}

/// The line of the peer says that it lives in another pid namespace, whose numbers mean nothing here.
#[test]
fn how_soon_by_lock() {
    kill_strangers("by lock", |file| {
        let elsewhere = 1_u64.to_ne_bytes();
        file.write_all_at(&elsewhere, side::LINE[1] + side::PID_NAMESPACE).unwrap();
    });
}

/// `disguise` changes what a peer has said about itself, before the survivor looks.
fn kill_strangers(means: &str, disguise: impl Fn(&File)) {
    let kills = random::number("RINGWAY_KILLS").unwrap_or(0_usize).div_ceil(100).max(200);
    let name = Name::new("told");
    let (mut sender, mut receiver) = Channel::create(&name, &options()).unwrap().split();
    while sender.try_send(&[0; 64]).is_ok() {}
    let file = open_file(&name);
    let in_send = survivor(move || wait_for_room(&mut sender));
    let in_recv = survivor(move || wait_for_a_message(&mut receiver));
    let ends = [("send", in_send), ("recv", in_recv)];
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..kills {
        let mut victim = process(|| Channel::open(&name, &options()).unwrap());
        disguise(&file);
        ends.iter().for_each(|(_, end)| end.0.send(()).unwrap());
        let asleep =
            [ring::CONTROL[0] + ring::PRODUCER_WAITING, ring::CONTROL[1] + ring::CONSUMER_WAITING];
        let started = Instant::now();
        while asleep.iter().any(|word| read(&file, *word) == 0) {
            assert!(started.elapsed() < NEVER, "they do not sleep");
            thread::yield_now();
        }
        let killed = Instant::now();
        victim.kill();
        for ((_, end), times) in ends.iter().zip(&mut times) {
            let told = end.1.recv_timeout(NEVER).unwrap();
            assert!(told >= killed, "told before the kill");
            times.push(told - killed);
        }
    }
    for ((end, _), times) in ends.iter().zip(&mut times) {
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        let (p50, p99, most) = (at(50), at(99), at(100));
        println!(
            "killed to told in {end}, {means}: p50 {p50:?}, p99 {p99:?}, most {most:?}, of {kills}"
        );
    }
}

fn read(file: &File, offset: u64) -> u32 {
    let mut word = [0; 4];
    file.read_exact_at(&mut word, offset).unwrap();
    u32::from_ne_bytes(word)
}

/// Runs this each time it is told to, and says when it returned.
fn survivor(mut run: impl FnMut() + Send + 'static) -> (Sender<()>, Receiver<Instant>) {
    let ((go, begin), (told, when)) = (mpsc::channel(), mpsc::channel());
    thread::spawn(move || {
        while begin.recv().is_ok() {
            run();
            if told.send(Instant::now()).is_err() {
                break;
            }
        }
    });
    (go, when)
}

fn wait_for_room(sender: &mut channel::Sender) {
    loop {
        match sender.send(&[0; 64]) {
            Err(SendError::Restarted { .. }) => {}
            Err(SendError::Disconnected) => return,
            other => panic!("{other:?}"),
        }
    }
}

fn wait_for_a_message(receiver: &mut channel::Receiver) {
    loop {
        match receiver.recv() {
            Err(RecvError::Restarted { .. }) => {}
            Err(RecvError::Disconnected) => return,
            other => panic!("{other:?}"),
        }
    }
}
