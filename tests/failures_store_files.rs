//! Rows of the table of failures that concern the files of stores: permissions, room, descriptors; and stores in
//! files that outlive processes and machines.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use common::meeting::{NEVER, lock, process};
use common::name::Name;
use common::room::{in_a_small_file_system, with_ever_more_descriptors};
use common::store::{lock_of, name_error, segment_error};
use common::victim::{Victim, become_nobody};
use ringway::error::{NameError, SegmentError};
use ringway::layout::claim;
use ringway::layout::store::{LIVE_KEYS, usage};
use ringway::segment::Access;
use ringway::store::{self, OpenError, Store, StoreOptions};

fn options() -> StoreOptions {
    StoreOptions { capacity_bytes: 1 << 20, max_readers: 4, ..StoreOptions::default() }
}

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(what: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringway-{what}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("store")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::set_permissions(&self.0, Permissions::from_mode(0o700));
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn f31_modes_do_not_depend_on_the_umask_and_nobody_else_may_write() {
    let name = Name::new("store-f31");
    let mode = |name: &Name| fs::metadata(name.path()).unwrap().permissions().mode() & 0o777;
    let status = Victim::start(|| {
        // SAFETY: the call takes a number; this process is a copy.
        unsafe { libc::umask(0o777) };
        drop(Store::create(&name, &options()).unwrap());
    })
    .wait();
    assert_eq!((status, mode(&name)), (0, 0o600));
    let with = |mode, owner| StoreOptions { access: Access { mode, owner }, ..options() };
    drop(Store::create(&name, &with(0o700, None)).unwrap());
    assert_eq!(mode(&name), 0o700);
    let refused = name_error(Store::open(&name, &options())).to_string();
    assert!(refused.contains("mode 0o700, expected no more than 0o600"), "{refused}");
    drop(Store::open(&name, &with(0o700, None)).unwrap());
    // Whoever can write it can do anything to us, and whoever can read it can lock it: neither asked for nor found.
    for open in [Store::open, Store::open_or_create, Store::create] {
        for mode in [0o620, 0o602, 0o666, 0o644, 0o604] {
            let refused = name_error(open(&name, &with(mode, None))).to_string();
            assert!(refused.contains("without bits for group and others"), "{refused}");
        }
        let refused = name_error(open(&name, &with(0o600, Some(12345)))).to_string();
        assert!(refused.contains("user 12345"), "{refused}");
    }
    for mode in [0o664, 0o644] {
        fs::set_permissions(name.path(), Permissions::from_mode(mode)).unwrap();
        let refused = name_error(Store::open(&name, &with(0o700, None)));
        assert!(matches!(refused, NameError::NotOurs { .. }), "{refused}");
    }
    let mut other = Victim::start(|| {
        if !become_nobody() {
            println!("skipped: no other user here");
            return;
        }
        let refused = name_error(Store::open(&name, &with(0o600, None)));
        assert!(
            matches!(refused, NameError::NotOurs { .. } | NameError::Denied { .. }),
            "{refused}"
        );
    });
    assert_eq!(other.wait(), 0);
}

#[test]
fn f32_a_name_that_somebody_squats_is_refused() {
    let name = Name::new("store-f32");
    let target = Name::new("store-f32-target");
    drop(Store::create(&target, &options()).unwrap());
    std::os::unix::fs::symlink(target.path(), name.path()).unwrap();
    for open in [Store::open, Store::open_or_create, Store::create] {
        let refused = name_error(open(&name, &options())).to_string();
        assert!(refused.contains("a symbolic link, expected a regular file"), "{refused}");
    }
    assert!(fs::symlink_metadata(name.path()).unwrap().is_symlink(), "left alone");
    // A file that is none of ours is not replaced either, where a path was given.
    let directory = Directory::new("store-f32");
    fs::write(directory.file(), [b'x'; 500]).unwrap();
    fs::set_permissions(directory.file(), Permissions::from_mode(0o600)).unwrap();
    for open in [Store::open, Store::open_or_create, Store::create] {
        let refused = segment_error(open(directory.file(), &options()));
        assert!(matches!(refused, SegmentError::Incompatible { field: "magic", .. }), "{refused}");
    }
    let removed = store::remove(directory.file());
    assert!(matches!(removed, Err(SegmentError::Incompatible { field: "magic", .. })));
    assert_eq!(fs::read(directory.file()).unwrap(), [b'x'; 500]);
}

#[test]
fn f32_in_a_directory_that_cannot_be_written_nothing_is_created() {
    let directory = Directory::new("store-f32-ro");
    fs::set_permissions(&directory.0, Permissions::from_mode(0o555)).unwrap();
    let mut other = Victim::start(|| {
        // For whom permissions count, unlike for the super user.
        if names_super_user() && !become_nobody() {
            println!("skipped: no other user here");
            return;
        }
        let refused = name_error(Store::create(directory.file(), &options()));
        assert!(matches!(refused, NameError::CannotCreate { .. }), "{refused}");
        let refused = name_error(Store::open(directory.file(), &options()));
        assert!(matches!(refused, NameError::NotFound { .. }), "{refused}");
    });
    assert_eq!(other.wait(), 0);
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 0);
}

