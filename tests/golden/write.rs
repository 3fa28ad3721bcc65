//! Writes the golden segments: each of a few kilobytes, with something unread or damaged in it.
//!
//! Invariants: whoever had a segment has closed it in the ordinary way before it is copied, but for
//! the two stores whose writer stops inside of a batch.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ringway::channel::{
    Channel, ChannelOptions, LossyChannel, LossyOptions, LossyReceiver, LossySender, Side,
    SlotChannel, TypedChannel,
};
use ringway::layout::store::{BATCH, usage};
use ringway::layout::{LINE_BYTES, side};
use ringway::memory::{CrashMemory, FenceMode};
use ringway::store::{BatchChange, CopyingReader, Core, Store, StoreHeader, StoreOptions};
use ringway::typed::{Archived, Pod};

use super::open::{Scratch, path_of};
use super::{Order, Tick, order, pattern, sparse};

/// Rings of 1024 bytes. Whether fences can be left out depends on the machine, so they are not.
fn options() -> ChannelOptions {
    ChannelOptions {
        capacity_bytes: 1024,
        max_message_bytes: 4096,
        fence: Some(FenceMode::Real),
        ..ChannelOptions::default()
    }
}

pub fn lossy_options() -> LossyOptions {
    LossyOptions { capacity_bytes: 1024, fence: Some(FenceMode::Real), ..LossyOptions::default() }
}

pub fn on(side: Side) -> ChannelOptions {
    ChannelOptions { side: Some(side), ..options() }
}

pub fn store_options() -> StoreOptions {
    StoreOptions { capacity_bytes: 128 << 10, max_readers: 2, ..StoreOptions::default() }
}

fn save(name: &str, bytes: &[u8]) {
    fs::write(path_of(name), sparse::pack(bytes)).expect("the golden segment");
}

/// The bytes of a memory file.
fn dump(fd: OwnedFd) -> Vec<u8> {
    let file = File::from(fd);
    let mut bytes = vec![0; file.metadata().expect("a file").len() as usize];
    file.read_exact_at(&mut bytes, 0).expect("the segment");
    bytes
}

/// Writes over the word before the only place where the bytes are `payload`.
fn spoil(mut bytes: Vec<u8>, payload: &[u8], distance: usize, word: u64) -> Vec<u8> {
    let places: Vec<_> = bytes.windows(payload.len()).enumerate().collect();
    let mut places = places.into_iter().filter(|(_, found)| *found == payload);
    let (at, _) = places.next().expect("the payload");
    assert!(places.next().is_none(), "the payload comes twice");
    bytes[at - distance..][..8].copy_from_slice(&word.to_ne_bytes());
    bytes
}

/// Writes all of them.
pub fn all() {
    fs::create_dir_all(Path::new(&path_of("")).parent().expect("a directory")).expect("it");
    records();
    anonymous();
    typed();
    slots();
    lossy();
    store();
    public_store();
}

/// A channel in a file, with unread messages both ways, the one way around the ring's end.
fn records() {
    let scratch = Scratch::new("records");
    let (mut first, mut second) = {
        let first = Channel::create(scratch.path(), &on(Side::First)).expect("a channel");
        (first, Channel::open(scratch.path(), &on(Side::Second)).expect("the same"))
    };
    first.send(&pattern(400)).expect("room");
    first.send(&pattern(300)).expect("room");
    second.recv().expect("a message");
    second.recv().expect("a message");
    // Frees what was received.
    assert!(second.try_recv().is_err());
    first.send(b"").expect("room");
    first.sender().send_tagged(7, b"tagged").expect("room");
    first.send(&pattern(600)).expect("room, in fragments");
    let _question = first.begin_call(b"question").expect("room");
    first.send(b"last").expect("room");
    second.send(b"and back").expect("room");
    drop((first, second));
    save("records", &scratch.bytes());
    drop(scratch);

    let scratch = Scratch::new("spoilt");
    let mut first = Channel::create(scratch.path(), &on(Side::First)).expect("a channel");
    first.send(b"whole").expect("room");
    first.send(b"behind a spoilt header").expect("room");
    drop(first);
    let bytes = spoil(scratch.bytes(), b"behind a spoilt header", 8, 0xdead_0000_0000_0016);
    save("records_corrupt", &bytes);
    drop(scratch);

    let scratch = Scratch::new("pieces");
    let mut first = Channel::create(scratch.path(), &on(Side::First)).expect("a channel");
    first.send(&[0xab; 600]).expect("room");
    drop(first);
    // The second piece says that it begins at byte 8 of the message.
    let mut bytes = scratch.bytes();
    let words: Vec<_> = bytes.chunks_exact(8).collect();
    let payload = [0xab; 8];
    let second = words.windows(2).rposition(|pair| pair[0] != payload && pair[1] == payload);
    bytes[second.expect("a piece") * 8..][..8].copy_from_slice(&8_u64.to_ne_bytes());
    save("fragments_corrupt", &bytes);
}

/// A memory file, payloads aligned to 64 bytes.
fn anonymous() {
    let options = ChannelOptions { payload_align: 64, ..options() };
    let mut first = Channel::anonymous(&options).expect("a channel");
    let fd = first.descriptor().expect("a descriptor");
    first.send(b"one").expect("room");
    first.sender().send_tagged(u16::MAX, &pattern(100)).expect("room");
    drop(first);
    save("anonymous", &dump(fd));
}

