//! Where everything lies in a store's memory.
//!
//! A store has two parts. Readers that only copy map the public part. Trusted participants map both, one
//! behind the other, and see one memory. A store without a name has a memory file for each part; a store with a
//! name, which nobody else may open, has both parts in its file.
//!
//! The public part:
//!
//! ```text
//! offset      what                                         who writes it, when
//! 0           segment header, 128 bytes                    creator, once, before anybody attaches
//! 128         usage line: who has had it since when        who is alone with it, or opens it first
//! 192..384    reserved, zero
//! 384         root word, then its generation              holder of the lock, when a table is replaced
//! 512         writer's words: next version, counts, batch, holder of the lock, in every operation
//!             the table in the making, its fewest slots
//! 640         epoch of the pages; then how often recovered holder of the lock
//! 768         journal: head, intent, undo pairs            holder of the lock, in every operation
//! 1536        classes: first span with room, 96 × u32      holder of the lock
//! 2048        generations of the doorbells, 128 × u32      holder of the lock, when it rings one
//! 2560        the one of the doorbell for everything       holder of the lock, when it rings it
//! 2564        those of the watched prefixes, 32 × u32      holder of the lock, when it rings one
//! 3200        number of deletions noted                    holder of the lock
//! 3208..4096  reserved, zero
//! 4096        limbo: 8 bytes an entry                      holder of the lock
//! ...         notes of deletions: 64 of 64 bytes           holder of the lock
//! ...         change logs: see [`change_log`]              holder of the lock; registrations: who watches, too
//! ...         page descriptors: 32 bytes each              holder of the lock
//! ...         pages, from a multiple of 4096 on            holder of the lock
//! ...         end, a multiple of [`private::ALIGN`]
//! ```
//!
//! The private part, whose offsets count from where it starts, is told in [`private`].
//!
//! # The segment header of a store
//!
//! As that of every segment (see [`layout`](super)) but for
//!
//! ```text
//!  48  u64 pages             56  u64 readers
//!  64  u32 C library         68  reserved, zero      72  u64 seed of the keys' hash
//!  80  u32 bytes of the C library's mutex            84..120 reserved, zero
//! ```
//!
//! # The usage line
//!
//! ```text
//! +0   u32 number of the closing   +8   u64 pid namespace     +16  u64 device    +24  u64 inode
//! +32  u32 clean                   +36  u32 process id, a hint
//! +40  u64 time of birth of the file in nanoseconds
//! ```
//! Written under the gate by whoever opens a store with a name while nobody else has it: the lock
//! belongs to one pid namespace, and the file may have been copied since. *Clean* says that the
//! last one to close it found everything in order; it is believed of the very file that was closed only, which
//! has the number of the closing as the nanoseconds of its modification time.
//!
//! # Truth and index
//!
//! The root word, its generation, the table that the root names, the blocks that the table's slots name, and the first word of the
//! descriptor of every span are the truth: each changes by one store, from one valid state to another. Where a
//! slot names a [`pending`] block, what that names and the state of its [`batch`] are a part of it.
//! Everything else that a writer keeps can be computed from them.

use super::{LINE_BYTES, PAGE_BYTES, WORD_BYTES};

pub mod change_log;
pub mod participant;
pub mod private;

/// Offsets inside the segment header that only stores have.
pub mod header {
    /// How many pages the arena has.
    pub const PAGES: u64 = 48;
    /// How many readers there can be.
    pub const READERS: u64 = 56;
    /// `u32`: whose mutex the lock is: [`GLIBC`], [`MUSL`] or [`OTHER_LIBC`].
    pub const LIBC: u64 = 64;
    /// What keys are hashed with.
    pub const HASH_SEED: u64 = 72;
    /// `u32`: bytes of that mutex.
    pub const MUTEX_BYTES: u64 = 80;

    /// The GNU C library.
    pub const GLIBC: u32 = 1;
    /// musl.
    pub const MUSL: u32 = 2;
    /// Another one.
    pub const OTHER_LIBC: u32 = 3;
}

