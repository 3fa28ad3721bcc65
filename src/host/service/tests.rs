//! The two ends, in threads of one process.

use std::collections::HashMap;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use super::client::Client;
use super::error::{ServiceError, ServiceProblem};
use super::frame::{self, CAPACITY_BYTES, Header, MAX_IN_FLIGHT, MAX_REPLY_BYTES, OP_ECHO};
use super::server::Server;
use super::session::{Request, Service, Session, Visit};
use crate::channel::{Channel, ChannelOptions};
use crate::error::{ExitReason, RecvTimeoutError};
use crate::host::event::{Events, HostEventKind};

/// Longer than anything takes; reached only by a test that has failed.
const NEVER: Duration = Duration::from_secs(60);
const AT_ONCE: Duration = Duration::from_millis(1);

const OP_SILENT: u32 = frame::op(9, 1);
const OP_LONG: u32 = frame::op(9, 2);
const OP_WAIT: u32 = frame::op(9, 3);
const OP_WRONG: u32 = frame::op(9, 4);
const OP_TELL: u32 = frame::op(9, 5);
const OP_PANIC: u32 = frame::op(9, 6);

/// A service that answers as it is asked to.
#[derive(Debug)]
struct Odd {
    /// Told of sessions: plugins' names, and whether they begin; and of deaths.
    told: mpsc::Sender<(String, &'static str)>,
    gate: Arc<Barrier>,
}

impl Service for Odd {
    fn begin(&mut self, session: &Session) {
        let _ = self.told.send((session.visit.plugin.clone(), "begin"));
    }

    fn serve(
        &mut self,
        session: &mut Session,
        request: &Request<'_>,
    ) -> Result<(), ServiceProblem> {
        match request.op {
            OP_SILENT => Ok(()),
            OP_LONG => session.reply(request, 0, &[1; MAX_REPLY_BYTES + 1]),
            OP_WAIT => {
                self.gate.wait();
                session.reply(request, 0, &[])
            }
            OP_WRONG => Err(request.malformed()),
            OP_TELL => {
                let _ = self.told.send((session.visit.plugin.clone(), "asks"));
                session.reply(request, 0, &[])
            }
            OP_PANIC => panic!("as it was asked to"),
            _ => session.reply(request, 256, &(request.payload.len() as u64).to_ne_bytes()),
        }
    }

    fn end(&mut self, session: &Session) {
        let _ = self.told.send((session.visit.plugin.clone(), "end"));
    }

    fn died(&mut self, pid: u32) {
        let _ = self.told.send((pid.to_string(), "died"));
    }
}

struct Bench {
    server: Server,
    events: Arc<Events>,
    told: mpsc::Receiver<(String, &'static str)>,
    gate: Arc<Barrier>,
}

impl Bench {
    fn new() -> Self {
        let (sender, told) = mpsc::channel();
        let gate = Arc::new(Barrier::new(2));
        let odd = Box::new(Odd { told: sender, gate: Arc::clone(&gate) });
        let services: HashMap<u16, Box<dyn Service>> = HashMap::from([(9, odd as _)]);
        Self { server: Server::start(services).unwrap(), events: Arc::default(), told, gate }
    }

    /// The plugin's end of a channel that is served.
    fn admit(&self, plugin: &str) -> (Channel, Arc<Visit>) {
        let options =
            ChannelOptions { capacity_bytes: CAPACITY_BYTES, ..ChannelOptions::default() };
        let (host, ours) = Channel::pair(&options).unwrap();
        let visit = Arc::new(Visit::new(plugin, &self.events, None, None));
        self.server.admit(Arc::clone(&visit), host);
        assert_eq!(self.told(), (plugin.into(), "begin"));
        (ours, visit)
    }

    fn client(&self, plugin: &str) -> Client {
        Client::new(self.admit(plugin).0).unwrap()
    }

    fn told(&self) -> (String, &'static str) {
        self.told.recv_timeout(NEVER).unwrap()
    }

