//! Golden segments: files of this layout version, read by whatever the library is today.
//!
//! What must hold: every message, value and error comes out as it stands here, whoever wrote the
//! segment. They change only where the layout version does, or while none of that version has been
//! released. `RINGWAY_WRITE_GOLDEN=1 cargo test --test golden` writes them anew.
//!
//! What in them belongs to the machine that wrote them:
//! - Process ids, pid namespaces and boot ids of sides and of users. All of them had closed their
//!   ends, so nobody is looked for.
//! - Device, inode and times of a store's file. A copy is not the file that was closed, so it is
//!   opened as one that a power failure has left, and all its indexes are computed anew. One test
//!   writes its own file's marks into the copy, so that the indexes are read as they were closed.
//! - Byte order, word size and the C library's mutex. Another machine's segments are refused, which
//!   is what the header is for; there the tests are skipped.
#![cfg(not(loom))]
#![allow(unsafe_code, missing_docs)]

#[path = "golden/open.rs"]
mod open;
#[path = "golden/sparse.rs"]
mod sparse;
#[path = "golden/write.rs"]
mod write;

use std::fs;
use std::path::Path;

use bytemuck::{AnyBitPattern, NoUninit};
use open::{Scratch, golden, in_file, in_memory, is_made_the_closed_one, put, under_name};
use ringway::Schema;
use ringway::channel::{
    Channel, ChannelOptions, LossyChannel, LossyReceiver, Side, SlotChannel, TypedChannel,
};
use ringway::error::{Corruption, RecvError, SegmentError};
use ringway::store::{OpenError, Store};
use ringway::typed::{Archived, Pod};
use write::{lossy_options, on, store_options};

#[derive(Debug, Clone, Copy, PartialEq, Schema, NoUninit, AnyBitPattern)]
#[repr(C)]
struct Tick {
    number: u64,
    price: i64,
}

#[derive(Debug, Schema, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Order {
    id: u32,
    names: Vec<String>,
    limit: Option<u64>,
}

fn order() -> Order {
    Order { id: 9, names: vec!["first".to_owned(), "a longer name".to_owned()], limit: Some(77) }
}

/// Bytes that are never the same a few bytes on.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 256 + len) as u8).collect()
}

/// What remains to be received, with tags, up to the error that ends it.
fn drain(channel: &mut Channel) -> (Vec<(u16, Vec<u8>)>, RecvError) {
    let mut messages = Vec::new();
    loop {
        match channel.recv() {
            Ok(message) => messages.push((message.tag(), message.to_vec())),
            Err(error) => return (messages, error),
        }
    }
}

#[test]
fn records_unread_in_a_file_come_whole_and_in_order() {
    let Some(scratch) = in_file("records") else { return };
    let mut second = Channel::open(scratch.path(), &on(Side::Second)).expect("the second side");
    for (tag, bytes) in [(0, b"".to_vec()), (7, b"tagged".to_vec()), (0, pattern(600))] {
        let message = second.recv().expect("a message");
        assert_eq!((message.tag(), message.bytes()), (tag, &*bytes));
        assert_eq!(message.call(), None);
    }
    let question = second.recv().expect("a message");
    assert_eq!(question.bytes(), b"question");
    assert!(question.call().is_some());
    let (last, end) = drain(&mut second);
    assert_eq!(last, [(0, b"last".to_vec())]);
    assert_eq!(end, RecvError::Disconnected);
    let mut first = Channel::open(scratch.path(), &on(Side::First)).expect("the first side");
    assert_eq!(first.recv().expect("a message").bytes(), b"and back");
    // The old segment still carries what is new.
    first.send(&pattern(700)).expect("room");
    assert_eq!(second.recv().expect("a message").bytes(), pattern(700));
}

#[test]
fn records_unread_under_a_name_come_whole_and_in_order() {
    let Some(named) = under_name("records") else { return };
    let mut second = Channel::open(&*named.0, &on(Side::Second)).expect("the second side");
    let (messages, end) = drain(&mut second);
    let lens: Vec<_> = messages.iter().map(|(_, bytes)| bytes.len()).collect();
    assert_eq!(lens, [0, 6, 600, 8, 4]);
    assert_eq!(end, RecvError::Disconnected);
}

#[test]
fn a_spoilt_record_is_found_behind_the_whole_ones() {
    let Some(scratch) = in_file("records_corrupt") else { return };
    let mut second = Channel::open(scratch.path(), &on(Side::Second)).expect("the second side");
    let (messages, end) = drain(&mut second);
    assert_eq!(messages, [(0, b"whole".to_vec())]);
    let spoilt =
        Corruption::Record { header: 0xdead_0000_0000_0016, position: 16, capacity_bytes: 1024 };
    assert_eq!(end, RecvError::Corrupt(spoilt));
    assert_eq!(second.recv().map(|_| ()), Err(RecvError::Corrupt(spoilt)), "latched");
}

