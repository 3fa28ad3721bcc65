//! The registry: channels by name, or by ticket, between any two processes of a host.
//!
//! The host program and its plugins register channels and open each other's, once the host was
//! [built](super::HostBuilder::links) to link them. What always holds: every opening makes a channel
//! of its own between the two processes, which no third one can use; both sides were checked to
//! expect the same types; a name belongs to one listener, and is free again when that is dropped or
//! its process is over.
//!
//! | file | what it holds |
//! |---|---|
//! | `listener` | what registering returns: channels as others open them |
//! | `ticket` | channels without a name, found by a number that can be sent |
//! | `typed` | the same for channels of values |
//!
//! # Examples
//!
//! A host program that registers a channel, and one of its threads that opens it; a plugin does both
//! with the same calls:
//!
//! ```
//! use std::time::Duration;
//! use ringway::channel::ChannelOptions;
//! use ringway::host::{Host, LinkError};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::builder().links().build()?;
//! let (options, soon) = (ChannelOptions::default(), Duration::from_secs(5));
//! let listener = host.register_channel("log", &options)?;
//!
//! let mut ours = host.open_channel("log", &options, soon)?;
//! let mut theirs = listener.accept(soon)?;
//! ours.send(b"hello")?;
//! assert_eq!(&*theirs.recv()?, b"hello");
//!
//! drop(listener);
//! let gone = host.open_channel("log", &options, soon);
//! assert!(matches!(gone, Err(LinkError::Unknown { .. })));
//! # Ok(())
//! # }
//! ```

mod listener;
mod ticket;
mod typed;

use std::sync::Arc;
use std::time::Duration;

use super::links::{Desk, Kind, LinkError, LinkOptions, Listed};
use super::spec::check_name;
use super::{Host, Plugin};
use crate::channel::{Channel, ChannelOptions};

pub use listener::{AcceptError, ChannelListener};
pub use ticket::Ticket;
pub use typed::TypedListener;

/// How long the host has to answer a registration.
const PATIENCE: Duration = Duration::from_secs(5);

/// A channel that can be opened, or that a plugin has by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedChannel {
    /// Its name.
    pub name: String,
    /// The plugin that listens; `None` where it is the host program.
    pub plugin: Option<String>,
}

impl From<Listed> for ListedChannel {
    fn from(Listed { name, plugin }: Listed) -> Self {
        Self { name, plugin: Some(plugin).filter(|plugin| !plugin.is_empty()) }
    }
}

/// What the registry takes of a channel's options.
fn link_options(options: &ChannelOptions) -> LinkOptions {
    LinkOptions {
        capacity_bytes: options.capacity_bytes,
        reply_capacity_bytes: options.reply_capacity_bytes,
        max_message_bytes: options.max_message_bytes,
        types: options.types,
        wait: options.wait,
    }
}

fn register(
    desk: &Arc<Desk>,
    name: &str,
    options: &ChannelOptions,
) -> Result<ChannelListener, LinkError> {
    check_name(name)?;
    ChannelListener::new(desk, name, options)
}

fn open(
    desk: &Arc<Desk>,
    name: &str,
    options: &ChannelOptions,
    timeout: Duration,
) -> Result<Channel, LinkError> {
    check_name(name)?;
    let link = desk.connect(Kind::Channel, name, &[], &link_options(options), timeout)?;
    Ok(link.channel)
}

fn list(desk: &Arc<Desk>) -> Result<Vec<ListedChannel>, LinkError> {
    Ok(desk.list(Kind::Channel)?.into_iter().map(ListedChannel::from).collect())
}

/// The same calls for both.
macro_rules! registry {
    ($($of:ident),*) => {$(
        impl $of {
            /// Registers a channel, for others to [open](Self::open_channel) by its name: as many as
            /// like, each of which gets a channel of its own with this process, that
            /// [`accept`](ChannelListener::accept) returns here. Of the options, the capacities and
            /// longest messages are those of each such channel, the types what this side sends and
            /// receives, and the way of waiting this side's own; the others say nothing here.
            /// [`capacity_bytes`](ChannelOptions::capacity_bytes) is that of the ring that the one
            /// writes who opens, [`reply_capacity_bytes`](ChannelOptions::reply_capacity_bytes) that of
            /// the ring that this side writes.
            ///
            /// # Errors
            /// [`LinkError::NotServed`] where the host was not built with
            /// [`links`](crate::host::HostBuilder::links); [`LinkError::Duplicate`],
            /// [`LinkError::Name`] and [`LinkError::Reserved`] for names that cannot be had;
            /// [`LinkError::TooMany`]; [`LinkError::Attach`] where there can be no such channel.
            pub fn register_channel(
                &self,
                name: &str,
                options: &ChannelOptions,
            ) -> Result<ChannelListener, LinkError> {
                register(&self.desk()?, name, options)
            }

            /// Registers a channel without a name, which can be opened only by who has its
            /// [ticket](ChannelListener::ticket). Otherwise as
            /// [`register_channel`](Self::register_channel).
            ///
            /// # Errors
            /// As there.
            pub fn unnamed_channel(
                &self,
                options: &ChannelOptions,
            ) -> Result<ChannelListener, LinkError> {
                ChannelListener::unnamed(&self.desk()?, options)
            }

            /// Opens a channel that some process of this host has [registered](Self::register_channel):
            /// a new one, between this process and that. Of the options, the types and the way of
            /// waiting are this side's; the others are the listener's. When the other process is over,
            /// or closes its end, calls return `Disconnected` once what it had sent has been read.
            ///
            /// # Errors
            /// [`LinkError::Unknown`] where nobody has registered the name; [`LinkError::Types`] where
            /// the listener's messages are of other types; [`LinkError::Timeout`] where its process
            /// does not answer; the others as they say.
            pub fn open_channel(
                &self,
                name: &str,
                options: &ChannelOptions,
                timeout: Duration,
            ) -> Result<Channel, LinkError> {
                open(&self.desk()?, name, options, timeout)
            }

            /// Opens the channel that a ticket is for, as [`open_channel`](Self::open_channel) does.
            ///
            /// # Errors
            /// [`LinkError::TicketGone`] where its listener is gone, or there never was one; the others
            /// as there.
            pub fn open_ticket(
                &self,
                ticket: &Ticket,
                options: &ChannelOptions,
                timeout: Duration,
            ) -> Result<Channel, LinkError> {
                ticket.open(&self.desk()?, options, timeout)
            }

            /// All registered channels, in the order of their names, and the two that each plugin has by
            /// itself, `{plugin}-active` and `{plugin}-passive`. Channels without a name are not listed.
            /// What is listed may be gone when it is opened.
            ///
            /// # Errors
            /// As [`register_channel`](Self::register_channel), but for what concerns the name.
            pub fn channels(&self) -> Result<Vec<ListedChannel>, LinkError> {
                list(&self.desk()?)
            }
        }
    )*};
}

registry! { Host, Plugin }
