//! Copying bytes between private memory and memory that a peer may be writing.
//!
//! [`MappedMemory`](super::MappedMemory) calls it, and nobody else copies out of shared memory.
//! What always holds: exactly the bytes named are read; exactly the words that hold them are
//! written, the last one padded with zeros; no Rust access that is not atomic touches shared bytes.
//!
//! # Why this is sound while the peer writes
//! A plain read of bytes that another process is writing would be a data race, which the language
//! leaves undefined. Short copies therefore go word by word with relaxed atomics, which may race.
//! Longer ones, for which that is several times too slow, go through a block of assembly. To the
//! compiler such a block is opaque: it may read and write any memory that its pointers lead to, and
//! leaves behind whatever bytes it leaves; the compiler derives nothing from them and moves none of
//! its own accesses across. What the processor does with racing loads is well defined: each byte is
//! one that was there at some time during the copy. So a peer that scribbles meanwhile produces
//! bytes of its choice in a private buffer, which it could have sent in the first place, and
//! nothing else. That the bytes of a well-behaved peer are complete comes from the acquire and
//! release around the copy, which order the block like any other access: on x86-64 its stores and
//! loads are ordinary ones (`rep movsb` stores in any order among themselves, but completes before
//! a later store becomes visible), on aarch64 `ldar`, `stlr` and the barriers order all accesses of
//! any width.

#![allow(unsafe_code)]

use std::ptr::NonNull;

use super::Ordering;
use crate::sync::AtomicU64;

/// From here on a block copy is faster than words.
const BLOCK_MIN_BYTES: usize = 64;

/// How this machine copies blocks best.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copier {
    block: block::Kind,
}

impl Copier {
    /// Asks the processor. The answer is cached by the standard library.
    pub(super) fn detect() -> Self {
        Self { block: block::Kind::detect() }
    }

    /// Copies bytes into shared memory, padding the last word with zeros.
    ///
    /// # Safety
    /// `to` is 8-byte aligned; as many bytes from there on as `bytes` has, rounded up to whole
    /// words, are writable, and nobody has a reference to them.
    #[inline(always)]
    pub(super) unsafe fn copy_in(self, to: NonNull<u8>, bytes: &[u8]) {
        if bytes.len() >= BLOCK_MIN_BYTES && block::EXISTS {
            // SAFETY: the caller's promise, and the length was checked.
            unsafe { self.block_in(to, bytes) };
            return;
        }
        let (words, part) = bytes.as_chunks::<8>();
        if let ([word], []) = (words, part) {
            // The shortest messages feel the loop below.
            // SAFETY: there are 8 bytes, so one whole word.
            let to = unsafe { shared_word(to, 0) };
            to.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
            return;
        }
        for (index, word) in words.iter().enumerate() {
            // SAFETY: the word lies in front of the end of what the caller promises.
            let to = unsafe { shared_word(to, index * 8) };
            to.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
        }
        if !part.is_empty() {
            // SAFETY: this word is where the caller's promise is rounded up to.
            let to = unsafe { shared_word(to, words.len() * 8) };
            to.store(word_from_part(part), Ordering::Relaxed);
        }
    }

    /// [`copy_in`](Self::copy_in) for 64 bytes or more.
    ///
    /// # Safety
    /// As there.
    #[inline(never)]
    unsafe fn block_in(self, to: NonNull<u8>, bytes: &[u8]) {
        let whole = bytes.len() & !7;
        // SAFETY: `whole` is at least 64 bytes; they are readable in `bytes` and, as the caller
        // promises, writable at `to`. A new borrow of one does not overlap the other.
        unsafe { block::copy(self.block, to.as_ptr(), bytes.as_ptr(), whole) };
        if whole != bytes.len() {
            // SAFETY: this word is where the caller's promise is rounded up to.
            let to = unsafe { shared_word(to, whole) };
            to.store(word_from_part(&bytes[whole..]), Ordering::Relaxed);
        }
    }

