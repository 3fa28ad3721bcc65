//! Many plugins that publish, subscribe, call each other and write to the host's store, and are killed
//! at random instants while they do.
//!
//! What must hold: publications of one publisher come in order, and none is missing that is not counted
//! as lost; calls end by their deadlines, with the right result or a typed error; nobody is taken for a
//! liar, and nobody hears of an end that was not; the only deaths are those that the test is guilty of.
//! Afterwards every plugin hears every publisher of its topic and no other, and gets answers from every
//! callee; at the end nothing is left. `RINGWAY_SOAK_KILLS` says how many are killed,
//! `RINGWAY_SOAK_PLUGINS` of how many; `RINGWAY_SEED` replays the choices.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::plugin::{self, KILLED, NEVER, ROLE};
use common::random::{self, Random};
use ringway::error::{ExitReason, TryRecvError};
use ringway::host::{Host, HostEventKind, Plugin, Restart};
use ringway::rpc::CallError;
use ringway::store::StoreOptions;
use ringway::topic::{
    BackpressurePolicy, Departed, Departure, Publication, PublishOptions, PublisherId,
    SubscribeOptions, TopicReport,
};

const SOAK: &str = "soak";
const TOPICS: u64 = 4;
/// How long a call waits for its result.
const CALL: Duration = Duration::from_millis(500);
/// Exit code of a plugin that has seen what must not be.
const WRONG: i32 = 66;
/// The counts that plugins keep in the store.
const COUNTS: [&str; 5] = ["published", "received", "lost", "answered", "failed"];
/// How many others a plugin calls: those whose numbers follow its own.
const CALLEES: u64 = 4;

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
    // Each policy meets each other one on each topic.
    let backpressure = match (number / TOPICS) % 4 {
        0 => BackpressurePolicy::Block(Duration::from_millis(50)),
        1 => BackpressurePolicy::DropNewest,
        2 => BackpressurePolicy::DropOldest { queue_bytes: 8192 },
        _ => BackpressurePolicy::Disconnect,
    };
    let options =
        SubscribeOptions { capacity_bytes: 8192, backpressure, ..SubscribeOptions::default() };
    let subscriber = plugin.subscriber(&topic((number + 1) % TOPICS), &options).unwrap();
    let heard = Arc::new(Heard::default());
    let mut newest = HashMap::new();
    let (hears, is_told) = (Arc::clone(&heard), Arc::clone(&heard));
    let listening = subscriber
        .passive()
        .on(
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
                hears.publication(publication);
                // Now and then it is slow, each at another one, and its rings fill up.
                if publication.number() % 256 == number % 256 {
                    thread::sleep(Duration::from_millis(50));
                }
            },
        )
        .report(move |report| match report {
            TopicReport::Departed(departed) => is_told.departure(departed, backpressure),
            report => wrong(&format!("{report:?}")),
        })
        .start();
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
    let mut counts = [0_u64; COUNTS.len()];
    // One bit for each callee whose answer to the last call has come.
    let mut answers = 0_u64;
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
            let callee = random.below(CALLEES);
            let other = (number + 1 + callee) % plugins();
            match client.call(&function(other), &payload, CALL) {
                Ok(result) if result == [&payload[..], &payload].concat() => {
                    counts[3] += 1;
                    answers |= 1 << callee;
                }
                Ok(_) => wrong("another one's result"),
                Err(
                    CallError::Timeout { .. }
                    | CallError::Full { .. }
                    | CallError::Unknown { .. }
                    | CallError::Died
                    | CallError::Link(_),
                ) => {
                    counts[4] += 1;
                    answers &= !(1 << callee);
                }
                Err(error) => wrong(&format!("a call that is not answered, but {error:?}")),
            }
        }
        if round % 32 == 0 {
            counts[1] = heard.received.swap(0, Ordering::Relaxed);
            counts[2] = heard.lost.swap(0, Ordering::Relaxed);
            for (what, count) in COUNTS.iter().zip(&mut counts) {
                let added = std::mem::take(count) as i64;
                store.fetch_add(format!("{what}/{number}"), added).unwrap();
            }
            let now = [u64::from(process::id()), heard.publishers(), answers];
            store.set(format!("now/{number}"), bytemuck::bytes_of(&now)).unwrap();
        }
        // So that all of them get somewhere; now and then more at once than a ring holds.
        if round % 256 < 192 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What a subscriber has been told.
#[derive(Default)]
struct Heard {
    received: AtomicU64,
    lost: AtomicU64,
    /// Those that have published something, and have not gone; a cut off one until its successor does.
    publishers: Mutex<HashMap<PublisherId, Publishing>>,
}

struct Publishing {
    plugin: String,
    is_cut_off: bool,
}

impl Heard {
    fn publication(&self, publication: &Publication<'_>) {
        self.received.fetch_add(1, Ordering::Relaxed);
        self.lost.fetch_add(publication.lost_before(), Ordering::Relaxed);
        let mut publishers = self.publishers.lock().unwrap();
        if !publishers.contains_key(&publication.publisher()) {
            let plugin = publication.plugin().to_owned();
            publishers.retain(|_, other| !other.is_cut_off || other.plugin != plugin);
            publishers.insert(publication.publisher(), Publishing { plugin, is_cut_off: false });
        }
    }

    fn departure(&self, departed: &Departed, backpressure: BackpressurePolicy) {
        let mut publishers = self.publishers.lock().unwrap();
        match departed.departure {
            Departure::Died | Departure::Finished => drop(publishers.remove(&departed.publisher)),
            Departure::CutOff if backpressure == BackpressurePolicy::Disconnect => {
                if let Some(publishing) = publishers.get_mut(&departed.publisher) {
                    publishing.is_cut_off = true;
                }
            }
            // At the end, where its good-bye finds no room.
            Departure::CutOff => drop(publishers.remove(&departed.publisher)),
            _ => wrong(&format!("{departed:?}")),
        }
    }

    fn publishers(&self) -> u64 {
        self.publishers.lock().unwrap().len() as u64
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
    let deadline = Instant::now() + NEVER;
    let total = |what: &str| -> i64 {
        let all = store.prefix(format!("{what}/"));
        all.map(|entry| i64::from_ne_bytes((**entry.unwrap().value()).try_into().unwrap())).sum()
    };
    // All of them, and those that were killed too, are linked with all others as if nothing had been.
    let now = |number: u64| -> Option<[u64; 3]> {
        let value = store.get(format!("now/{number}")).unwrap()?;
        Some(bytemuck::pod_read_unaligned(&value))
    };
    let linked = |number: u64| {
        let topic = (number + 1) % TOPICS;
        let publishers = (0..plugins()).filter(|number| number % TOPICS == topic).count() as u64;
        let pid = handles[number as usize].pid().map(u64::from);
        pid.map(|pid| [pid, publishers, (1 << CALLEES) - 1])
    };
    for number in 0..plugins() {
        while now(number).is_none_or(|now| Some(now) != linked(number)) {
            let (now, linked) = (now(number), linked(number));
            assert!(Instant::now() < deadline, "{number} has {now:?}, not {linked:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
    let [published, received, lost, answered, failed] = COUNTS.map(total);
    println!(
        "{kills} kills among {} plugins: {published} published, {received} received, {lost} \
         lost, {answered} calls answered, {failed} not",
        plugins()
    );
    assert!(received > published && lost > 0 && answered > failed);
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
