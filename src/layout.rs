//! Where everything lies in a shared segment: offsets, widths, values.
//!
//! Every module that reads or writes shared memory takes its offsets from here; nothing else in the
//! crate knows a number. All words are in native byte order, which the fingerprint covers; all
//! widths are explicit. Changing anything here that a peer could notice means a new
//! [`LAYOUT_VERSION`].
//!
//! # A channel segment
//!
//! ```text
//! offset      what                                         who writes it, when
//! 0           segment header, 128 bytes                    creator, once, before anybody attaches
//! 128         side 0 (creator): line                       side 0 only
//! 256         side 1 (attacher): line                      side 1 only
//! 384         side 0: processors, 128 bytes                side 0 only
//! 512         side 1: processors, 128 bytes                side 1 only
//! 640..1024   reserved, zero
//! 1024        ring 0 control, 1024 bytes (side 0 → 1)      see below
//! 2048        ring 1 control, 1024 bytes (side 1 → 0)      see below
//! 3072..4096  reserved, zero
//! 4096        ring 0 data: capacity + 64 bytes
//! ...         ring 1 data: capacity + 64 bytes, on a 64-byte boundary
//! ...         end, rounded up to 4096
//! ```
//!
//! # A segment header
//!
//! ```text
//!   0  u64 magic              8  u32 layout version   12  u32 kind (1 = channel, 2 = store, 3 = a store's private part)
//!  16  u64 fingerprint       24  u64 segment length in bytes
//!  32  u64 incarnation, low  40  u64 incarnation, high
//!  48  u64 capacity of ring 0 in bytes                56  u64 capacity of ring 1 in bytes
//!  64  u32 payload alignment 68  u32 fence mode       72  u64 type fingerprint (0 = untyped)
//!  80  u64 longest message in bytes
//!  88  u32 kind of ring 0    92  u32 kind of ring 1 (0 = records, 1 = lossy, 2 = slots)
//!  96  u32 wakeups (0 = futex, 1 = event)            100  u32 bytes of a message in slots
//! 104..120 reserved, zero   120  u64 checksum of bytes 0..120
//! ```
//!
//! # A side's line
//!
//! ```text
//! +0   u32 state                 +4   u32 poisoned, never taken back
//! +8   u32 process id            +12  u32 how many times the side has been attached; a futex word
//! +16  u64 inode of the process's pidfd, 0 = unknown
//! +24  u64 its pid namespace     +32  u64 hash of the boot id that it was attached in
//! +40  u64 process token         +48  u64 token of the process that this side has flushed
//! +56  u32 how this side wakes
//! ```
//! Up to `+32`, everything but the state is written before the state says *attached*, by the process
//! that takes the side; the words from `+16` to `+32` are for segments with a name, and zero in others.
//!
//! The words from `+40` on belong to `memory::fences`, and are zero where both sides always fence:
//!
//! | word | values | when its side writes it |
//! |---|---|---|
//! | process token | 0, then a number that no other process has | once it is registered for membarrier, behind its processors |
//! | flushed | 0, or a process token of the peer | once a thread has run on each processor that either side may use |
//! | how it wakes | `FENCES`, `RELIES_ON_GLOBAL`, `RELIES_ON_PRIVATE` | before its wakes do without a fence |
//!
//! A side's processors are a bit each, the lowest first: those that its process may use.
//!
//! # A file's claims
//!
//! Locks on bytes far behind a file's end, by open file description. Who holds the byte of a side is
//! the process that has it; who attaches, replaces or removes holds the gate meanwhile. All who use a
//! store share the bytes of both sides; who has them for himself is alone with it.
//!
//! ```text
//! 2^62        side 0        2^62 + 1    side 1        2^62 + 2    gate
//! 2^62 + 4096 + n           participant n of a store
//! ```
//!
//! # A ring's control block
//!
//! Lines are 128 bytes apart, because some processors fetch 64-byte lines in pairs.
//!
//! ```text
//! +0    u32 consumer waiting   0 or 1; the consumer arms it, the producer takes it back with a swap
//! +4    u32 consumer closed    0, then 1 for ever; consumer
//! +8    u32 consumer's only processor, plus one, or 0; consumer; a hint
//!       (the producer reads this line on every send; it changes only when somebody sleeps)
//! +128  u32 producer waiting   as above with the sides exchanged
//! +132  u32 producer closed    0, then 1 for ever; producer
//! +136  u64 space wanted       the head that a waiting producer needs; producer
//! +144  u32 producer's only processor, plus one, or 0; producer; a hint
//!       (the consumer reads this line on every release; it changes only when somebody sleeps)
//! +256  u64 head               first position not yet released; consumer
//! +264  consumer's counters    consumer; may lag by some messages while it is busy
//! +384  u64 tail               a hint for tools, never read by the protocol; producer
//! +392  producer's counters    producer; `tail` and they may lag by some messages
//! +440  u64 dropped            messages that a policy dropped for want of room; producer
//! +448  u64 missed             announcements that the consumer did not see; producer
//! +640  consumer's event       192 bytes; where wakeups are events, else zero: a `raw_sync` event on
//!                              which a waiting consumer sleeps; the creator initialises it
//! +832  producer's event       192 bytes; as above, for a waiting producer
//! ```
//!
//! In a lossy ring (`ring::lossy`) the producer never looks at a head. Instead:
//!
//! ```text
//! +256  u64 settled            number of the first message that the consumer has neither taken nor
//!                              counted as lost; consumer
//! +352  u64 lost, as of        two pairs of (settled, messages lost until then); the one in effect
//!       u64 lost               is the one whose number is not beyond `settled` and nearest to it;
//! +368  the other pair         consumer
//! +512  u64 intent             the producer may be writing anything before this position
//! +520  u64 oldest             first record that lies within a capacity of `intent`; producer
//! +528  u64 retired            number of that record, for tools; producer
//! +576  u64 landmarks, 8       a record's start in each eighth of the ring; producer
//! ```
//!
//! What stands in a ring is told in [`record`] and [`fragment`], a store's segment in [`store`].

