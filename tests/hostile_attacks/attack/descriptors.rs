//! Attacks by descriptors that the host program takes from a plugin and attaches.
//!
//! Rows 53 and 54. The plugin's standard error is a socket; each message is answered with one byte, so that at
//! most one descriptor is on its way. Invariants: every file has whatever makes it look like a segment.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::ptr::null_mut;
use std::sync::Mutex;
use std::thread;

use ringway::host::Plugin;

use super::counters::{Count, Counters};
use super::{announced, passing, stalling};

const HUGE_BYTES: u64 = 2 << 20;
/// How many descriptors are handed over whose closing is never answered. Each of them costs the host one until
/// this process ends.
const MAX_STALLING: usize = 32;

fn opened(fd: i32) -> OwnedFd {
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: just opened, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn socket() -> UnixStream {
    // SAFETY: the call takes numbers.
    opened(unsafe { libc::fcntl(2, libc::F_DUPFD_CLOEXEC, 3) }).into()
}

/// Sends, and waits until the host program has attached what it has got. False where the host is gone.
fn hand_over(mut socket: &UnixStream, counters: &Counters, fds: &[i32]) -> bool {
    counters.add(Count::Attempts, 1);
    passing::send(socket, fds).is_ok() && matches!(socket.read(&mut [0]), Ok(1))
}

/// A sealed memory file with the bytes of a segment, as far as there is memory for them.
fn forged(flags: libc::c_uint, len_bytes: u64, bytes: &[u8]) -> Option<File> {
    let flags = flags | libc::MFD_ALLOW_SEALING | libc::MFD_CLOEXEC;
    // SAFETY: a C string.
    let fd = unsafe { libc::memfd_create(c"ringway".as_ptr(), flags) };
    if fd < 0 {
        return None;
    }
    let file = File::from(opened(fd));
    file.set_len(len_bytes).unwrap();
    // SAFETY: the call takes numbers.
    let has_memory = unsafe { libc::fallocate(fd, 0, 0, len_bytes as i64) } == 0;
    if has_memory {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, whose place the kernel chooses.
        let map =
            unsafe { libc::mmap(null_mut(), len_bytes as usize, access, libc::MAP_SHARED, fd, 0) };
        if map != libc::MAP_FAILED {
            // SAFETY: the mapping is as long, and its memory was reserved.
            unsafe { map.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            // SAFETY: just mapped, and nobody uses it.
            unsafe { libc::munmap(map, len_bytes as usize) };
        }
    }
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
    // SAFETY: the call takes numbers.
    assert_eq!(unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, seals) }, 0);
    Some(file)
}

fn punch(file: &File, len_bytes: u64) {
    let hole = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: the call takes numbers.
    unsafe { libc::fallocate(file.as_raw_fd(), hole, 0, len_bytes as i64) };
}

/// Files of huge pages and ordinary ones, all of which lose their memory while the host attaches them.
pub fn hand_over_huge_pages() {
    let counters = Counters::inherited();
    let socket = socket();
    let own = {
        // SAFETY: the call takes numbers.
        File::from(opened(unsafe { libc::fcntl(announced("active"), libc::F_DUPFD_CLOEXEC, 3) }))
    };
    let plugin = Plugin::connect().unwrap();
    let _channels = plugin.take_channels().unwrap();
    let len_bytes = own.metadata().unwrap().len();
    let mut bytes = vec![0; len_bytes.min(HUGE_BYTES) as usize];
    own.read_exact_at(&mut bytes, 0).unwrap();
    let current = Mutex::new(None::<File>);
    thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                let file = current.lock().unwrap().as_ref().map(|file| file.try_clone().unwrap());
                file.iter().for_each(|file| punch(file, HUGE_BYTES));
                thread::yield_now();
            }
        });
        for flags in [libc::MFD_HUGETLB, 0].into_iter().cycle() {
            let len_bytes = if flags == 0 { len_bytes } else { HUGE_BYTES };
            let Some(file) = forged(flags, len_bytes, &bytes) else { continue };
            let fd = file.as_raw_fd();
            *current.lock().unwrap() = Some(file.try_clone().unwrap());
            if !hand_over(&socket, &counters, &[fd]) {
                super::hang();
            }
        }
    });
}

/// What can be opened and is no memory.
fn no_memory(number: usize) -> OwnedFd {
    let (reader, writer) = io::pipe().unwrap();
    // SAFETY: the calls take numbers, but for two C strings.
    match number % 7 {
        0 => reader.into(),
        1 => writer.into(),
        2 => UnixStream::pair().unwrap().0.into(),
        3 => File::open("/dev/zero").unwrap().into(),
        4 => File::open("/proc/self").unwrap().into(),
        // SAFETY: the call takes numbers.
        5 => opened(unsafe { libc::eventfd(0, 0) }),
        // SAFETY: a C string.
        _ => opened(unsafe { libc::open(c"/".as_ptr(), libc::O_PATH | libc::O_CLOEXEC) }),
    }
}

/// Files of a file system that never answers, and others that are no memory.
pub fn hand_over_what_is_silent() {
    let counters = Counters::inherited();
    let socket = socket();
    let plugin = Plugin::connect().unwrap();
    let _channels = plugin.take_channels().unwrap();
    // The host program makes the file system, because that needs more rights; this process answers for it.
    let mut file_system = passing::receive(&socket).expect("a message").into_iter();
    // A host that is stuck in a call that this process does not answer cannot end before this process.
    // SAFETY: the call takes a number.
    unsafe { libc::alarm(300) };
    thread::scope(|scope| {
        if let (Some(device), Some(root)) = (file_system.next(), file_system.next()) {
            let counters = &counters;
            scope.spawn(move || stalling::answer(device.into(), counters));
            // Closed here as well, or this process could not end.
            for _ in 0..MAX_STALLING {
                hand_over(&socket, counters, &[stalling::open(&root).as_raw_fd()]);
            }
        }
        for number in 0.. {
            let (first, second) = (no_memory(number), no_memory(number / 7));
            if !hand_over(&socket, &counters, &[first.as_raw_fd(), second.as_raw_fd()]) {
                super::hang();
            }
        }
    });
}
