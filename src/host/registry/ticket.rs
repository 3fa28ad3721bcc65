//! Tickets: channels without a name, found by a number that only those have whom it was given to.
//!
//! A [`ChannelListener`](super::ChannelListener) has one, and any channel can carry it. What always
//! holds: it says nothing but itself, so that who has it can open the channel, and who has not can
//! only guess 128 random bits, which the host would have to be asked about one by one.

#![allow(unsafe_code)]

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytemuck::{Pod, Zeroable};

use super::link_options;
use crate::channel::{Channel, ChannelOptions};
use crate::host::links::{Desk, Kind, LinkError, name_of_ticket};
use crate::os::random;
use crate::typed::{Fingerprint, Schema};

/// By which a channel without a name is [opened](crate::host::Plugin::open_ticket). It is plain data, of 16
/// bytes, and goes through any channel; whoever gets it can open the channel, as often as it likes, for as
/// long as its listener is there.
///
/// ```
/// use std::time::Duration;
/// use ringway::channel::{Channel, ChannelOptions};
/// use ringway::host::{Host, Ticket};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (options, soon) = (ChannelOptions::default(), Duration::from_secs(5));
/// let host = Host::builder().links().build()?;
/// let (mut here, mut there) = Channel::pair(&options)?;
///
/// let listener = host.unnamed_channel(&options)?;
/// here.send_pod(&listener.ticket().expect("it has no name"))?;
///
/// let ticket: Ticket = there.recv_pod()?;
/// let mut ours = host.open_ticket(&ticket, &options, soon)?;
/// ours.send(b"through a channel that came through a channel")?;
/// assert!(listener.accept(soon)?.recv()?.starts_with(b"through"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Ticket([u8; 16]);

// SAFETY: the type is an array of bytes and nothing else (`repr(transparent)`), for which zeros are as good
// as any.
unsafe impl Zeroable for Ticket {}
// SAFETY: as above: all bytes can have any value, there is no padding, and the type is `Copy`.
unsafe impl Pod for Ticket {}

impl Schema for Ticket {
    const FINGERPRINT: u64 = Fingerprint::new("ringway::Ticket").number(16).finish();
}

impl fmt::Debug for Ticket {
    /// Without the number, which is not for everybody who reads a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

impl Ticket {
    pub(super) fn draw() -> Result<Self, LinkError> {
        let os = |source| LinkError::Os { call: "getrandom", source };
        Ok(Self(random::random_u128().map_err(os)?.to_ne_bytes()))
    }

    pub(super) fn name(&self) -> String {
        name_of_ticket(self.0)
    }

    pub(super) fn open(
        &self,
        desk: &Arc<Desk>,
        options: &ChannelOptions,
        timeout: Duration,
    ) -> Result<Channel, LinkError> {
        let options = link_options(options);
        match desk.connect(Kind::Channel, &self.name(), &[], &options, timeout) {
            Ok(link) => Ok(link.channel),
            Err(LinkError::Unknown { .. }) => Err(LinkError::TicketGone),
            Err(error) => Err(error),
        }
    }
}
