//! What a process calls that wants links: one [`Desk`] for the host, one for each plugin's process.
//!
//! The registry, topics and calls have it from [`Host::desk`](crate::host::Host::desk) and
//! [`Plugin::desk`](crate::host::Plugin::desk). What always holds: every call ends by its timeout;
//! what it has asked for and has not waited for is taken back; the desk's own thread never waits for
//! a caller.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::office::Office;
use super::table::{Connecting, Held, Registered, Table, Terms};
use super::wire::{
    Ask, EndId, Entry, ListAsk, OP_CONNECT, OP_JOIN, OP_LIST, OP_LISTEN, OP_OVER, OP_WITHDRAW,
    Shape, is_name, is_ticket,
};
use super::{Inbox, Kind, Link, LinkError, LinkOptions, Listed, MAX_NOTE_BYTES};
use crate::channel::ChannelTypes;
use crate::error::ExitReason;
use crate::host::service::{Client, Reply};
use crate::host::spec::check_name;
use crate::os::eventfd::EventFd;
use crate::os::fork;
use crate::wakeup::WaitStrategy;

/// How long the host has to answer where no caller says.
const PATIENCE: Duration = Duration::from_secs(5);
/// And where a registration is dropped: what takes longer is left to the desk's thread.
const PATIENCE_OF_DROP: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Desk {
    way: Way,
    /// The fork generation that its thread runs in.
    generation: u64,
    table: Mutex<Table>,
    changed: Condvar,
    slips: Slips,
}

/// How the host is asked.
#[derive(Debug)]
pub(super) enum Way {
    /// By its plugin.
    Service(Arc<Client>),
    /// By itself, as this party.
    Office(Arc<Office>, u64),
}

/// What others leave for the desk's thread to do.
#[derive(Debug)]
struct Slips {
    waiting: Mutex<Vec<Slip>>,
    bell: EventFd,
}

/// Something that the host is to be told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Slip {
    Over(EndId),
    Withdraw(u64),
}

/// A name that is listened to, or joined. Dropping it withdraws it; links that exist stay until their
/// ends are dropped.
#[derive(Debug)]
#[must_use = "dropping it withdraws the name"]
pub(crate) struct Registration {
    desk: Arc<Desk>,
    token: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        if !fork::is_current(self.desk.generation) {
            return;
        }
        // Dropped when the lock is not held any more.
        let registered = self.desk.table().registrations.remove(&self.token);
        self.desk.withdraw(self.token);
        drop(registered);
    }
}

/// Kept by a link's connection: tells when it is gone.
#[derive(Debug)]
pub(super) struct Guard {
    /// Strong, so that a plugin is served for as long as it has links.
    pub(super) desk: Arc<Desk>,
    pub(super) end: EndId,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // In a forked child the end is still the parent's.
        if fork::is_current(self.desk.generation) {
            self.desk.leave_slip(Slip::Over(self.end));
        }
    }
}

impl Desk {
    pub(super) fn new(way: Way, generation: u64, bell: EventFd) -> Arc<Self> {
        let slips = Slips { waiting: Mutex::default(), bell };
        let (table, changed) = (Mutex::default(), Condvar::new());
        Arc::new(Self { way, generation, table, changed, slips })
    }

    /// Listens under a name. For a topic it returns when all that have joined the name are linked, or
    /// have not answered within `timeout`; those are linked when they answer. Listeners with the same
    /// inbox belong together ([`Kind::Rpc`]).
    ///
    /// # Errors
    /// [`LinkError`]; nothing is registered then.
    pub(crate) fn listen(
        self: &Arc<Self>,
        kind: Kind,
        name: &str,
        note: &[u8],
        options: &LinkOptions,
        inbox: Arc<dyn Inbox>,
        timeout: Duration,
    ) -> Result<Registration, LinkError> {
        let terms = Terms { types: Some(options.types), wait: options.wait };
        let shape = Shape {
            capacities: [
                options.capacity_bytes,
                options.reply_capacity_bytes.unwrap_or(options.capacity_bytes),
            ],
            max_message_bytes: options.max_message_bytes,
            types: options.types.fingerprint(1),
            real_fence: options.wait == WaitStrategy::Park,
        };
        shape.len_bytes()?;
        self.register(OP_LISTEN, (kind, name, note), shape, terms, inbox, timeout)
    }

