//! What can be chosen about a store.

use super::header::StoreHeader;
use super::table::Table;
use super::{StoreGeometry, arena, classes};
use crate::error::{NameError, SegmentError};
use crate::layout::store::page::PAGE_BYTES;
use crate::os::{os, random};
use crate::segment::{Access, Address, at_least};

/// Choices about a store. A store that exists is opened where it has at least the capacity and the
/// readers that are asked for; else [`NameError::Differs`]. All have defaults:
///
/// ```
/// use ringway::store::StoreOptions;
///
/// let options = StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() };
/// # assert_eq!(options.max_readers, 64);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Bytes for keys, values and the table, rounded up to whole pages of 4096. Default 64 MiB. The
    /// creator decides.
    ///
    /// A sixty-fourth of them stays free of new values: at least 32 KiB, or a quarter in a store of less than
    /// 128 KiB. In a full store a key can therefore still be deleted, and a value be replaced by one that is no
    /// longer. A batch can do the same as far as its new blocks, and 72 bytes for each change, fit into that part.
    /// The longest value that can always be replaced has a quarter of that part, or 1 KiB in a store of less than
    /// 128 KiB. Longer ones can be replaced while there is room for them. Values that readers hold keep their room.
    pub capacity_bytes: u64,
    /// How many handles there can be that read in place, in all processes. Default 64. The creator
    /// decides.
    pub max_readers: u32,
    /// How many keys the store will have; the creator decides. Default 0: the table begins short and grows.
    ///
    /// The table is made for as many keys at once, and does not get shorter. Up to that number no change pays for
    /// growth. Keys that were deleted count until another key takes their place. It takes 8 bytes for each slot out
    /// of [`capacity_bytes`](Self::capacity_bytes). The number of slots is the least power of two of which three
    /// quarters are as many: between 11 and 22 bytes for each expected key. A store that has no room for
    /// that table, and a shortest value for each key, is refused with
    /// [`SegmentError::ExpectedKeys`](crate::error::SegmentError::ExpectedKeys).
    ///
    /// # What growth costs without it
    /// A larger table is built beside the current one: each change empties 256 slots of it, or moves 16; twice as many where
    /// the table is nearly full. A batch does so for each of its changes. Some changes take longer, as
    /// [`Store::set`](super::Store::set) says.
    pub expected_keys: u64,
    /// When checksums of values are looked at. Each process decides for itself.
    pub verify: Verify,
    /// Who may open a store with a name. Others may not write it, or every call that opens it is
    /// refused: see [`Store`](super).
    pub access: Access,
}

/// When a process looks whether values are those that were written. Every block has a checksum of its key and
/// value.
///
/// Whatever is chosen, all values are looked at when a store is opened that was in use while the machine went down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// At no other time. Reading costs nothing more.
    #[default]
    Never,
    /// When the store is opened. That takes as long as reading all of it, with the lock held; what is not whole
    /// is an error then.
    OnOpen,
    /// At every read of a value. Each read costs a look at all of the value; what is not whole is
    /// [`ReadError::Damaged`](super::ReadError::Damaged).
    EveryRead,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            capacity_bytes: 64 << 20,
            max_readers: 64,
            expected_keys: 0,
            verify: Verify::default(),
            access: Access::default(),
        }
    }
}

impl StoreOptions {
    /// The least that can be asked for: opens a store of any size.
    pub fn least() -> Self {
        Self { capacity_bytes: 1, max_readers: 1, ..Self::default() }
    }

    /// What is there may be more than was asked for, and not less.
    pub(super) fn refuse_less(
        &self,
        address: &Address,
        found: &StoreGeometry,
    ) -> Result<(), NameError> {
        at_least(
            address,
            [
                ("capacity in bytes", self.capacity_bytes, found.pages() * PAGE_BYTES),
                ("number of readers", self.max_readers.into(), found.readers()),
            ],
        )
    }

    /// What a new segment says about itself, but for its incarnation.
    pub(super) fn header(&self) -> Result<StoreHeader, SegmentError> {
        // Whoever can choose keys must not be able to choose where they collide.
        let seed = random::random_u128().map_err(os("getrandom"))? as u64;
        let (pages, readers) = (self.capacity_bytes.div_ceil(PAGE_BYTES), self.max_readers.into());
        let geometry = StoreGeometry::of_pages(pages, readers, seed)
            .ok_or(SegmentError::StoreMeasures { pages, readers })?;
        self.check_keys(&geometry)?;
        Ok(StoreHeader { geometry, incarnation: 0 })
    }

    /// Refuses more keys than there is room for.
    fn check_keys(&self, geometry: &StoreGeometry) -> Result<(), SegmentError> {
        let keys = self.expected_keys;
        let table_pages = arena::pages_for(Table::bytes(Table::log2_expecting(keys)));
        let shortest = classes::get(0).expect("there are classes");
        let key_pages =
            keys.div_ceil(shortest.objects.into()).saturating_mul(shortest.pages.into());
        let needed = table_pages.saturating_add(key_pages);
        if keys == 0 || needed <= geometry.pages() - geometry.reserved_pages() {
            return Ok(());
        }
        // And the reserve, which is a sixty-fourth of all, or up to eight pages.
        let needed = needed.saturating_add(needed / 63 + 8);
        Err(SegmentError::ExpectedKeys {
            keys,
            needed_bytes: needed.saturating_mul(PAGE_BYTES),
            capacity_bytes: geometry.arena_bytes(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    /// Fails where a store is made in which the expected keys have no room.
    #[test]
    fn f88_more_expected_keys_than_there_is_room_for_are_refused() {
        let options = |capacity_bytes, expected_keys| StoreOptions {
            capacity_bytes,
            expected_keys,
            ..StoreOptions::default()
        };
        for (capacity_bytes, keys) in
            [(1 << 20, 20_000), (1 << 20, u64::MAX), (64 << 10, 1_000), (16 << 20, 300_000)]
        {
            let refused = Store::anonymous(&options(capacity_bytes, keys)).unwrap_err().to_string();
            let error = options(capacity_bytes, keys).header().map(drop).unwrap_err();
            let SegmentError::ExpectedKeys { keys: found, needed_bytes, .. } = error else {
                panic!("{error}")
            };
            assert!(found == keys && refused.contains(&error.to_string()), "{refused}");
            if keys < 1 << 20 {
                let store = Store::anonymous(&options(needed_bytes, keys)).unwrap();
                for key in 0..keys {
                    store.set(key.to_ne_bytes(), b"").map(drop).unwrap_or_else(|error| {
                        panic!("key {key} of {keys} in {needed_bytes} bytes: {error}")
                    });
                }
            }
        }
        assert!(Store::anonymous(&options(1 << 20, 5_000)).is_ok());
    }
}
