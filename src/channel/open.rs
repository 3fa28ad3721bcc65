//! Whose is which side of a named segment: created, opened, replaced.
//!
//! Every kind of channel with a name begins here. What always holds: a process gets a side that
//! nobody alive has, in a segment that the name means at that moment; messages that are unread are
//! neither dropped nor given to the process that may have sent them, unless it asks.
//!
//! | `how` | nothing there | one side free | both free | both taken |
//! |---|---|---|---|---|
//! | `Create` | creates | `AlreadyExists` | replaces it | `AlreadyExists` |
//! | `Open` | `NotFound` | that one | the second | `AlreadyClaimed` |
//! | `OpenOrCreate` | creates | that one | replaces it; `Unread` where there are messages | `AlreadyClaimed` |
//!
//! A side that was named is taken, or is `AlreadyClaimed`; the first is what a creator takes unless
//! it names the other.

use std::sync::Arc;
use std::time::Duration;

use super::connect::{check_kinds, rings};
use super::options::{ChannelOptions, Side};
use crate::error::{Corruption, NameError, SegmentError};
use crate::layout::segment::KIND_CHANNEL;
use crate::layout::side;
use crate::memory::{Deadline, MappedMemory};
use crate::os::{boot, os};
use crate::ring::Consumer;
use crate::segment::{
    self, Address, ChannelGeometry, Claim, Draft, Found, How, NamedSegment, RingKind, SideLine,
    Wish, at_least, attach_side, open, own_line, patience, read_side,
};
use crate::supervisor;

/// What is wanted.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    address: &'a Address,
    how: How,
    options: &'a ChannelOptions,
    geometry: &'a ChannelGeometry,
    deadline: Deadline,
}

/// Takes a side of the segment at `address`. `geometry` is what a new one is created with; one that is
/// there must agree with it about the kinds of its rings, and with the options about the types of its
/// messages, as seen from the side taken.
///
/// [`connect_named`](super::connect::connect_named) makes a connection of it; where that, or making
/// the ends, fails, [`NamedSegment::leave`] gives the side back.
pub(super) fn open_segment(
    address: &Address,
    how: How,
    options: &ChannelOptions,
    geometry: &ChannelGeometry,
) -> Result<Arc<NamedSegment>, SegmentError> {
    // Before anything can be seen of us: with it, watching a peer cannot fail any more.
    supervisor::start().map_err(os("starting the supervisor"))?;
    let wish = Wanted { address, how, options, geometry, deadline: patience() };
    open(address, &options.access, how, wish.deadline, &wish).map(Arc::new)
}

/// Tries to open a channel until it is there and a side is free, or the time is over.
pub(super) fn until<T>(
    timeout: Duration,
    open: impl FnMut() -> Result<T, SegmentError>,
) -> Result<T, SegmentError> {
    segment::until(timeout, open, |error| match error {
        SegmentError::Name(error) => Some(error),
        _ => None,
    })
}

impl Wish for Wanted<'_> {
    type Segment = NamedSegment;

    fn create(&self) -> Result<Option<NamedSegment>, SegmentError> {
        let Some(draft) = self.draft()? else { return Ok(None) };
        Ok(draft.publish()?.map(|whole| NamedSegment::new(whole, self.first_side())))
    }

    /// Puts a new segment in the place of one that nobody alive has.
    fn replace(&self, found: &Found) -> Result<Option<NamedSegment>, SegmentError> {
        if !found.is_replaceable(KIND_CHANNEL)? {
            found.geometry::<ChannelGeometry>()?;
        }
        // First without the gate, which need not be held while the new one is made.
        let Some(gate) = found.gate(self.deadline)? else { return Ok(None) };
        self.refuse_taken(found, gate.taken()?)?;
        drop(gate);
        // Asked for as what is there or a new one: then it was blank, and must still be.
        self.supersede(found, || Ok(self.how == How::Create || found.is_blank()?))
    }

    /// Takes a side of a segment that is there.
    fn take(&self, found: Found) -> Result<Option<NamedSegment>, SegmentError> {
        let geometry: ChannelGeometry = found.geometry()?;
        check_kinds(&geometry, self.geometry.ring_kind)?;
        self.refuse_less(&geometry)?;
        let Some(memory) = found.map(geometry.fence_mode)? else { return Ok(None) };
        let Some(gate) = found.gate(self.deadline)? else { return Ok(None) };
        let taken = gate.taken()?;
        self.refuse_unusable(&memory, taken)?;
        let Some(side) = self.choose(&memory, taken)? else {
            // Both are free, and nothing is lost with the segment.
            let unread = unread(&memory, &geometry)?;
            if unread != [0, 0] {
                let address = self.address.to_string();
                let [to_second, to_first] = unread;
                return Err(NameError::Unread { address, to_second, to_first }.into());
            }
            drop(gate);
            return self.supersede(&found, || Ok(self::unread(&memory, &geometry)? == [0, 0]));
        };
        self.options.types.check(&geometry, side)?;
        if !gate.attach(&memory, side)? {
            return Err(self.claimed(&memory, side));
        }
        drop(gate);
        Ok(Some(NamedSegment::new(found.into_whole(memory, geometry), side)))
    }
}

