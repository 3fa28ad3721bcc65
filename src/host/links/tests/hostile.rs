//! Processes that are killed in every state of a link, and that do what no desk does.

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::raw::Raw;
use super::{NEVER, small, tray, until};
use crate::error::RecvTimeoutError;
use crate::host::links::{Desk, Kind, Link, LinkError};
use crate::host::service::error::ServiceError;
use crate::host::{Host, HostEventKind};
use crate::os::tests::alone;

fn host() -> Host {
    Host::builder().links().build().unwrap()
}

fn connect(desk: &Arc<Desk>, name: &str) -> Result<Link, LinkError> {
    desk.connect(Kind::Channel, name, b"", &small(), NEVER)
}

/// Whether the broker has no links, and nothing of those that there were.
fn forgets_all(host: &Host) {
    until("forgetting all links", || host.links.as_ref().unwrap().census() == (0, 0));
}

/// Two processes without a desk, and each of them killed in each state of a link that they have.
#[test]
fn killed_in_every_state_on_either_side() {
    let host = host();
    let desk = host.desk().unwrap();
    let mut bystander = Raw::start(&host, "bystander");
    for victim in [0, 1] {
        for state in 0..=5 {
            let mut first = Raw::start(&host, "first");
            let mut second = Raw::start(&host, "second");
            assert_eq!(second.tell("listen name"), "0 0");
            let begun = first.tell("connect name");
            let link = begun.strip_prefix("0 ").unwrap();
            let (offered, gone) = (state < 3, format!("Gone {link} {}", 1 - victim));
            // Which of its letters the one that survives has not read.
            let mut unread: [Vec<&str>; 2] = [vec!["Offer", "Go"], vec!["Offer", "Go"]];
            for step in 1..=state {
                let (party, of) = match step {
                    1 => {
                        assert!(first.tell("read").starts_with("Offer"));
                        unread[0].remove(0);
                        continue;
                    }
                    2 => {
                        assert_eq!(first.tell(&format!("attach {link} 0")), "done");
                        assert_eq!(first.tell(&format!("answer {link} 0 0")), "0 0");
                        continue;
                    }
                    3 | 5 => (&mut second, 1),
                    _ => (&mut first, 0),
                };
                let expected = format!("{} {link} {of}", unread[of].remove(0));
                assert_eq!(party.take(), expected);
            }
            let (dead, mut alive) = if victim == 0 { (first, second) } else { (second, first) };
            dead.kill();
            // What it is told last: that nothing comes of it, or that it is over.
            let over = format!("Over {link} {}", 1 - victim);
            let last = if offered { &gone } else { &over };
            until("the last letter", || {
                let letter = alive.tell("read");
                if letter.starts_with("Offer") {
                    // It has not heard yet.
                    assert_eq!(alive.tell(&format!("attach {link} {}", 1 - victim)), "done");
                    let answer = format!("answer {link} {} 0", 1 - victim);
                    assert_eq!(alive.tell(&answer), "0 0");
                }
                // One that had attached may be heard of later than the answer of the other.
                letter == *last || (state, victim, &letter) == (2, 0, &over)
            });
            if (victim, state) == (1, 1) {
                // It has read its offer, and every offer is to be answered.
                assert_eq!(alive.tell(&format!("answer {link} 0 1")), "0 0");
            }
            assert_eq!(alive.tell(&format!("over {link} {}", 1 - victim)), "0 0");
            forgets_all(&host);
            match victim {
                0 => assert_eq!(alive.tell("connect name").split(' ').next(), Some("0")),
                _ => assert!(matches!(connect(&desk, "name"), Err(LinkError::Unknown { .. }))),
            }
            assert!(bystander.tell("connect nothing").starts_with("256"));
            alive.kill();
            forgets_all(&host);
        }
    }
}

