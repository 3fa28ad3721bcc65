//! Rows of the table of failures that concern handles of stores: readers that are killed, writers that are stopped,
//! processes that fork, and who may only read.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::fs::{self, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use common::forked::{Beside, READY, descriptors, get, hang, process, store_of, wait_for_death};
use common::victim::{Victim, become_nobody};
use ringway::layout::store::{LIMBO, ROOT};
use ringway::store::{
    AddError, ReadError, Recovered, Store, StoreDescriptors, WatchError, WriteError,
};

#[test]
fn f05_what_a_dead_reader_held_is_reclaimed_and_what_a_stopped_one_holds_is_not() {
    let (store, beside) = (store_of(1 << 20, 3), Beside::new());
    store.set("k", &[7; 100_000]).unwrap();
    let mut reader = process(&store, |store| {
        let held = store.get("k").unwrap().unwrap();
        assert!(held.is_in_place());
        beside.store(READY, 1);
        hang();
    });
    beside.wait_for(READY, 1);
    reader.stop();
    store.set("k", b"new").unwrap();
    assert_eq!(store.reclaim(), Ok(0), "it is alive");
    let stats = store.stats().unwrap();
    assert_eq!((stats.readers, stats.pinned, stats.retired), (Some(2), Some(1), 1));
    assert!(stats.pinned_bytes > Some(100_000));
    // Others go on: a stopped reader costs what it holds.
    for round in 0..1000_u64 {
        store.set("other", &round.to_le_bytes().repeat(5000)).unwrap();
    }
    reader.kill();
    wait_for_death(&reader);
    assert_eq!(store.reclaim(), Ok(1), "a zombie reads no more");
    let stats = store.stats().unwrap();
    assert_eq!((stats.readers, stats.pinned, stats.retired), (Some(1), Some(0), 0));
    store.check().unwrap();
}

#[test]
fn f05_who_runs_out_of_room_or_records_reclaims_by_itself() {
    let (store, beside) = (store_of(1 << 20, 2), Beside::new());
    for round in 1..4_u8 {
        store.clear().unwrap();
        store.set("k", &[round; 600_000]).unwrap();
        beside.store(READY, 0);
        let mut reader = process(&store, |store| {
            let _held = store.get("k").unwrap().unwrap();
            beside.store(READY, 1);
            hang();
        });
        beside.wait_for(READY, 1);
        assert!(store.try_clone().is_err(), "its record is its own");
        store.delete_existing("k").unwrap();
        let refused = store.set("k", &[round; 600_000]);
        assert!(matches!(refused, Err(WriteError::OutOfSpace { .. })), "{refused:?}");
        reader.kill();
        wait_for_death(&reader);
        if round % 2 == 0 {
            store.set("k", &[round; 600_000]).unwrap();
        } else {
            drop(store.try_clone().unwrap());
        }
    }
    store.check().unwrap();
}

/// Starts a process whose number is that of one that is gone. `None` where that is not permitted.
fn with_the_number(number: u32, run: impl Fn()) -> Option<Victim> {
    for _ in 0..200 {
        fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string()).ok()?;
        let victim = Victim::start(&run);
        if victim.id() == number {
            return Some(victim);
        }
    }
    None
}

#[test]
fn f12_a_process_that_got_a_dead_readers_number_does_not_keep_its_record() {
    let (store, beside) = (store_of(1 << 20, 2), Beside::new());
    store.set("k", b"old").unwrap();
    // How a process is named counts in hundredths of a second: the second must not start in the same.
    for _ in 0..20 {
        beside.store(READY, 0);
        let mut reader = process(&store, |store| {
            let _held = store.get("k").unwrap().unwrap();
            beside.store(READY, 1);
            hang();
        });
        beside.wait_for(READY, 1);
        let (number, born) = (reader.id(), Instant::now());
        while born.elapsed() < Duration::from_millis(30) {
            std::hint::spin_loop();
        }
        reader.kill();
        reader.wait();
        let Some(_other) = with_the_number(number, || hang()) else { continue };
        assert_eq!(store.reclaim(), Ok(1), "another process has the number");
        assert_eq!(store.stats().unwrap().pinned, Some(0));
        return;
    }
    println!("skipped: numbers of processes cannot be chosen here");
}

/// Whether the file can be mapped for writing through this descriptor.
fn maps_writable(descriptor: &OwnedFd) -> bool {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping where the kernel likes.
    let mapped = unsafe {
        libc::mmap(null_mut(), 8192, protection, libc::MAP_SHARED, descriptor.as_raw_fd(), 0)
    };
    mapped != libc::MAP_FAILED
}

#[test]
fn f25_f26_who_is_not_trusted_cannot_write_a_lock_or_a_pin() {
    let store = store_of(1 << 20, 4);
    store.set("k", b"v").unwrap();
    let theirs = store.descriptor_read_only().unwrap();
    let mut plugin = Victim::start(|| {
        assert!(!maps_writable(&theirs));
        let twice = || theirs.try_clone().unwrap();
        assert!(Store::attach(StoreDescriptors { public: twice(), private: twice() }).is_err());
        for offset in [ROOT, LIMBO] {
            let word = [0xff_u8; 8];
            // SAFETY: the bytes outlive the call.
            let written = unsafe {
                libc::pwrite(theirs.as_raw_fd(), word.as_ptr().cast(), 8, offset as libc::off_t)
            };
            assert_eq!(written, -1);
        }
        let path = format!("/proc/self/fd/{}", theirs.as_raw_fd());
        let reopens = || OpenOptions::new().read(true).write(true).open(&path).is_ok();
        if become_nobody() {
            assert!(!reopens(), "another user cannot make more of a descriptor");
        } else {
            println!("skipped: this process cannot become another user");
        }
    });
    assert_eq!(plugin.wait(), 0);
    assert_eq!(get(&store, "k"), Some(b"v".to_vec()));
    store.check().unwrap();
}

