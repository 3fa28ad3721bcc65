//! The host's store, used by plugins that are trusted and by plugins that are not; killed in the middle
//! of it, restarted, outlived.
//!
//! This test binary is executed again as the plugin. What always holds: a plugin is ended by its
//! host at the end of each test, also where the test fails.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use common::controlling::Hand;
use common::plugin::{self, KILLED, NEVER, restarts};
use common::storing::{self, BUSY_KEYS, busy_count, busy_key};
use ringway::error::RecvTimeoutError;
use ringway::host::{Host, HostEventKind, PluginSpec, ServiceProblem, StoreError};
use ringway::layout::store::private::bell;
use ringway::store::{Store, StoreOptions, StoreQuota, WriteError};

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    plugin::run_role();
}

fn host_with(options: StoreOptions) -> Host {
    Host::builder().store(options).build().unwrap()
}

fn host() -> Host {
    host_with(StoreOptions { capacity_bytes: 4 << 20, ..StoreOptions::default() })
}

fn trusted(spec: PluginSpec) -> PluginSpec {
    // SAFETY: the plugin is this very program, which writes to the store by way of the library only.
    unsafe { spec.trust_with_store() }
}

/// Waits until something has come to be.
fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < NEVER, "in vain");
        std::thread::yield_now();
    }
}

/// The next event that is not a start.
fn event(host: &Host) -> HostEventKind {
    loop {
        let kind = host.next_event(NEVER).expect("an event").kind;
        if !matches!(kind, HostEventKind::Started { .. }) {
            return kind;
        }
    }
}

/// The same calls, whoever carries them out.
fn uses_the_store_as_the_host_does(spec: PluginSpec, access: &str) {
    let host = host();
    let store = host.store().unwrap();
    let mut hand = Hand::start(&host, spec.restart(restarts(3)));
    store.set("motd", b"hello").unwrap();
    for (order, answer) in [
        ("access", access),
        ("get motd", "hello"),
        ("get nothing", "absent"),
        ("set a one", "()"),
        ("get a", "one"),
        ("set_if_absent a two", "false"),
        ("set_if_absent b two", "true"),
        ("swap a three", "Some(3)"),
        ("append a !", "()"),
        ("get a", "three!"),
        ("append c new", "()"),
        ("exchange c newer", "()"),
        ("delete b", "true"),
        ("delete b", "false"),
        ("delete_existing b", "Missing"),
        ("add n 40", "0"),
        ("add n 2", "40"),
        ("long big 1000000", "()"),
        ("delete big", "true"),
        ("len", "4"),
    ] {
        assert_eq!(hand.tell(order), answer, "{order}");
    }
    let changed = hand.tell("exchange_wrongly c x");
    assert!(changed.starts_with("Changed { found: Some("), "{changed}");
    let key = format!("set {} x", "k".repeat(65537));
    assert_eq!(hand.tell(&key), "KeyLength { found: 65537 }");
    assert_eq!(&*store.get("c").unwrap().unwrap(), b"newer");
    assert_eq!(store.fetch_add("n", 0), Ok(42));
    // What is in the store outlives who wrote it.
    hand.handle.kill().unwrap();
    assert_eq!(hand.tell("get a"), "three!");
    assert_eq!(hand.tell("set a four"), "()");
    assert_eq!(&*store.get("a").unwrap().unwrap(), b"four");
    store.check().unwrap();
}

#[test]
fn a_trusted_plugin_uses_the_store_as_the_host_does() {
    uses_the_store_as_the_host_does(trusted(plugin::spec("trusted", "use-store")), "Writable");
}

#[test]
fn who_is_not_trusted_uses_the_store_as_the_host_does() {
    uses_the_store_as_the_host_does(plugin::spec("untrusted", "use-store"), "ThroughHost");
}

#[test]
fn what_does_not_fit_is_an_error_that_says_so() {
    let host = host();
    let mut hand = Hand::start(&host, trusted(plugin::spec("trusted", "use-store")));
    let full = hand.tell("long huge 100000000");
    assert!(full.starts_with("OutOfSpace"), "{full}");
}

