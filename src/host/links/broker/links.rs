//! The life of a link, from two partners to the end of both ends.
//!
//! The broker begins links, and parties move them on. What always holds: nobody is told to use a link
//! that has not been sealed after both had mapped it; a link that one end has left is over for the
//! other; it counts among what a party has until that party has left it, and has answered the offer.
//!
//! | stage | what is had | who moves it on |
//! |---|---|---|
//! | `Waiting` | nothing yet: a party has too many offers to answer | an answer of that party, to `Offered` |
//! | `Offered` | a segment; its descriptors are with the parties | the second *attached*, to `Live`; a refusal, a death, a failed seal, to `Dead` |
//! | `Live` | nothing: both ends have the segment | |
//! | `Dead` | what there was, until nobody attaches it any more: it came to nothing | |

use super::limits::{Share, TooMany};
use super::{Broker, Malformed, PartyId, Posted};
use crate::host::links::Kind;
use crate::host::links::wire::{EndId, Letter, Shape, What};
use crate::segment::AnonymousSegment;

/// Who is to have an end.
#[derive(Debug, Clone)]
pub(super) struct Partner {
    pub(super) party: PartyId,
    pub(super) token: u64,
    pub(super) note: Vec<u8>,
    /// Whether the party waits for it where it has registered.
    pub(super) begun: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct LinkRecord {
    kind: Kind,
    /// The listener's.
    group: u64,
    shape: Shape,
    len_bytes: u64,
    stage: Stage,
    ends: [End; 2],
}

#[derive(Debug)]
enum Stage {
    Waiting,
    Offered(AnonymousSegment),
    Live,
    Dead(Option<AnonymousSegment>),
}

#[derive(Debug)]
struct End {
    partner: Partner,
    attached: bool,
    /// Its party has nothing to do with it any more.
    over: bool,
    /// It counts among what its party has.
    counts: bool,
}

impl LinkRecord {
    fn parties(&self) -> [PartyId; 2] {
        [0, 1].map(|side: usize| self.ends[side].partner.party)
    }

    fn is_pending(&self) -> bool {
        matches!(self.stage, Stage::Waiting | Stage::Offered(_))
    }
}

fn pair(parties: [PartyId; 2]) -> [PartyId; 2] {
    let [first, second] = parties;
    [first.min(second), first.max(second)]
}

impl Broker {
    /// Begins a link, and offers it where both can be offered one.
    pub(super) fn begin(
        &mut self,
        kind: Kind,
        group: u64,
        shape: Shape,
        partners: [Partner; 2],
    ) -> Result<u64, TooMany> {
        // The listener's, which has been checked.
        let len_bytes = shape.len_bytes().unwrap_or(u64::MAX);
        let parties = [0, 1].map(|side: usize| partners[side].party);
        let each = if parties[0] == parties[1] { 2 } else { 1 };
        for id in parties {
            if let Some(party) = self.parties.get(&id).filter(|party| !party.name.is_empty()) {
                party.share.check_own(&self.limits, each, len_bytes, id)?;
            }
        }
        let together = self.pairs.get(&pair(parties)).copied().unwrap_or_default();
        together.check_pair(&self.limits, len_bytes)?;
        self.pairs.entry(pair(parties)).or_default().add(len_bytes);
        let id = self.next_id();
        let ends =
            partners.map(|partner| End { partner, attached: false, over: false, counts: true });
        for (side, party) in parties.into_iter().enumerate() {
            if let Some(party) = self.parties.get_mut(&party) {
                party.ends.insert(EndId { link: id, side });
                party.share.add(len_bytes);
            }
        }
        let record = LinkRecord { kind, group, shape, len_bytes, stage: Stage::Waiting, ends };
        self.links.insert(id, record);
        self.offer(id);
        Ok(id)
    }

