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
    #[error("capacity of {found} bytes: must be a power of two from {min} to {max}")]
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
        "payload alignment of {found} bytes: must be 8, 16, 32 or 64, and at most half the capacity"
    )]
    Alignment {
        /// What was asked for.
        found: u64,
    },
    /// A bound on messages that no channel can have.
    #[error("longest message of {found} bytes: must be from 1 to {max}")]
    MaxMessage {
        /// What was asked for.
        found: u64,
        /// Largest possible.
        max: u64,
    },
    /// A ring of slots whose slots have no length, or too large a one; or a length without such a
    /// ring.
    #[error("slots of {found} bytes: a ring of slots needs from 1 to {max}, others have none")]
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
    /// The store belongs to processes of another pid namespace: what its lock says about dead holders
    /// would not be true here.
    #[error(
        "the store is used in pid namespace {found}, this process is in {expected}: it can only read by copying"
    )]
    PidNamespace {
        /// Number of the namespace of those who use it.
        found: u64,
        /// Number of this process's.
        expected: u64,
    },
    /// The store holds what no writer leaves, and cannot be brought in order.
    #[error("the store is damaged: {what}")]
    Damaged {
        /// What is not as it should be.
        what: &'static str,
    },
    /// The memory for the segment is not to be had.
    #[error("no room for a segment of {len_bytes} bytes: {source}")]
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
    #[error("descriptor is not a sealed memory file: {found}")]
    NotMemory {
        /// What it is instead.
        found: String,
    },
    /// A memory file that can still shrink or grow.
    #[error(
        "memory file is not sealed against shrinking and growing (seals {found:#x}, needed {needed:#x})"
    )]
    Unsealed {
        /// `F_GET_SEALS`.
        found: u32,
        /// What must be among them.
        needed: u32,
    },
    /// Too short for what its header says, or for a header.
    #[error("segment of {found} bytes: {needed} are needed")]
    TooSmall {
        /// Length found.
        found: u64,
        /// Length needed.
        needed: u64,
    },
    /// Not a ringway segment, or damaged, or of another layout.
    #[error("incompatible segment: {field} is {found:#x}, expected {expected:#x}")]
    Incompatible {
        /// Which header field differs.
        field: &'static str,
        /// Its value.
        found: u64,
        /// What this build expects there.
        expected: u64,
    },
    /// The segment is fenced by membarrier, and this process cannot register for it.
    #[error("the segment needs membarrier, which this process cannot register for: {source}")]
    Membarrier {
        /// What the system said.
        source: io::Error,
    },
    /// A side that somebody has attached already.
    #[error("this side of the channel is attached already")]
    AlreadyAttached,
    /// The rings cannot be attached: what is written in them is impossible.
    #[error("the channel in this segment is corrupt: {0}")]
    Corrupt(#[from] Corruption),
    /// Something about the name or the file of the segment.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A system call failed.
    #[error("{call}: {source}")]
    Os {
        /// Which call.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
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
    #[error("ended for an unknown reason")]
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
            #[error("the peer is gone")]
            Disconnected,
            /// Nobody is at the other side of a named channel, and nobody will come: its name means
            /// another segment by now, or none. Noticed within a few seconds. Open the name again.
            #[error(
                "nobody is at the other side, and the channel's name means another segment, or none; open the name again"
            )]
            Superseded,
            /// The peer wrote something impossible; the channel stays poisoned.
            #[error("channel is corrupt: {0}")]
            Corrupt(#[from] Corruption),
            /// The process has forked since this end was attached; it belongs to the parent.
            #[error("this end belongs to the process that this one was forked from")]
            Forked,
            /// The plugin at the other end has ended and been started again. Told once; unread
            /// messages have been carried over. A message that was to be sent has not been.
            #[error("the peer was restarted: {reason}")]
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
                TooLong("message of {len} bytes: this channel takes at most {max}") {
                    /// Length of the message.
                    len: u64,
                    /// Longest possible.
                    max: u64
                },
                /// The value could not be serialised.
                Serialise("the value could not be serialised"),
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
                Mismatch("message of {found} bytes where {expected} were expected") {
                    /// Length of the message.
                    found: u64,
                    /// Length that would have fitted.
                    expected: u64
                },
                /// The message is not a value of the type asked for. It has not been taken: `recv`
                /// still returns it, `skip` drops it.
                Invalid("the message is not a valid value of the type asked for"),
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
        Full("the ring is full"),
        /// Longer than a record can be: only calls that wait send it, in fragments.
        WouldFragment("message of {len} bytes: at most {max} go in one record") {
            /// Length of the message.
            len: u64,
            /// Longest that goes in one record.
            max: u64
        },
    }
    /// Why a message was not sent in time.
    SendTimeoutError {
        /// No room in the ring until the deadline.
        Timeout("the ring was full until the deadline"),
    }
    /// Why a message was neither sent nor dropped by its sender's policy.
    OfferError {
        /// No room in the ring, and the policy is to fail then.
        Full("the ring is full"),
        /// No room in the ring for as long as the policy waits.
        Timeout("the ring was full until the deadline"),
        /// Longer than a record can be, and the policy is not to wait: it would have to travel in
        /// fragments.
        WouldFragment("message of {len} bytes: at most {max} go in one record") {
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
        Empty("the ring is empty"),
    }
    /// Why no message was received in time.
    RecvTimeoutError {
        /// Nothing came until the deadline.
        Timeout("nothing came until the deadline"),
    }
}

channel_errors! {
    /// Why a call got no reply.
    CallError {
        /// No reply until the deadline, or no room to send the call.
        Timeout("no reply came until the deadline"),
        /// Too many messages wait to be received before the reply. Receive some first.
        Backlog("{waiting_bytes} bytes of other messages wait to be received first") {
            /// Bytes of the messages that wait, in the ring and beside it.
            waiting_bytes: u64
        },
        /// The call was answered before, or begun on another channel.
        NotPending("the call is not pending on this channel"),
        /// Longer than the channel takes.
        TooLong("message of {len} bytes: this channel takes at most {max}") {
            /// Length of the message.
            len: u64,
            /// Longest possible.
            max: u64
        },
        /// The value could not be serialised.
        Serialise("the value could not be serialised"),
        /// The reply has another length than the type that was to take it. It is gone.
        Mismatch("reply of {found} bytes where {expected} were expected") {
            /// Length of the reply.
            found: u64,
            /// Length that would have fitted.
            expected: u64
        },
        /// The reply is not a value of the type asked for. It is gone.
        Invalid("the reply is not a valid value of the type asked for"),
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
    #[error("the ring is empty")]
    Empty,
    /// Whatever was read had been overwritten before it was read whole. Nothing has been taken, and
    /// nothing has been counted as lost yet: try again.
    #[error("messages are overwritten faster than they are read")]
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
    #[error("channel is corrupt: {0}")]
    Corrupt(#[from] Corruption),
    /// Nobody is at the other side of a named channel, and nobody will come.
    #[error(
        "nobody is at the other side, and the channel's name means another segment, or none; open the name again"
    )]
    Superseded,
    /// Nothing happened in time.
    #[error("nothing happened within {0:?}")]
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