#[test]
fn f26_who_is_not_trusted_may_ask_for_so_much() {
    let host = host();
    let store = host.store().unwrap();
    let quota = StoreQuota { max_keys: 2, max_value_bytes: 100, ..StoreQuota::default() };
    let spec = plugin::spec("untrusted", "use-store").store_quota(quota).restart(restarts(3));
    let mut hand = Hand::start(&host, spec);
    let readers = store.stats().unwrap().readers;
    store.set("motd", b"hello").unwrap();
    let too_long = hand.tell("long huge 100000000");
    assert!(too_long.starts_with("Remote(TooLong { len: 1000000"), "{too_long}");
    for (order, answer) in [
        ("long a 101", "Quota(ValueLength { found: 101, max: 100 })"),
        ("long a 100", "()"),
        ("add n 1", "0"),
        ("set c x", "Quota(Keys { max: 2 })"),
        ("add d 1", "Write(Quota(Keys { max: 2 }))"),
        ("append motd x", "Quota(Keys { max: 2 })"),
        ("set n x", "()"),
        ("len", "3"),
    ] {
        assert_eq!(hand.tell(order), answer, "{order}");
    }
    // It takes no reader's record, and its successor has what it had.
    assert_eq!(store.stats().unwrap().readers, readers);
    hand.handle.kill().unwrap();
    assert_eq!(hand.tell("set c x"), "Quota(Keys { max: 2 })");
    store.delete("a").unwrap();
    assert_eq!(hand.tell("delete n"), "true");
    assert_eq!((&*hand.tell("set c x"), &*hand.tell("set d x")), ("()", "()"));
    store.check().unwrap();
}

#[test]
fn f04_who_is_killed_with_a_request_under_way_has_changed_all_of_it_or_nothing() {
    kill_busy_plugins(plugin::spec("asking", "be-busy"), "asking", 30);
}

#[test]
fn f40_who_asks_for_what_cannot_be_is_not_served_any_more_and_has_changed_nothing() {
    let host = host();
    let store = host.store().unwrap();
    store.set("motd", b"hello").unwrap();
    let mut good = Hand::start(&host, plugin::spec("good", "use-store"));
    let spec = plugin::spec("bad", "misuse-service").restart(restarts(3));
    let mut bad = Hand::start(&host, spec);
    let told = bad.tell("store");
    assert!(told.starts_with("Closed"), "{told}");
    let problem = ServiceProblem::Payload { op: 1 << 16 | 1, len: 20 };
    assert_eq!(event(&host), HostEventKind::ServiceClosed { problem });
    assert_eq!((&*good.tell("get motd"), &*good.tell("set motd x")), ("hello", "()"));
    assert_eq!(store.len(), Ok(1));
    store.check().unwrap();
}

#[test]
fn a_plugin_may_be_denied_the_store_and_a_host_need_not_have_one() {
    let none = StoreError::None.to_string();
    let with = host();
    let mut hand = Hand::start(&with, plugin::spec("denied", "use-store").no_store());
    assert_eq!(hand.tell("get motd"), none);
    let without = plugin::host();
    let mut hand = Hand::start(&without, plugin::spec("poor", "use-store"));
    assert_eq!(hand.tell("get motd"), none);
    assert!(matches!(without.store(), Err(StoreError::None)));
}

/// Looks at what a busy plugin has left: every value is whole, and of a round that was begun.
fn look_at(store: &Store, name: &str, at_least: u64) -> u64 {
    let count = store.fetch_add(busy_count(name), 0).unwrap() as u64;
    assert!(count >= at_least, "{at_least} was committed, {count} is there");
    for number in 0..BUSY_KEYS {
        let Some(value) = store.get(busy_key(name, number)).unwrap() else { continue };
        let round = u64::from_ne_bytes(value[..8].try_into().unwrap());
        assert!(round <= count && round % BUSY_KEYS == number);
        assert_eq!(&*value, storing::value(number, round));
    }
    count
}

