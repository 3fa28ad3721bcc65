//! Messages between processes through shared memory, safe against peers that die or lie.
//!
//! ringway is for hosts of latency-critical plugins: a process and its child processes, any of
//! which may crash, hang, be killed, or write garbage. A channel is a pair of lock-free
//! single-producer single-consumer byte rings in memory that both sides map, with futex wakeups; a
//! [`host::Host`] starts plugin processes on such channels, watches them, and restarts them without
//! losing messages.
//!
//! ```text
//!   process A                 sealed memory file, mapped by both                process B
//!  ┌──────────┐   ┌──────────────────────────────────────────────────────┐   ┌────────────┐
//!  │ Sender ──┼──►│ ring 0: [header│payload][header│payload][0 ...      ]├──►│── Receiver │
//!  │          │   │         ▲ head (B stores)        ▲ next header       │   │            │
//!  │ Receiver │◄──┤ ring 1: [ ...                                      ] │◄──┼── Sender   │
//!  └────┬─────┘   └──────────────────────────────────────────────────────┘   └─────┬──────┘
//!       │ private: own position, cached head, geometry                             │
//!       └── supervisor thread: pidfds of all peers ── death ends every wait ───────┘
//! ```
//!
//! A message's bytes are copied by [`channel::Sender::send`] straight into the ring, behind a header
//! that is zero until everything else is in place; storing that header commits the message and tells
//! the receiver at once. The receiver copies the bytes out into a buffer of its own, checks what
//! there is to check in that copy, and lends it to the caller. The space goes back when the receiver
//! asks for the next message, so a message that kills its receiver is still there for the next one.
//!
//! ```
//! use ringway::channel::{Channel, ChannelOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // One process creates, the other attaches with the descriptor that it was handed.
//! let mut host = Channel::anonymous(&ChannelOptions::default())?;
//! let descriptor = host.descriptor()?;
//!
//! let plugin = std::thread::spawn(move || -> Result<(), ringway::error::Error> {
//!     let mut channel = Channel::attach(descriptor, &ChannelOptions::default())?;
//!     while let Ok(question) = channel.recv_owned() {
//!         channel.send(&question.to_ascii_uppercase())?;
//!     }
//!     Ok(()) // the host has closed its end
//! });
//!
//! host.send(b"hello")?;
//! assert_eq!(&*host.recv()?, b"HELLO");
//! drop(host);
//! plugin.join().expect("no panic")?;
//! # Ok(())
//! # }
//! ```
//!
//! # Trust
//!
//! Rings in sealed anonymous segments are safe against a hostile peer: each end keeps its own
//! position privately, reads a peer's words once and checks them, copies payloads out before it
//! looks at them, and poisons the channel when it finds something that no correct peer writes. All
//! of the safe interface keeps this promise. Borrowing the ring's own memory is possible only on an
//! end whose peer was declared trusted in an `unsafe` call ([`channel::Trusted`]). What is promised,
//! why it holds, and what is not promised stands in `SAFETY.md`.
//!
//! # Modules
//!
//! | module | what it holds | `unsafe` |
//! |---|---|---|
//! | [`error`], [`layout`] | what can go wrong; every offset in shared memory | no |
//! | [`memory`] | the seam: words and bytes at offsets, fences, sleeping; four implementations | mapped, copy |
//! | [`ring`] | the protocol: producer, consumer, reservations, batches | no |
//! | [`typed`] | fingerprints of types; values as bytes and back | no |
//! | [`wakeup`] | announce, fence, look, sleep; and its other side | no |
//! | [`channel`] | blocking ends, callbacks, typed messages, selector, hand-over to a next incarnation | `trusted` |
//! | [`segment`] | sealed memory files with a checked header | no |
//! | [`store`] | a hash table in a segment: read in place, written under a robust mutex, recovered after a death | lending values |
//! | [`host`] | plugin processes: spawn, supervise, restart; channels between any two of them | spawning, tickets, trust in plugins |
//! | [`topic`] | publish/subscribe between any processes of a host's family | no |
//! | [`rpc`] | functions by name, called from any process of a host's family | no |
//! | `identity` | who holds something, whether it is dead, whether a file is the one that was closed | no |
//! | `os`, `supervisor` | system calls; the thread that learns of deaths | `os` |

#![cfg_attr(loom, allow(dead_code, reason = "the models use a part"))]

mod callback;
pub mod channel;
pub mod error;
#[cfg(not(loom))]
pub mod host;
#[cfg(not(loom))]
mod identity;
pub mod layout;
pub mod memory;
#[cfg(not(loom))]
mod os;
pub mod ring;
#[cfg(not(loom))]
pub mod rpc;
pub mod segment;
pub mod store;
#[cfg(not(loom))]
mod supervisor;
mod sync;
#[cfg(not(loom))]
pub mod topic;
pub mod typed;
pub mod wakeup;

pub use ringway_derive::Schema;
pub use typed::Schema;

#[cfg(all(doctest, not(loom)))]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
