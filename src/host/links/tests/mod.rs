//! Desks and the office, in threads of one process, and processes without a desk.
//!
//! What the tests share: a host's own desk, and desks that are plugins'.

mod bounds;
mod hostile;
mod letters;
mod linking;
mod lost;
mod raw;
mod rules;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use super::sides::{HostLinks, PluginLinks};
use super::wire::{Ask, Shape};
use super::{Desk, Inbox, Kind, Limits, Link, LinkOptions};
use crate::channel::{Channel, ChannelOptions, Connection};
use crate::error::RecvTimeoutError;
use crate::host::event::Events;
use crate::host::service::frame::{CAPACITY_BYTES, SERVICE_LINKS, STATUS_DONE, op};
use crate::host::service::{Client, Request, Server, Service, ServiceProblem, Session, Visit};
use crate::os::post;

/// Longer than anything takes; reached only by a test that has failed.
const NEVER: Duration = Duration::from_secs(60);

/// Hands links over to the test.
#[derive(Debug)]
struct Tray(Mutex<mpsc::Sender<Link>>);

impl Inbox for Tray {
    fn linked(&self, link: Link) {
        let _ = self.0.lock().unwrap().send(link);
    }
}

fn tray() -> (Arc<dyn Inbox>, mpsc::Receiver<Link>) {
    let (sender, receiver) = mpsc::channel();
    (Arc::new(Tray(Mutex::new(sender))), receiver)
}

/// Answers when the test lets it, and keeps the host's thread until then.
#[derive(Debug)]
struct Gate(Arc<Mutex<()>>);

const SERVICE_GATE: u16 = 99;
const OP_GATE: u32 = op(SERVICE_GATE, 1);
const OP_PANIC: u32 = op(SERVICE_GATE, 2);

impl Service for Gate {
    fn serve(
        &mut self,
        session: &mut Session,
        request: &Request<'_>,
    ) -> Result<(), ServiceProblem> {
        assert_ne!(request.op, OP_PANIC, "as it was asked to");
        drop(self.0.lock().unwrap());
        session.reply(request, STATUS_DONE, &[])
    }
}

struct Bench {
    links: HostLinks,
    server: Server,
    events: Arc<Events>,
    /// Whoever has the lock shuts it.
    gate: Arc<Mutex<()>>,
}

/// A plugin's side of the two things that it has: its service channel, and its post.
struct Visitor {
    /// The host's view of its service channel.
    at_host: Arc<Connection>,
    client: Arc<Client>,
    links: PluginLinks,
    /// The host's end of its post, as a child has it that the host program has forked.
    _copy: OwnedFd,
}

impl Visitor {
    fn desk(&self) -> Arc<Desk> {
        self.links.desk(&self.client).unwrap()
    }
}

impl Bench {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let links = HostLinks::new(limits);
        let gate = Arc::<Mutex<()>>::default();
        let mut services: HashMap<u16, Box<dyn Service>> = HashMap::new();
        services.insert(SERVICE_LINKS, Box::new(links.service()));
        services.insert(SERVICE_GATE, Box::new(Gate(Arc::clone(&gate))));
        Self { links, server: Server::start(services).unwrap(), events: Arc::default(), gate }
    }

    fn host(&self) -> Arc<Desk> {
        self.links.desk().unwrap()
    }

    fn visitor(&self, plugin: &str) -> Visitor {
        let options =
            ChannelOptions { capacity_bytes: CAPACITY_BYTES, ..ChannelOptions::default() };
        let (ours, theirs) = Channel::pair(&options).unwrap();
        let (our_post, their_post) = post::pair().unwrap();
        let copy = our_post.try_clone().unwrap();
        let visit = Visit::new(plugin, &self.events, None, Some(our_post));
        let at_host = Arc::clone(ours.connection());
        self.server.admit(Arc::new(visit), ours);
        let client = Arc::new(Client::new(theirs).unwrap());
        Visitor { at_host, client, links: PluginLinks::new(Some(their_post)), _copy: copy }
    }

    fn plugin(&self, plugin: &str) -> Arc<Desk> {
        self.visitor(plugin).desk()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.server.stop();
        self.links.close();
    }
}

fn small() -> LinkOptions {
    LinkOptions { capacity_bytes: 4096, ..LinkOptions::default() }
}

/// What a process asks for that listens without a desk, with a token that its desk would not have.
fn to_listen(kind: Kind, name: &str) -> Ask {
    let shape = Shape { capacities: [4096; 2], max_message_bytes: 1024, ..Shape::default() };
    Ask { token: 1 << 32, group: 1, kind, name: name.into(), note: Vec::new(), shape }
}

fn talk(first: &mut Channel, second: &mut Channel) {
    first.send(b"there").unwrap();
    assert_eq!(&*second.recv_timeout(NEVER).unwrap(), b"there");
    second.send(b"back").unwrap();
    assert_eq!(&*first.recv_timeout(NEVER).unwrap(), b"back");
}

fn is_disconnected(channel: &mut Channel) -> bool {
    matches!(channel.recv_timeout(NEVER), Err(RecvTimeoutError::Disconnected))
}

/// Waits for what other threads will have done soon.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + NEVER;
    while !done() {
        assert!(Instant::now() < end, "{what} has not come true");
        std::thread::yield_now();
    }
}
