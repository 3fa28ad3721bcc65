//! Many plugins that publish, subscribe, call each other and write to the host's store, and are killed
//! at random instants while they do.
//!
//! What must hold: publications of one publisher come in order, and none is missing that is not counted
//! as lost; calls end by their deadlines, with the right result or a typed error; the only deaths are
//! those that the test is guilty of; at the end nothing is left. `RINGWAY_SOAK_KILLS` says how many are
//! killed, `RINGWAY_SOAK_PLUGINS` of how many; `RINGWAY_SEED` replays the choices.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::plugin::{self, KILLED, NEVER, ROLE};
use common::random::{self, Random};
use ringway::error::{ExitReason, TryRecvError};
use ringway::host::{Host, HostEventKind, Plugin, Restart};
use ringway::rpc::CallError;
use ringway::store::StoreOptions;
use ringway::topic::{Publication, PublishOptions, SubscribeOptions, WhenSlow};

const SOAK: &str = "soak";
const TOPICS: u64 = 4;
/// How long a call waits for its result.
const CALL: Duration = Duration::from_millis(500);
/// Exit code of a plugin that has seen what must not be.
const WRONG: i32 = 66;
/// The counts that plugins keep in the store.
const COUNTS: [&str; 4] = ["published", "received", "answered", "failed"];

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    if std::env::var(ROLE).as_deref() == Ok(SOAK) {
        play();
        process::exit(0);
    }
    plugin::run_role();
}

/// Ends the process, loudly: what it has seen must not be.
fn wrong(what: &str) -> ! {
    eprintln!("plugin {}: {what}", process::id());
    process::exit(WRONG);
}

fn number_of(name: &str) -> u64 {
    name.strip_prefix("soak-").and_then(|number| number.parse().ok()).expect("a soak's plugin")
}

fn play() {
    let plugin = Plugin::connect().unwrap();
    let number = number_of(plugin.name());
    let store = plugin.store().unwrap();
    let received = Arc::new(AtomicU64::new(0));
    let when_slow = match number % 4 {
        0 => WhenSlow::Block(Duration::from_millis(50)),
        1 => WhenSlow::DropNewest,
        2 => WhenSlow::DropOldest { queue_bytes: 8192 },
        _ => WhenSlow::Disconnect,
    };
    let options =
        SubscribeOptions { capacity_bytes: 8192, when_slow, ..SubscribeOptions::default() };
    let subscriber = plugin.subscriber(&topic((number + 1) % TOPICS), &options).unwrap();
    let mut newest = HashMap::new();
    let count = Arc::clone(&received);
    let listening = subscriber.on_publication(
        |_: &Publication<'_>| true,
        move |publication: &Publication<'_>| {
            let sent = u64::from_ne_bytes(publication[..8].try_into().unwrap());
            let last = newest.insert(publication.publisher(), publication.number());
            let expected = last.map(|last| last + 1 + publication.lost_before());
            if expected.is_some_and(|expected| expected != publication.number()) {
                wrong(&format!("{} after {last:?}", publication.number()));
            }
            if sent ^ publication.number() != publication[8..].len() as u64 {
                wrong("a publication of another length, or another's number");
            }
            count.fetch_add(1, Ordering::Relaxed);
        },
    );
    let _listening = listening.unwrap();
    let _server = plugin
        .rpc_server()
        .unwrap()
        .capacity_bytes(8192)
        .function(&function(number), |request| Ok([request.bytes(), request.bytes()].concat()))
        .start()
        .unwrap();
    let client = plugin.rpc_client().unwrap();
    let mut publisher =
        plugin.publisher_with(&topic(number % TOPICS), &PublishOptions::default()).unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    let mut random = Random::new(u64::from(process::id()));
    let mut counts = [0_u64; 4];
    for round in 0_u64.. {
        match active.try_recv() {
            Err(TryRecvError::Empty) => {}
            _ => return,
        }
        let len = random.below(600);
        let next = publisher.stats().published;
        let mut payload = (next ^ len).to_ne_bytes().to_vec();
        payload.resize(8 + len as usize, 7);
        publisher.publish(&payload).unwrap();
        counts[0] += 1;
        if round % 4 == 0 {
            let other = (number + 1 + random.below(4)) % plugins();
            match client.call(&function(other), &payload, CALL) {
                Ok(result) if result == [&payload[..], &payload].concat() => counts[2] += 1,
                Ok(_) => wrong("another one's result"),
                Err(
                    CallError::Timeout { .. }
                    | CallError::Full { .. }
                    | CallError::Unknown { .. }
                    | CallError::Died
                    | CallError::Link(_),
                ) => counts[3] += 1,
                Err(error) => wrong(&format!("a call that is not answered, but {error:?}")),
            }
        }
        if round % 32 == 0 {
            counts[1] = received.swap(0, Ordering::Relaxed);
            for (what, count) in COUNTS.iter().zip(&mut counts) {
                let added = std::mem::take(count) as i64;
                store.fetch_add(format!("{what}/{number}"), added).unwrap();
            }
        }
        // So that all of them get somewhere.
        thread::sleep(Duration::from_millis(1));
    }
}

