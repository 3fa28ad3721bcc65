//! What desks do for those that keep to the rules.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use super::{Bench, NEVER, is_disconnected, small, talk, tray, until};
use crate::channel::{Channel, ChannelOptions, ChannelTypes};
use crate::error::ExitReason;
use crate::host::MAX_NAME_BYTES;
use crate::host::links::wire::name_of_ticket;
use crate::host::links::{Desk, Inbox, Kind, Link, LinkError, LinkOptions, Listed, MAX_NOTE_BYTES};
use crate::sync::{AtomicU32, Ordering};
use crate::typed::Pod;

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
        for (_, desk) in &desks {
            until("forgetting the links", || {
                let table = desk.table();
                table.ends.is_empty() && table.connects.is_empty() && table.registrations.is_empty()
            });
        }
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
    assert!(matches!(&types, Err(LinkError::Types { expected: 0, found, .. }) if *found != 0));
    let text = types.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(text.contains("sends bytes and receives bytes") && !text.contains("0x"), "{text}");
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
    let ticket = name_of_ticket([7; 16]);
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
    // The longest names there are.
    let longest = "p".repeat(MAX_NAME_BYTES);
    kept.push(
        bench.plugin(&longest).listen(Kind::Rpc, &longest, b"", &options, tray().0, NEVER).unwrap(),
    );
    assert_eq!(plugin.list(Kind::Rpc).unwrap(), [listed(&longest, &longest)]);
    let own = ["active", "passive"].map(|ring| listed(&format!("{longest}-{ring}"), &longest));
    assert!(plugin.list(Kind::Channel).unwrap().ends_with(&own));
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
    // The other side has let go of it, and this one not yet.
    let _over = connect("second").unwrap();
    until("another link", || {
        links.try_iter().for_each(drop);
        connect("second").is_ok()
    });
}

/// One has the link, and the other is told so, whatever of it has been read when it asks.
#[test]
fn two_that_connect_at_once_do_not_end_each_others_link() {
    let bench = Bench::new();
    let (server, caller) = (bench.plugin("server"), bench.plugin("caller"));
    let (inbox, links) = tray();
    let _name = server.listen(Kind::Rpc, "name", b"", &small(), inbox, NEVER).unwrap();
    for _ in 0..200 {
        let start = Barrier::new(2);
        let connect = || {
            start.wait();
            caller.connect(Kind::Rpc, "name", b"", &small(), NEVER)
        };
        let found = thread::scope(|scope| {
            let other = scope.spawn(connect);
            [connect(), other.join().unwrap()]
        });
        let mut theirs = links.recv_timeout(NEVER).unwrap();
        match found {
            [Ok(mut link), Err(LinkError::Linked { id })]
            | [Err(LinkError::Linked { id }), Ok(mut link)] => {
                assert_eq!((id, theirs.id), (link.id, link.id));
                talk(&mut link.channel, &mut theirs.channel);
            }
            other => panic!("{other:?}"),
        }
        drop(theirs);
        until("the end of it", || bench.links.census().0 == 0);
    }
}

/// Panics at the first link.
#[derive(Debug)]
struct Clumsy(AtomicU32, Arc<dyn Inbox>);

impl Inbox for Clumsy {
    fn linked(&self, link: Link) {
        assert_ne!(self.0.swap(1, Ordering::Relaxed), 0, "as it is to");
        self.1.linked(link);
    }
}

#[test]
fn an_inbox_that_panics_loses_its_link_and_no_other() {
    let bench = Bench::new();
    let (host, plugin) = (bench.host(), bench.plugin("plugin"));
    let (inbox, links) = tray();
    let inbox = Arc::new(Clumsy(AtomicU32::new(0), inbox));
    let _name = host.listen(Kind::Channel, "name", b"", &small(), inbox, NEVER).unwrap();
    let connect = || plugin.connect(Kind::Channel, "name", b"", &small(), NEVER).unwrap();
    assert!(is_disconnected(&mut connect().channel));
    talk(&mut connect().channel, &mut links.recv_timeout(NEVER).unwrap().channel);
}

#[test]
fn no_time_is_too_long() {
    let bench = Bench::new();
    let (host, plugin) = (bench.host(), bench.plugin("plugin"));
    let options = small();
    let (inbox, links) = tray();
    for desk in [&host, &plugin] {
        let inbox = Arc::clone(&inbox);
        let name = desk.listen(Kind::Channel, "name", b"", &options, inbox, Duration::MAX).unwrap();
        let link = host.connect(Kind::Channel, "name", b"", &options, Duration::MAX).unwrap();
        drop((name, link, links.recv_timeout(NEVER).unwrap()));
    }
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
