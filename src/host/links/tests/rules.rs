//! What the office does about those that do not keep to the rules, or want too much.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use super::{Bench, NEVER, small, talk, to_listen, tray, until};
use crate::host::event::HostEventKind;
use crate::host::links::wire::{
    ATTACHED, Ask, EndId, Letter, MAX_LETTER_BYTES, OP_ANSWER, OP_CONNECT, OP_LIST, OP_LISTEN,
    OP_OVER, OP_WITHDRAW, REFUSED, STATUS_CLOSED, What,
};
use crate::host::links::{Desk, Kind, Limits, Link, LinkError, LinkOptions, Registration};
use crate::host::service::error::ServiceError;
use crate::host::service::frame::{OP_ECHO, STATUS_DONE};
use crate::os::post;

const AT_ONCE: Duration = Duration::from_millis(1);

#[test]
fn who_does_not_look_after_its_links_stalls_nobody() {
    let bench = Bench::new();
    let (host, other) = (bench.host(), bench.plugin("other"));
    let options = small();
    let idle = bench.visitor("idle");
    let listen = to_listen(Kind::Topic, "news");
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
fn offers_that_are_not_answered_are_few() {
    let bench = Bench::new();
    let host = bench.host();
    let idle = bench.visitor("idle");
    let listen = to_listen(Kind::Topic, "news");
    assert_eq!(idle.client.call(OP_LISTEN, &listen.to_bytes(), NEVER).unwrap().status, 0);
    let limit = Limits::default().unanswered;
    let joins = (0..limit + 10).map(|_| host.join(Kind::Topic, "news", b"", tray().0, AT_ONCE));
    let joins: Vec<_> = joins.map(Result::unwrap).collect();
    let socket = idle.links.raw_post();
    let mut offers = Vec::new();
    let read = |offers: &mut Vec<EndId>| {
        let mut room = [0; MAX_LETTER_BYTES];
        while let Ok((len, file)) = post::receive(socket.as_fd(), &mut room) {
            let letter = Letter::of(&room[..len]).unwrap();
            assert_eq!((letter.what, file.is_some()), (What::Offer, true));
            offers.push(letter.end);
        }
    };
    read(&mut offers);
    assert_eq!(offers.len(), limit);
    // One for each that it answers.
    for end in offers.drain(..3) {
        assert_eq!(idle.client.call(OP_ANSWER, &end.to_bytes(REFUSED), NEVER).unwrap().status, 0);
    }
    let mut more = Vec::new();
    read(&mut more);
    assert_eq!(more.len(), 3);
    drop(joins);
}

#[test]
fn who_reads_no_letters_is_no_party_any_more() {
    let bench = Bench::new();
    let host = bench.host();
    let deaf = bench.visitor("deaf");
    let listen = to_listen(Kind::Channel, "deaf");
    let ask = |op, payload: &[u8]| deaf.client.call(op, payload, NEVER).unwrap();
    assert_eq!(ask(OP_LISTEN, &listen.to_bytes()).status, STATUS_DONE);
    // It says that it has attached what it has not looked at, and lets go of it.
    let mut links = 0;
    loop {
        let connect = Ask { token: listen.token + 1, ..listen.clone() };
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
    // The token of the name that each of them has.
    let again = Ask { token: 1, ..to_listen(Kind::Topic, "again") };
    let not_its_own = [
        (OP_LISTEN, again.to_bytes()),
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
fn what_nothing_came_of_takes_no_memory_whoever_keeps_it() {
    let bench = Bench::new();
    let (host, keeps) = (bench.host(), bench.visitor("keeps"));
    let listen = to_listen(Kind::Channel, "kept");
    let listening = keeps.client.call(OP_LISTEN, &listen.to_bytes(), NEVER).unwrap();
    assert_eq!(listening.status, STATUS_DONE);
    let late = host.connect(Kind::Channel, "kept", b"", &small(), AT_ONCE);
    assert!(matches!(late, Err(LinkError::Timeout { .. })));
    let socket = keeps.links.raw_post();
    let mut files = Vec::new();
    until("the letter that nothing comes of it", || {
        let mut room = [0; MAX_LETTER_BYTES];
        let Ok((len, file)) = post::receive(socket.as_fd(), &mut room) else { return false };
        let letter = Letter::of(&room[..len]).unwrap();
        files.extend(file.map(|file| (letter.end, File::from(file))));
        letter.what == What::Gone
    });
    let [(end, file)] = &files[..] else { panic!("one offer: {files:?}") };
    let answered = keeps.client.call(OP_ANSWER, &end.to_bytes(REFUSED), NEVER).unwrap();
    assert_eq!(answered.status, STATUS_DONE);
    // The host answers its own offer when it comes to it.
    until("giving the memory back", || file.metadata().unwrap().blocks() == 0);
}

#[test]
fn one_name_is_not_listened_to_and_not_joined_again_and_again() {
    let bench = Bench::new();
    let (host, plugin) = (bench.host(), bench.plugin("plugin"));
    let max = Limits::default().one_name;
    let listen = |name| plugin.listen(Kind::Topic, name, b"", &small(), tray().0, NEVER);
    let join = |name| plugin.join(Kind::Topic, name, b"", tray().0, NEVER);
    let is_too_many = |result: Result<Registration, LinkError>| match result {
        Err(LinkError::TooMany { what, max: found }) => {
            assert_eq!((what, found), ("registrations of one name", max as u64));
        }
        other => panic!("{other:?}"),
    };
    let listeners: Vec<_> = (0..max).map(|_| listen("listened").unwrap()).collect();
    let mut joiners: Vec<_> = (0..max).map(|_| join("joined").unwrap()).collect();
    is_too_many(listen("listened"));
    is_too_many(join("joined"));
    // Of each by itself, and of each name, and of those that there are.
    drop((listen("joined").unwrap(), join("listened").unwrap(), listen("else").unwrap()));
    drop(joiners.pop());
    joiners.push(join("joined").unwrap());
    is_too_many(join("joined"));
    // The host has none of these limits.
    let own = |_| host.join(Kind::Topic, "of host", b"", tray().0, NEVER).unwrap();
    let own: Vec<_> = (0..2 * max).map(own).collect();
    drop((listeners, joiners, own));
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
    until("room", || connect(&one, "host").is_ok());
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
