//! Blocks: a key and one value of it, written once.
//!
//! The writer fills one and publishes it in a slot; readers find key and value in it.
//! What always holds: a block does not change while a slot names it or a reader has pinned it; its version is zero until
//! everything else in it is in place.

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::StoreGeometry;
use super::spans::Damage;
use crate::layout::store::block::{
    CHECKSUM, HASH, KEY, KEY_LEN, KIND, MAX_KEY_BYTES, VALUE_LEN, VERSION, kind_of_value, tag,
    value,
};
use crate::memory::{Memory, Ordering};

/// The key, where a store can have it; otherwise how long it is.
#[inline]
pub(super) fn check_key(key: &[u8]) -> Result<&[u8], u64> {
    let found = key.len() as u64;
    if (1..=MAX_KEY_BYTES).contains(&found) { Ok(key) } else { Err(found) }
}

/// What a block's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) offset: u64,
    pub(super) version: u64,
    pub(super) hash: u64,
    pub(super) key_len: u64,
    pub(super) value_len: u64,
    /// Part of the fingerprint of the value's type; 0 where it has none.
    pub(super) tag: u32,
}

/// Bytes at a time that a checksum is computed from.
const CHUNK_BYTES: usize = 4096;

/// The hash of a key. XXH3 with 64 bits, as its specification fixes it.
#[inline]
pub(super) fn hash(key: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(key, seed)
}

/// Bytes of a block with a key and a value of these lengths; `None` where no arena is as long.
pub(super) fn block_bytes(key_len: u64, value_len: u64) -> Option<u64> {
    value(key_len).checked_add(value_len)
}

impl Block {
    /// Writes a block, version last.
    pub(super) fn write(
        memory: &impl Memory,
        offset: u64,
        (key, hash): (&[u8], u64),
        (bytes, tag): (&[u8], u32),
        version: u64,
    ) {
        let (key_len, value_len) = (key.len() as u64, bytes.len() as u64);
        let block = Self { offset, version, hash, key_len, value_len, tag };
        let seed = block.checksum_seed();
        // Whoever sees any of what follows, and then executes an acquire fence, sees this zero, or the
        // version at the end: readers that copy without pins find out that the block was another's. The hash
        // takes the place of a free object's link, which has been noted before the fence.
        memory.store_u64(offset + VERSION, 0, Ordering::Relaxed);
        memory.release_fence();
        memory.store_u64(offset + HASH, hash, Ordering::Relaxed);
        memory.store_u32(offset + KEY_LEN, key.len() as u32, Ordering::Relaxed);
        memory.store_u32(offset + KIND, kind_of_value(tag), Ordering::Relaxed);
        memory.store_u64(offset + VALUE_LEN, value_len, Ordering::Relaxed);
        memory.store_u64(offset + CHECKSUM, xxh3_64_with_seed(bytes, seed), Ordering::Relaxed);
        memory.copy_in(offset + KEY, key);
        memory.copy_in(offset + value(key_len), bytes);
        // Pairs with the Acquire in `read`: whoever sees the version sees the rest.
        memory.store_u64(offset + VERSION, version, Ordering::Release);
    }

    /// Copies the block to an object that is long enough, version last.
    pub(super) fn copy_to(&self, memory: &impl Memory, offset: u64) {
        let mut chunk = [0; CHUNK_BYTES];
        let len = block_bytes(self.key_len, self.value_len).unwrap_or_default();
        for at in (HASH..len).step_by(CHUNK_BYTES) {
            let part = &mut chunk[..(len - at).min(CHUNK_BYTES as u64) as usize];
            memory.copy_out(self.offset + at, part);
            memory.copy_in(offset + at, part);
        }
        // As in `write`.
        memory.store_u64(offset + VERSION, self.version, Ordering::Release);
    }

    /// Reads a block's header; `room_bytes` is how long its object is.
    #[inline]
    pub(super) fn read(memory: &impl Memory, offset: u64, room_bytes: u64) -> Result<Self, Damage> {
        // Pairs with the Release in `write`.
        let version = memory.load_u64(offset + VERSION, Ordering::Acquire);
        let kind = memory.load_u32(offset + KIND, Ordering::Relaxed);
        let block = Self {
            offset,
            version,
            hash: memory.load_u64(offset + HASH, Ordering::Relaxed),
            key_len: memory.load_u32(offset + KEY_LEN, Ordering::Relaxed).into(),
            value_len: memory.load_u64(offset + VALUE_LEN, Ordering::Relaxed),
            tag: tag(kind).ok_or(Damage)?,
        };
        let fits = block.bytes().is_some_and(|bytes| bytes <= room_bytes);
        let sound = version != 0 && (1..=MAX_KEY_BYTES).contains(&block.key_len) && fits;
        if sound { Ok(block) } else { Err(Damage) }
    }

    /// Reads the header of a block that ends in the arena, wherever it lies.
    #[inline]
    pub(super) fn read_anywhere(
        memory: &impl Memory,
        geometry: &StoreGeometry,
        offset: u64,
    ) -> Result<Self, Damage> {
        geometry.page_of(offset).ok_or(Damage)?;
        let room_bytes = geometry.private() - offset;
        if room_bytes < KEY { Err(Damage) } else { Self::read(memory, offset, room_bytes) }
    }