/// The same with the host itself, or a desk in general, at the other end.
#[test]
fn a_desk_is_told_in_every_state() {
    let host = host();
    let desk = host.desk().unwrap();
    let (inbox, links) = tray();
    let _name = desk.listen(Kind::Channel, "of-host", b"", &small(), inbox, NEVER).unwrap();
    for steps in 0..3 {
        // It listens.
        let mut raw = Raw::start(&host, "raw");
        assert_eq!(raw.tell("listen name"), "0 0");
        let connecting = {
            let desk = Arc::clone(&desk);
            thread::spawn(move || connect(&desk, "name"))
        };
        if steps == 0 {
            until("an offer", || host.links.as_ref().unwrap().census().0 == 1);
        }
        for _ in 0..steps {
            raw.take();
        }
        if steps > 0 {
            // It could not come about any more if the host's end were late.
            until("the link", || connecting.is_finished());
        }
        raw.kill();
        match (connecting.join().unwrap(), steps) {
            (Err(LinkError::PartnerGone), 0) => {}
            (Ok(mut link), 1 | 2) => {
                let told = link.channel.recv_timeout(NEVER);
                assert!(matches!(told, Err(RecvTimeoutError::Disconnected)));
            }
            (other, _) => panic!("{other:?} after {steps}"),
        }
        forgets_all(&host);
        // It connects.
        let mut raw = Raw::start(&host, "raw");
        assert!(raw.tell("connect of-host").starts_with("0 "));
        for _ in 0..steps {
            raw.take();
        }
        let link = (steps > 0).then(|| links.recv_timeout(NEVER).unwrap());
        raw.kill();
        if let Some(mut link) = link {
            let told = link.channel.recv_timeout(NEVER);
            assert!(matches!(told, Err(RecvTimeoutError::Disconnected)));
        }
        forgets_all(&host);
        assert!(links.try_recv().is_err());
    }
}

#[test]
fn holes_are_punched_before_the_seal_or_not_at_all() {
    let host = host();
    let desk = host.desk().unwrap();
    for from in [0, 4096] {
        let mut raw = Raw::start(&host, "raw");
        assert_eq!(raw.tell("listen name"), "0 0");
        let connecting = {
            let desk = Arc::clone(&desk);
            thread::spawn(move || connect(&desk, "name"))
        };
        let offer = raw.tell("read");
        let end = offer.strip_prefix("Offer ").unwrap();
        assert_eq!(raw.tell(&format!("attach {end}")), "done");
        assert_eq!(raw.tell(&format!("punch {end} {from}")), "done");
        let was_over = connecting.is_finished();
        assert_eq!(raw.tell(&format!("answer {end} 0")), "0 0");
        match connecting.join().unwrap() {
            Ok(mut link) => {
                assert!(!was_over, "nobody uses it before");
                assert_eq!(raw.tell("read"), format!("Go {end}"));
                assert_eq!(raw.tell(&format!("punch {end} {from}")), "PermissionDenied");
                // Zeros, such as the plugin could have written: used as far as they go.
                for _ in 0..100 {
                    let _ = link.channel.try_send(&[7; 200]);
                    let _ = link.channel.try_recv().map(drop);
                }
            }
            // The host came late, and found no header.
            Err(LinkError::PartnerGone | LinkError::Attach(_)) => {}
            Err(error) => panic!("{error}"),
        }
        raw.kill();
        forgets_all(&host);
    }
}

#[test]
fn who_keeps_a_segment_from_being_sealed_gets_no_link() {
    let host = host();
    let desk = host.desk().unwrap();
    let mut raw = Raw::start(&host, "raw");
    assert_eq!(raw.tell("listen name"), "0 0");
    let connecting = {
        let desk = Arc::clone(&desk);
        thread::spawn(move || connect(&desk, "name").map(drop))
    };
    let offer = raw.tell("read");
    let end = offer.strip_prefix("Offer ").unwrap();
    assert_eq!(raw.tell(&format!("attach {end}")), "done");
    assert_eq!(raw.tell(&format!("forbid {end}")), "done");
    assert_eq!(raw.tell(&format!("answer {end} 0")), "0 0");
    let refused = connecting.join().unwrap();
    assert!(matches!(refused, Err(LinkError::PartnerGone | LinkError::Attach(_))), "{refused:?}");
    assert_eq!(raw.tell("read"), format!("Gone {end}"));
}

