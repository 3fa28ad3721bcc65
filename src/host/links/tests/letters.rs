//! Which letters the broker writes, and which not: nobody can have another one's post filled.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::to_listen;
use crate::host::links::broker::{Broker, PartyId};
use crate::host::links::office::Mailbox;
use crate::host::links::wire::{
    ATTACHED, Ask, EndId, Letter, OP_ANSWER, OP_JOIN, OP_LISTEN, OP_OVER, OP_WITHDRAW, REFUSED,
    What,
};
use crate::host::links::{Kind, Limits};
use crate::host::service::frame::STATUS_DONE;
use crate::os::eventfd::EventFd;

/// A party, and what it has been told.
struct Party {
    id: PartyId,
    letters: Arc<Mailbox>,
}

impl Party {
    fn enter(broker: &mut Broker, name: &str) -> Self {
        let letters = Mailbox::new(&EventFd::new().unwrap());
        Self { id: broker.enter(name, Box::new(Arc::clone(&letters))), letters }
    }

    fn ask(&self, broker: &mut Broker, op: u32, payload: &[u8]) {
        assert_eq!(broker.handle(self.id, op, payload).unwrap().status, STATUS_DONE);
    }

    fn next(&self) -> Option<(What, EndId)> {
        self.letters.next().map(|(Letter { what, end, .. }, _): (_, Option<OwnedFd>)| (what, end))
    }
}

fn topic(token: u64) -> Ask {
    Ask { token, ..to_listen(Kind::Topic, "news") }
}

/// Two parties of which one listens to what the other has joined, and the offers of both.
fn offered() -> (Broker, Party, Party, [EndId; 2]) {
    let mut broker = Broker::new(Limits::default());
    let (joins, listens) = (Party::enter(&mut broker, "j"), Party::enter(&mut broker, "l"));
    listens.ask(&mut broker, OP_LISTEN, &topic(1).to_bytes());
    joins.ask(&mut broker, OP_JOIN, &topic(1).to_bytes());
    let ends = [&joins, &listens].map(|party| {
        let (what, end) = party.next().unwrap();
        assert_eq!(what, What::Offer);
        end
    });
    (broker, joins, listens, ends)
}

#[test]
fn that_an_end_is_over_is_told_once_however_often_it_is_said() {
    let (mut broker, joins, listens, ends) = offered();
    for (party, end) in [&joins, &listens].into_iter().zip(ends) {
        party.ask(&mut broker, OP_ANSWER, &end.to_bytes(ATTACHED));
    }
    for (party, end) in [&joins, &listens].into_iter().zip(ends) {
        assert_eq!(party.next(), Some((What::Go, end)));
    }
    for _ in 0..3 {
        joins.ask(&mut broker, OP_OVER, &ends[0].to_bytes(0));
    }
    assert_eq!((listens.next(), listens.next()), (Some((What::Over, ends[1])), None));
    assert_eq!(broker.census(), (1, 1));
    listens.ask(&mut broker, OP_OVER, &ends[1].to_bytes(0));
    assert_eq!((joins.next(), broker.census()), (None, (0, 0)));
}

#[test]
fn a_name_that_is_withdrawn_takes_back_what_nobody_uses_yet() {
    let (mut broker, joins, listens, ends) = offered();
    joins.ask(&mut broker, OP_ANSWER, &ends[0].to_bytes(ATTACHED));
    joins.ask(&mut broker, OP_WITHDRAW, &1_u64.to_ne_bytes());
    assert_eq!(
        (listens.next(), joins.next()),
        (Some((What::Gone, ends[1])), Some((What::Gone, ends[0])))
    );
    listens.ask(&mut broker, OP_ANSWER, &ends[1].to_bytes(ATTACHED));
    assert_eq!((listens.next(), joins.next(), broker.census()), (None, None, (0, 0)));
}

#[test]
fn who_has_not_heard_of_a_link_is_not_told_that_nothing_comes_of_it() {
    let (mut broker, joins, listens, ends) = offered();
    let most = Limits::default().unanswered as u64;
    // All of another process, so that the joining one answers them.
    let also_joins = Party::enter(&mut broker, "also");
    let mut begun = vec![(&joins, ends)];
    for token in 2..=most {
        // At most so many of one name each.
        let name = format!("{}", token / 8);
        let ask = |token| Ask { name: name.clone(), token, ..topic(token) };
        if token % 8 == 0 || token == 2 {
            listens.ask(&mut broker, OP_LISTEN, &ask(token).to_bytes());
        }
        also_joins.ask(&mut broker, OP_JOIN, &ask(token).to_bytes());
        let of_joiner = also_joins.next().unwrap().1;
        begun.push((&also_joins, [of_joiner, listens.next().unwrap().1]));
    }
    // As many as it has to answer: of what comes now it does not hear, and who has begun it does.
    for token in most + 1..most + 4 {
        joins.ask(&mut broker, OP_JOIN, &topic(token).to_bytes());
        joins.ask(&mut broker, OP_WITHDRAW, &token.to_ne_bytes());
        assert_eq!((joins.next().unwrap().0, joins.next()), (What::Gone, None));
    }
    assert_eq!(listens.next(), None);
    assert_eq!(broker.census().0, begun.len());
    for (party, ends) in begun {
        party.ask(&mut broker, OP_ANSWER, &ends[0].to_bytes(REFUSED));
        listens.ask(&mut broker, OP_ANSWER, &ends[1].to_bytes(REFUSED));
        assert_eq!(listens.next(), Some((What::Gone, ends[1])));
    }
    assert_eq!((listens.next(), broker.census()), (None, (0, 0)));
}
