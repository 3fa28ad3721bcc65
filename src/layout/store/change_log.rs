//! Change logs: hashes of keys, appended before the keys change.
//!
//! Each is a header, then a ring of `u64`s. The first ones belong to the [watched prefixes](super::private::prefix), by
//! their numbers; the last one has every change.

use super::private::prefix::ENTRIES;
use crate::layout::WORD_BYTES;

/// How many logs there are.
pub const LOGS: u64 = ENTRIES + 1;
/// Bytes of a header.
pub const HEADER_BYTES: u64 = 64;
/// `u64`: how many hashes were appended. Never lowered. The `n`th is at place `n % entries`.
pub const COUNT: u64 = 0;
/// `u64`: how many of these belong to operations that are over.
pub const DONE: u64 = 8;
/// `u64`: odd while somebody watches the prefix; never the same for two of them. 0 in the log of all changes.
///
/// | from | to | who |
/// |---|---|---|
/// | even | the next odd number | holder of the lock |
/// | odd | the next even number | the watcher, or a holder of the lock once that has died |
pub const REGISTRATION: u64 = 16;

/// How many hashes the log of a prefix holds. Fewer in models.
pub const ENTRIES_OF_PREFIX: u64 = if cfg!(loom) { 2 } else { 128 };
/// How many the log of all changes holds.
pub const ENTRIES_OF_ALL: u64 = if cfg!(loom) { 2 } else { 1024 };

/// How many hashes the log with this number holds.
pub const fn entries(number: u64) -> u64 {
    if number < ENTRIES { ENTRIES_OF_PREFIX } else { ENTRIES_OF_ALL }
}
/// Where a log starts, counted from the first one; that of the number [`LOGS`] is where they end.
pub const fn at(number: u64) -> u64 {
    let end = if number < LOGS { 0 } else { HEADER_BYTES + ENTRIES_OF_ALL * WORD_BYTES };
    let prefixes = if number < LOGS { number } else { ENTRIES };
    prefixes * (HEADER_BYTES + ENTRIES_OF_PREFIX * WORD_BYTES) + end
}
