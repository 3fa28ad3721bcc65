//! The service over a channel, without processes: what is refused, and what is answered when.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use super::acting::{ControlRequest, Permission};
use super::roster::Roster;
use super::serving::{MAX_ACTING, Others};
use super::wire::{
    self, STATUS_BUSY, STATUS_NOT_PERMITTED, STATUS_NOT_RUNNING, STATUS_NOTHING,
    STATUS_UNKNOWN_NAME,
};
use crate::channel::{Channel, ChannelOptions};
use crate::error::RecvTimeoutError;
use crate::host::event::{Events, HostEventKind};
use crate::host::handle::PluginState;
use crate::host::service::frame::{
    CAPACITY_BYTES, Header, MAX_IN_FLIGHT, OP_ECHO, OP_PLUGIN_KILL, OP_PLUGIN_LIST,
    OP_PLUGIN_WATCH, SERVICE_PLUGINS, STATUS_DONE, op,
};
use crate::host::service::{Client, Server, ServiceProblem, Visit};

/// Longer than anything takes; reached only by a test that has failed.
const NEVER: Duration = Duration::from_secs(60);

struct Bench {
    roster: Arc<Roster>,
    server: Server,
    events: Arc<Events>,
}

impl Bench {
    fn new() -> Self {
        let roster = Arc::<Roster>::default();
        let service = Others::new(Arc::clone(&roster));
        let services = HashMap::from([(SERVICE_PLUGINS, Box::new(service) as _)]);
        let server = Server::start(services).unwrap();
        roster.connect(server.bell());
        Self { roster, server, events: Arc::default() }
    }

    /// The plugin's end of a channel that is served.
    fn admit(&self, plugin: &str) -> Channel {
        let options =
            ChannelOptions { capacity_bytes: CAPACITY_BYTES, ..ChannelOptions::default() };
        let (host, ours) = Channel::pair(&options).unwrap();
        self.server.admit(Arc::new(Visit::new(plugin, &self.events, None, None)), host);
        ours
    }

    fn problem(&self) -> ServiceProblem {
        match self.events.next(NEVER).expect("an event").kind {
            HostEventKind::ServiceClosed { problem } => problem,
            other => panic!("{other:?}"),
        }
    }
}

fn send(channel: &mut Channel, op: u32, id: u64, payload: &[u8]) {
    let header = Header { op, status: 0, id }.to_bytes();
    channel.send(&[&header[..], payload].concat()).unwrap();
}

#[test]
fn many_names_are_listed_page_by_page() {
    let bench = Bench::new();
    let names: Vec<_> = (100..200).map(|number| format!("{number}-{}", "n".repeat(50))).collect();
    for name in &names {
        bench.roster.enlist_nobody(name, Permission::default());
    }
    let client = Client::new(bench.admit("lister")).unwrap();
    let mut found = Vec::<String>::new();
    loop {
        let behind = found.last().cloned().unwrap_or_default();
        let reply = client.call(OP_PLUGIN_LIST, behind.as_bytes(), NEVER).unwrap();
        let mut rest = &reply.payload[..];
        if rest.is_empty() {
            break;
        }
        found.extend(std::iter::from_fn(|| wire::take_entry(&mut rest)).map(|(name, _)| name));
    }
    assert_eq!(found, names);
}

#[test]
fn a_watch_is_answered_at_its_change_or_at_its_deadline() {
    let bench = Bench::new();
    bench.roster.enlist_nobody("p", Permission::default());
    let client = Client::new(bench.admit("watcher")).unwrap();
    let watch = |seen, timeout: Duration, name: &str| {
        let request = wire::watch(seen, timeout.as_nanos() as u64, name);
        client.call(OP_PLUGIN_WATCH, &request, NEVER).unwrap()
    };
    assert_eq!(watch(0, Duration::ZERO, "q").status, STATUS_UNKNOWN_NAME);
    let now = watch(wire::NOW, Duration::ZERO, "p");
    let (_, change) = wire::take_entry(&mut &now.payload[..]).unwrap();
    assert_eq!((now.status, change.state, change.number), (STATUS_DONE, PluginState::Starting, 1));
    assert_eq!(watch(1, Duration::ZERO, "p").status, STATUS_NOTHING);
    assert_eq!(watch(1, Duration::from_millis(2), "p").status, STATUS_NOTHING);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| watch(1, NEVER, "p"));
        let brief = scope.spawn(|| watch(1, Duration::from_millis(2), "p"));
        assert_eq!(brief.join().unwrap().status, STATUS_NOTHING, "whatever else waits");
        bench.roster.enlist_nobody("p", Permission::default());
        let reply = waiting.join().unwrap();
        let (_, change) = wire::take_entry(&mut &reply.payload[..]).unwrap();
        assert_eq!((reply.status, change.number), (STATUS_DONE, 2));
    });
    // One that certainly waits when it changes: requests are served in their order.
    let mut raw = bench.admit("raw");
    send(&mut raw, OP_PLUGIN_WATCH, 1, &wire::watch(2, u64::MAX, "p"));
    send(&mut raw, OP_ECHO, 2, b"");
    let id = |raw: &mut Channel| Header::of(&raw.recv_timeout(NEVER).unwrap()).unwrap().0.id;
    assert_eq!(id(&mut raw), 2);
    bench.roster.enlist_nobody("p", Permission::default());
    assert_eq!(id(&mut raw), 1);
    let gone = client.call(OP_PLUGIN_KILL, b"watcher", NEVER).unwrap();
    assert_eq!(gone.status, STATUS_UNKNOWN_NAME, "nobody has enlisted it");
    bench.roster.enlist_nobody("watcher", Permission::default());
    let gone = client.call(OP_PLUGIN_KILL, b"watcher", NEVER).unwrap();
    assert_eq!(gone.status, STATUS_NOT_RUNNING);
}