pub mod fragment;
pub mod record;
pub mod store;

/// First word of every ringway segment.
pub const MAGIC: u64 = u64::from_le_bytes(*b"ringway\x01");

/// Version of everything described in this module. Independent of the crate's version.
pub const LAYOUT_VERSION: u32 = 2;

/// What the machine and this build must agree on with the peer: byte order, word size, the
/// granularity at which control words are spread. A peer with another value cannot attach.
pub const FINGERPRINT: u64 = fingerprint();

const fn fingerprint() -> u64 {
    let order = u16::from_ne_bytes([1, 2]) as u64;
    let word_bytes = core::mem::size_of::<usize>() as u64;
    let line_bytes = LINE_BYTES;
    (order << 48) | (word_bytes << 32) | line_bytes
}

/// Distance between control words that different sides write.
pub const LINE_BYTES: u64 = 128;
/// What one transfer between processors carries.
pub const CACHE_LINE_BYTES: u64 = 64;
/// Pages are taken to be this large where a region must start on one.
pub const PAGE_BYTES: u64 = 4096;
/// Width of a word; all records start on a multiple of it.
pub const WORD_BYTES: u64 = 8;

/// Offsets inside the segment header.
pub mod segment {
    /// [`MAGIC`](super::MAGIC).
    pub const MAGIC: u64 = 0;
    /// `u32`, [`LAYOUT_VERSION`](super::LAYOUT_VERSION).
    pub const VERSION: u64 = 8;
    /// `u32`, what kind of segment this is.
    pub const KIND: u64 = 12;
    /// [`FINGERPRINT`](super::FINGERPRINT).
    pub const FINGERPRINT: u64 = 16;
    /// Length of the whole segment in bytes.
    pub const LEN_BYTES: u64 = 24;
    /// Low and high half of the 128-bit incarnation.
    pub const INCARNATION: [u64; 2] = [32, 40];
    /// Capacities of the two rings in bytes; powers of two.
    pub const CAPACITY_BYTES: [u64; 2] = [48, 56];
    /// `u32`, alignment of payloads in bytes: 8, 16, 32 or 64.
    pub const PAYLOAD_ALIGN: u64 = 64;
    /// `u32`, who may leave fences out: 1 = a waker that has been flushed; 2 = nobody.
    pub const FENCE_MODE: u64 = 68;
    /// Fingerprint of the messages' type; 0 where there is none.
    pub const TYPE_FINGERPRINT: u64 = 72;
    /// Longest message in bytes; longer than a record it travels in fragments.
    pub const MAX_MESSAGE_BYTES: u64 = 80;
    /// `u32` each, what kind of ring each of the two is: [`RING_RECORDS`] or another.
    pub const RING_KIND: [u64; 2] = [88, 92];
    /// `u32`, how sleepers are woken: [`WAKEUP_FUTEX`] or another.
    pub const WAKEUP: u64 = 96;
    /// `u32`, bytes of a message, where a ring has slots; of the longer one where the two rings'
    /// messages differ; else 0.
    pub const SLOT_BYTES: u64 = 100;
    /// Checksum of all header bytes before it.
    pub const CHECKSUM: u64 = 120;
    /// Length of the header.
    pub const HEADER_BYTES: u64 = 128;

