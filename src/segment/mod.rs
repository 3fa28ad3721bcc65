//! Segments: memory that carries a header and can be attached.
//!
//! Channels are built in them; the host makes one for every channel of a plugin.
//! What always holds: what a segment says about itself is read once, checked, and kept in private
//! memory; nothing later depends on the header.

mod address;
mod anonymous;
mod claim;
mod draft;
mod header;
mod named;
mod sides;

pub use address::{Access, Address};
pub(crate) use address::{PREFIX, SHARED_DIRECTORY, TEMPORARY_PREFIX, TEMPORARY_SEPARATOR};
pub use anonymous::AnonymousSegment;
pub(crate) use claim::Claim;
pub(crate) use draft::Draft;
pub use header::{ChannelGeometry, DEFAULT_MAX_MESSAGE_BYTES, RingKind};
pub(crate) use named::{Found, NamedSegment};
pub(crate) use sides::SideLine;
pub(crate) use sides::read as read_side;
