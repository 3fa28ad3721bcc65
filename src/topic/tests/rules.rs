//! Publishers that keep to no rules, ends that do not understand each other, and values of types.

use super::super::wire::tag;
use super::super::*;
use super::{NEVER, link, pair, publisher, subscriber};
use crate::channel::{Channel, ChannelOptions, Sender};

/// A publisher that sends what it likes.
fn forged(link: u64, subscriber: &Subscriber) -> Sender {
    let (near, far) = Channel::pair(&ChannelOptions::default()).unwrap();
    let note = publisher().arrivals().note().to_bytes();
    subscriber.arrivals().add(Arrival { link, channel: far, plugin: String::new(), note });
    near.split().0
}

#[test]
fn a_publisher_that_breaks_the_rules_is_left_and_the_others_are_heard() {
    let (mut publisher, mut subscriber) = pair(BackpressurePolicy::default());
    let number = |number: u64| number.to_ne_bytes().to_vec();
    let start = || (tag::START, Vec::new());
    let first = |at| (tag::FIRST, number(at));
    for (index, records) in [
        vec![(tag::PLAIN, Vec::new())],
        vec![start(), (tag::PLAIN, Vec::new())],
        vec![(tag::START, vec![1])],
        vec![start(), start()],
        vec![(tag::END, number(0)), (tag::END, number(0))],
        vec![(tag::END, number(0)), start()],
        vec![(tag::END, number(0)), first(0)],
        vec![start(), first(0), first(0)],
        vec![start(), first(0), start()],
        vec![start(), (tag::FIRST, vec![0; 7])],
        vec![start(), first(5), (tag::NUMBERED, number(4))],
        vec![start(), first(5), (tag::NUMBERED, vec![0; 7])],
        vec![start(), first(5), (tag::NUMBERED, number(u64::MAX))],
        vec![start(), first(0), (tag::STORED, vec![0; 16])],
        vec![start(), first(5), (tag::END, number(4))],
        vec![start(), first(5), (tag::END, number(5)), (tag::PLAIN, Vec::new())],
        vec![start(), first(5), (tag::END, number(5)), (tag::END, number(5))],
        vec![start(), first(5), (99, number(5))],
    ]
    .into_iter()
    .enumerate()
    {
        let mut forged = forged(100 + index as u64, &subscriber);
        for (tag, bytes) in &records {
            forged.send_tagged(*tag, bytes).unwrap();
        }
        publisher.publish(b"from a good one").unwrap();
        assert_eq!(&*subscriber.recv().unwrap(), b"from a good one");
        assert_eq!(subscriber.try_recv().unwrap_err(), TopicRecvError::Empty);
        let departed = subscriber.take_departed().expect("it has been left");
        assert_eq!(departed.departure, Departure::Malformed, "{records:?}");
        assert_eq!(subscriber.publishers(), 1);
        assert!(forged.send(b"").is_err(), "nobody listens");
    }
    // A gap as long as numbers go is no sum that overflows.
    let mut forged = [forged(1000, &subscriber), forged(1001, &subscriber)];
    for forged in &mut forged {
        forged.send_tagged(tag::FIRST, &number(0)).unwrap();
        forged.send_tagged(tag::NUMBERED, &number(u64::MAX - 1)).unwrap();
        assert_eq!(subscriber.recv().unwrap().lost_before(), u64::MAX - 1);
    }
    assert_eq!(subscriber.stats().lost, u64::MAX);
}

#[test]
fn what_was_said_while_the_subscriber_was_made_is_not_said_again() {
    let mut subscriber = subscriber(BackpressurePolicy::default());
    let mut forged = forged(1, &subscriber);
    forged.send_tagged(tag::START, &[]).unwrap();
    subscriber.settle(NEVER);
    forged.send_tagged(tag::START, &[]).unwrap();
    assert_eq!(subscriber.try_recv().unwrap_err(), TopicRecvError::Empty);
    assert_eq!(subscriber.take_departed().unwrap().departure, Departure::Malformed);
}

#[test]
fn records_that_are_no_publications_do_not_keep_a_call_for_as_long_as_they_come() {
    let mut subscriber = subscriber(BackpressurePolicy::default());
    const PUBLISHERS: u64 = 120;
    for link in 0..PUBLISHERS {
        let mut forged = forged(link, &subscriber);
        forged.send_tagged(tag::START, &[]).unwrap();
        forged.send_tagged(tag::FIRST, &0_u64.to_ne_bytes()).unwrap();
        forged.send_tagged(tag::END, &0_u64.to_ne_bytes()).unwrap();
    }
    let mut departed = 0;
    let mut calls = 0;
    while departed < PUBLISHERS {
        assert_eq!(subscriber.try_recv().unwrap_err(), TopicRecvError::Empty);
        departed += std::iter::from_fn(|| subscriber.take_departed()).count() as u64;
        calls += 1;
    }
    assert!(calls > 1, "one call has dealt with all of them");
}

