//! LMDB by way of heed: a memory-mapped B-tree in a directory of `/dev/shm`, never synced.
//!
//! Rows: a transaction for each operation, with the value copied out or read in place; and one
//! transaction for a thousand operations.
//! What always holds: its directory lies under this measurement's own name, which goes away with it.

use std::fmt;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, RoTxn, RwTxn, WithTls};

use crate::common::isolated::{far_name, near_name};
use crate::common::keyed::{Keyed, Load, key_bytes, read_stamp, stamp_of, write_stamp};

/// Operations of a long transaction.
pub const TOGETHER: u32 = 1000;
/// Address space for what is written while old pages are still read.
const MAP_TO_CAPACITY: usize = 4;

/// An open environment. Leaked: transactions borrow it, and the process ends with the measurement.
struct Opened {
    env: &'static Env<WithTls>,
    database: Database<Bytes, Bytes>,
    out: Vec<u8>,
    inbox: Vec<u8>,
}

fn directory(name: &str) -> PathBuf {
    Path::new("/dev/shm").join(format!("{name}lmdb"))
}

fn open(directory: &Path, load: &Load) -> Opened {
    let mut options = EnvOpenOptions::new();
    options.map_size(load.capacity * MAP_TO_CAPACITY);
    let flags = EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC | EnvFlags::WRITE_MAP;
    // SAFETY: nothing here outlives a crash of the machine, which is what would need the syncs, and
    // nothing writes where it should not, which is what would need a map that is read only.
    unsafe { options.flags(flags) };
    // SAFETY: a directory of this measurement's own, on one machine, opened once in each process.
    let env = unsafe { options.open(directory) }.expect("an environment");
    let env: &'static Env<WithTls> = Box::leak(Box::new(env));
    let mut transaction = env.write_txn().expect("a transaction");
    let database = env.create_database(&mut transaction, None).expect("a database");
    transaction.commit().expect("a commit");
    Opened { env, database, out: vec![0xa5; load.size], inbox: vec![0x5a; load.size] }
}

impl Opened {
    fn create(load: &Load) -> Self {
        let directory = directory(&near_name());
        fs::create_dir(&directory).expect("a directory");
        let mut opened = open(&directory, load);
        let mut transaction = opened.env.write_txn().expect("a transaction");
        for key in 0..load.keys as u64 {
            opened.put(&mut transaction, key, stamp_of(key, 1));
        }
        transaction.commit().expect("a commit");
        opened
    }

    fn attach(load: &Load) -> Self {
        open(&directory(&far_name()), load)
    }

    fn put(&mut self, transaction: &mut RwTxn<'_>, key: u64, stamp: u64) {
        write_stamp(&mut self.out, stamp);
        self.database.put(transaction, &key_bytes(key), &self.out).expect("putting");
    }

    #[inline(always)]
    fn look(&mut self, transaction: &RoTxn<'_>, key: u64, in_place: bool) -> u64 {
        let value = self.database.get(transaction, &key_bytes(key)).expect("getting");
        let value = value.expect("a key that is there");
        if in_place {
            return read_stamp(value);
        }
        self.inbox.copy_from_slice(value);
        read_stamp(&self.inbox)
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("size", &self.out.len()).finish_non_exhaustive()
    }
}

/// A transaction for each operation.
#[derive(Debug)]
pub struct Each<const IN_PLACE: bool>(Opened);

impl<const IN_PLACE: bool> Keyed for Each<IN_PLACE> {
    fn create(load: &Load) -> (Self, Vec<OwnedFd>) {
        (Self(Opened::create(load)), Vec::new())
    }

    fn attach(load: &Load, _fds: Vec<OwnedFd>) -> Self {
        Self(Opened::attach(load))
    }

    fn get(&mut self, key: u64) -> u64 {
        let transaction = self.0.env.read_txn().expect("a transaction");
        self.0.look(&transaction, key, IN_PLACE)
    }

    fn set(&mut self, key: u64, stamp: u64) {
        let mut transaction = self.0.env.write_txn().expect("a transaction");
        self.0.put(&mut transaction, key, stamp);
        transaction.commit().expect("a commit");
    }
}

/// A transaction for every [`TOGETHER`] operations.
pub struct Thousand {
    opened: Opened,
    reading: Option<RoTxn<'static, WithTls>>,
    writing: Option<RwTxn<'static>>,
    left: u32,
}

impl Thousand {
    fn over(opened: Opened) -> Self {
        Self { opened, reading: None, writing: None, left: 0 }
    }
}

impl fmt::Debug for Thousand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Thousand").field(&self.opened).finish()
    }
}

impl Keyed for Thousand {
    fn create(load: &Load) -> (Self, Vec<OwnedFd>) {
        (Self::over(Opened::create(load)), Vec::new())
    }

    fn attach(load: &Load, _fds: Vec<OwnedFd>) -> Self {
        Self::over(Opened::attach(load))
    }

    fn get(&mut self, key: u64) -> u64 {
        if self.left == 0 {
            // A thread has one at a time.
            self.reading = None;
            self.reading = Some(self.opened.env.read_txn().expect("a transaction"));
            self.left = TOGETHER;
        }
        self.left -= 1;
        let transaction = self.reading.as_ref().expect("just made");
        self.opened.look(transaction, key, false)
    }

    fn set(&mut self, key: u64, stamp: u64) {
        let mut transaction = match self.writing.take() {
            Some(transaction) => transaction,
            None => {
                self.left = TOGETHER;
                self.opened.env.write_txn().expect("a transaction")
            }
        };
        self.opened.put(&mut transaction, key, stamp);
        self.left -= 1;
        if self.left == 0 {
            transaction.commit().expect("a commit");
        } else {
            self.writing = Some(transaction);
        }
    }
}
