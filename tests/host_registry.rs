//! Channels by name and by ticket between the processes of a host: host program and plugins, plugins and
//! plugins.
//!
//! This test binary is executed again as the plugin. What always holds: a plugin is ended by its host
//! at the end of each test, also where the test fails.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use common::controlling::Hand;
use common::held::held;
use common::linking::{self, linking_host, small};
use common::plugin::{self, NEVER, alone, restarts};
use common::stray::{Stray, pidfd_of};
use common::victim::Victim;
use ringway::channel::{Channel, ChannelOptions, TypedChannel};
use ringway::error::{RecvTimeoutError, SendError};
use ringway::host::{
    AcceptError, Host, HostEventKind, LinkError, ListedChannel, Plugin, PluginState, Ticket,
};
use ringway::typed::Pod;

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    linking::run_role();
    plugin::run_role();
}

fn hand(host: &Host, name: &str) -> Hand {
    Hand::start(host, plugin::spec(name, "use-registry"))
}

fn open(host: &Host, name: &str) -> Result<Channel, LinkError> {
    host.open_channel(name, &small(), NEVER)
}

fn is_disconnected(channel: &mut Channel) -> bool {
    matches!(channel.recv_timeout(NEVER), Err(RecvTimeoutError::Disconnected))
}

/// The row "registry" of the systems to replace.
#[test]
fn registry() {
    let host = linking_host();
    let (mut one, mut two) = (hand(&host, "one"), hand(&host, "two"));
    // A plugin looks up and opens what the host has registered.
    let listener = host.register_channel("log", &small()).unwrap();
    assert_eq!(one.tell("open log"), "done");
    let (mut log, from) = listener.accept_from(NEVER).unwrap();
    assert_eq!(from.as_deref(), Some("one"));
    assert_eq!(one.tell("say log to the host"), "done");
    assert_eq!(&*log.recv_timeout(NEVER).unwrap(), b"to the host");
    log.send(b"to one").unwrap();
    assert_eq!(one.tell("hear log"), "to one");
    // The host what a plugin has, and a plugin what another one has.
    assert_eq!(one.tell("register of-one"), "done");
    let mut of_one = open(&host, "of-one").unwrap();
    assert_eq!(one.tell("accept of-one"), "from None");
    of_one.send(b"from the host").unwrap();
    assert_eq!(one.tell("hear of-one"), "from the host");
    assert_eq!(two.tell("open of-one"), "done");
    assert_eq!(one.tell("accept of-one"), "from Some(\"two\")");
    assert_eq!(one.tell("say of-one directly"), "done");
    assert_eq!(two.tell("hear of-one"), "directly");
    // Names: unknown, duplicate, of plugins themselves, no names at all.
    assert_eq!(two.tell("open nothing"), "Unknown { name: \"nothing\" }");
    assert!(matches!(open(&host, "nothing"), Err(LinkError::Unknown { .. })));
    assert_eq!(two.tell("register of-one"), "Duplicate { name: \"of-one\" }");
    assert_eq!(one.tell("register log"), "Duplicate { name: \"log\" }");
    let again = host.register_channel("of-one", &small());
    assert!(matches!(again, Err(LinkError::Duplicate { name }) if name == "of-one"));
    assert_eq!(one.tell("register two-active"), "Reserved { name: \"two-active\" }");
    assert!(matches!(open(&host, "one-passive"), Err(LinkError::Reserved { .. })));
    assert_eq!(one.tell("register a/b"), "Name(Character('/'))");
    assert!(matches!(host.register_channel("", &small()), Err(LinkError::Name(_))));
    // What tickets are called within.
    let of_ticket = format!("/{}", "0".repeat(32));
    assert!(matches!(open(&host, &of_ticket), Err(LinkError::Name(_))));
    assert!(matches!(host.register_channel(&of_ticket, &small()), Err(LinkError::Name(_))));
    // The same list on all sides.
    let listed =
        "log host, of-one one, one-active one, one-passive one, two-active two, two-passive two";
    assert_eq!(one.tell("list"), listed);
    assert_eq!(two.tell("list"), listed);
    let by_host = host.channels().unwrap();
    let as_text =
        |one: &ListedChannel| format!("{} {}", one.name, one.plugin.as_deref().unwrap_or("host"));
    assert_eq!(by_host.iter().map(as_text).collect::<Vec<_>>().join(", "), listed);
    // The pair of a plugin is found by the plugin's name.
    let found = host.plugin("one").unwrap();
    assert_eq!((found.name(), found.state()), ("one", PluginState::Running));
    assert!(host.plugin("nobody").is_none());
    // A name is free when its listener has gone; channels stay.
    assert_eq!(one.tell("unregister of-one"), "true");
    assert_eq!(two.tell("register of-one"), "done");
    assert_eq!(two.tell("say of-one still"), "done");
    assert_eq!(one.tell("hear of-one"), "still");
    drop(listener);
    assert_eq!(one.tell("open log"), "Unknown { name: \"log\" }");
    log.send(b"also").unwrap();
    assert_eq!(one.tell("hear log"), "also");
}

