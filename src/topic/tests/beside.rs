//! What lies beside the rings: the store, and threads that call callbacks.

use std::sync::{Arc, Mutex, mpsc};

use super::super::payload_store::{ENTRY_BYTES, keys_of};
use super::super::*;
use super::{NEVER, SOON, link, link_with, number, pair, subscriber};
use crate::store::{Store, StoreOptions};

fn store() -> Store {
    let options = StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() };
    Store::anonymous(&options).unwrap()
}

fn storing(store: &Store, budget: u64) -> Publisher {
    let options = PublishOptions {
        store_from_bytes: Some(100),
        store_budget_bytes: budget,
        ..PublishOptions::default()
    };
    let mut publisher = Publisher::new(&options, 0).unwrap();
    publisher.use_store(store.try_clone().unwrap(), "p").unwrap();
    publisher
}

fn keys(store: &Store) -> usize {
    store.prefix(keys_of("p")).count()
}

#[test]
fn what_is_large_lies_in_the_store_until_all_have_read_it() {
    let store = store();
    let mut publisher = storing(&store, 1 << 19);
    let options = SubscribeOptions::default();
    let having = || Subscriber::new(&options, 0, Some(store.try_clone().unwrap())).unwrap();
    let (mut first, mut second, mut without) =
        (having(), having(), subscriber(options.backpressure));
    for (id, subscriber) in [(1, &first), (2, &second), (3, &without)] {
        link(id, &publisher, subscriber);
    }
    let large = vec![9; 400];
    publisher.publish(b"small").unwrap();
    assert_eq!(publisher.publish(&large).unwrap().subscribers, 3);
    assert_eq!((keys(&store), publisher.stats().stored), (1, 1));
    for (subscriber, in_store) in [(&mut first, true), (&mut second, true), (&mut without, false)] {
        assert_eq!(&*subscriber.recv().unwrap(), b"small");
        publisher.reclaim();
        assert_eq!(keys(&store), usize::from(in_store), "not all have read it");
        let publication = subscriber.recv().unwrap();
        assert_eq!((&*publication, publication.is_in_store()), (&large[..], in_store));
        assert_eq!(publication.number(), 1);
        publisher.reclaim();
        assert_eq!(keys(&store), usize::from(in_store), "somebody looks at it");
        drop(publication);
        assert!(subscriber.try_recv().is_err());
    }
    publisher.reclaim();
    assert_eq!(keys(&store), 0);
    assert!(publisher.flush(NEVER));
    // One that leaves, or dies, wants nothing.
    publisher.publish(&large).unwrap();
    assert_eq!(keys(&store), 1);
    drop((first, second));
    publisher.reclaim();
    assert_eq!(keys(&store), 0);
    // Nobody left who could read it there, which is found out by sending.
    publisher.publish(&large).unwrap();
    publisher.reclaim();
    assert_eq!((keys(&store), publisher.stats().departed), (0, 2));
    publisher.publish(&large).unwrap();
    assert_eq!(keys(&store), 0);
    assert_eq!(without.recv().unwrap().len(), 400);
    store.check().unwrap();
}

#[test]
fn what_has_gone_from_the_store_is_a_typed_error_and_counted() {
    let store = store();
    let mut publisher = storing(&store, 2 * (400 + ENTRY_BYTES));
    let options = SubscribeOptions::default();
    let mut subscriber = Subscriber::new(&options, 0, Some(store.try_clone().unwrap())).unwrap();
    link_with(1, publisher.arrivals(), subscriber.arrivals(), 8192);
    for fill in 0..4 {
        publisher.publish(&[fill; 400]).unwrap();
        assert!(keys(&store) <= 2, "the budget");
    }
    assert_eq!((publisher.stats().stored, publisher.stats().expired), (4, 2));
    let publisher_id = 1;
    for number in [0, 1] {
        let Err(TopicRecvError::Expired { publisher, number: found, len_bytes }) =
            subscriber.recv()
        else {
            panic!("it is not there any more");
        };
        assert_eq!((publisher.get(), found, len_bytes), (publisher_id, number, 400));
    }
    assert_eq!(*subscriber.recv().unwrap(), [2; 400]);
    // Somebody else's value under the same key is not taken for it.
    let all = store.prefix(keys_of("p")).map(|entry| entry.unwrap().key().to_vec());
    let key = all.max().expect("the newest");
    store.set(&key, &[3; 400]).unwrap();
    assert!(matches!(subscriber.recv(), Err(TopicRecvError::Expired { number: 3, .. })));
    let stats = subscriber.stats();
    assert_eq!((stats.received, stats.expired, stats.lost), (1, 3, 0));
    // Longer than the budget.
    publisher.publish(&[5; 1100]).unwrap();
    let publication = subscriber.recv().unwrap();
    assert_eq!((publication.len(), publication.is_in_store()), (1100, false));
    // What is there when the publisher ends is removed, and of the dead by somebody else.
    publisher.publish(&[6; 400]).unwrap();
    store.set([&keys_of("p")[..], b"of a dead one"].concat(), b"").unwrap();
    store.set([&keys_of("pq")[..], b"of another one"].concat(), b"").unwrap();
    drop(publisher);
    assert_eq!(keys(&store), 1);
    remove_left_by(&store, "p", NEVER);
    assert_eq!((keys(&store), store.len().unwrap()), (0, 1));
}

