//! Channels of plain values of one length each way, over slot rings: the fastest for small ones.
//!
//! For callers whose messages are small plain data and whose peer is not restarted by a host. What
//! always holds: as for [`TypedChannel`](super::TypedChannel), types are compared when a side
//! attaches, and every value is checked in a private copy; nothing that the peer writes is believed
//! before it has been checked.

#[cfg(not(loom))]
mod duplex;
mod receiver;
mod sender;

#[cfg(not(loom))]
pub use duplex::SlotChannel;
pub use receiver::{SlotIter, SlotReceiver};
pub use sender::{SlotSender, SlotSenderBatch};