    /// Value of [`KIND`] for a channel.
    pub const KIND_CHANNEL: u32 = 1;
    /// Value of [`KIND`] for a store, whose header differs from byte 48 on; see
    /// [`store::header`](super::store::header).
    pub const KIND_STORE: u32 = 2;
    /// Value of [`KIND`] for the private part of a store; see
    /// [`store::private`](super::store::private).
    pub const KIND_STORE_PRIVATE: u32 = 3;

    /// A ring of records of any length, none of which is lost.
    pub const RING_RECORDS: u32 = 0;
    /// A ring of records whose oldest are overwritten when it is full.
    pub const RING_LOSSY: u32 = 1;
    /// A ring of slots of one length.
    pub const RING_SLOTS: u32 = 2;

    /// Sleepers wait on futexes.
    pub const WAKEUP_FUTEX: u32 = 0;
    /// Sleepers wait on events of the `raw_sync` crate, all of whose users trust each other.
    pub const WAKEUP_EVENT: u32 = 1;
}

/// Offsets inside the state line of one side of a channel.
pub mod side {
    /// Where the line of each side starts.
    pub const LINE: [u64; 2] = [128, 256];
    /// `u32`: [`ABSENT`], [`ATTACHED`] or [`CLOSED`]; a futex word; only its own side writes it.
    pub const STATE: u64 = 0;
    /// `u32`: 1 once this side has found the channel corrupt; never back; its own side writes it.
    pub const POISONED: u64 = 4;
    /// `u32`: process id of this side in its own namespace; a hint.
    pub const PID: u64 = 8;
    /// `u32`: how many times this side was attached, modulo 2^32; a futex word. Whoever takes the
    /// side adds one, last but for the state.
    pub const ATTACHES: u64 = 12;
    /// `u64`: inode of the process's pidfd; 0 where the kernel has none that names one process only.
    pub const PIDFD_INODE: u64 = 16;
    /// `u64`: number of the process's pid namespace; 0 = unknown.
    pub const PID_NAMESPACE: u64 = 24;
    /// `u64`: hash of the boot id when the side was attached; 0 = unknown.
    pub const BOOT: u64 = 32;
    /// `u64`: a number that no other process has, once this side is registered for membarrier.
    pub const TOKEN: u64 = 40;
    /// `u64`: token of the peer's process whose registration this side has completed; 0 = none.
    pub const FLUSHED: u64 = 48;
    /// `u32`: [`FENCES`], [`RELIES_ON_GLOBAL`] or [`RELIES_ON_PRIVATE`].
    pub const WAKES: u64 = 56;
    /// Where the processors of each side stand.
    pub const CPUS: [u64; 2] = [384, 512];
    /// Length of a side's processors; a process that may use others as well stays with fences.
    pub const CPUS_BYTES: u64 = 128;

    /// The side executes a fence between its news and its look for sleepers.
    pub const FENCES: u32 = 0;
    /// It does not: a sleeper must issue the global barrier.
    pub const RELIES_ON_GLOBAL: u32 = 1;
    /// It does not: both sides are in one process, and a sleeper must issue the private barrier.
    pub const RELIES_ON_PRIVATE: u32 = 2;

    /// Nobody has attached this side yet.
    pub const ABSENT: u32 = 0;
    /// Attached.
    pub const ATTACHED: u32 = 1;
    /// Both ends of this side are closed.
    pub const CLOSED: u32 = 2;
}

/// Bytes of a file that are locked, and lie behind every segment's end.
pub mod claim {
    /// The byte of each side.
    pub const SIDE: [u64; 2] = [1 << 62, (1 << 62) + 1];
    /// Both sides' bytes, from the first.
    pub const SIDES_BYTES: u64 = 2;
    /// Held by whoever attaches, replaces or removes.
    pub const GATE: u64 = (1 << 62) + 2;
    /// The byte of a store's first participant; the others follow it.
    pub const PARTICIPANT: u64 = (1 << 62) + 4096;
}

/// Offsets inside a ring's control block.
pub mod ring {
    /// Where the control block of each ring starts in a channel segment.
    pub const CONTROL: [u64; 2] = [1024, 2048];
    /// Length of a control block.
    pub const CONTROL_BYTES: u64 = 1024;

