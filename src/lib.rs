//! ringway (skeleton)
pub mod error;
pub mod layout;
pub mod memory;
mod sync;