impl Wanted<'_> {
    /// The side that a creator takes.
    fn first_side(&self) -> usize {
        self.options.side.unwrap_or(Side::First) as usize
    }

    fn draft(&self) -> Result<Option<Draft<ChannelGeometry>>, SegmentError> {
        let side = self.first_side();
        let type_fingerprint = self.options.types.fingerprint(side);
        let geometry = ChannelGeometry { type_fingerprint, ..*self.geometry };
        let take = |claim: &Claim| claim.take(side);
        let attach = |memory: &MappedMemory, _: &ChannelGeometry, _| {
            attach_side(memory, side, &own_line());
            Ok(())
        };
        Draft::create(self.address, &self.options.access, &geometry, take, attach)
    }

    /// Gives the name of a segment that nobody alive has to a new one, if it is `still` to be so.
    fn supersede(
        &self,
        found: &Found,
        still: impl FnOnce() -> Result<bool, SegmentError>,
    ) -> Result<Option<NamedSegment>, SegmentError> {
        let Some(draft) = self.draft()? else { return Ok(None) };
        let whole = found.supersede(draft, self.deadline, still)?;
        Ok(whole.map(|whole| NamedSegment::new(whole, self.first_side())))
    }

    fn refuse_taken(&self, found: &Found, taken: [bool; 2]) -> Result<(), SegmentError> {
        let Some(side) = taken.into_iter().position(|taken| taken) else { return Ok(()) };
        let (address, pid) = (self.address.to_string(), found.pid_of(side));
        Err(NameError::AlreadyExists { address, pid }.into())
    }

    /// What is there may be more than was asked for, and not less.
    fn refuse_less(&self, found: &ChannelGeometry) -> Result<(), NameError> {
        let asked = self.geometry;
        let (capacities, there) = (asked.capacity_bytes, found.capacity_bytes);
        at_least(
            self.address,
            [
                ("capacity in bytes of the ring to the second side", capacities[0], there[0]),
                ("capacity in bytes of the ring to the first side", capacities[1], there[1]),
                ("alignment of payloads in bytes", asked.payload_align, found.payload_align),
                ("longest message in bytes", asked.max_message_bytes, found.max_message_bytes),
            ],
        )
    }

    /// The side to take; `None` where both are free and neither was asked for.
    fn choose(
        &self,
        memory: &MappedMemory,
        taken: [bool; 2],
    ) -> Result<Option<usize>, SegmentError> {
        match (self.options.side, taken) {
            (Some(side), _) => Ok(Some(side as usize)),
            (None, [true, true]) => Err(self.claimed(memory, 1)),
            (None, [true, false]) => Ok(Some(1)),
            (None, [false, true]) => Ok(Some(0)),
            (None, [false, false]) => Ok((self.how == How::Open).then_some(1)),
        }
    }

    fn claimed(&self, memory: &MappedMemory, side: usize) -> SegmentError {
        let (address, pid) = (self.address.to_string(), read_side(memory, side).pid);
        NameError::AlreadyClaimed { address, side, pid }.into()
    }

    /// What nobody may use any more, whichever side he takes.
    fn refuse_unusable(&self, memory: &MappedMemory, taken: [bool; 2]) -> Result<(), SegmentError> {
        let lines = [read_side(memory, 0), read_side(memory, 1)];
        if lines.iter().any(|line| line.poisoned) {
            return Err(Corruption::ByPeer.into());
        }
        // Names in shared memory are gone with the machine: nothing can be lost there.
        if self.address.is_name() {
            return Ok(());
        }
        let boot = boot::boot();
        let unclean = |line: &SideLine| {
            line.state == side::ATTACHED && line.boot != boot && line.boot != 0 && boot != 0
        };
        if taken == [false, false] && lines.iter().any(unclean) {
            return Err(NameError::Unclean { address: self.address.to_string() }.into());
        }
        Ok(())
    }
}

/// How many messages each ring holds that its reader has not given back: from the first side to the
/// second, and back. Only looks.
pub(super) fn unread(
    memory: &MappedMemory,
    geometry: &ChannelGeometry,
) -> Result<[u64; 2], SegmentError> {
    let mut counts = [0; 2];
    for (index, ring) in rings(memory, geometry)?.into_iter().enumerate() {
        // Others lose what is not read, and say so.
        if geometry.ring_kind[index] != RingKind::Records {
            continue;
        }
        let mut consumer = Consumer::attach(memory.clone(), ring)?;
        // A correct ring holds fewer; somebody may be writing.
        let most = ring.capacity_bytes() / 8;
        while counts[index] < most
            && let Some(record) = consumer.peek()?
        {
            consumer.advance(&record);
            counts[index] += 1;
        }
    }
    Ok(counts)
}