fn topic(number: u64) -> String {
    format!("topic-{number}")
}

fn function(number: u64) -> String {
    format!("twice-{number}")
}

fn plugins() -> u64 {
    random::number("RINGWAY_SOAK_PLUGINS").unwrap_or(32)
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn plugins_that_publish_call_and_die() {
    if !plugin::alone("plugins_that_publish_call_and_die") {
        return;
    }
    let kills = random::number("RINGWAY_SOAK_KILLS").unwrap_or(60_u64);
    let mut random = Random::new(random::seed());
    let options = StoreOptions { capacity_bytes: 4 << 20, ..StoreOptions::default() };
    // What a process has from its first plugin on.
    let first = Host::builder().store(options.clone()).links().build().unwrap();
    drop(first.spawn(plugin::spec("first", "echo")).unwrap());
    drop(first);
    let before = descriptors();
    let host = Host::builder().store(options).links().build().unwrap();
    let restart = Restart::OnFailure {
        max_restarts: u32::MAX,
        backoff_initial: Duration::ZERO,
        backoff_max: Duration::ZERO,
    };
    let handles: Vec<_> = (0..plugins())
        .map(|number| {
            let spec = plugin::spec(&format!("soak-{number}"), SOAK).restart(restart);
            host.spawn(spec).unwrap()
        })
        .collect();
    let (mut dying, mut died) = (HashSet::new(), 0);
    let deadline = Instant::now() + NEVER + Duration::from_millis(200) * kills as u32;
    while died < kills {
        assert!(Instant::now() < deadline, "{died} have died");
        let victim = &handles[random.below(handles.len() as u64) as usize];
        // A few at a time, so that most of them live.
        if dying.len() < 4
            && let Some(pid) = victim.pid()
            && !dying.contains(&pid)
            && victim.kill().is_ok()
        {
            // The process of that number, or its successor.
            dying.insert(victim.pid().unwrap_or(pid));
        }
        let pause = Duration::from_micros(random.below(20_000));
        while let Some(event) = host.next_event(pause) {
            match event.kind {
                HostEventKind::Died { pid, reason } => {
                    assert_eq!(reason, KILLED, "{}", event.plugin);
                    dying.remove(&pid);
                    died += 1;
                }
                // Killed before it was ready: there is another attempt.
                HostEventKind::Started { .. }
                | HostEventKind::Restarted { .. }
                | HostEventKind::StartFailed { .. } => {}
                other => panic!("{}: {other:?}", event.plugin),
            }
        }
    }
    let store = host.store().unwrap();
    // All of them get somewhere, those that were killed too.
    let deadline = Instant::now() + NEVER;
    let total = |what: &str| -> i64 {
        let all = store.prefix(format!("{what}/"));
        all.map(|entry| i64::from_ne_bytes((**entry.unwrap().value()).try_into().unwrap())).sum()
    };
    let alive = |number: u64| {
        let answered = store.get(format!("answered/{number}")).unwrap();
        answered.is_some_and(|value| i64::from_ne_bytes((*value).try_into().unwrap()) > 0)
    };
    while !(0..plugins()).all(alive) {
        assert!(Instant::now() < deadline, "one of them gets nowhere");
        thread::sleep(Duration::from_millis(10));
    }
    let [published, received, answered, failed] = COUNTS.map(total);
    println!(
        "{kills} kills among {} plugins: {published} published, {received} received, {answered} calls answered, \
         {failed} not",
        plugins()
    );
    assert!(received > published && answered > failed);
    store.check().unwrap();
    drop(store);
    for ended in host.shutdown(NEVER).unwrap() {
        assert!(
            matches!(ended.reason, Some(ExitReason::Code(0) | ExitReason::Signal(_))),
            "{ended:?}"
        );
    }
    drop((handles, host));
    // Threads that are about to end let go of theirs a moment later, also those of the first host.
    let deadline = Instant::now() + NEVER;
    while descriptors() > before {
        assert!(Instant::now() < deadline, "{} descriptors, {before} before", descriptors());
        thread::yield_now();
    }
}
