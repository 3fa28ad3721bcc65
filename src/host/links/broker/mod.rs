//! The broker: who listens, who joins, and what links there are between whom.
//!
//! The host's office has one, and hands it what its parties ask for: the host itself, and each
//! process of a plugin. What always holds: nothing that a party says is believed that has not been
//! checked, and nothing is waited for; a party that is not told something because it does not read
//! is a party no longer; what a party has is bounded, and gone when it goes.
//!
//! | file | what it holds |
//! |---|---|
//! | `names` | listeners and joiners |
//! | `links` | the life of a link: offered, attached, sealed, used, over |
//! | `limits` | how much a party can have |

mod limits;
mod links;
mod names;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Debug;
use std::os::fd::OwnedFd;

use super::Kind;
use super::wire::{
    ATTACHED, Ask, EndId, Letter, ListAsk, OP_ANSWER, OP_CONNECT, OP_JOIN, OP_LIST, OP_LISTEN,
    OP_OVER, OP_WITHDRAW, REFUSED, STATUS_CLOSED, STATUS_DUPLICATE, STATUS_LINKED, STATUS_RESERVED,
    STATUS_TOO_MANY, STATUS_TYPES, STATUS_UNKNOWN_NAME, is_of_pair, pair_of,
};
use crate::host::service::Reply;
use crate::host::service::frame::{STATUS_DONE, STATUS_UNKNOWN};
pub(in crate::host) use limits::Limits;
pub(super) use limits::WHAT;
use limits::{Share, TooMany};
use links::{LinkRecord, Partner};
use names::{Joiner, Listener, Names, Role};

/// A party: no two have the same.
pub(super) type PartyId = u64;

/// How a party is told something.
pub(super) trait Outlet: Debug + Send {
    /// Does not wait.
    fn post(&self, letter: &Letter, descriptor: Option<OwnedFd>) -> Posted;

    /// Nothing more is posted. `unheard` where that is because it was not to be told.
    fn close(&self, unheard: bool);
}

/// What has become of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Posted {
    /// It is there to be read.
    Sent,
    /// Too many are, already.
    Full,
    /// Nobody will read any more.
    Gone,
    /// The system lacks what it takes.
    Failed,
}

/// A request that no desk makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// See the module.
#[derive(Debug)]
pub(super) struct Broker {
    parties: HashMap<PartyId, Party>,
    names: Names,
    links: HashMap<u64, LinkRecord>,
    /// What any two parties have with each other.
    pairs: HashMap<[PartyId; 2], Share>,
    /// Those that are to leave, and whether that is because they were not to be told something.
    doomed: Vec<(PartyId, bool)>,
    last_id: u64,
    limits: Limits,
}

#[derive(Debug)]
struct Party {
    /// The plugin's; empty for the host.
    name: String,
    outlet: Box<dyn Outlet>,
    /// By token.
    registrations: HashMap<u64, (Role, names::Key)>,
    /// Ends that count as its own.
    ends: HashSet<EndId>,
    share: Share,
    /// Offers that it has not answered, whatever has become of the links.
    unanswered: HashSet<EndId>,
    /// Links that are to be offered when there are fewer of those.
    waiting: BTreeSet<u64>,
}

impl Party {
    /// Whether it has as many offers to answer as it can have.
    fn is_busy(&self, limits: &Limits) -> bool {
        self.unanswered.len() >= limits.unanswered
    }
}

/// A status and what follows it.
fn answer(status: u32, words: &[u64]) -> Reply {
    Reply { status, payload: bytemuck::cast_slice(words).into() }
}

impl Broker {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            parties: HashMap::new(),
            names: Names::default(),
            links: HashMap::new(),
            pairs: HashMap::new(),
            doomed: Vec::new(),
            last_id: 0,
            limits,
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// A party comes. `name` is empty for the host.
    pub(super) fn enter(&mut self, name: &str, outlet: Box<dyn Outlet>) -> PartyId {
        let id = self.next_id();
        let party = Party {
            name: name.into(),
            outlet,
            registrations: HashMap::new(),
            ends: HashSet::new(),
            share: Share::default(),
            unanswered: HashSet::new(),
            waiting: BTreeSet::new(),
        };
        self.parties.insert(id, party);
        if !name.is_empty() {
            for own in pair_of(name) {
                let key = (Kind::Channel, own, self.next_id());
                self.names.listen(key, Listener::of_pair(id, name));
            }
        }
        id
    }

