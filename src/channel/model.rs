//! Channels in loom's memory, for the models: `--cfg loom` only.
//!
//! `tests/loom_channel.rs` runs the shipping ends over it and plays supervisor and host. What
//! always holds: it only puts together what `Channel::anonymous` and the host put together over
//! mapped memory.

use std::sync::{Arc, Weak};

use super::attachment::Lookout;
use super::connection::Connection;
use super::{CarryReport, LossyReceiver, LossySender, Receiver, Sender};
use crate::error::ExitReason;
use crate::layout::{RING_SLACK_BYTES, ring, side};
use crate::memory::ModelMemory;
use crate::ring::RingGeometry;
use crate::ring::lossy::LossyGeometry;
use crate::segment::{attach_side, read_side};
use crate::sync::Mutex;
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
    [0, 1].map(|side| Side::of(Connection::new(memory.clone(), rings, side)))
}

/// One side of a channel with a name, the place at the other, and who knows which processes live.
pub fn strangers(capacity_bytes: u64) -> (Side, Place, Kernel) {
    let (memory, rings) = two_rings(capacity_bytes, ModelMemory::new);
    let kernel = Kernel::default();
    let side = Arc::new_cyclic(|weak| {
        *kernel.0.connection.lock().expect("no panic") = weak.clone();
        Connection::new(memory.clone(), rings, 0).watched_by(Box::new(kernel.clone()))
    });
    side.look_first();
    (Side::over(side), Place { memory, rings }, kernel)
}

/// The second side of a channel with a name, one process after another.
#[derive(Debug, Clone)]
pub struct Place {
    memory: ModelMemory,
    rings: [RingGeometry; 2],
}

impl Place {
    /// As the next process: takes the side.
    pub fn attach(&self) -> Side {
        let line = read_side(&self.memory, 1);
        attach_side(&self.memory, 1, &line);
        let connection = Connection::new(self.memory.clone(), self.rings, 1);
        connection.announce();
        Side::of(connection)
    }
}

/// Which processes at the second side live: all whose attachments are later than the last death.
#[derive(Debug, Clone, Default)]
pub struct Kernel(Arc<Processes>);

#[derive(Debug, Default)]
struct Processes {
    connection: std::sync::Mutex<Weak<Connection<ModelMemory>>>,
    state: Mutex<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    dead: u32,
    watched: u32,
}

impl Kernel {
    /// The process that attached as this number dies; tells who watches it.
    pub fn kill(&self, attaches: u32) {
        let mut state = self.0.state.lock().expect("no panic");
        state.dead = attaches;
        let told = state.watched == attaches;
        drop(state);
        if told {
            self.tell(attaches);
        }
    }

    /// Tells of a death, however late.
    pub fn tell(&self, attaches: u32) {
        let connection = self.0.connection.lock().expect("no panic").upgrade();
        if let Some(connection) = connection {
            connection.stranger_died(attaches);
        }
    }
}

impl Lookout for Kernel {
    fn watch(&self, attaches: u32) -> bool {
        let mut state = self.0.state.lock().expect("no panic");
        state.watched = attaches;
        attaches > state.dead
    }

    fn is_current(&self) -> bool {
        true
    }

    fn leaving(&self) {}

    fn left(&self) {}
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
            line + side::ATTACHES,
            line + side::WAKES,
            control + ring::CONSUMER_WAITING,
            control + ring::CONSUMER_CLOSED,
            control + ring::PRODUCER_WAITING,
            control + ring::PRODUCER_CLOSED,
        ]
    });
    let words = (0..2).flat_map(|index| {
        let control = ring::CONTROL[index];
        let line = side::LINE[index];
        [control + ring::SPACE_WANTED]
            .into_iter()
            .chain(
                [side::PIDFD_INODE, side::PID_NAMESPACE, side::BOOT, side::TOKEN, side::FLUSHED]
                    .map(|word| line + word),
            )
            .chain((control + ring::HEAD..=control + ring::CONSUMER_MISSED).step_by(8))
            .chain((control + ring::LOSSES[0]..=control + ring::LOSSES[1] + 8).step_by(8))
            .chain((control + ring::TAIL..=control + ring::PRODUCER_MISSED).step_by(8))
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
    fn of(connection: Connection<ModelMemory>) -> Self {
        Self::over(Arc::new(connection))
    }

    fn over(connection: Arc<Connection<ModelMemory>>) -> Self {
        let waiter = || Waiter::new(WaitStrategy::Park, false);
        let sender = Sender::new(Arc::clone(&connection), waiter()).expect("whole");
        let receiver = Receiver::new(Arc::clone(&connection), waiter()).expect("whole");
        Self { connection, sender, receiver }
    }

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