#[test]
fn what_waits_for_room_in_a_ring_lies_in_the_store_until_it_has_been_read() {
    let store = store();
    let mut publisher = storing(&store, 1 << 19);
    let backpressure = BackpressurePolicy::DropOldest { queue_bytes: 1 << 20 };
    let options = SubscribeOptions { backpressure, ..SubscribeOptions::default() };
    let mut subscriber = Subscriber::new(&options, 0, Some(store.try_clone().unwrap())).unwrap();
    link(1, &publisher, &subscriber);
    // More than the ring holds; each publication looks for what it can remove.
    for fill in 0..200 {
        publisher.publish(&[fill; 100]).unwrap();
    }
    publisher.reclaim();
    assert_eq!((keys(&store), publisher.stats().stored), (200, 200));
    for fill in 0..200 {
        let publication = subscriber.recv().unwrap();
        assert_eq!((&*publication, publication.is_in_store()), (&[fill; 100][..], true));
        publisher.reclaim();
    }
    assert!(subscriber.try_recv().is_err());
    assert!(publisher.flush(NEVER));
    assert_eq!(keys(&store), 0);
}

#[test]
fn callbacks_are_called_in_order_and_may_panic() {
    let (mut publisher, subscriber) = pair(BackpressurePolicy::Block(NEVER));
    let (tell, told) = mpsc::channel();
    let (report, reported) = mpsc::channel();
    let even = tell.clone();
    let listening = subscriber
        .passive()
        .on(|p| number(p).is_multiple_of(2), move |p: &Publication<'_>| even.send(number(p)))
        .on(
            |_| true,
            move |p: &Publication<'_>| {
                assert_ne!(number(p), 3, "no threes");
                tell.send(100 + number(p)).unwrap();
                if number(p) == 4 { Err("a four") } else { Ok(()) }
            },
        )
        .report(move |what| {
            report
                .send(match what {
                    TopicReport::Panicked { callback, message } => {
                        format!("{callback} panicked: {}", message.contains("no threes"))
                    }
                    TopicReport::Failed { callback, error } => format!("{callback}: {error}"),
                    other => format!("{other:?}"),
                })
                .unwrap();
        })
        .start()
        .unwrap();
    for number in 0..6_u64 {
        publisher.publish(&number.to_ne_bytes()).unwrap();
    }
    let all: Vec<u64> = told.iter().take(8).collect();
    assert_eq!(all, [0, 100, 101, 2, 102, 4, 104, 105]);
    assert_eq!(reported.recv().unwrap(), "1 panicked: true");
    assert_eq!(reported.recv().unwrap(), "1: a four");
    // Stopped while it waits, and active again.
    let mut subscriber = listening.stop().unwrap();
    publisher.publish(&6_u64.to_ne_bytes()).unwrap();
    assert_eq!(number(&subscriber.recv().unwrap()), 6);
    let (gone, came) = mpsc::channel();
    let listening = subscriber
        .passive()
        .report(move |report| {
            if let TopicReport::Departed(departed) = report {
                gone.send(departed.departure).unwrap();
            }
        })
        .start()
        .unwrap();
    drop(publisher);
    assert_eq!(came.recv().unwrap(), Departure::Finished);
    drop(listening);
}

#[derive(Debug)]
struct PanicsWhenDropped;

impl std::fmt::Display for PanicsWhenDropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bad")
    }
}

impl std::error::Error for PanicsWhenDropped {}

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("an error that is dropped");
    }
}

#[test]
fn an_error_that_panics_when_it_is_dropped_does_not_end_the_callbacks() {
    let (mut publisher, subscriber) = pair(BackpressurePolicy::default());
    let (tell, told) = mpsc::channel();
    let listening = subscriber
        .on_publication(
            |_| true,
            move |publication: &Publication<'_>| {
                tell.send(publication.number()).unwrap();
                Err::<(), _>(PanicsWhenDropped)
            },
        )
        .unwrap();
    for number in 0..2 {
        publisher.publish(b"").unwrap();
        assert_eq!(told.recv().unwrap(), number);
    }
    drop(listening.stop().unwrap());
}

#[test]
fn a_callback_may_publish_to_itself_and_stop_itself() {
    let options = PublishOptions { max_block: SOON, ..PublishOptions::default() };
    let mut publisher = Publisher::new(&options, 0).unwrap();
    let subscriber = subscriber(BackpressurePolicy::Block(NEVER));
    link(1, &publisher, &subscriber);
    let slot: Arc<Mutex<Option<Listening>>> = Arc::default();
    let own = Arc::clone(&slot);
    let (tell, told) = mpsc::channel();
    publisher.publish(b"go").unwrap();
    let guard = slot.lock().unwrap();
    let listening = subscriber
        .on_publication(
            |publication| &**publication == b"go",
            move |_: &Publication<'_>| {
                let missed: usize =
                    (0..300).map(|_| publisher.publish(b"echo").unwrap().missed).sum();
                let stopped = own.lock().unwrap().take().unwrap().stop();
                tell.send((missed > 0, stopped.map(drop))).unwrap();
            },
        )
        .unwrap();
    let mut guard = guard;
    *guard = Some(listening);
    drop(guard);
    assert_eq!(told.recv().unwrap(), (true, Err(StopListeningError::InCallback)));
}
