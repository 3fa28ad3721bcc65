//! A survey: what the truth of a store says the indexes must be.
//!
//! Recovery makes the indexes so; the check compares them.
//! What always holds: it reads the root, the table, the blocks and the words of the spans, and the pins, and nothing
//! that a dead writer may have left half done.

use std::ops::Range;

use super::StoreGeometry;
use super::arena;
use super::block::Block;
use super::classes;
use super::spans::{self, Damage, Span};
use super::table::Table;
use crate::layout::store::{block, slot};
use crate::memory::{Memory, Ordering};

/// So many words of the table are looked at together.
const TOGETHER: usize = 64;

/// No writer has counted further. So above every version that a block may have there is another one.
pub(super) const MAX_VERSION: u64 = u64::MAX >> 1;

/// See the module.
#[derive(Debug)]
pub(super) struct Survey {
    /// All spans, in the order of their pages.
    pub(super) spans: Vec<Surveyed>,
    /// For each page, the number of its span plus one; 0 = it belongs to none.
    span_of_page: Vec<u32>,
    /// A bit for each object: whether it is in use.
    in_use: Vec<u64>,
    pub(super) live_keys: u64,
    pub(super) live_bytes: u64,
    pub(super) tombstones: u64,
    pub(super) free_pages: u64,
    /// Objects that no slot names and that a reader has pinned, with their bytes.
    pub(super) retired: Vec<(u64, u64)>,
    /// The highest version found.
    pub(super) last_version: u64,
}

/// A span, and where the survey has the bits of its objects.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surveyed {
    pub(super) span: Span,
    /// The first of its words in the bits; a span begins a word.
    first: usize,
    objects: u32,
    /// Bytes of an object.
    room_bytes: u64,
}

impl Surveyed {
    fn words(&self) -> Range<usize> {
        self.first..self.first + self.objects.div_ceil(u64::BITS) as usize
    }
}

impl Survey {
    /// Looks at everything. `pinned` are the offsets that readers have pinned.
    pub(super) fn of<M: Memory>(
        memory: &M,
        geometry: &StoreGeometry,
        pinned: &[u64],
    ) -> Result<Self, Damage> {
        let mut survey = Self::of_spans(memory, geometry)?;
        let table = Table::current(memory, geometry)?;
        // The objects behind it are free perhaps, and are written then.
        if Table::bytes(table.log2_slots()) > survey.mark(geometry, table.offset())? {
            return Err(Damage);
        }
        let mut words = table.words_and_tombstones(memory).map(|(_, word)| word);
        let (mut together, mut len) = ([(0, 0, 0); TOGETHER], 0);
        loop {
            let word = words.next();
            match word {
                Some(slot::TOMBSTONE) => survey.tombstones += 1,
                Some(word) => {
                    let offset = slot::block(word);
                    together[len] = (word, offset, survey.mark(geometry, offset)?);
                    len += 1;
                }
                None => {}
            }
            if len == TOGETHER || word.is_none() {
                survey.read(memory, &together[..len])?;
                len = 0;
            }
            if word.is_none() {
                break;
            }
        }
        let mut former = 0;
        for &offset in pinned {
            // Readers pin the same block many times, and for a moment things that are no blocks.
            if offset != former
                && let Ok(bytes) = survey.mark(geometry, offset)
            {
                survey.retired.push((offset, bytes));
            }
            former = offset;
        }
        Ok(survey)
    }

    /// The spans, with no object in use.
    fn of_spans<M: Memory>(memory: &M, geometry: &StoreGeometry) -> Result<Self, Damage> {
        let mut survey = Self {
            spans: Vec::new(),
            span_of_page: vec![0; geometry.pages() as usize],
            in_use: Vec::new(),
            live_keys: 0,
            live_bytes: 0,
            tombstones: 0,
            free_pages: 0,
            retired: Vec::new(),
            last_version: 0,
        };
        let (mut page, mut words) = (0, 0);
        while page < geometry.pages() {
            let Some(span) = spans::starting_at(memory, geometry, page)? else {
                survey.free_pages += 1;
                page += 1;
                continue;
            };
            let class = classes::get(span.class);
            let pages = class.map_or(span.pages, |class| class.pages.into());
            if span.class > classes::LARGE || span.pages != pages {
                return Err(Damage);
            }
            let objects = class.map_or(1, |class| class.objects);
            let room_bytes = class.map_or(spans::len_bytes(span), |class| class.object_bytes);
            let surveyed = Surveyed { span, first: words, objects, room_bytes };
            words = surveyed.words().end;
            survey.spans.push(surveyed);
            page += span.pages;
            let number = survey.spans.len() as u32;
            survey.span_of_page[span.page as usize..page as usize].fill(number);
        }
        survey.in_use = vec![0; words];
        Ok(survey)
    }

    /// Reads the blocks that these words name: word, offset and bytes of the object of each.
    fn read<M: Memory>(&mut self, memory: &M, named: &[(u64, u64, u64)]) -> Result<(), Damage> {
        // They lie anywhere: the processor fetches all of them at once where nothing hangs on what one says.
        let touch = |sum, (_, offset, _): &(_, u64, _)| {
            sum ^ memory.load_u64(offset + block::VERSION, Ordering::Relaxed)
        };
        std::hint::black_box(named.iter().fold(0, touch));
        for &(word, offset, room_bytes) in named {
            let block = Block::read(memory, offset, room_bytes)?;
            if !slot::may_be(word, block.hash) || block.version > MAX_VERSION {
                return Err(Damage);
            }
            self.live_keys += 1;
            self.live_bytes += block.bytes().ok_or(Damage)?;
            self.last_version = self.last_version.max(block.version);
        }
        Ok(())
    }

    /// Marks the object at `offset` as in use, and says how many bytes it has; `Damage` where there is none,
    /// or it is already.
    fn mark(&mut self, geometry: &StoreGeometry, offset: u64) -> Result<u64, Damage> {
        let page = geometry.page_of(offset).ok_or(Damage)?;
        let number = self.span_of_page.get(page as usize).and_then(|number| number.checked_sub(1));
        let surveyed = self.spans.get(number.ok_or(Damage)? as usize).ok_or(Damage)?;
        let object = match classes::get(surveyed.span.class) {
            Some(class) => arena::index_of(geometry, surveyed.span, class, offset),
            None => (spans::start(geometry, surveyed.span) == offset).then_some(0),
        };
        let object = object.ok_or(Damage)?;
        let word = surveyed.first + (object / u64::BITS) as usize;
        let (word, bit) = (self.in_use.get_mut(word).ok_or(Damage)?, 1 << (object % u64::BITS));
        if *word & bit != 0 {
            return Err(Damage);
        }
        *word |= bit;
        Ok(surveyed.room_bytes)
    }

    /// How many objects of a span are in use.
    pub(super) fn used(&self, surveyed: &Surveyed) -> u32 {
        self.in_use[surveyed.words()].iter().map(|word| word.count_ones()).sum()
    }

    /// Whether an object of a span is in use.
    pub(super) fn uses(&self, surveyed: &Surveyed, object: u32) -> bool {
        let word = self.in_use[surveyed.first + (object / u64::BITS) as usize];
        word & 1 << (object % u64::BITS) != 0
    }
}
