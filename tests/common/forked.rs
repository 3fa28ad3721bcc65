//! Stores that forked copies of a test use, and words beside them.

use ringway::layout::CHANNEL_DATA;
use ringway::memory::{FenceMode, MappedMemory, Memory, Ordering};
use ringway::segment::{AnonymousSegment, ChannelGeometry};
use ringway::store::{Store, StoreDescriptors, StoreOptions};

use super::victim::Victim;

/// Words that processes tell each other beside the store.
pub struct Beside(AnonymousSegment);

impl Beside {
    pub fn new() -> Self {
        let geometry = ChannelGeometry::records([4096, 64], 8, FenceMode::Real);
        Self(AnonymousSegment::create(&geometry).unwrap())
    }

    fn memory(&self) -> &MappedMemory {
        self.0.memory()
    }

    pub fn load(&self, word: u64) -> u64 {
        self.memory().load_u64(CHANNEL_DATA + word * 8, Ordering::Acquire)
    }

    pub fn store(&self, word: u64, value: u64) {
        self.memory().store_u64(CHANNEL_DATA + word * 8, value, Ordering::Release);
    }

    /// Waits until the other process has stored something.
    pub fn wait_for(&self, word: u64, value: u64) {
        while self.load(word) != value {
            std::thread::yield_now();
        }
    }
}

pub const READY: u64 = 0;
pub const BEGUN: u64 = 1;
pub const DONE: u64 = 2;

pub fn store_of(capacity_bytes: u64, max_readers: u32) -> Store {
    let options = StoreOptions { capacity_bytes, max_readers, ..StoreOptions::default() };
    Store::anonymous(&options).unwrap()
}

/// For a process that runs this library.
pub fn descriptors(store: &Store) -> StoreDescriptors {
    // SAFETY: given to forked copies of this test only, which write by way of the library.
    unsafe { store.descriptor_writable() }.unwrap()
}

/// A copy of this process that has a handle of its own.
pub fn process(store: &Store, run: impl FnOnce(&Store)) -> Victim {
    let mut theirs = Some(descriptors(store));
    Victim::start(|| run(&Store::attach(theirs.take().unwrap()).unwrap()))
}

pub fn hang() -> ! {
    loop {
        // SAFETY: waits for a signal.
        unsafe { libc::pause() };
    }
}

/// Waits until a killed child is dead; it stays a zombie.
pub fn wait_for_death(victim: &Victim) {
    // SAFETY: zeros are a siginfo that says nothing.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOWAIT;
    // SAFETY: a child of ours, and room for what is said about it.
    let result = unsafe { libc::waitid(libc::P_PID, victim.id(), &mut info, options) };
    assert_eq!(result, 0);
}

pub fn get(store: &Store, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    store.get(key).unwrap().map(|value| value.to_vec())
}
