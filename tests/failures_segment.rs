//! Rows of the table of failures that concern segments: what a peer, or a lack of room, does to the
//! memory behind a channel.

#![allow(unsafe_code)]

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use ringway::error::SegmentError;
use ringway::layout::{CHANNEL_DATA, segment};
use ringway::memory::{Deadline, FenceMode, Memory, Ordering};
use ringway::segment::{AnonymousSegment, ChannelGeometry};

const CAPACITY_BYTES: u64 = 16 * 1024;

fn create() -> AnonymousSegment {
    AnonymousSegment::create(&ChannelGeometry::records([CAPACITY_BYTES; 2], 8, FenceMode::Real))
        .unwrap()
}

fn attach(file: File) -> Result<AnonymousSegment, SegmentError> {
    AnonymousSegment::attach(file.into())
}

/// A memory file as a peer might make it.
fn memory_file(len_bytes: u64, seals: i32) -> File {
    // SAFETY: the name is a C string.
    let fd = unsafe {
        libc::memfd_create(c"peer".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)
    };
    assert!(fd >= 0);
    // SAFETY: a new descriptor that nobody else owns.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(len_bytes).unwrap();
    if seals != 0 {
        add_seals(&file, seals).unwrap();
    }
    file
}

const SIZE_SEALS: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;

fn last_error(result: i32) -> Result<(), Option<i32>> {
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().raw_os_error()) }
}

fn add_seals(file: &impl AsFd, seals: i32) -> Result<(), Option<i32>> {
    // SAFETY: an open descriptor and a number.
    last_error(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_ADD_SEALS, seals) })
}

/// Takes the memory away under `len_bytes` bytes from the start.
fn punch(file: &impl AsFd, len_bytes: u64) -> Result<(), Option<i32>> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: an open descriptor and numbers.
    last_error(unsafe {
        libc::fallocate(file.as_fd().as_raw_fd(), mode, 0, len_bytes as libc::off_t)
    })
}

/// Runs `claim` in a forked child, which it cannot survive for more than a minute; whether it
/// returned `true`. A panic is `false`.
fn child_says(claim: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child runs on a copy of this thread; the library keeps its allocator usable in
    // such a child.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid == 0 {
        // SAFETY: sets a timer that kills the child.
        unsafe { libc::alarm(60) };
        let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(claim));
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(i32::from(!said.unwrap_or(false))) };
    }
    let mut status = 0;
    // SAFETY: our child; `status` outlives the call.
    let reaped = unsafe { libc::waitpid(pid, &mut status, 0) };
    reaped == pid && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

/// Sets a soft limit of this process; returns the old one.
fn limit(resource: libc::__rlimit_resource_t, soft: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives the call.
    assert_eq!(unsafe { libc::getrlimit(resource, &mut limit) }, 0);
    let old = std::mem::replace(&mut limit.rlim_cur, soft.min(limit.rlim_max));
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(resource, &limit) }, 0);
    old
}

/// How many descriptors are open, and how many segments are mapped.
fn kept() -> (usize, usize) {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = maps.lines().filter(|line| line.contains("/memfd:ringway")).count();
    (fs::read_dir("/proc/self/fd").unwrap().count(), mapped)
}

#[test]
fn f11_any_one_flipped_bit_of_the_header_is_refused() {
    let ours = create();
    for offset in (0..segment::HEADER_BYTES).step_by(8) {
        let word = ours.memory().load_u64(offset, Ordering::Relaxed);
        for bit in 0..64 {
            ours.memory().store_u64(offset, word ^ 1 << bit, Ordering::Relaxed);
            let refused = AnonymousSegment::attach(ours.descriptor().unwrap());
            assert!(
                matches!(refused, Err(SegmentError::Incompatible { .. })),
                "bit {bit} of the word at {offset}: {refused:?}"
            );
        }
        ours.memory().store_u64(offset, word, Ordering::Relaxed);
    }
    AnonymousSegment::attach(ours.descriptor().unwrap()).unwrap();
}

