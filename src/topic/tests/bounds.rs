//! What slow subscribers, writers of the store that are stopped, and links that nobody takes may cost.

use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use super::super::link_sender::{NOW, Outgoing};
use super::super::payload_store::PayloadStore;
use super::super::subscription::Delivery;
use super::super::waiters::Waiters;
use super::super::wire::tag;
use super::super::*;
use super::{NEVER, SOON, link, pair, publisher, subscriber};
use crate::channel::{Channel, ChannelOptions};
use crate::memory::Deadline;
use crate::os::clock::monotonic_ns;
use crate::store::{Store, StoreOptions, WriteError};

#[test]
fn who_missed_a_long_publication_gets_one_after_it_has_caught_up() {
    let (mut publisher, mut subscriber) = pair(BackpressurePolicy::Block(SOON));
    // Longer than the ring, and nobody reads.
    let long = vec![5; 8000];
    assert_eq!(publisher.publish(&long).unwrap().missed, 1);
    let reading = thread::spawn(move || subscriber.recv().unwrap().to_vec());
    let begun = Instant::now();
    while publisher.publish(&long).unwrap().missed > 0 {
        assert!(begun.elapsed() < NEVER, "it is not waited for any more");
    }
    assert_eq!(reading.join().unwrap(), long);
}

#[test]
fn who_is_waited_for_first_does_not_use_up_the_time_of_the_others() {
    let publisher =
        Publisher::new(&PublishOptions { max_block: NEVER, ..Default::default() }, 0).unwrap();
    let chosen = [NEVER, SOON, NEVER].map(BackpressurePolicy::Block);
    let subscribers = chosen.map(subscriber);
    subscribers.iter().for_each(|subscriber| link(1, &publisher, subscriber));
    let mut subscriptions = publisher.arrivals().take();
    for subscription in &mut subscriptions {
        assert!(subscription.begin(0));
        // Not in one record.
        let outgoing = Outgoing { number: 0, tag: tag::PLAIN, bytes: &[0; 2000] };
        assert_eq!(subscription.offer(outgoing), Delivery::Waits);
    }
    let (started_ns, never_ns) = (monotonic_ns(), NEVER.as_nanos() as u64);
    let waiters: Vec<_> = Waiters::of(&subscriptions, started_ns)
        .map(|(index, deadline)| (index, deadline.as_ns() - started_ns))
        .collect();
    let order: Vec<_> = waiters.iter().map(|(index, _)| *index).collect();
    assert_eq!(order, [1, 0, 2], "those first that are waited for least");
    assert_eq!(waiters[0].1, SOON.as_nanos() as u64, "all that was agreed");
    let half = never_ns / 2..never_ns * 3 / 4;
    assert!(half.contains(&waiters[1].1), "{waiters:?}");
    assert!(never_ns - waiters[2].1 <= 1, "all that is left: {waiters:?}");
}

#[test]
fn a_publisher_that_is_silent_keeps_no_links_of_subscribers_that_have_gone() {
    let mut publisher = publisher();
    for id in 0..10 {
        link(id, &publisher, &subscriber(BackpressurePolicy::DropOldest { queue_bytes: 10 }));
        link(id, &publisher, &subscriber(BackpressurePolicy::default()));
    }
    let waiting = publisher.arrivals().take();
    assert_eq!(waiting.len(), 1);
    assert_eq!(publisher.stats().departed, 19);
    drop(waiting);
    assert_eq!(publisher.publish(b"").unwrap().subscribers, 0);
}

