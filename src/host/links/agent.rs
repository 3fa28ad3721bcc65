//! The desk's thread, `ringway-links`: reads what the host has to say of this process's links, and
//! does it.
//!
//! It starts with the first use of a desk. What always holds: it answers every offer once; it waits
//! for nobody but the host, and for that only for as long as the service channel has no room; when
//! nothing will come any more, all links are told.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::LinkError;
use super::desk::{Desk, Guard, Slip};
use super::office::Mailbox;
use super::table::{Delivery, Held, Offered};
use super::wire::{
    ATTACHED, EndId, Letter, MAX_LETTER_BYTES, OP_ANSWER, OP_OVER, OP_WITHDRAW, REFUSED, What,
};
use crate::callback::quietly;
use crate::channel::Channel;
use crate::error::ExitReason;
use crate::os::post;

/// How long the host has to make room for what it must be told, before it is tried again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where letters come from.
#[derive(Debug)]
pub(super) enum Source {
    Post(OwnedFd),
    Mailbox(Arc<Mailbox>),
}

/// See the module.
pub(super) struct Agent {
    desk: Arc<Desk>,
    source: Source,
}

impl Agent {
    pub(super) fn start(desk: &Arc<Desk>, source: Source) -> io::Result<JoinHandle<()>> {
        let agent = Self { desk: Arc::clone(desk), source };
        thread::Builder::new().name("ringway-links".into()).spawn(move || agent.run())
    }

    fn run(self) {
        loop {
            let post = match &self.source {
                Source::Post(socket) => Some(socket.as_fd()),
                Source::Mailbox(_) => None,
            };
            post::wait_for_either(post, self.desk.bell().descriptor().as_fd());
            for slip in self.desk.take_slips() {
                self.hand_in(slip);
            }
            if self.desk.table().ended || !self.read_all() {
                return self.desk.end();
            }
        }
    }

    /// Does what all letters say that have come. False where no more will.
    fn read_all(&self) -> bool {
        loop {
            let (letter, descriptor) = match &self.source {
                Source::Mailbox(mailbox) => match mailbox.next() {
                    Some(letter) => letter,
                    None => return true,
                },
                Source::Post(socket) => {
                    let mut room = [0; MAX_LETTER_BYTES];
                    match post::receive(socket.as_fd(), &mut room) {
                        Ok((0, _)) => return false,
                        Ok((len, descriptor)) => match Letter::of(&room[..len]) {
                            Some(letter) => (letter, descriptor),
                            None => return false,
                        },
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                        Err(_) => return false,
                    }
                }
            };
            self.read(letter, descriptor);
        }
    }

    fn read(&self, letter: Letter, descriptor: Option<OwnedFd>) {
        let end = letter.end;
        match letter.what {
            What::Offer => self.offered(letter, descriptor),
            What::Go => self.go(end),
            What::Gone => {
                let mut table = self.desk.table();
                table.fail(letter.token, letter.begun, LinkError::PartnerGone);
                let held = table.ends.remove(&end);
                drop(table);
                drop(held);
                self.desk.notify();
            }
            What::Over => {
                let connection = match self.desk.table().ends.get(&end) {
                    Some(Held::Used(connection)) => connection.upgrade(),
                    _ => None,
                };
                if let Some(connection) = connection {
                    connection.peer_died(ExitReason::Unknown, false);
                }
            }
        }
    }

    fn offered(&self, letter: Letter, descriptor: Option<OwnedFd>) {
        let Letter { end, token, begun, peer, note, .. } = letter;
        let terms = self.desk.table().terms(token);
        let (Some(terms), Some(descriptor)) = (terms, descriptor) else {
            // Nobody wants it any more, or this process cannot have more descriptors.
            self.desk.table().fail(token, begun, LinkError::PartnerGone);
            self.desk.notify();
            return self.tell(OP_ANSWER, &end.to_bytes(REFUSED));
        };
        match Channel::attach_side(descriptor, end.side, terms.types, terms.wait) {
            Ok(channel) => {
                let guard = Guard { desk: Arc::clone(&self.desk), end };
                channel.connection().keep(Box::new(guard));
                let offered = Box::new(Offered { channel, token, begun, peer, note });
                self.desk.table().ends.insert(end, Held::Offered(offered));
                self.tell(OP_ANSWER, &end.to_bytes(ATTACHED));
            }
            Err(error) => {
                self.desk.table().fail(token, begun, error.into());
                self.desk.notify();
                self.tell(OP_ANSWER, &end.to_bytes(REFUSED));
            }
        }
    }

    fn go(&self, end: EndId) {
        let gone = self.desk.table().go(end);
        let Some((delivery, token, begun)) = gone else { return };
        match delivery {
            // An inbox that panics has said so, and the other links go on.
            Delivery::To(inbox, link) => {
                quietly(|| inbox.linked(link));
            }
            Delivery::Unwanted(link) => drop(link),
            Delivery::Taken => {}
        }
        self.desk.table().settle(token, begun);
        self.desk.notify();
    }

    fn hand_in(&self, slip: Slip) {
        match slip {
            Slip::Over(end) => {
                let held = self.desk.table().ends.remove(&end);
                drop(held);
                self.tell(OP_OVER, &end.to_bytes(0));
            }
            Slip::Withdraw(token) => self.tell(OP_WITHDRAW, &token.to_ne_bytes()),
        }
    }

    /// Tells the host. One that does not answer finds it when it goes on.
    fn tell(&self, op: u32, payload: &[u8]) {
        while !self.desk.table().ended {
            match self.desk.call(op, payload, PATIENCE) {
                Err(LinkError::Full { .. }) => {}
                _ => return,
            }
        }
    }
}
