//! Desks and the office, in threads of one process: a host's own desk, and desks that are plugins'.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use super::Limits;
use super::sides::{HostLinks, PluginLinks};
use super::wire::{
    ATTACHED, Ask, EndId, OP_ANSWER, OP_CONNECT, OP_LIST, OP_LISTEN, OP_OVER, OP_WITHDRAW,
    STATUS_CLOSED, Shape,
};
use super::{
    Desk, Inbox, Kind, Link, LinkError, LinkOptions, Listed, MAX_NOTE_BYTES, SERVICE_LINKS,
};
use crate::channel::{Channel, ChannelOptions, ChannelTypes, Connection};
use crate::error::{ExitReason, RecvTimeoutError};
use crate::host::event::{Events, HostEventKind};
use crate::host::service::error::ServiceError;
use crate::host::service::frame::{CAPACITY_BYTES, OP_ECHO, STATUS_DONE};
use crate::host::service::{Client, Server, Visit};
use crate::os::post;
use crate::typed::Pod;

/// Longer than anything takes; reached only by a test that has failed.
const NEVER: Duration = Duration::from_secs(60);
const AT_ONCE: Duration = Duration::from_millis(1);

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

struct Bench {
    links: HostLinks,
    server: Server,
    events: Arc<Events>,
}

