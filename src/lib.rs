//! ringway (skeleton)
pub mod channel;
pub mod error;
#[cfg(not(loom))]
pub mod host;
pub mod layout;
pub mod memory;
#[cfg(not(loom))]
mod os;
pub mod ring;
#[cfg(not(loom))]
pub mod segment;
#[cfg(not(loom))]
mod supervisor;
mod sync;
pub mod wakeup;
