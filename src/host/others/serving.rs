//! The host's side: what a plugin asks about others, on the service thread.
//!
//! [`Server`](crate::host::service::Server) calls it. What always holds: a process has no more requests waiting here than
//! it may have under way, and each is answered once: at the change it waits for, when its action has been begun, or at
//! its deadline; the thread takes no plugin's lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::acting::{self, ControlAction, Order};
use super::roster::{Change, News, Roster};
use super::wire::{self, STATUS_BUSY, STATUS_NOTHING, STATUS_UNKNOWN_NAME};
use crate::host::service::frame::{
    MAX_IN_FLIGHT, OP_PLUGIN_LIST, OP_PLUGIN_WATCH, STATUS_DONE, STATUS_UNKNOWN,
};
use crate::host::service::{Request, Service, ServiceProblem, Session, Sessions};

/// How many actions of one process are carried out at a time.
pub(super) const MAX_ACTING: usize = 16;

/// See the module.
#[derive(Debug)]
pub(in crate::host) struct Others {
    roster: Arc<Roster>,
    /// Sessions by serial number: how many actions each has under way.
    acting: HashMap<u64, usize>,
    waiting: Vec<Waiting>,
    /// Number of the last change that those that wait have been told of.
    seen: u64,
}

/// A watch that is to be answered later.
#[derive(Debug)]
struct Waiting {
    session: u64,
    id: u64,
    name: String,
    seen: u64,
    /// `None` for one that is never reached.
    deadline: Option<Instant>,
}

impl Others {
    pub(in crate::host) fn new(roster: Arc<Roster>) -> Self {
        let (acting, waiting) = (HashMap::new(), Vec::new());
        Self { roster, acting, waiting, seen: 0 }
    }

    fn list(&self, session: &mut Session, request: &Request<'_>) -> Result<(), ServiceProblem> {
        let behind = match request.payload {
            [] => "",
            name => wire::name_of(name).ok_or_else(|| request.malformed())?,
        };
        let mut reply = Vec::new();
        self.roster.list(behind, |name, change| wire::push_entry(&mut reply, name, &change));
        session.reply(request, STATUS_DONE, &reply)
    }

    fn watch(
        &mut self,
        session: &mut Session,
        request: &Request<'_>,
    ) -> Result<(), ServiceProblem> {
        let (seen, timeout_ns, name) =
            wire::watch_of(request.payload).ok_or_else(|| request.malformed())?;
        let news = match seen {
            wire::NOW => self.roster.now(name).map_or(News::Unknown, News::Next),
            seen => self.roster.after(name, seen),
        };
        let (status, reply) = match answer(name, &news) {
            None if timeout_ns == 0 => (STATUS_NOTHING, Vec::new()),
            None => {
                let serial = session.serial();
                let own = self.waiting.iter().filter(|waiting| waiting.session == serial);
                if own.count() >= MAX_IN_FLIGHT {
                    return Err(ServiceProblem::TooMany { max: MAX_IN_FLIGHT });
                }
                let deadline = Instant::now().checked_add(Duration::from_nanos(timeout_ns));
                let (id, name) = (request.id, name.into());
                self.waiting.push(Waiting { session: serial, id, name, seen, deadline });
                return Ok(());
            }
            Some(answer) => answer,
        };
        session.reply(request, status, &reply)
    }

    fn act(
        &mut self,
        session: &mut Session,
        request: &Request<'_>,
        action: ControlAction,
    ) -> Result<(), ServiceProblem> {
        let name = wire::name_of(request.payload).ok_or_else(|| request.malformed())?;
        let acting = self.acting.entry(session.serial()).or_default();
        let order = Order {
            by: session.visit.plugin.clone(),
            action,
            plugin: name.into(),
            session: session.serial(),
            id: request.id,
        };
        if *acting < MAX_ACTING && acting::begin(&self.roster, order) {
            *acting += 1;
            return Ok(());
        }
        session.reply(request, STATUS_BUSY, &[])
    }
}

/// What to answer to who waits, if there is something.
fn answer(name: &str, news: &News) -> Option<(u32, Vec<u8>)> {
    match news {
        News::Nothing => None,
        News::Unknown => Some((STATUS_UNKNOWN_NAME, Vec::new())),
        News::Next(change) => Some((STATUS_DONE, entry(name, change))),
    }
}

fn entry(name: &str, change: &Change) -> Vec<u8> {
    let mut reply = Vec::new();
    wire::push_entry(&mut reply, name, change);
    reply
}

impl Service for Others {
    fn serve(
        &mut self,
        session: &mut Session,
        request: &Request<'_>,
    ) -> Result<(), ServiceProblem> {
        match request.op {
            OP_PLUGIN_LIST => self.list(session, request),
            OP_PLUGIN_WATCH => self.watch(session, request),
            op => match ControlAction::of(op) {
                Some(action) => self.act(session, request, action),
                None => session.reply(request, STATUS_UNKNOWN, &[]),
            },
        }
    }

    fn attend(&mut self, sessions: &mut Sessions<'_>) -> Option<Duration> {
        for outcome in self.roster.take_outcomes() {
            let acting::Outcome { order, status } = outcome;
            if let Some(acting) = self.acting.get_mut(&order.session) {
                *acting -= 1;
            }
            sessions.reply(order.session, order.action.op(), order.id, status, &[]);
        }
        if self.waiting.is_empty() {
            return None;
        }
        let (last, now) = (self.roster.last(), Instant::now());
        let changed = std::mem::replace(&mut self.seen, last) != last;
        let roster = &self.roster;
        self.waiting.retain(|waiting| {
            let Waiting { session, id, name, seen, deadline } = waiting;
            let found = if changed { answer(name, &roster.after(name, *seen)) } else { None };
            let over = deadline.is_some_and(|deadline| deadline <= now);
            let found = found.or_else(|| over.then(|| (STATUS_NOTHING, Vec::new())));
            if let Some((status, reply)) = &found {
                sessions.reply(*session, OP_PLUGIN_WATCH, *id, *status, reply);
            }
            found.is_none()
        });
        let next = self.waiting.iter().filter_map(|waiting| waiting.deadline).min();
        next.map(|deadline| deadline.saturating_duration_since(now))
    }

    fn end(&mut self, session: &Session) {
        self.acting.remove(&session.serial());
        self.waiting.retain(|waiting| waiting.session != session.serial());
    }
}
