//! What can go wrong, one small enum per operation, and [`Error`](enum@Error), which holds them all.
//!
//! Callers match on the small ones; `?` in a `main` collects them in the large one.
//! What always holds: an error says what was found and what would have been right, and an operation
//! that returns one has changed nothing, unless its documentation says otherwise.

use std::io;
use std::time::Duration;

use thiserror::Error;

mod corruption;
mod naming;

pub use corruption::Corruption;
pub use naming::NameError;

/// Why a segment could not be created or attached.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// A capacity that no ring can have.
    #[error(
        "a ring's capacity of {found} bytes is not possible: it must be a power of two from {min} to {max}"
    )]
    Capacity {
        /// What was asked for.
        found: u64,
        /// Smallest possible.
        min: u64,
        /// Largest possible.
        max: u64,
    },
    /// A payload alignment that no channel can have.
    #[error(
        "a payload alignment of {found} bytes is not possible: it must be 8, 16, 32 or 64, and at most half the capacity"
    )]
    Alignment {
        /// What was asked for.
        found: u64,
    },
    /// A bound on messages that no channel can have.
    #[error(
        "a longest message of {found} bytes is not possible: `max_message_bytes` must be from 1 to {max}"
    )]
    MaxMessage {
        /// What was asked for.
        found: u64,
        /// Largest possible.
        max: u64,
    },
    /// A ring of slots whose slots have no length, or too large a one; or a length without such a
    /// ring.
    #[error(
        "slots of {found} bytes are not possible: a ring of slots needs from 1 to {max}, others have none; use a larger capacity or a smaller type"
    )]
    SlotBytes {
        /// What was asked for.
        found: u32,
        /// Largest possible.
        max: u64,
    },
    /// Measures that no store can have.
    #[error(
        "a store of {pages} pages of 4096 bytes and with {readers} readers: it must have from 16 to 2^31 pages and from 1 to 65536 readers"
    )]
    StoreMeasures {
        /// Pages of the arena.
        pages: u64,
        /// Reader records.
        readers: u64,
    },
    /// More keys are expected than the store has room for.
    #[error(
        "a store of {capacity_bytes} bytes for {keys} expected keys: their table and a shortest value for each need {needed_bytes} bytes; create it with a larger capacity_bytes, or with fewer expected_keys"
    )]
    ExpectedKeys {
        /// How many keys are expected.
        keys: u64,
        /// The least capacity that has room for them.
        needed_bytes: u64,
        /// The capacity that was asked for.
        capacity_bytes: u64,
    },
    /// The store belongs to processes of another pid namespace: what its lock says about dead holders
    /// would not be true here.
    #[error(
        "the store is used by processes of {}, this process is in {}: here it can only be read by copying (open_read_only, attach_read_only)",
        pid_namespace(*found), pid_namespace(*expected)
    )]
    PidNamespace {
        /// Number of the namespace of those who use it; 0 where it is not known.
        found: u64,
        /// Number of this process's; 0 where it is not known.
        expected: u64,
    },
    /// Nobody could ever prove that this process has died, and take back what it has in the store.
    #[error(
        "the store cannot be used for writing here: proving a death needs /proc, to open the store's memory file a second time and lock a byte of it, or a kernel from 6.9 on, whose pidfds have inodes; mount /proc or read by copying"
    )]
    NoProofOfDeath,
    /// The store holds what no writer leaves, and cannot be brought in order.
    #[error(
        "the store is damaged and cannot be brought in order: {what}; restore it from a copy, or remove it"
    )]
    Damaged {
        /// What is not as it should be.
        what: &'static str,
    },
    /// The memory for the segment is not to be had.
    #[error(
        "there is no memory for a segment of {len_bytes} bytes: {source}; ask for a smaller one, or free memory"
    )]
    NoSpace {
        /// Length of the segment.
        len_bytes: u64,
        /// What the system said.
        source: io::Error,
    },
    /// Longer than the files of this process may become.
    #[error(
        "a segment of {len_bytes} bytes: files of this process may have {limit_bytes} bytes at most; raise RLIMIT_FSIZE (ulimit -f, LimitFSIZE=), or ask for less"
    )]
    FileLimit {
        /// Length of the segment.
        len_bytes: u64,
        /// `RLIMIT_FSIZE`.
        limit_bytes: u64,
    },
    /// The descriptor is not an anonymous memory file.
    #[error(
        "the descriptor is not a sealed memory file, but {found}; pass one that `descriptor()` returned"
    )]
    NotMemory {
        /// What it is instead.
        found: String,
    },
    /// The second of two memory files is not the private part of the store in the first one.
    #[error(
        "the memory file given as the private part of a store is {found}, expected that of store {expected:#034x}; take both descriptors from one call of `descriptor_writable`"
    )]
    NotItsPrivatePart {
        /// What it is instead.
        found: String,
        /// Incarnation of the store in the first one.
        expected: u128,
    },
    /// A memory file that can still shrink or grow.
    #[error(
        "the memory file is not sealed against shrinking and growing (seals {found:#x}, needed {needed:#x}); pass one that `descriptor()` returned"
    )]
    Unsealed {
        /// `F_GET_SEALS`.
        found: u32,
        /// What must be among them.
        needed: u32,
    },
    /// Too short for what its header says, or for a header.
    #[error("the segment has {found} bytes, {needed} are needed: it was cut; create it anew")]
    TooSmall {
        /// Length found.
        found: u64,
        /// Length needed.
        needed: u64,
    },
    /// Not a ringway segment, or damaged, or of another layout.
    #[error(
        "the segment is not compatible: its {field} is {found:#x}, expected {expected:#x}; {}",
        next_step(field)
    )]
    Incompatible {
        /// Which header field differs.
        field: &'static str,
        /// Its value.
        found: u64,
        /// What this build expects there.
        expected: u64,
    },
    /// The channel was created for other types of messages.
    #[error(
        "the channel's messages are {}, and this side sends {sends} and receives {receives}; build both sides from the same types, and let one send what the other receives",
        if *found == 0 { "bytes" } else { "of other types" }
    )]
    Types {
        /// What this side sends.
        sends: &'static str,
        /// What this side receives.
        receives: &'static str,
        /// Fingerprint of the channel's types; 0 where it has none.
        found: u64,
        /// Fingerprint of this side's types.
        expected: u64,
    },
    /// The segment is fenced by membarrier, and this process cannot register for it.
    #[error(
        "the segment needs the system call membarrier, which this process cannot register for: {source}; allow it, or create the channel with `FenceMode::Real`"
    )]
    Membarrier {
        /// What the system said.
        source: io::Error,
    },
    /// A side that somebody has attached already.
    #[error(
        "this side of the channel is attached already; each side is for one process: pass each descriptor on once"
    )]
    AlreadyAttached,
    /// The rings cannot be attached: what is written in them is impossible.
    #[error("the channel in this segment is corrupt: {0}; create it anew")]
    Corrupt(#[from] Corruption),
    /// Something about the name or the file of the segment.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A system call failed.
    #[error("the system call {call} failed for a segment or channel: {source}")]
    Os {
        /// Which call.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
}

/// Names a pid namespace in an error.
fn pid_namespace(number: u64) -> String {
    match number {
        0 => "a pid namespace that is not known, for want of /proc".into(),
        number => format!("pid namespace {number}"),
    }
}

/// What to do about a header field that differs.
fn next_step(field: &str) -> &'static str {
    match field {
        "magic" => "it is no segment of ringway: use another file",
        "layout version" | "fingerprint" | "C library" | "bytes of a mutex" => {
            "it was made by another build: build both sides from one version, or create it anew"
        }
        "kind" => {
            "1 is a channel, 2 is a store, 3 is a store's private part: open it as what it is, or use another name"
        }
        "kind of ring" => "0 is records, 1 is lossy, 2 is slots: open it as what it is",
        "wakeups" => "0 is futexes, 1 is events: attach it as it was created",
        _ => "its header is damaged: create it anew",
    }
}