#[test]
fn a_fragment_that_does_not_follow_is_found() {
    let Some(scratch) = in_file("fragments_corrupt") else { return };
    let mut second = Channel::open(scratch.path(), &on(Side::Second)).expect("the second side");
    let (messages, end) = drain(&mut second);
    assert_eq!(messages, []);
    let spoilt = Corruption::Fragment { word: 8, len: 40, position: 640, expected: 560 };
    assert_eq!(end, RecvError::Corrupt(spoilt));
}

#[test]
fn records_unread_in_a_memory_file_come_whole_and_in_order() {
    let Some(fd) = in_memory("anonymous") else { return };
    let mut second = Channel::attach(fd, &ChannelOptions::default()).expect("the second side");
    let (messages, end) = drain(&mut second);
    assert_eq!(messages, [(0, b"one".to_vec()), (u16::MAX, pattern(100))]);
    assert_eq!(end, RecvError::Disconnected);
}

#[test]
fn typed_messages_are_of_the_same_type_still() {
    let Some(fd) = in_memory("typed") else { return };
    let again = fd.try_clone().expect("a descriptor");
    let mut second =
        TypedChannel::<Pod<u64>, Archived<Order>>::attach(fd, &ChannelOptions::default())
            .expect("the second side");
    let found = second.recv().expect("an order");
    assert_eq!(found.id.to_native(), 9);
    assert!(found.names.iter().map(|name| name.as_str()).eq(["first", "a longer name"]));
    assert_eq!(found.limit.as_ref().map(|limit| limit.to_native()), Some(77));
    let other = TypedChannel::<Pod<u64>, Pod<u64>>::attach(again, &ChannelOptions::default());
    assert!(
        matches!(other, Err(SegmentError::Types { found: 4_980_022_329_495_395_796, .. })),
        "{other:?}"
    );
}

#[test]
fn slots_unread_come_in_order() {
    let Some(fd) = in_memory("slots") else { return };
    let mut second =
        SlotChannel::<u64, Tick>::attach(fd, &ChannelOptions::default()).expect("the second side");
    for number in 100..125 {
        assert_eq!(second.recv(), Ok(Tick { number, price: -(number as i64) }));
    }
    assert_eq!(second.recv(), Err(RecvError::Disconnected));
}

#[test]
fn a_spoilt_slot_is_found_behind_the_whole_ones() {
    let Some(fd) = in_memory("slots_corrupt") else { return };
    let mut second =
        SlotChannel::<u64, Tick>::attach(fd, &ChannelOptions::default()).expect("the second side");
    for number in 100..110 {
        assert_eq!(second.recv(), Ok(Tick { number, price: -(number as i64) }));
    }
    let spoilt = Corruption::Record { header: 0xdead, position: 640, capacity_bytes: 1024 };
    assert_eq!(second.recv(), Err(RecvError::Corrupt(spoilt)));
}

#[test]
fn a_lossy_ring_says_what_was_lost() {
    let Some(scratch) = in_file("lossy") else { return };
    let channel =
        LossyChannel::open(scratch.path(), &lossy_options()).expect("the receiver's side");
    let mut receiver: LossyReceiver = channel.into_end();
    let mut numbers = Vec::new();
    let end = loop {
        match receiver.recv() {
            Ok(message) => {
                let number = message.number();
                assert_eq!(message.bytes(), pattern(number as usize));
                assert_eq!(u64::from(message.tag()), number);
                numbers.push((number, message.lost_before()));
            }
            Err(error) => break error,
        }
    };
    let expected = [(92, 92), (93, 0), (94, 0), (95, 0), (96, 0), (97, 0), (98, 0), (99, 0)];
    assert_eq!(numbers, expected);
    assert_eq!(end, RecvError::Disconnected);
    assert_eq!(receiver.stats().lost, 92);
}

#[test]
fn a_spoilt_record_of_a_lossy_ring_is_found() {
    let Some(scratch) = in_file("lossy_corrupt") else { return };
    let channel =
        LossyChannel::open(scratch.path(), &lossy_options()).expect("the receiver's side");
    let mut receiver: LossyReceiver = channel.into_end();
    let mut received = Vec::new();
    let end = loop {
        match receiver.recv() {
            Ok(message) => received.push(message.number()),
            Err(error) => break error,
        }
    };
    assert_eq!(received, [92, 93, 94, 95, 96, 97, 98]);
    let spoilt = Corruption::Sequence { found: 1 << 40, expected: 99, position: 6944 };
    assert_eq!(end, RecvError::Corrupt(spoilt));
}

/// Looks at everything that was in the store before the last batch.
fn look(store: &Store) {
    let value = |key: &str| store.get(key).expect("in order").map(|value| value.to_vec());
    for number in (7..200).step_by(2) {
        assert_eq!(value(&format!("key {number}")), Some(format!("value {number}").into_bytes()));
    }
    for number in (0..200).step_by(2) {
        assert_eq!(value(&format!("key {number}")), None);
    }
    assert_eq!(value("key 1").as_deref(), Some(&b"replaced"[..]));
    assert_eq!(value("key 3"), None);
    assert_eq!(value("empty").as_deref(), Some(&b""[..]));
    assert_eq!(value("long"), Some(pattern(5000)));
    assert_eq!(
        store.get([0, 0xff]).expect("in order").as_deref(),
        Some(&b"a key that is no text"[..])
    );
    assert_eq!(value("counter"), Some(42_i64.to_ne_bytes().to_vec()));
    let tick = store.get_pod::<Tick>("tick").expect("a tick").expect("a value");
    assert_eq!(*tick, Tick { number: 3, price: -4 });
    let order = store.get_archived::<Order>("order").expect("an order").expect("a value");
    assert_eq!((order.id.to_native(), order.names.len()), (9, 2));
}