    fn problem(&self) -> (String, ServiceProblem) {
        let event = self.events.next(NEVER).expect("an event");
        match event.kind {
            HostEventKind::ServiceClosed { problem } => (event.plugin, problem),
            other => panic!("{other:?}"),
        }
    }
}

fn request(op: u32, status: u32, payload: &[u8]) -> Vec<u8> {
    [&Header { op, status, id: 1 }.to_bytes(), payload].concat()
}

#[test]
fn each_thread_gets_its_own_answers() {
    let bench = Bench::new();
    let client = bench.client("threads");
    thread::scope(|scope| {
        for number in 0..8_u64 {
            let client = &client;
            scope.spawn(move || {
                for round in 0..500_u64 {
                    let payload = [number, round].map(u64::to_ne_bytes).concat();
                    let reply = client.call(OP_ECHO, &payload, NEVER).unwrap();
                    assert_eq!((reply.status, reply.payload), (0, payload));
                }
            });
        }
    });
    // In pieces, through a ring that is shorter.
    let long = vec![7; 5 << 20];
    let reply = client.call(frame::op(9, 0), &long, NEVER).unwrap();
    assert_eq!((reply.status, reply.payload), (256, (5_u64 << 20).to_ne_bytes().to_vec()));
}

#[test]
fn what_has_no_answer_is_an_error_that_says_why() {
    let bench = Bench::new();
    let client = bench.client("errors");
    let call = |op, timeout| client.call(op, &[], timeout).unwrap_err();
    assert_eq!(call(OP_SILENT, AT_ONCE), ServiceError::Timeout { timeout: AT_ONCE });
    assert_eq!(call(OP_LONG, NEVER), ServiceError::ResultTooLong { op: OP_LONG });
    let (other, unknown) = (frame::op(77, 0), frame::op(0, 77));
    assert_eq!(call(other, NEVER), ServiceError::Unknown { op: other });
    assert_eq!(call(unknown, NEVER), ServiceError::Unknown { op: unknown });
    let longest = ChannelOptions::default().max_message_bytes;
    let error = client.call(OP_ECHO, &vec![0; longest as usize], NEVER).unwrap_err();
    assert_eq!(error, ServiceError::TooLong { len: longest + 16, max: longest });
    assert!(client.call(OP_ECHO, &[], NEVER).is_ok(), "nothing has happened to the channel");
}

#[test]
fn requests_without_an_answer_take_a_place_each() {
    let bench = Bench::new();
    let client = bench.client("many");
    for _ in 0..MAX_IN_FLIGHT {
        assert!(matches!(
            client.call(OP_SILENT, &[], Duration::ZERO),
            Err(ServiceError::Timeout { .. })
        ));
    }
    assert_eq!(client.call(OP_ECHO, &[], AT_ONCE), Err(ServiceError::Full { timeout: AT_ONCE }));
}

#[test]
fn answers_that_come_late_give_their_places_back() {
    let bench = Bench::new();
    let client = bench.client("late");
    // The server stands still; nobody waits for what is asked meanwhile.
    assert!(client.call(OP_WAIT, &[], AT_ONCE).is_err());
    for _ in 1..MAX_IN_FLIGHT {
        assert!(client.call(OP_ECHO, &[], Duration::ZERO).is_err());
    }
    thread::scope(|scope| {
        // One waits for a place, until late answers free one.
        let waiting = scope.spawn(|| client.call(OP_ECHO, &[1], NEVER));
        bench.gate.wait();
        assert_eq!(waiting.join().unwrap().unwrap().payload, [1]);
    });
    for _ in 0..2 * MAX_IN_FLIGHT {
        client.call(OP_ECHO, &[], NEVER).unwrap();
    }
}

#[test]
fn a_thread_that_leaves_hands_the_reading_on() {
    let bench = Bench::new();
    let client = bench.client("leader");
    thread::scope(|scope| {
        // Reads for both, and gives up first.
        let leader = scope.spawn(|| client.call(OP_WAIT, &[], Duration::from_millis(50)));
        let follower = scope.spawn(|| client.call(OP_ECHO, &[2], NEVER));
        assert!(leader.join().unwrap().is_err());
        bench.gate.wait();
        assert_eq!(follower.join().unwrap().unwrap().payload, [2]);
    });
}

#[test]
fn who_breaks_a_rule_is_not_served_any_more_and_the_others_are() {
    let bench = Bench::new();
    let good = bench.client("good");
    let no_request = |len, status| ServiceProblem::NoRequest { tag: 0, len, status };
    for (message, problem) in [
        (vec![], no_request(0, 0)),
        (vec![1; 15], no_request(15, 0)),
        (request(OP_ECHO, 1, b""), no_request(16, 1)),
        (request(OP_WRONG, 0, b"abc"), ServiceProblem::Payload { op: OP_WRONG, len: 3 }),
        (
            request(OP_ECHO, 0, &[0; MAX_REPLY_BYTES + 1]),
            ServiceProblem::Payload { op: OP_ECHO, len: MAX_REPLY_BYTES + 1 },
        ),
    ] {
        let (mut channel, visit) = bench.admit("bad");
        channel.send(&message).unwrap();
        assert_eq!(bench.problem(), ("bad".into(), problem));
        assert_eq!(bench.told(), ("bad".into(), "end"));
        visit.wait_until_over(NEVER);
        assert_eq!(channel.recv_timeout(NEVER).unwrap_err(), RecvTimeoutError::Disconnected);
        good.call(OP_ECHO, &[], NEVER).unwrap();
    }
    let (mut tagged, _) = bench.admit("tagged");
    tagged.sender().send_tagged(3, &request(OP_ECHO, 0, b"")).unwrap();
    assert_eq!(bench.problem().1, ServiceProblem::NoRequest { tag: 3, len: 16, status: 0 });
}

#[test]
fn who_does_not_read_its_answers_is_not_served_any_more() {
    let bench = Bench::new();
    let good = bench.client("good");
    let (mut deaf, _) = bench.admit("deaf");
    let message = request(OP_ECHO, 0, &[0; MAX_REPLY_BYTES]);
    let mut sent = 0;
    while deaf.send(&message).is_ok() {
        sent += 1;
        assert!(sent < 100_000, "the server has waited for it");
    }
    assert!(sent >= MAX_IN_FLIGHT, "as many as may be under way have room");
    assert_eq!(bench.problem(), ("deaf".into(), ServiceProblem::NotReading));
    good.call(OP_ECHO, &[], NEVER).unwrap();
}

#[test]
fn what_was_asked_before_a_death_is_done_before_it_is_over() {
    let bench = Bench::new();
    let options = ChannelOptions { capacity_bytes: CAPACITY_BYTES, ..ChannelOptions::default() };
    let (host, mut ours) = Channel::pair(&options).unwrap();
    for _ in 0..3 {
        ours.send(&request(OP_TELL, 0, b"")).unwrap();
    }
    let connection = Arc::clone(host.connection());
    let visit = Arc::new(Visit::new("dead", &bench.events, None, None));
    connection.peer_died(ExitReason::Signal(9), false);
    bench.server.admit(Arc::clone(&visit), host);
    bench.server.died(4711);
    visit.wait_until_over(NEVER);
    let mut told: Vec<_> = bench.told.try_iter().map(|(_, what)| what).collect();
    assert_eq!(told.first(), Some(&"begin"));
    told.retain(|what| *what != "died");
    assert_eq!(told, ["begin", "asks", "asks", "asks", "end"]);
}

#[test]
fn when_the_server_ends_every_wait_does() {
    let bench = Bench::new();
    let client = bench.client("waits");
    thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..3).map(|_| scope.spawn(|| client.call(OP_SILENT, &[], NEVER))).collect();
        client.call(OP_ECHO, &[], NEVER).unwrap();
        bench.server.stop();
        for waiting in waiting {
            assert_eq!(waiting.join().unwrap(), Err(ServiceError::Closed));
        }
    });
    assert_eq!(client.call(OP_ECHO, &[], NEVER), Err(ServiceError::Closed));
    let (host, _ours) = Channel::pair(&ChannelOptions::default()).unwrap();
    let visit = Arc::new(Visit::new("late", &bench.events, None, None));
    bench.server.admit(Arc::clone(&visit), host);
    visit.wait_until_over(NEVER);
}

