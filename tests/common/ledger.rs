//! What writers of a store note beside it, so that whoever looks after a kill knows what must be there.

use ringway::layout::CHANNEL_DATA;
use ringway::memory::{FenceMode, MappedMemory, Memory, Ordering};
use ringway::segment::{AnonymousSegment, ChannelGeometry};

use super::random::mix;

/// Processes that write.
pub const WRITERS: usize = 3;
/// Keys that each of them has.
pub const KEYS: usize = 40;

/// What a key is to be: never set, or set or deleted for the n-th time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct State(u64);

impl State {
    pub const NONE: Self = Self(0);

    /// What comes after this one.
    pub fn next(self, deleted: bool) -> Self {
        Self((self.number() + 1) << 1 | u64::from(!deleted))
    }

    pub fn number(self) -> u64 {
        self.0 >> 1
    }

    /// The value in this state, all of whose bytes follow from it and from the key; `None` where there is none.
    pub fn value(self, writer: usize, key: usize) -> Option<Vec<u8>> {
        if self.0 & 1 == 0 {
            return None;
        }
        let id = (writer << 32 | key) as u64;
        let choice = mix(self.0 ^ mix(id));
        let longest = match (choice >> 32) % 64 {
            0 => 60_000,
            1..16 => 2000,
            _ => 200,
        };
        let len = 16 + (choice as u32 % longest) as usize;
        let mut value: Vec<u8> = [self.0, id].into_iter().flat_map(u64::to_ne_bytes).collect();
        for word in 0_u64.. {
            if value.len() >= len {
                break;
            }
            value.extend(mix(choice ^ word).to_ne_bytes());
        }
        value.truncate(len);
        Some(value)
    }

    /// The state that a value proves to be of; `None` where it is no value of this key.
    pub fn of(writer: usize, key: usize, value: &[u8]) -> Option<Self> {
        let state = Self(u64::from_ne_bytes(*value.first_chunk()?));
        (state.value(writer, key)? == value).then_some(state)
    }
}

/// The name of a key. Some are long.
pub fn key_of(writer: usize, key: usize) -> String {
    let padding = if key.is_multiple_of(9) { key * 5 } else { 0 };
    format!("{writer}/{key}{:padding$}", "")
}

/// Words that every process has mapped by inheritance, and that outlive it.
#[derive(Debug)]
pub struct Ledger {
    memory: MappedMemory,
    _segment: AnonymousSegment,
}

/// First word of each table.
const DONE: usize = 0;
const INTENDED: usize = DONE + WRITERS * KEYS;
const ADDED: usize = INTENDED + WRITERS * KEYS;
const TO_ADD: usize = ADDED + WRITERS;
const RECOVERIES: usize = TO_ADD + WRITERS;
const VIOLATIONS: usize = RECOVERIES + 4;
const PAUSED: usize = VIOLATIONS + 1;

impl Ledger {
    pub fn new() -> Self {
        let geometry = ChannelGeometry::records([1 << 14, 64], 8, FenceMode::Real);
        let segment = AnonymousSegment::create(&geometry).unwrap();
        Self { memory: segment.memory().clone(), _segment: segment }
    }

    fn load(&self, word: usize) -> u64 {
        self.memory.load_u64(CHANNEL_DATA + 8 * word as u64, Ordering::Acquire)
    }

    fn store(&self, word: usize, value: u64) {
        self.memory.store_u64(CHANNEL_DATA + 8 * word as u64, value, Ordering::Release);
    }

    fn count(&self, word: usize) -> u64 {
        self.memory.fetch_add_u64(CHANNEL_DATA + 8 * word as u64, 1, Ordering::AcqRel)
    }

    /// What this key certainly was, at the last word of its writer.
    pub fn done(&self, writer: usize, key: usize) -> State {
        State(self.load(DONE + writer * KEYS + key))
    }

    /// What its writer may have made of it since.
    pub fn intended(&self, writer: usize, key: usize) -> State {
        State(self.load(INTENDED + writer * KEYS + key))
    }

    pub fn intend(&self, writer: usize, key: usize, state: State) {
        self.store(INTENDED + writer * KEYS + key, state.0);
    }

    pub fn finish(&self, writer: usize, key: usize, state: State) {
        self.store(DONE + writer * KEYS + key, state.0);
    }

    pub fn intend_to_add(&self, writer: usize) {
        self.count(TO_ADD + writer);
    }

    pub fn added(&self, writer: usize) {
        self.count(ADDED + writer);
    }

    /// The least and the most that can have been added.
    pub fn total(&self) -> (u64, u64) {
        let sum = |first| (0..WRITERS).map(|writer| self.load(first + writer)).sum();
        (sum(ADDED), sum(TO_ADD))
    }

    pub fn recovered(&self, how: usize) {
        self.count(RECOVERIES + how);
    }

    pub fn recoveries(&self) -> [u64; 4] {
        std::array::from_fn(|how| self.load(RECOVERIES + how))
    }

    /// Asks all processes to let this one work, or to go on.
    pub fn pause(&self, paused: bool) {
        self.store(PAUSED, paused.into());
    }

    /// Waits while it has been asked to.
    pub fn pause_here(&self) {
        while self.load(PAUSED) != 0 {
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
    }

    pub fn violations(&self) -> u64 {
        self.load(VIOLATIONS)
    }

    /// Reports and ends this process, which is a forked one.
    pub fn violation(&self, what: &str) -> ! {
        self.count(VIOLATIONS);
        let line = format!("violation: {what}\n");
        // SAFETY: bytes that outlive the call. Not by way of the harness, whose copy nobody reads.
        unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
        // SAFETY: the call takes a number and does not return.
        unsafe { libc::_exit(1) }
    }
}
