//! Files by name: opened without following links, named without replacing, replaced by name.
//!
//! `segment` creates and opens named segments with it.
//!
//! Invariants: no symbolic link at the end of a path is followed; no call waits for the other end of a
//! pipe; no file gets longer than `RLIMIT_FSIZE` allows.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use shared_memory::{ShmemConf, ShmemError};

use super::limits;

/// Which file a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
    /// When it was made, in nanoseconds since 1970; 0 where the file system does not say. Inode numbers come
    /// back.
    birth_ns: u64,
}

impl FileId {
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        file.metadata().map(|found| Self::from(&found))
    }

    /// Device, inode and time of birth; 0 where the latter is unknown.
    pub(crate) fn words(self) -> [u64; 3] {
        [self.device, self.inode, self.birth_ns]
    }

    /// The file that has this name now; `None` where nothing has.
    pub(crate) fn at(path: &Path) -> io::Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Ok(found) => Ok(Some(Self::from(&found))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl From<&fs::Metadata> for FileId {
    fn from(found: &fs::Metadata) -> Self {
        let since_1970 = found.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let birth_ns = since_1970.and_then(|since| u64::try_from(since.as_nanos()).ok());
        Self { device: found.dev(), inode: found.ino(), birth_ns: birth_ns.unwrap_or(0) }
    }
}

/// Sets a file's modification time to these nanoseconds of the present second.
pub(crate) fn set_modified_ns(fd: RawFd, nanoseconds: u32) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let omit = libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT };
    let modified =
        libc::timespec { tv_sec: now.as_secs() as libc::time_t, tv_nsec: nanoseconds.into() };
    let times = [omit, modified];
    // SAFETY: a descriptor, and two times that outlive the call.
    super::check(unsafe { libc::futimens(fd, times.as_ptr()) }.into()).map(drop)
}

/// Opens a name that exists.
pub(crate) fn open(path: &Path, writable: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(writable)
        // The last for pipes, whose opening would wait.
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

/// Creates a file that nobody but its user can open, in a directory, as long as its file system has
/// files.
pub(crate) fn create_file(path: &Path, len_bytes: u64) -> io::Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)?;
    file.set_permissions(PermissionsExt::from_mode(0o600))?;
    let file_bytes = len_bytes.next_multiple_of(page_bytes(&file)?);
    limits::refuse_too_long(file_bytes)?;
    file.set_len(file_bytes)
}

/// Creates shared memory by name (without a slash), that nobody but its user can open; `directory` is
/// where it is found. False where somebody has removed the name meanwhile.
pub(crate) fn create_shared(directory: &str, name: &str, len_bytes: u64) -> io::Result<bool> {
    let size = usize::try_from(len_bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
    limits::refuse_too_long(len_bytes)?;
    match ShmemConf::new().os_id(format!("/{name}")).size(size).create() {
        Ok(mut made) => {
            // It stays when the mapping, which is not ours to use, goes.
            made.set_owner(false);
            // Its mode went through the umask, which may keep even us from opening it again.
            let path = Path::new(directory).join(name);
            match fs::set_permissions(path, PermissionsExt::from_mode(0o600)) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            }
        }
        Err(ShmemError::MappingIdExists) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(ShmemError::MapCreateFailed(code) | ShmemError::UnknownOsError(code)) => {
            Err(io::Error::from_raw_os_error(code as i32))
        }
        Err(other) => Err(io::Error::other(other.to_string())),
    }
}

/// Reserves the space of a file. `Unsupported` where the file system cannot.
pub(crate) fn reserve(file: &File, len_bytes: u64) -> io::Result<()> {
    let len = libc::off_t::try_from(len_bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
    limits::refuse_too_long(len_bytes)?;
    loop {
        // SAFETY: an open descriptor and numbers.
        let result = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) };
        match super::check(result.into()) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                return Err(io::ErrorKind::Unsupported.into());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Gives a file a further name, which must be free.
pub(crate) fn link(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (c_path(from)?, c_path(to)?);
    // SAFETY: two strings that outlive the call, and numbers.
    let result =
        unsafe { libc::linkat(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), 0) };
    super::check(result.into()).map(drop)
}

/// Where the next bytes lie that are not a hole, from `from` on; `None` where only holes follow.
pub(crate) fn next_data(file: &File, from: u64) -> io::Result<Option<u64>> {
    let from = libc::off_t::try_from(from).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: an open descriptor and numbers.
    let at = unsafe { libc::lseek(file.as_raw_fd(), from, libc::SEEK_DATA) };
    match super::check(at) {
        Ok(at) => Ok(Some(at.unsigned_abs())),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Renames a file, if the new name is free.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (c_path(from)?, c_path(to)?);
    let (at, free) = (libc::AT_FDCWD, libc::RENAME_NOREPLACE);
    // SAFETY: two strings that outlive the call, and numbers.
    let result = unsafe { libc::renameat2(at, from.as_ptr(), at, to.as_ptr(), free) };
    super::check(result.into()).map(drop)
}

/// Bytes that this user can still write in the file system of a directory; `None` where it does not say.
pub(crate) fn free_bytes(directory: &Path) -> Option<u64> {
    let directory = c_path(directory).ok()?;
    // SAFETY: a structure of zeros is one that says nothing.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a string and a structure that outlive the call.
    let result = unsafe { libc::statvfs(directory.as_ptr(), &mut found) };
    (result == 0).then(|| found.f_bavail.saturating_mul(found.f_frsize))
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Who this process is to the file system.
pub(crate) fn effective_user() -> u32 {
    // SAFETY: the call takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// The length that a file system gives files of this one's: whole huge pages on one of those.
pub(crate) fn page_bytes(file: &File) -> io::Result<u64> {
    // SAFETY: a structure of zeros is one that says nothing.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor, and a structure that outlives the call.
    super::check(unsafe { libc::fstatfs(file.as_raw_fd(), &mut found) }.into())?;
    let huge = found.f_type == libc::HUGETLBFS_MAGIC;
    Ok(if huge { found.f_bsize.unsigned_abs() } else { 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_not_followed_and_a_pipe_not_waited_for() {
        let directory = std::env::temp_dir().join(format!("ringway-names-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (link_path, pipe) = (directory.join("link"), directory.join("pipe"));
        std::os::unix::fs::symlink("/dev/zero", &link_path).unwrap();
        let c_pipe = c_path(&pipe).unwrap();
        // SAFETY: a string that outlives the call.
        assert_eq!(unsafe { libc::mkfifo(c_pipe.as_ptr(), 0o600) }, 0);
        let refused = open(&link_path, true).unwrap_err();
        let opened = open(&pipe, true);
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(refused.raw_os_error(), Some(libc::ELOOP));
        assert!(opened.is_ok());
    }
}