/// The row "channel through a channel".
#[test]
fn channel_through_a_channel() {
    let host = linking_host();
    let (mut one, mut two) = (hand(&host, "one"), hand(&host, "two"));
    let with = |ticket: &Ticket| [b"ticket ", bytemuck::bytes_of(ticket)].concat();
    // From the host to a plugin.
    let listener = host.unnamed_channel(&small()).unwrap();
    let ticket = listener.ticket().unwrap();
    one.active.send(&with(&ticket)).unwrap();
    assert_eq!(one.answer(), "done");
    let mut channel = listener.accept(NEVER).unwrap();
    assert_eq!(one.tell("say ticket from one"), "done");
    assert_eq!(&*channel.recv_timeout(NEVER).unwrap(), b"from one");
    // From a plugin by way of the host to another one.
    one.order("draw");
    let ticket: Ticket = one.active.recv_pod().unwrap();
    two.active.send(&with(&ticket)).unwrap();
    assert_eq!(two.answer(), "done");
    assert_eq!(one.tell("accept drawn"), "from Some(\"two\")");
    assert_eq!(two.tell("say ticket hello"), "done");
    assert_eq!(one.tell("hear drawn"), "hello");
    // As often as one likes.
    let mut ours = host.open_ticket(&ticket, &small(), NEVER).unwrap();
    assert_eq!(one.tell("accept drawn"), "from None");
    ours.send(b"too").unwrap();
    assert_eq!(one.tell("hear drawn"), "too");
    // It is in no list, and of no use when its listener is gone.
    assert!(!one.tell("list").contains('/'));
    assert_eq!(one.tell("unregister drawn"), "true");
    let gone = host.open_ticket(&ticket, &small(), NEVER);
    assert!(matches!(gone, Err(LinkError::TicketGone)));
    two.active.send(&with(&ticket)).unwrap();
    assert_eq!(two.answer(), "TicketGone");
    assert_eq!(format!("{ticket:?}"), "Ticket { .. }");
    // With a plugin that dies, too.
    one.order("draw");
    let ticket: Ticket = one.active.recv_pod().unwrap();
    let mut last = host.open_ticket(&ticket, &small(), NEVER).unwrap();
    one.handle.kill().unwrap();
    assert!(is_disconnected(&mut last));
    let gone = host.open_ticket(&ticket, &small(), NEVER);
    assert!(matches!(gone, Err(LinkError::TicketGone)));
}

#[test]
fn types_are_checked_before_there_is_a_channel() {
    let host = linking_host();
    let mut one = hand(&host, "one");
    let numbers = host.register_typed::<Pod<u64>, Pod<u32>>("numbers", &small()).unwrap();
    assert!(one.tell("open numbers").starts_with("Types { sends:"));
    assert_eq!(one.tell("open-numbers numbers"), "done");
    let mut theirs: TypedChannel<Pod<u64>, Pod<u32>> = numbers.accept(NEVER).unwrap();
    theirs.send(&0x6f6c_6c65_6820_6f67).unwrap();
    assert_eq!(one.tell("hear numbers"), "go hello");
    assert_eq!(one.tell("register-numbers of-one"), "done");
    assert!(matches!(open(&host, "of-one"), Err(LinkError::Types { expected: 0, .. })));
    let wrong = host.open_typed::<Pod<u64>, Pod<u32>>("of-one", &small(), NEVER);
    assert!(matches!(wrong, Err(LinkError::Types { .. })));
    let mut right = host.open_typed::<Pod<u32>, Pod<u64>>("of-one", &small(), NEVER).unwrap();
    right.send(&7).unwrap();
}