/// Kills busy plugins so often, and looks at what they leave.
fn kill_busy_plugins(spec: PluginSpec, name: &str, kills: u32) {
    let host = host();
    let store = host.store().unwrap();
    let alone = store.stats().unwrap().readers;
    let handle = host.spawn(spec.restart(restarts(kills + 1))).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    let mut last = 0;
    for kill in 0..kills {
        // Some rounds of this process's.
        let mut rounds = 0;
        while rounds < 1 + kill % 20 {
            if let Ok(message) = active.recv_timeout(NEVER) {
                last = u64::from_ne_bytes(message.bytes().try_into().unwrap());
                rounds += 1;
            }
        }
        handle.kill().unwrap();
        assert!(matches!(event(&host), HostEventKind::Died { reason: KILLED, .. }));
        last = last.max(look_at(&store, name, last));
        store.check().unwrap();
        assert!(matches!(event(&host), HostEventKind::Restarted { .. }));
    }
    handle.terminate().unwrap();
    store.check().unwrap();
    // What the dead had is given back without anybody's asking.
    until(|| store.stats().unwrap().readers == alone);
    println!("{kills} kills, {last} rounds, {} recoveries", store.stats().unwrap().recoveries);
}

#[test]
fn f04_f05_trusted_writers_are_killed_and_lose_nothing_that_was_committed() {
    kill_busy_plugins(trusted(plugin::spec("busy", "be-busy")), "busy", 60);
}

#[test]
fn f07_a_reader_that_dies_gives_back_what_it_had_pinned() {
    let host = host();
    let store = host.store().unwrap();
    let before = store.stats().unwrap();
    store.set("pinned", &[1; 5000]).unwrap();
    let mut hand = Hand::start(&host, trusted(plugin::spec("pinner", "pin")));
    assert_eq!(hand.tell("pinned"), "5000");
    store.set("pinned", &[2; 10]).unwrap();
    assert_eq!((store.reclaim(), store.stats().unwrap().pinned), (Ok(0), Some(1)));
    hand.handle.kill().unwrap();
    assert!(matches!(event(&host), HostEventKind::Died { .. }));
    until(|| {
        let now = store.stats().unwrap();
        (now.readers, now.pinned, now.retired) == (before.readers, Some(0), 0)
    });
    store.check().unwrap();
    assert_eq!(host.next_event(Duration::ZERO), None);
}

#[test]
fn f27_a_trusted_plugin_that_is_stopped_with_the_lock_keeps_nobody_past_a_deadline() {
    let host = host();
    let store = host.store().unwrap();
    store.set("held", b"old").unwrap();
    let mut pinger = Hand::start(&host, plugin::spec("pinger", "ping"));
    assert_eq!(pinger.tell("ping"), "Ok(())");
    let mut other = Hand::start(&host, trusted(plugin::spec("other", "use-store")));
    let handle = host.spawn(trusted(plugin::spec("stopped", "stop-with-the-lock"))).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    assert_eq!(active.recv_timeout(NEVER).unwrap().bytes(), b"held");
    assert_eq!(store.try_set("held", b"new"), Err(WriteError::Deadline));
    let late = store.set_timeout("held", b"new", Duration::from_millis(20));
    assert_eq!(late, Err(WriteError::Deadline));
    assert_eq!(&*store.get("held").unwrap().unwrap(), b"old", "reading takes no lock");
    assert_eq!(other.tell("get held"), "old");
    // Another one dies meanwhile: what it leaves waits for the lock, and the server does not.
    other.handle.kill().unwrap();
    assert_eq!(pinger.tell("ping"), "Ok(())");
    handle.kill().unwrap();
    store.set("held", b"new").unwrap();
    assert_eq!(&*store.get("held").unwrap().unwrap(), b"new");
    store.check().unwrap();
}

/// At how many bells somebody has announced himself and was not woken since.
fn awaited(store: &Store) -> usize {
    // SAFETY: nothing is written through it.
    let memory = File::from(unsafe { store.descriptor_writable() }.unwrap().private);
    let is_awaited = |bell: &u64| {
        let mut word = [0; 4];
        memory.read_exact_at(&mut word, bell + bell::WAITING).unwrap();
        word != [0; 4]
    };
    (0..=bell::BUCKETS).map(bell::numbered).filter(is_awaited).count()
}