/// Why a plugin process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ExitReason {
    /// It exited by itself.
    #[error("exited with code {0}")]
    Code(i32),
    /// A signal ended it.
    #[error("killed by signal {0}")]
    Signal(i32),
    /// It is gone; somebody else has reaped it.
    #[error("ended for an unknown reason (another part of the process has reaped it)")]
    Unknown,
}

macro_rules! channel_errors {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident($text:literal) $({ $($(#[$fdoc:meta])* $field:ident : $type:ty),* })?,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$vdoc])* #[error($text)] $variant $({ $($(#[$fdoc])* $field: $type),* })?,)*
            /// The peer has closed its end, or died; nothing is left to read.
            #[error("the peer has closed its end or died, and nothing is left to read")]
            Disconnected,
            /// Nobody is at the other side of a named channel, and nobody will come: its name means
            /// another segment by now, or none. Noticed within a few seconds. Open the name again.
            #[error(
                "nobody is at the other side, and the channel's name means another segment, or none; open the name again"
            )]
            Superseded,
            /// The peer wrote something impossible; the channel stays poisoned.
            #[error("the channel is corrupt and stays closed: {0}")]
            Corrupt(#[from] Corruption),
            /// The process has forked since this end was attached; it belongs to the parent.
            #[error("this end of the channel belongs to the process that this one was forked from; attach or open the channel in this process")]
            Forked,
            /// The plugin at the other end has ended and been started again. Told once; unread
            /// messages have been carried over. A message that was to be sent has not been.
            #[error("the peer was restarted ({reason}); this is told once, and a message that was to be sent has not been: go on with this end")]
            Restarted {
                /// Why the former one ended.
                reason: ExitReason
            },
        }
    )*};
}