#[test]
fn what_a_dead_plugin_had_is_over_and_its_successor_has_the_names() {
    let host = linking_host();
    let spec = plugin::spec("one", "use-registry").restart(restarts(1000)).max_redeliveries(1000);
    let mut one = Hand::start(&host, spec);
    let mut two = hand(&host, "two");
    assert_eq!(one.tell("register name"), "done");
    let mut ours = open(&host, "name").unwrap();
    let (mut sender, receiver) = open(&host, "name").unwrap().split();
    drop(receiver);
    assert_eq!(two.tell("open name"), "done");
    assert_eq!(one.tell("accept name"), "from None");
    assert_eq!(one.tell("say name last words"), "done");
    one.handle.kill().unwrap();
    // Whoever sleeps is woken, with what was sent before.
    assert_eq!(&*ours.recv_timeout(NEVER).unwrap(), b"last words");
    assert!(is_disconnected(&mut ours));
    // A sender that is all there is left of a channel is told as well.
    let end = std::time::Instant::now() + NEVER;
    while sender.send_timeout(&[0; 100], Duration::from_millis(1)).is_ok_and(|()| true) {
        assert!(std::time::Instant::now() < end);
    }
    assert!(matches!(sender.send(b"x"), Err(SendError::Disconnected)));
    assert_eq!(two.tell("hear name"), "Disconnected");
    // The order may have been lost with the first process.
    one.insist("register name", "done");
    let mut ours = open(&host, "name").unwrap();
    ours.send(b"to the successor").unwrap();
    one.insist("accept name", "from None");
    one.insist("hear name", "to the successor");
}

#[test]
fn a_stopped_plugin_holds_up_those_alone_that_want_something_of_it() {
    let host = linking_host();
    let (mut one, mut two) = (hand(&host, "one"), hand(&host, "two"));
    assert_eq!(one.tell("register slow"), "done");
    assert_eq!(two.tell("register quick"), "done");
    let pid = libc::pid_t::try_from(one.handle.pid().unwrap()).unwrap();
    // SAFETY: the call takes numbers; the process is a child that nobody has reaped.
    unsafe { libc::kill(pid, libc::SIGSTOP) };
    let mut status = 0;
    // SAFETY: as above; the status outlives the call, which returns when the process has stopped.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, libc::WUNTRACED) }, pid);
    let soon = Duration::from_millis(20);
    let late = host.open_channel("slow", &small(), soon);
    assert!(matches!(late, Err(LinkError::Timeout { timeout }) if timeout == soon));
    assert_eq!(two.tell("open-soon slow"), "Timeout { timeout: 10ms }");
    let mut ours = open(&host, "quick").unwrap();
    assert_eq!(two.tell("accept quick"), "from None");
    ours.send(b"meanwhile").unwrap();
    assert_eq!(two.tell("hear quick"), "meanwhile");
    // SAFETY: as above.
    unsafe { libc::kill(pid, libc::SIGCONT) };
    let mut ours = open(&host, "slow").unwrap();
    assert_eq!(one.tell("accept slow"), "from None");
    ours.send(b"at last").unwrap();
    assert_eq!(one.tell("hear slow"), "at last");
}

#[test]
fn links_that_are_over_leave_nothing() {
    if !alone("links_that_are_over_leave_nothing") {
        return;
    }
    let host = linking_host();
    let (mut one, mut two) = (hand(&host, "one"), hand(&host, "two"));
    let listener = host.register_channel("of-host", &small()).unwrap();
    assert_eq!(one.tell("register of-one"), "done");
    let mut round = || {
        let mut ours = open(&host, "of-one").unwrap();
        assert_eq!(one.tell("accept of-one"), "from None");
        assert_eq!(two.tell("open of-one"), "done");
        assert_eq!(one.tell("accept of-one"), "from Some(\"two\")");
        assert!(is_disconnected(&mut ours));
        assert_eq!(two.tell("open of-host"), "done");
        drop(listener.accept(NEVER).unwrap());
        assert_eq!(two.tell("hear of-host"), "Disconnected");
        assert_eq!(one.tell("close of-one"), "true");
        assert_eq!(two.tell("close of-one"), "true");
        assert_eq!(two.tell("close of-host"), "true");
        let theirs = |hand: &mut Hand| {
            let told = hand.tell("held");
            let numbers = told.trim_matches(['(', ')']).split(", ");
            numbers.map(|number| number.parse::<usize>().unwrap()).collect::<Vec<_>>()
        };
        let (fds, mapped) = held();
        [vec![fds, mapped], theirs(&mut one), theirs(&mut two)].concat()
    };
    // What another thread is about to give back only adds to it.
    let mut lowest = vec![usize::MAX; 6];
    for number in 0..70 {
        let found = round();
        if number < 10 {
            lowest.iter_mut().zip(&found).for_each(|(lowest, found)| *lowest = *found.min(lowest));
        }
    }
    let end = std::time::Instant::now() + NEVER;
    loop {
        let found = round();
        if found.iter().zip(&lowest).all(|(found, lowest)| found <= lowest) {
            break;
        }
        assert!(std::time::Instant::now() < end, "{found:?}, not {lowest:?}");
    }
}

