//! A store in loom's memory, for the models: `--cfg loom` only.
//!
//! `tests/loom_store*.rs` run the shipping writer, reader, recovery and watcher over it.
//! What always holds: the layout is that of any store, with fewer pins and smaller tables; the page that a model
//! says nothing about has no words, so that whoever strays there is told.

use super::doorbells;
use super::interest::OneKey;
use super::interest_prefix::Prefix;
use super::interests::One;
use super::prefixes;
use super::table::Table;
use super::watch::{Change, Plain, Watcher};
use super::{BatchChange, Core, Owner, Reader, StoreGeometry};
use crate::layout::PAGE_BYTES;
use crate::layout::store::private::{bell, prefix};
use crate::layout::store::{self as layout, block, change_log, journal, note, page, reader};
use crate::memory::{Deadline, ModelMemory};

/// How many bytes of a page with words have some.
const USED_BYTES: u64 = 512;
/// What a block with a key of up to 8 bytes and a value of 9 to 16 bytes takes.
pub const VALUE: u64 = 64;
/// What the block of a batch of two keys takes.
pub const BATCH: u64 = 96;
/// What a pending block takes.
pub const PENDING: u64 = layout::pending::BYTES;
/// How many entries of limbo have words.
const LIMBO: u64 = 20;
/// How many pairs of the journal.
const PAIRS: u64 = 24;

/// An empty store for so many readers. Blocks have keys of up to 8 bytes, and values of 9 to 16.
pub fn store(readers: u64) -> (Core<ModelMemory>, ModelMemory, StoreGeometry) {
    store_with(readers, &[VALUE, VALUE])
}

/// The same, with what the pages behind that of the tables hold.
pub fn store_with(readers: u64, pages: &[u64]) -> (Core<ModelMemory>, ModelMemory, StoreGeometry) {
    let geometry = StoreGeometry::new(1 << 16, readers, 0x5eed).expect("measures");
    let mut words: Vec<u64> =
        vec![layout::RECOVERIES, layout::ROOT, layout::GENERATION, layout::EPOCH];
    words.extend((layout::NEXT_VERSION..=layout::LEAST_LOG2_SLOTS).step_by(8));
    words.push(note::COUNT);
    for place in (0..note::NOTES).map(|place| geometry.note(place)) {
        words.extend((place..place + note::BYTES).step_by(8));
    }
    words.extend((journal::HEAD..journal::PAIRS + PAIRS * 16).step_by(8));
    let mut halves: Vec<u64> =
        (0..layout::MAX_CLASSES).map(|class| layout::CLASS_HEADS + class * 4).collect();
    for bell in bells() {
        let words = [bell::GENERATION, bell::WAITING].map(|word| geometry.bell(bell) + word);
        halves.extend(words);
        halves.push(layout::generation::of_bell(bell.into()));
    }
    let entry = geometry.prefix(0, 0);
    words.extend([geometry.used_prefixes(), entry + prefix::OWNER]);
    words.extend((entry + prefix::LEN..entry + prefix::BYTES).step_by(8));
    for log in [0, change_log::LOGS as u32 - 1] {
        let header = geometry.change_log(log, 0);
        words.extend(
            [change_log::COUNT, change_log::DONE, change_log::REGISTRATION]
                .map(|word| header + word),
        );
        words.extend(
            (0..change_log::entries(log.into())).map(|place| geometry.change_log_entry(log, place)),
        );
    }
    halves.extend([bell::GENERATION, bell::WAITING].map(|word| entry + prefix::BELL + word));
    halves.push(layout::generation::of_bell(doorbells::of_prefix(0).into()));
    for record in (0..readers).map(|index| geometry.reader(index)) {
        words.push(record + reader::OWNER);
        words.extend((0..reader::MAX_PINS).map(|pin| record + reader::PINS + pin * 8));
    }
    words.extend((0..LIMBO).map(|index| geometry.limbo_entry(index)));
    for number in 0..geometry.pages() {
        words.extend(
            [page::SPAN, page::STATE, page::EPOCH].map(|word| geometry.descriptor(number, word)),
        );
        halves.extend([page::NEXT, page::PREVIOUS].map(|word| geometry.descriptor(number, word)));
    }
    let tables = geometry.page(0);
    words.extend((tables..tables + USED_BYTES).step_by(8));
    for (number, &bytes) in (1..).zip(pages) {
        for object in (0..USED_BYTES / bytes).map(|index| geometry.page(number) + index * bytes) {
            halves.extend([block::KEY_LEN, block::KIND].map(|half| object + half));
            words.extend((object..object + bytes).step_by(8).filter(|word| word - object != 16));
        }
    }
    const { assert!(USED_BYTES <= PAGE_BYTES && block::KEY_LEN == 16 && block::KIND == 20) };
    let memory = ModelMemory::new(geometry.len_bytes(), halves, words);
    // Readers write their records, and announcements.
    let records = (geometry.reader(0)..geometry.reader(readers - 1) + reader::BYTES).step_by(4);
    let announcements = bells().map(|bell| geometry.bell(bell) + bell::WAITING);
    let watched = [prefix::OWNER, prefix::OWNER + 4, prefix::BELL + bell::WAITING];
    let registration = geometry.change_log(0, change_log::REGISTRATION);
    let watched =
        watched.map(|word| entry + word).into_iter().chain([registration, registration + 4]);
    let core = Core::new(memory.locked(records.chain(announcements).chain(watched)), geometry);
    core.format().expect("room for a table");
    (core, memory, geometry)
}

