//! Publishers and subscribers over channels of this process, linked by hand.
//!
//! `beside`: the store and callbacks; `bounds`: what waiting and links cost; `rules`: who keeps to none, and
//! types.

mod beside;
mod bounds;
mod rules;

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use super::queue::ENTRY_BYTES;
use super::*;
use crate::channel::{Channel, ChannelOptions};

const SOON: Duration = Duration::from_millis(20);
const NEVER: Duration = Duration::from_secs(60);

fn publisher() -> Publisher {
    Publisher::new(&PublishOptions::default(), 0).unwrap()
}

fn subscriber(backpressure: BackpressurePolicy) -> Subscriber {
    let options = SubscribeOptions { backpressure, ..SubscribeOptions::default() };
    Subscriber::new(&options, 0, None).unwrap()
}

/// What whoever links processes does.
fn link_with(
    link: u64,
    publisher: &NewSubscribers,
    subscriber: &NewPublishers,
    capacity_bytes: u64,
) {
    let options = ChannelOptions { capacity_bytes, max_message_bytes: 8192, ..Default::default() };
    let (near, far) = Channel::pair(&options).unwrap();
    let arrival = |channel, note| {
        let plugin = format!("plugin {link}");
        Arrival { link, channel, plugin, note }
    };
    subscriber.add(arrival(far, publisher.note().to_bytes()));
    publisher.add(arrival(near, subscriber.note().to_bytes()));
}

fn link(link: u64, publisher: &Publisher, subscriber: &Subscriber) {
    link_with(link, publisher.arrivals(), subscriber.arrivals(), 1024);
}

fn pair(backpressure: BackpressurePolicy) -> (Publisher, Subscriber) {
    let (publisher, mut subscriber) = (publisher(), subscriber(backpressure));
    link(1, &publisher, &subscriber);
    subscriber.settle(NEVER);
    (publisher, subscriber)
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_ne_bytes(bytes.try_into().expect("eight bytes"))
}

/// Receives all that is there; the payloads, which are their numbers. What is lost is where it is said to
/// be.
fn drain(subscriber: &mut Subscriber, expected: &mut u64) -> Vec<u64> {
    let mut all = Vec::new();
    while let Ok(publication) = subscriber.try_recv() {
        let found = number(&publication);
        assert_eq!(found, publication.number());
        assert_eq!(found - *expected, publication.lost_before());
        *expected = found + 1;
        all.push(found);
    }
    all
}

#[test]
fn every_subscriber_gets_every_publication() {
    let mut publisher = publisher();
    assert_eq!(publisher.publish(b"to nobody").unwrap().subscribers, 0);
    let mut subscribers: Vec<_> =
        (0..3).map(|_| subscriber(BackpressurePolicy::default())).collect();
    for (index, subscriber) in subscribers.iter_mut().enumerate() {
        link(index as u64, &publisher, subscriber);
        subscriber.settle(NEVER);
    }
    for text in ["a", "b", "c"] {
        let published = publisher.publish(text.as_bytes()).unwrap();
        assert_eq!((published.subscribers, published.missed), (3, 0));
    }
    for (index, subscriber) in subscribers.iter_mut().enumerate() {
        for (number, text) in [(1, "a"), (2, "b"), (3, "c")] {
            let publication = subscriber.recv().unwrap();
            assert_eq!(&*publication, text.as_bytes());
            assert_eq!((publication.number(), publication.lost_before()), (number, 0));
            assert_eq!(publication.publisher().get(), index as u64);
            assert_eq!(publication.plugin(), format!("plugin {index}"));
        }
        assert_eq!(subscriber.try_recv().unwrap_err(), TopicRecvError::Empty);
        assert_eq!(subscriber.recv_timeout(SOON).unwrap_err(), TopicRecvError::Timeout);
    }
    drop(publisher);
    for mut subscriber in subscribers {
        assert!(subscriber.try_recv().is_err());
        let departed = subscriber.take_departed().unwrap();
        assert_eq!((departed.departure, departed.received), (Departure::Finished, 3));
        assert_eq!(subscriber.publishers(), 0);
    }
}

