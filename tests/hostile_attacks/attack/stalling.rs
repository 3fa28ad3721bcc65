//! A file system in user space that opens a file and answers nothing afterwards.
//!
//! Row 54. Its process answers its own calls, so that it can go on. Invariants: a call of another process on an
//! open file of it waits until this process has ended.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::null;

use super::counters::{Count, Counters};

const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const HEADER_BYTES: usize = 40;

/// The device, and the root of a new file system that nothing is mounted on. `None` where that cannot be had.
pub fn make(uid: u32) -> Option<[OwnedFd; 2]> {
    let device = File::options().read(true).write(true).open("/dev/fuse").ok()?;
    // SAFETY: a C string.
    let context = own(unsafe { libc::syscall(libc::SYS_fsopen, c"fuse".as_ptr(), 1) })?;
    let set = |key: &str, value: String| {
        let (key, value) = (format!("{key}\0"), format!("{value}\0"));
        const STRING: u32 = 1;
        // SAFETY: two C strings that outlive the call.
        unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                context.as_raw_fd(),
                STRING,
                key.as_ptr(),
                value.as_ptr(),
                0,
            )
        }
    };
    let done = [
        set("fd", device.as_raw_fd().to_string()),
        set("rootmode", "40000".into()),
        set("user_id", uid.to_string()),
        set("group_id", uid.to_string()),
    ];
    const FLAG: u32 = 0;
    const CREATE: u32 = 6;
    let fd = context.as_raw_fd();
    // SAFETY: a C string; the other may be null.
    let shared = unsafe {
        libc::syscall(libc::SYS_fsconfig, fd, FLAG, c"allow_other".as_ptr(), null::<u8>(), 0)
    };
    // SAFETY: both pointers may be null.
    let created =
        unsafe { libc::syscall(libc::SYS_fsconfig, fd, CREATE, null::<u8>(), null::<u8>(), 0) };
    if done.iter().any(|result| *result != 0) || (shared, created) != (0, 0) {
        return None;
    }
    // SAFETY: the call takes numbers.
    let root = own(unsafe { libc::syscall(libc::SYS_fsmount, fd, 1, 0) })?;
    Some([device.into(), root])
}

fn own(fd: libc::c_long) -> Option<OwnedFd> {
    // SAFETY: just opened, and nobody else's.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Opens the file, which must be answered for by another thread.
pub fn open(root: &OwnedFd) -> OwnedFd {
    let flags = libc::O_RDWR | libc::O_CLOEXEC;
    // SAFETY: a C string.
    let fd = unsafe { libc::openat(root.as_raw_fd(), c"file".as_ptr(), flags) };
    own(fd.into()).unwrap_or_else(|| panic!("{}", io::Error::last_os_error()))
}

/// Attributes of the root or of the file.
fn attributes(node: u64) -> Vec<u8> {
    let mode = if node == 1 { libc::S_IFDIR | 0o777 } else { libc::S_IFREG | 0o666 };
    let longs = [node, 1 << 20, 2048, 0, 0, 0].map(u64::to_ne_bytes).concat();
    let words = [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0].map(u32::to_ne_bytes).concat();
    [longs, words].concat()
}

/// Answers what is asked before a file is open, and what this process itself asks. Counts what others wait for.
pub fn answer(mut device: File, counters: &Counters) {
    let mut request = vec![0; 1 << 18];
    // The kernel tells which thread asks.
    let is_own = |thread: u32| fs::exists(format!("/proc/self/task/{thread}")).unwrap();
    while let Ok(len) = device.read(&mut request) {
        assert!(len >= HEADER_BYTES);
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        let (opcode, thread) = (word(4), word(32));
        let unique = u64::from_ne_bytes(request[8..16].try_into().unwrap());
        let node = u64::from_ne_bytes(request[16..24].try_into().unwrap());
        let body = match opcode {
            // Version 7.31, with small limits.
            INIT => [7, 31, 1 << 16, 0, 0, 1 << 16, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0_u32]
                .map(u32::to_ne_bytes)
                .concat(),
            // Node 2, valid for ever.
            LOOKUP => {
                let longs = [2, 0, 1 << 30, 1 << 30, 0].map(u64::to_ne_bytes).concat();
                [longs, attributes(2)].concat()
            }
            OPEN => [0_u64; 2].map(u64::to_ne_bytes).concat(),
            GETATTR if node == 1 => {
                [[1 << 30, 0].map(u64::to_ne_bytes).concat(), attributes(1)].concat()
            }
            FLUSH | RELEASE if is_own(thread) => Vec::new(),
            _ => {
                counters.add(Count::Hits, 1);
                continue;
            }
        };
        let len = (16 + body.len()) as u32;
        let head = [len.to_ne_bytes(), 0_u32.to_ne_bytes()].concat();
        let answer = [head, unique.to_ne_bytes().to_vec(), body].concat();
        let _ = device.write(&answer);
    }
}