    /// `u32`: 1 while the consumer sleeps or is about to.
    pub const CONSUMER_WAITING: u64 = 0;
    /// `u32`: 1 once the consumer has closed.
    pub const CONSUMER_CLOSED: u64 = 4;
    /// `u32`: the only processor that the consumer may run on, plus one; 0 = several. A hint.
    pub const CONSUMER_CPU: u64 = 8;
    /// `u32`: 1 while the producer sleeps or is about to.
    pub const PRODUCER_WAITING: u64 = 128;
    /// `u32`: 1 once the producer has closed.
    pub const PRODUCER_CLOSED: u64 = 132;
    /// `u64`: the head that the sleeping producer waits for.
    pub const SPACE_WANTED: u64 = 136;
    /// `u32`: the only processor that the producer may run on, plus one; 0 = several. A hint.
    pub const PRODUCER_CPU: u64 = 144;
    /// `u64`: first position that the consumer has not released.
    pub const HEAD: u64 = 256;
    /// `u64`: messages released by the consumer.
    pub const CONSUMER_MESSAGES: u64 = 264;
    /// `u64`: payload bytes released by the consumer.
    pub const CONSUMER_BYTES: u64 = 272;
    /// `u64`: times the consumer went to sleep.
    pub const CONSUMER_SLEEPS: u64 = 280;
    /// `u64`: wakeups the consumer sent to the producer.
    pub const CONSUMER_WAKEUPS: u64 = 288;
    /// `u64`: messages that came in part and were dropped by the consumer.
    pub const CONSUMER_PARTIALS: u64 = 296;
    /// `u64`: replies that nobody waited for any more.
    pub const CONSUMER_STRAY_REPLIES: u64 = 304;
    /// `u64`: announcements of the consumer that the producer did not see.
    pub const CONSUMER_MISSED: u64 = 312;
    /// `u64`, lossy rings: number of the first message neither taken nor lost.
    pub const SETTLED: u64 = HEAD;
    /// Lossy rings: two pairs of `u64`, a number and how many messages before it were lost.
    pub const LOSSES: [u64; 2] = [352, 368];
    /// `u64`: position behind the last committed record; a hint for tools.
    pub const TAIL: u64 = 384;
    /// `u64`: messages committed.
    pub const PRODUCER_MESSAGES: u64 = 392;
    /// `u64`: payload bytes committed.
    pub const PRODUCER_BYTES: u64 = 400;
    /// `u64`: times the producer went to sleep for space.
    pub const PRODUCER_SLEEPS: u64 = 408;
    /// `u64`: wakeups the producer sent to the consumer.
    pub const PRODUCER_WAKEUPS: u64 = 416;
    /// `u64`: times the ring had no room.
    pub const PRODUCER_FULL: u64 = 424;
    /// `u64`: most bytes seen in the ring, sampled whenever the producer looks at `head`.
    pub const PRODUCER_HIGH_WATER: u64 = 432;
    /// `u64`: messages that the producer dropped because the ring had no room.
    pub const PRODUCER_DROPPED: u64 = 440;
    /// `u64`: announcements of the producer that the consumer did not see.
    pub const PRODUCER_MISSED: u64 = 448;
    /// `u64`, lossy rings: the producer may be writing anything before this position.
    pub const INTENT: u64 = 512;
    /// `u64`, lossy rings: first record that lies within a capacity of the intent.
    pub const OLDEST: u64 = 520;
    /// `u64`, lossy rings: number of that record; for tools.
    pub const RETIRED: u64 = 528;
    /// `u64`, lossy rings: the first of [`LANDMARK_COUNT`] positions of records.
    pub const LANDMARKS: u64 = 576;
    /// How many landmarks a lossy ring has.
    pub const LANDMARK_COUNT: u64 = 8;
    /// The event on which a waiting consumer sleeps, where wakeups are events.
    pub const CONSUMER_EVENT: u64 = 640;
    /// The event on which a waiting producer sleeps, where wakeups are events.
    pub const PRODUCER_EVENT: u64 = 832;
    /// Room for an event.
    pub const EVENT_BYTES: u64 = 192;
}