#[test]
fn who_is_waited_for_gets_everything_and_who_lets_the_deadline_pass_is_told_what_is_missing() {
    let (mut publisher, mut reader) = pair(BackpressurePolicy::Block(NEVER));
    let options = PublishOptions { max_block: NEVER, ..PublishOptions::default() };
    let mut patient = Publisher::new(&options, 0).unwrap();
    link(2, &patient, &reader);
    let reading = thread::spawn(move || {
        let mut seen = 0;
        while seen < 10_000 {
            assert_eq!(number(&reader.recv().unwrap()), seen);
            seen += 1;
        }
        reader
    });
    for number in 0..10_000_u64 {
        assert_eq!(patient.publish(&number.to_ne_bytes()).unwrap().missed, 0);
    }
    let reader = reading.join().unwrap();
    assert_eq!((reader.stats().received, reader.stats().lost), (10_000, 0));
    drop(reader);

    let (mut stopped, mut slow) = pair(BackpressurePolicy::Block(SOON));
    let missed: usize =
        (0..100_u64).map(|number| stopped.publish(&number.to_ne_bytes()).unwrap().missed).sum();
    assert!(missed > 0);
    let info = stopped.subscribers().next().unwrap();
    assert_eq!((info.sent, info.dropped), (100 - missed as u64, missed as u64));
    assert_eq!(info.last_missed, Some((99, Missed::Full)));
    assert_eq!(info.waited, 1, "and not again before there was room");
    let mut expected = 0;
    assert_eq!(drain(&mut slow, &mut expected).len(), 100 - missed);
    stopped.publish(&100_u64.to_ne_bytes()).unwrap();
    assert_eq!(drain(&mut slow, &mut expected), [100]);
    assert_eq!(slow.stats().lost, missed as u64);
    // The one that has gone is not there any more.
    assert_eq!(publisher.publish(b"").unwrap().subscribers, 0);
    assert_eq!(publisher.stats().departed, 1);
}

#[test]
fn the_publisher_limits_what_a_subscriber_chooses() {
    let options =
        PublishOptions { max_block: SOON, max_queue_bytes: 10, ..PublishOptions::default() };
    let mut publisher = Publisher::new(&options, 0).unwrap();
    let chosen = [
        BackpressurePolicy::Block(NEVER),
        BackpressurePolicy::DropOldest { queue_bytes: u64::MAX },
    ];
    let subscribers = chosen.map(subscriber);
    subscribers.iter().for_each(|subscriber| link(1, &publisher, subscriber));
    let agreed: Vec<_> = publisher.subscribers().map(|info| info.backpressure).collect();
    assert_eq!(
        agreed,
        [BackpressurePolicy::Block(SOON), BackpressurePolicy::DropOldest { queue_bytes: 10 }]
    );
}

#[test]
fn new_ones_are_dropped_and_counted_on_both_sides() {
    let (mut publisher, mut subscriber) = pair(BackpressurePolicy::DropNewest);
    let mut expected = 0;
    let (mut next, mut received) = (0_u64, 0);
    for round in 0..20 {
        for _ in 0..100 {
            publisher.publish(&next.to_ne_bytes()).unwrap();
            next += 1;
        }
        let all = drain(&mut subscriber, &mut expected);
        assert!(!all.is_empty(), "round {round}");
        received += all.len() as u64;
    }
    let missed = publisher.stats().missed;
    assert_eq!((publisher.stats().published, missed), (2000, 2000 - received));
    // What is missing at the end is told by the end.
    assert!(subscriber.stats().lost < missed);
    drop(publisher);
    assert!(subscriber.try_recv().is_err());
    assert_eq!(subscriber.stats().lost, missed);
    assert_eq!(subscriber.take_departed().unwrap().lost, missed);
}

