//! The ring: records of any length from one producer to one consumer, in memory that both map.
//!
//! The channel's [`Sender`](crate::channel::Sender) and [`Receiver`](crate::channel::Receiver) call
//! it, and so do the fuzzers and the models; it never blocks, knows nothing
//! of processes, and allocates nothing but what [`Assembly`] puts long messages together in. What always holds: whatever the peer writes, an end stays inside its memory,
//! comes back in bounded time, and hands out only bytes that it has copied (or says
//! [`Corruption`](crate::error::Corruption) and never touches the ring again).
//!
//! # Protocol
//!
//! Positions are `u64`, count bytes, only grow (and wrap at 2^64); a position's place in the buffer
//! is its low bits. `tail` is where the producer writes next, `head` the first record that the
//! consumer has not released.
//!
//! **The header is the commit word.** The consumer waits for the word at its own position to
//! become non-zero; there is no shared write index. A small message and the news of it travel in one
//! cache line. The producer, to write a record of `size` bytes at `tail`:
//!
//! 1. checks `tail + size + 8 <= head + capacity` (the 8 are for step 2),
//! 2. stores zero at `tail + size`, where the next header will be,
//! 3. stores the payload,
//! 4. stores the header with Release: the record is committed.
//!
//! So the word at the producer's position is zero at every instant, and a consumer (or the
//! producer's successor, which walks the committed headers from `head`) that has seen a header with
//! Acquire finds zero or a whole record behind it. A producer killed between any two steps leaves
//! nothing visible.
//!
//! **Records are contiguous.** Where one does not fit before the end of the buffer, a padding record
//! fills the end, and its header is stored after that of the record behind it: padding is never
//! visible alone. A record of at most half the capacity fits eventually: padding is shorter than
//! the record, so `padding + size + 8 <= capacity`.
//!
//! **Fragments.** A message longer than a record travels in several of kind fragment, and
//! [`Assembly`] puts it together again. Each is committed and released by itself, so that the
//! message may be longer than the ring; what a crash can leave of it is dropped.
//!
//! **Batches** write many records and store the first header last.
//!
//! **Release of space.** The consumer copies the payload out, and stores `head` with Release when it
//! asks for the next record; the producer loads it with Acquire, and only when its cached copy says
//! that there is no room. A consumer that dies before the store leaves the record to its successor:
//! at-least-once.
//!
//! # Ordering pairs
//!
//! | store (Release) | load (Acquire) | what it carries |
//! |---|---|---|
//! | header, in [`Producer`], [`Reservation`], [`Batch`], [`Fragments`] | header, in [`Consumer::peek`] and in [`Producer::attach`] | payload, zero ahead, later headers of a batch |
//! | `head`, in [`Consumer::release`] | `head`, in the producer's refresh, and in both `attach` | the consumer's reads of the payload are over |
//!
//! # Alternatives that were measured
//!
//! `cargo bench --bench alternatives` runs one small ring as designed here, and with one thing done
//! the plain way. Ratios to the ring as designed in the same run, between two processors,
//! capacity 256 KiB, all bytes copied (round trip: lower is better; one way: higher is):
//!
//! | done the plain way | round trip 8 B, 64 B, 1 KiB | one way 8 B, 64 B, 1 KiB |
//! |---|---|---|
//! | a write index is published, and the consumer polls it | 1.65, 1.60, 1.22 | 1.06, 0.56, 1.07 |
//! | `head` is read for every message | 1.09, 1.03, 1.03 | 0.43, 0.59, 1.15 |
//! | the waiting word shares a line with `head` | 1.02, 1.04, 1.03 | 0.51, 0.57, 1.23 |
//! | a fence on the sender's side, before it looks for sleepers | 0.94, 1.01, 1.01 | 0.26, 0.43, 0.95 |
//!
//! So the header as commit word pays in latency and for messages of a line; what is read often and
//! what is written often belong on different lines; and the fence belongs to the sleeper
//! ([`wakeup`](crate::wakeup)).
//!
//! More was found by measuring (`cargo bench --bench roundtrip`, `--bench throughput`, with the line
//! below taken out or put in):
//!
//! - What shares the header's line is written last (`Producer::fill`).
//! - A waiting receiver asks for all lines in which it expects the record, as long as the one before,
//!   and not for the header's only: the sender writes them first, so they come while it writes the
//!   header's, and not one behind the other (`Consumer::poll_simple`). This is worth a third of a round
//!   trip in place, and the fence between two looks
//!   ([`Memory::stop_speculation`](crate::memory::Memory::stop_speculation)) a tenth at all short sizes.
//! - A header like the last one is not decoded, and the next position does not wait for it
//!   (`Consumer::simple`).
//! - A receiver that has caught up with a stream pauses for a microsecond: else both ends work in one
//!   line, and it goes to and fro for every message (`Receiver::poll`).
//! - Publishing `head` less often, asking for lines ahead with a write prefetch (by the sender, while it
//!   waits or as it writes), aligning records to lines: no gain that could be told from noise, or a loss
//!   (the write prefetch at a capacity beyond the second-level cache). `head` is therefore published
//!   with every release, and a receiver's death repeats one message and not many.
//!
//! A record of 8 bytes takes 16 of the ring, so in a small ring, where lines go from cache to cache, one
//! way is bound by twice the lines of a queue of bare words (rows "rigtorp's algorithm" and "rtrb bytes").
//! And a record that lies in two lines costs at best one line transfer, less what the second one
//! overlaps with it: where processors are near, that is more than the yardstick's.

mod assembly;
mod batch;
mod consumer;
mod fragments;
mod geometry;
mod kinds;
pub mod lossy;
mod producer;
mod push_error;
mod record;
mod reservation;
pub mod slots;
mod stats;
#[cfg(all(test, not(loom)))]
mod tests;
mod words;

pub(crate) use assembly::room_for;
pub use assembly::{Assembly, Whole};
pub use batch::Batch;
pub(crate) use batch::BatchDraft;
pub use consumer::Consumer;
pub use consumer::ConsumerStats;
pub use fragments::Fragments;
pub use geometry::RingGeometry;
pub use producer::Producer;
pub use push_error::PushError;
pub use record::{Record, RecordKind};
pub(crate) use reservation::Draft;
#[cfg(not(loom))]
pub(crate) use reservation::InPlaceDraft;
pub use reservation::Reservation;
pub use stats::ProducerStats;