#[test]
fn f14_a_peer_can_neither_cut_nor_lengthen_the_segment() {
    let ours = create();
    let peer = File::from(ours.descriptor().unwrap());
    let len_bytes = peer.metadata().unwrap().len();
    for len in [0, 4096, len_bytes - 1, len_bytes + 1] {
        assert_eq!(peer.set_len(len).unwrap_err().raw_os_error(), Some(libc::EPERM), "{len}");
    }
    assert_eq!(ours.memory().len_bytes(), len_bytes);
    assert_eq!(ours.memory().load_u64(len_bytes - 8, Ordering::Relaxed), 0);
}

#[test]
fn f15_a_hole_is_zeros_until_the_seal_and_impossible_after() {
    let ours = create();
    let peer = File::from(ours.descriptor().unwrap());
    let len_bytes = ours.memory().len_bytes();
    let geometry = *ours.geometry();
    ours.memory().store_u64(CHANNEL_DATA, 42, Ordering::Relaxed);

    punch(&peer, len_bytes).unwrap();
    assert_eq!(peer.metadata().unwrap().blocks(), 0);
    assert_eq!(ours.memory().load_u64(CHANNEL_DATA, Ordering::Relaxed), 0);
    assert_eq!(*ours.geometry(), geometry, "kept privately");

    punch(&peer, len_bytes).unwrap();
    ours.seal_writes().unwrap();
    assert_eq!(peer.metadata().unwrap().blocks() * 512, len_bytes, "the hole is filled");
    assert_eq!(punch(&peer, len_bytes), Err(Some(libc::EPERM)));
    assert_eq!(peer.write_at(&[1], 0).unwrap_err().raw_os_error(), Some(libc::EPERM));
    ours.memory().store_u64(CHANNEL_DATA, 43, Ordering::Relaxed);
    ours.seal_writes().expect("sealing again changes nothing");
}

/// A mapping from before the seal goes on being written, and punches no holes either.
#[test]
fn f15_an_old_mapping_punches_no_holes_after_the_seal() {
    let ours = create();
    let peer = memmap2::MmapRaw::map_raw(&File::from(ours.descriptor().unwrap())).unwrap();
    let punch = || {
        let (start, len) = (peer.as_mut_ptr().cast(), peer.len());
        // SAFETY: the range is a mapping that nobody has references into.
        last_error(unsafe { libc::madvise(start, len, libc::MADV_REMOVE) })
    };
    ours.memory().store_u64(CHANNEL_DATA, 42, Ordering::Relaxed);
    punch().unwrap();
    assert_eq!(ours.memory().load_u64(CHANNEL_DATA, Ordering::Relaxed), 0);
    ours.seal_writes().unwrap();
    ours.memory().store_u64(CHANNEL_DATA, 43, Ordering::Relaxed);
    assert_eq!(punch(), Err(Some(libc::EPERM)));
    assert_eq!(ours.memory().load_u64(CHANNEL_DATA, Ordering::Relaxed), 43);
}

#[test]
fn f15_nobody_maps_for_writing_after_the_seal() {
    let ours = create();
    ours.seal_writes().unwrap();
    let late = AnonymousSegment::attach(ours.descriptor().unwrap());
    assert!(matches!(late, Err(SegmentError::Os { call: "mmap", .. })), "{late:?}");
    AnonymousSegment::inspect(ours.descriptor().unwrap()).expect("reading goes on");
}

#[test]
fn f15_a_peer_that_seals_first_is_found_out() {
    let ours = create();
    add_seals(&ours.descriptor().unwrap(), libc::F_SEAL_SEAL).unwrap();
    let refused = ours.seal_writes();
    assert!(matches!(refused, Err(SegmentError::Os { .. })), "{refused:?}");

    // What it adds may also be just what was to be added.
    let ours = create();
    add_seals(&ours.descriptor().unwrap(), libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL).unwrap();
    ours.seal_writes().unwrap();
}

