//! Whether a file is the one that was closed.
//!
//! A store's last user marks its file, and the next first one asks. Invariant: a file that was copied, restored,
//! written over or used since it was closed is not taken for the closed one.
//!
//! # How
//! A mark in the file travels with each copy of it, and inode numbers come back. So the mark says three things
//! that a copy does not have:
//! - device, inode and birth time of the file;
//! - a random number below 10^9, which is also set as the nanoseconds of the file's modification time;
//! - the nanoseconds still being those: whoever writes to the file changes them;
//! - the time of the last change of the inode, which nobody can set, lying in the second of the modification time
//!   or the next one: a copy that keeps the times of its original, written over the file, was made later.
//!
//! The order of closing: number, sync, mark, sync, and then the time, because a store through a mapping
//! may move the time when it gets to the file.
//!
//! A file system that keeps no birth time or no nanoseconds never has a closed file: it is looked at as a whole.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use crate::os::{names::FileId, random};

/// Nanoseconds of a second.
const SECOND_NS: u32 = 1_000_000_000;

/// A number to close a file with. Never 0, which file systems without nanoseconds say.
pub(crate) fn draw() -> io::Result<u32> {
    Ok(random::random_u128()? as u32 % (SECOND_NS - 1) + 1)
}

/// Sets the modification time of a file that was closed with this number, as the last thing of all.
pub(crate) fn stamp(file: &File, number: u32) -> io::Result<()> {
    crate::os::names::set_modified_ns(file.as_raw_fd(), number)?;
    file.sync_all()
}

/// When a file was changed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    /// Its bytes, in seconds and nanoseconds.
    modified: (i64, i64),
    /// Anything about it, in seconds.
    changed: i64,
}

impl From<&Metadata> for Times {
    fn from(found: &Metadata) -> Self {
        Self { modified: (found.mtime(), found.mtime_nsec()), changed: found.ctime() }
    }
}

/// Whether this is the file that was closed: `recorded` is what the mark says of it, and `number` what it was
/// closed with.
pub(crate) fn is_closed(found: FileId, times: Times, recorded: [u64; 3], number: u32) -> bool {
    let words = found.words();
    let (second, nanoseconds) = times.modified;
    // Unknown equals nothing.
    let same_file = words[2] != 0 && words == recorded;
    let same_bytes = number != 0 && number < SECOND_NS && nanoseconds == i64::from(number);
    same_file && same_bytes && (second..=second.saturating_add(1)).contains(&times.changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f51_a_closed_file_is_known_by_all_of_its_marks() {
        let path = std::env::temp_dir().join(format!("ringway-closed-{}", std::process::id()));
        let file = File::create_new(&path).unwrap();
        let number = draw().unwrap();
        stamp(&file, number).unwrap();
        let found = file.metadata().unwrap();
        std::fs::remove_file(&path).unwrap();
        let (id, times) = (FileId::from(&found), Times::from(&found));
        let words = id.words();
        if words[2] == 0 {
            return println!("skipped: this file system keeps no time of birth");
        }
        assert!(is_closed(id, times, words, number));
        for changed in 0..3 {
            let mut other = words;
            other[changed] ^= 1;
            assert!(!is_closed(id, times, other, number), "word {changed}");
        }
        for other in [0, number - 1, SECOND_NS + 1] {
            assert!(!is_closed(id, times, words, other), "number {other}");
        }
        let later = Times { changed: times.changed + 5, ..times };
        assert!(!is_closed(id, later, words, number), "changed later");
    }
}
