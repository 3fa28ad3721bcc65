//! Publish/subscribe between a host and its plugins: everybody gets everything, and nobody waits for the
//! dead, the stopped, or each other.
//!
//! This test binary is executed again as the plugin. What always holds: a plugin is ended by its host at
//! the end of each test, also where the test fails; plugins are killed where they wait, or while they
//! work.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use common::plugin::{self, NEVER, restarts};
use common::publishing::{Ledger, publish, publish_options, subscribe_options};
use common::random::{self, Random};
use ringway::channel::Channel;
use ringway::host::{Host, PluginHandle, PluginSpec};
use ringway::store::StoreOptions;
use ringway::topic::{Departure, Publisher, Subscriber, TopicRecvError};

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    plugin::run_role();
}

fn host() -> Host {
    Host::builder().links().build().unwrap()
}

fn host_with_stores() -> Host {
    let options = StoreOptions { capacity_bytes: 4 << 20, ..StoreOptions::default() };
    Host::builder().links().store(options.clone()).payload_store(options).build().unwrap()
}

/// A plugin that does what it is told.
struct Hand {
    handle: PluginHandle,
    active: Channel,
}

impl Hand {
    fn start(host: &Host, name: &str) -> Self {
        Self::start_spec(host, plugin::spec(name, "use-topics"))
    }

    fn start_spec(host: &Host, spec: PluginSpec) -> Self {
        let handle = host.spawn(spec).unwrap();
        let (active, _passive) = handle.take_channels().unwrap();
        Self { handle, active }
    }

    fn order(&mut self, order: &str) {
        while self.active.send(order.as_bytes()).is_err() {}
    }