    /// A party goes, with all that it has.
    pub(super) fn leave(&mut self, id: PartyId) {
        self.remove(id, false);
        self.bury();
    }

    #[cfg(test)]
    pub(super) fn census(&self) -> (usize, usize) {
        (self.links.len(), self.pairs.len())
    }

    /// All parties go.
    pub(super) fn close(&mut self) {
        let all: Vec<_> = self.parties.keys().copied().collect();
        for id in all {
            self.leave(id);
        }
    }

    /// Does what a party asks for.
    ///
    /// # Errors
    /// It is nothing that a desk asks for; nothing has happened.
    pub(super) fn handle(
        &mut self,
        party: PartyId,
        op: u32,
        payload: &[u8],
    ) -> Result<Reply, Malformed> {
        if !self.parties.contains_key(&party) {
            return Ok(answer(STATUS_CLOSED, &[]));
        }
        let reply = self.act(party, op, payload);
        self.bury();
        reply
    }

    fn act(&mut self, party: PartyId, op: u32, payload: &[u8]) -> Result<Reply, Malformed> {
        let done = answer(STATUS_DONE, &[]);
        let ask = || Ask::of(payload).ok_or(Malformed);
        let end = || EndId::of(payload).ok_or(Malformed);
        match op {
            OP_LISTEN => self.listen(party, ask()?),
            OP_CONNECT => Ok(self.connect(party, ask()?)),
            OP_JOIN => self.join(party, ask()?),
            OP_WITHDRAW => {
                let token = bytemuck::try_pod_read_unaligned(payload).map_err(|_| Malformed)?;
                self.withdraw(party, token);
                Ok(done)
            }
            OP_ANSWER => match end()? {
                (end, how @ (ATTACHED | REFUSED)) => {
                    self.answered(party, end, how == ATTACHED).map(|()| done)
                }
                _ => Err(Malformed),
            },
            OP_OVER => self.ended(party, end()?.0).map(|()| done),
            OP_LIST => {
                let entry = self.names.after(&ListAsk::of(payload).ok_or(Malformed)?);
                let payload = entry.map(|entry| entry.to_bytes()).unwrap_or_default();
                Ok(Reply { status: STATUS_DONE, payload })
            }
            _ => Ok(answer(STATUS_UNKNOWN, &[])),
        }
    }

    /// Whether the party can have one name more, and this one.
    fn check_room(&self, id: PartyId, role: Role, ask: &Ask) -> Result<Option<Reply>, Malformed> {
        let party = &self.parties[&id];
        if party.registrations.contains_key(&ask.token) {
            return Err(Malformed);
        }
        if party.name.is_empty() {
            return Ok(None);
        }
        if party.registrations.len() >= self.limits.names {
            return Ok(Some(too_many(TooMany::names(&self.limits))));
        }
        // Each of them can be a link with everybody else.
        let same = party
            .registrations
            .values()
            .filter(|(of, (kind, name, _))| (*of, *kind, name) == (role, ask.kind, &ask.name));
        let full = same.count() >= self.limits.one_name;
        Ok(full.then(|| too_many(TooMany::one_name(&self.limits))))
    }

    fn listen(&mut self, id: PartyId, ask: Ask) -> Result<Reply, Malformed> {
        let len_bytes = ask.shape.len_bytes().map_err(|_| Malformed)?;
        if let Some(full) = self.check_room(id, Role::Listener, &ask)? {
            return Ok(full);
        }
        if len_bytes > self.limits.link_bytes {
            return Ok(too_many(TooMany::link_bytes(&self.limits)));
        }
        let Ask { token, group, kind, name, note, shape } = ask;
        if kind == Kind::Channel && is_of_pair(&name) {
            return Ok(answer(STATUS_RESERVED, &[]));
        }
        if kind != Kind::Topic && self.names.listener(kind, &name).is_some() {
            return Ok(answer(STATUS_DUPLICATE, &[]));
        }
        let plugin = self.parties[&id].name.clone();
        let joiners = self.names.joiners(kind, &name);
        let key = (kind, name, self.next_id());
        let listener = Listener { party: id, token, group, note, shape, plugin, of_pair: false };
        self.names.listen(key.clone(), listener.clone());
        self.register(id, token, Role::Listener, key);
        let with = |joiner: &Joiner| (joiner.partner(false), listener.partner(true));
        let partners = joiners.iter().map(with).collect();
        Ok(self.begin_all(id, token, kind, partners, |_| (group, shape)))
    }

