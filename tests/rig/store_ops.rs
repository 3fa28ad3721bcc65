//! Operations on a store against a `HashMap`, with deaths of the writer, and of whoever recovers, at any store.
//!
//! Tests and fuzz targets share it. What always holds: any bytes are a list of operations; after each death every
//! index says what the table says, and the keys are those before the operation or those after it.

use std::collections::HashMap;

use ringway::memory::{CrashImage, CrashMemory};
use ringway::store::{
    BatchChange, CopyingReader, Core, Owner, Pinned, Reader, Refusal, StoreGeometry,
};

type Model = HashMap<Vec<u8>, Vec<u8>>;

/// Operations of one input. More are left out, so that no input costs much.
const MAX_OPS: usize = 24;
/// Readers: a process and those that it survives.
const READERS: u64 = 4;
/// So many deaths are met.
const MAX_DEATHS: u32 = 5;

/// One operation. Keys are numbers; of lengths there are 256, see [`value`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Set {
        key: u8,
        len: u8,
    },
    Delete {
        key: u8,
    },
    /// Up to eight keys from `first` on; those whose bits are set are deleted.
    Batch {
        first: u8,
        len: u8,
        deleted: u8,
    },
    /// Short values for up to 64 keys, each by itself: tables grow.
    Fill {
        first: u8,
        count: u8,
    },
    /// As many are deleted: tables shrink.
    Drain {
        first: u8,
        count: u8,
    },
    Clear,
    GiveBack,
    Rebuild,
    /// A reader pins a key's value.
    Pin {
        key: u8,
    },
    /// It lets go what it pinned first.
    Unpin,
    /// The writer dies in the next operation at one of its stores, where `late` ones are missing or came too
    /// early. Twice: whoever recovers dies as well.
    Crash {
        at: u16,
        late: u8,
    },
}

impl Op {
    pub fn decode([kind, a, b, c]: [u8; 4]) -> Self {
        match kind % 16 {
            0..=3 => Self::Set { key: a, len: b },
            4 | 5 => Self::Delete { key: a },
            6 | 7 => Self::Batch { first: a, len: b, deleted: c },
            8 => Self::Fill { first: a, count: b % 64 },
            9 => Self::Drain { first: a, count: b % 64 },
            10 if a < 128 => Self::Clear,
            10 => Self::Rebuild,
            11 => Self::GiveBack,
            12 => Self::Pin { key: a },
            13 => Self::Unpin,
            _ => Self::Crash { at: u16::from_le_bytes([a, b]), late: c },
        }
    }

    pub fn encode(self) -> [u8; 4] {
        match self {
            Self::Set { key, len } => [0, key, len, 0],
            Self::Delete { key } => [4, key, 0, 0],
            Self::Batch { first, len, deleted } => [6, first, len, deleted],
            Self::Fill { first, count } => [8, first, count, 0],
            Self::Drain { first, count } => [9, first, count, 0],
            Self::Clear => [10, 0, 0, 0],
            Self::Rebuild => [10, 128, 0, 0],
            Self::GiveBack => [11, 0, 0, 0],
            Self::Pin { key } => [12, key, 0, 0],
            Self::Unpin => [13, 0, 0, 0],
            Self::Crash { at, late } => {
                let [low, high] = at.to_le_bytes();
                [14, low, high, late]
            }
        }
    }
}

fn key(number: u8) -> Vec<u8> {
    // A few that are longer than others.
    vec![number; if number.is_multiple_of(16) { 90 } else { 3 }]
}

/// A value of one of 256 lengths: of none to many classes, and of several pages.
fn value(tag: usize, len: u8) -> Vec<u8> {
    let len = usize::from(len);
    let len = match len {
        0..128 => len,
        128..192 => (len - 128) * 16,
        192..240 => (len - 192) * 100,
        _ => (len - 239) * 1500,
    };
    vec![tag as u8; len]
}

