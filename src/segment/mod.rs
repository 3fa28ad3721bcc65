//! Segments: memory that carries a header and can be attached.
//!
//! Channels are built in them; the host makes one for every channel of a plugin.
//! What always holds: what a segment says about itself is read once, checked, and kept in private
//! memory; nothing later depends on the header.

mod anonymous;
mod header;

pub use anonymous::AnonymousSegment;
pub use header::{ChannelGeometry, DEFAULT_MAX_MESSAGE_BYTES, RingKind};