#[test]
fn a_subscriber_that_is_silent_keeps_only_links_in_which_something_lies() {
    let mut subscriber = subscriber(BackpressurePolicy::default());
    let add = |link| {
        let (near, channel) = Channel::pair(&ChannelOptions::default()).unwrap();
        let note = publisher().arrivals().note().to_bytes();
        subscriber.arrivals().add(Arrival { link, channel, plugin: String::new(), note });
        near
    };
    (0..10).for_each(|link| drop(add(link)));
    let mut dead = add(10).split().0;
    dead.send_tagged(tag::START, &[]).unwrap();
    dead.send_tagged(tag::FIRST, &0_u64.to_ne_bytes()).unwrap();
    dead.send(b"committed").unwrap();
    drop(dead);
    let alive = add(11);
    assert_eq!(&*subscriber.recv().unwrap(), b"committed");
    assert!(subscriber.try_recv().is_err());
    assert_eq!((subscriber.stats().publishers, subscriber.publishers()), (2, 1));
    drop(alive);
}

#[test]
fn what_has_gone_from_the_store_is_not_remembered_for_who_says_that_it_has_read_nothing() {
    let publisher = publisher();
    let subscriber = subscriber(BackpressurePolicy::DropNewest);
    link(1, &publisher, &subscriber);
    let mut subscription = publisher.arrivals().take().pop().unwrap();
    assert!(subscription.begin(0));
    for number in 0..3 {
        let outgoing = Outgoing { number, tag: tag::STORED, bytes: &[0; 24] };
        assert_eq!(subscription.offer(outgoing), Delivery::Sent);
    }
    assert_eq!(subscription.wants_from(0), 0);
    assert_eq!(subscription.wants_from(2), 2);
    assert_eq!(subscription.wants_from(0), 2, "the others are forgotten");
}

#[test]
fn a_writer_that_keeps_the_lock_of_the_store_is_waited_for_until_a_deadline() {
    let store_options = StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() };
    let store = Store::anonymous(&store_options).unwrap();
    let handle = || store.try_clone().unwrap();
    let mut payloads = PayloadStore::new(handle(), "p", 10_000, SOON).unwrap();
    assert!(payloads.put(0, b"kept", Deadline::NEVER).is_some());
    let options =
        PublishOptions { max_block: SOON, store_from_bytes: Some(100), ..Default::default() };
    let mut publisher = Publisher::new(&options, 0).unwrap();
    publisher.use_store(handle(), "q").unwrap();
    let options = SubscribeOptions::default();
    let mut subscriber = Subscriber::new(&options, 0, Some(handle())).unwrap();
    link(1, &publisher, &subscriber);
    publisher.publish(&[1; 200]).unwrap();
    assert!(subscriber.recv().unwrap().is_in_store());
    assert!(subscriber.try_recv().is_err());
    let (entered, inside) = mpsc::channel();
    let (leave, left) = mpsc::channel::<()>();
    let holder = handle();
    let holding = thread::spawn(move || {
        let change = |_: Option<&[u8]>| {
            entered.send(()).unwrap();
            let _ = left.recv();
            None::<Vec<u8>>
        };
        holder.update("k", change).map(drop)
    });
    inside.recv().unwrap();
    // However patient it is otherwise.
    assert_eq!(payloads.forget_before(1, NOW), Err(WriteError::Deadline));
    assert!(payloads.put(1, b"not kept", NOW).is_none());
    // What cannot go there travels in the ring.
    assert_eq!(publisher.publish(&[2; 200]).unwrap().missed, 0);
    assert_eq!(publisher.stats().stored, 1);
    let publication = subscriber.recv().unwrap();
    assert_eq!((&*publication, publication.is_in_store()), (&[2; 200][..], false));
    drop(publication);
    drop(leave);
    holding.join().unwrap().unwrap();
    assert_eq!(payloads.forget_before(1, Deadline::NEVER), Ok(()));
    publisher.publish(&[3; 200]).unwrap();
    assert!(subscriber.recv().unwrap().is_in_store());
}

