//! Stores of arbitrary contents: what readers and recovery make of them.
//!
//! Tests and fuzz targets share it. What always holds: no call panics or leaves the memory, and every call ends.

use std::sync::LazyLock;

use ringway::layout::store::ROOT;
use ringway::memory::{HeapMemory, Memory, Ordering};
use ringway::store::{BatchChange, CopyingReader, Core, StoreGeometry};

const KEYS: [&[u8]; 6] = [b"a", b"key", b"a longer key than the others", b"zz", b"\0", b"long"];

/// Behind readers, limbo, and most notes of deletions; before the descriptors of pages.
const BEFORE_DESCRIPTORS: u64 = 16 << 10;

/// A small store with something in it.
static PREPARED: LazyLock<(Vec<u64>, StoreGeometry)> = LazyLock::new(|| {
    let geometry = StoreGeometry::new(128 << 10, 2, 0x5eed).expect("measures");
    let memory = HeapMemory::new(geometry.len_bytes());
    let mut core = Core::new(memory.clone(), geometry);
    core.format().expect("a store");
    for (number, key) in KEYS.iter().enumerate() {
        core.set(key, &vec![number as u8; [0, 3, 100, 700, 5000, 33_000][number]]).expect("room");
    }
    core.delete(KEYS[3]).expect("in order");
    (memory.to_words(), geometry)
});

/// That store, into which the input writes: two bytes of place and eight of value, at a
/// word each. Places are counted from what is most worth changing. Also says whether the truth was left alone: what
/// no index can be computed without.
fn scribbled(data: &[u8]) -> (HeapMemory, StoreGeometry, bool) {
    let (words, geometry) = &*PREPARED;
    let (memory, geometry) = (HeapMemory::from_words(words), *geometry);
    let first = geometry.len_bytes() - geometry.arena_bytes();
    let mut is_true = true;
    for change in data.chunks_exact(10) {
        let place = u64::from(u16::from_le_bytes([change[0], change[1]]));
        // The words of the writer, the descriptors, readers and limbo, the arena.
        let between = |from: u64, to: u64| from + place % ((to - from) / 8) * 8;
        let offset = match place >> 13 {
            0 | 1 => between(ROOT, 2784),
            2 => between(BEFORE_DESCRIPTORS, first),
            3 => between(4096, BEFORE_DESCRIPTORS),
            _ => between(first, geometry.len_bytes()),
        };
        is_true &= offset != ROOT && offset < BEFORE_DESCRIPTORS;
        let value = u64::from_le_bytes(change[2..].try_into().expect("eight bytes"));
        // Words that lead somewhere are met more often.
        let value = match change[9] {
            0..64 => value & 0xffff,
            64..128 => ((first + (value & 0xffff)) / 16) | ((value & 0xffff) << 48),
            128..160 => memory.load_u64(first + (value & 0xfff8), Ordering::Relaxed),
            _ => value,
        };
        memory.store_u64(offset, value, Ordering::Relaxed);
    }
    (memory, geometry, is_true)
}

/// Reads everything, in every way.
pub fn readonly(data: &[u8]) {
    let (memory, geometry, _) = scribbled(data);
    let reader = CopyingReader::new(memory, geometry);
    for key in KEYS {
        if let Ok(Some(copied)) = reader.get(key) {
            assert!(copied.len() as u64 <= geometry.arena_bytes());
        }
        let _ = (reader.contains(key), reader.version(key));
    }
    let bytes: u64 =
        reader.iter().filter_map(Result::ok).map(|(_, copied)| copied.len() as u64).sum();
    assert!(bytes <= 4 * geometry.arena_bytes());
    let _ = (reader.prefix(b"a").count(), reader.read_many(&KEYS), reader.len());
}

/// Recovers, or computes all indexes anew; goes on with what there is then.
pub fn recovery(data: &[u8]) {
    let (memory, geometry, is_true) = scribbled(data.get(1..).unwrap_or(&[]));
    let mut core = Core::new(memory.clone(), geometry);
    let _ = core.check();
    if data.first().is_some_and(|first| first & 1 == 1) {
        rebuild(&mut core, is_true);
        if is_true {
            let reader = CopyingReader::new(memory, geometry);
            for (number, key) in KEYS.iter().enumerate() {
                let found = reader.get(key).expect("in order").is_some();
                assert_eq!(found, number != 3, "{key:?}");
            }
        }
    } else {
        // A journal that nobody wrote may say anything, also what changes the truth.
        let recovered = core.recover();
        if recovered.is_ok() {
            let _ = (core.set(b"key", b"new"), core.delete(b"a"), core.check());
        }
        rebuild(&mut core, false);
    }
    // Whatever it is that is there now.
    for number in 0..8_u8 {
        let _ = core.set(&[number], &vec![number; usize::from(number) * 600]);
        let _ = core.commit(&[BatchChange::delete(&[number]), BatchChange::set(KEYS[3], b"3")]);
    }
    let _ = (core.give_back(), core.clear(), core.check());
}

/// Where this says that it has computed all indexes, they are in order.
fn rebuild(core: &mut Core<HeapMemory>, is_true: bool) {
    let rebuilt = core.rebuild();
    assert!(rebuilt.is_ok() || !is_true, "{rebuilt:?}");
    if rebuilt.is_ok() {
        // What is left to be wrong is bytes of blocks, which have checksums.
        let found = core.check();
        let is_allowed = found == Err("a block's checksum") && !is_true;
        assert!(found.is_ok() || is_allowed, "{found:?}");
    }
}
