//! What several test binaries share.
#![allow(dead_code, missing_docs)]

pub mod asking;
pub mod called;
pub mod calling;
pub mod controlling;
pub mod forked;
pub mod held;
pub mod hostile;
pub mod ledger;
pub mod linking;
pub mod meeting;
pub mod name;
pub mod pieces;
pub mod plugin;
pub mod process;
pub mod publishing;
pub mod random;
pub mod room;
pub mod seccomp;
pub mod serving;
pub mod spoiling;
pub mod steps;
pub mod store;
pub mod storing;
pub mod stray;
pub mod victim;
