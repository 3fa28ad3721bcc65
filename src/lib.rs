//! ringway (skeleton)
pub mod error;
pub mod layout;
pub mod memory;
#[cfg(not(loom))]
mod os;
pub mod ring;
#[cfg(not(loom))]
pub mod segment;
mod sync;
pub mod wakeup;
