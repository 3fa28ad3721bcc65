//! Stores that a process has read-only, under another user id where that is possible: what it cannot do, and what
//! cannot be done to it.
//!
//! This test binary is executed again as that process, with the descriptor of the store as its standard input.
#![allow(unsafe_code, missing_docs)]

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use ringway::store::{ReadError, Store, StoreAccess, StoreOptions, TypedError, WriteError};

const ROLE: &str = "RINGWAY_TEST_STORE_ROLE";
const NOBODY: u32 = 65534;
/// What a reader says when it has attached to the store.
const ATTACHED: &str = "the reader has attached";

/// Where the other process starts; does nothing in the process that runs the tests.
#[test]
fn reader_entry() {
    match std::env::var(ROLE).as_deref() {
        Ok("read") => read(),
        Ok("read-garbage") => read_garbage(),
        Ok(role) => panic!("{role}"),
        Err(_) => {}
    }
}

fn store() -> Store {
    Store::anonymous(&StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() }).unwrap()
}

fn reader(store: &Store, role: &str) -> Child {
    let start = |other_user: bool| {
        let mut command = Command::new("/proc/self/exe");
        command.args(["--exact", "reader_entry", "--test-threads=1", "--nocapture"]);
        command.env(ROLE, role).stdout(Stdio::piped());
        command.stdin(Stdio::from(store.descriptor_read_only().unwrap()));
        if other_user {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.spawn()
    };
    start(true)
        .or_else(|error| {
            println!("no process can be started under another user id here: {error}");
            start(false)
        })
        .unwrap()
}

/// The descriptor that this process was started with.
fn handed() -> OwnedFd {
    std::io::stdin().as_fd().try_clone_to_owned().unwrap()
}

fn value(round: u64) -> Vec<u8> {
    round.to_le_bytes().repeat(2 + round as usize % 300)
}

fn is_whole(value: &[u8]) -> bool {
    value.len() >= 16 && value.chunks(8).all(|word| word == &value[..8])
}

/// Reads until it is told to stop, by a key.
fn read() {
    // SAFETY: the call takes no pointer.
    if unsafe { libc::getuid() } == NOBODY {
        let error = OpenOptions::new().write(true).open("/proc/self/fd/0").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EACCES), "it cannot be opened for writing");
    }
    let error = File::from(handed()).write_at(&[1], 384).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    let store = Store::attach_read_only(handed()).unwrap();
    assert_eq!(store.access(), StoreAccess::ReadOnly);
    assert_eq!(store.set("k", b"mine"), Err(WriteError::ReadOnly));
    assert_eq!(store.delete("k"), Err(WriteError::ReadOnly));
    assert!(matches!(store.set_pod("k", &1_u64), Err(TypedError::Write(WriteError::ReadOnly))));
    let other = store.try_clone().unwrap();
    let mut last = 0;
    while !store.contains("stop").unwrap() {
        match other.get("k") {
            Ok(found) => {
                let found = found.expect("never deleted");
                assert!(!found.is_in_place() && is_whole(&found));
                assert!(found.version() >= last, "it never goes back");
                last = found.version();
            }
            Err(error) => assert_eq!(error, ReadError::Busy),
        }
    }
    assert_eq!(*store.get_pod::<u64>("stop").unwrap().unwrap(), 1);
    let words = store.get_archived::<Vec<String>>("words").unwrap().unwrap();
    assert_eq!(words[1].as_str(), "be");
    // Nobody writes any more.
    let all = store.get_all().unwrap();
    assert_eq!(store.iter().count(), all.len());
    assert_eq!(store.prefix("w").count(), 1);
    let both = store.read_many(&["k", "nothing"]).unwrap();
    assert_eq!(
        (both[0].as_deref(), both[1].is_none()),
        (all.get(&b"k"[..]).map(|value| &value[..]), true)
    );
}

/// Values are copied and proven whole before they are looked at; nothing that guards the store can be
/// written by who reads it so.
#[test]
fn f23_f24_f26_f44_who_reads_by_copying_reads_whole_values_and_writes_nothing() {
    let store = store();
    store.set("k", &value(0)).unwrap();
    store.set_archived("words", &vec![String::from("to"), String::from("be")]).unwrap();
    let mut reader = reader(&store, "read");
    for round in 1..20_000 {
        store.set("k", &value(round)).unwrap();
        if round % 16 == 0 {
            store.set("other", &vec![7; round as usize * 13 % 40_000]).unwrap();
        }
    }
    store.set_pod("stop", &1_u64).unwrap();
    assert!(reader.wait().unwrap().success());
    assert_eq!(store.check(), Ok(()));
    assert_eq!(store.stats().unwrap().readers, Some(1), "it has claimed nothing");
}

/// Reads all there is, in all ways, while it is being overwritten.
fn read_garbage() {
    let store = Store::attach_read_only(handed()).unwrap();
    let (mut read, mut refused) = (0, 0);
    println!("{ATTACHED}");
    // At least so often, and until both have been met.
    for round in 0..1_000_000_u64 {
        if round >= 3000 && read > 0 && refused > 0 {
            break;
        }
        for key in [&b"k"[..], b"words", &round.to_le_bytes()] {
            match store.get(key) {
                Ok(_) => read += 1,
                Err(_) => refused += 1,
            }
        }
        let _ = (store.len(), store.contains("other"), store.stats());
        if round % 100 == 0 {
            let _ = (store.iter().count(), store.read_many(&["k", "words", "x"]).is_ok());
        }
        let _ =
            store.get_archived::<Vec<String>>("words").map(|found| found.map(|words| words.len()));
        let _ = store.get_pod::<[u64; 2]>("k").map(|found| found.map(|words| words[1]));
    }
    assert!(read > 0 && refused > 0, "{read} read, {refused} refused");
}

/// The measures are private, and everything else is checked.
#[test]
fn f17_garbage_in_a_store_does_no_harm_to_who_reads_it_by_copying() {
    let store = store();
    store.set("k", &value(3)).unwrap();
    store.set_archived("words", &vec![String::from("to"), String::from("be")]).unwrap();
    let mut reader = reader(&store, "read-garbage");
    let mut told = BufReader::new(reader.stdout.take().unwrap()).lines();
    assert!(told.any(|line| line.unwrap().contains(ATTACHED)), "a reader that never attached");
    // SAFETY: nobody else has this handle's store mapped for writing, and it is not used any more.
    let file = File::from(unsafe { store.descriptor_writable() }.unwrap().public);
    let len = file.metadata().unwrap().len();
    let mut before = vec![0; len as usize];
    file.read_exact_at(&mut before, 0).unwrap();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |end: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % end
    };
    let words = len / 8;
    let mut rounds = 0_u64;
    while reader.try_wait().unwrap().is_none() {
        rounds += 1;
        for _ in 0..200 {
            // The first pages, which everything else hangs on, as often as the rest.
            let at = 8 * if below(2) == 0 { 32 + below(1000) } else { 16 + below(words - 16) };
            let word = match below(3) {
                0 => below(u64::MAX),
                1 => (below(len) / 16) | (below(1 << 16) << 48),
                _ => below(1000),
            };
            file.write_all_at(&word.to_le_bytes(), at).unwrap();
        }
        if rounds.is_multiple_of(8) {
            file.write_all_at(&before[256..], 256).unwrap();
        }
    }
    assert!(reader.wait().unwrap().success());
    drop(told);
    file.write_all_at(&before[256..], 256).unwrap();
}
