//! Which types a channel carries, as one side sees it, and as its header says it.
//!
//! Whoever creates or attaches a channel has one among its options. What always holds: two sides
//! agree only where each sends what the other receives; untyped agrees with untyped alone.

use std::any::type_name;
use std::fmt;

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
#[derive(Clone, Copy)]
pub struct ChannelTypes {
    sends: u64,
    receives: u64,
    /// For errors only: two types with one fingerprint are the same.
    names: [fn() -> &'static str; 2],
}

impl fmt::Debug for ChannelTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [sends, receives] = self.names();
        f.debug_struct("ChannelTypes").field("sends", &sends).field("receives", &receives).finish()
    }
}

impl PartialEq for ChannelTypes {
    fn eq(&self, other: &Self) -> bool {
        (self.sends, self.receives) == (other.sends, other.receives)
    }
}

impl Eq for ChannelTypes {}

impl Default for ChannelTypes {
    fn default() -> Self {
        Self::UNTYPED
    }
}

impl ChannelTypes {
    /// Messages of any type.
    pub const UNTYPED: Self = Self { sends: 0, receives: 0, names: [|| "bytes"; 2] };

    /// What a side that sends `S` and receives `R` expects.
    pub const fn of<S: Codec, R: Codec>() -> Self {
        let names = [type_name::<S::Value> as fn() -> &'static str, type_name::<R::Value>];
        Self { sends: S::FINGERPRINT, receives: R::FINGERPRINT, names }
    }

    /// The names of the types that this side sends and receives.
    pub(crate) fn names(&self) -> [&'static str; 2] {
        self.names.map(|name| name())
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
            let [sends, receives] = self.names();
            return Err(SegmentError::Types { sends, receives, found, expected });
        }
        Ok(())
    }
}