/// The line that says since when, and where, a store is in use.
pub mod usage {
    /// `u32`: random number below 10^9 that the last closing drew.
    pub const CLOSING: u64 = 128;
    /// `u64`: number of the pid namespace whose processes may write it; 0 = unknown.
    pub const PID_NAMESPACE: u64 = 136;
    /// `u64` each: device, inode and time of birth of the file; 0 where it has no name.
    pub const FILE: [u64; 3] = [144, 152, 168];
    /// `u32`: 1 where the last one to close it has left everything in order.
    pub const CLEAN: u64 = 160;
    /// `u32`: process id of who opened it while nobody else had it; a hint.
    pub const PID: u64 = 164;
}

/// `u64`: offset of the table that is current.
pub const ROOT: u64 = 384;
/// `u64`: how often another table became current. Raised before [`ROOT`] is stored, never lowered, never used
/// twice. It takes part in every comparison of roots.
pub const GENERATION: u64 = 392;

/// `u64`: the version that the next value gets. Stored before it is used; never lowered.
pub const NEXT_VERSION: u64 = 512;
/// `u64`: keys present.
pub const LIVE_KEYS: u64 = 520;
/// `u64`: bytes of the blocks of those keys.
pub const LIVE_BYTES: u64 = 528;
/// `u64`: tombstones in the current table.
pub const TOMBSTONES: u64 = 536;
/// `u64`: entries in limbo.
pub const LIMBO_LEN: u64 = 544;
/// `u64`: bytes of the blocks in limbo.
pub const LIMBO_BYTES: u64 = 552;
/// `u64`: pages that belong to no span.
pub const FREE_PAGES: u64 = 560;
/// `u64`: page at which the search for free pages starts.
pub const NEXT_PAGE: u64 = 568;
/// `u64`: offset of the block of the batch that is being made or committed; 0 where none is.
pub const BATCH: u64 = 576;
/// `u64`: offset of the table that is being built to replace the current one; 0 where none is. No reader looks
/// at it, and a death drops it.
pub const NEXT_TABLE: u64 = 584;
/// `u64`: how many slots of that table have been emptied, from the first one on.
pub const NEXT_TABLE_EMPTIED: u64 = 592;
/// `u64`: how many slots of the current table it has followed, from the first one on.
pub const NEXT_TABLE_MOVED: u64 = 600;
/// `u64`: how many of its slots are not empty.
pub const NEXT_TABLE_TAKEN: u64 = 608;
/// `u64`: binary logarithm of the fewest slots that the table has when keys go; 0 where any number will do. The creator
/// stores it, for the keys that it expects.
pub const LEAST_LOG2_SLOTS: u64 = 616;

/// `u64`: how often pages were taken for a span. Never lowered, so that no page has the same
/// [`page::EPOCH`] twice.
pub const EPOCH: u64 = 640;
/// `u64`: how often the store was recovered.
pub const RECOVERIES: u64 = 648;

/// The journal of the operation in progress.
pub mod journal {
    /// `u64`: kind of operation in the high half, number of undo pairs in the low half; 0 where no
    /// operation is in progress, and never 0 between the operations that make a batch. Found set by who
    /// gets the lock, however, it asks for recovery.
    pub const HEAD: u64 = 768;
    /// `u64`: offset of the slot that the operation changes.
    pub const SLOT: u64 = 776;
    /// `u64`: the slot's word before.
    pub const OLD: u64 = 784;
    /// `u64`: the slot's word after; 0 until it is known.
    pub const NEW: u64 = 792;
    /// `u64`: how many undo pairs there were when the slot was about to be changed.
    pub const BEFORE: u64 = 800;
    /// Pairs of offset and former word.
    pub const PAIRS: u64 = 808;
    /// How many pairs there is room for.
    pub const MAX_PAIRS: u64 = 45;
}

