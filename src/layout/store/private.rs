//! The private part of a store: what only trusted participants map.
//!
//! They lock and sleep here, so that no other process can steal a wakeup or forge a pin. Offsets count from
//! the start of the part.
//!
//! ```text
//! offset      what                                         who writes it, when
//! 0           header, 128 bytes                            creator, once, before anybody attaches
//! 128         number of the next participant               participants, when they claim a record
//! 136..256    reserved, zero
//! 256         lock, 64 bytes                               holders of the lock
//! 320..512    reserved, zero
//! 512         doorbells: one for everything, 128 others    generations: holder of the lock;
//!                                                          announcements: watchers, and who takes them back
//! 1664        set of the watched prefixes                  holder of the lock
//! 1672..4096  reserved, zero
//! 4096        watched prefixes: 32 of 128 bytes            see [`prefix`]
//! 8192        participants: 64 bytes each                  the participant that has claimed it
//! ...         readers: 256 bytes each                      the reader that has claimed it
//! ...         end, a multiple of [`ALIGN`]
//! ```
//!
//! # The header
//!
//! As that of every segment (see [`layout`](crate::layout)) up to byte 48, with a kind and a length of its own and the
//! incarnation of the public part; zeros from there to the checksum.

use super::super::{LINE_BYTES, PAGE_BYTES, WORD_BYTES};

/// The part starts on a multiple of it, and its length is one: the largest page that a system of this
/// architecture maps.
pub const ALIGN: u64 = if cfg!(target_arch = "x86_64") { PAGE_BYTES } else { 64 << 10 };

/// `u64`: number of the next participant; grows by one with each claim.
pub const NEXT_PARTICIPANT: u64 = 128;
/// Where the lock starts.
pub const LOCK: u64 = 256;
/// Bytes reserved for the lock.
pub const LOCK_BYTES: u64 = 64;
/// Where the participants start.
pub const PARTICIPANTS: u64 = 8192;

/// Doorbells: where trusted watchers sleep.
pub mod bell {
    /// The bell that is rung whenever any key has changed.
    const EVERYTHING: u64 = 512;
    /// The first of the others; keys share them by their hashes.
    const FIRST: u64 = EVERYTHING + super::LINE_BYTES;
    /// How many others there are. Fewer in models.
    pub const BUCKETS: u64 = if cfg!(loom) { 2 } else { 128 };
    /// Bytes of a bell.
    pub const BYTES: u64 = 8;
    /// `u32`: how often it was rung.
    pub const GENERATION: u64 = 0;
    /// `u32`, bits: who sleeps, or is about to.
    ///
    /// | bit | meaning | set by | cleared by |
    /// |---|---|---|---|
    /// | [`TRUSTED`] | somebody sleeps on the generation here | the sleeper | who rings: swaps 0 in |
    /// | [`PUBLIC`] | somebody sleeps on the copy in the public part | the host, for a read-only process | the same |
    pub const WAITING: u64 = 4;
    /// Participants that map this part.
    pub const TRUSTED: u32 = 1;
    /// Processes that map the public part only.
    pub const PUBLIC: u32 = 2;
    /// Where the last one ends.
    pub const END: u64 = FIRST + BUCKETS * BYTES;

    /// Offset of the bell with this number: one that keys share, then that of everything, then those of the
    /// watched prefixes.
    pub const fn numbered(number: u64) -> u64 {
        if number < BUCKETS {
            FIRST + number * BYTES
        } else if number == BUCKETS {
            EVERYTHING
        } else {
            super::prefix::at(number - BUCKETS - 1) + super::prefix::BELL
        }
    }
}

/// Watched prefixes: which changes writers append to a [log](super::change_log) of their own, and for whom.
///
/// | word | who changes it |
/// |---|---|
/// | [`prefix::OWNER`] | the watcher, or a holder of the lock once that has died: to 0. A holder of the lock: from 0 |
/// | [`prefix::BELL`] | as every [`bell`]'s |
/// | all others | holder of the lock |
pub mod prefix {
    /// `u64`: a bit for each entry that writers look at.
    pub const USED: u64 = 1664;
    /// How many prefixes can be watched without a walk. Fewer in models.
    pub const ENTRIES: u64 = if cfg!(loom) { 1 } else { 32 };
    /// Where the first entry starts.
    const FIRST: u64 = 4096;
    /// Bytes of an entry.
    pub const BYTES: u64 = 128;
    /// `u64`: the participant that watches; 0 = nobody.
    pub const OWNER: u64 = 0;
    /// The doorbell of this prefix.
    pub const BELL: u64 = 8;
    /// `u64`: bytes of the prefix that are compared.
    pub const LEN: u64 = 16;
    /// The first bytes of the prefix.
    pub const PREFIX: u64 = 24;
    /// How many bytes of it there is room for.
    pub const PREFIX_BYTES: u64 = BYTES - PREFIX;

    /// Offset of an entry.
    pub const fn at(number: u64) -> u64 {
        FIRST + number * BYTES
    }
}

const _: () = {
    assert!(NEXT_PARTICIPANT >= super::super::segment::HEADER_BYTES);
    assert!(
        NEXT_PARTICIPANT + WORD_BYTES <= LOCK && LOCK + LOCK_BYTES <= bell::numbered(bell::BUCKETS)
    );
    assert!(bell::numbered(bell::BUCKETS).is_multiple_of(LINE_BYTES) && bell::BUCKETS <= 128);
    assert!(bell::END <= prefix::USED && prefix::USED + WORD_BYTES <= prefix::at(0));
    assert!(prefix::at(prefix::ENTRIES) <= PARTICIPANTS && prefix::ENTRIES <= 64);
    assert!(PARTICIPANTS.is_multiple_of(PAGE_BYTES));
};
