//! ringway (skeleton)
pub mod error;
pub mod layout;
pub mod memory;
pub mod ring;
mod sync;
pub mod wakeup;
