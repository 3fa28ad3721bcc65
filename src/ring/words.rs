//! Writing payloads that arrive in pieces as whole words.
//!
//! Reservations and vectored pushes use it. What always holds: shared memory is only written, in
//! aligned whole words, never read back; what does not fill a word yet waits in private memory.

use crate::layout::WORD_BYTES;
use crate::memory::Memory;

/// Appends bytes at an offset.
#[derive(Debug)]
pub(super) struct WordWriter {
    offset: u64,
    pending: [u8; WORD_BYTES as usize],
    pending_len: usize,
}

impl WordWriter {
    /// Starts at an 8-byte aligned offset.
    pub(super) fn new(offset: u64) -> Self {
        Self { offset, pending: [0; WORD_BYTES as usize], pending_len: 0 }
    }

    /// Appends `bytes`.
    pub(super) fn write<M: Memory>(&mut self, memory: &M, mut bytes: &[u8]) {
        if self.pending_len > 0 {
            let taken = bytes.len().min(self.pending.len() - self.pending_len);
            self.pending[self.pending_len..][..taken].copy_from_slice(&bytes[..taken]);
            self.pending_len += taken;
            bytes = &bytes[taken..];
            if self.pending_len < self.pending.len() {
                return;
            }
            memory.copy_in(self.offset, &self.pending);
            self.offset += WORD_BYTES;
        }
        let whole = bytes.len() & !(self.pending.len() - 1);
        memory.copy_in(self.offset, &bytes[..whole]);
        self.offset += whole as u64;
        self.pending_len = bytes.len() - whole;
        self.pending[..self.pending_len].copy_from_slice(&bytes[whole..]);
    }

    /// Writes the last, partly filled word, zero-padded.
    pub(super) fn finish<M: Memory>(&mut self, memory: &M) {
        if self.pending_len > 0 {
            memory.copy_in(self.offset, &self.pending[..self.pending_len]);
            self.offset += WORD_BYTES;
            self.pending_len = 0;
        }
    }
}
