//! What travels on a link between a caller and a server: frames.
//!
//! The caller's `line` writes requests and reads answers, the server's `visitor` the reverse. What
//! always holds: what a frame says of itself stands at its end, so that a payload begins where the
//! receiver's buffer does and needs no copy to be aligned; whoever takes a frame apart has checked its
//! length, and every bit that must be zero.
//!
//! The message's tag says what it is. All numbers are in native byte order.
//!
//! ```text
//! CALL      arguments │ server u64 … (chain) │ id u64 │ target u64
//! RESOLVE   name      │ types of arguments u64 │ types of result u64 │ id u64
//! CANCEL    id u64
//! answers   payload   │ id u64
//! ```
//!
//! `target` names a function of this server, as the answer to `RESOLVE` said, and how many servers the
//! chain names: those whose threads wait for this call, the outermost first.
//!
//! | answer | payload |
//! |---|---|
//! | `DONE` | the result |
//! | `FAILED` | the function's own error |
//! | `PANICKED` | what it said, at most [`MAX_PANIC_BYTES`] |
//! | `UNKNOWN` | none: there is no such function, and nothing was called |
//! | `TOO_LONG` | length of the result, longest possible: u64 each |
//! | `CANCELLED` | none: it was taken back before it began |
//! | `RESOLVED` | the target: u64 |
//! | `WRONG_TYPES` | fingerprints of the function's arguments and result: u64 each |
//! | `MALFORMED` | none: the arguments are no value of their type, and nothing was called |
//! | `NO_RESULT` | none: the function has returned what cannot be encoded |
//!
//! Each `CALL` and each `RESOLVE` has one answer, a `CANCEL` none.

/// Tags of requests.
pub(super) const CALL: u16 = 1;
pub(super) const RESOLVE: u16 = 2;
pub(super) const CANCEL: u16 = 3;

/// Tags of answers.
pub(super) const DONE: u16 = 16;
pub(super) const FAILED: u16 = 17;
pub(super) const PANICKED: u16 = 18;
pub(super) const UNKNOWN: u16 = 19;
pub(super) const TOO_LONG: u16 = 20;
pub(super) const CANCELLED: u16 = 21;
pub(super) const RESOLVED: u16 = 22;
pub(super) const WRONG_TYPES: u16 = 23;
pub(super) const MALFORMED: u16 = 24;
pub(super) const NO_RESULT: u16 = 25;

/// How many servers can wait for each other in a chain of calls.
pub(super) const MAX_CHAIN: usize = 16;

/// How much a caller is told of a panic, in bytes.
pub(super) const MAX_PANIC_BYTES: usize = 512;

/// Bytes of a call besides its arguments, without a chain.
pub(super) const CALL_BYTES: usize = 16;

/// Bytes of an answer besides its payload.
pub(super) const ANSWER_BYTES: usize = 8;

/// A function of a server, and how long the chain of a call is.
///
/// ```text
/// 63     56 55     48 47             16 15        0
/// ┌────────┬─────────┬─────────────────┬───────────┐
/// │ 0      │ chain   │ generation      │ index     │
/// └────────┴─────────┴─────────────────┴───────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) index: u16,
    /// How many functions have had the index before.
    pub(super) generation: u32,
}

impl Target {
    pub(super) fn pack(self, chain: usize) -> u64 {
        u64::from(self.index) | u64::from(self.generation) << 16 | (chain as u64) << 48
    }

    /// The function, and the length of the chain, which is not checked.
    fn unpack(word: u64) -> Option<(Self, usize)> {
        let chain = (word >> 48) as usize;
        (chain <= MAX_CHAIN)
            .then_some((Self { index: word as u16, generation: (word >> 16) as u32 }, chain))
    }

    /// The function that an answer names.
    pub(super) fn of(word: u64) -> Option<Self> {
        Self::unpack(word).filter(|(_, chain)| *chain == 0).map(|(target, _)| target)
    }
}

/// A call, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call<'a> {
    pub(super) id: u64,
    pub(super) target: Target,
    /// Servers, eight bytes each.
    pub(super) chain: &'a [u8],
    pub(super) arguments: &'a [u8],
}

impl<'a> Call<'a> {
    /// `None` where it is no call.
    #[inline]
    pub(super) fn of(frame: &'a [u8]) -> Option<Self> {
        let (rest, target) = split_word(frame)?;
        let (rest, id) = split_word(rest)?;
        let (target, chain) = Target::unpack(target)?;
        let (arguments, chain) = rest.split_at_checked(rest.len().checked_sub(8 * chain)?)?;
        Some(Self { id, target, chain, arguments })
    }
}

/// A question for the target that belongs to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resolve<'a> {
    pub(super) id: u64,
    pub(super) types: Types,
    pub(super) name: &'a [u8],
}

impl<'a> Resolve<'a> {
    /// `None` where it is none.
    pub(super) fn of(frame: &'a [u8]) -> Option<Self> {
        let (rest, id) = split_word(frame)?;
        let (rest, result) = split_word(rest)?;
        let (name, arguments) = split_word(rest)?;
        Some(Self { id, types: Types { arguments, result }, name })
    }
}

/// Fingerprints of what a function takes and returns; 0 for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Types {
    pub(super) arguments: u64,
    pub(super) result: u64,
}

/// The last eight bytes, as a number, and what is before them.
#[inline]
pub(super) fn split_word(bytes: &[u8]) -> Option<(&[u8], u64)> {
    let (rest, word) = bytes.split_last_chunk::<8>()?;
    Some((rest, u64::from_ne_bytes(*word)))
}

/// Two numbers, where that is all there is.
pub(super) fn two_words(bytes: &[u8]) -> Option<[u64; 2]> {
    let (rest, second) = split_word(bytes)?;
    let (rest, first) = split_word(rest)?;
    rest.is_empty().then_some([first, second])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target = Target { index: 7, generation: u32::MAX };

    #[test]
    fn a_call_reads_as_it_was_written() {
        let chain = [[1_u64.to_ne_bytes(), 2_u64.to_ne_bytes()].concat(), Vec::new()];
        for chain in chain {
            let word = TARGET.pack(chain.len() / 8).to_ne_bytes();
            let frame = [b"arguments", &chain[..], &9_u64.to_ne_bytes(), &word].concat();
            let call = Call { id: 9, target: TARGET, chain: &chain, arguments: b"arguments" };
            assert_eq!(Call::of(&frame), Some(call));
            for len in 0..CALL_BYTES + chain.len() {
                assert_eq!(Call::of(&frame[frame.len() - len..]), None);
            }
        }
    }

    #[test]
    fn what_no_caller_writes_is_no_call() {
        for word in [TARGET.pack(MAX_CHAIN + 1), TARGET.pack(1), TARGET.pack(0) | 1 << 63] {
            let frame = [9_u64.to_ne_bytes(), word.to_ne_bytes()].concat();
            assert_eq!(Call::of(&frame), None);
        }
        assert_eq!(Target::of(TARGET.pack(0)), Some(TARGET));
        assert_eq!(Target::of(TARGET.pack(1)), None);
    }
}