/// Runs a list of operations.
pub fn run(data: &[u8]) {
    let geometry = StoreGeometry::new(64 << 10, READERS, 0x5eed).expect("measures");
    let memory = CrashMemory::new(geometry.len_bytes());
    Core::new(memory.clone(), geometry).format().expect("a store");
    let mut life = Life { geometry, model: Model::new(), last_version: 0, deaths: 0 };
    let mut ops = data
        .chunks_exact(4)
        .take(MAX_OPS)
        .map(|op| Op::decode(op.try_into().expect("four bytes")))
        .enumerate();
    let mut left = Some(memory);
    while let Some(memory) = left {
        left = life.live(&memory, &mut ops);
    }
}

/// What outlives a writer.
struct Life {
    geometry: StoreGeometry,
    model: Model,
    /// The last version that was given to a value.
    last_version: u64,
    deaths: u32,
}

impl Life {
    /// Runs operations up to the next death; returns what that leaves, in order again.
    fn live(
        &mut self,
        memory: &CrashMemory,
        ops: &mut impl Iterator<Item = (usize, Op)>,
    ) -> Option<CrashMemory> {
        let mut core = Core::new(memory.clone(), self.geometry);
        let owner = Owner::new(self.deaths + 1, 1);
        let reader = Reader::claim(memory.clone(), self.geometry, owner);
        let mut pinned: Vec<(Pinned<'_, CrashMemory>, Vec<u8>)> = Vec::new();
        let mut crashes = Vec::new();
        let mut left = None;
        for (step, op) in ops {
            match op {
                Op::Crash { at, late } => {
                    crashes.push((at, late));
                    continue;
                }
                Op::Pin { key: number } => {
                    let key = key(number);
                    let found = reader.as_ref().and_then(|reader| reader.get(&key).ok());
                    if let Some(found) = found {
                        let expected = self.model.get(&key);
                        assert_eq!(found.as_ref().map(Pinned::to_vec).as_ref(), expected);
                        pinned.extend(found.zip(expected.cloned()));
                    }
                    continue;
                }
                Op::Unpin => {
                    if !pinned.is_empty() {
                        drop(pinned.remove(0));
                    }
                    continue;
                }
                _ => {}
            }
            if crashes.is_empty() || self.deaths == MAX_DEATHS {
                self.operate(&mut core, step, op, |_| {});
            } else {
                self.deaths += 1;
                left = Some(self.die(&mut core, memory, (step, op), &crashes));
                break;
            }
        }
        for (pinned, expected) in &pinned {
            assert_eq!(&pinned.to_vec(), expected, "pinned");
        }
        if left.is_none() {
            assert_eq!(core.check(), Ok(()));
            assert_eq!(contents(memory, self.geometry), self.model);
        }
        left
    }

    /// Runs an operation, and gives `last` the keys before it; where it changes many keys one by one, before the
    /// last of them.
    fn operate(
        &mut self,
        core: &mut Core<CrashMemory>,
        step: usize,
        op: Op,
        last: impl FnOnce(&Model),
    ) {
        match op {
            Op::Set { key, len } => {
                last(&self.model);
                self.set(core, key, value(step, len));
            }
            Op::Delete { key } => {
                last(&self.model);
                self.delete(core, key);
            }
            Op::Fill { first, count } => {
                for number in 0..count {
                    self.set(core, first.wrapping_add(number), value(step, number % 16));
                }
                last(&self.model);
                self.set(core, first.wrapping_add(count), value(step, 5));
            }
            Op::Drain { first, count } => {
                for number in 0..count {
                    self.delete(core, first.wrapping_add(number));
                }
                last(&self.model);
                self.delete(core, first.wrapping_add(count));
            }
            Op::Batch { first, len, deleted } => {
                last(&self.model);
                self.commit(core, step, first, len, deleted);
            }
            Op::Clear => {
                last(&self.model);
                match core.clear() {
                    Ok(keys) => {
                        assert_eq!(keys, self.model.len() as u64);
                        self.model.clear();
                    }
                    Err(refusal) => assert_eq!(refusal, Refusal::OutOfSpace),
                }
            }
            Op::GiveBack => {
                last(&self.model);
                core.give_back().expect("in order");
            }
            Op::Rebuild => {
                last(&self.model);
                core.rebuild().expect("in order");
            }
            Op::Pin { .. } | Op::Unpin | Op::Crash { .. } => {}
        }
    }

    fn set(&mut self, core: &mut Core<CrashMemory>, number: u8, value: Vec<u8>) {
        let key = key(number);
        match core.set(&key, &value) {
            Ok(version) => {
                self.newer(version);
                self.model.insert(key, value);
            }
            Err(refusal) => assert_eq!(refusal, Refusal::OutOfSpace),
        }
    }

    fn delete(&mut self, core: &mut Core<CrashMemory>, number: u8) {
        let key = key(number);
        assert_eq!(core.delete(&key), Ok(self.model.remove(&key).is_some()));
    }

    fn commit(
        &mut self,
        core: &mut Core<CrashMemory>,
        step: usize,
        first: u8,
        len: u8,
        deleted: u8,
    ) {
        // The last number comes back to the first key where all eight are asked for.
        let count = len % 8 + 1;
        let changes: Vec<(Vec<u8>, Option<Vec<u8>>)> = (0..count)
            .map(|number| {
                let value = (deleted >> number & 1 == 0).then(|| value(step, len ^ (number * 3)));
                (key(first.wrapping_add(number % 7)), value)
            })
            .collect();
        let asked: Vec<BatchChange<'_>> = changes
            .iter()
            .map(|(key, value)| match value {
                Some(value) => BatchChange::set(key, value),
                None => BatchChange::delete(key),
            })
            .collect();
        match core.commit(&asked) {
            Ok(versions) => {
                versions.into_iter().flatten().for_each(|version| self.newer(version));
                for (key, value) in changes {
                    match value {
                        Some(value) => drop(self.model.insert(key, value)),
                        None => drop(self.model.remove(&key)),
                    }
                }
            }
            Err(refusal) => assert_eq!(refusal, Refusal::OutOfSpace),
        }
    }

    /// No version comes twice.
    fn newer(&mut self, version: u64) {
        assert!(version > self.last_version, "{version} after {}", self.last_version);
        self.last_version = version;
    }

    /// Runs an operation, in which the writer dies, and recovers what it leaves, also by somebody who dies.
    fn die(
        &mut self,
        core: &mut Core<CrashMemory>,
        memory: &CrashMemory,
        (step, op): (usize, Op),
        crashes: &[(u16, u8)],
    ) -> CrashMemory {
        let (mut before, last_version) = (Model::new(), self.last_version);
        self.operate(core, step, op, |model| {
            before.clone_from(model);
            memory.record();
        });
        let mut left = image(memory, crashes[0]).to_memory();
        if let Some(crash) = crashes.get(1) {
            left.record();
            Core::new(left.clone(), self.geometry).recover().expect("no truth is lost");
            left = image(&left, *crash).to_memory();
        }
        let mut survivor = Core::new(left.clone(), self.geometry);
        let recovered = survivor.recover().expect("no truth is lost");
        assert_eq!(survivor.check(), Ok(()), "{recovered:?} after {op:?}");
        let found = contents(&left, self.geometry);
        assert!(found == before || found == self.model, "{recovered:?} after {op:?}: {found:?}");
        if found == before {
            // What it gave out may not have been seen by anybody.
            self.last_version = last_version;
        }
        self.model = found;
        left
    }
}

fn image(memory: &CrashMemory, (at, late): (u16, u8)) -> CrashImage {
    let crash = memory.crash();
    // Spread over all stores, however many there are.
    let at = ((crash.stores().count() + 1) * usize::from(at)) >> 16;
    // A few bits and many; none is program order.
    crash.image_at(at, u64::from(late).wrapping_mul(0x0123_4567_89ab_cdef).rotate_left(late.into()))
}

/// All keys, as whoever copies finds them.
fn contents(memory: &CrashMemory, geometry: StoreGeometry) -> Model {
    let reader = CopyingReader::new(memory.clone(), geometry);
    let found: Model = reader
        .iter()
        .map(|entry| entry.map(|(key, copied)| (key, copied.to_vec())).expect("in order"))
        .collect();
    assert_eq!(reader.len(), found.len() as u64);
    found
}
