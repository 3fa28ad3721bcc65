//! Bits of a store in order that were flipped: every operation ends, and none panics.

use super::between::Between;
use super::block::Block;
use super::core::Core;
use super::error::ReadError;
use super::handle::{Side, Store};
use super::owner::Owner;
use super::reader::Reader;
use super::table::Place;
use super::tests::geometry;
use super::{BatchChange as Change, CopyingReader, StoreOptions, Verify};
use crate::memory::{HeapMemory, Memory, Ordering};

const KEYS: u32 = 60;

fn key(number: u32) -> [u8; 4] {
    number.to_le_bytes()
}

/// A store with a table in the making, holes, something retired and a deletion.
fn words() -> Vec<u64> {
    let geometry = geometry(256 << 10);
    let memory = HeapMemory::new(geometry.len_bytes());
    let mut core = Core::new(memory.clone(), geometry);
    core.format().unwrap();
    for number in 0..KEYS {
        core.set(&key(number), &vec![7; [0, 100, 700, 5000][number as usize % 4]]).unwrap();
    }
    core.set(&key(1), b"again").unwrap();
    core.delete(&key(2)).unwrap();
    memory.to_words()
}

/// All operations, whatever they say to it.
fn operate(memory: &Between) {
    let geometry = geometry(256 << 10);
    let mut core = Core::new(memory.clone(), geometry);
    for number in [0, 1, 2, 3, KEYS - 1, KEYS] {
        let _ = core.set(&key(number), b"new");
        let _ = core.delete(&key(number + 4));
    }
    let keys = [key(8), key(9), key(10)];
    let _ = core.commit(&[
        Change::set(&keys[0], b"v"),
        Change::delete(&keys[1]),
        Change::set(&keys[2], b""),
    ]);
    let _ = core.set(&key(11), &[1; 40_000]);
    let _ = core.give_back();
    if let Some(reader) = Reader::claim(memory.clone(), geometry, Owner::new(1, 1)) {
        let _ = (0..KEYS).filter(|number| reader.get(&key(*number)).is_ok()).count();
        let _ = reader.entries(b"").take(10_000).count();
        let _ = reader.read_many(&keys);
    }
    let copying = CopyingReader::new(memory.clone(), geometry);
    let _ = copying.iter().take(10_000).count();
    let _ = copying.read_many(&keys);
    let _ = core.check();
    let _ = core.recover();
    let _ = core.clear();
    let _ = core.rebuild();
    let _ = core.set(b"last", b"v");
}

/// Fails where a loop goes where a damaged word leads, and on.
#[test]
fn f52_every_operation_on_a_damaged_store_ends() {
    let words = words();
    let memory = |words: &[u64]| Between::writable(HeapMemory::from_words(words));
    let intact = memory(&words);
    let usual = intact.accesses_of(|| operate(&intact));
    let (mut seed, mut most) = (1_u64, 0);
    for number in 0..1200_u64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut flipped = words.clone();
        // Half of them where the writer's words and the descriptors are, the others anywhere.
        let start = if number % 2 == 0 { 384 / 8 } else { 0 };
        let end = if number % 2 == 0 { 1500 } else { words.len() as u64 };
        let at = start + (seed >> 20) % (end - start);
        flipped[at as usize] ^= 1 << (seed >> 58);
        let damaged = memory(&flipped);
        let accesses = damaged.accesses_of(|| operate(&damaged));
        most = accesses.max(most);
        assert!(accesses < 60 * usual, "word {at}, bit {}: {accesses} accesses", seed >> 58);
    }
    println!("{usual} accesses in an intact store, at most {most} in a damaged one");
}

fn block_of(store: &Store, key: &[u8]) -> Block {
    let Side::Writable(writable) = &store.side else { panic!("writable") };
    let core = Core::new(writable.shared.memory.clone(), writable.shared.geometry);
    let Place::Present { block, .. } = core.find(key).unwrap().1 else { panic!("present") };
    block
}

fn flip(store: &Store, offset: u64) {
    let Side::Writable(writable) = &store.side else { panic!("writable") };
    let memory = &writable.shared.memory;
    let word = memory.load_u64(offset, Ordering::Relaxed);
    memory.store_u64(offset, word ^ 4, Ordering::Relaxed);
}

fn options(verify: Verify) -> StoreOptions {
    StoreOptions { capacity_bytes: 1 << 20, max_readers: 4, verify, ..Default::default() }
}

/// Fails where a value is read without a look at its checksum.
#[test]
fn f52_a_flipped_value_is_an_error_where_every_read_is_verified() {
    for (verify, fails) in [(Verify::Never, false), (Verify::EveryRead, true)] {
        let store = Store::anonymous(&options(verify)).unwrap();
        store.set("k", &[7; 300]).unwrap();
        assert_eq!(store.get("k").unwrap().unwrap().len(), 300);
        flip(&store, block_of(&store, b"k").value() + 64);
        let clone = store.try_clone().unwrap();
        for store in [&store, &clone] {
            let damaged = |error: Option<ReadError>| error == fails.then_some(ReadError::Damaged);
            assert!(damaged(store.get("k").err()), "{verify:?}");
            assert!(damaged(store.read_many(&["k"]).err()), "{verify:?}");
            assert!(damaged(store.iter().find_map(Result::err)), "{verify:?}");
        }
        let reading = Store::attach_read_only(store.descriptor_read_only().unwrap()).unwrap();
        reading.verify_reads(verify == Verify::EveryRead);
        assert_eq!(reading.get("k").is_err(), fails, "{verify:?}");
    }
}

/// A key in a slot that no search for it finds is met again and again. Fails where `clear` goes on deleting it.
#[test]
fn f52_a_key_that_no_search_finds_does_not_hold_up_clear() {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let options =
            StoreOptions { capacity_bytes: 128 << 10, max_readers: 4, ..options(Verify::Never) };
        let store = Store::anonymous(&options).unwrap();
        let readers = [(); 3].map(|()| store.try_clone().unwrap());
        let mut keys = 0_u32;
        while store.set(key(keys), &[7; 900]).is_ok() {
            keys += 1;
        }
        // Readers hold what was replaced out of the reserve, so that an empty table has no room either.
        let mut held = Vec::new();
        let full = (0..keys).find(|number| {
            held.push(readers[*number as usize % 3].get(key(*number)).unwrap());
            store.set(key(*number), &[8; 900]).is_err()
        });
        assert!(full.is_some(), "the reserve is used up");
        for number in 0..keys {
            flip(&store, block_of(&store, &key(number)).key());
        }
        tell.send(store.clear()).unwrap();
    });
    // Otherwise it would not end at all.
    let cleared = told.recv_timeout(std::time::Duration::from_secs(60)).expect("clear ends");
    assert_eq!(cleared, Err(super::WriteError::Damaged));
}