/// `u32` each: first span of the class that has room, as its first page plus one; 0 = none.
pub const CLASS_HEADS: u64 = 1536;
/// How many classes there is room for.
pub const MAX_CLASSES: u64 = 96;

/// Generations of the doorbells, for processes that map the public part only.
pub mod generation {
    use super::private::bell::BUCKETS;
    /// `u32`: as [`GENERATION`](super::private::bell::GENERATION) of the bell with this number.
    pub const fn of_bell(number: u64) -> u64 {
        if number < BUCKETS { 2048 + number * 4 } else { 2560 + (number - BUCKETS) * 4 }
    }
    /// Where the last one ends.
    pub const END: u64 = of_bell(BUCKETS + 1 + super::private::prefix::ENTRIES);
}

/// Notes of deletions: what was there for a while, for watchers that did not see it.
pub mod note {
    /// `u64`: how many deletions were noted. The note of the `n`th is at place `n % NOTES`, as long as fewer than
    /// `NOTES` others follow it.
    pub const COUNT: u64 = 3200;
    /// How many there is room for. Fewer in models.
    pub const NOTES: u64 = if cfg!(loom) { 2 } else { 64 };
    /// Bytes of a note.
    pub const BYTES: u64 = 64;
    /// `u64`: version of the value that was deleted.
    pub const VERSION: u64 = 0;
    /// `u64`: hash of its key.
    pub const HASH: u64 = 8;
    /// `u64`: length of its key in bytes.
    pub const KEY_LEN: u64 = 16;
    /// The first bytes of its key.
    pub const KEY: u64 = 24;
    /// How many bytes of the key there is room for.
    pub const KEY_BYTES: u64 = BYTES - KEY;
}

/// Where limbo starts.
pub const LIMBO: u64 = 4096;

/// Offsets inside a reader's record, in the private part.
pub mod reader {
    /// Bytes of a record.
    pub const BYTES: u64 = 256;
    /// `u64`: whose the record is, by its [`IDENTITY`](super::participant::IDENTITY); 0 = nobody's.
    ///
    /// | from | to | who |
    /// |---|---|---|
    /// | 0 | a participant | that participant, which has found it free |
    /// | a participant | 0 | that participant; or, once it has died, a holder of the lock |
    pub const OWNER: u64 = 0;
    /// `u64` each: offset of the block that is pinned; 0 = none.
    pub const PINS: u64 = 64;
    /// How many pins a reader has. Fewer in models, where each look at one is a step.
    pub const MAX_PINS: u64 = if cfg!(loom) { 4 } else { 24 };
    /// The pin of what is copied when all others are in use.
    pub const COPY_PIN: u64 = MAX_PINS - 2;
    /// The pin of a pending block while what it stands for is being pinned. The last one, because
    /// what moves into it must be met by a writer that looks at the pins in their order.
    pub const SECOND_PIN: u64 = MAX_PINS - 1;
    /// How many pins hold what was read.
    pub const HELD_PINS: u64 = COPY_PIN;
}

/// Offsets inside a page's descriptor.
pub mod page {
    /// Bytes of a page.
    pub const PAGE_BYTES: u64 = super::PAGE_BYTES;
    /// Bytes of a descriptor.
    pub const BYTES: u64 = 32;
    /// `u64`, low half: how many pages the span has that starts here; 0 where none does. High half:
    /// its class; for a page inside a span, how many pages before it the span starts.
    pub const SPAN: u64 = 0;
    /// `u64` of a span: objects in use (16 bits), first free object plus one (16 bits, 0 = none),
    /// first object that was never used (16 bits).
    pub const STATE: u64 = 8;
    /// `u32`: the class's next span with room, as its first page plus one; 0 = none.
    pub const NEXT: u64 = 16;
    /// `u32`: the one before.
    pub const PREVIOUS: u64 = 20;
    /// `u64`: what [`EPOCH`](super::EPOCH) was raised to when the page was last taken. Stored before
    /// anything is written into the page. Readers that copy without pins look at it: while it stays,
    /// blocks start where they started.
    pub const EPOCH: u64 = 24;