    /// Copies bytes out of shared memory.
    ///
    /// # Safety
    /// `from` is 8-byte aligned; as many bytes from there on as `bytes` has, rounded up to whole
    /// words, are readable, and nobody has a reference to them through which they are written.
    #[inline(always)]
    pub(super) unsafe fn copy_out(self, from: NonNull<u8>, bytes: &mut [u8]) {
        if bytes.len() >= BLOCK_MIN_BYTES && block::EXISTS {
            // SAFETY: the caller's promise, and the length was checked.
            unsafe { self.block_out(from, bytes) };
            return;
        }
        let (words, part) = bytes.as_chunks_mut::<8>();
        if let ([word], []) = (&mut *words, &*part) {
            // The shortest messages feel the loop below.
            // SAFETY: there are 8 bytes, so one whole word.
            let from = unsafe { shared_word(from, 0) };
            *word = from.load(Ordering::Relaxed).to_ne_bytes();
            return;
        }
        for (index, word) in words.iter_mut().enumerate() {
            // SAFETY: the word lies in front of the end of what the caller promises.
            let from = unsafe { shared_word(from, index * 8) };
            *word = from.load(Ordering::Relaxed).to_ne_bytes();
        }
        if !part.is_empty() {
            // SAFETY: this word is where the caller's promise is rounded up to.
            let from = unsafe { shared_word(from, words.len() * 8) };
            part_from_word(from.load(Ordering::Relaxed), part);
        }
    }

    /// [`copy_out`](Self::copy_out) for 64 bytes or more.
    ///
    /// # Safety
    /// As there.
    #[inline(never)]
    unsafe fn block_out(self, from: NonNull<u8>, bytes: &mut [u8]) {
        let len = bytes.len();
        // SAFETY: there are at least 64 bytes, readable at `from`, as the caller promises, and
        // writable in `bytes`, which no other borrow overlaps.
        unsafe { block::copy(self.block, bytes.as_mut_ptr(), from.as_ptr(), len) };
    }
}

/// The word at an offset, which must be a multiple of 8.
///
/// # Safety
/// `start` is 8-byte aligned and the word at `start + offset` is mapped for as long as `'a`; it is
/// accessed with atomics and block copies only.
#[inline]
unsafe fn shared_word<'a>(start: NonNull<u8>, offset: usize) -> &'a AtomicU64 {
    // SAFETY: the caller promises that the word is in the same mapping.
    let word = unsafe { start.add(offset) };
    // SAFETY: aligned, since both summands are; the rest is the caller's promise.
    unsafe { AtomicU64::from_ptr(word.as_ptr().cast()) }
}

/// Fewer than eight bytes as a word, zeros behind them.
#[inline]
fn word_from_part(part: &[u8]) -> u64 {
    // Two overlapping reads, or three bytes: no loop and no call, which for a length that is only
    // known at run time `copy_from_slice` would be.
    let little = match *part {
        [] => 0,
        [a] => u64::from(a),
        [a, b] => u64::from(a) | u64::from(b) << 8,
        [a, b, c] => u64::from(a) | u64::from(b) << 8 | u64::from(c) << 16,
        [a, b, c, d, ref rest @ ..] => {
            let low = u32::from_le_bytes([a, b, c, d]);
            let Some(last) = part.last_chunk::<4>() else { return 0 };
            u64::from(low) | u64::from(u32::from_le_bytes(*last)) << (rest.len() * 8)
        }
    };
    u64::from_le_bytes(little.to_ne_bytes())
}

