//! A mapped file, or two in one range: owns the mapping, populates it, unmaps it when dropped.
//!
//! [`MappedMemory`](crate::memory::MappedMemory) reads and writes through it.
//! Invariants: every page was there when the mapping was handed out, so that the lack of memory is an
//! error here and not a signal later; no reference into it is ever made here; one that was retired is
//! unmapped by the supervisor's thread, where there is one.

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::unmap::{self, Listed};
use super::{dumps, os};
use crate::error::SegmentError;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Smallest page of any machine; touching more often than needed is only slower.
const SMALLEST_PAGE_BYTES: usize = 4096;

/// A populated mapping of a whole file, or of two one behind the other, shared with everybody who maps it.
#[derive(Debug)]
pub(crate) struct Mapping {
    raw: ManuallyDrop<Box<Listed>>,
    writable: bool,
    /// 1 once nobody will use it for much longer.
    retired: AtomicU32,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: taken once, here; nothing uses it afterwards.
        let raw = unsafe { ManuallyDrop::take(&mut self.raw) };
        if *self.retired.get_mut() != 0 {
            unmap::hand_over(raw);
        }
    }
}

impl Mapping {
    /// Maps `len_bytes` of the file for reading and writing.
    pub(crate) fn read_write(file: &File, len_bytes: u64) -> Result<Self, SegmentError> {
        Self::new(file, len_bytes, true)
    }

    /// Maps `len_bytes` of the file for reading.
    pub(crate) fn read_only(file: &File, len_bytes: u64) -> Result<Self, SegmentError> {
        Self::new(file, len_bytes, false)
    }

    /// Maps two files for reading and writing, the second right behind the first. The first one's length is a
    /// multiple of the system's pages.
    pub(crate) fn read_write_both(
        [first, second]: [&File; 2],
        [first_bytes, second_bytes]: [u64; 2],
    ) -> Result<Self, SegmentError> {
        // A range of both lengths, all of it the first file's: the part behind that file's end is only held for
        // the second one.
        let raw = map(first, first_bytes + second_bytes, true)?;
        let raw = replace_rest(raw, first_bytes, second)?;
        Self::populated(raw, true)
    }

    fn new(file: &File, len_bytes: u64, writable: bool) -> Result<Self, SegmentError> {
        Self::populated(map(file, len_bytes, writable)?, writable)
    }

    fn populated(raw: MmapRaw, writable: bool) -> Result<Self, SegmentError> {
        if !dumps::are_kept() {
            // Where it fails, a core dump is longer.
            let _ = raw.advise(Advice::DontDump);
        }
        let raw = ManuallyDrop::new(Listed::new(raw));
        let mapping = Self { raw, writable, retired: AtomicU32::new(0) };
        mapping.populate()?;
        Ok(mapping)
    }