    /// The link that a party has as one who connected with an inbox of another one.
    pub(super) fn linked(&self, id: PartyId, listener: PartyId, group: u64) -> Option<u64> {
        let party = self.parties.get(&id)?;
        let mut first = party.ends.iter().filter(|end| end.side == 0);
        let found = first.find(|end| {
            self.links.get(&end.link).is_some_and(|link| {
                let used = link.is_pending() || matches!(link.stage, Stage::Live);
                let open = used && link.ends.iter().all(|end| !end.over);
                let same = link.kind == Kind::Rpc && link.group == group;
                open && same && link.ends[1].partner.party == listener
            })
        });
        found.map(|end| end.link)
    }

    /// Makes the segment and offers both ends, unless one of the two has too many to answer already.
    fn offer(&mut self, id: u64) {
        let Some(link) = self.links.get(&id) else { return };
        if !matches!(link.stage, Stage::Waiting) {
            return;
        }
        let parties = link.parties();
        let each = if parties[0] == parties[1] { 2 } else { 1 };
        let max = self.limits.unanswered;
        let mut wait = false;
        for party in parties {
            wait |= self.parties.get(&party).is_some_and(|p| p.unanswered.len() + each > max);
        }
        for party in parties {
            if let Some(party) = self.parties.get_mut(&party) {
                if wait {
                    party.waiting.insert(id);
                } else {
                    party.waiting.remove(&id);
                }
            }
        }
        if wait {
            return;
        }
        let Ok(segment) = AnonymousSegment::create(&link.shape.geometry()) else {
            return self.abandon(id);
        };
        let (Ok(first), Ok(second)) = (segment.descriptor(), segment.descriptor()) else {
            return self.abandon(id);
        };
        if let Some(link) = self.links.get_mut(&id) {
            link.stage = Stage::Offered(segment);
        }
        for (side, descriptor) in [first, second].into_iter().enumerate() {
            let end = EndId { link: id, side };
            let Some(letter) = self.letter(What::Offer, end) else { continue };
            let Some(party) = self.parties.get_mut(&parties[side]) else { continue };
            match party.outlet.post(&letter, Some(descriptor)) {
                Posted::Sent => drop(party.unanswered.insert(end)),
                Posted::Failed => return self.abandon(id),
                not_sent => self.doom(parties[side], not_sent),
            }
        }
    }

    /// What is to be said of an end; `None` where the link is no more.
    fn letter(&self, what: What, end: EndId) -> Option<Letter> {
        let link = self.links.get(&end.link)?;
        let Partner { token, begun, .. } = link.ends[end.side].partner;
        let mut letter = Letter { what, end, token, begun, peer: String::new(), note: Vec::new() };
        if what == What::Offer {
            let partner = &link.ends[end.other().side].partner;
            letter.peer = self
                .parties
                .get(&partner.party)
                .map_or_else(String::new, |party| party.name.clone());
            letter.note = partner.note.clone();
        }
        Some(letter)
    }

    /// Tells the party that has an end what has become of the link.
    fn tell(&mut self, what: What, end: EndId) {
        let Some(letter) = self.letter(what, end) else { return };
        let Some(link) = self.links.get(&end.link) else { return };
        let id = link.ends[end.side].partner.party;
        let Some(party) = self.parties.get(&id) else { return };
        let posted = party.outlet.post(&letter, None);
        if posted != Posted::Sent {
            self.doom(id, posted);
        }
    }

    /// A party that was not told something cannot be one any longer.
    fn doom(&mut self, id: PartyId, posted: Posted) {
        self.doomed.push((id, posted != Posted::Gone));
    }

    /// A party has answered an offer.
    ///
    /// # Errors
    /// There is no offer of that end to that party.
    pub(super) fn answered(
        &mut self,
        id: PartyId,
        end: EndId,
        attached: bool,
    ) -> Result<(), Malformed> {
        let party = self.parties.get_mut(&id).ok_or(Malformed)?;
        if !party.unanswered.remove(&end) {
            return Err(Malformed);
        }
        let waiting: Vec<_> = party.waiting.iter().copied().collect();
        if let Some(link) = self.links.get_mut(&end.link) {
            if !matches!(link.stage, Stage::Offered(_)) {
                self.release(end.link);
            } else if attached {
                link.ends[end.side].attached = true;
                if link.ends.iter().all(|end| end.attached) {
                    self.go(end.link);
                }
            } else {
                link.ends[end.side].over = true;
                self.abandon(end.link);
            }
        }
        for waits in waiting {
            if self.parties.get(&id).is_none_or(|party| party.is_busy(&self.limits)) {
                break;
            }
            self.offer(waits);
        }
        Ok(())
    }