#[test]
fn f16_a_descriptor_that_is_no_sealed_memory_is_refused() {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    for end in ends {
        // SAFETY: a new descriptor that nobody else owns.
        let end = unsafe { OwnedFd::from_raw_fd(end) };
        let refused = AnonymousSegment::attach(end);
        assert!(matches!(refused, Err(SegmentError::NotMemory { .. })), "{refused:?}");
    }
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let folder = File::open("/").unwrap();
    let program = File::open(std::env::current_exe().unwrap()).unwrap();
    for file in [null, folder, program] {
        let refused = attach(file);
        assert!(
            matches!(refused, Err(SegmentError::NotMemory { .. } | SegmentError::Unsealed { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn f16_memory_of_the_wrong_seals_or_size_is_refused() {
    let ours = create();
    let len_bytes = ours.memory().len_bytes();
    let mut header = [0; segment::HEADER_BYTES as usize];
    ours.memory().copy_out(0, &mut header);
    let with_header = |len_bytes, seals| {
        let file = memory_file(len_bytes, 0);
        file.write_all_at(&header, 0).unwrap();
        add_seals(&file, seals).unwrap();
        attach(file)
    };
    for seals in [0, libc::F_SEAL_SHRINK, libc::F_SEAL_GROW, libc::F_SEAL_SEAL] {
        let refused = with_header(len_bytes, seals);
        assert!(matches!(refused, Err(SegmentError::Unsealed { .. })), "{refused:?}");
    }
    for len in [128, 4096, len_bytes - 4096, len_bytes - 1] {
        match with_header(len, SIZE_SEALS) {
            Err(SegmentError::TooSmall { found, needed }) => {
                assert_eq!((found, needed), (len, len_bytes));
            }
            other => panic!("{len} bytes: {other:?}"),
        }
    }
    for len in [0, 127] {
        let refused = attach(memory_file(len, SIZE_SEALS));
        assert!(matches!(refused, Err(SegmentError::TooSmall { .. })), "{refused:?}");
    }
    for refused in [
        attach(memory_file(len_bytes, SIZE_SEALS)),
        with_header(len_bytes + 1, SIZE_SEALS),
        with_header(len_bytes + 4096, SIZE_SEALS),
    ] {
        assert!(matches!(refused, Err(SegmentError::Incompatible { .. })), "{refused:?}");
    }
    let found = with_header(len_bytes, SIZE_SEALS).unwrap();
    assert_eq!(found.geometry(), ours.geometry());
}

#[test]
fn f30_a_forked_child_is_told_from_the_process_that_attached() {
    let ours = create();
    assert!(ours.memory().is_ours());
    ours.memory().store_u64(CHANNEL_DATA, 42, Ordering::Relaxed);
    let peer = ours.descriptor().unwrap();
    assert!(child_says(|| {
        let stranger = !ours.memory().is_ours() && !ours.memory().clone().is_ours();
        let own = AnonymousSegment::attach(peer.try_clone().unwrap()).unwrap();
        let attached = own.memory().is_ours() && !ours.memory().is_ours();
        let same = own.memory().load_u64(CHANNEL_DATA, Ordering::Relaxed) == 42;
        let grandchild = || !own.memory().is_ours() && !ours.memory().is_ours();
        // Dropping the parent's end unmaps the child's copy only.
        stranger && attached && same && child_says(grandchild) && {
            drop(ours);
            own.memory().is_ours()
        }
    }));
}

#[test]
fn f30_dropping_in_the_child_leaves_the_parents_mapping() {
    let ours = create();
    let shared = std::sync::Mutex::new(Some(ours));
    assert!(child_says(|| shared.lock().unwrap().take().is_some()));
    let ours = shared.into_inner().unwrap().unwrap();
    ours.memory().store_u64(CHANNEL_DATA, 42, Ordering::Relaxed);
    assert_eq!(ours.memory().load_u64(CHANNEL_DATA, Ordering::Relaxed), 42);
    assert!(ours.memory().is_ours());
}

#[test]
fn f33_a_segment_that_does_not_fit_is_an_error_and_keeps_nothing() {
    let huge =
        || AnonymousSegment::create(&ChannelGeometry::records([1 << 26; 2], 8, FenceMode::Real));
    // The file must not become as long.
    assert!(child_says(|| {
        drop(create());
        let before = kept();
        // SAFETY: the signal that goes with this limit is ignored from here on.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        limit(libc::RLIMIT_FSIZE, 1 << 24);
        matches!(huge(), Err(SegmentError::FileLimit { .. })) && kept() == before
    }));
    // There are not as many addresses.
    assert!(child_says(|| {
        drop(create());
        let before = kept();
        let old = limit(libc::RLIMIT_AS, 1 << 26);
        let refused = huge();
        limit(libc::RLIMIT_AS, old);
        matches!(refused, Err(SegmentError::NoSpace { .. })) && kept() == before
    }));
}

#[test]
fn f39_without_descriptors_there_is_an_error_and_nothing_half_done() {
    let ours = create();
    let peer = ours.descriptor().unwrap();
    assert!(child_says(|| {
        let before = kept();
        let old = limit(libc::RLIMIT_NOFILE, 3);
        let created = AnonymousSegment::create(&ChannelGeometry::records(
            [CAPACITY_BYTES; 2],
            8,
            FenceMode::Real,
        ));
        let descriptor = ours.descriptor();
        limit(libc::RLIMIT_NOFILE, old);
        let refused = matches!(created, Err(SegmentError::Os { call: "memfd_create", .. }))
            && matches!(descriptor, Err(SegmentError::Os { .. }));
        refused && kept() == before && AnonymousSegment::attach(peer).is_ok() && {
            drop(create());
            true
        }
    }));
}

#[test]
fn what_no_channel_can_have_is_refused() {
    let make = |capacity_bytes, align| {
        AnonymousSegment::create(&ChannelGeometry::records(capacity_bytes, align, FenceMode::Real))
    };
    for capacity_bytes in [0, 1, 32, 96, 4095, (1 << 32) + 1, 1 << 33, u64::MAX, 1 << 63] {
        for pair in [[capacity_bytes, 64], [64, capacity_bytes]] {
            match make(pair, 8) {
                Err(SegmentError::Capacity { found, .. }) => assert_eq!(found, capacity_bytes),
                other => panic!("{other:?}"),
            }
        }
    }
    for align in [0, 1, 4, 7, 9, 24, 128, u64::MAX, 1 << 32] {
        let refused = make([4096; 2], align);
        assert!(matches!(refused, Err(SegmentError::Alignment { .. })), "{refused:?}");
    }
    assert!(matches!(make([64, 4096], 64), Err(SegmentError::Alignment { found: 64 })));
    for align in [8, 16, 32, 64] {
        assert_eq!(make([128, 4096], align).unwrap().geometry().payload_align, align);
    }
}

#[test]
fn a_segment_costs_its_capacity_and_two_pages() {
    for capacity_bytes in [[64, 64], [4096, 64], [1 << 16, 1 << 16]] {
        let ours =
            AnonymousSegment::create(&ChannelGeometry::records(capacity_bytes, 8, FenceMode::Real))
                .unwrap();
        let extra = ours.memory().len_bytes() - capacity_bytes[0] - capacity_bytes[1];
        assert!(extra <= 8192, "{extra}");
    }
}

#[test]
fn a_wake_reaches_a_sleeper_in_another_process() {
    let ours = create();
    let peer = ours.descriptor().unwrap();
    let woken = std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            child_says(|| {
                let theirs = AnonymousSegment::attach(peer.try_clone().unwrap()).unwrap();
                let memory = theirs.memory();
                let deadline = memory.now_ns() + 30_000_000_000;
                memory.wait_u32(CHANNEL_DATA, 0, Deadline::at_ns(deadline));
                memory.now_ns() < deadline
            })
        });
        while !sleeper.is_finished() {
            ours.memory().wake_u32(CHANNEL_DATA, 1);
            std::thread::yield_now();
        }
        sleeper.join().unwrap()
    });
    assert!(woken, "the sleep ended by itself");
}
