//! Hash maps of one process, for its threads: a `Mutex<HashMap>`, and dashmap.
//!
//! Rows of the store bench: what values under keys cost where no process ends are crossed.
//! What always holds: values are copied out, since a lock must not be held for as long as a value is
//! looked at; keys are the bytes that the store's are, hashed as each does by default.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use dashmap::DashMap;

use super::keyed::{
    Changing, Keyed, Load, ONE_TURN, Together, key_bytes, read_stamp, stamp_of, write_stamp,
};

type Key = [u8; 16];

/// What both offer.
pub trait Map: Send + Sync + Default + 'static {
    fn copy_out(&self, key: &Key, to: &mut [u8]);
    fn put(&self, key: Key, value: &[u8]);
    fn has(&self, key: &Key) -> bool;
    fn remove(&self, key: &Key) -> bool;
    /// Changes a value where it lies.
    fn alter(&self, key: &Key, change: impl FnOnce(&mut [u8]));
}

impl Map for Mutex<HashMap<Key, Box<[u8]>>> {
    #[inline]
    fn copy_out(&self, key: &Key, to: &mut [u8]) {
        to.copy_from_slice(&self.lock().expect("no panic")[key]);
    }

    #[inline]
    fn put(&self, key: Key, value: &[u8]) {
        let value = value.into();
        // What was there is freed behind the lock.
        let former = self.lock().expect("no panic").insert(key, value);
        drop(former);
    }

    #[inline]
    fn has(&self, key: &Key) -> bool {
        self.lock().expect("no panic").contains_key(key)
    }

    #[inline]
    fn remove(&self, key: &Key) -> bool {
        let former = self.lock().expect("no panic").remove(key);
        former.is_some()
    }

    #[inline]
    fn alter(&self, key: &Key, change: impl FnOnce(&mut [u8])) {
        change(self.lock().expect("no panic").get_mut(key).expect("a key that is there"));
    }
}

impl Map for DashMap<Key, Box<[u8]>> {
    #[inline]
    fn copy_out(&self, key: &Key, to: &mut [u8]) {
        to.copy_from_slice(&self.get(key).expect("a key that is there"));
    }

    #[inline]
    fn put(&self, key: Key, value: &[u8]) {
        self.insert(key, value.into());
    }

    #[inline]
    fn has(&self, key: &Key) -> bool {
        self.contains_key(key)
    }

    #[inline]
    fn remove(&self, key: &Key) -> bool {
        DashMap::remove(self, key).is_some()
    }

    #[inline]
    fn alter(&self, key: &Key, change: impl FnOnce(&mut [u8])) {
        change(&mut self.get_mut(key).expect("a key that is there"));
    }
}

/// A thread's hold on a map.
#[derive(Debug)]
pub struct Held<M> {
    map: Arc<M>,
    out: Vec<u8>,
    inbox: Vec<u8>,
}

/// A hash map behind one lock.
pub type Locked = Held<Mutex<HashMap<Key, Box<[u8]>>>>;
/// A hash map behind a lock for each part of it.
pub type Dashed = Held<DashMap<Key, Box<[u8]>>>;

impl<M: Map> Held<M> {
    fn over(map: Arc<M>, size: usize) -> Self {
        Self { map, out: vec![0xa5; size], inbox: vec![0x5a; size] }
    }
}

impl<M: Map> Clone for Held<M> {
    fn clone(&self) -> Self {
        Self::over(Arc::clone(&self.map), self.out.len())
    }
}

impl<M: Map> Keyed for Held<M> {
    fn create(load: &Load) -> (Self, Vec<OwnedFd>) {
        let mut held = Self::over(Arc::default(), load.size);
        for key in 0..load.keys as u64 {
            held.set(key, stamp_of(key, 1));
        }
        (held, Vec::new())
    }

    fn attach(_load: &Load, _fds: Vec<OwnedFd>) -> Self {
        unreachable!("for threads of one process")
    }

    #[inline]
    fn get(&mut self, key: u64) -> u64 {
        self.map.copy_out(&key_bytes(key), &mut self.inbox);
        read_stamp(&self.inbox)
    }

    #[inline]
    fn set(&mut self, key: u64, stamp: u64) {
        write_stamp(&mut self.out, stamp);
        self.map.put(key_bytes(key), &self.out);
    }
}

impl<M: Map> Changing for Held<M> {
    #[inline]
    fn contains(&mut self, key: u64) -> bool {
        self.map.has(&key_bytes(key))
    }

    #[inline]
    fn delete(&mut self, key: u64) -> bool {
        self.map.remove(&key_bytes(key))
    }

    #[inline]
    fn update(&mut self, key: u64, stamp: u64) {
        self.map.alter(&key_bytes(key), |value| write_stamp(value, stamp));
    }

    #[inline]
    fn add(&mut self, key: u64) {
        self.map.alter(&key_bytes(key), |value| {
            let number = read_stamp(value).wrapping_add(ONE_TURN);
            write_stamp(value, number);
        });
    }
}

impl<M: Map> Together for Held<M> {}
