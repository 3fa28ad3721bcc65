//! A channel in a file of huge pages.
//!
//! Skipped, which is printed, where this process may not mount one or the machine has no huge pages to
//! give. What it has changed is undone however it ends: the mount lies in a namespace of a process of
//! its own.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use common::meeting::{on, options, process};
use common::victim::Victim;
use ringway::channel::{self, Channel, ChannelOptions, Side};
use ringway::error::{NameError, RecvError, SegmentError};

const PAGES: &str = "/proc/sys/vm/nr_hugepages";
const WANTED: u64 = 16;
const PAGE_BYTES: u64 = 2 << 20;

/// Pages reserved and a directory made until this is dropped.
struct Reserved {
    before: u64,
    directory: PathBuf,
}

fn pages() -> Option<u64> {
    fs::read_to_string(PAGES).ok()?.trim().parse().ok()
}

impl Reserved {
    fn new() -> Option<Self> {
        let before = pages()?;
        let directory = std::env::temp_dir().join(format!("ringway-huge-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let reserved = Self { before, directory };
        fs::write(PAGES, (before + WANTED).to_string()).ok()?;
        let default = fs::read_to_string("/proc/meminfo").unwrap();
        let size = default.lines().any(|line| {
            line.strip_prefix("Hugepagesize:").is_some_and(|size| size.trim() == "2048 kB")
        });
        (size && pages()? >= before + WANTED).then_some(reserved)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let _ = fs::write(PAGES, self.before.to_string());
        let _ = fs::remove_dir(&self.directory);
    }
}

#[test]
fn a_channel_in_huge_pages_works_as_any_other() {
    let Some(reserved) = Reserved::new() else {
        println!("skipped: no {WANTED} huge pages of 2 MiB to be had");
        return;
    };
    let status = Victim::start(|| in_a_namespace(&reserved.directory)).wait();
    assert_eq!(status, 0);
    let before = reserved.before;
    drop(reserved);
    assert_eq!(pages(), Some(before));
}

fn in_a_namespace(directory: &Path) {
    let path = CString::new(directory.as_os_str().as_bytes()).unwrap();
    let kind = c"hugetlbfs";
    // SAFETY: the call takes a number.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        println!("skipped: no mount namespaces here");
        return;
    }
    let private = libc::MS_REC | libc::MS_PRIVATE;
    let none = std::ptr::null();
    // SAFETY: strings that outlive the call; the others may be null.
    unsafe { libc::mount(none, c"/".as_ptr(), none, private, none.cast()) };
    let options = c"pagesize=2M,size=32M";
    // SAFETY: as above.
    let mounted = unsafe {
        libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast())
    };
    if mounted != 0 {
        println!("skipped: no hugetlbfs here: {}", std::io::Error::last_os_error());
        return;
    }
    use_channel(directory);
    println!("a channel in huge pages: done");
}

fn use_channel(directory: &Path) {
    let path = directory.join("channel");
    let mut first = Channel::create(&*path, &options()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), PAGE_BYTES);
    assert_eq!(kernel_page_size(directory), "2048 kB");
    first.send(b"unread").unwrap();
    let victim = process(|| {
        let mut second = Channel::open(&*path, &options()).unwrap();
        assert_eq!(&*second.recv().unwrap(), b"unread");
        second.receiver().release();
        // As many as the ring holds: nobody reads yet.
        (0..100_u32).for_each(|number| second.send(&number.to_ne_bytes()).unwrap());
        second
    });
    for number in 0..100_u32 {
        assert_eq!(&*first.recv().unwrap(), number.to_ne_bytes());
    }
    first.send(b"for the successor").unwrap();
    drop(victim);
    assert_eq!(first.recv().unwrap_err(), RecvError::Disconnected);
    let mut second = Channel::open(&*path, &options()).unwrap();
    assert_eq!(&*second.recv().unwrap(), b"for the successor");
    second.send(b"back").unwrap();
    assert!(matches!(first.recv(), Err(RecvError::Restarted { .. })));
    assert_eq!(&*first.recv().unwrap(), b"back");
    second.send(b"kept").unwrap();
    drop((first, second));
    let mut first = Channel::open(&*path, &on(Side::First)).unwrap();
    assert_eq!(&*first.recv().unwrap(), b"kept");
    drop(first);
    // The dead one is replaced, by one of several pages.
    let large = ChannelOptions { capacity_bytes: 2 << 20, ..options() };
    let mut first = Channel::create(&*path, &large).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 3 * PAGE_BYTES);
    let mut second = Channel::open(&*path, &large).unwrap();
    let long = vec![7; 1 << 20];
    for _ in 0..10 {
        first.send(&long).unwrap();
        assert!(*second.recv().unwrap() == long, "it lies across pages");
    }
    drop((first, second));
    let too_large = ChannelOptions { capacity_bytes: 64 << 20, ..options() };
    let refused = Channel::create(directory.join("other"), &too_large);
    let Err(SegmentError::Name(NameError::CannotCreate { .. })) = refused else {
        panic!("{refused:?}")
    };
    channel::remove(&*path).unwrap();
    assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
}

/// Of this process's mapping of a file there; its name may have changed.
fn kernel_page_size(directory: &Path) -> String {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = smaps.lines().skip_while(|line| !line.contains(directory.to_str().unwrap()));
    lines.find_map(|line| line.strip_prefix("KernelPageSize:")).unwrap().trim().into()
}