    /// Makes every page present, in the file and in this process.
    pub(crate) fn populate(&self) -> Result<(), SegmentError> {
        let advice = if self.writable { Advice::PopulateWrite } else { Advice::PopulateRead };
        loop {
            let Err(source) = self.raw.advise(advice) else { return Ok(()) };
            match source.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN) => {}
                // Kernels before 5.14 do not know the advice.
                Some(libc::EINVAL) => {
                    self.touch();
                    return Ok(());
                }
                // EFAULT: the file has no room for the page. ENOMEM: the system has none.
                _ => {
                    return Err(SegmentError::NoSpace { len_bytes: self.len_bytes(), source });
                }
            }
        }
    }

    /// What the populating advice does, a page at a time, for kernels that lack it. Files that are
    /// mapped here have their space reserved, so that a fault finds room.
    fn touch(&self) {
        for offset in (0..self.raw.len()).step_by(SMALLEST_PAGE_BYTES) {
            // SAFETY: `offset` is less than the length, so the sum stays inside the mapping.
            let page = unsafe { self.raw.as_mut_ptr().add(offset) };
            // SAFETY:
            // - The start of a page is mapped and aligned, as long as `self` lives.
            // - Peers access the word with atomics or with block copies, which are no accesses of
            //   the language (see `memory::copy`).
            let word = unsafe { AtomicU64::from_ptr(page.cast()) };
            let value = word.load(Ordering::Relaxed);
            if self.writable {
                // Writes what is there, or nothing where it has changed: then a peer has written.
                let _ = word.compare_exchange(value, value, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    /// Keeps the pages from being swapped out.
    pub(crate) fn lock(&self) -> io::Result<()> {
        self.raw.lock()
    }

    /// Says that its users are about to drop it, and must not wait for the kernel to unmap it.
    pub(crate) fn retire(&self) {
        // Relaxed: read by the last user, whose `Arc` orders it.
        self.retired.store(1, Ordering::Relaxed);
    }

    /// Whether it may be written.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Length in bytes.
    pub(crate) fn len_bytes(&self) -> u64 {
        self.raw.len() as u64
    }

    /// First byte. Valid for reads, and where [`is_writable`](Self::is_writable) for writes, of
    /// [`len_bytes`](Self::len_bytes) bytes until the mapping is dropped; aligned to a page.
    pub(crate) fn base(&self) -> NonNull<u8> {
        NonNull::new(self.raw.as_mut_ptr()).expect("the kernel maps nothing at address 0")
    }
}

fn map(file: &File, len_bytes: u64, writable: bool) -> Result<MmapRaw, SegmentError> {
    let no_space = |source| SegmentError::NoSpace { len_bytes, source };
    let len =
        usize::try_from(len_bytes).map_err(|_| no_space(io::ErrorKind::FileTooLarge.into()))?;
    let mut options = MmapOptions::new();
    options.len(len);
    if writable { options.map_raw(file) } else { options.map_raw_read_only(file) }
        .map_err(|source| not_mapped(len_bytes, source))
}

fn not_mapped(len_bytes: u64, source: io::Error) -> SegmentError {
    match source.raw_os_error() {
        Some(libc::ENOMEM) => SegmentError::NoSpace { len_bytes, source },
        _ => os("mmap")(source),
    }
}

/// Maps a file, from its start, in place of what `raw` maps from `offset` to its end.
fn replace_rest(raw: MmapRaw, offset: u64, file: &File) -> Result<MmapRaw, SegmentError> {
    // It fits: `raw` is longer.
    let offset = offset as usize;
    let len = raw.len().checked_sub(offset).expect("inside the range");
    // SAFETY: `offset` is at most the length, as `checked_sub` has found.
    let start = unsafe { raw.as_mut_ptr().add(offset) };
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
    // SAFETY: replaces a part of `raw`, which nobody else has: the caller has just made it.
    let placed = unsafe { libc::mmap(start.cast(), len, protection, flags, file.as_raw_fd(), 0) };
    if placed != libc::MAP_FAILED {
        return Ok(raw);
    }
    let source = io::Error::last_os_error();
    if source.raw_os_error() == Some(libc::ENOMEM) {
        // The kernel may have unmapped the part, and another thread may have mapped something there since. So
        // the range is not unmapped.
        std::mem::forget(raw);
    }
    Err(not_mapped(len as u64, source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::os::memfd;

    const LEN_BYTES: u64 = 4 * 4096;

    fn reserved_bytes(file: &File) -> u64 {
        file.metadata().unwrap().blocks() * 512
    }

    fn punch(file: &File) {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: the call takes an open descriptor and numbers.
        let result = unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, LEN_BYTES as i64) };
        assert_eq!(result, 0);
        assert_eq!(reserved_bytes(file), 0);
    }

    #[test]
    fn populating_and_touching_fill_holes() {
        let file = memfd::create(LEN_BYTES).unwrap();
        let mapping = Mapping::read_write(&file, LEN_BYTES).unwrap();
        punch(&file);
        mapping.populate().unwrap();
        assert_eq!(reserved_bytes(&file), LEN_BYTES);
        punch(&file);
        mapping.touch();
        assert_eq!(reserved_bytes(&file), LEN_BYTES);
    }

    #[test]
    fn touching_changes_nothing() {
        let file = memfd::create(LEN_BYTES).unwrap();
        let mapping = Mapping::read_write(&file, LEN_BYTES).unwrap();
        let read_only = Mapping::read_only(&file, LEN_BYTES).unwrap();
        let pattern: Vec<u8> = (0..LEN_BYTES).map(|at| at as u8 | 1).collect();
        std::os::unix::fs::FileExt::write_all_at(&file, &pattern, 0).unwrap();
        mapping.touch();
        read_only.touch();
        let mut found = vec![0; pattern.len()];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut found, 0).unwrap();
        assert!(found == pattern);
    }

    #[test]
    fn a_file_that_ends_too_early_is_an_error_and_not_a_signal() {
        let file = memfd::create(4096).unwrap();
        for result in [Mapping::read_write(&file, 8192), Mapping::read_only(&file, 8192)] {
            assert!(matches!(result, Err(SegmentError::NoSpace { len_bytes: 8192, .. })));
        }
    }

    #[test]
    fn two_files_lie_one_behind_the_other_and_no_hole_is_between() {
        let files = [LEN_BYTES, 4096].map(|len_bytes| memfd::create(len_bytes).unwrap());
        let both = [&files[0], &files[1]];
        let mapping = Mapping::read_write_both(both, [LEN_BYTES, 4096]).unwrap();
        assert_eq!(mapping.len_bytes(), LEN_BYTES + 4096);
        for file in &files {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            // SAFETY: the call takes an open descriptor and numbers.
            let result = unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, 4096) };
            assert_eq!(result, 0);
        }
        mapping.populate().unwrap();
        assert_eq!([reserved_bytes(&files[0]), reserved_bytes(&files[1])], [LEN_BYTES, 4096]);
        for (file, offset) in files.iter().zip([0, LEN_BYTES]) {
            std::os::unix::fs::FileExt::write_all_at(file, &[7], 100).unwrap();
            // SAFETY: inside the mapping.
            let byte = unsafe { mapping.base().add(offset as usize + 100) };
            // SAFETY: as above; nobody writes meanwhile.
            assert_eq!(unsafe { byte.read_volatile() }, 7);
        }
        let read_only =
            File::from(memfd::reopen(std::os::fd::AsFd::as_fd(&files[1]), false).unwrap());
        let refused = Mapping::read_write_both([&files[0], &read_only], [LEN_BYTES, 4096]);
        assert!(matches!(refused, Err(SegmentError::Os { call: "mmap", .. })));
    }
}