#[test]
fn only_ends_that_understand_each_other_are_linked() {
    let options = SubscribeOptions::default();
    for (of_publisher, of_subscriber, linked) in
        [(0, 0, true), (5, 5, true), (5, 0, true), (0, 5, false), (5, 6, false)]
    {
        let mut publisher = Publisher::new(&PublishOptions::default(), of_publisher).unwrap();
        let mut subscriber = Subscriber::new(&options, of_subscriber, None).unwrap();
        link(1, &publisher, &subscriber);
        subscriber.settle(NEVER);
        let published = publisher.publish(b"x").unwrap();
        assert_eq!(published.subscribers, usize::from(linked));
        let refused = u64::from(!linked);
        assert_eq!(publisher.stats().unsuitable, refused);
        assert_eq!(subscriber.stats().unsuitable, refused);
        assert_eq!(subscriber.try_recv().is_ok(), linked);
    }
    // Notes that say nothing.
    let (publisher, subscriber) = (publisher(), subscriber(BackpressurePolicy::default()));
    let (near, far) = Channel::pair(&ChannelOptions::default()).unwrap();
    let arrival = |channel| Arrival { link: 1, channel, plugin: String::new(), note: vec![] };
    publisher.arrivals().add(arrival(near));
    subscriber.arrivals().add(arrival(far));
    assert_eq!((publisher.stats().unsuitable, subscriber.stats().unsuitable), (1, 1));
}

#[test]
fn typed_ends_check_values() {
    use crate::typed::{Archived, Codec, Pod};
    let options = SubscribeOptions::default();
    let fingerprint = <Archived<Vec<u32>> as Codec>::FINGERPRINT;
    let publisher = Publisher::new(&PublishOptions::default(), fingerprint).unwrap();
    let subscriber = Subscriber::new(&options, fingerprint, None).unwrap();
    link(1, &publisher, &subscriber);
    let mut publisher = TypedPublisher::<Archived<Vec<u32>>>::over(publisher);
    let mut subscriber = TypedSubscriber::<Archived<Vec<u32>>>::over(subscriber);
    publisher.publish(&vec![1, 2, 3]).unwrap();
    publisher.publisher().publish(b"no").unwrap();
    let publication = subscriber.recv().unwrap();
    assert_eq!(publication.value().len(), 3);
    assert_eq!(publication.number(), 0);
    drop(publication);
    assert!(matches!(subscriber.recv(), Err(TopicRecvError::Invalid { number: 1, .. })));
    assert_eq!(subscriber.invalid(), 1);
    let publisher = Publisher::new(&PublishOptions::default(), 0).unwrap();
    let subscriber = Subscriber::new(&options, 0, None).unwrap();
    link(1, &publisher, &subscriber);
    let mut publisher = TypedPublisher::<Pod<u64>>::over(publisher);
    let mut subscriber = TypedSubscriber::<Pod<u64>>::over(subscriber);
    publisher.publish(&7).unwrap();
    assert_eq!(subscriber.recv_timeout(NEVER).unwrap().value(), 7);
}

#[test]
fn a_publisher_that_dies_is_heard_to_the_end() {
    let mut subscriber = subscriber(BackpressurePolicy::default());
    let mut forged = forged(1, &subscriber);
    forged.send_tagged(tag::START, &[]).unwrap();
    forged.send_tagged(tag::FIRST, &0_u64.to_ne_bytes()).unwrap();
    forged.send(b"last words").unwrap();
    drop(forged);
    assert_eq!(&*subscriber.recv().unwrap(), b"last words");
    assert!(matches!(subscriber.recv_timeout(NEVER), Err(TopicRecvError::CutOff { .. })));
    // It has closed its end: only who does not is dead.
    assert_eq!(subscriber.take_departed().unwrap().departure, Departure::CutOff);
}

#[test]
fn a_publisher_that_ends_tells_those_that_it_has_not_met_and_turns_away_who_comes_later() {
    let (publisher, mut subscriber) = pair(BackpressurePolicy::default());
    let arrivals = std::sync::Arc::clone(publisher.arrivals());
    drop(publisher);
    assert_eq!(subscriber.try_recv().unwrap_err(), TopicRecvError::Empty);
    assert_eq!(subscriber.take_departed().unwrap().departure, Departure::Finished);
    super::link_with(2, &arrivals, subscriber.arrivals(), 1024);
    assert!(matches!(subscriber.try_recv(), Err(TopicRecvError::CutOff { .. })));
    assert_eq!(subscriber.take_departed().unwrap().departure, Departure::CutOff);
}
