//! ringway (skeleton)
pub mod channel;
pub mod error;
pub mod layout;
pub mod memory;
#[cfg(not(loom))]
mod os;
pub mod ring;
#[cfg(not(loom))]
pub mod segment;
#[cfg(not(loom))]
#[allow(dead_code, reason = "the host watches its plugins with it")]
mod supervisor;
mod sync;
pub mod wakeup;
