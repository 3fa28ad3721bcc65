//! A record of a ring: a header word, and what it stands before.
//!
//! ```text
//! 63      48 47   40 39   32 31                       0
//! +---------+-------+-------+--------------------------+
//! |   tag   |   0   | kind  |    length of payload     |   header: zero until committed
//! +---------+-------+-------+--------------------------+
//! | payload, then zeros to the next multiple of 8; then|
//! | whatever earlier records left, to the next multiple|
//! | of the record alignment (8 unless the channel asks)|
//! +----------------------------------------------------+
//! ```
//!
//! In a lossy ring the message's number, a u64, stands between header and payload; the length does
//! not count it. A padding record's length counts the bytes behind its header, up to the end of the
//! ring. The payload of a fragment, a call and a reply begins with a word, which its length counts: a
//! call's and a reply's is the id of the call, and a fragment's is in [`fragment`](super::fragment).

/// Kind of a record that carries one whole message.
pub const DATA: u8 = 1;
/// Kind of a record that fills the end of the ring.
pub const PADDING: u8 = 2;
/// Kind of a record that carries a part of a message.
pub const FRAGMENT: u8 = 3;
/// Kind of a record that answers a call.
pub const REPLY: u8 = 4;
/// Kind of a record that carries a message to which a reply is wanted.
pub const CALL: u8 = 5;
/// Bytes of the header.
pub const HEADER_BYTES: u64 = super::WORD_BYTES;

/// Packs a header. Never zero, because no kind is.
pub const fn pack(len: u32, kind: u8, tag: u16) -> u64 {
    len as u64 | (kind as u64) << 32 | (tag as u64) << 48
}
/// Payload length in bytes.
pub const fn len(header: u64) -> u32 {
    header as u32
}
/// Kind; see the constants.
pub const fn kind(header: u64) -> u8 {
    (header >> 32) as u8
}
/// Bits that must be zero.
pub const fn reserved(header: u64) -> u8 {
    (header >> 40) as u8
}
/// The user's tag.
pub const fn tag(header: u64) -> u16 {
    (header >> 48) as u16
}
