//! Which types a channel carries, as one side sees it, and as its header says it.
//!
//! Whoever creates or attaches a channel has one among its options. What always holds: two sides
//! agree only where each sends what the other receives; untyped agrees with untyped alone.

use crate::error::SegmentError;
use crate::segment::ChannelGeometry;
use crate::typed::{Codec, Fingerprint};

/// The fingerprints of what one side of a channel sends and receives.
///
/// ```
/// use ringway::channel::{ChannelOptions, ChannelTypes};
/// use ringway::typed::Pod;
///
/// // A host that sends numbers and receives pairs of them.
/// let types = ChannelTypes::of::<Pod<u64>, Pod<[u64; 2]>>();
/// let options = ChannelOptions { types, ..ChannelOptions::default() };
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChannelTypes {
    sends: u64,
    receives: u64,
}

impl ChannelTypes {
    /// Messages of any type.
    pub const UNTYPED: Self = Self { sends: 0, receives: 0 };

    /// What a side that sends `S` and receives `R` expects.
    pub const fn of<S: Codec, R: Codec>() -> Self {
        Self { sends: S::FINGERPRINT, receives: R::FINGERPRINT }
    }

    /// What the header of such a channel says where this is its creator (`side` 0) or the one who
    /// attaches (1); 0 where it is untyped.
    pub(crate) const fn fingerprint(&self, side: usize) -> u64 {
        let (out, back) = match side {
            0 => (self.sends, self.receives),
            _ => (self.receives, self.sends),
        };
        if out == 0 && back == 0 {
            return 0;
        }
        Fingerprint::new("channel").number(out).number(back).finish()
    }

    /// Checks that a segment is one of these types, seen from this side of it.
    pub(in crate::channel) fn check(
        &self,
        geometry: &ChannelGeometry,
        side: usize,
    ) -> Result<(), SegmentError> {
        let (found, expected) = (geometry.type_fingerprint, self.fingerprint(side));
        if found != expected {
            return Err(SegmentError::Incompatible { field: "type", found, expected });
        }
        Ok(())
    }
}