    /// Makes a link with who listens under a name.
    ///
    /// # Errors
    /// [`LinkError`]; nothing comes of the link then.
    pub(crate) fn connect(
        self: &Arc<Self>,
        kind: Kind,
        name: &str,
        note: &[u8],
        options: &LinkOptions,
        timeout: Duration,
    ) -> Result<Link, LinkError> {
        let until = deadline(timeout);
        check(kind, name, note)?;
        let terms = Terms { types: Some(options.types), wait: options.wait };
        let token = {
            let mut table = self.open_table()?;
            let token = table.next_token();
            table.connects.insert(token, Connecting::Awaited(terms));
            token
        };
        let shape = Shape { types: options.types.fingerprint(0), ..Shape::default() };
        let (name, note) = (name.into(), note.into());
        let ask = Ask { token, group: 0, kind, name, note, shape };
        let mut asked = self.ask(OP_CONNECT, &ask, options.types, timeout);
        if let Err(LinkError::Linked { id }) = asked
            && self.let_go(EndId { link: id, side: 0 }, left(until))
        {
            asked = match self.ask(OP_CONNECT, &ask, options.types, left(until)) {
                Err(LinkError::Timeout { .. }) => Err(LinkError::Timeout { timeout }),
                Err(LinkError::Full { .. }) => Err(LinkError::Full { timeout }),
                other => other,
            };
        }
        let mut table = self.table();
        if asked.is_ok() {
            let is_awaited = |table: &mut Table| {
                matches!(table.connects.get(&token), Some(Connecting::Awaited(_)))
            };
            table = self.wait_while(table, until, is_awaited);
        }
        let found = table.connects.remove(&token);
        drop(table);
        let id = asked?;
        match found {
            Some(Connecting::Linked(link)) => Ok(*link),
            Some(Connecting::Failed(error)) => Err(error),
            Some(Connecting::Awaited(_)) | None => {
                self.leave_slip(Slip::Over(EndId { link: id, side: 0 }));
                Err(LinkError::Timeout { timeout })
            }
        }
    }

    /// Makes links with all who listen under a name, now and later. Returns when those who do so now
    /// are linked, or have not answered within `timeout`; those are linked when they answer.
    ///
    /// # Errors
    /// [`LinkError`]; nothing is registered then.
    pub(crate) fn join(
        self: &Arc<Self>,
        kind: Kind,
        name: &str,
        note: &[u8],
        inbox: Arc<dyn Inbox>,
        timeout: Duration,
    ) -> Result<Registration, LinkError> {
        let terms = Terms { types: None, wait: WaitStrategy::default() };
        self.register(OP_JOIN, (kind, name, note), Shape::default(), terms, inbox, timeout)
    }