#[test]
fn the_host_program_is_told_that_a_service_has_panicked_and_nobody_waits_for_it() {
    let bench = Bench::new();
    let (one, other) = (bench.client("one"), bench.client("other"));
    let (_idle, visit) = bench.admit("idle");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| other.call(OP_SILENT, &[], NEVER));
        assert_eq!(one.call(OP_PANIC, &[], NEVER), Err(ServiceError::Closed));
        assert_eq!(waiting.join().unwrap(), Err(ServiceError::Closed));
    });
    visit.wait_until_over(NEVER);
    let mut told: Vec<_> = (0..3).map(|_| bench.problem()).collect();
    told.sort_by(|(one, _), (other, _)| one.cmp(other));
    let problem = ServiceProblem::HostPanicked;
    assert_eq!(told, ["idle", "one", "other"].map(|plugin| (plugin.into(), problem)));
    // What is left of each was seen to, as at any other end.
    let mut ended: Vec<_> = (0..3).map(|_| bench.told()).collect();
    ended.sort_unstable();
    assert_eq!(ended, ["idle", "one", "other"].map(|plugin| (plugin.into(), "end")));
    // And of those that come later.
    let (host, mut late) = Channel::pair(&ChannelOptions::default()).unwrap();
    let visit = Arc::new(Visit::new("late", &bench.events, None, None));
    bench.server.admit(Arc::clone(&visit), host);
    visit.wait_until_over(NEVER);
    assert_eq!(bench.problem(), ("late".into(), problem));
    assert_eq!(late.recv_timeout(NEVER).unwrap_err(), RecvTimeoutError::Disconnected);
}