/// The first bytes of a word.
#[inline]
fn part_from_word(word: u64, part: &mut [u8]) {
    let little = u64::from_ne_bytes(word.to_le_bytes());
    let bytes = little.to_le_bytes();
    let len = part.len();
    match part {
        [] => {}
        [a] => *a = bytes[0],
        [a, b] => [*a, *b] = [bytes[0], bytes[1]],
        [a, b, c] => [*a, *b, *c] = [bytes[0], bytes[1], bytes[2]],
        _ => {
            if let Some(last) = part.last_chunk_mut::<4>() {
                *last = ((little >> ((len - 4) * 8)) as u32).to_le_bytes();
            }
            if let Some(first) = part.first_chunk_mut::<4>() {
                *first = [bytes[0], bytes[1], bytes[2], bytes[3]];
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[path = "copy_x86_64.rs"]
mod block;

#[cfg(target_arch = "aarch64")]
#[path = "copy_aarch64.rs"]
mod block;

/// Elsewhere everything goes by words.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod block {
    pub(super) const EXISTS: bool = false;

    #[derive(Debug, Clone, Copy)]
    pub(super) struct Kind;

    impl Kind {
        pub(super) fn detect() -> Self {
            Self
        }

        /// Every kind that this machine can run.
        #[cfg(test)]
        pub(super) fn all() -> Vec<Self> {
            vec![Self]
        }
    }

    pub(super) unsafe fn copy(_kind: Kind, _to: *mut u8, _from: *const u8, _len_bytes: usize) {
        unreachable!("never called where EXISTS is false")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUARD: u8 = 0xa5;
    /// Room for the longest copy, guards around it.
    const ROOM_BYTES: usize = 64 * 1024;
    const GUARD_BYTES: usize = 64;

    /// Memory that starts on a word, with guards around what is copied.
    struct Shared(Box<[AtomicU64]>);

    impl Shared {
        fn new() -> Self {
            let word = || AtomicU64::new(u64::from_ne_bytes([GUARD; 8]));
            Self(std::iter::repeat_with(word).take(ROOM_BYTES / 8).collect())
        }

        fn at(&self, offset: usize) -> NonNull<u8> {
            NonNull::from(&self.0[offset / 8]).cast()
        }

        fn bytes(&self, end: usize) -> Vec<u8> {
            self.0[..end / 8]
                .iter()
                .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes())
                .collect()
        }

        fn fill(&self, pattern: &[u8]) {
            for (word, chunk) in self.0.iter().zip(pattern.as_chunks::<8>().0) {
                word.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
            }
        }
    }

    /// Bytes none of which equals its neighbours, the guard, or zero.
    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at % 113 + at / 113 % 17 + 1) as u8).collect()
    }

    fn copiers() -> Vec<Copier> {
        block::Kind::all().into_iter().map(|block| Copier { block }).collect()
    }

    fn lengths() -> impl Iterator<Item = usize> {
        (0..600).chain([1023, 1024, 1025, 2047, 4095, 4096, 4097, 8191, 12345, 40_000])
    }

    #[test]
    fn copy_in_writes_the_bytes_and_pads_the_last_word_and_nothing_else() {
        for copier in copiers() {
            let shared = Shared::new();
            let private = pattern(ROOM_BYTES);
            for len in lengths() {
                let start = GUARD_BYTES + len % 9 * 8;
                // Neighbouring lengths take turns at the alignments; short ones try all.
                let shifts = if len < 300 { 0..32 } else { len % 32..len % 32 + 1 };
                for shift in shifts {
                    let whole = len.next_multiple_of(8);
                    let end = (start + whole + GUARD_BYTES).next_multiple_of(8);
                    shared.fill(&vec![GUARD; end]);
                    // SAFETY: aligned; the room is longer than any of these copies.
                    unsafe { copier.copy_in(shared.at(start), &private[shift..shift + len]) };
                    let mut expected = vec![GUARD; end];
                    expected[start..start + len].copy_from_slice(&private[shift..shift + len]);
                    expected[start + len..start + whole].fill(0);
                    assert!(shared.bytes(end) == expected, "{copier:?}: {len} bytes from {shift}");
                }
            }
        }
    }

    #[test]
    fn copy_out_writes_the_bytes_and_nothing_else() {
        for copier in copiers() {
            let shared = Shared::new();
            let source = pattern(ROOM_BYTES);
            shared.fill(&source);
            let mut private = vec![GUARD; ROOM_BYTES];
            for len in lengths() {
                let start = GUARD_BYTES + len % 9 * 8;
                let shifts = if len < 300 { 0..32 } else { len % 32..len % 32 + 1 };
                for shift in shifts {
                    let end = shift + len + GUARD_BYTES;
                    private[..end].fill(GUARD);
                    // SAFETY: aligned; the room is longer than any of these copies.
                    unsafe {
                        copier.copy_out(shared.at(start), &mut private[shift..shift + len]);
                    }
                    let mut expected = vec![GUARD; end];
                    expected[shift..shift + len].copy_from_slice(&source[start..start + len]);
                    assert!(private[..end] == expected, "{copier:?}: {len} bytes to {shift}");
                }
            }
        }
    }
}
