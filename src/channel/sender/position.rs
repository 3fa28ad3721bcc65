//! How far the receiver has come, for who keeps something for it beside the ring.
//!
//! Publishers of large publications ask it. What always holds: a receiver that lies about it harms
//! nobody but itself: what was kept for it goes early, or as late as if it never read.

use super::Sender;
use crate::layout::ring;
use crate::memory::{Memory, Ordering};

impl<M: Memory> Sender<M> {
    /// The position behind what was sent last.
    pub(crate) fn position(&self) -> u64 {
        self.producer.tail()
    }

    /// Whether the receiver has gone, as far as is known without asking.
    pub(crate) fn is_over(&self) -> bool {
        let (memory, geometry) = (self.producer.memory(), self.producer.geometry());
        let closed = geometry.control(ring::CONSUMER_CLOSED);
        // Relaxed: nothing is read because of it.
        !self.connection.is_alive(self.known) || memory.load_u32(closed, Ordering::Relaxed) != 0
    }

    /// Whether the receiver has taken, and has done with, all that lies before a position at which this
    /// sender was; or never will, because it has gone.
    pub(crate) fn is_past(&self, position: u64) -> bool {
        let (memory, geometry) = (self.producer.memory(), self.producer.geometry());
        if self.is_over() {
            return true;
        }
        // Relaxed: what is kept for the receiver is given back under a lock that it does not share, and
        // nothing is read because of this.
        let head = memory.load_u64(geometry.control(ring::HEAD), Ordering::Relaxed);
        head.wrapping_sub(position) as i64 >= 0
    }
}
