//! Stores of arbitrary contents: what readers and recovery make of them.
//!
//! Tests and fuzz targets share it. What always holds: no call panics or leaves the memory, and every call ends.

use ringway::memory::{HeapMemory, Memory, Ordering};
use ringway::store::{CopyingReader, Core, StoreGeometry};

const KEYS: [&[u8]; 6] = [b"a", b"key", b"a longer key than the others", b"zz", b"\0", b"long"];

/// A small store with something in it, into which the input writes: two bytes of place and eight of value, at a
/// word each. Places are counted from what is most worth changing.
fn scribbled(data: &[u8]) -> (HeapMemory, StoreGeometry) {
    let geometry = StoreGeometry::new(128 << 10, 2, 0x5eed).expect("measures");
    let memory = HeapMemory::new(geometry.len_bytes());
    let mut core = Core::new(memory.clone(), geometry);
    core.format().expect("a store");
    for (number, key) in KEYS.iter().enumerate() {
        core.set(key, &vec![number as u8; [0, 3, 100, 700, 5000, 33_000][number]]).expect("room");
    }
    core.delete(KEYS[3]).expect("in order");
    let first = geometry.len_bytes() - geometry.arena_bytes();
    for change in data.chunks_exact(10) {
        let place = u64::from(u16::from_le_bytes([change[0], change[1]]));
        // The words of the writer, the indexes, the arena.
        let offset = match place >> 14 {
            0 => 384 + place % 300 * 8,
            1 => first - 1024 + place % 128 * 8,
            _ => first + place % (geometry.arena_bytes() / 8) * 8,
        };
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
    (memory, geometry)
}

/// Reads everything, in every way.
pub fn readonly(data: &[u8]) {
    let (memory, geometry) = scribbled(data);
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

/// Recovers, and what is recovered is in order.
pub fn recovery(data: &[u8]) {
    let (memory, geometry) = scribbled(data.get(1..).unwrap_or(&[]));
    let mut core = Core::new(memory, geometry);
    let _ = core.check();
    let rebuild = data.first().is_some_and(|first| first & 1 == 1);
    let recovered = if rebuild { core.rebuild() } else { core.recover() };
    if recovered.is_ok() && rebuild {
        // What is left to be wrong is bytes of blocks, which have checksums.
        let found = core.check();
        assert!(found.is_ok() || found == Err("a block's checksum"), "{found:?}");
    }
}
