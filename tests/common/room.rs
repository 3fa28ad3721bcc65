//! Processes that lack room, or descriptors.

use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use super::victim::Victim;

/// Runs `run` in a process of its own, with a directory in which there is as much room as `size` says.
/// Says so where that cannot be had here.
pub fn in_a_small_file_system(size: &str, run: impl FnOnce(&Path)) {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    let name = format!("ringway-small-{}-{number}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    fs::create_dir(&directory).unwrap();
    let mut process = Victim::start(|| {
        if mount(&directory, size) {
            run(&directory);
        }
    });
    let status = process.wait();
    fs::remove_dir(&directory).unwrap();
    assert_eq!(status, 0);
}

/// In a mount namespace of its own.
fn mount(directory: &Path, size: &str) -> bool {
    let path = CString::new(directory.to_str().unwrap()).unwrap();
    let options = CString::new(format!("size={size}")).unwrap();
    // SAFETY: the call takes a number.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        println!("skipped: no mount namespaces here");
        return false;
    }
    let private = libc::MS_REC | libc::MS_PRIVATE;
    let none = std::ptr::null();
    // SAFETY: strings that outlive the call; the others may be null.
    unsafe { libc::mount(none, c"/".as_ptr(), none, private, none.cast()) };
    let kind = c"tmpfs".as_ptr();
    // SAFETY: as above.
    let mounted = unsafe { libc::mount(kind, path.as_ptr(), kind, 0, options.as_ptr().cast()) };
    assert_eq!(mounted, 0, "{}", std::io::Error::last_os_error());
    true
}

/// How many descriptors this process may have.
pub struct Limit(u64);

impl Limit {
    pub fn set(&self) {
        limit(self.0);
    }

    pub fn lift(&self) {
        limit(1024);
    }
}

/// Calls `run`, in a process of its own, with room for one more descriptor each time, until it says that
/// all went well; returns, at most 255, how often it did not.
pub fn with_ever_more_descriptors(run: impl Fn(&Limit) -> bool) -> i32 {
    let mut limited = Victim::start(|| {
        let refused = (3..1024).take_while(|descriptors| !run(&Limit(*descriptors))).count();
        // SAFETY: the call takes a number and does not return.
        unsafe { libc::_exit(refused.clamp(1, 100) as i32) };
    });
    let status = limited.wait();
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) <= 100, "{status:#x}");
    libc::WEXITSTATUS(status)
}

fn limit(descriptors: u64) {
    let limit = libc::rlimit { rlim_cur: descriptors, rlim_max: 1024 };
    // SAFETY: the limit outlives the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
}