#[test]
fn who_may_only_read_is_woken_through_the_host_and_does_not_poll() {
    let host = host();
    let store = host.store().unwrap();
    let mut hand = Hand::start(&host, plugin::spec("untrusted", "wait"));
    assert_eq!((&*hand.tell("k"), awaited(&store)), ("watching", 0));
    // A hundred, if it looked at intervals.
    let sleeps: u32 = hand.tell("a second").parse().unwrap();
    assert!(sleeps < 30, "{sleeps} times in a second in which nothing happened");
    assert_eq!(awaited(&store), 1, "that one is still announced");
    store.set("other", b"1").unwrap();
    for round in 0..200_u32 {
        hand.active.send(b"a change").unwrap();
        if round % 2 == 0 {
            // It sleeps, or is about to; else it may not have got there yet.
            until(|| awaited(&store) == 1);
        }
        let version = store.set("k", &round.to_le_bytes()).unwrap();
        let told = hand.active.recv_timeout(NEVER).unwrap();
        assert_eq!(told.bytes(), format!("Some({version})").as_bytes());
    }
    // Nobody sleeps, and nobody is woken.
    store.set("k", b"the last").unwrap();
    assert_eq!(awaited(&store), 0);
}

#[test]
fn f05_who_is_killed_while_it_waits_leaves_no_announcement_behind() {
    let host = host();
    let store = host.store().unwrap();
    let spec = |name| plugin::spec(name, "wait").restart(restarts(100));
    let mut stays = Hand::start(&host, spec("stays"));
    let mut dies = Hand::start(&host, spec("dies"));
    assert_eq!(stays.tell("a"), "watching");
    stays.active.send(b"a change").unwrap();
    until(|| awaited(&store) == 1);
    // A key with another bell: where this process watches it too, there are two.
    let key = (0..).map(|number: u32| number.to_string()).find(|key| {
        assert_eq!(store.watch(key).unwrap().wait(Duration::ZERO), Ok(None));
        let is_another = awaited(&store) == 2;
        store.set(key, b"").unwrap();
        until(|| awaited(&store) == 1);
        is_another
    });
    let key = key.unwrap();
    for _ in 0..20 {
        assert_eq!(dies.tell(&key), "watching");
        dies.active.send(b"a change").unwrap();
        until(|| awaited(&store) == 2);
        dies.handle.kill().unwrap();
        assert!(matches!(event(&host), HostEventKind::Died { .. }));
        until(|| awaited(&store) == 1);
        assert!(matches!(event(&host), HostEventKind::Restarted { .. }));
        let restarted = dies.active.recv_timeout(NEVER);
        assert!(matches!(restarted, Err(RecvTimeoutError::Restarted { .. })));
    }
    // Who waits at the same bell waits on.
    assert_eq!(dies.tell("a"), "watching");
    dies.active.send(b"a change").unwrap();
    dies.handle.kill().unwrap();
    assert!(matches!(event(&host), HostEventKind::Died { .. }));
    let version = store.set("a", b"1").unwrap();
    let told = stays.active.recv_timeout(NEVER).unwrap();
    assert_eq!(told.bytes(), format!("Some({version})").as_bytes());
    until(|| awaited(&store) == 0);
    store.check().unwrap();
}

#[test]
fn f02_what_a_writer_did_that_was_killed_right_after_it_is_told_through_the_host() {
    let host = host();
    let store = host.store().unwrap();
    let mut follower = Hand::start(&host, plugin::spec("follower", "follow"));
    assert_eq!(follower.tell(&busy_count("busy")), "watching");
    let spec = trusted(plugin::spec("busy", "be-busy")).restart(restarts(100));
    let busy = Hand::start(&host, spec);
    let mut active = busy.active;
    for kill in 0..30 {
        let mut rounds = 0;
        while rounds <= kill % 7 {
            rounds += u32::from(active.recv_timeout(NEVER).is_ok());
        }
        busy.handle.kill().unwrap();
        // The next one may have begun already.
        assert!(matches!(event(&host), HostEventKind::Died { reason: KILLED, .. }));
        assert!(matches!(event(&host), HostEventKind::Restarted { .. }));
    }
    busy.handle.terminate().unwrap();
    let last = store.get(busy_count("busy")).unwrap().unwrap().version();
    assert_eq!(follower.tell(&last.to_string()), "told");
}

#[test]
fn f26_the_store_of_an_untrusted_plugin_cannot_be_written_through_its_descriptor() {
    let host = host();
    host.store().unwrap().set("motd", b"hello").unwrap();
    let mut hand = Hand::start(&host, plugin::spec("untrusted", "write-anyway"));
    assert_eq!(hand.tell("begin"), "0 of 6 attempts succeeded");
    assert_eq!(&*host.store().unwrap().get("motd").unwrap().unwrap(), b"hello");
    host.store().unwrap().check().unwrap();
}