    /// Bytes of the block; `None` where that is more than any arena has.
    pub(super) fn bytes(&self) -> Option<u64> {
        block_bytes(self.key_len, self.value_len)
    }

    /// Offset of the key.
    pub(super) fn key(&self) -> u64 {
        self.offset + KEY
    }

    /// Offset of the value.
    pub(super) fn value(&self) -> u64 {
        self.offset + value(self.key_len)
    }

    /// Whether the block is that of this key.
    #[inline]
    pub(super) fn has_key(&self, memory: &impl Memory, key: &[u8], hash: u64) -> bool {
        if self.hash != hash || self.key_len != key.len() as u64 {
            return false;
        }
        memory.has_bytes(self.key(), key)
    }

    /// Whether key and value are those that were written.
    pub(super) fn is_whole(&self, memory: &impl Memory, seed: u64) -> bool {
        let found = memory.load_u64(self.offset + CHECKSUM, Ordering::Relaxed);
        let key = self.digest(memory, self.key(), self.key_len, seed);
        let value = self.digest(memory, self.value(), self.value_len, self.checksum_seed());
        key == self.hash && value == found
    }

    /// Whether these bytes are the value that was written with this checksum.
    pub(super) fn is_value(&self, bytes: &[u8], checksum: u64) -> bool {
        xxh3_64_with_seed(bytes, self.checksum_seed()) == checksum
    }

    fn digest(&self, memory: &impl Memory, start: u64, len: u64, seed: u64) -> u64 {
        let mut digest = Xxh3::with_seed(seed);
        let mut chunk = [0; CHUNK_BYTES];
        for offset in (start..start + len).step_by(CHUNK_BYTES) {
            let left = (start + len - offset).min(CHUNK_BYTES as u64) as usize;
            memory.copy_out(offset, &mut chunk[..left]);
            digest.update(&chunk[..left]);
        }
        digest.digest()
    }

    /// What the checksum of the value starts from, so that it covers the header too.
    fn checksum_seed(&self) -> u64 {
        let words =
            [self.version, self.hash, self.key_len | u64::from(self.tag) << 32, self.value_len];
        words.into_iter().fold(0x9e37_79b9_7f4a_7c15, |sum: u64, word| {
            let product = (sum ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
            product ^ product >> 32
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::HeapMemory;

    #[test]
    fn what_was_written_is_read_and_found_whole() {
        let memory = HeapMemory::new(64 << 10);
        for (key_len, value_len) in [(1, 0), (16, 64), (63, 1), (64, 64), (65, 20_000)] {
            let key: Vec<u8> = (0..key_len).map(|at| at as u8).collect();
            let bytes: Vec<u8> = (0..value_len).map(|at| (at * 7) as u8).collect();
            let hash = hash(&key, 5);
            Block::write(&memory, 4096, (&key, hash), (&bytes, 7), 9);
            let block = Block::read(&memory, 4096, 60 << 10).unwrap();
            assert!(block.has_key(&memory, &key, hash) && block.is_whole(&memory, 5));
            assert!(!block.has_key(&memory, &key[1..], hash));
            assert!(block.value().is_multiple_of(16));
            let mut copy = vec![0; bytes.len()];
            memory.copy_out(block.value(), &mut copy);
            assert_eq!(copy, bytes);
            assert_eq!(Block::read(&memory, 4096, block.bytes().unwrap() - 1), Err(Damage));
        }
    }

    #[test]
    fn a_key_is_told_from_every_other_of_its_length() {
        let memory = HeapMemory::new(8 << 10);
        for key_len in 1..40 {
            let key: Vec<u8> = (1..=key_len).collect();
            Block::write(&memory, 4096, (&key, 7), (&[0xff; 16], 0), 9);
            let block = Block::read(&memory, 4096, 4 << 10).unwrap();
            assert!(block.has_key(&memory, &key, 7));
            for at in 0..key.len() {
                let mut other = key.clone();
                other[at] ^= 0x80;
                assert!(!block.has_key(&memory, &other, 7), "byte {at} of {key_len}");
            }
        }
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let memory = HeapMemory::new(8 << 10);
        let (key, bytes) = (b"motd", b"hello, world");
        Block::write(&memory, 4096, (key, hash(key, 5)), (bytes, 7), 9);
        let len = block_bytes(4, 12).unwrap();
        for bit in 0..len * 8 {
            let in_padding = |start: u64, end: u64| (start * 8..end * 8).contains(&bit);
            if in_padding(44, 48) || in_padding(60, 64) {
                continue;
            }
            let word = 4096 + bit / 64 * 8;
            let flip = || memory.load_u64(word, Ordering::Relaxed) ^ 1 << (bit % 64);
            memory.store_u64(word, flip(), Ordering::Relaxed);
            let found = Block::read(&memory, 4096, 4096);
            assert!(found.is_err() || !found.unwrap().is_whole(&memory, 5), "bit {bit}");
            memory.store_u64(word, flip(), Ordering::Relaxed);
        }
        assert!(Block::read(&memory, 4096, 4096).unwrap().is_whole(&memory, 5));
    }
}
