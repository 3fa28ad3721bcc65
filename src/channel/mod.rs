//! Channels: two rings, one each way, with waiting, waking, typed messages and an idea of the peer.
//!
//! What a process uses to talk to another one: [`Channel::anonymous`] on one side, the descriptor
//! handed over, [`Channel::attach`] on the other; or the [host](crate::host), which does all that
//! for its plugins. What always holds: every wait has its deadline, every error is typed, and
//! nothing that the peer writes is believed before it has been checked.
//!
//! # Real-time threads
//!
//! A call is *fit* where it takes no memory, no lock that another thread may hold for long, and makes no
//! system call but the wake of a thread that sleeps. `tests/realtime.rs` counts allocations and lets the
//! kernel end a thread that makes another call.
//!
//! | calls | fit |
//! |---|---|
//! | `Sender`: `try_send`, `try_send_tagged`, `try_send_vectored`, `try_reserve`, `send_pod`, `batch` and their commits, where there is room | yes |
//! | `Sender::offer` with `SendPolicy::Fail` or `DropNewest` | yes |
//! | `Sender`: `send`, `send_timeout`, `reserve`, `SendPolicy::Block`, `BlockFor` | they wait for room, and sleep; they take no memory |
//! | `Sender::send_archived` | no: the archive grows with its value |
//! | `Receiver`: `try_recv`, `recv_into`, `recv_pod`, `recv_batch`, `skip`, `release` where there is a message; any timeout of zero | yes, after [`Receiver::reserve`] |
//! | `Receiver`: `recv`, `recv_timeout` | they wait, and sleep; they take no memory after [`Receiver::reserve`] |
//! | `Receiver`: `recv_owned`, `recv_archived`, `reserve` | no |
//! | `Channel::call`, `finish_call` | they wait; replies that come out of turn take memory |
//! | `SlotSender`, `SlotReceiver`, `LossySender`, `LossyReceiver`: `try_` calls | yes; a lossy receiver's buffer grows to its longest message |
//! | `Selector::poll` with a timeout of zero, without a descriptor | yes |
//! | `Plugin::stop_requested`, `stats`, `peer_state` | yes |
//! | everything that opens, creates, attaches, splits, closes or drops an end | no |
//!
//! Three rare events are outside of that. The first call after the peer has attached may start the thread
//! that flushes ([`FenceMode`](crate::memory::FenceMode)): [`Channel::wait_for_peer`] does it earlier, and
//! `FenceMode::Real` leaves it out. The first call after a restart takes locks that the supervisor holds
//! for as long as a hand-over takes; the old segment is unmapped by the supervisor. The first call
//! that finds another process in a stranger's place opens its pidfd.
//!
//! | file | what it holds |
//! |---|---|
//! | `connection` | one incarnation of a channel as one side sees it; death, hand-over |
//! | `carry` | what a hand-over copies from ring to ring |
//! | `attachment` | peers that nobody has started, and their successors in the same segment |
//! | `connect` | from a segment to a connection |
//! | `sender`, `receiver` | the blocking ends: what they offer |
//! | `sender/wait`, `receiver/wait` | how they attempt, notice and wait |
//! | `sender/long`, `receiver/digest` | messages longer than a record: in pieces, and together again |
//! | `calls`, `sender/call`, `receiver/call` | messages to which a reply is wanted, and the replies |
//! | `policy` | what a sender does with a message for which there is no room |
//! | `cpu` | whether two ends share their only processor |
//! | `drafts`, `message`, `typed` | messages in the making, received, as values |
//! | `typed_channel` | channels of values of one type each way, checked when they are attached |
//! | `slot_channel` | channels of small plain values over slot rings |
//! | `trusted` | borrowing ring memory (`unsafe` to get) |
//! | `lossy` | one-way channels that overwrite their oldest messages |
//! | `selector` | many receivers, one thread |
//! | `passive` | callbacks for messages, on a thread of the receiver's own |
//! | `open`, `stranger`, `directory` | named segments: whose is which side, who is watched, what there is |
//! | `duplex`, `anonymous`, `named`, `options` | the pair of ends, and how to get one |

mod attachment;
mod calls;
mod carry;
pub(crate) mod connection;
mod cpu;
mod drafts;
mod lossy;
mod message;
mod policy;
mod receiver;
mod sender;
mod slot_channel;
mod typed;

#[cfg(loom)]
pub mod model;

#[cfg(not(loom))]
mod anonymous;
#[cfg(not(loom))]
mod call;
#[cfg(not(loom))]
mod connect;
#[cfg(all(test, not(loom)))]
mod deadline_tests;
#[cfg(not(loom))]
mod directory;
#[cfg(not(loom))]
mod duplex;
#[cfg(all(feature = "raw-sync-event", not(loom)))]
mod event;
#[cfg(not(loom))]
mod named;
#[cfg(not(loom))]
mod open;
#[cfg(not(loom))]
mod options;
#[cfg(not(loom))]
mod passive;
#[cfg(not(loom))]
mod selector;
#[cfg(not(loom))]
mod stranger;
#[cfg(all(test, not(loom)))]
mod tests;
#[cfg(not(loom))]
mod trusted;
#[cfg(not(loom))]
mod typed_channel;

pub use calls::{CallId, PendingCall};
pub use carry::CarryReport;
#[cfg(not(loom))]
pub(crate) use connection::Connection;
pub use drafts::{Batch, Reservation};
#[cfg(not(loom))]
pub use lossy::{LossyChannel, LossyEnd, LossyOptions};
pub use lossy::{LossyMessage, LossyReceiver, LossySender};
pub use message::{Message, OwnedMessage};
pub use policy::{Offered, SendPolicy};
#[cfg(not(loom))]
pub(crate) use receiver::{Ahead, Behind};
pub use receiver::{KEPT_BYTES, Receiver};
pub use sender::Sender;
pub use slot_channel::{SlotIter, SlotReceiver, SlotSender, SlotSenderBatch};

#[cfg(not(loom))]
pub use directory::{Holder, Listed, Unread, gc, gc_where, list, remove};
#[cfg(not(loom))]
pub use duplex::{Channel, PeerState};
#[cfg(not(loom))]
pub use options::{ChannelOptions, Side};
#[cfg(not(loom))]
pub use passive::{
    Bytes, CallbackId, CallbackResult, Callbacks, Dispatcher, Ended, Kind, Passive, PassiveStats,
    Report, Running, StartError, StopError, Values,
};
#[cfg(not(loom))]
pub(crate) use selector::Found;
#[cfg(not(loom))]
pub use selector::{Event, Readiness, Selector, WaitBackend};
#[cfg(not(loom))]
pub use slot_channel::SlotChannel;
#[cfg(not(loom))]
pub use trusted::{InPlace, ReservationInPlace, Trusted};
#[cfg(not(loom))]
pub use typed_channel::{
    ChannelTypes, TrustedTyped, TypedBatch, TypedChannel, TypedIter, TypedReceiver, TypedSender,
};