/// Where the data of ring 0 starts in a channel segment.
pub const CHANNEL_DATA: u64 = PAGE_BYTES;
/// Bytes behind each ring's capacity, so that payloads can be aligned (see
/// [`ring_data_shift`]).
pub const RING_SLACK_BYTES: u64 = 64;
/// Smallest ring.
pub const MIN_CAPACITY_BYTES: u64 = 64;
/// Smallest lossy ring: a record is at most a quarter of it.
pub const MIN_LOSSY_CAPACITY_BYTES: u64 = 128;
/// Largest ring: a record's length must fit in the header's 32 bits.
pub const MAX_CAPACITY_BYTES: u64 = 1 << 32;

/// How far a ring's data is moved so that the *payload* of its first record, one word behind the
/// record's start, lies on a multiple of `align`.
pub const fn ring_data_shift(align: u64) -> u64 {
    align - WORD_BYTES
}

/// Offsets of a channel's parts, computed from its two capacities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelLayout {
    /// Where the data region of each ring starts (before the alignment shift).
    pub data: [u64; 2],
    /// Length of the segment.
    pub len_bytes: u64,
}

impl ChannelLayout {
    /// The layout for two rings; `None` where a sum overflows.
    pub const fn new(capacity_bytes: [u64; 2]) -> Option<Self> {
        let Some(first) = region_bytes(capacity_bytes[0]) else { return None };
        let Some(second) = region_bytes(capacity_bytes[1]) else { return None };
        let Some(data_1) = CHANNEL_DATA.checked_add(first) else { return None };
        let Some(end) = data_1.checked_add(second) else { return None };
        let Some(len_bytes) = end.checked_next_multiple_of(PAGE_BYTES) else { return None };
        Some(Self { data: [CHANNEL_DATA, data_1], len_bytes })
    }
}

const fn region_bytes(capacity_bytes: u64) -> Option<u64> {
    let Some(sum) = capacity_bytes.checked_add(RING_SLACK_BYTES) else { return None };
    sum.checked_next_multiple_of(64)
}

const _: () = {
    assert!(segment::CHECKSUM + 8 == segment::HEADER_BYTES);
    assert!(segment::HEADER_BYTES <= side::LINE[0]);
    assert!(side::LINE[1] + LINE_BYTES <= ring::CONTROL[0]);
    assert!(side::WAKES + 4 <= LINE_BYTES);
    assert!(side::LINE[1] + LINE_BYTES <= side::CPUS[0]);
    assert!(side::CPUS[0] + side::CPUS_BYTES <= side::CPUS[1]);
    assert!(side::CPUS[1] + side::CPUS_BYTES <= ring::CONTROL[0]);
    assert!(claim::SIDE[0] + claim::SIDES_BYTES == claim::GATE && claim::GATE < i64::MAX as u64);
    assert!(2 * MAX_CAPACITY_BYTES + 2 * CHANNEL_DATA < claim::SIDE[0]);
    assert!(ring::CONTROL[0] + ring::CONTROL_BYTES <= ring::CONTROL[1]);
    assert!(ring::CONTROL[1] + ring::CONTROL_BYTES <= CHANNEL_DATA);
    assert!(ring::LANDMARKS + 8 * ring::LANDMARK_COUNT <= ring::CONTROL_BYTES);
    assert!(ring::LOSSES[0] > ring::CONSUMER_MISSED && ring::LOSSES[1] == ring::LOSSES[0] + 16);
    assert!((ring::LOSSES[1] + 8) / LINE_BYTES == ring::SETTLED / LINE_BYTES);
    assert!(ring::INTENT / LINE_BYTES == ring::LANDMARKS / LINE_BYTES);
    assert!(ring::LANDMARKS + 8 * ring::LANDMARK_COUNT <= ring::CONSUMER_EVENT);
    assert!(ring::CONSUMER_EVENT + ring::EVENT_BYTES <= ring::PRODUCER_EVENT);
    assert!(ring::PRODUCER_EVENT + ring::EVENT_BYTES <= ring::CONTROL_BYTES);
    assert!((ring::CONSUMER_EVENT | ring::PRODUCER_EVENT).is_multiple_of(CACHE_LINE_BYTES));
    assert!(ring::CONSUMER_CLOSED < LINE_BYTES);
    assert!(ring::PRODUCER_WAITING / LINE_BYTES == ring::SPACE_WANTED / LINE_BYTES);
    assert!(ring::HEAD / LINE_BYTES == ring::CONSUMER_MISSED / LINE_BYTES);
    assert!(ring::TAIL / LINE_BYTES == ring::PRODUCER_MISSED / LINE_BYTES);
    assert!(ring_data_shift(64) < RING_SLACK_BYTES);
    assert!(record::DATA != 0 && record::PADDING != 0);
};
