//! Size classes: how long an object is allowed to be, and how many pages hold how many of them.
//!
//! Spans are made of pages by it, and blocks find their class by their length.
//! What always holds: an object is at least as long as what is put into it, at most an eighth and 16 bytes longer;
//! a span of a class wastes at most a sixteenth at its end, and is short, so that room for it is easily found.

use crate::layout::store::MAX_CLASSES;
use crate::layout::store::page::PAGE_BYTES;

/// Smallest object.
const SMALLEST_BYTES: u64 = 48;
/// Up to here, objects come in steps of 16 bytes; above, in eight steps for each doubling.
const LINEAR_BYTES: u64 = 256;
const LINEAR_STEP: u64 = 16;
/// Longest object that shares a span with others.
pub(super) const LONGEST_BYTES: u64 = 32 << 10;
const LINEAR_CLASSES: u32 = ((LINEAR_BYTES - SMALLEST_BYTES) / LINEAR_STEP + 1) as u32;

/// The class whose spans hold one object each, as many pages as it needs.
pub(super) const LARGE: u32 = LINEAR_CLASSES + 8 * (LONGEST_BYTES / LINEAR_BYTES).ilog2();
/// Number of classes, the large one included.
pub(super) const COUNT: u32 = LARGE + 1;

/// Objects of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class {
    /// Length of an object in bytes.
    pub(super) object_bytes: u64,
    /// Pages of a span.
    pub(super) pages: u32,
    /// Objects in a span.
    pub(super) objects: u32,
}

/// The class for objects of `len` bytes.
pub(super) const fn of_len(len: u64) -> u32 {
    if len <= LINEAR_BYTES {
        let over = len.saturating_sub(SMALLEST_BYTES);
        return over.div_ceil(LINEAR_STEP) as u32;
    }
    if len > LONGEST_BYTES {
        return LARGE;
    }
    // Which doubling, and which eighth of it, rounded up.
    let doubling = (len - 1).ilog2();
    let eighth = (len - 1 - (1 << doubling)) >> (doubling - 3);
    LINEAR_CLASSES + 8 * (doubling - LINEAR_BYTES.ilog2()) + eighth as u32
}

const fn object_bytes(class: u32) -> u64 {
    if class < LINEAR_CLASSES {
        return SMALLEST_BYTES + class as u64 * LINEAR_STEP;
    }
    let above = class - LINEAR_CLASSES;
    let base = LINEAR_BYTES << (above / 8);
    base + base / 8 * (above % 8 + 1) as u64
}

const fn class(index: u32) -> Class {
    let object_bytes = object_bytes(index);
    let mut pages = 1;
    loop {
        let bytes = pages as u64 * PAGE_BYTES;
        let objects = bytes / object_bytes;
        let enough = objects >= 8 || (objects >= 1 && pages >= 4);
        if enough && (bytes % object_bytes) * 16 <= bytes {
            return Class { object_bytes, pages, objects: objects as u32 };
        }
        pages += 1;
    }
}

const TABLE: [Class; LARGE as usize] = {
    let mut table = [Class { object_bytes: 0, pages: 0, objects: 0 }; LARGE as usize];
    let mut index = 0;
    while index < LARGE {
        table[index as usize] = class(index);
        index += 1;
    }
    table
};

/// A class by its number; `None` for [`LARGE`] and for numbers that are none.
pub(super) fn get(index: u32) -> Option<&'static Class> {
    TABLE.get(index as usize)
}

/// Pages of a span that holds one large object.
pub(super) const fn large_pages(len: u64) -> u64 {
    len.div_ceil(PAGE_BYTES)
}

const _: () = {
    assert!(COUNT as u64 <= MAX_CLASSES);
    assert!(object_bytes(LARGE - 1) == LONGEST_BYTES);
    let mut index = 0;
    while index < LARGE {
        // Fields of the span's state have 16 bits each.
        assert!(TABLE[index as usize].objects < 1 << 15);
        index += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_long_enough_and_not_much_longer() {
        for len in 1..=LONGEST_BYTES {
            let index = of_len(len);
            let class = get(index).unwrap();
            assert!(class.object_bytes >= len, "{len} in {class:?}");
            assert!(class.object_bytes <= (len + len / 8 + 16).max(SMALLEST_BYTES), "{len}");
            assert!(index == 0 || object_bytes(index - 1) < len, "{len} fits below {class:?}");
        }
        assert_eq!(of_len(LONGEST_BYTES + 1), LARGE);
        assert_eq!(get(LARGE), None);
    }

    #[test]
    fn spans_waste_little_and_start_lines() {
        for class in &TABLE {
            let bytes = u64::from(class.pages) * PAGE_BYTES;
            let used = u64::from(class.objects) * class.object_bytes;
            assert!(used <= bytes && (bytes - used) * 16 <= bytes, "{class:?}");
            assert!(class.object_bytes.is_multiple_of(16));
            assert!(class.pages <= 15 && (class.objects >= 8 || class.pages >= 4), "{class:?}");
        }
    }
}