    fn hear(&mut self) -> String {
        loop {
            match self.active.recv_timeout(NEVER) {
                Ok(message) => return String::from_utf8(message.to_vec()).unwrap(),
                Err(ringway::error::RecvTimeoutError::Restarted { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn tell(&mut self, order: &str) -> String {
        self.order(order);
        self.hear()
    }

    /// Tells it what must be answered with "ok".
    fn must(&mut self, order: &str) {
        assert_eq!(self.tell(order), "ok", "{order}");
    }

    fn kill(&self) {
        self.handle.kill().unwrap();
    }
}

/// Waits until something has come to be.
fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < NEVER, "in vain");
        thread::yield_now();
    }
}

fn publisher(host: &Host, topic: &str) -> Publisher {
    host.publisher_with(topic, &publish_options(NEVER, None)).unwrap()
}

fn subscriber(host: &Host, topic: &str, policy: &str) -> Subscriber {
    host.subscriber(topic, &subscribe_options(policy, 4096)).unwrap()
}

/// Receives all that comes until a publisher has gone; how it has.
fn hear_out(subscriber: &mut Subscriber, ledger: &mut Ledger) -> Departure {
    let begun = Instant::now();
    loop {
        match subscriber.try_recv() {
            Ok(publication) => ledger.enter(&publication),
            Err(TopicRecvError::Empty) => {}
            Err(error) => panic!("{error}"),
        }
        if let Some(departed) = subscriber.take_departed() {
            return departed.departure;
        }
        assert!(begun.elapsed() < NEVER, "in vain: {ledger:?}");
    }
}

#[test]
fn storage_publish_subscribe_every_subscriber_in_every_process_gets_every_publication() {
    const EACH: u64 = 50_000;
    let host = host();
    // Four subscribers in three processes, and publishers in two, of which one has a subscriber too.
    let (mut first, mut second) = (Hand::start(&host, "first"), Hand::start(&host, "second"));
    let mut third = Hand::start(&host, "third");
    let mut own = subscriber(&host, "news", "block");
    first.must("subscriber a news block 65536");
    first.must("subscriber b news block 4096");
    third.must("publisher p news 60000 1000000");
    second.must("subscriber c news block 16384");
    let mut publisher = publisher(&host, "news");
    assert_eq!(publisher.subscribers().count(), 4);
    let all = 2 * EACH;
    second.order(&format!("receive c {all}"));
    third.order(&format!("publish p 0 {EACH}"));
    let publishing = thread::spawn(move || publish(&mut publisher, 0..EACH));
    let reading = thread::spawn(move || {
        let mut ledger = Ledger::default();
        ledger.receive(&mut own, all);
        (ledger, own)
    });
    // It reads both in turn, some at a time.
    let mut taken = 0;
    while taken < all {
        let step = 100.min(all - taken);
        assert_eq!(first.tell(&format!("receive a {step}")), "0");
        assert_eq!(first.tell(&format!("receive b {step}")), "0");
        taken += step;
    }
    let (ledger, mut own) = reading.join().unwrap();
    assert_eq!((ledger.received, ledger.lost, ledger.next.len()), (all, 0, 2));
    assert!(ledger.next.values().all(|next| *next == EACH));
    assert_eq!(publishing.join().unwrap(), 0, "missed by nobody");
    assert_eq!(third.hear(), "0", "missed by nobody");
    assert_eq!(second.hear(), "0");
    assert_eq!(own.try_recv().unwrap_err(), TopicRecvError::Empty);
}

#[test]
fn storage_publish_subscribe_begins_when_the_call_returns_whoever_was_first() {
    let host = host();
    let mut hand = Hand::start(&host, "plugin");
    let mut own = publisher(&host, "news");
    hand.must("publisher p news 60000 1000000");
    for round in 0..20 {
        let key = format!("s{round}");
        hand.must(&format!("subscriber {key} news block 4096"));
        let mut late = subscriber(&host, "news", "block");
        assert_eq!(publish(&mut own, round..round + 1), 0);
        assert_eq!(hand.tell(&format!("publish p {round} {}", round + 1)), "0");
        assert_eq!(hand.tell(&format!("receive {key} 2")), "0");
        let mut ledger = Ledger::default();
        ledger.receive(&mut late, 2);
        hand.must(&format!("drop {key}"));
    }
    // What was published before is not promised, and nothing came twice.
    assert_eq!(own.stats().published, 20);
}

#[test]
fn storage_publish_subscribe_does_not_deadlock_where_two_publish_to_each_other() {
    let host = host();
    let (mut first, mut second) = (Hand::start(&host, "first"), Hand::start(&host, "second"));
    first.must("publisher p ping 20 1000000");
    second.must("publisher p pong 20 1000000");
    first.must("subscriber s pong block 4096");
    second.must("subscriber s ping block 4096");
    // More than the rings take, and neither reads while it publishes.
    first.order("publish p 0 5000");
    second.order("publish p 0 5000");
    let missed: Vec<u64> =
        [&mut first, &mut second].into_iter().map(|hand| hand.hear().parse().unwrap()).collect();
    assert!(missed.iter().all(|missed| (1..5000).contains(missed)), "{missed:?}");
    // Both are told what they have lost, with the next one.
    for hand in [&mut first, &mut second] {
        let kept = 5000 - missed[0].max(missed[1]);
        assert_eq!(hand.tell(&format!("receive s {kept}")), "0");
    }
    assert!(missed.iter().all(|missed| *missed > 4000), "a ring's worth was kept: {missed:?}");
}

/// A subscriber that is killed while its publisher waits for it, and another one that loses nothing by it.
#[test]
fn storage_publish_subscribe_publisher_is_not_held_by_a_subscriber_killed_while_it_is_waited_for() {
    let host = host();
    let mut hand = Hand::start(&host, "plugin");
    hand.must("subscriber s news block 4096");
    let mut other = subscriber(&host, "news", "oldest");
    let mut publisher = publisher(&host, "news");
    let done = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&done);
    let publishing = thread::spawn(move || {
        for number in 0..2000_u64 {
            publisher.publish(&number.to_ne_bytes()).unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
        }
        publisher
    });
    // A record has sixteen bytes: from then on it waits, or is about to.
    until(|| done.load(Ordering::Relaxed) >= 250);
    hand.kill();
    let mut publisher = publishing.join().unwrap();
    assert_eq!((publisher.stats().departed, publisher.subscribers().count()), (1, 1));
    let mut ledger = Ledger::default();
    while ledger.received + ledger.lost < 2000 {
        ledger.enter(&other.recv_timeout(NEVER).unwrap());
    }
}

#[test]
fn storage_publish_subscribe_goes_on_when_subscribers_are_killed_in_recv_and_in_a_callback() {
    let host = host();
    let mut own = subscriber(&host, "news", "block");
    let mut publisher = publisher(&host, "news");
    let mut ledger = Ledger::default();
    let mut number = 0;
    for round in 0..10 {
        let mut waiting = Hand::start(&host, &format!("waiting{round}"));
        let mut calling = Hand::start(&host, &format!("calling{round}"));
        waiting.must("subscriber s news block 4096");
        calling.must("subscriber s news block 4096");
        waiting.must("recv-for-ever s");
        calling.must("hang-in-callback s");
        assert_eq!(publisher.publish(&u64::to_ne_bytes(number)).unwrap().subscribers, 3);
        assert_eq!(calling.hear(), "in callback");
        waiting.kill();
        calling.kill();
        waiting.handle.wait_exit(NEVER).unwrap();
        calling.handle.wait_exit(NEVER).unwrap();
        number += 1;
        // Nobody waits for them, also where their rings are full.
        until(|| {
            publisher.publish(&number.to_ne_bytes()).unwrap();
            number += 1;
            ledger.receive(&mut own, number);
            publisher.subscribers().count() == 1
        });
    }
    assert_eq!((ledger.received, ledger.lost), (number, 0));
    assert_eq!(publisher.stats().departed, 20);
}

/// Killed wherever it is: between two rings, in a ring, in a system call.
#[test]
fn storage_publish_subscribe_what_a_killed_publisher_had_committed_is_received() {
    let host = host();
    let mut random = Random::new(random::seed());
    let mut subscribers: Vec<_> = (0..3).map(|_| subscriber(&host, "news", "block")).collect();
    for round in 0..10 {
        let mut hand = Hand::start(&host, &format!("publisher{round}"));
        hand.must("publisher p news 60000 1000000");
        hand.must("flood p 0");
        let mut ledgers: Vec<_> = subscribers.iter().map(|_| Ledger::default()).collect();
        // At any moment; in the end it waits for the first that is not read any more.
        let some = random.below(3000);
        for (subscriber, ledger) in subscribers.iter_mut().zip(&mut ledgers) {
            ledger.receive(subscriber, some.min(200));
        }
        for _ in 0..some {
            for (subscriber, ledger) in subscribers.iter_mut().zip(&mut ledgers) {
                if let Ok(publication) = subscriber.try_recv() {
                    ledger.enter(&publication);
                }
            }
        }
        hand.kill();
        for (subscriber, ledger) in subscribers.iter_mut().zip(&mut ledgers) {
            assert_eq!(hear_out(subscriber, ledger), Departure::Died);
            assert_eq!((ledger.lost, ledger.next.len(), subscriber.publishers()), (0, 1, 0));
        }
        // All of them up to the same one; the last one may have been sent to some.
        let received: Vec<_> = ledgers.iter().map(|ledger| ledger.received).collect();
        let (most, least) = (received.iter().max().unwrap(), received.iter().min().unwrap());
        assert!(most - least <= 1, "{received:?}");
    }
}

#[test]
fn storage_publish_subscribe_publisher_killed_while_it_waits_for_room_is_heard_to_the_end() {
    let host = host();
    let mut own = subscriber(&host, "news", "block");
    let mut hand = Hand::start(&host, "publisher");
    hand.must("publisher p news 60000 1000000");
    hand.must("subscriber s other newest 4096");
    hand.order("publish p 0 2000");
    // The ring is full then.
    let mut ledger = Ledger::default();
    ledger.receive(&mut own, 1000);
    hand.kill();
    assert_eq!(hear_out(&mut own, &mut ledger), Departure::Died);
    assert_eq!((ledger.lost, ledger.next.len()), (0, 1));
    assert!(ledger.received >= 1000 && ledger.received <= 2000, "{ledger:?}");
    // It was a subscriber, too: nobody is left.
    let mut publisher = publisher(&host, "other");
    until(|| publisher.publish(b"").unwrap().subscribers == 0);
}

#[test]
fn storage_publish_subscribe_a_stopped_subscriber_holds_nobody() {
    let host = host();
    let policies = ["newest", "oldest", "disconnect"];
    let mut hand = Hand::start(&host, "stopped");
    for policy in policies {
        hand.must(&format!("subscriber {policy} news {policy} 4096"));
    }
    let mut own = subscriber(&host, "news", "block");
    let mut publisher = publisher(&host, "news");
    let pid = hand.handle.pid().unwrap() as i32;
    // SAFETY: takes numbers; the plugin has not been reaped.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGSTOP) }, 0);
    let mut ledger = Ledger::default();
    for number in 0..10_000_u64 {
        publisher.publish(&number.to_ne_bytes()).unwrap();
        ledger.receive(&mut own, number + 1);
    }
    assert_eq!((ledger.lost, publisher.stats().cut_off), (0, 1));
    // SAFETY: as above.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGCONT) }, 0);
    // It goes on with what its rings hold, and then with what comes.
    assert_eq!(hand.tell("receive newest 100"), "0");
    assert_eq!(hand.tell("receive disconnect 100"), "0");
    let lost: u64 = hand.tell("receive oldest 280").parse().unwrap();
    assert!(lost > 1000, "{lost}");
    let own = publisher.subscribers().count();
    assert_eq!(own, 3);
}

#[test]
fn storage_publish_subscribe_restarted_processes_publish_and_subscribe_again() {
    let host = host();
    let mut own = subscriber(&host, "news", "block");
    let mut publisher = publisher(&host, "echo");
    let spec = plugin::spec("again", "use-topics").restart(restarts(3));
    let mut hand = Hand::start_spec(&host, spec);
    for round in 0..3 {
        hand.must("publisher p news 60000 1000000");
        hand.must("subscriber s echo block 4096");
        assert_eq!(hand.tell("publish p 0 10"), "0");
        let mut ledger = Ledger::default();
        ledger.receive(&mut own, 10);
        assert_eq!((ledger.lost, ledger.next.len(), own.publishers()), (0, 1, 1));
        publish(&mut publisher, 10 * round..10 * round + 10);
        assert_eq!(hand.tell("receive s 10"), "0");
        hand.kill();
        assert_eq!(hear_out(&mut own, &mut ledger), Departure::Died);
    }
}

#[test]
fn f89_large_publications_are_no_keys_of_the_hosts_store() {
    let host = host_with_stores();
    let store = host.store().unwrap();
    store.set("of the program", b"").unwrap();
    // SAFETY: the plugin is this very program, which writes to the store by way of the library only.
    let spec = unsafe { plugin::spec("trusted", "use-topics").trust_with_store() };
    let mut trusted = Hand::start_spec(&host, spec);
    let mut reader = Hand::start(&host, "reader");
    let mut denied = Hand::start_spec(&host, plugin::spec("denied", "use-topics").no_store());
    for hand in [&mut trusted, &mut reader, &mut denied] {
        hand.must("subscriber s news block 262144");
    }
    trusted.must("publisher p news 60000 10000");
    assert_eq!(trusted.tell("publish-long p 0 100000"), "0 1");
    let keys: Vec<_> = store.iter().map(|entry| entry.unwrap().key().to_vec()).collect();
    assert_eq!(keys, [b"of the program"]);
    store.clear().unwrap();
    // Read in place; copied; through the ring.
    assert_eq!(trusted.tell("receive-long s"), "true 100000");
    assert_eq!(reader.tell("receive-long s"), "false 100000");
    assert_eq!(denied.tell("receive-long s"), "false 100000");
    // Who may not write sends everything through the rings.
    reader.must("publisher p news 60000 10000");
    assert_eq!(reader.tell("publish-long p 0 60000"), "0 0");
    assert_eq!(denied.tell("receive-long s"), "false 60000");
    assert_eq!(trusted.tell("receive-long s"), "true 60000".replace("true", "false"));
    assert_eq!(reader.tell("receive-long s"), "false 60000");
    // Not removed before all have read it.
    assert_eq!(trusted.tell("publish-long p 1 100000"), "0 2");
    assert_eq!(denied.tell("receive-long s"), "false 100000");
    assert_eq!(reader.tell("receive-long s"), "false 100000");
    assert!(store.is_empty().unwrap());
}

#[test]
fn storage_publish_subscribe_needs_a_host_that_links() {
    let host = Host::builder().build().unwrap();
    assert!(host.publisher("news").is_err());
    let options = subscribe_options("block", 4096);
    assert!(host.subscriber("news", &options).is_err());
    let host = self::host();
    assert!(host.subscriber("no\0name", &options).is_err());
    let wrong = subscribe_options("block", 1000);
    assert!(host.subscriber("news", &wrong).is_err());
}
