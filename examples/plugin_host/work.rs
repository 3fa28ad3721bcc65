//! What is computed about each line, by the plugins and, to compare, by one process alone.

use bytemuck::{Pod, Zeroable};
use ringway::Schema;

use crate::corpus::Corpus;

/// A plugin's answer to one line.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Answer {
    /// The number that the line was sent with.
    pub number: u64,
    pub findings: Findings,
}

/// What was found in a line.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Findings {
    /// FNV-1a of the bytes.
    pub hash: u64,
    pub words: u64,
    pub bytes: u64,
    pub longest_word: u64,
}

/// Looks at a line.
pub fn look_at(line: &[u8]) -> Findings {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let (mut words, mut word, mut longest_word) = (0, 0, 0);
    for &byte in line {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        if byte.is_ascii_whitespace() {
            word = 0;
        } else {
            words += u64::from(word == 0);
            word += 1;
            longest_word = longest_word.max(word);
        }
    }
    Findings { hash, words, bytes: line.len() as u64, longest_word }
}

/// Sums over lines; the order does not matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable, Schema)]
#[repr(C)]
pub struct Totals {
    pub lines: u64,
    pub words: u64,
    pub bytes: u64,
    pub longest_line: u64,
    pub longest_word: u64,
    /// Sum of the lines' hashes.
    pub digest: u64,
}

impl Totals {
    pub fn add(&mut self, findings: &Findings) {
        self.lines += 1;
        self.words += findings.words;
        self.bytes += findings.bytes;
        self.longest_line = self.longest_line.max(findings.bytes);
        self.longest_word = self.longest_word.max(findings.longest_word);
        self.digest = self.digest.wrapping_add(findings.hash);
    }
}

impl Totals {
    /// The totals of all lines that these two are of.
    pub fn and(self, other: &Self) -> Self {
        Self {
            lines: self.lines + other.lines,
            words: self.words + other.words,
            bytes: self.bytes + other.bytes,
            longest_line: self.longest_line.max(other.longest_line),
            longest_word: self.longest_word.max(other.longest_word),
            digest: self.digest.wrapping_add(other.digest),
        }
    }

    /// Whether further lines, or none, can have made these of `before`.
    pub fn may_follow(&self, before: &Self) -> bool {
        let grows = |of: fn(&Self) -> u64| of(self) >= of(before);
        let sums = grows(|totals| totals.lines) && grows(|totals| totals.words);
        let rest = grows(|totals| totals.bytes) && grows(|totals| totals.longest_line);
        sums && rest && (self.lines > before.lines || self == before)
    }
}

/// The same work in this process.
pub fn alone(corpus: &Corpus, passes: u64) -> Totals {
    let mut totals = Totals::default();
    for number in 0..passes * corpus.lines() {
        totals.add(&look_at(corpus.line(number)));
    }
    totals
}