fn typed() {
    let mut first =
        TypedChannel::<Archived<Order>, Pod<u64>>::anonymous(&options()).expect("a channel");
    let fd = first.descriptor().expect("a descriptor");
    first.send(&order()).expect("room");
    drop(first);
    save("typed", &dump(fd));
}

/// Slots, unread around the ring's end; and with one that no sender writes.
fn slots() {
    let mut first = SlotChannel::<Tick, u64>::anonymous(&options()).expect("a channel");
    let fd = first.descriptor().expect("a descriptor");
    let mut second =
        SlotChannel::<u64, Tick>::attach(first.descriptor().expect("a descriptor"), &options())
            .expect("the same");
    for number in 0..20 {
        first.send(&Tick { number, price: -1 }).expect("room");
        second.recv().expect("a tick");
    }
    assert!(second.try_recv().is_err());
    for number in 100..125 {
        first.send(&Tick { number, price: -(number as i64) }).expect("room");
    }
    drop(first);
    let mut bytes = dump(fd);
    // A side of a memory file is attached once only: as if nobody had been there.
    bytes[side::LINE[1] as usize..][..LINE_BYTES as usize].fill(0);
    save("slots", &bytes);
    let tick = [110_u64.to_ne_bytes(), (-110_i64).to_ne_bytes()].concat();
    save("slots_corrupt", &spoil(bytes, &tick, 8, 0xdead));
}

/// A lossy channel in a file: more was sent than it holds.
fn lossy() {
    let scratch = Scratch::new("lossy");
    let mut sender: LossySender =
        LossyChannel::create(scratch.path(), &lossy_options()).expect("a channel").into_end();
    let receiver: LossyChannel<LossyReceiver> =
        LossyChannel::open(scratch.path(), &lossy_options()).expect("the same");
    for number in 0..100_u64 {
        sender.send_tagged(number as u16, &pattern(number as usize)).expect("never full");
    }
    drop((sender, receiver));
    save("lossy", &scratch.bytes());
    // The number stands between header and payload.
    save("lossy_corrupt", &spoil(scratch.bytes(), &pattern(99), 8, 1 << 40));
}

/// A store in a file: values of all kinds, a table that has grown, deletions; then a writer of it
/// that stops before and behind the commit of a batch.
fn store() {
    let scratch = Scratch::new("store");
    let store = Store::create(scratch.path(), &store_options()).expect("a store");
    for number in 0..200_u64 {
        store.set(format!("key {number}"), format!("value {number}").as_bytes()).expect("room");
    }
    for number in (0..200).step_by(2) {
        assert!(store.delete(format!("key {number}")).expect("in order"));
    }
    store.set("key 1", b"replaced").expect("room");
    store.set("empty", b"").expect("room");
    store.set("long", &pattern(5000)).expect("room");
    store.set([0, 0xff], b"a key that is no text").expect("room");
    store.set_pod("tick", &Tick { number: 3, price: -4 }).expect("room");
    store.set_archived("order", &order()).expect("room");
    store.fetch_add("counter", 41).expect("room");
    store.fetch_add("counter", 1).expect("room");
    store.batch().set("both a", "1").set("both b", "2").delete("key 3").commit().expect("room");
    drop(store);
    let bytes = scratch.bytes();
    save("store", &bytes);
    batch(&bytes);
}

fn batch(closed: &[u8]) {
    let header = closed[..128].try_into().expect("a header");
    let geometry = StoreHeader::from_header(header, closed.len() as u64).expect("one").geometry;
    let words: Vec<u64> = closed
        .chunks_exact(8)
        .enumerate()
        .map(|(index, word)| match index as u64 * 8 {
            // In use, which its low half says; the other half is a process id.
            usage::CLEAN => 0,
            _ => u64::from_ne_bytes(word.try_into().expect("a word")),
        })
        .collect();
    let memory = CrashMemory::from_words(&words);
    let mut core = Core::new(memory.clone(), geometry);
    memory.record();
    let changes = [
        BatchChange::set(b"both a", b"new"),
        BatchChange::set(b"both b", b"new"),
        BatchChange::set(b"both c", b"new"),
        BatchChange::delete(b"key 5"),
    ];
    core.commit(&changes).expect("room");
    let crash = memory.crash();
    // Every store in program order, as long as the batch is under way.
    let images = (0..=crash.stores().count()).map(|at| crash.image_at(at, 0));
    let under_way = images.filter(|image| image.words()[(BATCH / 8) as usize] != 0);
    let (after, before): (Vec<_>, Vec<_>) = under_way.partition(|image| {
        let reader = CopyingReader::new(image.to_heap(), geometry);
        let found = reader.get(b"both a").expect("in order").expect("a value");
        &*found == b"new"
    });
    for (name, image) in [
        ("store_before_commit", before.last().expect("the batch's last moment")),
        ("store_after_commit", after.first().expect("its first moment")),
    ] {
        let bytes: Vec<u8> = image.words().iter().flat_map(|word| word.to_ne_bytes()).collect();
        save(name, &bytes);
    }
}

/// The part of a store without a name that others may read.
fn public_store() {
    let store = Store::anonymous(&store_options()).expect("a store");
    store.set("motd", b"hello").expect("room");
    store.set("gone", b"soon").expect("room");
    store.delete("gone").expect("in order");
    store.set_pod("tick", &Tick { number: 5, price: 6 }).expect("room");
    let fd = store.descriptor_read_only().expect("a descriptor");
    drop(store);
    save("store_public", &dump(fd));
}