#[test]
fn floods_and_closed_descriptors_harm_nobody_else() {
    let host = host();
    let desk = host.desk().unwrap();
    let (inbox, links) = tray();
    let _name = desk.listen(Kind::Channel, "of-host", b"", &small(), inbox, NEVER).unwrap();
    let mut flooding = Raw::start(&host, "flooding");
    let mut closing = Raw::start(&host, "closing");
    let mut honest = Raw::start(&host, "honest");
    assert_eq!(closing.tell("listen closing"), "0 0");
    assert_eq!(flooding.tell("flood"), "floods");
    for _ in 0..20 {
        let begun = honest.tell("connect of-host");
        let link = begun.strip_prefix("0 ").unwrap();
        assert_eq!(honest.take(), format!("Offer {link} 0"));
        assert_eq!(honest.take(), format!("Go {link} 0"));
        drop(links.recv_timeout(NEVER).unwrap());
        assert_eq!(honest.take(), format!("Over {link} 0"));
        assert_eq!(honest.tell(&format!("over {link} 0")), "0 0");
    }
    // It still has its service channel mapped, but nobody can be told anything through its post.
    assert_eq!(closing.tell("close"), "closed");
    assert!(matches!(connect(&desk, "closing"), Err(LinkError::PartnerGone)));
    assert!(matches!(connect(&desk, "closing"), Err(LinkError::Unknown { .. })));
    assert_eq!(closing.tell("listen again"), "262 0");
    forgets_all(&host);
    let kinds = std::iter::from_fn(|| host.next_event(Duration::ZERO)).map(|event| event.kind);
    assert!(kinds.into_iter().all(|kind| matches!(kind, HostEventKind::Started { .. })));
}

#[test]
fn what_is_answered_for_others_ends_the_service() {
    let host = host();
    let desk = host.desk().unwrap();
    let (inbox, links) = tray();
    let _name = desk.listen(Kind::Channel, "of-host", b"", &small(), inbox, NEVER).unwrap();
    let (mut honest, mut liar) = (Raw::start(&host, "honest"), Raw::start(&host, "liar"));
    assert_eq!(liar.tell("listen of-liar"), "0 0");
    let begun = honest.tell("connect of-host");
    let link = begun.strip_prefix("0 ").unwrap().to_string();
    assert_eq!(honest.tell("read"), format!("Offer {link} 0"));
    let closed = format!("{:?}", ServiceError::Closed);
    assert_eq!(liar.tell(&format!("answer {link} 0 0")), closed);
    assert!(matches!(connect(&desk, "of-liar"), Err(LinkError::Unknown { .. })));
    assert!(links.try_recv().is_err(), "nobody has attached");
    assert_eq!(honest.tell(&format!("attach {link} 0")), "done");
    assert_eq!(honest.tell(&format!("answer {link} 0 0")), "0 0");
    drop(links.recv_timeout(NEVER).unwrap());
    // Not twice.
    assert_eq!(honest.tell(&format!("answer {link} 0 0")), closed);
}

/// What this process has, counted where nobody else counts.
#[test]
fn dead_processes_and_links_leave_no_descriptors_and_no_memory() {
    const NAME: &str =
        "host::links::tests::hostile::dead_processes_and_links_leave_no_descriptors_and_no_memory";
    if !alone(NAME) {
        return;
    }
    let belongings = || {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let mapped = maps.lines().filter(|line| line.contains("memfd:")).count();
        (fs::read_dir("/proc/self/fd").unwrap().count(), mapped)
    };
    let host = host();
    let desk = host.desk().unwrap();
    let mut lowest = (usize::MAX, usize::MAX);
    for round in 0..20 {
        let mut raw = Raw::start(&host, "raw");
        assert_eq!(raw.tell("listen name"), "0 0");
        let connecting: Vec<_> = (0..10)
            .map(|_| {
                let desk = Arc::clone(&desk);
                thread::spawn(move || connect(&desk, "name"))
            })
            .collect();
        // Ten offers, of which it answers as many as there are rounds before.
        for _ in 0..round {
            raw.take();
        }
        until("ten links", || {
            let links = host.links.as_ref().unwrap().census().0;
            links == 10 || connecting.iter().any(thread::JoinHandle::is_finished)
        });
        raw.kill();
        for link in connecting {
            let _ = link.join().unwrap();
        }
        forgets_all(&host);
        if round < 5 {
            // What another thread is about to give back only adds to it.
            let found = belongings();
            lowest = (lowest.0.min(found.0), lowest.1.min(found.1));
        }
    }
    until("giving all back", || {
        let found = belongings();
        found.0 <= lowest.0 && found.1 <= lowest.1
    });
}
