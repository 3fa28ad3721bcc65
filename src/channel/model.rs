//! Channels in loom's memory, for the models: `--cfg loom` only.
//!
//! `tests/loom_channel.rs` runs the shipping ends over it and plays supervisor and host. What
//! always holds: it only puts together what `Channel::anonymous` and the host put together over
//! mapped memory.

use std::sync::Arc;

use super::connection::Connection;
use super::{CarryReport, LossyReceiver, LossySender, Receiver, Sender};
use crate::error::ExitReason;
use crate::layout::{RING_SLACK_BYTES, ring, side};
use crate::memory::ModelMemory;
use crate::ring::RingGeometry;
use crate::ring::lossy::LossyGeometry;
use crate::wakeup::{WaitStrategy, Waiter};

/// One side of a channel: both ends, and what supervisor and host hold of it.
#[derive(Debug)]
pub struct Side {
    connection: Arc<Connection<ModelMemory>>,
    /// The sending end.
    pub sender: Sender<ModelMemory>,
    /// The receiving end.
    pub receiver: Receiver<ModelMemory>,
}

/// What supervisor and host hold of a side.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Connection<ModelMemory>>);

/// A new channel whose rings have this capacity; its ends park at once.
pub fn pair(capacity_bytes: u64) -> [Side; 2] {
    let (memory, rings) = two_rings(capacity_bytes, ModelMemory::new);
    [0, 1].map(|side| {
        let connection = Arc::new(Connection::new(memory.clone(), rings, side));
        let waiter = || Waiter::new(WaitStrategy::Park, false);
        let sender = Sender::new(Arc::clone(&connection), waiter()).expect("fresh");
        let receiver = Receiver::new(Arc::clone(&connection), waiter()).expect("fresh");
        Side { connection, sender, receiver }
    })
}

/// A new lossy channel of this capacity, whose receiver parks at once, and what the receiver's
/// supervisor holds.
pub fn lossy_pair(
    capacity_bytes: u64,
) -> (LossySender<ModelMemory>, LossyReceiver<ModelMemory>, Handle) {
    let (memory, rings) = two_rings(capacity_bytes, ModelMemory::racing);
    let geometry = LossyGeometry::new(rings[0]).expect("geometry");
    let connection = |side| Arc::new(Connection::new(memory.clone(), rings, side));
    let (near, far) = (connection(0), connection(1));
    let waiter = Waiter::new(WaitStrategy::Park, false);
    let sender = LossySender::new(near, geometry).expect("fresh");
    let receiver = LossyReceiver::new(Arc::clone(&far), geometry, waiter).expect("fresh");
    (sender, receiver, Handle(far))
}

/// Drops a lossy sender without closing it, as a process that is killed does.
pub fn forget_lossy(sender: LossySender<ModelMemory>) {
    sender.forget();
}

/// Two rings of this capacity in a memory that is made from its length and its words.
fn two_rings(
    capacity_bytes: u64,
    make: fn(u64, Vec<u64>, Vec<u64>) -> ModelMemory,
) -> (ModelMemory, [RingGeometry; 2]) {
    let region = capacity_bytes + RING_SLACK_BYTES;
    let data =
        [ring::CONTROL[1] + ring::CONTROL_BYTES, ring::CONTROL[1] + ring::CONTROL_BYTES + region];
    let halves = (0..2).flat_map(|index| {
        let (line, control) = (side::LINE[index], ring::CONTROL[index]);
        [
            line + side::STATE,
            line + side::POISONED,
            line + side::PID,
            control + ring::CONSUMER_WAITING,
            control + ring::CONSUMER_CLOSED,
            control + ring::PRODUCER_WAITING,
            control + ring::PRODUCER_CLOSED,
        ]
    });
    let words = (0..2).flat_map(|index| {
        let control = ring::CONTROL[index];
        [control + ring::SPACE_WANTED]
            .into_iter()
            .chain((control + ring::HEAD..=control + ring::CONSUMER_STRAY_REPLIES).step_by(8))
            .chain((control + ring::LOSSES[0]..=control + ring::LOSSES[1] + 8).step_by(8))
            .chain((control + ring::TAIL..=control + ring::PRODUCER_DROPPED).step_by(8))
            .chain((control + ring::INTENT..=control + ring::RETIRED).step_by(8))
            .chain((control + ring::LANDMARKS..).step_by(8).take(ring::LANDMARK_COUNT as usize))
            .chain((data[index]..data[index] + capacity_bytes).step_by(8))
    });
    let memory = make(data[1] + region, halves.collect(), words.collect());
    let geometry = |index: usize| {
        RingGeometry::new(&memory, ring::CONTROL[index], data[index], capacity_bytes, 8)
            .expect("geometry")
    };
    let rings = [geometry(0), geometry(1)];
    (memory, rings)
}

impl Side {
    /// What supervisor and host hold of this side.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.connection))
    }

    /// Drops the ends without closing them, as a process that is killed does, or a host that makes
    /// this side the next incarnation of another one.
    pub fn forget(self) -> Handle {
        let Self { connection, sender, receiver } = self;
        sender.forget();
        receiver.forget();
        Handle(connection)
    }
}

impl Handle {
    /// As the supervisor: the peer has died.
    pub fn peer_died(&self, successor_expected: bool) {
        self.0.peer_died(ExitReason::Signal(9), successor_expected);
    }

    /// As the host: `new` is the next incarnation.
    pub fn succeed(&self, new: &Self) -> CarryReport {
        self.0.succeed(Arc::clone(&new.0), false).expect("fresh")
    }
}