    fn join(&mut self, id: PartyId, ask: Ask) -> Result<Reply, Malformed> {
        if let Some(full) = self.check_room(id, Role::Joiner, &ask)? {
            return Ok(full);
        }
        let Ask { token, kind, name, note, .. } = ask;
        let listeners = self.names.listeners(kind, &name);
        let key = (kind, name, self.next_id());
        let joiner = Joiner { party: id, token, note };
        self.names.join(key.clone(), joiner.clone());
        self.register(id, token, Role::Joiner, key);
        let with = |listener: &Listener| (joiner.partner(true), listener.partner(false));
        let partners = listeners.iter().map(with).collect();
        let of = |at: usize| (listeners[at].group, listeners[at].shape);
        Ok(self.begin_all(id, token, kind, partners, of))
    }

    fn register(&mut self, id: PartyId, token: u64, role: Role, key: names::Key) {
        if let Some(party) = self.parties.get_mut(&id) {
            party.registrations.insert(token, (role, key));
        }
    }

    /// Begins links of a registration with all its partners. Those of a partner that has too many come
    /// not about; where it is the party itself that has, nothing does.
    fn begin_all(
        &mut self,
        id: PartyId,
        token: u64,
        kind: Kind,
        partners: Vec<(Partner, Partner)>,
        of: impl Fn(usize) -> (u64, super::wire::Shape),
    ) -> Reply {
        let mut begun = 0;
        for (at, (first, second)) in partners.into_iter().enumerate() {
            let (group, shape) = of(at);
            match self.begin(kind, group, shape, [first, second]) {
                Ok(_) => begun += 1,
                Err(problem) if problem.whose == Some(id) => {
                    self.withdraw(id, token);
                    return too_many(problem);
                }
                Err(_) => {}
            }
        }
        answer(STATUS_DONE, &[begun])
    }

    fn connect(&mut self, id: PartyId, ask: Ask) -> Reply {
        let Ask { token, kind, name, note, shape, .. } = ask;
        let Some(listener) = self.names.listener(kind, &name) else {
            return answer(STATUS_UNKNOWN_NAME, &[]);
        };
        if listener.of_pair {
            return answer(STATUS_RESERVED, &[]);
        }
        if listener.shape.types != shape.types {
            return answer(STATUS_TYPES, &[listener.shape.types]);
        }
        let listener = listener.clone();
        if kind == Kind::Rpc
            && let Some(link) = self.linked(id, listener.party, listener.group)
        {
            return answer(STATUS_LINKED, &[link]);
        }
        let ours = Partner { party: id, token, note, begun: true };
        let partners = [ours, listener.partner(false)];
        match self.begin(kind, listener.group, listener.shape, partners) {
            Ok(link) => answer(STATUS_DONE, &[link]),
            Err(problem) => too_many(problem),
        }
    }

    /// Takes a name back. Links that nobody uses yet come to nothing.
    fn withdraw(&mut self, id: PartyId, token: u64) {
        let Some(party) = self.parties.get_mut(&id) else { return };
        let Some((role, key)) = party.registrations.remove(&token) else { return };
        let ends: Vec<_> = party.ends.iter().copied().collect();
        self.names.withdraw(role, &key);
        for end in ends {
            self.forget_pending(end, token);
        }
    }

    /// Lets those go that are to leave; telling others of it may add to them.
    fn bury(&mut self) {
        while let Some((id, unheard)) = self.doomed.pop() {
            self.remove(id, unheard);
        }
    }

    fn remove(&mut self, id: PartyId, unheard: bool) {
        let Some(party) = self.parties.remove(&id) else { return };
        party.outlet.close(unheard);
        self.names.forget(id);
        for end in party.ends {
            self.desert(end);
        }
    }
}

fn too_many(problem: TooMany) -> Reply {
    answer(STATUS_TOO_MANY, &[problem.code, problem.max])
}
