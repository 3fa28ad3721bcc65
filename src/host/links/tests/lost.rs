//! What does not arrive: letters that nobody takes, descriptors that cannot be had, requests for which there is no room.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::{
    Bench, NEVER, OP_GATE, OP_PANIC, is_disconnected, small, talk, to_listen, tray, until,
};
use crate::error::ExitReason;
use crate::host::links::broker::{Broker, Outlet, Posted};
use crate::host::links::office::Mailbox;
use crate::host::links::sides::PluginLinks;
use crate::host::links::wire::{
    Ask, Letter, MAX_LETTER_BYTES, OP_ANSWER, OP_CONNECT, OP_LISTEN, REFUSED, STATUS_UNKNOWN_NAME,
    What,
};
use crate::host::links::{Desk, Kind, Limits, LinkError};
use crate::host::service::error::ServiceError;
use crate::host::service::frame::STATUS_DONE;
use crate::os::eventfd::EventFd;
use crate::os::post;

/// All that is posted to it comes to the same.
#[derive(Debug)]
struct Always(Posted, mpsc::Sender<bool>);

impl Outlet for Always {
    fn post(&self, _letter: &Letter, _descriptor: Option<OwnedFd>) -> Posted {
        self.0
    }

    fn close(&self, unheard: bool) {
        self.1.send(unheard).unwrap();
    }
}

#[test]
fn who_cannot_be_offered_a_link_goes_and_the_memory_of_the_link_too() {
    for (posted, unheard) in [(Posted::Full, true), (Posted::Gone, false), (Posted::Failed, true)] {
        let mut broker = Broker::new(Limits::default());
        let mailbox = Mailbox::new(&EventFd::new().unwrap());
        let host = broker.enter("", Box::new(Arc::clone(&mailbox)));
        let (closed, closings) = mpsc::channel();
        let deaf = broker.enter("deaf", Box::new(Always(posted, closed)));
        let ask = to_listen(Kind::Channel, "name").to_bytes();
        let mut status = |party, op, payload: &[u8]| {
            let reply = broker.handle(party, op, payload).unwrap();
            (reply.status, broker.census())
        };
        assert_eq!(status(deaf, OP_LISTEN, &ask), (STATUS_DONE, (0, 0)));
        // Until the host has answered its own offer.
        assert_eq!(status(host, OP_CONNECT, &ask), (STATUS_DONE, (1, 1)));
        assert_eq!(closings.try_iter().collect::<Vec<_>>(), [unheard]);
        let (offer, file) = mailbox.next().unwrap();
        let (gone, _) = mailbox.next().unwrap();
        assert_eq!((offer.what, gone.what, gone.end), (What::Offer, What::Gone, offer.end));
        assert!(mailbox.next().is_none());
        let file = File::from(file.unwrap());
        assert_ne!(file.metadata().unwrap().blocks(), 0);
        assert_eq!(status(host, OP_ANSWER, &offer.end.to_bytes(REFUSED)), (STATUS_DONE, (0, 0)));
        assert_eq!(file.metadata().unwrap().blocks(), 0, "{posted:?}");
        assert_eq!(status(host, OP_CONNECT, &ask), (STATUS_UNKNOWN_NAME, (0, 0)));
    }
}

#[test]
fn a_name_that_there_was_no_room_to_withdraw_is_withdrawn_later() {
    let bench = Bench::new();
    let (host, visitor) = (bench.host(), bench.visitor("plugin"));
    let desk = visitor.desk();
    let name = desk.listen(Kind::Topic, "name", b"", &small(), tray().0, NEVER).unwrap();
    let is_listed = || !host.list(Kind::Topic).unwrap().is_empty();
    let shut = bench.gate.lock().unwrap();
    // The first one keeps the host's thread, the others are under way.
    let pass = || visitor.client.call(OP_GATE, &[], Duration::ZERO);
    while !matches!(pass(), Err(ServiceError::Full { .. })) {}
    drop(name);
    // The desk's thread has had no room either, where it is as quick as usual.
    let full = visitor.client.call(OP_GATE, &[], Duration::from_millis(1500));
    assert!(matches!(full, Err(ServiceError::Full { .. })));
    assert!(is_listed(), "nobody can have heard of it");
    drop(shut);
    until("withdrawing the name", || !is_listed());
}