    /// Both ends have mapped the segment: nothing but what they do by its mappings can happen to it
    /// from here on.
    fn go(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Stage::Offered(segment) = &link.stage else { return };
        if segment.seal_writes().is_err() {
            return self.abandon(id);
        }
        link.stage = Stage::Live;
        for side in [0, 1] {
            self.tell(What::Go, EndId { link: id, side });
        }
    }

    /// A party lets go of an end.
    ///
    /// # Errors
    /// It is another party's.
    pub(super) fn ended(&mut self, id: PartyId, end: EndId) -> Result<(), Malformed> {
        let Some(link) = self.links.get(&end.link) else { return Ok(()) };
        if link.ends[end.side].partner.party != id {
            return Err(Malformed);
        }
        self.close_end(end);
        Ok(())
    }

    /// An end's party has gone.
    pub(super) fn desert(&mut self, end: EndId) {
        self.close_end(end);
    }

    /// A registration has been withdrawn: what is to become a link of it does not.
    pub(super) fn forget_pending(&mut self, end: EndId, token: u64) {
        let Some(link) = self.links.get(&end.link) else { return };
        if link.is_pending() && link.ends[end.side].partner.token == token {
            self.abandon(end.link);
        }
    }

    fn close_end(&mut self, end: EndId) {
        let Some(link) = self.links.get_mut(&end.link) else { return };
        let was_over = std::mem::replace(&mut link.ends[end.side].over, true);
        if link.is_pending() {
            return self.abandon(end.link);
        }
        let other = end.other();
        if !was_over && matches!(link.stage, Stage::Live) && !link.ends[other.side].over {
            self.tell(What::Over, other);
        }
        self.release(end.link);
    }

    /// Nothing comes of a link that is not used yet.
    fn abandon(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let segment = match std::mem::replace(&mut link.stage, Stage::Dead(None)) {
            Stage::Offered(segment) | Stage::Dead(Some(segment)) => Some(segment),
            _ => None,
        };
        let was_offered = segment.is_some();
        link.stage = Stage::Dead(segment);
        let parties = link.parties();
        for (side, party) in parties.into_iter().enumerate() {
            if let Some(party) = self.parties.get_mut(&party) {
                party.waiting.remove(&id);
            }
            let Some(link) = self.links.get_mut(&id) else { return };
            let end = &mut link.ends[side];
            let was_over = std::mem::replace(&mut end.over, true);
            // Who has not heard of it and does not wait for it need not hear of it at all.
            if !was_over && (end.partner.begun || was_offered) {
                self.tell(What::Gone, EndId { link: id, side });
            }
        }
        self.release(id);
    }

    /// Gives back what nobody has any more.
    fn release(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id) else { return };
        for (side, end) in link.ends.iter_mut().enumerate() {
            let this = EndId { link: id, side };
            let Some(party) = self.parties.get_mut(&end.partner.party) else {
                end.counts = false;
                continue;
            };
            if end.counts && end.over && !party.unanswered.contains(&this) {
                end.counts = false;
                party.ends.remove(&this);
                party.share.take(link.len_bytes);
            }
        }
        if link.ends.iter().any(|end| end.counts) {
            return;
        }
        let (key, len_bytes) = (pair(link.parties()), link.len_bytes);
        let gone = self.links.remove(&id);
        if let Some(LinkRecord { stage: Stage::Dead(Some(segment)), .. }) = gone {
            // Descriptors of it may be where nobody reads them, or with somebody who keeps them. What
            // cannot be given back here goes with the last of them.
            let _ = segment.discard();
        }
        if let Some(together) = self.pairs.get_mut(&key) {
            together.take(len_bytes);
            if *together == Share::default() {
                self.pairs.remove(&key);
            }
        }
    }
}