    /// Who listens to what, in the order of names.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(crate) fn list(&self, kind: Kind) -> Result<Vec<Listed>, LinkError> {
        let mut listed = Vec::new();
        let mut next = ListAsk { kind, name: String::new(), id: 0 };
        loop {
            let reply = self.call(OP_LIST, &next.to_bytes(), PATIENCE)?;
            if reply.payload.is_empty() {
                return Ok(listed);
            }
            let Entry { id, name, plugin } =
                Entry::of(&reply.payload).ok_or(LinkError::UnknownAnswer)?;
            next = ListAsk { kind, name: name.clone(), id };
            listed.push(Listed { name, plugin });
        }
    }

    fn register(
        self: &Arc<Self>,
        op: u32,
        (kind, name, note): (Kind, &str, &[u8]),
        shape: Shape,
        terms: Terms,
        inbox: Arc<dyn Inbox>,
        timeout: Duration,
    ) -> Result<Registration, LinkError> {
        let until = deadline(timeout);
        check(kind, name, note)?;
        let (token, group) = {
            let mut table = self.open_table()?;
            let token = table.next_token();
            let group = table.group_of(&inbox, token);
            table.registrations.insert(token, Registered { inbox, group, terms, settled: 0 });
            (token, group)
        };
        // Withdraws it from here on.
        let registration = Registration { desk: Arc::clone(self), token };
        let (name, note) = (name.into(), note.into());
        let ask = Ask { token, group, kind, name, note, shape };
        let begun = self.ask(op, &ask, ChannelTypes::UNTYPED, timeout)?;
        let is_unsettled = |table: &mut Table| {
            table.registrations.get(&token).is_some_and(|of| of.settled < begun) && !table.ended
        };
        drop(self.wait_while(self.table(), until, is_unsettled));
        Ok(registration)
    }

    /// Asks for something, and returns the number that is the answer.
    fn ask(
        &self,
        op: u32,
        ask: &Ask,
        types: ChannelTypes,
        timeout: Duration,
    ) -> Result<u64, LinkError> {
        let reply = self.call(op, &ask.to_bytes(), timeout)?;
        super::error::number_in(&reply, &ask.name, types)
    }

    /// Asks the host, whatever the desk's state.
    pub(super) fn call(
        &self,
        op: u32,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<Reply, LinkError> {
        if !fork::is_current(self.generation) {
            return Err(LinkError::Forked);
        }
        match &self.way {
            Way::Service(client) => {
                client.call(op, payload, timeout).map_err(|error| LinkError::of(error, timeout))
            }
            Way::Office(office, party) => {
                office.handle(*party, op, payload).map_err(|_| LinkError::UnknownAnswer)
            }
        }
    }

    /// Whether an end is one whose channel has been dropped; then the host knows it as well. Asked by
    /// a caller of `connect` that is in the table.
    fn let_go(&self, end: EndId, timeout: Duration) -> bool {
        {
            let table = self.table();
            match table.ends.get(&end) {
                Some(Held::Offered(_)) => return false,
                Some(Held::Used(connection)) if connection.strong_count() > 0 => return false,
                Some(Held::Used(_)) => {}
                // Another caller's, perhaps, whose offer has not been read yet.
                None if table.others_connect() => return false,
                None => {}
            }
        }
        self.call(OP_OVER, &end.to_bytes(0), timeout).is_ok()
    }

    fn withdraw(&self, token: u64) {
        if self.table().ended {
            return;
        }
        let asked = self.call(OP_WITHDRAW, &token.to_ne_bytes(), PATIENCE_OF_DROP);
        if let Err(LinkError::Full { .. } | LinkError::Timeout { .. }) = asked {
            self.leave_slip(Slip::Withdraw(token));
        }
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table of a desk that is there for its caller.
    fn open_table(&self) -> Result<MutexGuard<'_, Table>, LinkError> {
        if !fork::is_current(self.generation) {
            return Err(LinkError::Forked);
        }
        let table = self.table();
        if table.ended { Err(LinkError::Closed) } else { Ok(table) }
    }

    /// Waits for as long as `busy` holds, or until then.
    fn wait_while<'a>(
        &self,
        table: MutexGuard<'a, Table>,
        until: Instant,
        busy: impl FnMut(&mut Table) -> bool,
    ) -> MutexGuard<'a, Table> {
        let waited = self.changed.wait_timeout_while(table, left(until), busy);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Tells those that wait.
    pub(super) fn notify(&self) {
        self.changed.notify_all();
    }

    fn leave_slip(&self, slip: Slip) {
        self.slips.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(slip);
        self.slips.bell.raise();
    }

    pub(super) fn take_slips(&self) -> Vec<Slip> {
        self.slips.bell.clear();
        std::mem::take(&mut *self.slips.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn bell(&self) -> &EventFd {
        &self.slips.bell
    }

    /// Has the thread end.
    pub(super) fn stop(&self) {
        self.table().ended = true;
        self.slips.bell.raise();
    }

    /// Nothing will come any more: tells all links, and all that wait.
    pub(super) fn end(&self) {
        let (ends, inboxes) = {
            let mut table = self.table();
            table.ended = true;
            for connecting in table.connects.values_mut() {
                if matches!(connecting, Connecting::Awaited(_)) {
                    *connecting = Connecting::Failed(LinkError::Closed);
                }
            }
            let registered = table.registrations.values();
            let inboxes: Vec<_> = registered.map(|one| Arc::clone(&one.inbox)).collect();
            (std::mem::take(&mut table.ends), inboxes)
        };
        self.notify();
        inboxes.iter().for_each(|inbox| inbox.closed());
        for held in ends.into_values() {
            if let Held::Used(connection) = held
                && let Some(connection) = connection.upgrade()
            {
                connection.peer_died(ExitReason::Unknown, false);
            }
        }
    }
}

/// When a time is up that begins now; a time that no clock reaches is a very long one.
fn deadline(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or_else(|| now + Duration::from_secs(u32::MAX.into()))
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// Checks what no host would take.
fn check(kind: Kind, name: &str, note: &[u8]) -> Result<(), LinkError> {
    if !(is_ticket(name) && is_name(kind, name)) {
        check_name(name)?;
    }
    if note.len() > MAX_NOTE_BYTES {
        return Err(LinkError::Note { len: note.len(), max: MAX_NOTE_BYTES });
    }
    Ok(())
}
