//! What the benches share: a pair of pinned processes, shared memory between them, the yardsticks,
//! the peers, and the tables.
//!
//! The benches beside this folder and `benches/peers` call it; each uses only a part, hence
//! `dead_code`.
//! What always holds: every message carries its number and both sides check it, so that a bench
//! cannot report what it did not move; and no child outlives the bench.
//!
//! - [`cli`]: options, and the arguments with which a bench starts itself again as the child
//! - [`cpu`], [`process`], [`shared`]: pinning, the child process, memory that both map
//! - [`link`]: what a message is, and the two drivers: round trip and one way
//! - [`case`]: one row of a table; [`isolated`]: one that may fail; [`plan`]: all rows at all sizes, interleaved, against yardsticks;
//!   [`goals`]: what was to be reached
//! - [`keyed`], [`op`], [`works`]: values under keys that two sides share, and what is done with them;
//!   [`ringway_store`], [`maps`]: where they lie
//! - [`yardstick`], [`os_peers`], [`thread_peers`], [`fixed_slots`], [`plain_ring`],
//!   [`ringway_ring`], [`ringway_channel`], [`ringway_slots`], [`ringway_lossy`], [`ringway_passive`], [`ringway_calls`], [`ringway_rpc`]: what is measured
#![allow(dead_code)]
#![allow(unsafe_code)]

pub mod case;
pub mod cli;
pub mod cpu;
pub mod fixed_slots;
pub mod goals;
pub mod isolated;
pub mod keyed;
pub mod link;
pub mod maps;
pub mod op;
pub mod os_peers;
pub mod plain_ring;
pub mod plan;
pub mod process;
pub mod ringway_calls;
pub mod ringway_channel;
pub mod ringway_lossy;
pub mod ringway_passive;
pub mod ringway_ring;
pub mod ringway_rpc;
pub mod ringway_slots;
pub mod ringway_store;
pub mod shared;
pub mod stats;
pub mod table;
pub mod thread_peers;
pub mod works;
pub mod yardstick;
