//! From a segment to a connection: the two rings found, this side taken.
//!
//! Every kind of channel begins here, whatever its segment lies in and whatever its rings are like.
//! What always holds: the side is taken before anything else is written, so that of two claimants
//! one gets an error and has changed nothing.

use std::process;
use std::sync::Arc;

use super::connection::Connection;
use crate::error::SegmentError;
use crate::layout::{CHANNEL_DATA, ring};
use crate::ring::RingGeometry;
use crate::segment::{AnonymousSegment, RingKind};

/// Takes side `side` of a channel in this segment, whose rings must be of the kinds named.
pub(super) fn connect(
    segment: &AnonymousSegment,
    side: usize,
    expected: [RingKind; 2],
) -> Result<Arc<Connection>, SegmentError> {
    let (memory, geometry) = (segment.memory(), segment.geometry());
    for (found, expected) in geometry.ring_kind.into_iter().zip(expected) {
        if found != expected {
            let (found, expected) = (found as u64, expected as u64);
            return Err(SegmentError::Incompatible { field: "kind of ring", found, expected });
        }
    }
    let layout = geometry.layout()?;
    let ring = |index: usize| {
        let (control, data) = (ring::CONTROL[index], layout.data[index]);
        let capacity_bytes = geometry.capacity_bytes[index];
        let ring =
            RingGeometry::new(memory, control, data, capacity_bytes, geometry.payload_align)?;
        Ok::<_, SegmentError>(ring.with_max_message_bytes(geometry.max_message_bytes))
    };
    let rings = [ring(0)?, ring(1)?];
    debug_assert_eq!(layout.data[0], CHANNEL_DATA);
    let connection = Arc::new(Connection::new(memory.clone(), rings, side));
    // First of all: the ends write to the segment as they attach.
    if !connection.claim_side(process::id()) {
        return Err(SegmentError::AlreadyAttached);
    }
    Ok(connection)
}
