//! Golden segments as files and memory files that the library can open.

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringway::layout::store::usage;

/// A file in a directory that goes with the value.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(what: &str) -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringway-golden-{what}-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).expect("a directory");
        Self(directory)
    }

    pub fn path(&self) -> PathBuf {
        self.0.join("segment")
    }

    pub fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).expect("the segment")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn path_of(name: &str) -> String {
    format!("tests/golden/{name}.bin")
}

static WRITTEN: LazyLock<()> = LazyLock::new(|| {
    if std::env::var_os("RINGWAY_WRITE_GOLDEN").is_some() {
        super::write::all();
    }
});

/// The bytes of a golden segment; `None`, with the reason printed, where no machine of this kind
/// wrote it.
pub fn golden(name: &str) -> Option<Vec<u8>> {
    LazyLock::force(&WRITTEN);
    if !cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
        println!("skipped: the golden segments are of x86-64 and the GNU C library");
        return None;
    }
    Some(super::sparse::unpack(&fs::read(path_of(name)).expect("a golden segment")))
}

/// A golden segment in a file.
pub fn in_file(name: &str) -> Option<Scratch> {
    let scratch = Scratch::new(name);
    put(&scratch, &golden(name)?);
    Some(scratch)
}

pub fn put(scratch: &Scratch, bytes: &[u8]) {
    write_new(&scratch.path(), bytes);
}

fn write_new(path: &Path, bytes: &[u8]) {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    file.expect("a file").write_all(bytes).expect("room");
}

/// A name in shared memory that goes with the value.
#[derive(Debug)]
pub struct Named(pub String);

impl Drop for Named {
    fn drop(&mut self) {
        let _ = fs::remove_file(format!("/dev/shm/ringway.{}", self.0));
    }
}

/// A golden segment in shared memory.
pub fn under_name(name: &str) -> Option<Named> {
    let bytes = golden(name)?;
    let named = Named(format!("golden-{name}-{}", std::process::id()));
    write_new(Path::new(&format!("/dev/shm/ringway.{}", named.0)), &bytes);
    Some(named)
}

/// A golden segment in a sealed memory file.
pub fn in_memory(name: &str) -> Option<OwnedFd> {
    let bytes = golden(name)?;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let title: &CStr = c"golden";
    // SAFETY: the name is a C string that outlives the call.
    let fd = unsafe { libc::memfd_create(title.as_ptr(), flags) };
    assert!(fd >= 0, "a memory file");
    // SAFETY: the call has just made the descriptor, which nobody else has.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut file = File::from(fd);
    file.write_all(&bytes).expect("room");
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
    // SAFETY: the call takes numbers.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) }, 0);
    Some(file.into())
}

/// Makes a store's file the one that was closed. False, with the reason printed, where the file
/// system cannot tell.
pub fn is_made_the_closed_one(path: &Path) -> bool {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("the file");
    let found = file.metadata().expect("a file");
    let Ok(born) = found.created() else {
        println!("skipped: this file system keeps no time of birth");
        return false;
    };
    let since_1970 = |time: SystemTime| time.duration_since(UNIX_EPOCH).expect("after 1970");
    let words = [found.dev(), found.ino(), since_1970(born).as_nanos() as u64];
    for (offset, word) in usage::FILE.into_iter().zip(words) {
        file.write_all_at(&word.to_ne_bytes(), offset).expect("written");
    }
    let mut number = [0; 4];
    file.read_exact_at(&mut number, usage::CLOSING).expect("the closing's number");
    let number = u32::from_ne_bytes(number);
    file.sync_all().expect("on the disk");
    loop {
        let second = since_1970(SystemTime::now()).as_secs();
        file.set_modified(UNIX_EPOCH + Duration::new(second, number)).expect("set");
        let found = file.metadata().expect("a file");
        if found.mtime_nsec() != i64::from(number) {
            println!("skipped: this file system keeps no nanoseconds");
            return false;
        }
        // Not where one second ended and the next began.
        if found.mtime() == found.ctime() {
            return true;
        }
    }
}
