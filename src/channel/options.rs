//! What can be chosen about a channel.

use super::ChannelTypes;
use crate::layout::{MAX_CAPACITY_BYTES, MIN_CAPACITY_BYTES};
use crate::memory::FenceMode;
use crate::segment::{Access, ChannelGeometry, DEFAULT_MAX_MESSAGE_BYTES};
use crate::wakeup::WaitStrategy;

/// One of the two sides of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The side that creates, as a rule.
    First,
    /// The other one.
    Second,
}

/// Choices about a channel. A channel that exists is opened where it has at least the capacities, the
/// alignment and the longest message that are asked for; else
/// [`NameError::Differs`](crate::error::NameError::Differs). All have defaults:
///
/// ```
/// use ringway::channel::ChannelOptions;
///
/// let options = ChannelOptions { capacity_bytes: 1 << 20, ..ChannelOptions::default() };
/// # assert_eq!(options.payload_align, 8);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelOptions {
    /// Capacity of each of the two rings in bytes: a power of two. Default 256 KiB. Messages
    /// longer than half of it, less 8 bytes, travel in fragments.
    pub capacity_bytes: u64,
    /// Capacity of the ring from the attaching side back to the creator, where it should differ.
    pub reply_capacity_bytes: Option<u64>,
    /// Alignment of payloads in the ring in bytes: 8, 16, 32 or 64. Default 8.
    pub payload_align: u64,
    /// Longest message in bytes, both ways. Default 16 MiB. The creator decides for both. A message
    /// longer than a record can be, or than the whole ring, travels in fragments, which the receiver
    /// puts together in memory of its own.
    pub max_message_bytes: u64,
    /// How this side waits. Each side has its own.
    pub wait: WaitStrategy,
    /// Who fences when somebody sleeps; found out where `None`. The creator decides for both.
    pub fence: Option<FenceMode>,
    /// What types of values this side sends and receives; none by default. Both sides must name the
    /// same ones, mirrored. [`TypedChannel`](super::TypedChannel) fills it in; a host that creates
    /// channels for its plugins names them here.
    pub types: ChannelTypes,
    /// Which side of a named channel to take. `None`: whichever is free; see
    /// [`Channel::open`](super::Channel::open).
    pub side: Option<Side>,
    /// Who may open a named channel.
    pub access: Access,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            capacity_bytes: 256 << 10,
            reply_capacity_bytes: None,
            payload_align: 8,
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            wait: WaitStrategy::default(),
            fence: None,
            types: ChannelTypes::UNTYPED,
            side: None,
            access: Access::default(),
        }
    }
}

impl ChannelOptions {
    /// The least that can be asked for: opens a channel of any size.
    pub fn least() -> Self {
        Self {
            capacity_bytes: MIN_CAPACITY_BYTES,
            payload_align: 8,
            max_message_bytes: 1,
            ..Self::default()
        }
    }

    /// What a segment is created with: two rings of records.
    pub(super) fn geometry(&self) -> ChannelGeometry {
        let capacities =
            [self.capacity_bytes, self.reply_capacity_bytes.unwrap_or(self.capacity_bytes)];
        let fence = self.fence.unwrap_or_else(|| match self.wait {
            // A sleeper pays for the asymmetric fence at every sleep; see the wakeup benchmark.
            WaitStrategy::Park => FenceMode::Real,
            _ => FenceMode::detect(),
        });
        ChannelGeometry {
            max_message_bytes: self.max_message_bytes,
            type_fingerprint: self.types.fingerprint(0),
            ..ChannelGeometry::records(capacities, self.payload_align, fence)
        }
    }

    /// The smallest capacity whose ring takes messages of `len` bytes, at least 4096; `None` where
    /// no ring does.
    pub fn capacity_for(len: u64) -> Option<u64> {
        let twice = len.checked_add(8 + 64)?.checked_mul(2)?;
        let capacity = twice.checked_next_power_of_two()?.max(4096);
        (capacity <= MAX_CAPACITY_BYTES).then_some(capacity)
    }
}