    /// The word of a span, or, with no pages, of a page inside of one.
    pub const fn pack_span(pages: u32, class_or_back: u32) -> u64 {
        pages as u64 | (class_or_back as u64) << 32
    }
    /// Number of pages, 0 where no span starts.
    pub const fn pages(span: u64) -> u32 {
        span as u32
    }
    /// Class, or how far back the span starts.
    pub const fn class_or_back(span: u64) -> u32 {
        (span >> 32) as u32
    }
}

/// A table: a header, then slots.
pub mod table {
    /// `u64`: binary logarithm of the number of slots.
    pub const LOG2_SLOTS: u64 = 0;
    /// Bytes of the header.
    pub const HEADER_BYTES: u64 = 64;
    /// Fewest slots. Fewer in models, where each is a step when a table grows.
    pub const MIN_LOG2_SLOTS: u64 = if cfg!(loom) { 3 } else { 6 };
    /// Most slots.
    pub const MAX_LOG2_SLOTS: u64 = 36;
    /// Most slots of a table that compaction moves: it copies all of them in one operation.
    pub const MAX_MOVED_LOG2_SLOTS: u64 = 17;
}

/// A slot's word.
///
/// ```text
/// 63          48 47                                    0
/// +-------------+--------------------------------------+
/// | hash, low   | offset of the block / 16             |   0 = never used, 1 = deleted
/// +-------------+--------------------------------------+
/// ```
pub mod slot {
    /// Nothing has been here since the table was made.
    pub const EMPTY: u64 = 0;
    /// Something has been here: whoever searches goes on.
    pub const TOMBSTONE: u64 = 1;
    /// Blocks start on a multiple of it.
    pub const UNIT: u64 = 16;
    const OFFSET_BITS: u32 = 48;

    /// The word for a block of a key with this hash.
    pub const fn pack(block: u64, hash: u64) -> u64 {
        (block / UNIT) | (hash << OFFSET_BITS)
    }
    /// Offset of the block.
    pub const fn block(slot: u64) -> u64 {
        (slot & ((1 << OFFSET_BITS) - 1)) * UNIT
    }
    /// Whether the block can be that of a key with this hash.
    pub const fn may_be(slot: u64, hash: u64) -> bool {
        slot >> OFFSET_BITS == hash << OFFSET_BITS >> OFFSET_BITS && slot > TOMBSTONE
    }
}

/// A block: header, key, zeros to a multiple of 16, value.
pub mod block {
    /// `u64`: version of the value, never repeated; 0 while the block is free or being written.
    pub const VERSION: u64 = 0;
    /// `u64`: hash of the key.
    pub const HASH: u64 = 8;
    /// `u32`: length of the key in bytes.
    pub const KEY_LEN: u64 = 16;
    /// `u32`: what the block holds, in the low byte; see the constants below. The other three: of a
    /// value that was set as one of a type, a part of that type's fingerprint; else 0.
    pub const KIND: u64 = 20;
    /// `u64`: length of the value in bytes.
    pub const VALUE_LEN: u64 = 24;
    /// `u64`: checksum of all that, of the key and of the value.
    pub const CHECKSUM: u64 = 32;
    /// Where the key starts.
    pub const KEY: u64 = 40;

    /// A value.
    pub const KIND_VALUE: u32 = 1;
    /// What a slot says before and after a batch; see [`pending`](super::pending).
    pub const KIND_PENDING: u32 = 2;
    /// A batch; see [`batch`](super::batch).
    pub const KIND_BATCH: u32 = 3;

    /// The kind of a value with this tag, 24 bits of it.
    pub const fn kind_of_value(tag: u32) -> u32 {
        KIND_VALUE | tag << 8
    }
    /// The tag of a value of this kind; `None` where it is no value's.
    pub const fn tag(kind: u32) -> Option<u32> {
        if kind as u8 as u32 == KIND_VALUE { Some(kind >> 8) } else { None }
    }
    /// The tag of values of a type with this fingerprint; never 0.
    pub const fn tag_of(fingerprint: u64) -> u32 {
        let folded = (fingerprint ^ fingerprint >> 32) as u32;
        let tag = (folded ^ folded >> 8) & 0x00ff_ffff;
        if tag == 0 { 1 } else { tag }
    }