fn names_super_user() -> bool {
    // SAFETY: the call takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

#[test]
fn what_cannot_be_created_for_want_of_its_directory_says_so() {
    let directory = Directory::new("store-no-directory");
    let missing = directory.0.join("missing").join("store");
    for create in [Store::create, Store::open_or_create] {
        let refused = name_error(create(&missing, &options()));
        assert!(matches!(refused, NameError::CannotCreate { .. }), "{refused}");
    }
    assert!(matches!(name_error(Store::open(&missing, &options())), NameError::NotFound { .. }));
}

#[test]
fn f33_a_lack_of_room_is_an_error_and_nothing_is_kept() {
    in_a_small_file_system("256k", |directory| {
        let refused = name_error(Store::create(directory.join("store"), &options()));
        assert!(matches!(refused, NameError::CannotCreate { .. }), "{refused:?}");
        assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
        let smaller = StoreOptions { capacity_bytes: 1 << 16, ..options() };
        let store = Store::create(directory.join("store"), &smaller).unwrap();
        fill(&store);
        let path = directory.join("rest");
        let _ = fs::write(&path, vec![1; 1 << 18]);
        // What there is has its room.
        fill(&store);
        store.check().unwrap();
    });
    let more = StoreOptions { capacity_bytes: 1 << 42, ..options() };
    let refused = segment_error(Store::anonymous(&more));
    assert!(matches!(refused, SegmentError::NoSpace { .. }), "{refused:?}");
    for (capacity_bytes, max_readers) in [(0, 4), (1 << 62, 4), (1 << 20, 0), (1 << 20, 1 << 17)] {
        let options = StoreOptions { capacity_bytes, max_readers, ..options() };
        let refused = segment_error(Store::anonymous(&options));
        assert!(matches!(refused, SegmentError::StoreMeasures { .. }), "{refused:?}");
    }
}

/// Writes until there is no room, and then other values.
fn fill(store: &Store) {
    for round in 0..2_u8 {
        for key in 0..1000_u32 {
            let _ = store.set(key.to_string(), &[round; 200]);
        }
    }
}

#[test]
fn f39_when_descriptors_run_out_nothing_is_half_done() {
    let name = Name::new("store-f39");
    let first = Store::create(&name, &options()).unwrap();
    first.set("k", b"v").unwrap();
    let refused = with_ever_more_descriptors(|limit| {
        let other = Name::new("store-f39-new");
        limit.set();
        let opened = Store::open(&name, &options());
        let created = Store::create(&other, &options());
        let anonymous = Store::anonymous(&options());
        limit.lift();
        let nothing_kept = !other.path().exists() && other.temporaries().is_empty();
        assert!(created.is_ok() || nothing_kept, "{created:?}");
        match (opened, anonymous) {
            (Ok(_), Ok(_)) => true,
            (Err(OpenError::Segment(SegmentError::Os { .. })), _) | (_, Err(_)) => false,
            (Err(error), _) => panic!("{error}"),
        }
    });
    assert!(refused > 2, "{refused}");
    first.check().unwrap();
    // Their readers' records are free again: all but ours are to be had.
    let others: Vec<_> = (0..3).map(|_| first.try_clone().unwrap()).collect();
    assert_eq!(&*others[2].get("k").unwrap().unwrap(), b"v");
}

fn value(key: u32) -> Vec<u8> {
    vec![key as u8; 50 + key as usize * 7 % 3000]
}

fn write_some(store: &Store) -> u64 {
    (0..200).map(|key: u32| store.set(key.to_string(), &value(key)).unwrap()).max().unwrap()
}

fn check_all(store: &Store) {
    store.check().unwrap();
    assert_eq!(store.len().unwrap(), 200);
    for key in 0..200_u32 {
        assert_eq!(&*store.get(key.to_string()).unwrap().unwrap(), value(key), "{key}");
    }
}

fn is_clean(path: &Path) -> bool {
    let mut word = [0; 4];
    File::open(path).unwrap().read_exact_at(&mut word, usage::CLEAN).unwrap();
    u32::from_ne_bytes(word) == 1
}

#[test]
fn f04_a_store_in_a_file_outlives_its_processes_and_the_machine() {
    let directory = Directory::new("store-file");
    let path = directory.file();
    let store = Store::create(&*path, &options()).unwrap();
    let last = write_some(&store);
    let other = Store::open(&*path, &options()).unwrap();
    drop(store);
    assert!(!is_clean(&path), "somebody has it");
    drop(other);
    assert!(is_clean(&path));
    // Closed in good order: nothing needs a look.
    let store = Store::open(&*path, &options()).unwrap();
    assert!(!is_clean(&path), "in use");
    check_all(&store);
    let next = store.set("0", &value(0)).unwrap();
    assert!(next > last && next >= 1 << 24, "a new epoch");
    drop(store);
    // All killed.
    drop(process(|| {
        let store = Store::open(&*path, &options()).unwrap();
        write_some(&store);
        store
    }));
    assert!(!is_clean(&path));
    check_all(&Store::open(&*path, &options()).unwrap());
    assert!(is_clean(&path));
}

#[test]
fn f04_after_a_power_failure_versions_go_on_in_a_new_epoch_and_damage_is_told() {
    let directory = Directory::new("store-power");
    let (path, copy) = (directory.file(), directory.0.join("copy"));
    let store = Store::create(&*path, &options()).unwrap();
    let last = write_some(&store);
    // What is on the disk while somebody writes: here in order, since nobody does at this moment.
    fs::copy(&path, &copy).unwrap();
    let after = Store::open(&*copy, &options()).unwrap();
    check_all(&after);
    let next = after.set("0", &value(0)).unwrap();
    assert!(next >= 1 << 40 && next > last, "{next:#x}");
    drop(after);
    // A copy is another store, also in the same boot: bytes may have been copied at different times.
    fs::copy(&path, &copy).unwrap();
    let after = Store::open(&*copy, &options()).unwrap();
    assert!(after.set("0", &value(0)).unwrap() >= 1 << 40);
    drop(after);
    // Any one byte of a value that did not get to the disk is found.
    fs::copy(&path, &copy).unwrap();
    let bytes = fs::read(&copy).unwrap();
    let at = bytes.windows(400).rposition(|window| window == [99; 400]).unwrap();
    let file = File::options().read(true).write(true).open(&copy).unwrap();
    file.write_all_at(&[0], at as u64 + 200).unwrap();
    let refused = segment_error(Store::open(&*copy, &options()));
    assert!(matches!(refused, SegmentError::Damaged { .. }), "{refused}");
    // And again: it is not taken for a good one because somebody has looked.
    let refused = segment_error(Store::open(&*copy, &options()));
    assert!(matches!(refused, SegmentError::Damaged { .. }), "{refused}");
    file.write_all_at(&[99], at as u64 + 200).unwrap();
    check_all(&Store::open(&*copy, &options()).unwrap());
}

#[test]
fn f04_a_lock_that_was_saved_while_it_was_held_keeps_nobody_out() {
    let directory = Directory::new("store-held");
    let (path, copy) = (directory.file(), directory.0.join("copy"));
    let store = Store::create(&*path, &options()).unwrap();
    write_some(&store);
    let guard = store.get("7").unwrap().unwrap();
    fs::copy(&path, &copy).unwrap();
    let file = File::options().read(true).write(true).open(&copy).unwrap();
    let held_by_somebody_who_lives = 1_u32.to_ne_bytes();
    file.write_all_at(&held_by_somebody_who_lives, lock_of(&file)).unwrap();
    let after = Store::open(&*copy, &options()).unwrap();
    after.set_timeout("8", &value(8), NEVER).unwrap();
    check_all(&after);
    // The pin of that reader is nobody's here.
    let all: Vec<_> = (0..3).map(|_| after.try_clone().unwrap()).collect();
    drop((all, guard));
}

#[test]
fn f44_a_strange_lock_hides_no_death() {
    let directory = Directory::new("store-f44");
    let path = directory.file();
    drop(process(|| {
        let store = Store::create(&*path, &options()).unwrap();
        write_some(&store);
        std::mem::forget(store.get("7"));
        store
    }));
    // Somebody of this user who locks what users of the store lock: as far as anybody can tell it is in use.
    let stranger = process(|| {
        let file = File::open(&path).unwrap();
        lock(&file, libc::F_RDLCK, claim::SIDE[0], claim::SIDES_BYTES);
        file
    });
    let store = Store::open(&*path, &options()).unwrap();
    store.set_timeout("8", &value(8), NEVER).unwrap();
    check_all(&store);
    let all: Vec<_> = (0..3).map(|_| store.try_clone().unwrap()).collect();
    drop((all, store));
    assert!(!is_clean(&path));
    drop(stranger);
    check_all(&Store::open(&*path, &options()).unwrap());
    assert!(is_clean(&path));
}

#[test]
fn f04_after_a_power_failure_nobody_believes_that_a_store_is_empty() {
    let directory = Directory::new("store-power-empty");
    let path = directory.file();
    drop(process(|| {
        let store = Store::create(&*path, &options()).unwrap();
        write_some(&store);
        store
    }));
    // The count did not get to the disk, the table did.
    let file = File::options().read(true).write(true).open(&path).unwrap();
    file.write_all_at(&[0; 8], LIVE_KEYS).unwrap();
    let refused = name_error(Store::create(&*path, &options()));
    assert!(matches!(refused, NameError::NotEmpty { keys: 1, .. }), "{refused}");
    let store = Store::open(&*path, &options()).unwrap();
    check_all(&store);
    // One that is brought in order, and is empty, is replaced.
    store.clear().unwrap();
    drop(store);
    drop(Store::create(&*path, &options()).unwrap());
}