#[test]
fn without_links_nothing_is_registered() {
    let host = plugin::host();
    let not_served = host.register_channel("name", &ChannelOptions::default());
    assert!(matches!(not_served, Err(LinkError::NotServed)));
    assert!(matches!(host.channels(), Err(LinkError::NotServed)));
    let mut one = hand(&host, "one");
    assert_eq!(one.tell("register name"), "NotServed");
    // Nor where something else is served.
    let host = Host::builder().answer_pings().build().unwrap();
    let mut one = hand(&host, "one");
    assert_eq!(one.tell("open name"), "NotServed");
}

#[test]
fn a_listener_of_a_host_that_is_gone_says_so() {
    let host = linking_host();
    let listener = host.register_channel("name", &small()).unwrap();
    let timeout = Duration::from_millis(1);
    assert_eq!(listener.accept(timeout).unwrap_err(), AcceptError::Timeout { timeout });
    let waiting = std::thread::spawn(move || listener.accept(NEVER).map(drop));
    let _ours = open(&host, "name").unwrap();
    assert_eq!(waiting.join().unwrap(), Ok(()));
    let listener = host.register_channel("other", &small()).unwrap();
    let waiting = std::thread::spawn(move || listener.accept(NEVER).map(drop));
    drop(host);
    assert_eq!(waiting.join().unwrap(), Err(AcceptError::Closed));
}

#[test]
fn a_forked_child_is_told_that_it_is_one() {
    let host = linking_host();
    let listener = host.register_channel("name", &small()).unwrap();
    let mut channel = open(&host, "name").unwrap();
    let mut child = Victim::start(|| {
        assert!(matches!(host.channels(), Err(LinkError::Forked)));
        assert!(matches!(open(&host, "name"), Err(LinkError::Forked)));
        assert!(matches!(listener.accept(NEVER), Err(AcceptError::Forked)));
        assert!(host.plugin("one").is_none());
        // What it drops is the parent's.
        // SAFETY: the child's copy, which it does not use any more.
        drop(unsafe { std::ptr::read(&listener) });
        // SAFETY: as above.
        drop(unsafe { std::ptr::read(&channel) });
    });
    assert_eq!(child.wait(), 0);
    let mut theirs = listener.accept(NEVER).unwrap();
    channel.send(b"still there").unwrap();
    assert_eq!(&*theirs.recv_timeout(NEVER).unwrap(), b"still there");
}

#[test]
fn f03_a_host_that_dies_beside_its_forked_child_is_gone_for_all_links() {
    let mut host = plugin::command("host-that-forks").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(host.stderr.take().unwrap()).lines().map(Result::unwrap);
    let (mut child, mut waits) = (None, false);
    while child.is_none() || !waits {
        let line = lines.next().expect("both are about to say so");
        match line.strip_prefix("child ") {
            Some(number) => child = Some(Stray(pidfd_of(number.parse().unwrap()))),
            None => waits |= line == "waits",
        }
    }
    host.kill().unwrap();
    host.wait().unwrap();
    assert_eq!(lines.next().as_deref(), Some("(Err(Closed), Err(Disconnected))"));
}

/// What hosts and plugins may share between threads.
#[test]
fn listeners_and_tickets_go_to_any_thread() {
    fn check<T: Send + Sync>() {}
    check::<ringway::host::ChannelListener>();
    check::<ringway::host::TypedListener<Pod<u64>, Pod<u64>>>();
    check::<Ticket>();
    check::<Host>();
    check::<Plugin>();
    let _ = |kind: HostEventKind| matches!(kind, HostEventKind::LinksClosed);
}
