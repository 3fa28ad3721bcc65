//! Operations on a ring as data: what property tests draw and fuzzers mutate.
//!
//! [`Machine`](super::ops::Machine) runs them. What always holds: any bytes are an operation, so that
//! no input is wasted, and encoding what was decoded runs the same operations.

/// How a reservation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Commit,
    CommitFilled,
    Abort,
}

/// One operation. Lengths are bytes of payload and may be longer than the ring takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Push {
        len: u8,
        tag: u8,
    },
    Vectored {
        len: u8,
        split: u8,
    },
    Reserve {
        len: u8,
        filled: u8,
        end: End,
    },
    Batch {
        count: u8,
        len: u8,
        commit: bool,
    },
    /// Peek, take, release.
    Take,
    /// Peek, take.
    Advance,
    Release,
    NewProducer,
    NewConsumer,
    /// Where the memory can: both ends die at one of the stores of the next operation.
    Crash {
        image: u8,
    },
}

impl Op {
    /// Three bytes; every three bytes are an operation.
    pub fn decode([kind, a, b]: [u8; 3]) -> Self {
        let end = |bits: u8| match bits {
            0 | 3 => End::Commit,
            1 => End::CommitFilled,
            _ => End::Abort,
        };
        match kind % 16 {
            0..=2 => Self::Push { len: a, tag: b },
            3 => Self::Vectored { len: a, split: b },
            4 | 5 => Self::Reserve { len: a, filled: b, end: end(kind >> 6) },
            6 | 7 => Self::Batch { count: b % 8, len: a, commit: kind & 16 == 0 },
            8..=10 => Self::Take,
            11 => Self::Advance,
            12 => Self::Release,
            13 => Self::NewProducer,
            14 => Self::NewConsumer,
            _ => Self::Crash { image: a },
        }
    }

    /// The bytes that [`decode`](Self::decode) makes this of.
    pub fn encode(self) -> [u8; 3] {
        match self {
            Self::Push { len, tag } => [0, len, tag],
            Self::Vectored { len, split } => [3, len, split],
            Self::Reserve { len, filled, end } => [4 | (end as u8) << 6, len, filled],
            Self::Batch { count, len, commit } => [6 | u8::from(!commit) << 4, len, count],
            Self::Take => [8, 0, 0],
            Self::Advance => [11, 0, 0],
            Self::Release => [12, 0, 0],
            Self::NewProducer => [13, 0, 0],
            Self::NewConsumer => [14, 0, 0],
            Self::Crash { image } => [15, image, 0],
        }
    }
}

/// A ring's measures and where it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    pub capacity_bytes: u64,
    pub align: u64,
    pub start: u64,
}

impl Setup {
    /// Every two bytes are a setup.
    pub fn decode([shape, start]: [u8; 2]) -> Self {
        let capacity_bytes = 64 << (shape & 3);
        let align = (8 << (shape >> 2 & 3)).min(capacity_bytes / 2);
        let base = [0_u64, 1 << 32, 1 << 63, 1 << 16][usize::from(start >> 6)];
        // Before the base, so that positions pass it.
        let start = base.wrapping_sub(u64::from(start & 63) * align);
        Self { capacity_bytes, align, start }
    }
}