/// A plugin's side of the two things that it has: its service channel, and its post.
struct Visitor {
    /// The host's view of its service channel.
    at_host: Arc<Connection>,
    client: Arc<Client>,
    links: PluginLinks,
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
        let services = HashMap::from([(SERVICE_LINKS, Box::new(links.service()) as _)]);
        Self { links, server: Server::start(services).unwrap(), events: Arc::default() }
    }

    fn host(&self) -> Arc<Desk> {
        self.links.desk().unwrap()
    }

    fn visitor(&self, plugin: &str) -> Visitor {
        let options =
            ChannelOptions { capacity_bytes: CAPACITY_BYTES, ..ChannelOptions::default() };
        let (ours, theirs) = Channel::pair(&options).unwrap();
        let (our_post, their_post) = post::pair().unwrap();
        let visit = Visit::new(plugin, &self.events, None, Some(our_post));
        let at_host = Arc::clone(ours.connection());
        self.server.admit(Arc::new(visit), ours);
        let client = Arc::new(Client::new(theirs).unwrap());
        Visitor { at_host, client, links: PluginLinks::new(Some(their_post)) }
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

fn talk(first: &mut Channel, second: &mut Channel) {
    first.send(b"there").unwrap();
    assert_eq!(&*second.recv_timeout(NEVER).unwrap(), b"there");
    second.send(b"back").unwrap();
    assert_eq!(&*first.recv_timeout(NEVER).unwrap(), b"back");
}

fn is_disconnected(channel: &mut Channel) -> bool {
    matches!(channel.recv_timeout(NEVER), Err(RecvTimeoutError::Disconnected))
}

#[test]
fn any_two_parties_get_a_channel_of_their_own() {
    let bench = Bench::new();
    let desks = [("", bench.host()), ("one", bench.plugin("one")), ("two", bench.plugin("two"))];
    for (listens, listener) in &desks {
        let (inbox, links) = tray();
        let name = format!("of {listens}");
        let options = small();
        let registration =
            listener.listen(Kind::Channel, &name, b"server", &options, inbox, NEVER).unwrap();
        for (connects, connector) in &desks {
            let mut ours =
                connector.connect(Kind::Channel, &name, b"client", &options, NEVER).unwrap();
            let mut theirs = links.recv_timeout(NEVER).unwrap();
            assert_eq!(ours.id, theirs.id);
            assert_eq!((&*ours.peer, &*ours.note), (*listens, &b"server"[..]));
            assert_eq!((&*theirs.peer, &*theirs.note), (*connects, &b"client"[..]));
            talk(&mut ours.channel, &mut theirs.channel);
            // Sealed: nobody else can map it any more.
            assert!(
                ours.channel
                    .descriptor()
                    .is_ok_and(|fd| { Channel::attach(fd, &ChannelOptions::default()).is_err() })
            );
            ours.channel.send(b"last").unwrap();
            drop(ours);
            assert_eq!(&*theirs.channel.recv_timeout(NEVER).unwrap(), b"last");
            assert!(is_disconnected(&mut theirs.channel));
        }
        drop(registration);
        let gone = desks[0].1.connect(Kind::Channel, &name, b"", &options, NEVER);
        assert!(matches!(gone, Err(LinkError::Unknown { .. })));
    }
}

#[test]
fn what_cannot_be_is_an_error_that_says_why() {
    let bench = Bench::new();
    let (plugin, other) = (bench.plugin("one"), bench.plugin("two"));
    let options = small();
    let listen = |desk: &Arc<Desk>, kind, name: &str, options: &LinkOptions| {
        desk.listen(kind, name, b"", options, tray().0, NEVER)
    };
    let connect = |desk: &Arc<Desk>, name: &str, options: &LinkOptions| {
        desk.connect(Kind::Channel, name, b"", options, NEVER).map(drop)
    };
    let unknown = connect(&plugin, "name", &options);
    assert!(matches!(unknown, Err(LinkError::Unknown { name }) if name == "name"));
    let typed = LinkOptions { types: ChannelTypes::of::<Pod<u64>, Pod<u32>>(), ..small() };
    let _first = listen(&plugin, Kind::Channel, "name", &typed).unwrap();
    for desk in [&plugin, &other, &bench.host()] {
        let again = listen(desk, Kind::Channel, "name", &options);
        assert!(matches!(again, Err(LinkError::Duplicate { name }) if name == "name"));
    }
    let _of_another_kind = listen(&other, Kind::Rpc, "name", &options).unwrap();
    let types = connect(&other, "name", &options);
    assert!(matches!(types, Err(LinkError::Types { expected: 0, found }) if found != 0));
    assert!(matches!(connect(&other, "name", &typed), Err(LinkError::Types { .. })));
    let mirrored = LinkOptions { types: ChannelTypes::of::<Pod<u32>, Pod<u64>>(), ..small() };
    connect(&other, "name", &mirrored).unwrap();
    for name in ["", "a/b", "a\nb", &"n".repeat(65)] {
        assert!(matches!(connect(&other, name, &options), Err(LinkError::Name(_))), "{name}");
    }
    for name in ["one-active", "nobody-passive"] {
        let reserved = listen(&other, Kind::Channel, name, &options);
        assert!(matches!(reserved, Err(LinkError::Reserved { .. })));
    }
    assert!(matches!(connect(&other, "one-active", &options), Err(LinkError::Reserved { .. })));
    let note = [0; MAX_NOTE_BYTES + 1];
    let long = plugin.listen(Kind::Topic, "n", &note, &options, tray().0, NEVER);
    assert!(matches!(long, Err(LinkError::Note { .. })));
    let odd = LinkOptions { capacity_bytes: 5000, ..LinkOptions::default() };
    assert!(matches!(listen(&other, Kind::Topic, "n", &odd), Err(LinkError::Attach(_))));
    let large = LinkOptions { capacity_bytes: 64 << 20, ..LinkOptions::default() };
    let large = listen(&other, Kind::Topic, "n", &large);
    assert!(matches!(large, Err(LinkError::TooMany { what: "bytes of one link", .. })));
}

#[test]
fn the_list_says_who_listens_to_what() {
    let bench = Bench::new();
    let (host, plugin) = (bench.host(), bench.plugin("one"));
    let options = small();
    let mut kept = Vec::new();
    for (desk, name) in [(&plugin, "beta"), (&host, "alpha"), (&plugin, "gamma")] {
        kept.push(desk.listen(Kind::Channel, name, b"", &options, tray().0, NEVER).unwrap());
    }
    let ticket = super::wire::name_of_ticket([7; 16]);
    kept.push(plugin.listen(Kind::Channel, &ticket, b"", &options, tray().0, NEVER).unwrap());
    for desk in [&host, &plugin] {
        kept.push(desk.listen(Kind::Topic, "both", b"", &options, tray().0, NEVER).unwrap());
    }
    let listed = |name: &str, plugin: &str| Listed { name: name.into(), plugin: plugin.into() };
    for desk in [&host, &plugin] {
        let expected = [
            listed("alpha", ""),
            listed("beta", "one"),
            listed("gamma", "one"),
            listed("one-active", "one"),
            listed("one-passive", "one"),
        ];
        assert_eq!(desk.list(Kind::Channel).unwrap(), expected);
        assert_eq!(desk.list(Kind::Topic).unwrap(), [listed("both", ""), listed("both", "one")]);
        assert_eq!(desk.list(Kind::Rpc).unwrap(), []);
    }
}

#[test]
fn who_joins_is_linked_with_all_who_listen_now_and_later() {
    let bench = Bench::new();
    let (host, one, two) = (bench.host(), bench.plugin("one"), bench.plugin("two"));
    let options = small();
    let (first_inbox, first) = tray();
    let _first = host.listen(Kind::Topic, "news", b"1", &options, first_inbox, NEVER).unwrap();
    let (joined_inbox, joined) = tray();
    let _joined = one.join(Kind::Topic, "news", b"j", joined_inbox, NEVER).unwrap();
    // Both are there when the call returns.
    let (mut ours, mut theirs) = (joined.try_recv().unwrap(), first.recv_timeout(NEVER).unwrap());
    talk(&mut ours.channel, &mut theirs.channel);
    assert_eq!((&*ours.note, &*theirs.note), (&b"1"[..], &b"j"[..]));
    let (second_inbox, second) = tray();
    let listening = two.listen(Kind::Topic, "news", b"2", &options, second_inbox, NEVER).unwrap();
    let (mut theirs, mut ours) = (second.try_recv().unwrap(), joined.recv_timeout(NEVER).unwrap());
    talk(&mut ours.channel, &mut theirs.channel);
    assert_eq!((&*ours.peer, &*theirs.peer), ("two", "one"));
    let (same_inbox, same) = tray();
    let _same = one.listen(Kind::Topic, "news", b"3", &options, same_inbox, NEVER).unwrap();
    let (mut within, mut joiner) = (same.try_recv().unwrap(), joined.recv_timeout(NEVER).unwrap());
    talk(&mut within.channel, &mut joiner.channel);
    // A name that has been withdrawn gets no more links, and those that there are stay.
    drop(listening);
    let (late_inbox, late) = tray();
    let _late = two.join(Kind::Topic, "news", b"", late_inbox, NEVER).unwrap();
    assert_eq!(late.try_iter().count(), 2);
    assert!(second.try_recv().is_err());
    talk(&mut ours.channel, &mut theirs.channel);
}

#[test]
fn functions_of_one_inbox_share_a_link() {
    let bench = Bench::new();
    let (server, caller) = (bench.plugin("server"), bench.plugin("caller"));
    let options = small();
    let (inbox, links) = tray();
    let listen =
        |name| server.listen(Kind::Rpc, name, b"", &options, Arc::clone(&inbox), NEVER).unwrap();
    let first = listen("first");
    let _second = listen("second");
    let (other_inbox, _links_too) = tray();
    let _other = server.listen(Kind::Rpc, "other", b"", &options, other_inbox, NEVER).unwrap();
    let connect = |name| caller.connect(Kind::Rpc, name, b"", &options, NEVER);
    let link = connect("first").unwrap();
    let linked = |name| matches!(connect(name), Err(LinkError::Linked { id }) if id == link.id);
    assert!(linked("second") && linked("first"));
    drop(connect("other").unwrap());
    // The group outlives its first name.
    drop(first);
    let third = listen("third");
    assert!(linked("third"));
    drop(third);
    // Another process is another caller.
    drop(server.connect(Kind::Rpc, "second", b"", &options, NEVER).unwrap());
    drop(link);
    let mut theirs = links.recv_timeout(NEVER).unwrap();
    assert!(is_disconnected(&mut theirs.channel));
    drop(connect("second").unwrap());
}

#[test]
fn who_is_over_is_over_for_all_its_links() {
    let bench = Bench::new();
    let (host, other) = (bench.host(), bench.plugin("other"));
    let options = small();
    let (inbox, links) = tray();
    let _name = host.listen(Kind::Channel, "name", b"", &options, inbox, NEVER).unwrap();
    let visitor = bench.visitor("one");
    let desk = visitor.desk();
    let (own_inbox, own) = tray();
    let own_name = desk.listen(Kind::Channel, "own", b"", &options, own_inbox, NEVER).unwrap();
    let mut kept = desk.connect(Kind::Channel, "name", b"", &options, NEVER).unwrap();
    let to_plugin = other.connect(Kind::Channel, "own", b"", &options, NEVER).unwrap();
    let _within = own.recv_timeout(NEVER).unwrap();
    let mut from_plugin = links.recv_timeout(NEVER).unwrap();
    kept.channel.send(b"last").unwrap();
    // What the host's threads do when the process has died.
    visitor.at_host.peer_died(ExitReason::Unknown, false);
    assert_eq!(&*from_plugin.channel.recv_timeout(NEVER).unwrap(), b"last");
    assert!(is_disconnected(&mut from_plugin.channel));
    // One end is enough.
    let (mut sender, receiver) = to_plugin.channel.split();
    drop(receiver);
    while sender.send(&[0; 100]).is_ok() {}
    let gone = host.connect(Kind::Channel, "own", b"", &options, NEVER);
    assert!(matches!(gone, Err(LinkError::Unknown { .. })));
    // And for itself, where it lives.
    assert!(is_disconnected(&mut kept.channel));
    let closed = desk.connect(Kind::Channel, "name", b"", &options, NEVER);
    assert!(matches!(closed, Err(LinkError::Closed)));
    drop(own_name);
}

#[test]
fn who_does_not_look_after_its_links_stalls_nobody() {
    let bench = Bench::new();
    let (host, other) = (bench.host(), bench.plugin("other"));
    let options = small();
    let idle = bench.visitor("idle");
    let listen = Ask {
        // Not one that its desk will have.
        token: 1 << 32,
        group: 1,
        kind: Kind::Topic,
        name: "news".into(),
        note: Vec::new(),
        shape: Shape { capacities: [4096; 2], max_message_bytes: 1, ..Shape::default() },
    };
    assert_eq!(idle.client.call(OP_LISTEN, &listen.to_bytes(), NEVER).unwrap().status, 0);
    let (inbox, links) = tray();
    let _news = other.listen(Kind::Topic, "news", b"", &options, inbox, NEVER).unwrap();
    let (joined_inbox, joined) = tray();
    let _joined = host.join(Kind::Topic, "news", b"", joined_inbox, AT_ONCE).unwrap();
    let mut ours = joined.recv_timeout(NEVER).unwrap();
    talk(&mut ours.channel, &mut links.recv_timeout(NEVER).unwrap().channel);
    // As many as it has offers to answer.
    let limit = Limits::default().unanswered;
    for _ in 0..2 * limit {
        drop(other.join(Kind::Topic, "news", b"", tray().0, AT_ONCE));
    }
    // It looks at them at last, and finds what has not been taken back.
    let (late_inbox, late) = tray();
    let desk = idle.desk();
    let _late = desk.listen(Kind::Topic, "late", b"", &options, late_inbox, NEVER).unwrap();
    drop(desk.join(Kind::Topic, "late", b"", tray().0, NEVER).unwrap());
    drop(late.recv_timeout(NEVER).unwrap());
}

#[test]
fn who_reads_no_letters_is_no_party_any_more() {
    let bench = Bench::new();
    let host = bench.host();
    let deaf = bench.visitor("deaf");
    let listen = Ask {
        token: 1,
        group: 1,
        kind: Kind::Channel,
        name: "deaf".into(),
        note: Vec::new(),
        shape: Shape { capacities: [4096; 2], max_message_bytes: 1, ..Shape::default() },
    };
    let ask = |op, payload: &[u8]| deaf.client.call(op, payload, NEVER).unwrap();
    assert_eq!(ask(OP_LISTEN, &listen.to_bytes()).status, STATUS_DONE);
    // It says that it has attached what it has not looked at, and lets go of it.
    let mut links = 0;
    loop {
        let connect = Ask { token: 2, ..listen.clone() };
        let reply = ask(OP_CONNECT, &connect.to_bytes());
        if reply.status != STATUS_DONE {
            assert_eq!(reply.status, STATUS_CLOSED);
            break;
        }
        let link = bytemuck::pod_read_unaligned(&reply.payload);
        let ends = [0, 1].map(|side| EndId { link, side });
        for end in ends {
            ask(OP_ANSWER, &end.to_bytes(ATTACHED));
        }
        for end in ends {
            ask(OP_OVER, &end.to_bytes(0));
        }
        links += 1;
        assert!(links < 10_000);
    }
    assert_eq!(bench.events.next(NEVER).unwrap().kind, HostEventKind::LinksClosed);
    let gone = host.connect(Kind::Channel, "deaf", b"", &small(), NEVER);
    assert!(matches!(gone, Err(LinkError::Unknown { .. })));
    // Whatever else it is served, it is.
    assert_eq!(deaf.client.call(OP_ECHO, b"x", NEVER).unwrap().payload, b"x");
}

#[test]
fn who_breaks_a_rule_is_served_no_longer() {
    let bench = Bench::new();
    let (host, honest) = (bench.host(), bench.plugin("honest"));
    let (inbox, _links) = tray();
    let _name = host.listen(Kind::Channel, "name", b"", &small(), inbox, NEVER).unwrap();
    let mut link = honest.connect(Kind::Channel, "name", b"", &small(), NEVER).unwrap();
    let end = EndId { link: link.id, side: 0 };
    let not_its_own = [
        (OP_ANSWER, end.to_bytes(ATTACHED).to_vec()),
        (OP_ANSWER, end.other().to_bytes(ATTACHED).to_vec()),
        (OP_ANSWER, end.to_bytes(7).to_vec()),
        (OP_OVER, end.to_bytes(0).to_vec()),
        (OP_LISTEN, vec![0; 64]),
        (OP_CONNECT, b"short".to_vec()),
        (OP_WITHDRAW, b"short".to_vec()),
        (OP_LIST, vec![1; 20]),
    ];
    for (op, payload) in not_its_own {
        let liar = bench.visitor("liar");
        let desk = liar.desk();
        let _own = desk.listen(Kind::Channel, "liar", b"", &small(), tray().0, NEVER).unwrap();
        let said = liar.client.call(op, &payload, NEVER);
        assert_eq!(said, Err(ServiceError::Closed), "{op:#x}");
        let event = bench.events.next(NEVER).unwrap();
        assert!(matches!(event.kind, HostEventKind::ServiceClosed { .. }));
        let gone = host.connect(Kind::Channel, "liar", b"", &small(), NEVER);
        assert!(matches!(gone, Err(LinkError::Unknown { .. })));
    }
    // What is no more, or never was, is nobody's.
    let careless = bench.visitor("careless");
    let unknown = EndId { link: 1 << 40, side: 1 }.to_bytes(0);
    assert!(careless.client.call(OP_OVER, &unknown, NEVER).is_ok());
    link.channel.send(b"still there").unwrap();
}

#[test]
fn what_a_party_can_have_is_bounded() {
    let limits = Limits { links: 6, pair_links: 4, names: 3, bytes: 1 << 18, ..Limits::default() };
    let bench = Bench::with(limits);
    let (host, one, two) = (bench.host(), bench.plugin("one"), bench.plugin("two"));
    let too_many = |result: Result<Link, LinkError>| match result {
        Err(LinkError::TooMany { what, max }) => (what, max),
        other => panic!("{other:?}"),
    };
    let (inbox, links) = tray();
    let _host = host.listen(Kind::Channel, "host", b"", &small(), inbox, NEVER).unwrap();
    let connect = |desk: &Arc<Desk>, name| desk.connect(Kind::Channel, name, b"", &small(), NEVER);
    let mut kept: Vec<_> = (0..4).map(|_| connect(&one, "host").unwrap()).collect();
    assert_eq!(too_many(connect(&one, "host")), ("links with one other process", 4));
    // What one has let go of counts for as long as the other one has it.
    drop(kept.pop());
    assert_eq!(too_many(connect(&one, "host")), ("links with one other process", 4));
    while links.try_recv().is_ok() {}
    until(|| connect(&one, "host").is_ok());
    let _two = two.listen(Kind::Channel, "two", b"", &small(), tray().0, NEVER).unwrap();
    while let Ok(link) = connect(&one, "two") {
        kept.push(link);
    }
    assert!(kept.len() >= 5 && kept.len() <= 6, "{}", kept.len());
    assert_eq!(too_many(connect(&one, "two")), ("links", 6));
    let names: Vec<_> = ["a", "b", "c", "d"]
        .map(|name| one.listen(Kind::Topic, name, b"", &small(), tray().0, NEVER))
        .into_iter()
        .collect();
    assert!(names[..3].iter().all(Result::is_ok));
    assert!(matches!(names[3], Err(LinkError::TooMany { what: "names", max: 3 })));
    let large = LinkOptions { capacity_bytes: 1 << 17, ..LinkOptions::default() };
    let _large = two.listen(Kind::Channel, "large", b"", &large, tray().0, NEVER).unwrap();
    let three = bench.plugin("three");
    assert_eq!(too_many(connect(&three, "large")), ("bytes of links", 1 << 18));
}

/// Waits for what other threads will have done soon.
fn until(mut done: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + NEVER;
    while !done() {
        assert!(std::time::Instant::now() < end, "it has not come true");
        std::thread::yield_now();
    }
}
