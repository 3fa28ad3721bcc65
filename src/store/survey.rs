//! A survey: what the truth of a store says the indexes must be.
//!
//! Recovery makes the indexes so; the check compares them.
//! What always holds: it reads the root, the table, the blocks and the words of the spans, and the pins, and nothing
//! that a dead writer may have left half done.

use super::StoreGeometry;
use super::arena;
use super::classes;
use super::spans::{self, Damage, Span};
use super::table::{Table, block_at};
use crate::layout::store::slot;
use crate::memory::Memory;

/// No writer has counted further. So above every version that a block may have there is another one.
pub(super) const MAX_VERSION: u64 = u64::MAX >> 1;

/// See the module.
#[derive(Debug)]
pub(super) struct Survey {
    /// All spans, in the order of their pages.
    pub(super) spans: Vec<Surveyed>,
    pub(super) live_keys: u64,
    pub(super) live_bytes: u64,
    pub(super) tombstones: u64,
    pub(super) free_pages: u64,
    /// Objects that no slot names and that a reader has pinned, with their bytes.
    pub(super) retired: Vec<(u64, u64)>,
    /// The highest version found.
    pub(super) last_version: u64,
}

/// A span, and which of its objects are in use.
#[derive(Debug)]
pub(super) struct Surveyed {
    pub(super) span: Span,
    /// One entry an object.
    pub(super) in_use: Vec<bool>,
}

impl Survey {
    /// Looks at everything. `pinned` are the offsets that readers have pinned.
    pub(super) fn of<M: Memory>(
        memory: &M,
        geometry: &StoreGeometry,
        pinned: &[u64],
    ) -> Result<Self, Damage> {
        let mut survey = Self {
            spans: Vec::new(),
            live_keys: 0,
            live_bytes: 0,
            tombstones: 0,
            free_pages: 0,
            retired: Vec::new(),
            last_version: 0,
        };
        let mut page = 0;
        while page < geometry.pages() {
            match spans::starting_at(memory, geometry, page)? {
                Some(span) => {
                    let class = classes::get(span.class);
                    let pages = class.map_or(span.pages, |class| class.pages.into());
                    if span.class > classes::LARGE || span.pages != pages {
                        return Err(Damage);
                    }
                    let objects = class.map_or(1, |class| class.objects);
                    survey.spans.push(Surveyed { span, in_use: vec![false; objects as usize] });
                    page += span.pages;
                }
                None => {
                    survey.free_pages += 1;
                    page += 1;
                }
            }
        }
        let table = Table::current(memory, geometry)?;
        survey.mark(geometry, table.offset())?;
        survey.tombstones = table.tombstones(memory);
        for (_, word) in table.words(memory) {
            let block = block_at(memory, geometry, word)?;
            if !slot::may_be(word, block.hash) || block.version > MAX_VERSION {
                return Err(Damage);
            }
            survey.mark(geometry, block.offset)?;
            survey.live_keys += 1;
            survey.live_bytes += block.bytes().ok_or(Damage)?;
            survey.last_version = survey.last_version.max(block.version);
        }
        let mut former = 0;
        for &offset in pinned {
            // Readers pin the same block many times, and for a moment things that are no blocks.
            if offset != former && survey.mark(geometry, offset).is_ok() {
                let bytes = arena::room_bytes(memory, geometry, offset)?;
                survey.retired.push((offset, bytes));
            }
            former = offset;
        }
        Ok(survey)
    }

    /// Marks the object at `offset` as in use; `Damage` where there is none, or it is already.
    fn mark(&mut self, geometry: &StoreGeometry, offset: u64) -> Result<(), Damage> {
        let page = geometry.page_of(offset).ok_or(Damage)?;
        let index = self.spans.partition_point(|surveyed| surveyed.span.page <= page);
        let surveyed = index.checked_sub(1).and_then(|index| self.spans.get_mut(index));
        let surveyed = surveyed.ok_or(Damage)?;
        let object = match classes::get(surveyed.span.class) {
            Some(class) => arena::index_of(geometry, surveyed.span, class, offset),
            None => (spans::start(geometry, surveyed.span) == offset).then_some(0),
        };
        let in_use = surveyed.in_use.get_mut(object.ok_or(Damage)? as usize).ok_or(Damage)?;
        if std::mem::replace(in_use, true) { Err(Damage) } else { Ok(()) }
    }
}