#[test]
fn f40_who_has_too_many_requests_under_way_or_asks_for_what_cannot_be_is_not_served_any_more() {
    let bench = Bench::new();
    bench.roster.enlist_nobody("p", Permission::default());
    let mut good = bench.admit("good");
    let forever = wire::watch(1, u64::MAX, "p");
    for id in 1..=MAX_IN_FLIGHT as u64 {
        send(&mut good, OP_PLUGIN_WATCH, id, &forever);
    }
    let mut greedy = bench.admit("greedy");
    for id in 1..=MAX_IN_FLIGHT as u64 + 1 {
        send(&mut greedy, OP_PLUGIN_WATCH, id, &forever);
    }
    assert_eq!(bench.problem(), ServiceProblem::TooMany { max: MAX_IN_FLIGHT });
    for (operation, payload) in [
        (OP_PLUGIN_LIST, &b"a/b"[..]),
        (OP_PLUGIN_WATCH, &[0; 15]),
        (OP_PLUGIN_WATCH, &[0; 16]),
        (OP_PLUGIN_KILL, &[0xff]),
        (OP_PLUGIN_KILL, b""),
    ] {
        let mut liar = bench.admit("liar");
        send(&mut liar, operation, 1, payload);
        let problem = ServiceProblem::Payload { op: operation, len: payload.len() };
        assert_eq!(bench.problem(), problem);
        let ended = liar.recv_timeout(NEVER).map(drop);
        assert_eq!(ended, Err(RecvTimeoutError::Disconnected));
    }
    // Who keeps to the rules has its answers: all at once, and each one.
    bench.roster.enlist_nobody("p", Permission::default());
    let mut ids: Vec<_> = (0..MAX_IN_FLIGHT)
        .map(|_| {
            let message = good.recv_timeout(NEVER).unwrap();
            let (header, _) = Header::of(&message).unwrap();
            assert_eq!(header.status, STATUS_DONE);
            header.id
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=MAX_IN_FLIGHT as u64).collect::<Vec<_>>());
    let unknown = op(SERVICE_PLUGINS, 77);
    send(&mut good, unknown, 1, b"");
    let status = Header::of(&good.recv_timeout(NEVER).unwrap()).unwrap().0.status;
    assert_eq!(status, crate::host::service::frame::STATUS_UNKNOWN);
}

#[test]
fn so_many_actions_of_one_process_are_under_way_and_no_more() {
    let bench = Bench::new();
    let gate = Arc::<Mutex<()>>::default();
    let shut = gate.lock().unwrap();
    let slow = {
        let gate = Arc::clone(&gate);
        move |_: &ControlRequest<'_>| gate.lock().is_err()
    };
    bench.roster.enlist_nobody("greedy", Permission::new(slow));
    bench.roster.enlist_nobody("modest", Permission::default());
    let kill = |channel: &mut Channel, id| send(channel, OP_PLUGIN_KILL, id, b"modest");
    let answer = |channel: &mut Channel| {
        let message = channel.recv_timeout(NEVER).unwrap();
        let (Header { id, status, .. }, _) = Header::of(&message).unwrap();
        (id, status)
    };
    let most = MAX_ACTING as u64;
    let [mut greedy, mut modest] = ["greedy", "modest"].map(|name| bench.admit(name));
    (1..=most + 1).for_each(|id| kill(&mut greedy, id));
    assert_eq!(answer(&mut greedy), (most + 1, STATUS_BUSY));
    kill(&mut modest, 1);
    assert_eq!(answer(&mut modest), (1, STATUS_NOT_RUNNING), "nobody waits for another one");
    drop(shut);
    let mut answers: Vec<_> = (0..most).map(|_| answer(&mut greedy)).collect();
    answers.sort_unstable();
    assert!(answers.into_iter().eq((1..=most).map(|id| (id, STATUS_NOT_PERMITTED))));
    kill(&mut greedy, 1);
    assert_eq!(answer(&mut greedy), (1, STATUS_NOT_PERMITTED), "there is room again");
}

impl Roster {
    fn enlist_nobody(&self, name: &str, may: Permission) {
        self.enlist_weak(name, Weak::new(), may);
    }
}
