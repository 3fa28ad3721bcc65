//! The word at the beginning of a fragment's payload.
//!
//! ```text
//! 63      56 55        48 47                          0
//! +---------+------------+----------------------------+
//! |  flags  | inner kind |  first: length of it all   |   flags: 1 = first, 2 = given up;
//! |         | first only |  others: offset in it all  |   both numbers zero where given up
//! +---------+------------+----------------------------+
//! ```
//!
//! The pieces of a fragmented message, joined, are what the payload of one record of the inner kind
//! (data, call or reply) would be, with the word at its beginning where that kind has one.

/// Flag of the first piece, whose word says how long the whole is and of which kind.
pub const FIRST: u8 = 1;
/// Flag of a record that says that no more pieces come.
pub const ABORT: u8 = 2;
/// Bits of the length or the offset.
pub const NUMBER_BITS: u32 = 48;

/// Packs a word; `number` has at most 48 bits.
pub const fn pack(number: u64, kind: u8, flags: u8) -> u64 {
    number | (kind as u64) << NUMBER_BITS | (flags as u64) << 56
}
/// Length of the whole (first) or offset of this piece (others).
pub const fn number(word: u64) -> u64 {
    word & ((1 << NUMBER_BITS) - 1)
}
/// Kind of record that the pieces make, in the first.
pub const fn kind(word: u64) -> u8 {
    (word >> NUMBER_BITS) as u8
}
/// Flags; see the constants.
pub const fn flags(word: u64) -> u8 {
    (word >> 56) as u8
}
