//! Segments: memory that carries a header and can be attached.
//!
//! Channels and stores are built in them; the host makes one for every channel of a plugin.
//! What always holds: what a segment says about itself is read once, checked, and kept in private
//! memory; nothing later depends on the header.

#[cfg(not(loom))]
mod address;
#[cfg(not(loom))]
mod anonymous;
#[cfg(not(loom))]
mod binding;
#[cfg(not(loom))]
mod claim;
#[cfg(not(loom))]
pub(crate) mod directory;
#[cfg(not(loom))]
mod draft;
#[cfg(not(loom))]
mod gate;
#[cfg(not(loom))]
mod header;
#[cfg(not(loom))]
mod named;
#[cfg(not(loom))]
mod open;
#[cfg(not(loom))]
mod pair;
mod sides;
#[cfg(not(loom))]
mod words;

#[cfg(not(loom))]
pub use crate::os::dumps::keep_in_core_dumps;
#[cfg(not(loom))]
pub use address::{Access, Address};
#[cfg(not(loom))]
pub use anonymous::AnonymousSegment;
#[cfg(not(loom))]
pub(crate) use binding::Binding;
#[cfg(not(loom))]
pub(crate) use claim::Claim;
#[cfg(not(loom))]
pub use directory::{Cleared, Listing, Skipped, gc_drafts};
#[cfg(not(loom))]
pub(crate) use draft::Draft;
#[cfg(not(loom))]
pub(crate) use gate::Gate;
#[cfg(not(loom))]
pub use header::{ChannelGeometry, DEFAULT_MAX_MESSAGE_BYTES, RingKind};
#[cfg(not(loom))]
pub(crate) use named::{Found, NamedSegment, Whole, own_line};
#[cfg(not(loom))]
pub(crate) use open::{How, Wish, at_least, open, patience, until};
#[cfg(not(loom))]
pub(crate) use pair::SegmentPair;
#[cfg(not(loom))]
pub(crate) use sides::SideLine;
pub(crate) use sides::{attach as attach_side, read as read_side};
#[cfg(not(loom))]
pub(crate) use words::{HEADER_BYTES, Header, Kind, expect};
