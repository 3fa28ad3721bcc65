//! Rows 75, 76, 80, 81, 83 and 84: what directories, limits and killed creators do to names and files.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use common::meeting::*;
use common::name::Name;
use common::seccomp;
use common::steps::killed_at;
use common::victim::Victim;
use ringway::channel::{self, Channel, ChannelOptions};
use ringway::error::{NameError, SegmentError};
use ringway::layout::claim;
use ringway::segment::{self, Address};
use ringway::store::{self, OpenError, Store, StoreOptions};

/// A directory on a disk, with what is in it, that is gone when the test is over.
struct Directory(PathBuf, u32);

impl Directory {
    fn new(what: &str) -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let (number, owner) = (LAST.fetch_add(1, Ordering::Relaxed), std::process::id());
        let path = std::env::temp_dir().join(format!("ringway-{what}-{owner}-{number}"));
        fs::create_dir_all(&path).unwrap();
        Self(path, owner)
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.1 == std::process::id() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

fn small() -> StoreOptions {
    StoreOptions { capacity_bytes: 1 << 18, max_readers: 4, ..StoreOptions::default() }
}

/// Runs this in a process of its own, which must come to its end.
fn in_a_process(run: impl FnOnce()) {
    assert_eq!(Victim::start(run).wait(), 0);
}

fn limit(resource: libc::__rlimit_resource_t, value: u64) {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: the limit outlives the call.
    assert_eq!(unsafe { libc::setrlimit(resource, &limit) }, 0);
}

fn of_store<T: std::fmt::Debug>(result: Result<T, OpenError>) -> SegmentError {
    match result {
        Err(OpenError::Segment(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn f75_a_limit_on_files_is_an_error_and_no_signal() {
    let (name, directory) = (Name::new("f75"), Directory::new("f75"));
    let file = directory.0.join("file");
    in_a_process(|| {
        limit(libc::RLIMIT_FSIZE, 64 << 10);
        // Whoever is killed by SIGXFSZ here ends with that status.
        let channels = ChannelOptions::default();
        let refused = [
            Channel::pair(&channels).map(drop).unwrap_err(),
            Channel::create(&name, &channels).map(drop).unwrap_err(),
            Channel::open_or_create(&*file, &channels).map(drop).unwrap_err(),
            of_store(Store::anonymous(&small())),
            of_store(Store::create(&name, &small())),
            of_store(Store::open_or_create(&*file, &small())),
        ];
        for refused in refused {
            let text = refused.to_string();
            assert!(text.contains("RLIMIT_FSIZE") && text.contains("65536"), "{text}");
            assert!(matches!(refused, SegmentError::FileLimit { limit_bytes: 65536, .. }));
        }
        // What is short enough is made.
        drop(Channel::pair(&options()).unwrap());
        drop(Channel::create(&name, &options()).unwrap());
    });
    assert!(directory.files().is_empty() && name.temporaries().is_empty());
}

#[test]
fn f76_segments_are_not_part_of_core_dumps_unless_asked_for() {
    let (name, directory) = (Name::new("f76"), Directory::new("f76"));
    let file = directory.0.join("file");
    in_a_process(|| {
        // Of each mapping with one of these in its path: whether it is left out.
        let are_left_out = || {
            let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
            let mut ours = false;
            let mut left_out = Vec::new();
            for line in smaps.lines() {
                match line.strip_prefix("VmFlags:") {
                    Some(flags) if ours => left_out.push(flags.contains(" dd")),
                    Some(_) => {}
                    // The first line of a mapping ends with its path.
                    None if line.contains('/') => {
                        ours = line.contains("ringway") && line.contains("s ")
                    }
                    None if line.contains('-') => ours = false,
                    None => {}
                }
            }
            left_out
        };
        let make = || {
            let named = Channel::create(&name, &options()).unwrap();
            let file = Store::create(&*file, &small()).unwrap();
            let listed = Channel::open(&name, &options()).unwrap();
            (
                named,
                file,
                listed,
                Channel::pair(&options()).unwrap(),
                Store::anonymous(&small()).unwrap(),
            )
        };
        let made = make();
        let found = are_left_out();
        assert!(found.len() >= 6 && found.iter().all(|left_out| *left_out), "{found:?}");
        drop(made);
        segment::keep_in_core_dumps(true);
        let _made = make();
        let found = are_left_out();
        assert!(found.len() >= 6 && found.iter().all(|left_out| !left_out), "{found:?}");
    });
}

#[test]
fn f80_the_next_creator_removes_what_killed_ones_have_left() {
    let (name, directory) = (Name::new("f80"), Directory::new("f80"));
    let long = directory.0.join("x".repeat(255));
    for address in [Address::from(&name), directory.0.join("file").into(), long.into()] {
        let drafts = || name.temporaries().len() + directory.files().len();
        let (mut deaths, mut left) = (0, 0);
        let create = || drop(Channel::create(&address, &options()).unwrap());
        for step in 1.. {
            if !killed_at(step, &create) {
                break;
            }
            deaths += 1;
            left += drafts();
            assert!(drafts() <= 2, "step {step}: at most one draft and the file");
        }
        assert!(deaths > 30 && left > 10, "{deaths} deaths, {left} left");
        create();
        assert!(name.temporaries().is_empty());
        let files = directory.files();
        assert!(files.iter().all(|file| !file.starts_with('.')), "{files:?}");
        channel::remove(&address).unwrap();
    }
}

#[test]
fn f80_drafts_of_a_directory_are_cleared_once_nobody_has_them() {
    let directory = Directory::new("f80dir");
    drop(Store::create(directory.0.join("kept"), &small()).unwrap());
    let draft = |name: &str| {
        let path = directory.0.join(format!(".{name}.ringway~{:032x}", 7));
        fs::write(&path, b"half made").unwrap();
        fs::File::options().read(true).write(true).open(path).unwrap()
    };
    let (dead, alive) = (draft("dead"), draft("alive"));
    lock(&alive, libc::F_WRLCK, claim::SIDE[0], 1);
    fs::write(directory.0.join(".other"), b"").unwrap();
    let cleared = segment::gc_drafts(&directory.0).unwrap();
    assert_eq!(cleared.removed, [format!(".dead.ringway~{:032x}", 7)]);
    assert!(cleared.skipped.is_empty());
    drop((dead, alive));
    assert_eq!(segment::gc_drafts(&directory.0).unwrap().removed.len(), 1);
    let mut left = directory.files();
    left.sort();
    assert_eq!(left, [".other", "kept"]);
    let refused = segment::gc_drafts(directory.0.join("missing")).unwrap_err();
    assert!(refused.to_string().contains("missing"), "{refused}");
}

#[test]
fn f81_a_blank_file_is_replaced_removed_and_cleared() {
    let (name, directory) = (Name::new("f81"), Directory::new("f81"));
    let file = directory.0.join("file");
    let len_bytes = {
        let channel = Channel::create(&name, &options()).unwrap();
        drop(channel);
        fs::metadata(name.path()).unwrap().len() as usize
    };
    for (address, path) in [(Address::from(&name), name.path()), (file.clone().into(), file)] {
        for blank in [0, 17, len_bytes] {
            let make = || {
                fs::write(&path, vec![0; blank]).unwrap();
                let mode = if blank == 0 { 0o644 } else { 0o600 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            };
            make();
            let refused = name_error(Channel::open(&address, &options()));
            assert!(matches!(refused, NameError::Stale { .. }), "{refused}");
            drop(Channel::create(&address, &options()).unwrap());
            make();
            drop(Channel::open_or_create(&address, &options()).unwrap());
            make();
            drop(Store::create(&address, &small()).unwrap());
            make();
            drop(Store::open_or_create(&address, &small()).unwrap());
            make();
            channel::remove(&address).unwrap();
            make();
            store::remove(&address).unwrap();
            assert!(!path.exists());
        }
    }
    for gc in [channel::gc_where, store::gc_where] {
        fs::write(name.path(), b"").unwrap();
        fs::set_permissions(name.path(), fs::Permissions::from_mode(0o644)).unwrap();
        let cleared = gc(|found: &str| found == name.text()).unwrap();
        assert!(cleared.removed.len() == 1 && cleared.skipped.is_empty(), "{cleared:?}");
        assert!(!name.path().exists());
    }
    // One byte is somebody's.
    let mut bytes = vec![0; 1 << 17];
    bytes[(1 << 17) - 1] = 1;
    let path = directory.0.join("data");
    fs::write(&path, &bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    for refused in [
        Channel::create(&*path, &options()).map(drop),
        Channel::open_or_create(&*path, &options()).map(drop),
        channel::remove(&*path),
        store::remove(&*path),
        Store::create(&*path, &small()).map(drop).map_err(|error| match error {
            OpenError::Segment(error) => error,
            error => panic!("{error}"),
        }),
    ] {
        let refused = name_error(refused);
        assert!(matches!(refused, NameError::Stale { .. }), "{refused}");
    }
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn f83_what_cannot_be_looked_at_is_reported() {
    let names: Vec<_> = (0..20).map(|_| Name::new("f83")).collect();
    for name in &names {
        drop(Channel::create(name, &options()).unwrap());
    }
    let ours = |found: &str| names.iter().any(|name| name.text() == found);
    in_a_process(|| {
        // One more descriptor than there are: enough to open a segment, and not to look into it.
        let spare = fs::File::open("/dev/null").unwrap();
        let next = std::os::fd::AsRawFd::as_raw_fd(&spare);
        drop(spare);
        limit(libc::RLIMIT_NOFILE, next as u64 + 1);
        let listed = channel::list().unwrap();
        let found: Vec<_> = listed.found.iter().filter(|found| ours(&found.name)).collect();
        assert_eq!(found.len(), names.len(), "one descriptor at a time is enough to list them");
        assert!(found.iter().all(|found| found.unread.is_err()));
        let cleared = channel::gc_where(ours).unwrap();
        assert_eq!((cleared.removed.len(), cleared.skipped.len()), (0, names.len()));
        let text = cleared.skipped[0].reason.to_string();
        assert!(text.contains("Too many open files"), "{text}");
        limit(libc::RLIMIT_NOFILE, next as u64);
        for refused in [channel::list().map(drop), channel::gc_where(ours).map(drop)] {
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("/dev/shm") && refused.contains("Too many"), "{refused}");
        }
    });
    assert_eq!(channel::gc_where(ours).unwrap().removed.len(), names.len());
}

/// Puts an empty file system over a directory, of this size, in a mount namespace of its own. False, and
/// says so, where that cannot be had.
fn cover(directory: &str, options: &str) -> bool {
    // SAFETY: the call takes a number.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        println!("skipped: no mount namespaces here");
        return false;
    }
    let (none, private) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
    // SAFETY: strings that outlive the call; the others may be null.
    unsafe { libc::mount(none, c"/".as_ptr(), none, private, none.cast()) };
    let (path, options) = (CString::new(directory).unwrap(), CString::new(options).unwrap());
    let kind = c"tmpfs".as_ptr();
    // SAFETY: as above.
    let mounted = unsafe { libc::mount(kind, path.as_ptr(), kind, 0, options.as_ptr().cast()) };
    assert_eq!(mounted, 0, "{}", std::io::Error::last_os_error());
    true
}

#[test]
fn f84_the_error_names_the_directory_the_size_and_the_way_out() {
    let cases = [("/dev/shm", "size=64k"), ("/dev/shm", "ro"), ("/dev", "size=64k")];
    for (covered, options) in cases {
        let name = Name::new("f84");
        in_a_process(|| {
            if !cover(covered, options) {
                return;
            }
            let channels = ChannelOptions::default();
            for refused in [
                Channel::create(&name, &channels).map(drop).unwrap_err(),
                Channel::open_or_create(&name, &channels).map(drop).unwrap_err(),
                of_store(Store::create(&name, &small())),
            ] {
                let text = refused.to_string();
                let SegmentError::Name(NameError::CannotCreate { needed_bytes, .. }) = refused
                else {
                    panic!("{covered}, {options}: {text}");
                };
                for part in ["/dev/shm", "path", "anonymous", &needed_bytes.to_string()] {
                    assert!(text.contains(part), "{covered}, {options}: {text}");
                }
            }
            if covered == "/dev/shm" {
                assert_eq!(fs::read_dir(covered).unwrap().count(), 0, "nothing is left");
                assert!(channel::list().unwrap().found.is_empty());
            } else {
                let refused = channel::list().unwrap_err().to_string();
                assert!(refused.contains("/dev/shm"), "{refused}");
            }
            // The ways out.
            drop(Channel::pair(&channels).unwrap());
        });
    }
}

#[test]
fn f84_names_are_given_without_hard_links_too() {
    let links = (libc::SYS_linkat, libc::EPERM);
    let renames = (libc::SYS_renameat2, libc::EINVAL);
    for refused in [&[links][..], &[links, renames]] {
        let (name, directory) = (Name::new("f84links"), Directory::new("f84"));
        in_a_process(|| {
            seccomp::refuse(refused);
            for address in [Address::from(&name), directory.0.join("file").into()] {
                let first = Channel::create(&address, &options()).unwrap();
                let refused = name_error(Channel::create(&address, &options()));
                assert!(matches!(refused, NameError::AlreadyExists { .. }), "{refused}");
                drop(Channel::open(&address, &options()).unwrap());
                drop(first);
                channel::remove(&address).unwrap();
                // Of many that race one creates.
                let made = thread::scope(|scope| {
                    let racers: Vec<_> = (0..8)
                        .map(|_| scope.spawn(|| Channel::create(&address, &options())))
                        .collect();
                    let got = racers.into_iter().map(|racer| racer.join().unwrap());
                    got.collect::<Vec<_>>()
                });
                let made: Vec<_> = made
                    .into_iter()
                    .filter_map(|made| match made {
                        Ok(channel) => Some(channel),
                        Err(SegmentError::Name(NameError::AlreadyExists { .. })) => None,
                        Err(error) => panic!("{error}"),
                    })
                    .collect();
                assert_eq!(made.len(), 1);
            }
        });
        assert!(name.temporaries().is_empty());
        assert_eq!(directory.files(), ["file"]);
    }
}

#[test]
fn f84_a_relative_path_names_a_file_here() {
    // The directory of a path without one is the current one.
    let path = Path::new("ringway-f84-relative");
    let directory = Directory::new("f84here");
    in_a_process(|| {
        std::env::set_current_dir(&directory.0).unwrap();
        drop(Channel::create(path, &options()).unwrap());
        drop(Channel::open_or_create(path, &options()).unwrap());
        channel::remove(path).unwrap();
    });
    assert!(directory.files().is_empty());
}

#[test]
fn f82_less_than_was_asked_for_is_an_error_and_more_is_not() {
    let name = Name::new("f82");
    let differs = |refused: SegmentError| match refused {
        SegmentError::Name(NameError::Differs { what, asked, found, .. }) => (what, asked, found),
        error => panic!("{error}"),
    };
    let base = ChannelOptions { payload_align: 16, max_message_bytes: 1000, ..options() };
    drop(Channel::create(&name, &base).unwrap());
    for asked in [
        base.clone(),
        ChannelOptions { capacity_bytes: 1024, payload_align: 8, ..base.clone() },
        ChannelOptions { max_message_bytes: 1, ..base.clone() },
        ChannelOptions::least(),
    ] {
        drop(Channel::open(&name, &asked).unwrap());
    }
    for (asked, part, least, found) in [
        (ChannelOptions { capacity_bytes: 8192, ..base.clone() }, "ring to the second", 8192, 4096),
        (
            ChannelOptions { reply_capacity_bytes: Some(8192), ..base.clone() },
            "ring to the first",
            8192,
            4096,
        ),
        (ChannelOptions { payload_align: 32, ..base.clone() }, "alignment", 32, 16),
        (ChannelOptions { max_message_bytes: 1001, ..base.clone() }, "longest message", 1001, 1000),
    ] {
        for open in [Channel::open, Channel::open_or_create] {
            let refused = open(&name, &asked).unwrap_err();
            let text = refused.to_string();
            assert!(text.contains(&least.to_string()) && text.contains("least()"), "{text}");
            let (what, asked, there) = differs(refused);
            assert!(what.contains(part), "{what}");
            assert_eq!((asked, there), (least, found));
        }
    }
    // Whoever creates gets what was asked for.
    drop(Channel::create(&name, &ChannelOptions { capacity_bytes: 8192, ..base }).unwrap());
    channel::remove(&name).unwrap();

    drop(Store::create(&name, &small()).unwrap());
    drop(Store::open(&name, &StoreOptions::least()).unwrap());
    drop(
        Store::open_or_create(&name, &StoreOptions { capacity_bytes: 1 << 17, ..small() }).unwrap(),
    );
    for open in [Store::open, Store::open_or_create] {
        let larger = StoreOptions { capacity_bytes: 1 << 19, ..small() };
        let refused = differs(of_store(open(&name, &larger)));
        assert_eq!(refused, ("capacity in bytes", 1 << 19, 1 << 18));
        let more = StoreOptions { max_readers: 5, ..small() };
        assert_eq!(differs(of_store(open(&name, &more))), ("number of readers", 5, 4));
    }
    store::remove(&name).unwrap();
}
