//! Anonymous memory files and their seals.
//!
//! `segment::anonymous` makes, checks and re-opens them.
//! What always holds: a file made here has its space reserved, belongs to its user alone and is
//! gone with its last user; a file that was checked here cannot shrink or grow any more.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};

use super::{closing, limits, os};
use crate::error::SegmentError;

/// No longer and no shorter.
pub(crate) const SIZE_SEALS: u32 = (libc::F_SEAL_SHRINK | libc::F_SEAL_GROW) as u32;
/// No new writable mapping, no `write`, no holes.
pub(crate) const WRITE_SEAL: u32 = libc::F_SEAL_FUTURE_WRITE as u32;
/// No more seals.
pub(crate) const SEAL_SEAL: u32 = libc::F_SEAL_SEAL as u32;

/// A new memory file of `len_bytes` zero bytes, mode 0600, its space reserved, without seals on its
/// size.
pub(crate) fn create(len_bytes: u64) -> Result<File, SegmentError> {
    let no_space = |source| limits::no_room(len_bytes, source);
    let len = libc::off_t::try_from(len_bytes)
        .map_err(|_| no_space(io::ErrorKind::FileTooLarge.into()))?;
    refuse_more_than_available(len_bytes).map_err(no_space)?;
    limits::refuse_too_long(len_bytes).map_err(no_space)?;
    let file = open()?;
    file.set_permissions(PermissionsExt::from_mode(0o600)).map_err(os("fchmod"))?;
    loop {
        // SAFETY: the call takes an open descriptor and two numbers.
        let result = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) };
        match super::check(result.into()) {
            Ok(_) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(no_space(error)),
        }
    }
}

/// Gives the memory of the first `len_bytes` back to the system, whoever has the file: it is zeros from
/// here on, which take memory again where somebody writes to them.
pub(crate) fn discard(fd: BorrowedFd<'_>, len_bytes: u64) -> io::Result<()> {
    let len = libc::off_t::try_from(len_bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: the call takes an open descriptor and numbers.
    let result = unsafe { libc::fallocate(fd.as_raw_fd(), mode, 0, len) };
    super::check(result.into()).map(drop)
}

/// A memory file belongs to no file system with a limit, and reserving more than the machine has
/// would not be refused: it would call the kernel's out-of-memory killer. So ask before.
pub(crate) fn refuse_more_than_available(len_bytes: u64) -> io::Result<()> {
    if len_bytes == 0 {
        return Ok(());
    }
    let Ok(meminfo) = std::fs::read_to_string("/proc/meminfo") else { return Ok(()) };
    match available_bytes(&meminfo) {
        Some(available) if len_bytes > available => Err(io::Error::from_raw_os_error(libc::ENOMEM)),
        _ => Ok(()),
    }
}

/// What `/proc/meminfo` says can be had without swapping.
fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// A new empty memory file, to which so many bytes may be written.
pub(super) fn create_for(len_bytes: u64) -> io::Result<File> {
    limits::refuse_too_long(len_bytes)?;
    open_with(libc::MFD_CLOEXEC)
}

fn open() -> Result<File, SegmentError> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // The second is for kernels that do not know the flag (before 6.3).
    open_with(flags | libc::MFD_NOEXEC_SEAL)
        .or_else(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => open_with(flags),
            _ => Err(error),
        })
        .map_err(os("memfd_create"))
}

fn open_with(flags: libc::c_uint) -> io::Result<File> {
    // SAFETY: the name is a C string literal.
    let result = unsafe { libc::memfd_create(c"ringway".as_ptr(), flags) };
    super::check(result.into())?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { File::from_raw_fd(result) })
}

/// Whether the kernel has the seal that forbids new writable mappings (Linux 5.1).
///
/// # Errors
/// There is no memory file to try it on.
pub(crate) fn has_write_seal() -> io::Result<bool> {
    let file = open_with(libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)?;
    // The file is new and nobody else's: only the kernel, or a filter of system calls, can refuse.
    Ok(add_seals(file.as_fd(), WRITE_SEAL).is_ok())
}

/// The seals; an error where the descriptor is of a kind that cannot have any.
pub(crate) fn seals(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: the call takes an open descriptor and no pointer.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    super::check(result.into()).map(|_| result as u32)
}

/// The kind of file system that a file is in: its magic number.
fn file_system(fd: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: zeros are a valid value to be overwritten.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor, and a structure that outlives the call.
    let result = unsafe { libc::fstatfs(fd.as_raw_fd(), &raw mut found) };
    super::check(result.into())?;
    Ok(found.f_type as u64)
}

/// Adds seals, for ever.
pub(crate) fn add_seals(fd: BorrowedFd<'_>, seals: u32) -> io::Result<()> {
    // SAFETY: the call takes an open descriptor and a number.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals as libc::c_int) };
    super::check(result.into()).map(drop)
}

/// Refuses what is no memory file, before anything is asked that somebody else would have to answer. Closing it is
/// such a question too, so what is refused is closed elsewhere. Returns the seals beside each file.
pub(crate) fn check_kinds<const N: usize>(
    fds: [OwnedFd; N],
) -> Result<[(File, u32); N], SegmentError> {
    let mut found = [0; N];
    for index in 0..N {
        match kind(fds[index].as_fd()) {
            Ok(seals) => found[index] = seals,
            Err(error) => {
                // None of the others is known to be a memory file.
                fds.into_iter().for_each(closing::elsewhere);
                return Err(error);
            }
        }
    }
    let mut found = found.into_iter();
    Ok(fds.map(|fd| (File::from(fd), found.next().unwrap_or_default())))
}

