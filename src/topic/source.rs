//! One publisher, as its subscriber has it: which publication comes next.
//!
//! [`Subscriber`](super::Subscriber) has one for each. What always holds: numbers rise; what is missing
//! between two of them is counted; a publisher that sends what none sends is not listened to any more.

use std::sync::Arc;

use super::error::{Departed, Departure};
use super::publication::PublisherId;
use super::wire::Record;
use crate::channel::Sender;
use crate::channel::connection::Connection;
use crate::layout::side;

/// See the module.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) publisher: PublisherId,
    pub(super) plugin: String,
    /// The number that comes next; `None` before it was told.
    expected: Option<u64>,
    /// It has said that it has the link.
    has_started: bool,
    has_ended: bool,
    pub(super) received: u64,
    pub(super) lost: u64,
    connection: Arc<Connection>,
    /// Nothing goes this way.
    _back: Sender,
}

/// It sent what no publisher sends.
#[derive(Debug)]
pub(super) struct Malformed;

/// A publication that has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrived {
    pub(super) number: u64,
    pub(super) lost_before: u64,
}

impl Source {
    pub(super) fn new(
        (link, plugin): (u64, String),
        connection: Arc<Connection>,
        back: Sender,
    ) -> Self {
        Self {
            publisher: PublisherId(link),
            plugin,
            expected: None,
            has_started: false,
            has_ended: false,
            received: 0,
            lost: 0,
            connection,
            _back: back,
        }
    }

    /// A publication has come, with its number or without.
    #[inline]
    pub(super) fn arrive(&mut self, number: Option<u64>) -> Result<Arrived, Malformed> {
        let expected = self.expected.filter(|_| !self.has_ended).ok_or(Malformed)?;
        let number = number.unwrap_or(expected);
        let lost_before = number.checked_sub(expected).ok_or(Malformed)?;
        self.expected = Some(number.checked_add(1).ok_or(Malformed)?);
        self.received += 1;
        self.lost = self.lost.saturating_add(lost_before);
        Ok(Arrived { number, lost_before })
    }

    /// A record has come that is no publication. Each comes once, so that there is an end to them.
    pub(super) fn take_word(&mut self, record: &Record<'_>) -> Result<(), Malformed> {
        match (record, self.expected) {
            (Record::Start, None) if !self.has_started && !self.has_ended => {
                self.has_started = true;
                Ok(())
            }
            (Record::First(number), None) if !self.has_ended => {
                self.expected = Some(*number);
                Ok(())
            }
            (Record::End(number), Some(expected)) if !self.has_ended => {
                let missing = number.checked_sub(expected).ok_or(Malformed)?;
                self.lost = self.lost.saturating_add(missing);
                self.has_ended = true;
                Ok(())
            }
            // It has ended without a single publication: nobody has asked it for the first one's number.
            (Record::End(_), None) if !self.has_ended => {
                self.has_ended = true;
                Ok(())
            }
            _ => Err(Malformed),
        }
    }

    /// How it has gone, after its ring has said that nothing comes any more.
    pub(super) fn departure(&self) -> Departure {
        // By its own word, and whoever dies says nothing.
        match self.has_ended {
            true => Departure::Finished,
            false if self.connection.peer_shows() == side::ATTACHED => Departure::Died,
            false => Departure::CutOff,
        }
    }

    pub(super) fn depart(self, departure: Departure) -> Departed {
        let Self { publisher, plugin, received, lost, .. } = self;
        Departed { publisher, plugin, departure, received, lost }
    }
}