fn bells() -> std::ops::RangeInclusive<u32> {
    0..=doorbells::EVERYTHING
}

/// Replaces the table by one of the same size, as happens where tombstones fill it.
pub fn replace_table(core: &mut Core<ModelMemory>) {
    let table = Table::current(&core.memory, &core.geometry).expect("a table");
    assert!(core.replace_table(table.log2_slots()).expect("a table"), "room for another");
}

/// A watch of one key, or of one prefix.
#[derive(Debug)]
pub struct Watch<'a> {
    reader: &'a Reader<ModelMemory>,
    watcher: Watcher<ModelMemory, One>,
}

/// Watches a key from now on.
pub fn watch<'a>(reader: &'a Reader<ModelMemory>, key: &[u8]) -> Watch<'a> {
    watch_one(reader, One::Key(OneKey::new(reader, &reader.geometry, key).expect("no damage")))
}

/// Watches a prefix from now on, with an entry.
pub fn watch_prefix<'a>(
    core: &Core<ModelMemory>,
    reader: &'a Reader<ModelMemory>,
    prefix: &[u8],
) -> Watch<'a> {
    let entry = prefixes::register(&core.memory, &core.geometry, Owner::new(1, 1), prefix);
    assert!(entry.is_some(), "it is free");
    let prefix = Prefix::new(reader, &reader.geometry, prefix, entry).expect("no damage");
    watch_one(reader, One::Prefix(prefix))
}

fn watch_one(reader: &Reader<ModelMemory>, one: One) -> Watch<'_> {
    Watch { reader, watcher: Watcher::new(reader.memory.clone(), &reader.geometry, one, 1) }
}

impl Watch<'_> {
    /// Sleeps until the key has changed; forever, if nobody wakes it.
    pub fn wait(&mut self) -> Change {
        let mut bed = Plain {
            memory: self.reader.memory.clone(),
            geometry: self.reader.geometry,
            announces: true,
        };
        let told = self.watcher.wait(self.reader, Deadline::NEVER, &mut bed, || false);
        let told = told.expect("no damage");
        told.expect("there is no deadline")
    }

    /// Whether it has changed since.
    pub fn look(&mut self) -> Option<Change> {
        self.watcher.look(self.reader).expect("no damage")
    }
}

/// A reader of a process that is named by a number.
pub fn reader(memory: ModelMemory, geometry: StoreGeometry, process: u32) -> Reader<ModelMemory> {
    Reader::claim(memory, geometry, Owner::new(process, 1)).expect("a free record")
}

/// Sets keys in one batch.
pub fn commit(core: &mut Core<ModelMemory>, keys: &[&[u8]], value: &[u8]) {
    let changes: Vec<_> = keys.iter().map(|key| BatchChange::set(key, value)).collect();
    core.commit(&changes).expect("room");
}

/// The memory of a core, for another one that takes the same lock.
pub fn locked(core: &Core<ModelMemory>) -> ModelMemory {
    core.memory.clone()
}
