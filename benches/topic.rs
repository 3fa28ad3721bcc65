//! What publishing costs: beside bare sends, and from a publication to its receipt.
//!
//! Run by `cargo bench --bench topic`; see `--help` behind `--`. It prints how long a publication to 1, 2
//! and 8 subscribers takes, against as many sends on bare channels, both in bursts that the rings take and
//! that are received between them; and how long a publication takes to a subscriber in another thread,
//! and the answer back, against bare channels.
//! What always holds: every publication is received, with the number that it was published with; topics
//! and bare channels take turns in every run.
#![allow(unsafe_code)]

mod common;

use std::hint::black_box;
use std::thread;
use std::time::Instant;

use comfy_table::{Table, presets};
use common::cli::Options;
use common::cpu;
use common::goals::Goals;
use common::plan::two_cpus;
use common::stats::median;
use common::table::{bytes, figure};
use ringway::channel::{Channel, ChannelOptions, Receiver, Sender};
use ringway::host::Host;
use ringway::topic::{Publisher, SubscribeOptions, Subscriber};
use ringway::wakeup::WaitStrategy;

const SIZES: [usize; 3] = [8, 64, 1 << 10];
const SUBSCRIBERS: [usize; 3] = [1, 2, 8];
const CAPACITY: u64 = 256 << 10;
/// Publications that are made in a row before they are received.
const BURST: usize = 100;
const GOAL: f64 = 1.2;

fn host() -> Host {
    Host::builder().links().build().expect("a host")
}

/// A publisher and its subscribers, in this process.
fn topic(host: &Host, subscribers: usize) -> (Publisher, Vec<Subscriber>) {
    let options = SubscribeOptions {
        capacity_bytes: CAPACITY,
        wait: WaitStrategy::Spin,
        ..SubscribeOptions::default()
    };
    let publisher = host.publisher("bench").expect("a publisher");
    let subscribe = |_| host.subscriber("bench", &options).expect("a subscriber");
    (publisher, (0..subscribers).map(subscribe).collect())
}

fn bare() -> (Sender, Receiver) {
    let options = ChannelOptions {
        capacity_bytes: CAPACITY,
        reply_capacity_bytes: Some(4096),
        wait: WaitStrategy::Spin,
        ..ChannelOptions::default()
    };
    let (near, far) = Channel::pair(&options).expect("a channel");
    (near.split().0, far.split().1)
}

/// Both at once, so that they can take turns.
struct Fan {
    publisher: Publisher,
    subscribers: Vec<Subscriber>,
    channels: Vec<(Sender, Receiver)>,
    payload: Vec<u8>,
    _host: Host,
}

impl Fan {
    fn new(subscribers: usize, size: usize) -> Self {
        let host = host();
        let (publisher, listening) = topic(&host, subscribers);
        let channels = (0..subscribers).map(|_| bare()).collect();
        Self { publisher, subscribers: listening, channels, payload: vec![1; size], _host: host }
    }

    /// Nanoseconds of a publication.
    fn publish(&mut self) -> f64 {
        let begun = Instant::now();
        for _ in 0..BURST {
            assert_eq!(publish_once(&mut self.publisher, &self.payload), self.subscribers.len());
        }
        let took = begun.elapsed();
        for subscriber in &mut self.subscribers {
            for _ in 0..BURST {
                assert_eq!(subscriber.recv().expect("a publication").lost_before(), 0);
            }
            assert!(subscriber.try_recv().is_err(), "and no more");
        }
        took.as_nanos() as f64 / BURST as f64
    }

    /// Nanoseconds of as many sends.
    fn send(&mut self) -> f64 {
        let begun = Instant::now();
        for _ in 0..BURST {
            assert_eq!(send_to_all(&mut self.channels, &self.payload), self.channels.len());
        }
        let took = begun.elapsed();
        for (_, receiver) in &mut self.channels {
            for _ in 0..BURST {
                receiver.recv().expect("a message");
            }
            assert!(receiver.try_recv().is_err(), "and no more");
        }
        took.as_nanos() as f64 / BURST as f64
    }
}

/// A call of its own, as in a program that does something else between two publications.
#[inline(never)]
fn publish_once(publisher: &mut Publisher, payload: &[u8]) -> usize {
    publisher.publish(black_box(payload)).expect("published").subscribers
}

/// The same, as a program would do it that has the channels.
#[inline(never)]
fn send_to_all(channels: &mut [(Sender, Receiver)], payload: &[u8]) -> usize {
    let payload = black_box(payload);
    for (sender, _) in channels.iter_mut() {
        sender.send(payload).expect("sent");
    }
    channels.len()
}