    /// Longest key in bytes.
    pub const MAX_KEY_BYTES: u64 = 64 << 10;

    /// Where the value starts.
    pub const fn value(key_len: u64) -> u64 {
        (KEY + key_len).next_multiple_of(super::slot::UNIT)
    }
}

/// The rest of a pending block: a slot that is part of a batch names it until the batch is over.
pub mod pending {
    /// `u64`: the slot's word where the batch is committed.
    pub const NEW: u64 = 24;
    /// `u64`: the slot's word where it is not.
    pub const OLD: u64 = 32;
    /// `u64`: offset of the batch's block.
    pub const BATCH: u64 = 40;
    /// Bytes of the block.
    pub const BYTES: u64 = 48;
}

/// The rest of a batch's block: its state, and what its writer has taken for it.
pub mod batch {
    /// `u64`: one of the two below. Stored once, which commits the batch.
    pub const STATE: u64 = 24;
    /// Nothing of the batch is there for readers.
    pub const PREPARED: u64 = 0;
    /// All of it is.
    pub const COMMITTED: u64 = 1;
    /// `u64`: how many entries there are. Grows as blocks are taken, and shrinks as they are put
    /// into limbo.
    pub const COUNT: u64 = 32;
    /// Where the entries start.
    pub const ENTRIES: u64 = 48;
    /// Bytes of an entry: offsets of a slot, of its pending block, and of the new value's block or 0.
    pub const ENTRY_BYTES: u64 = 24;
}

const _: () = {
    assert!(header::MUTEX_BYTES + 4 <= super::segment::CHECKSUM);
    assert!(usage::CLOSING >= super::segment::HEADER_BYTES && usage::FILE[2] + 8 <= ROOT);
    assert!(NEXT_TABLE_TAKEN + WORD_BYTES <= EPOCH);
    assert!(pending::BATCH + WORD_BYTES <= pending::BYTES);
    assert!(batch::COUNT + WORD_BYTES <= batch::ENTRIES);
    assert!(reader::HELD_PINS <= reader::COPY_PIN && reader::COPY_PIN < reader::SECOND_PIN);
    assert!(ROOT / LINE_BYTES != NEXT_VERSION / LINE_BYTES);
    assert!(ROOT / super::CACHE_LINE_BYTES == GENERATION / super::CACHE_LINE_BYTES);
    assert!(NEXT_PAGE + WORD_BYTES <= EPOCH && RECOVERIES + WORD_BYTES <= journal::HEAD);
    assert!(journal::PAIRS + journal::MAX_PAIRS * 16 <= CLASS_HEADS);
    assert!(CLASS_HEADS + MAX_CLASSES * 4 <= generation::of_bell(0));
    assert!(
        generation::of_bell(private::bell::BUCKETS - 1) + 4
            <= generation::of_bell(private::bell::BUCKETS)
    );
    assert!(generation::END <= note::COUNT);
    assert!(note::COUNT.is_multiple_of(WORD_BYTES) && note::COUNT + WORD_BYTES <= LIMBO);
    assert!(note::NOTES.is_power_of_two());
    // Else an entry's place would change where the count overflows.
    assert!(
        change_log::ENTRIES_OF_PREFIX.is_power_of_two()
            && change_log::ENTRIES_OF_ALL.is_power_of_two()
    );
    assert!(change_log::at(change_log::LOGS).is_multiple_of(WORD_BYTES));
    assert!(reader::PINS + reader::MAX_PINS * WORD_BYTES <= reader::BYTES);
    assert!(LIMBO.is_multiple_of(PAGE_BYTES));
    assert!(page::EPOCH + WORD_BYTES <= page::BYTES);
};
