//! Lossy channels: one way, and when the receiver does not keep up, the oldest messages are lost.
//!
//! For what is worth having only while it is new: prices, positions, meters, logs of a real-time
//! thread. A process makes one with [`LossyChannel`] and hands the descriptor over. What always
//! holds: sending never waits for the receiver; every message that is received is whole and says how
//! many were lost right before it; received and lost ones add up to those sent. How, stands in
//! [`ring::lossy`](crate::ring::lossy).

#[cfg(not(loom))]
mod named;
#[cfg(not(loom))]
mod open;
mod receiver;
mod sender;

#[cfg(not(loom))]
pub use named::LossyEnd;
#[cfg(not(loom))]
pub use open::{LossyChannel, LossyOptions};
pub use receiver::{LossyMessage, LossyReceiver};
pub use sender::LossySender;