/// Its partners do not answer, and then its desk comes to its end.
#[test]
fn who_waits_for_links_is_told_that_there_will_be_none() {
    let bench = Bench::new();
    let (idle, visitor) = (bench.visitor("idle"), bench.visitor("waits"));
    for kind in [Kind::Channel, Kind::Topic] {
        let listen = Ask { token: kind as u64, ..to_listen(kind, "idle") };
        let reply = idle.client.call(OP_LISTEN, &listen.to_bytes(), NEVER).unwrap();
        assert_eq!(reply.status, STATUS_DONE);
    }
    let (connecting, joining) = (visitor.desk(), visitor.desk());
    let ((connected, on_connect), (joined, on_join)) = (mpsc::channel(), mpsc::channel());
    // Not waited for where the test has failed.
    thread::spawn(move || {
        let link = connecting.connect(Kind::Channel, "idle", b"", &small(), Duration::MAX);
        connected.send(link.map(drop)).unwrap();
    });
    thread::spawn(move || {
        let name = joining.join(Kind::Topic, "idle", b"", tray().0, Duration::MAX);
        joined.send(name.map(drop)).unwrap();
    });
    until("both links", || bench.links.census().0 == 2);
    visitor.at_host.peer_died(ExitReason::Unknown, false);
    assert!(matches!(on_connect.recv_timeout(NEVER).unwrap(), Err(LinkError::Closed)));
    // Its answer may have been on the way.
    assert!(matches!(on_join.recv_timeout(NEVER).unwrap(), Ok(()) | Err(LinkError::Closed)));
}

#[test]
fn where_the_hosts_thread_panics_the_links_of_plugins_are_over() {
    let bench = Bench::new();
    let (host, one, visitor) = (bench.host(), bench.plugin("one"), bench.visitor("two"));
    let two = visitor.desk();
    let (inbox, links) = tray();
    let _name = host.listen(Kind::Channel, "of host", b"", &small(), inbox, NEVER).unwrap();
    let connect = |desk: &Arc<Desk>| desk.connect(Kind::Channel, "of host", b"", &small(), NEVER);
    let (mut of_one, mut of_two) = (connect(&one).unwrap(), connect(&two).unwrap());
    let mut of_host: Vec<_> = (0..2).map(|_| links.recv_timeout(NEVER).unwrap()).collect();
    assert_eq!(visitor.client.call(OP_PANIC, b"", NEVER), Err(ServiceError::Closed));
    assert!([&mut of_one, &mut of_two].into_iter().all(|link| is_disconnected(&mut link.channel)));
    assert!(of_host.iter_mut().all(|link| is_disconnected(&mut link.channel)));
    assert!(matches!(connect(&one), Err(LinkError::Closed)));
    // The host's own links, with itself, need no thread but its desk's.
    let mut own = connect(&host).unwrap();
    talk(&mut own.channel, &mut links.recv_timeout(NEVER).unwrap().channel);
}

/// As where this process cannot have more descriptors, for a while.
#[test]
fn an_offer_without_its_descriptor_is_refused_and_nobody_waits_for_it() {
    let bench = Bench::new();
    let (host, visitor) = (bench.host(), bench.visitor("poor"));
    let (from_host, silence) = (visitor.links.raw_post(), EventFd::new().unwrap());
    let (to_desk, post) = post::pair().unwrap();
    let links = PluginLinks::new(Some(post));
    let poor = links.desk(&visitor.client).unwrap();
    let pass_on = |what, with_descriptor| {
        post::wait_for_either(Some(from_host.as_fd()), silence.descriptor().as_fd());
        let mut room = [0; MAX_LETTER_BYTES];
        let (len, file) = post::receive(from_host.as_fd(), &mut room).unwrap();
        assert_eq!(Letter::of(&room[..len]).unwrap().what, what);
        let file = file.filter(|_| with_descriptor);
        post::send(to_desk.as_fd(), &room[..len], file.as_ref().map(AsFd::as_fd)).unwrap();
    };
    let options = small();
    let (inbox, arrived) = tray();
    let listen = |kind| host.listen(kind, "of host", b"", &options, Arc::clone(&inbox), NEVER);
    let _names = [Kind::Channel, Kind::Topic].map(|kind| listen(kind).unwrap());
    let (own_inbox, own) = tray();
    let _own = poor.listen(Kind::Channel, "own", b"", &options, own_inbox, NEVER).unwrap();
    thread::scope(|scope| {
        let connect = || poor.connect(Kind::Channel, "of host", b"", &options, NEVER).map(drop);
        let connecting = scope.spawn(connect);
        pass_on(What::Offer, false);
        assert!(matches!(connecting.join().unwrap(), Err(LinkError::PartnerGone)));
        let joining = scope.spawn(|| poor.join(Kind::Topic, "of host", b"", tray().0, NEVER));
        pass_on(What::Offer, false);
        drop(joining.join().unwrap().unwrap());
        let connect = || host.connect(Kind::Channel, "own", b"", &options, NEVER);
        let connecting = scope.spawn(connect);
        pass_on(What::Offer, false);
        assert!(matches!(connecting.join().unwrap(), Err(LinkError::PartnerGone)));
        until("forgetting all of it", || bench.links.census() == (0, 0));
        assert!(arrived.try_recv().is_err() && own.try_recv().is_err());
        let connecting = scope.spawn(connect);
        pass_on(What::Offer, true);
        pass_on(What::Go, false);
        let mut ours = connecting.join().unwrap().unwrap();
        talk(&mut ours.channel, &mut own.recv_timeout(NEVER).unwrap().channel);
    });
}