#[test]
fn nothing_goes_past_what_waits_for_room() {
    let options = PublishOptions { max_queue_bytes: u64::MAX, ..Default::default() };
    let mut publisher = Publisher::new(&options, 0).unwrap();
    let mut subscriber = subscriber(BackpressurePolicy::DropOldest { queue_bytes: u64::MAX });
    link(1, &publisher, &subscriber);
    const PUBLICATIONS: u64 = 50_000;
    let publishing = thread::spawn(move || {
        for number in 0..PUBLICATIONS {
            publisher.publish(&number.to_ne_bytes()).unwrap();
        }
        assert!(publisher.flush(NEVER));
        publisher.stats().missed
    });
    for expected in 0..PUBLICATIONS {
        let publication = subscriber.recv().unwrap();
        assert_eq!((publication.number(), publication.lost_before()), (expected, 0));
        assert_eq!(super::number(&publication), expected);
    }
    assert!(subscriber.try_recv().is_err());
    assert_eq!(publishing.join().unwrap(), 0);
}

#[test]
fn f61_default_never_waits_for_a_subscriber() {
    let (mut publisher, mut subscriber) = pair(SubscribeOptions::default().backpressure);
    const PUBLICATIONS: u64 = 20_000;
    for number in 0..PUBLICATIONS {
        publisher.publish(&number.to_ne_bytes()).unwrap();
    }
    let info = publisher.subscribers().next().unwrap();
    assert_eq!(info.waited, 0, "the subscriber has read nothing");
    assert!(info.dropped > 0, "more than the ring and the queue hold");
    // It is told how many are missing.
    let mut received = 0;
    while received + subscriber.stats().lost < PUBLICATIONS {
        subscriber.recv_timeout(NEVER).unwrap();
        received += 1;
    }
    assert_eq!(received, info.sent);
}

#[test]
fn f61_default_delivers_more_than_half_a_ring() {
    let (mut publisher, mut subscriber) = pair(SubscribeOptions::default().backpressure);
    assert_eq!(publisher.publish(&[7; 8000]).unwrap().missed, 0);
    assert_eq!(*subscriber.recv_timeout(NEVER).unwrap(), [7; 8000]);
}

#[test]
fn f91_empty_publications_fill_a_queue() {
    const ENTRIES: u64 = 32;
    let queue_bytes = ENTRIES * super::super::queue::ENTRY_BYTES;
    let (mut publisher, _stopped) = pair(BackpressurePolicy::DropOldest { queue_bytes });
    for _ in 0..10_000 {
        publisher.publish(b"").unwrap();
    }
    let info = publisher.subscribers().next().unwrap();
    // The ring of 1024 bytes holds at most 128; one more may be on its way between the two.
    assert!(info.sent <= 128 + ENTRIES + 1, "{info:?}");
    assert_eq!(info.sent + info.dropped, 10_000);
}

#[test]
fn f91_empty_publications_use_up_the_store_budget() {
    let store_options = StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() };
    let store = Store::anonymous(&store_options).unwrap();
    let budget_bytes = 8 * super::super::payload_store::ENTRY_BYTES;
    let handle = store.try_clone().unwrap();
    let mut payloads = PayloadStore::new(handle, "p", budget_bytes, SOON).unwrap();
    for number in 0..100 {
        assert!(payloads.put(number, b"", Deadline::NEVER).is_some());
    }
    assert_eq!((store.len().unwrap(), payloads.expired), (8, 92));
}

#[test]
fn f92_disconnected_subscriber_gets_an_error_once() {
    let (mut publisher, mut subscriber) = pair(BackpressurePolicy::Disconnect);
    while publisher.publish(b"news").unwrap().subscribers > 0 {}
    let error = loop {
        if let Err(error) = subscriber.recv_timeout(NEVER) {
            break error;
        }
    };
    assert!(matches!(error, TopicRecvError::CutOff { publisher } if publisher.get() == 1));
    assert_eq!(subscriber.take_departed().unwrap().departure, Departure::CutOff);
    assert_eq!(subscriber.try_recv().unwrap_err(), TopicRecvError::Empty);
}