/// The three keys of the last batch, and the one that it deletes.
fn batch(store: &Store) -> [Option<Vec<u8>>; 4] {
    ["both a", "both b", "both c", "key 5"]
        .map(|key| store.get(key).expect("in order").map(|value| value.to_vec()))
}

const OLD: [Option<&[u8]>; 4] = [Some(b"1"), Some(b"2"), None, Some(b"value 5")];
const NEW: [Option<&[u8]>; 4] = [Some(b"new"), Some(b"new"), Some(b"new"), None];

#[test]
fn a_store_has_all_its_values() {
    let Some(scratch) = in_file("store") else { return };
    let copying = Store::open_read_only(scratch.path()).expect("the store");
    look(&copying);
    assert_eq!(batch(&copying), OLD.map(|value| value.map(<[u8]>::to_vec)));
    let store = Store::open(scratch.path(), &store_options()).expect("the store");
    look(&store);
    assert_eq!(batch(&store), OLD.map(|value| value.map(<[u8]>::to_vec)));
    store.check().expect("in order");
    assert_eq!(store.len(), Ok(107));
    let version = |key: &str| store.get(key).expect("in order").expect("a value").version();
    assert_eq!(["key 199", "key 1", "counter", "both b"].map(version), [200, 301, 308, 311]);
    // The old segment still takes what is new.
    store.set("key 0", b"again").expect("room");
    assert!(version("key 0") > version("both b"));
    store.check().expect("in order");
}

#[test]
fn a_closed_store_has_its_indexes_in_order() {
    let Some(scratch) = in_file("store") else { return };
    if !is_made_the_closed_one(&scratch.path()) {
        return;
    }
    let store = Store::open(scratch.path(), &store_options()).expect("the store");
    store.check().expect("in order");
    look(&store);
    // What was not closed goes on 2^40 versions higher.
    let version = store.set("key 0", b"again").expect("room");
    assert!(version < 1 << 40, "the store was taken for another one: version {version}");
    store.check().expect("in order");
}

#[test]
fn a_batch_that_was_not_committed_is_not_there() {
    let Some(scratch) = in_file("store_before_commit") else { return };
    let copying = Store::open_read_only(scratch.path()).expect("the store");
    assert_eq!(batch(&copying), OLD.map(|value| value.map(<[u8]>::to_vec)));
    let store = Store::open(scratch.path(), &store_options()).expect("the store");
    look(&store);
    assert_eq!(batch(&store), OLD.map(|value| value.map(<[u8]>::to_vec)));
    store.check().expect("in order");
}

#[test]
fn a_batch_that_was_committed_is_there_as_a_whole() {
    let Some(scratch) = in_file("store_after_commit") else { return };
    let copying = Store::open_read_only(scratch.path()).expect("the store");
    assert_eq!(batch(&copying), NEW.map(|value| value.map(<[u8]>::to_vec)));
    let store = Store::open(scratch.path(), &store_options()).expect("the store");
    look(&store);
    assert_eq!(batch(&store), NEW.map(|value| value.map(<[u8]>::to_vec)));
    store.check().expect("in order");
}

#[test]
fn a_store_with_one_spoilt_byte_of_a_value_is_refused() {
    let Some(mut bytes) = golden("store") else { return };
    let at = bytes.windows(9).position(|found| found == b"value 199").expect("the value");
    bytes[at] ^= 1;
    let scratch = Scratch::new("spoilt-store");
    put(&scratch, &bytes);
    let refused = Store::open(scratch.path(), &store_options());
    assert!(
        matches!(
            refused,
            Err(OpenError::Segment(SegmentError::Damaged { what: "a block's checksum" }))
        ),
        "{refused:?}"
    );
}

#[test]
fn the_public_part_of_a_store_is_read_by_copying() {
    let Some(fd) = in_memory("store_public") else { return };
    let store = Store::attach_read_only(fd).expect("the store");
    assert_eq!(store.get("motd").expect("in order").as_deref(), Some(&b"hello"[..]));
    assert!(store.get("gone").expect("in order").is_none());
    let tick = store.get_pod::<Tick>("tick").expect("a tick").expect("a value");
    assert_eq!(*tick, Tick { number: 5, price: 6 });
    assert_eq!(store.len(), Ok(2));
}

#[test]
fn the_golden_segments_are_small() {
    let Some(_) = golden("store") else { return };
    let files = fs::read_dir(Path::new("tests/golden")).expect("the directory");
    let sizes = files.map(|file| file.expect("a file").metadata().expect("its size").len());
    assert!(sizes.sum::<u64>() < 1 << 20);
}
