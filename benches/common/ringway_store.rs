//! ringway's store: what a user calls, in place and copied out.
//!
//! Rows of the store benches.
//! What always holds: only the public API is used; the store is the default one but for its capacity.

use std::os::fd::OwnedFd;

use ringway::store::{Store, StoreDescriptors, StoreOptions};

use super::keyed::{
    Changing, Keyed, Load, ONE_TURN, Together, key_bytes, read_stamp, stamp_of, write_stamp,
};

/// A handle. `IN_PLACE`: first and last 8 bytes of a value are read where it lies.
#[derive(Debug)]
pub struct Handle<const IN_PLACE: bool> {
    store: Store,
    out: Vec<u8>,
    inbox: Vec<u8>,
}

impl<const IN_PLACE: bool> Handle<IN_PLACE> {
    fn over(store: Store, size: usize) -> Self {
        Self { store, out: vec![0xa5; size], inbox: vec![0x5a; size] }
    }
}

/// A store of this many bytes.
pub fn store(capacity_bytes: usize) -> Store {
    let capacity_bytes = capacity_bytes as u64;
    Store::anonymous(&StoreOptions { capacity_bytes, ..StoreOptions::default() }).expect("a store")
}

/// Descriptors for the other side.
pub fn descriptors(store: &Store) -> StoreDescriptors {
    // SAFETY: the other side is this program, which writes by way of the library only.
    unsafe { store.descriptor_writable() }.expect("a descriptor")
}

impl<const IN_PLACE: bool> Keyed for Handle<IN_PLACE> {
    fn create(load: &Load) -> (Self, Vec<OwnedFd>) {
        let mut handle = Self::over(store(load.capacity), load.size);
        for key in 0..load.keys as u64 {
            handle.set(key, stamp_of(key, 1));
        }
        let StoreDescriptors { public, private } = descriptors(&handle.store);
        (handle, vec![public, private])
    }

    fn attach(load: &Load, mut fds: Vec<OwnedFd>) -> Self {
        let (public, private) = (fds.remove(0), fds.remove(0));
        let descriptors = StoreDescriptors { public, private };
        Self::over(Store::attach(descriptors).expect("the parent's store"), load.size)
    }

    #[inline]
    fn get(&mut self, key: u64) -> u64 {
        let value = self.store.get(key_bytes(key)).expect("getting").expect("a key that is there");
        if IN_PLACE {
            return read_stamp(&value);
        }
        self.inbox.copy_from_slice(&value);
        read_stamp(&self.inbox)
    }

    #[inline]
    fn set(&mut self, key: u64, stamp: u64) {
        write_stamp(&mut self.out, stamp);
        self.store.set(key_bytes(key), &self.out).expect("setting");
    }
}

impl<const IN_PLACE: bool> Changing for Handle<IN_PLACE> {
    #[inline]
    fn contains(&mut self, key: u64) -> bool {
        self.store.contains(key_bytes(key)).expect("looking")
    }

    #[inline]
    fn delete(&mut self, key: u64) -> bool {
        self.store.delete(key_bytes(key)).expect("deleting")
    }

    #[inline]
    fn update(&mut self, key: u64, stamp: u64) {
        let next = |old: Option<&[u8]>| {
            let mut new = old.expect("a key that is there").to_vec();
            write_stamp(&mut new, stamp);
            Some(new)
        };
        self.store.update(key_bytes(key), next).expect("updating");
    }

    #[inline]
    fn add(&mut self, key: u64) {
        self.store.fetch_add(key_bytes(key), ONE_TURN as i64).expect("adding");
    }
}

impl<const IN_PLACE: bool> Clone for Handle<IN_PLACE> {
    fn clone(&self) -> Self {
        Self::over(self.store.try_clone().expect("another handle"), self.out.len())
    }
}

impl<const IN_PLACE: bool> Together for Handle<IN_PLACE> {}
