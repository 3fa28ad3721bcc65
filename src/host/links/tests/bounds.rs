//! How much a party can have, by the limits that every host has.
//!
//! Nobody answers an offer here, so that most links have no memory, and count all the same.

use std::os::fd::OwnedFd;

use super::to_listen;
use crate::host::links::broker::{Broker, Outlet, PartyId, Posted};
use crate::host::links::wire::{
    Ask, Letter, OP_CONNECT, OP_JOIN, OP_LISTEN, STATUS_TOO_MANY, Shape,
};
use crate::host::links::{Kind, Limits};
use crate::host::service::frame::STATUS_DONE;

#[derive(Debug)]
struct Patient;

impl Outlet for Patient {
    fn post(&self, _letter: &Letter, _descriptor: Option<OwnedFd>) -> Posted {
        Posted::Sent
    }

    fn close(&self, _unheard: bool) {}
}

struct Office {
    broker: Broker,
    token: u64,
}

/// Which limit was met, by code, and what it is.
type Met = [u64; 2];

const LINKS: Met = [0, 1024];
const LINKS_OF_PAIR: Met = [1, 128];
const NAMES: Met = [2, 1024];
const BYTES: Met = [3, 1 << 30];
const BYTES_OF_PAIR: Met = [4, 128 << 20];
const BYTES_OF_LINK: Met = [5, 64 << 20];

/// Rings of one link of which two have a little more than a quarter of what a pair can have.
const LARGE: u64 = 16 << 20;

impl Office {
    fn new() -> Self {
        Self { broker: Broker::new(Limits::default()), token: 0 }
    }

    fn enter(&mut self, name: &str) -> PartyId {
        self.broker.enter(name, Box::new(Patient))
    }

    /// The number that is the answer.
    fn ask(&mut self, party: PartyId, op: u32, ask: Ask) -> Result<u64, Met> {
        self.token += 1;
        let reply = self.broker.handle(party, op, &Ask { token: self.token, ..ask }.to_bytes());
        let reply = reply.unwrap();
        if reply.status == STATUS_DONE {
            return Ok(bytemuck::pod_read_unaligned(&reply.payload));
        }
        assert_eq!(reply.status, STATUS_TOO_MANY);
        Err(bytemuck::pod_read_unaligned(&reply.payload))
    }

    /// A listener whose links have rings of this capacity.
    fn listen(&mut self, party: PartyId, name: &str, capacity: u64) -> Result<u64, Met> {
        let ask = to_listen(Kind::Channel, name);
        let shape = Shape { capacities: [capacity; 2], ..ask.shape };
        self.ask(party, OP_LISTEN, Ask { shape, ..ask })
    }

    /// How many links can be had by that name, and why no more.
    fn connect_all(&mut self, party: PartyId, name: &str) -> (usize, Met) {
        let mut links = 0;
        loop {
            match self.ask(party, OP_CONNECT, to_listen(Kind::Channel, name)) {
                Ok(_) => links += 1,
                Err(met) => return (links, met),
            }
        }
    }
}

#[test]
fn links_are_counted_for_each_plugin_and_for_each_pair() {
    let mut office = Office::new();
    let (host, one) = (office.enter(""), office.enter("one"));
    office.listen(host, "of host", 4096).unwrap();
    assert_eq!(office.connect_all(one, "of host"), (128, LINKS_OF_PAIR));
    let others = [2, 3, 4, 5, 6, 7, 8, 9].map(|number| number.to_string());
    let mut parties = Vec::new();
    for (number, name) in others.iter().enumerate() {
        let other = office.enter(name);
        parties.push(other);
        office.listen(other, name, 4096).unwrap();
        // With the seventh it has all that it can have.
        let expected = [(128, LINKS_OF_PAIR), (128, LINKS), (0, LINKS)][number.clamp(5, 7) - 5];
        assert_eq!(office.connect_all(one, name), expected, "{name}");
        // Nobody else has.
        assert_eq!(office.connect_all(host, name), (128, LINKS_OF_PAIR));
    }
    office.listen(one, "of one", 4096).unwrap();
    let last = office.enter("last");
    assert_eq!(office.connect_all(last, "of one"), (0, LINKS));
    // The host has more than a plugin can have.
    assert_eq!(office.connect_all(last, "of host"), (128, LINKS_OF_PAIR));
    // Who is full is passed over by those that join and listen, and is told where it does so itself.
    let topic = |name| to_listen(Kind::Topic, name);
    assert_eq!(office.ask(one, OP_LISTEN, topic("own")), Ok(0));
    assert_eq!(office.ask(host, OP_JOIN, topic("own")), Ok(0));
    assert_eq!(office.ask(last, OP_LISTEN, topic("news")), Ok(0));
    assert_eq!(office.ask(one, OP_JOIN, topic("news")), Err(LINKS));
    office.broker.leave(parties[0]);
    office.broker.leave(parties[1]);
    assert_eq!(office.ask(last, OP_LISTEN, topic("news")), Ok(0), "it has not joined");
    assert_eq!(office.ask(one, OP_JOIN, topic("news")), Ok(2));
}

#[test]
fn bytes_are_counted_for_each_plugin_for_each_pair_and_for_each_link() {
    let mut office = Office::new();
    let (host, one) = (office.enter(""), office.enter("one"));
    assert_eq!(office.listen(one, "too large", 2 * LARGE), Err(BYTES_OF_LINK));
    assert_eq!(office.listen(host, "too large", 2 * LARGE), Err(BYTES_OF_LINK));
    // From here on it is offered nothing, so that there is no memory.
    office.listen(host, "of host", 4096).unwrap();
    for _ in 0..Limits::default().unanswered {
        office.ask(one, OP_CONNECT, to_listen(Kind::Channel, "of host")).unwrap();
    }
    for number in 2..=12 {
        let name = number.to_string();
        let other = office.enter(&name);
        office.listen(other, &name, LARGE).unwrap();
        let expected = if number < 12 { (3, BYTES_OF_PAIR) } else { (1, BYTES) };
        assert_eq!(office.connect_all(one, &name), expected, "{name}");
    }
}

#[test]
fn names_are_counted_for_each_plugin() {
    let mut office = Office::new();
    let parties = ["", "one", "two"].map(|name| office.enter(name));
    for (party, most) in parties.into_iter().zip([1100, 1024, 1024]) {
        let mut listen = |number| office.listen(party, &format!("{party} {number}"), 4096);
        (0..most).for_each(|number| assert_eq!(listen(number), Ok(0)));
        let expected = if most == 1024 { Err(NAMES) } else { Ok(0) };
        assert_eq!(listen(most), expected);
    }
}
