//! Rows of the table of failures that concern who holds a store, whether it is dead, and which file was closed.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

use common::forked::{Beside, DONE, READY, get, hang, process, store_of, wait_for_death};
use common::name::Name;
use common::store::{name_error, segment_error};
use common::victim::Victim;
use ringway::error::SegmentError;
use ringway::segment::Access;
use ringway::store::{Store, StoreOptions};

fn options() -> StoreOptions {
    StoreOptions { capacity_bytes: 1 << 20, max_readers: 4, ..StoreOptions::default() }
}

/// A file that goes with the test.
struct Path(PathBuf);

impl Path {
    fn new(what: &str) -> Self {
        Self(std::env::temp_dir().join(format!("ringway-{what}-{}", std::process::id())))
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// In a forked child: goes on in namespaces of its own; false where that is not permitted.
fn unshare(what: libc::c_int) -> bool {
    // SAFETY: the call takes a number.
    unsafe { libc::unshare(what) == 0 }
}

/// Puts another boot id in the place of this machine's, in a mount namespace of its own.
fn see_another_boot(id: &std::path::Path) -> bool {
    let mount = |from: &str, to: &str, flags| {
        let [from, to] = [from, to].map(|text| std::ffi::CString::new(text).unwrap());
        // SAFETY: strings that outlive the call; null means no type and no data.
        let result = unsafe {
            libc::mount(from.as_ptr(), to.as_ptr(), std::ptr::null(), flags, std::ptr::null())
        };
        result == 0
    };
    unshare(libc::CLONE_NEWNS)
        && mount("none", "/", libc::MS_REC | libc::MS_PRIVATE)
        && mount(id.to_str().unwrap(), "/proc/sys/kernel/random/boot_id", libc::MS_BIND)
}

/// What a child says whose test needs what it may not have.
const SKIPPED: u64 = 7;

#[test]
fn f49_a_store_in_use_is_joined_whatever_boot_id_is_seen() {
    let (id, name, path) = (Path::new("f49-id"), Name::new("store-f49"), Path::new("f49-store"));
    fs::write(&id.0, "11111111-2222-3333-4444-555555555555\n").unwrap();
    for address in [name.text().into(), ringway::segment::Address::from(&*path.0)] {
        let beside = Beside::new();
        let store = Store::create(&address, &options()).unwrap();
        store.set("k", &[7; 1000]).unwrap();
        let held = store.get("k").unwrap().unwrap();
        let mut other = Victim::start(|| {
            if !see_another_boot(&id.0) {
                println!("skipped: this process may not mount");
                return beside.store(DONE, SKIPPED);
            }
            let store = Store::open(&address, &options()).unwrap();
            assert!(store.set("k", &[8; 1000]).unwrap() < 1 << 40, "not begun anew");
            for round in 0..100_u32 {
                store.set(round.to_le_bytes(), &[9; 1000]).unwrap();
            }
        });
        assert_eq!(other.wait(), 0);
        if beside.load(DONE) == SKIPPED {
            return;
        }
        assert_eq!(&*held, [7; 1000], "what is lent stays");
        assert_eq!(get(&store, "k"), Some(vec![8; 1000]));
        store.check().unwrap();
    }
}

#[test]
fn f49_f13_the_pid_namespace_counts_whatever_boot_id_is_seen() {
    let (id, name, beside) = (Path::new("f13-id"), Name::new("store-f13"), Beside::new());
    fs::write(&id.0, "11111111-2222-3333-4444-555555555555\n").unwrap();
    let store = Store::create(&name, &options()).unwrap();
    store.set("k", b"v").unwrap();
    let mut other = Victim::start(|| {
        if !see_another_boot(&id.0) || !unshare(libc::CLONE_NEWPID) {
            println!("skipped: this process may not have namespaces");
            return beside.store(DONE, SKIPPED);
        }
        let mut inside = Victim::start(|| {
            let refused = segment_error(Store::open(&name, &options()));
            assert!(matches!(refused, SegmentError::PidNamespace { .. }), "{refused}");
            let reading = Store::open_read_only(&name).unwrap();
            assert_eq!(get(&reading, "k"), Some(b"v".to_vec()));
        });
        assert_eq!(inside.wait(), 0);
    });
    assert_eq!(other.wait(), 0);
}

#[test]
fn f50_a_reader_in_another_time_namespace_lives_until_it_is_dead() {
    let (store, beside) = (store_of(1 << 20, 4), Beside::new());
    store.set("k", &[7; 1000]).unwrap();
    let mut descriptor = Some(common::forked::descriptors(&store));
    let mut outer = Victim::start(|| {
        let offset = || fs::write("/proc/self/timens_offsets", "boottime 864000 0").is_ok();
        if !unshare(libc::CLONE_NEWTIME) || !offset() {
            println!("skipped: this process may not have a time namespace");
            return beside.store(READY, SKIPPED);
        }
        let mut reader = Victim::start(|| {
            let store = Store::attach(descriptor.take().unwrap()).unwrap();
            let _held = store.get("k").unwrap().unwrap();
            beside.store(READY, 1);
            hang();
        });
        beside.wait_for(DONE, 1);
        reader.kill();
        reader.wait();
    });
    while beside.load(READY) == 0 {
        std::thread::yield_now();
    }
    if beside.load(READY) == SKIPPED {
        return assert_eq!(outer.wait(), 0);
    }
    assert_eq!(store.reclaim(), Ok(0), "it is alive");
    assert_eq!(store.stats().unwrap().pinned, Some(1));
    beside.store(DONE, 1);
    assert_eq!(outer.wait(), 0);
    assert_eq!(store.reclaim(), Ok(1));
}

#[test]
fn f50_dead_participants_make_room_for_new_ones() {
    let (store, beside) = (store_of(1 << 20, 3), Beside::new());
    for _ in 0..10 {
        beside.store(READY, 0);
        let mut dying = process(&store, |store| {
            std::mem::forget(store.get("k"));
            beside.store(READY, 1);
            hang();
        });
        beside.wait_for(READY, 1);
        dying.kill();
        wait_for_death(&dying);
    }
    assert!(store.reclaim().unwrap() <= 3);
    let all: Vec<_> = (0..2).map(|_| store.try_clone().unwrap()).collect();
    assert_eq!(store.stats().unwrap().readers, Some(3));
    drop(all);
}

#[test]
fn f50_a_forked_child_keeps_no_claim_of_its_parent() {
    let (store, beside) = (store_of(1 << 20, 4), Beside::new());
    store.set("k", &[7; 1000]).unwrap();
    let mut reader = process(&store, |store| {
        let _held = store.get("k").unwrap().unwrap();
        let child = Victim::start(|| {
            // Outlives its parent, until the test has seen what it has to.
            // SAFETY: the call takes numbers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
            beside.store(READY, 1);
            beside.wait_for(DONE, 1);
            beside.store(DONE, 2);
        });
        std::mem::forget(child);
        hang();
    });
    beside.wait_for(READY, 1);
    assert_eq!(store.reclaim(), Ok(0), "it is alive");
    reader.kill();
    wait_for_death(&reader);
    assert_eq!(store.reclaim(), Ok(1), "its child has its memory, and no claim");
    beside.store(DONE, 1);
    beside.wait_for(DONE, 2);
}

/// A closed store, and where its key's value lies in the file.
fn closed(path: &Path) -> (File, u64) {
    let store = Store::create(&*path.0, &options()).unwrap();
    store.set("k", &[99; 400]).unwrap();
    drop(store);
    let file = File::options().read(true).write(true).open(&path.0).unwrap();
    let bytes = fs::read(&path.0).unwrap();
    let at = bytes.windows(400).rposition(|window| window == [99; 400]).unwrap();
    (file, at as u64)
}

/// Sets a file's times as a copy does that keeps those of its original.
fn keep_times(file: &File, of: &fs::Metadata) {
    let times = fs::FileTimes::new().set_modified(of.modified().unwrap());
    file.set_times(times).unwrap();
}

fn is_looked_at(path: &std::path::Path) -> bool {
    match Store::open(path, &options()) {
        Err(error) => {
            let error = segment_error::<Store>(Err(error));
            assert!(matches!(error, SegmentError::Damaged { .. }), "{error}");
            true
        }
        Ok(_) => false,
    }
}

#[test]
fn f51_what_was_written_over_a_closed_store_is_looked_at() {
    let path = Path::new("f51-over");
    let (file, at) = closed(&path);
    file.write_all_at(&[0], at + 200).unwrap();
    assert!(is_looked_at(&path.0));
    assert!(is_looked_at(&path.0), "also by the next one");
    file.write_all_at(&[99], at + 200).unwrap();
    assert_eq!(get(&Store::open(&*path.0, &options()).unwrap(), "k"), Some(vec![99; 400]));
}

#[test]
fn f51_a_copy_is_looked_at_though_it_keeps_the_times_of_its_original() {
    let (path, copy) = (Path::new("f51-original"), Path::new("f51-copy"));
    let (file, at) = closed(&path);
    let found = file.metadata().unwrap();
    let mut bytes = fs::read(&path.0).unwrap();
    bytes[at as usize + 200] = 0;
    fs::write(&copy.0, bytes).unwrap();
    fs::set_permissions(&copy.0, Permissions::from_mode(0o600)).unwrap();
    keep_times(&File::options().write(true).open(&copy.0).unwrap(), &found);
    assert!(is_looked_at(&copy.0));
}

#[test]
fn f51_a_copy_made_while_in_use_is_looked_at_where_it_is_written_over_the_original() {
    let path = Path::new("f51-torn");
    let (file, _) = closed(&path);
    // What a copy reads first is clean, and the rest is of another time.
    let mut torn = fs::read(&path.0).unwrap();
    let store = Store::open(&*path.0, &options()).unwrap();
    store.delete_existing("k").unwrap();
    for round in 0..200_u32 {
        store.set(round.to_le_bytes(), &[round as u8; 300]).unwrap();
    }
    let newer = fs::read(&path.0).unwrap();
    torn[4096..].copy_from_slice(&newer[4096..]);
    drop(store);
    file.write_all_at(&torn, 0).unwrap();
    match Store::open(&*path.0, &options()) {
        Ok(store) => store.check().unwrap(),
        Err(error) => {
            let error = segment_error::<Store>(Err(error));
            assert!(matches!(error, SegmentError::Damaged { .. }), "{error}");
        }
    }
}

#[test]
fn f85_a_mode_that_lets_another_user_read_is_refused_at_creation() {
    let name = Name::new("store-f85");
    for mode in [0o644, 0o640, 0o604, 0o601] {
        let access = Access { mode, owner: None };
        let refused = name_error(Store::create(&name, &StoreOptions { access, ..options() }));
        let text = refused.to_string();
        assert!(text.contains("0o600") && text.contains("read-only descriptor"), "{text}");
        assert!(!name.path().exists());
    }
}