#[test]
fn old_ones_are_dropped_and_the_newest_arrives() {
    let (mut publisher, mut subscriber) =
        pair(BackpressurePolicy::DropOldest { queue_bytes: 10 * (8 + ENTRY_BYTES) });
    let mut expected = 0;
    for number in 0..1000_u64 {
        assert_eq!(publisher.publish(&number.to_ne_bytes()).unwrap().missed, 0);
    }
    let mut all = Vec::new();
    while expected < 1000 {
        all.extend(drain(&mut subscriber, &mut expected));
    }
    // The ring was full of the oldest, the queue of the newest; one was on its way between them.
    assert_eq!(all[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(all[all.len() - 10..], [990, 991, 992, 993, 994, 995, 996, 997, 998, 999]);
    let lost = 1000 - all.len() as u64;
    assert!(lost > 0);
    assert_eq!(subscriber.stats().lost, lost);
    let info = publisher.subscribers().next().unwrap();
    assert_eq!((info.sent, info.dropped), (1000 - lost, lost));
    // In order again, and through the ring again.
    publisher.publish(&1000_u64.to_ne_bytes()).unwrap();
    assert!(publisher.subscribers().next().is_some());
    while expected < 1001 {
        drain(&mut subscriber, &mut expected);
    }
    // What waits when the publisher ends is sent still.
    for number in 1001..1100_u64 {
        publisher.publish(&number.to_ne_bytes()).unwrap();
    }
    drop(publisher);
    while expected < 1100 {
        drain(&mut subscriber, &mut expected);
    }
    while subscriber.publishers() > 0 {
        assert!(subscriber.recv_timeout(SOON).is_err());
    }
    assert_eq!(subscriber.take_departed().unwrap().departure, Departure::Finished);
}

#[test]
fn who_wants_it_so_is_disconnected_and_the_others_are_not() {
    let (mut publisher, mut strict) = pair(BackpressurePolicy::Disconnect);
    let mut other = subscriber(BackpressurePolicy::DropNewest);
    link(2, &publisher, &other);
    let mut last = 0;
    for number in 0..200_u64 {
        publisher.publish(&number.to_ne_bytes()).unwrap();
        if number % 10 == 0 {
            last = drain(&mut other, &mut last.clone()).last().unwrap() + 1;
        }
    }
    assert_eq!((publisher.stats().cut_off, publisher.stats().missed), (1, 0));
    assert_eq!(other.stats().received, 191);
    let all = drain(&mut strict, &mut 0);
    assert_eq!(all, (0..all.len() as u64).collect::<Vec<_>>());
    let departed = strict.take_departed().unwrap();
    assert_eq!((departed.departure, departed.lost), (Departure::CutOff, 0));
}

#[test]
fn what_is_too_long_for_one_reaches_the_others() {
    let (mut publisher, mut short) = pair(BackpressurePolicy::DropNewest);
    let mut patient = subscriber(BackpressurePolicy::Block(NEVER));
    let mut queued = subscriber(BackpressurePolicy::DropOldest { queue_bytes: 1 << 20 });
    link(2, &publisher, &patient);
    link(3, &publisher, &queued);
    let reading = |subscriber: &mut Subscriber| {
        let mut lens = Vec::new();
        while lens.last() != Some(&3) {
            lens.push(subscriber.recv().unwrap().len());
        }
        (lens, subscriber.stats().lost)
    };
    let (first, second) = thread::scope(|scope| {
        let first = scope.spawn(|| reading(&mut patient));
        let second = scope.spawn(|| reading(&mut queued));
        // In a record; in fragments; longer than any can be.
        for (len, missed) in [(100, 0), (6000, 1), (9000, 2), (3, 0)] {
            let published = publisher.publish(&vec![7; len]).unwrap();
            // The queue finds out later how long is too long.
            assert!((missed..=missed + 1).contains(&published.missed), "{len} {published:?}");
        }
        (first.join().unwrap(), second.join().unwrap())
    });
    assert_eq!((first, second), ((vec![100, 6000, 3], 1), (vec![100, 6000, 3], 1)));
    assert_eq!(short.recv().unwrap().len(), 100);
    assert_eq!(short.recv().unwrap().lost_before(), 2);
    let too_long: Vec<_> = publisher.subscribers().map(|info| info.too_long).collect();
    assert_eq!(too_long[..2], [2, 1]);
    let info = publisher.subscribers().next().unwrap();
    assert!(
        matches!(info.last_missed, Some((2, Missed::TooLong { len: 9000..=9008, .. }))),
        "{info:?}"
    );
}

#[test]
fn who_publish_to_each_other_do_not_wait_for_each_other_for_ever() {
    let options = PublishOptions { max_block: SOON, ..PublishOptions::default() };
    let ends: Vec<_> = (0..2)
        .map(|_| {
            let publisher = Publisher::new(&options, 0).unwrap();
            (publisher, subscriber(BackpressurePolicy::Block(NEVER)))
        })
        .collect();
    link(1, &ends[0].0, &ends[1].1);
    link(2, &ends[1].0, &ends[0].1);
    let full = Barrier::new(2);
    thread::scope(|scope| {
        for (mut publisher, mut subscriber) in ends {
            let full = &full;
            scope.spawn(move || {
                // Nobody reads.
                for number in 0..200_u64 {
                    publisher.publish(&number.to_ne_bytes()).unwrap();
                }
                full.wait();
                assert!(publisher.stats().missed > 0);
                assert!(subscriber.recv_timeout(NEVER).is_ok());
            });
        }
    });
}

#[test]
fn publishers_come_while_a_subscriber_waits() {
    let mut subscriber = subscriber(BackpressurePolicy::default());
    let arrivals = Arc::clone(subscriber.arrivals());
    let waiting = thread::spawn(move || number(&subscriber.recv().unwrap()));
    let mut publisher = publisher();
    link_with(1, publisher.arrivals(), &arrivals, 4096);
    publisher.publish(&42_u64.to_ne_bytes()).unwrap();
    assert_eq!(waiting.join().unwrap(), 42);
}

#[test]
fn a_publisher_that_floods_keeps_nothing_back_that_others_publish() {
    let mut subscriber = subscriber(BackpressurePolicy::DropNewest);
    let (mut flooding, mut quiet) = (publisher(), publisher());
    for (id, publisher) in [(1, &flooding), (2, &quiet)] {
        link_with(id, publisher.arrivals(), subscriber.arrivals(), 16384);
    }
    subscriber.settle(NEVER);
    for _ in 0..10 {
        quiet.publish(b"quiet").unwrap();
        let mut before = 0;
        loop {
            while flooding.publish(b"flood").unwrap().missed == 0 {}
            let publication = subscriber.recv().unwrap();
            if &*publication == b"quiet" {
                break;
            }
            before += 1;
            assert!(before < 100, "others would wait for ever");
        }
    }
}

#[test]
fn a_subscriber_waits_for_the_word_of_its_publishers() {
    let (publisher, mut subscriber) = (publisher(), subscriber(BackpressurePolicy::default()));
    let (near, far) = Channel::pair(&ChannelOptions::default()).unwrap();
    let arrival = |channel, note| Arrival { link: 1, channel, plugin: String::new(), note };
    subscriber.arrivals().add(arrival(far, publisher.arrivals().note().to_bytes()));
    let begun = Instant::now();
    subscriber.settle(SOON);
    assert!(begun.elapsed() >= SOON, "the publisher has not heard of it yet");
    // It is heard all the same when it has.
    let mut publisher = publisher;
    publisher.arrivals().add(arrival(near, subscriber.arrivals().note().to_bytes()));
    publisher.publish(b"late").unwrap();
    assert_eq!(&*subscriber.recv().unwrap(), b"late");
}