macro_rules! send_errors {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident($text:literal) $({ $($(#[$fdoc:meta])* $field:ident : $type:ty),* })?,)* })*) => {
        channel_errors! {$(
            $(#[$doc])*
            $name {
                $($(#[$vdoc])* $variant($text) $({ $($(#[$fdoc])* $field: $type),* })?,)*
                /// Longer than the channel takes.
                TooLong("a message of {len} bytes is too long: this channel takes at most {max}; create it with a larger `max_message_bytes`") {
                    /// Length of the message.
                    len: u64,
                    /// Longest possible.
                    max: u64
                },
                /// The value could not be serialised.
                Serialise("the value could not be serialized: its type's Serialize failed, or memory ran out"),
            }
        )*}
    };
}

macro_rules! recv_errors {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident($text:literal),)* })*) => {
        channel_errors! {$(
            $(#[$doc])*
            $name {
                $($(#[$vdoc])* $variant($text),)*
                /// The message has another length than the buffer or type that was to take it. It
                /// has not been taken: `recv` still returns it, `skip` drops it.
                Mismatch("the next message has {found} bytes, expected {expected}; it stays: receive it with `recv`, or drop it with `skip`") {
                    /// Length of the message.
                    found: u64,
                    /// Length that would have fitted.
                    expected: u64
                },
                /// The message is not a value of the type asked for. It has not been taken: `recv`
                /// still returns it, `skip` drops it.
                Invalid("the next message is not a valid value of the type asked for; it stays: receive it with `recv`, or drop it with `skip`"),
            }
        )*}
    };
}

send_errors! {
    /// Why a message was not sent.
    SendError {}
    /// Why a message was not sent now.
    TrySendError {
        /// No room in the ring.
        Full("the ring is full: the peer has not read; try again later, or wait with `send_timeout`"),
        /// Longer than a record can be: only calls that wait send it, in fragments.
        WouldFragment("a message of {len} bytes travels in fragments, which this call does not send: at most {max} go in one record; use `send` or `send_timeout`") {
            /// Length of the message.
            len: u64,
            /// Longest that goes in one record.
            max: u64
        },
    }
    /// Why a message was not sent in time.
    SendTimeoutError {
        /// No room in the ring until the deadline.
        Timeout("the message was not sent: the ring was full until the deadline, the peer has not read"),
    }
    /// Why a message was neither sent nor dropped by its sender's policy.
    OfferError {
        /// No room in the ring, and the policy is to fail then.
        Full("the ring is full: the peer has not read; try again later, or wait with `send_timeout`"),
        /// No room in the ring for as long as the policy waits.
        Timeout("the message was not sent: the ring was full until the deadline, the peer has not read"),
        /// Longer than a record can be, and the policy is not to wait: it would have to travel in
        /// fragments.
        WouldFragment("a message of {len} bytes travels in fragments, which this call does not send: at most {max} go in one record; use `send` or `send_timeout`") {
            /// Length of the message.
            len: u64,
            /// Longest that goes in one record.
            max: u64
        },
    }
}

recv_errors! {
    /// Why no message was received.
    RecvError {}
    /// Why no message was received now.
    TryRecvError {
        /// Nothing to read.
        Empty("the ring is empty: no message has come"),
    }
    /// Why no message was received in time.
    RecvTimeoutError {
        /// Nothing came until the deadline.
        Timeout("no message came until the deadline"),
    }
}

channel_errors! {
    /// Why a call got no reply.
    CallError {
        /// No reply until the deadline, or no room to send the call.
        Timeout("no reply came until the deadline; the call may have been carried out"),
        /// Too many messages wait to be received before the reply. Receive some first.
        Backlog("{waiting_bytes} bytes of other messages came before the reply; receive some of them, then finish the call") {
            /// Bytes of the messages that wait, in the ring and beside it.
            waiting_bytes: u64
        },
        /// The call was answered before, or begun on another channel.
        NotPending("the call is not pending on this channel: it was answered before, or begun on another one"),
        /// Longer than the channel takes.
        TooLong("a message of {len} bytes is too long: this channel takes at most {max}; create it with a larger `max_message_bytes`") {
            /// Length of the message.
            len: u64,
            /// Longest possible.
            max: u64
        },
        /// The value could not be serialised.
        Serialise("the value could not be serialized: its type's Serialize failed, or memory ran out"),
        /// The reply has another length than the type that was to take it. It is gone.
        Mismatch("the reply has {found} bytes, expected {expected}, and is gone; build both sides from the same types") {
            /// Length of the reply.
            found: u64,
            /// Length that would have fitted.
            expected: u64
        },
        /// The reply is not a value of the type asked for. It is gone.
        Invalid("the reply is not a valid value of the type asked for, and is gone; build both sides from the same types"),
    }
}

macro_rules! widen {
    ($from:ident => $to:ident: { $($variant:ident $({ $($field:ident),* })? $(( $inner:ident ))?),* $(,)? }) => {
        impl From<$from> for $to {
            fn from(error: $from) -> Self {
                match error {
                    $($from::$variant $({ $($field),* })? $(($inner))? =>
                        Self::$variant $({ $($field),* })? $(($inner))?,)*
                }
            }
        }
    };
    (send: $to:ident) => {
        widen!(SendError => $to: {
            TooLong { len, max }, Serialise, Disconnected, Superseded, Corrupt(corruption), Forked,
            Restarted { reason },
        });
    };
    (recv: $to:ident) => {
        widen!(RecvError => $to: {
            Mismatch { found, expected }, Invalid, Disconnected, Superseded, Corrupt(corruption), Forked,
            Restarted { reason },
        });
    };
}

widen!(send: TrySendError);
widen!(send: SendTimeoutError);
widen!(send: CallError);
widen!(send: OfferError);
widen!(TrySendError => OfferError: {
    Full, WouldFragment { len, max }, TooLong { len, max }, Serialise, Disconnected, Superseded,
    Corrupt(corruption), Forked, Restarted { reason },
});
widen!(SendTimeoutError => OfferError: {
    Timeout, TooLong { len, max }, Serialise, Disconnected, Superseded, Corrupt(corruption), Forked,
    Restarted { reason },
});
widen!(recv: CallError);
widen!(recv: TryRecvError);
widen!(recv: RecvTimeoutError);

/// Why no message was received from a lossy channel now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LossyTryRecvError {
    /// Nothing to read.
    #[error("the ring is empty: no message has come")]
    Empty,
    /// Whatever was read had been overwritten before it was read whole. Nothing has been taken, and
    /// nothing has been counted as lost yet: try again.
    #[error(
        "messages are overwritten faster than they are read; try again, or create the channel with a larger capacity"
    )]
    Overrun,
    /// Nothing will come, as [`RecvError`] says.
    #[error(transparent)]
    Ended(#[from] RecvError),
}

/// Everything that can go wrong.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A segment could not be created or attached.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// A message was not sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// A message was not sent now.
    #[error(transparent)]
    TrySend(#[from] TrySendError),
    /// A message was not sent in time.
    #[error(transparent)]
    SendTimeout(#[from] SendTimeoutError),
    /// A message was neither sent nor dropped.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// No message was received.
    #[error(transparent)]
    Recv(#[from] RecvError),
    /// No message was received now.
    #[error(transparent)]
    TryRecv(#[from] TryRecvError),
    /// No message was received in time.
    #[error(transparent)]
    RecvTimeout(#[from] RecvTimeoutError),
    /// A call got no reply.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The channel is corrupt.
    #[error("the channel is corrupt and stays closed: {0}")]
    Corrupt(#[from] Corruption),
    /// Nobody is at the other side of a named channel, and nobody will come.
    #[error(
        "nobody is at the other side, and the channel's name means another segment, or none; open the name again"
    )]
    Superseded,
    /// Nothing happened in time.
    #[error("nobody attached the other side within {0:?}; start the peer, or wait longer")]
    Timeout(Duration),
    /// A host could not be made.
    #[cfg(not(loom))]
    #[error(transparent)]
    Host(#[from] crate::host::HostError),
    /// A plugin was not started.
    #[cfg(not(loom))]
    #[error(transparent)]
    Spawn(#[from] crate::host::SpawnError),
    /// A plugin could not be acted upon.
    #[cfg(not(loom))]
    #[error(transparent)]
    Handle(#[from] crate::host::HandleError),
    /// A plugin's channels could not be had.
    #[cfg(not(loom))]
    #[error(transparent)]
    TakeChannels(#[from] crate::host::TakeChannelsError),
    /// This process could not connect to its host.
    #[cfg(not(loom))]
    #[error(transparent)]
    Connect(#[from] crate::host::ConnectError),
    /// A plugin's request has not reached its host.
    #[cfg(not(loom))]
    #[error(transparent)]
    Request(#[from] crate::host::RequestError),
}