/// Median over the time that there is, of both in turn.
fn in_turn(millis: u64, mut one: impl FnMut() -> f64, mut other: impl FnMut() -> f64) -> [f64; 2] {
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    while ones.len() < 5 || begun.elapsed().as_millis() < u128::from(millis) {
        ones.push(one());
        others.push(other());
    }
    [median(&mut ones), median(&mut others)]
}

fn fan_out(options: &Options, goals: &mut Goals) {
    println!("## To n subscribers\n");
    println!(
        "Nanoseconds of a publication and of n bare sends; medians of {} runs, of bursts of \
         {BURST} each, rings of {}.\n",
        options.runs,
        bytes(CAPACITY as usize)
    );
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["bytes", "subscribers", "publish", "n sends", "ratio"]);
    for size in options.sizes(&SIZES, &SIZES[..1]) {
        for subscribers in SUBSCRIBERS {
            let mut runs = Vec::new();
            for _ in 0..options.runs {
                let fan = std::cell::RefCell::new(Fan::new(subscribers, size));
                let [published, sent] = in_turn(
                    options.millis,
                    || fan.borrow_mut().publish(),
                    || fan.borrow_mut().send(),
                );
                runs.push((published, sent, published / sent));
            }
            let of = |pick: fn(&(f64, f64, f64)) -> f64| {
                median(&mut runs.iter().map(pick).collect::<Vec<_>>())
            };
            let ratio = of(|run| run.2);
            table.add_row([
                bytes(size),
                subscribers.to_string(),
                figure(of(|run| run.0)),
                figure(of(|run| run.1)),
                figure(ratio),
            ]);
            goals.at_most_of(
                format!("publish to {subscribers}, by {subscribers} sends, {}", bytes(size)),
                ratio,
                GOAL,
            );
        }
    }
    println!("{table}\n");
}

/// How long it takes until `send` has reached somebody in another thread, and the answer has come back
/// on a bare channel: nanoseconds.
fn there_and_back(
    far_cpu: Option<usize>,
    millis: u64,
    mut send: impl FnMut(&[u8]),
    mut receive: impl FnMut() -> bool + Send + 'static,
) -> f64 {
    let (mut answer, mut answered) = bare();
    let thread = thread::spawn(move || {
        far_cpu.into_iter().for_each(cpu::pin);
        while receive() {
            answer.send(b"").expect("somebody waits");
        }
    });
    let mut bursts = Vec::new();
    let begun = Instant::now();
    while bursts.len() < 5 || begun.elapsed().as_millis() < u128::from(millis) {
        let begun = Instant::now();
        for _ in 0..BURST {
            send(&[1; 8]);
            answered.recv().expect("an answer");
        }
        bursts.push(begun.elapsed().as_nanos() as f64 / BURST as f64);
    }
    send(&[0; 8]);
    thread.join().expect("it has answered everything");
    median(&mut bursts)
}

fn latency(options: &Options, far_cpu: Option<usize>) {
    println!("## From a publication to its receipt\n");
    println!(
        "Nanoseconds to a thread on another processor, which spins, and back on a bare \
         channel; 8 bytes, medians of {} runs.\n",
        options.runs
    );
    let mut runs = Vec::new();
    for _ in 0..options.runs {
        let host = host();
        let (mut publisher, mut subscribers) = topic(&host, 1);
        let mut subscriber = subscribers.remove(0);
        let published = there_and_back(
            far_cpu,
            options.millis,
            |payload| {
                publisher.publish(payload).expect("published");
            },
            move || subscriber.recv().is_ok_and(|publication| *publication != [0; 8]),
        );
        let (mut sender, mut receiver) = bare();
        let sent = there_and_back(
            far_cpu,
            options.millis,
            |payload| sender.send(payload).expect("sent"),
            move || receiver.recv().is_ok_and(|message| *message != [0; 8]),
        );
        runs.push((published, sent, published / sent));
    }
    let of =
        |pick: fn(&(f64, f64, f64)) -> f64| median(&mut runs.iter().map(pick).collect::<Vec<_>>());
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["publication and answer", "message and answer", "ratio"]);
    table.add_row([of(|run| run.0), of(|run| run.1), of(|run| run.2)].map(figure));
    println!("{table}\n");
}

fn main() {
    let options = Options::from_command_line();
    println!("# Topics\n");
    let (first, second) = two_cpus();
    cpu::pin(first);
    let mut goals = Goals::default();
    fan_out(&options, &mut goals);
    match second {
        Some(_) => latency(&options, second),
        None => println!("skipped: latency: this process may run on one processor only"),
    }
    goals.print();
}
