// What is compared. Read into two modules, in which `ringway` is one of two commits of the library: the old commit's
// own copy of this file into the one, this one into the other. So a commit that changes the interface changes it here.

use std::hint::black_box;

use super::{Case, OPS, Row};
use ringway::channel::{
    Channel, ChannelOptions, LossyChannel, LossyOptions, LossyReceiver, LossySender, Receiver,
    Sender, SlotChannel, SlotReceiver, SlotSender,
};
use ringway::store::{Store, StoreOptions};

const CAPACITY_BYTES: u64 = 256 << 10;

/// What is sent, at the same place in its cache line on both sides.
#[repr(align(64))]
struct Payload([u8; 1024]);

fn payload() -> Box<Payload> {
    Box::new(Payload([7; 1024]))
}

struct Records {
    sender: Sender,
    receiver: Receiver,
    payload: Box<Payload>,
    len: usize,
}

impl Records {
    fn new(len: usize) -> Box<dyn Case> {
        let options =
            ChannelOptions { capacity_bytes: CAPACITY_BYTES, ..ChannelOptions::default() };
        let (near, far) = Channel::pair(&options).expect("a channel");
        Box::new(Self { sender: near.split().0, receiver: far.split().1, payload: payload(), len })
    }
}

impl Case for Records {
    fn first(&mut self) {
        for _ in 0..OPS {
            self.sender.send(black_box(&self.payload.0[..self.len])).expect("room");
        }
    }

    fn second(&mut self) {
        for _ in 0..OPS {
            black_box(self.receiver.recv().expect("a message").bytes());
        }
    }
}

struct Slots {
    sender: SlotSender<u64>,
    receiver: SlotReceiver<u64>,
}

impl Slots {
    fn new() -> Box<dyn Case> {
        let options =
            ChannelOptions { capacity_bytes: CAPACITY_BYTES, ..ChannelOptions::default() };
        let (near, far) = SlotChannel::<u64, u64>::pair(&options).expect("a channel");
        Box::new(Self { sender: near.split().0, receiver: far.split().1 })
    }
}

impl Case for Slots {
    fn first(&mut self) {
        for number in 0..OPS {
            self.sender.send(black_box(&number)).expect("room");
        }
    }

    fn second(&mut self) {
        for _ in 0..OPS {
            black_box(self.receiver.recv().expect("a value"));
        }
    }
}

struct Lossy {
    sender: LossySender,
    receiver: LossyReceiver,
    payload: Box<Payload>,
    len: usize,
}

impl Lossy {
    fn new(len: usize) -> Box<dyn Case> {
        let options = LossyOptions { capacity_bytes: CAPACITY_BYTES, ..LossyOptions::default() };
        let (sender, receiver) = LossyChannel::pair(&options).expect("a channel");
        Box::new(Self { sender, receiver, payload: payload(), len })
    }
}

impl Case for Lossy {
    fn first(&mut self) {
        for _ in 0..OPS {
            self.sender.send(black_box(&self.payload.0[..self.len])).expect("never full");
        }
    }

    fn second(&mut self) {
        for _ in 0..OPS {
            black_box(self.receiver.recv().expect("a message").bytes());
        }
    }
}

/// Sets and gets the same keys.
struct Values {
    store: Store,
    keys: Vec<String>,
}

fn store() -> Store {
    Store::anonymous(&StoreOptions { capacity_bytes: 8 << 20, ..StoreOptions::default() })
        .expect("a store")
}

fn keys(prefix: &str) -> Vec<String> {
    (0..OPS).map(|number| format!("{prefix} of number {number:03}")).collect()
}

impl Values {
    fn new() -> Box<dyn Case> {
        Box::new(Self { store: store(), keys: keys("key") })
    }
}

impl Case for Values {
    fn first(&mut self) {
        for key in &self.keys {
            self.store.set(black_box(key), &[7; 64]).expect("room");
        }
    }

    fn second(&mut self) {
        for key in &self.keys {
            let value = self.store.get(black_box(key)).expect("in order").expect("a value");
            black_box(&*value);
        }
    }
}

/// Gets keys that are not there, beside as many that are; in the second place asks for these.
struct Absent {
    store: Store,
    present: Vec<String>,
    absent: Vec<String>,
}

impl Absent {
    fn new() -> Box<dyn Case> {
        let (store, present) = (store(), keys("key"));
        for key in &present {
            store.set(key, &[7; 64]).expect("room");
        }
        Box::new(Self { store, present, absent: keys("none") })
    }
}

impl Case for Absent {
    fn first(&mut self) {
        for key in &self.absent {
            black_box(self.store.get(black_box(key)).expect("in order").is_none());
        }
    }

    fn second(&mut self) {
        for key in &self.present {
            black_box(self.store.contains(black_box(key)).expect("in order"));
        }
    }
}

/// All of them: what they are called, and what their halves are.
pub fn rows() -> Vec<Row> {
    vec![
        Row { case: "records 8 B", halves: ["send", "receive"], make: || Records::new(8) },
        Row { case: "records 64 B", halves: ["send", "receive"], make: || Records::new(64) },
        Row { case: "records 1 KiB", halves: ["send", "receive"], make: || Records::new(1024) },
        Row { case: "slots 8 B", halves: ["send", "receive"], make: || Slots::new() },
        Row { case: "lossy 8 B", halves: ["send", "receive"], make: || Lossy::new(8) },
        Row { case: "lossy 64 B", halves: ["send", "receive"], make: || Lossy::new(64) },
        Row { case: "store 64 B", halves: ["set", "get"], make: || Values::new() },
        Row { case: "store", halves: ["get absent", "contains"], make: || Absent::new() },
    ]
}
