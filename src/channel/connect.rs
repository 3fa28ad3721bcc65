//! From a segment to a connection: the two rings found, this side taken.
//!
//! Every kind of channel begins here, whatever its segment lies in and whatever its rings are like.
//! What always holds: the side is taken before anything else is written, so that of two claimants
//! one gets an error and has changed nothing.

use std::process;
use std::sync::Arc;

use super::connection::Connection;
use super::stranger::Stranger;
use crate::error::SegmentError;
use crate::layout::{CHANNEL_DATA, ring};
use crate::memory::MappedMemory;
use crate::ring::RingGeometry;
use crate::segment::{AnonymousSegment, ChannelGeometry, NamedSegment, RingKind};

/// Takes side `side` of a channel in this segment, whose rings must be of the kinds named.
pub(super) fn connect(
    segment: &AnonymousSegment,
    side: usize,
    expected: [RingKind; 2],
) -> Result<Arc<Connection>, SegmentError> {
    let (memory, geometry) = (segment.memory(), segment.geometry());
    check_kinds(geometry, expected)?;
    let rings = rings(memory, geometry)?;
    // No third process can take a side later.
    let memory = memory.clone().of_side(side, true);
    let connection = Arc::new(Connection::new(memory, rings, side));
    // First of all: the ends write to the segment as they attach.
    if !connection.claim_side(process::id()) {
        return Err(SegmentError::AlreadyAttached);
    }
    connection.memory().announce_fences();
    Ok(connection)
}

/// The connection of a side that [`open_segment`](super::open::open_segment) has taken. Whoever has
/// the other side is watched from here on.
///
/// Where something fails, now or later, before both ends are made, [`NamedSegment::leave`] gives the
/// side back.
pub(super) fn connect_named(segment: &Arc<NamedSegment>) -> Result<Arc<Connection>, SegmentError> {
    let (memory, geometry) = (segment.memory(), segment.geometry());
    let rings = rings(memory, geometry)?;
    let memory = memory.clone().of_side(segment.side(), false);
    let connection = Arc::new_cyclic(|weak| {
        let stranger = Stranger::new(Arc::clone(segment), weak.clone());
        Connection::new(memory, rings, segment.side()).watched_by(Box::new(stranger))
    });
    connection.memory().announce_fences();
    connection.announce();
    connection.look_first();
    Ok(connection)
}

/// Whether the rings are what somebody can use.
pub(super) fn check_kinds(
    geometry: &ChannelGeometry,
    expected: [RingKind; 2],
) -> Result<(), SegmentError> {
    for (found, expected) in geometry.ring_kind.into_iter().zip(expected) {
        if found != expected {
            let (found, expected) = (found as u64, expected as u64);
            return Err(SegmentError::Incompatible { field: "kind of ring", found, expected });
        }
    }
    Ok(())
}

/// Where the two rings of a segment lie.
pub(super) fn rings(
    memory: &MappedMemory,
    geometry: &ChannelGeometry,
) -> Result<[RingGeometry; 2], SegmentError> {
    let layout = geometry.layout()?;
    debug_assert_eq!(layout.data[0], CHANNEL_DATA);
    let ring = |index: usize| {
        let (control, data) = (ring::CONTROL[index], layout.data[index]);
        let capacity_bytes = geometry.capacity_bytes[index];
        let ring =
            RingGeometry::new(memory, control, data, capacity_bytes, geometry.payload_align)?;
        Ok::<_, SegmentError>(ring.with_max_message_bytes(geometry.max_message_bytes))
    };
    Ok([ring(0)?, ring(1)?])
}