#[test]
fn f27_a_stopped_writer_costs_others_their_deadline_and_no_more() {
    let (store, beside) = (store_of(1 << 20, 4), Beside::new());
    store.set("k", b"old").unwrap();
    let mut writer = process(&store, |store| {
        let _ = store.update("k", |_| {
            beside.store(READY, 1);
            hang();
        });
    });
    beside.wait_for(READY, 1);
    writer.stop();
    assert_eq!(store.try_set("k", b"new"), Err(WriteError::Deadline));
    for timeout in [Duration::ZERO, Duration::from_millis(40)] {
        let started = Instant::now();
        assert_eq!(store.set_timeout("k", b"new", timeout), Err(WriteError::Deadline));
        assert!(started.elapsed() >= timeout, "gave up early");
    }
    assert_eq!(get(&store, "k"), Some(b"old".to_vec()), "readers take no lock");
    assert_eq!(store.len(), Ok(1));
    writer.kill();
    wait_for_death(&writer);
    store.set_timeout("other", b"new", Duration::from_secs(20)).unwrap();
    let recovery = store.take_recovery().unwrap();
    assert!(recovery.owner_died && recovery.how == Recovered::Clean, "{recovery:?}");
    assert_eq!(get(&store, "k"), Some(b"old".to_vec()));
    store.check().unwrap();
}

#[test]
fn f30_a_forked_child_gets_typed_errors_and_keeps_nothing_of_its_parents() {
    let store = store_of(1 << 20, 4);
    store.set("k", b"old").unwrap();
    let held = store.get("k").unwrap().unwrap();
    let mut inherited = Some(held);
    let theirs = descriptors(&store);
    let mut watch = store.watch("k").unwrap();
    assert_eq!(watch.try_wait(), Ok(None));
    let mut child = Victim::start(|| {
        assert_eq!(store.get("k").map(drop), Err(ReadError::Forked));
        assert_eq!(store.contains("k"), Err(ReadError::Forked));
        assert_eq!(store.len(), Err(ReadError::Forked));
        assert_eq!(store.stats().map(drop), Err(ReadError::Forked));
        assert_eq!(store.set("k", b"child"), Err(WriteError::Forked));
        assert_eq!(store.try_set("k", b"child"), Err(WriteError::Forked));
        assert_eq!(store.delete("k"), Err(WriteError::Forked));
        assert_eq!(store.update("k", |_| None), Err(WriteError::Forked));
        assert_eq!(store.fetch_add("n", 1), Err(AddError::Write(WriteError::Forked)));
        assert!(store.try_clone().is_err() && store.check().is_err());
        assert_eq!(
            store.iter().map(|entry| entry.map(drop)).collect::<Vec<_>>(),
            [Err(ReadError::Forked)]
        );
        assert_eq!(watch.try_wait(), Err(WatchError::Read(ReadError::Forked)));
        let waited = watch.wait(std::time::Duration::from_millis(1));
        assert_eq!(waited, Err(WatchError::Read(ReadError::Forked)));
        drop(inherited.take());
        // What it attaches itself is its own.
        let own = Store::attach(theirs.try_clone().unwrap()).unwrap();
        own.set("child", b"was here").unwrap();
    });
    assert_eq!(child.wait(), 0);
    let stats = store.stats().unwrap();
    assert_eq!(
        (stats.pinned, stats.readers),
        (Some(1), Some(1)),
        "the parent's, and nobody else's"
    );
    store.set("k", b"new").unwrap();
    store.reclaim().unwrap();
    assert_eq!(inherited.unwrap(), b"old");
    assert_eq!(get(&store, "child"), Some(b"was here".to_vec()));
}

#[test]
fn f30_a_process_that_forks_inside_an_update_keeps_the_lock_to_itself() {
    let store = store_of(1 << 20, 4);
    store.set("k", b"old").unwrap();
    let other = store.try_clone().unwrap();
    let mut child = None;
    let updated = store.update("k", |_| {
        // SAFETY: the child only returns from here, into refusals, and ends.
        let pid = unsafe { libc::fork() };
        child = Some(pid);
        Some(if pid == 0 { b"child".to_vec() } else { b"parent".to_vec() })
    });
    if child == Some(0) {
        let refused = updated == Err(WriteError::Forked)
            && other.try_set("k", b"child") == Err(WriteError::Forked);
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    updated.unwrap();
    let mut status = 0;
    // SAFETY: our child; `status` outlives the call.
    unsafe { libc::waitpid(child.unwrap(), &mut status, 0) };
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
    assert_eq!(get(&other, "k"), Some(b"parent".to_vec()));
    store.check().unwrap();
}