/// The seals of a memory file.
fn kind(fd: BorrowedFd<'_>) -> Result<u32, SegmentError> {
    // First: it fails at once on anything that is no memory file. `fstat` would ask a file system in user
    // space, which need not answer.
    let seals = seals(fd).map_err(|error| SegmentError::NotMemory {
        found: format!("a file that cannot be sealed ({error})"),
    })?;
    // Whoever has a file of huge pages could make a hole in it until it is sealed. Touching the hole is
    // SIGBUS where no huge page is left.
    let kind = file_system(fd).map_err(os("fstatfs"))?;
    if kind != libc::TMPFS_MAGIC as u64 {
        let found = format!("a file of huge pages or of another file system ({kind:#x})");
        return Err(SegmentError::NotMemory { found });
    }
    Ok(seals)
}

/// A file that is memory and can neither shrink nor grow.
#[derive(Debug)]
pub(crate) struct SealedMemory {
    file: File,
    len_bytes: u64,
    present_bytes: u64,
}

impl SealedMemory {
    /// Checks a descriptor that somebody else supplied.
    pub(crate) fn check(fd: OwnedFd) -> Result<Self, SegmentError> {
        let [file] = check_kinds([fd])?;
        Self::of(file)
    }

    /// Checks two descriptors that belong together.
    pub(crate) fn check_both(fds: [OwnedFd; 2]) -> Result<[Self; 2], SegmentError> {
        let [first, second] = check_kinds(fds)?;
        Ok([Self::of(first)?, Self::of(second)?])
    }

    /// Checks a memory file with these seals.
    fn of((file, seals): (File, u32)) -> Result<Self, SegmentError> {
        if seals & SIZE_SEALS != SIZE_SEALS {
            return Err(SegmentError::Unsealed { found: seals, needed: SIZE_SEALS });
        }
        // Only now: without the seals it could still change.
        let found = file.metadata().map_err(os("fstat"))?;
        let (len_bytes, present_bytes) = (found.len(), found.blocks().saturating_mul(512));
        Ok(Self { file, len_bytes, present_bytes })
    }

    /// Length, which cannot change.
    pub(crate) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Copies the first bytes, without mapping anything.
    pub(crate) fn read_start(&self, bytes: &mut [u8]) -> Result<(), SegmentError> {
        let needed = bytes.len() as u64;
        if self.len_bytes < needed {
            return Err(SegmentError::TooSmall { found: self.len_bytes, needed });
        }
        self.file.read_exact_at(bytes, 0).map_err(os("pread"))
    }

    /// The file, if there is memory for what is not in it yet: its maker may have left it empty.
    pub(crate) fn into_file(self) -> Result<File, SegmentError> {
        let len_bytes = self.len_bytes;
        refuse_more_than_available(len_bytes.saturating_sub(self.present_bytes))
            .map_err(|source| SegmentError::NoSpace { len_bytes, source })?;
        Ok(self.file)
    }
}

/// A new open file description of the same memory, readable, and writable where asked for.
///
/// A duplicate or an inherited descriptor would share its locks and its flags with the original.
pub(crate) fn reopen(fd: BorrowedFd<'_>, writable: bool) -> io::Result<OwnedFd> {
    OpenOptions::new()
        .read(true)
        .write(writable)
        .custom_flags(libc::O_CLOEXEC)
        .open(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .map(OwnedFd::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::tests::child_says;

    #[test]
    fn a_new_file_is_reserved_private_and_closed_on_exec() {
        let file = create(3 * 4096).unwrap();
        let found = file.metadata().unwrap();
        assert_eq!(found.len(), 3 * 4096);
        assert_eq!(found.blocks() * 512, 3 * 4096, "space is reserved");
        assert_eq!(found.mode() & 0o777, 0o600);
        // SAFETY: the call takes an open descriptor.
        let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags, libc::FD_CLOEXEC);
    }

    #[test]
    fn f33_more_than_the_machine_has_is_refused_and_not_tried() {
        // In a child whose files cannot become long, lest this test take the machine's memory
        // where it fails.
        assert!(child_says(|| {
            let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
            // SAFETY: the signal that goes with this limit is ignored from here on.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
            // SAFETY: the limit outlives the call.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) }, 0);
            matches!(create(1 << 50), Err(SegmentError::NoSpace { source, .. })
                if source.raw_os_error() == Some(libc::ENOMEM))
        }));
        assert!(matches!(create(u64::MAX), Err(SegmentError::NoSpace { len_bytes: u64::MAX, .. })));
        assert!(refuse_more_than_available(4096).is_ok());
        let meminfo = "MemTotal: 9 kB\nMemAvailable:   12 kB\nX: 1 kB\n";
        assert_eq!(available_bytes(meminfo), Some(12288));
        assert_eq!(available_bytes("MemTotal: 9 kB\n"), None);
    }

    #[test]
    fn a_reopened_file_is_the_same_memory_with_flags_of_its_own() {
        let file = create(4096).unwrap();
        let other = File::from(reopen(file.as_fd(), true).unwrap());
        file.write_all_at(b"here", 100).unwrap();
        let mut bytes = [0; 4];
        other.read_exact_at(&mut bytes, 100).unwrap();
        assert_eq!(&bytes, b"here");
        // An offset belongs to the open file description.
        // SAFETY: the call takes an open descriptor and two numbers.
        unsafe { libc::lseek(file.as_raw_fd(), 7, libc::SEEK_SET) };
        // SAFETY: as above.
        let position = unsafe { libc::lseek(other.as_raw_fd(), 0, libc::SEEK_CUR) };
        assert_eq!(position, 0);
    }
}
