//! Channels between any two processes of a host's family: who offers one, who wants one, and how both
//! get an end of it.
//!
//! The registry, topics and calls stand on it, each with a [`Kind`] of names of its own; the host
//! [brokers](crate::host::HostBuilder::links), and no message passes through it. What always holds: a
//! link is used only once both ends have mapped it and the host has sealed it; when the process at
//! the other end is over, or lets go of the link, this end is told; whoever breaks a rule loses all
//! its links and names, and harms nobody else.
//!
//! | file | what it holds |
//! |---|---|
//! | `desk`, `table` | what a process calls: listen, connect, join; what it knows of its links |
//! | `agent` | its thread: offers, answers, links to their inboxes |
//! | `office`, `broker` | the host's side: who listens, who joins, what links there are |
//! | `wire` | requests and letters as bytes |
//! | `sides` | how a host and a plugin come to their desks |
//! | `error` | what can go wrong |

mod agent;
mod broker;
mod desk;
mod error;
mod office;
mod sides;
mod table;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt::Debug;

use crate::channel::{Channel, ChannelTypes};
use crate::segment::DEFAULT_MAX_MESSAGE_BYTES;
use crate::wakeup::WaitStrategy;

pub(super) use broker::Limits;
pub(crate) use desk::{Desk, Registration};
pub use error::LinkError;
pub(super) use sides::{HostLinks, PluginLinks};
pub(super) use wire::name_of_ticket;

/// Longest note in bytes.
pub(crate) const MAX_NOTE_BYTES: usize = 128;

/// What a name is of. Names of different kinds have nothing to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// A channel: one listens, every connect makes a channel of its own.
    Channel,
    /// A topic: subscribers listen, publishers join.
    Topic,
    /// A function: one listens; a process that is linked with the listener's inbox already is told so
    /// when it connects.
    Rpc,
}

/// What the links of a listener are like. Who connects has a say in `types` and `wait` alone; the
/// others are the listener's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkOptions {
    /// Capacity of the ring that the connecting side writes, in bytes: a power of two.
    pub(crate) capacity_bytes: u64,
    /// Capacity of the other ring, where it should differ.
    pub(crate) reply_capacity_bytes: Option<u64>,
    /// Longest message in bytes, both ways.
    pub(crate) max_message_bytes: u64,
    /// What this side sends and receives.
    pub(crate) types: ChannelTypes,
    /// How this side waits.
    pub(crate) wait: WaitStrategy,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            capacity_bytes: 256 << 10,
            reply_capacity_bytes: None,
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            types: ChannelTypes::UNTYPED,
            wait: WaitStrategy::default(),
        }
    }
}

/// One end of a link, ready to be used. The channel says `Disconnected`, once it is drained, when the
/// other end's process is over or has let go of it; that is so for as long as any part of the channel
/// is there. The link is over when all of it has been dropped.
#[derive(Debug)]
pub(crate) struct Link {
    /// No two links of a host have the same; both ends have the same one.
    pub(crate) id: u64,
    /// Side 0 for who connected or joined, side 1 for who listens.
    pub(crate) channel: Channel,
    /// Name of the plugin at the other end; empty for the host.
    pub(crate) peer: String,
    /// What the other end said of itself: at most [`MAX_NOTE_BYTES`], not checked.
    pub(crate) note: Vec<u8>,
}

/// Where links of a registration arrive.
pub(crate) trait Inbox: Send + Sync + Debug {
    /// A link has come about, and can be used. Runs on the thread that sees to all links of the
    /// process, so that it must be short, and neither listens, connects nor joins.
    fn linked(&self, link: Link);

    /// No more links will come: the host is gone, or serves this process no longer.
    fn closed(&self) {}
}

/// A name, and who listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listed {
    pub(crate) name: String,
    /// The plugin; empty for the host.
    pub(crate) plugin: String,
}
